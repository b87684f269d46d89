"""A label for each word: named entities, parts of speech."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from itertools import zip_longest
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from seqeval.metrics import classification_report
from seqeval.metrics.sequence_labeling import get_entities
from transformers import AutoModelForTokenClassification

from setpoint.errors import DataError, SetpointWarning
from setpoint.tasks.base import Collate, Example, Rows, Scores, Splits, Task
from setpoint.tasks.checks import check_value, pick
from setpoint.tasks.classification_metrics import class_table, rounded, tidy
from setpoint.tasks.labels import as_names, class_names, feature_names, to_ids
from setpoint.tasks.readers import read_splits
from setpoint.tasks.text import padding_collate
from setpoint.tasks.word_types import word_types
from setpoint.types import IGNORED_LABEL


class TokenClassification(Task):
    """Words with tags; a row for each word, at its first piece.

    Special tokens and continuation pieces are no rows, in neither loss and in no metric. Words beyond
    ``data.max_length`` pieces have no row either; ``encode`` warns how many there are. The rows of a sentence are
    therefore its first words, whatever the tokenizer, and those of two tokenizers are of the same words.
    """

    name: ClassVar[str] = "token-classification"
    metric: ClassVar[str] = "f1"
    score_names: ClassVar[tuple[str, ...]] = ("f1", "precision", "recall", "accuracy")
    text: ClassVar[bool] = True
    first_rows: ClassVar[bool] = True

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
        examples, cut = self._encoded(list(split["tokens"]), split["id"], split["label"], processor)
        if cut:
            warnings.warn(
                f"{cut} words lie beyond data.max_length={self.data.max_length} and are left out",
                SetpointWarning,
                stacklevel=2,
            )
        return examples

    def input_columns(self) -> dict[str, str]:
        """A list of words."""
        return {"tokens": self.data.tokens}

    def read_input(self, value: Any, where: str) -> list[str]:
        """A list of words, or a string that spaces cut into them."""
        (words,) = pick(value, self.input_columns(), where)
        if isinstance(words, str):
            words = words.split()
        check_value(words, "tokens", where)
        return list(words)

    def input_length(self, value: Any) -> int:
        """Characters of the words, and of the spaces between."""
        return sum(len(word) + 1 for word in value)

    def encode_inputs(self, inputs: Sequence[Any], processor: Any) -> list[Example]:
        """Word pieces of sentences without tags; words beyond ``data.max_length`` have no row."""
        return self._encoded(
            inputs, [str(i) for i in range(len(inputs))], [[0] * len(words) for words in inputs], processor
        )[0]

    def _encoded(
        self, sentences: Sequence[list[str]], ids: Sequence[str], labels: Sequence[list[int]], processor: Any
    ) -> tuple[list[Example], int]:
        """The examples, and how many words are cut off."""
        if not sentences:
            return [], 0
        how = {"is_split_into_words": True, "truncation": True, "max_length": self.data.max_length}
        pieces = processor(sentences, **how)
        words_of = [pieces.word_ids(index) for index in range(len(sentences))]
        if any(len({*words} - {None}) < len(sentence) for words, sentence in zip(words_of, sentences, strict=True)):
            # Words are missing: beyond the longest text, or because the tokenizer keeps nothing of them.
            pieces = processor(_visible(sentences, processor), **how)
            words_of = [pieces.word_ids(index) for index in range(len(sentences))]
        examples, cut = [], 0
        for index, (name, word_labels, word_ids) in enumerate(zip(ids, labels, words_of, strict=True)):
            row_labels, previous = [], None
            for word in word_ids:
                row_labels.append(IGNORED_LABEL if word is None or word == previous else word_labels[word])
                previous = word
            cut += len(word_labels) - 1 - max((word for word in word_ids if word is not None), default=-1)
            columns = {key: values[index] for key, values in pieces.items()}
            examples.append({"id": name, **columns, "labels": row_labels})
        return examples, cut

    def answers(self, inputs: Sequence[Any], probabilities: Rows, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """The tag of each word and its probability; None for words beyond ``data.max_length``."""
        return [
            {
                "words": [
                    {"word": word, "label": None if top is None else names[top], "probability": probability}
                    for word, top, probability in zip_longest(words, row.argmax(-1), rounded(row.max(-1)))
                ]
            }
            for words, row in zip(inputs, probabilities, strict=True)
        ]

    def collate(self, processor: Any) -> Collate:
        """Pad to the longest sentence of the batch."""
        return padding_collate(processor)

    def model_class(self) -> Any:
        """The Auto class with a head over tokens."""
        return AutoModelForTokenClassification

    def scores(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> Scores:
        """Entity scores by seqeval (CoNLL's rule), and accuracy over tags."""
        tops = _tops(logits)

        @cache
        def counts() -> np.ndarray:
            return _entities(_tags(labels, names), _tags(tops, names))

        @cache
        def right() -> np.ndarray:
            return np.array([[(y == top).sum(), len(y)] for y, top in zip(labels, tops, strict=True)])

        return {
            "f1": lambda part: _share(2 * counts()[part, 0].sum(), counts()[part, 1:].sum()),
            "precision": lambda part: _share(counts()[part, 0].sum(), counts()[part, 1].sum()),
            "recall": lambda part: _share(counts()[part, 0].sum(), counts()[part, 2].sum()),
            "accuracy": lambda part: _share(right()[part, 0].sum(), right()[part, 1].sum()),
        }

    def tables(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> dict[str, Any]:
        """The table over entities, and that over tags, O included."""
        tops = _tops(logits)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of entity types that were never predicted
            entities = classification_report(
                _tags(labels, names), _tags(tops, names), output_dict=True, zero_division=0
            )
        return {"entities": tidy(entities), "tokens": class_table(_flat(labels), _flat(tops), names)}

    def row_types(self, split: Dataset, train: Dataset, names: tuple[str, ...]) -> dict[str, list[list[bool]]]:
        """The types of words."""
        known = {word for sentence in train["tokens"] for word in sentence}
        return word_types(split["tokens"], split["label"], names, known)


def _tops(logits: Rows) -> list[np.ndarray]:
    return [row.argmax(-1) if len(row) else np.empty(0, int) for row in logits]


def _tags(rows: Rows, names: tuple[str, ...]) -> list[list[str]]:
    return [[names[i] for i in row] for row in rows]


def _flat(rows: Rows) -> np.ndarray:
    return np.concatenate(list(rows)).astype(int)


def _entities(true: list[list[str]], predicted: list[list[str]]) -> np.ndarray:
    """Of each sentence, how many entities are right, predicted, and true: ``[N, 3]``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tags that are no entities'
        found = [[set(get_entities(tags)) for tags in sentences] for sentences in (true, predicted)]
    return np.array([[len(t & p), len(p), len(t)] for t, p in zip(*found, strict=True)])


def _share(part: int, whole: int) -> float:
    """As seqeval has it, 0 of nothing is 0."""
    return float(part / whole) if whole else 0.0


def _visible(sentences: Sequence[list[str]], processor: Any) -> Sequence[list[str]]:
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
