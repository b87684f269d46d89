"""The stages of a run, up to trained students. Each reads what those before it left; none reads the test split."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn
from torch.utils.data import ConcatDataset
from transformers import EarlyStoppingCallback, EvalPrediction, PrinterCallback, ProgressCallback, TrainerCallback

from setpoint import models, pretraining
from setpoint.arguments import training_arguments
from setpoint.checkpoints import MarkComplete, latest_checkpoint, stopped_early
from setpoint.errors import FingerprintError, ModelError, TargetError
from setpoint.hard import HardTargets
from setpoint.job import Job, check_length
from setpoint.objective import ALL_DIVERGENCES, DistillationObjective
from setpoint.progress import ProgressBar
from setpoint.recipe import PretrainedModel, Recipe, StudentRecipe, TeacherRecipe, TrainRecipe
from setpoint.targets.fingerprint import (
    Fingerprint,
    digest_files,
    digest_json,
    digest_model,
    digest_tokenizer,
)
from setpoint.targets.store import TargetStore
from setpoint.targets.teacher import FrozenTeacher
from setpoint.temperature import POLICIES
from setpoint.training import DistillationTrainer
from setpoint.types import IGNORED_LABEL, TargetSource

ModelRecipe = TypeVar("ModelRecipe", TeacherRecipe, StudentRecipe)


@dataclass(frozen=True)
class Teacher:
    """The teacher, frozen, with its tokenizer and the folder its weights lie in."""

    source: FrozenTeacher
    processor: Any
    folder: Path | None


# ---------------------------------------------------------------------------------------------------- teacher


def train_teacher(job: Job) -> None:
    """Fine-tune the teacher on the task, where the recipe says so; else take it as it is."""
    recipe = pretrained(job, "teacher", job.recipe.teacher, None)

    def work() -> dict[str, Any]:
        if recipe.train is None:
            return {}
        processor = _tokenizer(job, recipe)
        model = models.load_model(
            recipe.model, job.task.model_class(), job.splits.labels, processor, field="teacher.model"
        )
        models.order_classes(model, job.splits.labels, "teacher")
        check_length(job, model, processor, "teacher")
        return fit(job, model, processor, recipe.train, DistillationObjective(alpha=0.0), None, 0, "teacher")

    output = None if recipe.train is None else job.path / "teacher"
    job.folder.stage("teacher", _teacher_origin(job), work, redo=False, output=output, scratch=job.scratch("teacher"))


def pretrained(job: Job, who: str, recipe: ModelRecipe, tokenizer: Any) -> ModelRecipe:
    """A model's recipe with its pre-training, where it has one, done and its result in the model's place."""
    how, spec = recipe.pretrain, recipe.model
    if how is None:
        return recipe
    if spec.kind == "layers":
        raise ModelError(f"{who}.pretrain is given for layers of a trained teacher", "remove it, or describe a config")
    folder = job.path / f"{who}-pretrained"
    scratch = job.scratch(folder.name)

    def work() -> dict[str, Any]:
        own = recipe.tokenizer or (spec.model if spec.kind == "pretrained" else None)
        if how.new_tokenizer or (own is None and tokenizer is None):
            texts = pretraining.read_texts(how.text)
            chosen = pretraining.train_tokenizer(texts, how.vocab_size, job.recipe.data.max_length)
        else:
            chosen = tokenizer if own is None else models.load_tokenizer(own, f"{who}.tokenizer")
        return {"log": pretraining.pretrain(spec, chosen, how, folder, scratch)}

    origin = job.data | _origin(who, recipe, exclude={"train"})
    job.folder.stage(folder.name, origin, work, output=folder, scratch=scratch)
    return recipe.model_copy(
        update={"model": PretrainedModel(model=str(folder)), "tokenizer": str(folder), "pretrain": None}
    )


def load_teacher(job: Job) -> Teacher:
    """The teacher, frozen, its classes in the order of the data's labels."""
    recipe = job.recipe.teacher
    spec = recipe.model
    if recipe.train is not None:
        spec = PretrainedModel(model=str(job.path / "teacher"))
        recipe = recipe.model_copy(update={"model": spec, "tokenizer": None, "labels": None})
    elif spec.kind == "config":
        raise ModelError(
            "teacher.model is a bare config, which knows nothing yet", "say how to train it in teacher.train"
        )
    folder = Path(spec.model)
    model = models.load_model(spec, job.task.model_class(), job.splits.labels, needs_head=True, field="teacher.model")
    models.name_classes(model, recipe.labels, "teacher")
    models.order_classes(model, job.splits.labels, "teacher")
    processor = _tokenizer(job, recipe)
    check_length(job, model, processor, "teacher")
    source = FrozenTeacher(model.to(models.device()), job.splits.labels)
    return Teacher(source, processor, folder if folder.is_dir() else None)


