"""Recordings as samples: .wav files, and arrays of numbers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from scipy.io import wavfile

from setpoint.errors import DataError
from setpoint.tasks.checks import is_audio, shown


def read_wav(content: bytes, name: str) -> tuple[np.ndarray, int]:
    """The samples of a .wav file, float32 ``[samples]`` in [-1, 1], and how many there are in a second.

    Whole numbers of N bits are divided by 2^(N-1), those of 8 bits after 128 is taken off; fractions are cut off at -1
    and 1. Of several channels the mean is taken.

    Args:
        content: the file's.
        name: of the example, for errors.

    Raises:
        DataError: it is no PCM .wav file, is damaged or cut off, or has no samples or samples that are no numbers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of chunks that are not sound
            warnings.filterwarnings("error", "Reached EOF prematurely")
            rate, samples = wavfile.read(io.BytesIO(content))
        samples = _fractions(samples)
        if samples.ndim == 2:
            samples = samples.mean(axis=1, dtype=np.float64).astype(np.float32)
        if samples.size == 0 or rate < 1:
            raise ValueError("it has no samples")
        if not np.isfinite(samples).all():
            raise ValueError("it has samples that are no numbers")
    except Exception as error:  # scipy says in many ways that a file is damaged
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"audio of example '{name}' cannot be read ({reason})", "give another .wav file") from None
    return np.clip(samples, -1.0, 1.0), int(rate)


def samples_of(value: Any, name: str) -> tuple[np.ndarray, int | None]:
    """The samples of a recording, float32 ``[samples]`` in [-1, 1], and their rate, where it is a file that has one.

    Args:
        value: ``{"bytes": …}`` with a .wav file, an array of int16 or int32, or fractions from -1 to 1.
        name: of the example, for errors.

    Raises:
        DataError: it is none of these.

    Examples:
        >>> samples_of(np.array([0, -32768, 16384], np.int16), "a")
        (array([ 0. , -1. ,  0.5], dtype=float32), None)
    """
    if not is_audio(value):
        raise DataError(f"audio of example '{name}' is {shown(value)}", "give a .wav file, or a list of numbers")
    if isinstance(value, Mapping):
        return read_wav(value["bytes"], name)
    array = np.asarray(value)
    samples = _fractions(array) if array.dtype in (np.int16, np.int32) else array.astype(np.float32)
    if np.abs(samples).max() > 1:
        raise DataError(
            f"audio of example '{name}' has values from {array.min()} to {array.max()}",
            "give fractions from -1 to 1, or arrays of 16 or 32 bits",
        )
    return samples, None


def recordings(split: Dataset, column: str) -> Iterator[tuple[np.ndarray, int | None]]:
    """The samples and rate of each recording of a column, one after another, as ``samples_of`` has them.

    Raises:
        DataError: naming the first example whose recording cannot be read.
    """
    for name, row in zip(split["id"], split.select_columns([column]).with_format("arrow").iter(1), strict=True):
        cell = row[column][0]
        numbers = isinstance(cell, pa.ListScalar) and cell.is_valid
        # A list would forget whether its numbers are of 16 bits.
        value = cell.values.to_numpy(zero_copy_only=False) if numbers else cell.as_py()
        yield samples_of(value, name)


def _fractions(samples: np.ndarray) -> np.ndarray:
    """Whole numbers of any width as float32 in [-1, 1]."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    middle = 128 if samples.dtype == np.uint8 else 0
    return ((samples.astype(np.float64) - middle) / 2 ** (8 * samples.dtype.itemsize - 1)).astype(np.float32)
