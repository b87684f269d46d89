"""Calibration and several teachers, from a recipe."""

import json

import pytest
import torch

from setpoint import pipeline, teachers
from setpoint.errors import ModelError, RecipeError, SetpointWarning
from setpoint.job import open_job
from setpoint.maths.calibration import calibration_error
from setpoint.maths.solving import calibrate_temperature
from setpoint.maths.tempering import log_temper
from setpoint.recipe_file import parse_recipe
from setpoint.run_folder import RunFolder
from setpoint.vision import SmallResNetConfig, SmallResNetForImageClassification
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


def times(folder):
    return {file.stem: file.stat().st_mtime_ns for file in (folder / "stages").glob("*.json")}


@pytest.mark.slow
def test_a_change_redoes_what_it_changes_and_no_more(two, tmp_path):
    two |= {"seeds": [0], "train": two["train"] | {"epochs": 1}}
    pipeline.run(parse_recipe(two, folder=tmp_path), tmp_path / "run")
    before = times(tmp_path / "run")

    def redone(raw):
        pipeline.run(parse_recipe(raw, folder=tmp_path), tmp_path / "run")
        after = times(tmp_path / "run")
        changed = {name for name in after if after[name] != before.get(name)}
        before.update(after)
        return changed

    students = {"student-seed-0", "evaluation"}
    assert redone(two) == set()
    assert redone(two | {"teacher": two["teacher"] | {"combine": "logits"}}) == {"calibration", *students}
    assert redone(two | {"student": two["student"] | {"dropout": 0.2}}) == {
        "calibration", "student_hard-seed-0", *students
    }  # fmt: skip
    assert redone(two) == {"student_hard-seed-0", *students}


def test_starting_over_forgets_the_second_store_too(two, tmp_path):
    two |= {"seeds": [0], "hard_baseline": False, "train": two["train"] | {"epochs": 1}}
    pipeline.run(parse_recipe(two, folder=tmp_path), tmp_path / "run")
    torch.manual_seed(2)
    save_teacher(tmp_path / "second", labels=("O", "B-LOC", "B-PER")).save_pretrained(tmp_path / "second")
    pipeline.run(parse_recipe(two, folder=tmp_path), tmp_path / "run", fresh=True)


def test_live_teachers_share_a_tokenizer(two, tmp_path):
    from setpoint.pretraining import train_tokenizer

    train_tokenizer(["anna lives in paris rome"] * 3, vocab_size=110).save_pretrained(tmp_path / "second")
    two |= {"targets": {"kind": "live"}}
    with pytest.raises(ModelError, match=r"teacher.others.0.model has another tokenizer than the teacher: set targets"):
        pipeline.run(parse_recipe(two, folder=tmp_path), tmp_path / "run")


@pytest.mark.parametrize(
    ("temperature", "sentence"),
    [
        ({"policy": "softness", "other_mass": 0.3, "end": 1.5}, "end is 1.5: give a number between 0 and 1"),
        ({"policy": "adakd", "strength": 200}, "strength is 200.0: give a number from 0 to 100"),
        ({"policy": "softness", "effective_classes": 20},
         "recipe field 'temperature.effective_classes' is 20 for 3 classes: give a number below 3"),
    ],
)  # fmt: skip
def test_a_temperature_that_cannot_be_is_refused_before_anything_is_trained(ner, tmp_path, temperature, sentence):
    with pytest.raises(RecipeError, match=sentence), RunFolder(tmp_path / "run") as folder:
        open_job(parse_recipe(ner | {"temperature": temperature}, folder=tmp_path), folder)


def test_a_teacher_that_is_always_right_is_taken_as_it_is(ner, tmp_path):
    """It has no finite temperature of least loss: the search ends at 0.001, which would make labels of its logits."""
    metrics = pipeline.run(parse_recipe(ner | {"seeds": [0]}, folder=tmp_path), tmp_path / "first")
    assert metrics["teacher"]["metrics"]["f1"] == 1.0
    raw = ner | {"teacher": {"model": str(tmp_path / "first/teacher"), "calibrate": True}}
    with pytest.warns(SetpointWarning, match="right or wrong on all of them"):
        _, _, mark = prepared(raw, tmp_path)
    assert mark["result"]["teachers"][0]["temperature"] == 1.0


def test_a_second_teacher_that_is_missing_is_named_by_its_field(two, tmp_path):
    two["teacher"] |= {"others": [{"model": "./nowhere"}]}
    with pytest.raises(ModelError, match="^teacher.others.0.model"):
        pipeline.run(parse_recipe(two, folder=tmp_path), tmp_path / "run")


def test_a_teacher_may_be_a_config_with_weights_once_its_classes_are_named(tmp_path):
    torch.manual_seed(0)
    model = SmallResNetForImageClassification(SmallResNetConfig(num_channels=1, depth=1, widths=(4,), num_labels=10))
    model.eval().save_pretrained(tmp_path / "made")
    config = {"model_type": "setpoint-resnet", "num_channels": 1, "depth": 1, "widths": [4]}
    spec = {"kind": "config", "config": config, "weights": "./made/model.safetensors"}
    names = [str(i) for i in reversed(range(10))]
    raw = {
        "name": "image", "task": "image-classification", "data": {"dataset": "digits", "limit": 32},
        "teacher": {"model": spec, "labels": names}, "student": {"model": {"kind": "config", "config": config}},
        "targets": {"dtype": "float32"},
    }  # fmt: skip
    got, _, _ = prepared(raw, tmp_path)
    with RunFolder(tmp_path / "other") as folder:
        job = open_job(parse_recipe(raw, folder=tmp_path), folder)
    pixels = job.task.collate(None)(job.encoded("validation", None))["pixel_values"]
    torch.testing.assert_close(got, model(pixel_values=pixels).logits.detach().flip(-1))
    raw["teacher"] = {"model": spec}
    with pytest.raises(ModelError, match="the teacher has no names for its 10 classes"):
        prepared(raw, tmp_path, "unnamed")
