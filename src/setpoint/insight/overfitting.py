"""Training rows beside validation rows: how much of what a student has learnt is of its training rows alone."""

from __future__ import annotations

import math

import torch

from setpoint.insight.explanation import AtBoth, Explanation, Fit, Overfit
from setpoint.insight.over_temperature import blocks, fit
from setpoint.insight.rows import CountedRows
from setpoint.maths.divergences import forward_kl
from setpoint.maths.tempering import log_temper


@torch.no_grad()
def overfit(found: Explanation, validation: CountedRows, train: CountedRows, examples: int) -> Overfit:
    """Compare the rows that were explained with training rows, at the octaves and the temperature explained.

    Args:
        found: the explanation of the validation rows.
        validation: these rows, with labels and a student.
        train: rows that the student was trained on, likewise.
        examples: how many examples the training rows are of.
    """
    shown = [at for at in found.over_temperature if is_octave(at.temperature) or at.temperature == found.temperature]
    return Overfit(
        examples=examples,
        at=tuple(AtBoth(at.temperature, kl(train, at.temperature), at.kl or 0.0) for at in shown),
        train=_fit(train),
        validation=_fit(validation),
    )


def is_octave(temperature: float) -> bool:
    """Whether it is a power of two.

    Examples:
        >>> is_octave(0.25), is_octave(3.0)
        (True, False)
    """
    return math.frexp(temperature)[0] == 0.5


def kl(rows: CountedRows, temperature: float) -> float:
    """KL(teacher‖student), both at a temperature, mean over rows in nats.

    Examples:
        >>> v = torch.tensor([[0.9, 0.1]]).log()
        >>> round(kl(CountedRows(v, None, torch.zeros(1, 2), "ab", "0"), 1.0), 4)
        0.3681
    """
    assert rows.student_logits is not None
    total = 0.0
    for part in blocks(rows.teacher_logits):
        log_q, log_p = (log_temper(x[part], temperature) for x in (rows.student_logits, rows.teacher_logits))
        total += float(forward_kl(log_q, log_p).sum(dtype=torch.float64))
    return total / len(rows.teacher_logits)


def _fit(rows: CountedRows) -> Fit:
    assert rows.student_logits is not None
    assert rows.labels is not None
    return fit("student", rows.student_logits, rows.labels, 1.0)
