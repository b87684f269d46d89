"""What the tasks of sound share: recordings as model inputs, padded into batches, varied at random."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from scipy.signal import resample_poly
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.audio_utils import mel_filter_bank, window_function

from setpoint.batching import length_of
from setpoint.errors import DataError, ModelError
from setpoint.recipe import DataRecipe
from setpoint.recipe_audio import SoundAugment, SoundRecipe, sound_settings
from setpoint.recipe_images import Augment
from setpoint.tasks.audio import recordings, samples_of
from setpoint.tasks.base import Batch, Example, Splits, Task
from setpoint.tasks.checks import pick
from setpoint.types import is_input

COLUMNS = 100
"""Columns of a spectrogram in a second."""
WINDOW = 0.025
"""Seconds that a column is computed of."""
RATES = (1_000, 384_000)
"""Samples a second that a recording may have."""


def at_rate(samples: np.ndarray, rate: int | None, wanted: int, name: str) -> np.ndarray:
    """Samples at another rate, float32 ``[samples]``, by a polyphase filter; None is the wanted rate.

    Raises:
        DataError: a rate that no recording has.

    Examples:
        >>> len(at_rate(np.zeros(800, np.float32), 8_000, 16_000, "a"))
        1600
    """
    if rate is None or rate == wanted:
        return samples
    if not RATES[0] <= rate <= RATES[1]:  # a filter for others would fill the memory
        raise DataError(
            f"audio of example '{name}' says {rate} samples a second", f"give {RATES[0]} to {RATES[1]} a second"
        )
    divisor = math.gcd(rate, wanted)
    return resample_poly(samples.astype(np.float64), wanted // divisor, rate // divisor).astype(np.float32)


def sounds(split: Dataset, data: SoundRecipe) -> list[np.ndarray]:
    """The samples of the column ``audio`` of a split, at the rate of the recipe.

    Raises:
        DataError: naming the first recording that cannot be read.
    """
    found = zip(split["id"], recordings(split, "audio"), strict=True)
    return [at_rate(samples, rate, data.sampling_rate, name) for name, (samples, rate) in found]


def read_sound(value: Any, columns: dict[str, str], data: SoundRecipe, where: str) -> np.ndarray:
    """An input that nobody has labelled as samples at the rate of the recipe: the bytes of a .wav file, or numbers.

    Raises:
        DataError: it is neither.
    """
    is_file = isinstance(value, dict) and isinstance(value.get("bytes"), bytes)
    return at_rate(*samples_of(value if is_file else pick(value, columns, where)[0], where), data.sampling_rate, where)


@cache
def _bands(rate: int, bands: int) -> np.ndarray:
    """The filters of the mel bands, ``[frequencies, bands]``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty bands, which are refused
        filters: np.ndarray = mel_filter_bank(_points(rate) // 2 + 1, bands, 20.0, rate / 2, rate, mel_scale="htk")
    if not (filters.max(0) > 0).all():
        raise DataError(
            f"data.mel_bins is {bands}, more than 25 ms at {rate} samples a second tell apart",
            "give fewer",
        )
    return filters


def _points(rate: int) -> int:
    """Points of the Fourier transform: twice the window at least, so that low bands have a frequency in them."""
    return 2 ** math.ceil(math.log2(2 * WINDOW * rate))


def features_of(samples: np.ndarray, data: SoundRecipe) -> Tensor:
    """What a model reads of samples ``[samples]`` at the recipe's rate, float32.

    ``log_mel``: the logarithm of the power in mel bands, ``[columns, mel_bins]``, of Hann windows of 25 ms every 10 ms,
    centred, the first on the first sample; ``1 + floor(samples / hop)`` columns. ``waveform``: the samples. Either less
    its mean and divided by its standard deviation, over all of the recording, so that loudness says nothing. With
    ``seconds`` the recording is cut off there, or followed by zeros, which are the mean.

    Examples:
        >>> features_of(np.zeros(1600, np.float32), SoundRecipe()).shape
        torch.Size([11, 40])
    """
    rate = data.sampling_rate
    most = None if data.seconds is None else round(data.seconds * rate)
    samples = samples[:most]
    if data.features == "log_mel":
        values = _log_mel(samples, rate, data.mel_bins)
        most = None if most is None else 1 + most // (rate // COLUMNS)
    else:
        values = samples
    wide = values.astype(np.float64)
    values = ((wide - wide.mean()) / np.sqrt(wide.var() + 1e-7)).astype(np.float32)
    if most is not None:
        values = np.concatenate([values, np.zeros((most - len(values), *values.shape[1:]), np.float32)])
    return torch.from_numpy(values)


def _log_mel(samples: np.ndarray, rate: int, bands: int) -> np.ndarray:
    """As ``transformers.audio_utils.spectrogram``, which takes windows one by one and twenty times as long."""
    length, hop = round(WINDOW * rate), rate // COLUMNS
    padded = np.pad(samples.astype(np.float64), (length // 2, length - length // 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, length)[::hop] * window_function(length, "hann")
    power = np.abs(np.fft.rfft(windows, _points(rate))) ** 2
    return np.log(np.maximum(power @ _bands(rate, bands), 1e-10))


def pad_sounds(examples: Sequence[Example], masked: bool) -> Batch:
    """``input_values`` padded with zeros to the longest of a batch; with ``attention_mask`` ``[B, L]`` where masked."""
    values = [example["input_values"] for example in examples]
    batch: Batch = {"input_values": nn.utils.rnn.pad_sequence(values, batch_first=True)}
    if masked:
        lengths = torch.tensor([len(value) for value in values])
        batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    return batch


def varied(values: Tensor, augment: SoundAugment, data: SoundRecipe, generator: torch.Generator) -> Tensor:
    """A random view of ``[T]`` or ``[T, bands]``: moved in time, with bands and columns masked; zeros come in.

    Each width and place is drawn evenly, the width from 0 to what ``augment`` says.

    Examples:
        >>> augment = SoundAugment(kind="sound", columns=2)
        >>> varied(torch.ones(3, 1), augment, SoundRecipe(), torch.Generator().manual_seed(1)).flatten()
        tensor([0., 0., 1.])
    """

    def draw(most: int) -> int:
        return int(torch.randint(most + 1, (), generator=generator))

    values = values.clone()
    most = round(augment.shift * (COLUMNS if data.features == "log_mel" else data.sampling_rate))
    by = draw(2 * most) - most
    if by:
        values = values.roll(by, 0)
        values[slice(0, by) if by > 0 else slice(by, None)] = 0
    for axis, widest in enumerate((augment.columns, augment.bands)):
        if widest:
            width = draw(min(widest, values.shape[axis]))
            values.narrow(axis, draw(values.shape[axis] - width), width).zero_()
    return values


def check_augment(data: DataRecipe) -> None:
    """Refuse masks of a spectrogram where there is none.

    Raises:
        DataError: there is none.
    """
    masks = any(isinstance(step, SoundAugment) and (step.bands or step.columns) for step in data.augment or ())
    if masks and data.features == "waveform":
        raise DataError("data.augment masks a spectrogram, and data.features is waveform", "give shift alone")


@torch.no_grad()
def tried(model: nn.Module, batch: Batch, who: str, data: SoundRecipe) -> Any:
    """What a model says of a batch, its mode left as it was.

    Raises:
        ModelError: it cannot read it.
    """
    training = model.training
    device = next(model.parameters()).device
    inputs = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in batch.items() if is_input(n)}
    try:
        return model.eval()(**inputs)
    except Exception as error:  # of a model of any library
        reason = " ".join(str(error).split())[:160].rstrip(".:")
        seconds = "recordings of any length" if data.seconds is None else f"{data.seconds:g} s"
        raise ModelError(
            f"the {who} cannot read data.features {data.features} of {seconds} ({reason})",
            "set data.features, data.mel_bins and data.seconds to what it takes",
        ) from None
    finally:
        model.train(training)


class Sound(Task):
    """What both tasks of sound do alike: recordings as spectrograms or samples."""

    text: ClassVar[bool] = False
    augments: ClassVar[tuple[str, ...]] = ("sound",)

    def input_columns(self) -> dict[str, str]:
        """A recording."""
        return {"audio": self.data.audio}

    def read_input(self, value: Any, where: str) -> np.ndarray:
        """Samples at ``data.sampling_rate``: of the bytes of a .wav file, or of numbers in [-1, 1] at that rate."""
        return read_sound(value, self.input_columns(), self.data, where)

    def input_length(self, value: Any) -> int:
        """A recording has no text."""
        return 0

    def augment(
        self, example: Example, generator: torch.Generator, steps: Sequence[Augment], examples: Sequence[Example]
    ) -> Example:
        """The recording, moved in time, with bands and columns of its spectrogram masked."""
        values = example["input_values"]
        for step in steps:
            assert isinstance(step, SoundAugment)
            values = varied(values, step, self.data, generator)
        return example | {"input_values": values}

    def check_model(
        self, model: PreTrainedModel, splits: Splits, processor: Any, examples: Sequence[Example], who: str
    ) -> None:
        """Try it on the shortest and the longest recording."""
        order = sorted(examples, key=length_of)
        tried(model, self.collate(None)([order[0], order[-1]]), who, self.data)

    def preprocessing(self) -> dict[str, Any]:
        """How a recording becomes what models read, too."""
        return super().preprocessing() | {"sound": sound_settings(self.data).model_dump(mode="json")}

    def model_files(self) -> dict[str, Any]:
        """For ``pipeline()``, of models that read samples; no feature extractor of its makes these spectrograms."""
        if self.data.features == "log_mel":
            return {}
        return {
            "preprocessor_config.json": {
                "feature_extractor_type": "Wav2Vec2FeatureExtractor",
                "feature_size": 1,
                "sampling_rate": self.data.sampling_rate,
                "padding_value": 0.0,
                "do_normalize": True,
                "return_attention_mask": self.data.seconds is None,
            }
        }
