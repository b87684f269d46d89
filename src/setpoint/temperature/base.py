"""What every way to set a temperature has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from setpoint.maths.tempering import check_temperature
from setpoint.types import Temperatures


class TemperaturePolicy(nn.Module, ABC):
    """Chooses the temperatures of a batch; a module, so that a learned policy has parameters and state."""

    @abstractmethod
    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperatures for these rows.

        Args:
            teacher_logits: ``[..., C]``.
            student_logits: ``[..., C]``.
            labels: ``[...]``, where there are any.
            progress: the share of training done, in [0, 1].
        """


def from_beta(beta: float, name: str = "beta") -> float:
    """T = 1/β, checked.

    Raises:
        TemperatureError: β is not a finite number above 0.
    """
    return 1.0 / float(check_temperature(beta, name))


def balanced(teacher: float, student: float, like: Tensor) -> Temperatures:
    """Temperatures with the scale T_teacher·T_student, which keeps the gradient's size as they change.

    The gradient of a tempered divergence shrinks with 1/T_student from the chain rule and 1/T_teacher from the ever
    flatter targets; for matched temperatures the product is the T² of Hinton et al. 2015, section 2. It is only
    written here.
    """
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    t, s = (torch.as_tensor(value, dtype=dtype, device=like.device) for value in (teacher, student))
    return Temperatures(teacher=t, student=s, scale=t * s)
