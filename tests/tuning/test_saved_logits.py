import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from setpoint import Fingerprint, FrozenTeacher, TargetStore
from setpoint.errors import TargetError
from setpoint.tuning.saved_logits import read_logits

LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([3, 0, 1, 2, 2, 0])
SUFFIXES = "give one of .npy, .npz, .safetensors, .parquet"


def npy(file, logits, labels):
    np.save(file.with_suffix(".npy"), logits)
    return file.with_suffix(".npy")


def npz(file, logits, labels):
    np.savez(file.with_suffix(".npz"), logits=logits, labels=labels, other=np.zeros((2, 2)))
    return file.with_suffix(".npz")


def unnamed_npz(file, logits, labels):
    names = np.array(["a", None], dtype=object)
    np.savez(file.with_suffix(".npz"), scores=logits, label=labels, ids=np.arange(6), names=names)
    return file.with_suffix(".npz")


def safetensors(file, logits, labels):
    tensors = {"logits": torch.from_numpy(logits.copy()), "labels": torch.from_numpy(labels.copy())}
    save_file(tensors, file.with_suffix(".safetensors"))
    return file.with_suffix(".safetensors")


def parquet_lists(file, logits, labels):
    pq.write_table(
        pa.table({"id": ["x"] * 6, "logits": logits.tolist(), "label": labels}), file.with_suffix(".parquet")
    )
    return file.with_suffix(".parquet")


def parquet_fixed_lists(file, logits, labels):
    values = pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), logits.shape[1])
    table = pa.table({"logits": values, "labels": labels})
    pq.write_table(table, file.with_suffix(".PARQUET"), row_group_size=2)
    return file.with_suffix(".PARQUET")


def parquet_columns(file, logits, labels):
    columns = {f"class_{number}": column for number, column in enumerate(logits.T)}
    pq.write_table(pa.table({"row": np.arange(6), **columns, "labels": labels}), file.with_suffix(".parquet"))
    return file.with_suffix(".parquet")


WRITERS = [npy, npz, unnamed_npz, safetensors, parquet_lists, parquet_fixed_lists, parquet_columns]


@pytest.mark.parametrize("write", WRITERS)
def test_every_format_gives_the_same(write, tmp_path):
    logits, labels = read_logits(write(tmp_path / "saved", LOGITS, LABELS))
    np.testing.assert_allclose(logits.numpy(), LOGITS, rtol=1e-7)
    if write is npy:
        assert labels is None
    else:
        assert labels.tolist() == LABELS.tolist()
        assert labels.dtype == torch.int64


@pytest.mark.parametrize("write", WRITERS[:4])
def test_padded_sequences_are_flattened_and_padding_left_out(write, tmp_path):
    padded, labels = LOGITS.reshape(2, 3, 4).copy(), LABELS.reshape(2, 3).copy()
    labels[0, 2] = labels[1, 1] = -100
    padded[0, 2] = math.nan  # whatever lies there
    file = write(tmp_path / "saved", padded, labels)
    elsewhere = None
    if write is npy:
        elsewhere = tmp_path / "labels.npy"
        np.save(elsewhere, labels)
    logits, kept = read_logits(str(file), elsewhere)
    np.testing.assert_array_equal(logits.numpy(), LOGITS[[0, 1, 3, 5]])
    assert kept.tolist() == [3, 0, 2, 0]


def test_parquet_sequences_of_any_length_are_joined(tmp_path):
    table = {"logits": [LOGITS[:2].tolist(), LOGITS[2:].tolist()], "labels": [[3, -100], [1, 2, 2, 0]]}
    pq.write_table(pa.table(table), tmp_path / "saved.parquet")
    logits, labels = read_logits(tmp_path / "saved.parquet")
    np.testing.assert_array_equal(logits.numpy(), LOGITS[[0, 2, 3, 4, 5]])
    assert labels.tolist() == [3, 1, 2, 2, 0]


