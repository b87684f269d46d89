"""What is done to a model before it learns: layers cut out, dropout set, parts frozen, adapters added."""

from __future__ import annotations

import copy
import fnmatch
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from setpoint.errors import ModelError
from setpoint.recipe import FreezeRecipe, LoraRecipe, ShrunkTeacher, TeacherLayers


def load_weights(model: nn.Module, path: str, field: str) -> None:
    """Give a model the weights of a safetensors file, whose names and shapes have to be the model's own.

    What batch norm counts its batches with may be missing.

    Raises:
        ModelError: the file cannot be read, or holds other weights; ``field`` names it.
    """
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{field} '{path}' cannot be read ({reason})", "give a safetensors file") from None
    own = model.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    for problem, names in (
        ("lacks", own.keys() - counters - found.keys()),
        ("has, which the model lacks,", found.keys() - own.keys()),
    ):
        if names:
            raise ModelError(f"{field} '{path}' {problem} '{min(names)}'", "give weights of this very architecture")
    for name, value in found.items():
        if value.shape != own[name].shape:
            here, there = ("x".join(map(str, tensor.shape)) for tensor in (value, own[name]))
            raise ModelError(
                f"{field} '{path}' has '{name}' of {here} where the model has {there}", "mend the config or give others"
            )
    model.load_state_dict(found, strict=False)


def transformer_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of a model's transformer layers, with its name: the largest one of ``config.num_hidden_layers``.

    Raises:
        ModelError: the model has none.
    """
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    lists = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not lists:
        raise ModelError(f"{type(model).__name__} has no list of layers", "describe the student by a config instead")
    return max(lists, key=lambda pair: sum(p.numel() for p in pair[1].parameters()))


def head_modules(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The modules above a model's body, by name; the last module with weights where there is no body of its own."""
    children = {name: child for name, child in model.named_children() if any(True for _ in child.parameters())}
    if model.base_model_prefix in children:
        return {name: child for name, child in children.items() if name != model.base_model_prefix}
    return dict(list(children.items())[-1:])


