"""The part of a recipe's ``data`` that is about recordings: how sound becomes what models read, and is varied."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from setpoint.recipe_data import Limit
from setpoint.recipe_values import Amount, Count, Index, Part, Positive, SamplingRate, Text


class FramesRecipe(Part):
    """How many frames a model of speech makes of its inputs: samples, or the spectrogram's columns.

    A recording of L inputs has ``max(0, floor((L - window) / stride) + 1)`` frames. Convolutions one after another are
    in this respect like one: its stride is the product of theirs, its window what the last one sees of the first
    one's inputs, less the padding on both sides.
    """

    window: Count = 1
    """How many inputs one frame needs."""
    stride: Count = 2
    """How many inputs lie between one frame and the next."""

    def count(self, inputs: int) -> int:
        """The frames of so many inputs.

        Examples:
            >>> FramesRecipe(window=400, stride=320).count(16_000), FramesRecipe(window=1, stride=2).count(5)
            (49, 3)
        """
        return max(0, (inputs - self.window) // self.stride + 1)


class SoundRecipe(Part):
    """How a recording becomes what teacher and student read, which is the same for both."""

    sampling_rate: SamplingRate = 16_000
    """Recordings are brought to so many samples a second; those that say no rate of their own have this one."""
    features: Literal["log_mel", "waveform"] = "log_mel"
    """A spectrogram of mel bands every 10 ms, or the samples themselves; either less its mean, by its deviation."""
    mel_bins: Count = 40
    """The bands of the spectrogram."""
    seconds: Positive | None = None
    """Cut recordings off, or fill them with silence, at this length; batches are padded and masked where not given."""
    frames: FramesRecipe | None = None
    """The frames of models of speech; of wav2vec 2.0 for samples, of every second column for log_mel."""

    @property
    def model_frames(self) -> FramesRecipe:
        """The frames that models of speech have."""
        if self.frames is not None:
            return self.frames
        return FramesRecipe(window=400, stride=320) if self.features == "waveform" else FramesRecipe()


def sound_settings(data: SoundRecipe) -> SoundRecipe:
    """What ``data`` says about sound, without all else it says."""
    return SoundRecipe(**data.model_dump(include=set(SoundRecipe.model_fields)))


class SoundAugment(Part):
    """Random changes to recordings: shifted in time, and bands of frequency and of time masked (arXiv:1904.08779)."""

    kind: Literal["sound"]
    shift: Amount = 0.0
    """Seconds that a recording moves at most, either way; what comes in is silence."""
    bands: Index = 0
    """Mel bands that are masked at most, side by side."""
    columns: Index = 0
    """Columns of the spectrogram that are masked at most, one after the other."""


class ConcatenateRecipe(Part):
    """Utterances made of recordings of single words: some of one speaker's, one after the other.

    Which ones is drawn for each utterance by its split and its number alone, so that a run's data are the same each
    time. Utterances of a split are made of that split's recordings.
    """

    least: Count = 2
    """Words in an utterance, at least."""
    most: Count = 5
    """Words in an utterance, at most."""
    examples: Limit
    """How many utterances each split has: a number for all, or a section with one for each."""
    words: dict[Text, Text] | None = None
    """What is said where the column ``data.label`` has a value, such as ``{"0": zero}``; the label where not given."""

    @model_validator(mode="after")
    def _fits(self) -> ConcatenateRecipe:
        if self.least > self.most:
            raise ValueError(f"has least {self.least} above most {self.most}: give a smaller one")
        counts = self.examples
        if counts is None or None in (counts.train, counts.validation, counts.test):
            raise ValueError("has examples for some splits only: give a number, or train, validation and test")
        return self