@pytest.mark.parametrize(
    ("saved", "read"),
    [("<f2", torch.float32), ("<f4", torch.float32), (">f4", torch.float32), ("<f8", torch.float64), ("<i8", None)],
)
def test_dtypes(saved, read, tmp_path):
    values = (LOGITS * 4).round()
    np.save(tmp_path / "saved.npy", values.astype(saved))
    logits, _ = read_logits(tmp_path / "saved.npy")
    assert logits.dtype == (read or torch.float32)
    np.testing.assert_array_equal(logits.numpy(), values)


def test_bfloat16(tmp_path):
    save_file({"head": torch.from_numpy(LOGITS).bfloat16()}, tmp_path / "saved.safetensors")
    logits, labels = read_logits(tmp_path / "saved.safetensors")
    assert torch.equal(logits, torch.from_numpy(LOGITS).bfloat16().float())
    assert labels is None


def test_labels_of_another_file_win(tmp_path):
    file = npz(tmp_path / "saved", LOGITS, LABELS)
    np.savez(tmp_path / "other.npz", anything=LABELS[::-1], weight=LOGITS)
    _, labels = read_logits(file, tmp_path / "other.npz")
    assert labels.tolist() == LABELS[::-1].tolist()


def test_a_target_store(tmp_path):
    data = [{"id": str(i), "x": [float(i)], "labels": 0} for i in range(5)]

    def collate(examples):
        return {
            "input": torch.tensor([e["x"] for e in examples]),
            "labels": torch.tensor([e["labels"] for e in examples]),
            "example_id": [e["id"] for e in examples],
        }

    made_from = Fingerprint(teacher="weights", tokenizer="none", preprocessing="none", data="x")
    teacher = FrozenTeacher(torch.nn.Linear(1, 3), labels=("a", "b", "c"))
    store = TargetStore.build(tmp_path / "targets", teacher, data, collate, made_from, dtype="float32")
    logits, labels = read_logits(tmp_path / "targets")
    assert labels is None
    assert torch.equal(logits, store(collate(data)))


def pickle_here(folder):
    """An array of objects whose unpickling would leave a mark."""

    class Trap:
        def __reduce__(self):
            return (open, (str(folder / "sprung"), "w"))

    return np.array([Trap(), None], dtype=object)


def saved(name, **arrays):
    def write(folder):
        if name.endswith(".npy"):
            np.save(folder / name, arrays["logits"])
        elif name.endswith(".npz"):
            np.savez(folder / name, **arrays)
        else:
            pq.write_table(pa.table(arrays), folder / name)

    return write


def text(name):
    return lambda folder: (folder / name).write_bytes(b"0.1 0.2\n" * 40)


def objects(name):
    return lambda folder: saved(name, logits=pickle_here(folder))(folder)


PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
NAN = np.where(np.arange(6)[:, None] == 4, np.nan, LOGITS)
OBJECTS = "holds Python objects, which are not read, or is damaged: save arrays of numbers"


