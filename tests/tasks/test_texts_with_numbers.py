"""Multi-label classification and regression of texts: what a row is, the loss, the scores, and whole runs."""

import json
import math
import random

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from setpoint import DistillationObjective, pipeline
from setpoint.errors import DataError, ModelError, RecipeError
from setpoint.insight.explain_run import explain_run
from setpoint.pretraining import train_tokenizer
from setpoint.recipe import DataRecipe
from setpoint.recipe_file import parse_recipe
from setpoint.tasks import make_task
from setpoint.tasks.multi_label_classification import MultiLabelClassification
from setpoint.tasks.text_regression import TextRegression
from tiny import SMALL

TOPICS = {"sun": "weather", "rain": "weather", "ball": "sport", "goal": "sport", "vote": "politics", "the": None}


def texts(n, seed):
    """Texts whose labels, and whose number, can be told by the words."""
    draw = random.Random(seed)
    for _ in range(n):
        words = [draw.choice(list(TOPICS)) for _ in range(3)]
        named = sorted({TOPICS[word] for word in words if TOPICS[word]})
        yield {"text": " ".join(words), "labels": "|".join(named), "score": words.count("sun") - 0.5}


def write(folder, **splits):
    for name, rows in splits.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: str(folder / f"{name}.jsonl") for name in splits}


def recipe(folder, task, **fields):
    files = write(folder, train=texts(160, 0), validation=texts(60, 1), test=texts(60, 2))
    train_tokenizer([" ".join(TOPICS)], 100).save_pretrained(folder / "tokenizer")
    model = {"kind": "config", "config": SMALL | {"max_position_embeddings": 16}}
    return parse_recipe(
        {
            "name": "texts", "task": task, "data": files | {"max_length": 12, "separator": "|"},
            "teacher": {
                "model": model, "tokenizer": str(folder / "tokenizer"),
                "train": {"epochs": 10, "batch_size": 8, "learning_rate": 0.003},
            },
            "student": {"model": model},
            "train": {"epochs": 10, "batch_size": 8, "learning_rate": 0.003},
        }
        | fields
    )  # fmt: skip


def load(folder, task, rows, **fields):
    files = write(folder, train=rows, validation=rows, test=rows)
    return make_task(task, DataRecipe(**files | fields)).load()


# ---------------------------------------------------------------------------------------------------- labels


def test_a_text_has_a_row_for_each_label(tmp_path):
    rows = [{"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": []}, {"text": "c", "labels": ["z"]}]
    splits = load(tmp_path, "multi-label-classification", rows)
    assert splits.outputs == splits.head == ("x", "y", "z")
    assert splits.labels == ("absent", "present")
    assert splits.train["label"] == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_a_string_is_cut_into_labels(tmp_path):
    rows = [{"text": "a", "labels": "rec.sport"}, {"text": "b", "labels": "rec"}]
    splits = load(tmp_path, "multi-label-classification", rows, separator=".")
    assert splits.outputs == ("rec", "sport")
    assert splits.train["label"] == [[1, 1], [1, 0]]
    assert load(tmp_path, "multi-label-classification", rows).outputs == ("rec", "rec.sport")


@pytest.mark.parametrize(
    ("labels", "fields", "told"),
    [
        (7, {}, r"example 'train-0' of data.train has 7 in column 'labels': give a list of names, or one string"),
        ([None], {}, r"has \[None\] in column 'labels'"),
        ([], {}, r"data.train has no label: give examples with some"),
        (["x"], {"labels": ["y", "z"]}, r"data.train has the label 'x', which is none of y, z"),
    ],
)
def test_what_are_no_labels_is_refused(tmp_path, labels, fields, told):
    with pytest.raises(DataError, match=told):
        load(tmp_path, "multi-label-classification", [{"text": "a", "labels": labels}], **fields)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_the_divergence_is_that_of_sigmoids_at_the_temperature(temperature):
    torch.manual_seed(0)
    z, v = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    task = MultiLabelClassification(DataRecipe(dataset="x"))
    batch = {"labels": torch.randint(0, 2, (4, 3))}
    teacher = task.logits({"logits": v}, batch).flatten(0, 1)
    rows = task.loss_rows(task.logits({"logits": z}, batch), batch, teacher)
    loss = DistillationObjective(temperature=temperature, alpha=0.5)(
        student_logits=rows.student_logits, teacher_logits=rows.teacher_logits, labels=rows.labels
    )
    p, q = torch.sigmoid(v / temperature), torch.sigmoid(z / temperature)
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    hard = torch.nn.functional.binary_cross_entropy_with_logits(z, batch["labels"].double())
    assert float(loss.terms["divergence"]) == pytest.approx(float(temperature**2 * kl.mean()), abs=1e-12)
    assert float(loss.terms["hard"]) == pytest.approx(float(hard), abs=1e-12)


