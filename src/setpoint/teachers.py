"""The teachers of a run: loaded and frozen, run once into the store, calibrated and put together; and its students."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import ConcatDataset

from setpoint import evaluation, models
from setpoint.errors import DataError, FingerprintError, ModelError, SetpointWarning, TargetError
from setpoint.job import Job, check_length, make_objective
from setpoint.maths.calibration import calibration_error
from setpoint.maths.solving import CALIBRATION_RANGE, calibrate_temperature
from setpoint.maths.tempering import log_temper
from setpoint.recipe import ConfigModel, OtherTeacher, PretrainedModel, StudentRecipe, TeacherRecipe
from setpoint.recipe_values import Part
from setpoint.targets.combined import CalibratedTargets, TeacherEnsemble
from setpoint.targets.fingerprint import (
    Fingerprint,
    digest_files,
    digest_json,
    digest_model,
    digest_tokenizer,
)
from setpoint.targets.states import StoredStates
from setpoint.targets.store import TargetStore
from setpoint.targets.teacher import FrozenTeacher
from setpoint.tasks.base import label_rows
from setpoint.temperature import TemperaturePolicy
from setpoint.training import OBJECTIVE_FILE
from setpoint.transfer import confident
from setpoint.types import TargetSource

SAMPLE_ROWS = 20_000
"""Rows of teacher logits that stand for all: more would not move what is measured on them."""


MANY_BYTES, MOST_BYTES = 1e9, 20e9
"""A store of more is announced; of more than the second it is refused."""


@dataclass(frozen=True)
class Teacher:
    """A teacher, frozen, with its tokenizer and the folder its weights lie in; and those that teach beside it."""

    source: FrozenTeacher
    processor: Any
    folder: Path | None
    others: tuple[Teacher, ...] = ()


@dataclass(frozen=True)
class Calibration:
    """What held-out data say of one teacher.

    Attributes:
        temperature: what its logits are divided by: the T of least held-out loss, or 1.
        ece_before: its expected calibration error at T = 1.
        ece_after: the same at that temperature.
        nll: its held-out loss at that temperature, in nats a row.
        weight: its weight among the teachers.
    """

    temperature: float
    ece_before: float
    ece_after: float
    nll: float
    weight: float


def load_teacher(job: Job) -> Teacher:
    """The teachers, frozen, their classes in the order of the data's labels."""
    recipe = job.recipe.teacher
    spec = recipe.model
    if recipe.train is not None:
        spec = PretrainedModel(model=str(job.path / "teacher"))
        recipe = recipe.model_copy(update={"model": spec, "tokenizer": None, "labels": None})
    elif spec.kind == "config" and spec.weights is None:
        raise ModelError(
            "teacher.model is a bare config, which knows nothing yet",
            "say how to train it in teacher.train, or give its weights",
        )
    others = tuple(
        _load(job, PretrainedModel(model=other.model), other, f"teacher.others.{number}")
        for number, other in enumerate(recipe.others)
    )
    return replace(_load(job, spec, recipe, "teacher"), others=others)


def _load(job: Job, spec: PretrainedModel | ConfigModel, recipe: TeacherRecipe | OtherTeacher, who: str) -> Teacher:
    location = spec.model if spec.kind == "pretrained" else None
    model = models.load_model(spec, job.task.model_class(), job.splits.head, needs_head=True, field=f"{who}.model")
    if job.splits.head is not None:
        models.name_classes(model, recipe.labels, who)
    models.order_classes(model, job.splits.head, who)
    processor = load_tokenizer(job, location, recipe.tokenizer, who)
    check_length(job, model, processor, who)
    folder = Path(location) if location is not None and Path(location).is_dir() else None
    return Teacher(job.frozen(model, processor, who), processor, folder)


