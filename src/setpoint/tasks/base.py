"""What a task is: data to model inputs, where the logits are, which rows count, and the metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset

from setpoint.errors import DataError
from setpoint.recipe import DataRecipe
from setpoint.recipe_images import Augment

Example = dict[str, Any]
Batch = dict[str, Any]
Collate = Callable[[list[Example]], Batch]
Rows = Sequence[np.ndarray]
"""One array an example, in the order of the split: logits ``[rows, C]`` or labels ``[rows]``."""
Part = slice | np.ndarray
"""Which examples: a slice, or their numbers, where one may come twice."""
Scores = dict[str, Callable[[Part], float]]
"""By name, each computed when it is called for, of any of the examples: a search wants one, of many parts."""
ALL = slice(None)
"""All examples."""


@dataclass(frozen=True)
class Splits:
    """The examples, checked. Each split has a string column ``id``, unique over all three."""

    train: Dataset
    validation: Dataset
    test: Dataset
    labels: tuple[str, ...]


class Task(ABC):
    """One kind of data and prediction. A new domain is one subclass.

    Encoded examples keep ``id`` and carry model inputs and ``labels``; a batch carries the padded model inputs,
    ``labels`` (int64, ``[B]`` or ``[B, L]``, ``IGNORED_LABEL`` where there is no row) and ``example_id`` (list of str).
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    """The headline metric: a key of ``scores()``."""
    text: ClassVar[bool]
    """Whether examples go through a tokenizer (then ``processor`` is one; else it is None)."""

    def __init__(self, data: DataRecipe) -> None:
        self.data = data

    @abstractmethod
    def load(self) -> Splits:
        """Read and check the data. Raises DataError."""

    @abstractmethod
    def encode(self, split: Dataset, processor: Any) -> list[Example]:
        """Examples to model inputs, with ``labels`` and ``id``; kept in memory, in the order of the split."""

    @abstractmethod
    def input_columns(self) -> dict[str, str]:
        """The fields of ``data`` that an input has, and the column of each."""

    @abstractmethod
    def read_input(self, value: Any, where: str) -> Any:
        """An input that nobody has labelled, checked: what ``encode_inputs`` and ``answers`` take.

        Args:
            value: the input itself, or a row with the columns of the recipe.
            where: names it in errors: ``"input 3"``.

        Raises:
            DataError: it is none of this task.
        """

    @abstractmethod
    def input_length(self, value: Any) -> int:
        """The characters of a checked input: what to refuse one by before any time is spent on it; 0 without text."""

    @abstractmethod
    def encode_inputs(self, inputs: Sequence[Any], processor: Any) -> list[Example]:
        """Checked inputs to model inputs, as ``encode`` has them; rows are marked by the label 0."""

    @abstractmethod
    def answers(self, inputs: Sequence[Any], probabilities: Rows, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """What a user reads of the probabilities ``[rows, C]`` of each checked input: plain data, labels by name."""

    @abstractmethod
    def collate(self, processor: Any) -> Collate:
        """The function that makes a batch of encoded examples."""

    @abstractmethod
    def model_class(self) -> Any:
        """The transformers Auto class with this task's head."""

    @abstractmethod
    def scores(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> Scores:
        """Each score of predictions against labels, for any of the examples; higher is better."""

    @abstractmethod
    def tables(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> dict[str, Any]:
        """What the scores are made of, class by class."""

    def metrics(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> dict[str, Any]:
        """All scores and all tables."""
        scores = {name: score(ALL) for name, score in self.scores(logits, labels, names).items()}
        return scores | self.tables(logits, labels, names)

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
            "max_length": self.data.max_length if self.text else None,
            "augment": None if augment is None else [step.model_dump(mode="json") for step in augment],
            **({} if self.data.views is None else {"views": self.data.views}),
        }
