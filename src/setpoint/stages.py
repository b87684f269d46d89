"""The stages of a run, up to trained students. Each reads what those before it left; none reads the test split."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, EvalPrediction, PrinterCallback, ProgressCallback, TrainerCallback

from setpoint import generating, guards, models, pretraining, processes
from setpoint.arguments import training_arguments
from setpoint.checkpoints import MarkComplete, PauseAt, checkpoint_step, latest_checkpoint, stopped_early
from setpoint.errors import ModelError, RecipeError, SetpointWarning
from setpoint.feature_training import seeded_features
from setpoint.features import FeatureObjective
from setpoint.job import Job, check_length, make_objective
from setpoint.objective import DistillationObjective
from setpoint.progress import ProgressBar
from setpoint.recipe import (
    ConfigModel,
    PretrainedModel,
    PretrainRecipe,
    Recipe,
    StudentRecipe,
    TeacherRecipe,
    TrainRecipe,
)
from setpoint.recipe_temperature import ConstantTemperature
from setpoint.shrinking import shrink
from setpoint.tasks.base import ALL
from setpoint.teachers import Teacher, load_tokenizer, models_origin, origin_of, teacher_logits, teacher_origin
from setpoint.training import DistillationTrainer
from setpoint.types import IGNORED_LABEL, TargetSource
from setpoint.vocabulary import count_pieces

ModelRecipe = TypeVar("ModelRecipe", TeacherRecipe, StudentRecipe)


# ---------------------------------------------------------------------------------------------------- teacher


def train_teacher(job: Job) -> None:
    """Fine-tune the teacher on the task, where the recipe says so; else take it as it is."""
    recipe = pretrained(job, "teacher", with_tokenizer(job), None)

    def work() -> dict[str, Any]:
        return {} if recipe.train is None else _finish(job, *advance_teacher(job, recipe), "teacher")

    output = None if recipe.train is None else job.path / "teacher"
    job.folder.stage("teacher", teacher_origin(job), work, redo=False, output=output, scratch=job.scratch("teacher"))


def generate(job: Job, teacher: Teacher) -> None:
    """Let the teacher write training examples, where the recipe has a section ``data.generate``."""
    how = job.recipe.data.generate
    if how is None:
        return
    scratch, classes = job.scratch("generated"), len(teacher.source.labels)

    def work() -> dict[str, Any]:
        examples = job.encoded("train", teacher.processor)
        given = {"classes": classes, "processor": teacher.processor}
        return generating.generate(teacher.source.model, examples, how, job.generated, scratch, **given)

    origin = teacher_origin(job) | {"generate": how.model_dump(mode="json", exclude={"instead"})}
    job.folder.stage("generated", origin, work, output=job.generated, scratch=scratch)


def with_tokenizer(job: Job) -> TeacherRecipe:
    """The teacher's recipe with its new tokenizer, where it has one, learnt and in the old one's place."""
    recipe = job.recipe.teacher
    size = recipe.new_tokenizer
    if size is None:
        return recipe
    if "text" not in job.splits.train.column_names:
        raise RecipeError(
            f"teacher.new_tokenizer is given for the task {job.recipe.task}, whose examples are no texts", "remove it"
        )
    folder = job.path / "tokenizer"

    def work() -> None:
        pretraining.train_byte_tokenizer(job.splits.train["text"], size).save_pretrained(folder)

    job.folder.stage("tokenizer", job.data | {"new_tokenizer": size}, work, output=folder)
    return recipe.model_copy(update={"tokenizer": str(folder), "new_tokenizer": None})


def advance_teacher(job: Job, recipe: TeacherRecipe) -> tuple[DistillationTrainer, Any]:
    """Fine-tune the teacher from its newest whole checkpoint to its end; gives its trainer and its tokenizer."""
    assert recipe.train is not None
    processes.call("teacher", recipe=recipe)
    location = recipe.model.model if recipe.model.kind == "pretrained" else None
    processor = load_tokenizer(job, location, recipe.tokenizer, "teacher")
    model = models.load_model(recipe.model, job.task.model_class(), job.splits.head, processor, field="teacher.model")
    models.order_classes(model, job.splits.head, "teacher")
    models.check_vocabulary(model, processor, "teacher")
    check_length(job, model, processor, "teacher")
    scratch, objective = job.scratch("teacher"), DistillationObjective(alpha=0.0)
    trainer = train(job, model, processor, recipe.train, objective, None, 0, scratch, "teacher")
    return trainer, processor


def pretrained(job: Job, who: str, recipe: ModelRecipe, tokenizer: Any) -> ModelRecipe:
    """A model's recipe with its pre-training, where it has one, done and its result in the model's place."""
    how, spec = recipe.pretrain, recipe.model
    if how is None:
        return recipe
    assert spec.kind in ("pretrained", "config"), "open_job refuses others"
    folder = job.path / f"{who}-pretrained"
    scratch = job.scratch(folder.name)
    dropout = job.recipe.student.dropout if who == "student" else None

    def work() -> dict[str, Any]:
        own = recipe.tokenizer or (spec.model if spec.kind == "pretrained" else None)
        if how.new_tokenizer or (own is None and tokenizer is None):
            texts = pretraining.read_texts(how.text)
            chosen = pretraining.train_tokenizer(texts, how.vocab_size, job.recipe.data.max_length)
        else:
            chosen = tokenizer if own is None else models.load_tokenizer(own, f"{who}.tokenizer")
        where = {"folder": folder, "scratch": scratch}
        given = {"spec": spec, "tokenizer": chosen, "recipe": how, "dropout": dropout, **where}
        if how.objective == "features":
            given["teacher"] = _teacher_of_states(job, how, tokenizer, chosen)
        processes.call("pretrain", **given)
        return {"log": pretraining.pretrain(**given)}

    origin = job.data | origin_of(who, recipe, exclude={"train"})
    if how.objective == "features":
        origin |= origin_of("teacher", job.recipe.teacher, include={"model", "tokenizer", "new_tokenizer", "pretrain"})
    job.folder.stage(folder.name, origin, work, output=folder, scratch=scratch)
    return recipe.model_copy(
        update={"model": PretrainedModel(model=str(folder)), "tokenizer": str(folder), "pretrain": None}
    )


def _teacher_of_states(job: Job, how: PretrainRecipe, tokenizer: Any, students: Any) -> PretrainedModel | ConfigModel:
    """The model that a student becomes like inside on raw text: another one, or its teacher before its fine-tuning."""
    if how.teacher is not None:
        tokenizer = models.load_tokenizer(how.teacher, "student.pretrain.teacher")
    if students.get_vocab() != tokenizer.get_vocab():
        raise ModelError(
            "student.pretrain.objective is features while the student has another tokenizer than the model it learns"
            f" from, of {len(students)} and {len(tokenizer)} entries",
            "give models of one tokenizer",
        )
    if how.teacher is not None:
        return PretrainedModel(model=how.teacher)
    return pretrained(job, "teacher", with_tokenizer(job), None).model


# ---------------------------------------------------------------------------------------------------- students


SAMPLE_EXAMPLES, SAMPLE_TOKENS = 4096, 16_384
"""How many training examples a smaller student is fitted on: whichever is reached first."""


def shrunk(job: Job, recipe: StudentRecipe, teacher: Teacher) -> StudentRecipe:
    """The student's recipe, where it is the teacher made smaller, with that done and its result in the model's place.

    All seeds start from it.
    """
    spec = recipe.model
    if spec.kind != "shrunk":
        return recipe
    if recipe.tokenizer is not None:
        raise ModelError("student.tokenizer is given for a teacher made smaller", "remove it; its teacher's is taken")
    folder = job.path / "student-shrunk"

    def work() -> dict[str, Any]:
        whole = teacher.processor
        text = spec.vocabulary.text if spec.vocabulary is not None else ()
        counts = np.zeros(0, dtype=np.int64)
        if whole is not None:
            examples = [*job.encoded("train", whole), *(job.encoded("transfer", whole) if job.transfer else ())]
            counts = count_pieces((example["input_ids"] for example in examples), len(whole))
            for file in text:
                read = whole(pretraining.read_texts(file, "student.model.vocabulary.text"), verbose=False)
                counts += count_pieces(read["input_ids"], len(whole))
        made = shrink(teacher.source.model, whole, spec, job.task.model_class(), counts, partial(_sample, job))
        models.save_model(made.model, made.tokenizer, folder)
        print(f"{folder.name}: {made}", file=sys.stderr)
        return {"parameters": made.model.num_parameters(), "embedding_error": made.error, "cosines": made.cosines}

    job.folder.stage(folder.name, teacher_origin(job) | origin_of("student", spec), work, output=folder)
    tokenizer = None if spec.vocabulary is None else str(folder)
    return recipe.model_copy(update={"model": PretrainedModel(model=str(folder)), "tokenizer": tokenizer})


def _sample(job: Job, processor: Any) -> list[dict[str, Tensor]]:
    """Some training examples as batches of model inputs, those of like length together."""
    train = job.splits.train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:SAMPLE_EXAMPLES]
    with warnings.catch_warnings(category=SetpointWarning, action="ignore"):  # of words cut off, said of the whole
        examples = job.task.encode(train.select(order.tolist()), processor)
    ends = np.cumsum([len(example["input_ids"]) for example in examples])
    examples = examples[: 1 + int(np.searchsorted(ends, SAMPLE_TOKENS))]
    examples.sort(key=lambda example: len(example["input_ids"]))
    collate = job.task.collate(processor)
    batches = (collate(examples[start : start + 32]) for start in range(0, len(examples), 32))
    return [{name: value for name, value in batch.items() if name not in ("labels", "example_id")} for batch in batches]


def build_student(job: Job, teacher: Teacher, seed: int) -> tuple[nn.Module, Any]:
    """An untrained student and its tokenizer."""
    recipe = pretrained(job, "student", job.recipe.student, teacher.processor)
    recipe = shrunk(job, recipe, teacher)
    processor = (
        teacher.processor if recipe.tokenizer is None else models.load_tokenizer(recipe.tokenizer, "student.tokenizer")
    )
    model = models.build_student(
        recipe, teacher.source.model, job.task.model_class(), job.splits.head, processor, seed=seed
    )
    check_length(job, model, processor, "student")
    return model, processor


def _warn_of_smoothing(recipe: Recipe, logits: Tensor) -> None:
    if isinstance(recipe.temperature, ConstantTemperature):
        sentence = guards.smoothed_teacher(logits, recipe.temperature.of_teacher)
        if sentence is not None:
            warnings.warn(sentence, SetpointWarning, stacklevel=2)


def student_origin(job: Job, distilled: bool, seed: int) -> dict[str, Any]:
    """What decides which weights a trained student has."""
    recipe = job.recipe
    origin = models_origin(job) if distilled else teacher_origin(job) | origin_of("student", recipe.student)
    sections = {"train", "temperature", "objective", "targets"} if distilled else {"train"}
    if distilled and recipe.data.transfer is not None:
        origin = origin | {"transfer": recipe.data.transfer.model_dump(mode="json", exclude={"files"})}
    return origin | recipe.model_dump(mode="json", include=sections) | {"seed": seed}


def train_student(job: Job, teacher: Teacher, targets: TargetSource | None, seed: int, name: str) -> None:
    """Train one student into the folder ``name``: on the teacher's targets, or on labels alone where there are none."""
    origin = student_origin(job, targets is not None, seed)
    scratch = job.scratch(name)

    def work() -> dict[str, Any]:
        trainer, processor = advance_student(job, teacher, targets, seed, scratch, name)
        return _finish(job, trainer, processor, name)

    job.folder.stage(name.replace("/", "-"), origin, work, output=job.path / name, scratch=scratch)


