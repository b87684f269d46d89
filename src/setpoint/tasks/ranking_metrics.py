"""Scores of ranking one right item among all."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from setpoint.tasks.base import Part, Rows, Scores

RANKING_SCORES = ("ndcg@10", "ndcg@5", "hr@1", "hr@5", "hr@10", "mrr")


def rank_and_log_prob(logits: Tensor, labels: Tensor) -> Tensor:
    """The rank of the right class among all, from 1, and its log-probability in nats.

    All classes that are not below the right one come before it, ties included: a model that cannot tell classes apart
    earns nothing by it. A logit that is no number counts as not below.

    Args:
        logits: ``[..., C]``.
        labels: ``[...]``; negative where there is no row, whose numbers mean nothing.

    Returns:
        ``[..., 2]``, float32.

    Examples:
        >>> rank_and_log_prob(torch.tensor([[0.0, 2.0, 1.0], [5.0, 5.0, 5.0]]), torch.tensor([2, 0]))
        tensor([[ 2.0000, -1.4076],
                [ 3.0000, -1.0986]])
    """
    index = labels.clamp(min=0).unsqueeze(-1)
    own = logits.gather(-1, index)
    rank = (~(logits < own)).sum(-1).clamp(min=1)
    log_prob = torch.log_softmax(logits.float(), -1).gather(-1, index).squeeze(-1)
    return torch.stack([rank.float(), log_prob], -1)


def ranking_scores(scored: Rows) -> Scores:
    """Hit rate and NDCG at cut-offs, and the mean reciprocal rank, over rows.

    With one right item the ideal DCG is 1, so that NDCG@k is 1 / log2(1 + rank) within the first k, else 0.
    Source: Järvelin and Kekäläinen 2002 (ACM TOIS 20). Against all items, not a sample of them, which orders models
    otherwise: Krichene and Rendle 2020 (KDD).

    Args:
        scored: of each example ``[rows, 2]``, as ``rank_and_log_prob`` has it.

    Examples:
        >>> scores = ranking_scores([np.array([[1.0, 0.0]]), np.array([[3.0, 0.0]]), np.array([[11.0, 0.0]])])
        >>> {name: round(score(slice(None)), 3) for name, score in scores.items()}
        {'ndcg@10': 0.5, 'ndcg@5': 0.5, 'hr@1': 0.333, 'hr@5': 0.667, 'hr@10': 0.667, 'mrr': 0.475}
    """
    ranks = _ranks(scored)
    values = {f"hr@{k}": (ranks <= k).astype(np.float64) for k in (1, 5, 10)}
    values |= {f"ndcg@{k}": np.where(ranks <= k, 1 / np.log2(1 + ranks), 0.0) for k in (5, 10)}
    values["mrr"] = 1 / ranks
    return {name: partial(_mean, values[name]) for name in RANKING_SCORES}


def ranking_tables(scored: Rows) -> dict[str, Any]:
    """``log_loss``, in nats a row, and ``median_rank``; arguments as of ``ranking_scores``."""
    log_probs = np.concatenate([rows[:, 1] for rows in scored]).astype(np.float64)
    return {"log_loss": float(-log_probs.mean()), "median_rank": float(np.median(_ranks(scored)))}


def mean_log_rank(scored: Rows) -> float:
    """The mean of log rank: finer than any cut-off, and the same at every temperature.

    Examples:
        >>> mean_log_rank([np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]])])
        0.0
    """
    return float(np.log(_ranks(scored)).mean())


def _mean(values: np.ndarray, part: Part) -> float:
    return float(values[part].mean())


def _ranks(scored: Rows) -> np.ndarray:
    return np.concatenate([rows[:, 0] for rows in scored]).astype(np.float64)
