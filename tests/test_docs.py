import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from setpoint.catalogue import METHODS
from setpoint.recipe_file import load_recipe, parse_recipe
from setpoint.run_folder import OWN

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def commands():
    return sorted(
        {
            line.split("  #")[0].strip()
            for page in PAGES
            for block in blocks(page, "bash")
            for line in block.splitlines()
        }
        - {""}
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_in_the_pages_runs(page):
    model = nn.Linear(4, 3)
    given = {
        "loader": [(torch.randn(8, 4), torch.randint(0, 3, (8,)))] * 2, "teacher": nn.Linear(4, 3).eval(),
        "student": model, "optimizer": torch.optim.SGD(model.parameters(), 0.1),
    }  # fmt: skip
    before = model.weight.detach().clone()
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), given)
    assert page.name not in ("README.md", "README.zh-CN.md") or not torch.equal(model.weight, before)


def test_the_loop_of_the_readme_is_short():
    (loop,) = blocks(ROOT / "README.md", "python")
    assert len([line for line in loop.splitlines() if line.strip()]) <= 12


@pytest.mark.parametrize("command", commands())
def test_commands_in_the_pages_exist(command):
    program, *words = re.sub(r"^torchrun --nproc-per-node \d -m ", "", command).split()  # run by test_processes.py
    if program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    if program == "python":
        assert (ROOT / words[0]).is_file()
        return
    assert program == "setpoint"
    text = subprocess.run(
        [sys.executable, "-m", "setpoint", words[0], "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in (word for word in words if word.startswith("--")):
        assert option in text, option
    for path in (word for word in words[1:] if word.endswith(".yaml")):
        # What a run leaves in its folder is there once the page's first command has run.
        assert Path(path).name in OWN if path.startswith("runs/") else (ROOT / path).is_file()


@pytest.mark.parametrize(
    "block", [b for page in ("how-to", "images", "features") for b in blocks(ROOT / f"docs/{page}.md", "yaml")]
)
def test_recipes_in_the_pages_are_right(block):
    base = load_recipe(ROOT / "recipes/digits.yaml").model_dump()
    for line in block.splitlines() if block.startswith("temperature") else [block]:
        parse_recipe(base | yaml.safe_load(line.replace("3e-4", "3.0e-4")))


def test_both_languages_show_the_same_code():
    english, chinese = ROOT / "README.md", ROOT / "README.zh-CN.md"
    for language in ("bash", "python"):
        assert blocks(english, language) == blocks(chinese, language)


@pytest.mark.parametrize(
    ("page", "policies", "divergences"),
    [("README.md", r"(\d+) policies", r"(\d+) divergences"), ("README.zh-CN.md", r"(\d+) 种策略", r"(\d+) 种散度")],
)
def test_the_readmes_count_the_methods_right(page, policies, divergences):
    text, kinds = (ROOT / page).read_text(), [method.kind for method in METHODS]
    assert re.findall(policies, text) == [str(kinds.count("temperature"))]
    assert re.findall(divergences, text) == [str(kinds.count("divergence"))]


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda r: r.name)
def test_recipes_are_right(recipe):
    assert load_recipe(recipe).name == recipe.stem


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda e: e.name)
def test_examples_run(example):
    result = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout.split()[-1]) > 0.8
