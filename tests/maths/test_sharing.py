import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference import distillation as ref
from setpoint.maths.sharing import dark_mass, tail

INF = math.inf
LOGITS = 4 * torch.randn(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
rows = st.lists(st.floats(-30, 30), min_size=2, max_size=8)


@pytest.mark.parametrize("t", [0.3, 1.0, 4.0, 50.0])
def test_the_dark_mass_is_the_definition_by_loops(t):
    mass, others, runner_up = dark_mass(LOGITS, t)
    for i, row in enumerate(LOGITS.tolist()):
        p = sorted(ref.softmax(row, t))
        off = math.fsum(p[:-1])
        share = [x / off for x in p[:-1]]
        assert float(mass[i]) == pytest.approx(off, rel=1e-9)
        assert float(others[i]) == pytest.approx(math.exp(ref.entropy(share)), rel=1e-9)
        assert float(runner_up[i]) == pytest.approx(share[-1], rel=1e-9)


@given(row=rows, t=st.floats(0.1, 20), shift=st.floats(-5, 5))
def test_masked_classes_and_a_constant_change_nothing(row, t, shift):
    plain = torch.tensor(row, dtype=torch.float64)
    masked = torch.tensor([row[0], -INF, *row[1:], -INF], dtype=torch.float64) + shift
    for a, b in zip(dark_mass(plain, t), dark_mass(masked, t), strict=True):
        assert float(a) == pytest.approx(float(b), rel=1e-6, abs=1e-12)
    _, others, runner_up = dark_mass(plain, t)
    assert 1 - 1e-9 <= float(others) <= len(row) - 1 + 1e-9
    assert 1 / (len(row) - 1) - 1e-9 <= float(runner_up) <= 1 + 1e-9


def test_a_mass_too_small_for_one_minus_the_top_is_still_shared_right():
    mass, others, runner_up = dark_mass(torch.tensor([60.0, 0.0, 0.0, -1.0]))
    assert float(mass) == pytest.approx((2 + math.exp(-1)) * math.exp(-60), rel=1e-4)
    share = [1 / (2 + math.exp(-1))] * 2 + [1 / (1 + 2 * math.e)]
    assert float(others) == pytest.approx(math.exp(ref.entropy(share)), rel=1e-5)
    assert float(runner_up) == pytest.approx(share[0], rel=1e-5)


def test_a_row_of_one_class_has_nothing_to_share():
    assert [float(x) for x in dark_mass(torch.tensor([3.0, -INF, -INF]))] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("mass", [0.01, 0.3])
def test_the_tail_is_as_many_of_the_least_likely_as_stay_below_the_mass(mass):
    found = tail(LOGITS, mass)
    for row, chosen in zip(LOGITS.tolist(), found.tolist(), strict=True):
        p, total, expected = ref.softmax(row), 0.0, set()
        for k in sorted(range(len(p)), key=p.__getitem__):
            total += p[k]
            if total >= mass:
                break
            expected.add(k)
        assert {k for k, inside in enumerate(chosen) if inside} == expected
    assert tail(torch.tensor([0.0, -INF, 9.0]), 0.001).tolist() == [True, False, False]
