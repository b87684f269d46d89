"""Examples that are files of their own: folders of classes, columns of paths, and what they become."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Image, Value, concatenate_datasets
from datasets.fingerprint import generate_random_fingerprint

from setpoint.errors import DataError
from setpoint.recipe import DataRecipe
from setpoint.tasks.checks import is_file_content, shown

FILES = ("image", "audio")
"""The fields of ``data`` whose values may be files of their own."""
SUFFIXES = {
    "image": {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"},
    "audio": {".wav"},
}
"""How the names of files end, by the field of ``data`` whose column they are; in small letters."""


def class_folders(folder: Path, data: DataRecipe, split: str, field: str) -> list[dict[str, Any]]:
    """A row for each file of a folder that has a folder for each class: its path, its class and its id.

    The class is the name of the folder within ``folder`` that a file is in, however deep; the id is the path from
    ``folder`` on, its parts joined by ``/``. Rows are sorted by it, part by part. Files of other suffixes, in no class,
    or hidden (``.name``) are left out; so is what a symbolic link leads to: a folder, or a file outside ``folder``.

    Args:
        folder: the folder.
        data: names the columns.
        split: names the split in errors.
        field: ``image`` or ``audio``.

    Raises:
        DataError: a folder cannot be listed, or there is no such file.
    """

    def fails(error: OSError) -> None:
        raise DataError(f"data.{split} '{error.filename}' cannot be listed ({error.strerror})", "let it be read")

    home, names = os.path.realpath(folder), []
    for place, folders, files in os.walk(folder, onerror=fails):
        folders[:] = [name for name in folders if not name.startswith(".")]
        parts = Path(place).relative_to(folder).parts
        for name in files if parts else ():
            inside = os.path.realpath(os.path.join(place, name)).startswith(os.path.join(home, ""))
            if inside and not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES[field]:
                names.append((*parts, name))
    if not names:
        endings = ", ".join(sorted(SUFFIXES[field]))
        raise DataError(
            f"data.{split} '{folder}' has no folders with {field} files", f"give a folder a class ({endings})"
        )
    column = getattr(data, field)
    return [{"id": "/".join(p), column: folder.joinpath(*p), data.label: p[0]} for p in sorted(names)]


def file_contents(values: Sequence[Any], folder: Path, names: Sequence[str], split: str) -> list[Any]:
    """The values of a column with each path replaced by the content of its file, as ``{"bytes": …}``.

    Args:
        values: a string is a path, relative to ``folder``; a ``Path`` is one as it is; others are left alone.
        folder: where relative paths count from.
        names: of the examples, for errors.
        split: names the split in errors.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    contents = []
    for value, name in zip(values, names, strict=True):
        if not isinstance(value, str | Path):
            contents.append(value)
            continue
        listed = isinstance(value, Path)
        path = folder / value if isinstance(value, str) else value
        names_it = (
            f"'{path}' of data.{split}" if listed else f"example '{name}' of data.{split} names {shown(value)}, which"
        )
        try:
            if not path.is_file():
                mend = "remove it" if listed else f"give a path relative to {folder}"
                raise DataError(f"{names_it} is no file", mend)
            contents.append({"bytes": path.read_bytes()})
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{names_it} cannot be read ({reason})", "give another file") from None
    return contents


def to_dataset(
    values: Mapping[str, Sequence[Any]], columns: Mapping[str, str], names: Sequence[str], split: str
) -> Dataset:
    """Checked values as a data set, with the examples' names as ``id``; pictures are opened when a row is read.

    Args:
        values: by field of ``data``.
        columns: the name of each field's column.
        names: of the examples.
        split: names the split in errors.

    Raises:
        DataError: a column holds files in some examples and numbers in others.
    """
    files = {field for field in FILES if field in values and any(map(is_file_content, values[field]))}
    plain = {columns[field]: column for field, column in values.items() if field not in files}
    made = Dataset.from_dict(plain | {"id": names})
    for field in files:
        for value, name in zip(values[field], names, strict=True):
            if not is_file_content(value):
                raise DataError(
                    f"example '{name}' of data.{split} has {shown(value)} where others have a file",
                    "give files in all examples or in none",
                )
        # Arrow cuts a column of more than 2 GiB into chunks, which Dataset.from_dict would not take.
        cells = pa.array([{"bytes": value["bytes"], "path": None} for value in values[field]], type=_FILE)
        feature = Image() if field == "image" else {"bytes": Value("binary"), "path": Value("string")}
        info = DatasetInfo(features=Features({columns[field]: feature}))
        # A fingerprint is given since one that datasets made would need the column in one piece.
        column = Dataset(pa.table({columns[field]: cells}), info=info, fingerprint=generate_random_fingerprint())
        made = concatenate_datasets([made, column], axis=1)
    return made


_FILE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
