"""The candidates of a search: which recipes are compared, decided before the first is trained."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import qmc
from torch import Tensor

from setpoint.errors import RecipeError
from setpoint.maths.softness import KINDS
from setpoint.maths.tempering import effective_classes, entropy, temper
from setpoint.recipe import Recipe
from setpoint.recipe_file import parse_recipe, put, shown
from setpoint.recipe_temperature import ConstantTemperature
from setpoint.recipe_tune import SOFTNESS, Range, is_log
from setpoint.tuning.evolution import as_steps, told
from setpoint.tuning.prior import Suggestion
from setpoint.tuning.space import Dimension

ALPHA = Range(low=0.3, high=1.0)
"""Where α is searched unless the recipe says otherwise."""


@dataclass(frozen=True)
class Candidates:
    """What is compared.

    Attributes:
        dimensions: the fields that vary.
        values: of each candidate, field by field; the first is the recipe as it stands.
        recipes: the candidates as recipes, without ``tune``.
    """

    dimensions: tuple[Dimension, ...]
    values: tuple[dict[str, Any], ...]
    recipes: tuple[Recipe, ...]


def make_candidates(recipe: Recipe, suggestion: Suggestion, teacher_logits: Tensor) -> Candidates:
    """The candidates that a recipe's ``tune`` section asks for.

    Where every field has a list and there are few enough combinations, all of them; else the values of each field are
    spread evenly over its range (a Latin hypercube: McKay, Beckman & Conover 1979, Technometrics 21), and one
    candidate is what the teacher's logits suggest.

    Args:
        recipe: with a ``tune`` section.
        suggestion: what the teacher's logits suggest.
        teacher_logits: ``[N, C]``, which tell how soft the recipe's own temperature is.

    Raises:
        RecipeError: a field that recipes do not have, a value that it cannot take, or nothing to search.
    """
    assert recipe.tune is not None
    ranges: dict[str, Range | tuple[Any, ...]] = {}
    for name, values in searched(recipe).items():
        chosen = _suggested(name, suggestion, teacher_logits) if values == "auto" else values
        assert not isinstance(chosen, str)
        ranges[name] = chosen
    default = {name: _standing(recipe, name, teacher_logits) for name in ranges}
    points = [default, *_design(ranges, default, recipe.tune.candidates, suggestion)]
    recipes = [recipe.model_copy(update={"tune": None})]
    recipes += [apply(recipe, values) for values in points[1:]]
    kept = [i for i, one in enumerate(recipes) if one not in recipes[:i]]
    if len(kept) < 2:
        raise RecipeError("tune.search has no candidate but the recipe as it stands", "give more values, or a range")
    dimensions = tuple(_dimension(name, values, default[name]) for name, values in ranges.items())
    return Candidates(dimensions, tuple(_plain(points[i]) for i in kept), tuple(recipes[i] for i in kept))


def with_evolved(candidates: Candidates, count: int, founder: int, temperatures: Sequence[float]) -> Candidates:
    """The first so many candidates, and one of them with an evolved schedule in place of its temperature.

    Its value is no number, so that it stands beside the temperatures and not among them.
    """
    recipe = apply(candidates.recipes[founder], {"temperature": {"policy": "step", "steps": as_steps(temperatures)}})
    values = {**candidates.values[founder], "temperature": f"{told(temperatures)} (evolved)"}
    dimensions = tuple(
        replace(one, choices=(*one.choices, values["temperature"]))
        if one.name == "temperature" and not one.is_range
        else one
        for one in candidates.dimensions
    )
    return Candidates(dimensions, (*candidates.values[:count], values), (*candidates.recipes[:count], recipe))


def searched(recipe: Recipe) -> dict[str, Any]:
    """What a recipe's ``tune`` section searches, the temperature first; the usual where it names nothing.

    Raises:
        RecipeError: a range of a field that is no number in the recipe as it stands, which has to be compared.
    """
    assert recipe.tune is not None
    search = dict(recipe.tune.search) or _usual(recipe)
    for name, values in search.items():
        standing = _value(recipe, name)
        known = isinstance(standing, int | float) and not isinstance(standing, bool)
        if name in SOFTNESS and isinstance(recipe.temperature, ConstantTemperature):
            known = True  # the targets at that temperature are so soft
        if not known and (values == "auto" or isinstance(values, Range)):
            there = "not set" if standing is None else shown(_hashable(standing))
            raise RecipeError(
                f"tune.search has a range for '{name}', which in the recipe as it stands is {there}",
                "give a list of values there, or set the field to a number",
            )
    return dict(sorted(search.items(), key=lambda one: not one[0].startswith("temperature")))


def apply(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """A recipe with some fields changed, and without its ``tune`` section.

    Raises:
        RecipeError: as for any recipe.
    """
    raw = recipe.model_dump() | {"tune": None}
    for name, value in values.items():
        if name in SOFTNESS:
            standing = raw["temperature"] if raw["temperature"]["policy"] == "softness" else {"policy": "softness"}
            raw["temperature"] = {field: given for field, given in standing.items() if field not in KINDS}
        put(raw, name, value)
    return parse_recipe(raw)


def _usual(recipe: Recipe) -> dict[str, Any]:
    if not isinstance(recipe.temperature, ConstantTemperature):
        raise RecipeError(
            f"tune.search is empty while temperature.policy is {recipe.temperature.policy}",
            "name the fields to search, such as temperature (which replaces the policy) or objective.alpha",
        )
    return {"temperature": "auto", "objective.alpha": ALPHA}


def _suggested(name: str, suggestion: Suggestion, teacher_logits: Tensor) -> Range:
    """The range of the temperature that the logits suggest, as a range of softness where that is searched."""
    ends = suggestion.low, suggestion.high
    if name in SOFTNESS:
        kind = name.rpartition(".")[2]
        ends = tuple(_softness(teacher_logits, t, kind) for t in ends)  # type: ignore[assignment]
    low, high = (_rounded(end) for end in ends)
    return Range(low=low, high=high, log=True)


def _softness(teacher_logits: Tensor, temperature: float, kind: str) -> float:
    """How soft the targets are at a temperature, mean over rows."""
    if kind == "other_mass":
        return _rounded(float((1 - temper(teacher_logits, temperature).amax(-1)).mean()))
    measure = effective_classes if kind == "effective_classes" else entropy
    return _rounded(float(measure(teacher_logits, temperature).mean()))


def _standing(recipe: Recipe, name: str, teacher_logits: Tensor) -> Any:
    """The value of a field in the recipe as it stands; the softness of its temperature where softness is searched."""
    if name in SOFTNESS and isinstance(recipe.temperature, ConstantTemperature):
        return _softness(teacher_logits, recipe.temperature.of_teacher, name.rpartition(".")[2])
    return _value(recipe, name)


def _value(recipe: Recipe, name: str) -> Any:
    """What a field is in a recipe: of the temperature the number, where it is one, or its section; None if not set."""
    value: Any = recipe.model_dump()
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if name == "temperature":
        value = {key: given for key, given in value.items() if given is not None}
        plain = value["policy"] == "constant" and value.keys() == {"policy", "temperature"}
        return value["temperature"] if plain else value
    return value


def _design(
    ranges: Mapping[str, Range | tuple[Any, ...]], default: Mapping[str, Any], count: int, suggestion: Suggestion
) -> list[dict[str, Any]]:
    """All candidates but the first."""
    lists = [values for values in ranges.values() if not isinstance(values, Range)]
    if len(lists) == len(ranges):
        combinations = [dict(zip(ranges, values, strict=True)) for values in itertools.product(*lists)]
        others = [one for one in combinations if one != default]
        if len(others) < count:
            # In no order: where the budget buys the first few alone, they are of all kinds.
            return [others[i] for i in np.random.default_rng(0).permutation(len(others))]
    points = []
    if "temperature" in ranges and isinstance(ranges["temperature"], Range):
        points.append({**default, "temperature": _rounded(suggestion.temperature)})
    # More are drawn than wanted, for those that coincide; a seed of its own, so that every worker has the same.
    drawn = qmc.LatinHypercube(len(ranges), rng=np.random.default_rng(0)).random(max(count - 1 - len(points), 1))
    points += [{name: _at(name, ranges[name], float(u)) for name, u in zip(ranges, row, strict=True)} for row in drawn]
    return points[: count - 1]


def _at(name: str, values: Range | tuple[Any, ...], u: float) -> Any:
    """The value at a place in [0, 1)."""
    if not isinstance(values, Range):
        return values[min(int(u * len(values)), len(values) - 1)]
    if is_log(name, values):
        return _rounded(values.low * (values.high / values.low) ** u)
    return _rounded(values.low + (values.high - values.low) * u)


def _rounded(value: float) -> float:
    """Three digits: more would say what no search can know."""
    return float(f"{value:.3g}")


def _dimension(name: str, values: Range | tuple[Any, ...], standing: Any) -> Dimension:
    """A field as the verdict sees it: a list of numbers is a range of which some points are tried."""
    numbers = [standing] if isinstance(values, Range) else [*values, standing]
    if isinstance(values, Range):
        numbers += [values.low, values.high]
    if all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers) and min(numbers) < max(numbers):
        low, high = float(min(numbers)), float(max(numbers))
        log = is_log(name, values if isinstance(values, Range) else Range(low=low, high=high)) and low > 0
        return Dimension(name, low, high, log=log)
    return Dimension(name, choices=tuple(dict.fromkeys(_hashable(n) for n in numbers)))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _hashable(value) for name, value in values.items()}


def _hashable(value: Any) -> Any:
    """A section of a recipe as text, its name first; numbers and text as they are.

    Examples:
        >>> _hashable({"policy": "meta", "every": 2}), _hashable({"policy": "ctkd"}), _hashable(4.0)
        ('meta (every: 2)', 'ctkd', 4.0)
    """
    if isinstance(value, Mapping):
        named = [value[name] for name in ("policy", "kind") if name in value]
        rest = ", ".join(f"{name}: {_hashable(one)}" for name, one in value.items() if name not in ("policy", "kind"))
        return f"{named[0]} ({rest})" if named and rest else str(named[0]) if named else f"{{{rest}}}"
    return value if isinstance(value, str | int | float | bool) else shown(value)


def describe(dimensions: Sequence[Dimension], values: Mapping[str, Any]) -> str:
    """A candidate in words.

    Examples:
        >>> describe([Dimension("temperature", 1.0, 8.0, log=True)], {"temperature": 3.1})
        'T = 3.1'
    """
    names = {"temperature": "T", "objective.alpha": "alpha"}
    return ", ".join(
        f"{names.get(d.name, d.name.rpartition('.')[2])} = {values[d.name]:g}"
        if isinstance(values[d.name], int | float)
        else f"{d.name} = {values[d.name]}"
        for d in dimensions
    )
