"""The values a recipe is written in: numbers with their ranges, and paths.

A check that fails raises ``ValueError`` with its mend ("give …"), or with "problem: mend" where the value alone does
not show the problem; ``recipe_file`` puts the field and its value in front.
"""

from __future__ import annotations

import errno
import importlib.util
import math
import os
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo


class Part(BaseModel):
    """A section of a recipe: frozen, and closed to unknown keys; a string below a field describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _path(value: str, info: ValidationInfo) -> str:
    """A local path made absolute."""
    if value.startswith("package:"):
        package, _, inside = value.removeprefix("package:").partition("/")
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None:
            raise ValueError(f"needs the Python package '{package}': install it, or give another path")
        return str(Path(spec.origin).parent / inside)
    try:
        path = Path(value).expanduser()
    except RuntimeError:
        raise ValueError("is in the home of an unknown user: give another path") from None
    folder = (info.context or {}).get("folder")
    path = Path(folder or "") / path
    _is_there(path)
    # realpath bears a circle of links, resolve does not
    return str(path) if folder is None or value.startswith("~") else os.path.realpath(path)


def _is_there(path: Path) -> bool:
    """Whether a path exists; one that no system call takes is refused here, as each later one would fail on it."""
    try:
        path.lstat()
    except ValueError:
        raise ValueError("has a character that no path has: give another path") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ValueError("is longer than a path may be: give a shorter one") from None
        return False
    return True


def _location(value: str, info: ValidationInfo) -> str:
    """A local path made absolute; a hub id left alone."""
    folder = (info.context or {}).get("folder")
    beside = _is_there(Path(folder or "") / value) and folder is not None
    return _path(value, info) if beside or value.startswith((".", "/", "~", "package:")) else value


def _split(value: str, info: ValidationInfo) -> str:
    """The name of a split where the section has a ``dataset``; else a local path made absolute."""
    return value if info.data.get("dataset") is not None else _path(value, info)


def _where(check: Callable[[float], bool], mend: str) -> AfterValidator:
    """Refuse a number that fails a check; NaN fails every comparison."""

    def validate(value: float) -> float:
        if not check(value):
            raise ValueError(mend)
        return value

    return AfterValidator(validate)


Text = Annotated[str, Field(min_length=1)]
File = Annotated[Text, AfterValidator(_path)]
"""A path: absolute, from home (``~``), relative to the recipe, or inside an installed Python package
(``package:NAME/FOLDER``)."""
Location = Annotated[Text, AfterValidator(_location)]
"""A hub id or a path; a relative path starts with ``./`` or ``../``, or is there already."""
Split = Annotated[Text, AfterValidator(_split)]

# Strict: no number is made from true or from quoted text.
Number = Annotated[float, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Positive = Annotated[Number, _where(lambda x: 0 < x < math.inf, "give a finite number above 0")]
Amount = Annotated[Number, _where(lambda x: 0 <= x < math.inf, "give a finite number, 0 or above")]
Fraction = Annotated[Number, _where(lambda x: 0 <= x <= 1, "give a number from 0 to 1")]
Rate = Annotated[Number, _where(lambda x: 0 <= x < 1, "give a number from 0 to below 1")]
Share = Annotated[Number, _where(lambda x: 0 < x < 1, "give a number between 0 and 1")]
# Wide enough for any use, and T·T is still far from what float32 holds.
Temperature = Annotated[Positive, _where(lambda x: 1e-3 <= x <= 1e4, "give a number from 0.001 to 10000")]
Beta = Annotated[Positive, _where(lambda x: 1e-4 <= x <= 1e3, "give a number from 0.0001 to 1000")]
Count = Annotated[Whole, _where(lambda x: x >= 1, "give a whole number, 1 or above")]
Index = Annotated[Whole, _where(lambda x: x >= 0, "give a whole number, 0 or above")]
Seed = Annotated[Whole, _where(lambda x: 0 <= x < 2**32, "give a whole number from 0 to 4294967295")]
MaskShare = Annotated[Number, _where(lambda x: 0 < x <= 1, "give a number above 0, at most 1")]
Levels = Annotated[Whole, _where(lambda x: 2 <= x <= 256, "give a whole number from 2 to 256")]
Codes = Annotated[Whole, _where(lambda x: 2 <= x <= 4096, "give a whole number from 2 to 4096")]
SamplingRate = Annotated[Whole, _where(lambda x: 1000 <= x <= 384_000, "give samples a second, from 1000 to 384000")]
VocabularySize = Annotated[Whole, _where(lambda x: x >= 100, "give a whole number, 100 or above")]
# A key: JSON writes the number as text, so this one is not strict.
Progress = Annotated[float, _where(lambda x: 0 <= x <= 1, "give a progress from 0 to 1")]


def _distinct(what: str) -> AfterValidator:
    """Refuse a list with a value twice."""

    def validate(values: tuple[Hashable, ...]) -> tuple[Hashable, ...]:
        for place, value in enumerate(values):
            if value in values[:place]:
                raise ValueError(f"names {value!r} twice: give each {what} once")
        return values

    return AfterValidator(validate)


Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), _distinct("seed")]
Labels = Annotated[tuple[Text, ...], Field(min_length=2), _distinct("class")]
Columns = Annotated[tuple[Text, ...], Field(min_length=1), _distinct("column")]
