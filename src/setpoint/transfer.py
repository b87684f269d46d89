"""Unlabelled examples: read from files, or training examples whose labels are not used; the teacher labels them."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from setpoint.errors import DataError, RecipeError
from setpoint.maths.tempering import temper
from setpoint.recipe import DataRecipe
from setpoint.recipe_data import OnlyRecipe, TransferRecipe
from setpoint.tasks.base import Splits, Task
from setpoint.tasks.formats import read_file
from setpoint.tasks.packed import UNREADABLE
from setpoint.tasks.selection import with_values

WORDS = re.compile(r"\w+|[^\w\s]")


def read_transfer(data: DataRecipe, task: Task, count: int) -> list[Any]:
    """The inputs of ``data.transfer``, checked, in the order of the files; those without content are left out.

    Args:
        data: the recipe's section.
        task: what reads an input.
        count: training examples, which ``ratio`` refers to.

    Raises:
        DataError: a file or an input that is none of this task.
    """
    recipe = data.transfer
    if recipe is None:
        return []
    columns = task.input_columns()
    if len(columns) > 1 and (recipe.column is not None or recipe.several):
        raise DataError(
            f"data.transfer.column is given for inputs of {' and '.join(columns.values())}",
            "remove it, and give the columns of the recipe",
        )
    found = []
    for file in recipe.files:
        for value, where in _values(data, recipe, columns, Path(file)):
            if recipe.punctuation and isinstance(value, str) and "tokens" in columns:
                value = WORDS.findall(value)
            if _has_content(value):
                found.append(task.read_input(value, where))
    if not found:
        raise DataError("data.transfer has no examples", "give files with some")
    most = len(found) if recipe.ratio is None else max(round(recipe.ratio * count), 1)
    if most >= len(found):
        return found
    return [found[i] for i in np.linspace(0, len(found) - 1, most).round().astype(int)]


def _values(data: DataRecipe, recipe: TransferRecipe, columns: dict[str, str], file: Path) -> Iterator[tuple[Any, str]]:
    """Each input of a file, and its name in errors."""
    wanted = dict.fromkeys(("dataset", "format", "split_by", "shares", "validation"))
    wanted |= {"train": str(file), "only": None if recipe.only is None else OnlyRecipe(train=recipe.only)}
    names = (recipe.column,) if isinstance(recipe.column, str) else recipe.column
    if names is not None:
        (field,) = columns
        wanted[field] = names[0]
    try:
        rows = read_file(data.model_copy(update=wanted), "train", {field.partition(".")[0] for field in columns})
    except DataError as error:
        raise DataError(error.problem.replace("data.train", "data.transfer.files"), error.mend) from None
    except UNREADABLE as error:
        raise DataError(f"data.transfer.files '{file}' cannot be read ({error})", "give another file") from None
    numbers: Sequence[int] = range(len(rows))
    for name, values in (recipe.only or {}).items():
        given = rows[name] if isinstance(rows, Dataset) and name in rows.column_names else None
        numbers = with_values(given or [row.get(name) for row in rows], values, numbers)
    for number in numbers:
        row = rows[number]
        where = f"example {number} of data.transfer '{file.name}'"
        asked = columns.values() if names is None else [next((name for name in names if name in row), names[0])]
        missing = [name for name in asked if name not in row]
        if missing:
            raise DataError(f"{where} has no column '{missing[0]}'", "set data.transfer.column")
        value: Any = [row[name] for name in asked]
        if len(columns) > 1:
            yield value, where
        elif not recipe.several or isinstance(value[0], str):
            yield value[0], where
        elif isinstance(value[0], list):
            for one in value[0]:
                yield one, where
        else:
            raise DataError(f"{where} has no list in column '{next(iter(asked))}'", "remove several")


def _has_content(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return not isinstance(value, list | tuple) or any(_has_content(part) for part in value)


def without_labels(data: DataRecipe, splits: Splits) -> frozenset[str]:
    """The ids of training examples whose labels ``data.shots`` does not use.

    Raises:
        RecipeError: examples have more than a class each.

    Examples:
        >>> from datasets import Dataset
        >>> train = Dataset.from_dict({"id": ["a", "b", "c"], "label": [0, 0, 1]})
        >>> without_labels(DataRecipe(dataset="x", shots=1), Splits(train, train, train, ("no", "yes")))
        frozenset({'b'})
    """
    if data.shots is None:
        return frozenset()
    labels = splits.train["label"][:] if "label" in splits.train.column_names else [None]
    if not all(isinstance(label, int) for label in labels):
        raise RecipeError("recipe field 'data.shots' is given for examples that are of more than a class", "remove it")
    seen: Counter[int] = Counter()
    unused = set()
    for name, label in zip(splits.train["id"], labels, strict=True):
        seen[label] += 1
        if seen[label] > data.shots:
            unused.add(name)
    return frozenset(unused)


def confident(logits: Sequence[np.ndarray], least: float) -> list[int]:
    """Which examples the teacher is sure of: where the top class's probability at T = 1, mean over rows, is no lower.

    Args:
        logits: ``[rows, C]`` of each example.
        least: the lowest probability.

    Examples:
        >>> confident([np.array([[9.0, 0.0]]), np.array([[0.1, 0.0]]), np.empty((0, 2))], 0.9)
        [0]
    """
    sure = (float(temper(torch.from_numpy(rows), 1.0).amax(-1).mean()) if len(rows) else 0.0 for rows in logits)
    return [i for i, share in enumerate(sure) if share >= least]


def digest_inputs(inputs: Sequence[Any]) -> str:
    """A digest of checked inputs: their content, whatever files they lay in."""
    digest = hashlib.sha256()
    for value in inputs:
        if isinstance(value, Tensor | np.ndarray):
            array = np.asarray(value)
            digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
        else:
            digest.update(json.dumps(value, default=lambda array: np.asarray(array).tolist()).encode())
    return digest.hexdigest()
