"""Whether features can be had of a recipe's teacher and student, by their configurations alone; pre-trainings."""

from __future__ import annotations

import copy

import torch
from transformers import AutoConfig, PreTrainedConfig

from setpoint import models
from setpoint.errors import ModelError, RecipeError
from setpoint.features import FeatureObjective
from setpoint.recipe import ConfigModel, PretrainedModel, Recipe
from setpoint.recipe_features import FeatureRecipe
from setpoint.surgery import set_dropout_fields
from setpoint.tasks.base import Task


def check_pretraining(recipe: Recipe, task: Task) -> None:
    """Refuse, before anything is trained, a pre-training of what comes trained, or on states that are not there.

    Args:
        recipe: the recipe.
        task: its task.

    Raises:
        RecipeError: inner states of a task without texts.
        ModelError: the student is made from its trained teacher, who teaches knows nothing, or a model has no such
            states.
    """
    how, spec, field = recipe.student.pretrain, recipe.student.model, "student.pretrain"
    if how is None:
        return
    if spec.kind == "layers" or spec.kind == "shrunk":
        what = "layers of a trained teacher" if spec.kind == "layers" else "its trained teacher made smaller"
        raise ModelError(f"{field} is given for {what}", "remove it, or describe a config")
    if how.objective != "features":
        return
    if not task.text:
        raise RecipeError(
            f"recipe field '{field}.objective' is features for the task {recipe.task}, which reads no text",
            f"remove {field}",
        )
    teacher = recipe.teacher.model if how.teacher is None else PretrainedModel(model=how.teacher)
    if teacher.kind == "config" and teacher.weights is None and recipe.teacher.pretrain is None:
        raise ModelError(
            f"{field}.objective is features while teacher.model is a bare config, which knows nothing of texts",
            f"give {field}.teacher, or teacher.pretrain",
        )
    _check_states(
        recipe, how.features, _config(recipe, spec, task), _config(recipe, teacher, task), f"{field}.features"
    )


def check_features(recipe: Recipe, task: Task) -> None:
    """Refuse, before anything is trained, features of states that a store, the teacher or the student does not have.

    Args:
        recipe: the recipe.
        task: its task.

    Raises:
        RecipeError: the teacher is not live.
        ModelError: a model has no such states.
    """
    if not recipe.objective.features:
        return
    if recipe.targets.kind == "store":
        raise RecipeError(
            "recipe field 'objective.features' is given while targets.kind is store, which keeps logits alone",
            "set targets.kind to live",
        )
    spec = recipe.student.model
    if spec.kind == "shrunk":  # its sizes are known when it is made
        return
    teacher = _config(recipe, recipe.teacher.model, task)
    if spec.kind == "layers":
        student = copy.deepcopy(teacher)
        if student is not None:
            student.num_hidden_layers = spec.layers if isinstance(spec.layers, int) else len(spec.layers)
    else:
        student = _config(recipe, spec, task)
    _check_states(recipe, recipe.objective.features, student, teacher, "objective.features")


def _check_states(
    recipe: Recipe,
    features: tuple[FeatureRecipe, ...],
    student: PreTrainedConfig | None,
    teacher: PreTrainedConfig | None,
    field: str,
) -> None:
    """Refuse features that these two configurations, where they are known, do not have."""
    if teacher is None or student is None:
        return
    if recipe.student.dropout is not None:
        set_dropout_fields(student, recipe.student.dropout)
    with torch.device("meta"):
        FeatureObjective(features, student, teacher, field=field)


def _config(recipe: Recipe, spec: PretrainedModel | ConfigModel, task: Task) -> PreTrainedConfig | None:
    """The configuration of a model; None where there is none, which who loads it says better."""
    if spec.kind == "config":
        with torch.device("meta"):
            bare = spec.model_copy(update={"weights": None})
            return models.load_model(bare, task.model_class(), recipe.data.labels).config
    try:
        return AutoConfig.from_pretrained(spec.model, trust_remote_code=False)
    except (OSError, ValueError):
        return None
