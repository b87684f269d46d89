"""The rows of local files, each format read as it is written; what the columns hold is checked by ``readers``."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from setpoint.errors import DataError
from setpoint.recipe import DataRecipe
from setpoint.tasks.arrays import read_idx, read_npz
from setpoint.tasks.folders import class_folders
from setpoint.tasks.packed import UNREADABLE, plain_name, read_text, split_lines

Split = Literal["train", "validation", "test"]
Row = dict[str, Any]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_SUFFIXES = {
    ".conll": "conll", ".txt": "conll", ".iob": "conll", ".iob2": "conll", ".bio": "conll",
    ".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv", ".data": "tsv", ".parquet": "parquet",
    ".npz": "npz",
}  # fmt: skip


def read_file(data: DataRecipe, split: Split, fields: Collection[str]) -> Dataset | list[Row]:
    """The rows of a file or folder that the recipe names for a split, as they are.

    Args:
        data: where the file is, and which column is which field.
        split: which of its files.
        fields: the fields of ``data`` that are asked for. They decide what a name leaves open: ``.txt`` is CoNLL
            columns where tokens are asked for, else a text a line; ``.json`` is SQuAD's layout where answers are, else
            JSONL; a folder is read where images or audio are. Of an npz archive only what is asked for is read.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    path = Path(getattr(data, split))
    if path.is_dir() and data.format is None and not {"image", "audio"}.isdisjoint(fields):
        return class_folders(path, data, split, "image" if "image" in fields else "audio")
    if not path.is_file():
        raise DataError(f"data.{split} '{path}' does not exist", "give the path of a readable file")
    kind = data.format or _kind(path, fields)
    if kind is None:
        raise DataError(f"data.{split} '{path}' has a suffix that tells no format", "set data.format")
    if kind == "parquet":
        try:
            return Dataset.from_parquet(str(path))
        except Exception:
            raise DataError(f"data.{split} '{path}' is not Parquet", "give another file, or set data.format") from None
    if kind == "npz":
        return read_npz(path, _wanted(data, split, fields), split)
    if kind == "idx":
        return read_idx(path, data, split)
    try:
        text = read_text(path)
    except UNREADABLE as error:
        raise DataError(f"data.{split} '{path}' cannot be read ({error})", "give a UTF-8 file") from None
    formats = {"conll": _conll, "jsonl": _jsonl, "csv": _csv, "tsv": _tsv, "text": _text, "squad": _squad}
    return list(formats[kind](text, path, data))


def column_names(data: DataRecipe, fields: Collection[str]) -> dict[str, str]:
    """The column of each field that has one; of a field of several columns, each as ``field.column``.

    Examples:
        >>> column_names(DataRecipe(dataset="x", attributes=("age",)), ("user", "time", "attributes"))
        {'user': 'user', 'attributes.age': 'age'}
    """
    found: dict[str, str | None] = {}
    for field in fields:
        named = getattr(data, field)
        found |= {f"{field}.{name}": name for name in named} if isinstance(named, tuple) else {field: named}
    return {field: name for field, name in found.items() if name is not None}


def _wanted(data: DataRecipe, split: Split, fields: Collection[str]) -> dict[str, str]:
    """The columns that are read, by what asks for each."""
    columns = column_names(data, fields)
    if data.split_by is not None:
        columns["split_by"] = data.split_by
    parts = (split,) if data.cut is None else SPLITS
    only = [name for part in parts for name in (getattr(data.only, part, None) or {})]
    return columns | {f"only.{name}": name for name in only}


def _kind(path: Path, fields: Collection[str]) -> str | None:
    name = plain_name(path)
    if name.endswith("-ubyte"):  # t10k-images-idx3-ubyte
        return "idx"
    suffix = Path(name).suffix
    if suffix == ".txt" and "text" in fields and "tokens" not in fields:
        return "text"
    if suffix == ".json" and "answers" in fields:
        return "squad"
    return _SUFFIXES.get(suffix)


def _conll(text: str, path: Path, data: DataRecipe) -> Iterator[Row]:
    """Sentences of CoNLL columns: the token first, the tag last, a blank line between sentences."""
    tokens: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*split_lines(text), ""], start=1):
        columns = re.split(r"[ \t]+", line.strip(" \t"))  # other kinds of space may be part of a token
        if columns[0] in ("", "-DOCSTART-"):
            if tokens:
                yield {data.tokens: tokens, data.tags: tags}
            tokens, tags = [], []
        elif len(columns) < 2:
            raise DataError(f"{path}, line {number}: token '{columns[0]}' has no tag", "write token and tag in columns")
        else:
            tokens.append(columns[0])
            tags.append(columns[-1])


def _jsonl(text: str, path: Path, data: DataRecipe) -> Iterator[Row]:
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        except RecursionError:
            raise DataError(f"{path}, line {number} is nested too deep", "write plain fields") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number} is not a JSON object", "write one object a line")
        yield row


def _csv(text: str, path: Path, data: DataRecipe) -> Iterator[Row]:
    return _table(text, path, data, strict=True)


def _tsv(text: str, path: Path, data: DataRecipe) -> Iterator[Row]:
    """Columns between tabs; a quote is a letter like any other."""
    return _table(text, path, data, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)


def _table(text: str, path: Path, data: DataRecipe, **dialect: Any) -> Iterator[Row]:
    """The lines of a table under the names of its header, or those of ``data.columns``, where it has none."""
    reader = csv.reader(io.StringIO(text, newline=""), **dialect)
    rows = (cells for cells in reader if cells)
    limit = csv.field_size_limit(2**31 - 1)  # a long text is no mistake
    try:
        header = next(rows, []) if data.columns is None else data.columns
        for cells in rows:
            if len(cells) != len(header):
                named = "the header" if data.columns is None else "data.columns"
                raise DataError(
                    f"{path}, line {reader.line_num} has {len(cells)} fields where {named} has {len(header)}",
                    "give every line a field for each column",
                )
            yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num} is not CSV ({error})", "mend its quotes") from None
    finally:
        csv.field_size_limit(limit)


def _text(text: str, path: Path, data: DataRecipe) -> Iterator[Row]:
    """A row for each line, blank ones too, so that the rows joined by line ends are the file."""
    lines = split_lines(text)
    for line in lines[:-1] if lines[-1] == "" else lines:
        yield {data.text: line}


def _squad(text: str, path: Path, data: DataRecipe) -> Iterator[Row]:
    """The questions of SQuAD's JSON in their order, with the title of the article and the paragraph as context.

    Source: Rajpurkar et al. 2016, arXiv:1606.05250; the layout is that of the files published with it. A question
    without ``answers`` has none in its row.
    """
    place = "data"
    try:
        for a, article in enumerate(json.loads(text)["data"]):
            place = f"data[{a}]"
            for p, paragraph in enumerate(article["paragraphs"]):
                place = f"data[{a}].paragraphs[{p}]"
                context, title = paragraph["context"], article.get("title", "")
                for q, asked in enumerate(paragraph["qas"]):
                    place = f"data[{a}].paragraphs[{p}].qas[{q}]"
                    row = {"id": asked["id"], "title": title, data.context: context, data.question: asked["question"]}
                    if "answers" in asked:
                        given = asked["answers"]
                        row[data.answers] = {
                            "text": [answer["text"] for answer in given],
                            "answer_start": [answer["answer_start"] for answer in given],
                        }
                    yield row
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(
            f"{path} has not the layout of SQuAD's JSON, at {place}",
            "give data[].paragraphs[].qas[] with context, id, question and answers, or set data.format",
        ) from None
