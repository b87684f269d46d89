import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from setpoint.maths.reduce import masked_mean

values = st.lists(st.tuples(st.floats(-1e3, 1e3), st.booleans()), min_size=1, max_size=20)


@given(values)
def test_the_mean_is_over_valid_rows(items):
    chosen = [value for value, valid in items if valid]
    expected = math.fsum(chosen) / len(chosen) if chosen else 0.0
    result = masked_mean(
        torch.tensor([v for v, _ in items], dtype=torch.float64), torch.tensor([valid for _, valid in items])
    )
    assert float(result) == pytest.approx(expected, abs=1e-9)


@given(values, st.integers(1, 5))
def test_parts_with_the_global_count_sum_to_the_whole(items, size):
    numbers = torch.tensor([v for v, _ in items], dtype=torch.float64)
    mask = torch.tensor([valid for _, valid in items])
    parts = [masked_mean(n, m, mask.sum()) for n, m in zip(numbers.split(size), mask.split(size), strict=True)]
    assert float(sum(parts)) == pytest.approx(float(masked_mean(numbers, mask)), abs=1e-9)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_what_stands_in_a_masked_row_cannot_leak(poison):
    numbers = torch.tensor([1.0, poison, 3.0], requires_grad=True)
    result = masked_mean(numbers * 2, torch.tensor([True, False, True]))
    result.backward()
    assert float(result.detach()) == 4.0
    assert numbers.grad.tolist() == [1.0, 0.0, 1.0]


def test_no_valid_row_is_a_loss_of_nothing():
    numbers = torch.tensor([1.0, 2.0], requires_grad=True)
    result = masked_mean(numbers, torch.tensor([False, False]))
    result.backward()
    assert float(result.detach()) == 0.0
    assert numbers.grad.tolist() == [0.0, 0.0]
