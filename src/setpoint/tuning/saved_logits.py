"""Logits that any framework saved: NumPy, safetensors, Parquet, a target store. Nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from setpoint.errors import TargetError
from setpoint.targets.store import TargetStore
from setpoint.tuning.array_files import ALONE, LABELS, read_arrays
from setpoint.tuning.checking import check_labels, check_logits
from setpoint.types import IGNORED_LABEL


def read_logits(path: str | Path, labels_path: str | Path | None = None) -> tuple[Tensor, Tensor | None]:
    """Read logits, and labels where there are some.

    ``.npy`` holds one array; ``.npz`` and ``.safetensors`` hold ``logits``, or one array of floats with two axes or
    more, and may hold ``labels`` or ``label``; ``.parquet`` has a column ``logits`` of lists, or a column of floats for
    each class, and may have ``labels`` or ``label``. A folder is a target store of Setpoint, which has no labels.

    Args:
        path: the file or folder.
        labels_path: another file for the labels: ``labels``, ``label``, or the only array of integers in it.

    Returns:
        Logits ``[N, C]`` in float32 (float64 where saved so) and labels ``[N]`` in int64, or None. Axes in front are
        flattened, and rows labelled ``-100``, the padding, are left out.

    Raises:
        TargetError: the file cannot be read or has no logits; they are probabilities, NaN, or do not fit the labels.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> file = Path(tempfile.mkdtemp()) / "teacher.npz"
        >>> np.savez(file, logits=np.zeros((2, 3, 5)), labels=np.array([[1, 4, -100], [0, -100, -100]]))
        >>> logits, labels = read_logits(file)
        >>> logits.shape, labels
        (torch.Size([3, 5]), tensor([1, 4, 0]))
    """
    path = Path(path)
    arrays = read_arrays(path)
    logits, labels = _logits(arrays, path), _named(arrays)
    source = path
    if labels_path is not None:
        source = Path(labels_path)
        labels = _labels(read_arrays(source), source)
    if labels is not None and labels.shape != logits.shape[:-1]:
        raise TargetError(
            f"the labels in '{source}' have the shape {list(labels.shape)} where the logits are {list(logits.shape)}",
            "give one label for each row of logits",
        )
    logits = logits.flatten(0, -2) if logits.ndim > 1 else logits
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if labels is not None:
        labels = labels.flatten()
        if bool((counts := labels != IGNORED_LABEL).any()):
            logits, labels = logits[counts], labels[counts]
    check_logits(logits, f"'{path}'")
    if labels is not None:
        check_labels(labels, logits, f"the labels in '{source}'")
    return logits, None if labels is None else labels.long()


def saved_names(path: str | Path) -> tuple[str, ...] | None:
    """The class names that a target store keeps; None for a file, which has none."""
    return TargetStore.open(path, verify=False).labels if Path(path).is_dir() else None


def _logits(arrays: Mapping[str, Tensor], path: Path) -> Tensor:
    tables = [array for array in arrays.values() if array.ndim > 1 and array.is_floating_point()]
    for name in ("logits", ALONE):
        if name in arrays:
            return arrays[name]
    if len(tables) == 1:
        return tables[0]
    there = ", ".join(f"'{name}' {list(array.shape)}" for name, array in arrays.items()) or "no array of numbers"
    raise TargetError(f"'{path}' has no array 'logits' (there is {there})", "name the teacher's logits 'logits'")


def _labels(arrays: Mapping[str, Tensor], path: Path) -> Tensor:
    whole = [array for array in arrays.values() if not array.is_floating_point()]
    named = _named(arrays)
    if named is None and len(whole) != 1:
        raise TargetError(f"'{path}' has no array 'labels' of whole numbers", "save the labels under that name")
    return whole[0] if named is None else named


def _named(arrays: Mapping[str, Tensor]) -> Tensor | None:
    return next((arrays[name] for name in LABELS if name in arrays), None)
