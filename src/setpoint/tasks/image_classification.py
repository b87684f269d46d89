"""A label for each image."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageClassification

import setpoint.vision  # noqa: F401 - registers the project's own small network
from setpoint.errors import DataError
from setpoint.tasks.base import Batch, Collate, Example, Rows, Scores, Splits, Task
from setpoint.tasks.checks import check_shapes, is_image, pick, shown
from setpoint.tasks.classification_metrics import class_answer, classification_scores, classification_tables
from setpoint.tasks.labels import as_names, class_names, feature_names, to_ids
from setpoint.tasks.readers import read_splits


class ImageClassification(Task):
    """Images with labels; a row for each image."""

    name: ClassVar[str] = "image-classification"
    metric: ClassVar[str] = "accuracy"
    score_names: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "mcc")
    text: ClassVar[bool] = False

    def load(self) -> Splits:
        """Read and check images and labels."""
        data = self.data
        raw = read_splits(data, ("image", "label"))
        kept = feature_names(raw["train"], data.label)
        names = {
            split: as_names(dataset[data.label], feature_names(dataset, data.label)) for split, dataset in raw.items()
        }
        labels = class_names(data.labels, kept, names["train"])
        splits = {}
        for split, dataset in raw.items():
            # The column as it is: reading it here would decode every picture and pack it again.
            images = dataset.select_columns(["id", data.image]).rename_columns({data.image: "image"})
            splits[split] = images.add_column("label", to_ids(names[split], labels, split))
        return Splits(splits["train"], splits["validation"], splits["test"], labels)

    def encode(self, split: Dataset, processor: Any) -> list[Example]:
        """Pixels ``[channels, H, W]`` in [0, 1]."""
        names, most = split["id"][:], _most(split.features["image"])
        pixels = [_pixels(image, name, most) for image, name in zip(_images(split, names), names, strict=True)]
        check_shapes([tuple(image.shape) for image in pixels], names)
        return [
            {"id": name, "pixel_values": image, "labels": label}
            for name, image, label in zip(names, pixels, split["label"], strict=True)
        ]

    def input_columns(self) -> dict[str, str]:
        """An image."""
        return {"image": self.data.image}

    def read_input(self, value: Any, where: str) -> Tensor:
        """Pixels ``[channels, H, W]`` in [0, 1]: of a picture, the bytes of a file of one, an array or nested lists."""
        image = value if _is_file(value) else pick(value, self.input_columns(), where)[0]
        return _pixels(_opened(image["bytes"], where) if _is_file(image) else image, where)

    def input_length(self, value: Any) -> int:
        """An image has no text."""
        return 0

    def encode_inputs(self, inputs: Sequence[Any], processor: Any) -> list[Example]:
        """Images without labels; they must be of one size."""
        names = [f"input {i}" for i in range(len(inputs))]
        check_shapes([tuple(image.shape) for image in inputs], names)
        return [{"id": name, "pixel_values": image, "labels": 0} for name, image in zip(names, inputs, strict=True)]

    def answers(self, inputs: Sequence[Any], probabilities: Rows, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """The label of each image, its probability, and those of all."""
        return [class_answer(row[0], names) for row in probabilities]

    def collate(self, processor: Any) -> Collate:
        """Stack images of one size."""

        def collate(examples: list[Example]) -> Batch:
            return {
                "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
                "labels": torch.tensor([example["labels"] for example in examples]),
                "example_id": [example["id"] for example in examples],
            }

        return collate

    def model_class(self) -> Any:
        """The Auto class with a head over the whole image."""
        return AutoModelForImageClassification

    def scores(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> Scores:
        """Accuracy, macro F1, Matthews correlation."""
        return classification_scores(logits, labels, names)

    def tables(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> dict[str, Any]:
        """The table over classes."""
        return classification_tables(logits, labels, names)

    def augment(self, example: Example, generator: torch.Generator) -> Example:
        """The image, shifted by up to ``data.augment.pixels`` in each direction."""
        assert self.data.augment is not None
        return example | {"pixel_values": shift(example["pixel_values"], self.data.augment.pixels, generator)}


_DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow says of a damaged file."""


def _is_file(value: Any) -> bool:
    """Whether a value is the content of a picture's file, as Parquet files of pictures have it."""
    return isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes)


def _opened(content: bytes, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except _DAMAGED as error:
        reason = " ".join(str(error).split())
        raise DataError(f"image of example '{name}' cannot be read ({reason})", "give another file") from None
    return image


def _images(split: Dataset, names: Sequence[str]) -> Iterator[Any]:
    for index, name in enumerate(names):
        try:
            yield split[index]["image"]
        except _DAMAGED as error:
            reason = " ".join(str(error).split())
            raise DataError(f"image of example '{name}' cannot be read ({reason})", "give another file") from None


def _most(feature: Any) -> int:
    """The integer that is white: of 16 bits where the column says so, else of 8."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    return 65535 if getattr(feature, "dtype", None) == "uint16" else 255


def _pixels(image: Any, name: str, most: int = 255) -> Tensor:
    """An image as nested lists, array or PIL to ``[channels, H, W]``; whole numbers become [0, 1].

    Pictures come out grey or as red, green and blue; transparency is dropped, and a palette is looked up.
    """
    mode = getattr(image, "mode", None)
    if mode is not None and mode.startswith("I"):
        most = 65535
    elif mode is not None and mode not in ("1", "L", "F", "RGB"):
        image = image.convert("L" if mode in ("LA", "La") else "RGB")
    if not is_image(image):
        raise DataError(f"image of example '{name}' is {shown(image)}", "give a picture, or lists of numbers")
    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3) or pixels.size == 0:
        problem = f"{pixels.ndim} axes" if pixels.size else "no pixels"
        raise DataError(f"image of example '{name}' has {problem}", "give [H, W] or [H, W, channels]")
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.shape[-1] in (1, 3, 4):
        pixels = np.moveaxis(pixels, -1, 0)
    whole = np.issubdtype(pixels.dtype, np.integer)
    if whole and (pixels.min() < 0 or pixels.max() > most):
        raise DataError(
            f"image of example '{name}' has values from {pixels.min()} to {pixels.max()}",
            f"give whole numbers from 0 to {most}, or fractions from 0 to 1",
        )
    return torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32) / (most if whole else 1.0))


def shift(pixels: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Move an image ``[channels, H, W]`` by up to ``most`` pixels in each direction; what comes in is 0.

    Examples:
        >>> shift(torch.ones(1, 2, 2), 0, torch.Generator()).sum()
        tensor(4.)
    """
    height, width = pixels.shape[-2:]
    down, right = torch.randint(0, 2 * most + 1, (2,), generator=generator).tolist()
    padded = torch.nn.functional.pad(pixels, (most, most, most, most))
    return padded[:, down : down + height, right : right + width]
