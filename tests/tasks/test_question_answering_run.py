"""A whole run on questions, down to what is shipped."""

import json
import re

import numpy as np
import pytest
from fastapi.testclient import TestClient

from setpoint import pipeline
from setpoint.errors import RecipeError, RunError
from setpoint.insight.explain_run import explain_run
from setpoint.pretraining import train_tokenizer
from setpoint.recipe_file import parse_recipe
from setpoint.shipping.bench import find_inputs
from setpoint.shipping.export import export
from setpoint.shipping.limits import Limits
from setpoint.shipping.predict import predict_files
from setpoint.shipping.refresh import refresh
from setpoint.shipping.run_models import validation_inputs
from setpoint.shipping.server import make_app
from setpoint.shipping.shipped import Shipped
from setpoint.shipping.versions import Served
from setpoint.targets.store import TargetStore
from tiny import NAMES, SMALL


def questions(n, offset=0):
    """Who lives there: the answer is the name before the place, which comes first in the text."""
    rows = []
    for i in range(offset, offset + n):
        people, places = np.roll(NAMES["PER"], i % 3), np.roll(NAMES["LOC"], (i // 3) % 3)
        told = [f"{person} lives in {place}" for person, place in zip(people, places, strict=True)]
        context = " ".join(told[: 1 + i % 3] if i % 4 else told * 2)
        rows.append(
            {
                "id": f"q{i}", "question": f"in {places[0]}", "context": context,
                "answers": {"text": [str(people[0])], "answer_start": [0]},
            }
        )  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def run(tmp_path_factory, teacher_folder):
    folder = tmp_path_factory.mktemp("squad")
    for split, rows in (("train", questions(48)), ("dev", questions(12, 48)), ("test", questions(12, 60))):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train = {"epochs": 8, "batch_size": 8, "learning_rate": 1e-2}
    raw = {
        "name": "tiny",
        "task": "extractive-question-answering",
        "data": {
            "train": "./train.jsonl", "validation": "./dev.jsonl", "test": "./test.jsonl",
            "max_length": 20, "stride": 4,
        },
        "teacher": {
            "model": {"kind": "config", "config": SMALL | {"num_hidden_layers": 2}}, "tokenizer": str(teacher_folder),
            "train": train | {"keep_best": True},
        },
        "student": {"model": {"kind": "config", "config": SMALL}},
        "temperature": 2,
        "train": train,
        "seeds": [0],
    }  # fmt: skip
    metrics = pipeline.run(parse_recipe(raw, folder=folder), folder / "run")
    return folder / "run", metrics


def test_a_run_learns_to_answer(run):
    path, metrics = run
    assert metrics["metric"] == "f1"
    for model in ("teacher", "student_hard", "student"):
        found = metrics[model]["metrics"]
        assert found["questions"] == 12
        assert found["windows"] > 12
        assert found["em"] <= found["f1"] <= 1
    assert metrics["teacher"]["metrics"]["f1"] > 0.8
    assert metrics["student"]["metrics"]["f1"] > metrics["student_initial"]["metrics"]["f1"]
    assert metrics["student"]["agreement"]["kl"] >= 0
    store = TargetStore.open(path / "targets")
    rows = store.all_logits()
    assert rows.shape[1] == 20
    assert np.isneginf(rows).any()
    assert np.isfinite(rows).any(-1).all()


def test_the_student_needs_the_teachers_tokens(run, tmp_path):
    path, _ = run
    train_tokenizer(["quite different words " * 9], vocab_size=60).save_pretrained(tmp_path)
    raw = json.loads((path / "recipe.json").read_text())
    raw["student"]["tokenizer"] = str(tmp_path)
    with pytest.raises(RecipeError, match=r"'student.tokenizer' gives the student another tokenizer than its teacher"):
        pipeline.run(parse_recipe(raw), path)


def test_the_explanation_counts_the_classes_that_are_not_masked(run):
    path, _ = run
    found = explain_run(path)
    at = {one.temperature: one for one in found.overfit.at}
    assert at
    assert [(view.name, view.rows) for view in found.by_type] == [("start", 15), ("end", 15)]  # windows
    assert {one.name.split(", ")[1] for one in found.least_sure} <= {"start", "end"}
    text = (path / "report.md").read_text()
    assert (path / "report.html").stat().st_size > 1_000_000
    assert not re.search(r"\b(nan|inf)\b", text.lower())


@pytest.mark.parametrize("format", ["onnx", "safetensors"])
def test_what_is_shipped_answers_like_the_student(run, format, tmp_path):
    path, _ = run
    folder, manifest, _ = export(path, format, out=tmp_path / "student")
    assert manifest.fields == {"stride": 4, "impossible": False}
    assert manifest.validation.value == pytest.approx(manifest.validation.pytorch)
    shipped = Shipped.open(folder)
    rows = questions(12, 60)
    answers = shipped.predict(rows)
    for row, answer in zip(rows, answers, strict=True):
        assert answer["answer"] == row["context"][answer["start"] : answer["end"]]
        assert 0 < answer["probability"] <= 1
    right = np.mean([answer["answer"] == row["answers"]["text"][0] for row, answer in zip(rows, answers, strict=True)])
    metrics = json.loads((path / "metrics.json").read_text())
    assert right == pytest.approx(metrics["student"]["metrics"]["em"], abs=1 / 12)  # by T, windows may change places
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert predict_files(folder, [tmp_path / "in.jsonl"], tmp_path / "out.jsonl", batch_size=3) == 12
    told = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [one.pop("id") for one in told] == [row["id"] for row in rows]
    assert [one["answer"] for one in told] == [answer["answer"] for answer in answers]
    pairs = [[row["question"], row["context"]] for row in rows[:3]]
    assert [one["answer"] for one in shipped.predict(pairs)] == [one["answer"] for one in answers[:3]]
    with TestClient(make_app(Served(folder, threads=1), Limits(characters=200))) as client:
        body = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]
        schema = body["content"]["application/json"]["schema"]
        assert client.post("/predict", json=schema["examples"][0]).status_code == 200
        response = client.post("/predict", json={"inputs": [{"question": "who", "context": "x " * 200}]})
        assert response.status_code == 413
        response = client.post("/predict", json={"inputs": ["who"]})
        assert response.json() == {"detail": "input 0 is 'who': give question and context"}


def test_it_is_measured_on_its_own_questions(run):
    path, _ = run
    inputs = validation_inputs(path, 5)
    assert inputs == find_inputs([path], None)[:12:3] or len(inputs) <= 5
    assert set(inputs[0]) == {"question", "context"}


def test_what_refresh_does_not_know_is_refused(run, tmp_path):
    with pytest.raises(RunError, match="the run is of extractive-question-answering, which setpoint refresh does not"):
        refresh(run[0], tmp_path / "x.jsonl")
