"""Keeping a student fresh: drift measured, the student distilled on new data, and promoted if it is better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from setpoint import processes, teachers
from setpoint.errors import DataError, RunError
from setpoint.files import read_json, write_json
from setpoint.job import Job, open_job
from setpoint.recipe import Recipe
from setpoint.recipe_file import parse_recipe
from setpoint.run_folder import RunFolder, read_left
from setpoint.shipping.export import choose_seed
from setpoint.shipping.kept import Versions
from setpoint.shipping.new_data import INPUTS, read_new
from setpoint.shipping.refreshing import CHECK, HELD_OUT, Refreshing, student_name, tenth
from setpoint.targets.fingerprint import digest_dataset, digest_files, digest_json
from setpoint.targets.store import TargetStore

FEWEST = 50
"""New examples with which something can be said."""


def refresh(run: str | Path, data: str | Path, *, force: bool = False) -> dict[str, Any]:
    """Measure whether new data differ from a run's, and if so distil its student on them; promote it if it is better.

    Every part is done once and kept in ``RUN/refreshes``, so that the same command continues one that was stopped; on
    data that it has been through it gives the same result.

    Args:
        run: the folder of a finished run.
        data: new examples, labelled or not, in a file of the formats and columns of the run's recipe.
        force: distil though no drift is seen.

    Returns:
        what ``refresh.json`` in the refresh's folder holds: ``drift``, and where it was distilled ``temperature``,
        ``gate`` and ``promoted`` (the version's name, or None); ``sentences``.

    Raises:
        RunError: the folder holds no finished run, is in use, or its recipe has what refreshing does not know.
        DataError: the new data cannot be read, or are too few.
    """
    path = Path(run)
    read_left(path, "metrics.json")
    recipe = parse_recipe(read_left(path, "recipe.json"))
    _check_supported(recipe)
    with RunFolder(path) as folder:
        work = _open(open_job(recipe, folder), data)
        drift = work.stage("drift", work.drift)
        told = list(drift["sentences"])
        result: dict[str, Any] = {"drift": drift, "temperature": None, "gate": None, "promoted": None}
        if drift["drifted"] or force:
            _check_parts(work, data)
            temperature = work.stage("temperature", work.temperatures)
            told += temperature["sentences"]
            chosen = work.distil(temperature["candidates"])
            name = student_name(chosen)
            gate = work.stage("gate", lambda: work.gate(name), name=name)
            told += gate["sentences"]
            result |= {"temperature": chosen, "gate": gate}
            if gate["promote"]:
                result["promoted"] = work.promote(name)
        else:
            told.append("Nothing was distilled; --force does it all the same.")
        result["sentences"] = told
        write_json(work.folder.path / "refresh.json", result)
        finished: dict[str, Any] = read_json(work.folder.path / "refresh.json")
    return finished


def _check_supported(recipe: Recipe) -> None:
    if recipe.task not in INPUTS:
        raise RunError(f"the run is of {recipe.task}, which setpoint refresh does not know", "run the recipe anew")
    without = {
        "teacher.others": bool(recipe.teacher.others),
        "teacher.calibrate": recipe.teacher.calibrate,
        "objective.features": bool(recipe.objective.features),
        "data.augment": recipe.data.augment is not None,
        "data.rewrite": recipe.data.rewrite is not None,
        "targets.kind: live": recipe.targets.kind == "live",
    }
    for name, there in without.items():
        if there:
            raise RunError(f"the run's recipe has {name}, which setpoint refresh does not know", "run the recipe anew")
    if processes.together():
        raise RunError("setpoint refresh was started as several processes", "start it as one")


def _open(job: Job, data: str | Path) -> Refreshing:
    """What a refresh needs: the new data, the teacher, and the student that is to be bettered."""
    new = read_new(job, data)
    if len(new) < FEWEST:
        raise DataError(f"--data '{data}' has {len(new)} examples", f"give {FEWEST} or more")
    key = digest_json([digest_dataset(new.examples), sorted(new.unlabelled)])
    folder = RunFolder(job.path / "refreshes" / key[:16])
    folder.path.mkdir(parents=True, exist_ok=True)
    versions = Versions(job.path)
    base = _base(folder.path / "base.json", versions, key)
    seed, _ = choose_seed(job, None)
    student = job.path / f"student/seed-{seed}" if base is None else versions.folder(base)
    if not student.is_dir():
        raise RunError(f"'{student}' does not exist", "run the recipe again; it trains what is missing")
    teacher = teachers.load_teacher(job)
    try:
        targets = teachers.prepare_targets(job, teacher)
    except RunError as error:  # made from other data or another teacher: to start over is no way to refresh it
        raise RunError(error.problem, "give the run what it was made from, or run the recipe again") from None
    assert isinstance(targets, TargetStore)
    _, processor = teachers.load_student(job, teacher, student)
    origin = {"data": key, "student": list(digest_files(str(student)).values())}
    return Refreshing(job, folder, versions, base, student, seed, key, origin, teacher, targets, new, processor)


def _check_parts(work: Refreshing, data: str | Path) -> None:
    """Refuse data of which none could be kept for the gate, as they are all the same few examples."""
    there = {tenth(name) for name in work.new.examples["id"][:]}
    if not (there & {*HELD_OUT} and there & {*CHECK} and there - {*HELD_OUT, *CHECK}):
        raise DataError(f"--data '{data}' has too few examples that differ", "give more of them")


def _base(file: Path, versions: Versions, key: str) -> str | None:
    """The version that this refresh began from: the current one, unless that is what this refresh has promoted."""
    current = versions.current
    if file.exists():
        base: str | None = read_json(file)["base"]
        if current == base or (current is not None and versions.note(current)["refresh"] == key):
            return base
    write_json(file, {"base": current})
    return current
