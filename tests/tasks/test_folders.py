"""Folders of classes, and columns of paths."""

import io
import os
import struct
import wave
import zlib

import numpy as np
import pytest
from datasets import Image as ImageFeature
from PIL import Image

from reading import SPLITS, lines, message, read, rows, write
from setpoint.recipe import DataRecipe
from setpoint.recipe_file import parse_recipe
from setpoint.targets.fingerprint import digest_dataset
from setpoint.tasks.folders import to_dataset
from setpoint.tasks.image_classification import ImageClassification

PICTURES = ("image", "label")


def picture(colour=0, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("L", (2, 3), colour).save(buffer, kind)
    return buffer.getvalue()


def wav(samples=(0, 1, -1)):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.array(samples, "<i2").tobytes())
    return buffer.getvalue()


def bomb():
    """A PNG that says that it has a billion pixels."""
    chunks = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(b"")
    framed = [struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.fixture
def zoo(tmp_path):
    for name, colour in {"dog/1.png": 10, "cat/b.PNG": 20, "cat/a/9.png": 30, "cat/a.jpg": 40}.items():
        write(tmp_path / "zoo" / name, picture(colour, "JPEG" if name.endswith("jpg") else "PNG"))
    for name in ("README.md", "loose.png", "cat/notes.txt", "cat/._b.png", ".cache/x.png", "cat/x.wav"):
        write(tmp_path / "zoo" / name, b"no picture")
    (tmp_path / "zoo/empty").mkdir()
    return tmp_path / "zoo"


def test_a_folder_for_each_class_is_read_in_the_order_of_names(zoo):
    got = read(zoo, PICTURES, image="photo", label="animal")["train"]
    assert got["id"][:] == ["train-cat/a/9.png", "train-cat/a.jpg", "train-cat/b.PNG", "train-dog/1.png"]
    assert got["animal"][:] == ["cat", "cat", "cat", "dog"]
    assert [row["photo"].getpixel((0, 0)) for row in got] == [30, 40, 20, 10]
    assert got.features["photo"] == ImageFeature()


def test_only_the_files_of_chosen_rows_are_read(zoo):
    write(zoo / "dog/0.png", b"")
    os.chmod(zoo / "dog/1.png", 0)
    kept = {"train": {"label": ("cat",)}}
    assert len(read(zoo, PICTURES, only=kept | {"validation": kept["train"], "test": kept["train"]})["train"]) == 3


def test_a_store_belongs_to_what_the_pictures_hold_wherever_they_lie(zoo, tmp_path):
    before = digest_dataset(read(zoo, PICTURES)["train"])
    os.rename(zoo, tmp_path / "moved")
    assert digest_dataset(read(tmp_path / "moved", PICTURES)["train"]) == before
    write(tmp_path / "moved/dog/1.png", picture(11))
    assert digest_dataset(read(tmp_path / "moved", PICTURES)["train"]) != before


def test_a_task_takes_the_pictures_of_a_folder(zoo):
    task = ImageClassification(DataRecipe(**dict.fromkeys(SPLITS, str(zoo))))
    splits = task.load()
    assert splits.labels == ("cat", "dog")
    shades = [example["pixel_values"][0, 0, 0].item() for example in task.encode(splits.test, None)]
    assert shades == pytest.approx([shade / 255 for shade in (30, 40, 20, 10)])


@pytest.mark.parametrize(("content", "reason"), [(b"no picture", "cannot identify image file"), (b"", "cannot ident"),
                                                 (picture()[:-26], ""), (bomb(), "Image size")])  # fmt: skip
def test_a_damaged_picture_is_named_when_it_is_encoded(zoo, content, reason):
    write(zoo / "cat/b.PNG", content)
    task = ImageClassification(DataRecipe(**dict.fromkeys(SPLITS, str(zoo))))
    test = task.load().test
    text = message(task.encode, test, None)
    assert text.startswith(f"image of example 'test-cat/b.PNG' cannot be read ({reason}")
    assert text.endswith("): give another file")


def test_recordings_lie_in_folders_too(tmp_path):
    for name in ("one/a.wav", "two/b.WAV", "two/c.png"):
        write(tmp_path / "x" / name, wav())
    got = read(tmp_path / "x", ("audio", "label"))["train"]
    assert rows(got) == [{"audio": {"bytes": wav(), "path": None}, "label": name} for name in ("one", "two")]


def test_links_that_lead_out_of_the_folder_are_not_followed(zoo, tmp_path):
    write(tmp_path / "secret/key.png", picture())
    write(tmp_path / "zoo2/key.png", picture())  # a name that begins alike
    (zoo / "cat/z1.png").symlink_to(tmp_path / "secret/key.png")
    (zoo / "cat/z2.png").symlink_to("../../zoo2/key.png")
    (zoo / "cat/z3").symlink_to(tmp_path / "secret")
    (zoo / "bird").symlink_to(tmp_path / "secret")
    (zoo / "cat/loop").symlink_to(zoo)
    (zoo / "cat/broken.png").symlink_to("nowhere.png")
    (zoo / "dog/2.png").symlink_to("../cat/b.PNG")
    (tmp_path / "link").symlink_to(zoo)
    for folder in (zoo, tmp_path / "link"):
        text = message(read, folder, PICTURES)
        assert text == f"'{folder}/cat/broken.png' of data.train is no file: remove it"
    (zoo / "cat/broken.png").unlink()
    ids = ["cat/a/9.png", "cat/a.jpg", "cat/b.PNG", "dog/1.png", "dog/2.png"]
    assert read(zoo, PICTURES)["train"]["id"][:] == [f"train-{name}" for name in ids]


def test_a_folder_without_pictures_is_refused(tmp_path):
    write(tmp_path / "x/a/x.wav", wav())
    write(tmp_path / "x/loose.png", picture())
    assert message(read, tmp_path / "x", PICTURES) == (
        f"data.train '{tmp_path}/x' has no folders with image files: give a folder a class "
        "(.bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp)"
    )
    assert message(read, tmp_path / "x", ("text",)) == (
        f"data.train '{tmp_path}/x' does not exist: give the path of a readable file"
    )


def test_a_folder_is_found_beside_the_recipe(zoo, tmp_path):
    data = {"train": "zoo", "test": "./zoo"}
    raw = {
        "name": "x",
        "task": "image-classification",
        "data": data,
        "teacher": {"model": "t"},
        "student": {"model": "s"},
    }
    recipe = parse_recipe(raw, folder=tmp_path)
    assert (recipe.data.train, recipe.data.test) == (str(zoo), str(zoo))


def test_a_relative_folder_is_read_from_where_one_is(zoo, monkeypatch):
    monkeypatch.chdir(zoo.parent.parent)
    assert len(read(f"{zoo.parent.name}/zoo", PICTURES)["train"]) == 4


# ---------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.tsv", "x.jsonl.gz"])
def test_a_string_is_a_path_that_counts_from_its_file(tmp_path, name, monkeypatch):
    write(tmp_path / "d/pictures/a.png", picture(50))
    write(tmp_path / "b.png", picture(60))
    given = [("pictures/a.png", "x"), ("../b.png", "y"), (str(tmp_path / "b.png"), "z")]
    tab = "\t" if "tsv" in name else ","
    table = "\n".join(tab.join(cells) for cells in [("image", "label"), *given])
    text = lines(dict(zip(PICTURES, row, strict=True)) for row in given) if "jsonl" in name else table
    path = write(tmp_path / "d" / name, text)
    monkeypatch.chdir("/")
    got = read(path, PICTURES)["train"]
    assert [row["image"].getpixel((0, 0)) for row in got] == [50, 60, 60]
    assert got["id"][:] == ["train-0", "train-1", "train-2"]


def test_each_split_counts_from_its_own_file(tmp_path):
    for place, colour in (("a", 1), ("b", 2)):
        write(tmp_path / place / "p.png", picture(colour))
        write(tmp_path / place / "x.jsonl", lines([{"image": "p.png"}]))
    got = read(tmp_path / "a/x.jsonl", ("image",), test=str(tmp_path / "b/x.jsonl"))
    assert [got[split][0]["image"].getpixel((0, 0)) for split in SPLITS] == [1, 1, 2]
    two = write(tmp_path / "a/y.jsonl", lines([{"image": "p.png"}] * 3))
    cut = {"validation": None, "test": None, "shares": {"train": 0.4, "validation": 0.3, "test": 0.3}}
    assert read(two, ("image",), **cut)["test"][0]["image"].getpixel((0, 0)) == 1


def test_a_path_in_a_column_that_nobody_asked_for_is_text(tmp_path):
    path = write(tmp_path / "x.jsonl", lines([{"text": "a", "image": "nowhere.png"}]))
    assert rows(read(path, ("text",))["train"]) == [{"text": "a"}]


@pytest.mark.parametrize("field", ["image", "audio"])
@pytest.mark.parametrize(("value", "shown"), [("no.png", "'no.png'"), ("", "''"), (".", "'.'"), ("a\0b", "'a\\x00b'"),
                                              ("../" * 3, "'../../../'")])  # fmt: skip
def test_a_path_of_no_file_is_refused(tmp_path, field, value, shown):
    write(tmp_path / "a.png", picture())
    path = write(tmp_path / "x.jsonl", lines([{field: "a.png"}, {field: value}]))
    assert message(read, path, (field,)) == (
        f"example 'train-1' of data.train names {shown}, which is no file: give a path relative to {tmp_path}"
    )


def test_a_path_that_is_too_long_is_refused(tmp_path):
    path = write(tmp_path / "x.jsonl", lines([{"image": "x" * 400}]))
    text = message(read, path, ("image",))
    assert text.endswith(", which cannot be read (File name too long): give another file")


@pytest.mark.parametrize("other", [[[1, 2]], {"bytes": "no bytes"}, None])
def test_files_and_numbers_in_one_column_are_refused(tmp_path, other):
    write(tmp_path / "a.png", picture())
    path = write(tmp_path / "x.jsonl", lines([{"image": "a.png"}, {"image": other}]))
    text = message(read, path, ("image",))
    assert text.startswith("example 'train-1' of data.train has ")
    if isinstance(other, list):
        assert text.endswith(" has [[1, 2]] where others have a file: give files in all examples or in none")


@pytest.mark.slow
def test_more_files_than_arrow_takes_in_one_piece(tmp_path):
    """Its offsets have 32 bits."""
    large = bytes(1100 * 2**20)
    made = to_dataset({"image": [{"bytes": large}] * 2}, {"image": "image"}, ["a", "b"], "train")
    cells = [made.with_format("arrow")[i]["image"][0] for i in range(2)]
    assert [cell["bytes"].as_buffer().size for cell in cells] == [len(large)] * 2
