"""Random augmentation that teacher and student agree on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

Transform = Callable[[dict[str, Any], torch.Generator], dict[str, Any]]


class SeededViews(torch.utils.data.Dataset):
    """Each example in a fixed number of random views, the same at every reading.

    The view of an example depends on its id, the view's number and the seed alone, so a teacher's logits can be stored
    for it; its id becomes ``ID#VIEW``.

    Args:
        dataset: examples with an ``id``.
        transform: makes a view of an example with a generator.
        views: how many of each example.
        seed: another seed gives other views.

    Examples:
        >>> data = [{"id": "a", "x": 0.0}]
        >>> noisy = SeededViews(data, lambda e, g: e | {"x": torch.rand((), generator=g).item()}, views=2, seed=0)
        >>> noisy[1]["id"], noisy[1] == noisy[1], noisy[0]["x"] == noisy[1]["x"]
        ('a#1', True, False)
    """

    def __init__(self, dataset: Sequence[dict[str, Any]], transform: Transform, views: int, seed: int = 0) -> None:
        self.dataset, self.transform, self.views, self.seed = dataset, transform, views, seed

    @property
    def ids(self) -> list[str]:
        """Of all views."""
        return [f"{example['id']}#{view}" for view in range(self.views) for example in self.dataset]

    def __len__(self) -> int:
        return len(self.dataset) * self.views

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):  # iterating ends with this error
            raise IndexError(f"view {index} of {len(self)}")
        view, index = divmod(index, len(self.dataset))
        example = self.dataset[index]
        name = f"{example['id']}#{view}"
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        return self.transform(example, generator) | {"id": name}


class RandomViews(torch.utils.data.Dataset):
    """Each example in a view that is new at every reading, for a live teacher."""

    def __init__(self, dataset: Sequence[dict[str, Any]], transform: Transform) -> None:
        self.dataset, self.transform = dataset, transform

    @property
    def ids(self) -> list[str]:
        """The examples' own: a view has none."""
        return [example["id"] for example in self.dataset]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        return self.transform(self.dataset[index], generator)
