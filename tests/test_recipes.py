"""Every recipe of the project, on a part of its data; the real ones are skipped where ../shared/data is absent."""

import math
from pathlib import Path

import pytest

from setpoint import pipeline
from setpoint.recipe_file import load_recipe

RECIPES = Path(__file__).parents[1] / "recipes"
ELSEWHERE = {"conll2003", "conll2003-5m", "conll2003-15m-shrunk", "conll2003-5m-shrunk", "sst2", "sst2-5m", "cifar10"}
"""Those of test_real_data.py."""
UNSHARED = {"digits", "fashion"}
"""The demo, which CI runs whole, and one whose files benchmarks/fashion.py makes first."""

FEW = "data.limit=60"
UTTERANCES = "data.concatenate.examples={train: 24, validation: 8, test: 8}"
TWO = "{label_name: [card_arrival, card_linking]}"
SMOKE = {
    "banking77": ("accuracy", [f"data.only={{train: {TWO}, test: {TWO}}}"]),
    "causal-lm": ("likelihood", ["data.limit={train: 200, validation: 40, test: 40}"]),
    "cross-domain": ("accuracy", [FEW, "data.transfer.ratio=1"]),
    "ctc": ("word_accuracy", [UTTERANCES]),
    "detection": ("map", ["data.limit=40"]),
    "few-shot": ("accuracy", ["data.shots=4", FEW, "train.arguments.max_steps=4"]),
    "image-generation": ("likelihood", ["data.limit=40"]),
    "keyword": ("accuracy", [FEW, "data.views=1"]),
    "multilabel": ("f1", ["data.limit={train: 60, test: 60, spread: true}"]),
    "ratings": ("auc", ["data.limit=400"]),
    "recommendation": ("ndcg@10", ["data.limit=60"]),
    "regression": ("pearson", [FEW]),
    "speech-synthesis": ("likelihood", [FEW]),
    "squad": ("f1", ["data.limit={train: 40, validation: 20, test: 20, spread: true}"]),
}


def test_no_recipe_is_forgotten():
    assert {file.stem for file in RECIPES.glob("*.yaml")} == {*SMOKE, *ELSEWHERE, *UNSHARED}


@pytest.mark.shared
@pytest.mark.parametrize("name", SMOKE)
def test_a_recipe_runs_on_a_part_of_its_data(shared, tmp_path, name):
    headline, part = SMOKE[name]
    short = [*part, "train.epochs=1", "teacher.train.epochs=1", "seeds=[0]"]
    metrics = pipeline.run(load_recipe(RECIPES / f"{name}.yaml", short), tmp_path / "run")
    assert metrics["metric"] == headline
    for model in ("teacher", "student_initial", "student_hard", "student"):
        assert math.isfinite(metrics[model]["metrics"][headline])
    assert metrics["student"]["parameters"] < metrics["teacher"]["parameters"]
    assert metrics["gain"] is None or math.isfinite(metrics["gain"]["mean"])
    page = (tmp_path / "run/report.html").read_text()
    assert metrics["name"] in page
    assert not list((tmp_path / "run").rglob("*.partial"))
