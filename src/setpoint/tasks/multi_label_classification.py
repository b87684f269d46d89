"""Any number of labels for each text, or pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.metrics import average_precision_score, f1_score
from torch import Tensor

from setpoint.errors import DataError
from setpoint.tasks.base import References, Rows, Scores, Splits
from setpoint.tasks.checks import shown
from setpoint.tasks.classification_metrics import rounded
from setpoint.tasks.labels import sorted_labels
from setpoint.tasks.readers import read_splits
from setpoint.tasks.text_classification import TextClassification
from setpoint.types import logits_of


class MultiLabelClassification(TextClassification):
    """Texts with sets of labels; a row for each text and label, whose two classes are that it is absent or present.

    The model has one logit z a label, that of a sigmoid. Beside a 0 it is the two logits of a softmax, for
    softmax(0, z) = (1 − σ(z), σ(z)); so a temperature T gives σ(z/T), and every policy and divergence is as ever.
    """

    name: ClassVar[str] = "multi-label-classification"
    metric: ClassVar[str] = "f1"
    score_names: ClassVar[tuple[str, ...]] = ("f1", "macro_f1", "subset_accuracy", "mean_average_precision")
    beside: ClassVar[tuple[str, ...]] = ("macro_f1",)

    def load(self) -> Splits:
        """Read and check texts and sets of labels."""
        raw = read_splits(self.data, ("text", "text_pair", "categories"))
        sets = {split: [self._cut(value) for value in dataset[self.data.categories]] for split, dataset in raw.items()}
        labels = self.data.labels or sorted_labels(label for given in sets["train"] for label in given)
        if not labels:
            raise DataError("data.train has no label", "give examples with some, or list them in data.labels")
        self._labels = len(labels)
        splits = {
            split: self._with_texts(dataset, _marks(sets[split], labels, split)) for split, dataset in raw.items()
        }
        return Splits(splits["train"], splits["validation"], splits["test"], ("absent", "present"), tuple(labels))

    def _cut(self, value: Any) -> list[str]:
        if not isinstance(value, str):
            return [str(name) for name in value]
        parts = [value] if self.data.separator is None else value.split(self.data.separator)
        return [part.strip() for part in parts if part.strip()]

    def _unknown(self) -> list[int]:
        return [0] * (self._labels if self.data.labels is None else len(self.data.labels))

    def logits(self, output: Any, batch: Mapping[str, Any]) -> Tensor:
        """A 0 and the label's logit, ``[B, labels, 2]``."""
        z = logits_of(output)
        return torch.stack([torch.zeros_like(z), z], dim=-1)

    def row_names(self, splits: Splits) -> Sequence[str]:
        """The labels."""
        return splits.outputs or ()

    def answers(self, inputs: Sequence[Any], probabilities: Rows, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """The labels that are likelier present than not, and the probability of all."""
        return [
            {
                "labels": [name for name, share in zip(names, row[:, 1], strict=True) if share > 0.5],
                "probabilities": dict(zip(names, rounded(row[:, 1]), strict=True)),
            }
            for row in probabilities
        ]

    def scores(self, logits: Rows, references: References, names: tuple[str, ...]) -> Scores:
        """F1 over all decisions, the mean over labels of F1 and of average precision, and how often a set is right."""
        z, true = np.stack([row[:, 1] - row[:, 0] for row in logits]), np.stack(references)
        found = (z > 0).astype(int)

        def f1(average: str) -> Any:
            return lambda part: float(f1_score(true[part], found[part], average=average, zero_division=0))

        def precision(part: Any) -> float:
            there = true[part].any(0)  # a label without an example has no precision
            if not there.any():
                return 0.0
            return float(average_precision_score(true[part][:, there], z[part][:, there], average="macro"))

        return {
            "f1": f1("micro"),
            "macro_f1": f1("macro"),
            "subset_accuracy": lambda part: float((true[part] == found[part]).all(-1).mean()),
            "mean_average_precision": precision,
        }

    def tables(self, logits: Rows, references: References, names: tuple[str, ...]) -> dict[str, Any]:
        """How many labels a text has, and how many are found."""
        found = np.stack([row[:, 1] > row[:, 0] for row in logits])
        return {
            "labels_a_text": float(np.stack(references).sum(-1).mean()),
            "found_a_text": float(found.sum(-1).mean()),
        }


def _marks(sets: Sequence[Sequence[str]], labels: Sequence[str], split: str) -> list[list[int]]:
    """For each text a 1 for every label it has."""
    index = {label: i for i, label in enumerate(labels)}
    unknown = sorted({name for given in sets for name in given} - index.keys())
    if unknown:
        raise DataError(
            f"data.{split} has the label {shown(unknown[0])}, which is none of {', '.join(labels[:12])}",
            "mend the data, or list every label in data.labels",
        )
    return [[int(label in given) for label in labels] for given in map(set, sets)]
