"""What can be wrong with a temperature, said in a sentence: before the student trains, and while it does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from setpoint.maths.tempering import effective_classes, log_temper, unmasked_classes
from setpoint.objective import DistillationObjective
from setpoint.temperature.base import TemperaturePolicy, mixed
from setpoint.types import Temperatures

FEWEST, MOST = 1.01, 0.99
"""Effective classes, and their share of C, beyond which there is nothing to learn from the targets."""
LEAST_SHARE, MOST_SHARE = 0.01, 0.99


@dataclass(frozen=True)
class Look:
    """What the temperature makes of one batch.

    Attributes:
        temperature: T of the teacher's logits, mean over rows.
        student_temperature: T of the student's.
        effective_classes: exp(H) of the targets, mean over rows.
        kd_gradient_share: the divergence's share of the gradient on the student's logits; None where the loss has one
            term alone.
        classes: those of a row that are not masked, mean over rows.
        fixed: whether T is one number for all rows, not a function of each.
    """

    temperature: float
    student_temperature: float
    effective_classes: float
    kd_gradient_share: float | None
    classes: float
    fixed: bool = True


@torch.no_grad()
def look(
    objective: DistillationObjective,
    temperatures: Temperatures,
    *,
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    progress: float = 0.0,
) -> Look:
    """Measure a batch whose loss was just computed with these temperatures; changes nothing.

    Args:
        objective: the loss.
        temperatures: what it used.
        student_logits: ``[R, C]``, valid rows only.
        teacher_logits: ``[R, C]``.
        labels: ``[R]``.
        progress: the share of training done.

    Examples:
        >>> v = torch.tensor([[4.0, 0.0, 0.0]])
        >>> objective = DistillationObjective(temperature=4.0, alpha=1.0)
        >>> loss = objective(student_logits=v, teacher_logits=v)
        >>> round(look(objective, loss.temperatures, student_logits=v, teacher_logits=v).effective_classes, 3)
        2.652
    """
    alpha = objective.temperature.alpha(objective.alpha, progress)
    share = None
    own_alpha = type(objective.temperature).alpha is not TemperaturePolicy.alpha  # there is no weight to change
    has_hard = labels is not None or not objective.hard.needs_labels  # a task may have a hard loss of its own
    if 0 < alpha < 1 and has_hard and not own_alpha and bool((temperatures.scale != 0).any()):
        share = objective.gradient_share(
            student_logits=student_logits, teacher_logits=teacher_logits, labels=labels, progress=progress
        )
    targets = teacher_logits
    if temperatures.teacher_share is not None:
        targets = mixed(student_logits, teacher_logits, temperatures.teacher_share)
    return Look(
        temperature=float(temperatures.teacher.mean()),
        student_temperature=float(temperatures.student.mean()),
        effective_classes=float(effective_classes(targets, temperatures.teacher).mean()),
        kd_gradient_share=share,
        classes=float(unmasked_classes(teacher_logits).mean()),
        fixed=temperatures.teacher.numel() == 1 and temperatures.student.numel() == 1,
    )


def complaints(seen: Look) -> dict[str, str]:
    """What is wrong, a sentence each, by a name for its kind.

    Examples:
        >>> for sentence in complaints(Look(0.1, 0.1, 1.0, 0.5, 10)).values():
        ...     print(sentence)
        the targets at T = 0.1 have 1.00 effective classes of 10 and say no more than hard labels: raise the temperature
    """
    found = {}
    count = f"{seen.effective_classes:.2f} effective classes of {seen.classes:,.0f}"
    at = f"the targets at T = {seen.temperature:.3g} have {count}"
    if seen.fixed and seen.student_temperature > seen.temperature * (1 + 1e-6):
        found["sharper"] = (
            f"the student's temperature {seen.student_temperature:.3g} is above the teacher's {seen.temperature:.3g},"
            " which makes a student sharper than its teacher: give the student at most the teacher's"
        )
    if seen.effective_classes < FEWEST:
        found["too sharp"] = f"{at} and say no more than hard labels: raise the temperature"
    elif seen.effective_classes > MOST * seen.classes:
        found["too soft"] = f"{at} and tell the classes apart no more: lower the temperature"
    if seen.kd_gradient_share is not None and not LEAST_SHARE <= seen.kd_gradient_share <= MOST_SHARE:
        drowned = "divergence" if seen.kd_gradient_share < LEAST_SHARE else "hard loss"
        way = "raise" if drowned == "divergence" else "lower"
        part = min(seen.kd_gradient_share, 1 - seen.kd_gradient_share)
        found["drowned"] = (
            f"the {drowned} has {part:.2%} of the gradient on the student's logits at T = {seen.temperature:.3g}:"
            f" {way} alpha, or do without it"
        )
    return found


@torch.no_grad()
def common_gap(teacher_logits: Tensor) -> float | None:
    """How far the top logit stands above the others, where these are alike and the gap is one for most rows.

    Args:
        teacher_logits: ``[N, C]``.

    Returns:
        The median gap, in the logits' own scale; None where rows differ, classes are masked, or there are fewer than 3
        classes or 20 rows. Whether it is None does not depend on the scale of the logits.

    Examples:
        >>> common_gap(4.0 * torch.eye(10).repeat(20, 1))
        4.0
    """
    if teacher_logits.shape[-1] < 3 or len(teacher_logits) < 20:
        return None
    log_probs = log_temper(teacher_logits, 1.0)
    top = log_probs.amax(-1)
    others = log_probs.scatter(-1, log_probs.argmax(-1, keepdim=True), math.nan)
    mean = others.nanmean(-1)
    gap = top - mean
    within = ((others - mean.unsqueeze(-1)).square().nanmean(-1)).sqrt()
    median = gap.median()
    deviation = (gap - median).abs().median()
    uneven = float((within / gap.clamp(min=1e-6)).median())
    if not (uneven < 0.12 and float(deviation / median.clamp(min=1e-6)) < 0.12):  # NaN, of masked classes, neither
        return None
    return float(median)


def label_smoothing(teacher_logits: Tensor) -> float:
    """The label smoothing a teacher was trained with, estimated from its logits ``[N, C]``; 0 where none is seen.

    Smoothing by ε drives every row to one shape: the top logit log((1 − ε)C/ε + 1) above the others, and these equal.
    It is seen where the others spread little against that gap, in most rows and with one gap for all.
    Source of the optimum: Müller et al. 2019, arXiv:1906.02629; of why it matters: Chandrasegaran et al. 2022,
    arXiv:2206.14532.

    Examples:
        >>> label_smoothing(4.0 * torch.eye(10).repeat(20, 1) + 0.05 * torch.randn(200, 10)) > 0.1
        True
    """
    gap, classes = common_gap(teacher_logits), teacher_logits.shape[-1]
    if gap is None:
        return 0.0
    estimate = classes / (math.exp(min(gap, 50.0)) - 1 + classes)
    return estimate if estimate > 0.02 else 0.0


def smoothed_teacher(teacher_logits: Tensor, temperature: float) -> str | None:
    """The warning for a label-smoothed teacher at T above 1, where there is reason for it."""
    estimate = label_smoothing(teacher_logits)
    if estimate == 0 or temperature <= 1:
        return None
    return (
        f"the teacher looks trained with label smoothing, about {estimate:.2g}, and T is {temperature:.3g}; what such"
        " targets say of the other classes fades above T = 1 (Chandrasegaran et al. 2022): set temperature 1"
    )
