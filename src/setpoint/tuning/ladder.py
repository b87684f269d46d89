"""Who goes on: successive halving as a pure function of what all workers have reported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from setpoint.tuning.plan import Plan
from setpoint.tuning.study import Record


@dataclass(frozen=True)
class Task:
    """What a worker does next.

    Attributes:
        kind: ``train`` a candidate's seed to a step, ``drop`` it, ``finish`` it, ``take`` a new one, ``wait`` for other
            workers, or be ``done``.
        number: the candidate.
        seed: of the training.
        steps: where it pauses.
        rung: which rung that is.
    """

    kind: Literal["train", "drop", "finish", "take", "wait", "done"]
    number: int = -1
    seed: int = 0
    steps: int = 0
    rung: int = 0


def next_tasks(records: Sequence[Record], mine: set[int], plan: Plan, seeds: Sequence[int], total: int) -> list[Task]:
    """What a worker can do now, most useful first; all of one kind.

    Everybody trains the first rung before anybody goes on to the second. A candidate goes on as soon as it is certain
    to be among the best of its rung, and is dropped as soon as it is certain not to be, so no worker waits without
    need. Candidate 0, the recipe as it stands, always goes on, and so does one that was evolved.

    Args:
        records: the candidates taken so far, by all workers.
        mine: those that this worker trains.
        plan: the rungs.
        seeds: of the finalists; the first is that of the search.
        total: how many candidates there are.

    Examples:
        >>> plan = Plan(rungs=(10, 20), sizes=(2, 1), repeats=1, full_steps=40)
        >>> next_tasks([], set(), plan, [0], total=2)
        [Task(kind='take', number=-1, seed=0, steps=0, rung=0)]
    """
    own = [record for record in records if record.number in mine and record.running]
    trains: list[Task] = []
    ends: list[Task] = []
    for record in own:
        task = _next_of(record, records, plan, seeds, total)
        if task is not None:
            (trains if task.kind == "train" else ends).append(task)
    if ends:
        return ends
    lowest = min((task.rung for task in trains), default=-1)
    if lowest == 0:
        return [task for task in trains if task.rung == 0]
    if len(records) < total:
        return [Task("take")]
    if trains:
        return [task for task in trains if task.rung == lowest]
    return [Task("wait" if any(record.running for record in records) else "done")]


def _next_of(record: Record, records: Sequence[Record], plan: Plan, seeds: Sequence[int], total: int) -> Task | None:
    """The next thing to do for one candidate; None where others have to report first."""
    first = seeds[0]
    entering = total
    for rung, steps in enumerate(plan.rungs):
        if record.reached(first) < steps:
            return Task("train", record.number, first, steps, rung)
        if rung + 1 < len(plan.rungs):
            places = plan.sizes[rung + 1]
            fate = _fate(record, records, (first, steps), entering, places, total, plan.firm)
            if fate is None:
                return None
            if not fate:
                return Task("drop", record.number)
            entering = places
    last = plan.rungs[-1]
    for seed in seeds[: plan.repeats]:
        if record.reached(seed) < last:
            return Task("train", record.number, seed, last, len(plan.rungs))
    return Task("finish", record.number)


def _fate(
    record: Record,
    records: Sequence[Record],
    at: tuple[int, int],
    entering: int,
    places: int,
    total: int,
    firm: Sequence[int],
) -> bool | None:
    """Whether a candidate goes on from a rung: True, False, or None where that is not certain yet."""
    if record.number in firm:
        return True
    seed, steps = at
    rivals = [one for one in records if one.number not in (*firm, record.number)]
    scored = [one for one in rivals if (seed, steps) in one.proxies]
    better = sum(standing(one, seed, steps) < standing(record, seed, steps) for one in scored)
    free = places - len(firm)
    if better >= free:
        return False
    # Those that may still come and be better: never more than enter the rung at all.
    coming = sum(one.running for one in rivals) - sum(one.running for one in scored) + total - len(records)
    coming = min(coming, entering - len(firm) - 1 - len(scored))
    return True if better + max(coming, 0) < free else None


def standing(record: Record, seed: int, steps: int) -> tuple[float, int]:
    """What candidates are ordered by, the best first: the loss on the validation labels; ties by number.

    The loss is measured with its temperature fitted, so that it says what the logits know and not how sure they are,
    which the candidate's temperature decides. It tells students apart long before the metric does.
    """
    value = record.proxies[seed, steps]
    return (math.inf if math.isnan(value) else value, record.number)
