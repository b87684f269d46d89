"""The values a recipe is written in: numbers with their ranges, and paths.

A check that fails raises ``ValueError`` with its mend ("give …"), or with "problem: mend" where the value alone does
not show the problem; ``recipe_file`` puts the field and its value in front.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo


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
    folder = (info.context or {}).get("folder")
    if folder is None or value.startswith("~"):
        return str(Path(value).expanduser())
    return str((Path(folder) / value).resolve())


def _location(value: str, info: ValidationInfo) -> str:
    """A local path made absolute; a hub id left alone."""
    folder = (info.context or {}).get("folder")
    beside = folder is not None and (Path(folder) / value).exists()
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
Count = Annotated[Whole, _where(lambda x: x >= 1, "give a whole number, 1 or above")]
Index = Annotated[Whole, _where(lambda x: x >= 0, "give a whole number, 0 or above")]
Seed = Annotated[Whole, _where(lambda x: 0 <= x < 2**32, "give a whole number from 0 to 4294967295")]
MaskShare = Annotated[Number, _where(lambda x: 0 < x <= 1, "give a number above 0, at most 1")]
VocabularySize = Annotated[Whole, _where(lambda x: x >= 100, "give a whole number, 100 or above")]
# A key: JSON writes the number as text, so this one is not strict.
Progress = Annotated[float, _where(lambda x: 0 <= x <= 1, "give a progress from 0 to 1")]


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("names a seed twice: give each once")
    return seeds


Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct)]
