"""Files in, answers out: as a stream, in batches, in order."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from setpoint.errors import DataError
from setpoint.shipping.reading import Given, read_inputs
from setpoint.shipping.shipped import BATCH, Shipped
from setpoint.shipping.writing import open_sink

BATCHES_SORTED_TOGETHER = 16
"""So many are read before they are computed, so that a batch holds inputs of like length."""


def predict_files(
    model: str | Path, inputs: Sequence[str | Path], out: str | Path | None = None, batch_size: int = BATCH
) -> int:
    """Ask an exported student about all inputs in files; gives how many there were.

    Args:
        model: the folder that ``setpoint export`` wrote.
        inputs: files or folders of pictures, as ``read_inputs`` takes them.
        out: a file, ``.jsonl``, ``.csv`` or ``.parquet``, written whole or not at all; unless given, JSON lines go to
            stdout.
        batch_size: how many are computed together.

    Raises:
        SetpointError: the model cannot be opened; or an input that is none of its task, by file and line.
    """
    shipped = Shipped.open(model)
    total = 0
    # stdout may be a terminal too, on which a bar and the answers would be in each other's way.
    hidden = True if out is None and sys.stdout.isatty() else None
    with (
        open_sink(None if out is None else Path(out), sys.stdout) as sink,
        tqdm(desc="predict", unit="input", delay=2, leave=False, disable=hidden) as bar,
    ):
        for answers in stream(shipped, read_inputs(inputs), batch_size):
            sink.write(answers)
            total += len(answers)
            bar.update(len(answers))
        if total == 0:
            raise DataError(f"there are no inputs in {', '.join(map(str, inputs))}", "give a file with some")
    return total


def stream(shipped: Shipped, inputs: Iterator[Given], batch_size: int = BATCH) -> Iterator[list[dict[str, Any]]]:
    """Answers to inputs in order, in lists of some batches each."""
    while chunk := list(islice(inputs, batch_size * BATCHES_SORTED_TOGETHER)):
        checked = [shipped.read(given.value, given.where) for given in chunk]
        answers = shipped.answer(checked, batch_size)
        yield [given.about | answer for given, answer in zip(chunk, answers, strict=True)]
