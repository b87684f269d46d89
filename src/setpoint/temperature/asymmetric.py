"""Temperatures of the teacher alone: the student is read at T = 1, where it will be used."""

from __future__ import annotations

import torch
from torch import Tensor

from setpoint.maths.tempering import check_temperature, log_temper
from setpoint.temperature.base import TemperaturePolicy, balanced, needed, number, wide
from setpoint.types import Temperatures


class TransformedTeacher(TemperaturePolicy):
    """TTM: the teacher at T, the student at 1; scale T.

    Dropping the student's temperature adds a Rényi-entropy penalty on its confidence to ordinary distillation:
    T·KL(p_T‖q) = T²·KL(p_T‖q_T) − T(T − 1)·[H_{1/T}(q) − H(p_T)]. With the scale T a weight α therefore means what it
    means at a matched temperature; the paper's β is αT/(1 − α).

    Args:
        temperature: T, the paper's 1/γ.

    Source: Zheng and Yang 2024 (ICLR), arXiv:2402.11148.

    Examples:
        >>> z = torch.zeros(1, 3)
        >>> TransformedTeacher(4.0)(z, z)
        Temperatures(teacher=tensor(4.), student=tensor(1.), scale=tensor(4.), ...)
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = float(check_temperature(temperature))

    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperatures of these rows."""
        return balanced(self.temperature, 1.0, student_logits)

    def extra_repr(self) -> str:
        """The temperature, for ``repr``."""
        return f"{self.temperature:g}"


class WeightedTransformedTeacher(TransformedTeacher):
    """WTTM: TTM with each row's divergence weighted by Σ softmax(v)^(1/T), so that soft targets count more.

    The weight runs from 1 (the teacher is sure) to C^(1 − 1/T); it takes the place of the scale T.

    Args:
        temperature: T, the paper's 1/γ.

    Source: Zheng and Yang 2024 (ICLR), arXiv:2402.11148.

    Examples:
        >>> z = torch.zeros(1, 4)
        >>> WeightedTransformedTeacher(2.0)(z, z).scale
        tensor([2.])
    """

    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperatures of these rows."""
        # In logarithms: a power of a probability that underflowed is lost.
        powers = log_temper(teacher_logits, 1.0) / self.temperature
        weight = torch.logsumexp(powers, dim=-1).exp()
        return Temperatures(number(self.temperature, student_logits), number(1.0, student_logits), weight)


class AsymmetricTemperature(TemperaturePolicy):
    """ATS: the teacher's logit of the right class divided by T_target, the others by T_other; student at 1, scale 1.

    T_target > T_other keeps the target from drowning the others while these keep their contrast. Logits divided class
    by class are centred first (see ``scaled_logits``): raw ones would make the loss depend on a constant added to a
    row. A row without a label takes the teacher's top class in its place.

    Args:
        target: temperature of the label's class.
        other: temperature of the others.

    Source: Li et al. 2022 (NeurIPS), arXiv:2210.04427, and its code.

    Examples:
        >>> z = torch.zeros(1, 3)
        >>> AsymmetricTemperature(4.0, 2.0)(z, z, torch.tensor([1])).teacher
        tensor([[2., 4., 2.]])
    """

    def __init__(self, target: float = 4.0, other: float = 2.0) -> None:
        super().__init__()
        self.target = float(check_temperature(target, "target"))
        self.other = float(check_temperature(other, "other"))

    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperatures of these rows."""
        chosen = needed(labels, self)
        chosen = torch.where(chosen < 0, teacher_logits.argmax(-1), chosen).unsqueeze(-1)
        teacher = torch.full_like(wide(teacher_logits), self.other).scatter(-1, chosen, self.target)
        one = number(1.0, student_logits)
        return Temperatures(teacher=teacher, student=one, scale=one)

    def extra_repr(self) -> str:
        """The temperatures, for ``repr``."""
        return f"target={self.target:g}, other={self.other:g}"
