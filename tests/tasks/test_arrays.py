"""npz archives and idx files."""

import io
import struct
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from datasets import List, Value
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reading import message, read, rows, write
from setpoint.errors import DataError
from setpoint.recipe import DataRecipe
from setpoint.tasks import arrays
from setpoint.tasks.image_classification import ImageClassification

PICTURES = ("image", "label")


def npz(path, pack=np.savez_compressed, **columns):
    pack(path, **columns)
    return str(path)


def encoded(colour, kind="PNG", size=(2, 3)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def ragged(parts, dtype=np.uint8):
    """Arrays one after another, and their offsets."""
    parts = [np.frombuffer(part, np.uint8) if isinstance(part, bytes) else np.asarray(part, dtype) for part in parts]
    return np.concatenate(parts), np.cumsum([0, *map(len, parts)])


# ---------------------------------------------------------------------------------------------------- npz


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_arrays_are_columns(tmp_path, pack):
    image = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    path = npz(tmp_path / "x.npz", pack, image=image, label=np.array([3, 1, 0, 1], np.uint8), other=np.zeros(9))
    got = read(path, PICTURES)["train"]
    assert rows(got) == [{"image": i.tolist(), "label": name} for i, name in zip(image, "3101", strict=True)]
    assert got.features["image"] == List(List(Value("uint8")))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array(["b", "ä"]), ["b", "ä"]),
        (np.array([True, False]), ["True", "False"]),
        (np.array([-1, 300], np.int16), ["-1", "300"]),
    ],
)
def test_labels_of_any_type_are_names(tmp_path, labels, names):
    path = npz(tmp_path / "x.npz", text=np.array(["x", "y"]), label=labels, id=np.array(["p", "q"]))
    got = read(path, ("text", "label"))["test"]
    assert (got["label"][:], got["id"][:]) == (names, ["test-p", "test-q"])


