"""New examples whose inputs are files of their own."""

import hashlib
import io
import json
from types import SimpleNamespace

import pytest
from PIL import Image

from reading import lines, message, write
from setpoint.recipe import DataRecipe
from setpoint.shipping.new_data import read_new
from setpoint.tasks.image_classification import ImageClassification


def picture(shade):
    buffer = io.BytesIO()
    Image.new("L", (2, 3), shade).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def job():
    recipe = SimpleNamespace(data=DataRecipe(dataset="digits"), task="image-classification")
    return SimpleNamespace(recipe=recipe, splits=SimpleNamespace(labels=("cat", "dog")))


def test_new_pictures_are_named_by_what_they_hold_and_can_be_encoded(job, tmp_path):
    for name, shade in (("new/dog/a.png", 51), ("new/cat/b.png", 102), ("new/cat/c.png", 51)):
        write(tmp_path / name, picture(shade))
    listed = write(tmp_path / "new/x.jsonl", lines([{"image": "dog/a.png", "label": "dog"}, {"image": "cat/b.png"}]))
    found = read_new(job, listed)
    digest = hashlib.sha256(json.dumps([{"sha256": hashlib.sha256(picture(51)).hexdigest()}]).encode()).hexdigest()
    first, second = found.examples["id"]
    assert first == f"new-{digest[:24]}-0"
    assert (found.unlabelled, list(found.examples["label"])) == ({second}, [1, 0])
    examples = ImageClassification(job.recipe.data).encode(found.examples, None)
    assert [round(example["pixel_values"].max().item() * 255) for example in examples] == [51, 102]
    folder = read_new(job, tmp_path / "new")
    assert (set(folder.examples["id"]), folder.unlabelled) == ({first, second, f"{first[:-1]}1"}, set())
    assert list(folder.examples["label"]) == [0, 0, 1]


def test_a_new_picture_that_is_not_there_is_refused(job, tmp_path):
    path = write(tmp_path / "x.jsonl", lines([{"image": "no.png", "label": "dog"}]))
    assert message(read_new, job, path) == (
        f"example 'number 0' of data.refresh names 'no.png', which is no file: give a path relative to {tmp_path}"
    )
