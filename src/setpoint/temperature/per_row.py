"""A temperature, or a weight, for each row, from how hard the row is for the student or right for the teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from setpoint.maths.moments import centred
from setpoint.maths.tempering import check_temperature, log_temper, temper
from setpoint.temperature.base import HIGHEST, TemperaturePolicy, balanced, bounded, check_within, needed, number, wide
from setpoint.types import Temperatures


class _ByDifficulty(TemperaturePolicy):
    """T_n = T₀ + strength·(w̄ − w_n) with a weight w_n that rises with difficulty and its mean w̄ over the rows given.

    Harder rows get a lower temperature, that is sharper targets. Detached. Kept at ``lowest`` or above: the formula
    alone has no lower bound, and reaches negative temperatures.
    """

    def __init__(self, temperature: float, strength: float, lowest: float) -> None:
        super().__init__()
        self.temperature = float(check_temperature(temperature))
        self.strength = check_within(strength, "strength", 0.0, 1e6)
        self.lowest = float(check_temperature(lowest, "lowest"))

    def _difficulty(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        raise NotImplementedError

    @torch.no_grad()
    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperatures of these rows, ``[..., 1]``."""
        weight = self._difficulty(teacher_logits, student_logits)
        rows = bounded(self.temperature + self.strength * (weight.mean() - weight), self.lowest, HIGHEST).unsqueeze(-1)
        return balanced(rows, rows, student_logits)

    def extra_repr(self) -> str:
        """The numbers, for ``repr``."""
        return f"{self.temperature:g}, strength={self.strength:g}, lowest={self.lowest:g}"


class FocalTemperature(_ByDifficulty):
    """FLSW: lower temperatures where student and teacher disagree; w = (1 − cos(v, z))^γ of the centred logits.

    The source takes raw logits, whose cosine changes with a constant added to a row.

    Args:
        temperature: T₀.
        strength: β.
        gamma: γ.
        lowest: the lowest temperature a row gets.

    Source: Wen et al. 2019, arXiv:1911.07471; code: TextBrewer, ``schedulers.py``.

    Examples:
        >>> v = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
        >>> FocalTemperature(4.0)(v, torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).teacher
        tensor([[6.],
                [2.]])
    """

    def __init__(
        self, temperature: float = 4.0, strength: float = 1.0, gamma: float = 2.0, lowest: float = 1.0
    ) -> None:
        super().__init__(temperature, strength, lowest)
        self.gamma = check_within(gamma, "gamma", 1e-3, 1e3)

    def _difficulty(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        v, z = (torch.nan_to_num(centred(wide(x)), neginf=0.0) for x in (teacher_logits, student_logits))
        lengths = (v.norm(dim=-1) * z.norm(dim=-1)).clamp(min=1e-8)
        difficulty: Tensor = (1 - (v * z).sum(-1) / lengths).clamp(min=0.0) ** self.gamma
        return difficulty


class ConfidenceTemperature(_ByDifficulty):
    """CWSM: lower temperatures where the student is unsure; w = 1 / (its top probability + 0.001).

    Args:
        temperature: T₀.
        strength: β.
        lowest: the lowest temperature a row gets.

    Source: Wen et al. 2019, arXiv:1911.07471; code: TextBrewer, ``schedulers.py``.

    Examples:
        >>> z = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
        >>> ConfidenceTemperature(4.0)(z, z).teacher
        tensor([[4.],
                [4.]])
    """

    def __init__(self, temperature: float = 4.0, strength: float = 1.0, lowest: float = 1.0) -> None:
        super().__init__(temperature, strength, lowest)

    def _difficulty(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        return 1 / (temper(student_logits, 1.0).amax(-1) + 1e-3)


class WeightedSoftLabels(TemperaturePolicy):
    """WSLD: a constant T, scale T²·(1 − exp(−CE_student / CE_teacher)), the cross-entropies of the label at T = 1.

    Rows that the student has learnt better than the teacher count less. Detached. Rows without a label count 1 − 1/e.

    Args:
        temperature: T.

    Source: Zhou et al. 2021 (ICLR), arXiv:2102.00650, and its code.

    Examples:
        >>> z = torch.zeros(1, 2)
        >>> WeightedSoftLabels(1.0)(z, z, torch.tensor([0])).scale
        tensor([0.6321])
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = float(check_temperature(temperature))

    @torch.no_grad()
    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperatures of these rows."""
        given = needed(labels, self)
        teacher, student = (label_loss(x, given) for x in (teacher_logits, student_logits))
        weight = torch.nan_to_num(torch.where(given < 0, 1.0, student / (teacher + 1e-7)), nan=1.0, posinf=1e6)
        constant = balanced(self.temperature, self.temperature, student_logits)
        return Temperatures(constant.teacher, constant.student, constant.scale * -torch.expm1(-weight))

    def extra_repr(self) -> str:
        """The temperature, for ``repr``."""
        return f"{self.temperature:g}"


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """−log softmax(logits)[label], ``[...]``; 0 where a row has no label."""
    chosen = log_temper(logits, 1.0).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return torch.where(labels < 0, number(0.0, logits), -chosen)
