import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from setpoint.maths.sampling import sampled_logits
from setpoint.objective import ALL_DIVERGENCES, DistillationObjective
from setpoint.temperature import POLICIES

R, C = 6, 7
EVERY = torch.arange(C)


def logits(seed, rows=R, classes=C):
    return torch.randn(rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


LABELS = torch.tensor([0, 6, 2, 2, 5, 1])


def brute_force(z, labels, candidates):
    """The same, number by number."""
    rows = []
    for row, label in zip(z.tolist(), labels.tolist(), strict=True):
        drawn = [-math.inf if j == label else row[j] + math.log(len(row) / len(candidates)) for j in candidates]
        rows.append([row[label], *drawn])
    return np.array(rows)


def test_against_a_loop():
    z, candidates = logits(0), [4, 2, 0]
    np.testing.assert_allclose(sampled_logits(z, LABELS, torch.tensor(candidates)), brute_force(z, LABELS, candidates))


@pytest.mark.parametrize("count", [1, 2, 5, C])
def test_the_partition_function_is_right_in_the_mean_over_all_draws(count):
    """Every set of candidates once, so that the mean is exact."""
    z = logits(1)
    sums = [
        torch.logsumexp(sampled_logits(z, LABELS, torch.tensor(drawn)), -1).exp()
        for drawn in itertools.combinations(range(C), count)
    ]
    torch.testing.assert_close(torch.stack(sums).mean(0), z.exp().sum(-1), rtol=1e-12, atol=0)


@given(st.permutations(range(C)), st.floats(0.3, 20), st.floats(0, 1))
def test_with_all_classes_it_is_the_full_softmax(order, t, alpha):
    """Loss and gradient, whatever the order of the candidates."""
    candidates, found = torch.tensor(order), []
    for sampled in (False, True):
        z, v = logits(2).requires_grad_(), logits(3)
        given_z, given_v = (sampled_logits(x, LABELS, candidates) if sampled else x for x in (z, v))
        objective = DistillationObjective(temperature=t, alpha=alpha)
        labels = torch.zeros_like(LABELS) if sampled else LABELS
        loss = objective(student_logits=given_z, teacher_logits=given_v, labels=labels).total
        found.append((loss.detach(), *torch.autograd.grad(loss, z)))
    for full, part in zip(*found, strict=True):
        torch.testing.assert_close(part, full, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", sorted(ALL_DIVERGENCES.keys() - {"dist"}))  # whose columns are one class in all rows
def test_every_divergence_over_all_candidates_is_that_over_all_classes(name):
    z, v = logits(4), logits(5)
    losses = [
        DistillationObjective(temperature=3.0, divergence=name, alpha=1.0)(
            student_logits=a, teacher_logits=b, labels=labels
        ).total
        for a, b, labels in (
            (z, v, LABELS),
            (sampled_logits(z, LABELS, EVERY), sampled_logits(v, LABELS, EVERY), torch.zeros_like(LABELS)),
        )
    ]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", list(ALL_DIVERGENCES))
def test_every_divergence_takes_candidates_and_has_a_finite_gradient(name):
    z, v, candidates = logits(6).requires_grad_(), logits(7), torch.tensor([1, 3])
    loss = DistillationObjective(temperature=2.0, divergence=name)(
        student_logits=sampled_logits(z, LABELS, candidates),
        teacher_logits=sampled_logits(v, LABELS, candidates),
        labels=torch.zeros_like(LABELS),
    ).total
    loss.backward()
    assert z.grad.isfinite().all()
    assert (z.grad != 0).any()
    untouched = torch.ones(R, C, dtype=torch.bool)
    untouched[:, candidates] = False
    untouched[torch.arange(R), LABELS] = False
    assert (z.grad[untouched] == 0).all()


@given(st.floats(0.5, 8), st.integers(1, C))
def test_a_student_that_is_its_teacher_has_nothing_to_learn(t, count):
    z = logits(8).requires_grad_()
    v = z.detach() + torch.arange(float(R), dtype=torch.float64)[:, None]  # a constant a row, which softmax forgets
    drawn = torch.arange(count)
    loss = DistillationObjective(temperature=t, alpha=1.0)(
        student_logits=sampled_logits(z, LABELS, drawn), teacher_logits=sampled_logits(v, LABELS, drawn)
    ).total
    (gradient,) = torch.autograd.grad(loss, z)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


NEEDED = {
    "constant": (3.0,),
    "linear": (4.0, 1.0),
    "cosine": (4.0, 1.0),
    "exponential": (4.0, 1.0),
    "step": ({0.0: 4.0},),
}


@pytest.mark.parametrize("name", sorted(POLICIES.keys() - {"ctkd_instance"}))  # a recipe with it is refused
def test_every_policy_takes_candidates(name):
    """Fitted, as in a run, on rows of all classes."""
    policy = POLICIES[name](*NEEDED.get(name, ()), **({"entropy": 0.5} if name == "softness" else {}))
    policy.fit(logits(9, rows=40).float())
    z, v = (sampled_logits(logits(seed).float(), LABELS, torch.tensor([1, 3, 4])) for seed in (10, 11))
    loss = DistillationObjective(temperature=policy)(
        student_logits=z, teacher_logits=v, labels=torch.zeros_like(LABELS), progress=0.5
    ).total
    assert loss.isfinite()
