"""What was logged while the students trained, as series over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Log = Sequence[Mapping[str, Any]]
"""The log of one training, an entry a logging step."""
Points = list[tuple[float, float]]
History = dict[str, dict[int, Points]]
"""By quantity and seed, (step, value)."""
Curves = Mapping[str, Mapping[int, Sequence[tuple[float, float]]]]
"""By kind of student and seed, the training loss as (step, nats)."""

TEMPERATURES = ("temperature", "student_temperature")
QUANTITIES = (*TEMPERATURES, "effective_classes", "divergence", "hard", "kd_gradient_share")


def points(log: Log, quantity: str) -> Points:
    """One quantity of a log over steps.

    Examples:
        >>> points([{"step": 10, "loss": 2.0}, {"step": 10, "eval_loss": 1.0}, {"step": 20, "loss": 1.5}], "loss")
        [(10, 2.0), (20, 1.5)]
    """
    return [(entry["step"], entry[quantity]) for entry in log if quantity in entry]


def history(logs: Mapping[int, Log]) -> History:
    """All that was logged of the distilled students; a temperature that never moved is left out.

    Args:
        logs: by seed.

    Examples:
        >>> log = [{"step": 1, "temperature": 4.0, "hard": 2.0}, {"step": 2, "temperature": 4.0, "hard": 1.0}]
        >>> history({0: log})
        {'hard': {0: [(1, 2.0), (2, 1.0)]}}
    """
    found: History = {}
    for quantity in QUANTITIES:
        series = {seed: points(log, quantity) for seed, log in logs.items()}
        series = {seed: one for seed, one in series.items() if one}
        values = {value for one in series.values() for _, value in one}
        if series and (quantity not in TEMPERATURES or len(values) > 1):
            found[quantity] = series
    return found


def ends(series: Mapping[int, Points]) -> tuple[float, float]:
    """The first value and the last, means over seeds.

    Examples:
        >>> ends({0: [(1, 6.0), (2, 1.0)], 1: [(1, 4.0), (2, 2.0)]})
        (5.0, 1.5)
    """
    first, last = ([one[place][1] for one in series.values()] for place in (0, -1))
    return sum(first) / len(first), sum(last) / len(last)
