"""Reading, checking, overriding, writing and listing recipes; every mistake is one sentence about one field."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from setpoint.errors import RecipeError
from setpoint.recipe import Recipe


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe from YAML and apply ``section.field=value`` overrides.

    Args:
        path: the YAML file.
        overrides: assignments such as ``"train.epochs=3"``; values are YAML, so ``[0, 1]`` and ``{beta: 0.5}`` work.

    Raises:
        RecipeError: the file or an override is unreadable, or a field is unknown, missing, ill-typed or out of range.
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise RecipeError(
            f"recipe '{path}' cannot be read ({error.strerror})", "give the path of a YAML file"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise RecipeError(f"recipe '{path}' is not valid YAML{line}", "mend the file") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"recipe '{path}' is not a mapping of sections", "start from one in recipes/")
    for assignment in overrides:
        _override(raw, assignment)
    return parse_recipe(raw, folder=path.parent)


def parse_recipe(raw: Mapping[str, Any], folder: str | Path | None = None) -> Recipe:
    """Check a recipe given as plain data; relative paths count from ``folder``.

    Raises:
        RecipeError: the first thing wrong, as one sentence.

    Example:
        >>> parse_recipe({"name": "x", "task": "image-classification", "data": {"dataset": "digits"}, "teacher": {
        ...     "model": "t"}, "student": {"model": "s"}, "temperature": 0})
        Traceback (most recent call last):
        ...
        setpoint.errors.RecipeError: recipe field 'temperature' is 0: must be a finite number above 0
    """
    try:
        return Recipe.model_validate(raw, context={"folder": folder})
    except ValidationError as error:
        raise _sentence(error, raw) from None


def recipe_to_yaml(recipe: Recipe) -> str:
    """A recipe as YAML, whole, its paths absolute; reading it gives the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def describe_fields() -> list[str]:
    """A line for each field a recipe may have: its path, what it takes, and its default."""
    lines: dict[str, str] = {}
    for path, field in _fields(Recipe):
        default = (
            "required" if field.is_required() else f"default {_short(field.get_default(call_default_factory=True))}"
        )
        lines.setdefault(path, f"{path}: {_type_name(field.annotation)} ({default})")
    return list(lines.values())


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as the number people mean (YAML 1.1 wants 1.0e-3)."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def _override(raw: dict[str, Any], assignment: str) -> None:
    field, equals, value = assignment.partition("=")
    if not equals or not field:
        raise RecipeError(f"override '{assignment}' is no assignment", "write it as section.field=value")
    *sections, leaf = field.split(".")
    place: Any = raw
    for section in sections:
        inner = place.setdefault(section, {})
        if not isinstance(inner, dict):  # a shorthand such as `temperature: 4` gives way to its long form
            inner = place[section] = {}
        place = inner
    try:
        place[leaf] = yaml.load(value, _Loader)
    except yaml.YAMLError:
        raise RecipeError(f"override '{assignment}' has a value that is not YAML", "quote it") from None


def _sentence(error: ValidationError, raw: Mapping[str, Any]) -> RecipeError:
    """The first error of a validation, as a field, its value, and the mend."""
    # An unknown key comes first: it is the usual cause of the others (a misspelt field is also a missing one).
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    field = _user_path(first["loc"], raw, first["type"] == "missing")
    context = first.get("ctx", {})
    match first["type"]:
        case "extra_forbidden":
            return RecipeError(f"recipe field '{field}' is unknown", _nearest(field))
        case "missing":
            return RecipeError(f"recipe field '{field}' is missing", "add it")
        case "union_tag_invalid":
            tag = context["discriminator"].strip("'")
            return RecipeError(
                f"recipe field '{field}.{tag}' is '{context['tag']}'", f"give one of {context['expected_tags']}"
            )
        case "union_tag_not_found":
            tag = context["discriminator"].strip("'")
            return RecipeError(f"recipe field '{field}.{tag}' is missing", "add it")
        case "model_type" | "dict_type" | "model_attributes_type":
            return RecipeError(f"recipe field '{field}' is {first['input']!r}", "give a section of fields")
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    value = first["input"]
    shown = f" is {_short(value)}" if not isinstance(value, dict | list) else ""
    return RecipeError(f"recipe field '{field}'{shown}", message)


def _user_path(location: tuple[int | str, ...], raw: Any, missing: bool) -> str:
    """Pydantic's location without the names of union branches: only what the user wrote, or has left out."""
    keys: list[str] = []
    place = raw
    for position, part in enumerate(location):
        inside = part in place if isinstance(place, Mapping) else isinstance(place, list) and isinstance(part, int)
        if inside:
            keys.append(str(part))
            place = place[part]
        elif missing and position == len(location) - 1:
            keys.append(str(part))
    return ".".join(keys)


def _nearest(field: str) -> str:
    """The mend for an unknown field: the nearest of its own section, or where a field of that name is."""
    section, _, leaf = field.rpartition(".")
    known = [path for path, _ in _fields(Recipe)]
    siblings = [path.rpartition(".")[2] for path in known if path.rpartition(".")[0] == section]
    near = difflib.get_close_matches(leaf, siblings, n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    elsewhere = sorted((path for path in known if path.rpartition(".")[2] == leaf), key=lambda path: path.count("."))
    if elsewhere:
        return f"did you mean '{elsewhere[0]}'?"
    return "remove it; `setpoint recipe --fields` lists all"


def _fields(part: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field of a section and of the sections in it, with its dotted path."""
    for name, field in part.model_fields.items():
        path = f"{prefix}{name}"
        yield path, field
        for inner in _parts(field.annotation):
            yield from _fields(inner, f"{path}.")


def _parts(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, Annotated):
        for inner in get_args(annotation):
            yield from _parts(inner)


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return _type_name(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(_type_name(a) for a in get_args(annotation) if a is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    if get_args(annotation):
        return "list" if get_origin(annotation) is tuple else "mapping"
    return {"int": "integer", "float": "number", "str": "text", "bool": "true | false"}.get(
        annotation.__name__, "value"
    )


def _short(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "section"
    return "none" if value is None else repr(value)
