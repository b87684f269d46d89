"""Long texts with a question, cut into windows that a model can read, and the places of an answer in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from setpoint.errors import DataError


class Asked(NamedTuple):
    """A question on a text.

    Attributes:
        id: the question's.
        question: what is asked.
        context: the text.
        answers: the right ones; none where the text has none, or nobody knows.
        start: where the first of them begins in the text.
    """

    id: str
    question: str
    context: str
    answers: tuple[str, ...] = ()
    start: int = 0


class Window(NamedTuple):
    """A part of a text, as a model reads it after the question.

    Attributes:
        asked: what it is a window of.
        null: the position that stands for "no answer here": that of [CLS], or the first where there is none.
        first: the position of the text's first token.
        offsets: where each of its tokens begins and ends in the text, ``[n, 2]``.
        labels: the positions where the first right answer starts and ends; both ``null`` where it is not in here.
    """

    asked: Asked
    null: int
    first: int
    offsets: np.ndarray
    labels: tuple[int, int]

    @property
    def stop(self) -> int:
        """The position after the text's last token."""
        return self.first + len(self.offsets)

    def cut(self, start: int, end: int) -> tuple[str, int, int]:
        """The text from one position to another, both within it, and where it begins and ends in the whole text."""
        begin, stop = int(self.offsets[start - self.first, 0]), int(self.offsets[end - self.first, 1])
        text = self.asked.context[begin:stop]
        begin += len(text) - len(text.lstrip())  # some tokens begin with the space before them
        return text.strip(), begin, begin + len(text.strip())


def cut_windows(
    asked: Sequence[Asked], tokenizer: Any, max_length: int, stride: int
) -> Iterator[tuple[Window, dict[str, list[int]]]]:
    """The windows of each question in order, with the model's inputs.

    A question is cut first, so that at least half of what the stride leaves is the text's: else its windows would
    have no end.

    Args:
        asked: the questions.
        tokenizer: a fast one.
        max_length: tokens of a window, with the question and special tokens.
        stride: tokens that two neighbouring windows share.

    Raises:
        DataError: ``max_length`` leaves no room.
    """
    room = (max_length - stride) // 2 - tokenizer.num_special_tokens_to_add(pair=True)
    if room < 1:
        raise DataError(
            f"data.max_length is {max_length}, with no room for question and text beside a data.stride of {stride}",
            "give a larger max_length, or a smaller stride",
        )
    if not asked:
        return
    questions = _shortened([one.question for one in asked], tokenizer, room)
    pieces = tokenizer(
        questions, [one.context for one in asked], truncation="only_second", max_length=max_length, stride=stride,
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip
    offsets, owners = pieces.pop("offset_mapping"), pieces.pop("overflow_to_sample_mapping")
    for number, owner in enumerate(owners):
        inputs = {name: values[number] for name, values in pieces.items()}
        ids = inputs["input_ids"]
        null = ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0
        places = [place for place, part in enumerate(pieces.sequence_ids(number)) if part == 1]
        first = places[0] if places else 0
        there = np.array(offsets[number][first : first + len(places)], dtype=np.int64).reshape(-1, 2)
        begins = number == 0 or owners[number - 1] != owner
        ends = number + 1 == len(owners) or owners[number + 1] != owner
        yield Window(asked[owner], null, first, there, _labels(asked[owner], null, first, there, begins, ends)), inputs


def _shortened(questions: list[str], tokenizer: Any, most: int) -> list[str]:
    how = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
    offsets = tokenizer(questions, **how)["offset_mapping"]
    return [
        question[: places[most - 1][1]] if len(places) > most else question
        for question, places in zip(questions, offsets, strict=True)
    ]


def _labels(asked: Asked, null: int, first: int, offsets: np.ndarray, begins: bool, ends: bool) -> tuple[int, int]:
    """The positions of the first answer's ends; ``begins`` and ``ends`` say whether the window is the first or last."""
    if not asked.answers or not len(offsets):
        return null, null
    text = asked.answers[0]
    start = asked.start + len(text) - len(text.lstrip())
    stop = asked.start + len(text.rstrip())
    if start < (0 if begins else offsets[0, 0]) or stop > (len(asked.context) if ends else offsets[-1, 1]):
        return null, null
    one = int(np.searchsorted(offsets[:, 1], start, side="right"))  # the first token that ends after it
    other = int(np.searchsorted(offsets[:, 0], stop, side="left")) - 1  # the last that begins before its end
    return (first + one, first + other) if one <= other else (null, null)
