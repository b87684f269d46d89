"""A label for each image."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForImageClassification

import setpoint.vision  # noqa: F401 - registers the project's own small network
from setpoint.errors import DataError
from setpoint.tasks.base import Batch, Collate, Example, Rows, Splits, Task
from setpoint.tasks.classification_metrics import classification_metrics
from setpoint.tasks.labels import as_names, feature_names, sorted_labels, to_ids
from setpoint.tasks.readers import column, read_splits


class ImageClassification(Task):
    """Images with labels; a row for each image."""

    name: ClassVar[str] = "image-classification"
    metric: ClassVar[str] = "accuracy"
    text: ClassVar[bool] = False

    def load(self) -> Splits:
        """Read and check images and labels."""
        data = self.data
        raw = read_splits(data)
        names = {
            split: as_names(column(dataset, data.label, "label", split), feature_names(dataset, data.label))
            for split, dataset in raw.items()
        }
        labels = data.labels or feature_names(raw["train"], data.label) or sorted_labels(names["train"])
        splits = {
            split: Dataset.from_dict(
                {
                    "id": dataset["id"],
                    "image": column(dataset, data.image, "image", split),
                    "label": to_ids(names[split], labels, split),
                }
            )
            for split, dataset in raw.items()
        }
        return Splits(splits["train"], splits["validation"], splits["test"], labels)

    def encode(self, split: Dataset, processor: Any) -> list[Example]:
        """Pixels ``[channels, H, W]`` in [0, 1]."""
        return [
            {"id": name, "pixel_values": _pixels(image, name), "labels": label}
            for name, image, label in zip(split["id"], split["image"], split["label"], strict=True)
        ]

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

    def metrics(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> dict[str, Any]:
        """Accuracy, macro F1, Matthews correlation and the table over classes."""
        return classification_metrics(logits, labels, names)

    def augment(self, example: Example, generator: torch.Generator) -> Example:
        """The image, shifted by up to ``data.augment.pixels`` in each direction."""
        assert self.data.augment is not None
        return example | {"pixel_values": shift(example["pixel_values"], self.data.augment.pixels, generator)}


def _pixels(image: Any, name: str) -> Tensor:
    """An image as nested lists, array or PIL to ``[channels, H, W]``; bytes become [0, 1]."""
    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3):
        raise DataError(f"image of example '{name}' has {pixels.ndim} axes", "give [H, W] or [H, W, channels]")
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.shape[-1] in (1, 3, 4):
        pixels = np.moveaxis(pixels, -1, 0)
    scale = 255.0 if np.issubdtype(pixels.dtype, np.integer) else 1.0
    return torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32) / scale)


def shift(pixels: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Move an image ``[channels, H, W]`` by up to ``most`` pixels in each direction; what comes in is 0.

    Example:
        >>> shift(torch.ones(1, 2, 2), 0, torch.Generator()).sum()
        tensor(4.)
    """
    height, width = pixels.shape[-2:]
    down, right = torch.randint(0, 2 * most + 1, (2,), generator=generator).tolist()
    padded = torch.nn.functional.pad(pixels, (most, most, most, most))
    return padded[:, down : down + height, right : right + width]
