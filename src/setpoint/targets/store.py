"""TargetStore: a teacher's logits on disk, temperature-free, keyed by example id.

One pass of the teacher (``TargetStore.build``) serves every temperature, seed and student. A build that is killed
continues where it stopped, to the same bytes. See ``shards`` for the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from setpoint.errors import TargetError
from setpoint.targets.building import build_shards, check_deterministic
from setpoint.targets.fingerprint import Fingerprint
from setpoint.targets.shards import (
    check_fingerprint,
    check_same_build,
    is_whole,
    new_manifest,
    read_manifest,
    read_shard,
)
from setpoint.types import TargetSource, valid_rows


class TargetStore:
    """A TargetSource on disk. Made by ``build``, opened by ``open``.

    Attributes:
        labels: class names, in the order of the logits' last axis.
        extras: columns after those of the classes that travel with each row; no temperature touches them.
        fingerprint: what the store was built from.
        rows: number of rows over all examples.
        nbytes: size of the shards on disk.
        first_rows: whether an example of fewer rows in a batch has the first of those stored: a task sets it where a
            student's tokenizer makes more pieces of a long text than the teacher's, and so cuts it off earlier.
        states: gives the teacher's hidden states on a batch, where these are stored beside.

    Examples:
        >>> import tempfile
        >>> from setpoint.targets.teacher import FrozenTeacher
        >>> data = [{"id": "a", "x": [0.5], "labels": 0}, {"id": "b", "x": [2.0], "labels": 1}]
        >>> def collate(examples):
        ...     return {
        ...         "input": torch.tensor([example["x"] for example in examples]),
        ...         "labels": torch.tensor([example["labels"] for example in examples]),
        ...         "example_id": [example["id"] for example in examples],
        ...     }
        >>> teacher = FrozenTeacher(torch.nn.Linear(1, 2), labels=("no", "yes"))
        >>> made_from = Fingerprint(teacher="weights", tokenizer="none", preprocessing="none", data="x")
        >>> store = TargetStore.build(tempfile.mkdtemp(), teacher, data, collate, made_from, dtype="float32")
        >>> len(store), torch.equal(store(collate(data)), teacher(collate(data)))
        (2, True)
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        self.labels = tuple(manifest["labels"])
        self.extras: int = manifest["extras"]
        self.dtype: str = manifest["dtype"]
        self.fingerprint = Fingerprint(**manifest["fingerprint"])
        self.first_rows = False
        self.states: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
        self._where: dict[str, tuple[int, int, int]] = {}
        self._shards: list[np.ndarray] = []
        width = len(self.labels) + self.extras
        for number, shard in enumerate(manifest["shards"]):
            ids, offsets, values = read_shard(path / shard["file"])
            offsets = offsets // width
            self._shards.append(values.reshape(-1, width))
            self._where.update(
                (name, (number, start, stop))
                for name, start, stop in zip(ids, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
            )
        self.rows = sum(len(shard) for shard in self._shards)
        self.nbytes = sum((path / shard["file"]).stat().st_size for shard in manifest["shards"])

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, example_id: str) -> bool:
        return example_id in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the examples, in the order they were stored."""
        return tuple(self._where)

    def __getitem__(self, example_id: str) -> np.ndarray:
        """Logits ``[rows, C + extras]`` of one example, a read-only view in the stored dtype.

        Raises:
            TargetError: the store has no such example.
        """
        try:
            shard, start, stop = self._where[example_id]
        except KeyError:
            raise TargetError(
                f"example '{example_id}' is not in the target store '{self.path}'", "build the store on this data"
            ) from None
        return self._shards[shard][start:stop]

    def __call__(self, batch: Mapping[str, Any]) -> Tensor:
        """Teacher logits ``[R, C + extras]`` in float32 for the valid rows of a batch, found by its ``example_id``.

        Raises:
            TargetError: an example is missing, or has another number of rows than in the batch; with ``first_rows``, a
                smaller one.
        """
        # Collators may have made a tensor of ids that are numbers; the store keeps them as text.
        ids = [str(name.item() if isinstance(name, Tensor) else name) for name in batch["example_id"]]
        parts = [self[example_id] for example_id in ids]
        rows = valid_rows(batch)
        counts = rows.reshape(len(rows), -1).sum(-1).tolist()
        if self.first_rows:
            parts = [part[:count] for part, count in zip(parts, counts, strict=True)]
        for example_id, part, count in zip(ids, parts, counts, strict=True):
            if len(part) != count:
                raise TargetError(
                    f"example '{example_id}' has {len(part)} rows in the target store but {count} in the batch",
                    "give the student the teacher's tokenizer, or raise data.max_length until neither cuts a word off",
                )
        return torch.from_numpy(np.concatenate(parts)).float()

    def all_logits(self) -> np.ndarray:
        """Every row of the store, ``[rows, C]`` in float32."""
        return self._classes(self._shards)

    def some_logits(self, most: int) -> np.ndarray:
        """At most about that many rows, evenly spread over the store, ``[rows, C]`` in float32."""
        step = max(1, -(-self.rows // most))
        return self._classes([part[::step] for part in self._shards])

    def _classes(self, parts: list[np.ndarray]) -> np.ndarray:
        count = len(self.labels)
        return np.concatenate([np.empty((0, count), np.float32), *(part[:, :count] for part in parts)])

    @classmethod
    def open(cls, path: str | Path, fingerprint: Fingerprint | None = None, *, verify: bool = True) -> TargetStore:
        """Open a finished store.

        Args:
            path: the store's folder.
            fingerprint: what the store has to have been built from.
            verify: read every shard once to compare its checksum.

        Raises:
            FingerprintError: it was built from something else; the message names the parts.
            TargetError: there is no store, it is not finished, or a shard is damaged.
        """
        path = Path(path)
        manifest = read_manifest(path)
        if manifest is None:
            raise TargetError(f"there is no target store at '{path}'", "build it first")
        if fingerprint is not None:
            check_fingerprint(path, manifest, fingerprint)
        if not manifest["complete"]:
            raise TargetError(f"target store '{path}' is not finished", "run the command that builds it again")
        for shard in manifest["shards"] if verify else ():
            if not is_whole(path, shard):
                raise TargetError(f"shard '{path / shard['file']}' is damaged", "run the command that builds it again")
        return cls(path, manifest)

    @classmethod
    def build(
        cls,
        path: str | Path,
        teacher: TargetSource,
        dataset: Any,
        collate: Callable[[list[Any]], Any],
        fingerprint: Fingerprint,
        *,
        extras: int = 0,
        dtype: Literal["float16", "float32"] = "float16",
        shard_examples: int = 4096,
        batch_size: int = 32,
        progress: bool = True,
    ) -> TargetStore:
        """Run the teacher once over a dataset, or continue a build that was stopped.

        Args:
            path: the store's folder.
            teacher: gives the logits of a batch.
            dataset: map-style; its examples have an ``id`` and always give the same inputs.
            collate: makes a batch of examples.
            fingerprint: what the logits are made from.
            extras: columns that the teacher gives after those of the classes.
            dtype: float16 halves the size, at a relative error of 5e-4.
            shard_examples: examples a shard. What is lost when a build is stopped is at most one shard; batches are
                made within a shard, so that large ones waste less on padding.
            batch_size: examples a teacher batch.
            progress: show a bar on stderr where it takes over two seconds.

        Raises:
            FingerprintError: the folder holds a store that was built from something else.
            TargetError: random inputs, logits that are not finite or do not fit the dtype or the batch, or no room on
                the disk (the finished shards are kept).
            DataError: two examples have the same id.
        """
        path = Path(path)
        wanted = new_manifest(fingerprint, teacher.labels, dtype, shard_examples, extras)
        manifest = read_manifest(path) or wanted
        check_same_build(path, manifest, wanted)
        check_deterministic(dataset, collate)
        build_shards(path, manifest, teacher, dataset, collate, batch_size, progress)
        return cls.open(path, fingerprint)
