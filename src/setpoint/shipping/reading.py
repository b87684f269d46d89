"""Inputs from files, one after the other, each with the place it comes from: memory does not grow with the file."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from setpoint.errors import DataError
from setpoint.tasks.checks import is_id

FILES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".wav"}
"""Of pictures and recordings: a file is an input."""


@dataclass(frozen=True)
class Given:
    """One input of a file.

    Attributes:
        value: a text, the content of a picture's or recording's file, or a row of a table.
        where: names it in errors.
        about: what its answer repeats: the ``id`` of a row, or the ``file`` of a picture or recording.
    """

    value: Any
    where: str
    about: dict[str, Any]


def read_inputs(paths: Sequence[str | Path]) -> Iterator[Given]:
    """The inputs in files, in order.

    They are ``.jsonl``, ``.csv`` and ``.parquet`` with the recipe's columns, ``.txt`` with an input a line, pictures,
    recordings (``.wav``), and folders of either; all of text also packed as ``.gz``. Blank lines are no inputs.

    Raises:
        DataError: a file that cannot be read, or a line of it, by its number.
    """
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in FILES)
            if not files:
                raise DataError(
                    f"folder '{path}' holds no pictures or recordings", f"give files such as {', '.join(sorted(FILES))}"
                )
            for file in files:
                yield _whole(file)
        else:
            yield from _file(path)


def _file(path: Path) -> Iterator[Given]:
    if not path.is_file():
        raise DataError(f"'{path}' does not exist", "give the path of a readable file")
    kind = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if kind in FILES:
        yield _whole(path)
    elif kind == ".parquet":
        yield from _parquet(path)
    elif kind in _LINES:
        try:
            with _open(path) as file:
                yield from _LINES[kind](file, path)
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise DataError(f"'{path}' cannot be read ({error})", "give a UTF-8 file") from None
    else:
        raise DataError(
            f"'{path}' has a suffix that tells no format", f"give one of {', '.join(_LINES)}, .parquet, .png, .wav"
        )


def _open(path: Path) -> IO[str]:
    raw: Any = gzip.open(path) if path.suffix == ".gz" else open(path, "rb")  # noqa: SIM115 - the wrapper closes it
    return io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")


def _lines(file: IO[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, start=1):  # with newline="" only \n, \r and \r\n end one
        if line.strip():
            yield number, line.rstrip("\r\n")


def _text(file: IO[str], path: Path) -> Iterator[Given]:
    for number, line in _lines(file):
        yield Given(line, f"{path}, line {number},", {})


def _jsonl(file: IO[str], path: Path) -> Iterator[Given]:
    for number, line in _lines(file):
        where = f"{path}, line {number},"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"{where} is not JSON", "write one object a line") from None
        yield _row(row, where)


def _csv(file: IO[str], path: Path) -> Iterator[Given]:
    reader = csv.reader(file, strict=True)
    limit = csv.field_size_limit(2**31 - 1)  # a long text is no mistake
    try:
        header = next(reader, [])
        for cells in reader:
            if not cells:
                continue
            where = f"{path}, line {reader.line_num},"
            if len(cells) != len(header):
                raise DataError(
                    f"{where} has {len(cells)} fields where the header has {len(header)}",
                    "give every line a field for each column",
                )
            yield _row(dict(zip(header, cells, strict=True)), where)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}, is not CSV ({error})", "mend its quotes") from None
    finally:
        csv.field_size_limit(limit)


_LINES = {".jsonl": _jsonl, ".csv": _csv, ".txt": _text}


def _parquet(path: Path) -> Iterator[Given]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            number = 0
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield _row(row, f"{path}, row {number},")
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"'{path}' cannot be read as Parquet ({reason})", "give another file") from None


def _row(row: Any, where: str) -> Given:
    about = {"id": row["id"]} if isinstance(row, dict) and is_id(row.get("id")) else {}
    return Given(row, where, about)


def _whole(file: Path) -> Given:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"'{file}' cannot be read ({error.strerror})", "give a readable file") from None
    return Given({"bytes": content}, str(file), {"file": str(file)})
