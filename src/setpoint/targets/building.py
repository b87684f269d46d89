"""One pass of the teacher over the data, shard by shard, from wherever an earlier pass was stopped."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from setpoint.batching import length_of
from setpoint.errors import DataError, TargetError
from setpoint.files import write_json
from setpoint.targets.shards import MANIFEST, is_whole, read_shard, write_shard
from setpoint.types import TargetSource, valid_rows

Collate = Callable[[list[Any]], Any]


def build_shards(
    path: Path,
    manifest: Mapping[str, Any],
    teacher: TargetSource,
    dataset: Any,
    collate: Collate,
    batch_size: int,
    progress: bool,
) -> None:
    """Write every shard that a manifest lacks or whose file is damaged, then mark the store as complete.

    A shard's examples and batches depend on its number alone, so a resumed build gives the bytes of an unbroken one.
    """
    size, dtype = manifest["shard_examples"], manifest["dtype"]
    starts = range(0, len(dataset), size)
    plan = {f"shard-{k:05d}.arrow": range(len(dataset))[i : i + size] for k, i in enumerate(starts)}
    listed = [s for s in manifest["shards"] if s["examples"] == len(plan.get(s["file"], ()))]
    done = {s["file"]: s for s in listed if is_whole(path, s)}

    def save(shards: Mapping[str, Any], complete: bool) -> None:
        write_json(
            path / MANIFEST, {**manifest, "shards": [shards[n] for n in plan if n in shards], "complete": complete}
        )

    seen: set[str] = set()
    bar = tqdm(
        total=len(dataset),
        desc="teacher → target store",
        unit="ex",
        delay=2,
        leave=False,
        disable=None if progress else True,
    )
    with _explained(path, done), bar:
        path.mkdir(parents=True, exist_ok=True)
        for leftover in path.glob(".*.tmp"):
            leftover.unlink()
        for name, indices in plan.items():
            if name in done:
                _check_new(read_shard(path / name)[0], seen)
                bar.update(len(indices))
                continue
            examples = [dataset[i] for i in indices]
            _check_new([str(example["id"]) for example in examples], seen)
            logits = _logits(examples, teacher, collate, batch_size, manifest, bar)
            record = write_shard(path, name, examples, logits, dtype)
            save(done | {name: record}, complete=False)
            done[name] = record
        save(done, complete=True)


def check_deterministic(dataset: Any, collate: Collate, samples: int = 32) -> None:
    """Refuse examples that change from reading to reading: stored logits would not belong to them.

    Args:
        dataset: map-style.
        collate: makes a batch of examples; randomness may sit here too.
        samples: how many examples, spread over the dataset, are read twice.

    Raises:
        TargetError: an example has other model inputs the second time; the message names it.
    """
    for index in np.linspace(0, len(dataset) - 1, num=min(samples, len(dataset)), dtype=int).tolist():
        example, again = dataset[index], dataset[index]
        first, second = collate([example]), collate([again])
        for name, value in first.items():
            if not np.array_equal(np.asarray(value), np.asarray(second[name])):
                raise TargetError(
                    f"example '{example['id']}' has another '{name}' each time it is read (random augmentation)",
                    "give data.views beside data.augment, or set targets.kind to live",
                )


def _logits(
    examples: list[Any], teacher: TargetSource, collate: Collate, size: int, manifest: Mapping[str, Any], bar: Any
) -> list[np.ndarray]:
    """Logits ``[rows, C + extras]`` of each example of a shard, in order.

    Batches are made within the shard and by length, so they are the same whether or not the build was resumed, and
    waste little on padding.
    """
    width, dtype = len(manifest["labels"]) + manifest["extras"], manifest["dtype"]
    what = "logits" if manifest["labels"] else "hidden states"
    order = sorted(range(len(examples)), key=lambda i: length_of(examples[i]))
    result: list[np.ndarray] = [np.empty(0)] * len(examples)
    for first in range(0, len(order), size):
        chosen = order[first : first + size]
        batch = collate([examples[i] for i in chosen])
        with torch.inference_mode():  # a little quicker than without gradients alone
            logits = teacher(batch).cpu().numpy()
        rows = valid_rows(batch)
        counts = rows.reshape(len(rows), -1).sum(-1).tolist()
        _check_logits(logits, np.repeat([str(examples[i]["id"]) for i in chosen], counts), width, dtype, what)
        for i, count, end in zip(chosen, counts, np.cumsum(counts), strict=True):
            result[i] = logits[end - count : end]
        bar.update(len(chosen))
    return result


def _check_logits(logits: np.ndarray, owners: np.ndarray, width: int, dtype: str, what: str) -> None:
    """Refuse what must not be stored; ``owners`` names the example of each row, ``what`` the numbers in errors."""
    if logits.shape != (len(owners), width):
        raise TargetError(
            f"the teacher gives {what} of shape {logits.shape} for {len(owners)} rows of {width}",
            "give one line of logits for each valid row",
        )
    limit = np.finfo(dtype).max
    masked = logits == -np.inf  # classes that are none
    bad = ~((np.abs(logits) <= limit) | masked).all(-1) | masked.all(-1)  # NaN compares false, so it counts as bad
    if bad.any():
        example = f"teacher {what} of example '{owners[bad][0]}'"
        if not (np.isfinite(logits[bad]) | masked[bad]).all() or masked[bad].all(-1).any():
            raise TargetError(f"{example} are not finite", "mend the teacher")
        raise TargetError(f"{example} exceed {dtype}'s range of ±{limit:g}", "set targets.dtype to float32")


def _check_new(ids: Sequence[str], seen: set[str]) -> None:
    for example_id in ids:
        if example_id in seen:
            raise DataError(f"two examples have the id '{example_id}'", "give each its own")
        seen.add(example_id)


@contextmanager
def _explained(path: Path, done: Mapping[str, Any]) -> Iterator[None]:
    """Say in one sentence what a full disk means for the build."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TargetError(
            f"the disk is full while writing target store '{path}' ({len(done)} finished shards are kept)",
            "make room and run the same command again; it continues",
        ) from None
