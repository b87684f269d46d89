"""Calibration and several teachers, from a recipe."""

import json

import pytest
import torch

from setpoint import pipeline, teachers
from setpoint.errors import ModelError
from setpoint.job import open_job
from setpoint.maths.calibration import calibration_error
from setpoint.maths.solving import calibrate_temperature
from setpoint.maths.tempering import log_temper
from setpoint.recipe_file import parse_recipe
from setpoint.run_folder import RunFolder
from tiny import save_teacher


def prepared(raw, folder, run="run"):
    """The targets of a recipe, and a batch they are asked for."""
    with RunFolder(folder / run) as run_folder:
        job = open_job(parse_recipe(raw, folder=folder), run_folder)
        teacher = teachers.load_teacher(job)
        targets = teachers.prepare_targets(job, teacher)
        batch = job.task.collate(teacher.processor)(job.encoded("validation", teacher.processor))
        labels = batch["labels"][batch["labels"] != -100]
        return targets(batch), labels, run_folder.mark("calibration")


@pytest.fixture
def two(ner, tmp_path, teacher_folder):
    """A recipe whose two teachers know nothing, each in its own way."""
    torch.manual_seed(1)
    model = save_teacher(tmp_path / "second", labels=("O", "B-LOC", "B-PER"))
    with torch.no_grad():
        model.classifier.weight.mul_(20)
    model.save_pretrained(tmp_path / "second")
    return ner | {"teacher": {"model": str(teacher_folder), "others": [{"model": "./second"}]}}


def test_a_calibrated_teacher_is_divided_by_the_temperature_of_least_held_out_loss(ner, tmp_path, teacher_folder):
    raw = ner | {"teacher": {"model": str(teacher_folder)}}
    plain, labels, none = prepared(raw, tmp_path)
    assert none is None
    t = calibrate_temperature(plain, labels)
    raw["teacher"] |= {"calibrate": True}
    calibrated, _, mark = prepared(raw, tmp_path)  # in the same folder: the store is not made again
    torch.testing.assert_close(calibrated, plain / t)
    (record,) = mark["result"]["teachers"]
    assert record["temperature"] == pytest.approx(t)
    assert record["ece_before"] == pytest.approx(calibration_error(plain, labels))
    assert record["ece_after"] == pytest.approx(calibration_error(plain, labels, t))


def test_two_teachers_by_quality(two, tmp_path):
    singles = []
    for number, source in enumerate((two["teacher"]["model"], "./second")):
        logits, labels, _ = prepared(two | {"teacher": {"model": source}}, tmp_path, f"single-{number}")
        singles.append(logits)
    two["teacher"] |= {"weighting": "quality"}
    both, _, mark = prepared(two, tmp_path)
    nll = [-log_temper(x, 1.0).gather(-1, labels[:, None]).mean() for x in singles]
    assert [record["nll"] for record in mark["result"]["teachers"]] == pytest.approx([float(x) for x in nll], rel=1e-5)
    weights = torch.stack([-x for x in nll]).softmax(0)
    expected = sum(w * x.softmax(-1) for w, x in zip(weights, singles, strict=True))
    torch.testing.assert_close(both.softmax(-1), expected, rtol=1e-5, atol=1e-6)


def test_a_run_with_two_calibrated_teachers(two, tmp_path):
    two["teacher"] |= {"calibrate": True, "combine": "logits", "weighting": "confidence"}
    two |= {"seeds": [0], "hard_baseline": False}
    metrics = pipeline.run(parse_recipe(two, folder=tmp_path), tmp_path / "run")
    assert len(metrics["teachers"]) == 2
    assert all(record["ece_after"] <= record["ece_before"] + 0.05 for record in metrics["teachers"])
    assert json.loads((tmp_path / "run/metrics.json").read_text())["teachers"] == metrics["teachers"]
    assert (tmp_path / "run/targets-2").is_dir()


def test_a_second_teacher_that_is_missing_is_named_by_its_field(two, tmp_path):
    two["teacher"] |= {"others": [{"model": "./nowhere"}]}
    with pytest.raises(ModelError, match="^teacher.others.0.model"):
        pipeline.run(parse_recipe(two, folder=tmp_path), tmp_path / "run")
