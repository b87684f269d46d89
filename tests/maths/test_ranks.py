import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from setpoint.maths.ranks import rank_correlation

INF = math.inf
few_values = st.lists(st.integers(-3, 3), min_size=3, max_size=12)


@given(a=few_values, b=few_values, masked=st.lists(st.booleans(), min_size=12, max_size=12))
def test_it_is_scipys_with_ties_and_without_masked_classes(a, b, masked):
    n = min(len(a), len(b))
    keep = [not out for out in masked[:n]]
    x, y = ([v for v, kept in zip(row, keep, strict=False) if kept] for row in (a[:n], b[:n]))
    one = torch.tensor([v if kept else -INF for v, kept in zip(a, keep, strict=False)], dtype=torch.float64)
    found = float(rank_correlation(one, torch.tensor(b[:n], dtype=torch.float64)))
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(float(spearmanr(x, y).statistic), abs=1e-12)


def test_rows_are_by_themselves_and_no_temperature_matters():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(20, 9, generator=generator) for _ in range(2))
    found = rank_correlation(a, b)
    assert found.tolist() == pytest.approx([float(spearmanr(x, y).statistic) for x, y in zip(a, b, strict=True)])
    torch.testing.assert_close(rank_correlation(a / 7, b.exp()), found)
    assert rank_correlation(a, a).tolist() == pytest.approx([1.0] * 20)
    assert rank_correlation(a, -a).tolist() == pytest.approx([-1.0] * 20)
