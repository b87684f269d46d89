"""The schema of a recipe: what a run is, as one frozen value.

A recipe is YAML. Every part below is a section of it; unknown keys are errors that name the nearest known key; a
relative path counts from the recipe's own folder, so a recipe can be run from anywhere. Reading one: ``recipe_file``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from setpoint.recipe_dataset import DataRecipe as DataRecipe
from setpoint.recipe_features import Features
from setpoint.recipe_objective import ObjectiveRecipe
from setpoint.recipe_temperature import ConstantTemperature, TemperatureRecipe
from setpoint.recipe_tune import TuneRecipe
from setpoint.recipe_values import (
    Amount,
    Count,
    File,
    Flag,
    Index,
    Labels,
    Location,
    MaskShare,
    Part,
    Positive,
    Rate,
    Seeds,
    Text,
    VocabularySize,
)

# ---------------------------------------------------------------------------------------------------- training


class TrainRecipe(Part):
    """How a model is trained."""

    epochs: Positive = 3.0
    """Passes over the training split."""
    batch_size: Count = 32
    """Examples in a micro-batch, on each device."""
    learning_rate: Positive = 5e-5
    """The peak of the learning rate."""
    weight_decay: Amount = 0.01
    """Decoupled weight decay."""
    warmup: Rate = 0.06
    """Share of the steps over which the learning rate rises."""
    scheduler: Text = "linear"
    """How the learning rate falls: a name of transformers, such as ``cosine``."""
    optimizer: Text = "adamw_torch_fused"
    """A name of transformers, such as ``sgd``."""
    gradient_accumulation: Count = 1
    """Micro-batches in an optimisation step."""
    early_stopping: Count | None = None
    """Stop after that many epochs without a better validation score."""
    keep_best: Flag = False
    """Keep the epoch with the best validation score, not the last."""
    arguments: dict[Text, Any] = {}  # noqa: RUF012 - pydantic copies it
    """Any field of ``transformers.TrainingArguments`` as it is; these come last."""


# ---------------------------------------------------------------------------------------------------- models


class PretrainedModel(Part):
    """A model with weights."""

    kind: Literal["pretrained"] = "pretrained"
    model: Location
    """A hub id or a local folder."""


class ConfigModel(Part):
    """An architecture, with new weights or with those of a file."""

    kind: Literal["config"] = "config"
    config: dict[Text, Any] | Location
    """What a config.json holds (``model_type`` and more), or the path of one."""
    weights: File | None = None
    """A safetensors file of weights with the architecture's own names; new ones where not given."""


class TeacherLayers(Part):
    """The teacher itself, cut to some of its layers."""

    kind: Literal["layers"] = "layers"
    layers: Count | Annotated[tuple[Index, ...], Field(min_length=1)]
    """A number keeps that many first layers, a list keeps those; the first is 0."""


class VocabularyRecipe(Part):
    """Which entries of the teacher's vocabulary stay: those of the training texts, special ones, and single signs."""

    text: tuple[File, ...] = ()
    """Raw texts that count too: an example a line, or JSONL with ``text``; ``.gz`` too."""
    most: VocabularySize | None = None
    """Entries at most, the most frequent first."""


class ShrunkTeacher(Part):
    """The teacher itself, made smaller; what is not given stays as it is."""

    kind: Literal["shrunk"] = "shrunk"
    layers: Count | Annotated[tuple[Index, ...], Field(min_length=1)] | None = None
    """A number keeps that many first layers, a list keeps those; the first is 0."""
    evenly: Flag = False
    """Keep as many layers evenly spread, from the first to the last, in place of the first ones."""
    vocabulary: VocabularyRecipe | None = None
    """Keep only the words that a corpus needs; the tokenizer becomes one of the student's own."""
    embedding_size: Count | None = None
    """The width of the embeddings, in front of a projection to that of the layers."""
    hidden_size: Count | None = None
    """The width of the layers."""
    intermediate_size: Count | None = None
    """The neurons of a layer's feed-forward part; in proportion to ``hidden_size`` where not given."""
    heads: Count | None = None
    """The heads of a layer's attention; as wide as the teacher's where not given."""

    @model_validator(mode="after")
    def _spreads_a_number(self) -> ShrunkTeacher:
        if self.evenly and not isinstance(self.layers, int):
            raise ValueError("has evenly without a number of layers: give layers as a number")
        return self


def _model_by_name(value: Any) -> Any:
    if isinstance(value, str):
        return {"kind": "pretrained", "model": value}
    if not isinstance(value, dict | Part):
        raise ValueError("give a hub id, a folder, or a section of fields")
    return value if isinstance(value, Part) or "kind" in value else {"kind": "pretrained", **value}


