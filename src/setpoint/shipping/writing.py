"""Answers to a file, one after the other: JSON lines, CSV or Parquet; the file is whole or not there."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from setpoint.errors import DataError
from setpoint.files import sync_folder

FORMATS = (".jsonl", ".csv", ".parquet")


class Sink(Protocol):
    """What takes answers in the order they come."""

    def write(self, answers: list[dict[str, Any]]) -> None:
        """Take some more."""
        ...

    def close(self) -> None:
        """Take no more."""
        ...


class JsonLines:
    """An object a line."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, answers: list[dict[str, Any]]) -> None:
        """A line for each."""
        self._file.writelines(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
        self._file.flush()

    def close(self) -> None:
        """Nothing is left to do."""


class Csv:
    """A line for each answer; what is more than a word or a number is JSON in its field."""

    def __init__(self, file: IO[str]) -> None:
        self._file = csv.writer(file)
        self._columns: list[str] | None = None

    def write(self, answers: list[dict[str, Any]]) -> None:
        """The header comes with the first."""
        if self._columns is None and answers:
            self._columns = list(answers[0])
            self._file.writerow(self._columns)
        for answer in answers:
            _same(answer, self._columns or [])
            self._file.writerow([_cell(value) for value in answer.values()])

    def close(self) -> None:
        """Nothing is left to do."""


class Parquet:
    """A row for each answer, its columns of the types that the first answers have."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def write(self, answers: list[dict[str, Any]]) -> None:
        """A row group for each call."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._path, pa.Table.from_pylist(answers).schema)
            for answer in answers:
                _same(answer, self._writer.schema.names)
            self._writer.write_table(pa.Table.from_pylist(answers, schema=self._writer.schema))
        except pa.ArrowException as error:
            raise DataError(f"the answers are no table ({error})", "give ids of one type, or --out x.jsonl") from None

    def close(self) -> None:
        """Write the end of the file, which tells where its rows are."""
        if self._writer is not None:
            self._writer.close()


def _same(answer: Mapping[str, Any], columns: list[str]) -> None:
    if list(answer) != columns:
        raise DataError(
            f"an answer has {', '.join(answer)} where the first has {', '.join(columns)}",
            "give all inputs an id or none, or --out x.jsonl",
        )


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _sink(suffix: str, file: IO[str], path: Path) -> Sink:
    if suffix == ".parquet":
        return Parquet(path)
    return Csv(file) if suffix == ".csv" else JsonLines(file)


@contextmanager
def open_sink(out: Path | None, stdout: IO[str]) -> Iterator[Sink]:
    """Where answers go: a file of which nothing is there until all of it is, or JSON lines on a stream.

    Raises:
        DataError: the file's suffix is no format, or it cannot be written.
    """
    if out is None:
        yield JsonLines(stdout)
        return
    if out.suffix not in FORMATS:
        raise DataError(f"--out '{out}' has a suffix that tells no format", f"give one of {', '.join(FORMATS)}")
    try:
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp")
    except OSError as error:
        raise DataError(f"--out '{out}' cannot be written ({error.strerror})", "give another path") from None
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            sink = _sink(out.suffix, file, temporary)
            yield sink
            sink.close()
            file.flush()
            os.fsync(handle)
        temporary.chmod(0o644)  # mkstemp makes files for their owner alone
        temporary.replace(out)
        sync_folder(out.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
