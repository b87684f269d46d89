"""A finished run explained: what it reads, what it writes, and what it refuses."""

import json
import shutil

import numpy as np
import pytest
import torch

from setpoint import TargetStore, explain, pipeline
from setpoint.errors import RunError
from setpoint.insight.explain_files import explain_files
from setpoint.insight.explain_run import explain_run
from setpoint.insight.summary import verdict
from setpoint.recipe_file import parse_recipe
from setpoint.tasks import make_task
from tiny import TAGS


def run(raw, tmp_path):
    return pipeline.run(parse_recipe(raw, folder=tmp_path), tmp_path / "run")


def test_a_run_is_explained_on_its_validation_split(ner, tmp_path):
    metrics = run(ner | {"seeds": [1]}, tmp_path)
    (tmp_path / "test.conll").write_text("rome B-PER\n")  # nothing is measured on the test split
    found = explain_run(tmp_path / "run")
    assert (found.temperature, found.alpha, found.student) == (2.0, 0.9, "given")
    # The same by hand, from the store and the validation labels.
    splits = make_task("token-classification", parse_recipe(ner, folder=tmp_path).data).load()
    store = TargetStore.open(tmp_path / "run/targets")
    logits = torch.from_numpy(np.concatenate([store[name] for name in splits.validation["id"]]))
    labels = torch.tensor([y for row in splits.validation["label"] for y in row])
    names = [
        f"{i} '{w}'" for i, ws in zip(splits.validation["id"], splits.validation["tokens"], strict=True) for w in ws
    ]
    expected = explain(logits, labels, None, 2.0, class_names=TAGS, row_names=names)
    assert found.rows == len(labels)
    assert found.suggestion == expected.suggestion
    assert found.by_class == expected.by_class
    assert found.most_changed == expected.most_changed
    assert found.fits[0] == expected.fits[0]
    assert found.fidelity.top1 > 0.9
    stored = explain_files(tmp_path / "run/targets", None, None, 2.0, 0.9)  # a store has class names, but no labels
    assert ([view.name for view in stored.by_class], stored.rows, stored.fits) == (TAGS, store.rows, ())
    first, *rest = found.sections
    assert first.title == "The run"
    assert first.sentences[0] == verdict(metrics)
    assert first.sentences[1] == (
        f"What follows is measured on {len(labels)} rows of the validation split, with the student of seed 1."
    )
    page = (tmp_path / "run/report.md").read_text()
    assert page.startswith("# tiny: why this temperature\n\n## The run\n\n")
    assert [section.title for section in rest] == [line[3:] for line in page.splitlines() if line.startswith("## ")][
        1:-1
    ]


def test_a_policy_a_divergence_and_a_search_are_told(ner, tmp_path):
    objective = {"alpha": 0.7, "divergence": "reverse_kl"}
    run(
        ner | {"seeds": [0], "temperature": {"policy": "linear", "start": 6, "end": 1}, "objective": objective},
        tmp_path,
    )
    verdict = {"sentences": ["T = 3 is best."], "sentence": "T = 3.", "curve": [], "default": 0, "best": 0, "chosen": 0}
    tuning = {"verdict": verdict, "suggestion": {"temperature": 3, "low": 1, "high": 9}, "candidates": []}
    (tmp_path / "run/tuning.json").write_text(json.dumps(tuning))
    found = explain_run(tmp_path / "run")
    log = json.loads((tmp_path / "run/stages/student-seed-0.json").read_text())["result"]["log"]
    last = [entry["temperature"] for entry in log if "temperature" in entry][-1]
    assert (found.temperature, found.alpha) == (last, 0.7)
    told = found.sections[0].sentences
    assert told[1] == "T = 3 is best."
    assert told[3:] == (
        f"The policy linear has no one temperature; T = {last:.3g} is its mean over rows when it was last logged.",
        "The gradient is that of the forward KL, though the run's divergence is reverse_kl.",
    )


def test_what_is_no_finished_run_is_refused_in_one_sentence(ner, tmp_path):
    with pytest.raises(RunError, match=r"'.*none' has no recipe.json: give the folder of a run that is finished"):
        explain_run(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    run(ner | {"seeds": [0], "hard_baseline": False, "temperature": {"teacher": 4, "student": 2}}, tmp_path)
    told = explain_run(tmp_path / "run").sections[0].sentences
    assert told[-1] == "The student's own temperature was 2; the figures have the teacher's on both sides."
    shutil.rmtree(tmp_path / "run/student/seed-0")
    with pytest.raises(RunError, match="seed-0' does not exist: run the recipe again; it trains what is missing"):
        explain_run(tmp_path / "run")
    (tmp_path / "dev.conll").write_text("anna B-PER\n")
    with pytest.raises(RunError, match="made from another 'data.*': give the run what it was made from, or run"):
        explain_run(tmp_path / "run")
    (tmp_path / "run/metrics.json").write_text("{")
    with pytest.raises(RunError, match=r"metrics.json' is damaged: run the recipe again; it continues"):
        explain_run(tmp_path / "run")
