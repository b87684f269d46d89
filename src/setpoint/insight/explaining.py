"""What a colleague would say of a temperature: sentences by rules, each with its figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from setpoint.guards import Look, complaints
from setpoint.insight.explanation import AtTemperature, Example, Explanation, Fit, Said, Section
from setpoint.tuning.reasons import about_calibration

NONE_OFF_TOP = 0.001
"""Less mass off the top class than this is not worth a word on how it is shared: the targets are labels."""
MOSTLY = 0.5
"""One other class with half of what is off the top is the one that the teacher hesitates about."""
FEW = 5
"""As many classes can be looked at one by one; more are a crowd."""
WASTED, NOTICED = 0.5, 0.1
"""Shares of the gradient that tell tail classes apart: with half of it, a student learns more of what the teacher never
meant than of what it did; a tenth is worth knowing."""
MATCHING = 0.1
"""So near to its limit the gradient is that of matching logits, and a higher T changes nothing any more."""
SURE_BY = 0.02
"""A mean confidence this far from the accuracy is seen in a reliability diagram of some hundred rows."""
KEPT, LOST = 0.7, 0.3
"""Rank correlations from which, and below which, one would say that an order was learnt, or was not."""
UNEVEN = 1.5
"""Effective classes of the softest class against the sharpest: beyond it one T is two things at once."""
FEWEST_ROWS = 10
"""A class of fewer rows has no mean to speak of."""


def explained(found: Explanation) -> Explanation:
    """The same with its sentences, a section for each side of it that there is something to say of."""
    rules: dict[str, Callable[[Explanation], list[str]]] = {
        "The targets": about_targets,
        "The gradient": about_gradient,
        "Calibration": about_fits,
        "Student and teacher": about_fidelity,
        "Class by class": about_classes,
        "Examples": about_examples,
    }
    said = {title: tuple(rule(found)) for title, rule in rules.items()}
    return replace(found, sections=tuple(Section(title, told) for title, told in said.items() if told))


def about_targets(found: Explanation) -> list[str]:
    """How soft the targets are, how the mass off the top class is shared, and what the logits alone suggest."""
    t, at, one = found.temperature, found.at(found.temperature), found.at(1.0)
    told = [
        f"At T = {t:.3g} the targets spread over {at.effective_classes:,.2f} of {found.unmasked_classes:,.0f} classes;"
        f" {_off_top(at)}."
    ]
    if t != 1:
        told.append(
            f"At T = 1 they spread over {one.effective_classes:,.2f}, with {percent(one.dark_mass)} off the top class."
        )
    wrong = complaints(Look(t, t, at.effective_classes, None, found.unmasked_classes))
    told += [_sentence(complaint) for complaint in wrong.values()]
    suggested = found.suggestion
    if suggested.label_smoothing and t > 1:
        told.append(
            f"The teacher looks trained with label smoothing, about {suggested.label_smoothing:.2g}; what such targets"
            " say of the other classes fades above T = 1 (Chandrasegaran et al. 2022)."
        )
    if t == suggested.temperature:
        told.append(
            f"T = {t:.3g} is where the teacher's logits alone would have one start; a search need not leave"
            f" {suggested.low:.3g} to {suggested.high:.3g}."
        )
    else:
        place = "below" if t < suggested.low else "above" if t > suggested.high else "within"
        told.append(
            f"From the teacher's logits alone one would start at T = {suggested.temperature:.3g} and search"
            f" {suggested.low:.3g} to {suggested.high:.3g}; T = {t:.3g} is {place} that."
        )
    return told


def _off_top(at: AtTemperature) -> str:
    if at.dark_mass < NONE_OFF_TOP or at.other_classes is None or at.runner_up_share is None:
        return f"hardly any mass, {percent(at.dark_mass)}, is off the top class"
    off = f"{percent(at.dark_mass)} of the mass is off the top class"
    if at.runner_up_share >= MOSTLY:
        return f"{off}, most of it on one other class"
    if at.other_classes <= FEW:
        return f"{off}, shared by about {max(at.other_classes, 2):.0f} other classes"
    return f"{off}, spread over about {at.other_classes:,.0f} other classes"


def about_gradient(found: Explanation) -> list[str]:
    """Where the gradient goes, what T and T² do to its size, and what the hard loss has of it."""
    t, at, one = found.temperature, found.at(found.temperature), found.at(1.0)
    if at.target_gradient is None or at.tail_gradient is None:
        return ["The student's logits are the teacher's up to a constant of each row: the soft loss has no gradient."]
    share = f"{percent(at.tail_gradient)} of the gradient tells apart classes that"
    less = "share less than 1% of the mass at T = 1"
    if at.tail_gradient >= WASTED:
        told = [f"T = {t:.3g} wastes this teacher: {share} {less}."]
    elif at.tail_gradient >= NOTICED:
        told = [f"At T = {t:.3g}, {share} {less}."]
    else:
        told = [f"At T = {t:.3g} the gradient goes where the teacher's mass is; only {share} {less}."]
    if found.student == "uniform":
        told.append("This is for a student that knows nothing yet and says 1/C, since none was given.")
    told.append(
        f"{percent(at.target_gradient)} of the gradient is on the {'label' if found.fits else 'top class'} and"
        f" {percent(1 - at.target_gradient)} on the other classes."
    )
    if t != 1:
        told.append(
            f"From T = 1 to T = {t:.3g} its norm goes from {one.gradient_norm_unscaled:.3g} to"
            f" {at.gradient_norm_unscaled:.3g} without T², and to {at.gradient_norm:.3g} with it."
        )
    if at.limit_distance is not None:
        away = f"{percent(at.limit_distance)} away from that of matching logits, its limit at high T"
        end = (
            "a higher T changes nothing any more" if at.limit_distance < MATCHING else "T still decides what is learnt"
        )
        told.append(f"It is {away}: {end}.")
    if at.hard_gradient is not None:
        told.append(f"At α = {found.alpha:g} the hard loss makes {percent(at.hard_gradient)} of the gradient.")
        if 0 < found.alpha < 1:
            seen = Look(t, t, at.effective_classes, 1 - at.hard_gradient, found.unmasked_classes)
            drowned = complaints(seen).get("drowned")
            told += [] if drowned is None else [_sentence(drowned)]
    return told


def about_fits(found: Explanation) -> list[str]:
    """Whether teacher and student are as sure as they should be."""
    told, calibration = [], found.suggestion.calibration
    if calibration is not None:
        told += about_calibration(calibration.temperature, calibration.ece_before, calibration.ece_after)
    return told + [_as_sure_as_right(fit) for fit in found.fits if fit.model == "student"]


def _as_sure_as_right(fit: Fit) -> str:
    off = fit.confidence - fit.accuracy
    how = "overconfident" if off > 0 else "less sure than it could be"
    how = "about as sure as it should be" if abs(off) < SURE_BY else how
    return (
        f"The student at T = 1 is {how}: it is right in {percent(fit.accuracy)} of the rows and gives its choice"
        f" {percent(fit.confidence)} on average (calibration error {fit.ece:.3f})."
    )


def about_fidelity(found: Explanation) -> list[str]:
    """How far the student says what the teacher says."""
    if found.fidelity is None:
        return []
    t, kl = found.temperature, found.at(found.temperature).kl
    there = f", and {kl:.3g} at T = {t:.3g}" if kl is not None and t != 1 else ""
    told = [
        f"The student has the teacher's top class in {percent(found.fidelity.top1)} of the rows and is"
        f" {found.fidelity.kl:.3g} nats from it at T = 1{there}."
    ]
    correlation = found.fidelity.rank_correlation
    if correlation is not None:
        order = "has learnt" if correlation >= KEPT else "has not learnt" if correlation < LOST else "has half learnt"
        told.append(f"It {order} the order of the other classes (rank correlation {correlation:.2f}).")
    return told


def about_classes(found: Explanation) -> list[str]:
    """The softest class and the sharpest, and whether one T suits both."""
    views = sorted(
        (view for view in found.by_class if view.rows >= FEWEST_ROWS), key=lambda view: view.effective_classes
    )
    if len(views) < 2:
        return []
    sharp, soft = views[0], views[-1]
    at = f"effective classes at T = {found.temperature:.3g}"
    if soft.effective_classes <= UNEVEN * sharp.effective_classes:
        least, most = (f"{view.effective_classes:,.2f} ({view.name})" for view in (sharp, soft))
        return [f"All classes are about as soft, with {least} to {most} {at}."]
    return [
        f"The softest class is {soft.name}, with {soft.effective_classes:,.2f} {at}, in {percent(soft.beside_share)} of"
        f" its rows beside {soft.beside}; the sharpest is {sharp.name}, with {sharp.effective_classes:,.2f}.",
        "One temperature is not the same to all classes: the policy softness makes each row as soft.",
    ]


def about_examples(found: Explanation) -> list[str]:
    """The row that moves most, and the one where the teacher is least sure, in the teacher's words."""
    told = []
    if found.most_changed:
        row = found.most_changed[0]
        told.append(
            f"{_row(row)} moves most: the teacher says {words(row.at_one)} at T = 1 and {words(row.at_temperature)} at"
            f" T = {found.temperature:.3g}."
        )
    if found.least_sure:
        row = found.least_sure[0]
        told.append(f"{_row(row)} is where it is least sure: the teacher says {words(row.at_one)}.")
    return told


