"""What things take on this machine, by trying them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import Any

from torch import nn

from setpoint.recipe import Recipe
from setpoint.tuning import student
from setpoint.tuning.plan import Costs

PROBE = 12
"""Steps by which the price of a step is measured; the first of them warm up."""


def measure(bench: student.Bench, recipe: Recipe, seed: int, full_steps: int) -> Costs:
    """The first steps of candidate 0, which go on later, and a few batches of the teacher, on the clock."""
    steps, ends = min(PROBE, full_steps), list[float]()

    def train(until: int) -> tuple[nn.Module, Any]:
        ends.append(time.perf_counter())
        return student.train_to(bench, recipe, 0, seed, until, lambda _: ends.append(time.perf_counter()))

    # What a worker left that died before it could set the plan would be no step on the clock.
    shutil.rmtree(bench.scratch(0, seed), ignore_errors=True)
    train(1)  # warms up
    ends.clear()
    model, processor = train(steps)
    took = time.perf_counter() - ends[0]
    step = pace(ends[1:])
    examples = len(bench.job.encoded("validation", processor))  # encoded once for all, off the clock
    start = time.perf_counter()
    student.score(bench, model, processor, 0, seed, steps, student.SCORED)
    score = time.perf_counter() - start
    return Costs(
        step=step,
        teacher_step=student.teacher_seconds(bench),
        score=score,
        last_score=score * examples / min(examples, student.SCORED),
        spent=sum(s for name, s in bench.job.folder.seconds().items() if name.startswith("targets")),
        pause=max(took - step * (steps - 1), 0.0),
    )


def pace(ends: Sequence[float]) -> float:
    """Seconds of a step by the times at which steps ended, without the first ones, which warm up.

    Examples:
        >>> pace([5.0, 6.0, 6.5, 7.0])
        0.5
    """
    warm = ends[len(ends) // 4 :]
    return (warm[-1] - warm[0]) / (len(warm) - 1) if len(warm) > 1 else 1e-3
