"""Checkpoints that are known to be whole, so that a run killed while writing one resumes from the one before."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from setpoint.files import sync_files, write_atomic

MARKER = ".complete"


class MarkComplete(TrainerCallback):
    """Marks each checkpoint once the Trainer has written all of it."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the marker into the newest checkpoint, once what it vouches for is on the disk."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            sync_files(folder)
            write_atomic(folder / MARKER, "")


class PauseAt(TrainerCallback):
    """Stops a training after a step, at a checkpoint from which it can go on as if it had never stopped."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save and stop; at the end of an epoch ``on_epoch_end`` does, once the epoch's evaluation is made."""
        if state.global_step >= self._step and not self._epoch_is_over(state):
            control.should_save = control.should_training_stop = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """In the middle of an epoch, undo what the Trainer does at its end: evaluate and save."""
        if state.global_step >= self._step:
            control.should_save = control.should_training_stop = self._epoch_is_over(state)
            control.should_evaluate = control.should_evaluate and self._epoch_is_over(state)
            control.should_training_stop = True

    @staticmethod
    def _epoch_is_over(state: TrainerState) -> bool:
        return state.epoch is not None and float(state.epoch).is_integer()


def checkpoint_step(checkpoint: str | Path) -> int:
    """The step after which a checkpoint was written.

    Examples:
        >>> checkpoint_step("runs/x/checkpoint-40")
        40
    """
    return int(Path(checkpoint).name.removeprefix("checkpoint-"))


def latest_checkpoint(output_dir: str | Path) -> str | None:
    """The newest whole checkpoint in a folder, or None; what is not whole is deleted."""
    steps = []
    for folder in Path(output_dir).glob("checkpoint-*"):
        if not (folder / MARKER).exists():
            shutil.rmtree(folder, ignore_errors=True)  # another process of the same run may be quicker
        elif folder.name.removeprefix("checkpoint-").isdecimal():
            steps.append(checkpoint_step(folder))
    return str(Path(output_dir) / f"checkpoint-{max(steps)}") if steps else None


def stopped_early(checkpoint: str | Path, patience: int) -> TrainerState | None:
    """The state of a checkpoint whose training had stopped early; None where it was to go on."""
    state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
    stopping = state.stateful_callbacks.get("EarlyStoppingCallback", {})
    without_gain = stopping.get("attributes", {}).get("early_stopping_patience_counter", 0)
    return state if without_gain >= patience else None
