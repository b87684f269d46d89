"""Features in the trainer and in a whole run: one pass of the teacher, one denominator, resumed bit by bit."""

import copy
import json
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForTokenClassification

from setpoint import DistillationObjective, FrozenTeacher, TeacherEnsemble, pipeline
from setpoint.checkpoints import MarkComplete, latest_checkpoint
from setpoint.errors import ModelError, RecipeError, TargetError
from setpoint.features import FeatureObjective
from setpoint.recipe_file import parse_recipe
from setpoint.run_folder import RunFolder
from setpoint.stages import make_features
from setpoint.targets.combined import CalibratedTargets
from setpoint.tuning import student as tuning_student
from test_features import sections
from test_recipe import VALID
from test_training import LABELS, ONE_STEP, assert_same_weights, bert, collate, examples, losses, trainer
from tiny import sentences

WIDE = {"hidden_size": 24, "num_hidden_layers": 2}
ALL = ({"kind": "hidden", "weight": 2.0}, "cosine", "pkd", "attention",
       {"kind": "relations", "heads": 2, "layers": "learned"})  # fmt: skip
KINDS = ["attention", "cosine", "hidden", "pkd", "relations"]


CLOSE = {"rtol": 1e-5, "atol": 1e-5}
"""The gradient has a norm of about 40."""


