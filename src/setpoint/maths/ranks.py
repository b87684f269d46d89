"""Whether two models put classes in the same order."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def rank_correlation(a: Float[Tensor, "*rows C"], b: Float[Tensor, "*rows C"]) -> Float[Tensor, "*rows"]:
    """Spearman's ρ of each row: the correlation of the ranks of its classes, ties sharing their mean rank, ``[...]``.

    No temperature changes an order, so it is the same at each. Classes at ``-inf`` on either side are left out.

    Returns:
        ρ in [−1, 1], float64; NaN where a row has fewer than two live classes, or all alike on one side.

    Source: Spearman 1904, Am. J. Psychol. 15(1).

    Examples:
        >>> rank_correlation(torch.tensor([1.0, 2.0, 9.0, -torch.inf]), torch.tensor([0.1, 0.3, 0.2, 0.4]))
        tensor(0.5000, dtype=torch.float64)
    """
    live = (a != -math.inf) & (b != -math.inf)
    x, y = _centred_ranks(a, live), _centred_ranks(b, live)
    return (x * y).sum(-1) / (x.square().sum(-1) * y.square().sum(-1)).sqrt()


def _centred_ranks(values: Tensor, live: Tensor) -> Tensor:
    """Twice the rank of each live class less the mean of these; 0 at the others."""
    ordered, order = values.masked_fill(~live, -math.inf).sort(dim=-1)
    places = torch.arange(values.shape[-1], device=values.device).expand_as(values)
    differs = torch.ones_like(live)
    differs[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = places.masked_fill(~differs, 0).cummax(-1).values  # of those that are equal
    last = places.masked_fill(~differs.roll(-1, -1), values.shape[-1]).flip(-1).cummin(-1).values.flip(-1)
    ranks = torch.zeros_like(values, dtype=torch.float64).scatter(-1, order, (first + last).double())
    ranks = ranks.masked_fill(~live, 0.0)
    mean = ranks.sum(-1, keepdim=True) / live.sum(-1, keepdim=True).clamp(min=1)
    return (ranks - mean).masked_fill(~live, 0.0)
