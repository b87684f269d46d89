"""Refreshing a tiny run: with drift and without, promoted and not, stopped and rolled back."""

import json
import random
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import pipeline as transformers_pipeline

from setpoint import pipeline, stages
from setpoint.cli import main
from setpoint.errors import DataError, RunError
from setpoint.job import open_job
from setpoint.recipe_file import parse_recipe
from setpoint.run_folder import RunFolder
from setpoint.shipping import refreshing
from setpoint.shipping.kept import Versions, rollback
from setpoint.shipping.new_data import read_new
from setpoint.shipping.refresh import refresh
from setpoint.shipping.refreshing import HELD_OUT, Refreshing, tenth
from setpoint.shipping.shipped import Shipped
from setpoint.shipping.versions import promoted
from setpoint.targets.teacher import FrozenTeacher
from tiny import ner_recipe, sentences


def others(n, seed=1, swap=False):
    """Sentences of people and places that nobody in the run has heard of; with ``swap`` old ones under wrong tags."""
    draw, text = random.Random(seed), []
    people, places = ("dora", "emil", "fritz"), ("kiel", "bonn", "ulm")
    if swap:
        people, places = ("paris", "rome", "oslo"), ("anna", "bob", "carla")
    for _ in range(n):
        who, where = (lambda: f"{draw.choice(people)} B-PER"), (lambda: f"{draw.choice(places)} B-LOC")
        words = [who(), "lives O", "in O", where(), "in O", where(), who()][: draw.randint(2, 7)]
        if swap:
            draw.shuffle(words)
        text += [*words, ""]
    return "\n".join(text)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, teacher_folder):
    """A finished run, not to be changed."""
    folder = tmp_path_factory.mktemp("refresh")
    raw = ner_recipe(folder, teacher_folder)
    (folder / "dev.conll").write_text(sentences(60, 48))
    raw |= {"hard_baseline": False, "seeds": [0], "objective": {"alpha": 0.3}}
    pipeline.run(parse_recipe(raw, folder=folder), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def refreshed(finished, tmp_path_factory):
    """The same run refreshed on others, without a stop; and what that gave."""
    folder = tmp_path_factory.mktemp("refreshed")
    shutil.copytree(finished, folder / "run")
    return folder / "run", refresh(folder / "run", data(folder, others(120)))


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def asked(monkeypatch):
    """The examples that the teacher was asked about."""
    names, call = [], FrozenTeacher.__call__

    def counted(self, batch):
        if self.name == "teacher":
            names.extend(batch["example_id"])
        return call(self, batch)

    monkeypatch.setattr(FrozenTeacher, "__call__", counted)
    return names


def data(tmp_path, text, name="new.conll"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_same(one, two):
    one, two = weights(one), weights(two)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_without_drift_nothing_is_distilled(run, tmp_path, asked):
    found = refresh(run, data(tmp_path, sentences(60, 200)))
    assert not found["drift"]["drifted"]
    assert (found["gate"], found["promoted"]) == (None, None)
    assert found["sentences"][-1] == "Nothing was distilled; --force does it all the same."
    assert not (run / "versions").exists()
    assert len(asked) == 60


def test_drift_is_learnt_and_the_better_student_promoted(refreshed, finished):
    run, found = refreshed
    assert found["drift"]["drifted"]
    assert found["gate"]["promote"]
    assert found["gate"]["on_new"]["low"] > 0
    assert found["promoted"] == Versions(run).current == "2"
    assert_same(finished / "student/seed-0", run / "versions/1")
    (place,) = (run / "refreshes").iterdir()
    assert json.loads((place / "refresh.json").read_text()) == found
    shipped = Shipped.open(promoted(run / "versions"))  # what a server does with the folder
    assert shipped.folder == run / "versions/2"
    (answer,) = shipped.predict([["dora", "lives", "in", "kiel"]])
    assert [word["label"] for word in answer["words"]] == ["B-PER", "O", "O", "B-LOC"]
    said = transformers_pipeline("token-classification", str(run / "versions/2"))("dora lives in kiel")
    assert [part["entity"] for part in said if part["index"] == 1] == ["B-PER"]


def test_the_teacher_is_asked_of_each_new_example_once_and_of_nothing_else(run, refreshed, tmp_path, asked):
    new = data(tmp_path, others(120))
    assert refresh(run, new) == refreshed[1]
    assert len(asked) == len(set(asked)) == 120
    assert all(name.startswith("new-") for name in asked)


def test_a_refresh_that_is_done_is_not_done_again_and_can_be_taken_back(refreshed, tmp_path, asked, monkeypatch):
    shutil.copytree(refreshed[0], tmp_path / "run")
    run, new = tmp_path / "run", data(tmp_path, others(120))
    monkeypatch.setattr(stages, "train", None)
    assert refresh(run, new) == refreshed[1]
    assert asked == []
    assert rollback(run) == Versions(run).current == "1"
    with pytest.raises(RunError, match="version 1 of '.*' is its first: there is nothing to go back to"):
        rollback(run)


def test_no_example_that_was_learnt_decides(run, tmp_path, monkeypatch):
    learnt, train = [], stages.train

    def kept(job, model, processor, *rest):
        learnt.extend(example["id"] for example in job.training_data(processor))
        return train(job, model, processor, *rest)

    monkeypatch.setattr(stages, "train", kept)
    scored, gate = [], Refreshing.scored

    def seen(self, folder, tenths):
        scored.extend(example["id"] for example in self.part(self.examples(self.processor), tenths))
        return gate(self, folder, tenths)

    monkeypatch.setattr(Refreshing, "scored", seen)
    refresh(run, data(tmp_path, others(120)))
    new = [name for name in learnt if name.startswith("new-")]
    old = [name for name in learnt if name.startswith("train-")]
    assert scored
    assert not set(scored) & set(learnt)
    assert all(tenth(name) in HELD_OUT for name in scored)
    assert len(old) == min(48, 2 * len(new))


@pytest.mark.slow
def test_a_student_that_has_forgotten_the_old_is_not_promoted(run, tmp_path, monkeypatch):
    """It learns, with nothing old beside it, that people are places."""
    monkeypatch.setattr(refreshing, "REPLAY", 0)
    found = refresh(run, data(tmp_path, others(200, swap=True)))
    assert found["gate"]["on_new"]["low"] > 0
    assert found["gate"]["on_old"]["high"] < 0
    assert not found["gate"]["promote"]
    assert found["promoted"] is None
    assert found["sentences"][-1].endswith("so the student before it stays.")
    assert not (run / "versions").exists()


def test_a_student_that_is_no_better_on_the_new_is_not_promoted(run, tmp_path):
    """Forced, on data that the student knows all of."""
    known = "\n".join(
        f"{who} B-PER\nlives O\nin O\n{where} B-LOC\n" + more
        for who in ("anna", "bob", "carla") for where in ("paris", "rome", "oslo")
        for more in ("", "in O\n", "anna B-PER\n", "rome B-LOC\n", "lives O\n", "bob B-PER\n")
    )  # fmt: skip
    found = refresh(run, data(tmp_path, known), force=True)
    assert found["gate"]["on_new"]["low"] <= 0
    assert (found["gate"]["promote"], found["promoted"]) == (False, None)


@pytest.mark.parametrize("unlabelled", ["all", pytest.param("half", marks=pytest.mark.slow)])
def test_what_has_no_label_is_judged_by_the_teacher(run, tmp_path, unlabelled):
    blocks = [block.split("\n") for block in others(100).split("\n\n")]
    rows = [{"tokens": [line.split()[0] for line in block if line]} for block in blocks]
    if unlabelled == "half":
        for row, block in list(zip(rows, blocks, strict=True))[::2]:
            row["ner_tags"] = [line.split()[1] for line in block if line]
    new = data(tmp_path, "\n".join(map(json.dumps, rows)), "new.jsonl")
    judges = {"all": "the teacher's classes", "half": "labels, or where there are none by the teacher's classes"}
    on_new, _ = refresh(run, new)["gate"]["sentences"]
    assert on_new.startswith(f"On the new data, judged by {judges[unlabelled]}, the new student is ")


class Stopped(Exception):
    pass


@pytest.mark.parametrize(
    "where", ["kept", *(pytest.param(name, marks=pytest.mark.slow) for name in ("measured", "trained", "decided"))]
)
def test_a_refresh_that_was_stopped_goes_on_to_the_same_end(run, refreshed, tmp_path, monkeypatch, where):
    new, (other, whole) = data(tmp_path, others(120)), refreshed
    place = {
        "measured": (Refreshing, "temperatures"),
        "trained": (Refreshing, "gate"),
        "decided": (Refreshing, "promote"),
        "kept": (Versions, "promote"),
    }[where]

    def stop(*_, **__):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(*place, stop)
        with pytest.raises(Stopped):
            refresh(run, new)
    assert Versions(run).current is None
    assert refresh(run, new) == whole
    assert sorted(folder.name for folder in (run / "versions").iterdir()) == ["1", "2", "current"]
    assert_same(run / "versions/2", other / "versions/2")


@pytest.mark.slow
def test_another_refresh_begins_from_the_current_student(refreshed, tmp_path):
    shutil.copytree(refreshed[0], tmp_path / "run")
    run = tmp_path / "run"
    found = refresh(run, data(tmp_path, others(120, seed=5), "more.conll"), force=True)
    notes = [json.loads(file.read_text()) for file in (run / "refreshes").glob("*/base.json")]
    assert sorted(notes, key=str) == [{"base": "2"}, {"base": None}]
    assert found["promoted"] in (None, "3")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("anna B-PER\n\n", "has 1 examples: give 50 or more"),
        ("anna\n\n", "token 'anna' has no tag"),
        ("anna B-DOG\n\n" * 60, "data.refresh has the label 'B-DOG', which is none of O, B-LOC, B-PER"),
        ("anna B-LOC\nanna B-LOC\nanna B-LOC\n\n" * 60, "has too few examples that differ: give more of them"),
    ],
)
def test_data_that_do_not_do_are_refused(run, tmp_path, text, sentence):
    with pytest.raises(DataError, match=sentence):
        refresh(run, data(tmp_path, text), force=True)


