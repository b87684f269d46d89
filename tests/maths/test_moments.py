import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.maths.moments import centred, spread, top_of

INF = math.inf
few = settings(max_examples=50)
rows = st.lists(st.floats(-50, 50), min_size=2, max_size=9)
masks = st.lists(st.booleans(), min_size=9, max_size=9)


def masked(row, mask):
    """The row as a tensor, masked where the mask says so, but for its first class; and what is left of it."""
    keep = [not out or k == 0 for k, out in enumerate(mask[: len(row)])]
    full = torch.tensor([v if kept else -INF for v, kept in zip(row, keep, strict=True)], dtype=torch.float64)
    return full, np.array([v for v, kept in zip(row, keep, strict=True) if kept]), torch.tensor(keep)


@few
@given(row=rows, mask=masks)
def test_centred_takes_the_mean_of_the_live_classes(row, mask):
    full, left, keep = masked(row, mask)
    result = centred(full)
    assert result[keep].tolist() == pytest.approx((left - left.mean()).tolist(), abs=1e-12)
    assert (result[~keep] == -INF).all()


@few
@given(row=rows, mask=masks, unbiased=st.booleans())
def test_spread_is_the_standard_deviation_of_the_live_classes(row, mask, unbiased):
    full, left, _ = masked(row, mask)
    expected = left.std(ddof=int(unbiased)) if len(left) > 1 else 0.0
    assert spread(full, unbiased=unbiased).tolist() == pytest.approx([expected], rel=1e-9, abs=1e-9)


@few
@given(row=rows, mask=masks)
def test_top_of_is_how_far_the_top_stands_above_the_mean(row, mask):
    full, left, _ = masked(row, mask)
    assert top_of(full).tolist() == pytest.approx([left.max() - left.mean()], abs=1e-12)


def test_spread_without_bias_is_the_default():
    assert spread(torch.tensor([1.0, 3.0])).item() == pytest.approx(math.sqrt(2))
    assert spread(torch.tensor([1.0, 3.0]), unbiased=False).item() == pytest.approx(1.0)


@pytest.mark.parametrize("function", [centred, spread, top_of, lambda x: spread(x, unbiased=False)])
def test_gradients_are_the_derivatives(function):
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (x,))
    assert torch.autograd.gradgradcheck(function, (x,))


@pytest.mark.parametrize("function", [spread, top_of])
def test_masked_classes_have_no_part_in_value_or_gradient(function):
    full = torch.tensor([[1.0, -INF, 4.0, -2.0], [-INF, 0.5, 1.0, 3.0]], requires_grad=True)
    value = function(full)
    (gradient,) = torch.autograd.grad(value.sum(), full)
    for row, slope, one in zip(full.detach(), gradient, value.detach(), strict=True):
        live = row != -INF
        small = row[live].requires_grad_()
        alone = function(small)
        torch.testing.assert_close(alone.detach(), one)
        torch.testing.assert_close(torch.autograd.grad(alone.sum(), small)[0], slope[live])
        assert (slope[~live] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 0.1, 1e4 / 3])
@pytest.mark.parametrize("classes", [1, 2, 7, 100])
def test_a_row_of_equal_logits_has_a_spread_of_exactly_0_and_no_gradient(classes, level, dtype):
    x = torch.full((2, classes), level, dtype=dtype, requires_grad=True)
    value = spread(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert (value == 0).all()
    assert (gradient == 0).all()
    assert (top_of(x) >= 0).all()


def test_a_row_with_one_live_class_or_none():
    one, none = torch.tensor([-INF, 3.0]), torch.tensor([-INF, -INF])
    assert centred(one).tolist() == [-INF, 0.0]
    assert spread(one).tolist() == [0.0]
    assert top_of(one).tolist() == [0.0]
    assert spread(none).tolist() == [0.0]


def test_extreme_logits_stay_finite():
    x = torch.tensor([1e4, 0.0, -1e4], requires_grad=True)
    (gradient,) = torch.autograd.grad(spread(x).sum(), x)
    assert spread(x).item() == pytest.approx(1e4)
    assert torch.isfinite(gradient).all()
    assert top_of(x).item() == pytest.approx(1e4)


def test_the_level_of_a_row_does_not_matter():
    x = torch.randn(3, 5, dtype=torch.float64)
    for function in (centred, spread, top_of):
        torch.testing.assert_close(function(x + 7.0), function(x))
