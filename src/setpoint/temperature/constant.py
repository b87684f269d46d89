"""The same temperature from the first step to the last."""

from __future__ import annotations

from torch import Tensor

from setpoint.errors import TemperatureError
from setpoint.maths.tempering import check_temperature
from setpoint.temperature.base import TemperaturePolicy, balanced, from_beta
from setpoint.types import Temperatures


class Constant(TemperaturePolicy):
    """A constant T, scale T²; or one for each side, scale T_teacher·T_student.

    Args:
        temperature: T for both sides; or give ``beta`` = 1/T; or both ``teacher`` and ``student``.

    Raises:
        TemperatureError: not exactly one of those ways, or a temperature that is not finite and above 0.

    Source: Hinton et al. 2015, arXiv:1503.02531.

    Examples:
        >>> import torch
        >>> z = torch.zeros(1, 3)
        >>> Constant(4.0)(z, z)
        Temperatures(teacher=tensor(4.), student=tensor(4.), scale=tensor(16.), ...)
        >>> Constant(teacher=4.0, student=2.0)(z, z).scale
        tensor(8.)
    """

    def __init__(
        self,
        temperature: float | None = None,
        *,
        beta: float | None = None,
        teacher: float | None = None,
        student: float | None = None,
    ) -> None:
        super().__init__()
        given = [value is not None for value in (temperature, beta, teacher, student)]
        if given not in ([True, False, False, False], [False, True, False, False], [False, False, True, True]):
            raise TemperatureError(
                "Constant is given no temperature, or several", "give temperature, or beta, or teacher and student"
            )
        if beta is not None:
            temperature = from_beta(beta)
        both = teacher if temperature is None else temperature
        self.teacher = float(check_temperature(both, "teacher temperature" if teacher else "temperature"))  # type: ignore[arg-type]
        self.student = float(check_temperature(student, "student temperature")) if student is not None else self.teacher

    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The same temperatures, whatever the rows."""
        return balanced(self.teacher, self.student, student_logits)

    def extra_repr(self) -> str:
        """The temperatures, for ``repr``."""
        return (
            f"{self.teacher:g}"
            if self.teacher == self.student
            else f"teacher={self.teacher:g}, student={self.student:g}"
        )