def test_a_column_that_offsets_cut_is_files_and_they_open_as_pictures(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    jpeg, offsets = ragged([encoded(colour) for colour in colours])
    path = npz(tmp_path / "x.npz", jpeg=jpeg, offsets=offsets, label=np.arange(3), names=np.array(["a", "b"]))
    got = read(path, PICTURES, image="jpeg")["train"]
    assert [row["jpeg"].getpixel((0, 0)) for row in got] == colours
    stored = got.with_format("arrow")[0]["jpeg"][0].as_py()
    assert stored == {"bytes": encoded(colours[0]), "path": None}
    task = ImageClassification(DataRecipe(**dict.fromkeys(("train", "validation", "test"), path), image="jpeg"))
    examples = task.encode(task.load().test, None)
    assert [example["pixel_values"][:, 0, 0].tolist() for example in examples] == np.eye(3).tolist()


def test_other_numbers_that_offsets_cut_are_arrays_of_their_type(tmp_path):
    parts = [[1, -2, 3], [], [-32768, 32767]]
    audio, offsets = ragged(parts, np.int16)
    path = npz(tmp_path / "x.npz", audio=audio, offsets=offsets, label=np.zeros(3))
    assert message(read, path, ("audio",)) == (
        "example 'train-1' of data.train has array([], dtype=int16) in column 'audio': "
        "give a .wav file, or a list of numbers"
    )
    audio, offsets = ragged(parts[::2], np.int16)
    got = read(npz(tmp_path / "x.npz", audio=audio, offsets=offsets), ("audio",))["train"]
    assert got["audio"][:] == parts[::2]
    assert got.features["audio"] == List(Value("int16"))


def test_what_nobody_asks_for_is_not_unpacked(tmp_path):
    path = npz(tmp_path / "x.npz", text=np.array(["a"]), other=np.array([{}], dtype=object))
    assert rows(read(path, ("text",))["train"]) == [{"text": "a"}]
    assert message(read, path, ("text", "label"), label="other") == (
        f"data.train '{path}' cannot be read (Object arrays cannot be loaded when allow_pickle=False): "
        "give an npz of plain arrays"
    )


def test_rows_may_be_picked_by_a_column_that_no_task_reads(tmp_path):
    path = npz(tmp_path / "x.npz", text=np.array(list("abcd")), speaker=np.array([0, 1, 2, 0], np.uint8))
    got = read(path, ("text",), only={"train": {"speaker": (0,)}, "test": {"speaker": (1, 2)}})
    assert {split: dataset["text"][:] for split, dataset in got.items()} == {
        "train": ["a", "d"], "validation": list("abcd"), "test": ["b", "c"],
    }  # fmt: skip
    assert got["train"]["id"][:] == ["train-0", "train-3"]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"text": np.array(["a", "b"])}, "data.train has no column 'label', only text: set data.label"),
        ({"text": np.array(["a", "b"]), "label": np.zeros(3, int)},
         "array 'label' of {path} has 3 entries where there are 2 rows: give one for each row"),
        ({"text": np.array(["a", "b"]), "label": np.array(3)},
         "array 'label' of {path} has no axis where there are 2 rows: give one for each row"),
        ({"text": np.array(["a", "b"]), "label": np.zeros(2, int), "offsets": np.array([0, 1])},
         "array 'text' of {path} has 2 entries where there are 1 rows: give one for each row"),
        ({"text": np.array(["a"]), "label": np.zeros((1, 2))},
         "example 'train-0' of data.train has array([0., 0.]) in column 'label': give a name or a whole number"),
        ({"text": np.array([], str), "label": np.array([], int)}, "data.train has no examples: give a split with some"),
        *(({"text": np.array(["a"]), "label": np.zeros(1, int), "offsets": offsets},
           "array 'offsets' of {path} is none: give whole numbers from 0 that never fall, n + 1 of n rows")
          for offsets in (np.array([1, 2]), np.array([0, 5, 3]), np.array([0.0, 1.0]), np.zeros((2, 2), int),
                          np.array([], int), np.array(0))),
    ],
)  # fmt: skip
def test_arrays_that_are_no_columns_are_named(tmp_path, columns, sentence):
    path = npz(tmp_path / "x.npz", **columns)
    assert message(read, path, ("text", "label")) == sentence.format(path=path)


def test_an_archive_that_unpacks_to_too_much_is_refused_unread(tmp_path, monkeypatch):
    path = npz(tmp_path / "x.npz", text=np.array(["a"]), other=np.zeros(10**4))
    size = 2 * 128 + 4 + 8 * 10**4  # two headers, one letter, and the zeros
    monkeypatch.setattr(arrays, "allowance", lambda path: size)
    assert len(read(path, ("text",))["train"]) == 1
    monkeypatch.setattr(arrays, "allowance", lambda path: size - 1)
    monkeypatch.setattr(np, "load", lambda *args, **options: pytest.fail("it is read"))
    assert message(read, path, ("text",)) == (
        f"data.train '{path}' cannot be read (it unpacks to more than {size - 1} bytes): give an npz of plain arrays"
    )


@pytest.mark.parametrize("shape", ["(99999999999999,)", "(9999,)", "(-1,)", "()", "x"])
def test_a_header_that_promises_more_than_there_is_is_refused(tmp_path, shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + b"1234"
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("text.npy", array)
    assert message(read, tmp_path / "x.npz", ("text",))


def damaged(content):
    """A file with some bytes changed, or cut off."""
    place = st.integers(0, len(content) - 1)
    changes = st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=4)
    return st.one_of(place.map(lambda end: content[:end]), changes.map(lambda pairs: changed(content, pairs)))


def changed(content, pairs):
    result = bytearray(content)
    for place, value in pairs:
        result[place] = value
    return bytes(result)


def archive_bytes():
    buffer = io.BytesIO()
    jpeg, offsets = ragged([encoded((255, 0, 0)), encoded((0, 255, 0))])
    np.savez_compressed(buffer, image=jpeg, offsets=offsets, label=np.arange(2))
    return buffer.getvalue()


