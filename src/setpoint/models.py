"""Teacher and student: loaded, built from a configuration, or cut out of the teacher; saved."""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import PeftModel
from safetensors import SafetensorError
from tokenizers import pre_tokenizers
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForCTC,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from setpoint.audio import name_vocabulary
from setpoint.class_order import label_fields
from setpoint.class_order import name_classes as name_classes
from setpoint.class_order import order_classes as order_classes
from setpoint.errors import ModelError
from setpoint.files import read_json, sync_files, sync_folder, write_json
from setpoint.recipe import ConfigModel, PretrainedModel, StudentRecipe
from setpoint.surgery import add_lora, cut_layers, freeze, head_modules, load_weights, set_dropout


def load_tokenizer(location: str | Path, field: str = "tokenizer") -> Any:
    """A fast tokenizer from a folder or the hub; ``field`` names it in errors.

    Raises:
        ModelError: there is none.
    """
    with _loading(field, location):
        tokenizer = AutoTokenizer.from_pretrained(str(location), trust_remote_code=False)
        if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):  # transformers makes one of a config alone
            raise ModelError(f"{field} '{location}' has no tokenizer", "save it there, or say where it is")
        if not tokenizer.is_fast:
            raise ModelError(f"{field} '{location}' has no fast version", "give a model with a tokenizer.json")
        if _byte_level(tokenizer):
            # GPT-2's and RoBERTa's take words one by one, as in tagging, only with a space in front of the first too.
            tokenizer = AutoTokenizer.from_pretrained(str(location), trust_remote_code=False, add_prefix_space=True)
            for step in _byte_level(tokenizer):
                step.add_prefix_space = True
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError(f"{field} '{location}' has no token to pad with", "give one with a pad_token")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _byte_level(tokenizer: Any) -> list[Any]:
    steps = tokenizer.backend_tokenizer.pre_tokenizer
    every = list(steps) if isinstance(steps, pre_tokenizers.Sequence) else [steps]  # type: ignore[call-overload]
    return [step for step in every if isinstance(step, pre_tokenizers.ByteLevel)]


