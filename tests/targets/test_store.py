import json
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import ConcatDataset

from setpoint import FrozenTeacher, TargetStore
from setpoint.errors import DataError, FingerprintError, TargetError
from setpoint.targets import building
from setpoint.targets.building import check_deterministic
from setpoint.targets.views import RandomViews, SeededViews
from targets.conformance import LABELS, MADE_FROM, InMemory, bert, collate, examples, rows_by_example

DATA = examples()
FILES = ["shard-00000.arrow", "shard-00001.arrow", "shard-00002.arrow", "store.json"]


@pytest.fixture(scope="module")
def table():
    return rows_by_example(bert().eval(), DATA)


@pytest.fixture
def teacher(table):
    return InMemory(table)


def build(path, teacher, data=DATA, made_from=MADE_FROM, **options):
    options = {"dtype": "float32", "shard_examples": 4, "batch_size": 3} | options
    return TargetStore.build(path, teacher, data, collate, made_from, **options)


class Watched:
    """A source that keeps the batches it was asked for."""

    labels = LABELS

    def __init__(self, source):
        self.source, self.batches = source, []

    def __call__(self, batch):
        self.batches.append(batch)
        return self.source(batch)


# ---------------------------------------------------------------------------------------------------- what it holds


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_each_example_has_its_rows(tmp_path, teacher, table, dtype):
    store = build(tmp_path, teacher, dtype=dtype)
    assert len(store) == 11
    assert store.ids == tuple(store) == tuple(example["id"] for example in DATA)
    for name, rows in table.items():
        assert name in store
        assert store[name].dtype == dtype
        np.testing.assert_array_equal(store[name], rows.astype(dtype))
    assert "x11" not in store
    assert store["x4"].shape == (0, 4)


def test_totals(tmp_path, teacher, table):
    store = build(tmp_path, teacher)
    everything = np.concatenate(list(table.values()))
    assert store.all_logits().dtype == np.float32
    np.testing.assert_array_equal(store.all_logits(), everything)
    assert store.rows == len(everything)
    assert store.nbytes == sum((tmp_path / name).stat().st_size for name in FILES[:3])
    assert (store.labels, store.fingerprint, store.dtype) == (LABELS, MADE_FROM, "float32")


def test_ordinary_tools_read_its_files(tmp_path, teacher, table):
    build(tmp_path, teacher, dtype="float16")
    assert sorted(file.name for file in tmp_path.iterdir()) == FILES
    manifest = json.loads((tmp_path / "store.json").read_text())
    assert manifest["complete"] is True
    assert [shard["examples"] for shard in manifest["shards"]] == [4, 4, 3]
    assert sum(shard["rows"] for shard in manifest["shards"]) == sum(map(len, table.values()))
    shard = pa.ipc.open_file(str(tmp_path / FILES[1])).read_all()
    assert shard.column("id").to_pylist() == ["x4", "x5", "x6", "x7"]
    assert shard.schema.field("logits").type.value_type == pa.float16()
    np.testing.assert_array_equal(shard.column("logits")[1].as_py(), table["x5"].astype("float16").reshape(-1))


def test_rows_lie_in_the_file_and_cannot_be_written(tmp_path, teacher):
    rows = build(tmp_path, teacher)["x1"]
    before = pa.total_allocated_bytes()
    for _ in range(100):
        TargetStore.open(tmp_path)["x1"]
    assert pa.total_allocated_bytes() == before
    assert not rows.flags.writeable
    assert not rows.flags.owndata


def test_an_empty_dataset_and_shards_without_rows(tmp_path, teacher):
    assert build(tmp_path / "none", teacher, data=[]).all_logits().shape == (0, 4)
    store = build(tmp_path / "rowless", teacher, data=[DATA[4]])
    assert store.all_logits().shape == (0, 4)
    assert store["x4"].shape == (0, 4)


