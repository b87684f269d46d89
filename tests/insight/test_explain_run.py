"""A finished run explained: what it reads, what it writes, and what it refuses."""

import base64
import json
import re
import shutil

import numpy as np
import pytest
import torch
from markupsafe import escape
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, kl_div

from setpoint import TargetStore, explain, pipeline, teachers
from setpoint.errors import RunError
from setpoint.insight import explain_run as explain_run_module
from setpoint.insight.explain_files import explain_files
from setpoint.insight.explain_run import explain_run
from setpoint.insight.report import unbroken
from setpoint.insight.summary import verdict
from setpoint.job import make_objective, open_job
from setpoint.recipe_file import parse_recipe
from setpoint.run_folder import RunFolder
from setpoint.tasks import make_task
from tiny import TAGS


def run(raw, tmp_path):
    return pipeline.run(parse_recipe(raw, folder=tmp_path), tmp_path / "run")


def test_a_run_is_explained_on_its_validation_split(ner, tmp_path):
    metrics = run(ner | {"seeds": [1]}, tmp_path)
    pages = {name: (tmp_path / f"run/report.{name}").read_text() for name in ("html", "md")}
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
    for name, text in pages.items():  # of the run itself the same as those written anew
        assert (tmp_path / f"run/report.{name}").read_text() == text
    for section in rest:
        for sentence in section.sentences:
            assert str(escape(unbroken(sentence))) in pages["html"]
    page = pages["md"]
    assert page.startswith("# tiny: why this temperature\n\n## The run\n\n")
    assert [section.title for section in rest] == [line[3:] for line in page.splitlines() if line.startswith("## ")][
        1:-1
    ]


def test_training_rows_types_of_words_and_the_trained_policy(ner, tmp_path):
    """By hand, from the models that the run left."""
    run(ner | {"seeds": [0], "hard_baseline": False, "temperature": "ctkd_instance"}, tmp_path)
    with RunFolder(tmp_path / "run") as folder:
        job = open_job(parse_recipe(ner | {"temperature": "ctkd_instance"}, folder=tmp_path), folder)
        teacher = teachers.load_teacher(job)
        targets = teachers.prepare_targets(job, teacher)
        student, processor = teachers.load_student(job, teacher, tmp_path / "run/student/seed-0")
        examples = job.encoded("train", processor)
        policy = make_objective(job.recipe).temperature
        policy.fit(torch.zeros(1, 3))
        saved = load_file(tmp_path / "run/student/seed-0/objective.safetensors")
        policy.load_state_dict({name.removeprefix("temperature."): value for name, value in saved.items()})
        found = explain_run_module.write_pages(job, teacher, targets, read(tmp_path, "metrics"), None)
    logits = evaluate(student.eval(), examples)
    labels = torch.cat([torch.tensor([y for y in e["labels"] if y != -100]) for e in examples])
    stored = torch.cat([torch.tensor(targets[e["id"]]) for e in examples])
    assert found.overfit.examples == len(examples) == 48
    assert found.overfit.train.nll == pytest.approx(float(cross_entropy(logits, labels)), rel=1e-4)
    divergence = kl_div(logits.log_softmax(-1), stored.softmax(-1), reduction="batchmean")
    (at_one,) = [at.train for at in found.overfit.at if at.temperature == 1]
    assert at_one == pytest.approx(float(divergence), rel=1e-3)
    words = [word for words in job.splits.validation["tokens"] for word in words]
    types = {view.name: view.rows for view in found.by_type}
    assert types["words in an entity"] == sum(word not in ("lives", "in") for word in words)
    assert types["first words"] == 12
    held = job.encoded("validation", processor)
    v, z = torch.cat([torch.tensor(targets[e["id"]]) for e in held]), evaluate(student, held)
    shown = re.search(r'id="temperatures-data"[^>]*>(.*?)</script>', (tmp_path / "run/report.html").read_text())[1]
    rows = policy(v, z, None, 1.0).teacher.detach().squeeze(-1)
    assert decoded(json.loads(shown)["data"][0]["x"]) == pytest.approx(rows.tolist(), rel=1e-4)


def decoded(values):
    """Plotly packs long lists of numbers."""
    if isinstance(values, list):
        return values
    return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).tolist()


def read(tmp_path, name):
    return json.loads((tmp_path / f"run/{name}.json").read_text())


@torch.no_grad()
def evaluate(model, examples):
    rows = []
    for example in examples:
        ids, mask = (torch.tensor([example[name]]) for name in ("input_ids", "attention_mask"))
        rows.append(model(input_ids=ids, attention_mask=mask).logits[0][torch.tensor(example["labels"]) != -100])
    return torch.cat(rows)


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