TeacherModel = Annotated[
    Annotated[PretrainedModel | ConfigModel, Field(discriminator="kind")], BeforeValidator(_model_by_name)
]
StudentModel = Annotated[
    Annotated[PretrainedModel | ConfigModel | TeacherLayers | ShrunkTeacher, Field(discriminator="kind")],
    BeforeValidator(_model_by_name),
]


class PretrainRecipe(Part):
    """Pre-training on raw text before the task is learnt: self-supervised, or on a teacher's inner states.

    Without a tokenizer of its own or its teacher's the model gets one trained on that very text, of ``vocab_size``.
    """

    objective: Literal["masked", "causal", "features"] = "masked"
    """Predict masked tokens, or each next token; or, for students, become like a teacher inside (TinyBERT's general
    distillation)."""
    features: Features = ()
    """What is learnt of a teacher's inner states, with the objective ``features``; as in ``objective.features``."""
    teacher: Location | None = None
    """Whose states these are: a hub id or a folder; the recipe's teacher before its fine-tuning where not given."""
    text: File
    """A text file with an example a line, or JSONL with ``text``; ``.gz`` and ``.xz`` too."""
    mask_probability: MaskShare = 0.15
    """Share of the tokens that are masked."""
    max_length: Count = 128
    """Tokens after which a text is cut."""
    new_tokenizer: Flag = False
    """Train a tokenizer on the text though there is one already."""
    vocab_size: VocabularySize = 8000
    """Entries of a new tokenizer, at most."""
    train: TrainRecipe = TrainRecipe(epochs=1.0, learning_rate=5e-4)
    """How the pre-training goes."""

    @model_validator(mode="after")
    def _has_features_where_it_learns_from_them(self) -> PretrainRecipe:
        if self.objective == "features":
            if not self.features:
                raise ValueError("has the objective features and no features: give some, such as [hidden, relations]")
            if self.new_tokenizer:
                raise ValueError("has new_tokenizer beside the objective features, which takes one for both: remove it")
        for name, there in (("features", self.features), ("a teacher", self.teacher)):
            if there and self.objective != "features":
                raise ValueError(f"has {name} with the objective {self.objective}: set objective to features")
        return self


class LoraRecipe(Part):
    """Low-rank adapters by peft, merged into the weights when the student is saved."""

    rank: Count = 8
    """Rank of the adapters."""
    alpha: Positive = 16.0
    """The adapters count alpha / rank times."""
    dropout: Rate = 0.0
    """Dropout before the adapters."""
    modules: Annotated[tuple[Text, ...], Field(min_length=1)] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that get adapters, or ``all-linear``; frozen ones get none."""


class FreezeRecipe(Part):
    """Which parameters stay as they are; the three may be combined."""

    embeddings: Flag = False
    """Freeze the input embeddings."""
    keep_top: Index | None = None
    """Freeze all but the head and that many top layers."""
    names: tuple[Text, ...] = ()
    """Freeze each parameter whose name matches one of these shell patterns, such as ``*.attention.*``."""


class OtherTeacher(Part):
    """A second teacher, trained already, of the same classes; a teacher of text with a tokenizer like the first's."""

    model: Location
    """A hub id or a local folder."""
    tokenizer: Location | None = None
    """Its tokenizer, where that does not lie with the model."""
    labels: Labels | None = None
    """The names of its classes in order, where its own configuration has none."""
    weight: Positive = 1.0
    """Its weight against the first teacher's 1."""


class TeacherRecipe(Part):
    """The teacher."""

    model: TeacherModel
    """A hub id, a local folder, or a section with ``kind``."""
    tokenizer: Location | None = None
    """Its tokenizer, where that does not lie with the model."""
    new_tokenizer: VocabularySize | None = None
    """Learn a tokenizer of at most that many entries from the training texts first (byte-level BPE, as GPT-2's)."""
    pretrain: PretrainRecipe | None = None
    """Pre-train it first."""
    train: TrainRecipe | None = None
    """Fine-tune it on the task first; without this it is taken as it is."""
    labels: Labels | None = None
    """The names of its classes in order, where its own configuration has none."""
    calibrate: Flag = False
    """Divide the logits of each teacher by the T that fits the validation labels best, before any other temperature."""
    others: tuple[OtherTeacher, ...] = ()
    """Teachers that teach beside it."""
    combine: Literal["probabilities", "logits"] = "probabilities"
    """What is averaged over several teachers."""
    weighting: Literal["equal", "confidence", "quality"] = "equal"
    """Several teachers count alike, by how sure each is of a row, or by how likely it finds the validation labels."""

    @model_validator(mode="after")
    def _learns_from_text(self) -> TeacherRecipe:
        if self.pretrain is not None and self.pretrain.objective == "features":
            raise ValueError("has the pretrain.objective features, which is for students: set it to masked or causal")
        return self

    @model_validator(mode="after")
    def _has_one_tokenizer(self) -> TeacherRecipe:
        if self.new_tokenizer is not None:
            if self.tokenizer is not None or self.model.kind == "pretrained":
                raise ValueError(
                    "has new_tokenizer beside one of its own: remove one, or describe the model by a config"
                )
            if self.train is None:
                raise ValueError("has new_tokenizer for a model that learns nothing: give train")
        return self


