"""What things take on this machine, by trying them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from setpoint.batching import LengthBuckets, length_of
from setpoint.recipe import Recipe
from setpoint.teachers import Teacher
from setpoint.tuning import student
from setpoint.tuning.plan import Costs

PROBE = 60
"""Steps by which the price of a step is measured, at most."""
BATCHES = 12
"""Of each teacher that are timed."""


def measure(bench: student.Bench, recipe: Recipe, seed: int, steps: int) -> Costs:
    """The first steps of candidate 0, which go on later, and a few batches of the teacher, on the clock.

    Args:
        bench: what candidates are trained on.
        recipe: of candidate 0.
        seed: its first.
        steps: to measure by.
    """
    ends = list[float]()

    def train(until: int) -> tuple[nn.Module, Any]:
        ends[:] = [time.perf_counter()]
        return student.train_to(bench, recipe, 0, seed, until, lambda _: ends.append(time.perf_counter()))

    # What a worker left that died before it could set the plan would be no step on the clock.
    shutil.rmtree(bench.scratch(0, seed), ignore_errors=True)
    train(1)  # the first step of all waits for much that is done once
    model, processor = train(steps)
    took, timed = time.perf_counter() - ends[0], ends[1:]
    step = pace(timed, epoch(bench, processor, seed)[1][1:])
    examples = len(bench.job.encoded("validation", processor))  # encoded once for all, off the clock
    start = time.perf_counter()
    student.score(bench, model, processor, 0, seed, steps, student.SCORED)
    score = time.perf_counter() - start
    return Costs(
        step=step,
        teacher_step=sum(teacher_seconds(bench, teacher) for teacher in (bench.teacher, *bench.teacher.others)),
        score=score,
        last_score=score * examples / min(examples, student.SCORED),
        spent=sum(s for name, s in bench.job.folder.seconds().items() if name.startswith("targets")),
        pause=max(took - (timed[-1] - timed[0]) - step, 0.0) if timed else 0.0,
    )


def pace(ends: Sequence[float], sizes: Sequence[int] = ()) -> float:
    """Seconds of a step by the times at which steps ended.

    Args:
        ends: when each step ended.
        sizes: the longest example of these steps and of those that follow. A step of long sentences takes longer, and
            the first few steps may have more of them, or fewer, than all: the seconds are laid on a line over the
            sizes. And a step of a size that has not come before takes longer; of a whole training there are few.

    Examples:
        >>> pace([5.0, 5.5, 6.0, 6.5])
        0.5
        >>> round(pace([0.0, 1.0, 2.0, 4.0, 5.0, 7.0], [10, 10, 10, 20, 10, 20, 30, 30, 30, 30]), 3)
        2.0
    """
    seconds, these = np.diff(ends), list(sizes[1 : len(ends)])
    if not len(seconds):
        return 1e-3
    again = [i for i, size in enumerate(these) if size in sizes[: i + 1]]
    chosen = again if len({these[i] for i in again}) > 1 else list(range(len(these)))
    if len({these[i] for i in chosen}) < 2:
        return float(seconds.mean())
    slope, base = np.polyfit([these[i] for i in chosen], seconds[chosen], 1)
    return max(float(base + slope * np.mean(sizes)), 1e-3)


def epoch(bench: student.Bench, processor: Any, seed: int) -> tuple[list[list[int]], list[int]]:
    """The examples of each step of an epoch; and, where they are grouped by length, the longest of each step."""
    train, data = bench.job.recipe.train, bench.job.training_data(processor)
    size = min(train.batch_size * train.gradient_accumulation, len(data))
    lengths: list[int] = []
    if train.arguments.get("train_sampling_strategy") == "group_by_length":
        lengths = [length_of(example) for example in data]
        order = list(LengthBuckets(lengths, size, seed, lambda: 0))
    else:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
    steps = [order[at : at + size] for at in range(0, len(order), size)]
    return steps, [max(lengths[i] for i in step) for step in steps] if lengths else []


def teacher_seconds(bench: student.Bench, teacher: Teacher) -> float:
    """Seconds of a live teacher on the examples of a step: the mean of steps of all lengths."""
    data, collate = bench.job.training_data(teacher.processor), bench.job.task.collate(teacher.processor)
    steps, sizes = epoch(bench, teacher.processor, 0)
    steps = [steps[i] for i in np.argsort(sizes, kind="stable")] if sizes else steps
    count = min(BATCHES, len(steps))
    # Of all lengths, and each met for the first time, as a live teacher meets them among the student's steps.
    batches = [collate([data[i] for i in steps[int((k + 0.5) * len(steps) / count)]]) for k in range(count)]
    teacher.source(batches[0])
    start = time.perf_counter()
    for batch in batches:
        teacher.source(batch)
    return (time.perf_counter() - start) / count
