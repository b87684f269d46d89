"""Scores of classes that are in order: ratings, or a click and none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.metrics import cohen_kappa_score

from setpoint.maths.tempering import temper
from setpoint.tasks.base import Rows, Scores
from setpoint.tasks.classification_metrics import classification_scores, classification_tables

ORDINAL_SCORES = ("auc", "accuracy", "f1", "kappa")


def ordinal_scores(logits: Rows, labels: Rows, names: Sequence[str]) -> Scores:
    """``auc``, accuracy, macro F1 and quadratic weighted kappa.

    Rows are ordered by their expected value, of which two classes have the probability of the second.
    Source: kappa, Cohen 1968 (Psychological Bulletin 70).

    Args:
        logits: ``[1, C]`` for each example.
        labels: ``[1]`` for each example.
        names: the classes, numbers in ascending order.
    """
    flat, true = np.concatenate(list(logits)), np.concatenate(list(labels))
    expected, predicted = expected_values(flat, names), flat.argmax(-1)
    plain = classification_scores(logits, labels, names)
    return {
        "auc": lambda part: concordance(expected[part], true[part]),
        "accuracy": plain["accuracy"],
        "f1": plain["f1"],
        "kappa": lambda part: quadratic_kappa(true[part], predicted[part], len(names)),
    }


def ordinal_tables(logits: Rows, labels: Rows, names: Sequence[str]) -> dict[str, Any]:
    """``log_loss`` in nats; ``rmse`` and ``mae`` of the expected value; and the table over classes."""
    flat, true = np.concatenate(list(logits)), np.concatenate(list(labels))
    error = expected_values(flat, names) - np.array([float(name) for name in names])[true]
    log_probs = torch.log_softmax(torch.from_numpy(flat).double(), -1).numpy()
    return {
        "log_loss": float(-log_probs[np.arange(len(true)), true].mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "mae": float(np.abs(error).mean()),
    } | classification_tables(logits, labels, names)


def expected_values(logits: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The mean of the classes' values under the probabilities at T = 1, ``[N]`` in float64.

    Examples:
        >>> expected_values(np.array([[0.0, 0.0, 0.0]]), ("1", "2", "4.5"))
        array([2.5])
    """
    shares = temper(torch.from_numpy(logits).double(), 1.0).numpy()
    return shares @ np.array([float(name) for name in names])


def concordance(values: np.ndarray, classes: np.ndarray) -> float:
    """Of all pairs of rows of different classes, the share whose values are in the order of the classes; ties half.

    For two classes this is the area under the ROC curve. 0.5 where there is no such pair, as nothing is told.
    Source: Mann and Whitney 1947 for each two classes; Harrell et al. 1982 (JAMA 247) for more.

    Args:
        values: ``[N]``.
        classes: ``[N]``, numbered in their order.

    Examples:
        >>> concordance(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 1, 0, 1]))
        0.875
    """
    right = pairs = 0.0
    groups = [values[classes == label] for label in np.unique(classes)]
    for low, high in combinations(groups, 2):
        ranks = rankdata(np.concatenate([high, low]))[: len(high)]
        right += ranks.sum() - len(high) * (len(high) + 1) / 2
        pairs += len(low) * len(high)
    return float(right / pairs) if pairs else 0.5


def quadratic_kappa(true: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Agreement beyond chance, where being off by k classes weighs k²; 0 where one class is all there is.

    Examples:
        >>> quadratic_kappa(np.array([0, 1, 2]), np.array([0, 1, 2]), 3), quadratic_kappa(np.zeros(2), np.zeros(2), 3)
        (1.0, 0.0)
    """
    if len({*true.tolist(), *predicted.tolist()}) < 2:
        return 0.0
    return float(cohen_kappa_score(true, predicted, labels=range(classes), weights="quadratic"))
