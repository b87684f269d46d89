"""What a column may hold; whatever else is there is refused by split, example and column."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from setpoint.errors import DataError


def is_text(value: Any) -> bool:
    """A string, without half a surrogate pair, which no tokenizer and no file takes.

    Examples:
        >>> is_text("Zürich"), is_text(None), is_text(chr(0xD800))
        (True, False, False)
    """
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_name(value: Any) -> bool:
    """What can name a class: a string that is not empty, a whole number, true or false.

    Examples:
        >>> is_name("pos"), is_name(3), is_name(""), is_name(0.5), is_name(None)
        (True, True, False, False, False)
    """
    return isinstance(value, int) or (is_text(value) and value != "")


def is_id(value: Any) -> bool:
    """What can name an example: as for a class, on one line."""
    return is_name(value) and len(str(value).splitlines()) == 1


def is_image(value: Any) -> bool:
    """A picture, an array, or nested lists of numbers that are as long as one another."""
    try:
        pixels = np.asarray(value)
    except (ValueError, TypeError):
        return False
    return pixels.dtype.kind in "biuf" and pixels.dtype != np.uint64  # more than any pixel, and than Arrow takes


def is_file_content(value: Any) -> bool:
    """The content of a file, such as a picture's, as Parquet files have it: ``{"bytes": …}``."""
    return isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes)


def is_audio(value: Any) -> bool:
    """The content of a .wav file, or finite numbers in a row.

    Examples:
        >>> is_audio([0.5, -1]), is_audio({"bytes": b"RIFF"}), is_audio([]), is_audio([[0.5]]), is_audio([float("nan")])
        (True, True, False, False, False)
    """
    if is_file_content(value):
        return True
    if not isinstance(value, list | tuple | np.ndarray) or not is_image(value):
        return False
    samples = np.asarray(value)
    return samples.ndim == 1 and samples.size > 0 and bool(np.isfinite(samples).all())


def is_number(value: Any) -> bool:
    """A finite number, or a string that is read as one.

    Examples:
        >>> is_number(3), is_number("881250949"), is_number("4,5"), is_number("nan"), is_number(True)
        (True, True, False, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    try:
        return math.isfinite(float(value))
    except (ValueError, OverflowError):
        return False


def is_answers(value: Any) -> bool:
    """As many texts that are not empty as places in the context where they start; there may be none.

    Examples:
        >>> is_answers({"text": ["1973"], "answer_start": [4]}), is_answers({"text": ["1973"], "answer_start": []})
        (True, False)
    """
    if not isinstance(value, Mapping):
        return False
    texts, starts = value.get("text"), value.get("answer_start")
    return (
        isinstance(texts, list)
        and isinstance(starts, list)
        and len(texts) == len(starts)
        and all(is_text(text) and text != "" for text in texts)
        and all(isinstance(start, int) and not isinstance(start, bool) and start >= 0 for start in starts)
    )


def is_objects(value: Any) -> bool:
    """As many boxes of four finite numbers as names of classes; there may be none.

    Examples:
        >>> is_objects({"bbox": [[0, 0, 9, 9.5]], "category": ["cat"]}), is_objects({"bbox": [], "category": [0]})
        (True, False)
    """
    if not isinstance(value, Mapping):
        return False
    boxes, names = value.get("bbox"), value.get("category")
    return (
        isinstance(boxes, list)
        and isinstance(names, list)
        and len(boxes) == len(names)
        and all(map(is_name, names))
        and all(isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box)) for box in boxes)
    )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and is_number(value)


def _each(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(check, value))


def is_categories(value: Any) -> bool:
    """Names of classes: a list of them, which may be empty, or a string that holds them.

    Examples:
        >>> is_categories(["a", 1]), is_categories("a|b"), is_categories([]), is_categories(["a", None])
        (True, True, True, False)
    """
    return is_text(value) or _each(is_name)(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = 80  # long enough for the names of classes
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (is_id, "give a string of one line or a whole number"),
    "text": (is_text, "give a string"),
    "text_pair": (is_text, "give a string"),
    "label": (is_name, "give a name or a whole number"),
    "categories": (is_categories, "give a list of names, or one string"),
    "score": (is_number, "give a finite number"),
    "sentences": (_each(is_text), "give a list of strings"),
    "tokens": (_each(is_text), "give a list of strings"),
    "tags": (_each(is_name), "give a list of names or whole numbers"),
    "image": (
        lambda value: is_file_content(value) or is_image(value),
        "give a picture, or lists of numbers as long as one another",
    ),
    "speaker": (is_name, "give a name or a whole number"),
    "audio": (is_audio, "give a .wav file, or a list of numbers"),
    "question": (is_text, "give a string"),
    "context": (is_text, "give a string"),
    "answers": (is_answers, "give text and answer_start, two lists of one length"),
    "objects": (
        is_objects,
        "give bbox and category, two lists of one length, each box as [x, y, width, height]",
    ),
    "user": (is_name, "give a name or a whole number"),
    "item": (is_name, "give a name or a whole number"),
    "attributes": (is_name, "give a name or a whole number"),
    "rating": (is_number, "give a number"),
    "time": (is_number, "give a number"),
    "split_by": (is_name, "give a name or a whole number"),
}


def check_values(values: Iterable[Any], names: Iterable[str], field: str, column: str, split: str) -> None:
    """Refuse a column with a value that its field of the recipe's ``data`` cannot have.

    Raises:
        DataError: naming the first such example.
    """
    check, mend = _CHECKS[field.partition(".")[0]]
    for value, name in zip(values, names, strict=True):
        if not check(value):
            raise DataError(f"example '{name}' of data.{split} has {shown(value)} in column '{column}'", mend)


def check_value(value: Any, field: str, where: str) -> None:
    """Refuse one value that a field of the recipe's ``data`` cannot have.

    Raises:
        DataError: naming the place.
    """
    check, mend = _CHECKS[field.partition(".")[0]]
    if not check(value):
        raise DataError(f"{where} has {shown(value)} for its {field}", mend)


def check_answers(contexts: Sequence[str], answers: Sequence[Any], names: Sequence[str], split: str) -> None:
    """Refuse an answer that is not at its place in the context.

    Raises:
        DataError: naming the first such example.
    """
    for context, given, name in zip(contexts, answers, names, strict=True):
        for text, start in zip(given["text"], given["answer_start"], strict=True):
            if not context.startswith(text, start):
                raise DataError(
                    f"example '{name}' of data.{split} has the answer {shown(text)}, but its context has"
                    f" {shown(context[start : start + len(text)])} at {start}",
                    "count characters from 0",
                )


def missing_column(split: str, name: str, there: Iterable[str], field: str) -> DataError:
    """What to say of a split without a column that a field of the recipe's ``data`` names."""
    others = ", ".join(other for other in there if other != "id")
    return DataError(
        f"data.{split} has no column '{name}', only {others}", f"set data.{field.removesuffix('.' + name)}"
    )


