"""Examples from local files, hub data sets, the digits that scikit-learn ships, and drawn shapes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Audio, Dataset, DatasetDict, load_dataset, load_from_disk

from setpoint.errors import DataError, SetpointWarning
from setpoint.recipe import DataRecipe
from setpoint.recipe_data import SharesRecipe
from setpoint.tasks.checks import (
    check_answers,
    check_ids,
    check_shapes,
    check_values,
    is_file_content,
    missing_column,
    shown,
)
from setpoint.tasks.folders import FILES, file_contents, to_dataset
from setpoint.tasks.formats import SPLITS, Row, Split, column_names, read_file
from setpoint.tasks.selection import cut, limited, with_values
from setpoint.tasks.shapes import shapes


def read_splits(data: DataRecipe, fields: Sequence[str]) -> dict[Split, Dataset]:
    """The three splits, each with a string column ``id`` that is unique over all of them.

    Besides it they have the columns of the fields only, under the names that the recipe gives them and with their
    values checked, so that a column nobody asked for does no harm. Where the recipe names no validation split, every
    tenth training example is set aside for it. A file is first cut into splits, where ``data.split_by`` or
    ``data.shares`` say so (``selection.cut`` says which rows go where), then ``data.only`` picks rows, and
    ``data.limit`` takes some of these.

    An example's id is its split and its own id, or its place in the file, counted from 0. Names of classes, users and
    items become strings, ratings and times float64. Pictures and recordings in files of their own are read whole, as
    ``{"bytes": …, "path": None}``, so that what a target store belongs to depends on what they hold and not on where
    they lie; a column of images opens such a picture whenever it is read, and ``audio.recordings`` a recording.

    Args:
        data: where the examples are, and which column is which field.
        fields: the fields of ``data`` that name columns; one that is None there is left out.

    Raises:
        DataError: a file, split, line or value that cannot be read, or an empty split.
    """
    columns = column_names(data, fields)
    shares = data.cut
    read: list[Split] = ["train"]
    if shares is None and data.validation is not None:
        read.append("validation")
    if shares is None or shares.test == 0:
        read.append("test")
    if data.dataset is None and "test" in read and data.test is None:
        raise DataError("data.test is not given", "give it, or cut data.train by split_by or shares")
    sources: dict[Split, Dataset | list[Row]]
    if data.dataset == "digits":
        sources = dict(_digits())
    elif data.dataset == "shapes":
        sources = dict(shapes(data.image, data.objects))
    elif data.dataset is not None:
        sources = {split: _read_hub(data, split) for split in read}
    else:
        sources = {split: read_file(data, split, fields) for split in read}
    parts: dict[Split, Sequence[int]] = {split: range(len(source)) for split, source in sources.items()}
    if shares is not None:
        pieces = _cut(sources["train"], data.split_by, shares)
        sources, parts = sources | dict.fromkeys(pieces, sources["train"]), parts | pieces
    splits = {split: _checked(sources[split], rows, columns, split, data) for split, rows in parts.items()}
    if "validation" not in splits:
        train = splits["train"]
        if len(train) < 10:
            raise DataError(
                "data.validation is not given and data.train has too few examples to set a tenth aside",
                "give data.validation or at least 10 training examples",
            )
        held_out = limited(range(9, len(train), 10), data.limit, "validation")
        kept = [i for i in range(len(train)) if i % 10 != 9]
        splits |= {"train": train.select(kept), "validation": train.select(held_out)}
        _warn_of_turns(splits, data.label)
    return splits


def _warn_of_turns(splits: Mapping[Split, Dataset], label: str) -> None:
    """Say so where examples come class by class in turn, so that every tenth is of the same few classes."""
    if label not in splits["train"].column_names or isinstance(splits["train"][0][label], list | dict):
        return
    train, held_out = (splits[split][label][:] for split in ("train", "validation"))
    classes, seen = len({*train, *held_out}), len(set(held_out))
    if classes > 1 and 2 * seen <= classes and len(held_out) >= 3 * classes:
        warnings.warn(
            f"every tenth training example, which is set aside for validation, is of {seen} of {classes} classes: set"
            " data.shares to {train: 0.9, validation: 0.1}, which sets the last tenth aside, or give data.validation",
            SetpointWarning,
            stacklevel=4,
        )


def read_split(data: DataRecipe, split: Split, fields: Sequence[str]) -> Dataset:
    """One split as ``read_splits`` has them, whole: for a task that makes the others out of it itself.

    Raises:
        DataError: as ``read_splits``.
    """
    columns = column_names(data, fields)
    source = read_file(data, split, fields) if data.dataset is None else _read_hub(data, split)
    return _checked(source, range(len(source)), columns, split, data)


def _cut(source: Dataset | list[Row], by: str | None, shares: SharesRecipe) -> dict[Split, Sequence[int]]:
    """The rows of each split that the training split is cut into."""
    _refuse_empty(source, "train")
    values: Sequence[Any] = range(len(source))
    if by is not None:
        values = _column(source, by, "train", "split_by")
        check_values(values, (f"train-{i}" for i in range(len(source))), "split_by", by, "train")
    return cut(values, shares)


def _selected(source: Dataset | list[Row], rows: Sequence[int], split: Split, data: DataRecipe) -> Sequence[int]:
    """The rows that ``data.only`` and ``data.limit`` leave of a split."""
    for name, wanted in (getattr(data.only, split, None) or {}).items():
        rows = with_values(_column(source, name, split, f"only.{split}"), wanted, rows)
        if not rows:
            raise DataError(
                f"data.only.{split} leaves no example, as none has {shown(list(wanted))} in column '{name}'",
                "give values that are there",
            )
    kept = limited(rows, data.limit, split)
    if split == "train" and data.limit is not None and not data.limit.spread:
        _warn_of_sorted(source, rows, len(kept), data)
    return kept


def _warn_of_sorted(source: Dataset | list[Row], rows: Sequence[int], count: int, data: DataRecipe) -> None:
    """Say so where a file is sorted by class, and its first examples are of few classes."""
    name = next((name for name in (data.label, data.categories) if name in _names(source)), None)
    if name is None or count == len(rows):
        return
    every = [str(value) for value in _values(source, name)]
    classes, seen = len({every[row] for row in rows}), len({every[row] for row in rows[:count]})
    if 2 * seen <= classes and count >= 3 * classes:
        warnings.warn(
            f"data.limit keeps the first {count} training examples, which are of {seen} of {classes} classes: set"
            " data.limit.spread to true",
            SetpointWarning,
            stacklevel=6,
        )


def _refuse_empty(source: Dataset | list[Row], split: Split) -> None:
    if len(source) == 0:
        raise DataError(f"data.{split} has no examples", "give a split with some")


def _checked(
    source: Dataset | list[Row], rows: Sequence[int], columns: dict[str, str], split: Split, data: DataRecipe
) -> Dataset:
    """The rows and columns that are asked for, and ids."""
    _refuse_empty(source, split)
    rows = _selected(source, rows, split, data)
    source = source.with_format(None).select(rows) if isinstance(source, Dataset) else [source[i] for i in rows]
    there = _names(source)
    for field, name in columns.items():
        if name not in there:
            raise missing_column(split, name, there, field)
    ids = [f"{split}-{i}" for i in rows]
    if "id" in there:
        own = _values(source, "id")
        check_values(own, ids, "id", "id", split)
        ids = [f"{split}-{name}" for name in own]
        check_ids(ids, split)
    made = _of_dataset if isinstance(source, Dataset) else _of_rows
    return made(source, columns, ids, split, data)


def _of_dataset(source: Dataset, columns: dict[str, str], ids: list[str], split: Split, data: DataRecipe) -> Dataset:
    """The columns of a data set, as it has them, but for those that have to be of one type."""
    kept = source.select_columns([name for name in dict.fromkeys(columns.values()) if name != "id"])
    values = {}
    for field, name in columns.items():
        if field in FILES:  # Arrow has checked that they are of numbers; they are read when they are encoded
            if isinstance(source.features[name], Audio):
                kept = kept.cast_column(name, Audio(decode=False))
            continue
        values[field] = _values(source, name)
        check_values(values[field], ids, field, name, split)
        if field in _ALIKE and name != "id":
            kept = kept.remove_columns(name).add_column(name, _plain(values[field], field))
    _check_together(values, ids, split)
    return kept.add_column("id", ids)


def _of_rows(rows: list[Row], columns: dict[str, str], ids: list[str], split: Split, data: DataRecipe) -> Dataset:
    """The columns of a file's rows."""
    path = Path(getattr(data, split) or str(data.train))  # a split without a file is cut out of train
    values = {field: _values(rows, name) for field, name in columns.items()}
    for field, name in columns.items():
        if field in FILES:
            values[field] = file_contents(values[field], path.parent, ids, split)
        check_values(values[field], ids, field, name, split)
    _check_together(values, ids, split)
    if "image" in values and not any(map(is_file_content, values["image"])):
        check_shapes([np.shape(value) for value in values["image"]], ids)
    return to_dataset({field: _plain(column, field) for field, column in values.items()}, columns, ids, split)


