"""Divergences that read more than two distributions, or that mix several: the companions of the published methods.

Log-probabilities in (tempered), nats per row out, summed over classes, like ``divergences``. Those that know the label
take ``labels``; a row whose label is missing (negative) takes the teacher's top class in its place. None knows a
temperature: the factor T² and its kin is the policy's.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from setpoint.errors import TargetError
from setpoint.maths.divergences import Divergence, forward_kl, reverse_kl, soft_cross_entropy
from setpoint.maths.tempering import log_temper
from setpoint.types import Temperatures

LogProbs = Float[Tensor, "*rows C"]
PerRow = Float[Tensor, "*rows"]
Labels = Int[Tensor, "..."]


def dkd(
    student_log_probs: LogProbs, teacher_log_probs: LogProbs, labels: Labels, target: float = 1.0, other: float = 8.0
) -> PerRow:
    """Decoupled KD: target·KL of (p_y, 1 − p_y) + other·KL over the other classes, renormalised.

    With ``target`` = 1 and ``other`` = 1 − p_y this is the forward KL; decoupling frees that weight.
    Source: Zhao et al. 2022, arXiv:2203.08679.

    Args:
        student_log_probs: ``[..., C]``.
        teacher_log_probs: ``[..., C]``.
        labels: ``[...]``.
        target: weight of the target class against all others.
        other: weight of the distribution over the others.

    Examples:
        >>> p = torch.tensor([[0.5, 0.3, 0.2]]).log()
        >>> dkd(p, p, torch.tensor([0]))
        tensor([0.])
    """
    chosen = _chosen(labels, teacher_log_probs)
    q_target, q_other = _split(student_log_probs, chosen)
    p_target, p_other = _split(teacher_log_probs, chosen)
    some = (p_other > -math.inf).any(-1)  # where the teacher has one live class, nothing is said of others
    between_others = torch.where(some, forward_kl(q_other, p_other), 0.0)
    return target * forward_kl(q_target, p_target) + other * between_others


def nkd(
    student_log_probs: LogProbs,
    teacher_log_probs: LogProbs,
    labels: Labels,
    student_logits: Float[Tensor, "*plain C"],
    teacher_logits: Float[Tensor, "*plain C"],
    other: float = 1.5,
) -> tuple[PerRow, Float[Tensor, "*plain"]]:
    """Normalised KD: other·cross-entropy over the non-target classes at T, and −p_y log q_y at T = 1.

    The second part is taken at T = 1 and so lies outside the policy's scale: two results, the tempered rows and the
    plain ones. Like every cross-entropy it is not 0 where the student equals its teacher.
    Source: Yang et al. 2023, arXiv:2303.13005.

    Args:
        student_log_probs: ``[..., C]``, tempered.
        teacher_log_probs: ``[..., C]``, tempered.
        labels: ``[...]``.
        student_logits: ``[..., C]``, as they are.
        teacher_logits: ``[..., C]``, as they are.
        other: γ, weight of the non-target classes.

    Examples:
        >>> z = torch.tensor([[2.0, 0.0, 0.0]])
        >>> tempered, plain = nkd(log_temper(z, 4.0), log_temper(z, 4.0), torch.tensor([0]), z, z, other=1.0)
        >>> tempered.exp(), plain  # two others, equally likely
        (tensor([2.]), tensor([0.1885]))
    """
    chosen = _chosen(labels, teacher_log_probs)
    _, q_other = _split(student_log_probs, chosen)
    _, p_other = _split(teacher_log_probs, chosen)
    index = _chosen(labels, teacher_logits).unsqueeze(-1)
    p_y = log_temper(teacher_logits, 1.0).gather(-1, index).exp()
    log_q_y = log_temper(student_logits, 1.0).gather(-1, index)
    plain = -(p_y * torch.where(p_y > 0, log_q_y, 0.0)).squeeze(-1)
    return other * soft_cross_entropy(q_other, p_other), plain


def dist(student_log_probs: LogProbs, teacher_log_probs: LogProbs, within: float = 1.0, between: float = 1.0) -> PerRow:
    """DIST: within·(1 − Pearson of the row) + between·(1 − Pearson of each class over the rows, averaged).

    The second reads the whole batch: 1 − ρ of a class is half the squared distance of its standardised columns, of
    which each row has its share, so that the mean over rows is the paper's. It alone depends on how rows are batched.
    Source: Huang et al. 2022, arXiv:2205.10536.

    Args:
        student_log_probs: ``[..., R, C]``.
        teacher_log_probs: ``[..., R, C]``.
        within: weight of the relation between the classes of a row.
        between: weight of the relation between the rows of a class.

    Examples:
        >>> p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]).log()
        >>> dist(p, p)
        tensor([0., 0.])
    """
    p, q = teacher_log_probs.exp(), student_log_probs.exp()
    live = (teacher_log_probs > -math.inf) | (student_log_probs > -math.inf)
    rows = 0.5 * (_standardised(q, -1, live) - _standardised(p, -1, live)).square().sum(-1)
    if p.ndim < 2:
        return within * rows
    columns = (_standardised(q, -2, live) - _standardised(p, -2, live)).square().sum(-1)
    columns = 0.5 * p.shape[-2] * columns / live.any(-2).sum(-1, keepdim=True).clamp(min=1)
    return within * rows + between * columns


def adaptive_kl(student_log_probs: LogProbs, teacher_log_probs: LogProbs, head: float = 0.5) -> PerRow:
    """AKL: forward and reverse KL, weighted by where teacher and student differ, in the head or in the tail.

    The head is the teacher's top classes up to a cumulative probability ``head`` (always the first); forward KL counts
    by its share of Σ|p − q|, reverse KL by the tail's.
    Source: Wu et al. 2024, arXiv:2404.02657

    Args:
        student_log_probs: ``[..., C]``.
        teacher_log_probs: ``[..., C]``.
        head: μ, in (0, 1).

    Examples:
        >>> p = torch.tensor([0.5, 0.3, 0.2]).log()
        >>> adaptive_kl(p, p)
        tensor(0.)
    """
    with torch.no_grad():
        p, q = teacher_log_probs.exp(), student_log_probs.exp()
        ordered, order = p.sort(dim=-1, descending=True)
        in_head = ordered.cumsum(-1) <= head
        in_head[..., 0] = True
        gap = (p - q).abs().gather(-1, order)
        whole = gap.sum(-1)
        share = torch.where(whole > 0, (gap * in_head).sum(-1) / whole.clamp(min=1e-30), 0.5)
    forward, reverse = (kl(student_log_probs, teacher_log_probs) for kl in (forward_kl, reverse_kl))
    # A share of 0 of an infinite divergence is 0.
    return torch.where(share > 0, share * forward, 0.0) + torch.where(share < 1, (1 - share) * reverse, 0.0)


def todi(student_log_probs: LogProbs, teacher_log_probs: LogProbs) -> PerRow:
    """ToDi: for each class σ(log p/q)·p log(p/q) + σ(log q/p)·q log(q/p), the two weights detached.

    Forward KL where the student underrates a class, reverse where it overrates it.
    Source: Jung et al. 2025, arXiv:2505.16297.

    Examples:
        >>> p = torch.tensor([0.5, 0.3, 0.2]).log()
        >>> todi(p, p)
        tensor(0.)
    """
    p, q = teacher_log_probs.exp(), student_log_probs.exp()
    gap = torch.where((p > 0) | (q > 0), teacher_log_probs - student_log_probs, 0.0)
    weight = torch.sigmoid(gap.detach())
    return (weight * p * torch.where(p > 0, gap, 0.0) - (1 - weight) * q * torch.where(q > 0, gap, 0.0)).sum(-1)


def squared_error(
    student_log_probs: LogProbs,
    teacher_log_probs: LogProbs,
    student_logits: Float[Tensor, "*plain C"],
    teacher_logits: Float[Tensor, "*plain C"],
    temperatures: Temperatures,
) -> PerRow:
    """1/C Σ (z/T_student − v/T_teacher)², of the logits as they are: unlike ``logit_mse`` their level counts too.

    Classes at ``-inf`` on either side are left out, of C too.
    Source: Jafari et al. 2021 (Annealing-KD), arXiv:2104.07163, and its code, which averages over classes.

    Examples:
        >>> z, one = torch.tensor([[0.0, 2.0]]), torch.tensor(1.0)
        >>> squared_error(z, z, z, z + 1, Temperatures(one, one, one))
        tensor([1.])
    """
    live = (student_logits != -math.inf) & (teacher_logits != -math.inf)
    z, v = (logits.masked_fill(~live, 0.0) for logits in (student_logits, teacher_logits))
    gap = z / temperatures.student - v / temperatures.teacher
    return torch.where(live, gap, 0.0).square().sum(-1) / live.sum(-1).clamp(min=1)


COMPANIONS: dict[str, Divergence] = {
    "dkd": dkd,
    "nkd": nkd,
    "dist": dist,
    "adaptive_kl": adaptive_kl,
    "todi": todi,
    "squared_error": squared_error,
}


# ---------------------------------------------------------------------------------------------------- parts


def _chosen(labels: Tensor | None, like: Tensor) -> Tensor:
    """The class that counts as the target of each row, ``[...]``."""
    if labels is None:
        raise TargetError("labels are missing for a divergence that needs them", "give labels, or another divergence")
    labels = labels.long().expand(like.shape[:-1])
    return torch.where(labels < 0, like.argmax(-1), labels)


def _split(log_probs: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Log (p_y, 1 − p_y), ``[..., 2]``, and the log-probabilities of the other classes, renormalised, p_y at 0."""
    index = chosen.unsqueeze(-1)
    others = log_probs.scatter(-1, index, -math.inf)
    nothing = (others == -math.inf).all(-1, keepdim=True)  # a single live class: there are no others to compare
    rest = torch.logsumexp(others.masked_fill(nothing, 0.0), dim=-1, keepdim=True).masked_fill(nothing, -math.inf)
    others = torch.where(others > -math.inf, others - rest.masked_fill(nothing, 0.0), -math.inf)
    return torch.cat([log_probs.gather(-1, index), rest], dim=-1), others


def _standardised(x: Tensor, axis: int, live: Tensor) -> Tensor:
    """Minus the mean over live classes, at length 1; 0 for what is constant but for its rounding."""
    size = x.detach().square().sum(axis, keepdim=True)
    x = torch.where(live, x - x.sum(axis, keepdim=True) / live.sum(axis, keepdim=True).clamp(min=1), 0.0)
    square = x.square().sum(axis, keepdim=True)
    flat = square <= (8 * torch.finfo(x.dtype).eps) ** 2 * size
    return torch.where(flat, 0.0, x / square.masked_fill(flat, 1.0).sqrt())
