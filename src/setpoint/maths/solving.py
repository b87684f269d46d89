"""The temperature at which targets are as soft as wanted, and the one at which a model is calibrated."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from setpoint.errors import TemperatureError
from setpoint.types import IGNORED_LABEL

Curve = Callable[[Tensor], tuple[Tensor, Tensor]]
"""log T → (softness, its derivative by log T), both of the shape of log T."""

TOLERANCE = 1e-9
CALIBRATION_RANGE = (1e-3, 1e3)


@torch.no_grad()
def solve_temperature(
    logits: Float[Tensor, "*rows C"],
    *,
    effective_classes: float | None = None,
    entropy: float | None = None,
    top_probability: float | None = None,
    per_row: bool = False,
) -> float | Tensor:
    """The T at which softmax(logits / T) is as soft as wanted: exactly one of the three is given.

    Entropy, effective classes exp(H) and 1 − top probability all rise with T (dH/dT = Var_p(logits)/T³ ≥ 0), so the
    root is unique; Newton's method on log T finds it, kept inside a bracket that halves where a step would leave it.

    Args:
        logits: ``[..., C]``; masked classes may be ``-inf``.
        effective_classes: wanted exp(H), above 1 and below C.
        entropy: wanted H in nats, above 0 and below log C.
        top_probability: wanted probability of the top class, above 1/C and below 1.
        per_row: a temperature for each row; else one for all, at which the *mean* over rows is as wanted.

    Returns:
        A float; with ``per_row`` a tensor ``[...]`` in float64. Softness is met to 1e-6. A row that cannot be that
        sharp (ties at the top) or that soft gets the end of the search range, spread·1e-8 or spread·1e6 of its logits;
        a row whose logits are all equal gets 1. No gradient flows.

    Raises:
        TemperatureError: not exactly one target, or one that no temperature reaches.

    Example:
        >>> z = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 9.0]])
        >>> t = solve_temperature(z, effective_classes=2.0, per_row=True)
        >>> from setpoint.maths.tempering import effective_classes
        >>> effective_classes(z, t[:, None])
        tensor([2.0000, 2.0000], dtype=torch.float64)
    """
    targets = {"effective_classes": effective_classes, "entropy": entropy, "top_probability": top_probability}
    given = {name: value for name, value in targets.items() if value is not None}
    if len(given) != 1:
        raise TemperatureError(f"{len(given)} targets of softness are given", f"give one of {', '.join(targets)}")
    ((kind, target),) = given.items()
    rows = logits.reshape(-1, logits.shape[-1]).double()
    classes = rows.shape[-1]
    limits = {
        "effective_classes": (1.0, classes),
        "entropy": (0.0, math.log(classes)),
        "top_probability": (1 / classes, 1.0),
    }
    low, high = limits[kind]
    if not low < target < high:
        raise TemperatureError(
            f"{kind} is {target} for {classes} classes", f"give a value between {low:g} and {high:g}"
        )
    wanted = -target if kind == "top_probability" else target
    live = rows > -math.inf
    spread = rows.amax(-1) - rows.masked_fill(~live, math.inf).amin(-1)
    flat = spread == 0
    if per_row:
        unit = torch.where(flat, 1.0, spread)
        solved = _solve(lambda u: _softness(rows, u, kind), wanted, (unit * 1e-8).log(), (unit * 1e6).log())
        return torch.where(flat, 1.0, solved.exp()).reshape(logits.shape[:-1])
    if bool(flat.all()):
        raise TemperatureError(
            f"no temperature gives {kind} {target} to rows whose logits are all equal", "give other logits"
        )

    def mean(u: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = _softness(rows, u.expand(len(rows)), kind)
        return value.mean().reshape(1), slope.mean().reshape(1)

    ends = (spread[~flat].min() * 1e-8).log().reshape(1), (spread.max() * 1e6).log().reshape(1)
    solved = _solve(mean, wanted, *ends)
    reached = abs(float(mean(solved)[0]))
    if abs(reached - target) > 1e-6:
        raise TemperatureError(
            f"{kind} {target} is out of reach of these logits, nearest {reached:.6g}", "give a value within reach"
        )
    return float(solved.exp())


def _softness(rows: Tensor, log_t: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Softness of each row and its derivative by log T, both signed so that they rise with T."""
    t = log_t.exp().unsqueeze(-1)
    top = rows.amax(-1, keepdim=True)
    gaps = torch.where(rows > -math.inf, rows - top, 0.0) / t  # (v − v_max)/T ≤ 0; masked classes have p = 0
    p = torch.softmax((rows - top) / t, dim=-1)
    mean_gap = (p * gaps).sum(-1)
    if kind == "top_probability":
        return -p.amax(-1), -p.amax(-1) * mean_gap
    variance = (p * (gaps - mean_gap.unsqueeze(-1)).square()).sum(-1)
    entropy = torch.logsumexp((rows - top) / t, dim=-1) - mean_gap
    if kind == "entropy":
        return entropy, variance
    return entropy.exp(), entropy.exp() * variance


