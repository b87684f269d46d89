"""A label for each word: named entities, parts of speech."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from seqeval.metrics import classification_report, f1_score, precision_score, recall_score
from transformers import AutoModelForTokenClassification

from setpoint.errors import DataError, SetpointWarning
from setpoint.tasks.base import Collate, Example, Rows, Splits, Task
from setpoint.tasks.classification_metrics import class_table, tidy
from setpoint.tasks.labels import as_names, class_names, feature_names, to_ids
from setpoint.tasks.readers import read_splits
from setpoint.tasks.text import padding_collate
from setpoint.types import IGNORED_LABEL


class TokenClassification(Task):
    """Words with tags; a row for each word, at its first piece.

    Special tokens and continuation pieces are no rows, in neither loss and in no metric. Words beyond
    ``data.max_length`` pieces have no row either; ``encode`` warns how many there are. The rows of a sentence are
    therefore its first words, whatever the tokenizer, and those of two tokenizers are of the same words.
    """

    name: ClassVar[str] = "token-classification"
    metric: ClassVar[str] = "f1"
    text: ClassVar[bool] = True

    def load(self) -> Splits:
        """Read and check words and tags."""
        raw = read_splits(self.data, ("tokens", "tags"))
        tags = {}
        for split, dataset in raw.items():
            names = feature_names(dataset, self.data.tags)
            tags[split] = [as_names(sentence, names) for sentence in dataset[self.data.tags]]
            for name, tokens, sentence in zip(dataset["id"], dataset[self.data.tokens], tags[split], strict=True):
                if len(tokens) != len(sentence):
                    raise DataError(
                        f"example '{name}' has {len(tokens)} tokens but {len(sentence)} tags", "give one tag a token"
                    )
        kept = feature_names(raw["train"], self.data.tags)
        labels = class_names(self.data.labels, kept, (tag for sentence in tags["train"] for tag in sentence))
        splits = {
            split: Dataset.from_dict(
                {
                    "id": dataset["id"],
                    "tokens": dataset[self.data.tokens],
                    "label": [to_ids(sentence, labels, split) for sentence in tags[split]],
                }
            )
            for split, dataset in raw.items()
        }
        return Splits(splits["train"], splits["validation"], splits["test"], labels)

    def encode(self, split: Dataset, processor: Any) -> list[Example]:
        """Word pieces, with each word's label at its first piece."""
        sentences = _visible(list(split["tokens"]), processor)
        pieces = processor(sentences, is_split_into_words=True, truncation=True, max_length=self.data.max_length)
        examples, cut = [], 0
        for index, (name, word_labels) in enumerate(zip(split["id"], split["label"], strict=True)):
            row_labels, previous = [], None
            word_ids = pieces.word_ids(index)
            for word in word_ids:
                row_labels.append(IGNORED_LABEL if word is None or word == previous else word_labels[word])
                previous = word
            cut += len(word_labels) - 1 - max((word for word in word_ids if word is not None), default=-1)
            columns = {key: values[index] for key, values in pieces.items()}
            examples.append({"id": name, **columns, "labels": row_labels})
        if cut:
            warnings.warn(
                f"{cut} words lie beyond data.max_length={self.data.max_length} and are left out",
                SetpointWarning,
                stacklevel=2,
            )
        return examples

    def collate(self, processor: Any) -> Collate:
        """Pad to the longest sentence of the batch."""
        return padding_collate(processor)

    def model_class(self) -> Any:
        """The Auto class with a head over tokens."""
        return AutoModelForTokenClassification

    def metrics(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> dict[str, Any]:
        """Entity scores by seqeval (CoNLL's rule), and the table over tags, O included."""
        true = [[names[i] for i in row] for row in labels]
        predicted = [[names[i] for i in row.argmax(-1)] if len(row) else [] for row in logits]
        flat_true = np.concatenate(list(labels)).astype(int)
        flat_predicted = np.concatenate([row.argmax(-1) if len(row) else np.empty(0, int) for row in logits])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # seqeval warns of entity types that were never predicted
            scores = {
                "f1": float(f1_score(true, predicted, zero_division=0)),
                "precision": float(precision_score(true, predicted, zero_division=0)),
                "recall": float(recall_score(true, predicted, zero_division=0)),
            }
            entities = tidy(classification_report(true, predicted, output_dict=True, zero_division=0))
        return {
            **scores,
            "accuracy": float((flat_true == flat_predicted).mean()),
            "entities": entities,
            "tokens": class_table(flat_true, flat_predicted, names),
        }


def _visible(sentences: list[list[str]], processor: Any) -> list[list[str]]:
    """The sentences with words of which the tokenizer keeps nothing, such as a zero-width space, made visible to it.

    Such a word would have no row, and each word after it the row of another one.
    """
    words = sorted({word for sentence in sentences for word in sentence})
    signs = [*filter(None, [processor.unk_token]), *"?.-0a"]
    tried = [[word] for word in [*signs, *words]]
    pieces = processor(tried, is_split_into_words=True, add_special_tokens=False)["input_ids"]
    sign = next((sign for sign, kept in zip(signs, pieces, strict=False) if kept), "")
    lost = {word for word, kept in zip(words, pieces[len(signs) :], strict=True) if not kept}
    if not lost:
        return sentences
    return [[sign if word in lost else word for word in sentence] for sentence in sentences]
