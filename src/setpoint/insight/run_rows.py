"""The rows of a run: its targets, its student's logits and its labels, on validation data and on some training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from setpoint import evaluation, models, teachers
from setpoint.errors import RunError
from setpoint.insight.rows import CountedRows, counted
from setpoint.job import Job
from setpoint.targets.teacher import FrozenTeacher
from setpoint.targets.views import RandomViews
from setpoint.tasks.base import Example
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
    student = FrozenTeacher(model.to(models.device()), job.splits.labels, name="student")
    return Pair(job, teacher, targets, student, processor)


def validation_rows(pair: Pair) -> tuple[CountedRows, dict[str, list[bool]]]:
    """The validation rows, and for each type that the task tells apart which of them are of it."""
    job = pair.job
    examples = [job.encoded("validation", processor) for processor in (pair.teacher.processor, pair.processor)]
    (v, z, y), counts = _predicted(pair, *examples)
    names = row_names(job.splits.validation, counts)
    rows = counted(v, y, z, class_names=job.splits.labels, row_names=names)
    types = job.task.row_types(job.splits.validation, job.splits.train, job.splits.labels)
    flat = {
        name: [flag for flags, count in zip(of, counts, strict=True) for flag in flags[:count]]
        for name, of in types.items()
    }
    return rows, flat


def training_rows(pair: Pair) -> tuple[CountedRows, int]:
    """The rows of some training examples, evenly spread, in the first view of each; and how many examples."""
    job = pair.job
    step = -(-len(job.splits.train) // MOST_EXAMPLES)
    chosen = range(0, len(job.splits.train), step)
    examples = [_training_examples(job, processor, chosen) for processor in (pair.teacher.processor, pair.processor)]
    (v, z, y), _ = _predicted(pair, *examples)
    thin = -(-v.numel() // MOST_LOGITS)
    return counted(v[::thin], y[::thin], z[::thin], class_names=job.splits.labels), len(chosen)


def _training_examples(job: Job, processor: Any, chosen: Sequence[int]) -> list[Example]:
    data = job.training_data(processor)
    if isinstance(data, RandomViews):  # new at every reading: teacher and student would see different ones
        data = job.encoded("train", processor)
    return [data[i] for i in chosen]


def _predicted(
    pair: Pair, for_teacher: Sequence[Example], for_student: Sequence[Example]
) -> tuple[list[torch.Tensor], list[int]]:
    """The teacher's logits, the student's and the labels, and how many rows each example has.

    Tokenizers of their own may cut an example at different words; a row is one that both have.
    """
    collate = pair.job.task.collate
    parts = (
        evaluation.predict(pair.targets, for_teacher, collate(pair.teacher.processor)),
        evaluation.predict(pair.student, for_student, collate(pair.processor)),
        evaluation.label_rows(for_teacher),
    )
    counts = [min(len(v), len(z)) for v, z, _ in zip(*parts, strict=True)]
    joined = [np.concatenate([part[:n] for part, n in zip(rows, counts, strict=True)]) for rows in parts]
    return [torch.from_numpy(rows) for rows in joined], counts


def row_names(split: Dataset, counts: list[int]) -> list[str]:
    """What to call each row: its example's id with the word or the beginning of the text, where there is one."""
    if "tokens" in split.column_names:
        return [
            f"{name} '{word}'"
            for name, words, count in zip(split["id"], split["tokens"], counts, strict=True)
            for word in words[:count]
        ]
    if "text" in split.column_names:
        return [
            f"{name} '{text if len(text) <= TEXT else text[:TEXT] + '…'}'"
            for name, text in zip(split["id"], split["text"], strict=True)
        ]
    return list(split["id"])