def _solve(curve: Curve, target: float, low: Tensor, high: Tensor) -> Tensor:
    """The root of curve(u) = target for a curve that rises, for each element; the nearer end where there is none."""
    u = 0.5 * (low + high)
    for _ in range(200):
        value, slope = curve(u)
        error = value - target
        if bool(((error.abs() < TOLERANCE) | (high - low < 1e-14)).all()):
            break
        low, high = torch.where(error < 0, u, low), torch.where(error > 0, u, high)
        newton = u - error / slope.clamp(min=1e-300)
        u = torch.where((newton > low) & (newton < high), newton, 0.5 * (low + high))
    return u


@torch.no_grad()
def calibrate_temperature(logits: Float[Tensor, "*rows C"], labels: Int[Tensor, "*rows"]) -> float:
    """The T that minimises the negative log-likelihood of held-out labels, −mean log softmax(logits / T)[label].

    In β = 1/T the likelihood is convex, so its minimum is where the derivative E[v_p] − v_label, averaged over rows,
    crosses 0; a bracketed Newton iteration on log T finds it.

    Args:
        logits: ``[..., C]`` of held-out examples, not of those the model was trained on.
        labels: ``[...]``; rows with ``-100`` are left out.

    Returns:
        T, kept within [1e-3, 1e3]: a model that is always right has no finite optimum and gets the lower end.

    Raises:
        TemperatureError: no row has a label.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
        >>> round(calibrate_temperature(logits, torch.tensor([0, 0, 0, 1])), 4)  # 3 of 4 right: p = 0.75
        1.8205
    """
    keep = labels != IGNORED_LABEL
    rows, wanted = logits[keep].double(), labels[keep].long()
    if len(rows) == 0:
        raise TemperatureError("no row has a label to calibrate on", "give labelled held-out examples")
    chosen = rows.gather(-1, wanted.unsqueeze(-1)).squeeze(-1)
    finite = rows.masked_fill(rows == -math.inf, 0.0)

    def slope(log_t: Tensor) -> tuple[Tensor, Tensor]:
        """dNLL/dβ negated, so that it rises with T, and its derivative by log T: β·Var_p(v)."""
        beta = (-log_t).exp()
        p = torch.softmax(rows * beta, dim=-1)
        mean = (p * finite).sum(-1)
        variance = (p * (finite - mean.unsqueeze(-1)).square()).sum(-1)
        return (chosen - mean).mean().reshape(1), (beta * variance.mean()).reshape(1)

    low, high = (torch.tensor([math.log(end)], dtype=torch.float64) for end in CALIBRATION_RANGE)
    low, high = low.to(rows.device), high.to(rows.device)
    if float(slope(low)[0]) >= 0:
        return CALIBRATION_RANGE[0]
    if float(slope(high)[0]) <= 0:
        return CALIBRATION_RANGE[1]
    return float(_solve(slope, 0.0, low, high).exp())
