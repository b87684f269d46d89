"""Which rows a split has: parts of one file, rows with certain values, the first so many."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from setpoint.errors import DataError
from setpoint.recipe_data import LimitRecipe, SharesRecipe
from setpoint.tasks.formats import SPLITS, Split

T = TypeVar("T")


def cut(values: Sequence[Any], shares: SharesRecipe) -> dict[Split, Sequence[int]]:
    """Cut rows into training, validation and, where it has a share, test split by groups: no group is in two.

    Rows with one value are a group. Of G groups in the order in which they first appear, training has those before
    ``round(train * G)``, validation those from there to before ``round((train + validation) * G)``, and the test split
    the rest; ``round`` is Python's. The rows of a split stay in their order.

    Args:
        values: one a row.
        shares: of the groups, not of the rows.

    Returns:
        The numbers of the rows, by split.

    Raises:
        DataError: a split gets no group.

    Examples:
        >>> cut(["a", "a", "b", "c", "a", "d", "e"], SharesRecipe(train=0.6, validation=0.2, test=0.2))
        {'train': [0, 1, 2, 3, 4], 'validation': [5], 'test': [6]}
    """
    groups = {value: number for number, value in enumerate(dict.fromkeys(map(as_key, values)))}
    group_of, count = [groups[as_key(value)] for value in values], len(groups)
    ends = [0, round(shares.train * count), round((shares.train + shares.validation) * count), count]
    parts: dict[Split, Sequence[int]] = {}
    for split, (start, end) in zip(SPLITS if shares.test else SPLITS[:2], pairwise(ends), strict=False):
        parts[split] = [row for row, group in enumerate(group_of) if start <= group < end]
        if not parts[split]:
            raise DataError(f"data.shares gives data.{split} none of {count} groups", "give it a larger share")
    return parts


def with_values(values: Sequence[Any], wanted: Collection[Any], rows: Sequence[int]) -> list[int]:
    """Those of some rows whose value is one of the wanted, whether a file has it as a number or as text.

    Examples:
        >>> with_values(["0", "1", "true", "2"], [0, 2, True], range(4))
        [0, 2, 3]
    """
    keys = set(map(as_key, wanted))
    return [row for row in rows if as_key(values[row]) in keys]


def limited(rows: Sequence[T], limit: LimitRecipe | None, split: str) -> Sequence[T]:
    """So many rows of a split as ``data.limit`` says, in their order: the first ones, or some evenly spread.

    Examples:
        >>> [limited(range(7), LimitRecipe(train=3, spread=spread), "train")[:] for spread in (False, True)]
        [range(0, 3), [0, 2, 4]]
    """
    most: int | None = getattr(limit, split, None)
    if limit is None or most is None or most >= len(rows):
        return rows
    return [rows[i * len(rows) // most] for i in range(most)] if limit.spread else rows[:most]


def as_key(value: Any) -> str:
    """A value as a recipe writes it: 3 for 3, 3.0 and "3"; true for True.

    Examples:
        >>> as_key(3.0), as_key("3"), as_key(True), as_key(0.5), as_key(None)
        ('3', '3', 'true', '0.5', 'null')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
