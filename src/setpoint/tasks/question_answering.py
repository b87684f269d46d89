"""The part of a text that answers a question, as in SQuAD."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import pad
from transformers import AutoModelForQuestionAnswering

from setpoint.errors import DataError, SetpointWarning
from setpoint.maths.tempering import log_temper
from setpoint.tasks.base import (
    Batch,
    Collate,
    Example,
    Part,
    References,
    Rows,
    Scores,
    Splits,
    Task,
    fitted_loss,
)
from setpoint.tasks.checks import check_value, pick
from setpoint.tasks.classification_metrics import rounded
from setpoint.tasks.readers import read_splits
from setpoint.tasks.spans import Span, best_of, best_span
from setpoint.tasks.text import padding_collate
from setpoint.tasks.windows import Asked, Window, cut_windows
from setpoint.types import part_of


class QuestionAnswering(Task):
    """Questions on texts; an example is a window of a text, with a row for the answer's start and one for its end.

    The classes are the positions of a window. Those of the question, of special tokens and of padding are masked; that
    of [CLS] never is, for it is the label of a window that does not hold the answer.
    """

    name: ClassVar[str] = "extractive-question-answering"
    metric: ClassVar[str] = "f1"
    score_names: ClassVar[tuple[str, ...]] = ("f1", "em")
    text: ClassVar[bool] = True
    one_tokenizer: ClassVar[bool] = True
    shipped_fields: ClassVar[tuple[str, ...]] = ("stride", "impossible")
    parts: tuple[str, ...] = ("start_logits", "end_logits")

    def load(self) -> Splits:
        """Read and check questions, texts and answers."""
        data = self.data
        if 2 * data.stride > data.max_length:
            raise DataError(
                f"data.stride is {data.stride} while data.max_length is {data.max_length}",
                f"give a max_length of {2 * data.stride} or more, or a smaller stride",
            )
        if data.transfer is not None:
            raise DataError(f"data.transfer is given for the task {self.name}, which has none", "remove it")
        splits = {}
        for split, dataset in read_splits(data, ("question", "context", "answers")).items():
            given = list(dataset[data.answers])
            for name, answers in zip(dataset["id"], given, strict=True):
                if not answers["text"] and not data.impossible:
                    raise DataError(
                        f"example '{name}' of data.{split} has no answer", "set data.impossible to true, or remove it"
                    )
            splits[split] = Dataset.from_dict(
                {
                    "id": dataset["id"],
                    "question": dataset[data.question],
                    "context": dataset[data.context],
                    "answers": [answers["text"] for answers in given],
                    "start": [(answers["answer_start"] or [0])[0] for answers in given],
                }
            )
        positions = tuple(map(str, range(data.max_length)))
        return Splits(splits["train"], splits["validation"], splits["test"], positions, outputs=())

    def encode(self, split: Dataset, processor: Any) -> list[Example]:
        """Word pieces of question and text, in windows of ``data.max_length`` that share ``data.stride`` of them."""
        columns = [list(split[name]) for name in ("id", "question", "context", "answers", "start")]
        asked = [
            Asked(name, question, context, tuple(answers), start)
            for name, question, context, answers, start in zip(*columns, strict=True)
        ]
        examples = self._encoded(asked, processor)
        held = {window.asked.id for window in _windows(examples) if window.labels != (window.null, window.null)}
        lost = sum(bool(one.answers) and one.id not in held for one in asked)
        if lost:
            warnings.warn(
                f"the answers of {lost} questions lie whole in no window of data.max_length={self.data.max_length} with"
                f" data.stride={self.data.stride}: their windows are taken to hold none",
                SetpointWarning,
                stacklevel=2,
            )
        return examples

    def input_columns(self) -> dict[str, str]:
        """A question and the text it is about."""
        return {"question": self.data.question, "context": self.data.context}

    def read_input(self, value: Any, where: str) -> tuple[str, str]:
        """A question and a text, each a string."""
        columns = self.input_columns()
        question, context = pick(value, columns, where)
        for field, text in zip(columns, (question, context), strict=True):
            check_value(text, field, where)
        return question, context

    def input_length(self, value: Any) -> int:
        """Characters of both."""
        return sum(map(len, value))

    def encode_inputs(self, inputs: Sequence[Any], processor: Any) -> list[Example]:
        """The windows of questions that nobody has answered; ``answers_to`` puts those of each together."""
        return self._encoded([Asked(str(i), *one) for i, one in enumerate(inputs)], processor)

    def _encoded(self, asked: Sequence[Asked], processor: Any) -> list[Example]:
        examples: list[Example] = []
        number = 0
        for window, inputs in cut_windows(asked, processor, self.data.max_length, self.data.stride):
            number = number + 1 if examples and examples[-1]["window"].asked is window.asked else 0
            name = f"{window.asked.id}#{number}"
            examples.append({"id": name, **inputs, "labels": list(window.labels), "window": window})
        return examples

    def collate(self, processor: Any) -> Collate:
        """Pad to the longest window of the batch; ``task_allowed`` says which positions are classes."""
        padded, most = padding_collate(processor), self.data.max_length

        def collate(examples: list[Example]) -> Batch:
            batch = padded(examples)
            allowed = np.zeros((len(examples), most), dtype=bool)
            for row, window in zip(allowed, _windows(examples), strict=True):
                row[window.first : window.stop] = True
                row[window.null] = True
            return batch | {"task_allowed": torch.from_numpy(allowed)}

        return collate

    def logits(self, output: Any, batch: Mapping[str, Any]) -> Tensor:
        """Logits of each position to be the answer's start and its end, ``[B, 2, max_length]``, masked by ``-inf``."""
        both = torch.stack([part_of(output, name) for name in self.parts], dim=-2)
        both = pad(both, (0, self.data.max_length - both.shape[-1]), value=-math.inf)
        return both.masked_fill(~batch["task_allowed"].unsqueeze(-2), -math.inf)

    def row_names(self, splits: Splits) -> Sequence[str]:
        """The two ends of an answer."""
        return ("start", "end")

    def model_class(self) -> Any:
        """The Auto class with a head that gives two logits a token."""
        return AutoModelForQuestionAnswering

    def references(self, examples: Sequence[Example]) -> References:
        """The windows, which know their question, its text and its answers."""
        return _windows(examples)

    def scores(self, logits: Rows, references: References, names: tuple[str, ...]) -> Scores:
        """F1 and exact match of the answers to questions, by the rule of SQuAD v1.1.

        A question is answered by the best span of those of its windows that are there, and counts by their share.
        """

        @cache
        def found() -> _Found:
            return self._found(_log_probabilities(logits), references)

        def mean(which: int, part: Part) -> float:
            chosen = np.arange(len(references))[part]
            return found().mean(which, chosen, self.data.impossible)

        return {"f1": lambda part: mean(1, part), "em": lambda part: mean(0, part)}

    def _found(self, logs: Rows, windows: Sequence[Window]) -> _Found:
        numbers: dict[str, int] = {}
        question = np.array([numbers.setdefault(window.asked.id, len(numbers)) for window in windows])
        read = [read_window(row, window) for row, window in zip(logs, windows, strict=True)]
        pairs = [(span, window) for (span, _), window in zip(read, windows, strict=True)]
        said = ["" if span is None else window.cut(span.start, span.end)[0] for span, window in pairs]
        return _Found(
            question=question,
            windows=np.bincount(question),
            best=np.array([-math.inf if span is None else span.log_probability for span, _ in read]),
            null=np.array([null for _, null in read]),
            worth=np.array([best_of(text, one.asked.answers) for text, one in zip(said, windows, strict=True)]),
            silent=np.array([best_of("", window.asked.answers) for window in windows]),
        )

    def tables(self, logits: Rows, references: References, names: tuple[str, ...]) -> dict[str, Any]:
        """How many questions and windows there are."""
        return {"questions": len({window.asked.id for window in references}), "windows": len(references)}

    def loss(self, logits: Rows, references: References) -> float:
        """The mean loss on the positions of starts and ends in nats, at the temperature at which it is least."""
        labels = torch.tensor([window.labels for window in references])
        return fitted_loss(torch.from_numpy(np.concatenate(list(logits))), labels.flatten())

    def answers_to(
        self, inputs: Sequence[Any], examples: Sequence[Example], probabilities: Rows, names: tuple[str, ...]
    ) -> list[dict[str, Any]]:
        """The text that answers each question, from all of its windows; where it is in the context; its probability."""
        mine: list[list[Window]] = [[] for _ in inputs]
        rows: list[list[np.ndarray]] = [[] for _ in inputs]
        for window, row in zip(_windows(examples), probabilities, strict=True):
            mine[int(window.asked.id)].append(window)
            rows[int(window.asked.id)].append(row)
        return [self._answer(one, np.stack(said)) for one, said in zip(mine, rows, strict=True)]

    def _answer(self, windows: Sequence[Window], rows: np.ndarray) -> dict[str, Any]:
        with np.errstate(divide="ignore"):
            logs = np.log(rows.astype(np.float64))
        read = [read_window(log, window) for log, window in zip(logs, windows, strict=True)]
        spans = [(span, window) for (span, _), window in zip(read, windows, strict=True) if span is not None]
        silence = min(null for _, null in read)
        best = max(spans, key=lambda pair: pair[0].log_probability, default=None)
        if best is None or (self.data.impossible and silence > best[0].log_probability):
            return {"answer": "", "start": None, "end": None, "probability": rounded(np.exp([silence]))[0]}
        span, window = best
        text, start, end = window.cut(span.start, span.end)
        probability = rounded(np.exp([span.log_probability]))[0]
        return {"answer": text, "start": start, "end": end, "probability": probability}

    def preprocessing(self) -> dict[str, Any]:
        """What decides the windows besides the tokenizer."""
        return super().preprocessing() | {"stride": self.data.stride, "impossible": self.data.impossible}


