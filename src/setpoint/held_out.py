"""Training examples that are kept out of the training, for what is learnt from them beside the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset

from setpoint.errors import DataError

FEWEST = 64
"""Examples that are held out at least, where that is at most half of all."""
SEED = 0
"""The same examples are held out for every seed of the student."""


def hold_out(data: Any, share: float, views: int = 1) -> tuple[Any, Any]:
    """Split a training set in two: what to train on, and what is held out.

    The places of the examples held out are taken by others, which so come twice in an epoch: the training keeps its
    number of steps and its learning rates, and is compared with others as it is.

    Args:
        data: examples by number: a list, a ``datasets.Dataset`` or a ``torch`` data set.
        share: of the examples; 64 are held out at least, half of all at most.
        views: how many of each example there are, one after the other pass over all of them; they stay together.

    Raises:
        DataError: the examples cannot be counted, or there are fewer than two.

    Examples:
        >>> train, held = hold_out([{"id": i} for i in range(10)], share=0.05)
        >>> len(train), len(held), {e["id"] for e in train} & {e["id"] for e in held}
        (10, 5, set())
    """
    if not hasattr(data, "__len__") or len(data) // views < 2:
        raise DataError(
            "temperature policy meta holds out training examples, of which there are fewer than two, or nobody knows"
            " how many",
            "give a data set with a length, or another policy",
        )
    count = len(data) // views
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SEED)).tolist()
    most = min(max(round(share * count), FEWEST), count // 2)
    held, kept = order[:most], order[most:]
    stand_in = dict(zip(held, kept, strict=False))
    train = [view * count + stand_in.get(i, i) for view in range(views) for i in range(count)]
    return _picked(data, train), _picked(data, [view * count + i for view in range(views) for i in held])


class HeldOut:
    """Batches of examples held out, each by its number alone, so that a resumed training sees the same ones.

    Args:
        examples: by number.
        size: of a batch.
        seed: of the order.
        collate: makes a batch of examples.
    """

    def __init__(self, examples: Any, size: int, seed: int, collate: Callable[[list[Any]], dict[str, Any]]) -> None:
        self.examples, self.size, self._seed, self._collate = examples, size, seed, collate

    def batch(self, number: int) -> dict[str, Any]:
        """The batch of this number, without an example twice."""
        generator = torch.Generator().manual_seed((self._seed << 20) + number)
        drawn = torch.randperm(len(self.examples), generator=generator)[: self.size]
        return self._collate([self.examples[i] for i in drawn.tolist()])


def _picked(data: Any, indices: list[int]) -> Any:
    if isinstance(data, Dataset):
        return data.select(indices)
    return [data[i] for i in indices] if isinstance(data, list) else torch.utils.data.Subset(data, indices)
