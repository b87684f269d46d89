"""Features of a teacher whose hidden states lie on disk: what the live teacher gives, and what it costs to keep."""

import json
from collections import namedtuple

import numpy as np
import pytest
import torch

from setpoint import DistillationObjective, FrozenTeacher, TargetStore, TeacherEnsemble, pipeline, stored_states
from setpoint.errors import RecipeError, TargetError
from setpoint.files import human_bytes
from setpoint.recipe_file import parse_recipe
from setpoint.stages import make_features
from setpoint.targets.combined import CalibratedTargets
from setpoint.targets.fingerprint import Fingerprint
from setpoint.targets.states import HiddenStates, StoredStates, collated_by_position
from test_recipe import VALID
from test_training import LABELS, bert, collate, examples, trainer
from tiny import SMALL, sentences

DATA = examples()
WIDE = {"hidden_size": 24, "num_hidden_layers": 3}
MADE_FROM = Fingerprint("teacher", "tokenizer", "preprocessing", "data")
KINDS = {
    "all": [{"kind": "hidden", "weight": 2.0}, "cosine", "pkd", {"kind": "relations", "heads": 2}],
    "learned": [{"kind": "hidden", "layers": "learned"}],
    "pairs": [{"kind": "cosine", "layers": [[0, 2], [1, 1]]}],
}


def teacher():
    return bert(1, **WIDE)


def features_of(*features):
    recipe = parse_recipe(VALID | {"objective": {"features": list(features)}})
    return make_features(recipe, bert(2), teacher(), seed=0)


def stored(folder, layers, dtype="float32", data=DATA, model=None):
    """The teacher's logits, with its states of some layers beside; and the teacher."""
    source = FrozenTeacher(model or teacher(), LABELS)
    states = HiddenStates(source, layers, WIDE["hidden_size"])
    how = {"dtype": dtype, "shard_examples": 5, "batch_size": 3}
    kept = TargetStore.build(
        folder / "states", states, data, collated_by_position(collate), MADE_FROM, extras=states.extras, **how
    )
    store = TargetStore.build(folder / "targets", source, data, collate, MADE_FROM, **how)
    store.states = StoredStates(kept, layers, WIDE["num_hidden_layers"])
    return store, source


# ---------------------------------------------------------------------------------------------------- what it holds


