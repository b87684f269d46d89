"""The straight line: recipe to run folder, stage by stage, each done once and resumable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from setpoint import pretraining, processes, results, stages, teachers
from setpoint.insight.explain_run import write_pages
from setpoint.job import Job, open_job
from setpoint.recipe import Recipe
from setpoint.recipe_file import load_recipe
from setpoint.recipe_tune import TuneRecipe
from setpoint.rewriting import with_rewritten
from setpoint.run_folder import RunFolder
from setpoint.stored_states import store_states, tell_cost
from setpoint.teachers import Teacher
from setpoint.tuning.checks import check_search
from setpoint.tuning.outcome import Outcome
from setpoint.tuning.search import find
from setpoint.types import TargetSource


def run(recipe: Recipe | str | Path, folder: str | Path | None = None, *, fresh: bool = False) -> dict[str, Any]:
    """Distil: teacher, targets, temperature, students, evaluation, report.

    Args:
        recipe: a recipe, or the path of one. With a ``tune`` section the temperature is found first.
        folder: the run folder, ``runs/NAME`` unless given. Running again continues where the run stopped.
        fresh: start over, forgetting what the folder holds.

    Returns:
        what ``metrics.json`` in the run folder holds.

    Raises:
        SetpointError: one sentence on what is wrong and what mends it.
    """
    recipe = _read(recipe)
    path = Path(folder or Path("runs") / recipe.name)
    if not processes.leads():
        followed: dict[str, Any] = _follow(recipe, path)
        return followed
    with RunFolder(path) as run_folder:
        job, teacher, targets = _prepare(recipe, run_folder, fresh)
        tuning = None
        if recipe.tune is not None:
            found = find(job, teacher, targets)
            tuning, recipe = found.as_json(), found.recipe
            job = replace(job, recipe=recipe)
        for seed in recipe.seeds:
            if recipe.hard_baseline:
                stages.train_student(job, teacher, None, seed, f"student_hard/seed-{seed}")
            stages.train_student(job, teacher, targets, seed, f"student/seed-{seed}")
        summary = results.evaluate(job, teacher, tuning)
        write_pages(job, teacher, targets, summary, tuning)
    processes.call("done", result=summary)
    return summary


def tune(recipe: Recipe | str | Path, folder: str | Path | None = None, *, fresh: bool = False) -> Outcome:
    """Find the temperature for a recipe, and write what was found as a recipe that needs no search.

    Several processes with the same recipe share the work, each called like this: on one folder, or on folders of their
    own with one ``tune.storage``.

    Args:
        recipe: a recipe, or the path of one. Without a ``tune`` section the usual is searched.
        folder: the run folder, ``runs/NAME`` unless given. Tuning again continues where it stopped.
        fresh: start over, forgetting what the folder holds.

    Raises:
        SetpointError: one sentence on what is wrong and what mends it.
    """
    recipe = _read(recipe)
    if recipe.tune is None:
        recipe = recipe.model_copy(update={"tune": TuneRecipe()})
    path = Path(folder or Path("runs") / recipe.name)
    if not processes.leads():
        followed: Outcome = _follow(recipe, path)
        return followed
    with RunFolder(path, wait=True) as run_folder:
        outcome = find(*_prepare(recipe, run_folder, fresh))
    processes.call("done", result=outcome)
    return outcome


def _follow(recipe: Recipe, path: Path) -> Any:
    """What the other processes of a torchrun do: train with the first, to which all the rest is left; its result."""
    job = open_job(recipe, RunFolder(path))
    teacher: Teacher | None = None
    for kind, given in processes.calls():
        if kind == "done":
            return given["result"]
        if kind == "teacher":
            stages.advance_teacher(job, **given)
        elif kind == "pretrain":
            pretraining.pretrain(**given)
        else:
            if teacher is None:  # by now the first has made both
                job = with_rewritten(job)
                teacher = teachers.load_teacher(job)
                targets = teachers.prepare_targets(job, teacher, store_states(job, teacher))
                job = teachers.choose_transfer(job, teacher, targets)
            one, distilled = replace(job, recipe=given.pop("recipe")), given.pop("distilled")
            stages.advance_student(one, teacher, targets if distilled else None, title="", **given)
    raise AssertionError("calls end with done")


def _read(recipe: Recipe | str | Path) -> Recipe:
    return recipe if isinstance(recipe, Recipe) else load_recipe(recipe)


def _prepare(recipe: Recipe, run_folder: RunFolder, fresh: bool) -> tuple[Job, Teacher, TargetSource]:
    """What students learn from: the data, the teacher, and its targets."""
    job = open_job(recipe, run_folder)
    check_search(job)
    if fresh:
        run_folder.clear()
    job = with_rewritten(job)
    tell_cost(job)
    stages.train_teacher(job)
    teacher = teachers.load_teacher(job)
    stages.shrunk(job, recipe.student, teacher)
    stages.generate(job, teacher)
    targets = teachers.prepare_targets(job, teacher, store_states(job, teacher))
    return teachers.choose_transfer(job, teacher, targets), teacher, targets
