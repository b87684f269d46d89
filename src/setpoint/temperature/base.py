"""What every way to set a temperature has in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from setpoint.errors import TargetError, TemperatureError
from setpoint.maths.moments import wide as wide
from setpoint.maths.softness import HIGHEST as HIGHEST
from setpoint.maths.softness import LOWEST as LOWEST
from setpoint.maths.tempering import check_temperature
from setpoint.types import Temperatures


class TemperaturePolicy(nn.Module, ABC):
    """Chooses the temperatures of a batch; a module, so that a learned policy has parameters and state.

    In training mode a policy that watches the training updates its state at each call; in ``eval`` mode it does not.

    Attributes:
        divergence: the name of the divergence its source takes.
    """

    divergence: str = "forward_kl"

    @abstractmethod
    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperatures for these rows.

        Args:
            teacher_logits: ``[..., C]``.
            student_logits: ``[..., C]``; with its graph, where the temperature is a function of it.
            labels: ``[...]``, where there are any; negative where a row has none.
            progress: the share of training done, in [0, 1].
        """

    def alpha(self, alpha: float, progress: float) -> float:
        """The weight of the divergence at this moment, where the objective's is ``alpha``."""
        return alpha

    def fit(self, teacher_logits: Tensor) -> None:
        """Learn from the teacher's logits ``[N, C]`` before the training, where a policy has something to learn."""


def mixed(student_logits: Tensor, teacher_logits: Tensor, teacher_share: Tensor | float) -> Tensor:
    """share·v + (1 − share)·z; a class that is masked on either side is masked."""
    z, v = wide(student_logits), wide(teacher_logits)
    masked = (z == -math.inf) | (v == -math.inf)
    share = number(teacher_share, z) if isinstance(teacher_share, float) else teacher_share
    return torch.lerp(z.masked_fill(masked, 0.0), v.to(z.dtype).masked_fill(masked, 0.0), share).masked_fill(
        masked, -math.inf
    )


def number(value: float, like: Tensor) -> Tensor:
    """A number as a tensor, as wide as the logits and beside them."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.full((), value, dtype=dtype, device=like.device)  # filled there: a copy would wait for an accelerator


def bounded(temperature: Tensor, lowest: float = LOWEST, highest: float = HIGHEST) -> Tensor:
    """A temperature kept within what is usable; one that is no number becomes 1."""
    return torch.nan_to_num(temperature, nan=1.0).clamp(lowest, highest)


def check_within(value: float, name: str, low: float, high: float) -> float:
    """Give a number back that is within ``low`` and ``high``.

    Raises:
        TemperatureError: it is not.

    Examples:
        >>> check_within(2.0, "own", 0.0, 1.0)
        Traceback (most recent call last):
        ...
        setpoint.errors.TemperatureError: own is 2.0: give a number from 0 to 1
    """
    if not low <= value <= high:
        raise TemperatureError(f"{name} is {value}", f"give a number from {low:g} to {high:g}")
    return value


def needed(labels: Tensor | None, policy: TemperaturePolicy) -> Tensor:
    """The labels of a policy that cannot do without.

    Raises:
        TargetError: there are none.
    """
    if labels is None:
        raise TargetError(f"labels are missing for the temperature policy {type(policy).__name__}", "give labels")
    return labels.long()


def from_beta(beta: float, name: str = "beta") -> float:
    """T = 1/β, checked.

    Raises:
        TemperatureError: β is not a finite number above 0.
    """
    return 1.0 / float(check_temperature(beta, name))


def balanced(teacher: float | Tensor, student: float | Tensor, like: Tensor) -> Temperatures:
    """Temperatures with the scale T_teacher·T_student, which keeps the gradient's size as they change.

    The gradient of a tempered divergence shrinks with 1/T_student from the chain rule and 1/T_teacher from the ever
    flatter targets; for matched temperatures the product is the T² of Hinton et al. 2015, section 2. It is only
    written here.

    Args:
        teacher: T of the teacher's logits; a number, or ``[..., 1]`` with one for each row.
        student: T of the student's logits, likewise.
        like: gives dtype and device.
    """
    if not isinstance(teacher, Tensor) and not isinstance(student, Tensor):
        t = number(teacher, like)
        return Temperatures(t, t if student == teacher else number(student, like), number(teacher * student, like))
    t, s = (value if isinstance(value, Tensor) else number(value, like) for value in (teacher, student))
    product = t * s
    return Temperatures(teacher=t, student=s, scale=product.squeeze(-1) if product.ndim else product)
