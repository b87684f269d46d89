"""The policy by itself: where it starts, how it moves, its state. Its gradient is tested in tests/test_meta.py."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from setpoint import DistillationObjective, MetaTemperature
from setpoint.errors import TemperatureError

Z = torch.zeros(2, 3)


def test_it_moves_as_adam_does():
    gradients = [3.0, -1.0, 0.5, 0.0, 1e-6]
    policy = MetaTemperature(start=2.0, rate=0.1).double()
    theta = torch.nn.Parameter(torch.tensor(math.log(2.0), dtype=torch.float64))
    adam = torch.optim.Adam([theta], lr=0.1, eps=0.0)
    for gradient in gradients:
        policy.move(torch.tensor(gradient, dtype=torch.float64))
        theta.grad = torch.tensor(gradient, dtype=torch.float64)
        adam.step()
        assert policy.temperature == pytest.approx(math.exp(float(theta.detach())), rel=1e-6)


@given(gradients=st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30), rate=st.floats(0.01, 100))
def test_whatever_the_gradients_it_stays_in_range(gradients, rate):
    policy = MetaTemperature(rate=rate)
    for gradient in gradients:
        policy.move(torch.tensor(gradient, dtype=torch.float64))
        assert 1e-3 <= float(policy(Z, Z).teacher) <= 1e4


@pytest.mark.parametrize("start", [1e-3, 1e4])
def test_at_its_bounds_it_still_has_a_gradient(start):
    policy = MetaTemperature(start=start, rate=1.0)
    policy.move(torch.tensor(1.0 if start < 1 else -1.0))  # further out
    with policy.watched() as theta:
        slope = torch.autograd.grad(policy(Z, Z).teacher, theta)[0]
    assert float(slope) == pytest.approx(start, rel=1e-3)


def test_only_while_watched_it_has_a_graph():
    policy = MetaTemperature()
    assert not policy(Z, Z).teacher.requires_grad
    with policy.watched():
        assert policy(Z, Z).scale.requires_grad
    assert not policy(Z, Z).teacher.requires_grad
    assert not list(policy.parameters())


def test_its_state_is_whole():
    one, two = MetaTemperature(), MetaTemperature(start=1.0)
    for gradient in (1.0, -2.0):
        one.move(torch.tensor(gradient))
    DistillationObjective(two).load_state_dict(DistillationObjective(one).state_dict())
    for policy in (one, two):
        policy.move(torch.tensor(0.3))
    assert one.temperature == two.temperature != 4.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start": 0.0}, "start is 0.0: give a finite number above 0"),
        ({"start": 1e5}, "start is 100000.0: give a number from 0.001 to 10000"),
        ({"rate": -1.0}, "rate is -1.0: give a finite number above 0"),
        ({"every": 0}, "every is 0: give a whole number, 1 or above"),
        ({"held_out": 0.0}, "held_out is 0.0: give a share above 0, at most 0.5"),
        ({"held_out": 0.6}, "held_out is 0.6: give a number from 0 to 0.5"),
    ],
)
def test_wrong_arguments_are_refused(wrong, message):
    with pytest.raises(TemperatureError) as caught:
        MetaTemperature(**wrong)
    assert str(caught.value) == message


def test_repr():
    assert repr(MetaTemperature()) == "MetaTemperature(start=4, rate=0.05, every=10, held_out=0.05)"
