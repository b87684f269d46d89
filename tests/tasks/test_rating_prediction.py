import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from setpoint import pipeline
from setpoint.errors import DataError
from setpoint.recipe import DataRecipe
from setpoint.recipe_file import load_recipe, parse_recipe
from setpoint.shipping.export import export
from setpoint.shipping.shipped import Shipped
from setpoint.tasks.hashing import bucket
from setpoint.tasks.rating_prediction import RatingPrediction

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
ROWS = [("u", "9", 3, "old"), ("v", "9", 1, "new"), ("u", "7", 2, "old"), ("w", "7", 1, "old"), ("v", "8", 3, "odd")]


def table(folder, rows=ROWS, header="user,item,rating,kind"):
    path = folder / "rated.csv"
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return str(path)


def task(folder, rows=ROWS, header="user,item,rating,kind", **fields):
    return RatingPrediction(DataRecipe(**{"train": table(folder, rows, header), "shares": SHARES} | fields))


# ---------------------------------------------------------------------------------------------------- hashing


@pytest.mark.slow
def test_buckets_are_the_same_in_every_process():
    """Python's own hash of text is another one in each."""
    names = [("1", "user"), ("1", "item"), ("Zürich", "attributes.a long name" * 9)]
    code = f"from setpoint.tasks.hashing import bucket\nprint([bucket(n, f, 10**9) for n, f in {names!r}])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(said.stdout) == [bucket(n, f, 10**9) for n, f in names]


def test_names_are_spread_evenly_and_fields_apart():
    found = np.array([[bucket(str(i), field, 64) for field in ("user", "item")] for i in range(64_000)])
    for column in found.T:  # χ² of 63 degrees of freedom: 99.9 % lie below 103
        assert np.square(np.bincount(column, minlength=64) - 1000).sum() / 1000 < 103
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.02


def test_names_are_alone_in_their_bucket_as_often_as_said():
    counts = np.bincount([bucket(str(i), "item", 4096) for i in range(1682)], minlength=4096)
    shared = counts[counts > 1].sum() / 1682
    assert shared == pytest.approx(1 - np.exp(-1682 / 4096), abs=0.04)


# ---------------------------------------------------------------------------------------------------- data


def test_ratings_are_classes_in_their_order(tmp_path):
    rows = [("u", i, rating) for i, rating in enumerate([10, 9.5, 2, 10, 9.5])]
    splits = task(tmp_path, rows, "user,item,rating").load()
    assert splits.labels == ("2", "9.5", "10")
    assert splits.train["label"] == [2, 1, 0]
    assert splits.validation["label"] == [2]
    assert splits.test["id"] == ["test-4"]


def test_features_are_the_buckets_of_each_field(tmp_path):
    made = task(tmp_path, attributes=("kind",), buckets=1000)
    splits = made.load()
    batch = made.collate(None)(made.encode(splits.train, None))
    wanted = [
        [bucket(u, "user", 1000), bucket(i, "item", 1000), bucket(k, "attributes.kind", 1000)] for u, i, _, k in ROWS
    ]
    assert batch["features"].tolist() == wanted[:3]
    assert (batch["labels"].tolist(), batch["example_id"]) == ([2, 0, 1], ["train-0", "train-1", "train-2"])


def test_a_number_and_its_text_are_one_name(tmp_path):
    made = task(tmp_path)
    made.load()
    assert made.read_input({"user": 7, "item": "9"}, "x") == made.read_input(["7", 9], "x") == ("7", "9")


def test_what_training_has_not_seen_is_told_apart(tmp_path):
    made = task(tmp_path)
    splits = made.load()
    found = made.row_types(splits.test, splits.train, splits.labels)
    assert found == {"users unseen in training": [[False]], "items unseen in training": [[True]]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rating": None}, "data.rating is null while rating-prediction learns from ratings: name its column"),
        (
            {"attributes": ("age",)},
            "data.train has no column 'age', only user, item, rating, kind: set data.attributes",
        ),
        ({"labels": ("3", "1", "2")}, "data.labels is ['3', '1', '2']: give the ratings in ascending order"),
        ({"labels": ("bad", "good")}, "data.labels is ['bad', 'good']: give the ratings in ascending order"),
        ({"labels": ("1", "2")}, "data.train has the label '3', which is none of 1, 2"),
    ],
)
def test_data_that_are_refused(tmp_path, fields, message):
    with pytest.raises(DataError) as caught:
        task(tmp_path, **fields).load()
    assert message in str(caught.value)


