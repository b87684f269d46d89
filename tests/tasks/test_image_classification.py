import itertools
import json

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Picture
from transformers import AutoModelForImageClassification

from setpoint.errors import DataError
from setpoint.recipe import DataRecipe
from setpoint.tasks import make_task
from setpoint.tasks.image_classification import ImageClassification


def task(**fields):
    return ImageClassification(DataRecipe(**{"dataset": "digits"} | fields))


def split(images, features=None):
    columns = {"id": [f"x{i}" for i in range(len(images))], "image": images, "label": [0] * len(images)}
    return Dataset.from_dict(columns, features=features)


def pixels(image, **options):
    """The pixels of one image that a data set holds."""
    (example,) = task().encode(split([image], **options), None)
    return example["pixel_values"]


def message(call, *args, **fields):
    with pytest.raises(DataError) as caught:
        call(*args, **fields)
    return str(caught.value)


def bytes_image(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


# ---------------------------------------------------------------------------------------------------- pixels


def test_bytes_become_fractions():
    got = pixels([[0, 51], [102, 255]])
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, torch.tensor([[[0.0, 0.2], [0.4, 1.0]]]))


def test_dark_bytes_become_small_fractions():
    torch.testing.assert_close(pixels([[0, 1], [1, 0]]), torch.tensor([[[0, 1 / 255], [1 / 255, 0]]]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fractions_stay_as_they_are(dtype):
    image = np.array([[0.0, 0.25], [1.0, 0.5]], dtype=dtype)
    got = pixels(image)
    assert got.dtype == torch.float32
    assert got.tolist() == [image.tolist()]


def test_a_plane_gets_one_channel():
    image = bytes_image(3, 5)
    got = pixels(image)
    assert got.shape == (1, 3, 5)
    np.testing.assert_allclose(got[0], image / 255, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_come_first(channels):
    image = bytes_image(6, 5, channels)
    got = pixels(image)
    assert got.shape == (channels, 6, 5)
    for row, column, channel in itertools.product(range(6), range(5), range(channels)):
        assert float(got[channel, row, column]) == pytest.approx(image[row, column, channel] / 255, rel=1e-6)


def test_channels_that_are_first_stay_first():
    image = bytes_image(3, 6, 5)
    np.testing.assert_allclose(pixels(image), image / 255, rtol=1e-6)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_pictures_are_read_as_arrays(shape):
    image = bytes_image(*shape)
    features = Features({"id": Value("string"), "image": Image(), "label": Value("int64")})
    got = pixels(Picture.fromarray(image), features=features)
    expected = image[None] if len(shape) == 2 else image.transpose(2, 0, 1)
    np.testing.assert_allclose(got, expected / 255, rtol=1e-6)


def pictures(*images):
    features = Features({"id": Value("string"), "image": Image(), "label": Value("int64")})
    return split(list(images), features=features)


def test_a_picture_with_a_palette_has_the_colours_it_shows():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2], image[2:, 2:] = (255, 0, 0), (0, 102, 255)
    palette = Picture.fromarray(image).convert("P", palette=Picture.Palette.ADAPTIVE)
    assert palette.mode == "P"
    (example,) = task().encode(pictures(palette), None)
    torch.testing.assert_close(example["pixel_values"], torch.from_numpy(image.transpose(2, 0, 1) / 255).float())


@pytest.mark.parametrize(("mode", "channels"), [("LA", 1), ("RGBA", 3), ("L", 1), ("RGB", 3), ("1", 1), ("CMYK", 3)])
def test_a_picture_is_grey_or_of_three_colours(mode, channels):
    image = Picture.fromarray(np.full((4, 5, 3), 255, np.uint8)).convert(mode)
    (example,) = task().encode(pictures(image), None)
    assert torch.equal(example["pixel_values"], torch.ones(channels, 4, 5))


def test_sixteen_bits_become_fractions_of_their_own_white():
    image = np.array([[0, 1], [13107, 65535]], np.uint16)
    expected = torch.tensor([[[0, 1 / 65535], [0.2, 1]]])
    (example,) = task().encode(pictures(Picture.fromarray(image)), None)
    torch.testing.assert_close(example["pixel_values"], expected)
    torch.testing.assert_close(pixels(image), expected)  # the column's type says so


@pytest.mark.parametrize(
    ("image", "there"), [([[0, 256]], "values from 0 to 256"), ([[-1, 3]], "values from -1 to 3"), ([[]], "no pixels")]
)
def test_what_is_no_pixel_is_refused(image, there):
    text = message(pixels, image)
    assert text.startswith(f"image of example 'x0' has {there}: give ")


def test_a_picture_that_cannot_be_had_is_refused():
    made = pictures(Picture.fromarray(bytes_image(4, 4)), {"bytes": b"\x89PNG no picture", "path": None})
    text = message(task().encode, made, None)
    assert text.startswith("image of example 'x1' cannot be read (")
    assert "\n" not in text
    made = pictures(Picture.fromarray(bytes_image(4, 4)), None)
    assert message(task().encode, made, None) == ("image of example 'x1' is null: give a picture, or lists of numbers")


def test_pictures_that_are_no_batch_are_refused_by_the_first_that_differs():
    made = pictures(*(Picture.fromarray(bytes_image(*shape)) for shape in ((4, 5), (4, 5), (4, 6), (4, 5, 3))))
    mend = "give images of one size and number of channels"
    assert message(task().encode, made, None) == (f"image of example 'x2' is 1x4x6 while that of 'x0' is 1x4x5: {mend}")
    assert message(task().encode, made.select([0, 3]), None) == (
        f"image of example 'x3' is 3x4x5 while that of 'x0' is 1x4x5: {mend}"
    )


@pytest.mark.parametrize(("image", "axes"), [([1, 2, 3], 1), ([[[[1]]]], 4)])
def test_what_has_no_shape_of_an_image_is_refused(image, axes):
    assert message(pixels, image) == f"image of example 'x0' has {axes} axes: give [H, W] or [H, W, channels]"


# ---------------------------------------------------------------------------------------------------- data


def test_images_and_labels_are_read_and_numbered(tmp_path):
    rows = [{"pixels": [[i, 0], [0, 255]], "digit": n} for i, n in enumerate((10, 9, 10))]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = dict.fromkeys(("train", "validation", "test"), str(tmp_path / "x.jsonl"))
    splits = task(dataset=None, **files, image="pixels", label="digit").load()
    assert splits.labels == ("9", "10")
    assert splits.train.to_dict() == {
        "id": ["train-0", "train-1", "train-2"], "image": [row["pixels"] for row in rows], "label": [1, 0, 1],
    }  # fmt: skip
    assert splits.test["id"][2] == "test-2"
    assert message(task(dataset=None, **files, label="digit").load) == (
        "data.train has no column 'image', only pixels, digit: set data.image"
    )
    assert message(task(dataset=None, **files, image="pixels").load) == (
        "data.train has no column 'label', only pixels, digit: set data.label"
    )


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (None, "of data.train has null in column 'image'"),
        ([[1, 2], [3]], "of data.train has [[1, 2], [3]] in column 'image'"),
        ([[1, "2"]], "of data.train has [[1, '2']] in column 'image'"),
        ([[2**63]], "of data.train has [[9223372036854775808]] in column 'image'"),
    ],
)
def test_a_line_that_has_no_image_is_refused(tmp_path, image, sentence):
    rows = [{"image": [[0, 1]], "label": "a"}, {"image": image, "label": "b"}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = dict.fromkeys(("train", "validation", "test"), str(tmp_path / "x.jsonl"))
    assert message(task(dataset=None, **files).load) == (
        f"example 'train-1' {sentence}: give a picture, or lists of numbers as long as one another"
    )


def test_lines_with_images_of_other_axes_are_refused(tmp_path):
    rows = [{"image": [[0, 1]], "label": "a"}, {"image": [[[0], [1]]], "label": "b"}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = dict.fromkeys(("train", "validation", "test"), str(tmp_path / "x.jsonl"))
    assert message(task(dataset=None, **files).load) == (
        "image of example 'train-1' is 1x2x1 while that of 'train-0' is 1x2: "
        "give images of one size and number of channels"
    )


def test_pictures_and_names_of_a_data_set_are_kept(tmp_path):
    features = Features({"image": Image(), "label": ClassLabel(names=["dog", "cat"])})
    images = [bytes_image(4, 4, 3), 255 - bytes_image(4, 4, 3)]
    made = Dataset.from_dict({"image": [Picture.fromarray(i) for i in images], "label": [1, 0]}, features=features)
    DatasetDict(train=made, validation=made, test=made).save_to_disk(tmp_path / "d")
    splits = task(dataset=str(tmp_path / "d"), validation="validation").load()
    assert splits.labels == ("dog", "cat")
    examples = task().encode(splits.train, None)
    assert [example["labels"] for example in examples] == [1, 0]
    for example, image in zip(examples, images, strict=True):
        np.testing.assert_allclose(example["pixel_values"], image.transpose(2, 0, 1) / 255, rtol=1e-6)


def test_the_digits_are_images_of_eight_by_eight(tmp_path):
    splits = task(limit=30).load()
    assert splits.labels == tuple("0123456789")
    batch = task().collate(None)(task().encode(splits.train, None))
    assert batch["pixel_values"].shape == (30, 1, 8, 8)
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["pixel_values"].min() == 0
    assert batch["pixel_values"].max() == 1
    np.testing.assert_array_equal(batch["pixel_values"][7, 0], np.asarray(splits.train["image"][7]))
    assert batch["labels"].tolist() == splits.train["label"][:]
    assert batch["example_id"] == [f"train-{i}" for i in range(30)]


def test_scores_are_by_image():
    logits = [np.array([[2.0, 1.0]]), np.array([[0.0, 1.0]]), np.array([[0.0, -1.0]]), np.array([[0.0, 3.0]])]
    got = task().metrics(logits, [np.array([label]) for label in (0, 1, 1, 1)], ("a", "b"))
    assert got["accuracy"] == 0.75
    assert got["f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert got["mcc"] == pytest.approx(2 * 1 / np.sqrt(2 * 3 * 1 * 2))
    assert got["classes"]["b"]["recall"] == pytest.approx(2 / 3)
    assert task().metric in got


# ---------------------------------------------------------------------------------------------------- the task


def test_what_is_done_to_pictures_is_on_record_and_a_tokenizers_length_is_not():
    made = task(augment={"pixels": 2}, views=3, image_size=[4, 5], mean=[0.5], std=[0.25])
    assert made.preprocessing() == {
        "task": "image-classification", "max_length": None, "augment": [{"kind": "shift", "pixels": 2}], "views": 3,
        "image_size": [4, 5], "mean": [0.5], "std": [0.25],
    }  # fmt: skip
    plain = {"task": "image-classification", "max_length": None, "augment": None}
    assert task(max_length=7).preprocessing() == plain


def test_the_task_goes_by_its_name():
    assert isinstance(make_task("image-classification", DataRecipe(dataset="digits")), ImageClassification)
    assert task().model_class() is AutoModelForImageClassification
