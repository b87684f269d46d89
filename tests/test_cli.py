import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

import setpoint as library
from worker import command as setpoint

ROOT = Path(__file__).parents[1]
DIGITS = str(ROOT / "recipes/digits.yaml")


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


@pytest.fixture
def logits(tmp_path):
    """Saved logits of 60 rows and 4 classes, right in all rows but every fifth; labels beside them and alone."""
    values = np.random.default_rng(0).normal(size=(60, 4))
    labels = values.argmax(-1)
    labels[::5] = (labels[::5] + 1) % 4
    np.savez(tmp_path / "both.npz", logits=4 * values, labels=labels)
    np.save(tmp_path / "logits.npy", 4 * values)
    np.save(tmp_path / "labels.npy", labels)
    return tmp_path


def test_a_temperature_is_suggested_as_json_and_nothing_else(logits):
    result = setpoint("suggest", "both.npz", "--json", cwd=logits)
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    fields = "temperature low high effective_classes classes rows calibration label_smoothing reasons"
    assert list(found) == fields.split()
    assert (found["classes"], found["rows"]) == (4, 60)
    assert found["low"] < found["temperature"] < found["high"]
    assert found["reasons"][0].startswith(f"At T = {found['temperature']:.3g} the targets have ")
    assert json.loads(setpoint("suggest", "logits.npy", "--labels", "labels.npy", "--json", cwd=logits).stdout) == found
    alone = json.loads(setpoint("suggest", "logits.npy", "--json", cwd=logits).stdout)
    assert alone == found | {"calibration": None, "reasons": found["reasons"][:-1]}


def test_a_temperature_is_suggested_to_people(logits):
    found = json.loads(setpoint("suggest", "both.npz", "--json", cwd=logits).stdout)
    words = " ".join(setpoint("suggest", "both.npz", cwd=logits).stdout.split())
    calibration = found["calibration"]
    errors = f"(error {calibration['ece_before']:.3f} at T = 1, {calibration['ece_after']:.3f} there)"
    assert words.startswith(
        f"temperature {found['temperature']:.3g} to search {found['low']:.3g} to {found['high']:.3g}"
        f" effective classes {found['effective_classes']:.2f} of 4, 60 rows"
        f" calibrated at {calibration['temperature']:.3g} {errors} why {found['reasons'][0]} {found['reasons'][1]}"
    )
    assert "calibrated" not in setpoint("suggest", "logits.npy", cwd=logits).stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.npy"], "'none.npy' does not exist: give the path of saved logits"),
        (
            ["labels.npy"],
            "'labels.npy' has the shape [60]: give one row of logits an example, [N, C]",
        ),
        (
            ["logits.npy", "--labels", "logits.npy"],
            "'logits.npy' has no array 'labels' of whole numbers: save the labels under that name",
        ),
    ],
)
def test_logits_that_cannot_be_read_are_one_sentence_and_exit_2(logits, arguments, sentence):
    result = setpoint("suggest", *arguments, cwd=logits)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"setpoint: {sentence}\n")


def test_a_temperature_is_explained_as_json_and_nothing_else(logits):
    result = setpoint("explain", "--logits", "both.npz", "--temperature", "4", "--alpha", "0.5", "--json", cwd=logits)
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert (found["temperature"], found["alpha"], found["rows"], found["student"]) == (4.0, 0.5, 60, "uniform")
    values, labels = np.load(logits / "both.npz")["logits"], np.load(logits / "both.npz")["labels"]
    explained = library.explain(torch.from_numpy(values), torch.from_numpy(labels), None, 4.0, 0.5)
    assert found == json.loads(json.dumps(asdict(explained)))
    suggested = json.loads(setpoint("suggest", "both.npz", "--json", cwd=logits).stdout)
    default = json.loads(setpoint("explain", "--logits", "both.npz", "--json", cwd=logits).stdout)
    assert (default["temperature"], default["alpha"]) == (suggested["temperature"], 0.9)
    assert default["suggestion"] == suggested


def test_a_temperature_is_explained_to_people(logits):
    """Padding is left out of the student's logits too, whose file knows nothing of it."""
    padded, labels = np.load(logits / "logits.npy").reshape(6, 10, 4), np.load(logits / "labels.npy").reshape(6, 10)
    labels[:, 7:] = -100
    np.savez(logits / "teacher.npz", logits=padded, labels=labels)
    np.save(logits / "student.npy", padded / 2)
    found = setpoint("explain", "--logits", "teacher.npz", "--student", "student.npy", "--temperature", "4", cwd=logits)
    assert (found.returncode, found.stderr) == (0, "")
    words = " ".join(found.stdout.split())
    assert words.startswith("The targets At T = 4 the targets spread over ")
    assert "At α = 0.9 the hard loss makes" in words
    assert "The student has the teacher's top class in 100% of the rows" in words
    assert "rank correlation 1.00" in words
    assert "…" not in found.stdout  # the tables have room in 80 characters
    np.save(logits / "labels.npy", labels)
    np.save(logits / "padded.npy", padded)
    again = setpoint(
        "explain", "--logits", "padded.npy", "--labels", "labels.npy", "--student", "student.npy", "--temperature", "4",
        cwd=logits,
    )  # fmt: skip
    assert again.stdout == found.stdout


def test_an_explanation_has_a_page_where_one_is_wanted(logits):
    result = setpoint("explain", "--logits", "both.npz", "--temperature", "4", "--out", "page.html", cwd=logits)
    assert result.stdout.endswith("Report: page.html\n")
    page = (logits / "page.html").read_text()
    assert "both.npz: why T = 4" in page
    assert 'id="move-the-temperature"' in page
    quiet = setpoint("explain", "--logits", "both.npz", "--out", "page.html", "--json", cwd=logits)
    assert json.loads(quiet.stdout)["classes"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "neither RUN nor --logits is given: give a run's folder, or a teacher's saved logits"),
        (
            ["runs/x", "--logits", "both.npz"],
            "both RUN and --logits are given: give a run's folder, or a teacher's saved logits",
        ),
        (["runs/x", "--alpha", "0.5"], "--alpha is given for a run, which has its own: give it with --logits"),
        (["none"], "'none' has no recipe.json: give the folder of a run that is finished"),
        (["--logits", "both.npz", "--alpha", "2"], "alpha is 2.0: give a number in [0, 1]"),
        (
            ["--logits", "logits.npy", "--student", "labels.npy"],
            "'labels.npy' has the shape [60]: give one row of logits an example, [N, C]",
        ),
        (["runs/x", "--out", "p.html"], "--out is given for a run, which has its own: give it with --logits"),
        (
            ["--logits", "both.npz", "--out", "none/p.html"],
            "'none/p.html' lies in no folder that exists: name a file in a folder that is there",
        ),
    ],
)
def test_what_cannot_be_explained_is_one_sentence_and_exit_2(logits, arguments, sentence):
    result = setpoint("explain", *arguments, cwd=logits)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"setpoint: {sentence}\n")
    assert not (logits / "none").exists()
