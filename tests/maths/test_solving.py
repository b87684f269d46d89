import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar

from reference import distillation as ref
from setpoint.errors import TemperatureError
from setpoint.maths import solving
from setpoint.maths.solving import calibrate_temperature, solve_temperature

# Logits a hundredth apart at least: ties at the top bound how sharp a row can be.
spread_rows = st.lists(st.integers(-3000, 3000), min_size=3, max_size=12, unique=True).map(
    lambda r: [v / 100 for v in r]
)
SOFTNESS = {
    "effective_classes": lambda p: math.exp(ref.entropy(p)),
    "entropy": ref.entropy,
    "top_probability": max,
}


def wanted(kind, classes, share):
    """A target that is the given share of the way from sharp to uniform."""
    low, high = {
        "effective_classes": (1.0, classes), "entropy": (0.0, math.log(classes)), "top_probability": (1.0, 1 / classes),
    }[kind]  # fmt: skip
    return low + share * (high - low)


@pytest.mark.parametrize("kind", list(SOFTNESS))
@given(row=spread_rows, share=st.floats(0.02, 0.98))
def test_a_row_is_as_soft_as_wanted(kind, row, share):
    target = wanted(kind, len(row), share)
    t = solve_temperature(torch.tensor([row], dtype=torch.float64), **{kind: target}, per_row=True)
    assert SOFTNESS[kind](ref.softmax(row, float(t))) == pytest.approx(target, abs=1e-6)


def test_the_temperature_is_the_one_that_brent_finds():
    row, target = [3.0, 1.0, 0.2, -1.0], 2.5
    expected = brentq(lambda t: math.exp(ref.entropy(ref.softmax(row, t))) - target, 1e-2, 1e3, xtol=1e-12)
    assert float(solve_temperature(torch.tensor(row), effective_classes=target)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", list(SOFTNESS))
def test_one_temperature_for_all_rows_meets_the_mean(kind):
    logits = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3
    target = wanted(kind, 6, 0.4)
    t = solve_temperature(logits, **{kind: target})
    mean = sum(SOFTNESS[kind](ref.softmax(row, t)) for row in logits.tolist()) / 40
    assert mean == pytest.approx(target, abs=1e-6)


@given(st.floats(0.01, 100))
def test_logits_times_a_factor_want_that_factor_times_the_temperature(factor):
    logits = torch.tensor([[2.0, 0.0, -1.0], [5.0, 4.0, 0.0]], dtype=torch.float64)
    once = solve_temperature(logits, effective_classes=1.7)
    assert solve_temperature(logits * factor, effective_classes=1.7) == pytest.approx(factor * once, rel=1e-6)


def test_rows_that_cannot_be_met():
    logits = torch.tensor([[1.0, 1.0, 1.0], [4.0, 4.0, 0.0], [2.0, 1.0, 0.0], [4.0, 4.0, -1e9]])
    t = solve_temperature(logits, effective_classes=1.5, per_row=True)
    assert t[0] == 1.0  # all equal: any temperature is as good
    assert t[1] == pytest.approx(4e-8, rel=1e-3)  # two at the top: never below 2 classes
    assert t[3] == pytest.approx(10.0, rel=1e-3)  # the smallest gap that is none of 0
    assert math.exp(ref.entropy(ref.softmax(logits[2].tolist(), float(t[2])))) == pytest.approx(1.5, abs=1e-6)
    with pytest.raises(TemperatureError, match="out of reach of these logits, nearest 2"):
        solve_temperature(logits[1:2], effective_classes=1.5)
    with pytest.raises(TemperatureError, match="all equal"):
        solve_temperature(logits[:1], effective_classes=1.5)


def test_masked_classes_do_not_count():
    masked = torch.tensor([[3.0, -math.inf, 1.0, 0.0]])
    t = solve_temperature(masked, entropy=0.9, per_row=True)
    assert ref.entropy(ref.softmax([3.0, 1.0, 0.0], float(t))) == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize("far", [-1e9, torch.finfo(torch.float32).min, torch.finfo(torch.float64).min, -math.inf])
@pytest.mark.parametrize("kind", list(SOFTNESS))
def test_a_class_masked_by_a_very_low_logit_does_not_count_either(kind, far):
    target = wanted(kind, 3, 0.3)
    logits = torch.tensor([[0.0, 1.0, 2.0, far], [0.0, 1.0, 2.0, -math.inf]], dtype=torch.float64)
    for t in (*solve_temperature(logits, **{kind: target}, per_row=True), solve_temperature(logits, **{kind: target})):
        assert SOFTNESS[kind](ref.softmax([0.0, 1.0, 2.0], float(t))) == pytest.approx(target, abs=1e-6)
    assert float(solve_temperature(logits[:1], effective_classes=1.5)) == pytest.approx(0.4726, abs=1e-4)


@pytest.mark.parametrize("kind", list(SOFTNESS))
@given(
    exponents=st.lists(st.floats(-200, 200), min_size=2, max_size=8), share=st.floats(0.02, 0.98), shared=st.booleans()
)
def test_gaps_of_any_size(kind, exponents, share, shared):
    row = [0.0, *(-(10.0**e) for e in exponents)]
    target = wanted(kind, len(row), share)
    steps = []
    softness = solving._softness
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solving, "_softness", lambda *given: steps.append(given) or softness(*given))
        t = solve_temperature(torch.tensor([row], dtype=torch.float64), **{kind: target}, per_row=not shared)
    assert SOFTNESS[kind](ref.softmax(row, float(t))) == pytest.approx(target, abs=1e-6)
    assert len(steps) < 80


