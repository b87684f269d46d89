"""Mean and spread of a row of logits over the classes that are not masked."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def wide(logits: Tensor) -> Tensor:
    """Logits in float32 at least."""
    return logits if logits.dtype == torch.float64 else logits.float()


def centred(logits: Float[Tensor, "*rows C"]) -> Float[Tensor, "*rows C"]:
    """Logits minus the mean of their row; masked classes (``-inf``) stay so and are no part of the mean.

    Examples:
        >>> import torch
        >>> centred(torch.tensor([1.0, 3.0, -torch.inf]))
        tensor([-1., 1., -inf])
    """
    live = logits != -math.inf
    count = live.sum(-1, keepdim=True).clamp(min=1)
    return logits - logits.masked_fill(~live, 0.0).sum(-1, keepdim=True) / count


def spread(logits: Float[Tensor, "*rows C"], *, unbiased: bool = True) -> Float[Tensor, "*rows 1"]:
    """The standard deviation of each row over its classes, ``[..., 1]``, with K − 1 (or K) in the denominator.

    A row of logits that are equal but for their rounding, or of one class, gets exactly 0, with a gradient of 0, where
    that of ``torch.std`` is NaN.

    Examples:
        >>> import torch
        >>> spread(torch.tensor([[1.0, 3.0, -torch.inf], [2.0, 2.0, 2.0]]))
        tensor([[1.4142],
                [0.0000]])
    """
    live = logits != -math.inf
    gaps = centred(logits).masked_fill(~live, 0.0)
    count = (live.sum(-1, keepdim=True) - int(unbiased)).clamp(min=1)
    variance = gaps.square().sum(-1, keepdim=True) / count
    level = logits.detach().masked_fill(~live, 0.0).abs().amax(-1, keepdim=True)
    flat = variance <= (8 * torch.finfo(variance.dtype).eps * level) ** 2
    return variance.masked_fill(flat, 1.0).sqrt().masked_fill(flat, 0.0)


def top_of(logits: Float[Tensor, "*rows C"]) -> Float[Tensor, "*rows 1"]:
    """The largest centred logit of each row, ``[..., 1]``: how far the top class stands above the mean, 0 or more."""
    return centred(logits).amax(-1, keepdim=True).clamp(min=0)
