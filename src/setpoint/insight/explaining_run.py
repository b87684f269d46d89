"""What a colleague would say of what only a run has: its training, training rows beside others, types of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from setpoint.insight.explaining import percent
from setpoint.insight.explanation import Explanation, OfType
from setpoint.insight.history import History, ends

SAME_NATS = 0.001
"""Nats from the teacher that nobody would tell from none."""
OVERFIT, SLIGHT = 2.0, 1.25
"""How many times as far from the teacher a student is on rows it has not seen: twice as far, and it has learnt its
training rows rather than the teacher; a quarter farther, and one looks again."""
FELL = 0.1
"""A share of the gradient that changes by a tenth is seen in the plot."""
STILL_FALLING = 0.05
"""A loss that falls by a twentieth from one fifth of the training to the next has not settled."""
APART = 0.05
"""Types of rows on which the student says what the teacher says less often, by this much, are another matter to it."""
FEWEST_ROWS = 20
"""A type of fewer rows has no agreement to speak of."""
MOVED = 0.01
"""A relative change of a temperature that is more than rounding."""


def about_training(history: History, losses: Mapping[int, Sequence[tuple[float, float]]]) -> list[str]:
    """Where the temperature and the gradient's shares went, and whether the loss had settled.

    Args:
        history: what was logged of the distilled students.
        losses: their training losses over steps, by seed.
    """
    told = []
    if "temperature" in history:
        first, last = ends(history["temperature"])
        if abs(last - first) > MOVED * first:
            told.append(f"The temperature went from {first:.3g} to {last:.3g}.")
        else:
            told.append(f"The temperature moved, and ended where it began, at {last:.3g}.")
    if "effective_classes" in history:
        first, last = ends(history["effective_classes"])
        if "temperature" in history:
            told.append(f"The targets had {first:,.2f} effective classes at first and {last:,.2f} in the end.")
        else:
            told.append(f"The temperature stayed as it was, and the targets had about {last:,.2f} effective classes.")
    if "kd_gradient_share" in history:
        first, last = ends(history["kd_gradient_share"])
        way = f"from {percent(first)} of the gradient on the student's logits to {percent(last)}"
        if first - last >= FELL:
            told.append(f"The divergence went {way}: the nearer the student came to its teacher, the more labels said.")
        elif last - first >= FELL:
            told.append(f"The divergence went {way}: once the labels were learnt, the teacher had the say.")
        else:
            told.append(f"The divergence kept about {percent(last)} of the gradient on the student's logits.")
    # Losses at temperatures of their own are not to be compared.
    return told if "temperature" in history else told + _about_the_end(losses)


def _about_the_end(losses: Mapping[int, Sequence[tuple[float, float]]]) -> list[str]:
    falls = [fall for one in losses.values() if (fall := last_fall([loss for _, loss in one])) is not None]
    if not falls:
        return []
    fall = sum(falls) / len(falls)
    if fall >= STILL_FALLING:
        return [
            f"The loss was still falling in the last fifth, by {percent(fall)} against the fifth before: a longer"
            " training may gain."
        ]
    return ["The loss had settled by the end."]


def last_fall(losses: Sequence[float]) -> float | None:
    """By what share the mean loss of the last fifth of a training is below that of the fifth before; None if unknown.

    Examples:
        >>> last_fall([9.0, 5.0, 3.0, 2.0, 1.0]), last_fall([1.0, 2.0])
        (0.5, None)
    """
    part = len(losses) // 5
    if part == 0:
        return None
    before, last = (sum(some) / part for some in (losses[-2 * part : -part], losses[-part:]))
    return (before - last) / before if before > 0 else None


def about_overfit(found: Explanation) -> list[str]:
    """How much farther from its teacher the student is on rows it was not trained on."""
    over = found.overfit
    if over is None:
        return []
    at = next(one for one in over.at if one.temperature == found.temperature)
    there = f"at T = {found.temperature:.3g}"
    if at.validation < SAME_NATS:
        told = [f"On rows it was not trained on the student is less than {SAME_NATS:g} nats from its teacher {there}."]
    else:
        times = at.validation / max(at.train, 1e-12)
        far = f"{at.train:.3g} nats from its teacher on training rows and {at.validation:.3g} on validation rows"
        if times >= OVERFIT:
            so = f"{times:,.2g} times as far: it has over-fitted, and more data, augmentation or fewer steps would help"
        elif times >= SLIGHT:
            so = f"{times:.2g} times as far: it has over-fitted a little"
        else:
            so = "about as far: what it has learnt carries over"
        told = [f"A{there[1:]} the student is {far}, {so}."]
    accuracies = f"{percent(over.train.accuracy)} of these {over.examples:,} training examples' rows"
    return [
        *told,
        f"It is right in {accuracies} and in {percent(over.validation.accuracy)} of the validation rows, with a loss of"
        f" {over.train.nll:.3g} and {over.validation.nll:.3g} nats.",
    ]


def about_types(types: Sequence[OfType]) -> list[str]:
    """The type of rows on which the student agrees least with its teacher, and the softest."""
    views = [view for view in types if view.rows >= FEWEST_ROWS]
    if len(views) < 2:
        return []
    least, most = (choose(views, key=lambda view: view.agreement) for choose in (min, max))
    if most.agreement - least.agreement < APART:
        told = [
            f"Student and teacher agree about as often on all types, from {percent(least.agreement)} ({least.name}) to"
            f" {percent(most.agreement)} ({most.name})."
        ]
    else:
        told = [
            f"The student agrees with its teacher least on {least.name}, in {percent(least.agreement)} of"
            f" {least.rows:,} rows, where the teacher is right in {percent(least.teacher)} and the student in"
            f" {percent(least.student)}; most on {most.name}, in {percent(most.agreement)}."
        ]
    soft = max(views, key=lambda view: view.effective_classes)
    return [
        *told,
        f"The softest targets are those of {soft.name}, with {soft.effective_classes:,.2f} effective classes.",
    ]


def about_distribution(temperatures: Sequence[float]) -> list[str]:
    """Over what range a policy spreads its temperatures.

    Examples:
        >>> about_distribution([1.0, 2.0, 2.0, 2.0, 3.0])
        ['On the validation rows the trained policy gives temperatures from 1 to 3, half of them within 2 to 2.']
    """
    if not temperatures:
        return []
    ordered = sorted(temperatures)
    low, quarter, rest, high = (ordered[round(q * (len(ordered) - 1))] for q in (0, 0.25, 0.75, 1))
    half = f"half of them within {quarter:.3g} to {rest:.3g}"
    return [f"On the validation rows the trained policy gives temperatures from {low:.3g} to {high:.3g}, {half}."]