def _tokenizer(job: Job, recipe: TeacherRecipe) -> Any:
    if not job.task.text:
        return None
    location = recipe.tokenizer or (recipe.model.model if recipe.model.kind == "pretrained" else None)
    if location is None:
        raise ModelError("teacher.model is a config without a tokenizer", "set teacher.tokenizer")
    return models.load_tokenizer(location, "teacher.model" if recipe.tokenizer is None else "teacher.tokenizer")


def _teacher_origin(job: Job) -> dict[str, Any]:
    return job.data | _origin("teacher", job.recipe.teacher)


def models_origin(job: Job) -> dict[str, Any]:
    """What decides which teacher and which untrained student a run has."""
    return _teacher_origin(job) | _origin("student", job.recipe.student)


def _origin(who: str, recipe: TeacherRecipe | StudentRecipe, **options: Any) -> dict[str, Any]:
    """A model's recipe, and digests of the local files it names: a path may hold something else tomorrow."""
    fields = recipe.model_dump(mode="json", **options)
    return {who: fields, f"{who} files": digest_files(fields)}


# ---------------------------------------------------------------------------------------------------- targets


def prepare_targets(job: Job, teacher: Teacher) -> TargetSource:
    """The teacher's logits on training and validation data: computed once into the store, or live."""
    recipe = job.recipe.targets
    if recipe.kind == "live":
        student = job.recipe.student
        if student.tokenizer is not None or (student.pretrain is not None and student.pretrain.new_tokenizer):
            raise ModelError(
                "targets.kind is live while student.tokenizer is not the teacher's",
                "set targets.kind to store, where rows are matched by word",
            )
        return teacher.source
    folder = job.path / "targets"
    fingerprint = Fingerprint(
        teacher=digest_model(teacher.source.model, teacher.source.labels),
        tokenizer=digest_tokenizer(teacher.processor),
        preprocessing=digest_json(job.task.preprocessing()),
        data=digest_json(job.data["data"]["content"]),
    )

    def work() -> None:
        TargetStore.build(
            folder,
            teacher.source,
            ConcatDataset([job.training_data(teacher.processor), job.encoded("validation", teacher.processor)]),  # type: ignore[list-item]
            job.task.collate(teacher.processor),
            fingerprint,
            dtype=recipe.dtype,
            shard_examples=recipe.shard_examples,
            batch_size=recipe.batch_size,
        )

    origin = _teacher_origin(job) | {"targets": recipe.model_dump(mode="json")}
    job.folder.stage("targets", origin, work, redo=False)
    try:
        return TargetStore.open(folder, fingerprint)
    except FingerprintError:
        raise
    except TargetError:  # lost or damaged since: what is whole is kept
        work()
        return TargetStore.open(folder, fingerprint)


# ---------------------------------------------------------------------------------------------------- students


def build_student(job: Job, teacher: Teacher, seed: int) -> tuple[nn.Module, Any]:
    """An untrained student and its tokenizer."""
    recipe = pretrained(job, "student", job.recipe.student, teacher.processor)
    processor = (
        teacher.processor if recipe.tokenizer is None else models.load_tokenizer(recipe.tokenizer, "student.tokenizer")
    )
    model = models.build_student(
        recipe, teacher.source.model, job.task.model_class(), job.splits.labels, processor, seed=seed
    )
    check_length(job, model, processor, "student")
    return model, processor


