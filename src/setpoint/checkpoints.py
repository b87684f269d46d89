"""Checkpoints that are known to be whole, so that a run killed while writing one resumes from the one before."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from setpoint.files import write_atomic

MARKER = ".complete"


class MarkComplete(TrainerCallback):
    """Marks each checkpoint once the Trainer has written all of it."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the marker into the newest checkpoint."""
        if state.is_world_process_zero:
            write_atomic(Path(args.output_dir) / f"checkpoint-{state.global_step}" / MARKER, "")


def latest_checkpoint(output_dir: str | Path) -> str | None:
    """The newest whole checkpoint in a folder, or None; what is not whole is deleted."""
    whole = []
    for folder in Path(output_dir).glob("checkpoint-*"):
        if (folder / MARKER).exists():
            whole.append(folder)
        else:
            shutil.rmtree(folder)
    return str(max(whole, key=lambda folder: int(folder.name.split("-")[1]))) if whole else None
