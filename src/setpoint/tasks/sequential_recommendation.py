"""The next item of each user, by the items before it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM

from setpoint.errors import DataError, SetpointWarning
from setpoint.maths.sampling import sampled_logits
from setpoint.reading import LossRows
from setpoint.tasks.base import Batch, Collate, Example, References, Rows, Scores, Splits, Task
from setpoint.tasks.checks import check_value, pick, shown
from setpoint.tasks.classification_metrics import rounded
from setpoint.tasks.labels import class_names, to_ids
from setpoint.tasks.ranking_metrics import (
    RANKING_SCORES,
    mean_log_rank,
    rank_and_log_prob,
    ranking_scores,
    ranking_tables,
)
from setpoint.tasks.readers import read_split
from setpoint.tasks.selection import limited
from setpoint.tasks.text import pad
from setpoint.types import IGNORED_LABEL

SHOWN = 10
"""Items in an answer."""


class SequentialRecommendation(Task):
    """Users with the items they chose, in the order of time; a row for each next item.

    Source: Kang and McAuley 2018 (SASRec), arXiv:1808.09781, with a softmax over all items. A model is any causal one
    of transformers whose tokens are the items. Sequences are padded behind, where no earlier position looks, so that
    there is no padding item and no mask.

    The splits are made here, by leaving items out: of each user the last item is the test split's, the one before it
    that of the validation split, and the others are for training. What is left out is ranked among all items, those
    that the user has had before included. Users of fewer than three items are in the training split alone.
    """

    name: ClassVar[str] = "sequential-recommendation"
    metric: ClassVar[str] = "ndcg@10"
    score_names: ClassVar[tuple[str, ...]] = RANKING_SCORES
    beside: ClassVar[tuple[str, ...]] = ("hr@10", "mrr")
    text: ClassVar[bool] = False
    _items: dict[str, int] | None = None

    def load(self) -> Splits:
        """Read and check users and items, and leave items out."""
        data = self.data
        for field in ("validation", "test", "split_by", "shares"):
            if getattr(data, field) is not None:
                raise DataError(
                    f"data.{field} is given while {self.name} takes its splits from data.train", f"remove data.{field}"
                )
        rows = read_split(data.model_copy(update={"limit": None}), "train", ("user", "item", "time"))
        labels = class_names(data.labels, None, rows[data.item])
        if data.negatives is not None and data.negatives > len(labels):
            raise DataError(
                f"data.negatives is {data.negatives} for {len(labels)} items", f"give at most {len(labels)}"
            )
        self._items = {label: i for i, label in enumerate(labels)}
        times = None if data.time is None else rows[data.time]
        users = by_user(rows[data.user], to_ids(rows[data.item], labels, "train"), times)
        alone = sum(len(items) < 2 for items in users.values())
        if alone:
            warnings.warn(
                f"{alone} users have one item, which follows nothing, and are left out", SetpointWarning, stacklevel=2
            )
        splits = {}
        for split, (left_out, counts) in {"train": (2, None), "validation": (1, 1), "test": (0, 1)}.items():
            examples = []
            for user, items in users.items():
                kept = items[: len(items) - left_out] if len(items) > 2 else items if split == "train" else []
                kept = kept[-data.max_length - 1 :]
                if len(kept) > 1:
                    examples.append((f"{split}-{user}", kept, counts or len(kept) - 1, split == "train"))
            examples = list(limited(examples, data.limit, split))
            if not examples:
                raise DataError(f"data.train leaves nothing for the {split} split", "give users of four items or more")
            columns = zip(("id", "items", "rows", "train"), zip(*examples, strict=True), strict=True)
            splits[split] = Dataset.from_dict({name: list(values) for name, values in columns})
        return Splits(splits["train"], splits["validation"], splits["test"], labels)

    def encode(self, split: Dataset, processor: Any) -> list[Example]:
        """The items but the last as inputs; as labels the next item of each position that is a row."""
        return [
            {
                "id": name,
                "input_ids": items[:-1],
                "labels": [IGNORED_LABEL] * (len(items) - 1 - rows) + items[len(items) - rows :],
                "task_train": train,
            }
            for name, items, rows, train in zip(split["id"], split["items"], split["rows"], split["train"], strict=True)
        ]

    def input_columns(self) -> dict[str, str]:
        """The items of one user."""
        return {"item": self.data.item}

    def read_input(self, value: Any, where: str) -> list[int]:
        """Items, the newest last, as a list or with spaces between; those that the model does not know are left out."""
        (items,) = pick(value, self.input_columns(), where)
        items = items.split() if isinstance(items, str) else items
        if not isinstance(items, list | tuple) or not items:
            raise DataError(f"{where} has {shown(items)} for its items", "give a list of items, the newest last")
        for item in items:
            check_value(item, "item", where)
        index = self._index()
        known = [index[str(item)] for item in items if str(item) in index]
        if not known:
            raise DataError(
                f"{where} has no item that the model knows, only {shown(items[0])}", "give one of its items"
            )
        return known

    def _index(self) -> dict[str, int]:
        """The number of each item: of the data that were loaded, or of an exported model."""
        if self._items is None:
            self._items = {label: i for i, label in enumerate(self.data.labels or ())}
        return self._items

    def input_length(self, value: Any) -> int:
        """Items are no text."""
        return 0

    def encode_inputs(self, inputs: Sequence[Any], processor: Any) -> list[Example]:
        """The newest items; the last of them is the row."""
        kept = [list(items[-self.data.max_length :]) for items in inputs]
        return [
            {"id": str(i), "input_ids": items, "labels": [IGNORED_LABEL] * (len(items) - 1) + [0], "task_train": False}
            for i, items in enumerate(kept)
        ]

    def answers(self, inputs: Sequence[Any], probabilities: Rows, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """The most likely next items with their probabilities, the first first."""
        best = [row[0].argsort(kind="stable")[::-1][:SHOWN] for row in probabilities]
        return [
            {
                "items": [
                    {"item": names[i], "probability": probability}
                    for i, probability in zip(top, rounded(row[0][top]), strict=True)
                ]
            }
            for row, top in zip(probabilities, best, strict=True)
        ]

    def collate(self, processor: Any) -> Collate:
        """Pad to the longest sequence of the batch, behind."""

        def collate(examples: list[Example]) -> Batch:
            return {
                "input_ids": pad([example["input_ids"] for example in examples], 0),
                "labels": pad([example["labels"] for example in examples], IGNORED_LABEL),
                "task_train": torch.tensor([example["task_train"] for example in examples]),
                "example_id": [example["id"] for example in examples],
            }

        return collate

    def model_class(self) -> Any:
        """The Auto class that predicts the next of a sequence."""
        return AutoModelForCausalLM

    @property
    def max_length(self) -> int | None:
        """Items of a user that are read, the newest."""
        return self.data.max_length

    def preprocessing(self) -> dict[str, Any]:
        """That, and the items that training rows are told from."""
        return super().preprocessing() | {"negatives": self.data.negatives}

    def loss_rows(self, logits: Tensor, batch: Mapping[str, Any], teacher: Tensor | None) -> LossRows:
        """Rows of all items; of training sequences over ``data.negatives`` of them, the same for teacher and student.

        Candidates are drawn evenly, anew for each batch, by PyTorch's generator, which the training seeds and keeps.
        """
        rows = super().loss_rows(logits, batch, teacher)
        if self.data.negatives is None or not bool(batch["task_train"].all()):
            return rows
        assert rows.labels is not None
        candidates = torch.randperm(logits.shape[-1])[: self.data.negatives].to(logits.device)
        student, taught = (
            None if part is None else sampled_logits(part, rows.labels, candidates)
            for part in (rows.student_logits, rows.teacher_logits)
        )
        assert student is not None
        return LossRows(student, taught, torch.zeros_like(rows.labels))

    def scored(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The rank of the right item and its log-probability."""
        return rank_and_log_prob(logits, labels)

    def scores(self, logits: Rows, references: References, names: tuple[str, ...]) -> Scores:
        """NDCG, hit rate and mean reciprocal rank, against all items."""
        return ranking_scores(logits)

    def tables(self, logits: Rows, references: References, names: tuple[str, ...]) -> dict[str, Any]:
        """The loss on the right item, and its median rank."""
        return ranking_tables(logits)

    def loss(self, logits: Rows, references: References) -> float:
        """The mean log rank of the right item, which no temperature moves."""
        return mean_log_rank(logits)


def by_user(users: Sequence[str], items: Sequence[int], times: Sequence[float] | None) -> dict[str, list[int]]:
    """The items of each user in the order of time; of one time, or without times, in the order of the file.

    Examples:
        >>> by_user(["a", "b", "a"], [7, 8, 9], [2.0, 1.0, 1.0])
        {'a': [9, 7], 'b': [8]}
    """
    order = range(len(users)) if times is None else np.argsort(np.asarray(times), kind="stable").tolist()
    found: dict[str, list[int]] = {user: [] for user in users}
    for i in order:
        found[users[i]].append(items[i])
    return found
