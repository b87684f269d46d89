"""The hidden states that features compare, kept on disk beside the logits, once it is told what that costs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from setpoint.errors import TargetError
from setpoint.feature_checks import compared, config_of
from setpoint.files import human_bytes
from setpoint.job import Job
from setpoint.recipe import Recipe
from setpoint.run_folder import begin
from setpoint.targets.states import HiddenStates, StoredStates, collated_by_position
from setpoint.targets.store import TargetStore
from setpoint.tasks.base import Example
from setpoint.teachers import Teacher, fingerprint_of, kept_store, load_tokenizer, targets_origin

SHARD_BYTES = 2**28
"""A shard is in memory while it is written, more than once; states are large."""


def tell_cost(job: Job) -> None:
    """Say, before the teacher is fine-tuned, what its states will cost, and refuse what the disk has no room for.

    Not known by then: a student that is made from the teacher, a tokenizer that is learnt, and texts that are written.

    Raises:
        TargetError: the disk has no room for them.
    """
    recipe, teacher = job.recipe, job.recipe.teacher
    unknown = recipe.student.model.kind == "shrunk" or teacher.new_tokenizer is not None or recipe.data.generate
    if not _stored(recipe) or teacher.train is None or unknown or job.folder.mark("teacher") is not None:
        return
    config: Any = config_of(recipe, teacher.model, job.task)
    if config is None:  # who loads it says why
        return
    layers = compared(recipe, job.task, config, job.path).teacher_layers
    location = teacher.model.model if teacher.model.kind == "pretrained" else None
    apart = replace(job, _encoded={})  # nothing of it stays in memory
    examples = apart.training_data(load_tokenizer(job, location, teacher.tokenizer, "teacher"), all_transfer=True)
    _tell(job.path / "states", _positions(examples), len(layers), config.hidden_size, recipe.targets.dtype)


def store_states(job: Job, teacher: Teacher) -> StoredStates | None:
    """The states of the layers that a recipe's features compare, on the training data; None where none are stored.

    The teacher runs once for them; other features or another teacher make them anew.

    Raises:
        TargetError: the disk has no room for them, or the dtype cannot hold them.
    """
    recipe = job.recipe.targets
    if not _stored(job.recipe):
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
        size = _tell(folder, _positions(examples), len(layers), config.hidden_size, recipe.dtype)
        TargetStore.build(
            folder,
            source,
            examples,
            collated_by_position(job.task.collate(teacher.processor)),
            fingerprint,
            extras=source.extras,
            dtype=recipe.dtype,
            shard_examples=min(recipe.shard_examples, 1 + SHARD_BYTES * len(examples) // size),
            batch_size=recipe.batch_size,
        )

    store = kept_store(job, "states", origin, work, folder, fingerprint, redo=True)
    return StoredStates(store, layers, config.num_hidden_layers)


def _stored(recipe: Recipe) -> bool:
    return bool(recipe.objective.features) and recipe.targets.kind == "store"


def _positions(examples: Iterable[Example]) -> int:
    return sum(len(example["input_ids"]) for example in examples)


def _tell(folder: Path, positions: int, layers: int, width: int, dtype: str) -> int:
    """Say how many bytes the store has, and give them; refuse them where the disk has less, beside what is there."""
    size = positions * layers * width * np.dtype(dtype).itemsize
    free = shutil.disk_usage(folder.parent).free + sum(file.stat().st_size for file in folder.glob("*"))
    said = (
        f"the teacher's hidden states have about {human_bytes(size)} on disk: {positions:,} positions of {layers}"
        f" layer{'s' if layers > 1 else ''} of {width} numbers in {dtype}"
    )
    if size > free:
        raise TargetError(
            f"{said}, and '{folder.parent}' has {human_bytes(free)} free",
            "make room, compare fewer layers, or set targets.kind to live",
        )
    print(f"{folder.name}: {said}; {human_bytes(free)} are free", file=sys.stderr)
    return size