def test_a_torch_dataset_will_do(tmp_path, teacher, table):
    store = build(tmp_path, teacher, data=ConcatDataset([DATA[6:], DATA[:6]]))
    assert store.ids[0] == "x6"
    np.testing.assert_array_equal(store["x2"], table["x2"])


# ---------------------------------------------------------------------------------------------------- reading


def test_rows_that_do_not_match_are_refused(tmp_path, teacher, table):
    store, batch = build(tmp_path, teacher), collate(DATA[:3])
    first = int((batch["labels"][1] != -100).nonzero()[0])
    batch["labels"][1, first] = -100
    n = len(table["x1"])
    with pytest.raises(TargetError, match=rf"example 'x1' has {n} rows in the target store but {n - 1} in the batch: "):
        store(batch)


def test_a_text_that_is_cut_off_earlier_has_the_first_rows(tmp_path, teacher, table):
    store, batch = build(tmp_path, teacher), collate(DATA[:3])
    store.first_rows = True
    last = int((batch["labels"][1] != -100).nonzero()[-1])
    batch["labels"][1, last] = -100
    n = len(table["x1"])
    np.testing.assert_array_equal(store(batch), np.concatenate([table["x0"], table["x1"][: n - 1], table["x2"]]))
    batch["labels"][1] = 1  # more than there are
    with pytest.raises(TargetError, match=rf"example 'x1' has {n} rows in the target store but "):
        store(batch)


def test_rows_are_matched_by_example_and_not_in_sum(tmp_path, teacher):
    store, batch = build(tmp_path, teacher), collate([DATA[0], DATA[4]])
    batch["example_id"] = ["x4", "x0"]  # as many rows as before in all
    with pytest.raises(TargetError, match="example 'x4' has 0 rows"):
        store(batch)


def test_an_unknown_example_is_refused(tmp_path, teacher):
    store, batch = build(tmp_path, teacher), collate(DATA[:2])
    batch["example_id"][1] = "test-7"
    with pytest.raises(TargetError, match="example 'test-7' is not in the target store"):
        store(batch)


@pytest.mark.parametrize("part", ["teacher", "tokenizer", "preprocessing", "data"])
def test_a_store_for_something_else_is_refused(tmp_path, teacher, part):
    build(tmp_path, teacher)
    other = replace(MADE_FROM, **{part: "other"})
    for use in (lambda: TargetStore.open(tmp_path, other), lambda: build(tmp_path, teacher, made_from=other)):
        with pytest.raises(FingerprintError) as error:
            use()
        assert str(error.value) == (
            f"target store '{tmp_path}' was built for another {part}: "
            "delete the folder, start over with --fresh, or choose another folder"
        )
    assert len(TargetStore.open(tmp_path, MADE_FROM)) == 11  # and it is left as it was


def test_all_parts_that_differ_are_named(tmp_path, teacher):
    build(tmp_path, teacher)
    with pytest.raises(FingerprintError, match="for another teacher and tokenizer: "):
        TargetStore.open(tmp_path, replace(MADE_FROM, teacher="b", tokenizer="b"))


@pytest.mark.parametrize(
    ("changes", "part"), [({"dtype": "float16"}, "dtype"), ({"shard_examples": 5}, "shard_examples")]
)
def test_a_store_of_another_form_is_refused(tmp_path, teacher, changes, part):
    build(tmp_path, teacher)
    with pytest.raises(FingerprintError, match=f"for another {part}: "):
        build(tmp_path, teacher, **changes)


def test_a_store_with_other_labels_is_refused(tmp_path, teacher, table):
    build(tmp_path, teacher)
    other = InMemory(table)
    other.labels = ("O", "LOC", "PER", "ORG")
    with pytest.raises(FingerprintError, match="for another labels: "):
        build(tmp_path, other)


