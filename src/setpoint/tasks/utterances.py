"""Utterances made of recordings of single words, one after the other."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from datasets import Dataset

from setpoint.errors import DataError
from setpoint.recipe import DataRecipe
from setpoint.recipe_audio import ConcatenateRecipe
from setpoint.tasks.checks import shown


def drawn(speakers: Sequence[str], count: int, how: ConcatenateRecipe, split: str) -> list[list[int]]:
    """Which recordings each utterance is made of.

    Speakers come evenly, recordings and how many of them are drawn evenly; utterance n of a split is the same however
    many there are.

    Args:
        speakers: who speaks in each recording.
        count: of the utterances.
        how: the recipe's section.
        split: its name.

    Examples:
        >>> drawn(["a", "b", "a"], 2, ConcatenateRecipe(least=2, most=2, examples=2), "test")
        [[2, 0], [1, 1]]
    """
    by_speaker: dict[str, list[int]] = {}
    for number, speaker in enumerate(speakers):
        by_speaker.setdefault(speaker, []).append(number)
    turns, found = list(by_speaker.values()), []
    for number in range(count):
        draw = random.Random(f"{split} {number}")  # of its text by SHA-512, on any machine
        own = turns[number % len(turns)]
        found.append([own[draw.randrange(len(own))] for _ in range(draw.randint(how.least, how.most))])
    return found


def utterances(recorded: Sequence[np.ndarray], split: Dataset, name: str, data: DataRecipe) -> Dataset:
    """A split of utterances, with ``id``, ``audio`` and ``text``.

    Args:
        recorded: the samples of each recording, at the recipe's rate.
        split: what else is known of them: the columns of ``data.label`` and ``data.speaker``.
        name: of the split.
        data: the recipe's section.

    Raises:
        DataError: a recording of which ``data.concatenate.words`` does not say what is said.
    """
    how = data.concatenate
    assert how is not None
    said = [str(label) for label in split[data.label]]
    if how.words is not None:
        unknown = sorted(set(said) - set(how.words))
        if unknown:
            raise DataError(
                f"data.{name} has {shown(unknown[0])} in column '{data.label}', of which data.concatenate.words does"
                " not say what is said",
                "give a word for each value",
            )
        said = [how.words[label] for label in said]
    speakers = [""] * len(said) if data.speaker is None else [str(one) for one in split[data.speaker]]
    parts = drawn(speakers, getattr(how.examples, name), how, name)
    sounds = [np.concatenate([recorded[i] for i in numbers]) for numbers in parts]
    ends = np.cumsum([0, *map(len, sounds)], dtype=np.int32)
    table = {
        "id": [f"{name}-{i}" for i in range(len(parts))],
        "audio": pa.ListArray.from_arrays(pa.array(ends), pa.array(np.concatenate(sounds))),
        "text": [" ".join(said[i] for i in numbers) for numbers in parts],
    }
    return Dataset(pa.table(table))