def test_rows_that_are_done_do_not_start_again(monkeypatch):
    steps, softness = [], solving._softness
    monkeypatch.setattr(solving, "_softness", lambda *given: steps.append(given) or softness(*given))
    logits = torch.randn(4096, 10, generator=torch.Generator().manual_seed(0)) * 3
    t = solve_temperature(logits, effective_classes=3.0, per_row=True)
    p = torch.softmax(logits.double() / t[:, None], -1)
    torch.testing.assert_close((-(p * p.log()).sum(-1)).exp(), torch.full_like(t, 3.0), rtol=0, atol=1e-6)
    assert len(steps) < 25


@pytest.mark.parametrize("target", [1.01, 50.0, 1e5, 149_000.0])
def test_a_large_vocabulary(target):
    logits = torch.randn(2, 150_000, generator=torch.Generator().manual_seed(0)) * 3
    logits[1, 7] = -1e9
    for row, t in zip(logits.tolist(), solve_temperature(logits, effective_classes=target, per_row=True), strict=True):
        assert math.exp(ref.entropy(ref.softmax(row, float(t)))) == pytest.approx(target, abs=1e-6)


@pytest.mark.parametrize("row", [[math.nan, 0.0], [math.inf, 0.0], [math.inf, -math.inf], [-math.inf, -math.inf]])
def test_logits_that_are_not_finite(row):
    logits = torch.tensor([[1.0, 0.0], row])
    message = "^logits are not finite: give finite logits, and -inf at masked classes only$"
    for per_row in (True, False):
        with pytest.raises(TemperatureError, match=message):
            solve_temperature(logits, effective_classes=1.5, per_row=per_row)
    with pytest.raises(TemperatureError, match=message):
        calibrate_temperature(logits, torch.tensor([0, 1]))
    assert calibrate_temperature(logits, torch.tensor([0, -100])) == 1e-3  # a row without a label does not count


def test_calibration_with_masked_classes():
    logits = torch.tensor([[2.0, 0.0, -math.inf]]).expand(4, 3)
    assert calibrate_temperature(logits, torch.tensor([0, 0, 0, 1])) == pytest.approx(2 / math.log(3))
    with pytest.raises(TemperatureError, match="logits are not finite"):  # the label itself is masked
        calibrate_temperature(logits, torch.tensor([0, 0, 0, 2]))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({}, "0 targets of softness are given: give one of effective_classes, entropy, top_probability"),
        ({"entropy": 1.0, "top_probability": 0.5}, "2 targets of softness are given"),
        ({"effective_classes": 1.0}, "effective_classes is 1.0 for 3 classes: give a value between 1 and 3"),
        ({"effective_classes": 3.0}, "effective_classes is 3.0 for 3 classes: give a value between 1 and 3"),
        ({"entropy": math.nan}, "entropy is nan for 3 classes"),
        ({"top_probability": 0.2}, "top_probability is 0.2 for 3 classes: give a value between 0.333333 and 1"),
    ],
)
def test_targets_that_are_none(target, message):
    with pytest.raises(TemperatureError, match=message):
        solve_temperature(torch.randn(4, 3), **target)


def test_calibration_minimises_the_likelihood():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 7, dtype=torch.float64, generator=generator) * 4
    labels = torch.multinomial(torch.softmax(logits / 2.5, -1), 1, generator=generator).squeeze(-1)

    def nll(t):
        return -sum(math.log(ref.softmax(v, t)[y]) for v, y in zip(logits.tolist(), labels.tolist(), strict=True))

    best = minimize_scalar(nll, bounds=(0.5, 10), method="bounded", options={"xatol": 1e-8}).x
    assert calibrate_temperature(logits, labels) == pytest.approx(best, rel=1e-5)


def test_calibration_leaves_out_rows_without_a_label():
    logits, labels = torch.randn(50, 4), torch.randint(0, 4, (50,))
    labels[::2] = -100
    assert calibrate_temperature(logits, labels) == calibrate_temperature(logits[1::2], labels[1::2])
    with pytest.raises(TemperatureError, match="no row has a label"):
        calibrate_temperature(logits, torch.full((50,), -100))


def test_calibration_stops_at_the_ends_of_its_range():
    logits = torch.eye(3) * 5
    assert calibrate_temperature(logits, torch.tensor([0, 1, 2])) == 1e-3  # always right: ever sharper
    assert calibrate_temperature(logits, torch.tensor([1, 2, 0])) == 1e3  # always wrong: ever flatter
