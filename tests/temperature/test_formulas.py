"""Each policy against the formula of its paper, computed once more by plain loops; and against the known traps."""

import math

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from reference import distillation as base
from reference import methods as ref
from setpoint import DistillationObjective
from setpoint.errors import TargetError
from setpoint.maths.tempering import effective_classes
from setpoint.temperature import POLICIES

CLASSES = 5
NEEDED = {"softness": {"effective_classes": 2.5}, "ctkd_instance": {"classes": CLASSES}}
seeds = st.integers(0, 2**32 - 1)
few = settings(
    max_examples=8, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)  # a failure is not made smaller: time


def make(name, **arguments):
    return POLICIES[name](**NEEDED.get(name, {}) | arguments)


def batch(seed=0, n=4, classes=CLASSES):
    generator = torch.Generator().manual_seed(seed)
    z, v = (2 * torch.randn(n, classes, dtype=torch.float64, generator=generator) for _ in range(2))
    return z.requires_grad_(), v, torch.randint(0, classes, (n,), generator=generator)


def run(policy, z, v, labels, *, alpha=1.0, progress=0.4, **arguments):
    policy = make(policy) if isinstance(policy, str) else policy
    objective = DistillationObjective(policy, alpha=alpha, **arguments)
    return objective(student_logits=z, teacher_logits=v, labels=labels, progress=progress)


def gradient(loss, z):
    return torch.autograd.grad(loss.total, z)[0]


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


def close(a, b, rtol=1e-5, atol=1e-7):
    torch.testing.assert_close(a.detach(), tensor(b) if isinstance(b, list | float) else b, rtol=rtol, atol=atol)


FORMULAS = ["progressive", "multi", "lskd", "normkd", "spherical", "dtkd", "ttm", "wttm", "ats", "flsw", "cwsm", "wsld"]


# ------------------------------------------------------------------------------------------- value and gradient


@pytest.mark.parametrize("name", FORMULAS)
@few
@given(seed=seeds, progress=st.sampled_from([0.02, 0.4, 0.9]))
def test_value_and_gradient_are_those_of_the_paper(name, seed, progress):
    z, v, labels = batch(seed)
    # ATS is written as a cross-entropy.
    loss = run(name, z, v, labels, progress=progress, divergence="soft_cross_entropy" if name == "ats" else None)
    paper = getattr(ref, name)
    held, teacher = z.tolist(), v.tolist()
    close(loss.total, paper(teacher, held, held, labels.tolist(), progress), rtol=1e-9)
    expected = ref.gradient(lambda rows: paper(teacher, rows, held, labels.tolist(), progress), held)
    # A cross-entropy and the KL have one gradient, where the targets have none.
    close(gradient(run(name, z, v, labels, progress=progress), z), expected)


@few
@given(seed=seeds, progress=st.sampled_from([0.0, 0.21, 0.5, 0.6, 0.7, 1.0]))
def test_annealing_is_a_distance_and_then_the_labels_alone(seed, progress):
    z, v, labels = batch(seed)
    loss = run("annealing", z, v, labels, alpha=0.3, progress=progress)
    first = progress < 2 / 3
    assert set(loss.terms) == {"divergence" if first else "hard"}

    def paper(rows):
        y = labels.tolist()
        return ref.annealing(v.tolist(), rows, None, y, progress) if first else ref.hard_loss(rows, y)

    close(loss.total, paper(z.tolist()), rtol=1e-9)
    close(gradient(loss, z), ref.gradient(paper, z.tolist()))


@few
@given(seed=seeds, progress=st.sampled_from([0.0, 0.21, 0.5, 0.74, 0.75, 1.0]))
def test_continuation_moves_from_the_distance_to_the_labels(seed, progress):
    z, v, labels = batch(seed)
    loss, psi = run("continuation", z, v, labels, alpha=0.3, progress=progress), min(progress / 0.75, 1.0)

    def paper(rows):
        y = labels.tolist()
        return psi * ref.hard_loss(rows, y) + (1 - psi) * ref.continuation(v.tolist(), rows, None, y, progress)

    close(loss.total, paper(z.tolist()), rtol=1e-9)
    close(gradient(loss, z), ref.gradient(paper, z.tolist()))


