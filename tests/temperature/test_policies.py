import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from setpoint import Constant, Cosine, Exponential, Linear, Step
from setpoint.errors import TemperatureError
from setpoint.maths.divergences import forward_kl
from setpoint.maths.tempering import log_temper

LOGITS = torch.zeros(2, 3)
positive = st.floats(0.01, 100)
progress = st.floats(0, 1)


def values(policy, progress=0.0):
    temperatures = policy(LOGITS, LOGITS, None, progress)
    return tuple(round(float(x), 5) for x in (temperatures.teacher, temperatures.student, temperatures.scale))


def test_constant_in_all_its_spellings():
    assert values(Constant(4.0)) == (4.0, 4.0, 16.0)
    assert values(Constant(beta=0.25)) == (4.0, 4.0, 16.0)
    assert values(Constant(teacher=4.0, student=2.0)) == (4.0, 2.0, 8.0)
    assert repr(Constant(4.0)) == "Constant(4)"
    assert repr(Constant(teacher=4.0, student=2.0)) == "Constant(teacher=4, student=2)"


@pytest.mark.parametrize(
    "arguments", [{}, {"temperature": 1.0, "beta": 1.0}, {"teacher": 1.0}, {"temperature": 1.0, "student": 1.0}]
)
def test_constant_takes_one_spelling(arguments):
    with pytest.raises(TemperatureError, match="give temperature, or beta, or teacher and student"):
        Constant(**arguments)


@pytest.mark.parametrize("bad", [0.0, -2.0, math.nan, math.inf])
def test_no_policy_takes_a_temperature_that_is_none(bad):
    makers = [
        lambda: Constant(bad), lambda: Constant(beta=bad), lambda: Constant(teacher=bad, student=1.0),
        lambda: Constant(teacher=1.0, student=bad), lambda: Linear(bad, 1.0), lambda: Cosine(1.0, bad),
        lambda: Exponential(bad, bad), lambda: Step({0.0: bad}), lambda: Linear(beta=(1.0, bad)),
        lambda: Step(beta={0.0: bad}),
    ]  # fmt: skip
    for make in makers:
        with pytest.raises(TemperatureError, match="give a finite number above 0"):
            make()


@pytest.mark.parametrize("kind", [Linear, Cosine, Exponential])
@given(start=positive, end=positive, share=progress)
def test_schedules_go_from_start_to_end_and_stay_between(kind, start, end, share):
    policy = kind(start, end)
    assert policy.at(0.0) == pytest.approx(start)
    assert policy.at(1.0) == pytest.approx(end)
    assert min(start, end) * (1 - 1e-9) <= policy.at(share) <= max(start, end) * (1 + 1e-9)


def test_schedules_take_beta_for_each_temperature():
    for kind in (Linear, Cosine, Exponential):
        assert kind(beta=(0.125, 0.5)).at(0.25) == kind(8.0, 2.0).at(0.25)
    assert Step(beta={0.0: 0.125, 0.5: 0.5}).at(0.7) == 2.0
    for make in (lambda: Linear(8.0), lambda: Linear(8.0, 2.0, beta=(1.0, 1.0)), Cosine):
        with pytest.raises(TemperatureError, match="give start and end, or beta for both"):
            make()
    for make in (Step, lambda: Step({0.0: 1.0}, beta={0.0: 1.0})):
        with pytest.raises(TemperatureError, match="give steps, or beta for each step"):
            make()


def test_schedules_at_a_quarter():
    assert Linear(8.0, 2.0).at(0.25) == 6.5
    assert Cosine(8.0, 2.0).at(0.25) == pytest.approx(5 + 3 * math.sqrt(0.5))
    assert Exponential(8.0, 2.0).at(0.25) == pytest.approx(8 / math.sqrt(2))
    assert Exponential(8.0, 2.0).at(0.25) / Exponential(8.0, 2.0).at(0.5) == pytest.approx(math.sqrt(2))


def test_steps_begin_at_their_progress():
    policy = Step({0.5: 2.0, 0.0: 8.0, 0.9: 1.0})
    assert [policy.at(p) for p in (0.0, 0.499, 0.5, 0.89, 0.9, 1.0)] == [8.0, 8.0, 2.0, 2.0, 1.0, 1.0]
    for steps in ({0.5: 1.0}, {0.0: 1.0, 1.5: 2.0}):
        with pytest.raises(TemperatureError, match="the first of them 0"):
            Step(steps)


def test_a_schedule_reads_progress_and_scales_by_its_own_square():
    assert values(Linear(8.0, 2.0), 0.5) == (5.0, 5.0, 25.0)
    assert values(Linear(8.0, 2.0), 7.0) == (2.0, 2.0, 4.0)  # beyond the end: the end


def test_the_scale_keeps_the_size_of_the_gradient():
    """Section 1.3: scale·gradient converges as T grows; without it, it would fall with 1/T²."""
    z, v = torch.randn(20, dtype=torch.float64, requires_grad=True), torch.randn(20, dtype=torch.float64)
    norms = {}
    for t in (1.0, 8.0, 64.0, 512.0):
        temperatures = Constant(t)(v, z)
        loss = temperatures.scale * forward_kl(log_temper(z, t), log_temper(v, t))
        norms[t] = float(torch.autograd.grad(loss, z)[0].norm())
    assert norms[64.0] == pytest.approx(norms[512.0], rel=0.02)
    assert norms[1.0] == pytest.approx(norms[512.0], rel=0.6)


def test_the_scale_of_two_temperatures_is_their_product():
    """Section 1.3: T_s·T_t·∂L/∂z tends to (1/K)[(T_t/T_s)(z − z̄) − (v − v̄)]."""
    z, v = torch.randn(9, dtype=torch.float64, requires_grad=True), torch.randn(9, dtype=torch.float64)
    t_teacher, t_student = 2e4, 1e4
    temperatures = Constant(teacher=t_teacher, student=t_student)(v, z)
    loss = temperatures.scale.double() * forward_kl(log_temper(z, t_student), log_temper(v, t_teacher))
    (gradient,) = torch.autograd.grad(loss, z)
    expected = ((t_teacher / t_student) * (z - z.mean()) - (v - v.mean())).detach() / 9
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)


def test_temperatures_are_as_wide_as_the_logits():
    wide = Constant(3.3)(LOGITS.double(), LOGITS.double())
    assert float(wide.teacher) == 3.3
    assert Constant(3.3)(LOGITS.half(), LOGITS.half()).teacher.dtype == torch.float32
