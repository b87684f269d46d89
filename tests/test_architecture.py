"""House rules that can be read off the source: levels are import-linter's, in `make check`."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "setpoint"
FILES = sorted(SOURCE.rglob("*.py"))
PURE = (
    "objective.py", "types.py", "prior.py", "reasons.py", "checking.py", "explain.py", "explaining.py",
    "explanation.py", "over_temperature.py", "by_row.py", "rows.py", "overfitting.py", "slides.py", "history.py",
    "explaining_run.py",
)  # fmt: skip
MATHS = [f for f in FILES if f.parent.name in ("maths", "temperature") or f.name in PURE]


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("file", MATHS, ids=lambda f: f.name)
def test_the_maths_layer_imports_torch_and_little_else(file):
    allowed = {"torch", "jaxtyping", "setpoint", "__future__", "math", "dataclasses", "typing", "collections", "abc"}
    allowed |= {"functools", "inspect", "contextlib", "random", "scipy"}
    assert {name.partition(".")[0] for name in imports(file)} <= allowed
    machine = ("recipe", "files", "targets", "tasks", "models", "training", "stages", "pipeline", "cli")
    assert not [name for name in imports(file) if name.startswith(tuple(f"setpoint.{m}" for m in machine))]


def test_insight_never_imports_the_trainer():
    for file in (SOURCE / "insight").glob("*.py"):
        assert not {"setpoint.training", "setpoint.stages", "setpoint.pipeline"} & set(imports(file)), file


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_no_file_grows_out_of_the_head(file):
    assert len(file.read_text().splitlines()) <= 400


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_nothing_unsafe_is_loaded(file):
    calls = [ast.unparse(node) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    unsafe = ("eval(", "exec(", "torch.load(", "pickle.", "yaml.unsafe_load(", "yaml.full_load(")
    assert not [call for call in calls if call.startswith(unsafe) or "trust_remote_code=True" in call]
    assert "pickle" not in set(imports(file))


def test_the_square_of_a_temperature_is_in_one_place():
    """The scale T_teacher·T_student is made by one function; no other line multiplies a temperature by another."""
    pattern = re.compile(
        r"(temperature|\bT|tau|\bt)\w*(\.\w+)?\s*(\*\*\s*2|\*\s*(temperature|\bt\b|\bs\b))|\.square\(\)"
    )
    lines = {
        f"{file.relative_to(SOURCE)}: {line.strip()}"
        for file in FILES
        for line in file.read_text().splitlines()
        if pattern.search(line.partition("#")[0]) and not line.strip().startswith(("Args", '"""', "`"))
    }
    code = {line for line in lines if "scale=" in line or line.startswith(("temperature", "objective"))}
    assert code == {"temperature/base.py: product = t * s"}
