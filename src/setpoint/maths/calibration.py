"""How far a model's confidence is from how often it is right."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from setpoint.maths.tempering import temper

BINS = 15


@torch.no_grad()
def calibration_error(
    logits: Float[Tensor, "*rows C"], labels: Int[Tensor, "*rows"], temperature: float = 1.0, bins: int = BINS
) -> float:
    """The expected calibration error: the gap between confidence and accuracy, over bins of equal width.

    ECE = Σ_b (n_b / N)·|accuracy_b − confidence_b|, b over ``bins`` bins (k/bins, (k+1)/bins] of the top probability.

    Args:
        logits: ``[..., C]``.
        labels: ``[...]``; rows with a negative label are left out.
        temperature: T of the softmax.
        bins: their number.

    Returns:
        ECE in [0, 1]; 0 where no row has a label.

    Source: Guo et al. 2017, arXiv:1706.04599.

    Examples:
        >>> z = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
        >>> calibration_error(z, torch.tensor([0, 0]))  # says ½, is always right
        0.5
    """
    keep = labels >= 0
    confidence, chosen = temper(logits[keep].double(), temperature).max(-1)
    return expected_error(reliability(confidence, chosen == labels[keep], bins))


@torch.no_grad()
def reliability(
    confidence: Float[Tensor, "*rows"], right: Bool[Tensor, "*rows"], bins: int = BINS
) -> Float[Tensor, "bins 3"]:
    """What a reliability diagram is drawn from; those of parts of the rows add up to that of all.

    Args:
        confidence: ``[...]``, the top probability of each row.
        right: ``[...]``, whether its top class is the label.
        bins: the number of bins (k/bins, (k+1)/bins].

    Returns:
        For each bin the number of rows, the sum of their confidence and the number that are right, in float64.

    Source: Niculescu-Mizil and Caruana 2005, ICML; Guo et al. 2017, arXiv:1706.04599.

    Examples:
        >>> reliability(torch.tensor([0.5, 0.75, 1.0]), torch.tensor([True, False, True]), bins=2)
        tensor([[1.0000, 0.5000, 1.0000],
                [2.0000, 1.7500, 1.0000]], dtype=torch.float64)
    """
    confidence, right = confidence.flatten(), right.flatten()
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1
    columns = torch.stack([torch.ones_like(confidence), confidence, right.to(confidence.dtype)], dim=-1).double()
    return torch.zeros(bins, 3, dtype=torch.float64, device=confidence.device).index_add(0, bin_of, columns)


def expected_error(table: Float[Tensor, "bins 3"]) -> float:
    """The expected calibration error of a ``reliability`` table; 0 where it has no rows.

    Examples:
        >>> expected_error(torch.tensor([[2.0, 1.5, 1.0], [2.0, 2.0, 2.0]]))
        0.125
    """
    rows, confidence, right = table.unbind(-1)
    return float((right - confidence).abs().sum() / rows.sum().clamp(min=1))
