"""What is said of the classes that are not the first choice: how much, how it is shared, and which hardly count."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from setpoint.maths.tempering import entropy_of, scaled_logits, temper


@torch.no_grad()
def dark_mass(
    logits: Float[Tensor, "*rows C"], temperature: float | Tensor = 1.0
) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows"], Float[Tensor, "*rows"]]:
    """The mass of p_T off the top class, and how the other classes share it.

    With o = p / (1 − p_top) over the other classes the three are 1 − p_top, exp(H(o)) and max o. They are taken from
    the other classes' own logits, so that a mass of 1e-30 is shared as exactly as one of ½.

    Args:
        logits: ``[..., C]``; masked classes may be ``-inf``, but not all of a row.
        temperature: T, a number or broadcastable to the logits.

    Returns:
        The mass; the effective number of other classes, from 1 to C − 1; and the share of the runner-up, from
        1/(C − 1) to 1; each ``[...]``. A row that has one live class alone gets 0 for all three.

    Source: Hinton et al. 2015, arXiv:1503.02531, for what the small probabilities teach; the name is Hinton's too.

    Examples:
        >>> mass, others, runner_up = dark_mass(torch.tensor([0.6, 0.2, 0.2]).log())
        >>> round(float(mass), 4), round(float(others), 4), round(float(runner_up), 4)
        (0.4, 2.0, 0.5)
    """
    scaled = scaled_logits(logits, temperature)
    top, first = scaled.max(-1, keepdim=True)
    rest = scaled.scatter(-1, first, -math.inf)
    second = rest.amax(-1, keepdim=True)
    alone = second == -math.inf
    log_share = torch.log_softmax(rest.masked_fill(alone, 0.0), dim=-1)
    runner_up = log_share.amax(-1, keepdim=True)
    # The others weigh exp(second) / runner_up in all, and the top class exp(top).
    mass = torch.sigmoid(second - runner_up - top).squeeze(-1)
    alone = alone.squeeze(-1)
    return (
        mass,
        entropy_of(log_share).exp().masked_fill(alone, 0.0),
        runner_up.squeeze(-1).exp().masked_fill(alone, 0.0),
    )


@torch.no_grad()
def tail(logits: Float[Tensor, "*rows C"], mass: float) -> Bool[Tensor, "*rows C"]:
    """The least likely classes of each row, as many as together stay below a mass at T = 1.

    Args:
        logits: ``[..., C]``; classes at ``-inf`` are no classes, and not of the tail.
        mass: in (0, 1).

    Examples:
        >>> tail(torch.tensor([0.9, 0.004, 0.091, 0.005]).log(), 0.01)
        tensor([False,  True, False,  True])
    """
    p, order = temper(logits, 1.0).sort(dim=-1, stable=True)
    return torch.zeros_like(p, dtype=torch.bool).scatter(-1, order, p.cumsum(-1) < mass) & (logits != -math.inf)
