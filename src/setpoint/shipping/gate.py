"""Whether a new student takes the place of the one before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from setpoint.maths.stats import Interval, bootstrap_interval
from setpoint.tasks.base import Rows, Task


@dataclass(frozen=True)
class Gate:
    """What new minus old student score, in the headline metric.

    Attributes:
        on_old: on the validation split of the run.
        on_new: on new examples that neither has learnt from.
        promote: whether the new one is better on the new data, and not worse on the old; each beyond its interval.
        sentences: why.
    """

    on_old: Interval
    on_new: Interval
    promote: bool
    sentences: tuple[str, ...]


def decide(on_old: Interval, on_new: Interval, metric: str, unlabelled: float = 0.0) -> Gate:
    """Promote a student that is better on the new data, unless it is worse on the old.

    Args:
        on_old: its score minus that of the one before it, on old examples; of one example alone the ends are NaN.
        on_new: the same on new examples.
        metric: for the sentences.
        unlabelled: share of these new examples that had no label, for the sentences: the teacher's class stood for it.

    Examples:
        >>> decide(Interval(-0.001, -0.004, 0.002, 500), Interval(0.03, 0.01, 0.05, 300), "f1").promote
        True
        >>> decide(Interval(-0.02, -0.03, -0.01, 500), Interval(0.03, 0.01, 0.05, 300), "f1").promote
        False
    """
    better, worse = on_new.low > 0, on_old.high < 0
    on_the_new = "is better" if better else "is worse" if on_new.high < 0 else "is no better that could be told"
    on_the_old = "is worse" if worse else "is better" if on_old.low > 0 else "is no worse that could be told"
    promote = better and on_old.high >= 0  # not `not worse`: an interval of one example, NaN, promotes nobody
    judge = "the teacher's classes" if unlabelled == 1 else "labels, or where there are none by the teacher's classes"
    by = f", judged by {judge}," if unlabelled else ""
    end = "it is promoted" if promote else "the student before it stays"
    return Gate(
        on_old,
        on_new,
        promote,
        (
            f"On the new data{by} the new student {on_the_new}: {_points(on_new, metric)}.",
            f"On the old data it {on_the_old}: {_points(on_old, metric)}; so {end}.",
        ),
    )


def difference(task: Task, names: tuple[str, ...], new: Rows, old: Rows, labels: Rows, repeats: int = 1000) -> Interval:
    """What the new student scores more than the old one in the headline metric, with its interval over examples.

    The paired bootstrap: both are scored on the same resample of examples, 1000 times.

    Args:
        task: gives the metric.
        names: of the classes.
        new: the logits of the new student, an array an example.
        old: those of the old one.
        labels: the labels of the same rows.
        repeats: resamples.
    """
    one, two = (_score(task, names, rows, labels) for rows in (new, old))
    return bootstrap_interval(lambda chosen: one(chosen) - two(chosen), len(labels), repeats=repeats)


def _score(task: Task, names: tuple[str, ...], rows: Rows, labels: Rows) -> Callable[[list[int]], float]:
    score = task.scores(rows, labels, names)[task.metric]
    return lambda chosen: score(np.asarray(chosen))


def _points(interval: Interval, metric: str) -> str:
    return (
        f"{100 * interval.mean:+.2f} points of {metric} (95 % interval {100 * interval.low:+.2f} …"
        f" {100 * interval.high:+.2f}, {interval.n:,} examples)"
    )
