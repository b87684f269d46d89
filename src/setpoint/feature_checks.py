"""Whether features can be had of a recipe's teacher and student, by their configurations alone; pre-trainings."""

from __future__ import annotations

import copy
from pathlib import Path

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
        recipe, how.features, config_of(recipe, spec, task), config_of(recipe, teacher, task), f"{field}.features"
    )


def check_features(recipe: Recipe, task: Task) -> None:
    """Refuse, before anything is trained, features of states that a store, the teacher or the student does not have.

    Args:
        recipe: the recipe.
        task: its task.

    Raises:
        RecipeError: a store has no such states.
        ModelError: a model has no such states.
    """
    if not recipe.objective.features:
        return
    if recipe.targets.kind == "store":
        _check_stored(recipe, task)
    teacher = config_of(recipe, recipe.teacher.model, task)
    if recipe.student.model.kind != "shrunk":  # its sizes are known when it is made
        _check_states(recipe, recipe.objective.features, _student(recipe, teacher, task), teacher, "objective.features")


def compared(recipe: Recipe, task: Task, teacher: PreTrainedConfig, shrunk: Path) -> FeatureObjective:
    """The features of a recipe as its configurations have them, without any numbers: which layers they compare.

    Args:
        recipe: the recipe.
        task: its task.
        teacher: the teacher's configuration.
        shrunk: the folder of the student that is made from it.

    Raises:
        ModelError: a model has no such states.
    """
    made = recipe.student.model.kind == "shrunk"
    student = AutoConfig.from_pretrained(shrunk) if made else _student(recipe, teacher, task)
    if recipe.student.dropout is not None:
        set_dropout_fields(student, recipe.student.dropout)
    with torch.device("meta"):
        return FeatureObjective(recipe.objective.features, student, teacher)


def _check_stored(recipe: Recipe, task: Task) -> None:
    """Refuse what a store does not have of a teacher's inside: it keeps the hidden states of the tokens of texts."""
    student, field = recipe.student, "recipe field 'objective.features'"
    for feature in recipe.objective.features:
        if feature.kind in ("attention", "attention_transfer"):
            raise RecipeError(
                f"{field} has {feature.kind} while targets.kind is store, which keeps logits and hidden states alone",
                "set targets.kind to live",
            )
    if not task.text:
        raise RecipeError(
            f"{field} is given while targets.kind is store, which keeps the inner states of texts alone",
            "set targets.kind to live",
        )
    own = {
        "student.tokenizer is": student.tokenizer is not None,
        "student.model.vocabulary makes": student.model.kind == "shrunk" and student.model.vocabulary is not None,
        "student.pretrain.new_tokenizer makes": student.pretrain is not None and student.pretrain.new_tokenizer,
        "student.pretrain takes": student.pretrain is not None and student.model.kind == "pretrained",
    }
    for what, there in own.items():
        if there:
            raise RecipeError(
                f"{field} compares states token by token while {what} a tokenizer of the student's own", "remove it"
            )


def _student(recipe: Recipe, teacher: PreTrainedConfig | None, task: Task) -> PreTrainedConfig | None:
    """The configuration of a student that is not shrunk; None where it is not known."""
    spec = recipe.student.model
    if spec.kind != "layers":
        assert spec.kind != "shrunk"
        return config_of(recipe, spec, task)
    student = copy.deepcopy(teacher)
    if student is not None:
        student.num_hidden_layers = spec.layers if isinstance(spec.layers, int) else len(spec.layers)
    return student


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


def config_of(recipe: Recipe, spec: PretrainedModel | ConfigModel, task: Task) -> PreTrainedConfig | None:
    """The configuration of a model; None where there is none, which who loads it says better."""
    if spec.kind == "config":
        with torch.device("meta"):
            bare = spec.model_copy(update={"weights": None})
            return models.load_model(bare, task.model_class(), recipe.data.labels).config
    try:
        return AutoConfig.from_pretrained(spec.model, trust_remote_code=False)
    except (OSError, ValueError):
        return None
