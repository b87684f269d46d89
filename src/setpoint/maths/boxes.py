"""Boxes: how far one is from another, and which of two sets belong together.

A box is its centre, width and height in shares of the picture, ``[..., 4]`` as (x, y, w, h).
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

L1_WEIGHT, GIOU_WEIGHT = 5.0, 2.0
"""Of the terms of a box's loss, as in DETR."""


def corners(boxes: Tensor) -> Tensor:
    """Left, top, right and bottom of boxes ``[..., 4]``.

    Examples:
        >>> corners(torch.tensor([0.5, 0.5, 0.5, 1.0]))
        tensor([0.2500, 0.0000, 0.7500, 1.0000])
    """
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised intersection over union of boxes ``[..., 4]`` that broadcast, in (-1, 1]: ``[...]``.

    IoU less the share of the smallest box around both that neither covers. Two boxes without area have an IoU of 0.
    Source: Rezatofighi et al. 2019, arXiv:1902.09630.

    Examples:
        >>> left, right = torch.tensor([0.25, 0.5, 0.5, 1.0]), torch.tensor([0.75, 0.5, 0.5, 1.0])
        >>> float(giou(left, left)), float(giou(left, right)), float(giou(left, torch.tensor([0.5, 0.5, 1.0, 1.0])))
        (1.0, 0.0, 0.5)
    """
    p, q = corners(a), corners(b)
    inside = (torch.minimum(p[..., 2:], q[..., 2:]) - torch.maximum(p[..., :2], q[..., :2])).clamp(min=0).prod(-1)
    around = (torch.maximum(p[..., 2:], q[..., 2:]) - torch.minimum(p[..., :2], q[..., :2])).clamp(min=0).prod(-1)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - inside
    tiny = torch.finfo(union.dtype).tiny
    return inside / union.clamp(min=tiny) - (around - union) / around.clamp(min=tiny)


def box_loss(a: Tensor, b: Tensor) -> Tensor:
    """5·L1 + 2·(1 − GIoU) of boxes ``[..., 4]`` that broadcast: ``[...]``; 0 where they are the same.

    Source: Carion et al. 2020 (DETR), arXiv:2005.12872, section 3.1 and A.4.

    Examples:
        >>> one = torch.tensor([0.5, 0.5, 0.2, 0.2])
        >>> float(box_loss(one, one))
        0.0
    """
    return L1_WEIGHT * (a - b).abs().sum(-1) + GIOU_WEIGHT * (1 - giou(a, b))


@torch.no_grad()
def match(cost: Tensor) -> tuple[Tensor, Tensor]:
    """The assignment of rows to columns of least total cost, each at most once: the rows and their columns.

    Source: Kuhn 1955, the Hungarian method, by SciPy.

    Examples:
        >>> match(torch.tensor([[1.0, 9.0], [0.0, 2.0], [5.0, 5.0]]))
        (tensor([0, 1]), tensor([0, 1]))
    """
    rows, columns = linear_sum_assignment(torch.nan_to_num(cost, nan=1e9, posinf=1e9, neginf=-1e9).cpu().numpy())
    return torch.as_tensor(rows, device=cost.device), torch.as_tensor(columns, device=cost.device)
