"""A number for each text, or pair of texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from setpoint.reading import LossRows, Reading
from setpoint.tasks.base import Batch, Collate, Example, References, Rows, Scores, Splits
from setpoint.tasks.readers import read_splits
from setpoint.tasks.text import padding_collate
from setpoint.tasks.text_classification import TextClassification
from setpoint.types import valid_rows


class TextRegression(TextClassification):
    """Texts with numbers; a row for each text, without classes.

    Nothing is tempered: softmax(z/T) says nothing of a single number. Both terms of the loss are squared errors,
    (z − v)² against the teacher's number and (z − y)² against the data's, weighed by alpha as ever.
    """

    name: ClassVar[str] = "text-regression"
    metric: ClassVar[str] = "pearson"
    score_names: ClassVar[tuple[str, ...]] = ("pearson", "spearman", "r2")
    beside: ClassVar[tuple[str, ...]] = ("spearman", "mse")
    tempered: ClassVar[bool] = False

    def load(self) -> Splits:
        """Read and check texts and numbers."""
        raw = read_splits(self.data, ("text", "text_pair", "score"))
        splits = {
            split: self._with_texts(dataset, [float(value) for value in dataset[self.data.score]])
            for split, dataset in raw.items()
        }
        return Splits(splits["train"], splits["validation"], splits["test"], ("value",))

    def _unknown(self) -> float:
        return 0.0

    def collate(self, processor: Any) -> Collate:
        """Pad to the longest text of the batch."""
        pad = padding_collate(processor)

        def collate(examples: list[Example]) -> Batch:
            return pad(examples) | {"labels": torch.tensor([float(example["labels"]) for example in examples])}

        return collate

    def loss_rows(self, logits: Tensor, batch: Mapping[str, Any], teacher: Tensor | None) -> LossRows:
        """Squared errors against the labels and the teacher; the one class that is left has a divergence of 0."""
        rows = Reading.loss_rows(self, logits, batch, teacher)
        z = rows.student_logits.squeeze(-1).float()
        return LossRows(
            rows.student_logits,
            teacher,
            None,
            beside=None if teacher is None else (z - teacher.squeeze(-1).float()).square(),
            hard_loss=(z - batch["labels"][valid_rows(batch)].float()).square(),
        )

    def probabilities(self, logits: Tensor, temperature: float) -> Tensor:
        """The numbers as they are."""
        return logits

    def answers(self, inputs: Sequence[Any], probabilities: Rows, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """The number of each text."""
        return [{"value": round(float(row[0, 0]), 6)} for row in probabilities]

    def scores(self, logits: Rows, references: References, names: tuple[str, ...]) -> Scores:
        """Correlations, and the share of the variance that is explained."""
        z, y = _numbers(logits, references)

        def correlation(of: Callable[[Any, Any], Any]) -> Any:
            def compute(part: Any) -> float:
                if np.ptp(z[part]) == 0 or np.ptp(y[part]) == 0:  # a constant goes with nothing
                    return 0.0
                return float(of(z[part], y[part]).statistic)

            return compute

        def r2(part: Any) -> float:
            rest, whole = np.square(z[part] - y[part]).sum(), np.square(y[part] - y[part].mean()).sum()
            return float(1 - rest / whole) if whole > 0 else 0.0

        return {"pearson": correlation(pearsonr), "spearman": correlation(spearmanr), "r2": r2}

    def tables(self, logits: Rows, references: References, names: tuple[str, ...]) -> dict[str, Any]:
        """The mean squared and the mean absolute error, in the unit of the data."""
        z, y = _numbers(logits, references)
        return {"mse": float(np.square(z - y).mean()), "mae": float(np.abs(z - y).mean())}

    def agreement(self, student: Rows, teacher: Rows, names: tuple[str, ...]) -> None:
        """Numbers have no class to agree on."""

    def loss(self, logits: Rows, references: References) -> float:
        """The mean squared error."""
        z, y = _numbers(logits, references)
        return float(np.square(z - y).mean()) if np.isfinite(z).all() else math.inf


def _numbers(logits: Rows, references: References) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(list(logits)).squeeze(-1).astype(float), np.concatenate(list(references)).astype(float)
