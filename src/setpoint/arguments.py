"""From a recipe's ``train`` section to ``transformers.TrainingArguments``."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path

import torch
from transformers import TrainingArguments

from setpoint.errors import RecipeError
from setpoint.recipe import TrainRecipe


def training_arguments(
    train: TrainRecipe, output_dir: str | Path, seed: int, *, metric: str | None = None
) -> TrainingArguments:
    """The Trainer's arguments for a recipe's ``train`` section.

    Args:
        train: the section; its ``arguments`` come last and override everything but the folder.
        output_dir: where checkpoints go.
        seed: of the data's order, dropout and everything else that is random.
        metric: the validation metric by which the best checkpoint is kept, where the recipe asks for that.

    Raises:
        RecipeError: an argument that TrainingArguments does not have, or a value it does not take.
    """
    known = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    for name in train.arguments:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise RecipeError(
                f"recipe field 'train.arguments.{name}' is unknown",
                f"did you mean '{near[0]}'?" if near else "see the fields of transformers.TrainingArguments",
            )
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
    try:
        return TrainingArguments(**{**settings, **train.arguments, "output_dir": str(output_dir)})
    except (ValueError, TypeError, ImportError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise RecipeError(f"recipe section 'train' is refused by transformers ({reason})", "mend that field") from None
