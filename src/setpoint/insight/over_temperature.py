"""The targets and the gradient at each of many temperatures, in one pass over the rows, a block of them at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from setpoint.insight.explanation import AtTemperature, Bin, Fidelity, Fit
from setpoint.maths.calibration import BINS, expected_error, reliability
from setpoint.maths.divergences import forward_kl
from setpoint.maths.gradients import forward_kl_gradient, matching_gradient, within
from setpoint.maths.moments import wide
from setpoint.maths.ranks import rank_correlation
from setpoint.maths.sharing import dark_mass, tail
from setpoint.maths.tempering import entropy_of, log_temper
from setpoint.temperature import Constant

BLOCK = 262_144
"""Logits that are worked on at once: few enough to stay in a processor's cache and to need little memory, and enough
for the arithmetic to outweigh the calls."""
LOW, HIGH = 1 / 4, 32.0
"""Between which temperatures are looked at in any case."""
TAIL = 0.01
"""Classes that together have less of the teacher's mass at T = 1 say next to nothing: what is left of their logits is
how the teacher happened to be initialised and trained."""
Sums = dict[str, Tensor]


def grid(marked: Iterable[float]) -> tuple[float, ...]:
    """Temperatures two to the octave from ¼ to 32, or as far as the marked ones reach, and these.

    Examples:
        >>> grid([1.0, 3.0])[:7]
        (0.25, 0.3535533905932738, 0.5, 0.7071067811865476, 1.0, 1.4142135623730951, 2.0)
        >>> 3.0 in grid([3.0]), grid([100.0])[-1]
        (True, 128.0)
    """
    marked = set(marked)
    low, high = min(marked | {LOW}), max(marked | {HIGH})
    steps = range(math.floor(2 * math.log2(low)), math.ceil(2 * math.log2(high)) + 1)
    return tuple(sorted(marked | {2 ** (step / 2) for step in steps}))


def blocks(logits: Tensor) -> Iterator[slice]:
    """The rows of ``[N, C]``, as many at a time as are quick to work on."""
    step = max(1, BLOCK // logits.shape[-1])
    return (slice(start, start + step) for start in range(0, len(logits), step))


@torch.no_grad()
def over_temperature(
    teacher_logits: Tensor,
    student_logits: Tensor | None,
    labels: Tensor | None,
    temperatures: Sequence[float],
    alpha: float,
) -> tuple[AtTemperature, ...]:
    """Measure the targets and the gradient of the forward KL at each temperature, T² as ``Constant`` has it.

    Args:
        teacher_logits: ``[N, C]``; masked classes are ``-inf``.
        student_logits: ``[N, C]``; where None, an untrained student that says 1/C.
        labels: ``[N]``, a class in every row; None where there are none.
        temperatures: the grid.
        alpha: the weight of the divergence.

    Examples:
        >>> v = torch.tensor([[4.0, 0.0, 0.0]])
        >>> one, four = over_temperature(v, None, None, (1.0, 4.0), 0.9)
        >>> round(one.effective_classes, 3), round(four.effective_classes, 3), round(four.dark_mass, 3)
        (1.194, 2.652, 0.424)
    """
    totals: list[Sums] = [{} for _ in temperatures]
    once: Sums = {}
    for rows in blocks(teacher_logits):
        v = wide(teacher_logits[rows])
        untaught = torch.zeros_like(v).masked_fill(v == -math.inf, -math.inf)
        z = untaught if student_logits is None else wide(student_logits[rows])
        y = None if labels is None else labels[rows].unsqueeze(-1)
        block = _Block(v, z, y, tail(v, TAIL), matching_gradient(z, v))
        _add(once, {"limit": _square(block.limit)})
        if y is not None:
            _add(once, {"hard": _square(_hard_gradient(z, y))})
        for t, total in zip(temperatures, totals, strict=True):
            _add(total, _of_targets(t, block) | _of_gradient(t, block, known=student_logits is not None))
    return tuple(
        _at(t, total | once, len(teacher_logits), alpha) for t, total in zip(temperatures, totals, strict=True)
    )


@dataclass(frozen=True)
class _Block:
    """Some rows, and what no temperature changes of them."""

    v: Tensor
    z: Tensor
    y: Tensor | None
    tail: Tensor
    limit: Tensor


def _add(total: Sums, parts: Sums) -> None:
    """Add up, over their first axis and in float64, what the rows of a block have."""
    for name, part in parts.items():
        whole = part.sum(0, dtype=torch.float64)
        total[name] = total[name] + whole if name in total else whole


def _hard_gradient(z: Tensor, y: Tensor) -> Tensor:
    """The gradient of the hard loss on the student's logits, softmax(z) − 1 at the label."""
    one_hot = torch.full_like(z, -math.inf).scatter(-1, y, 0.0)
    return forward_kl_gradient(log_temper(z, 1.0), one_hot)