def pick(value: Any, columns: Mapping[str, str], where: str) -> list[Any]:
    """The values of an input's columns, of a row; a value that is no row is that of the one column.

    Raises:
        DataError: a row without one of them; or no row, where there are several.

    Examples:
        >>> pick({"sentence": "good", "n": 1}, {"text": "sentence"}, "line 1"), pick("good", {"text": "text"}, "line 1")
        (['good'], ['good'])
    """
    if isinstance(value, Mapping):
        for name in columns.values():
            if name not in value:
                others = ", ".join(shown(other) for other in list(value)[:12]) or "nothing"
                raise DataError(f"{where} has no '{name}', only {others}", f"give {' and '.join(columns.values())}")
        return [value[name] for name in columns.values()]
    if len(columns) == 1:
        return [value]
    if isinstance(value, list | tuple) and len(value) == len(columns):
        return list(value)
    raise DataError(f"{where} is {shown(value)}", f"give {' and '.join(columns.values())}")


def check_ids(ids: Sequence[str], split: str) -> None:
    """Refuse two examples of one id, which a target store could not tell apart.

    Raises:
        DataError: naming the id.
    """
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise DataError(f"two examples of data.{split} have the id '{name}'", "give each its own, or none")
        seen.add(name)


def check_shapes(shapes: Sequence[tuple[int, ...]], names: Sequence[str]) -> None:
    """Refuse images that cannot be one batch.

    Raises:
        DataError: naming the first that differs from the first of all.
    """
    for shape, name in zip(shapes, names, strict=True):
        if shape != shapes[0]:
            here, there = ("x".join(map(str, s)) for s in (shape, shapes[0]))
            raise DataError(
                f"image of example '{name}' is {here} while that of '{names[0]}' is {there}",
                "give images of one size and number of channels",
            )


def shown(value: Any) -> str:
    """A value of the data as part of one line.

    Examples:
        >>> shown(None), shown("pos"), shown(list(range(99)))
        ('null', "'pos'", '[0, 1, 2, 3, 4, 5, ...]')
    """
    return "null" if value is None else " ".join(_SHORT.repr(value).split())