@few
@given(seed=seeds, classes=st.floats(1.2, 4.5))
def test_softness_is_the_temperature_of_the_wanted_entropy(seed, classes):
    z, v, labels = batch(seed)
    loss = run(make("softness", effective_classes=classes), z, v, labels)
    t = loss.temperatures.teacher
    close(t.squeeze(-1), [ref.softness_temperature(row, classes) for row in v.tolist()], rtol=2e-3)
    close(effective_classes(v, t), [classes] * 4, rtol=1e-4)
    expected = ref.gradient(lambda rows: ref.matched(v.tolist(), rows, t.flatten().tolist()), z.tolist())
    close(gradient(loss, z), expected)


@pytest.mark.parametrize("kind", ["effective_classes", "entropy", "other_mass"])
@pytest.mark.parametrize("per", ["row", "dataset"])
def test_softness_of_every_kind_is_reached_for_each_row_or_on_the_mean(kind, per):
    _, v, _ = batch(1, n=30)
    wanted = {"effective_classes": 2.0, "entropy": 0.7, "other_mass": 0.3}[kind]
    policy = POLICIES["softness"](**{kind: wanted}, per=per)
    t = policy(v, v).teacher.expand(30, 1).flatten().tolist()
    probabilities = [base.softmax(row, s) for row, s in zip(v.tolist(), t, strict=True)]
    measure = {
        "effective_classes": lambda p: math.exp(base.entropy(p)), "entropy": base.entropy,
        "other_mass": lambda p: 1 - max(p),
    }[kind]  # fmt: skip
    reached = [measure(p) for p in probabilities]
    if per == "row":
        assert reached == pytest.approx([wanted] * 30, abs=2e-4)
    assert sum(reached) / 30 == pytest.approx(wanted, abs=2e-4)


def test_softness_of_many_classes_knows_nothing_of_masked_ones():
    _, v, _ = batch(2, n=20, classes=256)
    v[:, ::3] = -math.inf
    live = v[:, torch.isfinite(v[0])]
    soft = POLICIES["softness"](effective_classes=20.0)
    close(soft(v, v).teacher, soft(live, live).teacher, rtol=1e-3)
    close(effective_classes(v, soft(v, v).teacher), [20.0] * 20, rtol=2e-4)


# ------------------------------------------------------------------------------------------- a memory of training


def test_dts_follows_its_recurrence_and_fires_only_above_a_gap_of_one():
    policy, t = make("dts"), 4.0
    v = tensor([[9.0, 0.0], [9.0, 0.0], [0.0, 0.0]])
    labels = torch.tensor([0, 0, -100])  # the last has no label and no say
    for step, behind in enumerate([0.0, 0.9, 1.2, 3.0, 1.91, -4.0, 2.0, 2.4]):
        z, progress = tensor([[-behind, 0.0], [-behind, 0.0], [99.0, 0.0]]), step / 8
        losses = [sum(ref.label_loss(row, 0) for row in rows[:2].tolist()) / 2 for rows in (v, z)]
        t = ref.dts_step(t, *losses, progress)
        close(policy(v, z, labels, progress).teacher, t, rtol=1e-6)
    plain, held_up = make("dts"), make("dts")
    for policy, behind in ((plain, 0.3), (held_up, 3.0)):
        policy(v, tensor([[-behind, 0.0]] * 3), labels, 0.6)
    assert float(held_up.current) > float(plain.current)


def test_taid_interpolates_the_logits_and_runs_ahead_as_the_loss_falls():
    policy, t, momentum, before = make("taid"), 0.4, 0.0, None
    z, v, labels = batch(3)
    objective = DistillationObjective(policy, alpha=1.0)
    for step in range(6):
        progress = 1e-4 * step  # so slow that t runs ahead of the straight line
        t = max(t, 0.4 + 0.6 * progress)
        z = (0.7 * z + 0.3 * v).detach().requires_grad_()
        loss = objective(student_logits=z, teacher_logits=v, labels=labels, progress=progress)
        close(loss.temperatures.teacher_share, t, rtol=1e-6)
        held = z.tolist()
        paper = ref.taid(v.tolist(), held, held, t)
        own = sum(base.entropy(base.softmax(row)) for row in ref.taid_targets(v.tolist(), held, t)) / len(v)
        close(loss.total, paper - own, rtol=1e-5)  # the cross-entropy of the paper but for a constant
        # Targets hold the student's own logits without their gradient.
        close(gradient(loss, z), ref.gradient(lambda rows, h=held, s=t: ref.taid(v.tolist(), rows, h, s), held), 1e-5)
        if before is not None:
            t, momentum = ref.taid_step(t, momentum, before, paper, 0.4 + 0.6 * progress)
        before = paper
    assert t > 0.4 + 0.6e-4 * 6


