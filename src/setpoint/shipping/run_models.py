"""What ``bench`` measures: exported students, and the models of a run in PyTorch, all asked in one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from setpoint import evaluation, teachers
from setpoint.job import Job
from setpoint.shipping.export import open_run, open_student
from setpoint.shipping.shipped import Shipped, predict_alike
from setpoint.targets.teacher import FrozenTeacher
from setpoint.tasks.base import ALL


@dataclass(frozen=True)
class Opened:
    """A model that can be asked, and what is known of it."""

    name: str
    runtime: str
    dtype: str
    bytes: int
    metric: str
    score: Callable[[], float]
    """On the validation split; computed where nobody has before."""
    read: Callable[[Any, str], Any]
    """(raw input, its name in errors) → checked."""
    answer: Callable[[list[Any], int], Any]
    """(checked inputs, batch size) → answers."""


def validation_inputs(run: Path, most: int) -> list[Any]:
    """Raw inputs of a run's validation split, spread over it."""
    job = open_run(run)
    split = job.splits.validation
    chosen = split.select(range(0, len(split), -(-len(split) // most)))
    columns = job.task.input_columns()
    return [{column: row[field] for field, column in columns.items()} for row in chosen]


def prepare(folder: Path, what: str, threads: int | None) -> Callable[[], Opened]:
    """What opens a model. The data of a run are read before, as they are no part of what its models cost.

    Args:
        folder: an exported folder or that of a run.
        what: ``export``, or of a run ``teacher`` or ``student``.
        threads: for an export.
    """
    if what == "export":
        return lambda: _export(Shipped.open(folder, threads=threads))
    job = open_run(folder)
    return lambda: _student(job) if what == "student" else _teacher(job)


def _export(shipped: Shipped) -> Opened:
    found = shipped.manifest
    runtime = "onnx" if found.model == "model.onnx" else "pytorch"
    return Opened(
        str(shipped.folder), runtime, found.dtype, found.files[found.model].bytes, found.validation.metric,
        lambda: found.validation.value, shipped.read, shipped.answer,
    )  # fmt: skip


def _student(job: Job) -> Opened:
    student = open_student(job)
    return _in_pytorch(job, "student", student.source, student.processor, job.path / f"student/seed-{student.seed}")


def _teacher(job: Job) -> Opened:
    teacher = teachers.load_teacher(job)
    teacher.source.model.cpu()
    return _in_pytorch(job, "teacher", teacher.source, teacher.processor, teacher.folder)


def _in_pytorch(job: Job, what: str, source: FrozenTeacher, processor: Any, folder: Path | None) -> Opened:
    task, collate = job.task, job.task.collate(processor)

    def answer(checked: list[Any], batch_size: int) -> Any:
        examples = task.encode_inputs(checked, processor)
        return predict_alike(source, examples, collate, batch_size)

    def score() -> float:
        examples = job.encoded("validation", processor)
        rows = evaluation.predict(source, examples, collate, keep=task.scored)
        return task.scores(rows, task.references(examples), job.splits.labels)[task.metric](ALL)

    size = evaluation.size_bytes(source.model, folder)
    return Opened(f"{job.path} {what}", "pytorch", "float32", size, task.metric, score, task.read_input, answer)
