"""A label for each text, or pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from datasets import Dataset
from transformers import AutoModelForSequenceClassification

from setpoint.tasks.base import Collate, Example, Rows, Scores, Splits, Task
from setpoint.tasks.checks import check_value, pick
from setpoint.tasks.classification_metrics import class_answer, classification_scores, classification_tables
from setpoint.tasks.labels import as_names, class_names, feature_names, to_ids
from setpoint.tasks.readers import read_splits
from setpoint.tasks.text import padding_collate


class TextClassification(Task):
    """Texts with labels; a row for each text."""

    name: ClassVar[str] = "text-classification"
    metric: ClassVar[str] = "accuracy"
    score_names: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "mcc")
    text: ClassVar[bool] = True

    def load(self) -> Splits:
        """Read and check texts and labels."""
        data = self.data
        raw = read_splits(data, ("text", "text_pair", "label"))
        kept = feature_names(raw["train"], data.label)
        names = {
            split: as_names(dataset[data.label], feature_names(dataset, data.label)) for split, dataset in raw.items()
        }
        labels = class_names(data.labels, kept, names["train"])
        splits = {
            split: self._with_texts(dataset, to_ids(names[split], labels, split)) for split, dataset in raw.items()
        }
        return Splits(splits["train"], splits["validation"], splits["test"], labels)

    def _with_texts(self, dataset: Dataset, labels: Sequence[Any]) -> Dataset:
        columns = {"id": dataset["id"], "text": dataset[self.data.text]}
        if self.data.text_pair is not None:
            columns["text_pair"] = dataset[self.data.text_pair]
        return Dataset.from_dict({**columns, "label": labels})

    def encode(self, split: Dataset, processor: Any) -> list[Example]:
        """Word pieces of the text, or of the pair with the model's separator between."""
        texts = [list(split[name]) for name in ("text", "text_pair") if name in split.column_names]
        return self._encoded(texts, split["id"], split["label"], processor)

    def input_columns(self) -> dict[str, str]:
        """A text, or a pair of them."""
        pair = {} if self.data.text_pair is None else {"text_pair": self.data.text_pair}
        return {"text": self.data.text} | pair

    def read_input(self, value: Any, where: str) -> tuple[str, ...]:
        """A text or a pair, each a string."""
        columns = self.input_columns()
        texts = pick(value, columns, where)
        for field, text in zip(columns, texts, strict=True):
            check_value(text, field, where)
        return tuple(texts)

    def input_length(self, value: Any) -> int:
        """Characters of both texts."""
        return sum(map(len, value))

    def encode_inputs(self, inputs: Sequence[Any], processor: Any) -> list[Example]:
        """Word pieces of texts, or pairs, without labels."""
        texts = [list(column) for column in zip(*inputs, strict=True)]
        return self._encoded(texts, [str(i) for i in range(len(inputs))], [self._unknown()] * len(inputs), processor)

    def _unknown(self) -> Any:
        """What marks the rows of a text without labels."""
        return 0

    def _encoded(
        self, texts: Sequence[list[str]], ids: Sequence[str], labels: Sequence[Any], processor: Any
    ) -> list[Example]:
        if not texts:
            return []
        pieces = processor(*texts, truncation=True, max_length=self.data.max_length)
        return [
            {"id": name, **{key: values[index] for key, values in pieces.items()}, "labels": label}
            for index, (name, label) in enumerate(zip(ids, labels, strict=True))
        ]

    def answers(self, inputs: Sequence[Any], probabilities: Rows, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """The label of each text, its probability, and those of all."""
        return [class_answer(row[0], names) for row in probabilities]

    def collate(self, processor: Any) -> Collate:
        """Pad to the longest text of the batch."""
        return padding_collate(processor)

    def model_class(self) -> Any:
        """The Auto class with a head over the whole text."""
        return AutoModelForSequenceClassification

    def scores(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> Scores:
        """Accuracy, macro F1, Matthews correlation."""
        return classification_scores(logits, labels, names)

    def tables(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> dict[str, Any]:
        """The table over classes."""
        return classification_tables(logits, labels, names)
