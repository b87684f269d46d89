"""What the models of a run make when they are asked for something, side by side."""

from __future__ import annotations

from setpoint import teachers
from setpoint.insight.page import Part
from setpoint.insight.summary import ROWS
from setpoint.job import Job
from setpoint.teachers import Teacher


def sample_parts(job: Job, teacher: Teacher) -> list[Part]:
    """A part with what teacher and students of the first seed make; none where the task has nothing to show."""
    seed = job.recipe.seeds[0]
    shown = {ROWS["teacher"]: job.task.samples(teacher.source, teacher.processor, seed)}
    if not shown[ROWS["teacher"]]:
        return []
    for kind in ("student_hard", "student"):
        folder = job.path / f"{kind}/seed-{seed}"
        if folder.is_dir():
            model, processor = teachers.load_student(job, teacher, folder)
            shown[ROWS[kind]] = job.task.samples(job.frozen(model, processor, "student"), processor, seed)
    return [Part("Samples", ["Drawn at random from each model, from the same seed; none was picked."], samples=shown)]