def make(folder, *features, model=None, targets=None, objective=None, **changes):
    model, teacher = model or bert(2), bert(1, **WIDE)
    recipe = parse_recipe(VALID | {"objective": {"features": list(features or ALL)}})
    made = make_features(recipe, model, teacher, seed=0)
    source = FrozenTeacher(teacher, LABELS)
    return trainer(
        folder, model=model, targets=source if targets is None else targets(source), features=made,
        objective=objective, **changes,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- the trainer


def test_the_logged_terms_and_the_loss_are_those_of_the_whole_batch(tmp_path):
    run = make(tmp_path, per_device_train_batch_size=32, max_steps=1)
    student, teacher, features = copy.deepcopy(run.model), run.targets.model, copy.deepcopy(run.features)
    run.train()
    log = run.state.log_history[0]
    batch = collate(examples())
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    parts = features(student(**inputs, **features.asks), teacher(**inputs, **features.asks), batch["attention_mask"])
    assert sorted(parts) == KINDS
    assert int(parts["hidden"].count) == int(batch["attention_mask"].sum()) > int((batch["labels"] != -100).sum())
    expected = 0.7 * log["divergence"] + 0.3 * log["hard"]
    for name, part in parts.items():
        assert log[name] == pytest.approx(part.total.item() / int(part.count), rel=1e-5)
        expected += (2.0 if name == "hidden" else 1.0) * log[name]
    assert log["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_accumulated_micro_batches_is_that_of_one_batch(tmp_path):
    one_batch = make(tmp_path / "a", per_device_train_batch_size=8, **ONE_STEP)
    parts = make(tmp_path / "b", per_device_train_batch_size=2, gradient_accumulation_steps=4, **ONE_STEP)
    before = copy.deepcopy(one_batch.features)
    one_batch.train()
    parts.train()
    assert losses(parts) == pytest.approx(losses(one_batch), rel=1e-6)
    assert_same_weights(one_batch.model, parts.model, **CLOSE)
    assert_same_weights(one_batch.features, parts.features, **CLOSE)
    moved = [(a - b).abs().max() for a, b in zip(before.parameters(), one_batch.features.parameters(), strict=True)]
    assert min(moved) > 1e-5  # the gradients are there


TWO_PROCESSES = """
    import json, os, sys
    sys.path.insert(0, {tests!r})
    import torch
    from test_feature_training import ONE_STEP, losses, make
    run = make({folder!r}, per_device_train_batch_size=4, ddp_backend="gloo", **ONE_STEP)
    run.train()
    if run.args.process_index == 0:
        run.save_model({folder!r})
        with open({folder!r} + "/losses.json", "w") as file:
            json.dump(losses(run), file)
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads, or torch's, now and then abort a process at its very end, its work done
"""


@pytest.mark.slow
def test_the_gradient_of_two_processes_is_that_of_one(tmp_path, request):
    script, folder = tmp_path / "train.py", str(tmp_path / "two")
    script.write_text(textwrap.dedent(TWO_PROCESSES).format(tests=str(request.path.parent), folder=folder))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    one = make(tmp_path / "one", per_device_train_batch_size=8, **ONE_STEP)
    one.train()
    assert json.loads((tmp_path / "two/losses.json").read_text()) == pytest.approx(losses(one), rel=1e-6)
    assert_same_weights(one.model, BertForTokenClassification.from_pretrained(folder), **CLOSE)
    two = copy.deepcopy(one.features)
    two.load_state_dict(load_file(tmp_path / "two/features.safetensors"))
    assert_same_weights(one.features, two, **CLOSE)


def test_the_teacher_is_run_once_a_batch_and_the_student_asked_in_training_alone(tmp_path):
    run = make(tmp_path, max_steps=2, eval_dataset=examples(8))
    calls = {"teacher": [], "student": []}
    for name, model in (("teacher", run.targets.model), ("student", run.model)):
        model.register_forward_hook(
            lambda module, args, kwargs, output, name=name: calls[name].append("output_hidden_states" in kwargs),
            with_kwargs=True,
        )
    run.train()
    assert calls == {"teacher": [True, True], "student": [True, True]}
    metrics = run.evaluate()
    assert calls == {"teacher": [True, True, False], "student": [True, True, False]}
    assert metrics["eval_loss"] > 0
    assert run.predict(examples(8)).predictions.shape[-1] == 5  # no states among the predictions


@pytest.mark.parametrize(
    "targets", [lambda one: CalibratedTargets(one, 2.0),
                lambda one: TeacherEnsemble([CalibratedTargets(one, 2.0), FrozenTeacher(bert(5), LABELS)])],
)  # fmt: skip
def test_features_are_those_of_the_first_teacher(tmp_path, targets):
    alone, among = make(tmp_path / "a", max_steps=1), make(tmp_path / "b", max_steps=1, targets=targets)
    alone.train()
    among.train()
    ours, theirs = alone.state.log_history[0], among.state.log_history[0]
    assert {k: ours[k] for k in KINDS} == {k: theirs[k] for k in KINDS}
    assert ours["divergence"] != theirs["divergence"]


def test_features_without_a_divergence_still_have_a_teacher(tmp_path):
    run = make(tmp_path, "hidden", objective=DistillationObjective(alpha=0.0), max_steps=1)
    run.train()
    log = run.state.log_history[0]
    assert "divergence" not in log
    assert log["loss"] == pytest.approx(log["hard"] + log["hidden"], rel=1e-5)


def test_features_without_the_states_of_a_teacher_are_refused(tmp_path):
    made = FeatureObjective(sections("hidden"), bert(2).config, bert(1).config)
    with pytest.raises(TargetError, match="features are given without the states of a teacher: give a FrozenTeacher"):
        trainer(tmp_path, targets=None, features=made)


def test_what_is_learnt_is_in_a_group_without_decay_and_clipped_and_not_part_of_the_student(tmp_path):
    run = make(tmp_path, weight_decay=0.5, max_grad_norm=1e-3, max_steps=1, optim="sgd", learning_rate=1.0,
               lr_scheduler_type="constant")  # fmt: skip
    before = copy.deepcopy(run.features)
    run.train()
    learned = list(run.features.parameters())
    groups = [g for g in run.optimizer.param_groups if any(p is learned[0] for p in g["params"])]
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [(0.0, len(learned))]
    moved = torch.cat([(a - b).flatten() for a, b in zip(before.parameters(), learned, strict=True)]).norm()
    assert moved.item() == pytest.approx(1e-3, rel=1e-2)
    run.save_model(tmp_path / "out")
    saved = load_file(tmp_path / "out/model.safetensors")
    assert saved.keys() == bert(2).state_dict().keys()
    assert load_file(tmp_path / "out/features.safetensors").keys() == run.features.state_dict().keys()


def test_a_resumed_training_is_bit_equal_to_an_unbroken_one(tmp_path):
    def again(folder):
        model = bert(2, hidden_dropout_prob=0.3)
        return make(folder, model=model, callbacks=[MarkComplete()], save_strategy="steps", save_steps=3)

    unbroken = again(tmp_path / "a")
    unbroken.train()
    broken = again(tmp_path / "b")
    step = broken.training_step

    class PowerCut(Exception):
        pass

    def cut(*args, **kwargs):
        if broken.state.global_step == 5:
            raise PowerCut
        return step(*args, **kwargs)

    broken.training_step = cut
    with pytest.raises(PowerCut):
        broken.train()
    resumed = again(tmp_path / "b")
    resumed.train(resume_from_checkpoint=latest_checkpoint(tmp_path / "b"))
    assert_same_weights(unbroken.model, resumed.model)
    assert_same_weights(unbroken.features, resumed.features)


def test_projections_are_drawn_from_the_seed_and_nothing_else():
    recipe = parse_recipe(VALID | {"objective": {"features": ["hidden"]}})
    state = torch.get_rng_state()
    one, same, other = (make_features(recipe, bert(2), bert(1, **WIDE), seed) for seed in (0, 0, 1))
    torch.manual_seed(2)
    bert(1, **WIDE)
    assert_same_weights(one, same)
    weights = [next(made.parameters()) for made in (one, other)]
    assert not torch.equal(*weights)
    torch.set_rng_state(state)
    assert make_features(parse_recipe(VALID), bert(2), bert(1), 0) is None


# ---------------------------------------------------------------------------------------------------- a run

LEARNT = ["hidden", {"kind": "relations", "weight": 0.5}]


@pytest.fixture
def run_of(ner, tmp_path):
    """The tiny job with features, and what is changed in it."""

    def change(*features, student=None, **changes):
        raw = ner | {"objective": {"features": list(features)}, "targets": {"kind": "live"}, "hard_baseline": False}
        raw["student"] = {"model": {"kind": "config", "config": ner["student"]["model"]["config"] | (student or {})}}
        return parse_recipe(raw | changes, folder=tmp_path)

    return change


def test_a_run_learns_from_features_and_saves_the_student_alone(run_of, tmp_path):
    narrow = {"hidden_size": 12, "num_attention_heads": 2}
    how = {"epochs": 3, "batch_size": 8, "learning_rate": 3e-3, "arguments": {"logging_steps": 3}}
    recipe = run_of(*LEARNT, student=narrow, train=how)
    summary = pipeline.run(recipe, tmp_path / "run")
    folder = tmp_path / "run/student/seed-0"
    assert summary["student"]["metrics"]["f1"] > 0.5
    assert not list(folder.glob("features*"))
    assert not [name for name in load_file(folder / "model.safetensors") if "projection" in name]
    log = json.loads((tmp_path / "run/stages/student-seed-0.json").read_text())["result"]["log"]
    terms = [(entry["hidden"], entry["relations"]) for entry in log if "hidden" in entry]
    assert terms[-1][0] < terms[0][0]
    assert all(relation >= 0 for _, relation in terms)


def test_candidates_of_a_search_learn_from_features_too(run_of, tmp_path, monkeypatch):
    seen = []
    train_to = tuning_student.advance_student

    def spy(*args, **kwargs):
        trainer, processor = train_to(*args, **kwargs)
        seen.append(sorted(trainer.features.weights))
        return trainer, processor

    monkeypatch.setattr(tuning_student, "advance_student", spy)
    tune = {"search": {"temperature": [1, 4]}, "budget": "2 trials", "finalists": 1, "repeats": 1}
    recipe = run_of(*LEARNT, tune=tune)
    (tmp_path / "dev.conll").write_text(sentences(48, 48))
    pipeline.tune(recipe, tmp_path / "run")
    assert seen
    assert {*map(tuple, seen)} == {("hidden", "relations")}


@pytest.mark.parametrize(
    ("features", "changes", "sentence"),
    [
        (["attention_transfer"], {}, "has attention_transfer while the student has no convolutional maps"),
        (["attention"], {}, "drops 0.1 of its own: set student.dropout to 0"),
        ([{"kind": "hidden", "layers": [[1, 3]]}], {}, "compares layer 3 of the teacher, which has 0 to 2"),
        (["hidden"], {"tune": {"population": True}},
         "tune.population trains students together while objective.features is given, and they keep no inner states:"
         " remove it, or set tune.population to false"),
    ],
)  # fmt: skip
def test_features_that_cannot_be_are_refused_before_anything_is_trained(run_of, tmp_path, features, changes, sentence):
    with pytest.raises((RecipeError, ModelError)) as caught:
        pipeline.run(run_of(*features, **changes), tmp_path / "run")
    assert sentence in str(caught.value)
    assert not (tmp_path / "run/teacher").exists()


def test_attentions_are_learnt_where_nothing_tears_them(run_of, ner, tmp_path):
    recipe = run_of("attention", student={"attention_probs_dropout_prob": 0.0})
    with RunFolder(tmp_path / "run") as folder:
        job = pipeline.open_job(recipe, folder)
    assert job.recipe.objective.features[0].kind == "attention"
    layers = ner | {"objective": {"features": ["attention"]}, "targets": {"kind": "live"}, "hard_baseline": False}
    layers["student"] = {"model": {"kind": "layers", "layers": 1}, "dropout": 0.0}
    summary = pipeline.run(parse_recipe(layers, folder=tmp_path), tmp_path / "run")
    log = json.loads((tmp_path / "run/stages/student-seed-0.json").read_text())["result"]["log"]
    assert summary["student"]["metrics"]["f1"] > 0.5
    assert [entry for entry in log if "attention" in entry]
