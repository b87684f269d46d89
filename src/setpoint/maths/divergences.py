"""Divergences between student and teacher: log-probabilities in, nats per row out, summed over classes, never reduced.

None of them knows a temperature: log-probabilities come tempered from ``log_temper``, and
the factor that balances the gradient (T² and its kin) is the temperature policy's. A class whose weighting probability
is 0 adds exactly 0, in the gradient too; classes at ``-inf`` on both sides are masked. A class at ``-inf`` on the other
side alone makes the divergence ``inf`` where the mathematics does.

At a high temperature p and q differ by about 1/T and the KL divergence is of the order of 1/T², so summed as it is
written it drowns in float32: from T = 1000 on it is wrong, even negative. Below, each class adds its own second-order
part, and T²·KL holds in float32 to 1 % and better at T = 10 000.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

LogProbs = Float[Tensor, "*rows C"]
PerRow = Float[Tensor, "*rows"]


def forward_kl(student_log_probs: LogProbs, teacher_log_probs: LogProbs) -> PerRow:
    """KL(p‖q) = Σ p (log p − log q), p the teacher's, q the student's; gradient to the student's logits β(q − p).

    It is ``inf`` where a class is ``-inf`` for the student and not for the teacher.

    Examples:
        >>> p = torch.tensor([0.5, 0.5]).log()
        >>> forward_kl(p, p)
        tensor(0.)
    """
    p = teacher_log_probs.exp()
    # Any finite gap does where p is 0, at which tanh is −1.
    gap = torch.where(p > 0, teacher_log_probs - student_log_probs, -100.0)
    with torch.no_grad():
        # p − q, written as (p + q) tanh(gap/2) to have the rounding of p · gap: it sums to 0 over classes and so has
        # no gradient either, but takes from each class the first order in 1/T, which would otherwise cancel in the sum.
        first_order = (p + student_log_probs.exp()) * torch.tanh(gap / 2)
    return (p * gap - first_order).sum(-1)


def reverse_kl(student_log_probs: LogProbs, teacher_log_probs: LogProbs) -> PerRow:
    """KL(q‖p) = Σ q (log q − log p): mode-seeking; ``inf`` where a class is ``-inf`` for the teacher alone.

    Examples:
        >>> p = torch.tensor([0.5, 0.5]).log()
        >>> reverse_kl(p, p)
        tensor(0.)
    """
    return forward_kl(teacher_log_probs, student_log_probs)


def jensen_shannon(student_log_probs: LogProbs, teacher_log_probs: LogProbs) -> PerRow:
    """½ KL(p‖m) + ½ KL(q‖m) with m = ½(p + q); from 0 to log 2. Source: Lin 1991, IEEE Trans. Inf. Theory 37(1).

    A class at ``-inf`` on one side adds ½ log 2 times the other side's probability.

    Examples:
        >>> p = torch.tensor([0.5, 0.5]).log()
        >>> jensen_shannon(p, p)
        tensor(0.)
    """
    p, q = teacher_log_probs.exp(), student_log_probs.exp()
    # Beyond e^-1000 a probability is 0, and beyond e^±40 between two the smaller adds nothing, even in float64.
    gap = (student_log_probs.clamp(min=-1000) - teacher_log_probs.clamp(min=-1000)).clamp(-40, 40)
    m_by_p = torch.log1p(torch.expm1(gap) / 2)  # log(m/p) without the rounding of log m; log(m/q) is a gap less
    return 0.5 * (q * gap - (p + q) * m_by_p).sum(-1)


def soft_cross_entropy(student_log_probs: LogProbs, teacher_log_probs: LogProbs) -> PerRow:
    """−Σ p log q = KL(p‖q) + H(p): the gradient of the forward KL, a value that does not reach 0.

    It is ``inf`` where a class is ``-inf`` for the student alone. In float32 it is right to its own rounding, but at a
    high temperature the KL part is smaller than that: take ``forward_kl`` to watch it.

    Examples:
        >>> p = torch.tensor([0.5, 0.5]).log()
        >>> soft_cross_entropy(p, p).exp()
        tensor(2.)
    """
    p = teacher_log_probs.exp()
    return -(p * torch.where(p > 0, student_log_probs, 0.0)).sum(-1)


def logit_mse(student_log_probs: LogProbs, teacher_log_probs: LogProbs) -> PerRow:
    """1/(2C) Σ (z̄/T − v̄/T)², the squared distance of centred logits: what T²·KL tends to as T grows.

    A log-probability is a tempered logit up to a constant of its row, so centring gives the centred logit back.
    Classes at ``-inf`` on either side are left out, of C too.
    Source: Hinton et al. 2015, eq. 4; Kim et al. 2021, arXiv:2105.08919.

    Examples:
        >>> logit_mse(torch.tensor([0.0, -2.0]), torch.tensor([-3.0, -3.0]))
        tensor(0.5000)
    """
    live = (teacher_log_probs != -math.inf) & (student_log_probs != -math.inf)
    count = live.sum(-1, keepdim=True).clamp(min=1)
    gap = torch.where(live, student_log_probs - teacher_log_probs, 0.0)
    gap = torch.where(live, gap - gap.sum(-1, keepdim=True) / count, 0.0)
    return gap.square().sum(-1) / (2 * count.squeeze(-1))


DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
    "soft_cross_entropy": soft_cross_entropy,
    "logit_mse": logit_mse,
}
