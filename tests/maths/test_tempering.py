import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference import distillation as ref
from setpoint.errors import TemperatureError
from setpoint.maths.tempering import effective_classes, entropy, log_partition, log_temper, temper

rows = st.lists(st.floats(-30, 30), min_size=2, max_size=12)
temperatures = st.floats(0.05, 50)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@given(rows, temperatures)
def test_tempering_is_the_softmax_of_the_definition(row, t):
    expected = tensor(ref.softmax(row, t))
    torch.testing.assert_close(temper(tensor(row), t), expected, rtol=1e-10, atol=1e-300)
    torch.testing.assert_close(temper(tensor(row), beta=1 / t), expected, rtol=1e-9, atol=1e-300)
    torch.testing.assert_close(log_temper(tensor(row), t).exp(), expected, rtol=1e-9, atol=1e-300)


@given(rows, st.floats(0.2, 5))
def test_tempering_is_the_power_transform_of_the_probabilities(row, t):
    p = tensor(ref.softmax(row)) ** (1 / t)
    torch.testing.assert_close(temper(tensor(row), t), p / p.sum(), rtol=1e-8, atol=1e-12)


@given(rows, temperatures, st.floats(-100, 100))
def test_a_shift_of_all_logits_changes_nothing(row, t, shift):
    torch.testing.assert_close(temper(tensor(row) + shift, t), temper(tensor(row), t), rtol=1e-7, atol=1e-12)


@given(rows, temperatures)
def test_entropy_and_partition_are_those_of_the_definition(row, t):
    h = ref.entropy(ref.softmax(row, t))
    assert float(entropy(tensor(row), t)) == pytest.approx(h, abs=1e-9)
    assert float(effective_classes(tensor(row), t)) == pytest.approx(math.exp(h), rel=1e-9)
    for function in (entropy, effective_classes, log_partition):
        torch.testing.assert_close(function(tensor(row), beta=1 / t), function(tensor(row), t), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(function(tensor(row)), function(tensor(row), 1.0))
    top = max(v / t for v in row)
    assert float(log_partition(tensor(row), t)) == pytest.approx(
        top + math.log(math.fsum(math.exp(v / t - top) for v in row)), abs=1e-9
    )


@given(rows, temperatures, st.floats(1.01, 10))
def test_entropy_never_falls_and_the_top_never_rises_with_temperature(row, t, factor):
    cold, warm = tensor(row), tensor(row)
    assert entropy(warm, t * factor) >= entropy(cold, t) - 1e-12
    assert temper(warm, t * factor).max() <= temper(cold, t).max() + 1e-12


def test_the_slope_of_entropy_is_the_variance_over_t_cubed():
    row, t = tensor([1.0, -2.0, 0.5, 3.0]), 2.5
    p = torch.tensor(ref.softmax(row.tolist(), t), dtype=torch.float64)
    variance = (p * row**2).sum() - (p * row).sum() ** 2
    step = 1e-5
    slope = (ref.entropy(ref.softmax(row.tolist(), t + step)) - ref.entropy(ref.softmax(row.tolist(), t - step))) / (
        2 * step
    )
    assert slope == pytest.approx(float(variance) / t**3, rel=1e-7)
    variable = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    entropy(row, variable).backward()
    assert float(variable.grad) == pytest.approx(slope, rel=1e-6)


def test_masked_classes_have_no_part_in_value_or_gradient():
    full = torch.tensor([1.0, -math.inf, 2.0, -math.inf], dtype=torch.float64, requires_grad=True)
    small = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    for function in (entropy, effective_classes, log_partition):
        a, b = function(full, 3.0), function(small, 3.0)
        (grad_full,) = torch.autograd.grad(a, full)
        (grad_small,) = torch.autograd.grad(b, small)
        assert float(a) == pytest.approx(float(b), abs=1e-12)
        torch.testing.assert_close(grad_full[[0, 2]], grad_small)
        assert grad_full[[1, 3]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("function", [temper, log_temper, log_partition, entropy, effective_classes])
def test_gradients_are_the_derivatives(function):
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([[0.7], [1.0], [4.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (logits, t))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2), (torch.float32, 1e-6)])
def test_half_precision_logits_are_tempered_in_float32(dtype, tolerance):
    logits = torch.linspace(-4, 4, 9).to(dtype)
    result = temper(logits, 2.0)
    assert result.dtype == torch.float32
    expected = torch.tensor(ref.softmax(torch.linspace(-4, 4, 9).tolist(), 2.0))
    torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)


def test_extreme_logits_stay_finite():
    for value in (1e4, -1e4):
        row = torch.tensor([value, 0.0, -value])
        assert torch.isfinite(log_temper(row, 0.1)).all()
        assert torch.isfinite(entropy(row, 0.01)).all()


def test_a_temperature_for_each_row_and_for_each_class():
    logits = torch.randn(2, 3, dtype=torch.float64)
    t = torch.tensor([[2.0], [5.0]], dtype=torch.float64)
    torch.testing.assert_close(temper(logits, t)[1], temper(logits[1], 5.0))
    by_class = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    expected = tensor(ref.softmax(((logits[0] - logits[0].mean()) / by_class).tolist()))
    torch.testing.assert_close(temper(logits, by_class)[0], expected)
    torch.testing.assert_close(temper(logits + 5.0, by_class)[0], expected)  # as every softmax forgets a shift
    masked = torch.cat([logits, torch.full((2, 1), -math.inf, dtype=torch.float64)], -1)
    torch.testing.assert_close(temper(masked, torch.tensor([1.0, 2.0, 4.0, 8.0]).double())[0, :3], expected)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, torch.tensor([1.0, 0.0])])
def test_a_temperature_that_is_none_is_refused(bad):
    shown = bad[1].item() if isinstance(bad, torch.Tensor) else bad
    for given_as in ({"temperature": bad}, {"beta": bad}):
        with pytest.raises(TemperatureError, match=f"is {shown}: give a finite number above 0"):
            temper(torch.zeros(2), **given_as)


def test_temperature_and_beta_exclude_each_other():
    for arguments in ({}, {"temperature": 1.0, "beta": 1.0}):
        with pytest.raises(TemperatureError, match="give one of them; beta is 1/T"):
            temper(torch.zeros(2), **arguments)
