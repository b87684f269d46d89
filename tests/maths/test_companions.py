import inspect
import math

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reference import companions as ref
from setpoint import DistillationObjective, Temperatures
from setpoint.errors import TargetError
from setpoint.maths.companions import COMPANIONS, adaptive_kl, dist, dkd, squared_error
from setpoint.maths.divergences import forward_kl
from setpoint.maths.tempering import log_temper
from setpoint.temperature.several import MultiTemperature

INF = math.inf
every = pytest.mark.parametrize("name", list(COMPANIONS))
few = settings(max_examples=40)
labelled = pytest.mark.parametrize("name", ["dkd", "nkd"])
shift_free = pytest.mark.parametrize("name", [name for name in COMPANIONS if name != "squared_error"])
BY_ROW = {
    "dkd": lambda z, v, y, t: ref.dkd(z, v, y, t),
    "nkd": lambda z, v, y, t: math.fsum(ref.nkd(z, v, y, t)),
    "adaptive_kl": lambda z, v, y, t: ref.adaptive_kl(z, v, t),
    "todi": lambda z, v, y, t: ref.todi(z, v, t),
    "squared_error": lambda z, v, y, t: ref.squared_error(z, v, t, t),
}
by_row = pytest.mark.parametrize("name", list(BY_ROW))
pairs = st.integers(2, 8).flatmap(
    lambda n: st.tuples(*[st.lists(st.floats(-8, 8), min_size=n, max_size=n) for _ in range(2)], st.integers(-1, n - 1))
)


def test_every_companion_has_a_reference():
    assert {*BY_ROW, "dist"} == {*COMPANIONS}


def parts(name, z, v, labels=None, t=1.0, **options):
    """What the objective calls: tempered log-probabilities, and by name what the signature reads."""
    given_t = torch.as_tensor(t, dtype=z.dtype)
    given = {
        "labels": labels,
        "student_logits": z,
        "teacher_logits": v,
        "temperatures": Temperatures(given_t, given_t, given_t**2),
    }
    read = inspect.signature(COMPANIONS[name]).parameters
    given = {key: value for key, value in given.items() if key in read}
    return COMPANIONS[name](log_temper(z, given_t), log_temper(v, given_t), **given, **options)


def between(name, z, v, labels=None, t=1.0, **options):
    """Nats per row; the two parts of nkd in one sum."""
    value = parts(name, z, v, labels, t, **options)
    return sum(value) if isinstance(value, tuple) else value


def batch(rows=4, classes=5, dtype=torch.float64, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    z, v = (torch.randn(rows, classes, dtype=torch.float64, generator=generator) * scale for _ in range(2))
    return z.to(dtype), v.to(dtype), torch.randint(0, classes, (rows,), generator=generator)


def value_and_gradient(name, z, v, labels=None, t=1.0, **options):
    z = z.detach().clone().requires_grad_()
    value = between(name, z, v, labels, t, **options)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient


# ---------------------------------------------------------------------------------------------------- values


@by_row
@few
@given(pair=pairs, t=st.floats(0.3, 20))
def test_against_the_reference(name, pair, t):
    student, teacher, label = pair
    if name == "adaptive_kl":  # where the head ends within rounding, or inside a tie, either choice is right
        assume(ref.head_of(teacher, t)[1] > 1e-9)
    z, v = (torch.tensor([x], dtype=torch.float64) for x in (student, teacher))
    value = between(name, z, v, torch.tensor([label]), t)
    assert float(value) == pytest.approx(BY_ROW[name](student, teacher, label, t), rel=1e-7, abs=1e-10)


@few
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(2, 6),
    classes=st.integers(3, 8),
    t=st.floats(0.5, 20),
    within=st.floats(0, 5),
    columns=st.floats(0, 5),
)
def test_the_mean_of_dist_over_rows_is_that_of_numpy(seed, rows, classes, t, within, columns):
    z, v, _ = batch(rows, classes, seed=seed)
    value = float(between("dist", z, v, t=t, within=within, between=columns).mean())
    assert value == pytest.approx(ref.dist(z.tolist(), v.tolist(), t, within, columns), rel=1e-7, abs=1e-9)