def test_scores_of_sets_by_hand():
    task = MultiLabelClassification(DataRecipe(dataset="x"))
    z = [[2.0, -1.0, 1.0], [-1.0, 3.0, -2.0], [-1.0, -1.0, -1.0]]
    logits = [np.array([[0.0, value] for value in row]) for row in z]
    labels = [np.array(row) for row in ([1, 0, 0], [0, 1, 0], [0, 0, 1])]
    scores = {name: score(slice(None)) for name, score in task.scores(logits, labels, ("absent", "present")).items()}
    assert set(scores) == set(task.score_names)
    # Found: 1 and 3, 2, none; right are 2 of 3 found and 2 of 3 true.
    assert scores["f1"] == pytest.approx(2 / 3)
    assert scores["macro_f1"] == pytest.approx(2 / 3)
    assert scores["subset_accuracy"] == pytest.approx(1 / 3)
    assert scores["mean_average_precision"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    part = task.scores(logits, labels, ())["f1"](np.array([1, 1]))
    assert part == 1.0


# ---------------------------------------------------------------------------------------------------- numbers


def test_both_terms_of_a_regression_are_squared_errors():
    torch.manual_seed(0)
    z, v, y = (torch.randn(5, 1, dtype=torch.float32) for _ in range(3))
    task = TextRegression(DataRecipe(dataset="x"))
    batch = {"labels": y[:, 0]}
    rows = task.loss_rows(z, batch, v)
    loss = DistillationObjective(temperature=4.0, alpha=0.3)(
        student_logits=rows.student_logits, teacher_logits=rows.teacher_logits,
        beside=rows.beside, hard_loss=rows.hard_loss,
    )  # fmt: skip
    expected = 0.3 * (z - v).square().mean() + 0.7 * (z - y).square().mean()
    assert float(loss.total) == pytest.approx(float(expected), rel=1e-6)


def test_scores_of_numbers_by_hand():
    task = TextRegression(DataRecipe(dataset="x"))
    z, y = np.array([1.0, 2.0, 4.0]), np.array([1.5, 1.0, 5.0])
    logits, labels = [np.array([[value]]) for value in z], [np.array([value]) for value in y]
    scores = {name: score(slice(None)) for name, score in task.scores(logits, labels, ()).items()}
    assert scores["pearson"] == pytest.approx(pearsonr(z, y).statistic)
    assert scores["spearman"] == pytest.approx(0.5)
    assert scores["r2"] == pytest.approx(1 - 2.25 / (1 + 2.25 + 6.25))
    assert task.tables(logits, labels, ()) == pytest.approx({"mse": 0.75, "mae": 2.5 / 3})
    assert task.loss(logits, labels) == pytest.approx(0.75)
    assert task.scores(logits, labels, ())["pearson"](np.array([0, 0])) == 0.0
    assert task.loss([np.array([[math.nan]])], [np.array([1.0])]) == math.inf


@pytest.mark.parametrize("score", ["x", None, True, math.nan])
def test_what_is_no_number_is_refused(tmp_path, score):
    with pytest.raises(DataError, match=r"in column 'score': give a finite number"):
        load(tmp_path, "text-regression", [{"text": "a", "score": score}])


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"temperature": 3}, r"'temperature' is given for the task text-regression, whose outputs are numbers"),
        ({"objective": {"divergence": "reverse_kl"}}, r"'objective.divergence' is given for the task text-regression"),
        ({"objective": {"hard": {"label_smoothing": 0.1}}}, r"'objective.hard' is given for the task text-regression"),
        ({"tune": {}}, r"recipe section 'tune' is given for the task text-regression, which has no temperature"),
        ({"teacher": "calibrate"}, r"teacher.calibrate is given for the task text-regression"),
    ],
)
def test_a_temperature_for_numbers_is_refused(tmp_path, fields, told):
    made = recipe(tmp_path, "text-regression")
    if fields == {"teacher": "calibrate"}:
        fields = {"teacher": made.teacher.model_dump() | {"calibrate": True}}
    changed = parse_recipe(made.model_dump(mode="json", exclude={"temperature"}) | fields)
    with pytest.raises((RecipeError, ModelError), match=told):
        pipeline.run(changed, tmp_path / "run")


# ---------------------------------------------------------------------------------------------------- whole runs


@pytest.mark.slow
def test_a_run_of_labels_learns_and_its_temperature_is_found(tmp_path):
    made = recipe(tmp_path, "multi-label-classification", temperature=2, tune={"budget": "3 trials"}, seeds=[0])
    found = pipeline.run(made, tmp_path / "run")
    assert found["student"]["metrics"]["f1"] > found["student_initial"]["metrics"]["f1"] + 0.05
    assert found["student"]["agreement"]["top1"] > 0.8
    report = (tmp_path / "run" / "report.html").read_text()
    assert "macro_f1" in report
    assert "Move the temperature" in report
    rows = {view.name: view.rows for view in explain_run(tmp_path / "run").by_type}
    assert rows == dict.fromkeys(("politics", "sport", "weather"), 60)


@pytest.mark.slow
def test_a_run_of_numbers_learns_and_is_shipped_and_has_no_temperature_in_its_report(tmp_path):
    from setpoint.shipping.export import export
    from setpoint.shipping.shipped import Shipped

    found = pipeline.run(recipe(tmp_path, "text-regression", seeds=[0]), tmp_path / "run")
    assert found["student"]["metrics"]["r2"] > found["student_initial"]["metrics"]["r2"] + 0.5
    assert found["temperature"] == "no temperature"
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Move the temperature" not in report
    assert "spearman" in report
    folder, _, _ = export(tmp_path / "run", "onnx")
    answers = Shipped.open(folder).predict(["sun sun sun", "the vote ball"])
    assert answers[0]["value"] > answers[1]["value"] + 1
