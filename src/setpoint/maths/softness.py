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
BLOCK = 131_072
"""Logits that a processor core works on at once, so that all steps of an evaluation find them in its cache."""


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
    where a row with a top class so far above a normally distributed crowd would be so soft, and stops where what the
    last step leaves, of third order, is too little to matter. One to three evaluations of a row are usual.
    ``solve_temperature`` does the same in float64, exact to 1e-6, many times slower.

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
    gaps, *work = _space(rows, [] if scratch is None else scratch)
    entropic = kind != "other_mass"
    target = math.log(wanted) if kind == "effective_classes" else wanted
    log_t, flat = _start(rows, gaps, target, entropic, work)
    log_t = _halley(gaps, log_t, target, entropic, iterations, work)
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
    work = [torch.empty_like(gaps), torch.empty_like(gaps)]

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


def _space(like: Tensor, scratch: list[Tensor]) -> list[Tensor]:
    """A tensor like this one and two of a block of its rows, cut from the scratch space where that is large enough."""
    rows, classes = like.shape
    block = min(rows, BLOCK * torch.get_num_threads() // max(classes, 1)) if like.device.type == "cpu" else rows
    counts = rows, max(block, 1), max(block, 1)
    size = sum(counts) * classes
    usable = scratch and len(scratch[0]) >= size and not scratch[0].is_inference()
    if not usable or (scratch[0].dtype, scratch[0].device) != (like.dtype, like.device):
        scratch[:] = [torch.empty(size, dtype=like.dtype, device=like.device)]
    return list(scratch[0][:size].view(-1, classes).split_with_sizes(counts))


def _start(rows: Tensor, gaps: Tensor, target: float, entropic: bool, work: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Fills in v − v_max of the rows; gives the log T of a row with such a crowd, and who is flat."""
    others, sums, norms = max(rows.shape[-1] - 1, 1), [], []
    for at in range(0, max(len(rows), 1), len(work[0])):
        part, out = rows[at : at + len(work[0])], gaps[at : at + len(work[0])]
        torch.sub(part, part.amax(-1, keepdim=True), out=out)
        live = torch.clamp(out, min=-100.0, out=work[0][: len(out)])  # masked classes say nothing of the spread
        sums.append(live.sum(-1))  # the top class itself is no part of it, for its gap is 0
        norms.append(torch.linalg.vector_norm(live, dim=-1))
    below, norm = torch.cat(sums) / -others, torch.cat(norms)
    spread = (norm * norm / others - below * below).clamp_(min=0.0).sqrt_()
    log_ts = _of_spreads(rows.shape[-1], target, entropic, rows.device)
    place = (spread / below * (len(log_ts) - 1)).nan_to_num_(0.0).clamp_(max=len(log_ts) - 1).long()
    log_t = below.clamp(min=1e-30).log_() + log_ts[place]
    return log_t.clamp_(math.log(LOWEST), math.log(HIGHEST)), norm == 0


@functools.lru_cache(maxsize=256)
def _of_spreads(classes: int, target: float, entropic: bool, device: torch.device) -> Tensor:
    """The log T at which a row of each spread in the table is so soft."""
    table, halfway = _of_crowds(classes, entropic)
    return halfway[torch.searchsorted(table, torch.full_like(table[:, :1], target)).squeeze(-1)].to(device)


@functools.lru_cache(maxsize=64)
def _of_crowds(classes: int, entropic: bool) -> tuple[Tensor, Tensor]:
    """Softness of a top class at 0 above C − 1 normal ones with mean −1, and the log T halfway between its columns.

    It has a row for each spread of them, from 0 to 1. They are cut off where the nearest of so many is likely to be;
    the sum of their exp(gap / T) is then known in closed form.
    """
    others = max(classes - 1, 1)
    spread = torch.linspace(0, 1, 257, dtype=torch.float64).unsqueeze(-1)
    beta = (-torch.linspace(-8, 5, 521, dtype=torch.float64)).exp()
    width = beta * spread
    nearest = torch.special.ndtri(torch.tensor(1 - 0.5 / (others + 1), dtype=torch.float64))
    edge = torch.minimum(1 / spread - 0.5 / nearest, nearest)  # at most so near to the top as the second class is
    inside = torch.special.log_ndtr(edge - width)
    log_odds = math.log(others) - beta + width.square() / 2 + inside - torch.special.log_ndtr(edge)
    table = mass = log_odds.sigmoid()
    if entropic:
        hazard = (-0.5 * (edge - width).square() - 0.5 * math.log(2 * math.pi) - inside).exp()
        table = torch.nn.functional.softplus(log_odds) - mass * (width.square() - beta - width * hazard)
    halfway = torch.linspace(-8.0125, 5.0125, 522, dtype=torch.float32)
    return table.float(), halfway


def _halley(gaps: Tensor, log_t: Tensor, target: float, entropic: bool, iterations: int, work: list[Tensor]) -> Tensor:
    """Log T of each row; rows that are done stay, and drop out when they are most.

    It solves for the log-odds of the softness as a share of the most there is: straighter than itself in both tails.
    """
    most = math.log(gaps.shape[-1]) if entropic and gaps.shape[-1] > 1 else 1.0
    share = min(max(target / most, 1e-6), 1 - 1e-6)
    aim = math.log(share / (1 - share))
    low, high = (torch.full_like(log_t, math.log(end)) for end in (LOWEST, HIGHEST))
    result, left, u, one = log_t, None, log_t, torch.ones_like(low[:1])
    for _ in range(iterations):
        value, slope, bend = _softness(gaps, u, entropic, work)
        error = value - target
        low, high = torch.where(error < 0, u, low), torch.where(error > 0, u, high)
        inner = value.clamp(1e-6 * most, (1 - 1e-6) * most)
        off = most - inner
        rise = slope.clamp_(min=1e-12) / (inner * off)  # of the log-odds, without the factor most
        newton = (aim - (inner / off).log_()) / most / rise
        ratio = bend / slope + rise * (inner - off)  # the second derivative of the log-odds by the first
        step = newton / torch.addcmul(one, newton, ratio, value=0.5).clamp_(0.5, 2.0)
        moved = u + step
        inside = (moved > low) & (moved < high)
        close = error.abs() < TOLERANCE
        u = torch.where(inside, moved, torch.where(close, u, torch.lerp(low, high, 0.5)))
        result = u if left is None else result.index_copy_(0, left, u)
        # Third order: what is left after a step is below the error times the square of the step.
        done = close | (inside & (error.abs() * step.square() < TOLERANCE))
        if bool(done.all()):
            break
        rest = (~done).nonzero().squeeze(-1)
        if 2 * len(rest) < len(u):
            left = rest if left is None else left[rest]
            gaps, u, low, high = gaps[rest], u[rest], low[rest], high[rest]
    return result


def _softness(gaps: Tensor, log_t: Tensor, entropic: bool, work: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy, or mass off the top class, of rows of v − v_max; and its first two derivatives by log T."""
    beta, totals = (-log_t).exp_().unsqueeze(-1), []
    for at in range(0, max(len(gaps), 1), len(work[0])):
        part = gaps[at : at + len(work[0])]
        scaled, masses = work[0][: len(part)], work[1][: len(part)]
        # Below e^-80 a class adds nothing, but a denormal number, at which processors are ten times slower.
        torch.mul(part, beta[at : at + len(part)], out=scaled).clamp_(min=-80.0)
        torch.exp(scaled, out=masses)
        totals.append([masses.sum(-1), *(masses.mul_(scaled).sum(-1) for _ in range(3 if entropic else 2))])
    whole, *moments = totals[0] if len(totals) == 1 else [torch.cat(parts) for parts in zip(*totals, strict=True)]
    first, second, *third = (moment / whole for moment in moments)
    square = first * first
    if not entropic:  # the top class has mass 1, for its gap is 0
        return 1 - 1 / whole, -first / whole, (first + second - 2 * square) / whole
    variance = second - square
    skewness = third[0] - first * torch.add(square, variance, alpha=3.0)
    return whole.log() - first, variance, -torch.add(skewness, variance, alpha=2.0)
