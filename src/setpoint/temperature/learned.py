"""Temperatures that are learnt against the student: they move up the loss, by a curriculum."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from setpoint.errors import TargetError
from setpoint.maths.moments import centred
from setpoint.maths.tempering import check_temperature
from setpoint.temperature.base import TemperaturePolicy, balanced, check_within, number, wide
from setpoint.types import Temperatures


class _Reverse(torch.autograd.Function):
    """The identity, whose gradient is multiplied by −strength."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


class _Adversarial(TemperaturePolicy):
    """T = lowest + span·sigmoid(θ), θ moving up the loss with a strength that grows from 0 to 1."""

    def __init__(self, lowest: float, span: float, warmup: float) -> None:
        super().__init__()
        self.lowest = float(check_temperature(lowest, "lowest"))
        self.span = float(check_temperature(span, "span"))
        self.warmup = check_within(warmup, "warmup", 0.0, 1.0)

    def strength(self, progress: float) -> float:
        """λ: how much of the loss's gradient reaches θ, reversed, at a progress in [0, 1]."""
        done = 1.0 if self.warmup == 0 else min(max(progress, 0.0) / self.warmup, 1.0)
        return 0.5 * (1 - math.cos(math.pi * done))

    def _temper(self, theta: Tensor, progress: float, like: Tensor) -> Temperatures:
        theta = theta.to(number(0.0, like).dtype)
        temperature = _Reverse.apply(self.lowest + self.span * torch.sigmoid(theta), self.strength(progress))  # type: ignore[no-untyped-call]
        return balanced(temperature, temperature, like)

    def extra_repr(self) -> str:
        """The numbers, for ``repr``."""
        return f"lowest={self.lowest:g}, span={self.span:g}, warmup={self.warmup:g}"


class CurriculumTemperature(_Adversarial):
    """CTKD, global: one learned T = lowest + span·sigmoid(θ) that *maximises* the loss which the student minimises.

    The gradient reaches θ through both softmaxes and through the scale T², reversed, and multiplied by λ, which goes
    from 0 to 1 by a cosine over the first ``warmup`` of the training. θ starts at 1, so T at 15.6 by default. Give
    ``policy.parameters()`` to the student's optimiser; ``DistillationTrainer`` does.

    Args:
        lowest: the lower bound of T.
        span: how far above it T can go.
        warmup: the share of the training over which λ grows; the paper's 10 of 240 epochs.

    Source: Li et al. 2023 (AAAI), arXiv:2211.16231, and its code. It shares the student's optimiser there too,
    with its weight decay; here it is spared the decay.

    Examples:
        >>> z = torch.zeros(1, 3)
        >>> round(float(CurriculumTemperature()(z, z).teacher.detach()), 3)
        15.621
    """

    def __init__(self, lowest: float = 1.0, span: float = 20.0, warmup: float = 10 / 240) -> None:
        super().__init__(lowest, span, warmup)
        self.theta = nn.Parameter(torch.tensor(1.0))

    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The learned temperature, for every row."""
        return self._temper(self.theta, progress, student_logits)


class InstanceCurriculumTemperature(_Adversarial):
    """CTKD, instance-wise: T of each row from a two-layer network that reads both models' logits; else as the global.

    The paper says that much; its code for this variant was never published, so width, activation and start are ours: 64
    units, ReLU, centred logits without gradient, and an output layer that starts at θ = 1 for every row.

    Args:
        classes: C; or call ``fit`` with the teacher's logits, which has it.
        lowest: the lower bound of T.
        span: how far above it T can go.
        warmup: the share of the training over which λ grows.

    Raises:
        TargetError: at a call, where neither has been given.

    Source: Li et al. 2023 (AAAI), arXiv:2211.16231

    Examples:
        >>> z = torch.zeros(2, 3)
        >>> InstanceCurriculumTemperature(3)(z, z).teacher.shape
        torch.Size([2, 1])
    """

    def __init__(
        self, classes: int | None = None, lowest: float = 1.0, span: float = 20.0, warmup: float = 10 / 240
    ) -> None:
        super().__init__(lowest, span, warmup)
        self.network: nn.Module | None = None
        if classes is not None:
            self._build(classes)

    def _build(self, classes: int) -> None:
        # The same start for every seed of the student, without a draw from its random numbers.
        hidden, output = (
            nn.Linear(*size, device="meta").to_empty(device="cpu") for size in ((2 * classes, 64), (64, 1))
        )
        generator = torch.Generator().manual_seed(0)
        bound = 1 / math.sqrt(2 * classes)
        for parameter in hidden.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        nn.init.zeros_(output.weight)
        nn.init.ones_(output.bias)
        self.network = nn.Sequential(hidden, nn.ReLU(), output)

    def fit(self, teacher_logits: Tensor) -> None:
        """Take the number of classes from these logits ``[N, C]``."""
        if self.network is None:
            self._build(teacher_logits.shape[-1])

    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The learned temperature of each row, ``[..., 1]``."""
        if self.network is None:
            raise TargetError("the temperature's network does not know the number of classes", "give it, or call fit")
        both = torch.cat([centred(wide(x.detach())) for x in (teacher_logits, student_logits)], dim=-1)
        read = torch.nan_to_num(both, neginf=0.0).clamp(-100, 100).to(next(self.network.parameters()).dtype)
        return self._temper(self.network(read), progress, student_logits)
