"""Why a temperature is suggested: sentences, each with its figure."""

from __future__ import annotations

import math

from torch import Tensor

from setpoint.guards import FEWEST, MOST
from setpoint.maths.moments import spread
from setpoint.maths.softness import HIGHEST, LOWEST
from setpoint.maths.solving import CALIBRATION_RANGE
from setpoint.maths.tempering import effective_classes, temper

USUAL = 8.0
"""The end of what is usually tried for a T of 1 or more; 1/8 is that of sharper ones."""
SURE = 1.5
"""A T of calibration that far from 1, either way, says that the teacher is too sure, or not sure enough."""


def softness(rows: Tensor, temperature: float) -> float:
    """Effective classes, mean over rows ``[N, C]``."""
    return float(effective_classes(rows, temperature).mean())


def about_softness(rows: Tensor, t: float, low: float, high: float, most: float) -> list[str]:
    """How soft the targets are at T, at 1, and at the ends of the range."""
    classes = f"{math.exp(most):,.0f}"
    entropy = float(effective_classes(rows, t).log().mean())
    off_top = float((1 - temper(rows, 1.0).amax(-1)).mean())
    told = [
        f"At T = {t:.3g} the targets have {softness(rows, t):,.2f} effective classes of {classes} on average, and"
        f" {entropy / most:.0%} of the entropy there can be, where labels have none and uniform targets all.",
        f"At T = 1 they have {softness(rows, 1.0):,.2f}, with {off_top:.1%} of the mass off the top class; a row's"
        f" logits spread by {float(spread(rows).mean()):.3g}.",
        f"A search need not leave {low:.3g} to {high:.3g}: at these ends they have {softness(rows, low):,.2f} and"
        f" {softness(rows, high):,.2f} effective classes.",
    ]
    if t in (LOWEST, HIGHEST):
        told.append(f"No T from {LOWEST:g} to {HIGHEST:g} makes them as soft as wanted; {t:g} is the nearest.")
    if (sharp := softness(rows, USUAL)) < FEWEST:
        told.append(
            f"Even at T = {USUAL:g} they have {sharp:.3f} effective classes and say no more than labels: make sure that"
            " these are logits, and not scaled."
        )
    if (soft := softness(rows, 1 / USUAL)) > MOST * math.exp(most):
        told.append(
            f"Even at T = {1 / USUAL:g} they have {soft:,.2f} effective classes of {classes} and are nearly uniform:"
            " make sure that the teacher is trained."
        )
    return told


def about_shape(rows: Tensor, gap: float | None, smoothing: float) -> list[str]:
    """What it means that the other classes are alike, and how many are masked."""
    told = []
    masked = float((rows == -math.inf).double().mean())
    if masked > 0:
        told.append(f"{masked:.1%} of the logits are masked and count as no class.")
    if gap is not None:
        why = (
            f"the teacher looks trained with label smoothing, about {smoothing:.2g}"
            if smoothing
            else "the teacher has little to say of them beside the label"
        )
        told.append(
            f"In most rows the other classes are alike, {gap:.3g} below the top: {why}. A higher T would show no more,"
            " so the start is sharper than usual and the range reaches down more than up."
        )
    return told


def about_calibration(t: float, before: float, after: float) -> list[str]:
    """Whether the teacher is as sure as it should be."""
    errors = f"calibration error {before:.3f}, there {after:.3f}"
    if t <= CALIBRATION_RANGE[0]:
        return [
            "The teacher is right on every labelled row, so they say nothing of its calibration: give held-out rows."
        ]
    if t >= CALIBRATION_RANGE[1]:
        return ["The teacher's logits say nothing of the labels: make sure that rows and classes are in one order."]
    if t > SURE:
        return [f"The teacher is overconfident: its probabilities fit the labels best at T = {t:.3g} ({errors})."]
    if t < 1 / SURE:
        return [
            f"The teacher is less sure than it could be: it fits the labels best at T = {t:.3g} ({errors}). If it was"
            " trained on these rows, that says little: give held-out rows."
        ]
    return [f"The teacher is about as sure as it should be: it fits the labels best at T = {t:.3g} ({errors})."]
