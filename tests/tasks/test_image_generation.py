"""Pixels one after another: the sequence by a loop, bits per dimension by their definition, and drawn pictures."""

import base64
import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from setpoint import pipeline
from setpoint.errors import DataError, ModelError
from setpoint.job import open_job
from setpoint.recipe import DataRecipe
from setpoint.recipe_file import parse_recipe
from setpoint.run_folder import RunFolder
from setpoint.sampling import sample
from setpoint.shipping.export import export
from setpoint.tasks.image_generation import ImageGeneration, grid, png, quantise
from setpoint.teachers import load_teacher


def write(folder, images, name="train"):
    rows = [{"image": image.tolist(), "label": label} for image, label in images]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def stripes(n, seed=0):
    """Images of one level, as their class says, but for a line of the other."""
    rng, found = np.random.default_rng(seed), []
    for i in range(n):
        image = np.full((4, 4), 255 * (i % 2), np.uint8)
        image[rng.integers(4)] = 255 * (1 - i % 2)
        found.append((image, ("dark", "light")[i % 2]))
    return found


def task(folder, **changes):
    return ImageGeneration(DataRecipe(train=str(folder / "train.jsonl"), test=str(folder / "train.jsonl"), **changes))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sequence_is_its_class_and_its_pixels_line_by_line(tmp_path, channels):
    rng = np.random.default_rng(0)
    images = [(rng.integers(0, 256, (3, 4, channels)).astype(np.uint8), "ab"[i % 2]) for i in range(12)]
    write(tmp_path, images)
    found = task(tmp_path, levels=5)
    splits = found.load()
    assert found.conditions(splits) == 2
    assert splits.labels == ("0", "1", "2", "3", "4")
    for example, (image, label) in zip(found.encode(splits.test, None), images, strict=True):
        expected = []
        for y in range(3):
            for x in range(4):
                for c in range(channels):
                    expected.append(min(int(image[y, x, c] / 255 * 5), 4))  # noqa: PERF401 - the order is the point
        assert example["labels"].tolist() == expected
        assert example["input_ids"].tolist() == [5 + "ab".index(label), *expected[:-1]]


def test_a_smaller_image_has_the_mean_of_what_each_pixel_covers(tmp_path):
    image = np.array([[0, 255, 0, 0], [255, 255, 0, 0], [0, 0, 128, 128], [0, 0, 128, 128]], np.uint8)
    write(tmp_path, [(image, "a"), (image, "b")] * 6)
    found = task(tmp_path, levels=4, image_size=2, resample="box")
    assert found.load().test["levels"][0] == [3, 0, 0, 2]  # 3/4 of 255, 0, 0, 128 of 255


def test_levels_part_the_range_evenly():
    values = torch.linspace(0, 1, 1001, dtype=torch.float64)
    counts = quantise(values, 4).bincount()
    assert counts.tolist() == [250, 250, 250, 251]


def test_a_picture_is_the_grid_of_its_images():
    images = np.zeros((2, 3, 2, 2, 1))
    images[1, 2, 0, 1] = 1.0
    uri = png(grid(images))
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))))
    assert picture.shape == (4 * 4, 6 * 4)
    bright = np.argwhere(picture == 255)
    assert bright.min(0).tolist() == [2 * 4, 5 * 4]
    assert len(bright) == 16


def recipe(folder, **changes):
    for name, count in (("train", 80), ("validation", 20), ("test", 20)):
        write(folder, stripes(count, len(name)), name)
    sizes = {"model_type": "gpt2", "vocab_size": 4, "n_layer": 1, "n_head": 2, "n_positions": 16, "bos_token_id": 0,
             "eos_token_id": 0}  # fmt: skip
    raw = {
        "name": "stripes", "task": "image-generation",
        "data": {name: f"./{name}.jsonl" for name in ("train", "validation", "test")} | {"levels": 2},
        "teacher": {
            "model": {"kind": "config", "config": sizes | {"n_embd": 32}},
            "train": {"epochs": 25, "batch_size": 8, "learning_rate": 1e-2},
        },
        "student": {"model": {"kind": "config", "config": sizes | {"n_embd": 16}}},
        "temperature": 1, "train": {"epochs": 8, "batch_size": 8, "learning_rate": 1e-2},
    }  # fmt: skip
    return parse_recipe(raw | changes, folder=folder)


@pytest.mark.slow
def test_a_run_draws_what_it_has_seen(tmp_path):
    metrics = pipeline.run(recipe(tmp_path), tmp_path / "run")
    assert (metrics["metric"], metrics["beside"]) == ("likelihood", ["bits_per_dim"])
    for record in (metrics["teacher"], metrics["student"]):
        assert record["metrics"]["bits_per_dim"] == pytest.approx(math.log2(record["metrics"]["perplexity"]))
    # Where the line is can be told once: two bits for 16 pixels.
    assert 2 / 16 < metrics["teacher"]["metrics"]["bits_per_dim"] < 0.3
    assert metrics["student_initial"]["metrics"]["bits_per_dim"] > 0.8
    page = (tmp_path / "run/report.html").read_text()
    assert page.count('<img src="data:image/png;base64,') == 3
    assert "img-src data: blob:; media-src data:;" in page
    job = open_job(recipe(tmp_path), RunFolder(tmp_path / "run"))
    source = load_teacher(job).source
    drawn = sample(source.model, torch.tensor([[2], [3]]).repeat(20, 1), 17, classes=2, seed=1)[:, 1:].reshape(-1, 4, 4)
    right = [
        sorted(image.sum(1).tolist()) == ([0, 4, 4, 4] if number % 2 else [0, 0, 0, 4])
        for number, image in enumerate(drawn)
    ]
    assert sum(right) >= 30  # of 40
    with pytest.raises(ModelError, match="is a run of image-generation, whose students answer nothing"):
        export(tmp_path / "run", "safetensors")


def test_a_vocabulary_without_room_for_the_classes_is_refused(tmp_path):
    raw = json.loads(recipe(tmp_path).model_dump_json(exclude_none=True, exclude_unset=True))
    raw["teacher"]["model"]["config"]["vocab_size"] = 3
    with pytest.raises(ModelError, match="the teacher has 3 embeddings where there are 4 tokens: set vocab_size"):
        pipeline.run(parse_recipe(raw, folder=tmp_path), tmp_path / "run")


def test_a_model_of_too_few_positions_is_refused(tmp_path):
    raw = json.loads(recipe(tmp_path).model_dump_json(exclude_none=True, exclude_unset=True))
    raw["teacher"]["model"]["config"]["n_positions"] = 15
    with pytest.raises(ModelError, match="the longest example has 16 tokens while the teacher reads 15 at most"):
        pipeline.run(parse_recipe(raw, folder=tmp_path), tmp_path / "run")


def test_images_of_two_sizes_are_refused(tmp_path):
    write(tmp_path, [(np.zeros((2, 2), int), "a"), (np.zeros((2, 2), int), "b")] * 5)
    write(tmp_path, [(np.zeros((3, 2), int), "a")], "test")
    found = ImageGeneration(DataRecipe(train=str(tmp_path / "train.jsonl"), test=str(tmp_path / "test.jsonl")))
    with pytest.raises(DataError, match="1x3x2 while that of 'train-0' is 1x2x2"):
        found.load()