def load_tokenizer(job: Job, model: str | None, tokenizer: str | None, who: str) -> Any:
    """A teacher's tokenizer, its own or the one it was given; None for a task without text."""
    if not job.task.text:
        return None
    location = tokenizer or model
    if location is None:
        raise ModelError(f"{who}.model is a config without a tokenizer", f"set {who}.tokenizer")
    return models.load_tokenizer(location, f"{who}.model" if tokenizer is None else f"{who}.tokenizer")


def load_student(job: Job, teacher: Teacher, folder: Path) -> tuple[nn.Module, Any]:
    """A student that the run has saved in a folder, and its tokenizer."""
    model = models.load_model(PretrainedModel(model=str(folder)), job.task.model_class(), job.splits.head)
    student = job.recipe.student
    own_tokenizer = student.tokenizer is not None or student.pretrain is not None or cuts_vocabulary(student)
    return model, models.load_tokenizer(folder) if own_tokenizer else teacher.processor


def cuts_vocabulary(student: StudentRecipe) -> bool:
    """Whether a student keeps a part of its teacher's vocabulary, and so has a tokenizer of its own."""
    return student.model.kind == "shrunk" and student.model.vocabulary is not None


def trained_policy(job: Job, folder: Path, teacher_logits: Tensor) -> TemperaturePolicy | None:
    """The temperature policy as a student's training left it; None where its state was not kept.

    Args:
        job: whose recipe has the policy.
        folder: the student's.
        teacher_logits: some of the teacher's, ``[N, C]``, which a policy may have to be fitted to.
    """
    objective = make_objective(job.recipe)
    objective.temperature.fit(teacher_logits)
    state = folder / OBJECTIVE_FILE
    if objective.state_dict():
        if not state.exists():
            return None
        objective.load_state_dict(load_file(state))
    return objective.temperature.eval()


_TOGETHER = {"others", "calibrate", "combine", "weighting"}


def teacher_origin(job: Job) -> dict[str, Any]:
    """What decides which teacher a run has."""
    return job.data | origin_of("teacher", job.recipe.teacher, exclude=_TOGETHER)


def models_origin(job: Job) -> dict[str, Any]:
    """What decides which teachers and which untrained student a run has."""
    return teacher_origin(job) | _together(job) | _written(job) | origin_of("student", job.recipe.student)


def _together(job: Job) -> dict[str, Any]:
    """How several teachers are one, or one is calibrated; nothing where neither is."""
    recipe = job.recipe.teacher
    if not recipe.calibrate and not recipe.others:
        return {}
    return origin_of("teachers", recipe, include=_TOGETHER)


def targets_origin(job: Job) -> dict[str, Any]:
    """What decides what the first teacher makes of the data."""
    return teacher_origin(job) | _written(job)


def _written(job: Job) -> dict[str, Any]:
    """What the teacher has written for its students; nothing where it has not."""
    how = job.recipe.data.generate
    return {} if how is None else {"generate": how.model_dump(mode="json")}


def origin_of(who: str, recipe: Part, **options: Any) -> dict[str, Any]:
    """A model's recipe, and digests of the local files it names: a path may hold something else tomorrow."""
    fields = recipe.model_dump(mode="json", **options)
    return {who: fields, f"{who} files": digest_files(fields)}


# ---------------------------------------------------------------------------------------------------- targets


