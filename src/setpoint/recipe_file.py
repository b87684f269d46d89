"""Reading, checking, overriding, writing and listing recipes; every mistake is one sentence about one field."""

from __future__ import annotations

import difflib
import json
import math
import re
import types
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

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
        raw = _read(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(
            f"recipe '{path}' cannot be read ({error.strerror})", "give the path of a YAML file"
        ) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"recipe '{path}' is not valid YAML at line {line} ({error.problem})", "mend it") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise RecipeError(f"recipe '{path}' is not valid YAML", "give a text file in UTF-8") from None
    except (ValueError, RecursionError):
        raise RecipeError(f"recipe '{path}' has {_UNWRITABLE}", "mend it") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"recipe '{path}' is not a mapping of sections", "start from one in recipes/")
    for assignment in overrides:
        _override(raw, assignment)
    return parse_recipe(raw, folder=path.parent)


def parse_recipe(raw: Mapping[str, Any], folder: str | Path | None = None) -> Recipe:
    """Check a recipe given as plain data; relative paths count from ``folder``.

    Raises:
        RecipeError: the first thing wrong, as one sentence.

    Examples:
        >>> parse_recipe({"name": "x", "task": "image-classification", "data": {"dataset": "digits"}, "teacher": {
        ...     "model": "t"}, "student": {"model": "s"}, "temperature": 0})
        Traceback (most recent call last):
        ...
        setpoint.errors.RecipeError: recipe field 'temperature' is 0: give a finite number above 0
    """
    try:
        return Recipe.model_validate(raw, context={"folder": folder})
    except ValidationError as error:
        raise _sentence(error, raw) from None


def recipe_to_yaml(recipe: Recipe) -> str:
    """A recipe as YAML, whole, its paths absolute; reading it gives the same recipe."""
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True)


def describe_fields() -> list[str]:
    """A line for each field a recipe may have: ``section.field (type, default): what it is``."""
    entries: dict[str, list[_Entry]] = {}
    for entry in _entries(Recipe):
        entries.setdefault(entry.path, []).append(entry)
    return [_describe(path, branches) for path, branches in entries.items()]


_UNWRITABLE = "a value that is too long, nested too deeply or not Unicode"


def _read(text: str) -> Any:
    """What a YAML text holds.

    Raises:
        yaml.YAMLError: it is no YAML.
        ValueError, RecursionError: it holds what could not be written again (all of it later is: in messages, in the
            run's own recipe), such as a number of thousands of digits, or a list within itself.
    """
    raw = yaml.load(text, _Loader)
    json.dumps(raw, default=str, skipkeys=True, ensure_ascii=False).encode()
    return raw


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as the number people mean (YAML 1.1 wants 1.0e-3) and refuses a key given twice."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, LookupError, AttributeError):  # a date that is none, `!!int x`, …
            kind = node.tag.rpartition(":")[2]
            raise yaml.MarkedYAMLError(
                problem=f"{shown(node.value)} is no {kind}", problem_mark=node.start_mark
            ) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"'{key.value}' is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def put(raw: dict[str, Any], field: str, value: Any) -> None:
    """Set a field of a recipe that is plain data; its sections are made where they are not there.

    Examples:
        >>> raw = {"temperature": 4}
        >>> put(raw, "temperature.policy", "lskd")
        >>> raw
        {'temperature': {'policy': 'lskd'}}
    """
    *sections, leaf = field.split(".")
    place: Any = raw
    for section in sections:
        inner = place.setdefault(section, {})
        if not isinstance(inner, dict):  # a shorthand such as `temperature: 4` gives way to its long form
            inner = place[section] = {}
        place = inner
    place[leaf] = value


def _override(raw: dict[str, Any], assignment: str) -> None:
    field, equals, value = assignment.partition("=")
    if not equals or not all(field.split(".")):
        raise RecipeError(f"override {shown(assignment)} is no assignment", "write it as section.field=value")
    try:
        put(raw, field, _read(value))
    except yaml.YAMLError:
        raise RecipeError(f"override {shown(assignment)} has a value that is not YAML", "quote it") from None
    except (ValueError, RecursionError):
        raise RecipeError(f"override {shown(assignment)} has {_UNWRITABLE}", "mend it") from None


