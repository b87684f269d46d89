"""Random views of images: moved, mirrored, and two of them mixed. All that is random comes from one generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from scipy.special import betaincinv
from torch import Tensor

from setpoint.recipe_images import Augment, CutmixAugment, MixupAugment


def augmented(
    image: Tensor, steps: Sequence[Augment], images: Sequence[Mapping[str, Tensor]], generator: torch.Generator
) -> Tensor:
    """An image after some steps, one after the other.

    Args:
        image: ``[channels, H, W]``.
        steps: of ``data.augment``; what mixes is the last.
        images: the training split, with ``pixel_values``: one of them is the partner of a mix, and goes through the
            steps before that too.
        generator: what is random is drawn from it.
    """
    for number, step in enumerate(steps):
        if step.kind == "shift":
            image = shift(image, step.pixels, generator)
        elif step.kind == "flip":
            image = flip(image, generator)
        elif isinstance(step, MixupAugment | CutmixAugment):
            drawn = images[int(torch.randint(len(images), (), generator=generator))]["pixel_values"]
            partner = augmented(drawn, steps[:number], images, generator)
            image = _mixed(image, partner, step, generator)
    return image


def _mixed(first: Tensor, second: Tensor, step: MixupAugment | CutmixAugment, generator: torch.Generator) -> Tensor:
    share = beta(step.alpha, generator)
    return mixup(first, second, share) if step.kind == "mixup" else cutmix(first, second, share, generator)


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


def flip(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Exchange left and right of an image ``[channels, H, W]``, one time in two.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> {tuple(flip(torch.tensor([[[1, 2]]]), generator).flatten().tolist()) for _ in range(20)} == {(1, 2), (2, 1)}
        True
    """
    return pixels.flip(-1) if torch.rand((), generator=generator) < 0.5 else pixels


def beta(alpha: float, generator: torch.Generator) -> float:
    """A draw of Beta(alpha, alpha): the quantile of a uniform draw.

    Examples:
        >>> 0 <= beta(0.2, torch.Generator().manual_seed(0)) <= 1
        True
    """
    uniform = float(torch.rand((), generator=generator, dtype=torch.float64))
    return float(betaincinv(alpha, alpha, uniform))


def mixup(first: Tensor, second: Tensor, share: float) -> Tensor:
    """``share`` of one image and the rest of another, pixel by pixel (arXiv:1710.09412, equation in section 2).

    Examples:
        >>> mixup(torch.ones(1, 1, 2), torch.zeros(1, 1, 2), 0.75)
        tensor([[[0.7500, 0.7500]]])
    """
    return share * first + (1 - share) * second


def cutmix(first: Tensor, second: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A rectangle of the second image in the first (arXiv:1905.04899, section 3.1).

    Its sides are √(1 − share) of the image's, rounded, and its centre is anywhere in the image, whose border cuts it.

    Examples:
        >>> cutmix(torch.ones(1, 4, 4), torch.zeros(1, 4, 4), 1.0, torch.Generator()).sum()
        tensor(16.)
    """
    height, width = first.shape[-2:]
    ratio = (1 - share) ** 0.5
    tall, wide = round(height * ratio), round(width * ratio)
    row, column = (int(torch.randint(side, (), generator=generator)) for side in (height, width))
    top, left = row - tall // 2, column - wide // 2
    rows, columns = slice(max(top, 0), top + tall), slice(max(left, 0), left + wide)
    mixed = first.clone()
    mixed[:, rows, columns] = second[:, rows, columns]
    return mixed
