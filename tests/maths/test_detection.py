import math
from itertools import permutations

import numpy as np
import pytest
import torch

from setpoint.maths.boxes import box_loss
from setpoint.maths.detection import (
    match_objects,
    match_queries,
    object_probability,
    query_weight,
    set_loss,
    teach,
)
from setpoint.objective import DistillationObjective

Q, C = 5, 3


def made(seed, examples=2, queries=Q, scale=3.0):
    random = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(examples, queries, C + 1, generator=random, dtype=torch.float64)
    boxes = 0.1 + 0.6 * torch.rand(examples, queries, 4, generator=random, dtype=torch.float64)
    return logits, boxes


def softmax(z):
    z = z.detach().numpy()
    z = np.exp(z - z.max())
    return z / z.sum()


def cost_of(logits, boxes, label, wanted):
    """Of one query for one object, from the paper."""
    return float(box_loss(boxes, wanted)) - softmax(logits)[label]


@pytest.mark.parametrize("seed", range(4))
def test_each_object_gets_the_query_that_is_best_for_all(seed):
    logits, boxes = made(seed)
    _, objects = made(seed + 100, queries=3)
    classes = torch.tensor([[0, 2, 1], [1, -100, 2]])
    found = match_objects(logits, boxes, classes, objects)
    for b in range(2):
        there = [m for m in range(3) if classes[b, m] >= 0]
        costs = {
            order: sum(
                cost_of(logits[b, q], boxes[b, q], classes[b, m], objects[b, m])
                for q, m in zip(order, there, strict=True)
            )
            for order in permutations(range(Q), len(there))
        }
        best = min(costs, key=costs.get)
        assert [int(found[b, q]) for q in best] == there
        assert sorted(found[b].tolist())[: Q - len(there)] == [-1] * (Q - len(there))


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_of_a_set_query_by_query(seed):
    logits, boxes = made(seed)
    _, objects = made(seed + 100, queries=2)
    classes = torch.tensor([[2, 0], [-100, -100]])
    loss, labels = set_loss(logits, boxes, classes, objects)
    found = match_objects(logits, boxes, classes, objects)
    for b in range(2):
        for q in range(Q):
            p, m = softmax(logits[b, q]), int(found[b, q])
            if m < 0:
                expected, label = -0.1 * math.log(p[C]), C
            else:
                label = int(classes[b, m])
                expected = -math.log(p[label]) + float(box_loss(boxes[b, q], objects[b, m]))
            assert (float(loss[b, q]), int(labels[b, q])) == (pytest.approx(expected, abs=1e-12), label)
    assert (labels[1] == C).all()


def test_the_gradient_of_a_sets_loss_is_that_of_finite_differences():
    logits, boxes = made(7, examples=1)
    _, objects = made(8, examples=1, queries=2)
    classes = torch.tensor([[1, 2]])
    logits.requires_grad_(), boxes.requires_grad_()
    assert torch.autograd.gradcheck(lambda z, x: set_loss(z, x, classes, objects)[0], (logits, boxes))


def test_a_picture_without_objects_has_queries_of_nothing_alone():
    logits, boxes = made(0)
    loss, labels = set_loss(logits, boxes, torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 0, 4))
    assert (labels == C).all()
    assert torch.allclose(loss, -0.1 * logits.log_softmax(-1)[..., C])


@pytest.mark.parametrize("seed", range(4))
def test_queries_are_matched_to_the_teachers_as_brute_force_does(seed):
    (logits, boxes), (v, wanted) = made(seed), made(seed + 50)
    found = match_queries(logits, boxes, v, wanted)
    for b in range(2):
        cost = np.zeros((Q, Q))
        for i in range(Q):
            for j in range(Q):
                p, t = softmax(logits[b, i]), softmax(v[b, j])
                weight = 0.1 + 0.9 * (1 - t[C])
                cost[i, j] = weight * float(box_loss(boxes[b, i], wanted[b, j])) - (p[:C] * t[:C]).sum()
        best = min(permutations(range(Q)), key=lambda order: sum(cost[i, j] for i, j in enumerate(order)))
        assert tuple(found[b].tolist()) == best


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [0.1, 3.0, 200.0])
def test_a_teacher_is_matched_to_itself_and_a_shuffled_one_put_back(seed, scale):
    logits, boxes = made(seed, scale=scale)
    assert (match_queries(logits, boxes, logits, boxes) == torch.arange(Q)).all()
    order = torch.randperm(Q, generator=torch.Generator().manual_seed(seed))
    v, _, beside = teach(logits, boxes, logits[:, order], boxes[:, order])
    assert torch.equal(v, logits)
    assert beside.abs().max() < 1e-12


@pytest.mark.parametrize("t", [0.5, 1.0, 4.0, 50.0])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(t):
    logits, boxes = made(3)
    z, x = logits.clone().requires_grad_(), boxes.clone().requires_grad_()
    v, weight, beside = teach(z, x, logits.flip(1), boxes.flip(1))
    objective = DistillationObjective(temperature=t, alpha=1.0)
    loss = objective(
        student_logits=z.flatten(0, 1), teacher_logits=v.flatten(0, 1), beside=beside.flatten(), weight=weight.flatten()
    )
    loss.total.backward()
    assert float(loss.total.detach()) == pytest.approx(0, abs=1e-12)
    assert z.grad.abs().max() < 1e-12
    assert x.grad.abs().max() < 1e-12


def test_what_a_query_counts_is_the_expected_weight_of_detr():
    logits, _ = made(1)
    p = logits.softmax(-1)
    expected = sum(p[..., c] * (0.1 if c == C else 1.0) for c in range(C + 1))
    assert torch.allclose(query_weight(logits), expected)
    assert torch.allclose(object_probability(logits), 1 - p[..., C])


def test_background_does_not_drown_objects():
    """A query of nothing pulls a tenth as hard as one of an object that is as wrong."""
    v = torch.full((1, 16, C + 1), -8.0, dtype=torch.float64)
    v[..., C] = 8
    v[0, 0, 0], v[0, 0, C] = 8, -8
    boxes = torch.rand(1, 16, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = v.flip(-1).mul(0).requires_grad_()
    taught, weight, _ = teach(z, boxes, v, boxes)
    objective = DistillationObjective(temperature=1.0, alpha=1.0)
    objective(
        student_logits=z.flatten(0, 1), teacher_logits=taught.flatten(0, 1), weight=weight.flatten()
    ).total.backward()
    by_query = z.grad[0].norm(dim=-1)
    assert float(by_query[0]) == pytest.approx(10 * float(by_query[1]), rel=1e-3)
