"""The last stage but the report: every model measured on the test split, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from setpoint import evaluation
from setpoint.evaluation import Outputs
from setpoint.files import read_json, write_json
from setpoint.job import Job
from setpoint.maths.stats import paired_interval
from setpoint.recipe_file import describe_temperature
from setpoint.stages import build_student
from setpoint.teachers import Teacher, load_student, models_origin


def measure(job: Job, model: nn.Module, processor: Any, folder: Path | None, teacher: Outputs | None) -> dict[str, Any]:
    """The record of a student on the test split."""
    data, collate = job.encoded("test", processor), job.task.collate(processor)
    source = job.frozen(model, processor, "student")
    return evaluation.evaluate(source, folder, job.task, data, collate, teacher=teacher)


def measure_teacher(job: Job, teacher: Teacher) -> tuple[dict[str, Any], Outputs]:
    """The record of the teacher on the test split, and what it says there, to measure agreement with."""
    data, collate = job.encoded("test", teacher.processor), job.task.collate(teacher.processor)
    said = evaluation.outputs_of(teacher.source, job.task, data, collate)
    return evaluation.evaluate(teacher.source, teacher.folder, job.task, data, collate, outputs=said), said


def measure_saved(job: Job, teacher: Teacher, name: str, said: Outputs) -> dict[str, Any]:
    """The record of a student that was trained into the folder ``name``."""
    folder = job.path / name
    model, processor = load_student(job, teacher, folder)
    return measure(job, model, processor, folder, said)


def evaluate(job: Job, teacher: Teacher, tuning: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Measure teacher, untrained student, hard-label students and distilled students on the test split, once.

    What a search for the temperature has found, where there was one, is quoted in the summary.
    """
    recipe = job.recipe

    def work() -> dict[str, Any]:
        teacher_record, said = measure_teacher(job, teacher)
        untrained, processor = build_student(job, teacher, recipe.seeds[0])
        results = {
            "teacher": teacher_record,
            "student_initial": measure(job, untrained, processor, None, said),
        }
        for kind in ("student_hard", "student") if recipe.hard_baseline else ("student",):
            results[kind] = over_seeds(
                {str(seed): measure_saved(job, teacher, f"{kind}/seed-{seed}", said) for seed in recipe.seeds}
            )
        return results

    origin = recipe.model_dump(mode="json", exclude={"name", "data", "teacher", "student"})
    origin |= models_origin(job) | {"test": job.test}
    results = job.folder.stage("evaluation", origin, work)
    measured = recipe.teacher.calibrate or recipe.teacher.others
    calibration = job.folder.mark("calibration") if measured else None
    summary = {
        "name": recipe.name,
        "task": recipe.task,
        "metric": job.task.metric,
        **({"beside": list(job.task.beside)} if job.task.beside else {}),
        "temperature": describe_temperature(recipe) if job.task.tempered else "no temperature",
        **({} if not job.transfer else {"transfer": _transferred(job)}),
        **({} if calibration is None else calibration["result"]),
        **({} if tuning is None else {"tuning": _told(tuning)}),
        **results,
        "gain": gain(results, job.task.metric),
    }
    write_json(
        job.path / "recipe.json", recipe.model_dump(mode="json", exclude=None if job.task.tempered else {"temperature"})
    )
    write_json(job.path / "metrics.json", summary)
    finite: dict[str, Any] = read_json(job.path / "metrics.json")
    return finite


def _transferred(job: Job) -> dict[str, int]:
    """How many unlabelled inputs there were, and how many were learnt from."""
    return {"examples": len(job.transfer), "used": len(job.transfer if job.kept is None else job.kept)}


def _told(tuning: Mapping[str, Any]) -> dict[str, Any]:
    """What the summary quotes of a search: its sentences, and how students were trained together, where they were."""
    return {"sentences": list(tuning["verdict"]["sentences"]), "how": tuning["how"]}


def over_seeds(by_seed: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One record for several seeds: numbers are means, nested tables likewise; each seed's own is kept."""

    def mean(values: list[Any]) -> Any:
        if isinstance(values[0], Mapping):
            # An entity type that only some seeds predict has a row in theirs alone.
            keys = dict.fromkeys(key for value in values for key in value)
            return {key: mean([value[key] for value in values if key in value]) for key in keys}
        if all(value == values[0] for value in values):
            return values[0]  # counts and sizes stay the integers they are
        return sum(values) / len(values)

    return {**mean(list(by_seed.values())), "seeds": dict(by_seed)}


def gain(results: Mapping[str, Any], metric: str) -> dict[str, Any] | None:
    """What distilling gained over hard labels in the headline metric, paired by seed, with its 95 % interval."""
    if "student_hard" not in results:
        return None
    scores = [
        [record["metrics"][metric] for record in results[name]["seeds"].values()]
        for name in ("student", "student_hard")
    ]
    distilled, hard = scores
    return asdict(paired_interval(distilled, hard))
