"""Numbers with their noise: means over seeds and what the spread says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A mean of ``n`` values with a confidence interval; its ends are NaN where one value tells no spread."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean and Student-t interval, mean ± t·s/√n with n − 1 degrees of freedom, for few and roughly normal values.

    Source: Student 1908, Biometrika 6(1).

    Raises:
        ValueError: no values.

    Examples:
        >>> interval = mean_interval([1.0, 2.0, 3.0])
        >>> interval.mean, round(interval.low, 3), round(interval.high, 3)
        (2.0, -0.484, 4.484)
    """
    n = len(values)
    if n == 0:
        raise ValueError("an interval needs at least one value")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = t_quantile(0.5 + confidence / 2, n - 1) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean and interval of a − b over pairs that share a seed; pairing removes what the seed does to both.

    Raises:
        ValueError: the lengths differ.

    Examples:
        >>> paired_interval([0.9, 0.8], [0.8, 0.7]).mean
        0.1
    """
    return mean_interval([round(x - y, 12) for x, y in zip(a, b, strict=True)], confidence)


def t_quantile(probability: float, degrees: int) -> float:
    """The value below which a Student-t variable falls with a probability in (0.5, 1); bisection on its CDF."""
    low, high = 0.0, 1.0
    while t_cdf(high, degrees) < probability:
        low, high = high, 2 * high
    for _ in range(100):
        middle = 0.5 * (low + high)
        if t_cdf(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def t_cdf(t: float, degrees: int) -> float:
    """P(X ≤ t) for t ≥ 0 and whole degrees of freedom, by the finite series in the angle θ = atan(t/√ν).

    Source: Abramowitz & Stegun 1964, 26.7.3 and 26.7.4.
    """
    theta = math.atan(t / math.sqrt(degrees))
    cosine, sine = math.cos(theta), math.sin(theta)
    if degrees % 2:
        term = total = cosine if degrees > 1 else 0.0
        for k in range(3, degrees - 1, 2):
            term *= cosine * cosine * (k - 1) / k
            total += term
        return 0.5 + (theta + sine * total) / math.pi
    term = total = 1.0
    for k in range(2, degrees - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 0.5 + 0.5 * sine * total
