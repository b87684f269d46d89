"""What holds of every policy, on ordinary logits and on the worst that a batch can bring."""

import math

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from reference import methods as ref
from setpoint import DistillationObjective
from setpoint.temperature import POLICIES

MAKERS = {name: (name, {}) for name in POLICIES} | {
    "constant": ("constant", {"temperature": 4.0}),
    "linear": ("linear", {"start": 8.0, "end": 2.0}),
    "cosine": ("cosine", {"start": 8.0, "end": 2.0}),
    "exponential": ("exponential", {"start": 8.0, "end": 2.0}),
    "step": ("step", {"steps": {0.0: 8.0, 0.5: 2.0}}),
    "softness": ("softness", {"effective_classes": 2.5}),
    "softness of entropy": ("softness", {"entropy": 0.5, "end": 0.1}),
    "softness of other mass": ("softness", {"other_mass": 0.3}),
    "softness of the data set": ("softness", {"effective_classes": 1.5, "per": "dataset"}),
    "ctkd_instance": ("ctkd_instance", {"classes": 5}),
    "itkd that learns at each call": ("itkd", {"every": 1, "warmup": 0.0}),
    "flsw of great strength": ("flsw", {"strength": 1e3}),
    "cwsm of great strength": ("cwsm", {"strength": 1e3}),
}
NAMES = sorted(MAKERS)
DISTANCES = {"annealing", "continuation"}  # of logits as they are: their level counts
WORST = [0.0, 1.0, -1.0, 0.1, 1e-30, 1e-5, 1e4, -1e4, 9999.0, 37.3]
# Without the search for a smaller example: a failure shall cost no more than a success.
few = settings(max_examples=16, phases=[Phase.explicit, Phase.reuse, Phase.generate])
seeds = st.integers(0, 2**32 - 1)


def make(name, **arguments):
    kind, given = MAKERS[name]
    torch.manual_seed(0)  # a temperature may be drawn
    return POLICIES[kind](**given | arguments)


def batch(seed=0, n=4, classes=5):
    generator = torch.Generator().manual_seed(seed)
    z, v = (2 * torch.randn(n, classes, dtype=torch.float64, generator=generator) for _ in range(2))
    return z.requires_grad_(), v, torch.randint(0, classes, (n,), generator=generator)


def run(policy, z, v, labels, *, alpha=0.5, progress=0.4, mask=None):
    objective = DistillationObjective(policy, alpha=alpha)
    torch.manual_seed(0)  # a temperature may be drawn
    return objective(student_logits=z, teacher_logits=v, labels=labels, progress=progress, mask=mask)


def finite(x):
    return x is None or bool(torch.isfinite(x).all())


def check(policy, z, v, labels, progress):
    """Call the policy itself, then the loss; twice, for the second call reads the state of the first."""
    for _ in range(2):
        given = policy(v, z, labels, progress)
        for t in (given.teacher, given.student, given.hard):
            assert finite(t)
            assert t is None or bool((t > 0).all())
        assert finite(given.scale)
        assert bool((given.scale >= 0).all())
        assert finite(given.teacher_share)
        # A number, or one for each row or class; terms of a sum only in front.
        assert torch.broadcast_shapes(given.teacher.shape, z.shape)[-z.ndim :] == z.shape
        assert torch.broadcast_shapes(given.student.shape, z.shape)[-z.ndim :] == z.shape
        assert torch.broadcast_shapes(given.scale.shape, labels.shape)[-labels.ndim :] == labels.shape
        z.grad = None
        mask = torch.ones(labels.shape, dtype=torch.bool)
        loss = run(policy, z, v, labels, alpha=0.9, progress=progress, mask=mask)
        loss.total.backward()
        assert finite(z.grad)
        assert all(finite(p.grad) for p in policy.parameters())
        assert all(finite(x) or name in ("temperature.mean", "temperature.reference", "temperature.before")
                   for name, x in DistillationObjective(policy).state_dict().items())  # fmt: skip


def side(generator, kind, shape, dtype):
    """Logits of size 1, or of the worst values, or constant in each row."""
    worst = torch.tensor(WORST, dtype=torch.float64)
    if kind == "ordinary":
        rows = torch.randn(shape, dtype=torch.float64, generator=generator)
    elif kind == "worst":
        rows = worst[torch.randint(len(WORST), shape, generator=generator)]
    else:
        rows = worst[torch.randint(len(WORST), shape[:-1], generator=generator)].unsqueeze(-1).expand(shape).clone()
    return rows.to(dtype)


