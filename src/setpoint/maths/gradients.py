"""The gradient of the forward KL on the student's logits in closed form, and what it tends to at a high temperature."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from setpoint.maths.moments import wide


@torch.no_grad()
def forward_kl_gradient(
    student_log_probs: Float[Tensor, "*rows C"],
    teacher_log_probs: Float[Tensor, "*rows C"],
    student_temperature: float | Tensor = 1.0,
) -> Float[Tensor, "*rows C"]:
    """∂KL(p‖q)/∂z = (q − p) / T_student for q = softmax(z / T_student), ``[..., C]``; each row sums to 0.

    Source: Hinton et al. 2015, arXiv:1503.02531, eq. 2.

    Examples:
        >>> forward_kl_gradient(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.9, 0.1]).log(), 2.0)
        tensor([-0.2000,  0.2000])
    """
    return (student_log_probs.exp() - teacher_log_probs.exp()) / student_temperature


@torch.no_grad()
def matching_gradient(
    student_logits: Float[Tensor, "*rows C"], teacher_logits: Float[Tensor, "*rows C"]
) -> Float[Tensor, "*rows C"]:
    """((z − z̄) − (v − v̄)) / C, ``[..., C]``: what T²·∂KL(p_T‖q_T)/∂z tends to as T grows.

    It is the gradient of ½·mean((z − z̄) − (v − v̄))², so that a temperature so high matches logits. Classes at ``-inf``
    on either side are left out, of C too, and get 0.
    Source: Hinton et al. 2015, arXiv:1503.02531, eq. 4, without its assumption that the logits are centred.

    Examples:
        >>> matching_gradient(torch.zeros(2), torch.tensor([3.0, 1.0]))
        tensor([-0.5000,  0.5000])
    """
    z, v = wide(student_logits), wide(teacher_logits)
    live = (z != -math.inf) & (v != -math.inf)
    count = live.sum(-1, keepdim=True).clamp(min=1)
    gap = torch.where(live, z - v, 0.0)
    return torch.where(live, gap - gap.sum(-1, keepdim=True) / count, 0.0) / count


@torch.no_grad()
def within(gradient: Float[Tensor, "*rows C"], classes: Bool[Tensor, "*rows C"]) -> Float[Tensor, "*rows"]:
    """The part of a gradient's square that tells some classes apart: Σ (g − ḡ)² over them, ḡ their mean, ``[...]``.

    What is left of the square pushes them all alike, or is on other classes; the two parts are orthogonal.

    Examples:
        >>> within(torch.tensor([-3.0, 1.0, 2.0]), torch.tensor([False, True, True]))
        tensor(0.5000)
    """
    inside = classes.to(gradient.dtype)  # to multiply by is quicker than to fill with 0
    mean = (gradient * inside).sum(-1, keepdim=True) / inside.sum(-1, keepdim=True).clamp(min=1)
    return ((gradient - mean) * inside).square().sum(-1)
