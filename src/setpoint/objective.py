"""The distillation loss: a temperature policy, a divergence, hard targets and a mask."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from setpoint.errors import LossError, TargetError
from setpoint.hard import HardTargets
from setpoint.maths.companions import COMPANIONS
from setpoint.maths.divergences import DIVERGENCES, Divergence
from setpoint.maths.reduce import masked_mean
from setpoint.maths.tempering import log_temper
from setpoint.temperature import Constant, TemperaturePolicy
from setpoint.temperature.base import mixed, wide
from setpoint.types import IGNORED_LABEL, LossOutput, Temperatures

ALL_DIVERGENCES = DIVERGENCES | COMPANIONS


class DistillationObjective(nn.Module):
    """α · mean(scale · divergence at T) + (1 − α) · mean(hard loss at T = 1), means over valid rows.

    Args:
        temperature: a number, or a policy.
        divergence: a name in ``ALL_DIVERGENCES``, or such a function (``functools.partial(dkd, other=2.0)``); the one
            of the policy's source where None, which is the forward KL for most.
        alpha: α, the weight of the divergence, in [0, 1]. At 0 no teacher is needed, at 1 no labels.
        hard: what the hard loss is taken against.
        wrong_teacher: weight of the divergence, in [0, 1], on rows whose label is not the teacher's top class.

    Raises:
        TemperatureError: a temperature that is not finite and above 0.
        TargetError: an unknown divergence or kind of hard targets, or a weight outside [0, 1].

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
        divergence: str | Divergence | None = None,
        alpha: float = 0.9,
        hard: HardTargets | str = "labels",
        wrong_teacher: float = 1.0,
    ) -> None:
        super().__init__()
        self.temperature = temperature if isinstance(temperature, TemperaturePolicy) else Constant(temperature)
        divergence = self.temperature.divergence if divergence is None else divergence
        if isinstance(divergence, str) and divergence not in ALL_DIVERGENCES:
            raise TargetError(f"divergence '{divergence}' is unknown", f"give one of {', '.join(ALL_DIVERGENCES)}")
        for name, value in (("alpha", alpha), ("wrong_teacher", wrong_teacher)):
            if not 0 <= value <= 1:
                raise TargetError(f"{name} is {value}", "give a number in [0, 1]")
        self.divergence = divergence
        self._function = ALL_DIVERGENCES[divergence] if isinstance(divergence, str) else divergence
        self._reads = frozenset(inspect.signature(self._function).parameters)
        self.alpha = alpha
        self.hard = hard if isinstance(hard, HardTargets) else HardTargets(hard)
        self.wrong_teacher = wrong_teacher

    @property
    def needs_teacher(self) -> bool:
        """Whether ``teacher_logits`` have to be given: for the divergence (α > 0) or the hard targets."""
        own_alpha = type(self.temperature).alpha is not TemperaturePolicy.alpha
        return self.alpha > 0 or own_alpha or self.hard.kind != "labels"

    def forward(
        self,
        *,
        student_logits: Float[Tensor, "*rows C"],
        teacher_logits: Float[Tensor, "*rows K"] | None = None,
        labels: Int[Tensor, "*rows"] | None = None,
        mask: Bool[Tensor, "*rows"] | Int[Tensor, "*rows"] | None = None,
        progress: float = 0.0,
        num_valid: Tensor | float | None = None,
        beside: Float[Tensor, "*rows"] | None = None,
        hard_loss: Float[Tensor, "*rows"] | None = None,
        weight: Float[Tensor, "*rows"] | None = None,
    ) -> LossOutput:
        """The loss of a batch.

        Args:
            student_logits: ``[..., C]``.
            teacher_logits: ``[..., C]``; detached here. May be missing unless ``needs_teacher``.
            labels: ``[...]``, ``-100`` where a row has none; what stands where the mask leaves a row out is not read.
            mask: ``[...]``, True or 1 where a row counts, False or 0 elsewhere; where None, the rows with a label, or
                all rows without labels. A row that counts without having a label has a hard loss of 0.
            progress: the share of training done, in [0, 1].
            num_valid: the number of valid rows in the whole optimisation step, where this batch is a part of it.
            beside: ``[...]``, added to each row's divergence as it is: what no temperature touches, such as boxes.
            hard_loss: ``[...]``, stands in for the hard targets' loss, whose labels are then not needed.
            weight: ``[...]``, multiplies each row's divergence; the mean is over rows all the same, not over weights.

        Raises:
            TargetError: what is needed is missing, or teacher and student differ in their number of classes, or a
                label is none of the classes, or the mask is neither bool nor integers 0 and 1.
            LossError: the loss is not a finite number; the message names the first such row and its temperature.
        """
        given = (student_logits, teacher_logits, labels, mask, progress, num_valid, beside, hard_loss, weight)
        weighted, rows, temperatures = self._weighted(*given)
        first, *others = (weight * term for weight, term in weighted.values())
        total = sum(others, first)
        if not math.isfinite(float(total.detach())):
            raise _not_finite(rows, temperatures)
        return LossOutput(total, {name: term.detach() for name, (_, term) in weighted.items()}, temperatures)

    def gradient_share(
        self,
        *,
        student_logits: Float[Tensor, "*rows C"],
        teacher_logits: Float[Tensor, "*rows K"],
        labels: Int[Tensor, "*rows"] | None = None,
        mask: Bool[Tensor, "*rows"] | Int[Tensor, "*rows"] | None = None,
        progress: float = 0.0,
    ) -> float:
        """The divergence's share of the gradient on the student's logits: ‖soft‖ / (‖soft‖ + ‖hard‖), in [0, 1].

        Arguments as of the call; nothing is changed by asking, neither gradients nor the state of a policy.
        """
        student = student_logits.detach().requires_grad_()
        training = self.training
        self.eval()
        try:
            with torch.enable_grad(), same_random_numbers(student.device):
                weighted, _, _ = self._weighted(student, teacher_logits, labels, mask, progress, None)
                sizes = {
                    name: float(torch.autograd.grad(weight * term, student, retain_graph=True)[0].norm())
                    for name, (weight, term) in weighted.items()
                }
        finally:
            self.train(training)
        whole = sum(sizes.values())
        return sizes.get("divergence", 0.0) / whole if whole > 0 else 0.0

    def _weighted(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        labels: Tensor | None,
        mask: Tensor | None,
        progress: float,
        num_valid: Tensor | float | None,
        beside: Tensor | None = None,
        hard_loss: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> tuple[dict[str, tuple[float, Tensor]], dict[str, Tensor], Temperatures]:
        """The terms with their weights, each term's rows, and the temperatures."""
        if mask is None:
            everywhere = torch.ones(student_logits.shape[:-1], dtype=torch.bool, device=student_logits.device)
            mask = everywhere if labels is None else labels != IGNORED_LABEL
        elif mask.dtype != torch.bool:
            # Indexing with an attention mask of integers would pick the rows 0 and 1, again and again.
            if mask.is_floating_point() or ((mask != 0) & (mask != 1)).any():
                raise TargetError("mask is neither bool nor integers 0 and 1", "give True or 1 where a row counts")
            mask = mask.bool()
        named = {"mask": mask, "labels": labels, "beside": beside, "hard_loss": hard_loss, "weight": weight}
        for name, given in named.items():
            if given is not None and given.shape != student_logits.shape[:-1]:
                shapes = f"{tuple(given.shape)}, student_logits {tuple(student_logits.shape)}"
                raise TargetError(f"{name} has shape {shapes}", "give one entry for each row of the logits")
        # Only valid rows go on: others cost nothing, and what stands in them, even NaN, cannot leak.
        valid = None if mask.ndim == 1 and bool(mask.all()) else mask.flatten().nonzero().squeeze(-1)
        labels = None if labels is None else _rows(labels, mask.ndim, valid)
        alpha = self.temperature.alpha(self.alpha, progress)
        self._check(student_logits, teacher_logits, labels, alpha, hard_loss is not None)
        student = _rows(student_logits, mask.ndim, valid)
        teacher = None if teacher_logits is None else _rows(teacher_logits.detach(), mask.ndim, valid)
        # Without a teacher (α = 0) nothing is tempered.
        temperatures: Temperatures = self.temperature(
            student.detach() if teacher is None else teacher, student, labels, progress
        )
        rows: dict[str, Tensor] = {}
        if alpha > 0:
            assert teacher is not None
            rows["divergence"] = self._divergences(student, teacher, labels, temperatures)
            if weight is not None:
                rows["divergence"] = rows["divergence"] * _rows(weight, mask.ndim, valid)
            if beside is not None:
                rows["divergence"] = rows["divergence"] + _rows(beside, mask.ndim, valid)
        if alpha < 1 and hard_loss is not None:
            rows["hard"] = _rows(hard_loss, mask.ndim, valid)
        elif alpha < 1:
            rows["hard"] = self.hard.loss(student, teacher, labels, temperatures)
        weights = {"divergence": alpha, "hard": 1 - alpha}
        weighted = {name: (weights[name], masked_mean(values, num_valid=num_valid)) for name, values in rows.items()}
        return weighted, rows, temperatures

    def _divergences(
        self, student: Tensor, teacher: Tensor, labels: Tensor | None, temperatures: Temperatures
    ) -> Tensor:
        """The scaled divergence of each row, ``[R]``."""
        given_teacher = teacher
        if temperatures.teacher_share is not None:
            teacher = mixed(student.detach(), teacher, temperatures.teacher_share)
        given: dict[str, Any] = {
            "labels": labels, "student_logits": wide(student), "teacher_logits": wide(teacher),
            "temperatures": temperatures,
        }  # fmt: skip
        read = {name: value for name, value in given.items() if name in self._reads}
        values = self._function(
            log_temper(student, temperatures.student), log_temper(teacher, temperatures.teacher), **read
        )
        tempered, plain = values if isinstance(values, tuple) else (values, None)
        scaled = temperatures.scale * tempered
        if scaled.ndim > 1:  # terms of a sum
            scaled = scaled.flatten(0, -2).sum(0)
        if plain is not None:
            scaled = scaled + plain
        if self.wrong_teacher < 1 and labels is not None:
            wrong = (labels >= 0) & (labels != given_teacher.argmax(-1))
            scaled = scaled * torch.where(wrong, self.wrong_teacher, 1.0)
        return scaled

    def _check(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        labels: Tensor | None,
        alpha: float,
        has_hard_loss: bool,
    ) -> None:
        classes = student_logits.shape[-1]
        if teacher_logits is None and self.needs_teacher:
            raise TargetError("teacher_logits are missing", "give them, or set alpha to 0 with hard='labels'")
        if teacher_logits is not None and teacher_logits.shape != student_logits.shape:
            shapes = f"{tuple(teacher_logits.shape)}, student_logits {tuple(student_logits.shape)}"
            raise TargetError(f"teacher_logits have shape {shapes}", "give both the same rows and classes")
        if labels is None and alpha < 1 and self.hard.needs_labels and not has_hard_loss:
            raise TargetError(
                "labels are missing while alpha is below 1", "give them, set alpha=1, or hard='teacher_argmax'"
            )
        if labels is not None:
            ends = labels.aminmax() if labels.numel() else ()
            if not all(0 <= int(end) < classes for end in ends):
                outside = labels[(labels != IGNORED_LABEL) & ((labels < 0) | (labels >= classes))]
                if len(outside):
                    raise TargetError(f"label {outside[0].item()} is none of {classes} classes", "mend the labels")

    def extra_repr(self) -> str:
        """Divergence, weight and hard targets, for ``repr``."""
        function = self._function.func if isinstance(self._function, partial) else self._function
        name = self.divergence if isinstance(self.divergence, str) else getattr(function, "__name__", "custom")
        return f"divergence={name}, alpha={self.alpha:g}, hard={self.hard.kind}"


def _rows(values: Tensor, axes: int, valid: Tensor | None) -> Tensor:
    """Some rows of a tensor whose first ``axes`` axes count rows; all where ``valid`` is None.

    By number and not by mask: on an accelerator the gradient of a mask is a sort, and each use of one waits for it.
    """
    return values if valid is None else values.reshape(-1, *values.shape[axes:]).index_select(0, valid)


@contextmanager
def same_random_numbers(device: torch.device) -> Iterator[None]:
    """Leave the random numbers as they were; ``torch.random.fork_rng`` would look for every accelerator first."""
    before, there = torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        torch.set_rng_state(before)
        if there is not None:
            torch.cuda.set_rng_state(there, device)


def _not_finite(rows: Mapping[str, Tensor], temperatures: Temperatures) -> LossError:
    """The error for the first row whose loss is not finite."""
    for name, values in rows.items():
        bad = (~torch.isfinite(values)).nonzero()
        if len(bad):
            row = int(bad[0])
            t = temperatures.student.detach()
            if name == "hard":  # taken at T = 1, unless the policy says otherwise
                t = torch.ones(()) if temperatures.hard is None else temperatures.hard.detach()
            t = t[..., row, :] if t.ndim > 1 and t.shape[-2] > 1 else t  # one for each row
            return LossError(
                f"the {name} loss of row {row} is {float(values[row].detach())} at T = {float(t.reshape(-1)[0]):g}",
                "lower the learning rate where the student's logits have run away, or mask no class on one side alone",
                row,
            )
    return LossError("the loss is not finite though that of each row is", "lower the learning rate", 0)
