"""The stages of a run. Each reads what the ones before it left in the run folder; none reads the test split but the last."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import ConcatDataset
from transformers import EarlyStoppingCallback, EvalPrediction, PreTrainedModel

from setpoint import evaluation, models
from setpoint.arguments import training_arguments
from setpoint.checkpoints import MarkComplete, latest_checkpoint
from setpoint.errors import ModelError
from setpoint.files import write_json
from setpoint.maths.stats import mean_interval, paired_interval
from setpoint.objective import DistillationObjective, HardTargets
from setpoint.recipe import ConstantTemperature, Recipe, StepTemperature, TrainRecipe
from setpoint.run_folder import RunFolder
from setpoint.targets.fingerprint import Fingerprint, digest_dataset
from setpoint.targets.store import TargetStore
from setpoint.targets.teacher import FrozenTeacher, match_classes
from setpoint.targets.views import RandomViews, SeededViews
from setpoint.tasks import make_task
from setpoint.tasks.base import Splits, Task
from setpoint.temperature import POLICIES, TemperaturePolicy
from setpoint.training import DistillationTrainer
from setpoint.types import IGNORED_LABEL, TargetSource


@dataclass(frozen=True)
class Job:
    """What every stage needs: the recipe, its folder, and the data, read and checked."""

    recipe: Recipe
    folder: RunFolder
    task: Task
    splits: Splits
    made_from: dict[str, Any]
    _encoded: dict[tuple[str, int], Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    def encoded(self, split: str, processor: Any) -> Dataset:
        """A split as model inputs, encoded once for each tokenizer."""
        key = (split, id(processor))
        if key not in self._encoded:
            raw = getattr(self.splits, split)
            self._encoded[key] = self.task.encode(raw, self.splits.labels, processor)
        return self._encoded[key]

    def training_data(self, processor: Any) -> Any:
        """The training split as model inputs, with its augmentation where the recipe has one."""
        examples = self.encoded("train", processor)
        augment = self.recipe.data.augment
        if augment is None:
            return examples
        if augment.views is None:
            return RandomViews(examples, self.task.augment)
        return SeededViews(examples, self.task.augment, augment.views, seed=0)


@dataclass(frozen=True)
class Teacher:
    """The teacher, frozen, with its tokenizer and the folder its weights are in."""

    source: FrozenTeacher
    processor: Any
    folder: Path | None


def open_job(recipe: Recipe, folder: RunFolder) -> Job:
    """Read and check the data; nothing is trained or written yet."""
    task = make_task(recipe.task, recipe.data)
    splits = task.load()
    made_from = {
        "task": recipe.task,
        "data": recipe.data.model_dump(mode="json", exclude={"dataset", "train", "validation", "test"}),
        "content": [digest_dataset(split) for split in (splits.train, splits.validation, splits.test)],
    }
    write_text = recipe.model_dump(mode="json")
    write_json(folder.path / "recipe.json", write_text)
    return Job(recipe, folder, task, splits, made_from)


# ---------------------------------------------------------------------------------------------------- teacher


def _teacher_made_from(job: Job) -> dict[str, Any]:
    return job.made_from | {"teacher": job.recipe.teacher.model_dump(mode="json")}


def train_teacher(job: Job) -> None:
    """Fine-tune the teacher on the task, where the recipe says so; else take it as it is."""
    recipe = job.recipe.teacher

    def work() -> None:
        if recipe.train is None:
            return
        model, processor = models.load_for_task(recipe, job.task, job.splits.labels, job.path / "teacher-pretrained")
        objective = DistillationObjective(alpha=0.0)
        fit(job, model, processor, recipe.train, objective, None, seed=0, name="teacher")

    job.folder.stage("teacher", _teacher_made_from(job), work, redo=False)


def load_teacher(job: Job) -> Teacher:
    """The teacher, frozen, its classes in the order of the data's labels."""
    recipe = job.recipe.teacher
    folder = job.path / "teacher" if recipe.train is not None else None
    model, processor, folder = models.load_teacher(recipe, job.task, job.splits.labels, folder)
    order = match_classes(model.config.id2label, job.splits.labels, who="teacher")
    return Teacher(FrozenTeacher(model, job.splits.labels, order), processor, folder)