class _Found(NamedTuple):
    """What was read of each window, ``[N]``, and how many windows each question has, ``[Q]``.

    Attributes:
        question: the number of its question.
        windows: of each question, how many there are.
        best: log-probability of its best span.
        null: log-probability that it has no answer.
        worth: exact match and F1 of that span, ``[N, 2]``.
        silent: the same of no answer.
    """

    question: np.ndarray
    windows: np.ndarray
    best: np.ndarray
    null: np.ndarray
    worth: np.ndarray
    silent: np.ndarray

    def mean(self, which: int, chosen: np.ndarray, impossible: bool) -> float:
        """The mean over questions of what their chosen windows, of which one may come twice, are worth."""
        if not len(chosen):
            return math.nan
        question = self.question[chosen]
        order = chosen[np.lexsort((self.best[chosen], question))]
        last = np.append(np.diff(self.question[order]) > 0, True)
        top = order[last]  # of each question the window with the best span
        worth = self.worth[top, which]
        if impossible:
            null = np.full(len(self.windows), math.inf)
            np.minimum.at(null, question, self.null[chosen])
            worth = np.where(null[self.question[top]] > self.best[top], self.silent[top, which], worth)
        share = (
            np.bincount(question, minlength=len(self.windows))[self.question[top]] / self.windows[self.question[top]]
        )
        return float(np.average(worth, weights=share))


def read_window(logs: np.ndarray, window: Window) -> tuple[Span | None, float]:
    """The best span of a window, at its positions, and the log-probability that it holds none.

    Args:
        logs: log-probabilities of start and end, ``[2, C]``.
        window: whose.
    """
    span = best_span(*logs[:, window.first : window.stop])
    if span is not None:
        span = Span(span.log_probability, span.start + window.first, span.end + window.first)
    return span, float(logs[0, window.null] + logs[1, window.null])


def _windows(examples: Sequence[Example]) -> list[Window]:
    return [example["window"] for example in examples]


def _log_probabilities(logits: Rows) -> Rows:
    """Of logits ``[2, C]`` each; only so windows can be compared, for a softmax does not see a constant."""
    return list(log_temper(torch.from_numpy(np.stack(list(logits))), 1.0).numpy())