def prepare_targets(job: Job, teacher: Teacher, states: StoredStates | None = None) -> TargetSource:
    """The teachers' logits on training and validation data: stored once or live, calibrated, and put together.

    Args:
        job: the run's.
        teacher: the first, with the others.
        states: the first one's hidden states, where features read them from disk.
    """
    recipe = job.recipe.teacher
    sources = [_one_source(job, teacher, "targets", targets_origin(job))]
    if isinstance(sources[0], TargetStore):
        sources[0].states = states
    for number, (one, described) in enumerate(zip(teacher.others, recipe.others, strict=True), start=2):
        if job.recipe.targets.kind == "live" and digest_tokenizer(one.processor) != digest_tokenizer(teacher.processor):
            raise ModelError(
                f"targets.kind is live while teacher.others.{number - 2}.model has another tokenizer than the teacher",
                "set targets.kind to store, where rows are matched by word",
            )
        origin = job.data | origin_of(f"teacher {number}", described, exclude={"weight"})
        sources.append(_one_source(job, one, f"targets-{number}", origin))
    if not recipe.calibrate and not teacher.others:
        return sources[0]
    if job.task.extras or not (job.task.tempered and job.task.row_labels and job.task.aligned):
        raise ModelError(
            f"teacher.{'others' if teacher.others else 'calibrate'} is given for the task {job.recipe.task}, whose rows"
            " are more than classes with a label each",
            "remove it",
        )
    found = calibrations(job, teacher, sources)
    calibrated = [
        source if one.temperature == 1 else CalibratedTargets(source, one.temperature)
        for source, one in zip(sources, found, strict=True)
    ]
    if len(calibrated) == 1:
        return calibrated[0]
    weights = [one.weight for one in found]
    return TeacherEnsemble(calibrated, weights, recipe.combine, by_confidence=recipe.weighting == "confidence")


def calibrations(job: Job, teacher: Teacher, sources: Sequence[TargetSource]) -> list[Calibration]:
    """Measure each teacher on the validation data, once."""
    recipe = job.recipe.teacher

    def work() -> dict[str, Any]:
        records = []
        for one, source, own in zip(
            (teacher, *teacher.others), sources, (1.0, *(other.weight for other in recipe.others)), strict=True
        ):
            logits, labels = validation_logits(job, one, source)
            t = calibrate_temperature(logits, labels) if recipe.calibrate else 1.0
            if t in CALIBRATION_RANGE:  # no finite T is best: a teacher that is always right, or never
                warnings.warn(
                    f"the validation labels tell no temperature for {one.source.name}, right or wrong on all of them:"
                    " it is taken as it is, at T = 1",
                    SetpointWarning,
                    stacklevel=2,
                )
                t = 1.0
            nll = -float(log_temper(logits.double(), t).gather(-1, labels[:, None]).mean())
            quality = math.exp(-nll) if recipe.weighting == "quality" else 1.0
            before, after = (calibration_error(logits, labels, temperature) for temperature in (1.0, t))
            records.append(asdict(Calibration(t, before, after, nll, own * quality)))
        return {"teachers": records}

    origin = teacher_origin(job) | _together(job) | {"targets": job.recipe.targets.model_dump(mode="json")}
    return [Calibration(**record) for record in job.folder.stage("calibration", origin, work)["teachers"]]


def validation_logits(job: Job, teacher: Teacher, source: TargetSource) -> tuple[Tensor, Tensor]:
    """A teacher's logits on the validation rows, ``[N, C]``, and their labels, ``[N]``; of some, where all are many."""
    classes = len(teacher.source.labels)
    examples = evaluation.sample(job.encoded("validation", teacher.processor), classes)
    logits = np.concatenate(evaluation.predict(source, examples, job.task.collate(teacher.processor)))
    labels = np.concatenate(label_rows(examples))
    return torch.from_numpy(logits[:, :classes]), torch.from_numpy(labels)


def _one_source(job: Job, teacher: Teacher, name: str, origin: dict[str, Any]) -> TargetSource:
    recipe = job.recipe.targets
    if recipe.kind == "live":
        student = job.recipe.student
        if student.tokenizer is not None or (student.pretrain is not None and student.pretrain.new_tokenizer):
            raise ModelError(
                "targets.kind is live while student.tokenizer is not the teacher's",
                "set targets.kind to store, where rows are matched by word",
            )
        if cuts_vocabulary(student):
            raise ModelError(
                "targets.kind is live while student.model.vocabulary gives the student a tokenizer of its own",
                "set targets.kind to store, where rows are matched by word",
            )
        return teacher.source
    folder = job.path / name
    fingerprint = fingerprint_of(job, teacher)

    def work() -> None:
        parts: list[Any] = [job.training_data(teacher.processor, all_transfer=True)]
        parts.append(job.encoded("validation", teacher.processor))
        examples: Any = ConcatDataset(parts)
        check_size(job, teacher, len(examples))
        TargetStore.build(
            folder,
            teacher.source,
            examples,
            job.task.collate(teacher.processor),
            fingerprint,
            extras=job.task.extras,
            dtype=recipe.dtype,
            shard_examples=recipe.shard_examples,
            batch_size=recipe.batch_size,
        )

    return kept_store(job, name, origin | {"targets": recipe.model_dump(mode="json")}, work, folder, fingerprint)