def test_values_that_are_refused(tmp_path):
    with pytest.raises(DataError, match="example 'train-0' of data.train has 'good' in column 'rating': give a number"):
        task(tmp_path, [("u", "1", "good", "x"), *ROWS]).load()
    with pytest.raises(DataError, match="example 'train-0' of data.train has '' in column 'kind': give a name"):
        task(tmp_path, [("u", "1", "2", ""), *ROWS], attributes=("kind",)).load()
    made = task(tmp_path)
    with pytest.raises(DataError, match="input 0 has null for its user: give a name or a whole number"):
        made.read_input({"user": None, "item": 1}, "input 0")
    with pytest.raises(DataError, match="input 0 is 'u': give user and item"):
        made.read_input("u", "input 0")


# ---------------------------------------------------------------------------------------------------- runs


def rated(n=400, clicks=False):
    """Two thirds of the users are kind, and two thirds of the items good; each gives a star."""
    generator = np.random.default_rng(0)
    users, items = generator.integers(0, 12, n), generator.integers(0, 15, n)
    rating = 1 + (users % 3 > 0) + (items % 3 > 0)
    return [(f"u{u}", i, int(r > 2) if clicks else r) for u, i, r in zip(users, items, rating, strict=True)]


@pytest.fixture
def recipe(tmp_path):
    small = {"model_type": "setpoint-factorisation", "buckets": 64, "width": 8, "hidden": [8]}
    how = {"batch_size": 32, "learning_rate": 4e-2}
    return {
        "name": "tiny",
        "task": "rating-prediction",
        "data": {"train": table(tmp_path, rated(), "user,item,rating"), "shares": SHARES, "buckets": 256},
        "teacher": {"model": {"kind": "config", "config": small | {"buckets": 256}}, "train": {"epochs": 8, **how}},
        "student": {"model": {"kind": "config", "config": small | {"width": 4, "hidden": []}}},
        "temperature": 2,
        "train": {"epochs": 8, **how},
        "seeds": [0],
    }


def test_a_run_learns_ratings_and_its_student_is_shipped(recipe, tmp_path):
    metrics = pipeline.run(parse_recipe(recipe), tmp_path / "run")
    found = {name: metrics[name]["metrics"] for name in ("teacher", "student_initial", "student")}
    assert found["teacher"]["auc"] > 0.95
    assert found["student"]["auc"] > 0.9 > 0.7 > found["student_initial"]["auc"]
    assert found["student"]["rmse"] < 0.6 < found["student_initial"]["rmse"]
    assert metrics["beside"] == ["accuracy", "rmse"]
    place, manifest, _ = export(tmp_path / "run", "safetensors")
    assert manifest.fields == {"buckets": 256}
    shipped = Shipped.open(place)
    answers = shipped.predict([{"user": "u1", "item": 4}, {"user": "u0", "item": "3"}, {"user": "new", "item": "none"}])
    assert [set(answer) for answer in answers] == [{"label", "probability", "probabilities", "expected"}] * 3
    assert answers[0]["expected"] > answers[1]["expected"] + 0.4
    assert shipped.task.encode_inputs([("u0", "3")], None)[0]["features"] == [
        bucket("u0", "user", 256),
        bucket("3", "item", 256),
    ]


def test_clicks_are_two_classes(recipe, tmp_path):
    recipe["data"]["train"] = table(tmp_path, rated(clicks=True), "user,item,click")
    recipe["data"]["rating"] = "click"
    recipe["hard_baseline"] = False
    metrics = pipeline.run(parse_recipe(recipe), tmp_path / "run")
    assert metrics["student"]["metrics"]["auc"] > 0.9
    assert set(metrics["student"]["metrics"]["classes"]) >= {"0", "1"}


def test_the_wrong_number_of_fields_is_said(recipe, tmp_path):
    recipe["data"]["attributes"] = ["rating"]
    with pytest.raises(Exception, match="the model has 2 fields where examples have 3 features: set fields to 3"):
        pipeline.run(parse_recipe(recipe), tmp_path / "run")


@pytest.mark.shared
def test_movielens_is_read_whole(shared):
    splits = RatingPrediction(load_recipe(Path(__file__).parents[2] / "recipes/ratings.yaml").data).load()
    assert (splits.labels, len(splits.train), len(splits.validation), len(splits.test)) == (
        ("1", "2", "3", "4", "5"), 80_000, 10_000, 10_000,
    )  # fmt: skip
    parts = (splits.train, splits.validation, splits.test)
    counts = np.bincount([label for part in parts for label in part["label"]])
    assert counts.tolist() == [6_110, 11_370, 27_145, 34_174, 21_201]  # as published
