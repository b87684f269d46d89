"""Batches of examples of like length, so that little is spent on padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler


def length_of(example: Mapping[str, Any]) -> int:
    """How long an encoded example is: its tokens, or the samples or frames of its sound; 0 where it has no length.

    Examples:
        >>> length_of({"input_ids": [2, 7, 3]}), length_of({"input_values": torch.zeros(5, 40)}), length_of({"id": "a"})
        (3, 5, 0)
    """
    return len(example.get("input_ids", example.get("input_values", ())))


BATCHES_SORTED_TOGETHER = 50
"""Enough for the lengths in a batch to be alike, few enough for its examples to be random."""


class LengthBuckets(Sampler[int]):
    """An order of examples in which each batch holds examples of like length, and batches of all lengths alternate.

    The Trainer's own grouping goes from long to short over fifty batches, so that a training which is measured after
    some steps has seen long examples alone; and it draws from the global random numbers, so that a training resumed
    within an epoch sees other batches. This one depends on the seed and the epoch alone.

    Args:
        lengths: of the examples.
        batch_size: examples of an optimisation step.
        seed: of the order.
        epoch: tells the epoch that begins.

    Examples:
        >>> order = list(LengthBuckets([5, 1, 5, 1, 5, 1], 2, seed=0, epoch=lambda: 0))
        >>> sorted(order), order == list(LengthBuckets([5, 1, 5, 1, 5, 1], 2, seed=0, epoch=lambda: 0))
        ([0, 1, 2, 3, 4, 5], True)
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, epoch: Callable[[], int]) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self._seed << 20) + self._epoch())
        drawn = torch.randperm(len(self._lengths), generator=generator).tolist()
        together = self._batch_size * max(1, min(BATCHES_SORTED_TOGETHER, len(drawn) // (4 * self._batch_size)))
        batches: list[list[int]] = []
        for first in range(0, len(drawn), together):
            alike = sorted(drawn[first : first + together], key=lambda i: self._lengths[i])
            batches += [alike[at : at + self._batch_size] for at in range(0, len(alike), self._batch_size)]
        # Only the very last may be short: the batches are cut from this order again.
        last = batches.pop() if batches and len(batches[-1]) < self._batch_size else []
        for number in torch.randperm(len(batches), generator=generator).tolist():
            yield from batches[number]
        yield from last


PADDING = 0.25
"""Share of a batch that may be padding where nothing asks for batches of one size."""


def alike(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Numbers of examples in batches of like length, the shortest first, each cut before a quarter is padding.

    On a CPU, padding costs what words do: a few small batches are quicker than one with a long example in it.

    Args:
        lengths: of the examples.
        most: examples of a batch.

    Examples:
        >>> alike([5, 40, 5, 4, 38], 3)
        [[3, 0, 2], [4, 1]]
    """
    batches: list[list[int]] = []
    real = 0
    for number in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        real += lengths[number]
        if batches and len(batches[-1]) < most:
            padded = (len(batches[-1]) + 1) * lengths[number]
            if padded - real <= PADDING * padded:
                batches[-1].append(number)
                continue
        batches.append([number])
        real = lengths[number]
    return batches