def test_each_row_of_dist_has_its_own_pearson_within():
    z, v, _ = batch()
    q, p = torch.softmax(z, -1).numpy(), torch.softmax(v, -1).numpy()
    expected = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)]
    assert between("dist", z, v, between=0.0).tolist() == pytest.approx(expected, rel=1e-9)
    # A single row, without an axis of rows, has no columns to relate.
    assert float(dist(log_temper(z[0], 1.0), log_temper(v[0], 1.0))) == pytest.approx(expected[0], rel=1e-9)


@few
@given(pair=pairs, t=st.floats(0.5, 8), target=st.floats(0, 10), other=st.floats(0, 10))
def test_dkd_weighs_its_two_parts(pair, t, target, other):
    student, teacher, label = pair
    z, v = (torch.tensor([x], dtype=torch.float64) for x in (student, teacher))
    value = between("dkd", z, v, torch.tensor([label]), t, target=target, other=other)
    assert float(value) == pytest.approx(ref.dkd(student, teacher, label, t, target, other), rel=1e-7, abs=1e-9)


@few
@given(pair=pairs, t=st.floats(0.5, 8))
def test_dkd_with_one_minus_p_y_is_the_forward_kl(pair, t):
    """Zhao et al. 2022, eq. 6: KD = TCKD + (1 − p_y) NCKD, p_y the teacher's at T."""
    student, teacher, label = pair
    z, v = (log_temper(torch.tensor(x, dtype=torch.float64), t) for x in (student, teacher))
    y = ref.target_of(teacher, label)
    other = math.fsum(math.exp(a) for k, a in enumerate(ref.log_softmax(teacher, t)) if k != y)
    value = dkd(z, v, torch.tensor(label), target=1.0, other=other)
    assert float(value) == pytest.approx(float(forward_kl(z, v)), rel=1e-7, abs=1e-10)


@few
@given(pair=pairs, t=st.floats(0.5, 8), other=st.floats(0, 5))
def test_nkd_keeps_its_part_at_t_1_apart(pair, t, other):
    student, teacher, label = pair
    z, v = (torch.tensor([x], dtype=torch.float64) for x in (student, teacher))
    tempered, plain = parts("nkd", z, v, torch.tensor([label]), t, other=other)
    expected = ref.nkd(student, teacher, label, t, other)
    assert (float(tempered), float(plain)) == pytest.approx(expected, rel=1e-7, abs=1e-10)


@few
@given(pair=pairs, head=st.floats(0.05, 0.95))
def test_the_head_of_adaptive_kl_can_be_set(pair, head):
    student, teacher, _ = pair
    assume(ref.head_of(teacher, 1.0, head)[1] > 1e-9)
    z, v = (torch.tensor([x], dtype=torch.float64) for x in (student, teacher))
    value = float(between("adaptive_kl", z, v, head=head))
    assert value == pytest.approx(ref.adaptive_kl(student, teacher, 1.0, head), rel=1e-7, abs=1e-10)


def test_squared_error_takes_its_two_temperatures():
    z, v, _ = batch()
    t = Temperatures(torch.tensor([[2.0], [3.0], [4.0], [5.0]]).double(), torch.tensor(0.5), torch.tensor(1.0))
    value = squared_error(log_temper(z, 0.5), log_temper(v, t.teacher), z, v, t)
    expected = [ref.squared_error(a, b, 0.5, s) for a, b, s in zip(z.tolist(), v.tolist(), (2, 3, 4, 5), strict=True)]
    assert value.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["dkd", "nkd", "todi"])
@few
@given(pair=pairs)
def test_never_negative(name, pair):
    # adaptive_kl and dist, sums of what is not negative with weights that are not, follow from their references.
    student, teacher, label = pair
    z, v = (torch.tensor([x], dtype=torch.float64) for x in (student, teacher))
    assert float(between(name, z, v, torch.tensor([label]))) >= -1e-12


