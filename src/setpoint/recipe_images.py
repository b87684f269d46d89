"""The part of a recipe's ``data`` that is about images: how pictures become pixels, and how they are varied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from setpoint.recipe_audio import SoundAugment
from setpoint.recipe_values import Count, Number, Part, Positive

Side = Count | Annotated[tuple[Count, ...], Field(min_length=2, max_length=2)]
"""A number for the shorter side, or height and width."""


class PixelRecipe(Part):
    """How a picture becomes the pixels that teacher and student read; by default as it is, in [0, 1].

    Where teacher or student come with a ``preprocessor_config.json``, what is not given here is taken from there.
    """

    image_size: Side | None = None
    """What pictures are resized to: the shorter side, the rest cut off around the centre; or [height, width]."""
    resize: Side | None = None
    """What pictures are resized to first, where ``image_size`` is only cut out of their centre."""
    resample: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] = "bilinear"
    """How pictures are resized."""
    channels: Literal[1, 3] | None = None
    """1 makes pictures grey, 3 makes them red, green and blue."""
    mean: Annotated[tuple[Number, ...], Field(min_length=1)] | None = None
    """What is taken away from each channel, of pixels in [0, 1]."""
    std: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    """What each channel is divided by after that."""

    @model_validator(mode="after")
    def _fits(self) -> PixelRecipe:
        if (self.mean is None) != (self.std is None):
            raise ValueError("has one of mean and std: give both, or neither")
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            raise ValueError("has a mean and a std of different lengths: give each a number for each channel")
        if self.mean is not None and self.channels is not None and len(self.mean) != self.channels:
            raise ValueError(f"has a mean of length {len(self.mean)} and channels {self.channels}: give one a channel")
        if self.resize is not None:
            if self.image_size is None:
                raise ValueError("has resize without image_size: give image_size alone, or both")
            if any(cut > side for cut, side in zip(sides(self.image_size), sides(self.resize), strict=True)):
                raise ValueError("has an image_size that is larger than resize: give a smaller one")
        return self


def pixel_settings(data: PixelRecipe) -> PixelRecipe:
    """What ``data`` says about pixels, without all else it says."""
    return PixelRecipe(**data.model_dump(include=set(PixelRecipe.model_fields)))


def sides(value: int | tuple[int, ...]) -> tuple[int, int]:
    """Height and width of ``image_size``.

    Examples:
        >>> sides(32), sides((24, 32))
        ((32, 32), (24, 32))
    """
    return (value, value) if isinstance(value, int) else (value[0], value[1])


# ---------------------------------------------------------------------------------------------------- augmentation


class ShiftAugment(Part):
    """Random translation by some pixels in each direction, which is padding and cropping."""

    kind: Literal["shift"] = "shift"
    pixels: Count = 1
    """How far an image moves at most."""


class FlipAugment(Part):
    """Left and right exchanged in half of the views."""

    kind: Literal["flip"] = "flip"


class MixupAugment(Part):
    """The mean of two images, weighted at random (arXiv:1710.09412)."""

    kind: Literal["mixup"] = "mixup"
    alpha: Positive = 1.0
    """The first image's weight is of Beta(alpha, alpha)."""


class CutmixAugment(Part):
    """A rectangle of another image in an image (arXiv:1905.04899)."""

    kind: Literal["cutmix"] = "cutmix"
    alpha: Positive = 1.0
    """The share that the first image keeps is of Beta(alpha, alpha)."""


def _is_shift(value: Any) -> Any:
    return {"kind": "shift", **value} if isinstance(value, Mapping) and "kind" not in value else value


Augment = Annotated[
    Annotated[ShiftAugment | FlipAugment | MixupAugment | CutmixAugment | SoundAugment, Field(discriminator="kind")],
    BeforeValidator(_is_shift),
]


def _mixed_last(steps: tuple[Augment, ...]) -> tuple[Augment, ...]:
    if mixes(steps[:-1]):
        raise ValueError("mixes before its last step: give mixup or cutmix last, and one of them")
    return steps


def mixes(steps: tuple[Augment, ...] | None) -> bool:
    """Whether two images become one.

    Examples:
        >>> mixes((FlipAugment(), MixupAugment())), mixes((FlipAugment(),)), mixes(None)
        (True, False, False)
    """
    return any(step.kind in ("mixup", "cutmix") for step in steps or ())


Augments = Annotated[
    tuple[Augment, ...],
    Field(min_length=1),
    AfterValidator(_mixed_last),
    BeforeValidator(lambda value: [value] if isinstance(value, Mapping | Part) else value),
]
"""A step, or a list of them, one after the other."""
