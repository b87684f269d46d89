"""The schema of a recipe: what a run is, as one frozen value.

A recipe is YAML. Every part below is a section of it; unknown keys are errors that name the nearest known key; a
relative path counts from the recipe's own folder, so a recipe can be run from anywhere. Reading one: ``recipe_file``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

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
    Split,
    Text,
    VocabularySize,
)

# ---------------------------------------------------------------------------------------------------- data


class ShiftAugment(Part):
    """Random translation of images by some pixels in each direction.

    With ``views`` each example has that many fixed, seeded views, and teacher and student see the same ones; without
    it the augmentation is new at each epoch and the teacher has to be live (``targets: {kind: live}``).
    """

    kind: Literal["shift"] = "shift"
    pixels: Count = 1
    """How far an image moves at most."""
    views: Count | None = None
    """How many fixed views each example has."""


class DataRecipe(Part):
    """Where the examples are and which columns matter.

    Either ``dataset`` (a hub id, a folder that ``datasets`` wrote, or the built-in ``digits``) with split *names* in
    ``train``, ``validation`` and ``test``; or no ``dataset`` and *files* there (CoNLL columns, JSONL, CSV, Parquet;
    ``.gz`` too). Without a validation split a tenth of the training split is set aside, the same each time.
    """

    dataset: Location | None = None
    """A hub id, a folder that ``datasets`` wrote, or ``digits``."""
    config: Text | None = None
    """The configuration of a hub data set, such as ``sst2`` of ``glue``."""
    train: Split | None = None
    """The training split: its name in the data set, or a file."""
    validation: Split | None = None
    """The validation split; a tenth of the training split where there is none."""
    test: Split | None = None
    """The test split, read once, at the end."""
    format: Literal["conll", "jsonl", "csv", "parquet"] | None = None
    """What the files are, where their names do not say it."""
    text: Text = "text"
    """The column of texts."""
    text_pair: Text | None = None
    """The column of second texts, for pairs."""
    label: Text = "label"
    """The column of labels."""
    tokens: Text = "tokens"
    """The column of lists of words."""
    tags: Text = "ner_tags"
    """The column of lists of tags, one a word."""
    image: Text = "image"
    """The column of images."""
    labels: Labels | None = None
    """The class names in order; found in the training split where not given."""
    max_length: Count = 128
    """Tokens after which a text is cut."""
    augment: ShiftAugment | None = None
    """Random changes to training images."""
    limit: Count | None = None
    """Use only that many examples of each split, for a trial."""

    @model_validator(mode="after")
    def _has_a_source(self) -> DataRecipe:
        if self.dataset is None and (self.train is None or self.test is None):
            raise ValueError("has no source: give dataset, or the files train and test")
        return self


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
    """A model without weights."""

    kind: Literal["config"] = "config"
    config: dict[Text, Any] | Location
    """What a config.json holds (``model_type`` and more), or the path of one."""


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
    """Self-supervised pre-training on raw text before the task is learnt.

    Without a tokenizer of its own or its teacher's the model gets one trained on that very text, of ``vocab_size``.
    """

    objective: Literal["masked", "causal"] = "masked"
    """Predict masked tokens, or each next token."""
    text: File
    """A text file with an example a line, or JSONL with ``text``; ``.gz`` too."""
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


class StudentRecipe(Part):
    """The student: an architecture, and which parts of it learn."""

    model: StudentModel
    """A hub id, a local folder, or a section with ``kind``."""
    tokenizer: Location | None = None
    """Its tokenizer; the teacher's where not given."""
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


class Recipe(Part):
    """A distillation from data to report. See ``recipes/`` for ready ones."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Names the run's folder, ``runs/NAME``."""
    task: Literal["token-classification", "text-classification", "image-classification"]
    """What is learnt."""
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
