"""From a recipe's ``train`` section to ``transformers.TrainingArguments``."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import importlib.util
import tempfile
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from transformers import SchedulerType, Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from setpoint.errors import RecipeError
from setpoint.recipe import Recipe, TrainRecipe
from setpoint.recipe_file import shown

_OWNED = {
    "output_dir": "checkpoints go into the run's folder",
    "remove_unused_columns": "the loss needs them all",
    "label_smoothing_factor": "smoothing is objective.hard.label_smoothing",
    "resume_from_checkpoint": "the same command resumes",
    "push_to_hub": "a run publishes nothing",
    "do_train": "the run's stages decide that",
    "do_eval": "the run's stages decide that",
    "do_predict": "the run's stages decide that",
    "prediction_loss_only": "the scores need the predictions",
    "label_names": "the scores need the labels",
    "batch_eval_metrics": "the scores are over a whole split",
    "eval_do_concat_batches": "the scores are over a whole split",
}
"""What no recipe may change, and why."""

_RANGES = {
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "per_device_eval_batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation",
    "eval_accumulation_steps": "gradient_accumulation",
    "learning_rate": "learning_rate",
    "weight_decay": "weight_decay",
}
"""The field of ``train`` whose range holds for an argument too: transformers takes values there that fail later."""


def training_arguments(
    train: TrainRecipe, output_dir: str | Path, seed: int, *, metric: str | None = None, section: str = "train"
) -> TrainingArguments:
    """The Trainer's arguments for a recipe's ``train`` section, tried out on a tiny model.

    The trial seeds the random generators, as each Trainer does.

    Args:
        train: the section; its ``arguments`` come last and override everything but what Setpoint itself relies on.
        output_dir: where checkpoints go.
        seed: of the data's order, dropout and everything else that is random.
        metric: the validation metric by which the best checkpoint is kept, where the recipe asks for that; without
            one there is no validation.
        section: the section's path in the recipe, for messages.

    Raises:
        RecipeError: an argument that TrainingArguments does not have, or a value with which no training can start here.

    Examples:
        >>> arguments = training_arguments(TrainRecipe(epochs=2, arguments={"max_grad_norm": 0.5}), "/tmp/x", seed=0)
        >>> arguments.num_train_epochs, arguments.max_grad_norm
        (2.0, 0.5)
    """
    _check_name("scheduler", train.scheduler, SchedulerType, section)
    _check_name("optimizer", train.optimizer, OptimizerNames, section)
    train = train.model_copy(update={"arguments": _checked(train.arguments, section)})

    def build(train: TrainRecipe) -> TrainingArguments:
        settings = _settings(train, seed, metric) | train.arguments | {"output_dir": str(output_dir)}
        arguments = TrainingArguments(**settings)
        _try(arguments, validates=metric is not None)
        return arguments

    try:
        return build(train)
    except Exception as error:  # whatever transformers, accelerate or an optimiser's library raises is a refusal
        raise _blame(train, section, build, error) from None


def check_training(recipe: Recipe) -> None:
    """Try out every ``train`` section of a recipe, so that the last one is known to be right before the first runs.

    Raises:
        RecipeError: as ``training_arguments``.
    """
    sections = {
        "teacher.pretrain.train": recipe.teacher.pretrain.train if recipe.teacher.pretrain else None,
        "teacher.train": recipe.teacher.train,
        "student.pretrain.train": recipe.student.pretrain.train if recipe.student.pretrain else None,
        "train": recipe.train,
    }
    for section, train in sections.items():
        if train is not None:
            metric = None if "pretrain" in section else "any"  # a pre-training has no validation split
            training_arguments(train, tempfile.gettempdir(), recipe.seeds[0], metric=metric, section=section)


def _settings(train: TrainRecipe, seed: int, metric: str | None) -> dict[str, Any]:
    """The arguments that Setpoint gives by itself."""
    best = metric is not None and (train.keep_best or train.early_stopping is not None)
    return {
        "num_train_epochs": train.epochs,
        "per_device_train_batch_size": train.batch_size,
        "gradient_accumulation_steps": train.gradient_accumulation,
        "learning_rate": train.learning_rate,
        "weight_decay": train.weight_decay,
        "warmup_steps": train.warmup,  # below 1 it is a share of the steps
        "lr_scheduler_type": train.scheduler,
        "optim": train.optimizer,
        "seed": seed,
        "use_cpu": not torch.accelerator.is_available(),  # bf16 on a CPU is refused without it
        "remove_unused_columns": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": "none",
        "logging_steps": 10,
        "eval_strategy": "epoch" if best else "no",
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "load_best_model_at_end": best,
        "metric_for_best_model": metric if best else None,
        "greater_is_better": True if best else None,
        "restore_callback_states_from_checkpoint": True,  # else early stopping loses count when a run resumes
    }


def _try(arguments: TrainingArguments, validates: bool) -> None:
    """Set a Trainer up as for training: what cannot work here (a library, a device, a value) fails now, not later."""
    arguments = copy.copy(arguments)
    arguments.output_dir = tempfile.gettempdir()  # the Trainer creates it
    if arguments.optim_target_modules is not None:
        arguments.optim_target_modules = "all-linear"  # the names are those of the real model
    # The Trainer looks for liger only when it trains; an MLflow callback that fails prints a traceback as it goes.
    needed = {"mlflow": "mlflow" in arguments.report_to, "liger_kernel": arguments.use_liger_kernel}
    for package in (package for package, wanted in needed.items() if wanted):
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"{package} is not installed")
    data = [{"input_ids": [0]}]
    trainer = Trainer(torch.nn.Linear(2, 2), arguments, train_dataset=data, eval_dataset=data if validates else None)
    trainer.get_train_dataloader()
    trainer.create_optimizer_and_scheduler(num_training_steps=1_000_000)


def _blame(
    train: TrainRecipe, section: str, build: Callable[[TrainRecipe], TrainingArguments], error: Exception
) -> RecipeError:
    """The error of one field: the one without which all is well, once those that come after it are left out too."""
    given = list(train.arguments.items())
    usual = TrainRecipe()
    steps = [(f"arguments.{name}", value, {"arguments": dict(given[:i])}) for i, (name, value) in enumerate(given)]
    names = ("optimizer", "scheduler")
    steps = [(name, getattr(train, name), {name: getattr(usual, name)}) for name in names] + steps
    for field, value, update in reversed(steps):
        train = train.model_copy(update=update)
        try:
            build(train)
        except Exception as another:
            error = another
        else:
            problem = f"recipe field '{section}.{field}' is {shown(value)}, which cannot work here ({_reason(error)})"
            return RecipeError(problem, "give another value, or what it needs")
    return RecipeError(f"recipe section '{section}' cannot work here ({_reason(error)})", "mend it")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}…"


def _check_name(field: str, value: str, names: type[Enum], section: str) -> None:
    known = [name.value for name in names]
    if value not in known:
        near = [name for name in known if name.startswith(value)] or difflib.get_close_matches(value, known, n=1)
        mend = f"did you mean '{near[0]}'?" if near else f"give one of {', '.join(known[:12])}"
        raise RecipeError(f"recipe field '{section}.{field}' is '{value}'", mend)


def _checked(given: dict[str, Any], section: str) -> dict[str, Any]:
    """The extra arguments, each one known and of its type: TrainingArguments itself checks few of them."""
    known = {field.name: field for field in dataclasses.fields(TrainingArguments) if field.init}
    types = get_type_hints(TrainingArguments)
    result = {}
    for name, value in given.items():
        field = f"recipe field '{section}.arguments.{name}'"
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise RecipeError(
                f"{field} is unknown",
                f"did you mean '{near[0]}'?" if near else "see the fields of transformers.TrainingArguments",
            )
        why = _OWNED["push_to_hub"] if name.startswith("hub_") else _OWNED.get(name)
        if why and value != (False if name == "remove_unused_columns" else known[name].default):
            raise RecipeError(f"{field} is {shown(value)}, which is not yours to set ({why})", "remove it")
        try:
            result[name] = TypeAdapter(types[name]).validate_python(value)
            if name in _RANGES and result[name] is not None:
                TrainRecipe.model_validate({_RANGES[name]: result[name]})
        except ValidationError as error:
            raise RecipeError(f"{field} is {shown(value)}", f"give {_wanted(error)}") from None
        choices = known[name].metadata.get("choices")
        if choices and value not in (*choices, known[name].default):
            raise RecipeError(f"{field} is {shown(value)}", f"give one of {', '.join(choices)}")
    return result


def _wanted(error: ValidationError) -> str:
    """What a value should have been."""
    wanted = [
        str(e["ctx"]["error"]).removeprefix("give ")
        if e["type"] == "value_error"
        else e["msg"].removeprefix("Input should be ").split(",")[0]
        for e in error.errors()
    ]
    return " or ".join(dict.fromkeys(wanted))
