"""A teacher's hidden states on disk: a target store whose rows are positions and whose columns are layers' states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from setpoint.targets.store import TargetStore
from setpoint.targets.teacher import FrozenTeacher
from setpoint.types import IGNORED_LABEL

Batch = dict[str, Any]


def by_position(batch: Mapping[str, Any]) -> Batch:
    """A batch whose rows are the positions that are no padding, whatever the rows of its task.

    Examples:
        >>> by_position({"attention_mask": torch.tensor([[1, 1, 0]]), "labels": torch.tensor([2])})["labels"]
        tensor([[   0,    0, -100]])
    """
    mask = batch["attention_mask"]
    return {**batch, "labels": torch.zeros_like(mask).masked_fill(~mask.bool(), IGNORED_LABEL)}


def collated_by_position(collate: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Batch]:
    """A task's collation whose batches have positions as rows."""
    return lambda examples: by_position(collate(examples))


class HiddenStates:
    """A TargetSource whose rows are positions, and whose columns are a teacher's states there: it has no classes.

    Args:
        teacher: runs on each batch.
        layers: whose states are kept, side by side; 0 is the output of the embeddings.
        width: of a state.

    Examples:
        >>> from transformers import BertConfig, BertModel
        >>> config = BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=2, num_attention_heads=1)
        >>> source = HiddenStates(FrozenTeacher(BertModel(config), labels=()), layers=(0, 2), width=4)
        >>> source({"input_ids": torch.tensor([[1, 2, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}).shape
        torch.Size([2, 8])
    """

    labels: tuple[str, ...] = ()

    def __init__(self, teacher: FrozenTeacher, layers: Sequence[int], width: int) -> None:
        self.teacher, self.layers, self.extras = teacher, tuple(layers), len(layers) * width

    def __call__(self, batch: Mapping[str, Any]) -> Tensor:
        """States ``[positions, layers · width]`` in float32, of the positions that are no padding."""
        states = self.teacher.output(batch, output_hidden_states=True).hidden_states
        there = batch["attention_mask"].bool().to(states[0].device)
        return torch.cat([states[layer][there] for layer in self.layers], -1).float()


class StoredStates:
    """What features read of a teacher's output, from a store in the teacher's place.

    Args:
        store: built from ``HiddenStates`` with batches ``by_position``.
        layers: those of its columns.
        last: the teacher's last layer.

    Examples:
        >>> import tempfile
        >>> from transformers import BertConfig, BertModel
        >>> from setpoint.targets.fingerprint import Fingerprint
        >>> config = BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=2, num_attention_heads=1)
        >>> teacher = FrozenTeacher(BertModel(config), labels=())
        >>> def collate(examples):
        ...     ids = torch.tensor([example["ids"] for example in examples])
        ...     return {"input_ids": ids, "attention_mask": ids.sign(), "example_id": [e["id"] for e in examples]}
        >>> data = [{"id": "a", "ids": [1, 2, 0]}, {"id": "b", "ids": [3, 4, 5]}]
        >>> source, made_from = HiddenStates(teacher, (2,), width=4), Fingerprint("a model", "none", "none", "x")
        >>> store = TargetStore.build(tempfile.mkdtemp(), source, data, collated_by_position(collate), made_from,
        ...                           extras=source.extras, dtype="float32")
        >>> states = StoredStates(store, (2,), last=2)(collate(data))["hidden_states"]
        >>> live = teacher.output(collate(data), output_hidden_states=True).hidden_states
        >>> torch.allclose(states[2][1], live[2][1]), states[2][0, 2].tolist(), states[1].shape
        (True, [0.0, 0.0, 0.0, 0.0], torch.Size([0]))
    """

    def __init__(self, store: TargetStore, layers: Sequence[int], last: int) -> None:
        self.store, self.layers, self.last = store, tuple(layers), last

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, tuple[Tensor, ...]]:
        """``hidden_states`` by layer, each ``[B, L, D]`` in float32, 0 at padding; empty of what no feature reads.

        Raises:
            TargetError: an example is missing, or has another number of positions than in the batch.
        """
        mask = batch["attention_mask"].bool()
        rows = self.store(by_position(batch)).to(mask.device)
        whole = rows.new_zeros(*mask.shape, rows.shape[-1])
        whole[mask] = rows
        there = dict(zip(self.layers, whole.chunk(len(self.layers), -1), strict=True))
        nothing = rows.new_empty(0)
        return {"hidden_states": tuple(there.get(layer, nothing) for layer in range(self.last + 1))}
