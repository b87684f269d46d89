"""The table over T against loops in float64, autograd and the objective itself."""

import itertools
import math
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from reference import distillation as ref
from setpoint import Constant, DistillationObjective, calibration_error
from setpoint.insight import over_temperature as module
from setpoint.insight.over_temperature import fidelity, fit, grid, over_temperature

INF = math.inf
ROWS, CLASSES, ALPHA = 30, 6, 0.9
GENERATOR = torch.Generator().manual_seed(0)
TEACHER = 3 * torch.randn(ROWS, CLASSES, generator=GENERATOR, dtype=torch.float64)
STUDENT = torch.randn(ROWS, CLASSES, generator=GENERATOR, dtype=torch.float64) + TEACHER / 2
LABELS = torch.randint(0, CLASSES, (ROWS,), generator=GENERATOR)
TS = (0.5, 1.0, 4.0, 30.0)


def mean(values):
    values = list(values)
    return math.fsum(values) / len(values)


def figures(found):
    return {name: value for name, value in asdict(found).items() if value is not None}


def by_loops(teacher, student, labels, t):
    """What the attributes of AtTemperature say, row by row."""
    parts = {name: [] for name in ("h", "mass", "others", "second", "nll", "kl", "all", "target", "tail", "off", "lim")}
    for v, z, y in zip(teacher.tolist(), student.tolist(), labels.tolist(), strict=True):
        p, q, one, n = ref.softmax(v, t), ref.softmax(z, t), ref.softmax(v), len(v)
        top = max(range(n), key=v.__getitem__)
        rest = [p[k] for k in range(n) if k != top]
        mass = math.fsum(rest)
        g = [(b - a) / t for a, b in zip(p, q, strict=True)]
        limit = [((z[k] - mean(z)) - (v[k] - mean(v))) / n for k in range(n)]
        least, total = [], 0.0
        for k in sorted(range(n), key=one.__getitem__):
            total += one[k]
            if total >= 0.01:
                break
            least.append(g[k])
        parts["h"].append(ref.entropy(p))
        parts["mass"].append(mass)
        parts["others"].append(mass * math.exp(ref.entropy([x / mass for x in rest])))
        parts["second"].append(max(rest))
        parts["nll"].append(-math.log(p[y]))
        parts["kl"].append(ref.kl(p, q))
        parts["all"].append(math.fsum(x * x for x in g))
        parts["target"].append(g[y] ** 2)
        parts["tail"].append(math.fsum((x - mean(least)) ** 2 for x in least))
        parts["off"].append(math.fsum((t * t * x - y) ** 2 for x, y in zip(g, limit, strict=True)))
        parts["lim"].append(math.fsum(x * x for x in limit))
    whole = {name: math.fsum(values) for name, values in parts.items()}
    rows = len(teacher)
    return {
        "effective_classes": mean(map(math.exp, parts["h"])),
        "entropy": whole["h"] / rows,
        "dark_mass": whole["mass"] / rows,
        "other_classes": whole["others"] / whole["mass"],
        "runner_up_share": whole["second"] / whole["mass"],
        "nll": whole["nll"] / rows,
        "kl": whole["kl"] / rows,
        "target_gradient": whole["target"] / whole["all"],
        "tail_gradient": whole["tail"] / whole["all"],
        "gradient_norm": t * t * math.sqrt(whole["all"] / rows),
        "gradient_norm_unscaled": math.sqrt(whole["all"] / rows),
        "limit_distance": math.sqrt(whole["off"] / whole["lim"]),
    }


@pytest.mark.parametrize("at", over_temperature(TEACHER, STUDENT, LABELS, TS, ALPHA), ids=lambda at: at.temperature)
def test_every_figure_is_the_definition_by_loops(at):
    expected = by_loops(TEACHER, STUDENT, LABELS, at.temperature)
    for name, value in expected.items():
        assert getattr(at, name) == pytest.approx(value, rel=1e-9), name
    assert at.ece == pytest.approx(calibration_error(TEACHER, LABELS, at.temperature), rel=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0])
def test_the_hard_losss_share_is_the_objectives(alpha):
    for at in over_temperature(TEACHER, STUDENT, LABELS, TS, alpha):
        objective = DistillationObjective(at.temperature, alpha=alpha)
        soft = objective.gradient_share(student_logits=STUDENT, teacher_logits=TEACHER, labels=LABELS)
        assert at.hard_gradient == pytest.approx(1 - soft, rel=1e-9, abs=1e-12)


