"""Examples from local files, hub data sets, and the digits that scikit-learn ships."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

from setpoint.errors import DataError
from setpoint.recipe import DataRecipe
from setpoint.tasks.checks import check_ids, check_shapes, check_values

Split = Literal["train", "validation", "test"]
Row = dict[str, Any]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
UNREADABLE = (OSError, EOFError, zlib.error, UnicodeDecodeError)
"""What ``read_text`` raises."""
_SUFFIXES = {
    ".conll": "conll", ".txt": "conll", ".iob": "conll", ".iob2": "conll", ".bio": "conll",
    ".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet",
}  # fmt: skip


def read_splits(data: DataRecipe, fields: Sequence[str]) -> dict[Split, Dataset]:
    """The three splits, each with a string column ``id`` that is unique over all of them.

    Besides it they have the columns of the fields only, under the names that the recipe gives them and with their
    values checked, so that a column nobody asked for does no harm. Where the recipe names no validation split, every
    tenth training example is set aside for it.

    Args:
        data: where the examples are, and which column is which field.
        fields: the fields of ``data`` that name columns; one that is None there is left out.

    Raises:
        DataError: a file, split, line or value that cannot be read, or an empty split.
    """
    columns = {field: getattr(data, field) for field in fields if getattr(data, field) is not None}
    sources: dict[Split, Dataset | list[Row]]
    if data.dataset == "digits":
        sources = dict(_digits())
    elif data.dataset is not None:
        sources = {split: _read_hub(data, split) for split in SPLITS if split != "validation" or data.validation}
    else:
        sources = {split: read_file(data, split) for split in SPLITS if getattr(data, split) is not None}
    splits = {split: _checked(source, columns, split, data.limit) for split, source in sources.items()}
    if "validation" not in splits:
        train = splits["train"]
        if len(train) < 10:
            raise DataError(
                "data.validation is not given and data.train has too few examples to set a tenth aside",
                "give data.validation or at least 10 training examples",
            )
        held_out = list(range(9, len(train), 10))
        kept = [i for i in range(len(train)) if i % 10 != 9]
        splits |= {"train": train.select(kept), "validation": train.select(held_out)}
    return splits


def read_text(path: Path) -> str:
    """A UTF-8 file, unpacked where its name ends with ``.gz``. Raises one of ``UNREADABLE``."""
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")


def split_lines(text: str) -> list[str]:
    r"""Lines as files have them; ``str.splitlines`` cuts at U+2028, U+0085 and more, which may be part of a text.

    Examples:
        >>> split_lines("a\r\nb\x85c\rd")
        ['a', 'b\x85c', 'd']
    """
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _checked(source: Dataset | list[Row], columns: dict[str, str], split: Split, limit: int | None) -> Dataset:
    """The columns that are asked for, and ids."""
    count = len(source) if limit is None else min(limit, len(source))
    if count == 0:
        raise DataError(f"data.{split} has no examples", "give a split with some")
    if isinstance(source, Dataset):
        source, there = source.with_format(None).select(range(count)), source.column_names
    else:
        source, there = source[:count], list(dict.fromkeys(name for row in source for name in row))
    for field, name in columns.items():
        if name not in there:
            others = ", ".join(other for other in there if other != "id")
            raise DataError(f"data.{split} has no column '{name}', only {others}", f"set data.{field}")
    ids = [f"{split}-{i}" for i in range(count)]
    if "id" in there:
        own = _values(source, "id")
        check_values(own, ids, "id", "id", split)
        ids = [f"{split}-{name}" for name in own]
        check_ids(ids, split)
    for field, name in columns.items():
        # Arrow has checked that images are of numbers; they are read when they are encoded.
        if field != "image" or not isinstance(source, Dataset):
            check_values(_values(source, name), ids, field, name, split)
    if isinstance(source, Dataset):
        kept = source.select_columns([name for name in dict.fromkeys(columns.values()) if name != "id"])
        return kept.add_column("id", ids)
    made = {name: _plain(_values(source, name), field, ids) for field, name in columns.items()}
    return Dataset.from_dict(made | {"id": ids})


def _values(source: Dataset | list[Row], name: str) -> list[Any]:
    return list(source[name]) if isinstance(source, Dataset) else [row.get(name) for row in source]


def _plain(values: list[Any], field: str, ids: list[str]) -> list[Any]:
    """Checked values of a file as one type, which a table's column has to be of: names of any kind become strings."""
    if field == "image":
        check_shapes([np.shape(value) for value in values], ids)
    if field == "tags":
        return [[str(name) for name in value] for value in values]
    if field == "categories":
        return [value if isinstance(value, str) else [str(name) for name in value] for value in values]
    return [str(value) for value in values] if field == "label" else values


def _read_hub(data: DataRecipe, split: Split) -> Dataset:
    name = getattr(data, split) or split
    assert data.dataset is not None
    try:
        if Path(data.dataset).is_dir() and (Path(data.dataset) / "dataset_dict.json").exists():
            saved = load_from_disk(data.dataset)
            assert isinstance(saved, DatasetDict)
            return saved[name]
        return load_dataset(data.dataset, data.config, split=name)
    except KeyError:
        raise DataError(f"data.dataset '{data.dataset}' has no split '{name}'", f"set data.{split}") from None
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"data.dataset '{data.dataset}' cannot be loaded, split '{name}' ({reason})",
            "give a hub id, a folder that datasets wrote, or local files",
        ) from None


def read_file(data: DataRecipe, split: Split) -> Dataset | list[Row]:
    """The rows of a file that the recipe names for a split, as they are.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    path = Path(getattr(data, split))
    if not path.is_file():
        raise DataError(f"data.{split} '{path}' does not exist", "give the path of a readable file")
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    kind = data.format or _SUFFIXES.get(plain.suffix)
    if kind is None:
        raise DataError(f"data.{split} '{path}' has a suffix that tells no format", "set data.format")
    if kind == "parquet":
        try:
            return Dataset.from_parquet(str(path))
        except Exception:
            raise DataError(f"data.{split} '{path}' is not Parquet", "give another file, or set data.format") from None
    try:
        text = read_text(path)
    except UNREADABLE as error:
        raise DataError(f"data.{split} '{path}' cannot be read ({error})", "give a UTF-8 file") from None
    return list({"conll": _conll, "jsonl": _jsonl, "csv": _csv}[kind](text, path, data))


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
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = (cells for cells in reader if cells)
    limit = csv.field_size_limit(2**31 - 1)  # a long text is no mistake
    try:
        header = next(rows, [])
        for cells in rows:
            if len(cells) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num} has {len(cells)} fields where the header has {len(header)}",
                    "give every line a field for each column",
                )
            yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num} is not CSV ({error})", "mend its quotes") from None
    finally:
        csv.field_size_limit(limit)


def _digits() -> dict[Split, Dataset]:
    """scikit-learn's 1797 digits of 8x8, split once and for all: 60 % train, 15 % validation, 25 % test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images, labels = (digits.images / 16.0).astype(np.float32), digits.target
    rest, test = train_test_split(np.arange(len(labels)), test_size=0.25, random_state=0, stratify=labels)
    train, validation = train_test_split(rest, test_size=0.2, random_state=0, stratify=labels[rest])
    return {
        split: Dataset.from_dict({"image": images[np.sort(chosen)], "label": [str(i) for i in labels[np.sort(chosen)]]})
        for split, chosen in zip(SPLITS, (train, validation, test), strict=True)
    }
