import math

import numpy as np
import pytest
from scipy import stats

from setpoint.maths.stats import mean_interval, paired_interval, t_cdf, t_quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 30, 31])
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