@given(damaged(archive_bytes()))
def test_a_damaged_archive_raises_nothing_else(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    path.write_bytes(content)
    with suppress(DataError):  # and nothing else
        read(path, PICTURES)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"text", b"\x93NUMPY\1\0"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    path = write(tmp_path / "x.npz", content)
    assert message(read, path, ("text",)) == (
        f"data.train '{path}' cannot be read (File is not a zip file): give an npz of plain arrays"
    )


# ---------------------------------------------------------------------------------------------------- idx


def idx(array, kind=0x08):
    shape = np.shape(array)
    dtype = {0x08: ">u1", 0x0B: ">i2", 0x0D: ">f4"}[kind]
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + np.asarray(array, dtype).tobytes()


IMAGES = np.arange(12, dtype=np.uint8).reshape(3, 2, 2) * 20


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"),
        ("t10k-images.idx3-ubyte.xz", "t10k-labels.idx1-ubyte"),
    ],
)
def test_images_of_idx_have_the_labels_beside_them(tmp_path, images, labels):
    path = write(tmp_path / images, idx(IMAGES))
    write(tmp_path / labels, idx([7, 0, 7]))
    got = read(path, PICTURES, image="pixels", label="digit")["train"]
    assert rows(got) == [{"pixels": i.tolist(), "digit": n} for i, n in zip(IMAGES, "707", strict=True)]


@pytest.mark.parametrize(("kind", "values"), [(0x0B, [[[-300, 2]]]), (0x0D, [[[0.5, -0.25]]])])
def test_idx_has_numbers_of_several_types_the_highest_byte_first(tmp_path, kind, values):
    path = write(tmp_path / "x.bin", idx(values, kind))
    assert read(path, ("image",), format="idx")["train"]["image"][:] == values


def test_idx_without_labels_has_none(tmp_path):
    path = write(tmp_path / "a-images-idx3-ubyte", idx(IMAGES))
    assert message(read, path, PICTURES) == "data.train has no column 'label', only image: set data.label"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "data.train '{path}' is not an idx file: give another file, or set data.format"),
        (b"\0\0\x07\1\0\0\0\0", "data.train '{path}' is not an idx file: give another file, or set data.format"),
        (idx(IMAGES)[:-1], "data.train '{path}' has 27 bytes where it says 28: give a whole file"),
        (idx(IMAGES) + b"\0", "data.train '{path}' has 29 bytes where it says 28: give a whole file"),
        (b"\0\0\x08\3\0\0", "data.train '{path}' has 6 bytes where it says 16: give a whole file"),
        (b"\0\0\x08\3" + b"\xff" * 12, None),
        (idx([1, 2]), "data.train '{path}' holds no images but 1 axes: give the file of images"),
    ],
)
def test_a_damaged_idx_file_is_refused(tmp_path, content, sentence):
    path = write(tmp_path / "a-images-idx3-ubyte", content)
    text = message(read, path, PICTURES)
    assert sentence is None or text == sentence.format(path=path)


def test_labels_of_other_images_are_refused(tmp_path):
    path = write(tmp_path / "a-images-idx3-ubyte", idx(IMAGES))
    labels = write(tmp_path / "a-labels-idx1-ubyte", idx([1, 2]))
    assert message(read, path, PICTURES) == (
        f"{labels} has 2 labels where {path} has 3 images: give the labels of these images"
    )
    write(tmp_path / "a-labels-idx1-ubyte", b"")
    assert message(read, path, PICTURES) == (
        f"data.train '{labels}' is not an idx file: give another file, or set data.format"
    )
    (tmp_path / "b-images-idx3-ubyte.gz").write_bytes(b"no gzip")
    assert message(read, tmp_path / "b-images-idx3-ubyte.gz", PICTURES) == (
        f"data.train '{tmp_path}/b-images-idx3-ubyte.gz' cannot be read (Not a gzipped file (b'no')): give another file"
    )