@pytest.mark.parametrize(
    ("write", "name", "sentence"),
    [
        (lambda folder: None, "none.npy", "'{file}' does not exist: give the path of saved logits"),
        (text("x.csv"), "x.csv", "'{file}' has the unknown suffix '.csv': " + SUFFIXES),
        (text("x"), "x", "'{file}' has the unknown suffix '': " + SUFFIXES),
        (
            text("x.pt"),
            "x.pt",
            "'{file}' is a pickle, which can run code when it is opened: save the logits as .npy, .npz, .safetensors,"
            " .parquet",
        ),
        (text("x.npy"), "x.npy", "'{file}' " + OBJECTS),
        (objects("x.npy"), "x.npy", "'{file}' " + OBJECTS),
        (objects("x.npz"), "x.npz", "'{file}' " + OBJECTS),
        (
            saved("x.npz", a=LOGITS, b=LOGITS, c=LABELS),
            "x.npz",
            "'{file}' has no array 'logits' (there is 'a' [6, 4], 'b' [6, 4], 'c' [6]): name the teacher's logits"
            " 'logits'",
        ),
        (
            saved("x.npz", names=np.array(["a", "b"])),
            "x.npz",
            "'{file}' has no array 'logits' (there is no array of numbers): name the teacher's logits 'logits'",
        ),
        (
            saved("x.parquet", text=["a"] * 6, label=LABELS),
            "x.parquet",
            "'{file}' has no array 'logits' (there is 'label' [6]): name the teacher's logits 'logits'",
        ),
        (
            saved("x.parquet", logits=[[1.0, 2.0], [1.0, 2.0], [1.0]]),
            "x.parquet",
            "'{file}' has 1 values in row 2 of 'logits' and 2 in row 0: give each row one value for each class",
        ),
        (
            saved("x.parquet", logits=[[1.0, 2.0], None]),
            "x.parquet",
            "'{file}' has 0 values in row 1 of 'logits' and 2 in row 0: give each row one value for each class",
        ),
        (
            saved("x.parquet", logits=[[1.0, 2.0], [1.0, None]]),
            "x.parquet",
            "'{file}' has NaN in row 1: mend the teacher, or leave the row out",
        ),
        (
            saved("x.parquet", logits=pa.array([], pa.list_(pa.float32()))),
            "x.parquet",
            "'{file}' has no rows: give the logits of some hundred examples or more",
        ),
        (
            saved("x.parquet", a=[1.0, 2.0], b=[2.0, 4.0], label=[0.0, None]),
            "x.parquet",
            "the labels in '{file}' are of dtype float64: give whole numbers",
        ),
        (
            saved("x.npy", logits=PROBABILITIES),
            "x.npy",
            "'{file}' holds probabilities, each row from 0 to 1 with sum 1: take their logarithm",
        ),
        (saved("x.npy", logits=NAN), "x.npy", "'{file}' has NaN in row 4: mend the teacher, or leave the row out"),
        (
            saved("x.npy", logits=LOGITS[:0]),
            "x.npy",
            "'{file}' has no rows: give the logits of some hundred examples or more",
        ),
        (
            saved("x.npy", logits=LOGITS[0]),
            "x.npy",
            "'{file}' has the shape [4]: give one row of logits an example, [N, C]",
        ),
        (
            saved("x.npz", logits=LOGITS, labels=LABELS[:4]),
            "x.npz",
            "the labels in '{file}' have the shape [4] where the logits are [6, 4]: give one label for each row of"
            " logits",
        ),
        (
            saved("x.npz", logits=LOGITS, labels=LABELS + 1),
            "x.npz",
            "the labels in '{file}' have 4 in row 0, which is none of 4 classes: give 0 to 3, or -100 for a row that"
            " does not count",
        ),
        (
            saved("x.npz", logits=LOGITS, labels=0 * LABELS - 100),
            "x.npz",
            "the labels in '{file}' are -100 in every row, so that none counts: label some, or none at all",
        ),
    ],
)  # fmt: skip
def test_a_fault_is_one_sentence_with_the_file(write, name, sentence, tmp_path):
    write(tmp_path)
    with pytest.raises(TargetError) as raised:
        read_logits(tmp_path / name)
    assert str(raised.value) == sentence.format(file=tmp_path / name)
    assert raised.value.exit_code == 2
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.safetensors", "x.parquet"])
def test_a_file_that_is_cut_off_is_said(name, tmp_path):
    write = {"x.npz": npz, "x.npy": npy, "x.safetensors": safetensors, "x.parquet": parquet_lists}[name]
    file = write(tmp_path / "x", LOGITS, LABELS)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(TargetError, match=r"^'.*' (cannot be read \(.+\)|holds Python objects.*): save .*$") as raised:
        read_logits(file)
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_no_store(tmp_path):
    with pytest.raises(TargetError, match=f"there is no target store at '{tmp_path}'"):
        read_logits(tmp_path)


def test_a_file_of_labels_without_any(tmp_path):
    file = npy(tmp_path / "saved", LOGITS, LABELS)
    np.savez(tmp_path / "labels.npz", a=LABELS, b=LABELS)
    with pytest.raises(TargetError) as raised:
        read_logits(file, tmp_path / "labels.npz")
    expected = f"'{tmp_path / 'labels.npz'}' has no array 'labels' of whole numbers: save the labels under that name"
    assert str(raised.value) == expected