def make_objective(recipe: Recipe) -> DistillationObjective:
    """The objective a recipe describes."""
    temperature = recipe.temperature.model_dump(exclude={"policy"}, exclude_none=True)
    wanted, divergence = recipe.objective.divergence, None
    if wanted is not None:
        divergence = partial(ALL_DIVERGENCES[wanted.kind], **wanted.model_dump(exclude={"kind"}))
    return DistillationObjective(
        temperature=POLICIES[recipe.temperature.policy](**temperature),
        divergence=divergence,
        alpha=recipe.objective.alpha,
        hard=HardTargets(**recipe.objective.hard.model_dump()),
        wrong_teacher=recipe.objective.wrong_teacher,
    )


def train_student(job: Job, teacher: Teacher, targets: TargetSource | None, seed: int, name: str) -> None:
    """Train one student into the folder ``name``: on the teacher's targets, or on labels alone where there are none."""
    recipe = job.recipe
    origin = models_origin(job) | recipe.model_dump(mode="json", include={"train"}) | {"seed": seed}
    if targets is not None:
        origin |= recipe.model_dump(mode="json", include={"temperature", "objective", "targets"})

    def work() -> dict[str, Any]:
        model, processor = build_student(job, teacher, seed)
        objective = DistillationObjective(alpha=0.0) if targets is None else make_objective(recipe)
        return fit(job, model, processor, recipe.train, objective, targets, seed, name)

    job.folder.stage(name.replace("/", "-"), origin, work, output=job.path / name, scratch=job.scratch(name))


def fit(
    job: Job,
    model: nn.Module,
    processor: Any,
    train: TrainRecipe,
    objective: DistillationObjective,
    targets: TargetSource | None,
    seed: int,
    name: str,
) -> dict[str, Any]:
    """Train a model, from its newest whole checkpoint if there is one, and leave it in the folder ``name``."""
    work = job.scratch(name)
    args = training_arguments(train, work, seed, metric=job.task.metric)
    callbacks: list[TrainerCallback] = [MarkComplete(), ProgressBar(name)]
    if train.early_stopping is not None:
        callbacks.append(EarlyStoppingCallback(train.early_stopping))
    trainer = DistillationTrainer(
        model=model,
        args=args,
        objective=objective,
        targets=targets,
        train_dataset=job.training_data(processor),
        eval_dataset=job.encoded("validation", processor),
        data_collator=job.task.collate(processor),
        compute_metrics=_headline(job),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    checkpoint = latest_checkpoint(work)
    ended = (
        None if checkpoint is None or train.early_stopping is None else stopped_early(checkpoint, train.early_stopping)
    )
    if ended is None:
        trainer.train(resume_from_checkpoint=checkpoint)
    else:  # killed after its last epoch: what is left to do is what the Trainer does at the end
        trainer.state = ended
        trainer._load_best_model()
    models.save_model(trainer.model, processor, job.path / name)
    if (work / "runs").is_dir():  # TensorBoard's, the one tracker that writes beside the checkpoints
        shutil.copytree(work / "runs", job.path / "logs" / name, dirs_exist_ok=True)
    return {"log": trainer.state.log_history}


def _headline(job: Job) -> Callable[[EvalPrediction], dict[str, float]]:
    """The task's scalar scores, from what the Trainer gathers: padded logits and labels."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        valid = prediction.label_ids != IGNORED_LABEL
        logits = [
            row[mask] if mask.ndim else row[None] for row, mask in zip(prediction.predictions, valid, strict=True)
        ]
        labels = [np.atleast_1d(row[mask]) for row, mask in zip(prediction.label_ids, valid, strict=True)]
        scores = job.task.metrics(logits, labels, job.splits.labels)
        return {name: value for name, value in scores.items() if isinstance(value, float)}

    return compute
