"""The arrays of numbers in a file of any of the common formats. Nothing is ever unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from setpoint.errors import TargetError
from setpoint.targets.store import TargetStore

SUFFIXES = (".npy", ".npz", ".safetensors", ".parquet")
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")
LABELS = ("labels", "label")
ALONE = "the array"
"""The name of the array in a file that gives it none."""


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The numeric arrays of a file, by name."""
    if not path.exists():
        raise TargetError(f"'{path}' does not exist", "give the path of saved logits")
    if path.is_dir():
        return {"logits": torch.from_numpy(TargetStore.open(path).all_logits())}
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise TargetError(
            f"'{path}' is a pickle, which can run code when it is opened", f"save the logits as {', '.join(SUFFIXES)}"
        )
    if suffix not in SUFFIXES:
        raise TargetError(f"'{path}' has the unknown suffix '{suffix}'", f"give one of {', '.join(SUFFIXES)}")
    try:
        if suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return _parquet(path) if suffix == ".parquet" else _numpy(path)
    except TargetError:
        raise
    except Exception as error:  # each library has its own for a broken file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise TargetError(f"'{path}' cannot be read ({reason})", "save the logits again") from None


def _numpy(path: Path) -> dict[str, Tensor]:
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays = {ALONE: loaded} if isinstance(loaded, np.ndarray) else {}
        for name in loaded.files if not arrays else ():
            try:
                arrays[name] = loaded[name]
            except ValueError:  # an array of objects; names of classes, say, are no concern of ours
                if name in ("logits", *LABELS):
                    raise
    except ValueError as error:
        if "pickle" not in str(error) and "Python objects" not in str(error):
            raise
        raise TargetError(
            f"'{path}' holds Python objects, which are not read, or is damaged", "save arrays of numbers"
        ) from None
    numeric = {name: array for name, array in arrays.items() if array.dtype.kind in "fiu"}
    return {name: torch.from_numpy(array.astype(array.dtype.newbyteorder("="))) for name, array in numeric.items()}


def _parquet(path: Path) -> dict[str, Tensor]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    arrays, floats = {}, []
    for field in table.schema:
        column = table.column(field.name).combine_chunks()
        if pa.types.is_floating(field.type) and field.name not in LABELS:
            floats.append(column.to_numpy(zero_copy_only=False).astype(np.float64))
        elif pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            arrays[field.name] = torch.from_numpy(np.array(column.to_numpy(zero_copy_only=False)))
        elif isinstance(field.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
            arrays |= _lists(column, field.name, path)
    if floats and "logits" not in arrays:
        arrays["logits"] = torch.from_numpy(np.stack(floats, axis=-1))
    return arrays


def _lists(column: Any, name: str, path: Path) -> dict[str, Tensor]:
    """A column of lists as one array; of lists of lists, the outer ones (sequences of any length) are joined."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = np.empty(0)
    while isinstance(column.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        lengths, column = pc.fill_null(pc.list_value_length(column), 0).to_numpy(), pc.list_flatten(column)
    values = np.array(column.to_numpy(zero_copy_only=False))
    if values.dtype.kind not in "fiu":
        return {}
    if name in LABELS:
        return {name: torch.from_numpy(values)}
    odd = np.flatnonzero(lengths != lengths[:1])
    if len(odd):
        raise TargetError(
            f"'{path}' has {lengths[odd[0]]} values in row {odd[0]} of '{name}' and {lengths[0]} in row 0",
            "give each row one value for each class",
        )
    return {name: torch.from_numpy(values.reshape(len(lengths), lengths[0] if len(lengths) else 0))}
