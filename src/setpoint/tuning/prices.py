"""What things take on this machine, by trying them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from setpoint.batching import LengthBuckets
from setpoint.recipe import Recipe
from setpoint.teachers import Teacher
from setpoint.tuning import student
from setpoint.tuning.plan import SHORTEST, Costs

PROBE = SHORTEST
"""Steps by which the price of a step is measured, as many as any candidate takes; the first of them warm up."""
BATCHES = 8
"""Of each teacher that are timed."""


def measure(bench: student.Bench, recipe: Recipe, seed: int, full_steps: int) -> Costs:
    """The first steps of candidate 0, which go on later, and a few batches of the teacher, on the clock."""
    steps, ends = min(PROBE, full_steps), list[float]()

    def train(until: int) -> tuple[nn.Module, Any]:
        ends.append(time.perf_counter())
        return student.train_to(bench, recipe, 0, seed, until, lambda _: ends.append(time.perf_counter()))

    # A batch of a new length takes longer, for its kernels are made first; in a whole training there are few of them.
    for until in (steps, 1):
        # What a worker left that died before it could set the plan would be no step on the clock.
        shutil.rmtree(bench.scratch(0, seed), ignore_errors=True)
        train(until)
    ends.clear()
    model, processor = train(steps)
    took, timed = time.perf_counter() - ends[0], ends[1:]
    examples = len(bench.job.encoded("validation", processor))  # encoded once for all, off the clock
    start = time.perf_counter()
    student.score(bench, model, processor, 0, seed, steps, student.SCORED)
    score = time.perf_counter() - start
    return Costs(
        step=pace(timed, epoch(bench, processor, seed)[1][1:]),
        teacher_step=sum(teacher_seconds(bench, teacher) for teacher in (bench.teacher, *bench.teacher.others)),
        score=score,
        last_score=score * examples / min(examples, student.SCORED),
        spent=sum(s for name, s in bench.job.folder.seconds().items() if name.startswith("targets")),
        pause=max(took - pace(timed) * len(timed), 0.0),
    )


def pace(ends: Sequence[float], sizes: Sequence[int] = ()) -> float:
    """Seconds of a step by the times at which steps ended, without the first ones, which warm up.

    Args:
        ends: when each step ended.
        sizes: the longest example of these steps and of those that follow: a step of long sentences takes longer, and
            a few steps may have more of them, or fewer, than all have. The seconds are laid on a line over the sizes.

    Examples:
        >>> pace([5.0, 6.0, 6.5, 7.0])
        0.5
        >>> round(pace([0.0, 1.0, 2.0, 4.0, 5.0, 7.0], [10, 10, 10, 20, 10, 20, 30, 30, 30, 30]), 3)
        2.0
    """
    first = len(ends) // 4
    seconds = np.diff(ends)[first:]
    if not len(seconds):
        return 1e-3
    measured = np.array(sizes[first + 1 : len(ends)])
    if len(set(measured.tolist())) < 2:
        return float(seconds.mean())
    slope, base = np.polyfit(measured, seconds, 1)
    return max(float(base + slope * np.mean(sizes)), 1e-3)


def epoch(bench: student.Bench, processor: Any, seed: int) -> tuple[list[list[int]], list[int]]:
    """The examples of each step of an epoch; and, where they are grouped by length, the longest of each step."""
    train, data = bench.job.recipe.train, bench.job.training_data(processor)
    size = min(train.batch_size * train.gradient_accumulation, len(data))
    lengths: list[int] = []
    if train.arguments.get("train_sampling_strategy") == "group_by_length":
        lengths = [len(example["input_ids"]) for example in data]
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
    batches = [collate([data[i] for i in steps[int((k + 0.5) * len(steps) / count)]]) for k in range(count)]
    for _ in range(2):  # the first time warms up, for every length
        start = time.perf_counter()
        for batch in batches:
            teacher.source(batch)
    return (time.perf_counter() - start) / count
