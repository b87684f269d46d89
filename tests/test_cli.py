import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DIGITS = str(ROOT / "recipes/digits.yaml")


def setpoint(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "setpoint", *map(str, arguments)], capture_output=True, text=True, check=False, cwd=cwd
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "none.yaml"],
            "setpoint: recipe 'none.yaml' cannot be read (No such file or directory): give the path",
        ),
        (
            ["run", DIGITS, "--set", "train.epoch=3"],
            "setpoint: recipe field 'train.epoch' is unknown: did you mean 'epochs'?",
        ),
        (["run", DIGITS, "--set", "temperature=0"], "setpoint: recipe field 'temperature' is 0: "),
        (
            ["recipe", "--check", DIGITS, "--set", "objective.alpha=2"],
            "setpoint: recipe field 'objective.alpha' is 2: ",
        ),
        (
            ["run", DIGITS, "--set", "teacher.train=null"],
            "setpoint: teacher.model is a bare config, which knows nothing yet: ",
        ),
    ],
)
def test_a_mistake_is_one_sentence_on_stderr_and_exit_2(arguments, message, tmp_path):
    result = setpoint(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("metrics.json"))


def test_a_right_recipe_is_silence(tmp_path):
    result = setpoint("recipe", "--check", DIGITS)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    shown = setpoint("recipe", DIGITS, "--json")
    assert json.loads(shown.stdout)["temperature"]["temperature"] == 4


def test_it_knows_its_version():
    assert setpoint("--version").stdout == f"setpoint {version('setpoint')}\n"


def test_fields_are_listed():
    lines = setpoint("recipe", "--fields").stdout.splitlines()
    assert any(line.startswith("temperature.beta") for line in lines)
    assert any(line.startswith("train.learning_rate") for line in lines)
    assert json.loads(setpoint("recipe", "--fields", "--json").stdout) == lines


def test_a_run_prints_json_and_nothing_else(tmp_path):
    quick = [
        "--set",
        "train.epochs=1",
        "--set",
        "teacher.train.epochs=1",
        "--set",
        "seeds=[0]",
        "--set",
        "data.limit=100",
    ]
    result = setpoint("run", DIGITS, "--run-dir", tmp_path / "run", *quick, "--json")
    assert result.returncode == 0, result.stderr
    metrics = json.loads(result.stdout)
    assert metrics == json.loads((tmp_path / "run/metrics.json").read_text())
    table = setpoint("run", DIGITS, "--run-dir", tmp_path / "run", *quick)
    assert "student, distilled" in table.stdout
    assert "classes: student, distilled" in table.stdout
    assert "Report: " in table.stdout
    assert (tmp_path / "run/report.html").exists()
