import itertools
import math

import pytest
import torch

from setpoint import DistillationObjective
from setpoint.maths.divergences import forward_kl
from setpoint.maths.gradients import forward_kl_gradient, matching_gradient, within
from setpoint.maths.tempering import log_temper

INF = math.inf
GENERATOR = torch.Generator().manual_seed(0)
TEACHER = 3 * torch.randn(6, 5, generator=GENERATOR, dtype=torch.float64)
STUDENT = torch.randn(6, 5, generator=GENERATOR, dtype=torch.float64)


def by_autograd(student, teacher, t, s):
    z = student.clone().requires_grad_()
    forward_kl(log_temper(z, s), log_temper(teacher, t)).sum().backward()
    return z.grad


@pytest.mark.parametrize(("t", "s"), [(1.0, 1.0), (4.0, 4.0), (0.5, 3.0), (7.0, 2.0)])
def test_the_gradient_is_autograds(t, s):
    found = forward_kl_gradient(log_temper(STUDENT, s), log_temper(TEACHER, t), s)
    torch.testing.assert_close(found, by_autograd(STUDENT, TEACHER, t, s), rtol=1e-9, atol=1e-12)
    assert float(found.sum(-1).abs().max()) < 1e-12


def test_a_masked_class_has_no_gradient():
    teacher, student = (torch.cat([x, torch.full((6, 1), -INF, dtype=torch.float64)], -1) for x in (TEACHER, STUDENT))
    found = forward_kl_gradient(log_temper(student, 2.0), log_temper(teacher, 2.0), 2.0)
    assert (found[:, -1] == 0).all()
    torch.testing.assert_close(found[:, :-1], by_autograd(STUDENT, TEACHER, 2.0, 2.0), rtol=1e-9, atol=1e-12)
    limit = matching_gradient(student, teacher)
    assert (limit[:, -1] == 0).all()
    torch.testing.assert_close(limit[:, :-1], matching_gradient(STUDENT, TEACHER), rtol=1e-9, atol=1e-12)


def test_the_loss_at_a_high_temperature_matches_logits():
    """T²·∂KL/∂z, as the objective scales it, comes to the limit as 1/T does."""
    limit, distances = matching_gradient(STUDENT, TEACHER), []
    for t in (1e2, 1e3, 1e4):
        z = STUDENT.clone().requires_grad_()
        (len(z) * DistillationObjective(t, alpha=1.0)(student_logits=z, teacher_logits=TEACHER).total).backward()
        distances.append(float((z.grad - limit).norm() / limit.norm()))
    assert distances[2] < 1e-3
    assert [a / b for a, b in itertools.pairwise(distances)] == pytest.approx([10, 10], rel=0.1)
    gap = (STUDENT - STUDENT.mean(-1, keepdim=True)) - (TEACHER - TEACHER.mean(-1, keepdim=True))
    torch.testing.assert_close(limit, gap / 5)


def test_what_tells_classes_apart_is_orthogonal_to_what_moves_them_alike():
    classes = torch.rand(6, 5, generator=GENERATOR) < 0.6
    classes[0] = False
    inside = within(TEACHER, classes)
    for row, kept, found in zip(TEACHER.tolist(), classes.tolist(), inside.tolist(), strict=True):
        values = [g for g, keep in zip(row, kept, strict=True) if keep]
        mean = math.fsum(values) / max(len(values), 1)
        assert found == pytest.approx(math.fsum((g - mean) ** 2 for g in values), abs=1e-12)
        alike = len(values) * mean**2
        others = math.fsum(g**2 for g, keep in zip(row, kept, strict=True) if not keep)
        assert found + alike + others == pytest.approx(math.fsum(g**2 for g in row))
