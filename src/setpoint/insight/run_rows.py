"""The rows of a run: its targets, its student's logits and its labels, on validation data and on some training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from setpoint import evaluation, teachers
from setpoint.errors import RunError
from setpoint.insight.rows import CountedRows, counted
from setpoint.job import Job
from setpoint.targets.teacher import FrozenTeacher
from setpoint.targets.views import RandomViews
from setpoint.tasks.base import Example, label_rows
from setpoint.teachers import Teacher
from setpoint.types import TargetSource

MOST_EXAMPLES = 2_000
"""Training examples that stand for all."""
MOST_LOGITS = 5_000_000
"""Logits of them that are looked at, so that a large vocabulary takes seconds too."""
TEXT = 60
"""Characters of a text that name its row."""


@dataclass(frozen=True)
class Pair:
    """A run's targets and its distilled student of one seed, each with its tokenizer."""

    job: Job
    teacher: Teacher
    targets: TargetSource
    student: FrozenTeacher
    processor: Any


def first_pair(job: Job, teacher: Teacher, targets: TargetSource) -> Pair:
    """The student of the first seed beside the targets.

    Raises:
        RunError: the student is not there.
    """
    folder = job.path / f"student/seed-{job.recipe.seeds[0]}"
    if not folder.is_dir():
        raise RunError(f"'{folder}' does not exist", "run the recipe again; it trains what is missing")
    model, processor = teachers.load_student(job, teacher, folder)
    return Pair(job, teacher, targets, job.frozen(model, processor, "student"), processor)


def validation_rows(pair: Pair) -> tuple[CountedRows, dict[str, list[bool]]]:
    """The validation rows, and for each type that the task tells apart which of them are of it.

    All of them, or where these are too many those of some examples, evenly spread. Labels are None where rows have
    none of their own, and the student's logits where its rows are not those of the teacher.
    """
    job, classes = pair.job, len(pair.teacher.source.labels)
    examples = [
        evaluation.sample(job.encoded("validation", processor), classes)
        for processor in (pair.teacher.processor, pair.processor)
    ]
    (v, z, y), counts = _predicted(pair, *examples)
    ids = [example["id"] for example in examples[0]]
    whole = ids == job.splits.validation["id"][:]  # an example of the split each
    each = job.task.row_names(job.splits)
    names = row_names(ids, job.splits.validation if whole else None, counts, each)
    rows = counted(v, y, z, class_names=pair.teacher.source.labels, row_names=names)
    types = job.task.row_types(job.splits.validation, job.splits.train, job.splits.labels) if whole else {}
    types |= {name: [[other == name for other in each]] * len(ids) for name in each}
    flat = {
        name: [flag for flags, count in zip(of, counts, strict=True) for flag in flags[:count]]
        for name, of in types.items()
    }
    return rows, flat


def training_rows(pair: Pair) -> tuple[CountedRows, int]:
    """The rows of some training examples, evenly spread, in the first view of each; and how many examples."""
    job, classes = pair.job, len(pair.teacher.source.labels)
    every = job.encoded("train", pair.teacher.processor)
    spread = range(0, len(every), -(-len(every) // MOST_EXAMPLES))
    chosen = evaluation.sample(spread, classes, [np.size(every[i]["labels"]) for i in spread])
    examples = [_training_examples(job, processor, chosen) for processor in (pair.teacher.processor, pair.processor)]
    (v, z, y), _ = _predicted(pair, *examples)
    thin = -(-v.numel() // MOST_LOGITS)
    thinned = [None if part is None else part[::thin] for part in (y, z)]
    return counted(v[::thin], *thinned, class_names=pair.teacher.source.labels), len(chosen)


def _training_examples(job: Job, processor: Any, chosen: Sequence[int]) -> list[Example]:
    data = job.training_data(processor)
    if isinstance(data, RandomViews):  # new at every reading: teacher and student would see different ones
        data = job.encoded("train", processor)
    return [data[i] for i in chosen]


def _predicted(
    pair: Pair, for_teacher: Sequence[Example], for_student: Sequence[Example]
) -> tuple[tuple[Tensor, Tensor | None, Tensor | None], list[int]]:
    """The teacher's logits, the student's and the labels, and how many rows each example has.

    Tokenizers of their own may cut an example at different words; a row is one that both have.
    """
    task, classes = pair.job.task, len(pair.teacher.source.labels)
    parts = [evaluation.predict(pair.targets, for_teacher, task.collate(pair.teacher.processor))]
    parts.append(evaluation.predict(pair.student, for_student, task.collate(pair.processor)))
    counts = [min(len(v), len(z)) for v, z in zip(*parts, strict=True)]
    v, z, y = (
        torch.from_numpy(np.concatenate([part[:n] for part, n in zip(rows, counts, strict=True)]))
        for rows in (*parts, label_rows(for_teacher))
    )
    return (v[:, :classes], z[:, :classes] if task.aligned else None, y if task.row_labels else None), counts


def row_names(ids: Sequence[str], split: Dataset | None, counts: Sequence[int], each: Sequence[str] = ()) -> list[str]:
    """What to call each row: its example's id with the word or the beginning of the text, where there is one.

    Args:
        ids: of the examples.
        split: these examples, where it has one for each.
        counts: how many rows each has.
        each: what each of its rows is of, where that is the same for all examples.

    Examples:
        >>> row_names(["a", "b"], None, [2, 1])
        ['a, row 0', 'a, row 1', 'b']
        >>> row_names(["a"], None, [2], ["start", "end"])
        ['a, start', 'a, end']
    """
    columns = [] if split is None else split.column_names
    if split is not None and "tokens" in columns:
        return [
            f"{name} '{word}'"
            for name, words, count in zip(ids, split["tokens"], counts, strict=True)
            for word in words[:count]
        ]
    names = list(ids)
    if split is not None and "text" in columns:
        names = [
            f"{name} '{text if len(text) <= TEXT else text[:TEXT] + '…'}'"
            for name, text in zip(ids, split["text"], strict=True)
        ]
    return [
        name if count == 1 else f"{name}, {each[row] if each else f'row {row}'}"
        for name, count in zip(names, counts, strict=True)
        for row in range(count)
    ]