# ---------------------------------------------------------------------------------------------------- mistakes


_MENDS = {
    "missing": "add it",
    "string_type": "give text, in quotes where YAML reads something else",
    "string_too_short": "give text that is not empty",
    "string_pattern_mismatch": "give letters, digits, '.', '_' and '-', a letter or digit first",
    "float_type": "give a number",
    "float_parsing": "give a number",
    "int_type": "give a whole number",
    "bool_type": "give true or false",
    "tuple_type": "give a list",
    "too_short": "give a list of at least {min_length}",
    "too_long": "give a list of at most {max_length}",
    "literal_error": "give {expected}",
    "dict_type": "give a section of fields",
    "model_type": "give a section of fields",
    "model_attributes_type": "give a section of fields",
    "union_tag_invalid": "give one of {expected_tags}",
}


def _sentence(error: ValidationError, raw: Any) -> RecipeError:
    """One error of a validation, as a field, its value, and the mend."""
    # An unknown key comes first: it is the usual cause of the others (a misspelt field is also a missing one).
    errors = sorted(error.errors(), key=lambda e: e["type"] not in ("extra_forbidden", "invalid_key"))
    found = [(*_locate(e["loc"], raw), e) for e in errors]
    # Where a value may be of several types each of them objects; the one that reads deepest is what the user meant.
    path, section, first = max((f for f in found if f[0][: len(found[0][0])] == found[0][0]), key=lambda f: len(f[0]))
    field = f"recipe field '{'.'.join(path)}'" if path else "the recipe"
    match first["type"]:
        case "extra_forbidden" | "invalid_key":
            return RecipeError(f"{field} is unknown", _nearest(path, section))
        case "missing":
            return RecipeError(f"{field} is missing", "add it")
        case "union_tag_invalid":
            tag = first["ctx"]["discriminator"].strip("'")
            return RecipeError(f"{field[:-1]}.{tag}' is {shown(first['ctx']['tag'])}", _mend(first))
    mends = list(dict.fromkeys(_mend(e) for place, _, e in found if place == path))
    mend = ", or ".join([mends[0], *(other.removeprefix("give ") for other in mends[1:])])
    problem, colon, rest = mend.partition(": ")
    if colon:
        return RecipeError(f"{field} {problem}", rest)
    value = first["input"]
    return RecipeError(f"{field} is {shown(value)}", mend)


def _mend(error: Any) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    text = _MENDS.get(error["type"])
    return error["msg"].lower() if text is None else text.format(**error.get("ctx", {}))


def _locate(location: tuple[int | str, ...], raw: Any) -> tuple[tuple[str, ...], type[BaseModel] | None]:
    """What the user wrote at a location of pydantic's, and the section that the last key is in.

    Pydantic also names branches of unions, and the fields of a long form where the user wrote the short one.
    """
    keys: list[str] = []
    sections: tuple[type[BaseModel], ...] = (Recipe,)
    owner: type[BaseModel] | None = None
    place = raw
    for item in location:
        if isinstance(item, int):  # in a list, or the one element where a list was meant
            if str(item) in (children := _children(place)):
                keys.append(str(item))
                place = children[str(item)]
            continue
        if len(sections) > 1:
            sections = tuple(section for section in sections if item in _tags(section))
            continue
        children = _children(place)
        owner = sections[0] if sections else None
        if str(item) in children or (owner is not None and isinstance(place, Mapping)):
            keys.append(str(item))
        place = children.get(str(item), place)
        field = owner.model_fields.get(str(item)) if owner is not None else None
        sections = tuple(_sections(field.annotation)) if field is not None else ()
    return tuple(keys), owner


