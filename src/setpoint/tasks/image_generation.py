"""Images as sequences of quantised pixels, each predicted from those before it and the image's class."""

from __future__ import annotations

import base64
import io
import math
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from PIL import Image
from torch import Tensor

from setpoint.errors import DataError
from setpoint.sampling import sample
from setpoint.tasks.base import Example, References, Rows, Sample, Splits
from setpoint.tasks.checks import check_shapes
from setpoint.tasks.image_classification import read_images
from setpoint.tasks.labels import as_names, class_names, feature_names, to_ids
from setpoint.tasks.readers import read_splits
from setpoint.tasks.sequences import NextToken

ROWS, COLUMNS, ZOOM = 3, 10, 4
"""Images of each class in the report, classes shown, and how many times larger than they are."""


class ImageGeneration(NextToken):
    """Images with classes; a row for each value of each pixel, line by line, of colours one after another.

    The classes of a row are the levels. A sequence begins with a token for the image's class, which nothing predicts.
    """

    name: ClassVar[str] = "image-generation"
    beside: ClassVar[tuple[str, ...]] = ("bits_per_dim",)
    text: ClassVar[bool] = False
    _shape: tuple[int, ...] = (0, 0, 0)
    _kinds: tuple[str, ...] = ()

    def load(self) -> Splits:
        """Read and check images and labels; round pixels to levels."""
        data = self.data
        if data.mean is not None:
            raise DataError("data.mean is given for images whose pixels are rounded to levels", "remove mean and std")
        raw = read_splits(data, ("image", "label"))
        kept = feature_names(raw["train"], data.label)
        named = {
            split: as_names(dataset[data.label], feature_names(dataset, data.label)) for split, dataset in raw.items()
        }
        self._kinds = class_names(data.labels, kept, named["train"])
        splits = {}
        for split, dataset in raw.items():
            names = dataset["id"][:]
            pictures = dataset.select_columns(["id", data.image]).rename_columns({data.image: "image"})
            pixels = read_images(pictures, data)
            check_shapes([tuple(image.shape) for image in pixels], names)
            if split == "train":
                self._shape, first = tuple(pixels[0].shape), names[0]
            check_shapes([self._shape, tuple(pixels[0].shape)], [first, names[0]])
            levels = quantise(torch.stack(pixels), data.levels).permute(0, 2, 3, 1).flatten(1)
            columns = {"id": names, "levels": levels.numpy(), "label": to_ids(named[split], self._kinds, split)}
            splits[split] = Dataset.from_dict(columns).cast_column("label", ClassLabel(names=list(self._kinds)))
        labels = tuple(map(str, range(data.levels)))
        return Splits(splits["train"], splits["validation"], splits["test"], labels, ())

    def vocabulary(self, processor: Any) -> int:
        """The levels."""
        return self.data.levels

    def conditions(self, splits: Splits) -> int:
        """The classes of the images."""
        return len(splits.train.features["label"].names)

    def encode(self, split: Dataset, processor: Any) -> list[Example]:
        """The image's class and its pixels but the last; as labels, its pixels."""
        pixels = np.array(split.with_format("numpy")["levels"][:], dtype=np.int64)
        begins = self.data.levels + np.array(split["label"][:], dtype=np.int64)
        return [
            {"id": name, "input_ids": np.concatenate([[begin], own[:-1]]), "labels": own}
            for name, begin, own in zip(split["id"], begins, pixels, strict=True)
        ]

    def tables(self, logits: Rows, references: References, names: tuple[str, ...]) -> dict[str, Any]:
        """Perplexity, and bits per dimension: the mean loss of a value of a pixel, in bits, of the levels."""
        bits = self.loss(logits, references) / math.log(2)
        return super().tables(logits, references, names) | {"bits_per_dim": bits}

    def samples(self, source: Any, processor: Any, seed: int) -> list[Sample]:
        """A picture of images that a model draws: a column for each class."""
        kinds = self._kinds[:COLUMNS]
        prompts = torch.arange(len(kinds)).repeat(ROWS)[:, None] + self.data.levels
        length = 1 + math.prod(self._shape)
        drawn = sample(source.model, prompts, length, classes=self.data.levels, seed=seed)[:, 1:]
        shape = self._shape
        images = drawn.reshape(ROWS, len(kinds), shape[1], shape[2], shape[0]).cpu().numpy() / (self.data.levels - 1)
        return [Sample("image", png(grid(images)), f"a column for each of {', '.join(kinds)}")]


def quantise(pixels: Tensor, levels: int) -> Tensor:
    """Fractions in [0, 1] to the number of the one of ``levels`` equal parts they are in, int64.

    Examples:
        >>> quantise(torch.tensor([0.0, 0.24, 0.26, 1.0]), 4)
        tensor([0, 0, 1, 3])
    """
    return (pixels * levels).floor().long().clamp(0, levels - 1)


def grid(images: np.ndarray) -> np.ndarray:
    """Images ``[rows, columns, H, W, channels]`` as one ``[rows · H, columns · W, channels]``.

    Examples:
        >>> grid(np.arange(4.0).reshape(2, 2, 1, 1, 1))[..., 0]
        array([[0., 1.],
               [2., 3.]])
    """
    rows, columns, height, width, channels = images.shape
    return images.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)


def png(image: np.ndarray) -> str:
    """A picture ``[H, W, 1 or 3]`` of fractions as a ``data:`` URI."""
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8).repeat(ZOOM, 0).repeat(ZOOM, 1)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
