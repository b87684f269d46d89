"""How far a model's confidence is from how often it is right."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
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
    probabilities, wanted = temper(logits[keep].double(), temperature), labels[keep]
    if len(wanted) == 0:
        return 0.0
    confidence, chosen = probabilities.max(-1)
    right = (chosen == wanted).double()
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64, device=logits.device).index_add(0, bin_of, right - confidence)
    return float(gaps.abs().sum() / len(wanted))
