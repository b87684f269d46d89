"""The distillation loss: a temperature policy, a divergence, hard targets and a mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from setpoint.errors import TargetError
from setpoint.maths.divergences import DIVERGENCES
from setpoint.maths.reduce import masked_mean
from setpoint.maths.tempering import log_temper
from setpoint.temperature import Constant, TemperaturePolicy
from setpoint.types import IGNORED_LABEL, LossOutput, Temperatures

HARD_KINDS = ("labels", "teacher_argmax", "teacher_sample")


@dataclass(frozen=True)
class HardTargets:
    """What the hard loss is taken against.

    Attributes:
        kind: the data's labels; the teacher's most likely class; or a class sampled from the teacher's p_T.
        top_k: sample among the k most likely classes only.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1).
    """

    kind: str = "labels"
    top_k: int | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in HARD_KINDS:
            raise TargetError(f"hard targets '{self.kind}' are unknown", f"give one of {', '.join(HARD_KINDS)}")
        if not 0 <= self.label_smoothing < 1:
            raise TargetError(f"label_smoothing is {self.label_smoothing}", "give a number in [0, 1)")
        if self.top_k is not None and (self.top_k < 1 or self.kind != "teacher_sample"):
            raise TargetError(f"top_k is {self.top_k} with kind '{self.kind}'", "give k ≥ 1 with kind 'teacher_sample'")


class DistillationObjective(nn.Module):
    """α · mean(scale · divergence at T) + (1 − α) · mean(hard loss at T = 1), means over valid rows.

    Args:
        temperature: a number, or a policy.
        divergence: a name in ``setpoint.maths.divergences.DIVERGENCES``.
        alpha: α, the weight of the divergence, in [0, 1]. At 0 no teacher is needed, at 1 no labels.
        hard: what the hard loss is taken against.

    Raises:
        TemperatureError: a temperature that is not finite and above 0.
        TargetError: an unknown divergence or kind of hard targets, or α outside [0, 1].

    Source: Hinton et al. 2015, arXiv:1503.02531.

    Examples:
        >>> objective = DistillationObjective(temperature=4.0, alpha=0.9)
        >>> student, teacher = torch.zeros(2, 3, requires_grad=True), torch.eye(2, 3)
        >>> loss = objective(student_logits=student, teacher_logits=teacher, labels=torch.tensor([0, 1]))
        >>> loss.total.backward()
        >>> sorted(loss.terms)
        ['divergence', 'hard']
    """

    def __init__(
        self,
        temperature: float | TemperaturePolicy = 4.0,
        divergence: str = "forward_kl",
        alpha: float = 0.9,
        hard: HardTargets | str = "labels",
    ) -> None:
        super().__init__()
        if divergence not in DIVERGENCES:
            raise TargetError(f"divergence '{divergence}' is unknown", f"give one of {', '.join(DIVERGENCES)}")
        if not 0 <= alpha <= 1:
            raise TargetError(f"alpha is {alpha}", "give a number in [0, 1]")
        self.temperature = temperature if isinstance(temperature, TemperaturePolicy) else Constant(temperature)
        self.divergence = divergence
        self.alpha = alpha
        self.hard = hard if isinstance(hard, HardTargets) else HardTargets(hard)

    @property
    def needs_teacher(self) -> bool:
        """Whether ``teacher_logits`` have to be given: for the divergence (α > 0) or the hard targets."""
        return self.alpha > 0 or self.hard.kind != "labels"

    def forward(
        self,
        *,
        student_logits: Float[Tensor, "*rows C"],
        teacher_logits: Float[Tensor, "*rows K"] | None = None,
        labels: Int[Tensor, "*rows"] | None = None,
        mask: Bool[Tensor, "*rows"] | Int[Tensor, "*rows"] | None = None,
        progress: float = 0.0,
        num_valid: Tensor | float | None = None,
    ) -> LossOutput:
        """The loss of a batch.

        Args:
            student_logits: ``[..., C]``.
            teacher_logits: ``[..., C]``; detached here. May be missing unless ``needs_teacher``.
            labels: ``[...]``, ``-100`` where a row has none; what stands where the mask leaves a row out is not read.
            mask: ``[...]``, True or 1 where a row counts, False or 0 elsewhere; where None, the rows with a label, or
                all rows without labels.
            progress: the share of training done, in [0, 1].
            num_valid: the number of valid rows in the whole optimisation step, where this batch is a part of it.

        Raises:
            TargetError: what is needed is missing, or teacher and student differ in their number of classes, or a
                label is none of the classes, or the mask is neither bool nor integers 0 and 1.
        """
        if mask is None:
            mask = torch.ones(student_logits.shape[:-1], dtype=torch.bool, device=student_logits.device)
            mask = mask if labels is None else labels != IGNORED_LABEL
        elif mask.dtype != torch.bool:
            # Indexing with an attention mask of integers would pick the rows 0 and 1, again and again.
            if mask.is_floating_point() or ((mask != 0) & (mask != 1)).any():
                raise TargetError("mask is neither bool nor integers 0 and 1", "give True or 1 where a row counts")
            mask = mask.bool()
        labels = None if labels is None else labels[mask]
        self._check(student_logits, teacher_logits, labels)
        # Only valid rows go on: others cost nothing, and what stands in them, even NaN, cannot leak.
        student = student_logits[mask]
        teacher = None if teacher_logits is None else teacher_logits.detach()[mask]
        terms: dict[str, Tensor] = {}
        temperatures = self._temperatures(teacher, student, labels, progress)
        if self.alpha > 0:
            assert teacher is not None
            divergence = DIVERGENCES[self.divergence](
                log_temper(student, temperatures.student), log_temper(teacher, temperatures.teacher)
            )
            terms["divergence"] = masked_mean(temperatures.scale * divergence, num_valid=num_valid)
        if self.alpha < 1:
            terms["hard"] = self._hard_loss(student, teacher, labels, temperatures, num_valid)
        weights = {"divergence": self.alpha, "hard": 1 - self.alpha}
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        return LossOutput(total, {name: term.detach() for name, term in terms.items()}, temperatures)

    def _temperatures(
        self, teacher: Tensor | None, student: Tensor, labels: Tensor | None, progress: float
    ) -> Temperatures:
        # Without a teacher (α = 0) nothing is tempered.
        chosen: Temperatures = self.temperature(
            student.detach() if teacher is None else teacher, student, labels, progress
        )
        return chosen

    def _hard_loss(
        self,
        student: Tensor,
        teacher: Tensor | None,
        labels: Tensor | None,
        temperatures: Temperatures,
        num_valid: Tensor | float | None,
    ) -> Tensor:
        if self.hard.kind == "teacher_argmax":
            assert teacher is not None
            labels = teacher.argmax(-1)
        elif self.hard.kind == "teacher_sample":
            assert teacher is not None
            labels = self._sample(log_temper(teacher, temperatures.teacher))
        assert labels is not None
        wide = student if student.dtype == torch.float64 else student.float()
        per_row = nn.functional.cross_entropy(
            wide, labels.long(), reduction="none", ignore_index=IGNORED_LABEL, label_smoothing=self.hard.label_smoothing
        )
        return masked_mean(per_row, labels != IGNORED_LABEL, num_valid)

    def _sample(self, teacher_log_probs: Tensor) -> Tensor:
        k = min(self.hard.top_k or teacher_log_probs.shape[-1], teacher_log_probs.shape[-1])
        top = teacher_log_probs.topk(k, dim=-1)
        return top.indices.gather(-1, torch.multinomial(top.values.exp(), 1)).squeeze(-1)

    def _check(self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor | None) -> None:
        classes = student_logits.shape[-1]
        if teacher_logits is None and self.needs_teacher:
            raise TargetError("teacher_logits are missing", "give them, or set alpha to 0 with hard='labels'")
        if teacher_logits is not None and teacher_logits.shape != student_logits.shape:
            shapes = f"{tuple(teacher_logits.shape)}, student_logits {tuple(student_logits.shape)}"
            raise TargetError(f"teacher_logits have shape {shapes}", "give both the same rows and classes")
        if labels is None and self.alpha < 1 and self.hard.kind == "labels":
            raise TargetError(
                "labels are missing while alpha is below 1", "give them, set alpha=1, or hard='teacher_argmax'"
            )
        if labels is not None:
            outside = (labels != IGNORED_LABEL) & ((labels < 0) | (labels >= classes))
            if outside.any():
                raise TargetError(f"label {labels[outside][0].item()} is none of {classes} classes", "mend the labels")

    def extra_repr(self) -> str:
        """Divergence, weight and hard targets, for ``repr``."""
        return f"divergence={self.divergence}, alpha={self.alpha:g}, hard={self.hard.kind}"
