"""Scores of one prediction an example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import classification_report, f1_score, matthews_corrcoef

from setpoint.tasks.base import Rows, Scores


def classification_scores(logits: Rows, labels: Rows, names: Sequence[str]) -> Scores:
    """Accuracy, macro F1 and Matthews correlation.

    Args:
        logits: ``[1, C]`` for each example.
        labels: ``[1]`` for each example.
        names: the classes.
    """
    predicted, true = np.concatenate(list(logits)).argmax(-1), np.concatenate(list(labels))
    return {
        "accuracy": lambda part: float((true[part] == predicted[part]).mean()),
        "f1": lambda part: float(
            f1_score(true[part], predicted[part], average="macro", labels=range(len(names)), zero_division=0)
        ),
        "mcc": lambda part: float(matthews_corrcoef(true[part], predicted[part])),
    }


def class_answer(probabilities: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """What a user reads of one row of probabilities ``[C]``.

    Examples:
        >>> class_answer(np.array([0.25, 0.75]), ("no", "yes"))
        {'label': 'yes', 'probability': 0.75, 'probabilities': {'no': 0.25, 'yes': 0.75}}
    """
    shares = dict(zip(names, rounded(probabilities), strict=True))
    top = names[int(probabilities.argmax())]
    return {"label": top, "probability": shares[top], "probabilities": shares}


def rounded(probabilities: np.ndarray) -> list[float]:
    """Probabilities to six digits, which is more than any of them is sure of."""
    return np.round(probabilities.astype(np.float64), 6).tolist()


def classification_tables(logits: Rows, labels: Rows, names: Sequence[str]) -> dict[str, Any]:
    """``classes``: the table over classes; arguments as of ``classification_scores``."""
    predicted, true = np.concatenate(list(logits)).argmax(-1), np.concatenate(list(labels))
    return {"classes": class_table(true, predicted, names)}


def class_table(true: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Precision, recall, F1 and support of each class, and their micro, macro and weighted averages."""
    table = classification_report(
        true, predicted, labels=range(len(names)), target_names=list(names), output_dict=True, zero_division=0
    )
    if "accuracy" in table:  # sklearn's name for the micro average where every class is listed
        share = float(table.pop("accuracy"))
        table["micro avg"] = {"precision": share, "recall": share, "f1-score": share, "support": len(true)}
    return tidy(table)


def tidy(table: dict[str, Any]) -> dict[str, Any]:
    """A report of scikit-learn or seqeval as plain numbers under one set of names."""
    return {
        name: {
            "precision": float(row["precision"]),
            "recall": float(row["recall"]),
            "f1": float(row["f1-score"]),
            "support": int(row["support"]),
        }
        for name, row in table.items()
    }