def _names(source: Dataset | list[Row]) -> list[str]:
    return source.column_names if isinstance(source, Dataset) else list(dict.fromkeys(n for row in source for n in row))


def _values(source: Dataset | list[Row], name: str) -> list[Any]:
    return list(source[name]) if isinstance(source, Dataset) else [row.get(name) for row in source]


def _column(source: Dataset | list[Row], name: str, split: Split, field: str) -> list[Any]:
    """A column that picks rows."""
    there = _names(source)
    if name not in there:
        raise missing_column(split, name, there, field)
    return _values(source, name)


_ALIKE = ("speaker", "user", "item", "rating", "time")


def _check_together(values: Mapping[str, list[Any]], ids: Sequence[str], split: Split) -> None:
    if {"context", "answers"} <= values.keys():
        check_answers(values["context"], values["answers"], ids, split)


def _plain(values: list[Any], field: str) -> list[Any]:
    """Checked values of a file as one type, which a table's column has to be of: names of any kind become strings."""
    if field == "tags":
        return [[str(name) for name in value] for value in values]
    if field == "categories":
        return [value if isinstance(value, str) else [str(name) for name in value] for value in values]
    if field in ("rating", "time", "score"):
        return [float(value) for value in values]
    if field == "objects":
        return [
            {"bbox": [list(map(float, b)) for b in v["bbox"]], "category": list(map(str, v["category"]))}
            for v in values
        ]
    if field == "answers":
        return [{name: value[name] for name in ("text", "answer_start")} for value in values]
    names = field in ("label", "speaker", "user", "item") or field.startswith("attributes.")
    return [str(value) for value in values] if names else values


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