def fingerprint_of(job: Job, teacher: Teacher, **more: Any) -> Fingerprint:
    """What a store of a teacher's answers is made from; ``more`` is JSON data that decides what is kept of them."""
    return Fingerprint(
        teacher=digest_model(teacher.source.model, teacher.source.labels),
        tokenizer=digest_tokenizer(teacher.processor),
        preprocessing=digest_json(job.task.preprocessing() | more),
        data=digest_json(job.data["data"]["content"] | _written(job)),
    )


def kept_store(
    job: Job,
    name: str,
    origin: dict[str, Any],
    work: Callable[[], None],
    folder: Path,
    fingerprint: Fingerprint,
    *,
    redo: bool = False,
) -> TargetStore:
    """The store that a stage builds, opened; what of it was lost or damaged since is built again."""
    job.folder.stage(name, origin, work, redo=redo)
    try:
        store = TargetStore.open(folder, fingerprint)
    except FingerprintError:
        raise
    except TargetError:  # what is whole is kept
        work()
        store = TargetStore.open(folder, fingerprint)
    store.first_rows = job.task.first_rows
    return store


def check_size(job: Job, teacher: Teacher, examples: int) -> None:
    """Say how large a store will be that is large, and refuse one that is too large: a vocabulary makes it so.

    Raises:
        TargetError: it would have more than ``MOST_BYTES``.
    """
    validation = job.encoded("validation", teacher.processor)
    rows = examples * sum(map(len, label_rows(validation))) / max(len(validation), 1)
    classes, each = len(teacher.source.labels) + job.task.extras, np.dtype(job.recipe.targets.dtype).itemsize
    size = rows * classes * each
    if size > MANY_BYTES:
        said = f"the target store has about {size / 1e9:.3g} GB, {rows:,.0f} rows of {classes:,} logits in {each} bytes"
        if size > MOST_BYTES:
            raise TargetError(f"{said}, and more than {MOST_BYTES / 1e9:g} are not made", "set targets.kind to live")
        warnings.warn(f"{said}; with targets.kind live there is none", SetpointWarning, stacklevel=2)


def choose_transfer(job: Job, teacher: Teacher, targets: TargetSource) -> Job:
    """The job with those unlabelled inputs alone that the teacher is sure enough of.

    Raises:
        DataError: it is sure of none.
    """
    recipe = job.recipe.data.transfer
    if recipe is None or recipe.min_confidence == 0:
        return job
    examples = job.encoded("transfer", teacher.processor)
    if job.recipe.data.augment is not None and job.recipe.data.views is not None:
        examples = [example | {"id": f"{example['id']}#0"} for example in examples]  # as its first view is stored
    kept = confident(evaluation.predict(targets, examples, job.task.collate(teacher.processor)), recipe.min_confidence)
    if not kept:
        raise DataError(
            f"the teacher gives no example of data.transfer a probability of {recipe.min_confidence:g} on average",
            "lower data.transfer.min_confidence",
        )
    return replace(job, kept=tuple(kept))


def teacher_logits(job: Job, teacher: Teacher, targets: TargetSource) -> Tensor:
    """Some of the targets' logits, ``[N, C]``: of all stored rows; where they are made anew, of the validation rows."""
    if isinstance(targets, TargetStore):
        return torch.from_numpy(targets.some_logits(SAMPLE_ROWS))
    rows, _ = validation_logits(job, teacher, targets)
    return rows[:: -(-len(rows) // SAMPLE_ROWS) or 1].clone()