def test_todi_has_no_ceiling():
    """Both logarithms are linear in the gap: a student that gives e^-100 to what its teacher is sure of pays 100."""
    z, v = torch.tensor([[0.0, 100.0]], dtype=torch.float64), torch.tensor([[100.0, 0.0]], dtype=torch.float64)
    value, gradient = value_and_gradient("todi", z, v)
    assert float(value) == pytest.approx(ref.todi([0.0, 100.0], [100.0, 0.0], 1.0))  # 200
    assert gradient[0].tolist() == pytest.approx(ref.todi_gradient([0.0, 100.0], [100.0, 0.0], 1.0))


# ---------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", ["dkd", "nkd", "dist", "squared_error"])
def test_gradients_are_the_derivatives(name):
    z, v, labels = batch(3, 5)
    labels[1] = -100
    assert torch.autograd.gradcheck(lambda z: between(name, z, v, labels, 2.0), (z.requires_grad_(),))
    assert torch.autograd.gradgradcheck(lambda z: between(name, z, v, labels, 2.0), (z.requires_grad_(),))


@pytest.mark.parametrize(("name", "reference"), [("todi", ref.todi_gradient), ("adaptive_kl", ref.adaptive_gradient)])
@few
@given(pair=pairs, t=st.floats(0.5, 20))
def test_weights_are_held_constant_in_the_gradient(name, reference, pair, t):
    student, teacher, _ = pair
    assume(name == "todi" or ref.head_of(teacher, t)[1] > 1e-9)
    assume(max(abs(a - b) for a, b in zip(student, teacher, strict=True)) > 1e-6)  # at p = q the share is 0 / 0
    z, v = (torch.tensor([x], dtype=torch.float64) for x in (student, teacher))
    _, gradient = value_and_gradient(name, z, v, t=t)
    assert gradient[0].tolist() == pytest.approx(reference(student, teacher, t), rel=1e-6, abs=1e-10)


@pytest.mark.parametrize(("name", "weight"), [("todi", "weights"), ("adaptive_kl", "share")])
def test_the_gradient_is_not_that_of_a_weight_that_moves(name, weight):
    """The check above would say nothing were the two gradients the same."""
    z, v, _ = batch(1, 5)
    _, gradient = value_and_gradient(name, z, v)
    step, moving = 1e-6, []
    for k in range(5):
        up, down = z.clone(), z.clone()
        up[0, k] += step
        down[0, k] -= step
        moving.append(float(between(name, up, v) - between(name, down, v)) / (2 * step))
    assert max(abs(a - b) for a, b in zip(gradient[0].tolist(), moving, strict=True)) > 1e-3