def advance_student(
    job: Job,
    teacher: Teacher,
    targets: TargetSource | None,
    seed: int,
    scratch: Path,
    title: str,
    until: int | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> tuple[DistillationTrainer, Any]:
    """Train a student from its newest whole checkpoint in ``scratch`` to its end, or to a step where it pauses.

    Gives its trainer and its tokenizer.
    """
    model, processor = build_student(job, teacher, seed)  # a pre-training, where there is one, is called for by itself
    distilled = targets is not None
    processes.call("student", recipe=job.recipe, distilled=distilled, seed=seed, scratch=scratch, until=until)
    objective = DistillationObjective(alpha=0.0) if targets is None else make_objective(job.recipe)
    if targets is not None:
        logits = teacher_logits(job, teacher, targets)
        objective.temperature.fit(logits)
        _warn_of_smoothing(job.recipe, logits)
    features = None if targets is None else make_features(job.recipe, model, teacher.source.model, seed)
    how = job.recipe.train
    trainer = train(
        job, model, processor, how, objective, targets, seed, scratch, title, until, callbacks, features=features
    )
    return trainer, processor


def make_features(recipe: Recipe, student: nn.Module, teacher: nn.Module, seed: int) -> FeatureObjective | None:
    """The features a recipe asks for, their projections drawn from the seed; makes both models give what they read."""
    wanted = recipe.objective.features
    return seeded_features(wanted, student, teacher, seed) if wanted else None


def train(
    job: Job,
    model: nn.Module,
    processor: Any,
    how: TrainRecipe,
    objective: DistillationObjective,
    targets: TargetSource | None,
    seed: int,
    scratch: Path,
    title: str,
    until: int | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    features: FeatureObjective | None = None,
) -> DistillationTrainer:
    """Train a model, from its newest whole checkpoint in ``scratch`` if there is one; gives its trainer.

    With ``until`` it pauses after that step. The progress bar has the title; there is none where that is empty.
    """
    callbacks = list(callbacks)
    if title and processes.leads():
        callbacks.append(ProgressBar(title))
    if until is not None:
        callbacks.append(PauseAt(until))
    if how.early_stopping is not None:
        callbacks.append(EarlyStoppingCallback(how.early_stopping))
    trainer = make_trainer(job, model, processor, how, objective, targets, seed, scratch, callbacks, features)
    checkpoint = latest_checkpoint(scratch)
    ended = None if checkpoint is None or how.early_stopping is None else stopped_early(checkpoint, how.early_stopping)
    if checkpoint is not None and until is not None and checkpoint_step(checkpoint) >= until:
        trainer._load_from_checkpoint(checkpoint)
    elif ended is None:
        trainer.train(resume_from_checkpoint=checkpoint)
    else:  # killed after its last epoch: what is left to do is what the Trainer does at the end
        trainer.state = ended
        trainer._load_best_model()
    return trainer


def make_trainer(
    job: Job,
    model: nn.Module,
    processor: Any,
    how: TrainRecipe,
    objective: DistillationObjective,
    targets: TargetSource | None,
    seed: int,
    scratch: Path,
    callbacks: Sequence[TrainerCallback] = (),
    features: FeatureObjective | None = None,
) -> DistillationTrainer:
    """The trainer that each training of a run has; what is random in it comes from the seed."""
    data = job.training_data(processor, distilled=targets is not None)
    trainer = DistillationTrainer(
        model=model,
        args=training_arguments(how, scratch, seed, metric=job.task.metric),
        objective=objective,
        targets=targets,
        features=features,
        unlabelled=job.without_label(data, targets is not None),
        train_dataset=data,
        eval_dataset=job.encoded("validation", processor),
        data_collator=job.task.collate(processor),
        reading=job.task,
        compute_metrics=_scores(job, processor),
        callbacks=[MarkComplete(), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def _finish(job: Job, trainer: DistillationTrainer, processor: Any, name: str) -> dict[str, Any]:
    """Leave a trained model, and the state of its policy, in the folder ``name``; gives what the stage's mark keeps."""
    models.save_model(trainer.model, processor, job.path / name, job.task.model_files())
    trainer.save_objective(job.path / name)
    scratch = Path(trainer.args.output_dir)
    if (scratch / "runs").is_dir():  # TensorBoard's, the one tracker that writes beside the checkpoints
        shutil.copytree(scratch / "runs", job.path / "logs" / name, dirs_exist_ok=True)
    return {"log": trainer.state.log_history}


def _scores(job: Job, processor: Any) -> Callable[[EvalPrediction], dict[str, float]]:
    """The task's scores of the validation split, from what the Trainer gathers: padded logits and labels."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        labels = prediction.label_ids
        valid = ~np.isnan(labels) if labels.dtype.kind == "f" else labels != IGNORED_LABEL
        logits = [
            row[mask] if mask.ndim else row[None] for row, mask in zip(prediction.predictions, valid, strict=True)
        ]
        references = job.task.references(job.encoded("validation", processor))
        return {name: score(ALL) for name, score in job.task.scores(logits, references, job.splits.labels).items()}

    return compute
