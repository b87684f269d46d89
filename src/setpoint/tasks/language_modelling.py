"""Causal language modelling: the next token of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset

from setpoint.errors import DataError, ModelError
from setpoint.sampling import sample
from setpoint.tasks.base import Example, References, Rows, Sample, Splits
from setpoint.tasks.checks import check_value, pick
from setpoint.tasks.readers import read_splits
from setpoint.tasks.sequences import NextToken

SAMPLED = (3, 80)
"""How many texts a model shows in the report, and the tokens of each."""
NEXT = 5
"""Likeliest next tokens that an answer names."""


class LanguageModelling(NextToken):
    """Texts; a row for each token of a split but the first.

    The texts of a split are one stream of tokens, each text ended by the end-of-text token, cut into blocks of
    ``data.max_length`` tokens. A block's last row is for the next block's first token, so that each is predicted once.
    """

    name: ClassVar[str] = "causal-language-modelling"
    beside: ClassVar[tuple[str, ...]] = ("perplexity", "bits_per_byte")
    text: ClassVar[bool] = True
    answered: ClassVar[bool] = True

    def load(self) -> Splits:
        """Read and check texts, or lists of sentences."""
        field = "text" if self.data.sentences is None else "sentences"
        splits = {}
        for split, dataset in read_splits(self.data, (field,)).items():
            values = dataset[getattr(self.data, field)]
            texts = [value if field == "text" else "\n".join(value) for value in values]
            splits[split] = Dataset.from_dict({"id": dataset["id"], "text": texts})
        return Splits(splits["train"], splits["validation"], splits["test"], (), ())

    def vocabulary(self, processor: Any) -> int:
        """The entries of the tokenizer."""
        return len(processor)

    def classes(self, labels: tuple[str, ...], processor: Any) -> tuple[str, ...]:
        """The tokens as text, each once: one that is no text alone, or that of another, by its name in the tokenizer.

        Examples:
            >>> from setpoint.pretraining import train_byte_tokenizer
            >>> from setpoint.recipe import DataRecipe
            >>> task = LanguageModelling(DataRecipe(dataset="none"))
            >>> task.classes((), train_byte_tokenizer(["the cat", "the hat"], 300))[-3:]
            ('hat', ' cat', ' hat')
        """
        ids = range(len(processor))
        told = processor.batch_decode([[i] for i in ids], clean_up_tokenization_spaces=False)
        names = processor.convert_ids_to_tokens(list(ids))
        once: dict[str, None] = {}
        for text, name in zip(told, names, strict=True):
            once[name if "\N{REPLACEMENT CHARACTER}" in text or text in once or not text else text] = None
        return tuple(once) if len(once) == len(names) else tuple(names)

    def encode(self, split: Dataset, processor: Any) -> list[Example]:
        """Blocks of the stream of tokens; each row knows the bytes of text that its token stands for."""
        end = _end(processor)
        texts, names = list(split["text"]), list(split["id"])
        pieces = _pieces(texts, processor, return_offsets_mapping=True)
        ids = [[*own, end] for own in pieces["input_ids"]]
        counts = [token_bytes(text, found) for text, found in zip(texts, pieces["offset_mapping"], strict=True)]
        owner = np.repeat(np.arange(len(ids)), [len(own) for own in ids])
        stream, sizes = np.concatenate(ids).astype(np.int64), np.concatenate(counts)
        if len(stream) < 2:
            raise DataError(f"the text of example '{names[0]}' is empty and there is no other", "give some text")
        return [
            {
                "id": f"{names[owner[start]]} block {number}",
                "input_ids": stream[start : start + self.data.max_length][: len(stream) - 1 - start],
                "labels": stream[start + 1 : start + 1 + self.data.max_length],
                "task_bytes": sizes[start + 1 : start + 1 + self.data.max_length],
            }
            for number, start in enumerate(range(0, len(stream) - 1, self.data.max_length))
        ]

    def references(self, examples: Sequence[Example]) -> References:
        """The bytes of text that each row's token stands for."""
        return [example["task_bytes"] for example in examples]

    def tables(self, logits: Rows, references: References, names: tuple[str, ...]) -> dict[str, Any]:
        """Perplexity; and bits per byte of the text in UTF-8, which does not depend on the tokenizer.

        The end of a text costs bits and has no bytes.
        """
        size = sum(int(own.sum()) for own in references)
        bits = self.nats(logits) / math.log(2) / size if size else math.inf
        return super().tables(logits, references, names) | {"bits_per_byte": bits}

    def input_columns(self) -> dict[str, str]:
        """A text."""
        return {"text": self.data.text}

    def read_input(self, value: Any, where: str) -> str:
        """A text: a string."""
        text = pick(value, self.input_columns(), where)[0]
        check_value(text, "text", where)
        return str(text)

    def input_length(self, value: Any) -> int:
        """Characters of the text."""
        return len(value)

    def encode_inputs(self, inputs: Sequence[Any], processor: Any) -> list[Example]:
        """The end of the text before, and each text's tokens: a row for each of them, and one for what comes next."""
        if not inputs:
            return []
        end, most = _end(processor), self.data.max_length - 1
        return [
            {"id": str(number), "input_ids": np.array([end, *own[:most]]), "labels": np.array([*own[:most], 0])}
            for number, own in enumerate(_pieces(list(inputs), processor)["input_ids"])
        ]

    def answers_to(
        self, inputs: Sequence[Any], examples: Sequence[Example], probabilities: Rows, names: tuple[str, ...]
    ) -> list[dict[str, Any]]:
        """The log-likelihood of each text in nats, its perplexity, and the likeliest next tokens after it."""
        found = []
        for example, rows in zip(examples, probabilities, strict=True):
            tokens = example["labels"][:-1]
            with np.errstate(divide="ignore"):
                nats = float(np.log(rows[np.arange(len(tokens)), tokens].astype(np.float64)).sum())
            top = np.argsort(-rows[-1], kind="stable")[:NEXT]
            found.append(
                {
                    "tokens": len(tokens),
                    "log_likelihood": nats,
                    "perplexity": float(np.exp(-nats / len(tokens))) if len(tokens) else None,
                    "next": [{"token": names[k], "probability": round(float(rows[-1][k]), 6)} for k in top],
                }
            )
        return found

    def samples(self, source: Any, processor: Any, seed: int) -> list[Sample]:
        """Texts that a model writes from nothing."""
        count, length = SAMPLED
        prompts = torch.full((count, 1), _end(processor))
        length = min(length, self.data.max_length)
        ids = sample(source.model, prompts, length + 1, classes=len(processor), seed=seed)
        written = (processor.decode(own) for own in ids[:, 1:].tolist())
        return [Sample("text", text.replace(processor.eos_token, "\n").strip("\n")) for text in written]


def token_bytes(text: str, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """The bytes in UTF-8 that each token of a text adds, ``[tokens + 1]``; the last is the end's, for what is left.

    A token has the bytes up to its last character that no token before it has: the sum is that of the text, whatever
    a tokenizer leaves out and however it cuts a character.

    Args:
        text: the text.
        offsets: of each token its first character, and the one after its last.

    Examples:
        >>> token_bytes("a über ", [(0, 1), (2, 3), (2, 3), (3, 6)])
        array([1, 3, 0, 3, 1])
    """
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    sizes = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    until = np.concatenate([[0], sizes.cumsum()])
    ends = np.maximum.accumulate([0, *(until[end] for _, end in offsets), until[-1]])
    return np.diff(ends)


def _pieces(texts: Sequence[str], processor: Any, **options: Any) -> Any:
    return processor(texts, add_special_tokens=False, truncation=False, padding=False, verbose=False, **options)


def _end(processor: Any) -> int:
    if processor.eos_token_id is None:
        raise ModelError(
            "the tokenizer has no end-of-text token", "give that of a language model, or set teacher.new_tokenizer"
        )
    return int(processor.eos_token_id)
