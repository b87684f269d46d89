"""On the spoken digits of ../shared/data; skipped where the folder is absent."""

from pathlib import Path

import numpy as np
import pytest

from setpoint import pipeline
from setpoint.recipe_file import load_recipe
from setpoint.tasks import make_task

pytestmark = pytest.mark.shared
RECIPES = Path(__file__).parents[2] / "recipes"


def test_no_speaker_is_in_two_splits(shared):
    recipe = load_recipe(RECIPES / "keyword.yaml")
    splits = make_task(recipe.task, recipe.data).load()
    assert splits.labels == tuple("0123456789")
    with np.load(shared / "fsdd/fsdd.npz", allow_pickle=False) as archive:
        speakers, digits = archive["speaker"], archive["digit"]
    for split, wanted, count in (("train", {0, 1, 2, 3}, 2000), ("validation", {4}, 500), ("test", {5}, 500)):
        found = getattr(splits, split)
        rows = [int(name.removeprefix(f"{split}-")) for name in found["id"]]
        assert len(rows) == count
        assert set(speakers[rows].tolist()) == wanted
        assert found["label"][:] == digits[rows].tolist()


def test_utterances_say_their_digits(shared):
    recipe = load_recipe(RECIPES / "ctc.yaml", ["data.concatenate.examples={train: 20, validation: 4, test: 4}"])
    splits = make_task(recipe.task, recipe.data).load()
    words = set(recipe.data.concatenate.words.values())
    assert [len(getattr(splits, split)) for split in ("train", "validation", "test")] == [20, 4, 4]
    for text, samples in zip(splits.train["text"], splits.train["audio"], strict=True):
        assert set(text.split()) <= words
        assert 2 <= len(text.split()) <= 5
        assert 0.1 < len(samples) / 8000 / len(text.split()) < 2  # seconds a word


@pytest.mark.parametrize(
    ("name", "part"),
    [("keyword", ["data.limit=100"]), ("ctc", ["data.concatenate.examples={train: 80, validation: 20, test: 20}"])],
)
def test_a_ready_recipe_runs_on_a_part_of_its_data(shared, tmp_path, name, part):
    recipe = load_recipe(RECIPES / f"{name}.yaml", [*part, "teacher.train.epochs=1", "train.epochs=1", "seeds=[0]"])
    metrics = pipeline.run(recipe, tmp_path / "run")
    assert metrics["student"]["parameters"] < metrics["teacher"]["parameters"] / 5
    assert (tmp_path / "run/report.html").stat().st_size > 1_000_000
