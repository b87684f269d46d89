"""Several stores as one source: each example is looked up where it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from setpoint.errors import TargetError
from setpoint.targets.store import TargetStore


class JoinedStores:
    """A TargetSource over stores that have no example in common.

    Args:
        stores: of the same labels.

    Raises:
        TargetError: the labels differ; at a call: no store has an example, or it has other rows there.
    """

    def __init__(self, stores: Sequence[TargetStore]) -> None:
        self.stores, self.labels = tuple(stores), stores[0].labels
        if any(store.labels != self.labels for store in stores):
            raise TargetError("target stores of other labels cannot be one source", "build them by one teacher")

    def __call__(self, batch: Mapping[str, Any]) -> Tensor:
        """Teacher logits ``[R, C]`` in float32 for the valid rows of a batch, found by its ``example_id``."""
        parts = []
        for number, name in enumerate(batch["example_id"]):
            store = next((store for store in self.stores if name in store), self.stores[-1])
            parts.append(store({"labels": batch["labels"][number : number + 1], "example_id": [name]}))
        return torch.cat(parts)
