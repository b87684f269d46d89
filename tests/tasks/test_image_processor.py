"""Pixels against transformers' own image processors, of which nothing here is made."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from setpoint.errors import DataError, ModelError
from setpoint.recipe import DataRecipe
from setpoint.recipe_images import PixelRecipe
from setpoint.tasks.image_processor import NAME, processor_config, read_processor, take_over
from setpoint.tasks.pixels import to_pixels


def picture(height, width, channels=3, seed=0):
    """A picture that is smooth enough to look different resized in different ways."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(noise.squeeze())


def saved(folder, **fields):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_text(json.dumps(fields))
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    return folder


PROCESSORS = {
    "an exact size": {"image_processor_type": "ViTImageProcessor", "size": {"height": 24, "width": 32}},
    "a size as older files have it": {"feature_extractor_type": "ViTFeatureExtractor", "size": 20},
    "a crop": {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 20},
        "crop_size": {"height": 20, "width": 20},
    },
    "a smaller crop": {
        "image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 30},
        "crop_size": {"height": 20, "width": 24}, "resample": 2, "image_mean": [0.1, 0.2, 0.3],
    },
    "a crop of an exact size": {
        "image_processor_type": "DeiTImageProcessor", "size": {"height": 30, "width": 30},
        "crop_size": {"height": 21, "width": 21}, "resample": 1,
    },
    "ConvNeXt's share": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 28}},
    "ConvNeXt's exact size": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
    "no size": {"image_processor_type": "ViTImageProcessor", "do_resize": False},
    "no normalisation": {"image_processor_type": "ViTImageProcessor", "do_normalize": False, "size": 8},
    "pixels from 0 to 255": {"image_processor_type": "ViTImageProcessor", "do_rescale": False, "size": 8},
    "pixels from -1 to 1": {
        "image_processor_type": "ViTImageProcessor", "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3,
        "image_std": [1.0] * 3, "size": 8,
    },
    "no more than fractions": {"image_processor_type": "ViTImageProcessor", "do_resize": False, "do_normalize": False},
}  # fmt: skip


@pytest.mark.parametrize("kind", PROCESSORS)
def test_pixels_are_those_of_transformers(tmp_path, kind):
    folder = saved(tmp_path / "model", **PROCESSORS[kind])
    fields = read_processor(str(folder), "teacher.model")
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    for shape in ((40, 60), (61, 35), (33, 33)):
        one = picture(*shape)
        expected = processor(one, return_tensors="np")["pixel_values"][0]
        got = to_pixels(one, "x", fields)
        assert got.dtype == torch.float32
        np.testing.assert_allclose(got, expected, atol=1e-5 * max(1, np.abs(expected).max()))
    # And written again they make the same pixels.
    again = saved(tmp_path / "student", **processor_config(fields))
    other = AutoImageProcessor.from_pretrained(again, backend="pil")
    expected = other(one, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(got, expected, atol=1e-5 * max(1, np.abs(expected).max()))
    assert to_pixels(one, "x", read_processor(str(again), "student.model")).equal(got)


def test_what_was_written_for_grey_pictures_is_read_again(tmp_path):
    how = PixelRecipe(mean=(0.5,), std=(0.2,), channels=1, image_size=20)
    folder = saved(tmp_path / "teacher", **processor_config(how))
    one = picture(30, 41, 1)
    got = to_pixels(one, "x", read_processor(str(folder), "teacher.model"))
    assert torch.equal(got, to_pixels(one, "x", how))
    expected = AutoImageProcessor.from_pretrained(folder, backend="pil")(one, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"image_processor_type": "EfficientNetImageProcessor"},  # normalises twice
        {"image_processor_type": "LevitImageProcessor"},  # its size is not its size
        {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 20}},  # adds a border of 0 to 224
        {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 20}, "do_center_crop": False},
    ],
)
def test_what_the_fields_cannot_say_is_refused(tmp_path, fields):
    folder = saved(tmp_path / "model", **fields)
    with pytest.raises(ModelError) as caught:
        read_processor(str(folder), "teacher.model")
    assert str(caught.value) == (
        f"{NAME} of teacher.model '{folder}' prepares pictures as data.image_size, data.mean and their like cannot say:"
        " set data.image_size, data.channels, data.mean and data.std to what the model is to get"
    )


@pytest.mark.parametrize("content", ["no json", '{"image_processor_type": "NoSuchProcessor"}', "[]"])
def test_a_file_that_says_nothing_is_refused(tmp_path, content):
    folder = saved(tmp_path / "model")
    (folder / NAME).write_text(content)
    with pytest.raises(ModelError, match=f"{NAME} of student.model '.*' cannot be used") as caught:
        read_processor(str(folder), "student.model")
    assert "\n" not in str(caught.value)