# ---------------------------------------------------------------------------------------------------- targets


def prepare_targets(job: Job, teacher: Teacher) -> TargetSource:
    """The teacher's logits on training and validation data: computed once into the store, or live."""
    recipe = job.recipe.targets
    if recipe.kind == "live":
        if job.recipe.student.tokenizer is not None:
            raise ModelError(
                "targets.kind is 'live' while student.tokenizer differs from the teacher's",
                "use targets.kind=store, which keeps the teacher's rows by word",
            )
        return teacher.source
    train = job.training_data(teacher.processor)
    validation = job.encoded("validation", teacher.processor)
    folder = job.path / "targets"
    fingerprint = Fingerprint.of(
        teacher.source,
        teacher.processor,
        job.task.preprocessing(),
        [job.splits.train, job.splits.validation],
    )

    def work() -> None:
        TargetStore.build(
            folder,
            teacher.source,
            ConcatDataset([train, validation]),
            job.task.collate(teacher.processor),
            fingerprint,
            dtype=recipe.dtype,
            shard_examples=recipe.shard_examples,
            batch_size=recipe.batch_size,
        )

    made_from = _teacher_made_from(job) | {"targets": recipe.model_dump(mode="json")}
    job.folder.stage("targets", made_from, work, redo=False)
    return TargetStore.open(folder, fingerprint)


# ---------------------------------------------------------------------------------------------------- students


def make_objective(recipe: Recipe) -> DistillationObjective:
    """The objective a recipe describes."""
    hard = recipe.objective.hard
    return DistillationObjective(
        temperature=make_policy(recipe.temperature),
        divergence=recipe.objective.divergence,
        alpha=recipe.objective.alpha,
        hard=HardTargets(hard.kind, hard.top_k, hard.label_smoothing),
    )


def make_policy(recipe: Any) -> TemperaturePolicy:
    """The temperature policy a recipe's ``temperature`` section describes."""
    fields = recipe.model_dump(exclude={"policy"}, exclude_none=True)
    return POLICIES[recipe.policy](**fields)


def train_student(job: Job, teacher: Teacher, targets: TargetSource | None, seed: int) -> None:
    """Train one student: on the teacher's targets, or on hard labels alone where ``targets`` is None."""
    recipe = job.recipe
    name = student_name(targets is not None, seed)
    made_from = _teacher_made_from(job) | {
        "student": recipe.student.model_dump(mode="json"),
        "train": recipe.train.model_dump(mode="json"),
        "seed": seed,
    }
    if targets is not None:
        made_from |= recipe.model_dump(mode="json", include={"temperature", "objective", "targets"})

    def work() -> dict[str, Any]:
        model, processor = models.build_student(job, teacher, seed)
        objective = DistillationObjective(alpha=0.0) if targets is None else make_objective(recipe)
        return fit(job, model, processor, recipe.train, objective, targets, seed, name)

    job.folder.stage(name.replace("/", "-"), made_from, work)


def student_name(distilled: bool, seed: int) -> str:
    """The folder of a student within the run folder."""
    return f"{'student' if distilled else 'student_hard'}/seed-{seed}"


def fit(
    job: Job,
    model: PreTrainedModel,
    processor: Any,
    train: TrainRecipe,
    objective: DistillationObjective,
    targets: TargetSource | None,
    seed: int,
    name: str,
) -> dict[str, Any]:
    """Train a model, from its newest whole checkpoint if there is one, and leave it in the folder ``name``."""
    work = job.path / "checkpoints" / name
    args = training_arguments(train, str(work), seed, metric=job.task.metric)
    callbacks = [MarkComplete()]
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
    trainer.train(resume_from_checkpoint=latest_checkpoint(str(work)))
    models.save_model(trainer.model, processor, job.path / name)
    shutil.rmtree(work, ignore_errors=True)
    return {"log": trainer.state.log_history}


