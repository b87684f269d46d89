"""What a task is: data to model inputs, where the logits are, which rows count, and the metrics."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from setpoint.errors import DataError
from setpoint.maths.solving import calibrate_temperature
from setpoint.maths.tempering import log_temper, temper
from setpoint.reading import Reading
from setpoint.recipe import DataRecipe
from setpoint.recipe_images import Augment
from setpoint.tasks.agreement import agreement
from setpoint.types import IGNORED_LABEL

Example = dict[str, Any]
Batch = dict[str, Any]
Collate = Callable[[list[Example]], Batch]
Rows = Sequence[np.ndarray]
"""One array an example, in the order of the split: logits ``[rows, C]`` or labels ``[rows]``."""
References = Sequence[Any]
"""What each example's prediction is held against: its labels ``[rows]``, or more where a task needs more."""
Part = slice | np.ndarray
"""Which examples: a slice, or their numbers, where one may come twice."""
Scores = dict[str, Callable[[Part], float]]
"""By name, each computed when it is called for, of any of the examples: a search wants one, of many parts."""
ALL = slice(None)
"""All examples."""


@dataclass(frozen=True)
class Splits:
    """The examples, checked. Each split has a string column ``id``, unique over all three.

    Attributes:
        labels: the classes of a row, in the order of the logits; empty where only the tokenizer knows them.
        outputs: the names of what a model's head gives, where those are not the classes; empty where the head has no
            names, as for a vocabulary or for positions.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    labels: tuple[str, ...]
    outputs: tuple[str, ...] | None = None

    @property
    def head(self) -> tuple[str, ...] | None:
        """The names of a model's outputs; None where it has none."""
        return self.labels if self.outputs is None else self.outputs or None


@dataclass(frozen=True)
class Sample:
    """Something that a model has made, to be shown.

    Attributes:
        kind: a text, or the ``data:`` URI of a picture (PNG) or of a recording (WAV).
        content: the text, or the URI.
        about: what it is, in some words.

    Raises:
        ValueError: a URI of another kind.
    """

    kind: Literal["text", "image", "audio"]
    content: str
    about: str = ""

    def __post_init__(self) -> None:
        wanted = {"text": "", "image": "data:image/png;base64,", "audio": "data:audio/wav;base64,"}[self.kind]
        if not self.content.startswith(wanted):
            raise ValueError(f"a sample of kind {self.kind} begins with {wanted}")


