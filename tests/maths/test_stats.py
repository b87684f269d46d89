import math

import numpy as np
import pytest
from scipy import stats

from setpoint.maths.stats import bootstrap_interval, mean_interval, paired_interval, t_cdf, t_quantile, welch_interval


@pytest.mark.parametrize("degrees", [1, 1.5, 2, 3, 4, 4.7, 5, 9, 10, 30, 31, 1000.5])
def test_student_t_is_scipys(degrees):
    for t in (0.0, 0.5, 1.7, 12.0):
        assert t_cdf(t, degrees) == pytest.approx(stats.t.cdf(t, degrees), abs=1e-12)
    for probability in (0.6, 0.9, 0.975, 0.9995):
        assert t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-9)


def test_the_interval_is_scipys():
    values = [0.81, 0.84, 0.79, 0.86]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    interval = mean_interval(values)
    assert (interval.mean, interval.n) == (pytest.approx(0.825), 4)
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


def test_a_pair_has_the_interval_of_its_differences():
    a, b = [0.9, 0.7, 0.8], [0.85, 0.72, 0.71]
    expected = mean_interval([x - y for x, y in zip(a, b, strict=True)])
    assert paired_interval(a, b).low == pytest.approx(expected.low)
    with pytest.raises(ValueError, match="shorter"):
        paired_interval([1.0], [])


def test_one_value_tells_no_spread():
    interval = mean_interval([0.5])
    assert interval.mean == 0.5
    assert math.isnan(interval.low)
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])


@pytest.mark.parametrize(
    ("a", "b"), [([0.81, 0.84, 0.79, 0.86], [0.7, 0.9]), ([1.0, 1.1, 1.0], [0.3, 0.5]), ([3.0, 1.0], [7.0, -2.0, 8.0])]
)
def test_what_is_not_paired_has_welchs_interval_as_scipy_has_it(a, b):
    interval = welch_interval(a, b)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert interval.mean == pytest.approx(np.mean(a) - np.mean(b))
    assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert interval.n == len(a) + len(b)


def test_one_value_on_a_side_tells_no_spread():
    interval = welch_interval([0.5], [0.25, 0.5])
    assert interval.mean == 0.125
    assert math.isnan(interval.low)
    assert welch_interval([0.5, 0.5], [0.25, 0.25]) == type(interval)(0.25, 0.25, 0.25, 4)
    with pytest.raises(ValueError, match="each side"):
        welch_interval([], [1.0])


def test_a_bootstrap_of_a_mean_has_the_interval_of_the_normal_law():
    values = np.random.default_rng(0).normal(size=400)
    interval = bootstrap_interval(lambda chosen: float(values[chosen].mean()), 400, repeats=4000)
    half = 1.96 * values.std() / math.sqrt(400)
    assert interval.mean == values.mean()
    assert interval.n == 400
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert bootstrap_interval(lambda chosen: float(values[chosen].mean()), 400, repeats=4000) == interval


def test_a_bootstrap_takes_scipys_quantiles_of_its_resamples():
    values, seen = np.random.default_rng(1).normal(size=30), []

    def statistic(chosen):
        seen.append(float(np.median(values[chosen])))
        return seen[-1]

    interval = bootstrap_interval(statistic, 30, confidence=0.9, repeats=501)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(seen[1:], [0.05, 0.95])))
    assert math.isnan(bootstrap_interval(statistic, 1).low)
    with pytest.raises(ValueError, match="example"):
        bootstrap_interval(statistic, 0)
