"""The straight line: recipe to run folder, stage by stage, each done once and resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from setpoint import results, stages, teachers
from setpoint.job import open_job
from setpoint.recipe import Recipe
from setpoint.recipe_file import load_recipe
from setpoint.run_folder import RunFolder


def run(recipe: Recipe | str | Path, folder: str | Path | None = None, *, fresh: bool = False) -> dict[str, Any]:
    """Distil: teacher, targets, students, evaluation, report.

    Args:
        recipe: a recipe, or the path of one.
        folder: the run folder, ``runs/NAME`` unless given. Running again continues where the run stopped.
        fresh: start over, forgetting what the folder holds.

    Returns:
        what ``metrics.json`` in the run folder holds.

    Raises:
        SetpointError: one sentence on what is wrong and what mends it.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    with RunFolder(folder or Path("runs") / recipe.name) as run_folder:
        job = open_job(recipe, run_folder)
        if fresh:
            run_folder.clear()
        stages.train_teacher(job)
        teacher = teachers.load_teacher(job)
        targets = teachers.prepare_targets(job, teacher)
        for seed in recipe.seeds:
            if recipe.hard_baseline:
                stages.train_student(job, teacher, None, seed, f"student_hard/seed-{seed}")
            stages.train_student(job, teacher, targets, seed, f"student/seed-{seed}")
        summary = results.evaluate(job, teacher)
        results.report(job, teacher, summary, targets)
        return summary
