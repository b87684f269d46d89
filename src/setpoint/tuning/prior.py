"""Where to start with the temperature, from the teacher's logits alone: before any student trains, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from setpoint.guards import common_gap, label_smoothing
from setpoint.maths.calibration import calibration_error
from setpoint.maths.softness import HIGHEST, LOWEST, soften_mean
from setpoint.maths.solving import calibrate_temperature
from setpoint.maths.tempering import MASKED
from setpoint.tuning.checking import check_labels, check_logits
from setpoint.tuning.reasons import about_calibration, about_shape, about_softness, softness
from setpoint.types import IGNORED_LABEL

SHARE = 1 / 4
"""The wanted entropy as a share of the most there can be, log C: fits what is known, see docs/results/prior.md."""
SMOOTHED_SHARE = 1 / 6
"""The same where the other classes are alike. Targets smoothed by ε = 0.1 have 0.15 (1000 classes) to 0.22 (10) of it
at T = 1, which suits them best (Chandrasegaran et al. 2022, arXiv:2206.14532)."""
FACTOR, SMOOTHED_FACTOR = 4.0, 1.5
"""How far the range reaches; the same upwards for alike classes, for which their table has T = 2 well below T = 1."""
LOW_SHARE, HIGH_SHARE = 0.02, 0.9
"""Entropies beyond which the range does not reach: targets that are nearly labels, or nearly uniform."""
MOST_ROWS, MOST_LOGITS = 20_000, 5_000_000
"""What is measured at most, so that it takes seconds."""


@dataclass(frozen=True)
class Calibration:
    """What the labels say of the teacher's confidence.

    Attributes:
        temperature: the T at which its loss on the labels is least.
        ece_before: its expected calibration error at T = 1, from 0 to 1.
        ece_after: the same at that temperature.
    """

    temperature: float
    ece_before: float
    ece_after: float


@dataclass(frozen=True)
class Suggestion:
    """A temperature to start from.

    Attributes:
        temperature: T, for teacher and student alike.
        low: where a search should begin.
        high: where it should end.
        effective_classes: exp(H) of the targets at that temperature, mean over rows.
        classes: C.
        rows: how many rows have a say (those labelled -100 have none); at most 20 000 of them are measured.
        calibration: None without labels.
        label_smoothing: what the teacher seems trained with; 0 where none is seen.
        reasons: why, a sentence each.
    """

    temperature: float
    low: float
    high: float
    effective_classes: float
    classes: int
    rows: int
    calibration: Calibration | None
    label_smoothing: float
    reasons: tuple[str, ...]


@torch.no_grad()
def suggest(teacher_logits: Tensor, labels: Tensor | None = None) -> Suggestion:
    """Propose a temperature and a range to search, by how soft they make the teacher's targets.

    T is where the mean entropy of softmax(logits / T) is a quarter of the most there can be, log C, with C the classes
    that are not masked. Twice the logits therefore get twice the T. Source: ours; what the quarter rests on is in
    docs/results/prior.md.

    Args:
        teacher_logits: ``[N, C]``, of any dtype; masked classes are ``-inf`` or below -1e7.
        labels: ``[N]``, of held-out rows, for the calibration; rows with ``-100`` do not count at all.

    Returns:
        The suggestion; its temperatures are kept within 0.001 and 10 000. Rows whose logits are all equal have no say;
        where all rows are so, T is 1.

    Raises:
        TargetError: no rows, fewer than two classes, another shape, probabilities, NaN, or labels that do not fit.

    Examples:
        >>> logits = torch.tensor([[8.0, 2.0, 0.0, 0.0], [0.0, 6.0, 3.0, 1.0]])
        >>> found = suggest(logits)
        >>> round(found.temperature, 3), round(found.effective_classes, 3)
        (1.481, 1.444)
        >>> round(suggest(10 * logits).temperature, 2)
        14.81
    """
    check_logits(teacher_logits, "teacher_logits")
    if labels is not None:
        check_labels(labels, teacher_logits, "labels")
        counts = labels != IGNORED_LABEL
        teacher_logits, labels = teacher_logits[counts], labels[counts].long()
    total, classes = teacher_logits.shape
    step = -(-total // min(MOST_ROWS, max(1, MOST_LOGITS // classes)))
    measured = _spread_out(total, step)
    rows = teacher_logits[measured].double()
    rows = rows.masked_fill(rows < MASKED, -math.inf)
    calibration = None if labels is None else _calibrate(rows, labels[measured])
    open_classes = (rows > -math.inf).sum(-1)
    flat = rows.amax(-1) == rows.masked_fill(rows == -math.inf, math.inf).amin(-1)
    told = [f"Measured on {len(rows):,} of {total:,} rows, evenly spread."] if step > 1 else []
    if bool(flat.any()):
        told.append(f"{int(flat.sum()):,} of {len(rows):,} rows have equal logits and no say: no T changes them.")
    if bool(flat.all()):
        told.append(f"With all {classes} classes alike in every row there is nothing to distil: look at the teacher.")
        count = float(open_classes.double().mean())
        return Suggestion(1.0, 1.0, 1.0, count, classes, total, calibration, 0.0, tuple(told))
    rows, most = rows[~flat], float(open_classes[~flat].double().log().mean())
    gap, smoothing = common_gap(rows), label_smoothing(rows)
    share = SHARE if gap is None else SMOOTHED_SHARE
    t = soften_mean(rows, "entropy", share * most)
    low, high = t / FACTOR, t * (FACTOR if gap is None else SMOOTHED_FACTOR)
    if gap is None:
        low = max(low, soften_mean(rows, "entropy", LOW_SHARE * most))
        high = min(high, soften_mean(rows, "entropy", HIGH_SHARE * most))
    low, high = max(low, LOWEST), min(high, HIGHEST)
    told += about_softness(rows, t, low, high, most) + about_shape(rows, gap, smoothing)
    if calibration is not None:
        told += about_calibration(calibration.temperature, calibration.ece_before, calibration.ece_after)
    return Suggestion(t, low, high, softness(rows, t), classes, total, calibration, smoothing, tuple(told))


def _spread_out(total: int, step: int) -> Tensor:
    """A row of every ``step``, at a place drawn anew in each: a fixed one may keep time with classes or padding."""
    starts = torch.arange(0, total, step)
    return (starts + torch.randint(step, starts.shape, generator=torch.Generator().manual_seed(0))).clamp(max=total - 1)


def _calibrate(rows: Tensor, labels: Tensor) -> Calibration:
    t = calibrate_temperature(rows, labels)
    return Calibration(t, calibration_error(rows, labels), calibration_error(rows, labels, t))