def chosen_layers(count: int, spec: TeacherLayers | ShrunkTeacher) -> list[int]:
    """Which of a teacher's layers a student keeps.

    Raises:
        ModelError: the teacher has no such layers.

    Examples:
        >>> chosen_layers(6, TeacherLayers(layers=2)), chosen_layers(6, ShrunkTeacher(layers=3, evenly=True))
        ([0, 1], [0, 2, 5])
    """
    wanted = count if spec.layers is None else spec.layers
    chosen = list(range(wanted)) if isinstance(wanted, int) else list(wanted)
    if any(index >= count for index in chosen) or len(set(chosen)) < len(chosen):
        raise ModelError(
            f"student.model.layers is {spec.layers} while the teacher has {count} layers",
            f"give at most {count}, or a list from 0 to {count - 1}, each once",
        )
    if spec.kind == "shrunk" and spec.evenly:
        return [index * (count - 1) // max(1, len(chosen) - 1) for index in chosen]
    return chosen


def cut_layers(teacher: PreTrainedModel, spec: TeacherLayers | ShrunkTeacher) -> PreTrainedModel:
    """A copy of the teacher with only some of its layers; embeddings and head are the teacher's.

    Raises:
        ModelError: the teacher has no such layers, or is no model without the others.
    """
    student = copy.deepcopy(teacher).requires_grad_(True)
    name, layers = transformer_layers(student)
    chosen = chosen_layers(len(layers), spec)
    parent, _, leaf = name.rpartition(".")
    setattr(student.get_submodule(parent), leaf, nn.ModuleList(layers[index] for index in chosen))
    student.config.num_hidden_layers = len(chosen)
    kinds = getattr(student.config, "layer_types", None)
    if kinds is not None:
        student.config.layer_types = [kinds[index] for index in chosen]
    for position, layer in enumerate(student.get_submodule(name)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
    # Layers may differ by position (ModernBERT's first one has no norm); what could not be loaded again is refused.
    with torch.device("meta"):
        again = type(student)(copy.deepcopy(student.config))
    if _shapes(again) != _shapes(student):
        raise ModelError(
            f"student.model.layers is {spec.layers}, and {type(teacher).__name__} cannot do without the others",
            "keep the first layer, or describe the student by a config",
        )
    return student


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def set_dropout(model: nn.Module, probability: float) -> None:
    """Set every dropout of a model: in its modules, where they keep it as a number, and in its configuration."""
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = probability
        set_dropout_fields(module, probability)
    config = getattr(model, "config", None)
    if config is not None:
        set_dropout_fields(config, probability)


def set_dropout_fields(owner: Any, probability: float) -> None:
    """Set every dropout that a module or a configuration keeps as a number."""
    for name, value in list(vars(owner).items()):
        if ("dropout" in name or name.endswith("pdrop")) and type(value) in (float, int):
            setattr(owner, name, probability)


def freeze(model: PreTrainedModel, recipe: FreezeRecipe) -> None:
    """Take gradients from the parts a recipe names.

    Raises:
        ModelError: there is no such part, or nothing is left to learn.
    """
    if recipe.embeddings:
        try:
            model.get_input_embeddings().requires_grad_(False)
        except NotImplementedError:
            raise ModelError(
                f"student.freeze.embeddings is true, and {type(model).__name__} has none", "remove it"
            ) from None
    if recipe.keep_top is not None:
        _freeze_below(model, recipe.keep_top)
    parameters = dict(model.named_parameters())
    for pattern in recipe.names:
        matched = fnmatch.filter(parameters, pattern)
        if not matched:
            raise ModelError(
                f"student.freeze.names has '{pattern}', which matches no parameter",
                f"mend the pattern; a parameter is '{next(iter(parameters))}'",
            )
        for name in matched:
            parameters[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ModelError("student.freeze leaves nothing to learn", "freeze less")


def _freeze_below(model: PreTrainedModel, keep_top: int) -> None:
    """Freeze the body up to its top layers; what comes after the layers (final norm, pooler) learns with the head."""
    _, layers = transformer_layers(model)
    if keep_top > len(layers):
        raise ModelError(
            f"student.freeze.keep_top is {keep_top} while the student has {len(layers)} layers",
            f"give at most {len(layers)}",
        )
    body = list(model.base_model.parameters())
    position = {id(parameter): index for index, parameter in enumerate(body)}
    kept = {id(parameter) for layer in layers[len(layers) - keep_top :] for parameter in layer.parameters()}
    end = 1 + max(position[id(parameter)] for parameter in layers.parameters())
    for parameter in body[:end]:
        if id(parameter) not in kept:
            parameter.requires_grad_(False)


def add_lora(model: PreTrainedModel, recipe: LoraRecipe) -> PeftModel:
    """Low-rank adapters on the linear layers that learn; the head learns in full, all else is frozen.

    A head that is the input embeddings once more, as language models have it, is frozen with these.

    Raises:
        ModelError: there are no such layers.
    """
    tied = model.get_input_embeddings().weight if getattr(model.config, "tie_word_embeddings", False) else None
    heads = head_modules(model)
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module.weight.requires_grad and name.split(".")[0] not in heads
    ]
    wanted = ("*",) if recipe.modules == "all-linear" else recipe.modules
    targets: set[str] = set()
    for module in wanted:
        matched = [name for name in linear if module in ("*", name) or name.endswith(f".{module}")]
        if not matched:
            raise ModelError(
                f"student.lora.modules is {recipe.modules!r}, which names no linear layer that learns",
                f"name some of {', '.join(sorted({name.rpartition('.')[2] for name in linear})) or 'another model'}",
            )
        targets.update(matched)
    return get_peft_model(
        model,
        LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            lora_dropout=recipe.dropout,
            target_modules=sorted(targets),
            modules_to_save=[
                name
                for name, head in heads.items()
                if any(p.requires_grad for p in head.parameters()) and all(p is not tied for p in head.parameters())
            ],
        ),
    )


def usable_positions(model: nn.Module) -> int | None:
    """How many tokens a model can read; None where its configuration sets no end.

    RoBERTa and its kin number positions from ``padding_idx + 1``, so that they have fewer than their embeddings.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    positions: int | None = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return positions if positions is not None and positions > 0 else None  # XLNet says -1


@torch.no_grad()
def sees_ahead(model: nn.Module) -> bool:
    """Whether another last token changes the logits before it; tried out, since configurations do not tell."""
    training, device = model.training, next(model.parameters()).device
    ids = torch.tensor([[0, 1, 2], [0, 1, 3]], device=device)
    first, second = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :-1]
    model.train(training)
    return bool((first - second).abs().max() > 1e-5 * first.abs().max())
