"""Pictures, their files, arrays and nested lists to the pixels that a model reads."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor

from setpoint.errors import DataError
from setpoint.recipe_images import PixelRecipe, sides
from setpoint.tasks.checks import is_file_content, is_image, shown

WHITE = 255
"""The integer that is white, of 8 bits."""
WHITE_16 = 65535
"""The same of 16 bits."""
DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow says of a damaged file."""
LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue count for in a grey (ITU-R BT.601, as Pillow has it)."""


def to_pixels(image: Any, name: str, how: PixelRecipe, most: int = WHITE) -> Tensor:
    """A picture, the content of its file, an array or nested lists to pixels ``[channels, H, W]``.

    Whole numbers become [0, 1], then ``how`` is followed: colours, size, normalisation. Transparency is dropped, and a
    palette is looked up.

    Args:
        image: the picture; an array is ``[H, W]``, ``[H, W, channels]`` or ``[channels, H, W]``.
        name: of the example, for errors.
        how: size, colours and normalisation.
        most: the whole number that is white, in arrays and lists.

    Raises:
        DataError: it is no picture, or one that ``how`` does not fit.
    """
    if is_file_content(image):
        image = opened(image["bytes"], name)
    planes, most = _planes(image, name, most, how.channels)
    if how.image_size is not None:
        planes = _sized(planes, how, most)
    pixels = planes.astype(np.float32) / np.float32(most)
    if how.mean is not None and how.std is not None:
        if len(how.mean) != len(pixels):
            raise DataError(
                f"image of example '{name}' has {len(pixels)} channels where data.mean has {len(how.mean)}",
                "set data.channels, or give a number for each channel",
            )
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (how.mean, how.std))
        pixels = (pixels - mean) / std
    return torch.from_numpy(np.ascontiguousarray(pixels))


def picture_size(image: Any, name: str) -> tuple[int, int]:
    """Height and width of what ``to_pixels`` takes, before it is resized; arguments and errors as there.

    Examples:
        >>> picture_size(np.zeros((4, 6, 3), np.uint8), "a"), picture_size(Image.new("RGB", (6, 4)), "a")
        ((4, 6), (4, 6))
    """
    image = opened(image["bytes"], name) if is_file_content(image) else image
    if isinstance(image, Image.Image):
        return image.height, image.width
    height, width = _planes(image, name, WHITE_16, None)[0].shape[1:]
    return height, width


def opened(content: bytes, name: str) -> Image.Image:
    """The picture of a file.

    Raises:
        DataError: it is none that Pillow reads.
    """
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise DataError(f"image of example '{name}' cannot be read ({reason})", "give another file") from None
    return image


def _planes(image: Any, name: str, most: int, channels: int | None) -> tuple[np.ndarray, int]:
    """Planes ``[channels, H, W]`` of a picture or an array, and what is white in them."""
    mode = getattr(image, "mode", None)
    if mode is not None and mode.startswith("I"):
        most = WHITE_16
    elif mode is not None and mode not in ("1", "L", "F", "RGB"):
        image = image.convert("L" if mode in ("LA", "La") else "RGB")
    if not is_image(image):
        raise DataError(f"image of example '{name}' is {shown(image)}", "give a picture, or lists of numbers")
    planes = np.asarray(image)
    if planes.ndim not in (2, 3) or planes.size == 0:
        problem = f"{planes.ndim} axes" if planes.size else "no pixels"
        raise DataError(f"image of example '{name}' has {problem}", "give [H, W] or [H, W, channels]")
    if planes.ndim == 2:
        planes = planes[None]
    elif planes.shape[-1] in (1, 3, 4):
        planes = np.moveaxis(planes, -1, 0)
    if not np.issubdtype(planes.dtype, np.integer):
        planes, most = planes.astype(np.float32), 1
    elif planes.min() < 0 or planes.max() > most:
        raise DataError(
            f"image of example '{name}' has values from {planes.min()} to {planes.max()}",
            f"give whole numbers from 0 to {most}, or fractions from 0 to 1",
        )
    return (planes if channels is None else _coloured(planes, name, most, channels)), most


def _coloured(planes: np.ndarray, name: str, most: int, channels: int) -> np.ndarray:
    """Grey planes or coloured ones, of planes of either."""
    there = len(planes)
    if there not in (1, 3, 4):
        raise DataError(
            f"image of example '{name}' has {there} channels where data.channels is {channels}",
            "leave that out, or give pictures that are grey or red, green and blue",
        )
    planes = planes[:3]  # a fourth is transparency
    if len(planes) == channels:
        return planes
    if channels == 3:
        return np.repeat(planes, 3, axis=0)
    if most == WHITE:
        return np.asarray(Image.fromarray(np.moveaxis(planes, 0, -1).astype(np.uint8)).convert("L"))[None]
    grey = np.tensordot(np.array(LUMA, np.float32), planes.astype(np.float32), 1)[None]
    return grey if most == 1 else np.rint(grey).astype(planes.dtype)


def _sized(planes: np.ndarray, how: PixelRecipe, most: int) -> np.ndarray:
    """Planes resized, and cut out around their centre where only the shorter side was given; 8 bits stay 8 bits."""
    assert how.image_size is not None
    wanted = how.image_size if how.resize is None else how.resize
    height, width = planes.shape[1:]
    target = sides(wanted)
    if isinstance(wanted, int):
        shorter = min(height, width)
        target = (wanted * height // shorter, wanted * width // shorter)
    if target != (height, width):
        kept = planes.astype(np.uint8 if most == WHITE else np.float32)
        filter_ = Image.Resampling[how.resample.upper()]
        planes = np.stack(
            [np.asarray(Image.fromarray(plane).resize((target[1], target[0]), filter_)) for plane in kept]
        )
    rows, columns = sides(how.image_size)
    top, left = (planes.shape[1] - rows) // 2, (planes.shape[2] - columns) // 2
    return planes[:, top : top + rows, left : left + columns]


def pictures_of(split: Dataset, names: Sequence[str]) -> Iterator[Any]:
    """The column ``image`` of a split, one picture after the other; a damaged one is named. Raises DataError."""
    for index, name in enumerate(names):
        try:
            yield split[index]["image"]
        except DAMAGED as error:
            reason = " ".join(str(error).split())
            raise DataError(f"image of example '{name}' cannot be read ({reason})", "give another file") from None


def white_of(feature: Any) -> int:
    """The integer that is white in a column of pictures: of 16 bits where the column says so, else of 8."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    return WHITE_16 if getattr(feature, "dtype", None) == "uint16" else WHITE
