"""Temperatures that change over the training, with the scale T² of the moment."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor

from setpoint.errors import TemperatureError
from setpoint.maths.tempering import check_temperature
from setpoint.temperature.base import TemperaturePolicy, balanced, from_beta
from setpoint.types import Temperatures


class _Schedule(TemperaturePolicy):
    """A temperature that is a function of progress alone."""

    @abstractmethod
    def at(self, progress: float) -> float:
        """The temperature at a progress in [0, 1]."""

    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperature of the moment, for every row."""
        temperature = self.at(min(max(progress, 0.0), 1.0))
        return balanced(temperature, temperature, student_logits)


class _FromTo(_Schedule):
    """From one temperature to another: ``start`` and ``end``, or ``beta`` = (1/start, 1/end)."""

    def __init__(
        self, start: float | None = None, end: float | None = None, *, beta: tuple[float, float] | None = None
    ) -> None:
        super().__init__()
        if [value is not None for value in (start, end, beta)] not in ([True, True, False], [False, False, True]):
            raise TemperatureError(
                f"{type(self).__name__} is given no temperatures, or several", "give start and end, or beta for both"
            )
        if beta is not None:
            start, end = (from_beta(value) for value in beta)
        self.start = float(check_temperature(start, "start"))  # type: ignore[arg-type]
        self.end = float(check_temperature(end, "end"))  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """The two ends, for ``repr``."""
        return f"start={self.start:g}, end={self.end:g}"


class Linear(_FromTo):
    """T = start + progress·(end − start); the ends also as ``beta=(1/start, 1/end)``, here and in its kin.

    Examples:
        >>> Linear(8.0, 2.0).at(0.5)
        5.0
    """

    def at(self, progress: float) -> float:
        """The temperature at a progress in [0, 1]."""
        return self.start + progress * (self.end - self.start)


class Cosine(_FromTo):
    """T = end + ½(1 + cos(π·progress))·(start − end): slow at both ends.

    Examples:
        >>> Cosine(8.0, 2.0).at(0.5)
        5.0
    """

    def at(self, progress: float) -> float:
        """The temperature at a progress in [0, 1]."""
        return self.end + 0.5 * (1 + math.cos(math.pi * progress)) * (self.start - self.end)


class Exponential(_FromTo):
    """T = start·(end / start)^progress: equal ratios in equal times.

    Examples:
        >>> round(Exponential(8.0, 2.0).at(0.5), 6)
        4.0
    """

    def at(self, progress: float) -> float:
        """The temperature at a progress in [0, 1]."""
        return float(self.start * (self.end / self.start) ** progress)


class Step(_Schedule):
    """A temperature that jumps.

    Args:
        steps: the temperature that begins at each progress; the first begins at 0.
        beta: 1/T at each progress, instead.

    Raises:
        TemperatureError: not one of the two, a progress outside [0, 1], none at 0, or a temperature that is none.

    Examples:
        >>> halves = Step({0.0: 8.0, 0.5: 2.0})
        >>> halves.at(0.49), halves.at(0.5)
        (8.0, 2.0)
    """

    def __init__(
        self, steps: Mapping[float, float] | None = None, *, beta: Mapping[float, float] | None = None
    ) -> None:
        super().__init__()
        if (steps is None) == (beta is None):
            raise TemperatureError("Step is given no temperatures, or several", "give steps, or beta for each step")
        if steps is None:
            assert beta is not None
            steps = {progress: from_beta(value, f"beta[{progress}]") for progress, value in beta.items()}
        if 0.0 not in steps or any(not 0 <= progress <= 1 for progress in steps):
            raise TemperatureError(
                f"steps begin at progress {sorted(steps)}", "give progress in [0, 1], the first of them 0"
            )
        self.steps = {float(p): float(check_temperature(t, f"steps[{p}]")) for p, t in sorted(steps.items())}

    def at(self, progress: float) -> float:
        """The temperature at a progress in [0, 1]."""
        return next(t for p, t in reversed(self.steps.items()) if progress >= p)

    def extra_repr(self) -> str:
        """The steps, for ``repr``."""
        return f"{self.steps}"


class Progressive(_FromTo):
    """A temperature that climbs by equal steps, one for each of ``stages`` equal parts of the training.

    Rising, against the falling schedules of annealing: sharp, easy targets first. Of its source this is the
    temperature; the easy-to-hard order of the data is not part of it.
    Source: Liu et al. 2025 (POCL), arXiv:2506.05695, and its code.

    Examples:
        >>> [round(Progressive(1.0, 2.0, stages=4).at(p), 2) for p in (0.0, 0.3, 0.6, 1.0)]
        [1.0, 1.33, 1.67, 2.0]
    """

    def __init__(
        self,
        start: float | None = None,
        end: float | None = None,
        *,
        beta: tuple[float, float] | None = None,
        stages: int = 4,
    ) -> None:
        if start is None and end is None and beta is None:
            start, end = 1.0, 2.0
        super().__init__(start, end, beta=beta)
        if stages < 2:
            raise TemperatureError(f"stages is {stages}", "give 2 or more")
        self.stages = stages

    def at(self, progress: float) -> float:
        """The temperature at a progress in [0, 1]."""
        stage = min(int(progress * self.stages), self.stages - 1)
        return self.start + (self.end - self.start) * stage / (self.stages - 1)
