"""Several finished runs beside each other: what each costs and scores, and how it differs from the first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from setpoint.errors import RunError
from setpoint.insight.finished import FinishedRun, read_run
from setpoint.maths.stats import Interval, paired_interval, welch_interval

SAME_SIZE = 1.05
"""Ratios of parameters below which two students are of one size."""


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison; figures are of its distilled students on the test split, means over seeds.

    Attributes:
        run: its folder, as it was given.
        name: the recipe's.
        teacher: who taught.
        temperature: as one would say it.
        parameters: of the student.
        bytes: of its weights.
        latency_ms: of one example, as this run measured it.
        scores: the headline metric by seed.
        score: their mean.
        teacher_score: the teacher's.
        gain: over hard labels; None where no student was trained on them.
        agreement: how often the student says what its teacher says.
        difference: of the scores to the first run's; None of the first.
        paired: whether the difference is of pairs that share a seed.
        changes: fields of the recipe that differ from the first run's, as [the first's, its own].
        sentence: what one would say of the difference; empty of the first.
    """

    run: str
    name: str
    teacher: str
    temperature: str
    parameters: int
    bytes: int
    latency_ms: float
    scores: Mapping[str, float]
    score: float
    teacher_score: float
    gain: Interval | None
    agreement: float | None
    difference: Interval | None
    paired: bool
    changes: Mapping[str, tuple[Any, Any]]
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """Several runs of one task, measured by one metric on the same test data.

    Attributes:
        task: of all of them.
        metric: likewise.
        runs: in the order they were given; each is compared with the first.
    """

    task: str
    metric: str
    runs: tuple[ComparedRun, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return asdict(self) | {"sentences": list(self.sentences)}

    @property
    def sentences(self) -> tuple[str, ...]:
        """What one would say of them."""
        told = [run.sentence for run in self.runs if run.sentence]
        if len(told) > 1:
            told.append("Each interval holds for its own comparison; that all of them hold at once is less sure.")
        return tuple(told)


def compare(*runs: str | Path) -> Comparison:
    """Compare finished runs of one task on the same test data; each with the first.

    Differences are of pairs where both runs have the same seeds, and otherwise Welch's.

    Args:
        runs: their folders, two or more.

    Raises:
        RunError: fewer than two, a folder without a finished run, or runs that cannot be compared.
    """
    if len(runs) < 2:
        raise RunError(f"{len(runs)} run is given to compare", "give two run folders or more")
    first, *others = [read_run(run) for run in runs]
    try:
        for other in others:
            _check_comparable(first, other)
        compared = tuple(_compared(run, None if run is first else first) for run in (first, *others))
    except (KeyError, TypeError, AttributeError, ZeroDivisionError):  # of another version, or somebody has edited it
        raise RunError(
            "a metrics.json among these runs lacks what is compared", "run their recipes again; they continue"
        ) from None
    return Comparison(first.metrics["task"], first.metrics["metric"], compared)


def _check_comparable(first: FinishedRun, other: FinishedRun) -> None:
    for what in ("task", "metric"):
        mine, theirs = other.metrics[what], first.metrics[what]
        if mine != theirs:
            raise RunError(
                f"'{other.path}' cannot be compared with '{first.path}': its {what} is {mine}, not {theirs}",
                f"give runs of one {what}",
            )
    if other.test is None or first.test is None:
        lost = other if other.test is None else first
        raise RunError(f"nobody knows what '{lost.path}' was tested on", "run its recipe again; it continues")
    if other.test != first.test or _rows(other) != _rows(first):
        raise RunError(
            f"'{other.path}' cannot be compared with '{first.path}': it was measured on other test data",
            "give runs with one test split, data.max_length and list of labels",
        )


def _rows(run: FinishedRun) -> dict[str, int]:
    """How many rows of each class were measured: a shorter ``data.max_length`` leaves words out of the same split."""
    metrics = run.metrics["student"]["metrics"]
    return {name: row["support"] for name, row in (metrics.get("tokens") or metrics.get("classes") or {}).items()}


def _compared(run: FinishedRun, first: FinishedRun | None) -> ComparedRun:
    metrics = run.metrics
    metric, student, gain = metrics["metric"], metrics["student"], metrics.get("gain")
    scores = _scores(run)
    difference, paired = (None, False) if first is None else _difference(scores, _scores(first))
    return ComparedRun(
        run=str(run.path),
        name=metrics["name"],
        teacher=_teacher(run.recipe),
        temperature=metrics["temperature"],
        parameters=student["parameters"],
        bytes=student["bytes"],
        latency_ms=student["latency_ms"],
        scores=scores,
        score=student["metrics"][metric],
        teacher_score=metrics["teacher"]["metrics"][metric],
        gain=None if gain is None else _interval(gain),
        agreement=student.get("agreement", {}).get("top1"),
        difference=difference,
        paired=paired,
        changes={} if first is None else recipe_changes(first.recipe, run.recipe),
        sentence="" if first is None or difference is None else _sentence(run, first, difference, paired),
    )


def _interval(found: Mapping[str, Any]) -> Interval:
    """An interval as JSON has it, where an end that no spread tells is null."""
    low, high = (math.nan if found[end] is None else found[end] for end in ("low", "high"))
    return Interval(found["mean"], low, high, found["n"])


def _scores(run: FinishedRun) -> dict[str, float]:
    return {seed: one["metrics"][run.metrics["metric"]] for seed, one in run.metrics["student"]["seeds"].items()}


def _difference(mine: Mapping[str, float], first: Mapping[str, float]) -> tuple[Interval, bool]:
    if mine.keys() == first.keys():
        return paired_interval([mine[seed] for seed in first], list(first.values())), True
    return welch_interval(list(mine.values()), list(first.values())), False


def _teacher(recipe: Mapping[str, Any]) -> str:
    """What one would call the teacher: the last part of its path, or the kind of model it was built as."""
    model = recipe["teacher"]["model"]
    if model["kind"] == "pretrained":
        name = Path(model["model"]).name
    else:
        config = model["config"]
        name = config["model_type"] if isinstance(config, Mapping) else Path(config).name
    more = len(recipe["teacher"].get("others") or ())
    return f"{name} and {more} more" if more else str(name)


def recipe_changes(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields in which two recipes differ, the name and what a search was to do left out.

    Examples:
        >>> recipe_changes({"seeds": [0], "train": {"epochs": 1}}, {"seeds": [0], "train": {"epochs": 3}})
        {'train.epochs': (1, 3)}
    """
    one, two = _fields(first), _fields(other)
    return {
        field: (one.get(field), two.get(field))
        for field in dict.fromkeys([*one, *two])
        if one.get(field) != two.get(field) and field.split(".")[0] not in ("name", "tune")
    }


def _fields(recipe: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(recipe, Mapping) or not recipe:
        return {prefix: recipe}
    return {k: v for name, value in recipe.items() for k, v in _fields(value, f"{prefix}.{name}".lstrip(".")).items()}


def _sentence(run: FinishedRun, first: FinishedRun, difference: Interval, paired: bool) -> str:
    """What a colleague would say of a run against the first; no winner where the interval has room for none."""
    mine, theirs, metric = str(run.path), str(first.path), run.metrics["metric"]
    size = _size(run.metrics["student"]["parameters"] / first.metrics["student"]["parameters"])
    who = f"{mine}, {size}," if size else mine
    points = 100 * difference.mean
    if math.isnan(difference.low):
        return (
            f"{who} scores {points:+.2f} points of {metric} against {theirs}; one seed tells no noise, so nobody"
            " can say which is better."
        )
    how = f"{difference.n} seeds in pairs" if paired else f"{difference.n} students of other seeds, not in pairs"
    interval = f"95 % interval {100 * difference.low:+.2f} … {100 * difference.high:+.2f}, {how}"
    if difference.low > 0:
        return f"{who} scores {points:.2f} points of {metric} more than {theirs} ({interval})."
    if difference.high < 0:
        return f"{who} scores {-points:.2f} points of {metric} less than {theirs} ({interval})."
    return f"{who} cannot be told from {theirs} by its {metric}: {points:+.2f} points ({interval})."


def _size(ratio: float) -> str:
    if 1 / SAME_SIZE < ratio < SAME_SIZE:
        return ""
    return f"{ratio:.3g}× as large" if ratio > 1 else f"{1 / ratio:.3g}× smaller"