def _headline(job: Job) -> Callable[[EvalPrediction], dict[str, float]]:
    """The task's scalar scores, from what the Trainer gathers: padded logits and labels."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        valid = prediction.label_ids != IGNORED_LABEL
        logits = [row[mask] if mask.ndim else row[None] for row, mask in zip(prediction.predictions, valid, strict=True)]
        labels = [np.atleast_1d(row[mask]) for row, mask in zip(prediction.label_ids, valid, strict=True)]
        scores = job.task.metrics(logits, labels, job.splits.labels)
        return {name: value for name, value in scores.items() if isinstance(value, float)}

    return compute


# ---------------------------------------------------------------------------------------------------- evaluation


def evaluate(job: Job, teacher: Teacher) -> dict[str, Any]:
    """Measure teacher, untrained student, hard-label students and distilled students on the test split, once."""
    recipe = job.recipe

    def measure(model: Any, processor: Any, folder: Path | None, teacher_rows: Any) -> dict[str, Any]:
        data, collate = job.encoded("test", processor), job.task.collate(processor)
        return evaluation.evaluate(model, folder, job.task, data, collate, job.splits.labels, teacher_rows)

    def students(distilled: bool, teacher_rows: Any) -> dict[str, Any]:
        by_seed = {}
        for seed in recipe.seeds:
            folder = job.path / student_name(distilled, seed)
            model, processor = models.open_model(folder, job.task)
            by_seed[str(seed)] = measure(model, processor, folder, teacher_rows)
        return over_seeds(by_seed)

    def work() -> dict[str, Any]:
        collate = job.task.collate(teacher.processor)
        rows = evaluation.predict(teacher.source, job.encoded("test", teacher.processor), collate)
        untrained, processor = build_student(job, teacher, recipe.seeds[0])
        results = {
            "teacher": measure(teacher.source.model, teacher.processor, teacher.folder, None),
            "student_initial": measure(untrained, processor, None, rows),
        }
        if recipe.hard_baseline:
            results["student_hard"] = students(False, rows)
        results["student"] = students(True, rows)
        return results

    made_from = job.made_from | {"recipe": recipe.model_dump(mode="json", exclude={"name"})}
    results = job.folder.stage("evaluation", made_from, work)
    summary = {
        "name": recipe.name,
        "task": recipe.task,
        "metric": job.task.metric,
        "temperature": describe_temperature(recipe.temperature),
        **results,
        "gain": gain(results, job.task.metric),
    }
    write_json(job.path / "metrics.json", summary)
    return summary


def over_seeds(by_seed: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One record for several seeds: numbers are means, nested tables likewise; each seed's own is kept."""

    def mean(values: list[Any]) -> Any:
        if isinstance(values[0], Mapping):
            return {key: mean([value[key] for value in values]) for key in values[0]}
        if all(value == values[0] for value in values):
            return values[0]  # counts and sizes stay the integers they are
        return sum(values) / len(values)

    return {**mean(list(by_seed.values())), "seeds": dict(by_seed)}


def gain(results: Mapping[str, Any], metric: str) -> dict[str, Any] | None:
    """What distilling gained over hard labels in the headline metric, paired by seed, with its 95 % interval."""
    if "student_hard" not in results:
        return None
    scores = [
        [record["metrics"][metric] for record in results[name]["seeds"].values()] for name in ("student", "student_hard")
    ]
    return asdict(paired_interval(*scores))


# ---------------------------------------------------------------------------------------------------- report


def report(job: Job, results: Mapping[str, Any], targets: TargetSource) -> None:
    """Write the report page."""
    raise NotImplementedError