@pytest.mark.parametrize("name", FILES[:3])
@pytest.mark.parametrize("damage", ["a bit", "cut", "gone"])
def test_a_damaged_shard_is_refused_and_rebuilt(tmp_path, teacher, table, name, damage):
    build(tmp_path, teacher)
    whole = (tmp_path / name).read_bytes()
    if damage == "a bit":
        (tmp_path / name).write_bytes(whole[:600] + bytes([whole[600] ^ 1]) + whole[601:])
    elif damage == "cut":
        (tmp_path / name).write_bytes(whole[:-1])
    else:
        (tmp_path / name).unlink()
    with pytest.raises(TargetError, match=rf"shard '.*{name}' is damaged: run the command that builds it again"):
        TargetStore.open(tmp_path)
    watched = Watched(teacher)
    store = build(tmp_path, watched)
    assert (tmp_path / name).read_bytes() == whole
    asked = sorted(example for batch in watched.batches for example in batch["example_id"])
    first = 4 * FILES.index(name)
    assert asked == sorted(example["id"] for example in DATA[first : first + 4])  # that shard and no other
    np.testing.assert_array_equal(store.all_logits(), np.concatenate(list(table.values())))


def test_data_that_grew_under_the_same_fingerprint_leave_no_example_out(tmp_path, teacher):
    build(tmp_path, teacher, data=DATA[:6])  # its last shard is half full
    assert build(tmp_path, teacher).ids == tuple(example["id"] for example in DATA)


def test_checking_can_be_left_out(tmp_path, teacher):
    build(tmp_path, teacher)
    manifest = json.loads((tmp_path / "store.json").read_text())
    manifest["shards"][0]["sha256"] = "0" * 64
    (tmp_path / "store.json").write_text(json.dumps(manifest))
    with pytest.raises(TargetError, match="is damaged"):
        TargetStore.open(tmp_path)
    assert len(TargetStore.open(tmp_path, verify=False)) == 11


def test_no_store_and_damaged_manifests(tmp_path, teacher):
    with pytest.raises(TargetError, match=r"there is no target store at .*: build it first"):
        TargetStore.open(tmp_path)
    build(tmp_path, teacher)
    for text in ('{"format": 1, "lab', "[]", '{"format": 99}'):
        (tmp_path / "store.json").write_text(text)
        with pytest.raises(TargetError, match="delete the folder and build the store again"):
            TargetStore.open(tmp_path)


# ---------------------------------------------------------------------------------------------------- building


def test_ids_have_to_be_unique(tmp_path, teacher):
    for data in ([*DATA[:3], DATA[1]], [*DATA[:6], DATA[1]]):  # within a shard, and across two
        with pytest.raises(DataError, match="two examples have the id 'x1': give each its own"):
            build(tmp_path / str(len(data)), teacher, data=data)


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (1e5, "float16", "exceed float16's range of ±65504: set targets.dtype to float32"),
        (-1e5, "float16", "exceed float16's range of ±65504: set targets.dtype to float32"),
        (float("nan"), "float16", "are not finite: mend the teacher"),
        (float("inf"), "float32", "are not finite: mend the teacher"),
    ],
)
def test_logits_that_cannot_be_kept_are_named_by_example(tmp_path, table, value, dtype, message):
    rows = {name: part.copy() for name, part in table.items()}
    rows["x6"][-1, 2] = value
    with pytest.raises(TargetError, match=f"teacher logits of example 'x6' {message}"):
        build(tmp_path, InMemory(rows), dtype=dtype)
    with pytest.raises(TargetError, match="is not finished: run the command that builds it again"):
        TargetStore.open(tmp_path)


def test_large_logits_fit_float32(tmp_path, table):
    rows = {name: part * 1e6 for name, part in table.items()}
    np.testing.assert_array_equal(build(tmp_path, InMemory(rows))["x3"], rows["x3"])


def test_the_largest_of_float16_fits(tmp_path, table):
    rows = table | {"x6": np.full_like(table["x6"], 65504)}
    assert (build(tmp_path, InMemory(rows), dtype="float16")["x6"] == 65504).all()


