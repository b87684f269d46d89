"""How a model's output is read: where its logits are, and what the loss is taken of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from setpoint.types import logits_of, valid_rows


@dataclass(frozen=True)
class LossRows:
    """What a distillation loss is taken of, a row each: the arguments of the objective.

    Attributes:
        student_logits: ``[R, C]``.
        teacher_logits: ``[R, C]``; None without a teacher.
        labels: ``[R]``; None where ``hard_loss`` is all there is.
        beside: nats or the like that are added to each row's divergence, ``[R]``: what no temperature touches.
        hard_loss: stands in for the cross-entropy against labels, ``[R]``.
        weight: multiplies each row's divergence, ``[R]``, and not what is beside it; 1 where None.
    """

    student_logits: Tensor
    teacher_logits: Tensor | None
    labels: Tensor | None
    beside: Tensor | None = None
    hard_loss: Tensor | None = None
    weight: Tensor | None = None


class Reading:
    """How the output of models of classes is read; a task may read it otherwise.

    Logits line up with a batch's ``labels``: a row for each label that is not ``IGNORED_LABEL``.
    """

    extras: int = 0
    """Columns after those of the classes that travel with each row of logits: boxes, say. No temperature touches
    them."""

    parts: tuple[str, ...] = ("logits",)
    """The tensors of a model's output that are read."""

    def logits(self, output: Any, batch: Mapping[str, Any]) -> Tensor:
        """Logits of a model's output, ``[..., C + extras]``, ``[...]`` being the shape of the batch's labels."""
        return logits_of(output)

    def loss_rows(self, logits: Tensor, batch: Mapping[str, Any], teacher: Tensor | None) -> LossRows:
        """What the loss is taken of.

        Args:
            logits: the student's, as ``logits`` gives them.
            batch: its labels and all that came with it.
            teacher: the teacher's valid rows, ``[R, C + extras]``.

        Examples:
            >>> import torch
            >>> batch = {"labels": torch.tensor([[-100, 1]])}
            >>> Reading().loss_rows(torch.tensor([[[0.0, 1.0], [2.0, 3.0]]]), batch, None).student_logits
            tensor([[2., 3.]])
        """
        numbers = valid_rows(batch).flatten().nonzero().squeeze(-1)  # once: finding them waits for an accelerator
        student = logits.flatten(0, -2).index_select(0, numbers)
        return LossRows(student, teacher, batch["labels"].flatten().index_select(0, numbers))

    def scored(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What scores need of logits ``[..., C + extras]`` and labels ``[...]``: all of them, or ``[..., K]``.

        A task of many classes and rows gives less, for a split's logits are kept in memory.
        """
        return logits
