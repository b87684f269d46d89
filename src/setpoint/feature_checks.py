"""Whether a recipe's features can be had of its teacher and its student, told by their configurations alone."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from setpoint import models
from setpoint.errors import RecipeError
from setpoint.features import FeatureObjective
from setpoint.recipe import ConfigModel, PretrainedModel, Recipe
from setpoint.surgery import set_dropout_fields


def check_features(recipe: Recipe, model_class: Any) -> None:
    """Refuse, before anything is trained, features of states that a store, the teacher or the student does not have.

    Args:
        recipe: the recipe.
        model_class: the Auto class of its task.

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
    teacher = _config(recipe, recipe.teacher.model, model_class)
    if spec.kind == "layers":
        student = copy.deepcopy(teacher)
        if student is not None:
            student.num_hidden_layers = spec.layers if isinstance(spec.layers, int) else len(spec.layers)
    else:
        student = _config(recipe, spec, model_class)
    if teacher is None or student is None:
        return
    if recipe.student.dropout is not None:
        set_dropout_fields(student, recipe.student.dropout)
    with torch.device("meta"):
        FeatureObjective(recipe.objective.features, student, teacher)


def _config(recipe: Recipe, spec: PretrainedModel | ConfigModel, model_class: Any) -> PreTrainedConfig | None:
    """The configuration of a model; None where there is none, which who loads it says better."""
    if spec.kind == "config":
        with torch.device("meta"):
            bare = spec.model_copy(update={"weights": None})
            return models.load_model(bare, model_class, recipe.data.labels).config
    try:
        return AutoConfig.from_pretrained(spec.model, trust_remote_code=False)
    except (OSError, ValueError):
        return None
