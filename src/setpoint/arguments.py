"""From a recipe's ``train`` section to ``transformers.TrainingArguments``."""

from __future__ import annotations

import dataclasses
import difflib
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from transformers import SchedulerType, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks
from transformers.training_args import OptimizerNames

from setpoint.errors import RecipeError
from setpoint.recipe import TrainRecipe


def training_arguments(
    train: TrainRecipe, output_dir: str | Path, seed: int, *, metric: str | None = None, section: str = "train"
) -> TrainingArguments:
    """The Trainer's arguments for a recipe's ``train`` section.

    Args:
        train: the section; its ``arguments`` come last and override everything but the folder.
        output_dir: where checkpoints go.
        seed: of the data's order, dropout and everything else that is random.
        metric: the validation metric by which the best checkpoint is kept, where the recipe asks for that.
        section: the section's path in the recipe, for messages.

    Raises:
        RecipeError: an argument that TrainingArguments does not have, or a value it does not take.

    Example:
        >>> arguments = training_arguments(TrainRecipe(epochs=2, arguments={"max_grad_norm": 0.5}), "/tmp/x", seed=0)
        >>> arguments.num_train_epochs, arguments.max_grad_norm
        (2.0, 0.5)
    """
    _check_name("scheduler", train.scheduler, SchedulerType, section)
    _check_name("optimizer", train.optimizer, OptimizerNames, section)
    best = metric is not None and (train.keep_best or train.early_stopping is not None)
    settings = {
        "num_train_epochs": train.epochs,
        "per_device_train_batch_size": train.batch_size,
        "gradient_accumulation_steps": train.gradient_accumulation,
        "learning_rate": train.learning_rate,
        "weight_decay": train.weight_decay,
        "warmup_steps": train.warmup,  # below 1 it is a share of the steps
        "lr_scheduler_type": train.scheduler,
        "optim": train.optimizer,
        "seed": seed,
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
    }
    settings |= _checked(train.arguments, section) | {"output_dir": str(output_dir)}
    try:
        arguments = TrainingArguments(**settings)
        get_reporting_integration_callbacks(arguments.report_to)  # the Trainer would refuse an unknown one too late
    except (ValueError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise RecipeError(
            f"recipe section '{section}' is refused by transformers ({reason})", "mend that field"
        ) from None
    return arguments


def _check_name(field: str, value: str, names: type[Enum], section: str) -> None:
    known = [name.value for name in names]
    if value not in known:
        near = [name for name in known if name.startswith(value)] or difflib.get_close_matches(value, known, n=1)
        mend = f"did you mean '{near[0]}'?" if near else f"give one of {', '.join(known[:12])}"
        raise RecipeError(f"recipe field '{section}.{field}' is '{value}'", mend)


def _checked(given: dict[str, Any], section: str) -> dict[str, Any]:
    """The extra arguments, each one known and of its type: TrainingArguments itself checks few of them."""
    known = {field.name for field in dataclasses.fields(TrainingArguments) if field.init} - {"output_dir"}
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
        try:
            result[name] = TypeAdapter(types[name]).validate_python(value)
        except ValidationError as error:
            raise RecipeError(f"{field} is {value!r}", f"give {_wanted(error)}") from None
    return result


def _wanted(error: ValidationError) -> str:
    """What a value should have been."""
    return " or ".join(dict.fromkeys(e["msg"].removeprefix("Input should be ").split(",")[0] for e in error.errors()))
