"""Temperatures from the spread of each row's logits, of the teacher's and of the student's.

Unless a docstring says otherwise the student's temperature carries its gradient, as in the papers' code: it makes the
loss a function of the student's standardised logits.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from setpoint.maths.moments import spread, top_of
from setpoint.maths.tempering import check_temperature
from setpoint.temperature.base import TemperaturePolicy, balanced, bounded, check_within, number, wide
from setpoint.types import Temperatures


class _Ratio(TemperaturePolicy):
    """A policy with one number, the temperature after its statistic is divided out."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = float(check_temperature(temperature))

    def extra_repr(self) -> str:
        """The temperature, for ``repr``."""
        return f"{self.temperature:g}"


class LogitStandardisation(_Ratio):
    """LSKD: T = τ·σ(logits) for each side, the student's with its gradient; scale τ².

    The loss forgets shift and scale of the student's logits: its gradient is orthogonal to both, and as small as
    1/σ(z), so the weight of the divergence wants to be large (the paper: 9 against a hard loss of 0.1; α = 0.99 here).
    σ has K − 1 in its denominator, as the code has it. A row of equal logits gets T = 0.001.

    Args:
        temperature: τ.

    Source: Sun et al. 2024, arXiv:2403.01427, and its code.

    Examples:
        >>> v = torch.tensor([[0.0, 2.0, 4.0]])
        >>> LogitStandardisation(2.0)(v, 10 * v).student
        tensor([[40.]])
    """

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__(temperature)

    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperatures of these rows."""
        teacher, student = (bounded(self.temperature * spread(wide(x))) for x in (teacher_logits, student_logits))
        constant = balanced(self.temperature, self.temperature, student_logits)
        return Temperatures(teacher, student, constant.scale)


class NormKD(LogitStandardisation):
    """NormKD: T = τ·σ(logits) for each side like ``LogitStandardisation``, but scale T_teacher².

    Rows on which the teacher's logits spread more count more, by their variance.

    Args:
        temperature: τ.

    Source: Chi et al. 2023, arXiv:2308.00520, and its code.

    Examples:
        >>> v = torch.tensor([[0.0, 2.0, 4.0]])
        >>> NormKD(1.0)(v, v).scale
        tensor([4.])
    """

    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperatures of these rows."""
        standardised = super().forward(teacher_logits, student_logits, labels, progress)
        by_variance = balanced(standardised.teacher, standardised.teacher, teacher_logits)
        return replace(standardised, scale=by_variance.scale)


class Spherical(_Ratio):
    """Spherical KD: every row of logits, of both sides, brought to the spread m; then T, scale T².

    T_eff = T·σ(logits)/m. The hard loss too reads the student's logits at spread m. m is the teacher's mean σ over the
    rows given to ``fit``, or over the batch without it. σ has K in its denominator (a layer norm).

    Args:
        temperature: T.

    Source: Guo et al. 2020, arXiv:2010.07485, and its code.

    Examples:
        >>> v = torch.tensor([[-1.0, 1.0], [-3.0, 3.0]])
        >>> Spherical(4.0)(v, v).teacher  # m = 2
        tensor([[2.],
                [6.]])
    """

    level: Tensor

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__(temperature)
        self.register_buffer("level", torch.tensor(0.0))  # 0: not known yet

    def fit(self, teacher_logits: Tensor) -> None:
        """Take the mean spread of these logits ``[N, C]`` as m."""
        self.level.fill_(float(_level(teacher_logits)))

    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperatures of these rows."""
        level = self.level.to(student_logits.device) if self.level > 0 else _level(teacher_logits)
        # Of rows that all are flat nothing is known: m = 1.
        level = torch.where(level > 0, level, 1.0)
        teacher, student = (spread(wide(x), unbiased=False) / level for x in (teacher_logits, student_logits))
        constant = balanced(self.temperature, self.temperature, student_logits)
        return Temperatures(
            teacher=bounded(self.temperature * teacher),
            student=bounded(self.temperature * student),
            scale=constant.scale,
            hard=bounded(student),
        )


def _level(teacher_logits: Tensor) -> Tensor:
    return spread(wide(teacher_logits), unbiased=False).mean().detach()


class DynamicTemperature(_Ratio):
    """DTKD: T_teacher = 2x/(x + y)·τ and T_student = 2y/(x + y)·τ with x, y the top logits, so that x/T_t = y/T_s.

    The loss is own·T_t·T_s·KL(T_t, T_s) + (1 − own)·τ²·KL(τ, τ), growing over the first ``warmup`` of the training.
    With α = 0.8 and own = ¾ the weights are the paper's 3, 1 and 1. The top logits are those of *centred* logits: the
    paper's are raw, and so change with a constant added to a row, and can make a temperature negative. Each temperature
    is kept within τ/100 and 2τ. (The derivation in the paper is withdrawn by its authors; the method stands on its
    results.)

    Args:
        temperature: τ.
        own: share of the term with temperatures of their own.
        warmup: share of the training over which the divergence grows to its weight.

    Source: Wei and Bai 2024, arXiv:2404.12711, and its code.

    Examples:
        >>> v = torch.tensor([[-3.0, 0.0, 3.0]])
        >>> [float(x[0]) for x in (DynamicTemperature()(v, v / 3).teacher, DynamicTemperature()(v, v / 3).student)]
        [6.0, 2.0]
    """

    def __init__(self, temperature: float = 4.0, own: float = 0.75, warmup: float = 1 / 12) -> None:
        super().__init__(temperature)
        self.own, self.warmup = check_within(own, "own", 0.0, 1.0), check_within(warmup, "warmup", 0.0, 1.0)

    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The two pairs of temperatures, in front of the rows."""
        x, y = top_of(wide(teacher_logits)), top_of(wide(student_logits))
        both = x + y
        share = torch.where(both > 0, x / both.clamp(min=1e-30), 0.5)
        low, high = self.temperature / 100, 2 * self.temperature
        teacher = bounded(2 * self.temperature * share, low, high)
        student = bounded(2 * self.temperature * (1 - share), low, high)
        constant = number(self.temperature, student_logits).expand_as(teacher)
        weight = min(max(progress, 0.0) / self.warmup, 1.0) if self.warmup > 0 else 1.0
        own, same = balanced(teacher, student, student_logits), balanced(constant, constant, student_logits)
        return Temperatures(
            teacher=torch.stack([teacher, constant]),
            student=torch.stack([student, constant]),
            scale=weight * torch.stack([self.own * own.scale, (1 - self.own) * same.scale]),
        )
