"""Why a run's temperature: its recipe, its stored targets and its student, on its validation data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from setpoint import evaluation, models, teachers
from setpoint.errors import RunError
from setpoint.insight.explain import explain
from setpoint.insight.explanation import Explanation, Section
from setpoint.insight.markdown import write_markdown
from setpoint.insight.summary import verdict
from setpoint.job import Job, make_objective, open_job
from setpoint.recipe import Recipe
from setpoint.recipe_file import parse_recipe
from setpoint.recipe_temperature import ConstantTemperature
from setpoint.run_folder import RunFolder, read_left
from setpoint.targets.teacher import FrozenTeacher
from setpoint.tasks.base import Rows
from setpoint.teachers import Teacher

TEXT = 60
"""Characters of a text that name its row."""


def explain_run(folder: str | Path) -> Explanation:
    """Explain a finished run's temperature, and write it to ``report.md`` in the run folder.

    Everything is measured on the validation split: the run's targets, and the distilled student of its first seed. The
    test split's figures are those that the run has left in ``metrics.json``.

    Args:
        folder: the run folder.

    Raises:
        RunError: the folder holds no finished run, or one whose models or data have changed since.
    """
    path = Path(folder)
    found = {name: read_left(path, name) for name in ("recipe.json", "metrics.json")}
    recipe = parse_recipe(found["recipe.json"])
    tuning = read_left(path, "tuning.json") if (path / "tuning.json").exists() else None
    with RunFolder(path) as run_folder:
        job = open_job(recipe, run_folder)
        teacher = teachers.load_teacher(job)
        explanation = _measure(job, teacher)
        about = _about_run(job, found["metrics.json"], tuning, explanation)
        explanation = replace(explanation, sections=(Section("The run", about), *explanation.sections))
        write_markdown(path / "report.md", f"{recipe.name}: why this temperature", explanation)
    return explanation


def _measure(job: Job, teacher: Teacher) -> Explanation:
    try:
        targets = teachers.prepare_targets(job, teacher)
    except RunError as error:  # made from other data or another teacher: to start over is no way to explain it
        raise RunError(error.problem, "give the run what it was made from, or run the recipe again") from None
    examples = job.encoded("validation", teacher.processor)
    teacher_rows = evaluation.predict(targets, examples, job.task.collate(teacher.processor))
    student_rows = _student_rows(job, teacher)
    labels = evaluation.label_rows(examples)
    # Tokenizers of their own may cut an example at different words; a row is one of both.
    counts = [min(len(v), len(z)) for v, z in zip(teacher_rows, student_rows, strict=True)]
    v, z, y = (
        torch.from_numpy(np.concatenate([part[:n] for part, n in zip(rows, counts, strict=True)]))
        for rows in (teacher_rows, student_rows, labels)
    )
    return explain(
        v,
        y,
        z,
        used_temperature(job),
        job.recipe.objective.alpha,
        class_names=job.splits.labels,
        row_names=row_names(job.splits.validation, counts),
    )


def _student_rows(job: Job, teacher: Teacher) -> Rows:
    """The logits of the first seed's distilled student on the validation split."""
    folder = job.path / f"student/seed-{job.recipe.seeds[0]}"
    if not folder.is_dir():
        raise RunError(f"'{folder}' does not exist", "run the recipe again; it trains what is missing")
    model, processor = teachers.load_student(job, teacher, folder)
    source = FrozenTeacher(model.to(models.device()), job.splits.labels, name="student")
    return evaluation.predict(source, job.encoded("validation", processor), job.task.collate(processor))


def used_temperature(job: Job) -> float | None:
    """The teacher's T of the recipe; of one that moves, the last that was logged in the first seed's training."""
    if isinstance(job.recipe.temperature, ConstantTemperature):
        return job.recipe.temperature.of_teacher
    mark = job.folder.mark(f"student-seed-{job.recipe.seeds[0]}")
    logged = [] if mark is None else [entry["temperature"] for entry in mark["result"]["log"] if "temperature" in entry]
    return float(logged[-1]) if logged else None


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


def _about_run(
    job: Job, metrics: dict[str, Any], tuning: dict[str, Any] | None, explanation: Explanation
) -> tuple[str, ...]:
    """What the run has shown, how its temperature was found, and what of it the figures below are about."""
    recipe: Recipe = job.recipe
    told = [verdict(metrics), *([] if tuning is None else tuning["verdict"]["sentences"])]
    told.append(
        f"What follows is measured on {explanation.rows:,} rows of the validation split, with the student of seed"
        f" {recipe.seeds[0]}."
    )
    temperature = recipe.temperature
    if not isinstance(temperature, ConstantTemperature):
        told.append(
            f"The policy {temperature.policy} has no one temperature; T = {explanation.temperature:.3g} is its mean"
            " over rows when it was last logged."
        )
    elif temperature.student is not None and temperature.student != temperature.teacher:
        told.append(
            f"The student's own temperature was {temperature.student:g}; the figures have the teacher's on both sides."
        )
    divergence = recipe.objective.divergence
    kind = make_objective(recipe).temperature.divergence if divergence is None else divergence.kind
    if kind not in ("forward_kl", "soft_cross_entropy"):
        told.append(f"The gradient is that of the forward KL, though the run's divergence is {kind}.")
    return tuple(told)