@pytest.mark.parametrize("wrong", [lambda x: x[:-1], lambda x: torch.cat([x, x[:1]]), lambda x: x[:, :3]])
def test_a_teacher_that_miscounts_is_refused(tmp_path, teacher, wrong):
    with pytest.raises(TargetError, match=r"logits of shape \(\d+, \d\) for \d+ rows of 4"):
        build(tmp_path, Watched(lambda batch: wrong(teacher(batch))))


def test_an_unknown_dtype_is_refused_before_the_teacher_runs(tmp_path, teacher):
    watched = Watched(teacher)
    with pytest.raises(TargetError, match="cannot hold dtype 'bfloat16': give float16 or float32"):
        build(tmp_path / "s", watched, dtype="bfloat16")
    assert not watched.batches
    assert not (tmp_path / "s").exists()


def test_little_is_padded(tmp_path, teacher):
    watched = Watched(teacher)
    build(tmp_path, watched, shard_examples=11, batch_size=3)
    lengths = sorted(len(example["input_ids"]) for example in DATA)
    shapes = [tuple(batch["input_ids"].shape) for batch in watched.batches]
    assert shapes == [(3, lengths[2]), (3, lengths[5]), (3, lengths[8]), (2, lengths[10])]


def test_the_bar_is_for_terminals_and_can_be_turned_off(tmp_path, teacher, monkeypatch, capsys):
    real = building.tqdm
    monkeypatch.setattr(building, "tqdm", lambda *args, **options: real(*args, **options | {"delay": 0}))
    build(tmp_path / "a", teacher)
    assert capsys.readouterr().err == ""  # no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    build(tmp_path / "b", teacher, progress=False)
    assert capsys.readouterr().err == ""
    build(tmp_path / "c", teacher)
    assert "target store" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- augmentation


def jitter(example, generator):
    shifted = [1 + (i + int(torch.randint(30, (), generator=generator))) % 39 for i in example["input_ids"]]
    return example | {"input_ids": shifted}


def test_random_inputs_are_refused_before_the_teacher_runs(tmp_path, teacher):
    watched = Watched(teacher)
    with pytest.raises(TargetError) as error:
        build(tmp_path / "s", watched, data=RandomViews(DATA, jitter))
    assert str(error.value) == (
        "example 'x0' has another 'input_ids' each time it is read (random augmentation): "
        "give data.views beside data.augment, or set targets.kind to live"
    )
    assert not watched.batches
    assert not (tmp_path / "s").exists()


def test_randomness_in_the_collator_is_seen_too():
    def masking(features):
        batch = collate(features)
        batch["attention_mask"] *= (torch.rand(batch["attention_mask"].shape) > 0.5).long()
        return batch

    torch.manual_seed(0)
    with pytest.raises(TargetError, match="has another 'attention_mask'"):
        check_deterministic(DATA, masking)


def test_rare_randomness_is_seen():
    def sometimes(example, generator):
        return jitter(example, generator) if torch.rand((), generator=generator) < 0.25 else example

    torch.manual_seed(0)
    with pytest.raises(TargetError, match="random augmentation"):
        check_deterministic(RandomViews(examples(n=40), sometimes), collate)


def test_what_stays_the_same_is_accepted():
    check_deterministic(DATA, collate)
    check_deterministic(SeededViews(DATA, jitter, views=3), collate)


def test_teacher_and_student_see_the_same_views(tmp_path):
    live = FrozenTeacher(bert(), LABELS)
    store = build(tmp_path, live, data=SeededViews(DATA, jitter, views=2, seed=1))
    views = SeededViews(DATA, jitter, views=2, seed=1)
    batch = collate([views[i] for i in (0, 11, 13, 5)])
    assert batch["example_id"] == ["x0#0", "x0#1", "x2#1", "x5#0"]
    torch.testing.assert_close(store(batch), live(batch), rtol=1e-5, atol=1e-5)
    assert np.abs(store["x0#0"] - store["x0#1"]).max() > 0.1
