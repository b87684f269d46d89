"""What a user makes of an item: a rating, or a click."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification

import setpoint.factorisation  # noqa: F401 - registers the project's own small model
from setpoint.errors import DataError
from setpoint.tasks.base import Batch, Collate, Example, Rows, Scores, Splits, Task
from setpoint.tasks.checks import check_value, is_number, pick, shown
from setpoint.tasks.classification_metrics import class_answer
from setpoint.tasks.formats import column_names
from setpoint.tasks.hashing import bucket
from setpoint.tasks.labels import class_names, to_ids
from setpoint.tasks.ordinal_metrics import ORDINAL_SCORES, ordinal_scores, ordinal_tables
from setpoint.tasks.readers import read_splits

FIELDS = ("user", "item", "attributes")


class RatingPrediction(Task):
    """Users, items and what else is known of them as categories; a row for each rating.

    The classes are the ratings in ascending order. Each category is hashed into one of ``data.buckets``, with a key for
    each field, so that a name that no training example has is some bucket too.
    """

    name: ClassVar[str] = "rating-prediction"
    metric: ClassVar[str] = "auc"
    score_names: ClassVar[tuple[str, ...]] = ORDINAL_SCORES
    beside: ClassVar[tuple[str, ...]] = ("accuracy", "rmse")
    shipped_fields: ClassVar[tuple[str, ...]] = ("buckets",)
    text: ClassVar[bool] = False

    def load(self) -> Splits:
        """Read and check users, items, attributes and ratings."""
        data = self.data
        if data.rating is None:
            raise DataError(f"data.rating is null while {self.name} learns from ratings", "name its column")
        columns = self.input_columns()
        raw = read_splits(data, (*FIELDS, "rating"))
        names = {split: [as_rating(value) for value in dataset[data.rating]] for split, dataset in raw.items()}
        labels = class_names(data.labels, None, names["train"])
        labels = labels if data.labels is not None else tuple(sorted(labels, key=float))
        _check_order(labels)
        splits = {
            split: Dataset.from_dict(
                {
                    "id": dataset["id"],
                    **{field: [str(value) for value in dataset[column]] for field, column in columns.items()},
                    "label": to_ids(names[split], labels, split),
                }
            )
            for split, dataset in raw.items()
        }
        return Splits(splits["train"], splits["validation"], splits["test"], labels)

    def encode(self, split: Dataset, processor: Any) -> list[Example]:
        """The bucket of each category, in the order of ``input_columns``."""
        rows = zip(*(split[field] for field in self.input_columns()), strict=True)
        return self._encoded(rows, split["id"], split["label"])

    def _encoded(self, rows: Any, ids: Sequence[str], labels: Sequence[int]) -> list[Example]:
        fields, buckets = tuple(self.input_columns()), self.data.buckets
        return [
            {
                "id": name,
                "features": [bucket(value, field, buckets) for value, field in zip(row, fields, strict=True)],
                "labels": label,
            }
            for name, row, label in zip(ids, rows, labels, strict=True)
        ]

    def input_columns(self) -> dict[str, str]:
        """A user, an item, and each feature under its own name."""
        return column_names(self.data, FIELDS)

    def read_input(self, value: Any, where: str) -> tuple[str, ...]:
        """A row with the columns, or their values in order."""
        columns = self.input_columns()
        values = pick(value, columns, where)
        for field, one in zip(columns, values, strict=True):
            check_value(one, field, where)
        return tuple(map(str, values))

    def input_length(self, value: Any) -> int:
        """Categories are no text."""
        return 0

    def encode_inputs(self, inputs: Sequence[Any], processor: Any) -> list[Example]:
        """The buckets of checked inputs."""
        return self._encoded(inputs, [str(i) for i in range(len(inputs))], [0] * len(inputs))

    def answers(self, inputs: Sequence[Any], probabilities: Rows, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """The likeliest rating, the probabilities of all, and the rating that they make on average."""
        values = [float(name) for name in names]
        return [class_answer(row[0], names) | {"expected": round(float(row[0] @ values), 6)} for row in probabilities]

    def collate(self, processor: Any) -> Collate:
        """Stack the buckets."""

        def collate(examples: list[Example]) -> Batch:
            return {
                "features": torch.tensor([example["features"] for example in examples]),
                "labels": torch.tensor([example["labels"] for example in examples]),
                "example_id": [example["id"] for example in examples],
            }

        return collate

    def model_class(self) -> Any:
        """The Auto class with one class a row."""
        return AutoModelForSequenceClassification

    def preprocessing(self) -> dict[str, Any]:
        """How names become numbers."""
        return super().preprocessing() | {"buckets": self.data.buckets, "fields": list(self.input_columns())}

    def scores(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> Scores:
        """The order of rows, accuracy, macro F1, and quadratic weighted kappa."""
        return ordinal_scores(logits, labels, names)

    def tables(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> dict[str, Any]:
        """Log loss, the errors of the expected rating, and the table over classes."""
        return ordinal_tables(logits, labels, names)

    def row_types(self, split: Dataset, train: Dataset, names: tuple[str, ...]) -> dict[str, list[list[bool]]]:
        """Users and items that no training example has."""
        known = {field: set(train[field]) for field in ("user", "item")}
        return {
            f"{field}s unseen in training": [[value not in seen] for value in split[field]]
            for field, seen in known.items()
        }


def as_rating(value: float) -> str:
    """The name of a rating's class.

    Examples:
        >>> as_rating(4.0), as_rating(3.5)
        ('4', '3.5')
    """
    return str(int(value)) if value == int(value) else str(value)


def _check_order(labels: Sequence[str]) -> None:
    """Refuse names of classes that are no numbers in ascending order, which an expected rating is made of."""
    if not all(map(is_number, labels)) or any(float(a) >= float(b) for a, b in pairwise(labels)):
        raise DataError(f"data.labels is {shown(list(labels))}", "give the ratings in ascending order")
