"""A temperature for each row of a batch, at which it is as soft as wanted: quick enough for every training step."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from setpoint.errors import TemperatureError

KINDS = ("effective_classes", "entropy", "other_mass")
LOWEST, HIGHEST = 1e-3, 1e4
ITERATIONS = 12
GROUP = 16
"""Classes that the sketch puts together."""
TOLERANCE = 3e-5
"""Of what is solved for, the entropy in nats or the mass: three times finer than promised."""


@torch.no_grad()
def soften(
    logits: Float[Tensor, "*rows C"], kind: str, wanted: float, iterations: int = ITERATIONS
) -> Float[Tensor, "*rows"]:
    """The T of each row at which softmax(logits / T) is as soft as wanted.

    Entropy and other mass rise with T, so the root is unique; a bracketed Halley iteration on log T finds it. It starts
    from the root of a sketch of the row, in which every 16 classes are their largest and 15 at the mean of the rest,
    and stops where what the last step leaves, of third order, is too little to matter. Two evaluations of a row are
    usual. ``solve_temperature`` does the same in float64, exact to 1e-6, many times slower.

    Args:
        logits: ``[..., C]``; masked classes may be ``-inf``, but not all of a row.
        kind: ``effective_classes`` (exp H), ``entropy`` (H in nats) or ``other_mass`` (the mass off the top class).
        wanted: the softness.
        iterations: at most so many evaluations of a row.

    Returns:
        T, ``[...]``, in float32 (float64 for float64 logits), within 0.001 and 10 000. Entropy and mass are met to
        1e-4, effective classes to 1e-4 of themselves. A row that cannot be so soft (all its live classes equally
        likely) or so sharp (a tie at the top) gets the end of the range, or nearly; a row whose logits are all equal
        gets 1.

    Raises:
        TemperatureError: an unknown kind.

    Examples:
        >>> t = soften(torch.tensor([[0.0, 1.0, 5.0]]), "effective_classes", 2.0)
        >>> probabilities = torch.softmax(torch.tensor([0.0, 1.0, 5.0]) / t, -1)
        >>> round(float(torch.special.entr(probabilities).sum().exp()), 4)
        2.0
    """
    if kind not in KINDS:
        raise TemperatureError(f"softness '{kind}' is unknown", f"give one of {', '.join(KINDS)}")
    wide = logits if logits.dtype == torch.float64 else logits.float()
    rows = wide.reshape(-1, wide.shape[-1])
    gaps = rows - rows.amax(-1, keepdim=True)
    entropic = kind != "other_mass"
    target = math.log(wanted) if kind == "effective_classes" else wanted
    if gaps.shape[-1] >= 8 * GROUP:
        sketch, weights = _sketch(gaps)
        log_t = _halley(sketch, weights, _guess(sketch, weights, target, entropic), target, entropic, ITERATIONS, 0.05)
    else:
        log_t = _guess(gaps, None, target, entropic)
    log_t = _halley(gaps, None, log_t, target, entropic, iterations, TOLERANCE)
    flat = gaps.amin(-1) == 0
    return log_t.exp().masked_fill(flat, 1.0).clamp(LOWEST, HIGHEST).reshape(logits.shape[:-1])


@torch.no_grad()
def soften_mean(logits: Float[Tensor, "*rows C"], kind: str, wanted: float) -> float:
    """The one T at which the mean softness of the rows is as wanted, to 1e-6; arguments as of ``soften``.

    Where no T within 0.001 and 10 000 gives it, the nearer of those; 1 where there are no rows, or all are flat.

    Examples:
        >>> round(soften_mean(torch.tensor([[0.0, 1.0, 5.0], [0.0, 8.0, 9.0]]), "other_mass", 0.25), 3)
        1.748
    """
    rows = logits.reshape(-1, logits.shape[-1]).double()
    gaps = rows - rows.amax(-1, keepdim=True)
    if gaps.numel() == 0 or bool((gaps == 0).all()):
        return 1.0
    work = torch.empty_like(gaps), torch.empty_like(gaps)

    def mean(log_t: float) -> tuple[float, float]:
        u = torch.full_like(gaps[:, 0], log_t)
        value, slope, _ = _softness(gaps, None, u, kind != "other_mass", work)
        if kind == "effective_classes":
            value, slope = value.exp(), value.exp() * slope
        return float(value.mean()), float(slope.mean())

    low, high = math.log(LOWEST), math.log(HIGHEST)
    if mean(low)[0] >= wanted:
        return LOWEST
    if mean(high)[0] <= wanted:
        return HIGHEST
    u = 0.0
    for _ in range(100):
        value, slope = mean(u)
        if abs(value - wanted) < 1e-9 * max(1.0, abs(wanted)):
            break
        low, high = (u, high) if value < wanted else (low, u)
        moved = u - (value - wanted) / max(slope, 1e-300)
        u = moved if low < moved < high else 0.5 * (low + high)
    return math.exp(u)


def _sketch(gaps: Tensor) -> tuple[Tensor, Tensor]:
    """Columns that stand for several classes each, and for how many: ``[R, 2G]`` and ``[2G]``."""
    groups = gaps.shape[-1] // GROUP
    grouped = gaps[:, : groups * GROUP].reshape(len(gaps), GROUP, groups)  # reduced over the middle: the quicker way
    largest = grouped.amax(1)
    columns = torch.cat([largest, (grouped.sum(1) - largest) / (GROUP - 1), gaps[:, groups * GROUP :]], dim=-1)
    weights = torch.ones_like(columns[0])
    weights[groups : 2 * groups] = GROUP - 1
    return columns, weights


def _guess(gaps: Tensor, weights: Tensor | None, target: float, entropic: bool) -> Tensor:
    """Log T of each row were its logits Gaussian: H ≈ log C − σ²/(2T²)."""
    classes = gaps.shape[-1] if weights is None else float(weights.sum())
    most = math.log(classes) if classes > 1 else 1.0
    missing = most - target if entropic else most * (1 - target)
    live = gaps.clamp(min=-100.0)  # masked classes and their like say nothing of the spread
    mean = (live if weights is None else live * weights).sum(-1, keepdim=True) / classes
    square = (live - mean).square()
    variance = (square if weights is None else square * weights).sum(-1) / classes
    return 0.5 * (variance.clamp(min=1e-12) / (2 * max(missing, 0.01))).log().clamp(
        *map(math.log, (LOWEST**2 * 2, HIGHEST**2 / 2))
    )


def _halley(
    gaps: Tensor,
    weights: Tensor | None,
    log_t: Tensor,
    target: float,
    entropic: bool,
    iterations: int,
    tolerance: float,
) -> Tensor:
    """Log T of each row; rows that are done stay, and drop out when they are most."""
    most = math.log(gaps.shape[-1] if weights is None else float(weights.sum())) if entropic else 1.0
    share = min(max(target / max(most, 1e-6), 1e-6), 1 - 1e-6)
    aim = math.log(share / (1 - share))
    low = torch.full_like(log_t, math.log(LOWEST))
    high = torch.full_like(log_t, math.log(HIGHEST))
    result, left, u = log_t.clone(), torch.arange(len(gaps), device=gaps.device), log_t
    work = torch.empty_like(gaps), torch.empty_like(gaps)  # new ones at each iteration would cost as much as it
    for _ in range(iterations):
        value, slope, bend = _softness(gaps, weights, u, entropic, work)
        error = value - target
        low, high = torch.where(error < 0, u, low), torch.where(error > 0, u, high)
        # On log-odds, where both tails of the curve are straighter: the steps hold from further away.
        inner = value.clamp(1e-6 * most, (1 - 1e-6) * most)
        room = inner * (most - inner)
        slope = slope.clamp(min=1e-12)
        newton = -((inner / (most - inner)).log() - aim) * room / (most * slope)
        ratio = bend / slope + slope * (2 * inner - most) / room  # F''/F' of F = log-odds
        step = newton / (1 + 0.5 * newton * ratio).clamp(0.5, 2.0)
        moved = u + step
        inside = (moved > low) & (moved < high)
        # Third order: what is left after a step is below the error times the square of the step.
        left_over = torch.where(inside, error.abs() * step.square(), error.abs())
        u = torch.where(inside, moved, torch.where(error.abs() < tolerance, u, 0.5 * (low + high)))
        result[left] = u
        open_rows = ((left_over >= tolerance) & (error.abs() >= tolerance)).nonzero().squeeze(-1)
        if len(open_rows) == 0:
            break
        if 2 * len(open_rows) < len(left):
            left, gaps, u = left[open_rows], gaps[open_rows], u[open_rows]
            low, high = low[open_rows], high[open_rows]
            work = work[0][: len(left)], work[1][: len(left)]
    return result


def _softness(
    gaps: Tensor, weights: Tensor | None, log_t: Tensor, entropic: bool, work: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy, or mass off the top class, of rows of v − v_max; and its first two derivatives by log T."""
    scaled, masses = work
    # Below e^-80 a class adds nothing, but a denormal number, at which processors are ten times slower.
    torch.mul(gaps, (-log_t).exp().unsqueeze(-1), out=scaled).clamp_(min=-80.0)
    torch.exp(scaled, out=masses)
    if weights is not None:
        masses *= weights
    whole = masses.sum(-1)
    first = masses.mul_(scaled).sum(-1) / whole
    second = masses.mul_(scaled).sum(-1) / whole
    if not entropic:  # the top class has mass 1, for its gap is 0
        return 1 - 1 / whole, -first / whole, (first + second - 2 * first * first) / whole
    third = masses.mul_(scaled).sum(-1) / whole
    variance = second - first * first
    return whole.log() - first, variance, -2 * variance - (third - 3 * first * second + 2 * first**3)
