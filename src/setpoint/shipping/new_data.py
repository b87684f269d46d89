"""New examples of a run's task, labelled or not, under ids that their content makes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from setpoint.errors import DataError
from setpoint.job import Job
from setpoint.recipe import DataRecipe
from setpoint.tasks.checks import check_values, is_file_content
from setpoint.tasks.folders import FILES, file_contents, to_dataset
from setpoint.tasks.formats import read_file
from setpoint.tasks.labels import as_names, feature_names, to_ids

INPUTS = {
    "token-classification": ("tokens",),
    "text-classification": ("text", "text_pair"),
    "image-classification": ("image",),
}
"""The fields of a recipe's ``data`` that name what goes in, by task."""


@dataclass(frozen=True)
class NewData:
    """New examples, as the task has them.

    Attributes:
        examples: with ``id``, inputs and ``label``; of an unlabelled one the label only says how many rows there are.
        unlabelled: the ids of those.
    """

    examples: Dataset
    unlabelled: frozenset[str]

    def part(self, wanted: Callable[[str], bool]) -> NewData:
        """The examples whose id is wanted."""
        kept = [i for i, name in enumerate(self.examples["id"]) if wanted(name)]
        return NewData(self.examples.select(kept), self.unlabelled)

    def __len__(self) -> int:
        return len(self.examples)


def read_new(job: Job, path: str | Path) -> NewData:
    """Read new examples from a file of the formats a recipe knows.

    The columns are those of the run's recipe. The label may be missing: in all examples, or null in some. An example's
    id is made of its inputs, so that it is the same one wherever it stands in whichever file.

    Raises:
        DataError: the file cannot be read, has no examples, or a value that its column cannot have.
    """
    data = job.recipe.data
    wanted = data.model_copy(update={"dataset": None, "train": str(path), "format": None})
    try:
        rows = read_file(wanted, "train", INPUTS[job.recipe.task])
    except DataError as error:
        raise DataError(error.problem.replace("data.train", "--data"), error.mend) from None
    columns = {field: getattr(data, field) for field in INPUTS[job.recipe.task] if getattr(data, field) is not None}
    if len(rows) == 0:
        raise DataError(f"--data '{path}' has no examples", "give a file with some")
    values = {field: _column(rows, name) for field, name in columns.items()}
    places = [f"number {i}" for i in range(len(rows))]
    for field, name in columns.items():
        if field in FILES:
            values[field] = file_contents(values[field], Path(path).parent, places, "refresh")
        check_values(values[field], places, field, name, "refresh")
    ids = _ids(values)
    labels, unlabelled = _labels(job, data, rows, values, places)
    return NewData(
        to_dataset({**values, "label": labels}, {field: field for field in (*values, "label")}, ids, "refresh"),
        frozenset(name for name, none in zip(ids, unlabelled, strict=True) if none),
    )


def _column(rows: Dataset | list[dict[str, Any]], name: str) -> list[Any]:
    if isinstance(rows, Dataset):
        return list(rows[name]) if name in rows.column_names else [None] * len(rows)
    return [row.get(name) for row in rows]


def _ids(values: dict[str, list[Any]]) -> list[str]:
    """A name for each example by its inputs; one that is there twice is numbered."""
    seen: Counter[str] = Counter()
    ids = []
    for one in zip(*values.values(), strict=True):
        content = [_content(value) for value in one]
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]
        ids.append(f"new-{digest}-{seen[digest]}")
        seen[digest] += 1
    return ids


def _content(value: Any) -> Any:
    """An input as JSON has it; of a file, its checksum."""
    if is_file_content(value):
        return {"sha256": hashlib.sha256(value["bytes"]).hexdigest()}
    return value if isinstance(value, str | list) else np.asarray(value).tolist()


def _labels(
    job: Job,
    data: DataRecipe,
    rows: Dataset | list[dict[str, Any]],
    values: dict[str, list[Any]],
    places: Sequence[str],
) -> tuple[list[Any], list[bool]]:
    """The class ids of each example, and which have none."""
    tags = job.recipe.task == "token-classification"
    field = "tags" if tags else "label"
    column = getattr(data, field)
    given = _column(rows, column)
    there = [i for i, value in enumerate(given) if value is not None]
    check_values([given[i] for i in there], [places[i] for i in there], field, column, "refresh")
    names = feature_names(rows, column) if isinstance(rows, Dataset) and column in rows.column_names else None
    if not tags:
        known = to_ids(as_names((given[i] for i in there), names), job.splits.labels, "refresh")
        by_place = dict(zip(there, known, strict=True))
        return [by_place.get(i, 0) for i in range(len(given))], [value is None for value in given]
    labels: list[Any] = []
    for place, tokens, one in zip(places, values["tokens"], given, strict=True):
        if one is not None and len(one) != len(tokens):
            raise DataError(
                f"example '{place}' of --data has {len(tokens)} tokens but {len(one)} tags", "give one tag a token"
            )
        labels.append([0] * len(tokens) if one is None else to_ids(as_names(one, names), job.splits.labels, "refresh"))
    return labels, [value is None for value in given]
