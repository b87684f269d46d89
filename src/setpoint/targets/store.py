"""TargetStore: a teacher's logits on disk, temperature-free, keyed by example id.

A folder with ``store.json`` (what it was built from, and its shards with their checksums) and Arrow IPC files with the
columns ``id`` and ``logits`` (an example's rows, flattened), read memory-mapped. It is built shard by shard: a build
that is killed continues with the first shard that is missing, to the same bytes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from tqdm.auto import tqdm

from setpoint.errors import DataError, FingerprintError, TargetError
from setpoint.files import read_json, sha256_file, write_atomic, write_json
from setpoint.targets.fingerprint import Fingerprint
from setpoint.types import TargetSource, valid_rows

FORMAT = 1
MANIFEST = "store.json"
_ARROW = {"float16": pa.float16(), "float32": pa.float32()}


class TargetStore:
    """A TargetSource on disk. Made by :meth:`build`, opened by :meth:`open`.

    Attributes:
        labels: class names, in the order of the logits' last axis.
        fingerprint: what the store was built from.
        rows: number of rows over all examples.
        nbytes: size of the shards on disk.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        self.labels = tuple(manifest["labels"])
        self.dtype: str = manifest["dtype"]
        self.fingerprint = Fingerprint(**manifest["fingerprint"])
        self._where: dict[str, tuple[int, int, int]] = {}
        self._shards: list[np.ndarray] = []
        for number, shard in enumerate(manifest["shards"]):
            ids, offsets, values = _read_shard(path / shard["file"])
            offsets = offsets // len(self.labels)
            self._shards.append(values.reshape(-1, len(self.labels)))
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

    def __getitem__(self, example_id: str) -> np.ndarray:
        """Logits ``[rows, C]`` of one example, a read-only view in the stored dtype.

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
        """Teacher logits ``[R, C]`` in float32 for the valid rows of a batch, found by its ``example_id``.

        Raises:
            TargetError: an example is missing, or has another number of rows than in the batch.
        """
        parts = [self[example_id] for example_id in batch["example_id"]]
        rows = valid_rows(batch)
        counts = rows.reshape(len(rows), -1).sum(-1).tolist()
        for example_id, part, count in zip(batch["example_id"], parts, counts, strict=True):
            if len(part) != count:
                raise TargetError(
                    f"example '{example_id}' has {len(part)} rows in the target store but {count} in the batch",
                    "give the student the teacher's tokenizer, or raise data.max_length until neither cuts a word off",
                )
        return torch.from_numpy(np.concatenate(parts)).float()

    def all_logits(self) -> np.ndarray:
        """Every row of the store, ``[rows, C]`` in float32."""
        return np.concatenate(self._shards).astype(np.float32)

    @classmethod
    def open(cls, path: str | Path, fingerprint: Fingerprint | None = None) -> TargetStore:
        """Open a finished store, its checksums verified.

        Args:
            path: the store's folder.
            fingerprint: what the store has to have been built from.

        Raises:
            FingerprintError: it was built from something else; the message names the parts.
            TargetError: there is no store, it is not finished, or a shard is damaged.
        """
        path = Path(path)
        manifest = _read_manifest(path)
        if manifest is None:
            raise TargetError(f"there is no target store at '{path}'", "build it first")
        if fingerprint is not None:
            _check_same(path, manifest, fingerprint)
        if not manifest["complete"]:
            raise TargetError(f"target store '{path}' is not finished", "run the command that builds it again")
        for shard in manifest["shards"]:
            if not _is_whole(path, shard):
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
        dtype: Literal["float16", "float32"] = "float16",
        shard_examples: int = 1024,
        batch_size: int = 32,
    ) -> TargetStore:
        """Run the teacher once over a dataset, or continue a build that was stopped.

        Args:
            path: the store's folder.
            teacher: gives the logits of a batch.
            dataset: map-style; its examples have an ``id`` and always give the same inputs.
            collate: makes a batch of examples.
            fingerprint: what the logits are made from.
            dtype: float16 halves the size, at a relative error of 5e-4.
            shard_examples: examples a shard; what is lost when a build is stopped is at most one shard.
            batch_size: examples a teacher batch.

        Raises:
            FingerprintError: the folder holds a store that was built from something else.
            TargetError: random inputs, non-finite logits, or no room on the disk (the finished shards are kept).
            DataError: two examples have the same id.
        """
        path = Path(path)
        _check_repeatable(dataset)
        fresh = {
            "format": FORMAT,
            "labels": list(teacher.labels),
            "dtype": dtype,
            "shard_examples": shard_examples,
            "fingerprint": fingerprint.as_dict(),
            "shards": [],
            "complete": False,
        }
        manifest = _read_manifest(path) or fresh
        _check_same(path, manifest, fingerprint)
        for part in ("format", "labels", "dtype", "shard_examples"):
            if manifest[part] != fresh[part]:
                raise FingerprintError(
                    f"target store '{path}' was built with another {part} ({manifest[part]})",
                    "delete the folder, or start over with --fresh",
                )
        done = {shard["file"]: shard for shard in manifest["shards"] if _is_whole(path, shard)}
        shards: list[dict[str, Any]] = []
        seen: set[str] = set()
        with _explained(path, shards):
            path.mkdir(parents=True, exist_ok=True)
            for leftover in path.glob(".*.tmp"):
                leftover.unlink()
            bar = tqdm(total=len(dataset), desc="teacher → target store", unit="ex", delay=2, leave=False, disable=None)
            for number, start in enumerate(range(0, len(dataset), shard_examples)):
                name = f"shard-{number:05d}.arrow"
                if name in done:
                    shards.append(done[name])
                    seen.update(_read_shard(path / name)[0])
                    bar.update(done[name]["examples"])
                    continue
                examples = [dataset[i] for i in range(start, min(start + shard_examples, len(dataset)))]
                _check_new(examples, seen)
                logits = _logits(examples, teacher, collate, batch_size, dtype, bar)
                shards.append(_write_shard(path, name, examples, logits, dtype))
                write_json(path / MANIFEST, {**fresh, "shards": shards})
            bar.close()
            write_json(path / MANIFEST, {**fresh, "shards": shards, "complete": True})
        return cls.open(path, fingerprint)


def _logits(
    examples: list[Any], teacher: TargetSource, collate: Callable[[list[Any]], Any], size: int, dtype: str, bar: Any
) -> list[np.ndarray]:
    """Logits ``[rows, C]`` of each example of a shard, in order.

    Batches are made within the shard and by length, so they are the same whether or not the build was resumed, and
    waste little on padding.
    """
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].get("input_ids", ())))
    result: list[np.ndarray] = [np.empty(0)] * len(examples)
    for first in range(0, len(order), size):
        chosen = order[first : first + size]
        batch = collate([examples[i] for i in chosen])
        logits = teacher(batch).cpu().numpy()
        if dtype == "float16" and np.abs(logits).max(initial=0.0) > np.finfo(np.float16).max:
            raise TargetError("teacher logits exceed float16's range of ±65504", "set targets.dtype to float32")
        rows = valid_rows(batch)
        counts = rows.reshape(len(rows), -1).sum(-1).tolist()
        for i, part in zip(chosen, np.split(logits, np.cumsum(counts)[:-1]), strict=True):
            result[i] = part
        bar.update(len(chosen))
    return result


def _write_shard(path: Path, name: str, examples: list[Any], logits: list[np.ndarray], dtype: str) -> dict[str, Any]:
    offsets = np.cumsum([0] + [part.size for part in logits]).astype(np.int64)
    values = pa.array(np.concatenate([part.reshape(-1) for part in logits]).astype(dtype), type=_ARROW[dtype])
    column = pa.LargeListArray.from_arrays(pa.array(offsets), values)
    table = pa.table({"id": pa.array([str(e["id"]) for e in examples], pa.string()), "logits": column})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    write_atomic(path / name, sink.getvalue().to_pybytes())
    rows = sum(len(part) for part in logits)
    return {"file": name, "sha256": sha256_file(path / name), "examples": len(examples), "rows": rows}


def _read_shard(file: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Ids, offsets and flat values of a shard; the values stay in the file, memory-mapped."""
    table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    column = table.column("logits").chunk(0)
    return table.column("id").to_pylist(), column.offsets.to_numpy(), column.values.to_numpy()


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path / MANIFEST)
    except FileNotFoundError:
        return None
    except ValueError:
        raise TargetError(f"'{path / MANIFEST}' is damaged", "delete the folder and build the store again") from None


