"""Softmax over some of many classes: each row's own class and candidates that all rows share."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def sampled_logits(
    logits: Float[Tensor, "R C"], labels: Int[Tensor, " R"], candidates: Int[Tensor, " N"]
) -> Float[Tensor, "R K"]:
    """Logits of the label and of N candidates, corrected so that their partition function is that of all C classes.

    A candidate stands for the C / N classes it was drawn from: log(C / N) is added to its logit, which is −log of its
    expected count (the logQ correction). Where candidates are drawn evenly and without replacement, Σ exp of a row has
    the row's whole Σ exp as its mean. The label is among them always and stands for itself; where it was drawn too, the
    candidate is masked. With all C classes as candidates nothing is left of the sampling.
    Source: Bengio and Senécal 2008 (IEEE Transactions on Neural Networks 19); Jean et al. 2015, arXiv:1412.2007.

    Args:
        logits: ``[R, C]``.
        labels: ``[R]``, a class in every row.
        candidates: ``[N]``, distinct classes.

    Returns:
        ``[R, 1 + N]``: the label first, then the candidates in their order; ``-inf`` where one is the label.

    Examples:
        >>> sampled_logits(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([1]), torch.tensor([3, 1]))
        tensor([[2.0000, 4.6931,   -inf]])
    """
    index = labels.long().unsqueeze(-1)
    drawn = logits.index_select(-1, candidates) + math.log(logits.shape[-1] / len(candidates))
    return torch.cat([logits.gather(-1, index), drawn.masked_fill(candidates == index, -math.inf)], -1)
