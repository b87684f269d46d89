"""The section of a recipe that says where the examples are, and what of them is read: ``data``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from setpoint.recipe_audio import ConcatenateRecipe, SoundRecipe
from setpoint.recipe_data import (
    THREE,
    TWO,
    GenerateRecipe,
    Limit,
    OnlyRecipe,
    RewriteRecipe,
    SharesRecipe,
    TransferRecipe,
)
from setpoint.recipe_images import Augments, PixelRecipe
from setpoint.recipe_values import Codes, Columns, Count, Flag, Labels, Levels, Location, Split, Text


class DataRecipe(PixelRecipe, SoundRecipe):
    """Where the examples are and which columns matter.

    Either ``dataset`` (a hub id, a folder that ``datasets`` wrote, or the built-in ``digits`` or ``shapes``) with split
    *names* in ``train``, ``validation`` and ``test``; or no ``dataset`` and *files* there (CoNLL columns, JSONL, CSV,
    TSV, plain text, SQuAD's JSON, Parquet, npz, idx; ``.gz`` and ``.xz`` too), or *folders* with one for each class in
    them. Without a validation split every tenth training example is set aside. With ``split_by`` or ``shares`` the
    validation split is cut out of ``train`` instead, and so is the test split where ``test`` is not given.
    """

    dataset: Location | None = None
    """A hub id, a folder that ``datasets`` wrote, ``digits`` or ``shapes``."""
    config: Text | None = None
    """The configuration of a hub data set, such as ``sst2`` of ``glue``."""
    train: Split | None = None
    """The training split: its name in the data set, a file, or a folder with one for each class."""
    validation: Split | None = None
    """The validation split; a tenth of the training split where there is none."""
    test: Split | None = None
    """The test split, read once, at the end."""
    split_by: Text | None = None
    """Cut ``train`` into splits; rows with one value in this column, such as ``title``, stay together."""
    shares: SharesRecipe | None = None
    """Cut ``train`` into splits of these shares, by rows where there is no ``split_by``; 0.7, 0.1 and 0.2 where only
    ``split_by`` is given, and 0.9 and 0.1 where ``test`` is given too."""
    only: OnlyRecipe | None = None
    """Use only rows with certain values, by split."""
    format: Literal["conll", "jsonl", "csv", "tsv", "text", "squad", "parquet", "npz", "idx"] | None = None
    """What the files are, where their names do not say it."""
    columns: Columns | None = None
    """The names of the columns of CSV and TSV files, where these have no header."""
    text: Text = "text"
    """The column of texts."""
    text_pair: Text | None = None
    """The column of second texts, for pairs."""
    label: Text = "label"
    """The column of labels."""
    categories: Text = "labels"
    """The column of lists of labels, where a text has several."""
    separator: Annotated[str, Field(min_length=1)] | None = None
    """What cuts a string in that column into its labels."""
    score: Text = "score"
    """The column of numbers to predict."""
    sentences: Text | None = None
    """The column of lists of sentences, one a line, where texts are given so."""
    tokens: Text = "tokens"
    """The column of lists of words."""
    tags: Text = "ner_tags"
    """The column of lists of tags, one a word."""
    image: Text = "image"
    """The column of images: pictures, arrays, or paths relative to the file."""
    objects: Text = "objects"
    """The column of objects in images: ``bbox``, lists of [x, y, width, height] in pixels, and ``category``, a list."""
    audio: Text = "audio"
    """The column of recordings: .wav files, numbers, or paths relative to the file."""
    speaker: Text | None = None
    """The column of who speaks."""
    concatenate: ConcatenateRecipe | None = None
    """Make utterances of recordings of single words."""
    question: Text = "question"
    """The column of questions."""
    context: Text = "context"
    """The column of the texts that questions are about."""
    answers: Text = "answers"
    """The column of answers, each with the place in the context where it starts, as SQuAD has them."""
    user: Text = "user"
    """The column of who rates."""
    item: Text = "item"
    """The column of what is rated."""
    rating: Text | None = "rating"
    """The column of ratings; null where there are none."""
    time: Text | None = None
    """The column of the times of ratings, as numbers."""
    attributes: tuple[Text, ...] = ()
    """Columns of what else is known of who rates what, each a category."""
    buckets: Count = 16384
    """Numbers that the names of users, of items and of each feature are hashed to."""
    labels: Labels | None = None
    """The class names in order; found in the training split where not given."""
    max_length: Count = 128
    """Tokens after which a text is cut; of a user's items the newest that are read."""
    stride: Count = 128
    """Tokens that two windows of a text share, where a text that is longer than max_length is read in windows."""
    impossible: Flag = False
    """Whether questions may have no answer in their context, so that a model may give none."""
    generate: GenerateRecipe | None = None
    """Training examples that the teacher writes."""
    levels: Levels = 4
    """Levels that the pixels of images are rounded to, where these are generated."""
    codes: Codes = 128
    """Codes that the frames of recordings are replaced by, where speech is synthesised."""
    queries: Count = 16
    """Objects that a detector looks for in an image: its queries."""
    augment: Augments | None = None
    """Random changes to training images or recordings: a step, or a list of steps."""
    views: Count | None = None
    """How many fixed views each example has; without, they are new at each epoch, for a live teacher."""
    shots: Count | None = None
    """Use the labels of only so many training examples of each class, the first ones; the others stay, unlabelled."""
    transfer: TransferRecipe | None = None
    """Unlabelled examples to learn from too."""
    rewrite: RewriteRecipe | None = None
    """Copies of the training texts, with words replaced, to learn from too."""
    negatives: Count | None = None
    """Items, drawn anew for each batch, that training rows tell the right one from; all where not given."""
    limit: Limit = None
    """Use only that many examples of each split, for a trial; or a number for each."""

    @property
    def cut(self) -> SharesRecipe | None:
        """The shares into which the training split is cut; None where it is not."""
        if self.split_by is None and self.shares is None:
            return None
        return self.shares or (THREE if self.test is None else TWO)

    @model_validator(mode="after")
    def _has_a_source(self) -> DataRecipe:
        cut = self.cut
        cuts_test = cut is not None and cut.test > 0
        if self.dataset is None and self.train is None:
            raise ValueError("has no source: give dataset, or the files train and test")
        if cut is not None and self.validation is not None:
            raise ValueError("cuts train by split_by or shares: remove validation")
        if cuts_test and self.test is not None:
            raise ValueError("has test and a share of train for it: remove one")
        unread = self.validation is None and cut is None
        if self.only is not None and self.only.validation is not None and unread:
            raise ValueError("has only.validation without a validation split: give validation")
        if self.views is not None and self.augment is None:
            raise ValueError("has views and nothing that differs between them: give augment, or no views")
        return self
