"""On the real data sets and teachers of ../shared/data; skipped where the folder is absent."""

from pathlib import Path

import numpy as np
import pytest

from setpoint import pipeline
from setpoint.job import open_job
from setpoint.recipe_file import load_recipe
from setpoint.results import measure_teacher
from setpoint.run_folder import RunFolder
from setpoint.stages import train_teacher
from setpoint.teachers import load_teacher

pytestmark = pytest.mark.shared
RECIPES = Path(__file__).parents[1] / "recipes"


def test_conll_2003_is_read_whole(shared, tmp_path):
    with RunFolder(tmp_path) as folder:
        splits = open_job(load_recipe(RECIPES / "conll2003.yaml"), folder).splits
    sizes = {"train": (14_041, 203_621), "validation": (3_250, 51_362), "test": (3_453, 46_435)}  # as published
    for split, size in sizes.items():
        data = getattr(splits, split)
        assert (len(data), sum(map(len, data["tokens"]))) == size
    assert splits.labels == ("O", "B-LOC", "I-LOC", "B-MISC", "I-MISC", "B-ORG", "I-ORG", "B-PER", "I-PER")


def test_the_teacher_scores_what_it_was_measured_at(shared, tmp_path):
    """Its README, by another program: entity F1 0.863 on the test split, and by type."""
    recipe = load_recipe(RECIPES / "conll2003.yaml")
    with RunFolder(tmp_path) as folder:
        job = open_job(recipe, folder)
        train_teacher(job)
        record, _ = measure_teacher(job, load_teacher(job))
    assert record["metrics"]["f1"] == pytest.approx(0.863, abs=1e-3)
    entities = {name: row["f1"] for name, row in record["metrics"]["entities"].items() if " " not in name}
    assert entities == pytest.approx({"LOC": 0.901, "MISC": 0.719, "ORG": 0.816, "PER": 0.938}, abs=1e-3)
    assert record["metrics"]["tokens"]["micro avg"]["support"] == 46_435


@pytest.mark.parametrize(
    ("name", "headline"),
    [
        ("conll2003", "f1"),
        ("conll2003-5m", "f1"),
        ("conll2003-15m-shrunk", "f1"),
        ("conll2003-5m-shrunk", "f1"),
        ("sst2", "accuracy"),
        ("sst2-5m", "accuracy"),
    ],
)
def test_a_ready_recipe_runs_on_a_part_of_its_data(shared, tmp_path, name, headline):
    trial = ["data.limit=150", "train.epochs=1", "seeds=[0]"]
    if name.endswith("shrunk"):
        trial.append("data.transfer.ratio=1")
    recipe = load_recipe(RECIPES / f"{name}.yaml", trial)
    metrics = pipeline.run(recipe, tmp_path / "run")
    assert metrics["metric"] == headline
    for model in ("teacher", "student_hard", "student"):
        assert {"metrics", "parameters", "bytes", "latency_ms"} <= metrics[model].keys()
    most = 5e6 if "-5m" in name else 15e6
    assert metrics["student"]["parameters"] <= most < metrics["teacher"]["parameters"]
    if name.endswith("shrunk"):
        assert metrics["student_initial"]["metrics"]["f1"] > 0.3  # one of random weights has 0.03
    assert (tmp_path / "run/report.html").stat().st_size > 1_000_000


def test_the_recipe_for_cifar_10_has_the_teacher_that_was_published(shared, tmp_path):
    """Its accuracy on a part of the test file is that of the logits which another program computed."""
    trial = ["data.limit=100", "data.views=1", "train.epochs=1", "hard_baseline=false", "seeds=[0]"]
    metrics = pipeline.run(load_recipe(RECIPES / "cifar10.yaml", trial), tmp_path / "run")
    with np.load(shared / "cifar10/teacher_logits_resnet.npz", allow_pickle=False) as file:
        logits = file["resnet56_test"][:100]
    with np.load(shared / "cifar10/test.npz", allow_pickle=False) as file:
        labels = file["label"][:100]
    assert metrics["teacher"]["metrics"]["accuracy"] == pytest.approx((logits.argmax(-1) == labels).mean(), abs=0.011)
    assert metrics["student"]["parameters"] * 10 < metrics["teacher"]["parameters"]