def load_model(
    spec: PretrainedModel | ConfigModel,
    model_class: Any,
    labels: Sequence[str] | None,
    tokenizer: Any = None,
    *,
    seed: int = 0,
    needs_head: bool = False,
    field: str = "model",
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
        field: names the model in errors.

    Raises:
        ModelError: it cannot be loaded or built.
    """
    with _seeded(seed):
        if spec.kind == "config":
            return _from_config(spec, model_class, labels, tokenizer, field)
        model = _from_checkpoint(spec.model, model_class, labels, needs_head, field)
    if tokenizer is not None and model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model


def _from_checkpoint(
    location: str, model_class: Any, labels: Sequence[str] | None, needs_head: bool, field: str
) -> PreTrainedModel:
    with _loading(field, location):
        config = AutoConfig.from_pretrained(location, trust_remote_code=False)
        _check_task(config, model_class, f"{field} '{location}'")
        # The architecture it was saved as tells whether it has a head for this very task.
        trained = model_class._model_mapping[type(config)].__name__ in (config.architectures or [])
        if needs_head and not trained:
            raise ModelError(f"{field} '{location}' has no trained head for this task", "say how in teacher.train")
        model, report = model_class.from_pretrained(
            location,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=not trained,
            output_loading_info=True,
            **({} if trained else label_fields(labels, model_class)),
        )
    if model_class is AutoModelForCTC:
        name_vocabulary(model.config, location)
    new = [*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]
    if not trained:  # a new head, and the pooler that feeds it, are all that may be new; a body alone has no head
        heads = () if model_class is AutoModel else tuple(f"{name}." for name in head_modules(model))
        new = [name for name in new if not name.startswith(heads) and "pooler" not in name]
    if new:
        raise ModelError(
            f"{field} '{location}' lacks weights of its architecture, such as '{min(new)}'", "give a whole checkpoint"
        )
    return model


def _from_config(
    spec: ConfigModel, model_class: Any, labels: Sequence[str] | None, tokenizer: Any, field: str
) -> PreTrainedModel:
    fields = _config_fields(spec)
    kind = fields.pop("model_type", None)
    if kind is None:
        raise ModelError("the config has no model_type", "give one such as 'bert'")
    if kind not in CONFIG_MAPPING:
        near = difflib.get_close_matches(str(kind), list(CONFIG_MAPPING), n=1)
        raise ModelError(
            f"the config has model_type '{kind}', which transformers does not know",
            f"did you mean '{near[0]}'?" if near else "give one such as 'bert'",
        )
    if tokenizer is not None:
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        own = {"vocab_size": len(tokenizer)} | {name: token for name, token in ends.items() if token is not None}
        fields = own | fields | {"pad_token_id": tokenizer.pad_token_id}
    elif labels is not None and model_class is AutoModelForCausalLM:  # its tokens are the classes
        fields = {"vocab_size": len(labels), "bos_token_id": None, "eos_token_id": None} | fields
        if fields["vocab_size"] != len(labels):
            raise ModelError(
                f"the config has vocab_size {fields['vocab_size']} where the data have {len(labels)} classes",
                "leave it out",
            )
    if not fields.keys() & {"id2label", "num_labels"} and labels is not None:
        # Which class is which in a file of weights nobody has said.
        fields |= label_fields(labels, model_class) if spec.weights is None else {"num_labels": len(labels)}
    try:
        config = AutoConfig.for_model(kind, **fields)
        _check_task(config, model_class, f"model_type '{kind}'")
        model: PreTrainedModel = model_class.from_config(config)
    except _REASONS as error:
        raise ModelError(f"the config of model_type '{kind}' cannot be built ({_reason(error)})", "mend it") from None
    if spec.weights is not None:
        load_weights(model, spec.weights, f"{field}.weights")
    return model


def _config_fields(spec: ConfigModel) -> dict[str, Any]:
    """What the recipe says, each field checked; or what a file says about the architecture."""
    if isinstance(spec.config, str):
        path = Path(spec.config)
        path = path / "config.json" if path.is_dir() else path
        try:
            fields = dict(read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"config '{path}' cannot be read ({_reason(error)})", "give a config.json") from None
        labels = {"id2label", "label2id", "num_labels", "architectures"}
        return {name: value for name, value in fields.items() if name not in labels}
    kind = spec.config.get("model_type")
    if kind in CONFIG_MAPPING:
        known = AutoConfig.for_model(kind)
        for name in spec.config:
            if not hasattr(known, name):
                near = difflib.get_close_matches(name, list(vars(known)), n=1)
                raise ModelError(
                    f"the config of model_type '{kind}' has no field '{name}'",
                    f"did you mean '{near[0]}'?" if near else f"see {type(known).__name__} in transformers",
                )
    return dict(spec.config)


def _check_task(config: PreTrainedConfig, model_class: Any, who: str) -> None:
    if type(config) not in model_class._model_mapping:
        task = model_class.__name__.removeprefix("AutoModelFor")
        raise ModelError(f"{who} is a {config.model_type}, which has no {task} in transformers", "give another model")


# ---------------------------------------------------------------------------------------------------- students


def build_student(
    recipe: StudentRecipe,
    teacher: PreTrainedModel,
    model_class: Any,
    labels: Sequence[str] | None,
    tokenizer: Any = None,
    *,
    seed: int = 0,
) -> nn.Module:
    """The student a recipe describes, its classes in the order of ``labels``; the same weights for the same seed.

    Args:
        recipe: the recipe's ``student`` section.
        teacher: what ``layers`` cuts from.
        model_class: the Auto class of the task.
        labels: the data's class names; None where the head has none.
        tokenizer: the student's.
        seed: of all new weights.

    Raises:
        ModelError: it cannot be built so.
    """
    assert recipe.model.kind != "shrunk", "stages.shrink puts the folder of its result in its place"
    if recipe.model.kind == "layers":
        model = cut_layers(teacher, recipe.model)
    else:
        model = load_model(recipe.model, model_class, labels, tokenizer, seed=seed, field="student.model")
    model = order_classes(model, labels, "student")
    check_vocabulary(model, tokenizer, "student")
    if recipe.dropout is not None:
        set_dropout(model, recipe.dropout)
    if recipe.freeze is not None:
        freeze(model, recipe.freeze)
    if recipe.lora is not None:
        with _seeded(seed):
            return add_lora(model, recipe.lora)
    return model


def check_vocabulary(model: PreTrainedModel, tokenizer: Any, who: str) -> None:
    """Refuse a tokenizer with more entries than the model has embeddings.

    Raises:
        ModelError: it has.
    """
    if tokenizer is None:
        return
    embeddings = model.get_input_embeddings().num_embeddings
    if embeddings < len(tokenizer):
        raise ModelError(
            f"the {who} has {embeddings} embeddings where its tokenizer has {len(tokenizer)} entries",
            "leave vocab_size out of its config, or give the tokenizer it was made with",
        )


def device() -> torch.device:
    """The accelerator of this machine, where it has one; else the CPU."""
    return torch.accelerator.current_accelerator() or torch.device("cpu")


# ---------------------------------------------------------------------------------------------------- saving


def merge_lora(model: nn.Module) -> nn.Module:
    """The plain model with its adapters merged into its weights; any other model as it is."""
    return model.merge_and_unload() if isinstance(model, PeftModel) else model


def save_model(
    model: nn.Module, processor: Any, folder: str | Path, files: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Save model, tokenizer and JSON files as a folder for transformers, adapters merged; whole or not at all."""
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    merge_lora(model).save_pretrained(partial)  # type: ignore[operator]
    if processor is not None:
        processor.save_pretrained(partial)
    for name, content in files.items():
        write_json(partial / name, content)
    sync_files(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    sync_folder(folder.parent)


# ---------------------------------------------------------------------------------------------------- helpers

_REASONS = (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError, SafetensorError, StrictDataclassError)
"""What transformers and what it stands on raise for a model that cannot be had."""


@contextmanager
def _loading(what: str, location: str | Path) -> Iterator[None]:
    """Make one sentence of whatever the libraries say about a model that cannot be loaded."""
    if str(location).startswith(("/", ".", "~")) and not Path(location).exists():
        raise ModelError(f"{what} '{location}' does not exist", "give a folder that is there, or a hub id")
    try:
        yield
    except _REASONS as error:
        raise ModelError(
            f"{what} '{location}' cannot be loaded ({_reason(error)})",
            "give a folder with safetensors weights and all else it needs, or a hub id and a connection",
        ) from None


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """New weights from a seed, the global generator left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _reason(error: BaseException) -> str:
    """The first sentence of a library's message."""
    text = re.split(r"[.!] +(?=[A-Z])", " ".join(str(error).split()))[0] or type(error).__name__
    return (text if len(text) <= 160 else f"{text[:157]}…").rstrip(".:")
