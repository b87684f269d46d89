"""Whether two sets of examples come from one source: statistics with p-values by permutation, and Holm's correction.

Each statistic is computed at once for many ways to share the examples out between old and new; the first is how they
are, the others are random. Rows within an example (the words of a sentence) depend on one another, so whole examples
are shared out and the test is exact whatever the rows do: where nothing has changed, p ≤ α in at most a share α of all
cases (Phipson & Smyth 2010, arXiv:1603.05766). That examples are independent of one another is taken for granted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TIE = 1e-9
"""Statistics closer than this are one, whatever the order of their sums."""


def sharings(old: int, new: int, repeats: int = 1999, seed: int = 0) -> Bool[Tensor, "S N"]:
    """Which of N = old + new examples are new: first as they are, the old ones in front, and then at random.

    Examples:
        >>> sharings(2, 1, repeats=50)[0].tolist(), sharings(2, 1, repeats=50).sum(-1).unique().tolist()
        ([False, False, True], [1])
    """
    generator = torch.Generator().manual_seed(seed)
    random = torch.rand(repeats, old + new, generator=generator).argsort(-1) < new
    return torch.cat([(torch.arange(old + new) >= old)[None], random])


def p_value(statistics: Float[Tensor, " S"]) -> float:
    """The share of the statistics that are at least the first, itself included.

    Examples:
        >>> p_value(torch.tensor([3.0, 1.0, 4.0, 2.0]))
        0.5
    """
    first = statistics[0]
    return float((statistics >= first - TIE * (1 + first.abs())).double().mean())


def frequency_distance(counts: Float[Tensor, "N K"], new: Bool[Tensor, "S N"]) -> Float[Tensor, " S"]:
    """Total variation ½ Σ |p − q| between the frequencies of K kinds among all rows of the old and the new examples.

    Args:
        counts: how many rows of each kind an example has.
        new: the sharings.

    Examples:
        >>> frequency_distance(torch.tensor([[3.0, 1.0], [0.0, 4.0]]), torch.tensor([[False, True]]))
        tensor([0.7500], dtype=torch.float64)
    """
    counts = counts.double()
    there = new.double() @ counts
    here = counts.sum(0) - there
    return 0.5 * (_normalised(here) - _normalised(there)).abs().sum(-1)


def rate_distance(
    hits: Float[Tensor, " N"], rows: Float[Tensor, " N"], new: Bool[Tensor, "S N"]
) -> Float[Tensor, " S"]:
    """How far apart the share of hits among the rows is in the old and in the new examples.

    Args:
        hits: how many rows of an example are hits.
        rows: how many rows it has.
        new: the sharings.

    Examples:
        >>> hits, rows = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([2.0, 2.0, 2.0])
        >>> rate_distance(hits, rows, torch.tensor([[False, False, True]]))
        tensor([0.7500], dtype=torch.float64)
    """
    return frequency_distance(torch.stack([hits, rows - hits], -1), new)


def distribution_distance(values: Float[Tensor, " N"], new: Bool[Tensor, "S N"]) -> Float[Tensor, " S"]:
    """The largest gap between the distribution functions of the old and the new values.

    Source: Kolmogorov 1933; Smirnov 1948, Annals of Mathematical Statistics 19(2).

    Examples:
        >>> distribution_distance(torch.tensor([0.1, 0.2, 0.3, 0.9]), torch.tensor([[False, False, True, True]]))
        tensor([1.], dtype=torch.float64)
    """
    ordered, order = values.sort()
    last = torch.cat([ordered[1:] != ordered[:-1], torch.ones(1, dtype=torch.bool)])  # of equal values
    there = new[:, order].double().cumsum(-1)
    here = torch.arange(1, len(values) + 1, dtype=torch.float64) - there
    gap = here / here[:, -1:] - there / there[:, -1:]
    return gap[:, last].abs().amax(-1)


def energy_distance(points: Float[Tensor, "N D"], new: Bool[Tensor, "S N"]) -> Float[Tensor, " S"]:
    """2 E‖X − Y‖ − E‖X − X′‖ − E‖Y − Y′‖ of old points X and new points Y; 0 where their distributions are one.

    Source: Székely & Rizzo 2004, Testing for equal distributions in high dimension, InterStat 5.

    Examples:
        >>> points = torch.tensor([[0.0], [0.0], [3.0], [3.0]])
        >>> energy_distance(points, torch.tensor([[False, False, True, True], [False, True, False, True]]))
        tensor([6., 0.], dtype=torch.float64)
    """
    points, there = points.double(), new.double()
    apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    here, reach = 1 - there, there @ apart
    many, few = here.sum(-1), there.sum(-1)
    between, within = (reach * here).sum(-1), (reach * there).sum(-1)
    rest = apart.sum() - 2 * between - within
    return 2 * between / (many * few) - rest / many**2 - within / few**2


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values for which the chance of one false alarm or more is that of a single test.

    The smallest of m is multiplied by m, the next by m − 1, and so on; none is below one before it.
    Source: Holm 1979, Scandinavian Journal of Statistics 6(2).

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted, worst = [0.0] * len(p_values), 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = worst
    return adjusted


def _normalised(counts: Tensor) -> Tensor:
    return counts / counts.sum(-1, keepdim=True).clamp(min=1)