def _children(place: Any) -> dict[str, Any]:
    pairs = place.items() if isinstance(place, Mapping) else enumerate(place) if isinstance(place, list | tuple) else ()
    return {str(key): value for key, value in pairs}


def _nearest(path: tuple[str, ...], section: type[BaseModel] | None) -> str:
    """The mend for an unknown field: its branch, the nearest of its own section, or where a field of that name is."""
    field, leaf = ".".join([part for part in path[:-1] if not part.isdigit()] + [path[-1]]), path[-1]
    known = list(_entries(Recipe))
    others = [entry.section for entry in known if entry.path == field]
    if others:
        tags = " or ".join(repr(tag) for other in others for tag in _tags(other))
        return f"it goes with {_switch(others[0])} {tags}"
    near = difflib.get_close_matches(leaf, section.model_fields if section else (), n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    elsewhere = sorted((e.path for e in known if e.path.endswith(f".{leaf}")), key=lambda other: other.count("."))
    return f"did you mean '{elsewhere[0]}'?" if elsewhere else "remove it; `setpoint recipe --fields` lists all"


def shown(value: Any) -> str:
    """A value as YAML has it, in a few characters."""
    if isinstance(value, BaseModel | Mapping):
        return "a section"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value[:8]))}{', …' if len(value) > 8 else ''}]"
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}[str(value)]
    if value is None or isinstance(value, bool):
        return "empty" if value is None else str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


# ---------------------------------------------------------------------------------------------------- the schema, read


class _Entry(NamedTuple):
    path: str
    section: type[BaseModel]
    name: str
    field: FieldInfo


def _entries(section: type[BaseModel], prefix: str = "") -> Iterator[_Entry]:
    """Every field of a section and of the sections in it; a field of several branches once for each."""
    for name, field in section.model_fields.items():
        yield _Entry(f"{prefix}{name}", section, name, field)
        for inner in _sections(field.annotation):
            yield from _entries(inner, f"{prefix}{name}.")


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, Annotated, tuple):
        for inner in get_args(annotation):
            yield from _sections(inner)


def _switch(section: type[BaseModel]) -> str | None:
    """The field that tells the branches of a union of sections apart."""
    return next((name for name in ("kind", "policy") if name in section.model_fields), None)


def _tags(section: type[BaseModel]) -> tuple[str, ...]:
    switch = _switch(section)
    return get_args(section.model_fields[switch].annotation) if switch else ()


def _describe(path: str, branches: list[_Entry]) -> str:
    field = branches[0].field
    kinds = " | ".join(dict.fromkeys(k for e in branches for k in _type_name(e.field.annotation).split(" | ")))
    optional = field.default is None or isinstance(field.default, BaseModel | dict)
    default = "required" if field.is_required() else "optional" if optional else f"default {shown(field.default)}"
    if field.description:
        text = field.description
    else:  # a switch: what each branch is
        text = "; ".join(f"{' | '.join(_tags(entry.section))}: {_first_sentence(entry.section)}" for entry in branches)
    return f"{path} ({kinds}, {default}): {' '.join(text.split()).replace('``', '`')}"


def _first_sentence(section: type[BaseModel]) -> str:
    sentence, _, _ = (section.__doc__ or "").partition(".\n")
    return sentence.removesuffix(".")


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(_type_name(a) for a in arguments if a is not types.NoneType))
    if origin in (tuple, dict):
        return "list" if origin is tuple else "mapping"
    if issubclass(annotation, BaseModel):
        return "section"
    return {int: "whole number", float: "number", str: "text", bool: "true | false"}[annotation]


def describe_temperature(recipe: Recipe) -> str:
    """The recipe's temperature in words."""
    fields = recipe.temperature.model_dump(exclude={"policy"}, exclude_none=True)
    if fields.keys() == {"temperature"}:
        return f"T = {fields['temperature']:g}"
    return f"{recipe.temperature.policy}(" + ", ".join(f"{name}={value}" for name, value in fields.items()) + ")"
