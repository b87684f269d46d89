"""A temperature for each row of a batch, at which it is as soft as wanted: quick enough for every training step."""

from __future__ import annotations

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from setpoint.errors import TemperatureError
from setpoint.maths.moments import wide

KINDS = ("effective_classes", "entropy", "other_mass")
LOWEST, HIGHEST = 1e-3, 1e4
"""What a temperature that is computed from logits is kept within: the range a recipe may name."""
ITERATIONS = 12
TOLERANCE = 2e-5
"""Of what is solved for, the entropy in nats or the mass: five times finer than promised."""


@torch.no_grad()
def soften(
    logits: Float[Tensor, "*rows C"],
    kind: str,
    wanted: float,
    iterations: int = ITERATIONS,
    scratch: list[Tensor] | None = None,
) -> Float[Tensor, "*rows"]:
    """The T of each row at which softmax(logits / T) is as soft as wanted.

    Entropy and other mass rise with T, so the root is unique; a bracketed Halley iteration on log T finds it. It starts
    where a row of normally distributed logits of the same spread would be so soft, and stops where what the last step
    leaves, of third order, is too little to matter. Two or three evaluations of a row are usual. ``solve_temperature``
    does the same in float64, exact to 1e-6, many times slower.

    Args:
        logits: ``[..., C]``; masked classes may be ``-inf``, but not all of a row.
        kind: ``effective_classes`` (exp H), ``entropy`` (H in nats) or ``other_mass`` (the mass off the top class).
        wanted: the softness.
        iterations: at most so many evaluations of a row.
        scratch: an empty list, for callers that solve again and again: work space is kept in it and used anew, for
            fresh memory costs as much as the arithmetic.

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
    rows = wide(logits).reshape(-1, logits.shape[-1])
    space = _space(rows, [] if scratch is None else scratch)
    gaps = torch.sub(rows, rows.amax(-1, keepdim=True), out=space[0])
    entropic = kind != "other_mass"
    target = math.log(wanted) if kind == "effective_classes" else wanted
    log_t, flat = _start(gaps, kind, wanted, space[1])
    log_t = _halley(gaps, log_t, target, entropic, iterations, space[1:])
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
        value, slope, _ = _softness(gaps, u, kind != "other_mass", work)
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


def _space(like: Tensor, scratch: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Three tensors like this one, cut from the scratch space where that is large enough."""
    size = like.numel()
    usable = scratch and scratch[0].shape[-1] >= size and not scratch[0].is_inference()
    if not usable or (scratch[0].dtype, scratch[0].device) != (like.dtype, like.device):
        scratch[:] = [torch.empty(3, size, dtype=like.dtype, device=like.device)]
    gaps, scaled, masses = scratch[0][:, :size].reshape(3, *like.shape) if size else torch.empty(3, *like.shape)
    return gaps, scaled, masses


def _start(gaps: Tensor, kind: str, wanted: float, work: Tensor) -> tuple[Tensor, Tensor]:
    """Log T of each row were its logits normal, their spread times the T of a standard normal row; and who is flat."""
    live = torch.clamp(gaps, min=-100.0, out=work)  # masked classes and their like say nothing of the spread
    mean = live.mean(-1)
    variance = live.mul_(live).mean(-1) - mean.square()
    log_t = 0.5 * variance.clamp(min=1e-12).log() + math.log(_of_a_normal_row(gaps.shape[-1], kind, wanted))
    return log_t, variance == 0


@functools.lru_cache(maxsize=4096)
def _of_a_normal_row(classes: int, kind: str, wanted: float) -> float:
    """The T at which a row of C quantiles of the standard normal is so soft."""
    places = (torch.arange(classes, dtype=torch.float64) + 0.5) / classes
    return soften_mean(torch.special.ndtri(places)[None], kind, wanted)


def _odds(value: Tensor, most: float) -> Tensor:
    """Log-odds of a softness between 0 and the most there is: straighter than itself in both tails."""
    inner = value.clamp(1e-6 * most, (1 - 1e-6) * most)
    return (inner / (most - inner)).log()


def _halley(
    gaps: Tensor, log_t: Tensor, target: float, entropic: bool, iterations: int, work: tuple[Tensor, ...]
) -> Tensor:
    """Log T of each row; rows that are done stay, and drop out when they are most."""
    most = math.log(gaps.shape[-1]) if entropic and gaps.shape[-1] > 1 else 1.0
    aim = float(_odds(torch.tensor(target, dtype=torch.float64), most))
    low = torch.full_like(log_t, math.log(LOWEST))
    high = torch.full_like(log_t, math.log(HIGHEST))
    result, left, u = log_t.clone(), None, log_t
    for _ in range(iterations):
        value, slope, bend = _softness(gaps, u, entropic, work)
        error = value - target
        low, high = torch.where(error < 0, u, low), torch.where(error > 0, u, high)
        inner = value.clamp(1e-6 * most, (1 - 1e-6) * most)
        room = inner * (most - inner)
        slope = slope.clamp(min=1e-12)
        newton = (aim - _odds(inner, most)) * room / (most * slope)
        ratio = bend / slope + slope * (2 * inner - most) / room  # F''/F' of F = log-odds
        step = newton / (1 + 0.5 * newton * ratio).clamp(0.5, 2.0)
        moved = u + step
        inside = (moved > low) & (moved < high)
        close = error.abs() < TOLERANCE
        u = torch.where(inside, moved, torch.where(close, u, 0.5 * (low + high)))
        if left is None:
            result = u
        else:
            result[left] = u
        # Third order: what is left after a step is below the error times the square of the step.
        done = close | (inside & (error.abs() * step.square() < TOLERANCE))
        if bool(done.all()):
            break
        rest = (~done).nonzero().squeeze(-1)
        if 2 * len(rest) < len(u):
            left = rest if left is None else left[rest]
            result = result.clone() if result is u else result
            gaps, u, low, high = gaps[rest], u[rest], low[rest], high[rest]
            work = tuple(part[: len(rest)] for part in work)
    return result


def _softness(gaps: Tensor, log_t: Tensor, entropic: bool, work: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy, or mass off the top class, of rows of v − v_max; and its first two derivatives by log T."""
    scaled, masses = work
    # Below e^-80 a class adds nothing, but a denormal number, at which processors are ten times slower.
    torch.mul(gaps, (-log_t).exp().unsqueeze(-1), out=scaled).clamp_(min=-80.0)
    torch.exp(scaled, out=masses)
    whole = masses.sum(-1)
    first = masses.mul_(scaled).sum(-1) / whole
    second = masses.mul_(scaled).sum(-1) / whole
    if not entropic:  # the top class has mass 1, for its gap is 0
        return 1 - 1 / whole, -first / whole, (first + second - 2 * first * first) / whole
    third = masses.mul_(scaled).sum(-1) / whole
    variance = second - first * first
    return whole.log() - first, variance, -2 * variance - (third - 3 * first * second + 2 * first**3)