def test_adakd_keeps_the_hardest_rows_and_follows_its_loss():
    policy, share, average, reference = make("adakd"), 1.0, None, None
    z, v, labels = batch(4, n=10)
    objective = DistillationObjective(policy, alpha=1.0)
    shares = []
    for step in range(60):
        progress = step / 60
        near = 0.9 if 10 <= step < 35 else 0.0
        student = (near * v + (1 - near) * z).detach().requires_grad_()
        held = student.tolist()
        loss = objective(student_logits=student, teacher_logits=v, labels=labels, progress=progress)
        rows = ref.adakd_rows(v.tolist(), held, share)
        assert (loss.temperatures.scale > 0).tolist() == [t is not None for t in rows]
        paper = ref.adakd(v.tolist(), held, rows)
        close(loss.total, paper, rtol=1e-6)
        if step in (0, 30):
            expected = ref.gradient(lambda moved, t=rows: ref.adakd(v.tolist(), moved, t), held)
            close(gradient(loss, student), expected)
        average = paper if average is None else 0.99 * average + 0.01 * paper
        if progress > 0.05:
            share, reference = (share, average) if reference is None else ref.adakd_share(share, average, reference)
        shares.append(share)
        assert float(policy.share) == pytest.approx(share, rel=1e-5)
    assert min(shares) < 0.9
    assert shares[-1] > min(shares)


def test_adakd_keeps_nineteen_rows_of_twenty_at_a_share_of_095():
    policy = make("adakd")
    policy.share.fill_(0.95)
    z, v, _ = batch(n=20)
    assert int((policy(v, z).scale > 0).sum()) == 19


@few
@given(seed=seeds, theta=st.floats(-3, 3), progress=st.sampled_from([0.0, 1 / 48, 1 / 30, 0.5]))
def test_ctkd_learns_by_the_reversed_gradient_of_both_softmaxes_and_of_the_scale(seed, theta, progress):
    z, v, labels = batch(seed)
    policy = make("ctkd")
    policy.theta.data.fill_(theta)
    loss = run(policy, z, v, labels, progress=progress)
    loss.total.backward()

    def paper(x):
        t = 1 + 20 / (1 + math.exp(-x))
        return ref.matched(v.tolist(), z.tolist(), [t] * 4)

    start = float(policy.theta.detach())
    close(loss.total, paper(start), rtol=1e-7)
    slope = (paper(start + 1e-4) - paper(start - 1e-4)) / 2e-4
    assert float(policy.theta.grad) == pytest.approx(ref.ctkd_strength(240 * progress) * slope, rel=1e-4, abs=1e-9)
    t = 1 + 20 / (1 + math.exp(-start))
    close(z.grad, ref.gradient(lambda rows: ref.matched(v.tolist(), rows, [t] * 4), z.tolist()))


def test_ctkd_of_instances_starts_as_the_global_one_and_learns_reversed():
    z, v, labels = batch(5)
    gradients = {}
    for name in ("ctkd", "ctkd_instance"):
        policy = make(name)
        loss = run(policy, z, v, labels, progress=0.5)
        close(loss.temperatures.teacher, torch.full_like(loss.temperatures.teacher, 1 + 20 / (1 + math.exp(-1))))
        loss.total.backward()
        parameter = policy.theta if name == "ctkd" else policy.network[-1].bias
        gradients[name] = float(parameter.grad.sum())
    assert gradients["ctkd"] == pytest.approx(gradients["ctkd_instance"], rel=1e-5)
    assert gradients["ctkd"] != 0


def test_the_network_of_ctkd_reads_the_students_logits_without_their_gradient():
    z, v, labels = batch(8)
    policy = make("ctkd_instance")
    policy.network[-1].weight.data.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    loss = run(policy, z, v, labels, progress=0.5)
    t = loss.temperatures.teacher.flatten().tolist()
    assert max(t) - min(t) > 0.1
    close(gradient(loss, z), ref.gradient(lambda rows: ref.matched(v.tolist(), rows, t), z.tolist()))


# ------------------------------------------------------------------------------------------- traps: learned T


@pytest.mark.parametrize("name", ["ctkd", "ctkd_instance"])
@few
@given(seed=seeds)
def test_ctkd_moves_up_the_loss_that_the_student_moves_down(name, seed):
    z, v, labels = batch(seed)
    policy = make(name)
    before = run(policy, z, v, labels, progress=1.0)
    before.total.backward()
    torch.optim.SGD(policy.parameters(), lr=1e-3).step()
    after = run(policy, z, v, labels, progress=1.0)
    assert float(after.total.detach()) > float(before.total.detach())
    student = (z - 1e-3 * z.grad).detach()
    assert float(run(make(name), student, v, labels, progress=1.0).total.detach()) < float(before.total.detach())