def test_the_store_holds_each_examples_positions_and_only_the_layers_asked_for(tmp_path):
    store, source = stored(tmp_path, (0, 2), dtype="float16")
    kept = store.states.store
    assert kept.nbytes < 1.3 * sum(len(e["input_ids"]) for e in DATA) * 2 * 24 * 2 + 4000 * 7
    for example in DATA:
        with torch.no_grad():
            alone = source.model(input_ids=example["input_ids"][None], output_hidden_states=True).hidden_states
        rows = kept[example["id"]]
        assert rows.dtype == np.float16
        assert rows.shape == (len(example["input_ids"]), 48)
        for place, layer in enumerate((0, 2)):
            part = rows[:, 24 * place : 24 * (place + 1)].astype(np.float32)
            np.testing.assert_allclose(part, alone[layer][0].numpy(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("side", ["right", "left"])
def test_states_lie_where_the_batch_has_its_positions(tmp_path, side):
    store, source = stored(tmp_path, (1, 3))
    batch = collate(DATA[3:9])
    if side == "left":  # as tokenizers of language models pad
        lengths = batch["attention_mask"].sum(-1).tolist()
        for name in ("input_ids", "attention_mask"):
            batch[name] = torch.stack([row.roll(-length) for row, length in zip(batch[name], lengths, strict=True)])
    there = batch["attention_mask"].bool()
    states = store.states(batch)["hidden_states"]
    assert [tuple(state.shape) for state in states] == [(0,), (*there.shape, 24), (0,), (*there.shape, 24)]
    whole = source.output(collate(DATA[3:9]), output_hidden_states=True).hidden_states
    right = collate(DATA[3:9])["attention_mask"].bool()
    for layer in (1, 3):
        torch.testing.assert_close(states[layer][there], whole[layer][right], rtol=1e-5, atol=1e-5)
        assert not states[layer][~there].any()


def test_states_beyond_the_dtypes_range_are_refused(tmp_path):
    loud = teacher()
    with torch.no_grad():
        loud.bert.encoder.layer[1].output.LayerNorm.weight.mul_(1e6)
    sentence = r"teacher hidden states of example 'x\d+' exceed float16's range of ±65504: set targets.dtype to float32"
    with pytest.raises(TargetError, match=sentence):
        stored(tmp_path, (2,), dtype="float16", model=loud)


def test_an_example_of_other_positions_is_refused(tmp_path):
    store, _ = stored(tmp_path, (3,))
    batch = collate(DATA[:2])
    batch["attention_mask"][0, -1] = batch["attention_mask"][0, -1].logical_not()
    with pytest.raises(TargetError, match=r"example 'x0' has \d+ rows in the target store but \d+ in the batch: give"):
        store.states(batch)


# ---------------------------------------------------------------------------------------------------- training


def step(folder, targets, features, **changes):
    """A trainer, and the gradients and terms of its first step."""
    run = trainer(
        folder, model=bert(2), targets=targets, features=features, per_device_train_batch_size=8, max_steps=1, **changes
    )  # fmt: skip
    found = []
    before_step = run.before_step

    def keep():
        found.extend(
            parameter.grad.clone() for module in (run.model, run.features) for parameter in module.parameters()
            if parameter.grad is not None
        )  # fmt: skip
        before_step()

    run.before_step = keep
    run.train()
    return run, found


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_the_live_teacher(tmp_path, kind):
    store, source = stored(tmp_path, features_of(*KINDS[kind]).teacher_layers)
    (live, expected), (run, found) = (
        step(tmp_path / name, targets, features_of(*KINDS[kind]), max_grad_norm=0.0)
        for name, targets in (("live", source), ("stored", store))
    )
    assert len(found) == len(expected) > len(list(run.features.parameters())) > 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for name, value in live.state.log_history[0].items():
        if name in (*live.features.weights, "loss", "divergence", "hard", "grad_norm"):
            assert run.state.log_history[0][name] == pytest.approx(value, rel=1e-5), name


def test_the_teacher_is_not_run_while_students_learn(tmp_path):
    store, source = stored(tmp_path, (3,))
    source.model.forward = None  # whatever calls it fails
    run, _ = step(tmp_path / "run", store, features_of("relations"))
    assert run.state.log_history[0]["relations"] > 0


@pytest.mark.parametrize("wrap", [lambda one: CalibratedTargets(one, 2.0),
                                  lambda one: TeacherEnsemble([CalibratedTargets(one, 2.0), one])])  # fmt: skip
def test_of_several_teachers_the_first_ones_states_are_read(tmp_path, wrap):
    store, _ = stored(tmp_path, (3,))
    alone, _ = step(tmp_path / "a", store, features_of("relations"))
    among, _ = step(tmp_path / "b", wrap(store), features_of("relations"))
    assert alone.state.log_history[0]["relations"] == among.state.log_history[0]["relations"]


def test_without_a_divergence_the_states_are_read_all_the_same(tmp_path):
    store, _ = stored(tmp_path, (3,))
    run, _ = step(tmp_path / "a", store, features_of("relations"), objective=DistillationObjective(alpha=0.0))
    assert "divergence" not in run.state.log_history[0]
    assert run.state.log_history[0]["relations"] > 0


def test_a_store_without_states_teaches_no_features(tmp_path):
    store, _ = stored(tmp_path, (3,))
    store.states = None
    with pytest.raises(TargetError, match="features are given without the states of a teacher"):
        step(tmp_path / "a", store, features_of("relations"))


@pytest.mark.parametrize(
    ("features", "layers"),
    [(["hidden"], (0, 3)), (["relations"], (3,)), ([{"kind": "hidden", "layers": "learned"}], (1, 2, 3)),
     ([{"kind": "hidden", "layers": [[1, 2]]}, {"kind": "cosine", "layers": [[0, 0], [1, 2]]}], (0, 2))],
)  # fmt: skip
def test_features_say_which_layers_they_read(features, layers):
    assert features_of(*features).teacher_layers == layers


# ---------------------------------------------------------------------------------------------------- a run


@pytest.fixture
def run_of(ner, tmp_path):
    """The tiny job with features from a store, and what is changed in it."""

    def change(*features, **changes):
        raw = ner | {"objective": {"features": list(features or ("hidden", "relations"))}, "hard_baseline": False}
        raw["student"] = {"model": {"kind": "config", "config": SMALL}, "dropout": 0.0}
        return parse_recipe(raw | changes, folder=tmp_path)

    return change


def positions(tmp_path):
    """Of the training split: its words, each of one token, and two special ones a sentence."""
    text = (tmp_path / "train.conll").read_text()
    return sum(bool(line) for line in text.splitlines()) + 2 * 48


def losses(folder):
    log = json.loads((folder / "stages/student-seed-0.json").read_text())["result"]["log"]
    return [
        {k: v for k, v in entry.items() if k in ("loss", "hidden", "relations")} for entry in log if "hidden" in entry
    ]


@pytest.mark.slow
def test_a_run_from_a_store_is_that_of_a_live_teacher(run_of, tmp_path, capfd):
    how = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "arguments": {"logging_steps": 1}}
    pipeline.run(run_of(train=how), tmp_path / "stored")
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("states: ")]
    pipeline.run(run_of(train=how, targets={"kind": "live"}), tmp_path / "live")
    stored, live = losses(tmp_path / "stored"), losses(tmp_path / "live")
    assert len(stored) == 12
    for one, other in zip(stored, live, strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    assert stored[0] == pytest.approx(live[0], rel=1e-5)
    there = TargetStore.open(tmp_path / "stored/states")
    assert there.rows == positions(tmp_path)
    assert len(there) == 48  # the validation split is not learnt from
    assert len(said) == 2  # before the teacher is fine-tuned, and before it is spent
    size = positions(tmp_path) * 2 * 16 * 4
    wanted = (
        f"states: the teacher's hidden states have about {human_bytes(size)} on disk: {positions(tmp_path)} positions"
        " of 2 layers of 16 numbers in float32; "
    )
    assert all(line.startswith(wanted) for line in said)
    assert there.nbytes == pytest.approx(size, abs=3000 * 3)


@pytest.mark.slow
def test_other_features_make_the_states_anew_and_the_logits_not(run_of, tmp_path, monkeypatch):
    built = []
    build = TargetStore.build.__func__

    def spy(cls, path, *args, **kwargs):
        built.append(path.name)
        return build(cls, path, *args, **kwargs)

    monkeypatch.setattr(TargetStore, "build", classmethod(spy))
    pipeline.run(run_of("relations"), tmp_path / "run")
    pipeline.run(run_of("relations"), tmp_path / "run")
    assert built == ["states", "targets"]
    pipeline.run(run_of({"kind": "relations", "weight": 0.5}), tmp_path / "run")
    assert built == ["states", "targets"]  # the same layers
    pipeline.run(run_of("hidden"), tmp_path / "run")
    assert built == ["states", "targets", "states"]
    assert TargetStore.open(tmp_path / "run/states").extras == 2 * 16
    shard = tmp_path / "run/states/shard-00000.arrow"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-8])
    pipeline.run(run_of("hidden"), tmp_path / "run")
    assert shard.read_bytes() == whole