def _is_whole(path: Path, shard: Mapping[str, Any]) -> bool:
    file = path / shard["file"]
    return file.exists() and sha256_file(file) == shard["sha256"]


def _check_same(path: Path, manifest: Mapping[str, Any], fingerprint: Fingerprint) -> None:
    parts = Fingerprint(**manifest["fingerprint"]).differences(fingerprint)
    if parts:
        raise FingerprintError(
            f"target store '{path}' was built for another {' and another '.join(parts)}",
            "delete the folder, start over with --fresh, or choose another folder",
        )


def _check_new(examples: list[Any], seen: set[str]) -> None:
    for example in examples:
        if example["id"] in seen:
            raise DataError(f"two examples have the id '{example['id']}'", "give each its own")
        seen.add(example["id"])


def _check_repeatable(dataset: Any) -> None:
    """Refuse a dataset whose examples change from reading to reading: stored logits would not belong to them."""
    for index in np.linspace(0, len(dataset) - 1, num=min(8, len(dataset)), dtype=int).tolist():
        first, second = dataset[index], dataset[index]
        for name, value in first.items():
            if not np.array_equal(np.asarray(value), np.asarray(second[name])):
                raise TargetError(
                    f"example '{first['id']}' has another '{name}' each time it is read (random augmentation)",
                    "give data.augment a number of views, or set targets.kind to live",
                )


@contextmanager
def _explained(path: Path, shards: list[dict[str, Any]]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TargetError(
            f"the disk is full while writing target store '{path}' ({len(shards)} shards are kept)",
            "make room and run the same command again; it continues",
        ) from None
