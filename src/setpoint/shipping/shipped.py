"""An exported student, opened: inputs in, labels with calibrated probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from setpoint import evaluation, models
from setpoint.batching import alike
from setpoint.errors import DataError, ModelError
from setpoint.recipe import DataRecipe, PretrainedModel
from setpoint.shipping.manifest import Manifest, check_files, read_manifest
from setpoint.shipping.onnx_model import OnnxModel
from setpoint.targets.teacher import FrozenTeacher
from setpoint.tasks import TASKS, make_task
from setpoint.tasks.base import Collate, Example, Task
from setpoint.types import TargetSource

BATCH = 32
"""Examples that are computed together, unless told otherwise."""


class Shipped:
    """An exported student; ``open`` makes it of a folder.

    Attributes:
        folder: where it lies.
        manifest: what it is.
        task: reads its inputs and words its answers, as in training.
        processor: its tokenizer; None without text.
        source: the model.
    """

    def __init__(self, folder: Path, manifest: Manifest, task: Task, processor: Any, source: TargetSource) -> None:
        self.folder, self.manifest, self.task, self.processor, self.source = folder, manifest, task, processor, source
        self.collate = task.collate(processor)

    @classmethod
    def open(cls, folder: str | Path, *, threads: int | None = None) -> Self:
        """Check a folder that ``setpoint export`` wrote, file by file, and load it.

        Args:
            folder: the folder.
            threads: that one batch is computed with; as many as there are cores unless given.

        Raises:
            ModelError: it is no such folder, or a file of it is missing, damaged or of another kind.
        """
        folder, manifest, task, processor = read_folder(folder)
        source: TargetSource
        if manifest.model == "model.onnx":
            source = OnnxModel(folder / manifest.model, task.classes(manifest.labels, processor), threads, task)
        else:
            spec = PretrainedModel(model=str(folder.absolute()))
            head = manifest.labels if manifest.outputs is None else manifest.outputs or None
            model = models.load_model(spec, task.model_class(), head, needs_head=True)
            source = FrozenTeacher(model, task.classes(manifest.labels, processor), name="model", reading=task)
            if threads is not None:
                torch.set_num_threads(threads)
        return cls(folder, manifest, task, processor, source)

    def read(self, value: Any, where: str) -> Any:
        """A raw input, checked; ``answer`` takes it. Raises DataError."""
        checked = self.task.read_input(value, where)
        shape = self.manifest.image_shape
        if isinstance(checked, Tensor) and tuple(checked.shape) != shape:
            here, wanted = ("x".join(map(str, s)) for s in (checked.shape, shape or ()))
            raise DataError(f"{where} is an image of {here} where the model takes {wanted}", "give it that size")
        return checked

    def predict(self, inputs: Sequence[Any], batch_size: int = BATCH) -> list[dict[str, Any]]:
        """Labels with calibrated probabilities, in the order of the inputs.

        Args:
            inputs: texts (or pairs of them), lists of words, or images; or rows with the columns of the recipe.
            batch_size: how many are computed together.

        Returns:
            For each text or image its ``label``, its ``probability`` and all ``probabilities``; for each list of words
            ``words``, each with its ``label`` and ``probability``, which are None beyond the model's longest text.

        Raises:
            DataError: an input that is none of this task, by its number.
        """
        return self.answer([self.read(value, f"input {i}") for i, value in enumerate(inputs)], batch_size)

    def answer(self, checked: Sequence[Any], batch_size: int = BATCH) -> list[dict[str, Any]]:
        """As ``predict``, of inputs that ``read`` has checked."""
        if not checked:
            return []
        examples = self.task.encode_inputs(checked, self.processor)
        logits = predict_alike(self.source, examples, self.collate, batch_size)
        names = self.manifest.outputs or self.manifest.labels
        return self.task.answers_to(checked, examples, self.probabilities(logits), names)

    def probabilities(self, logits: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Calibrated probabilities ``[rows, C]`` of each example's logits.

        Raises:
            ModelError: logits that are not finite.
        """
        rows = torch.from_numpy(np.concatenate(list(logits)))
        if bool((rows.isnan() | (rows == torch.inf)).any()):
            raise ModelError(f"the model in '{self.folder}' gives logits that are not finite", "export the run again")
        counts = [len(part) for part in logits]
        shares = self.task.probabilities(rows, self.manifest.temperature)
        return np.split(shares.numpy(), np.cumsum(counts)[:-1])


def predict_alike(
    source: TargetSource, examples: Sequence[Example], collate: Collate, batch_size: int
) -> list[np.ndarray]:
    """The logits of each example, in order, computed in batches of like length of up to ``batch_size``."""
    found: list[np.ndarray] = [np.empty(0)] * len(examples)
    for batch in alike([len(example.get("input_ids", ())) for example in examples], batch_size):
        chosen = [examples[i] for i in batch]
        for i, rows in zip(batch, evaluation.predict(source, chosen, collate, len(batch), progress=False), strict=True):
            found[i] = rows
    return found


def read_folder(folder: str | Path) -> tuple[Path, Manifest, Task, Any]:
    """All of an exported folder but its model: the folder, checked, its manifest, its task and its tokenizer.

    Raises:
        ModelError: as ``Shipped.open``.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    task = _task(folder, manifest)
    return folder, manifest, task, models.load_tokenizer(folder.absolute()) if task.text else None


def _task(folder: Path, manifest: Manifest) -> Task:
    if manifest.task not in TASKS:
        raise ModelError(
            f"'{folder}' is of task '{manifest.task}', which this Setpoint does not know", "upgrade setpoint"
        )
    fields: dict[str, Any] = dict(manifest.columns) | dict(manifest.fields)
    names = manifest.outputs or manifest.labels
    if len(names) > 1:
        fields["labels"] = names
    if manifest.max_length is not None:
        fields["max_length"] = manifest.max_length
    if manifest.pixels is not None:
        fields |= manifest.pixels.model_dump()
    return make_task(manifest.task, DataRecipe(dataset="none", **fields))