def test_what_cannot_be_refreshed_is_refused(run, tmp_path):
    with pytest.raises(RunError, match=r"none' has no metrics.json"):
        refresh(tmp_path / "none", tmp_path / "x")
    with pytest.raises(DataError, match=r"--data '.*x.jsonl' does not exist"):
        refresh(run, tmp_path / "x.jsonl")
    with pytest.raises(RunError, match="has no versions: promote one with setpoint refresh first"):
        rollback(run)
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["teacher"]["calibrate"] = True
    (run / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(RunError, match=r"has teacher.calibrate, which setpoint refresh does not know"):
        refresh(run, tmp_path / "x.jsonl")


def test_the_commands_say_it(run, tmp_path, monkeypatch, capsys):
    new = data(tmp_path, sentences(60, 200))

    def setpoint(*arguments):
        monkeypatch.setattr(sys, "argv", ["setpoint", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        out, error = capsys.readouterr()
        return left.value.code, " ".join(out.split()), error

    code, words, _ = setpoint("refresh", run, "--data", new)
    assert not code
    assert words.startswith("The new data are like the old as far as this can tell. Compared were 60 new examples")
    assert words.endswith("--force does it all the same.")
    assert json.loads(setpoint("refresh", run, "--data", new, "--json")[1])["promoted"] is None
    code, words, error = setpoint("rollback", run)
    assert (code, words, error.count("\n")) == (2, "", 1)
    assert "has no versions: promote one with setpoint refresh first" in error


def test_an_example_has_one_name_wherever_it_stands(run, tmp_path):
    with RunFolder(run) as folder:
        job = open_job(parse_recipe(json.loads((run / "recipe.json").read_text())), folder)
    rows = [{"tokens": ["anna"]}, {"tokens": ["bob"], "ner_tags": ["B-PER"]}, {"tokens": ["anna"], "ner_tags": None}]
    found = read_new(job, data(tmp_path, "\n".join(map(json.dumps, rows)), "one.jsonl"))
    again = read_new(job, data(tmp_path, "\n".join(map(json.dumps, rows[1:])), "two.jsonl"))
    first, second, third = found.examples["id"]
    assert list(again.examples["id"]) == [second, first]
    assert third == first.removesuffix("0") + "1"
    assert tenth(first) == tenth(third)  # the same sentence is never learnt and kept for the gate
    assert found.unlabelled == {first, third}
    assert list(found.examples["label"]) == [[0], [2], [0]]
