"""Several temperatures at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from setpoint.errors import TemperatureError
from setpoint.maths.tempering import check_temperature
from setpoint.temperature.base import TemperaturePolicy, balanced, number
from setpoint.types import Temperatures


class MultiTemperature(TemperaturePolicy):
    """The sum of a divergence at several temperatures, each with its own T².

    With N of them the divergence is about N times as large as with one.

    Args:
        temperatures: the temperatures.

    Raises:
        TemperatureError: there are none, or one that is not finite and above 0.

    Source: Jin et al. 2023 (CVPR), Multi-Level Logit Distillation, and its code; of which these are the
    temperatures, without the other losses and views.

    Examples:
        >>> z = torch.zeros(5, 3)
        >>> MultiTemperature((2.0, 4.0))(z, z).scale
        tensor([[ 4.],
                [16.]])
    """

    def __init__(self, temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0)) -> None:
        super().__init__()
        if len(temperatures) == 0:
            raise TemperatureError("MultiTemperature is given no temperatures", "give one at least")
        self.temperatures = tuple(float(check_temperature(t, "temperatures")) for t in temperatures)

    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperatures, in front of the rows: ``[N, 1, …, 1]``."""
        each = torch.stack([number(t, student_logits) for t in self.temperatures])
        each = each.reshape(-1, *[1] * student_logits.ndim)
        return balanced(each, each, student_logits)

    def extra_repr(self) -> str:
        """The temperatures, for ``repr``."""
        return ", ".join(f"{t:g}" for t in self.temperatures)
