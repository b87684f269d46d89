"""The files of a target store: its manifest, and its shards with their checksums.

``store.json`` says what the store was built from and lists the shards. A shard is an Arrow IPC file, uncompressed, with
the columns ``id`` and ``logits`` (an example's rows, flattened): the values are used where they lie, memory-mapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from setpoint.errors import FingerprintError, TargetError
from setpoint.files import read_json, sha256_file, write_atomic
from setpoint.targets.fingerprint import Fingerprint

FORMAT = 1
MANIFEST = "store.json"
KEYS = {"format", "labels", "dtype", "shard_examples", "fingerprint", "shards", "complete"}
DTYPES = {"float16": pa.float16(), "float32": pa.float32()}


def new_manifest(
    fingerprint: Fingerprint, labels: Sequence[str], dtype: str, shard_examples: int, extras: int = 0
) -> dict[str, Any]:
    """The manifest of a store that has no shard yet."""
    if dtype not in DTYPES:
        raise TargetError(f"a target store cannot hold dtype '{dtype}'", f"give {' or '.join(DTYPES)}")
    return {
        "format": FORMAT,
        "labels": list(labels),
        "extras": extras,
        "dtype": dtype,
        "shard_examples": shard_examples,
        "fingerprint": fingerprint.as_dict(),
        "shards": [],
        "complete": False,
    }


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a store; None where there is no store.

    Raises:
        TargetError: it is damaged, or of another format.
    """
    again = "delete the folder and build the store again"
    try:
        manifest = read_json(path / MANIFEST)
    except FileNotFoundError:
        return None
    except ValueError:
        raise TargetError(f"'{path / MANIFEST}' is damaged", again) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or not manifest.keys() >= KEYS:
        raise TargetError(f"'{path / MANIFEST}' is no target store of format {FORMAT}", again)
    manifest.setdefault("extras", 0)  # stores of before have none
    return manifest


def check_fingerprint(path: Path, manifest: Mapping[str, Any], fingerprint: Fingerprint) -> None:
    """Refuse a store that was built from something else, naming the parts."""
    _refuse(path, Fingerprint(**manifest["fingerprint"]).differences(fingerprint))


def check_same_build(path: Path, manifest: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to continue a store that was begun from, or into, something else."""
    check_fingerprint(path, manifest, Fingerprint(**wanted["fingerprint"]))
    _refuse(path, [part for part in ("labels", "extras", "dtype", "shard_examples") if manifest[part] != wanted[part]])


def _refuse(path: Path, parts: Sequence[str]) -> None:
    if parts:
        raise FingerprintError(
            f"target store '{path}' was built for another {' and '.join(parts)}",
            "delete the folder, start over with --fresh, or choose another folder",
        )


def write_shard(path: Path, name: str, examples: list[Any], logits: list[np.ndarray], dtype: str) -> dict[str, Any]:
    """Write one shard, atomically; gives its record for the manifest."""
    offsets = np.cumsum([0] + [part.size for part in logits]).astype(np.int64)
    values = pa.array(np.concatenate([part.reshape(-1) for part in logits]).astype(dtype), type=DTYPES[dtype])
    column = pa.LargeListArray.from_arrays(pa.array(offsets), values)
    table = pa.table({"id": pa.array([str(e["id"]) for e in examples], pa.string()), "logits": column})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    write_atomic(path / name, sink.getvalue().to_pybytes())
    rows = sum(len(part) for part in logits)
    return {"file": name, "sha256": sha256_file(path / name), "examples": len(examples), "rows": rows}


def read_shard(file: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Ids, offsets and flat values of a shard; the values stay in the file, memory-mapped."""
    table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    column = table.column("logits").chunk(0)
    return table.column("id").to_pylist(), column.offsets.to_numpy(), column.values.to_numpy()


def is_whole(path: Path, shard: Mapping[str, Any]) -> bool:
    """Whether a shard is there, with the content its record promises."""
    file = path / shard["file"]
    return file.exists() and sha256_file(file) == shard["sha256"]