@pytest.mark.parametrize("name", ["ctkd", "ctkd_instance"])
def test_ctkd_learns_nothing_at_progress_0_and_more_until_the_warm_up_ends(name):
    z, v, labels = batch()
    sizes = []
    for progress in (0.0, 0.01, 0.03, 10 / 240, 1.0):
        policy = make(name)
        run(policy, z, v, labels, progress=progress).total.backward()
        sizes.append(sum(float(p.grad.abs().sum()) for p in policy.parameters()))
    assert sizes[0] == 0.0
    assert sizes[1] < sizes[2] < sizes[3] == sizes[4]


def test_the_scale_of_ctkd_carries_gradient_to_theta():
    z, v, _ = batch()
    policy = make("ctkd", warmup=0.0)
    (slope,) = torch.autograd.grad(policy(v, z).scale, policy.theta)
    t, s = 1 + 20 / (1 + math.exp(-1)), 1 / (1 + math.exp(-1))
    assert float(slope) == pytest.approx(-2 * t * 20 * s * (1 - s), rel=1e-5)  # −d(T²)/dθ


# ------------------------------------------------------------------------------------------- traps: scales


@few
@given(seed=seeds)
def test_the_scale_of_each_row_is_applied_before_the_mean_over_rows(seed):
    z, v, labels = batch(seed)
    t = [2 * ref.std(row) for row in v.tolist()]
    rows = [
        base.kl(base.softmax(a, s), base.softmax(b, 2 * ref.std(b)))
        for a, b, s in zip(v.tolist(), z.tolist(), t, strict=True)
    ]
    right = ref.mean([s * s * x for s, x in zip(t, rows, strict=True)])
    wrong = ref.mean([s * s for s in t]) * ref.mean(rows)
    assert float(run("normkd", z, v, labels).total.detach()) == pytest.approx(right)
    assert wrong != pytest.approx(right, rel=1e-6)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "skew_forward_kl", "total_variation"])
def test_a_rising_temperature_has_its_t_squared_whatever_the_divergence(divergence):
    z, v, labels = batch()
    rising = run("progressive", z, v, labels, progress=1.0, divergence=divergence)
    bare = run(POLICIES["constant"](teacher=2.0, student=2.0), z, v, labels, divergence=divergence)
    close(rising.total, bare.total)
    assert float(rising.temperatures.scale) == 4.0


def test_the_scale_of_normkd_is_the_square_of_the_teachers_temperature_alone():
    z, v, labels = batch()
    close(run("normkd", 7 * z, v, labels).temperatures.scale, [4 * ref.std(row) ** 2 for row in v.tolist()])


def test_multi_is_a_sum_and_no_mean():
    z, v, labels = batch()
    twice = run(make("multi", temperatures=(3.0, 3.0)), z, v, labels).total
    close(twice, 2 * run(make("constant", temperature=3.0), z, v, labels).total)


@few
@given(seed=seeds, t=st.floats(1.5, 8), alpha=st.floats(0.05, 0.95))
def test_ttm_is_distillation_less_a_renyi_penalty_and_alpha_means_what_it_means_there(seed, t, alpha):
    z, v, labels = batch(seed)
    matched = run(make("constant", temperature=t), z, v, labels, alpha=alpha).total
    penalty = ref.mean(
        [
            base.renyi_entropy(base.softmax(b), 1 / t) - base.entropy(base.softmax(a, t))
            for a, b in zip(v.tolist(), z.tolist(), strict=True)
        ]
    )
    transformed = run(make("ttm", temperature=t), z, v, labels, alpha=alpha).total
    close(transformed, float(matched.detach()) - alpha * t * (t - 1) * penalty, rtol=1e-6)
    # The paper's CE + β·KL with β = αT/(1 − α), but for the factor 1 − α.
    beta = alpha * t / (1 - alpha)
    kl = [base.kl(base.softmax(a, t), base.softmax(b)) for a, b in zip(v.tolist(), z.tolist(), strict=True)]
    close(transformed / (1 - alpha), ref.hard_loss(z.tolist(), labels.tolist()) + beta * ref.mean(kl), rtol=1e-6)


