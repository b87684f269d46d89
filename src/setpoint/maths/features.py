"""Distances between what happens inside teacher and student: states, attentions, relations; never reduced.

Each gives one value for a position or an example and none averages over the batch. A mask is True where a position
counts; where it is False the value is exactly 0, and what stands there, even NaN, reaches neither the value of another
position nor a gradient. All is computed in float32 at least.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from setpoint.errors import TargetError
from setpoint.maths.divergences import forward_kl
from setpoint.maths.moments import wide

States = Float[Tensor, "*rows D"]
PerRow = Float[Tensor, "*rows"]
Mask = Bool[Tensor, "B L"]


def hidden_mse(student: States, teacher: States) -> PerRow:
    """1/D Σ (s − t)², the squared distance of two states, mean over their width D.

    Source: Romero et al. 2015 (FitNets), arXiv:1412.6550; as a mean, Jiao et al. 2020 (TinyBERT), arXiv:1909.10351.

    Examples:
        >>> hidden_mse(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))
        tensor(2.)
    """
    return (wide(student) - wide(teacher)).square().mean(-1)


def hidden_cosine(student: States, teacher: States) -> PerRow:
    """1 − cos(s, t), from 0 to 2; ½ where one of the two is the zero vector, 0 where both are.

    Written as ½‖s/‖s‖ − t/‖t‖‖², which is the same and never below 0 by rounding.

    Source: Sanh et al. 2019 (DistilBERT), arXiv:1910.01108.

    Examples:
        >>> hidden_cosine(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0]))
        tensor(1.)
    """
    return pkd(student, teacher) / 2


def pkd(student: States, teacher: States) -> PerRow:
    """‖s/‖s‖ − t/‖t‖‖², the squared distance of two states brought to length 1; from 0 to 4.

    Source: Sun et al. 2019 (Patient KD), arXiv:1908.09355, equation 7, of which this is one summand.

    Examples:
        >>> pkd(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0]))
        tensor(2.)
    """
    s, t = (functional.normalize(wide(states), dim=-1) for states in (student, teacher))
    return (s - t).square().sum(-1)


# ---------------------------------------------------------------------------------------------------- attentions


def attention_kl(
    student: Float[Tensor, "B h L L"], teacher: Float[Tensor, "B H L L"], mask: Mask | None = None
) -> Float[Tensor, "B L"]:
    """KL(teacher‖student) between the attention distributions of each query position, mean over heads, in nats.

    Where teacher and student differ in the number of heads, each side is averaged over its heads first. A probability
    that the student has at 0 counts as the smallest number of its dtype, so that the value is finite.

    Args:
        student: probabilities ``[B, heads, L, L]``, each row a distribution over the keys.
        teacher: likewise.
        mask: ``[B, L]``, False at padding, which as a key has the probability 0 and as a query the value 0.

    Source: Sun et al. 2020 (MobileBERT), arXiv:2004.02984, section 3.2.

    Examples:
        >>> even = torch.full((1, 1, 2, 2), 0.5)
        >>> attention_kl(even, torch.eye(2)[None, None]).exp()
        tensor([[2., 2.]])
    """
    s, t = _like_heads(student, teacher)
    if mask is not None:
        s, t = _without_keys(s, mask), _without_keys(t, mask)
    live = t > 0
    log_t = torch.where(live, torch.where(live, t, 1.0).log(), -torch.inf)
    log_s = torch.where(live | (s > 0), s.clamp(min=torch.finfo(s.dtype).tiny).log(), -torch.inf)
    return _on_rows(forward_kl(log_s, log_t).mean(1), mask)


def attention_mse(
    student: Float[Tensor, "B h L L"], teacher: Float[Tensor, "B H L L"], mask: Mask | None = None
) -> Float[Tensor, "B L"]:
    """The squared distance of two attentions, mean over heads and keys, for each query position.

    Args:
        student: scores before the softmax, or probabilities, ``[B, heads, L, L]``; averaged over heads first where
            teacher and student differ in their number.
        teacher: likewise.
        mask: ``[B, L]``, False at padding, which is neither a key nor a query.

    Source: Jiao et al. 2020 (TinyBERT), arXiv:1909.10351, equation 7.

    Examples:
        >>> attention_mse(torch.full((1, 1, 2, 2), 0.5), torch.eye(2)[None, None])
        tensor([[0.2500, 0.2500]])
    """
    s, t = _like_heads(student, teacher)
    if mask is None:
        return (s - t).square().mean((1, 3))
    gaps = (_without_keys(s, mask) - _without_keys(t, mask)).square().sum(-1).mean(1)
    return _on_rows(gaps / mask.sum(-1, keepdim=True).clamp(min=1), mask)


def _like_heads(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    s, t = wide(student), wide(teacher)
    return (s, t) if s.shape[1] == t.shape[1] else (s.mean(1, keepdim=True), t.mean(1, keepdim=True))


def _without_keys(attention: Tensor, mask: Tensor) -> Tensor:
    """Zero wherever key or query is padding."""
    return attention.masked_fill(~(mask[:, None, None, :] & mask[:, None, :, None]), 0.0)


def _on_rows(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values.masked_fill(~mask, 0.0)


# ---------------------------------------------------------------------------------------------------- relations


def relation_kl(
    student: Float[Tensor, "B L d"], teacher: Float[Tensor, "B L D"], heads: int, mask: Mask | None = None
) -> Float[Tensor, "B L"]:
    """KL(teacher‖student) between the self-relations of each position, mean over relation heads, in nats.

    The relation of states A ``[L, d]`` of one head is softmax(A·Aᵀ/√d), a distribution over positions for each of them.
    It does not change under a rotation of a head's states, and the two models may differ in width.

    Args:
        student: hidden states, or queries, keys or values with their heads side by side, ``[B, L, width]``.
        teacher: likewise, of its own width.
        heads: relation heads into which either width is split.
        mask: ``[B, L]``, False at padding, which nothing is related to.

    Raises:
        TargetError: a width that the heads do not divide.

    Source: Wang et al. 2020 (MiniLM), arXiv:2002.10957, for values; Wang et al. 2021 (MiniLMv2), arXiv:2012.15828, for
    relation heads.

    Examples:
        >>> one_way, all_alike = torch.tensor([[[0.0], [9.0]]]), torch.zeros(1, 2, 4)
        >>> relation_kl(all_alike, one_way, heads=1).exp()
        tensor([[1., 2.]])
    """
    s, t = (_log_relations(wide(states), heads, mask) for states in (student, teacher))
    return _on_rows(forward_kl(s, t).mean(1), mask)


def _log_relations(states: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """The logarithm of softmax(A·Aᵀ/√d) for each relation head, ``[B, heads, L, L]``."""
    width = states.shape[-1]
    if width % heads:
        raise TargetError(f"{heads} relation heads do not divide a width of {width}", "give a divisor of both widths")
    if mask is not None:
        states = states.masked_fill(~mask.unsqueeze(-1), 0.0)
    a = states.reshape(*states.shape[:-1], heads, width // heads).transpose(1, 2)
    scores: Tensor = a @ a.transpose(-1, -2) * (width // heads) ** -0.5
    if mask is not None:
        # An example that is all padding keeps its keys: a softmax over nothing is NaN.
        gone = ~mask & mask.any(-1, keepdim=True)
        scores = scores.masked_fill(gone[:, None, None, :], -torch.inf)
    return scores.log_softmax(-1)


# ---------------------------------------------------------------------------------------------------- maps


def attention_transfer(student: Float[Tensor, "B c H W"], teacher: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
    """‖Qₛ/‖Qₛ‖ − Qₜ/‖Qₜ‖‖² of two convolutional maps, where Q = Σ over channels of A², one value for each example.

    The squared distance is that of the authors' code, summed over positions where that averages; the paper's equation 2
    has the distance itself. From 0 to 2; a map that is 0 everywhere stays so.

    Source: Zagoruyko and Komodakis 2017, arXiv:1612.03928.

    Examples:
        >>> left, right = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 3.0]]]])
        >>> attention_transfer(left, right)
        tensor([2.])
    """
    s, t = (functional.normalize(wide(maps).square().sum(1).flatten(1), dim=-1) for maps in (student, teacher))
    return (s - t).square().sum(-1)
