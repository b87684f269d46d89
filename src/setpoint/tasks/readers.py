"""Examples from local files, hub data sets, and the digits that scikit-learn ships."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

from setpoint.errors import DataError
from setpoint.recipe import DataRecipe

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_SUFFIXES = {
    ".conll": "conll", ".txt": "conll", ".iob": "conll", ".iob2": "conll", ".bio": "conll",
    ".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet",
}  # fmt: skip


def read_splits(data: DataRecipe) -> dict[Split, Dataset]:
    """The three splits as they are, each with a string column ``id`` that is unique over all of them.

    Where the recipe names no validation split, every tenth training example is set aside for it.

    Raises:
        DataError: a file, split or line that cannot be read, or an empty split.
    """
    if data.dataset == "digits":
        splits = _digits()
    elif data.dataset is not None:
        splits = {split: _read_hub(data, split) for split in SPLITS if split != "validation" or data.validation}
    else:
        splits = {split: _read_file(data, split) for split in SPLITS if getattr(data, split) is not None}
    splits = {split: _with_ids(dataset, split, data.limit) for split, dataset in splits.items()}
    if "validation" not in splits:
        train = splits["train"]
        held_out = list(range(9, len(train), 10))
        kept = [i for i in range(len(train)) if i % 10 != 9]
        splits |= {"train": train.select(kept), "validation": train.select(held_out)}
    for split, dataset in splits.items():
        if len(dataset) == 0:
            raise DataError(f"data.{split} has no examples", "give a split with some")
    return splits


def column(dataset: Dataset, name: str, field: str, split: str) -> list[Any]:
    """A column by name.

    Raises:
        DataError: there is none of that name.
    """
    if name not in dataset.column_names:
        there = ", ".join(c for c in dataset.column_names if c != "id")
        raise DataError(f"data.{split} has no column '{name}', only {there}", f"set data.{field}")
    return list(dataset[name])


def _with_ids(dataset: Dataset, split: str, limit: int | None) -> Dataset:
    if limit is not None:
        dataset = dataset.select(range(min(limit, len(dataset))))
    own = (
        [str(name) for name in dataset["id"]] if "id" in dataset.column_names else [str(i) for i in range(len(dataset))]
    )
    if "id" in dataset.column_names:
        dataset = dataset.remove_columns("id")
    return dataset.add_column("id", [f"{split}-{name}" for name in own])


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


def _read_file(data: DataRecipe, split: Split) -> Dataset:
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
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"data.{split} '{path}' cannot be read ({error})", "give a UTF-8 file") from None
    rows = {"conll": _conll, "jsonl": _jsonl, "csv": _csv}[kind](text, path, data)
    return Dataset.from_list(list(rows))


def _conll(text: str, path: Path, data: DataRecipe) -> Iterator[dict[str, Any]]:
    """Sentences of CoNLL columns: the token first, the tag last, a blank line between sentences."""
    tokens: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        columns = line.split()
        if not columns or columns[0] == "-DOCSTART-":
            if tokens:
                yield {data.tokens: tokens, data.tags: tags}
            tokens, tags = [], []
        elif len(columns) < 2:
            raise DataError(f"{path}, line {number}: token '{columns[0]}' has no tag", "write token and tag in columns")
        else:
            tokens.append(columns[0])
            tags.append(columns[-1])


def _jsonl(text: str, path: Path, data: DataRecipe) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number} is not a JSON object", "write one object a line")
        yield row


def _csv(text: str, path: Path, data: DataRecipe) -> Iterator[dict[str, Any]]:
    yield from csv.DictReader(io.StringIO(text))


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
