import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import distillation as ref
from setpoint.errors import TemperatureError
from setpoint.maths import softness
from setpoint.maths.softness import soften

INF = math.inf


def rows(count, classes, seed=0):
    """Rows as a trained teacher has them: noise, one class that stands out, and a scale of their own."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), torch.randint(0, classes, (count,), generator=generator)] += 8
    return logits * (0.3 + 3 * torch.rand(count, 1, generator=generator))


def measured(kind, row, temperature):
    """By the definition, in float64 and plain Python."""
    probabilities = ref.softmax([float(x) for x in row], float(temperature))
    if kind == "other_mass":
        return 1 - max(probabilities)
    return math.exp(ref.entropy(probabilities)) if kind == "effective_classes" else ref.entropy(probabilities)


CASES = [
    ("effective_classes", lambda c: 1.5),
    ("effective_classes", lambda c: c**0.5),
    ("effective_classes", lambda c: 0.9 * c),
    ("entropy", lambda c: 0.1),
    ("entropy", lambda c: 0.5 * math.log(c)),
    ("other_mass", lambda c: 0.01),
    ("other_mass", lambda c: 0.3),
    ("other_mass", lambda c: 0.9 * (1 - 1 / c)),
]


@pytest.mark.parametrize(("kind", "wanted"), CASES)
@pytest.mark.parametrize(("count", "classes"), [(50, 3), (50, 10), (50, 100), (30, 1000), (2, 150_000)])
def test_each_row_is_as_soft_as_wanted(kind, wanted, count, classes):
    target, logits = wanted(classes), rows(count, classes)
    for row, t in zip(logits, soften(logits, kind, target), strict=True):
        assert measured(kind, row, t) == pytest.approx(target, rel=1e-4 if kind == "effective_classes" else 0, abs=1e-4)


@pytest.mark.parametrize("classes", [10, 1000, 32_000, 150_000])
def test_it_takes_few_iterations(classes, monkeypatch):
    """12 are the limit; on rows like a teacher's half of them do."""
    taken = []
    whole = softness._softness

    def counted(*arguments):
        taken.append(1)
        return whole(*arguments)

    monkeypatch.setattr(softness, "_softness", counted)
    logits = rows(4 if classes > 1000 else 100, classes)
    for kind, wanted in CASES:
        soften(logits[:1], kind, wanted(classes))  # what it knows of normal rows it works out once
        taken.clear()
        soften(logits, kind, wanted(classes))
        assert 1 <= sum(taken) <= 6


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.floats(-30, 30), min_size=4, max_size=4), min_size=1, max_size=5),
    st.sampled_from(["effective_classes", "entropy", "other_mass"]),
    st.floats(0.02, 0.98),
)
def test_any_row_gets_a_usable_temperature_and_its_softness_where_it_can(logits, kind, share):
    target = {"effective_classes": 4**share, "entropy": share * math.log(4), "other_mass": 0.75 * share}[kind]
    for row, t in zip(logits, soften(torch.tensor(logits), kind, target).tolist(), strict=True):
        assert 1e-3 <= t <= 1e4
        near = sorted(row, reverse=True)
        if near[0] - near[1] > 0.05 and min(b - a for a, b in zip(sorted(row), sorted(row)[1:], strict=False)) > 0.05:
            exact = torch.tensor(row)  # float32, as it was given
            assert measured(kind, exact, t) == pytest.approx(target, rel=2e-4, abs=2e-4)


@pytest.mark.parametrize("kind", softness.KINDS)
def test_the_ends_are_clamped(kind):
    logits = torch.tensor([[5.0, 1.0, 0.0], [3.0, 3.0, 0.0], [2.0, 2.0, 2.0], [4.0, 1.0, -INF], [7.0, -INF, -INF]])
    wide = {"effective_classes": 5.0, "entropy": 3.0, "other_mass": 0.9}[kind]
    sharp = {"effective_classes": 1.0, "entropy": 0.0, "other_mass": 1e-12}[kind]
    soft, hard = soften(logits, kind, wide), soften(logits, kind, sharp)
    assert torch.isfinite(soft).all()
    assert torch.isfinite(hard).all()
    assert (soft[[0, 1, 3]] > 1e3).all()  # as soft as T can make them
    assert (hard[[0, 1, 3]] < 0.5).all()  # as sharp: the tie of row 1 stays
    assert soft[2] == hard[2] == 1.0  # equal logits have no choice


@pytest.mark.parametrize("kind", softness.KINDS)
def test_what_softness_means_does_not_depend_on_the_teachers_scale(kind):
    logits = rows(20, 12)
    wanted = {"effective_classes": 3.0, "entropy": 1.0, "other_mass": 0.4}[kind]
    torch.testing.assert_close(soften(10 * logits, kind, wanted), 10 * soften(logits, kind, wanted), rtol=1e-3, atol=0)
    torch.testing.assert_close(soften(logits + 7, kind, wanted), soften(logits, kind, wanted), rtol=1e-3, atol=0)
    masked = torch.cat([logits, torch.full((20, 200), -INF)], -1)
    torch.testing.assert_close(soften(masked, kind, wanted), soften(logits, kind, wanted), rtol=1e-3, atol=0)


def test_shapes_dtypes_and_names():
    assert soften(torch.randn(2, 3, 5), "entropy", 0.5).shape == (2, 3)
    assert soften(torch.randn(5).double(), "entropy", 0.5).dtype == torch.float64
    assert soften(torch.randn(2, 5).half(), "entropy", 0.5).dtype == torch.float32
    assert soften(torch.zeros(0, 5), "entropy", 0.5).shape == (0,)
    with pytest.raises(TemperatureError, match="softness 'heat' is unknown: give one of effective_classes, entropy,"):
        soften(torch.zeros(2, 2), "heat", 1.0)


def test_scratch_space_is_work_space_and_nothing_else():
    scratch = []
    for logits in (rows(20, 10), rows(5, 300), rows(30, 10).double(), rows(3, 4)):
        torch.testing.assert_close(soften(logits, "entropy", 0.5, scratch=scratch), soften(logits, "entropy", 0.5))
    with torch.inference_mode():
        soften(rows(40, 500), "entropy", 0.5, scratch=scratch)
    soften(rows(4, 5), "entropy", 0.5, scratch=scratch)


@pytest.mark.parametrize("kind", softness.KINDS)
def test_rows_with_a_far_off_crowd_are_met_as_nearly(kind):
    """Two classes close together, all others 50 below: the curve has a plateau, where third order promises little."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 100, generator=generator)
    logits[:, 2:] -= 50
    target = {"effective_classes": 1.5, "entropy": 0.4, "other_mass": 0.2}[kind]
    for row, t in zip(logits, soften(logits, kind, target), strict=True):
        if float(row[:2].max() - row[:2].min()) > 0.05:  # else not even T = 0.001 parts the two
            assert measured(kind, row, t) == pytest.approx(
                target, rel=1e-4 if kind == "effective_classes" else 0, abs=1e-4
            )
