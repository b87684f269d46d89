"""What can be wrong with a search before it begins."""

from __future__ import annotations

import numpy as np

from setpoint.errors import DataError, RecipeError
from setpoint.job import Job
from setpoint.recipe_tune import Range
from setpoint.tuning.candidates import apply, searched
from setpoint.tuning.verdict import rows_needed, smallest_difference

COARSEST = 0.1
"""A validation split that tells no difference below this, in shares of the metric, tells nothing."""
USEFUL = 0.02
"""A difference worth telling, by which the mend is measured."""


def check_search(job: Job) -> None:
    """Refuse what could not be searched, before anything is trained.

    Raises:
        RecipeError: a field that recipes do not have, a value it cannot take, or a metric that the task does not
            produce.
        DataError: a validation split that can tell nothing, and how many examples would be needed.
    """
    tune = job.recipe.tune
    if tune is None:
        return
    for name, values in searched(job.recipe).items():
        if values != "auto":
            for value in (values.low, values.high) if isinstance(values, Range) else values:
                apply(job.recipe, {name: value})
    if tune.metric is not None:
        _check_metric(job, tune.metric)
    _check_validation(len(job.splits.validation))


def _check_metric(job: Job, metric: str) -> None:
    classes = len(job.splits.labels)
    known = job.task.scores([np.eye(classes, dtype=np.float32)], [np.arange(classes)], job.splits.labels)
    if metric not in known:
        raise RecipeError(
            f"tune.metric is '{metric}', which {job.recipe.task} does not produce", f"give one of {', '.join(known)}"
        )


def _check_validation(rows: int) -> None:
    smallest = smallest_difference(rows)
    if smallest > COARSEST:
        raise DataError(
            f"the validation split has {rows} examples, which tell no difference below {100 * smallest:.0f} points",
            f"give at least {rows_needed(COARSEST)}; {rows_needed(USEFUL):,} would tell {100 * USEFUL:.0f} points",
        )
