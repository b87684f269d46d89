"""Numbers with their noise: means over seeds and what the spread says of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache


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
    half = t_quantile(0.5 + confidence / 2, n - 1) * math.sqrt(_variance(values) / n)
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


def welch_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Difference of the means of a and b with its interval, for values that are not pairs and may differ in spread.

    mean(a) − mean(b) ± t·√(u + v) with u = s²/n of a, v that of b, and (u + v)² / (u²/(n_a − 1) + v²/(n_b − 1))
    degrees of freedom. Source: Welch 1947, Biometrika 34(1–2).

    Returns:
        The interval; ``n`` counts the values of both.

    Raises:
        ValueError: no values on one side.

    Examples:
        >>> interval = welch_interval([0.9, 0.8, 0.7], [0.5, 0.6])
        >>> round(interval.mean, 3), round(interval.low, 3), round(interval.high, 3), interval.n
        (0.25, 0.001, 0.499, 5)
    """
    n = len(a) + len(b)
    if min(len(a), len(b)) == 0:
        raise ValueError("an interval needs at least one value on each side")
    difference = math.fsum(a) / len(a) - math.fsum(b) / len(b)
    if min(len(a), len(b)) == 1:
        return Interval(difference, math.nan, math.nan, n)
    u, v = (_variance(values) / len(values) for values in (a, b))
    if u + v == 0:
        return Interval(difference, difference, difference, n)
    degrees = (u + v) ** 2 / (u**2 / (len(a) - 1) + v**2 / (len(b) - 1))
    half = t_quantile(0.5 + confidence / 2, degrees) * math.sqrt(u + v)
    return Interval(difference, difference - half, difference + half, n)


def bootstrap_interval(
    statistic: Callable[[list[int]], float], n: int, confidence: float = 0.95, repeats: int = 1000, seed: int = 0
) -> Interval:
    """A statistic of n examples with its percentile interval over resamples of them.

    Of a difference of two models on the same examples it is the paired bootstrap. Source: Efron & Tibshirani 1993, An
    Introduction to the Bootstrap, chapter 13; for scores that are no means, Koehn 2004 (EMNLP).

    Args:
        statistic: of the examples of these numbers, which may come twice.
        n: how many examples there are.
        confidence: the probability that the interval is to hold.
        repeats: resamples.
        seed: of the resamples.

    Raises:
        ValueError: no examples.

    Examples:
        >>> values = [0.0, 1.0] * 50
        >>> interval = bootstrap_interval(lambda chosen: sum(values[i] for i in chosen) / len(chosen), 100)
        >>> interval.mean, 0.36 < interval.low < 0.44, 0.56 < interval.high < 0.64
        (0.5, True, True)
    """
    if n == 0:
        raise ValueError("an interval needs at least one example")
    whole = statistic(list(range(n)))
    if n == 1:
        return Interval(whole, math.nan, math.nan, 1)
    draw = random.Random(seed)
    values = sorted(statistic(draw.choices(range(n), k=n)) for _ in range(repeats))
    low, high = (_quantile(values, p) for p in (0.5 - confidence / 2, 0.5 + confidence / 2))
    return Interval(whole, low, high, n)


def _variance(values: Sequence[float]) -> float:
    """The unbiased variance."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _quantile(ordered: Sequence[float], probability: float) -> float:
    """A quantile of sorted values, on the line between the two next to it."""
    place = probability * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


@cache
def t_quantile(probability: float, degrees: float | int) -> float:
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


def t_cdf(t: float, degrees: float | int) -> float:
    """P(X ≤ t) for t ≥ 0, degrees of freedom whole or not, by the incomplete beta function.

    Source: Abramowitz & Stegun 1964, 26.7.1.
    """
    return 0.5 + 0.5 * _beta(t * t / (degrees + t * t), 0.5, degrees / 2)


def _beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (NIST's DLMF, 8.17.22) from the end."""
    if x <= 0:
        return 0.0
    if x > (a + 1) / (a + b + 2):  # there the fraction of the other end is short
        return 1.0 - _beta(1 - x, b, a)
    value = 1.0
    for m in range(200, 0, -1):
        value = 1 + m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)) / value
        k = m - 1
        value = 1 - (a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1)) / value
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return math.exp(a * math.log(x) + b * math.log1p(-x) - log_beta) / a / value
