"""Teacher and student: loaded, built from a configuration, or cut out of the teacher; frozen, adapted, saved."""

from __future__ import annotations

import copy
import fnmatch
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel

from setpoint.errors import ModelError
from setpoint.files import read_json, sync_folder
from setpoint.recipe import ConfigModel, FreezeRecipe, LoraRecipe, PretrainedModel, StudentRecipe, TeacherLayers


def load_tokenizer(location: str | Path) -> Any:
    """A fast tokenizer from a folder or the hub.

    Raises:
        ModelError: there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(location), use_fast=True)
        if getattr(tokenizer, "add_prefix_space", None) is False:
            # Byte-level tokenizers (GPT-2, RoBERTa) take words one by one only with a space in front of each.
            tokenizer = AutoTokenizer.from_pretrained(str(location), use_fast=True, add_prefix_space=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"tokenizer '{location}' cannot be loaded ({_first_line(error)})", _WHERE) from None
    if not tokenizer.is_fast:
        raise ModelError(f"tokenizer '{location}' has no fast version", "give a model with a tokenizer.json")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    spec: PretrainedModel | ConfigModel,
    model_class: Any,
    labels: Sequence[str] | None,
    tokenizer: Any = None,
    *,
    seed: int = 0,
    needs_head: bool = False,
) -> PreTrainedModel:
    """A model for a task, float32.

    A checkpoint that has a head for the task keeps it and its own order of labels; any other gets a new head for
    ``labels``. New weights are drawn from ``seed`` and nothing else.

    Args:
        spec: where the model is, or what it is.
        model_class: the Auto class of the task.
        labels: the data's class names; None for a language model.
        tokenizer: gives a configuration its vocabulary size, where it names none.
        seed: of the new weights.
        needs_head: refuse a checkpoint without a trained head.

    Raises:
        ModelError: it cannot be loaded or built.
    """
    with _seeded(seed):
        if spec.kind == "config":
            return model_class.from_config(_config(spec, labels, tokenizer))
        try:
            config = AutoConfig.from_pretrained(spec.model)
            has_head = _has_head(config, model_class)
            names = {} if has_head else _label_fields(labels)
            if needs_head and not has_head:
                raise ModelError(
                    f"teacher.model '{spec.model}' has no trained head for this task", "say how in teacher.train"
                )
            return model_class.from_pretrained(spec.model, dtype=torch.float32, use_safetensors=True, **names)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"model '{spec.model}' cannot be loaded ({_first_line(error)})", _WHERE) from None


_WHERE = "give a local folder with safetensors weights, or a hub id and a connection"


def _has_head(config: PreTrainedConfig, model_class: Any) -> bool:
    """Whether a checkpoint was saved from a model of the task's own class."""
    expected = model_class._model_mapping.get(type(config), None)
    return expected is not None and expected.__name__ in (config.architectures or [])


def _label_fields(labels: Sequence[str] | None) -> dict[str, Any]:
    if labels is None:
        return {}
    return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}


def _config(spec: ConfigModel, labels: Sequence[str] | None, tokenizer: Any) -> PreTrainedConfig:
    fields = spec.config
    if isinstance(fields, str):
        path = Path(fields) / "config.json" if Path(fields).is_dir() else Path(fields)
        try:
            fields = read_json(path)
        except (OSError, ValueError) as error:
            raise ModelError(f"config '{path}' cannot be read ({_first_line(error)})", "give a config.json") from None
    fields = dict(fields)
    kind = fields.pop("model_type", None)
    if tokenizer is not None:
        fields = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id} | fields
    try:
        config = AutoConfig.for_model(kind)
        unknown = sorted(name for name in fields if not hasattr(config, name))
        if unknown:
            raise ModelError(
                f"model_type '{kind}' has no field '{unknown[0]}'", "see its configuration in transformers"
            )
        return AutoConfig.for_model(kind, **fields, **_label_fields(labels))
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"model_type '{kind}' cannot be built ({_first_line(error)})", "mend the config") from None


# ---------------------------------------------------------------------------------------------------- labels


def match_classes(model_labels: Mapping[int, str], labels: Sequence[str], who: str) -> list[int] | None:
    """For each data label its column in a model's logits, matched by name; None where the order is the same.

    Args:
        model_labels: ``config.id2label``. Names such as LABEL_0 are no names; then only the count is compared.
        labels: the data's class names, in order.
        who: names the model in the error.

    Raises:
        ModelError: the two sets of labels differ.

    Example:
        >>> match_classes({0: "yes", 1: "no"}, ("no", "yes"), "teacher")
        [1, 0]
    """
    names = [model_labels[index] for index in sorted(model_labels)]
    if len(names) != len(labels):
        raise ModelError(
            f"the {who} has {len(names)} classes where the data have {len(labels)}",
            f"give a {who} with the labels {', '.join(labels[:12])}",
        )
    if all(re.fullmatch(r"LABEL_\d+", name) for name in names):
        return None
    different = sorted(set(names) ^ set(labels))
    if different:
        raise ModelError(
            f"the labels of {who} and data differ in {', '.join(map(repr, different[:6]))}",
            f"give a {who} with the labels of the data, or set data.labels",
        )
    order = [names.index(label) for label in labels]
    return None if order == list(range(len(labels))) else order


