"""The sections within a recipe's ``data`` that say which rows a split has, and what a teacher adds to them."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from setpoint.recipe_values import (
    Count,
    File,
    Flag,
    Location,
    Number,
    Part,
    Positive,
    Rate,
    Share,
    Temperature,
    Text,
    Whole,
)

Values = Annotated[tuple[Text | Whole | Number | Flag, ...], Field(min_length=1)]
Kept = dict[Text, Values]


class LimitRecipe(Part):
    """How many examples of each split are used; all of a split that is not named."""

    train: Count | None = None
    """So many of the training split, before a tenth of it is set aside."""
    validation: Count | None = None
    """So many of the validation split."""
    test: Count | None = None
    """So many of the test split."""
    spread: Flag = False
    """Evenly spread over a split, for files that are sorted by class; else the first ones."""

    @model_validator(mode="after")
    def _spreads_something(self) -> LimitRecipe:
        if self.spread and self.train is self.validation is self.test is None:
            raise ValueError("has spread without a number: give train, validation or test")
        return self


def _limit_by_number(value: Any) -> Any:
    alike = not isinstance(value, dict | Part) and value is not None
    return dict.fromkeys(("train", "validation", "test"), value) if alike else value


Limit = Annotated[LimitRecipe | None, BeforeValidator(_limit_by_number)]
"""A number for all splits, or a section with one for each."""


class OnlyRecipe(Part):
    """Which rows of each split are used: those where each named column has one of its values; all where none is."""

    train: Kept | None = None
    """By column, the values that training rows may have, such as ``{speaker: [0, 1]}``."""
    validation: Kept | None = None
    """By column, the values that validation rows may have."""
    test: Kept | None = None
    """By column, the values that test rows may have."""


class GenerateRecipe(Part):
    """Training examples that the teacher writes itself, for students that are distilled (arXiv:1606.07947)."""

    examples: Count
    """How many, each as long as the longest training example."""
    prompt_tokens: Count = 8
    """Each begins with that many tokens of a training example."""
    temperature: Temperature = 1.0
    """What the teacher's logits are divided by where tokens are drawn."""
    top_k: Count | None = None
    """Draw among that many likeliest tokens."""
    top_p: Share | None = None
    """Draw among the likeliest tokens that have this mass."""
    instead: Flag = False
    """Learn from these alone, not beside the real ones."""


class SharesRecipe(Part):
    """How the training file is cut into splits; the shares count groups, not rows, and add up to 1.

    Of G groups in the order in which they first appear, training has those before ``round(train * G)``, validation
    those from there to before ``round((train + validation) * G)``, and the test split the rest. 48 articles with the
    shares 0.7, 0.1 and 0.2 give 34, 4 and 10.
    """

    train: Share
    """Share of the groups for training, the first ones."""
    validation: Share
    """Share of the groups for validation, those after."""
    test: Rate = 0.0
    """Share of the groups for the test split, the last ones; none where the test split has a file of its own."""

    @model_validator(mode="after")
    def _is_a_whole(self) -> SharesRecipe:
        total = self.train + self.validation + self.test
        if not math.isclose(total, 1, abs_tol=1e-9):
            raise ValueError(f"adds up to {total:g}: give shares that add up to 1")
        return self


class TransferRecipe(Part):
    """Unlabelled examples that students learn from beside the training split: the teacher labels them."""

    files: Annotated[tuple[File, ...], Field(min_length=1)]
    """Where they are: files of any format that examples may have; labels in them are not read."""
    column: Text | Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """The column of the inputs, where it is another than the recipe's; of several names the first that a row has."""
    only: Kept | None = None
    """By column, the values that rows may have, such as ``{speaker: [5]}``."""
    several: Flag = False
    """A list in that column is of as many inputs."""
    punctuation: Flag = False
    """Cut strings into words at punctuation marks too, each a word; else at spaces only. For tasks of words."""
    ratio: Positive | None = None
    """At most so many for each training example, evenly spread over all."""
    min_confidence: Rate = 0.0
    """Leave out examples whose rows' most likely class has a lower probability for the teacher, on average."""


class RewriteRecipe(Part):
    """Copies of the training texts with some words replaced, which the teacher labels: unlabelled examples to learn."""

    model: Location
    """A masked language model: a hub id or a local folder."""
    copies: Count = 1
    """Copies of each text."""
    share: Share = 0.3
    """The probability of each word to be replaced."""
    candidates: Count = 15
    """The likeliest words in its place, of which one is drawn."""
    labelled_only: Flag = False
    """Copy only the texts whose labels are used, where ``shots`` leaves labels out."""


THREE = SharesRecipe(train=0.7, validation=0.1, test=0.2)
TWO = SharesRecipe(train=0.9, validation=0.1)
