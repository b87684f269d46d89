"""Why a run's temperature: its recipe, its targets, its student and its log, on its validation data; and its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from setpoint import teachers
from setpoint.errors import RunError
from setpoint.files import write_atomic
from setpoint.insight.by_row import by_type
from setpoint.insight.explain import explain_rows
from setpoint.insight.explaining_run import about_distribution, about_overfit, about_training, about_types
from setpoint.insight.explanation import Explanation, Section
from setpoint.insight.history import history, points
from setpoint.insight.markdown import write_markdown
from setpoint.insight.overfitting import overfit
from setpoint.insight.page import Page, Trained, detail_part, explanation_parts, result_parts, training_plots
from setpoint.insight.report import write_report
from setpoint.insight.rows import CountedRows
from setpoint.insight.run_rows import first_pair, training_rows, validation_rows
from setpoint.insight.samples import sample_parts
from setpoint.insight.slides import slides
from setpoint.insight.summary import verdict
from setpoint.job import Job, make_objective, open_job
from setpoint.recipe_file import parse_recipe, recipe_to_yaml
from setpoint.recipe_images import mixes
from setpoint.recipe_temperature import ConstantTemperature
from setpoint.rewriting import with_rewritten
from setpoint.run_folder import RunFolder, read_left
from setpoint.teachers import Teacher
from setpoint.temperature import TemperaturePolicy
from setpoint.types import TargetSource

TRAINING = "Training"


def explain_run(folder: str | Path) -> Explanation:
    """Explain a finished run's temperature, and write it to ``report.html`` and ``report.md`` in the run folder.

    Everything is measured on the validation split, with the run's targets and the distilled student of its first seed,
    and on some training examples beside it. The test split's figures are those the run has left in ``metrics.json``.

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
        if not job.task.tempered:
            raise RunError(f"'{path}' is a run of {recipe.task}, which has no temperature", "read its report.html")
        job = with_rewritten(job)
        teacher = teachers.load_teacher(job)
        try:
            targets = teachers.prepare_targets(job, teacher)
        except RunError as error:  # made from other data or another teacher: to start over is no way to explain it
            raise RunError(error.problem, "give the run what it was made from, or run the recipe again") from None
        explanation = write_pages(job, teacher, targets, found["metrics.json"], tuning)
        assert explanation is not None
        return explanation


def write_pages(
    job: Job, teacher: Teacher, targets: TargetSource, metrics: Mapping[str, Any], tuning: Mapping[str, Any] | None
) -> Explanation | None:
    """Measure a run whose students are trained, and write ``report.html`` and ``report.md`` into its folder.

    Args:
        job: the run.
        teacher: its teacher.
        targets: what its students learnt from.
        metrics: what ``metrics.json`` holds.
        tuning: what ``tuning.json`` holds, where the temperature was searched.

    Returns:
        The explanation; None where nothing is tempered.
    """
    if not job.task.tempered:
        _write_results(job, teacher, metrics)
        return None
    pair = first_pair(job, teacher, targets)
    rows, types = validation_rows(pair)
    found = explain_rows(rows, used_temperature(job), job.recipe.objective.alpha)
    found = replace(found, by_type=by_type(rows, found.temperature, types))
    # A mixed example has no label that it could have learnt too well.
    if rows.labels is not None and rows.student_logits is not None and not mixes(job.recipe.data.augment):
        found = replace(found, overfit=overfit(found, rows, *training_rows(pair)))
    trained = _trained(job, rows)
    measured = about_measuring(job, found)
    told = {
        "The run": [verdict(metrics), *([] if tuning is None else tuning["verdict"]["sentences"]), *measured],
        **{section.title: section.sentences for section in found.sections if section.title != "Examples"},
        "Types of rows": about_types(found.by_type),
        "Training rows and others": about_overfit(found),
        TRAINING: about_training(trained.history, trained.curves.get("student", {}))
        + about_distribution(trained.temperatures),
        **{section.title: section.sentences for section in found.sections if section.title == "Examples"},
    }
    found = replace(found, sections=tuple(Section(title, tuple(said)) for title, said in told.items() if said))
    recipe = job.recipe
    write_markdown(job.path / "report.md", f"{recipe.name}: why this temperature", found)
    page = Page(
        title=recipe.name,
        about=f"Setpoint · {recipe.task} · {metrics['temperature']}",
        verdict=verdict(metrics),
        found=found,
        classes=teacher.source.labels,
        slides=slides(rows, found),
        note=measured,
        first=[*result_parts(metrics, tuning), *sample_parts(job, teacher)],
        rest=[
            *explanation_parts(found, {TRAINING: training_plots(trained)}),
            detail_part(metrics, recipe_to_yaml(recipe), job.folder.seconds()),
        ],
    )
    write_report(job.path / "report.html", page)
    return found


