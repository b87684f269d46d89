"""A cohort whose worst now and then go on as copies of its best, at another temperature: `evolution`, trained."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence

from setpoint.recipe import Recipe
from setpoint.recipe_temperature import ConstantTemperature
from setpoint.tuning.candidates import apply
from setpoint.tuning.cohort import Cohort
from setpoint.tuning.evolution import Life, Move, live_on, select
from setpoint.tuning.plan import FLOCK, ROUNDS
from setpoint.tuning.student import SCORED


def members(recipes: Sequence[Recipe]) -> dict[int, Recipe]:
    """Those that a flock begins with, by number: the first of the candidates that have one constant temperature."""
    constant = {
        number: recipe
        for number, recipe in enumerate(recipes)
        if isinstance(recipe.temperature, ConstantTemperature) and recipe.temperature.teacher is None
    }
    return dict(list(constant.items())[:FLOCK])


def evolve(
    cohort: Cohort,
    recipes: Mapping[int, Recipe],
    steps: int,
    rounds: Sequence[Sequence[Move]],
    keep: Callable[[list[list[Move]]], None],
    on_step: Callable[[int], None],
) -> Life:
    """Train a flock to its end; gives the life of its best, the founder by number.

    Args:
        cohort: of these recipes, wherever it was saved.
        recipes: by number, each with a constant temperature.
        steps: to train.
        rounds: the moves that are decided already.
        keep: is given all moves, the new ones too, before they are made: a flock that goes on makes the same.
        on_step: as for ``Cohort.train_to``.
    """
    numbers, done = list(recipes), [list(moves) for moves in rounds]
    lives = [Life(n, (one.temperature.of_teacher,)) for n, one in recipes.items()]  # type: ignore[union-attr]
    for number in range(ROUNDS):
        pause = math.ceil((number + 1) * steps / ROUNDS)
        if cohort.population.steps < pause:
            for n, life in zip(numbers, lives, strict=True):
                cohort.teach(n, apply(recipes[life.founder], {"temperature": life.temperatures[-1]}))
            cohort.train_to(set(numbers), pause, on_step)
        if number + 1 == ROUNDS:
            break
        if len(done) == number:
            temperatures = [life.temperatures[-1] for life in lives]
            losses = [cohort.loss(n, SCORED) for n in numbers]
            done.append(select(losses, temperatures, random.Random(f"{cohort.seed} {number}")))
            keep(done)
        if cohort.population.steps == pause:  # what was saved later has made these moves
            for move in done[number]:
                cohort.population.copy(move.source, move.target)
        lives = live_on(lives, done[number])
    losses = [cohort.loss(n, SCORED) for n in numbers]
    return lives[losses.index(min(losses))]