def test_the_norms_are_autograds_with_the_objectives_scale_and_without():
    for at in over_temperature(TEACHER, STUDENT, LABELS, TS, ALPHA):
        z = STUDENT.clone().requires_grad_()
        (
            ROWS * DistillationObjective(at.temperature, alpha=1.0)(student_logits=z, teacher_logits=TEACHER).total
        ).backward()
        norm = float(z.grad.norm()) / math.sqrt(ROWS)
        assert at.gradient_norm == pytest.approx(norm, rel=1e-9)
        scale = float(Constant(at.temperature)(TEACHER, STUDENT).scale)
        assert at.gradient_norm_unscaled == pytest.approx(norm / scale, rel=1e-9)


def test_without_a_student_it_is_one_that_says_one_in_c():
    uniform = over_temperature(TEACHER, torch.zeros_like(TEACHER), LABELS, TS, ALPHA)
    for at, given_zeros in zip(over_temperature(TEACHER, None, LABELS, TS, ALPHA), uniform, strict=True):
        assert at.kl is None
        assert figures(at) == pytest.approx({name: x for name, x in figures(given_zeros).items() if name != "kl"})
        assert given_zeros.kl == pytest.approx(math.log(CLASSES) - at.entropy)


def test_without_labels_the_teachers_top_class_is_the_target():
    top = TEACHER.argmax(-1)
    for at, labelled in zip(
        over_temperature(TEACHER, STUDENT, None, TS, ALPHA),
        over_temperature(TEACHER, STUDENT, top, TS, ALPHA),
        strict=True,
    ):
        assert (at.nll, at.ece, at.hard_gradient) == (None, None, None)
        assert at.target_gradient == labelled.target_gradient


def test_masked_classes_are_no_classes():
    wide = [torch.cat([x[:, :2], torch.full((ROWS, 1), -INF), x[:, 2:]], -1) for x in (TEACHER, STUDENT)]
    labels = LABELS + (LABELS >= 2)
    for student, other in ((STUDENT, wide[1]), (None, None)):
        plain = over_temperature(TEACHER, student, LABELS, TS, ALPHA)
        for a, b in zip(plain, over_temperature(wide[0], other, labels, TS, ALPHA), strict=True):
            assert figures(a) == pytest.approx(figures(b), rel=1e-9)


@settings(max_examples=25)
@given(factor=st.floats(0.1, 10), seed=st.integers(0, 1000))
def test_twice_the_logits_at_twice_the_temperature_are_the_same_targets(factor, seed):
    generator = torch.Generator().manual_seed(seed)
    v = 3 * torch.randn(8, 5, generator=generator, dtype=torch.float64)
    shift = torch.randn(8, 1, generator=generator, dtype=torch.float64)
    (one,) = over_temperature(v, None, None, (2.0,), ALPHA)
    (other,) = over_temperature(factor * v + shift, None, None, (2.0 * factor,), ALPHA)
    same = ("effective_classes", "entropy", "dark_mass", "other_classes", "runner_up_share", "target_gradient")
    for name in same:
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9)
    (shifted,) = over_temperature(v + shift, None, None, (2.0,), ALPHA)
    assert figures(one) == pytest.approx(figures(shifted), rel=1e-9)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000))
