"""What can be wrong with a search before it begins."""

from __future__ import annotations

from collections.abc import Sequence

from setpoint import processes
from setpoint.arguments import training_arguments
from setpoint.errors import DataError, RecipeError
from setpoint.feature_checks import check_features, check_pretraining
from setpoint.job import Job
from setpoint.recipe import Recipe
from setpoint.recipe_file import describe_temperature
from setpoint.recipe_images import mixes
from setpoint.recipe_tune import Range
from setpoint.tuning.candidates import apply, searched
from setpoint.tuning.flock import members
from setpoint.tuning.population import check_arguments
from setpoint.tuning.verdict import rows_needed, smallest_difference

COARSEST = 0.1
"""A validation split that tells no difference below this, in shares of the metric, tells nothing."""
USEFUL = 0.02
"""A difference worth telling, by which the mend is measured."""


def check_search(job: Job) -> None:
    """Refuse what could not be searched, before anything is trained.

    Raises:
        RecipeError: a field that recipes do not have, a value it cannot take, a metric that the task does not
            produce, or what students that are trained together cannot have.
        DataError: a validation split that can tell nothing, and how many examples would be needed.
    """
    tune = job.recipe.tune
    if tune is None:
        return
    if not job.task.tempered:
        raise RecipeError(
            f"recipe section 'tune' is given for the task {job.recipe.task}, which has no temperature", "remove it"
        )
    if tune.metric is not None and tune.metric not in job.task.score_names:
        raise RecipeError(
            f"tune.metric is '{tune.metric}', which {job.recipe.task} does not produce",
            f"give one of {', '.join(job.task.score_names)}",
        )
    recipes = [job.recipe]
    for name, values in searched(job.recipe).items():
        if values != "auto":
            given = (values.low, values.high) if isinstance(values, Range) else values
            recipes += [apply(job.recipe, {name: value}) for value in given]
    for recipe in recipes[1:]:
        check_pretraining(recipe, job.task)
        check_features(recipe, job.task)
    if job.recipe.objective.features and job.recipe.targets.kind == "store":
        _check_stored(job.recipe)
    if tune.together:
        _check_together(job, recipes)
    if tune.evolve:
        _check_evolution(job.recipe)
    _check_validation(len(job.splits.validation))


def _check_stored(recipe: Recipe) -> None:
    """Refuse candidates that compare other layers than those whose states are stored, the recipe's own."""
    for name in searched(recipe):
        if name.startswith(("objective.features", "student.model")):
            raise RecipeError(
                f"tune.search names '{name}', by which features compare other layers, while targets.kind is store",
                f"leave '{name}' out, or set targets.kind to live",
            )


def _check_together(job: Job, recipes: Sequence[Recipe]) -> None:
    """Refuse what differs between students, or needs a training of its own."""
    assert job.recipe.tune is not None
    field = "tune.population" if job.recipe.tune.population else "tune.evolve"

    def refuse(why: str, mend: str) -> RecipeError:
        return RecipeError(f"{field} trains students together while {why}", f"{mend}, or set {field} to false")

    if not job.task.plain:
        raise refuse(f"the task is {job.recipe.task}, whose loss is more than that of rows", "choose another task")
    for name in searched(job.recipe):
        if name.partition(".")[0] in ("train", "student"):
            raise refuse(f"tune.search names '{name}', in which they cannot differ", f"leave '{name}' out")
    if any(recipe.temperature.policy == "meta" for recipe in recipes):
        raise refuse("temperature.policy is meta, which takes steps of its own", "leave meta out")
    if mixes(job.recipe.data.augment):
        raise refuse("data.augment mixes examples, which have no label then", "leave mixup and cutmix out")
    if any(recipe.objective.features for recipe in recipes):
        raise refuse("objective.features is given, and they keep no inner states", "remove it")
    if processes.together():
        raise refuse("there are several processes", "start one")
    train = job.recipe.train
    arguments = training_arguments(train, job.path, 0, metric=job.task.metric)
    count = arguments.gradient_accumulation_steps
    if count > 1:
        raise refuse(f"train.gradient_accumulation is {count}, for they take whole batches", "give 1")
    if train.early_stopping is not None:
        raise refuse(f"train.early_stopping is {train.early_stopping}, for they end together", "remove it")
    if arguments.load_best_model_at_end:
        raise refuse("train.keep_best is true, for they keep no checkpoints", "set it to false")
    check_arguments(arguments)


def _check_evolution(recipe: Recipe) -> None:
    if "temperature" not in searched(recipe):
        raise RecipeError(
            "tune.evolve is true while tune.search does not name temperature", "name it, or set tune.evolve to false"
        )
    if not members([recipe]):
        raise RecipeError(
            f"tune.evolve is true while temperature is {describe_temperature(recipe)}, not one number",
            "give one there, or set tune.evolve to false",
        )


def _check_validation(rows: int) -> None:
    smallest = smallest_difference(rows)
    if smallest > COARSEST:
        raise DataError(
            f"the validation split has {rows} examples, which tell no difference below {100 * smallest:.0f} points",
            f"give at least {rows_needed(COARSEST)}; {rows_needed(USEFUL):,} would tell {100 * USEFUL:.0f} points",
        )
