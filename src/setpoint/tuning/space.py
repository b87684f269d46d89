"""What a search varies: ranges of numbers and sets of choices."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Dimension:
    """One field of the recipe that a search varies: a range ``low`` … ``high``, or ``choices``.

    Attributes:
        name: the field, as a recipe names it (``temperature.temperature``).
        low: least value of a range.
        high: greatest value of a range.
        log: whether the range is even in the logarithm, as a temperature's is.
        choices: the values of a field that is no range; empty for a range.

    Raises:
        ValueError: no name; neither a range nor choices, or both; ends that are not finite, not in order, or not
            above 0 where ``log``; choices that repeat.

    Examples:
        >>> Dimension("temperature.temperature", 1.0, 12.0, log=True).is_range
        True
        >>> Dimension("objective.divergence", choices=("forward_kl", "reverse_kl")).is_range
        False
    """

    name: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[str | float | bool, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a dimension needs a name")
        if self.choices:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError(f"{self.name} has a range and choices: give one of them")
            if len(set(self.choices)) < len(self.choices):
                raise ValueError(f"{self.name} has choices that repeat: {self.choices}")
            return
        if self.low is None or self.high is None:
            raise ValueError(f"{self.name} has neither low and high nor choices")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"{self.name} goes from {self.low} to {self.high}: low < high, both finite")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.name} has a logarithmic range from {self.low}: low must be > 0")

    @property
    def is_range(self) -> bool:
        """Whether the values are numbers between two ends."""
        return not self.choices

    @property
    def ends(self) -> tuple[float, float]:
        """Least and greatest value of a range.

        Raises:
            ValueError: the dimension has choices.
        """
        if self.low is None or self.high is None:
            raise ValueError(f"{self.name} has choices, not a range")
        return self.low, self.high
