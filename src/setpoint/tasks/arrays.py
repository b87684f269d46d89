"""Rows of arrays: NumPy's npz archives, and the idx files of MNIST."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from setpoint.errors import DataError
from setpoint.recipe import DataRecipe
from setpoint.tasks.checks import missing_column
from setpoint.tasks.packed import PACKED, UNREADABLE, allowance, plain_name, unpack

Row = dict[str, Any]
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""What the numbers of an idx file are, by its third byte."""


def read_npz(path: Path, columns: dict[str, str], split: str) -> list[Row]:
    """The rows of an npz archive, of the columns that are asked for, and of ``id``, where there is one.

    An array whose first axis has n entries is a column of n rows. Where there is an array of whole numbers
    ``offsets`` with n + 1 entries, an array of one axis with ``offsets[-1]`` entries is a column too, cut by it: row i
    has those from ``offsets[i]`` to before ``offsets[i + 1]``. Cut from uint8 it is the content of a file, such as a
    JPEG, as ``{"bytes": …}``; cut from other numbers an array, such as a recording. Nothing is ever unpickled.

    Args:
        path: the archive.
        columns: by what asks for it (``"data.label"``), the name of each array that is read.
        split: names the split in errors.

    Raises:
        DataError: it is no archive, is damaged, unpacks to more than its ``allowance``, or an array that is asked for
            is not there, or has no rows, or another number of them.
    """
    try:
        _refuse_bomb(path)
        with np.load(path, allow_pickle=False) as archive:
            there = list(archive.files)
            wanted = {*columns.values(), "id", "offsets"}
            found = {name: archive[name] for name in there if name in wanted}
    except Exception as error:  # zipfile, its codecs and NumPy say in many ways that something is wrong
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"data.{split} '{path}' cannot be read ({reason})", "give an npz of plain arrays") from None
    for field, name in columns.items():
        if name not in found:
            raise missing_column(split, name, [other for other in there if other != "offsets"], field)
    offsets = found.pop("offsets", None)
    if offsets is None:
        count = next((len(array) for array in found.values() if array.ndim), 0)
    else:
        _check_offsets(path, offsets)
        count = len(offsets) - 1
    values = {name: _rows(path, name, array, count, offsets) for name, array in found.items()}
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _refuse_bomb(path: Path) -> None:
    """Refuse an archive that says that it is larger than its allowance; no more than it says is ever unpacked."""
    with zipfile.ZipFile(path) as archive:
        size, most = sum(member.file_size for member in archive.infolist()), allowance(path)
    if size > most:
        raise OSError(f"it unpacks to more than {most} bytes")


def _check_offsets(path: Path, offsets: np.ndarray) -> None:
    fits = offsets.ndim == 1 and offsets.size > 0 and offsets.dtype.kind in "iu"
    if not fits or offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any():
        raise DataError(
            f"array 'offsets' of {path} is none", "give whole numbers from 0 that never fall, n + 1 of n rows"
        )


def _rows(path: Path, name: str, array: np.ndarray, count: int, offsets: np.ndarray | None) -> Sequence[Any]:
    """An array as values of rows: plain Python of one axis, else arrays."""
    if array.ndim and len(array) == count:
        return array.tolist() if array.ndim == 1 else list(array)
    if offsets is not None and array.ndim == 1 and len(array) == offsets[-1]:
        parts = [array[start:end] for start, end in pairwise(offsets.tolist())]
        return [{"bytes": part.tobytes()} for part in parts] if array.dtype == np.uint8 else parts
    entries = f"{len(array)} entries" if array.ndim else "no axis"
    raise DataError(f"array '{name}' of {path} has {entries} where there are {count} rows", "give one for each row")


def read_idx(path: Path, data: DataRecipe, split: str) -> list[Row]:
    """The images of an idx file and, where there is a file of labels beside it, their labels.

    ``train-labels-idx1-ubyte`` has the labels of ``train-images-idx3-ubyte``; either may be packed. The format: two
    bytes 0, a byte for the type of the numbers, one for the number of axes, the length of each axis as four bytes, the
    highest first, and the numbers. Source: LeCun, Cortes and Burges, the MNIST database.

    Raises:
        DataError: a file cannot be read or is no idx file, or there are not as many labels as images.
    """
    images = _idx(path, split)
    if images.ndim < 3:
        raise DataError(f"data.{split} '{path}' holds no images but {images.ndim} axes", "give the file of images")
    labels_path = _labels_beside(path)
    if labels_path is None:
        return [{data.image: image} for image in images]
    labels = _idx(labels_path, split)
    if labels.shape != images.shape[:1]:
        raise DataError(
            f"{labels_path} has {'x'.join(map(str, labels.shape))} labels where {path} has {len(images)} images",
            "give the labels of these images",
        )
    return [{data.image: image, data.label: label} for image, label in zip(images, labels.tolist(), strict=True)]


def _idx(path: Path, split: str) -> np.ndarray:
    try:
        content = unpack(path)
    except UNREADABLE as error:
        raise DataError(f"data.{split} '{path}' cannot be read ({error})", "give another file") from None
    dtype = _IDX_TYPES.get(content[2]) if len(content) >= 4 and content[:2] == b"\0\0" else None
    if dtype is None:
        raise DataError(f"data.{split} '{path}' is not an idx file", "give another file, or set data.format")
    start = 4 + 4 * content[3]
    shape = [int.from_bytes(content[at : at + 4]) for at in range(4, start, 4)]
    said = start + math.prod(shape) * np.dtype(dtype).itemsize
    if len(content) != said:
        raise DataError(f"data.{split} '{path}' has {len(content)} bytes where it says {said}", "give a whole file")
    array = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _labels_beside(path: Path) -> Path | None:
    plain = plain_name(path)
    name = re.sub(r"idx\d", "idx1", plain.replace("images", "labels"))
    if name == plain:
        return None
    packed_alike = path.name.removeprefix(plain)
    beside = (path.with_name(name + ending) for ending in (packed_alike, "", *PACKED))
    return next((other for other in beside if other.is_file()), None)
