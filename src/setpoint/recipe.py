"""The schema of a recipe: what a run is, as one frozen value.

A recipe is YAML. Every part below is a section of it; unknown keys are errors that name the nearest known key; a
relative path counts from the recipe's own folder, so a recipe can be run from anywhere. Reading one: ``recipe_file``.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator


class Part(BaseModel):
    """A section of a recipe: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _resolve(value: str, info: ValidationInfo) -> str:
    """Make a local path absolute; leave hub ids and split names alone."""
    folder = (info.context or {}).get("folder")
    if value.startswith("package:"):
        package, _, inside = value.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise ValueError(f"needs the Python package '{package}', which is not installed")
        return str(Path(spec.origin).parent / inside)
    if value.startswith("~"):
        return str(Path(value).expanduser())
    if folder is not None and value.startswith(("./", "../")):
        return str((Path(folder) / value).resolve())
    return value


Location = Annotated[str, Field(min_length=1), AfterValidator(_resolve)]
"""A hub id, or a path: absolute, from home (``~``), relative to the recipe (``./``, ``../``), or inside an installed
Python package (``package:NAME/FOLDER``)."""


def _finite_positive(value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError("must be a finite number above 0")
    return value


Positive = Annotated[float, AfterValidator(_finite_positive)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


# ---------------------------------------------------------------------------------------------------- data


class ShiftAugment(Part):
    """Random translation of images by up to ``pixels`` in each direction.

    With ``views`` each example has that many fixed, seeded views, and teacher and student see the same ones; without
    it the augmentation is new at each epoch and the teacher has to be live (``targets: {kind: live}``).
    """

    kind: Literal["shift"] = "shift"
    pixels: Count = 1
    views: Count | None = None


class DataRecipe(Part):
    """Where the examples are and which columns matter.

    Either ``dataset`` (a hub id, a folder that ``datasets`` wrote, or the built-in ``digits``) with split *names* in
    ``train``, ``validation`` and ``test``; or no ``dataset`` and *files* there (CoNLL columns, JSONL, CSV, Parquet;
    ``.gz`` too). Without a validation split a tenth of the training split is set aside, the same each time.
    """

    dataset: Location | None = None
    config: str | None = None
    train: Location | None = None
    validation: Location | None = None
    test: Location | None = None
    format: Literal["conll", "jsonl", "csv", "parquet"] | None = None
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    tokens: str = "tokens"
    tags: str = "ner_tags"
    image: str = "image"
    labels: tuple[str, ...] | None = Field(default=None, min_length=2)
    max_length: Count = 128
    augment: ShiftAugment | None = None
    limit: Count | None = None

    @model_validator(mode="after")
    def _has_a_source(self) -> DataRecipe:
        if self.dataset is None and (self.train is None or self.test is None):
            raise ValueError("needs either dataset, or the files train and test")
        return self


# ---------------------------------------------------------------------------------------------------- training


class TrainRecipe(Part):
    """How a model is trained. ``arguments`` takes any field of ``transformers.TrainingArguments`` as it is."""

    epochs: Positive = 3.0
    batch_size: Count = 32
    learning_rate: Positive = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Fraction = 0.06
    scheduler: str = "linear"
    optimizer: str = "adamw_torch"
    gradient_accumulation: Count = 1
    early_stopping: Count | None = None
    keep_best: bool = False
    arguments: dict[str, Any] = {}


# ---------------------------------------------------------------------------------------------------- models


class PretrainedModel(Part):
    """A model with weights: a hub id or a local folder."""

    kind: Literal["pretrained"] = "pretrained"
    model: Location


class ConfigModel(Part):
    """A model without weights: ``config`` is what a ``config.json`` holds (``model_type`` and more), or its path."""

    kind: Literal["config"] = "config"
    config: dict[str, Any] | Location


class TeacherLayers(Part):
    """The teacher itself, cut to some of its layers: ``layers: 3`` keeps the first three, a list keeps those."""

    kind: Literal["layers"] = "layers"
    layers: Count | tuple[Annotated[int, Field(ge=0)], ...]


def _model_by_name(value: Any) -> Any:
    return {"kind": "pretrained", "model": value} if isinstance(value, str) else value


TeacherModel = Annotated[
    Annotated[PretrainedModel | ConfigModel, Field(discriminator="kind")], BeforeValidator(_model_by_name)
]
StudentModel = Annotated[
    Annotated[PretrainedModel | ConfigModel | TeacherLayers, Field(discriminator="kind")],
    BeforeValidator(_model_by_name),
]


class PretrainRecipe(Part):
    """Self-supervised pre-training on raw text (one example a line) before the task is learnt.

    Without a tokenizer of its own or its teacher's the model gets one trained on that very text, of ``vocab_size``.
    """

    objective: Literal["masked", "causal"] = "masked"
    text: Location
    mask_probability: Fraction = 0.15
    max_length: Count = 128
    new_tokenizer: bool = False
    vocab_size: Annotated[int, Field(ge=100)] = 8000
    train: TrainRecipe = TrainRecipe(epochs=1.0, learning_rate=5e-4)


class LoraRecipe(Part):
    """Low-rank adapters by peft; merged into the weights when the student is saved."""

    rank: Count = 8
    alpha: Positive = 16.0
    dropout: Fraction = 0.0
    modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"


class FreezeRecipe(Part):
    """Which parameters stay as they are; the three may be combined.

    ``embeddings`` freezes the input embeddings, ``keep_top`` all but the head and the top n layers, ``names`` every
    parameter whose name matches one of these shell patterns (``*.attention.*``).
    """

    embeddings: bool = False
    keep_top: Annotated[int, Field(ge=0)] | None = None
    names: tuple[str, ...] = ()


class TeacherRecipe(Part):
    """The teacher; with ``train`` it is fine-tuned on the task first, without it is taken as it is."""

    model: TeacherModel
    tokenizer: Location | None = None
    pretrain: PretrainRecipe | None = None
    train: TrainRecipe | None = None


class StudentRecipe(Part):
    """The student: an architecture, and which parts of it learn. Its tokenizer is the teacher's unless given."""

    model: StudentModel
    tokenizer: Location | None = None
    pretrain: PretrainRecipe | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    freeze: FreezeRecipe | None = None
    lora: LoraRecipe | None = None


# ---------------------------------------------------------------------------------------------------- distillation


class ConstantTemperature(Part):
    """One temperature, as ``temperature`` or ``beta`` = 1/T; or one for each side, ``teacher`` and ``student``."""

    policy: Literal["constant"] = "constant"
    temperature: Positive | None = None
    beta: Positive | None = None
    teacher: Positive | None = None
    student: Positive | None = None

    @model_validator(mode="after")
    def _one_way(self) -> ConstantTemperature:
        one = (self.temperature is not None) + (self.beta is not None)
        sides = (self.teacher is not None) + (self.student is not None)
        if (one, sides) not in {(1, 0), (0, 2)}:
            raise ValueError("takes temperature, or beta, or both teacher and student")
        return self


class ScheduledTemperature(Part):
    """A temperature that goes from ``start`` to ``end`` over the training."""

    policy: Literal["linear", "cosine", "exponential"]
    start: Positive
    end: Positive


class StepTemperature(Part):
    """A temperature that jumps: ``steps`` maps the progress at which a temperature begins to it; the first is 0."""

    policy: Literal["step"]
    steps: dict[Fraction, Positive]

    @model_validator(mode="after")
    def _starts_at_zero(self) -> StepTemperature:
        if 0.0 not in self.steps:
            raise ValueError("needs a temperature for progress 0.0")
        return self


def _temperature_by_number(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"policy": "constant", "temperature": value}
    if isinstance(value, dict) and "policy" not in value:
        return {"policy": "constant", **value}
    return value


TemperatureRecipe = Annotated[
    Annotated[ConstantTemperature | ScheduledTemperature | StepTemperature, Field(discriminator="policy")],
    BeforeValidator(_temperature_by_number),
]


class HardRecipe(Part):
    """What the hard loss is taken against: the data's labels, the teacher's argmax, or labels sampled from p_T."""

    kind: Literal["labels", "teacher_argmax", "teacher_sample"] = "labels"
    top_k: Count | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class ObjectiveRecipe(Part):
    """α · divergence + (1 − α) · hard loss."""

    divergence: Literal["forward_kl", "reverse_kl", "jensen_shannon", "soft_cross_entropy", "logit_mse"] = "forward_kl"
    alpha: Fraction = 0.9
    hard: HardRecipe = HardRecipe()


class TargetsRecipe(Part):
    """The teacher's logits: computed once into a ``store``, or by a ``live`` teacher at each step."""

    kind: Literal["store", "live"] = "store"
    dtype: Literal["float16", "float32"] = "float16"
    shard_examples: Count = 1024
    batch_size: Count = 32


# ---------------------------------------------------------------------------------------------------- the whole


class Recipe(Part):
    """A distillation from data to report. See ``recipes/`` for ready ones."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    task: Literal["token-classification", "text-classification", "image-classification"]
    data: DataRecipe
    teacher: TeacherRecipe
    student: StudentRecipe
    temperature: TemperatureRecipe = ConstantTemperature(temperature=4.0)
    objective: ObjectiveRecipe = ObjectiveRecipe()
    targets: TargetsRecipe = TargetsRecipe()
    train: TrainRecipe = TrainRecipe()
    hard_baseline: bool = True
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
