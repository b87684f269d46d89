"""Detectors of sets: which query is for which object, what is lost on each, and whose query is like whose.

Logits ``[B, Q, C + 1]`` have "no object" last. Everything is per query; the mean over queries is the caller's.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from setpoint.maths.boxes import box_loss, match
from setpoint.maths.moments import wide
from setpoint.maths.tempering import temper
from setpoint.types import IGNORED_LABEL

NO_OBJECT_WEIGHT = 0.1
"""What a query without an object counts against one with, as in DETR."""


def object_probability(logits: Tensor) -> Tensor:
    """The probability at T = 1 that a query ``[..., C + 1]`` has found an object: ``[...]``.

    Examples:
        >>> object_probability(torch.tensor([0.0, 0.0, 0.0]))
        tensor(0.6667)
    """
    return temper(logits, 1.0)[..., :-1].sum(-1)


def query_weight(logits: Tensor) -> Tensor:
    """What a query ``[..., C + 1]`` counts: from 0.1 where there is surely no object to 1 where there surely is one.

    It is the expectation of DETR's weight of the cross-entropy under the query's own probabilities at T = 1.

    Examples:
        >>> query_weight(torch.tensor([[0.0, -200.0], [-200.0, 0.0]]))
        tensor([1.0000, 0.1000])
    """
    return NO_OBJECT_WEIGHT + (1 - NO_OBJECT_WEIGHT) * object_probability(logits)


@torch.no_grad()
def match_objects(logits: Tensor, boxes: Tensor, classes: Tensor, objects: Tensor) -> Tensor:
    """For each query the number of the object it is for, -1 where it is for none: int64 ``[B, Q]``.

    The cost of a query for an object of class c is box loss − p(c); each object gets one query, and the sum is least.
    Source: Carion et al. 2020, arXiv:2005.12872, section 3.1.

    Args:
        logits: ``[B, Q, C + 1]``.
        boxes: of the queries, ``[B, Q, 4]``.
        classes: of the objects, ``[B, M]``, -100 where there are fewer than M.
        objects: their boxes, ``[B, M, 4]``.

    Examples:
        >>> boxes = torch.tensor([[[0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]]])
        >>> match_objects(torch.zeros(1, 2, 3), boxes, torch.tensor([[1, -100]]), boxes.flip(1))
        tensor([[-1,  0]])
    """
    found = torch.full(logits.shape[:2], -1, device=logits.device)
    probabilities = temper(logits, 1.0)
    for b, here in enumerate(classes != IGNORED_LABEL):
        numbers = here.nonzero().squeeze(-1)
        cost = box_loss(boxes[b][:, None], objects[b][None, numbers]) - probabilities[b][:, classes[b][numbers]]
        queries, chosen = match(cost)
        found[b, queries] = numbers[chosen]
    return found


def set_loss(logits: Tensor, boxes: Tensor, classes: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each query on its object, and its label: ``[B, Q]`` both; arguments as of ``match_objects``.

    Cross-entropy and box loss of a query with an object; 0.1 times the cross-entropy of "no object" of one without.
    Source: Carion et al. 2020, arXiv:2005.12872, sections 3.1 and A.4. Where DETR divides the first by the sum of the
    weights and the second by the number of objects, both are per query here, so that a step's mean over queries is the
    same however it is cut into batches.

    Examples:
        >>> one = torch.tensor([[[0.5, 0.5, 0.2, 0.2]]])
        >>> loss, labels = set_loss(torch.zeros(1, 1, 2), one, torch.tensor([[0]]), one)
        >>> round(loss.item(), 3), labels
        (0.693, tensor([[0]]))
    """
    none = logits.shape[-1] - 1
    if classes.shape[-1] == 0:
        classes, objects = classes.new_full((len(classes), 1), IGNORED_LABEL), objects.new_zeros(len(objects), 1, 4)
    which = match_objects(logits, boxes, classes, objects)
    there, chosen = which >= 0, which.clamp(min=0)
    labels = torch.where(there, classes.gather(1, chosen), none)
    wanted = objects.gather(1, chosen[..., None].expand(-1, -1, 4)).to(boxes.dtype)
    entropy = cross_entropy(wide(logits).transpose(1, 2), labels, reduction="none")
    weight = torch.full_like(entropy, NO_OBJECT_WEIGHT).masked_fill(there, 1.0)
    return weight * entropy + torch.where(there, box_loss(wide(boxes), wide(wanted)), 0.0), labels


@torch.no_grad()
def match_queries(logits: Tensor, boxes: Tensor, teacher_logits: Tensor, teacher_boxes: Tensor) -> Tensor:
    """For each query of a student the teacher's query it learns from, one to one: int64 ``[B, Q]``.

    The cost is DETR's with the teacher's classes taken by their probabilities p_t at T = 1 and its boxes by what the
    query counts: ``query_weight · box loss − Σ p_t(c) p(c)``, the sum over the classes of objects. Of all assignments
    that of a teacher to itself is best: boxes that are the same cost nothing, and Σ p_t · p is greatest where the two
    orders are the same.

    Args:
        logits: the student's, ``[B, Q, C + 1]``.
        boxes: the student's, ``[B, Q, 4]``.
        teacher_logits: ``[B, Q, C + 1]``.
        teacher_boxes: ``[B, Q, 4]``.

    Examples:
        >>> boxes = torch.tensor([[[0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]]])
        >>> match_queries(torch.zeros(1, 2, 3), boxes, torch.zeros(1, 2, 3), boxes.flip(1))
        tensor([[1, 0]])
    """
    p, v = (temper(z.double(), 1.0)[..., :-1] for z in (logits, teacher_logits))
    away = box_loss(boxes[:, :, None].double(), teacher_boxes[:, None].double())
    cost = query_weight(teacher_logits.double())[:, None] * away - p @ v.transpose(1, 2)
    return torch.stack([match(one)[1] for one in cost])


def teach(
    logits: Tensor, boxes: Tensor, teacher_logits: Tensor, teacher_boxes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What each query of a student learns from its teacher; arguments as of ``match_queries``.

    Returns:
        The teacher's logits in the student's order ``[B, Q, C + 1]``; what each query counts ``[B, Q]``, by the teacher
        (``query_weight``), since most queries find nothing and would outweigh the few that do; and the box loss to the
        teacher's box times the teacher's probability of an object ``[B, Q]``, as a box around nothing says nothing.

    Examples:
        >>> logits, boxes = torch.zeros(1, 1, 3), torch.tensor([[[0.5, 0.5, 0.2, 0.2]]])
        >>> [part.tolist() for part in teach(logits, boxes, logits, boxes)[1:]]
        [[[0.7000...]], [[0.0]]]
    """
    order = match_queries(logits, boxes, teacher_logits, teacher_boxes)[..., None]
    v = teacher_logits.gather(1, order.expand_as(teacher_logits))
    wanted = teacher_boxes.gather(1, order.expand_as(teacher_boxes))
    return v, query_weight(v), object_probability(v) * box_loss(wide(boxes), wide(wanted))