def _write_results(job: Job, teacher: Teacher, metrics: Mapping[str, Any]) -> None:
    """The page of a run whose outputs are numbers: its results alone."""
    recipe, said = job.recipe, verdict(metrics)
    write_atomic(job.path / "report.md", f"# {recipe.name}\n\n{said}\n")
    page = Page(
        title=recipe.name,
        about=f"Setpoint · {recipe.task}",
        verdict=said,
        found=None,
        classes=(),
        slides=(),
        first=[*result_parts(metrics, None), *sample_parts(job, teacher)],
        rest=[detail_part(metrics, recipe_to_yaml(recipe), job.folder.seconds())],
    )
    write_report(job.path / "report.html", page)


def _trained(job: Job, rows: CountedRows) -> Trained:
    """What the run's folder has of its trainings, and what the first seed's policy makes of the validation rows."""
    logs: dict[str, dict[int, Sequence[Mapping[str, Any]]]] = {}
    for kind in ("student_hard", "student"):
        for seed in job.recipe.seeds:
            mark = job.folder.mark(f"{kind}-seed-{seed}")
            if mark is not None:
                logs.setdefault(kind, {})[seed] = mark["result"]["log"]
    curves = {kind: {seed: points(log, "loss") for seed, log in by_seed.items()} for kind, by_seed in logs.items()}
    folder = job.path / f"student/seed-{job.recipe.seeds[0]}"
    policy = teachers.trained_policy(job, folder, rows.teacher_logits)
    temperatures = [] if policy is None else spread(policy, rows)
    return Trained(curves, history(logs.get("student", {})), temperatures)


@torch.no_grad()
def spread(policy: TemperaturePolicy, rows: CountedRows) -> list[float]:
    """The temperature of each row at the end of the training; none where all rows have one, or the classes their own.

    Examples:
        >>> from setpoint.temperature import Constant, FocalTemperature
        >>> rows = CountedRows(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), "ab", "01")
        >>> spread(FocalTemperature(2.0), rows), spread(Constant(2.0), rows)
        ([2.0, 2.0], [])
    """
    if rows.student_logits is None:
        return []
    found = policy(rows.teacher_logits, rows.student_logits, rows.labels, 1.0).teacher
    return found.flatten().tolist() if found.shape == (len(rows.teacher_logits), 1) and len(found) > 1 else []


def used_temperature(job: Job) -> float | None:
    """The teacher's T of the recipe; of one that moves, the last that was logged in the first seed's training."""
    if isinstance(job.recipe.temperature, ConstantTemperature):
        return job.recipe.temperature.of_teacher
    mark = job.folder.mark(f"student-seed-{job.recipe.seeds[0]}")
    logged = [] if mark is None else [entry["temperature"] for entry in mark["result"]["log"] if "temperature" in entry]
    return float(logged[-1]) if logged else None


def about_measuring(job: Job, found: Explanation) -> list[str]:
    """What was measured, and what of the run the figures are about."""
    recipe, temperature = job.recipe, job.recipe.temperature
    told = [
        f"What follows is measured on {found.rows:,} rows of the validation split, with the student of seed"
        f" {recipe.seeds[0]}."
    ]
    if not isinstance(temperature, ConstantTemperature):
        told.append(
            f"The policy {temperature.policy} has no one temperature; T = {found.temperature:.3g} is its mean"
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
    return told