class StudentRecipe(Part):
    """The student: an architecture, and which parts of it learn."""

    model: StudentModel
    """A hub id, a local folder, or a section with ``kind``."""
    tokenizer: Location | None = None
    """Its tokenizer; the teacher's where not given, which a model with weights must have been trained with."""
    pretrain: PretrainRecipe | None = None
    """Pre-train it first."""
    dropout: Rate | None = None
    """The probability of every dropout; the architecture's own where not given."""
    freeze: FreezeRecipe | None = None
    """Which parameters stay as they are."""
    lora: LoraRecipe | None = None
    """Low-rank adapters in place of full training."""


# ---------------------------------------------------------------------------------------------------- distillation


class TargetsRecipe(Part):
    """Where the teacher's logits come from."""

    kind: Literal["store", "live"] = "store"
    """Computed once and stored, or by a live teacher at each step."""
    dtype: Literal["float16", "float32"] = "float16"
    """What the store keeps them in."""
    shard_examples: Count = 4096
    """Examples in each file of the store."""
    batch_size: Count = 32
    """Examples the teacher reads at once."""


LEFT_OUT = ("sequential-recommendation",)
"""Tasks that make all splits out of the training split."""


TASK_NAMES = [
    "token-classification",
    "text-classification",
    "multi-label-classification",
    "text-regression",
    "image-classification",
    "extractive-question-answering",
    "causal-language-modelling",
    "image-generation",
    "speech-synthesis",
    "sequential-recommendation",
    "rating-prediction",
    "audio-classification",
    "speech-recognition",
    "object-detection",
]
"""The tasks a recipe may name; ``tasks.add_task`` adds to them."""


def _known_task(name: str) -> str:
    if name not in TASK_NAMES:
        raise ValueError(f"give {', '.join(TASK_NAMES[:-1])} or {TASK_NAMES[-1]}")
    return name


class Recipe(Part):
    """A distillation from data to report. See ``recipes/`` for ready ones."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Names the run's folder, ``runs/NAME``."""
    task: Annotated[str, AfterValidator(_known_task)]
    """What is learnt: the name of a task."""
    data: DataRecipe
    """Where the examples are."""
    teacher: TeacherRecipe
    """Who teaches."""
    student: StudentRecipe
    """Who learns."""
    temperature: TemperatureRecipe = ConstantTemperature(temperature=4.0)
    """A number, or a section with ``policy``."""
    objective: ObjectiveRecipe = ObjectiveRecipe()
    """The loss."""
    targets: TargetsRecipe = TargetsRecipe()
    """Where the teacher's logits come from."""
    train: TrainRecipe = TrainRecipe()
    """How students are trained."""
    tune: TuneRecipe | None = None
    """Find the temperature first, and train students with what is found."""
    hard_baseline: Flag = True
    """Train the same student on labels alone too, to compare."""
    seeds: Seeds = (0,)
    """One student is trained for each."""

    @model_validator(mode="after")
    def _has_a_test_split(self) -> Recipe:
        data = self.data
        cuts_test = data.cut is not None and data.cut.test > 0
        if data.dataset is None and data.test is None and not cuts_test and self.task not in LEFT_OUT:
            raise ValueError("has no test split: give data.test, or cut data.train by split_by or shares")
        return self

    @model_validator(mode="after")
    def _samples_what_it_can(self) -> Recipe:
        if self.data.negatives is not None and self.task != "sequential-recommendation":
            raise ValueError(f"has data.negatives with the task {self.task}, which ranks no items: remove it")
        if self.data.negatives is not None and self.temperature.policy == "ctkd_instance":
            raise ValueError("has data.negatives with ctkd_instance, which reads all classes: remove one of them")
        return self
