"""Class names and ids: from the recipe, from the data set's own features, or from the training labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from datasets import ClassLabel, Dataset

from setpoint.errors import DataError
from setpoint.tasks.checks import shown


def feature_names(dataset: Dataset, column: str) -> tuple[str, ...] | None:
    """The names a hub data set keeps with its integer labels, where it does."""
    feature = dataset.features[column]
    feature = getattr(feature, "feature", feature)
    return tuple(feature.names) if isinstance(feature, ClassLabel) else None


def as_names(values: Iterable[Any], names: Sequence[str] | None) -> list[str]:
    """Labels as strings; integers are looked up where the data set has names for them."""
    return [
        names[value] if names is not None and isinstance(value, int) and 0 <= value < len(names) else str(value)
        for value in values
    ]


def class_names(listed: Sequence[str] | None, kept: Sequence[str] | None, found: Iterable[str]) -> tuple[str, ...]:
    """The classes in order.

    Args:
        listed: ``data.labels``.
        kept: the names that the data set keeps.
        found: the labels of the training examples, for where there is neither.

    Raises:
        DataError: there are fewer than two.
    """
    labels = tuple(listed or kept or sorted_labels(found))
    if len(labels) < 2:
        there = f"one class only, {shown(labels[0])}" if labels else "no class"
        raise DataError(f"data.train has {there}", "give examples of two classes or more, or list them in data.labels")
    return labels


def to_ids(values: Iterable[str], labels: Sequence[str], split: str) -> list[int]:
    """Class ids of label names.

    Raises:
        DataError: a label that is not in the list.
    """
    index = {label: i for i, label in enumerate(labels)}
    values = list(values)
    unknown = sorted(set(values) - set(index))
    if unknown:
        raise DataError(
            f"data.{split} has the label {shown(unknown[0])}, which is none of {', '.join(labels[:12])}",
            "mend the data, or list every label in data.labels",
        )
    return [index[value] for value in values]


def sorted_labels(values: Iterable[str]) -> tuple[str, ...]:
    """Label names in an order that does not depend on the data's: numbers by value, ``O`` first, then by name.

    Examples:
        >>> sorted_labels(["10", "9"]), sorted_labels(["I-PER", "O", "B-PER", "B-LOC"])
        (('9', '10'), ('O', 'B-LOC', 'B-PER', 'I-PER'))
    """
    names = set(values)
    if all(re.fullmatch("-?[0-9]{1,99}", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names, key=lambda name: (name != "O", name.split("-", 1)[-1], name)))