def order_classes(model: PreTrainedModel, labels: Sequence[str], who: str) -> PreTrainedModel:
    """Bring a model's head into the order of the data's labels, in place.

    Raises:
        ModelError: the two sets of labels differ.
    """
    order = match_classes(model.config.id2label, labels, who)
    if order is not None:
        heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == len(labels)]
        head = heads[-1]
        head.weight.data = head.weight.data[order].clone()
        if head.bias is not None:
            head.bias.data = head.bias.data[order].clone()
    model.config.update(_label_fields(labels))
    return model


# ---------------------------------------------------------------------------------------------------- students


def build_student(
    recipe: StudentRecipe,
    teacher: PreTrainedModel,
    model_class: Any,
    labels: Sequence[str],
    tokenizer: Any = None,
    *,
    seed: int = 0,
) -> nn.Module:
    """The student a recipe describes, its classes in the order of ``labels``; the same weights for the same seed.

    Args:
        recipe: the recipe's ``student`` section.
        teacher: what ``layers`` cuts from.
        model_class: the Auto class of the task.
        labels: the data's class names.
        tokenizer: the student's.
        seed: of all new weights.

    Raises:
        ModelError: it cannot be built so.
    """
    if recipe.model.kind == "layers":
        model = cut_layers(teacher, recipe.model)
    else:
        model = load_model(recipe.model, model_class, labels, tokenizer, seed=seed)
    model = order_classes(model, labels, "student")
    if tokenizer is not None and model.get_input_embeddings().num_embeddings < len(tokenizer):
        raise ModelError(
            f"the student has {model.get_input_embeddings().num_embeddings} embeddings, its tokenizer {len(tokenizer)}",
            "set student.tokenizer, or leave vocab_size out of the config",
        )
    if recipe.dropout is not None:
        set_dropout(model, recipe.dropout)
    if recipe.lora is not None:
        with _seeded(seed):
            model = add_lora(model, recipe.lora)
    if recipe.freeze is not None:
        freeze(model, recipe.freeze)
    return model


def transformer_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of a model's transformer layers, with its name.

    Raises:
        ModelError: the model has none.
    """
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise ModelError(f"{type(model).__name__} has no list of layers", "describe the student by a config instead")


def cut_layers(teacher: PreTrainedModel, spec: TeacherLayers) -> PreTrainedModel:
    """A copy of the teacher with only some of its layers; embeddings and head are the teacher's."""
    student = copy.deepcopy(teacher).requires_grad_(True)
    name, layers = transformer_layers(student)
    chosen = list(range(spec.layers)) if isinstance(spec.layers, int) else list(spec.layers)
    if any(index >= len(layers) for index in chosen) or not chosen:
        raise ModelError(
            f"student.model.layers is {spec.layers} while the teacher has {len(layers)} layers",
            f"choose from 0 to {len(layers) - 1}",
        )
    parent, _, leaf = name.rpartition(".")
    setattr(student.get_submodule(parent), leaf, nn.ModuleList(layers[index] for index in chosen))
    student.config.num_hidden_layers = len(chosen)
    for position, layer in enumerate(student.get_submodule(name)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
    return student


def set_dropout(model: nn.Module, probability: float) -> None:
    """Set every dropout of a model, in its modules and its configuration."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
    config = getattr(model, "config", None)
    for name in list(vars(config)) if config is not None else []:
        if "dropout" in name and isinstance(getattr(config, name), float | int):
            setattr(config, name, probability)


def freeze(model: nn.Module, recipe: FreezeRecipe) -> None:
    """Take gradients from the parts a recipe names; the head always learns.

    Raises:
        ModelError: a name matches no parameter, or nothing is left to learn.
    """
    if recipe.embeddings:
        model.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]
    if recipe.keep_top is not None:
        name, layers = transformer_layers(getattr(model, "base_model", model))
        kept = {id(p) for layer in layers[len(layers) - recipe.keep_top :] for p in layer.parameters()}
        for parameter in model.base_model.parameters():  # type: ignore[union-attr]
            if id(parameter) not in kept:
                parameter.requires_grad_(False)
    parameters = dict(model.named_parameters())
    for pattern in recipe.names:
        matched = fnmatch.filter(parameters, pattern)
        if not matched:
            raise ModelError(f"student.freeze.names has '{pattern}', which matches no parameter", "mend the pattern")
        for name in matched:
            parameters[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ModelError("student.freeze leaves nothing to learn", "freeze less")


def add_lora(model: PreTrainedModel, recipe: LoraRecipe) -> PeftModel:
    """Low-rank adapters on a frozen model; the head learns in full."""
    body = getattr(model, model.base_model_prefix, None)
    heads = [name for name, part in model.named_children() if part is not body and any(True for _ in part.parameters())]
    modules = recipe.modules if isinstance(recipe.modules, str) else list(recipe.modules)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=modules,
        exclude_modules=heads if isinstance(modules, str) else None,
        modules_to_save=heads,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(f"student.lora cannot be added ({_first_line(error)})", "mend student.lora.modules") from None


def save_model(model: nn.Module, processor: Any, folder: str | Path) -> None:
    """Save model and tokenizer as a folder that transformers loads, adapters merged; whole or not at all."""
    folder = Path(folder)
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save_pretrained(partial)  # type: ignore[operator]
    if processor is not None:
        processor.save_pretrained(partial)
    for file in partial.iterdir():
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    sync_folder(folder.parent)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """New weights from a seed, the global generator left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".:") if text else type(error).__name__
