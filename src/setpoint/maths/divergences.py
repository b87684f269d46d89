"""Divergences between student and teacher: log-probabilities in, nats per row out, summed over classes, never reduced.

None of them knows a temperature: log-probabilities come tempered from :func:`setpoint.maths.tempering.log_temper`, and
the factor that balances the gradient (T² and its kin) is the temperature policy's. Classes at ``-inf`` on both sides
are masked and add exactly 0, in the gradient too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

LogProbs = Float[Tensor, "*rows C"]
PerRow = Float[Tensor, "*rows"]


def _finite(log_probs: Tensor) -> Tensor:
    """Log-probabilities with ``-inf`` replaced by 0, to be multiplied with their probability 0."""
    return log_probs.masked_fill(log_probs == -math.inf, 0.0)


def forward_kl(student_log_probs: LogProbs, teacher_log_probs: LogProbs) -> PerRow:
    """KL(p‖q) = Σ p (log p − log q), p the teacher's, q the student's; gradient to the student's logits β(q − p).

    Example:
        >>> p = torch.tensor([0.5, 0.5]).log()
        >>> forward_kl(p, p)
        tensor(0.)
    """
    p = teacher_log_probs.exp()
    return (p * (_finite(teacher_log_probs) - _finite(student_log_probs))).sum(-1)


def reverse_kl(student_log_probs: LogProbs, teacher_log_probs: LogProbs) -> PerRow:
    """KL(q‖p) = Σ q (log q − log p): mode-seeking.

    Example:
        >>> p = torch.tensor([0.5, 0.5]).log()
        >>> reverse_kl(p, p)
        tensor(0.)
    """
    return forward_kl(teacher_log_probs, student_log_probs)


def jensen_shannon(student_log_probs: LogProbs, teacher_log_probs: LogProbs) -> PerRow:
    """½ KL(p‖m) + ½ KL(q‖m) with m = ½(p + q); from 0 to log 2. Source: Lin 1991, IEEE Trans. Inf. Theory 37(1).

    Example:
        >>> p = torch.tensor([0.5, 0.5]).log()
        >>> jensen_shannon(p, p)
        tensor(0.)
    """
    student, teacher = _finite(student_log_probs), _finite(teacher_log_probs)
    mixture = torch.logaddexp(student, teacher) - math.log(2)
    p, q = teacher_log_probs.exp(), student_log_probs.exp()
    return 0.5 * (p * (teacher - mixture) + q * (student - mixture)).sum(-1)


def soft_cross_entropy(student_log_probs: LogProbs, teacher_log_probs: LogProbs) -> PerRow:
    """−Σ p log q = KL(p‖q) + H(p): the gradient of the forward KL, a value that does not reach 0.

    Example:
        >>> p = torch.tensor([0.5, 0.5]).log()
        >>> soft_cross_entropy(p, p).exp()
        tensor(2.)
    """
    return -(teacher_log_probs.exp() * _finite(student_log_probs)).sum(-1)


def logit_mse(student_log_probs: LogProbs, teacher_log_probs: LogProbs) -> PerRow:
    """1/(2C) Σ (z̄/T − v̄/T)², the squared distance of centred logits: what T²·KL tends to as T grows.

    A log-probability is a tempered logit up to a constant of its row, so centring gives the centred logit back.
    Source: Hinton et al. 2015, eq. 4; Kim et al. 2021, arXiv:2105.08919.

    Example:
        >>> logit_mse(torch.tensor([0.0, -2.0]), torch.tensor([-3.0, -3.0]))
        tensor(0.5000)
    """
    live = (teacher_log_probs != -math.inf) & (student_log_probs != -math.inf)
    count = live.sum(-1, keepdim=True).clamp(min=1)
    gap = torch.where(live, _finite(student_log_probs) - _finite(teacher_log_probs), 0.0)
    gap = torch.where(live, gap - gap.sum(-1, keepdim=True) / count, 0.0)
    return gap.square().sum(-1) / (2 * count.squeeze(-1))


DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
    "soft_cross_entropy": soft_cross_entropy,
    "logit_mse": logit_mse,
}