def _row(example: Example) -> str:
    label = "" if example.label is None else f" (label {example.label})"
    return f"Row {example.name}{label}"


def words(said: tuple[Said, ...], most: int = 3) -> str:
    """The most likely classes as one would read them out; the first in any case, others from 0.01 on.

    Examples:
        >>> words((Said("LOC", 0.712), Said("ORG", 0.24), Said("PER", 0.004)))
        '0.71 LOC, 0.24 ORG'
        >>> words((Said("7", 0.9), Said("1", 0.1)))
        '0.90 class 7, 0.10 class 1'
    """
    told = [one for place, one in enumerate(said[:most]) if place == 0 or one.probability >= 0.01]
    return ", ".join(f"{one.probability:.2f} {'class ' * one.name.isdigit()}{one.name}" for one in told)


def percent(share: float) -> str:
    """A share as one would say it: whole, but finer near 0 % and 100 %.

    Examples:
        >>> percent(0.384), percent(0.004), percent(0.9971), percent(0.00001), percent(1.0), percent(12.3)
        ('38%', '0.4%', '99.7%', 'less than 0.1%', '100%', '1,230%')
    """
    if 0 < share < 0.001:
        return "less than 0.1%"
    if 0.999 < share < 1:
        return "more than 99.9%"
    return f"{share:.1%}" if 0 < share < 0.01 or 0.99 < share < 1 else f"{share:,.0%}"


def _sentence(complaint: str) -> str:
    return complaint[0].upper() + complaint[1:] + "."