def test_bounds_and_the_way_over_t(seed):
    v = 4 * torch.randn(20, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    table = over_temperature(v, None, v.argmax(-1), grid([1.0]), ALPHA)
    for one, two in itertools.pairwise(table):
        assert one.entropy < two.entropy
        assert one.dark_mass < two.dark_mass
    for at in table:
        assert 1 <= at.effective_classes <= 5
        assert 1 <= at.other_classes <= 4 + 1e-9
        assert 0.25 - 1e-9 <= at.runner_up_share <= 1
        assert 0 <= at.tail_gradient <= 1 - at.target_gradient + 1e-9
        assert 0 < at.hard_gradient < 1
    assert table[-1].limit_distance < table[len(table) // 2].limit_distance


def test_blocks_make_no_difference(monkeypatch):
    whole = over_temperature(TEACHER, STUDENT, LABELS, TS, ALPHA), fit("teacher", TEACHER, LABELS, 2.0)
    both = fidelity(TEACHER, STUDENT)
    monkeypatch.setattr(module, "BLOCK", 4 * CLASSES)  # 8 blocks, the last one shorter
    parts = over_temperature(TEACHER, STUDENT, LABELS, TS, ALPHA), fit("teacher", TEACHER, LABELS, 2.0)
    for a, b in zip(whole[0], parts[0], strict=True):
        assert figures(a) == pytest.approx(figures(b), rel=1e-12)
    assert (parts[1].nll, parts[1].ece) == pytest.approx((whole[1].nll, whole[1].ece), rel=1e-12)
    assert [part.rows for part in parts[1].bins] == [part.rows for part in whole[1].bins]
    assert figures(fidelity(TEACHER, STUDENT)) == pytest.approx(figures(both), rel=1e-12)


def test_float32_is_near_float64_at_every_temperature():
    ts = (0.01, 0.25, 1.0, 4.0, 32.0, 1000.0)
    exact = over_temperature(TEACHER, STUDENT, LABELS, ts, ALPHA)
    for a, b in zip(over_temperature(TEACHER.float(), STUDENT.float(), LABELS, ts, ALPHA), exact, strict=True):
        assert figures(a) == pytest.approx(figures(b), rel=1e-2 if a.temperature > 100 else 1e-4, abs=1e-12)
    half = over_temperature(TEACHER.bfloat16(), STUDENT.bfloat16(), LABELS, (4.0,), ALPHA)
    same = over_temperature(TEACHER.bfloat16().float(), STUDENT.bfloat16().float(), LABELS, (4.0,), ALPHA)
    assert half == same


def test_a_student_that_is_the_teacher_has_no_gradient_to_share():
    (at,) = over_temperature(TEACHER, TEACHER + 3.0, LABELS, (2.0,), ALPHA)
    assert at.kl == pytest.approx(0, abs=1e-12)
    (at,) = over_temperature(TEACHER, TEACHER, LABELS, (2.0,), ALPHA)
    assert (at.target_gradient, at.tail_gradient, at.limit_distance, at.gradient_norm) == (None, None, None, 0.0)
    assert at.hard_gradient == 1.0


def test_the_tail_is_what_tells_its_classes_apart_and_not_what_labels_would_do_too():
    """A binary teacher that is sure, and one whose tail is all alike, waste nothing at any temperature."""
    sure = torch.tensor([[9.0, 0.0], [0.0, 9.0]])
    alike = torch.tensor([[9.0, 0.0, 0.0, 0.0]])
    for v in (sure, alike):
        assert [at.tail_gradient for at in over_temperature(v, None, None, TS, ALPHA)] == pytest.approx([0] * 4)
    noisy = torch.tensor([[9.0, 3.0, -3.0, 0.0]])
    cold, hot = over_temperature(noisy, None, None, (1.0, 1000.0), ALPHA)
    assert cold.tail_gradient < 0.001
    assert hot.tail_gradient == pytest.approx((3**2 + 3**2) / ((9 - 2.25) ** 2 + 0.75**2 + 5.25**2 + 2.25**2), rel=0.01)


def test_the_fit_of_a_model():
    found = fit("student", TEACHER, LABELS, 2.0)
    p = torch.softmax(TEACHER / 2, -1)
    confidence, chosen = p.max(-1)
    assert found.accuracy == pytest.approx(float((chosen == LABELS).double().mean()))
    assert found.confidence == pytest.approx(float(confidence.mean()))
    assert found.nll == pytest.approx(float(torch.nn.functional.cross_entropy(TEACHER / 2, LABELS)))
    assert found.ece == pytest.approx(calibration_error(TEACHER, LABELS, 2.0))
    assert sum(part.rows for part in found.bins) == ROWS
    assert sum(part.rows * part.accuracy for part in found.bins if part.rows) == pytest.approx(ROWS * found.accuracy)
    for part in found.bins:
        if part.rows:
            assert part.low < part.confidence <= part.high
        else:
            assert (part.confidence, part.accuracy) == (None, None)


def test_fidelity_by_loops():
    rank = []
    for v, z in zip(TEACHER.tolist(), STUDENT.tolist(), strict=True):
        others = [k for k in range(CLASSES) if k != max(range(CLASSES), key=v.__getitem__)]
        rank.append(float(spearmanr([v[k] for k in others], [z[k] for k in others]).statistic))
    found = fidelity(TEACHER, STUDENT)
    assert found.rank_correlation == pytest.approx(mean(rank))
    assert found.top1 == float((TEACHER.argmax(-1) == STUDENT.argmax(-1)).double().mean())
    kl = [ref.kl(ref.softmax(v), ref.softmax(z)) for v, z in zip(TEACHER.tolist(), STUDENT.tolist(), strict=True)]
    assert found.kl == pytest.approx(mean(kl), rel=1e-9)
    assert fidelity(TEACHER[:, :2], STUDENT[:, :2]).rank_correlation is None


def test_the_grid_has_what_is_marked_and_reaches_beyond_it():
    assert set(grid([1.0, 3.3, 0.07])) >= {1.0, 3.3, 0.07, 0.25, 32.0}
    for marked in ([1.0], [0.002, 5.0], [7000.0]):
        found = grid(marked)
        assert list(found) == sorted(set(found))
        assert found[0] <= min(*marked, 0.25)
        assert found[-1] >= max(*marked, 32.0)
        assert max(math.log2(b / a) for a, b in itertools.pairwise(found)) <= 0.5 + 1e-9