def test_powers_of_the_softmax_do_not_underflow_in_wttm():
    v = torch.tensor([[0.0, -400.0, -400.0]])  # e^-400 is 0 in float32, (e^-400)^(1/100) is 0.018
    naive = torch.softmax(v, -1).pow(1 / 100).sum()
    scale = make("wttm", temperature=100.0)(v, v).scale
    assert float(naive) == 1.0
    assert float(scale) == pytest.approx(1 + 2 * math.exp(-4), rel=1e-6)


@given(seed=seeds, t=st.floats(1, 50))
def test_the_weight_of_wttm_is_between_1_and_that_of_a_uniform_teacher(seed, t):
    _, v, _ = batch(seed)
    scale = make("wttm", temperature=t)(v, v).scale
    assert bool(((scale >= 1 - 1e-9) & (scale <= CLASSES ** (1 - 1 / t) + 1e-9)).all())
    close(make("wttm", temperature=t)(0 * v, v).scale, torch.full_like(scale, CLASSES ** (1 - 1 / t)))


# ------------------------------------------------------------------------------------------- traps: shift and scale


def test_the_raw_formulas_of_dtkd_ats_and_flsw_would_change_with_a_constant_and_turn_negative():
    v, z = [1.0, 0.5, -1.5], [0.8, 0.2, -1.0]
    up, down = [x + 3 for x in v], [x - 3 for x in v]
    assert ref.dtkd_temperatures(up, z) != pytest.approx(ref.dtkd_temperatures(v, z))
    assert min(ref.dtkd_temperatures(down, z)) < 0
    assert ref.ats_target(up, 0) != pytest.approx(ref.ats_target(v, 0))
    assert ref.cosine(up, z) != pytest.approx(ref.cosine(v, z))


@few
@given(seed=seeds, tau=st.floats(0.8, 5))
def test_the_gradient_of_lskd_has_its_closed_form_orthogonal_to_1_and_to_the_logits(seed, tau):
    z, v, labels = batch(seed)
    result = gradient(run(make("lskd", temperature=tau), z, v, labels), z)
    rows = []
    for a, b in zip(v.tolist(), z.tolist(), strict=True):
        score_v, score_z = ([x / ref.std(row) for x in ref.centred(row)] for row in (a, b))
        pairs = zip(base.softmax(score_z, tau), base.softmax(score_v, tau), strict=True)
        d = [(q - p) / tau for q, p in pairs]
        along = math.fsum(x * y for x, y in zip(d, score_z, strict=True)) / (CLASSES - 1)
        scale = tau**2 / ref.std(b) / len(v)
        rows.append([scale * (x - ref.mean(d) - s * along) for x, s in zip(d, score_z, strict=True)])
    close(result, rows, rtol=1e-6, atol=1e-12)
    assert float(result.sum(-1).abs().max()) < 1e-12
    assert float((result * z.detach()).sum(-1).abs().max()) < 1e-12


@pytest.mark.parametrize("name", ["lskd", "normkd", "spherical"])
def test_the_students_temperature_is_not_detached_where_logits_are_standardised(name):
    z, v, labels = batch()
    assert run(name, z, v, labels).temperatures.student.requires_grad
    ten_times = run(name, 10 * z, v, labels)
    close(ten_times.total, run(name, z, v, labels).total)  # the size of the student's logits is forgotten
    assert float((gradient(ten_times, z) * z.detach()).sum().abs()) < 1e-10


@few
@given(seed=seeds)
def test_spherical_brings_the_cross_entropy_to_the_sphere_too(seed):
    z, v, labels = batch(seed)
    loss = run("spherical", z, v, labels, alpha=0.0)

    def paper(rows):
        return ref.spherical_hard(v.tolist(), rows, labels.tolist())

    close(loss.total, paper(z.tolist()), rtol=1e-9)
    close(gradient(loss, z), ref.gradient(paper, z.tolist()))


def test_spherical_takes_its_level_from_the_rows_it_was_fitted_on():
    z, v, labels = batch()
    policy = make("spherical")
    policy.fit(10 * v)
    level = 10 * ref.mean([ref.std(row, 0) for row in v.tolist()])
    expected = [[4 * ref.std(row, 0) / level] for row in v.tolist()]
    close(run(policy, z, v, labels).temperatures.teacher, expected, rtol=1e-6)


def test_ats_needs_labels_and_tells_so():
    z, v, _ = batch()
    with pytest.raises(TargetError, match="labels are missing"):
        run("ats", z, v, None)