def test_a_folder_without_the_file_says_nothing(tmp_path):
    assert read_processor(str(tmp_path), "teacher.model") is None
    assert take_over(PixelRecipe(), [("teacher.model", str(tmp_path))]) == {}


def test_what_the_recipe_leaves_open_is_the_first_models(tmp_path):
    one = str(saved(tmp_path / "one", image_processor_type="ViTImageProcessor", size=24))
    other = str(saved(tmp_path / "other", image_processor_type="ViTImageProcessor", size=24, image_mean=[0.1] * 3))
    half = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    size = {"image_size": (24, 24), "resize": None, "resample": "bilinear"}
    assert take_over(PixelRecipe(), [("a", one), ("b", one)]) == size | half | {"channels": 3}
    assert take_over(PixelRecipe(image_size=7), [("a", one)]) == half | {"channels": 3}
    given = PixelRecipe(mean=(0.0,), std=(1.0,), channels=1)
    assert take_over(given, [("a", one), ("b", other)]) == size
    assert take_over(PixelRecipe(mean=(0.0,), std=(1.0,), image_size=3), [("a", "no/such/model")]) == {}
    with pytest.raises(ModelError) as caught:
        take_over(PixelRecipe(image_size=3), [("teacher.model", one), ("student.model", other)])
    assert str(caught.value) == (
        f"student.model '{other}' takes mean (0.1, 0.1, 0.1) of pictures and teacher.model '{one}' (0.5, 0.5, 0.5):"
        " set data.image_size, data.channels, data.mean and data.std to what the model is to get"
    )


# ---------------------------------------------------------------------------------------------------- colours, arrays


@pytest.mark.parametrize(("there", "wanted"), [(1, 3), (3, 1), (3, 3), (1, 1)])
def test_pictures_and_their_arrays_get_the_same_colours(there, wanted):
    one = picture(9, 7, there)
    array = np.asarray(one)
    expected = np.asarray(one.convert({1: "L", 3: "RGB"}[wanted]), dtype=np.float32) / 255
    expected = expected[None] if wanted == 1 else expected.transpose(2, 0, 1)
    how = PixelRecipe(channels=wanted)
    for value in (one, array, array.tolist()):
        np.testing.assert_allclose(to_pixels(value, "x", how), expected, atol=1e-6)
    np.testing.assert_allclose(to_pixels(array / 255.0, "x", how), expected, atol=0.501 / 255)  # greys are not rounded
    wide = to_pixels((array.astype(np.uint16) * 257), "x", how, 65535)
    np.testing.assert_allclose(wide, expected, atol=0.501 / 255)


def test_fractions_are_resized_as_bytes_but_for_rounding():
    array = np.asarray(picture(30, 41))
    for how in (PixelRecipe(image_size=12), PixelRecipe(image_size=(9, 50), resample="bicubic")):
        whole, fractions = (to_pixels(value, "x", how) for value in (array, array / np.float32(255)))
        assert float((whole - fractions.clamp(0, 1)).abs().max()) < 1.51 / 255  # twice, each way once
        assert not torch.equal(whole, fractions)


def test_an_image_of_the_size_already_is_left_as_it_is():
    array = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    assert torch.equal(to_pixels(array, "x", PixelRecipe(image_size=8))[0], torch.from_numpy(array))


@pytest.mark.parametrize(
    ("shape", "how", "sentence"),
    [
        (
            (4, 4), {"mean": (0.5,) * 3, "std": (1.0,) * 3},
            "image of example 'x' has 1 channels where data.mean has 3:"
            " set data.channels, or give a number for each channel",
        ),
        (
            (2, 5, 6), {"channels": 3},
            "image of example 'x' has 2 channels where data.channels is 3:"
            " leave that out, or give pictures that are grey or red, green and blue",
        ),
    ],
)  # fmt: skip
def test_channels_that_do_not_fit_are_refused(shape, how, sentence):
    with pytest.raises(DataError) as caught:
        to_pixels(np.zeros(shape, np.uint8), "x", PixelRecipe(**how))
    assert str(caught.value) == sentence


def test_data_say_it_to_the_task():
    how = DataRecipe(dataset="digits", image_size=4, channels=3, mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    got = to_pixels(np.full((8, 8), 0.75), "x", how)
    assert got.shape == (3, 4, 4)
    assert got[:, 0, 0].tolist() == [0.5, 0.5, 0.375]