class Task(Reading, ABC):
    """One kind of data and prediction. A new domain is one subclass.

    Encoded examples keep ``id`` and carry model inputs and ``labels``; a batch carries the padded model inputs,
    ``labels`` (int64, ``[B]`` or ``[B, L]``, ``IGNORED_LABEL`` where there is no row; floats, NaN there, where labels
    are numbers) and ``example_id`` (list of str). Columns named ``task_...`` are the task's own; no model sees them.
    How a model's output is read is inherited: its logits line up with ``labels``, a row each.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    """The headline metric: a key of ``scores()``, a share of 1 such as accuracy or F1."""
    score_names: ClassVar[tuple[str, ...]]
    """The keys of ``scores()``."""
    beside: ClassVar[tuple[str, ...]] = ()
    """Numbers of ``metrics()`` that stand beside it in tables."""
    text: ClassVar[bool]
    """Whether examples go through a tokenizer (then ``processor`` is one; else it is None)."""
    tempered: ClassVar[bool] = True
    """Whether rows have classes; numbers have none, and no temperature."""
    row_labels: ClassVar[bool] = True
    """Whether each row has a label of its own: by them probabilities are calibrated and rows explained."""
    aligned: ClassVar[bool] = True
    """Whether a row of the student is of the same thing as that of the teacher in its place."""
    first_rows: ClassVar[bool] = False
    """Whether a text that is cut off earlier, by another tokenizer, has the first rows of one cut off later."""
    augments: ClassVar[tuple[str, ...]] = ()
    """The kinds of ``data.augment`` it knows."""
    one_tokenizer: ClassVar[bool] = False
    """Whether rows are of tokens, so that teacher and student need the same ones."""
    shipped_fields: ClassVar[tuple[str, ...]] = ()
    """Fields of ``data``, besides columns and ``max_length``, that reading an input or wording its answer needs."""
    answered: ClassVar[bool] = True
    """Whether a student of it has answers to give, so that it can be exported and served."""
    generates: ClassVar[bool] = False
    """Whether a teacher can write examples itself, token by token."""

    folder: Path | None = None
    """Where a task may keep what it learns from the training split; set before ``load``."""

    def __init__(self, data: DataRecipe) -> None:
        self.data = data

    @abstractmethod
    def load(self) -> Splits:
        """Read and check the data. Raises DataError."""

    @abstractmethod
    def encode(self, split: Dataset, processor: Any) -> list[Example]:
        """Examples to model inputs, with ``labels`` and ``id``; kept in memory, in the order of the split."""

    # What a shipped student reads and says; a task without these trains and reports all the same.

    def input_columns(self) -> dict[str, str]:
        """The fields of ``data`` that an input has, and the column of each."""
        return {}

    def read_input(self, value: Any, where: str) -> Any:
        """An input that nobody has labelled, checked: what ``encode_inputs`` and ``answers`` take.

        Args:
            value: the input itself, or a row with the columns of the recipe.
            where: names it in errors: ``"input 3"``.

        Raises:
            DataError: it is none of this task.
        """
        raise DataError(
            f"task '{self.name}' reads no inputs of its own", "give it read_input, encode_inputs and answers"
        )

    def input_length(self, value: Any) -> int:
        """The characters of a checked input: what to refuse one by before any time is spent on it; 0 without text."""
        return 0

    def encode_inputs(self, inputs: Sequence[Any], processor: Any) -> list[Example]:
        """Checked inputs to model inputs, as ``encode`` has them; rows are marked by the label 0."""
        raise NotImplementedError

    def probabilities(self, logits: torch.Tensor, temperature: float) -> torch.Tensor:
        """What ``answers`` takes of logits ``[R, C + extras]``: the probabilities at a temperature, then the extras."""
        classes = logits.shape[-1] - self.extras
        return torch.cat([temper(logits[:, :classes], temperature), logits[:, classes:]], -1)

    def answers(self, inputs: Sequence[Any], probabilities: Rows, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """What a user reads of the probabilities ``[rows, C]`` of each checked input: plain data, labels by name."""
        raise NotImplementedError

    def answers_to(
        self, inputs: Sequence[Any], examples: Sequence[Example], probabilities: Rows, names: tuple[str, ...]
    ) -> list[dict[str, Any]]:
        """``answers``, of encoded inputs: for a task that makes several examples of an input, or words them by these.

        Args:
            inputs: checked.
            examples: what ``encode_inputs`` made of them; one of each, unless a task says otherwise.
            probabilities: of the rows of each example.
            names: the classes.
        """
        return self.answers(inputs, probabilities, names)

    def samples(self, source: Any, processor: Any, seed: int) -> Sequence[Sample]:
        """What a frozen model makes when it is asked for something, to be shown in the report; nothing by default."""
        return ()

    @abstractmethod
    def collate(self, processor: Any) -> Collate:
        """The function that makes a batch of encoded examples."""

    @abstractmethod
    def model_class(self) -> Any:
        """The transformers Auto class with this task's head."""

    def classes(self, labels: tuple[str, ...], processor: Any) -> tuple[str, ...]:
        """The classes of a row: those of the splits, unless only the tokenizer knows them."""
        return labels

    def references(self, examples: Sequence[Example]) -> References:
        """What the predictions of encoded examples are scored against: their labels, unless a task needs more."""
        return label_rows(examples)

    @abstractmethod
    def scores(self, logits: Rows, references: References, names: tuple[str, ...]) -> Scores:
        """Each score of predictions, for any of the examples; higher is better.

        Args:
            logits: of each example, ``[rows, C + extras]``, or what ``scored`` leaves of them.
            references: of the same examples.
            names: the classes.
        """

    def tables(self, logits: Rows, references: References, names: tuple[str, ...]) -> dict[str, Any]:
        """More that a report has: numbers, and tables of rows by name; arguments as of ``scores``."""
        return {}

    def metrics(self, logits: Rows, references: References, names: tuple[str, ...]) -> dict[str, Any]:
        """All scores and all tables."""
        scores = {name: score(ALL) for name, score in self.scores(logits, references, names).items()}
        return scores | self.tables(logits, references, names)

    def agreement(self, student: Rows, teacher: Rows, names: tuple[str, ...]) -> dict[str, float] | None:
        """How alike a student and its teacher are: ``top1`` and ``kl``; None where their rows cannot be compared."""
        return agreement(student, teacher, len(names))

    def loss(self, logits: Rows, references: References) -> float:
        """What a model is worth by a number that is finer than its score, at its own best T; lower is better.

        Of tasks of classes the mean loss on labels in nats; the others say what theirs is.
        """
        return fitted_loss(torch.from_numpy(np.concatenate(list(logits))), torch.from_numpy(np.concatenate(references)))

    @property
    def max_length(self) -> int | None:
        """Where a long example is cut; None where none is."""
        return self.data.max_length if self.text else None

    @property
    def plain(self) -> bool:
        """Whether rows are classes with labels, read as ``Reading`` does: what some ways of working ask for."""
        kind, same = type(self), ("logits", "loss_rows", "scored", "references", "agreement", "loss")
        return self.tempered and not self.extras and all(getattr(kind, n) is getattr(Task, n) for n in same)

    def augment(
        self, example: Example, generator: torch.Generator, steps: Sequence[Augment], examples: Sequence[Example]
    ) -> Example:
        """A random view of an encoded example; only called where the recipe has ``data.augment``.

        Args:
            example: the example.
            generator: what is random is drawn from it.
            steps: those of ``data.augment`` that are to be taken.
            examples: the training split, for what mixes examples.
        """
        raise DataError(f"task '{self.name}' has no augmentation", "remove data.augment")

    def check_model(
        self, model: PreTrainedModel, splits: Splits, processor: Any, examples: Sequence[Example], who: str
    ) -> None:
        """Refuse a model that cannot do this task, though it has the head for it; none by default.

        Args:
            model: teacher or student.
            splits: the data.
            processor: the model's tokenizer.
            examples: of all splits, encoded.
            who: names the model in errors.

        Raises:
            ModelError: it is such a model.
        """

    def row_names(self, splits: Splits) -> Sequence[str]:
        """What each row of an example is of, where that is the same for all examples. None by default."""
        return ()

    def row_types(self, split: Dataset, train: Dataset, names: tuple[str, ...]) -> dict[str, list[list[bool]]]:
        """Types of rows worth telling apart: for each, by example, which of its rows are of it. None by default."""
        return {}

    def take_over(self, models: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Fields of ``data`` that the recipe leaves open and a model with weights decides; none by default.

        Args:
            models: the field of each such model, and where it is.
        """
        return {}

    def model_files(self) -> dict[str, Any]:
        """JSON files to lie beside a model, by name: how transformers prepares its inputs; none by default."""
        return {}

    def preprocessing(self) -> dict[str, Any]:
        """What turns a raw example into inputs, besides the tokenizer: part of a target store's fingerprint."""
        augment = self.data.augment
        return {
            "task": self.name,
            "max_length": self.max_length,
            "augment": None if augment is None else [step.model_dump(mode="json") for step in augment],
            **({} if self.data.views is None else {"views": self.data.views}),
        }


def label_rows(examples: Sequence[Example]) -> list[np.ndarray]:
    """The labels of each example's rows, in order."""
    labels = (np.atleast_1d(np.asarray(example["labels"])) for example in examples)
    return [row[~np.isnan(row) if row.dtype.kind == "f" else row != IGNORED_LABEL] for row in labels]


def fitted_loss(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The mean loss on labels in nats, at the temperature at which it is least.

    Examples:
        >>> round(fitted_loss(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1])), 3)
        0.693
    """
    if bool((logits.isnan() | (logits == math.inf)).any()):
        return math.inf
    t = calibrate_temperature(logits, labels)
    return -float(log_temper(logits.double(), t).gather(-1, labels[:, None]).mean())
