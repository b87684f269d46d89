"""What the hard loss is taken against: the data's labels, the teacher's own, or a mixture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from setpoint.errors import TargetError
from setpoint.maths.tempering import log_temper, scaled_logits, temper
from setpoint.temperature.base import wide
from setpoint.types import IGNORED_LABEL, Temperatures

HARD_KINDS = ("labels", "teacher_argmax", "teacher_sample")


@dataclass(frozen=True)
class HardTargets:
    """What the hard loss is taken against.

    Attributes:
        kind: the data's labels; the teacher's most likely class; or a class sampled from the teacher's p_T.
        top_k: sample among the k most likely classes only.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1).
        mixture: share of the teacher's class in the target, the rest being the data's label; at 1 labels are not
            needed.
        min_confidence: the teacher's class counts only where the teacher gives it this probability (at T = 1) or more;
            elsewhere the row keeps the data's label alone, or has no hard loss where it has none.
    """

    kind: str = "labels"
    top_k: int | None = None
    label_smoothing: float = 0.0
    mixture: float = 1.0
    min_confidence: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in HARD_KINDS:
            raise TargetError(f"hard targets '{self.kind}' are unknown", f"give one of {', '.join(HARD_KINDS)}")
        if not 0 <= self.label_smoothing < 1:
            raise TargetError(f"label_smoothing is {self.label_smoothing}", "give a number in [0, 1)")
        if self.top_k is not None and (self.top_k < 1 or self.kind != "teacher_sample"):
            raise TargetError(f"top_k is {self.top_k} with kind '{self.kind}'", "give k ≥ 1 with kind 'teacher_sample'")
        for name in ("mixture", "min_confidence"):
            value, default = getattr(self, name), getattr(type(self), name)
            if not 0 <= value <= 1:
                raise TargetError(f"{name} is {value}", "give a number in [0, 1]")
            if value != default and self.kind == "labels":
                raise TargetError(f"{name} is {value} with kind 'labels'", "give a kind that asks the teacher")

    @property
    def needs_labels(self) -> bool:
        """Whether the data's labels have to be given."""
        return self.kind == "labels" or self.mixture < 1

    def loss(
        self, student: Tensor, teacher: Tensor | None, labels: Tensor | None, temperatures: Temperatures
    ) -> Tensor:
        """The hard loss of each row in nats, ``[R]``; 0 where a row has no target.

        Args:
            student: logits ``[R, C]``.
            teacher: logits ``[R, C]``, unless kind is ``labels``.
            labels: ``[R]``, negative where a row has none.
            temperatures: its ``teacher`` tempers what is sampled from, its ``hard`` divides the student's logits.
        """
        logits = wide(student) if temperatures.hard is None else scaled_logits(student, temperatures.hard)
        if self.kind == "labels":
            assert labels is not None
            return self._against(logits, labels)
        assert teacher is not None
        chosen = teacher.argmax(-1) if self.kind == "teacher_argmax" else self._sample(teacher, temperatures)
        if self.min_confidence > 0:
            confidence = temper(teacher, 1.0).gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
            trusted = confidence >= self.min_confidence
            other = torch.full_like(chosen, IGNORED_LABEL) if labels is None else labels.long()
            chosen = torch.where(trusted, chosen, other)
        loss = self._against(logits, chosen)
        if self.mixture == 1:
            return loss
        assert labels is not None
        return self.mixture * loss + (1 - self.mixture) * self._against(logits, labels)

    def _against(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of each row; smoothing spreads over the classes that are not masked."""
        labels = labels.long().masked_fill(labels < 0, IGNORED_LABEL)
        loss = nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED_LABEL)
        if self.label_smoothing:
            live = logits != -math.inf
            each = torch.where(live, torch.log_softmax(logits, -1), 0.0).sum(-1) / live.sum(-1)
            loss = (1 - self.label_smoothing) * loss - self.label_smoothing * torch.where(labels >= 0, each, 0.0)
        return loss

    def _sample(self, teacher: Tensor, temperatures: Temperatures) -> Tensor:
        log_probs = log_temper(teacher, temperatures.teacher)
        log_probs = log_probs.flatten(0, -3)[0] if log_probs.ndim > 2 else log_probs  # of several T the first
        k = min(self.top_k or teacher.shape[-1], teacher.shape[-1])
        top = log_probs.topk(k, dim=-1)
        return top.indices.gather(-1, torch.multinomial(top.values.exp(), 1)).squeeze(-1)
