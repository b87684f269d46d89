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

from setpoint.errors import TargetError

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
    gap = _bounded_gap(student_log_probs, teacher_log_probs)
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


def skew_forward_kl(student_log_probs: LogProbs, teacher_log_probs: LogProbs, skew: float = 0.1) -> PerRow:
    """KL(p‖m) with m = skew·p + (1 − skew)·q: a forward KL that stays below −log skew, whatever the student says.

    Source: Ko et al. 2024 (DistiLLM), arXiv:2402.03898.

    Args:
        student_log_probs: ``[..., C]``.
        teacher_log_probs: ``[..., C]``.
        skew: share of p in the mixture, in [0, 1); at 0 the forward KL.

    Examples:
        >>> p = torch.tensor([0.5, 0.5]).log()
        >>> skew_forward_kl(p, p)
        tensor(0.)
    """
    if skew == 0:
        return forward_kl(student_log_probs, teacher_log_probs)
    p, q = teacher_log_probs.exp(), student_log_probs.exp()
    gap = _bounded_gap(student_log_probs, teacher_log_probs)
    m_by_p = torch.log1p((1 - skew) * torch.expm1(gap))  # log(m/p) without the rounding of log m
    with torch.no_grad():  # (1 − skew)(q − p) sums to 0 over classes; taken away, the first order in 1/T goes with it
        first_order = (1 - skew) * (p + q) * torch.tanh(gap / 2)
    return (first_order - p * m_by_p).sum(-1)


def skew_reverse_kl(student_log_probs: LogProbs, teacher_log_probs: LogProbs, skew: float = 0.1) -> PerRow:
    """KL(q‖m) with m = (1 − skew)·p + skew·q; source and ``skew`` as of ``skew_forward_kl``, which it mirrors.

    Examples:
        >>> p = torch.tensor([0.5, 0.5]).log()
        >>> skew_reverse_kl(p, p)
        tensor(0.)
    """
    return skew_forward_kl(teacher_log_probs, student_log_probs, skew)


def total_variation(student_log_probs: LogProbs, teacher_log_probs: LogProbs) -> PerRow:
    """½ Σ |p − q|, from 0 to 1: falls with 1/T, not 1/T², so that a policy's T² makes its weight grow with T.

    Examples:
        >>> total_variation(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.8, 0.2]).log())
        tensor(0.3000)
    """
    return 0.5 * (teacher_log_probs.exp() - student_log_probs.exp()).abs().sum(-1)


def alpha_beta(
    student_log_probs: LogProbs, teacher_log_probs: LogProbs, alpha: float = 0.5, beta: float = 0.5
) -> PerRow:
    """The α–β divergence −1/(αβ) Σ [p^α q^β − α/(α+β) p^(α+β) − β/(α+β) q^(α+β)], and its limits at α = 0 or β = 0.

    The larger α, the more a class counts where the teacher is sure; the larger β, where the student is. (1, 0) is the
    forward KL, (0, 1) the reverse, (½, ½) four times the squared Hellinger distance.
    Source: Cichocki et al. 2011, Entropy 13(1); Wang et al. 2025 (ABKD), arXiv:2505.04560.

    Args:
        student_log_probs: ``[..., C]``.
        teacher_log_probs: ``[..., C]``.
        alpha: α ≥ 0.
        beta: β ≥ 0, not both 0.

    Examples:
        >>> p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.8, 0.2]).log()
        >>> torch.allclose(alpha_beta(q, p, 1.0, 0.0), forward_kl(q, p))
        True
    """
    if alpha < 0 or beta < 0 or alpha + beta == 0:
        raise TargetError(f"alpha is {alpha} and beta {beta}", "give two numbers, 0 or above, not both 0")
    if beta == 0:
        return _power_kl(student_log_probs, teacher_log_probs, alpha)
    if alpha == 0:
        return _power_kl(teacher_log_probs, student_log_probs, beta)
    both = alpha + beta
    log_p, log_q = teacher_log_probs.clamp(min=-1000), student_log_probs.clamp(min=-1000)  # there a probability is 0
    gap = log_q - log_p
    near = gap.abs() < 1
    small = gap.clamp(-1, 1)
    rounded = (both * log_p).exp() * (beta / both * torch.expm1(both * small) - torch.expm1(beta * small))
    written = (
        alpha / both * (both * log_p).exp() + beta / both * (both * log_q).exp() - (alpha * log_p + beta * log_q).exp()
    )
    return torch.where(near, rounded, written).sum(-1) / (alpha * beta)


def _power_kl(student_log_probs: Tensor, teacher_log_probs: Tensor, power: float) -> Tensor:
    """(1/α²) Σ [p^α log(p^α / q^α) − p^α + q^α], the limit of the α–β divergence at β = 0."""
    p = (power * teacher_log_probs).exp()
    gap = torch.where(p > 0, power * (teacher_log_probs - student_log_probs), 0.0)
    small = gap.clamp(-1, 1)
    written = p * gap - p + (power * student_log_probs).exp()
    return torch.where((p > 0) & (gap.abs() < 1), p * (small + torch.expm1(-small)), written).sum(-1) / power**2


def _bounded_gap(student_log_probs: Tensor, teacher_log_probs: Tensor) -> Tensor:
    """Log q − log p: beyond e^-1000 a probability is 0, and beyond e^±40 between two the smaller adds nothing."""
    return (student_log_probs.clamp(min=-1000) - teacher_log_probs.clamp(min=-1000)).clamp(-40, 40)


Divergence = Callable[..., Tensor | tuple[Tensor, Tensor]]
"""Called with the student's and the teacher's log-probabilities, and by name with those of ``labels``,
``student_logits`` and ``teacher_logits`` that its signature has; gives nats per row, or those and a second part, of
nats at T = 1 that no scale multiplies."""

DIVERGENCES: dict[str, Divergence] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
    "soft_cross_entropy": soft_cross_entropy,
    "logit_mse": logit_mse,
    "skew_forward_kl": skew_forward_kl,
    "skew_reverse_kl": skew_reverse_kl,
    "total_variation": total_variation,
    "alpha_beta": alpha_beta,
}
