"""The hidden states that features compare, kept on disk beside the logits, once it is told what that costs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from setpoint.errors import TargetError
from setpoint.feature_checks import compared
from setpoint.files import human_bytes
from setpoint.job import Job
from setpoint.run_folder import begin
from setpoint.targets.states import HiddenStates, StoredStates, collated_by_position
from setpoint.targets.store import TargetStore
from setpoint.teachers import Teacher, fingerprint_of, kept_store, targets_origin

SHARD_BYTES = 2**28
"""A shard is in memory while it is written, more than once; states are large."""


def store_states(job: Job, teacher: Teacher) -> StoredStates | None:
    """The states of the layers that a recipe's features compare, on the training data; None where none are stored.

    The teacher runs once for them; other features or another teacher make them anew.

    Raises:
        TargetError: the disk has no room for them, or the dtype cannot hold them.
    """
    recipe = job.recipe.targets
    if not job.recipe.objective.features or recipe.kind == "live":
        return None
    config: Any = teacher.source.model.config
    layers = compared(job.recipe, job.task, config, job.path / "student-shrunk").teacher_layers
    source = HiddenStates(teacher.source, layers, config.hidden_size)
    folder = job.path / "states"
    fingerprint = fingerprint_of(job, teacher, layers=layers)
    origin = targets_origin(job) | {"targets": recipe.model_dump(mode="json"), "layers": list(layers)}

    def work() -> None:
        begin(folder, origin)  # states of other layers, or of another teacher, are of no use
        examples = job.training_data(teacher.processor, all_transfer=True)
        positions = sum(len(example["input_ids"]) for example in examples)
        each = source.extras * np.dtype(recipe.dtype).itemsize
        print(_announced(folder, positions, len(layers), config.hidden_size, recipe.dtype), file=sys.stderr)
        TargetStore.build(
            folder,
            source,
            examples,
            collated_by_position(job.task.collate(teacher.processor)),
            fingerprint,
            extras=source.extras,
            dtype=recipe.dtype,
            shard_examples=min(recipe.shard_examples, 1 + SHARD_BYTES * len(examples) // (positions * each)),
            batch_size=recipe.batch_size,
        )

    store = kept_store(job, "states", origin, work, folder, fingerprint, redo=True)
    return StoredStates(store, layers, config.num_hidden_layers)


def _announced(folder: Path, positions: int, layers: int, width: int, dtype: str) -> str:
    """What the store costs in words, refused where the disk has less; what is there already counts as free."""
    size = positions * layers * width * np.dtype(dtype).itemsize
    free = shutil.disk_usage(folder).free + sum(file.stat().st_size for file in folder.iterdir())
    said = (
        f"the teacher's hidden states have about {human_bytes(size)} on disk: {positions:,} positions of {layers}"
        f" layer{'s' if layers > 1 else ''} of {width} numbers in {dtype}"
    )
    if size > free:
        raise TargetError(
            f"{said}, and '{folder.parent}' has {human_bytes(free)} free",
            "make room, compare fewer layers, or set targets.kind to live",
        )
    return f"{folder.name}: {said}; {human_bytes(free)} are free"