@pytest.mark.parametrize("name", [name for name in COMPANIONS if name != "nkd"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("t", [0.5, 1.0, 4.0])
def test_a_student_that_equals_its_teacher_has_nothing_to_learn(name, dtype, t):
    _, v, labels = batch(6, 7, dtype)
    value, gradient = value_and_gradient(name, v, v, labels, t)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13  # of the weight 8 and 1/T
    assert float(value.abs().max()) <= tolerance
    assert float(gradient.abs().max()) <= tolerance


def test_nkd_of_a_student_that_equals_its_teacher():
    """Two cross-entropies: H of the others, with no gradient, and −p_y log p_y, whose is p_y (q − onehot)."""
    _, v, labels = batch()
    value, gradient = value_and_gradient("nkd", v, v, labels, 2.0, other=1.0)
    for row, y, loss, slope in zip(v.tolist(), labels.tolist(), value.tolist(), gradient.tolist(), strict=True):
        rest, p = ref.others(row, y, 2.0), [math.exp(a) for a in ref.log_softmax(row)]
        assert loss == pytest.approx(ref.cross_entropy(rest, rest) - p[y] * math.log(p[y]))
        assert loss > 0
        assert slope == pytest.approx([p[y] * (a - (k == y)) for k, a in enumerate(p)], abs=1e-12)


# ---------------------------------------------------------------------------------------------------- invariances


@shift_free
@pytest.mark.parametrize("shift", [-50.0, 0.3, 50.0])
def test_a_shift_of_either_side_changes_nothing(name, shift):
    z, v, labels = batch()
    moved = value_and_gradient(name, z + shift, v - shift, labels, 2.0)
    torch.testing.assert_close(moved, value_and_gradient(name, z, v, labels, 2.0), rtol=1e-9, atol=1e-12)


def test_the_level_of_the_logits_counts_in_squared_error():
    z, v, _ = batch()
    assert between("squared_error", z + 3.0, z, t=2.0).tolist() == pytest.approx([1.5**2] * 4)
    assert between("squared_error", z + 3.0, v + 3.0).tolist() == pytest.approx(between("squared_error", z, v).tolist())


@every
def test_the_order_of_classes_does_not_matter(name):
    z, v, labels = batch(5, 6)
    labels[2] = -100
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved_labels = torch.where(labels < 0, labels, order.argsort()[labels.clamp(min=0)])
    value, gradient = value_and_gradient(name, z, v, labels, 2.0)
    moved, moved_gradient = value_and_gradient(name, z[:, order], v[:, order], moved_labels, 2.0)
    torch.testing.assert_close(moved, value)
    torch.testing.assert_close(moved_gradient, gradient[:, order])


@every
def test_the_order_of_rows_does_not_matter(name):
    z, v, labels = batch(5, 6)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        between(name, z[order], v[order], labels[order], 2.0), between(name, z, v, labels, 2.0)[order]
    )


@every
def test_leading_axes_of_rows_are_rows(name):
    z, v, labels = batch(6, 5)
    value = between(name, z.reshape(2, 3, 5), v.reshape(2, 3, 5), labels.reshape(2, 3), 2.0)
    if name == "dist":  # each of the leading axes has its own rows to relate
        expected = torch.stack([between(name, a, b, t=2.0) for a, b in zip(z.split(3), v.split(3), strict=True)])
    else:
        expected = between(name, z, v, labels, 2.0).reshape(2, 3)
    torch.testing.assert_close(value, expected)


TEMPERATURES = (1.0, 2.0, 5.0)


@pytest.fixture
def unchecked(monkeypatch):
    """Shapes are not checked, as in production."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@every
def test_several_temperatures_are_the_loop_over_them(name, unchecked):
    """Log-probabilities [N, R, C] with labels [R], as with a policy of several temperatures."""
    z, v, labels = batch(4, 5)
    labels[3] = -100
    t = torch.tensor(TEMPERATURES, dtype=torch.float64).reshape(3, 1, 1)
    value = parts(name, z, v, labels, t)
    loop = [parts(name, z, v, labels, one) for one in TEMPERATURES]
    if name == "nkd":
        value, plain = value
        torch.testing.assert_close(plain, loop[0][1])
        loop = [tempered for tempered, _ in loop]
    torch.testing.assert_close(value, torch.stack(loop))


def summed(name):
    """The objective at several temperatures, and the loop over them."""
    z, v, labels = batch(4, 5)
    objective = DistillationObjective(MultiTemperature(TEMPERATURES), name, alpha=1.0)
    total = objective(student_logits=z, teacher_logits=v, labels=labels).total
    expected = sum(t * t * first(parts(name, z, v, labels, t)) for t in TEMPERATURES)
    if name == "nkd":  # the part at T = 1 counts once, and no T² multiplies it
        expected = expected + parts(name, z, v, labels)[1]
    return float(total), float(expected.mean())


@every
def test_the_objective_sums_several_temperatures(name, unchecked):
    total, expected = summed(name)
    assert total == pytest.approx(expected, rel=1e-9)


@every
def test_the_shapes_of_several_temperatures_are_those_of_the_annotations(name):
    """Under the check of shapes too: an annotation that a call in production breaks is wrong."""
    total, expected = summed(name)
    assert total == pytest.approx(expected, rel=1e-9)


def first(value):
    return value[0] if isinstance(value, tuple) else value


# ---------------------------------------------------------------------------------------------------- masks


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [[1], [1, 4], [0, 5]])
def test_masked_classes_have_no_part_in_value_or_gradient(name, dtype, masked):
    z, v, _ = batch(4, 6, dtype)
    kept = [k for k in range(6) if k not in masked]
    labels = torch.tensor([kept[0], kept[1], kept[2], -100])
    full_z, full_v = z.clone(), v.clone()
    full_z[:, masked] = full_v[:, masked] = -INF
    value, gradient = value_and_gradient(name, full_z, full_v, labels, 2.0)
    small = torch.tensor([0, 1, 2, -100])
    expected, slope = value_and_gradient(name, z[:, kept], v[:, kept], small, 2.0)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient[:, kept], slope)
    assert (gradient[:, masked] == 0).all()


def no_nan(name, z, v, labels, t=2.0):
    value, gradient = value_and_gradient(name, z, v, labels, t)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    return value, gradient


@every
def test_a_target_that_is_masked_on_both_sides(name):
    """Its probability is 0 on both sides, so it adds 0: what is left is the divergence of the others."""
    z, v, labels = batch(4, 5)
    at = (torch.arange(4), labels)
    z[at] = v[at] = -INF
    value, gradient = no_nan(name, z, v, labels)
    assert (gradient[at] == 0).all()
    if name in ("dkd", "nkd"):
        expected = [BY_ROW[name](a, b, y, 2.0) for a, b, y in zip(z.tolist(), v.tolist(), labels.tolist(), strict=True)]
        assert value.tolist() == pytest.approx(expected, abs=1e-12)


@every
@pytest.mark.parametrize("label", [0, 1, -100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_classes_but_one_masked(name, label, dtype):
    z, v = (torch.full((3, 4), -INF, dtype=dtype) for _ in range(2))
    z[:, 1], v[:, 1] = 1.0, 1.0
    value, gradient = no_nan(name, z, v, torch.full((3,), label))
    assert (value == 0).all()
    assert (gradient == 0).all()


@every
def test_a_single_class(name):
    z = torch.tensor([[1.0], [-2.0], [0.0]])
    for v in (z, z + 1):
        value, gradient = no_nan(name, z, v, torch.tensor([0, 0, -100]), t=1.0)
        if name != "squared_error":
            assert (value == 0).all()
            assert (gradient == 0).all()


@every
def test_a_single_row(name):
    z, v, labels = batch(1, 5)
    value, _ = no_nan(name, z, v, labels)
    if name == "dist":  # a class seen once is constant and says nothing
        torch.testing.assert_close(value, between("dist", z, v, t=2.0, between=0.0))


@every
def test_no_rows_at_all(name):
    z = torch.zeros(0, 5)
    assert between(name, z, z, torch.zeros(0, dtype=torch.long)).shape == (0,)


@by_row
def test_two_classes(name):
    z, v, labels = batch(6, 2)
    labels[0] = -100
    value, _ = no_nan(name, z, v, labels)
    expected = [BY_ROW[name](a, b, y, 2.0) for a, b, y in zip(z.tolist(), v.tolist(), labels.tolist(), strict=True)]
    assert value.tolist() == pytest.approx(expected)


def test_two_classes_of_dist_are_either_alike_or_opposed():
    """Pearson of two numbers is ±1."""
    z, v = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    value, _ = no_nan("dist", z, v, None)
    assert between("dist", z, v, between=0.0).tolist() == pytest.approx([0.0, 2.0], abs=1e-6)
    assert float(value.mean()) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["dkd", "nkd", "adaptive_kl", "todi"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ([1.0, 0.0, 0.5, -INF], [0.5, 0.2, 1.0, 0.0]),
        ([0.5, 0.2, 1.0, 0.0], [1.0, 0.0, 0.5, -INF]),
        ([-INF, 0.2, 1.0, 0.0], [1.0, 0.0, 0.5, 0.3]),
        ([1.0, 0.0, 0.5, 0.3], [-INF, 0.2, 1.0, 0.0]),
        ([1.0, -INF, -INF, -INF], [0.5, 0.2, 1.0, -INF]),
        ([0.5, 0.2, 1.0, -INF], [1.0, -INF, -INF, -INF]),
    ],
)
def test_a_class_masked_on_one_side_only(name, dtype, student, teacher):
    """By the definition: inf where the mathematics is, which is what tells a user of a mask on one side alone."""
    z, v = (torch.tensor([x], dtype=dtype) for x in (student, teacher))
    value = float(between(name, z, v, torch.tensor([0])))
    assert value == pytest.approx(BY_ROW[name](student, teacher, 0, 1.0), rel=1e-5, abs=1e-6)


def test_adaptive_kl_is_no_nan_where_a_weight_of_0_meets_an_infinite_kl():
    """The head agrees, so the forward KL has no weight; a class that the student alone rules out makes it infinite."""
    q, p = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[0.5, 0.25, 0.25]]).log()
    assert not torch.isnan(adaptive_kl(q, p)).any()


@pytest.mark.parametrize("masked", [False, True])
def test_a_learned_temperature_gets_its_gradient_beside_masked_classes(masked):
    """The division of −inf by a temperature that wants a gradient must not make that NaN."""
    z, v, _ = batch(4, 5)
    if masked:
        z[:, 4] = v[:, 4] = -INF
    log_q, log_p = log_temper(z, 2.0), log_temper(v, 2.0)
    t = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(squared_error(log_q, log_p, z, v, Temperatures(t, t, t * t)).sum(), t)
    live = slice(0, 4 if masked else 5)
    expected = -2 * ((z - v)[:, live] ** 2).mean(-1).sum() / 2**3  # d/dT of ((z − v)/T)²
    torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("masked", [False, True])
def test_so_does_one_of_the_tempered_log_probabilities(masked):
    z, v, _ = batch(4, 5)
    if masked:
        z[:, 4] = v[:, 4] = -INF
    slopes = []
    for classes in (5, 4):
        t = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        loss = forward_kl(log_temper(z[:, :classes], t), log_temper(v[:, :classes], t)).sum()
        slopes.append(torch.autograd.grad(loss, t)[0])
    assert torch.isfinite(slopes[0])
    if masked:
        torch.testing.assert_close(*slopes)


# ---------------------------------------------------------------------------------------------------- labels


@labelled
def test_rows_without_a_label_take_the_top_class_of_the_teacher(name):
    z, v, labels = batch(6, 5)
    with_gaps = labels.clone()
    with_gaps[[1, 4]] = torch.tensor([-100, -1])
    filled = labels.clone()
    filled[[1, 4]] = v.argmax(-1)[[1, 4]]
    assert (filled != labels).any()
    torch.testing.assert_close(
        value_and_gradient(name, z, v, with_gaps, 3.0), value_and_gradient(name, z, v, filled, 3.0), rtol=0, atol=0
    )


@labelled
@pytest.mark.parametrize("dtype", [torch.int8, torch.int32])
def test_labels_of_any_integer_type(name, dtype):
    z, v, labels = batch()
    torch.testing.assert_close(between(name, z, v, labels.to(dtype)), between(name, z, v, labels))


@labelled
def test_missing_labels_are_an_error_of_one_sentence(name, unchecked):
    z, v, _ = batch()
    message = "labels are missing for a divergence that needs them: give labels, or another divergence"
    with pytest.raises(TargetError) as error:
        between(name, z, v, None)
    assert str(error.value) == message
    with pytest.raises(TargetError) as error:
        DistillationObjective(divergence=name, alpha=1.0)(student_logits=z, teacher_logits=v)
    assert str(error.value) == message


# ---------------------------------------------------------------------------------------------------- numbers


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("label", [0, 1, 2, -100])
def test_extreme_logits_stay_finite(name, dtype, label):
    z = torch.tensor([[1e4, 0.0, -1e4], [-1e4, 0.0, 1e4], [1e4, 1e4, -1e4]], dtype=dtype)
    v = torch.tensor([[-1e4, 0.0, 1e4], [-1e4, 0.0, 1e4], [0.0, 1e4, 1e4]], dtype=dtype)
    value, _ = no_nan(name, z, v, torch.full((3,), label), t=1.0)
    if name != "dist":
        expected = [BY_ROW[name](a, b, label, 1.0) for a, b in zip(z.tolist(), v.tolist(), strict=True)]
        assert value.tolist() == pytest.approx(expected, rel=1e-5)


@every
@pytest.mark.parametrize("t", [1.0, 1e3])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_float32_holds_at_a_high_temperature(name, classes, t):
    z, v, labels = batch(20, classes, torch.float32, seed=classes, scale=3.0)
    value, gradient = value_and_gradient(name, z, v, labels, t)
    exact, slope = value_and_gradient(name, z.double(), v.double(), labels, t)
    assert value.dtype == torch.float32
    torch.testing.assert_close((t * t * value).double(), t * t * exact, rtol=1e-2, atol=1e-4)
    assert float((gradient.double() - slope).norm()) <= 1e-2 * float(slope.norm()) + 1e-9


@by_row
def test_the_float64_values_of_a_high_temperature_are_those_of_the_reference(name):
    z, v, labels = batch(5, 10)
    value = between(name, z, v, labels, 1e3)
    expected = [BY_ROW[name](a, b, y, 1e3) for a, b, y in zip(z.tolist(), v.tolist(), labels.tolist(), strict=True)]
    assert (1e6 * value).tolist() == pytest.approx([1e6 * x for x in expected], rel=1e-5)


@pytest.mark.parametrize("t", [1.0, 3.0])
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
@pytest.mark.parametrize("classes", [3, 6, 10])
def test_constant_rows_are_nothing_for_dist(classes, side, t):
    """A row of equal logits, such as a new head gives, has no Pearson: no NaN, and no gradient out of rounding."""
    z, v, _ = batch(5, classes, torch.float32)
    for name, x in (("student", z), ("teacher", v)):
        if side in (name, "both"):
            x[:] = 0.1
    value, gradient = no_nan("dist", z, v, None, t)
    assert ((value >= 0) & (value <= 4)).all()
    if side == "both":
        assert float(value.abs().max()) <= 1e-6
    assert float(gradient.abs().max()) <= 1e-6


@pytest.mark.parametrize("side", ["student", "teacher", "both"])
@pytest.mark.parametrize("rows", [3, 6, 23])
def test_constant_columns_are_nothing_for_dist(rows, side):
    """Rows that are all alike: only the relation within each is left."""
    z, v, _ = batch(rows, 5, torch.float32)
    for name, x in (("student", z), ("teacher", v)):
        if side in (name, "both"):
            x[:] = x[0].clone()
    value, gradient = no_nan("dist", z, v, None)
    assert ((value >= 0) & (value <= 2 + rows)).all()
    rest, within = value_and_gradient("dist", z, v, t=2.0, between=0.0)
    torch.testing.assert_close(gradient, within, rtol=1e-5, atol=1e-6)
    if side == "both":
        torch.testing.assert_close(value, rest, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-2), (torch.bfloat16, 1e-1)])
@every
def test_half_precision_logits_lose_no_more_than_their_own_rounding(name, dtype, tolerance):
    z, v, labels = batch(20, 10, scale=1.0)
    small_z, small_v = z.to(dtype), v.to(dtype)
    exact = between(name, small_z.double(), small_v.double(), labels, 2.0)
    half = DistillationObjective(2.0, name, alpha=1.0)(student_logits=small_z, teacher_logits=small_v, labels=labels)
    if name == "nkd":
        tempered, plain = parts(name, small_z.double(), small_v.double(), labels, 2.0)
        exact = tempered + plain / 4
    assert half.total.dtype == torch.float32
    assert float(half.total) == pytest.approx(4 * float(exact.mean()), rel=tolerance)