def _of_targets(t: float, block: _Block) -> Sums:
    log_p = log_temper(block.v, t)
    h = entropy_of(log_p)
    mass, others, runner_up = dark_mass(block.v, t)
    found = {"entropy": h, "effective": h.exp(), "mass": mass, "others": mass * others, "runner-up": mass * runner_up}
    return found if block.y is None else found | _fit(log_p, block.y)


def _fit(log_p: Tensor, y: Tensor) -> Sums:
    """How log-probabilities fit the labels ``[R, 1]``: the loss of each row, and the reliability table."""
    log_confidence, chosen = log_p.max(-1, keepdim=True)
    return {
        "nll": -log_p.gather(-1, y).squeeze(-1),
        "reliability": reliability(log_confidence.exp(), chosen == y)[None],
    }


def _of_gradient(t: float, block: _Block, known: bool) -> Sums:
    temperatures = Constant(t)(block.v, block.z)
    log_p, log_q = log_temper(block.v, temperatures.teacher), log_temper(block.z, temperatures.student)
    gradient = forward_kl_gradient(log_q, log_p, temperatures.student)
    scaled = temperatures.scale[..., None] * gradient
    target = block.v.argmax(-1, keepdim=True) if block.y is None else block.y
    found = {
        "gradient": _square(gradient),
        "scaled": _square(scaled),
        "target": _square(gradient.gather(-1, target)),
        "tail": within(gradient, block.tail),
        "from limit": _square(scaled - block.limit),
    }
    return found | {"kl": forward_kl(log_q, log_p)} if known else found


def _square(rows: Tensor) -> Tensor:
    """The squared norm of each row."""
    return rows.square().sum(-1)


def _at(t: float, sums: Sums, rows: int, alpha: float) -> AtTemperature:
    error = expected_error(sums["reliability"]) if "reliability" in sums else None
    total = {name: float(value) for name, value in sums.items() if name != "reliability"}
    soft = alpha * math.sqrt(total["scaled"])
    hard = None if "hard" not in total else (1 - alpha) * math.sqrt(total["hard"])
    distance = _share(total["from limit"], total["limit"])
    return AtTemperature(
        temperature=t,
        effective_classes=total["effective"] / rows,
        entropy=total["entropy"] / rows,
        dark_mass=total["mass"] / rows,
        other_classes=_share(total["others"], total["mass"]),
        runner_up_share=_share(total["runner-up"], total["mass"]),
        nll=total["nll"] / rows if "nll" in total else None,
        ece=error,
        kl=total["kl"] / rows if "kl" in total else None,
        target_gradient=_share(total["target"], total["gradient"]),
        tail_gradient=_share(total["tail"], total["gradient"]),
        hard_gradient=None if hard is None else _share(hard, soft + hard),
        gradient_norm=math.sqrt(total["scaled"] / rows),
        gradient_norm_unscaled=math.sqrt(total["gradient"] / rows),
        limit_distance=None if distance is None else math.sqrt(distance),
    )


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


@torch.no_grad()
def fit(model: str, logits: Tensor, labels: Tensor, temperature: float) -> Fit:
    """How a model fits the labels ``[N]`` at a temperature; arguments as of ``over_temperature``.

    Examples:
        >>> said = fit("teacher", torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]), 1.0)
        >>> said.accuracy, said.confidence, said.ece
        (0.5, 0.5, 0.0)
    """
    total: Sums = {}
    for rows in blocks(logits):
        _add(total, _fit(log_temper(logits[rows], temperature), labels[rows].unsqueeze(-1)))
    table, nll = total["reliability"], float(total["nll"])
    _, confidence, right = (table.sum(0) / len(logits)).tolist()
    bins = tuple(
        Bin(number / BINS, (number + 1) / BINS, int(n), _share(sure, n), _share(correct, n))
        for number, (n, sure, correct) in enumerate(table.tolist())
    )
    return Fit(model, temperature, right, confidence, nll / len(logits), expected_error(table), bins)


@torch.no_grad()
def fidelity(teacher_logits: Tensor, student_logits: Tensor) -> Fidelity:
    """How far a student ``[N, C]`` says what its teacher says.

    Examples:
        >>> v = torch.tensor([[4.0, 1.0, 0.0], [0.0, 1.0, 4.0]])
        >>> fidelity(v, 2 * v).rank_correlation, fidelity(v, v)
        (1.0, Fidelity(top1=1.0, kl=0.0, rank_correlation=1.0))
    """
    same, kl, ranks = 0, 0.0, []
    for rows in blocks(teacher_logits):
        v, z = wide(teacher_logits[rows]), wide(student_logits[rows])
        top = v.argmax(-1, keepdim=True)
        same += int((z.argmax(-1, keepdim=True) == top).sum())
        kl += float(forward_kl(log_temper(z, 1.0), log_temper(v, 1.0)).sum(dtype=torch.float64))
        found = rank_correlation(v.scatter(-1, top, -math.inf), z)
        ranks.append(found[~found.isnan()])
    known, count = torch.cat(ranks), len(teacher_logits)
    return Fidelity(same / count, kl / count, float(known.mean()) if len(known) else None)