kinds = st.sampled_from(["ordinary", "worst", "constant"])
adversarial = st.fixed_dictionaries(
    {
        "seed": seeds,
        "kind": st.tuples(kinds, kinds),
        "shape": st.sampled_from([(3,), (2, 2), (1,), (0,), (0, 2)]),
        "dtype": st.sampled_from([torch.float32, torch.float64]),
        "progress": st.sampled_from([0.0, 0.03, 0.5, 1.0]),
    }
)


def rows_of(case, classes, dead=0):
    """Teacher and student, the last classes at -inf on both, and labels that live, or are none."""
    generator = torch.Generator().manual_seed(case["seed"])
    v, z = (side(generator, kind, (*case["shape"], classes), case["dtype"]) for kind in case["kind"])
    v[..., classes - dead :] = z[..., classes - dead :] = -math.inf
    labels = torch.randint(-1, 1, case["shape"], generator=generator) * 100
    return z.requires_grad_(), v, labels, case["progress"]


@pytest.mark.parametrize("name", NAMES)
@few
@given(case=adversarial, classes=st.sampled_from([5, 2, 1]))
def test_no_policy_breaks_on_adversarial_logits(name, case, classes):
    check(make(name, **({"classes": classes} if name == "ctkd_instance" else {})), *rows_of(case, classes))


@pytest.mark.parametrize("name", NAMES)
@few
@given(case=adversarial, dead=st.integers(1, 4))
def test_no_policy_breaks_on_classes_masked_on_both_sides(name, case, dead):
    check(make(name), *rows_of(case, 5, dead))


