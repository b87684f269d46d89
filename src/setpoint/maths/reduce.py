"""The only denominators: losses average over valid rows, whatever the batching."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor


def masked_mean(
    values: Float[Tensor, "*rows"],
    mask: Bool[Tensor, "*rows"] | None = None,
    num_valid: Tensor | float | None = None,
) -> Float[Tensor, ""]:
    """Mean over the valid rows, Σ values[mask] / num_valid.

    Args:
        values: ``[...]``, one a row.
        mask: ``[...]``, True where a row counts; all rows where None. What stands in other rows, even NaN, adds
            exactly 0 to the value and to the gradient.
        num_valid: the denominator, where the rows are only a part of those to average over (a micro-batch, one
            process of several): the number of valid rows in all of them. The parts' results then sum to the mean.

    Returns:
        A scalar; 0 where no row is valid.

    Examples:
        >>> import torch
        >>> masked_mean(torch.tensor([1.0, 3.0, float("nan")]), torch.tensor([True, True, False]))
        tensor(2.)
    """
    if mask is not None:
        values = values[mask]
    count = values.numel() if num_valid is None else num_valid
    if isinstance(count, Tensor):
        return values.sum() / count.clamp(min=1)
    return values.sum() / max(count, 1)
