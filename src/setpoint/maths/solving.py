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
LOG_RANGE = 700.0  # exp(±700) is still a normal float64
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
        logits: ``[..., C]``; masked classes may be ``-inf``, but not all of a row.
        effective_classes: wanted exp(H), above 1 and below C.
        entropy: wanted H in nats, above 0 and below log C.
        top_probability: wanted probability of the top class, above 1/C and below 1.
        per_row: a temperature for each row; else one for all, at which the *mean* over rows is as wanted.

    Returns:
        A float; with ``per_row`` a tensor ``[...]`` in float64. Softness is met to 1e-6. A row that cannot be that
        sharp (ties at the top) or that soft gets the end of the search range: 1e-8 of the smallest gap between its
        top logit and another that is not equal, or 1e6 of the largest; a row whose logits are all equal gets 1. No
        gradient flows.

    Raises:
        TemperatureError: not exactly one target, or one that no temperature reaches, or logits that are not finite.

    Examples:
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
    top = rows.amax(-1, keepdim=True)
    _check_finite(top)
    gaps = top - rows  # inf at masked classes
    nearest = gaps.masked_fill(gaps == 0, math.inf).amin(-1)
    flat = nearest == math.inf
    # A gap of its own scale at either end: far-off classes, such as a mask of -1e9, do not move the sharp end.
    sharp = (nearest.log() + math.log(1e-8)).clamp(-LOG_RANGE, LOG_RANGE)
    soft = (gaps.masked_fill(gaps == math.inf, 0.0).amax(-1).log() + math.log(1e6)).clamp(-LOG_RANGE, LOG_RANGE)
    if per_row:
        solved = _solve(
            lambda u: _softness(gaps, u, kind), wanted, sharp.masked_fill(flat, 0.0), soft.masked_fill(flat, 0.0)
        )
        return solved.exp().reshape(logits.shape[:-1])
    if bool(flat.all()):
        raise TemperatureError(
            f"no temperature gives {kind} {target} to rows whose logits are all equal", "give other logits"
        )

    def mean(u: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = _softness(gaps, u.expand(len(gaps)), kind)
        return value.mean().reshape(1), slope.mean().reshape(1)

    solved = _solve(mean, wanted, sharp[~flat].amin().reshape(1), soft[~flat].amax().reshape(1))
    reached = abs(float(mean(solved)[0]))
    if abs(reached - target) > 1e-6:
        raise TemperatureError(
            f"{kind} {target} is out of reach of these logits, nearest {reached:.6g}", "give a value within reach"
        )
    return float(solved.exp())


def _check_finite(needed: Tensor) -> None:
    if not bool(needed.isfinite().all()):
        raise TemperatureError("logits are not finite", "give finite logits, and -inf at masked classes only")


def _softness(gaps: Tensor, log_t: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Softness of rows of v_max − v and its derivative by log T, both signed so that they rise with T."""
    scaled = (gaps / -log_t.exp().unsqueeze(-1)).clamp(min=-1e4)  # there p = 0, and 0 · scaled is 0 and no NaN
    log_partition = torch.logsumexp(scaled, dim=-1)
    p = (scaled - log_partition.unsqueeze(-1)).exp()
    mean_gap = (p * scaled).sum(-1)
    if kind == "top_probability":
        return -p.amax(-1), -p.amax(-1) * mean_gap
    variance = (p * (scaled - mean_gap.unsqueeze(-1)).square()).sum(-1)
    entropy = log_partition - mean_gap
    if kind == "entropy":
        return entropy, variance
    return entropy.exp(), entropy.exp() * variance


def _solve(curve: Curve, target: float, low: Tensor, high: Tensor) -> Tensor:
    """The root of curve(u) = target for a curve that rises, for each element; the nearer end where there is none."""
    u = 0.5 * (low + high)
    for _ in range(200):
        value, slope = curve(u)
        error = value - target
        # Both bounds leave room for float64's own rounding: of exp(H) for many classes, of log T far from 0.
        done = (error.abs() < TOLERANCE + 1e-12 * abs(target)) | (high - low < 1e-14 * (1 + u.abs()))
        if bool(done.all()):
            break
        low, high = torch.where(error < 0, u, low), torch.where(error > 0, u, high)
        newton = u - error / slope.clamp(min=1e-300)
        step = torch.where((newton > low) & (newton < high), newton, 0.5 * (low + high))
        u = torch.where(done, u, step)  # a row that is done stays, whatever others still need
    return u


@torch.no_grad()
def calibrate_temperature(logits: Float[Tensor, "*rows C"], labels: Int[Tensor, "*rows"]) -> float:
    """The T that minimises the negative log-likelihood of held-out labels, −mean log softmax(logits / T)[label].

    In β = 1/T the likelihood is convex, so its minimum is where the derivative E[v_p] − v_label, averaged over rows,
    crosses 0; a bracketed Newton iteration on log T finds it.

    Args:
        logits: ``[..., C]`` of held-out examples, not of those the model was trained on; masked classes may be
            ``-inf``, but not all of a row, nor its label.
        labels: ``[...]``; rows with ``-100`` are left out.

    Returns:
        T, kept within [1e-3, 1e3]: a model that is always right has no finite optimum and gets the lower end.

    Raises:
        TemperatureError: no row has a label, or logits that are not finite.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
        >>> round(calibrate_temperature(logits, torch.tensor([0, 0, 0, 1])), 4)  # 3 of 4 right: p = 0.75
        1.8205
    """
    keep = labels != IGNORED_LABEL
    rows, wanted = logits[keep].double(), labels[keep].long()
    if len(rows) == 0:
        raise TemperatureError("no row has a label to calibrate on", "give labelled held-out examples")
    chosen = rows.gather(-1, wanted.unsqueeze(-1)).squeeze(-1)
    _check_finite(rows.amax(-1))
    _check_finite(chosen)
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
