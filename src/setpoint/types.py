"""The values that travel between the stages, and the legend of shapes.

Shapes, everywhere in Setpoint::

    ...   any leading axes: one entry a row (an example, a word, a token, a frame)
    C     classes (labels, or the vocabulary)
    B     examples in a batch
    L     positions of the padded sequence
    R     valid rows of a batch, flattened in row-major order

Units: divergences, losses and entropies in nats; temperatures and effective classes without unit; progress is the
share of training done, in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

IGNORED_LABEL = -100
"""The label of a position that is no row: padding, special tokens, continuation pieces (PyTorch's convention)."""


@dataclass(frozen=True)
class Temperatures:
    """What a temperature policy returns, and all that loss, store, tuner and report ever see of a temperature.

    Axes in front of the rows' are terms of a sum: with temperatures ``[N, 1, 1]`` and a scale ``[N, 1]`` each row's
    loss is the sum of N divergences.

    Attributes:
        teacher: divides the teacher's logits; broadcastable to ``[..., C]``.
        student: divides the student's logits; broadcastable to ``[..., C]``.
        scale: multiplies each row's divergence (T² and its kin); broadcastable to ``[...]``.
        hard: divides the student's logits in the hard loss, broadcastable to ``[..., C]``; 1 where None.
        teacher_share: share of the teacher in the logits of the targets, the rest being the student's own, detached;
            broadcastable to ``[..., C]``; 1 where None.
    """

    teacher: Tensor
    student: Tensor
    scale: Tensor
    hard: Tensor | None = None
    teacher_share: Tensor | None = None


@dataclass(frozen=True)
class LossOutput:
    """A distillation loss and what it is made of.

    Attributes:
        total: scalar, the loss to call ``backward()`` on.
        terms: detached scalars by name: ``divergence`` (scaled, mean over valid rows, before the weight α), ``hard``.
        temperatures: the temperatures that were used.
    """

    total: Tensor
    terms: Mapping[str, Tensor]
    temperatures: Temperatures


class TargetSource(Protocol):
    """Where the teacher's logits come from: a live teacher or a store on disk. Both give the same numbers."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits' last axis."""
        ...

    def __call__(self, batch: Mapping[str, Any]) -> Tensor:
        """Teacher logits ``[R, C]`` in float32, a row for each of ``valid_rows(batch)`` in row-major order."""
        ...


def valid_rows(batch: Mapping[str, Any]) -> Tensor:
    """Which positions of a batch are rows of the loss: bool, the shape of its labels, ``[B]`` or ``[B, L]``.

    Labels that are classes are ``IGNORED_LABEL`` where there is no row; those that are numbers are NaN.

    Examples:
        >>> import torch
        >>> valid_rows({"labels": torch.tensor([[-100, 2, -100, 0]])})
        tensor([[False,  True, False,  True]])
    """
    labels: Tensor = batch["labels"]
    return ~labels.isnan() if labels.is_floating_point() else labels != IGNORED_LABEL


def is_input(name: str) -> bool:
    """Whether a column of a batch may be an input of a model; ``task_...`` columns are the task's own.

    Examples:
        >>> is_input("input_ids"), is_input("labels"), is_input("task_boxes")
        (True, False, False)
    """
    return name not in ("labels", "example_id") and not name.startswith("task_")


def example_of_row(batch: Mapping[str, Any], row: int) -> str:
    """The example that a row of the loss belongs to: its id, or its number in the batch.

    Examples:
        >>> import torch
        >>> example_of_row({"labels": torch.tensor([[-100, 2], [1, 0]]), "example_id": ["a", "b"]}, 1)
        "'b'"
    """
    rows = valid_rows(batch)
    counts = rows.reshape(len(rows), -1).sum(-1).cumsum(0).tolist()
    number = next((i for i, last in enumerate(counts) if row < last), len(counts) - 1)
    ids = batch.get("example_id")
    return f"number {number} of the batch" if ids is None else repr(ids[number])


def logits_of(output: Any) -> Tensor:
    """The logits in a model's output: the output itself, its ``logits``, or the first of a tuple.

    Examples:
        >>> import torch
        >>> logits_of({"logits": torch.zeros(2)}) is not None, logits_of((torch.ones(1), "state"))
        (True, tensor([1.]))
    """
    if isinstance(output, tuple):
        output = output[0]
    return output if isinstance(output, Tensor) else part_of(output, "logits")


def part_of(output: Any, name: str) -> Tensor:
    """One tensor of a model's output, by name.

    Examples:
        >>> import torch
        >>> part_of({"start_logits": torch.ones(1)}, "start_logits")
        tensor([1.])
    """
    part: Tensor = output[name] if isinstance(output, Mapping) else getattr(output, name)
    return part