@pytest.mark.slow
def test_a_killed_store_of_states_goes_on_to_the_same_bytes(run_of, tmp_path, monkeypatch):
    class PowerCut(Exception):
        pass

    calls = []
    real = HiddenStates.__call__

    def cut(self, batch):
        calls.append(len(batch["example_id"]))
        if len(calls) == 3:
            raise PowerCut
        return real(self, batch)

    pipeline.run(run_of("hidden"), tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(HiddenStates, "__call__", cut)
        with pytest.raises(PowerCut):
            pipeline.run(run_of("hidden"), tmp_path / "broken")
        first = (tmp_path / "broken/states/shard-00000.arrow").stat().st_mtime_ns
        pipeline.run(run_of("hidden"), tmp_path / "broken")
    assert (tmp_path / "broken/states/shard-00000.arrow").stat().st_mtime_ns == first
    for file in (tmp_path / "whole/states").glob("shard-*"):
        assert file.read_bytes() == (tmp_path / "broken/states" / file.name).read_bytes()


@pytest.mark.parametrize("room", [[-1000], [0, -1000]], ids=["at first", "once the teacher is there"])
def test_a_disk_without_room_is_told_before_anything_is_written(run_of, tmp_path, monkeypatch, room):
    usage = namedtuple("usage", "total used free")
    recipe = run_of("hidden")
    size = positions(tmp_path) * 2 * 16 * 4
    note = 20_000  # the second time the folder is there, with what it is made from
    left = [size + more - note * number for number, more in enumerate(room)]
    monkeypatch.setattr(stored_states.shutil, "disk_usage", lambda path: usage(0, 0, left.pop(0)))
    with pytest.raises(TargetError) as caught:
        pipeline.run(recipe, tmp_path / "run")
    assert str(caught.value).startswith(f"the teacher's hidden states have about {human_bytes(size)} on disk: ")
    assert str(caught.value).endswith(" free: make room, compare fewer layers, or set targets.kind to live")
    assert left == []
    assert not list((tmp_path / "run").glob("states/shard-*"))
    assert not (tmp_path / "run/targets").exists()
    assert (tmp_path / "run/teacher").exists() == (len(room) == 2)


@pytest.mark.slow
def test_students_cut_from_the_teacher_or_made_smaller_have_stored_states_too(run_of, tmp_path):
    for name, model in (
        ("layers", {"kind": "layers", "layers": 1}),
        ("shrunk", {"kind": "shrunk", "layers": 1, "hidden_size": 8, "heads": 2}),
    ):
        pipeline.run(run_of("hidden", student={"model": model}), tmp_path / name)
        assert TargetStore.open(tmp_path / name / "states").extras == 2 * 16
        log = json.loads((tmp_path / name / "stages/student-seed-0.json").read_text())["result"]["log"]
        assert [entry for entry in log if "hidden" in entry]


def test_unlabelled_texts_have_their_states_stored_too(run_of, ner, tmp_path):
    (tmp_path / "more.txt").write_text("anna lives in rome\n\nbob lives in oslo\n")
    data = ner["data"] | {"transfer": {"files": ["./more.txt"]}}
    pipeline.run(run_of("relations", data=data), tmp_path / "run")
    assert len(TargetStore.open(tmp_path / "run/states")) == 50


IMAGES = {"task": "image-classification", "data": {"dataset": "digits", "train": "train", "test": "test"}}
SEARCH = {"search": {"student.model.config.num_hidden_layers": [1, 2]}, "budget": "2 trials"}


@pytest.mark.parametrize(
    ("features", "changes", "sentence"),
    [
        (["attention"], {},
         "'objective.features' has attention while targets.kind is store, which keeps logits and hidden states alone:"
         " set targets.kind to live"),
        (["hidden"], IMAGES,
         "'objective.features' is given while targets.kind is store, which keeps the inner states of texts alone:"
         " set targets.kind to live"),
        (["hidden"], {"student": {"model": {"kind": "shrunk", "vocabulary": {}}}},
         "'objective.features' compares states token by token while student.model.vocabulary makes a tokenizer of the"
         " student's own: remove it"),
        (["hidden"], {"tune": SEARCH},
         "tune.search names 'student.model.config.num_hidden_layers', by which features compare other layers, while"
         " targets.kind is store: leave 'student.model.config.num_hidden_layers' out, or set targets.kind to live"),
    ],
)  # fmt: skip
def test_what_a_store_does_not_keep_is_refused_before_anything_is_trained(
    run_of, tmp_path, features, changes, sentence
):
    (tmp_path / "dev.conll").write_text(sentences(48, 48))
    vit = {"student": {"model": {"kind": "config", "config": {"model_type": "vit"}}}} if "task" in changes else {}
    with pytest.raises(RecipeError) as caught:
        pipeline.run(run_of(*features, **changes, **vit), tmp_path / "run")
    assert str(caught.value).removeprefix("recipe field ") == sentence
    assert not (tmp_path / "run/teacher").exists()