@pytest.mark.parametrize("name", NAMES)
def test_leading_axes_are_rows_like_any_other(name):
    z, v, labels = (x.detach() for x in batch(3, n=6))
    flat = make(name)(v, z, labels, 0.4)
    deep = make(name)(v.reshape(2, 3, 5), z.reshape(2, 3, 5), labels.reshape(2, 3), 0.4)
    for a, b, rows, last in (
        (flat.teacher, deep.teacher, (2, 3), (5,)),
        (flat.student, deep.student, (2, 3), (5,)),
        (flat.scale, deep.scale, (2, 3), ()),
    ):
        front = a.shape[: max(0, a.ndim - 1 - len(last))]  # terms of a sum
        wide = b.expand(*front, *rows, *last)
        torch.testing.assert_close(a.expand(*front, 6, *last), wide.reshape(*front, 6, *last), rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("constant", ["student", "teacher", "both"])
def test_constant_rows_give_no_nan_gradient(name, constant):
    z, v, labels = batch()
    z, v = z.detach(), v.clone()
    for side, rows in (("student", z), ("teacher", v)):
        if constant in (side, "both"):
            rows[0], rows[1] = 0.1, 0.0
    z.requires_grad_()
    policy = make(name)
    run(policy, z, v, labels).total.backward()
    assert finite(z.grad)
    assert all(finite(p.grad) for p in policy.parameters())


@pytest.mark.parametrize("name", sorted(set(NAMES) - DISTANCES))
@settings(max_examples=8, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=seeds, shift=st.floats(-30, 30), other=st.floats(-30, 30))
def test_a_constant_added_to_a_row_changes_nothing(name, seed, shift, other):
    z, v, labels = batch(seed)
    results = []
    for a, b in ((z, v), (z + shift, v + other)):
        total = run(make(name), a, b, labels).total
        results.append((total.detach(), torch.autograd.grad(total, z)[0]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_gets_no_gradient(name):
    z, v, labels = batch()
    v.requires_grad_()
    run(make(name), z, v, labels).total.backward()
    assert v.grad is None
    assert z.grad is not None


@pytest.mark.parametrize("name", NAMES)
def test_state_changes_only_in_training_mode(name):
    z, v, labels = batch()
    objective = DistillationObjective(make(name), alpha=0.5)
    call = {"student_logits": z, "teacher_logits": v, "labels": labels, "progress": 0.4}
    states = {}
    for mode in ("fresh", "eval", "share", "train"):
        objective.train(mode != "eval")
        for _ in range(0 if mode == "fresh" else 3):
            objective.gradient_share(**call) if mode == "share" else objective(**call)
        states[mode] = [x.clone().nan_to_num(7.0) for x in objective.state_dict().values()]
    changed = {
        mode for mode, state in states.items() for x, y in zip(state, states["fresh"], strict=True) if (x != y).any()
    }
    assert changed == ({"train"} if MAKERS[name][0] in {"dts", "taid", "adakd", "itkd"} else set())


@pytest.mark.parametrize("name", NAMES)
def test_masked_rows_add_nothing_to_value_gradient_or_state(name):
    z, v, labels = batch(6, n=6)
    mask = torch.tensor([True, False, True, True, False, True])
    dirty_z, dirty_v = z.detach().clone(), v.clone()
    dirty_z[~mask], dirty_v[~mask], labels = math.nan, math.inf, labels.masked_fill(~mask, -100)
    dirty_z.requires_grad_()
    clean, dirty = make(name), make(name)
    for progress in (0.3, 0.4):  # the second call reads the state of the first
        a = run(clean, z[mask], v[mask], labels[mask], progress=progress).total
        b = run(dirty, dirty_z, dirty_v, labels, progress=progress, mask=mask).total
        assert float(a.detach()) == float(b.detach())
    a.backward()
    b.backward()
    assert torch.equal(z.grad[mask], dirty_z.grad[mask])
    assert float(dirty_z.grad[~mask].abs().sum()) == 0.0
    pairs = zip(clean.state_dict().values(), dirty.state_dict().values(), strict=True)
    assert all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_masked_on_both_sides_is_a_class_that_is_not_there(name):
    z, v, labels = batch(7)
    masked_z, masked_v = (torch.cat([x.detach(), torch.full((4, 1), -math.inf)], dim=-1) for x in (z, v))
    masked_z.requires_grad_()
    policy = make(name, **({"classes": 6} if name == "ctkd_instance" else {}))
    plain, masked = run(make(name), z, v, labels).total, run(policy, masked_z, masked_v, labels).total
    torch.testing.assert_close(masked, plain, rtol=1e-6, atol=0.0)
    plain.backward()
    masked.backward()
    torch.testing.assert_close(masked_z.grad[:, :-1], z.grad, rtol=1e-5, atol=1e-8)
    assert float(masked_z.grad[:, -1].abs().sum()) == 0.0
    assert all(finite(p.grad) for p in policy.parameters())


@given(theta=st.floats(-200, 200))
def test_ctkd_stays_between_lowest_and_lowest_plus_span(theta):
    z, v, _ = batch()
    policy = make("ctkd")
    policy.theta.data.fill_(theta)
    assert 1 <= float(policy(v, z).teacher.detach()) <= 21


@given(seed=seeds, shift=st.floats(-50, 50))
def test_dtkd_balances_the_top_logits_and_keeps_within_its_bounds(seed, shift):
    z, v, _ = batch(seed)
    temperatures = make("dtkd")(v + shift, z.detach() - shift)
    teacher, student = temperatures.teacher[0], temperatures.student[0]
    assert bool(((teacher >= 0.04) & (student >= 0.04) & (teacher <= 8) & (student <= 8)).all())
    tops = [torch.tensor([[max(ref.centred(row))] for row in rows.tolist()], dtype=torch.float64) for rows in (v, z)]
    inside = (teacher > 0.04) & (student > 0.04)
    torch.testing.assert_close((tops[0] / teacher)[inside], (tops[1] / student)[inside], rtol=1e-4, atol=1e-7)
    assert bool((teacher + student - 8 <= 0.05).all())


@pytest.mark.parametrize("name", ["flsw", "cwsm"])
@given(seed=seeds, strength=st.floats(0, 500), lowest=st.floats(0.1, 3))
def test_temperatures_by_difficulty_are_never_below_the_lowest(name, seed, strength, lowest):
    z, v, _ = batch(seed)
    t = make(name, strength=strength, lowest=lowest)(v, z).teacher
    assert bool((t >= lowest).all())


def test_the_formula_of_difficulty_alone_reaches_negative_temperatures():
    z, v, _ = batch()
    assert min(ref.by_difficulty(ref.flsw_weights(v.tolist(), z.tolist()), strength=50.0)) < 0
    assert min(ref.by_difficulty(ref.cwsm_weights(z.tolist()), strength=50.0)) < 0


@pytest.mark.parametrize("name", ["adakd", "flsw", "cwsm", "wsld", "dts", "taid", "softness", "itkd"])
def test_an_adaptive_temperature_has_no_gradient_path_to_the_student(name):
    z, v, labels = batch()
    given = make(name)(v, z, labels, 0.4)
    for value in (given.teacher, given.student, given.scale, given.hard, given.teacher_share):
        assert value is None or not value.requires_grad


def test_every_policy_is_among_those_tested():
    assert {kind for kind, _ in MAKERS.values()} == set(POLICIES)
