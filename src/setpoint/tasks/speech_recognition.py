"""What is said in each recording, by connectionist temporal classification."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoModelForCTC, PreTrainedModel

import setpoint.audio  # noqa: F401 - registers the project's own small networks
from setpoint.batching import length_of
from setpoint.errors import DataError, ModelError, SetpointWarning
from setpoint.maths.ctc import ctc_loss
from setpoint.reading import LossRows
from setpoint.tasks.base import Batch, Collate, Example, References, Rows, Scores, Splits
from setpoint.tasks.classification_metrics import rounded
from setpoint.tasks.readers import read_splits
from setpoint.tasks.sound import Sound, check_augment, features_of, pad_sounds, sounds, tried
from setpoint.tasks.transcripts import WORD_END, collapsed, edits, frames_needed, spelt, vocabulary, written
from setpoint.tasks.utterances import utterances
from setpoint.types import IGNORED_LABEL, logits_of, valid_rows


class Transcript(NamedTuple):
    """What is said in a recording, as text and as classes."""

    text: str
    classes: list[int]


class SpeechRecognition(Sound):
    """Recordings with transcripts; a row for each frame, of the blank and the characters.

    A frame has no label of its own: the hard loss is that of the whole transcript, spread evenly over its frames. The
    vocabulary is the names of the classes, in a model's configuration.
    """

    name: ClassVar[str] = "speech-recognition"
    metric: ClassVar[str] = "word_accuracy"
    score_names: ClassVar[tuple[str, ...]] = ("word_accuracy", "character_accuracy")
    beside: ClassVar[tuple[str, ...]] = ("wer", "cer")
    row_labels: ClassVar[bool] = False
    _vocabulary: tuple[str, ...] = ()

    def load(self) -> Splits:
        """Read and check recordings and transcripts; make utterances, where the recipe says so."""
        data = self.data
        check_augment(data)
        joined = data.concatenate is not None
        raw = read_splits(data, ("audio", "label", "speaker") if joined else ("audio", "text"))
        made = {}
        for name, split in raw.items():
            one = split.rename_columns({data.audio: "audio"}) if data.audio != "audio" else split
            made[name] = utterances(sounds(one, data), split, name, data) if joined else _named(one, data.text)
        labels = self._vocabulary = vocabulary(data.labels, made["train"]["text"])
        splits = {
            name: split.add_column("label", [spelt(text, labels, name) for text in split["text"]])
            for name, split in made.items()
        }
        return Splits(splits["train"], splits["validation"], splits["test"], labels)

    def encode(self, split: Dataset, processor: Any) -> list[Example]:
        """Spectrograms or samples, a row for each frame of a model, and the transcript."""
        examples = self._encoded(sounds(split, self.data), split["id"], split["text"], split["label"])
        short = sum(len(e["labels"]) < frames_needed(e["task_transcript"].classes) for e in examples)
        if short:
            warnings.warn(
                f"{short} transcripts are too long for the frames of their recordings: the hard loss leaves them out",
                SetpointWarning,
                stacklevel=2,
            )
        return examples

    def encode_inputs(self, inputs: Sequence[Any], processor: Any) -> list[Example]:
        """The same of recordings without transcripts."""
        names, none = [f"input {i}" for i in range(len(inputs))], [""] * len(inputs)
        return self._encoded(inputs, names, none, [[] for _ in inputs])

    def _encoded(
        self, recorded: Sequence[np.ndarray], ids: Sequence[str], texts: Sequence[str], classes: Sequence[list[int]]
    ) -> list[Example]:
        examples = []
        for name, samples, text, letters in zip(ids, recorded, texts, classes, strict=True):
            values = features_of(samples, self.data)
            frames = self.data.model_frames.count(len(values))
            if frames == 0:
                raise DataError(f"audio of example '{name}' is shorter than one frame", "leave it out")
            transcript = Transcript(text, letters)
            examples.append({"id": name, "input_values": values, "labels": [0] * frames, "task_transcript": transcript})
        return examples

    def collate(self, processor: Any) -> Collate:
        """Pad to the longest recording of the batch, and mask, unless ``data.seconds`` makes all as long."""
        masked = self.data.seconds is None

        def collate(examples: list[Example]) -> Batch:
            letters = [torch.tensor(example["task_transcript"].classes, dtype=torch.long) for example in examples]
            rows = [torch.tensor(example["labels"]) for example in examples]
            return pad_sounds(examples, masked) | {
                "labels": nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORED_LABEL),
                "task_targets": nn.utils.rnn.pad_sequence(letters, batch_first=True),
                "task_lengths": torch.tensor([len(one) for one in letters]),
                "example_id": [example["id"] for example in examples],
            }

        return collate

    def loss_rows(self, logits: Tensor, batch: Mapping[str, Any], teacher: Tensor | None) -> LossRows:
        """Each frame, with its share of the loss of its transcript.

        The mean over rows, in however many batches, is the sum over transcripts divided by the number of all frames.
        """
        rows = super().loss_rows(logits, batch, teacher)
        frames = valid_rows(batch).sum(-1)
        loss = ctc_loss(logits, frames, batch["task_targets"], batch["task_lengths"])
        return dataclasses.replace(rows, labels=None, hard_loss=(loss / frames).repeat_interleave(frames))

    def model_class(self) -> Any:
        """The Auto class with a head over the frames."""
        return AutoModelForCTC

    def check_model(
        self, model: PreTrainedModel, splits: Splits, processor: Any, examples: Sequence[Example], who: str
    ) -> None:
        """Try it on the shortest and the longest recording: it has to have the frames that the recipe says."""
        order = sorted(examples, key=length_of)
        for one in (order[0], order[-1]):
            found, said = logits_of(tried(model, self.collate(None)([one]), who, self.data)), len(one["labels"])
            if found.shape[1] != said:
                frames = self.data.model_frames
                raise ModelError(
                    f"the {who} has {found.shape[1]} frames for example '{one['id']}' where data.frames, with window"
                    f" {frames.window} and stride {frames.stride}, says {said}",
                    "set data.frames to what teacher and student have, which is the same for both",
                )

    def model_files(self) -> dict[str, Any]:
        """For ``pipeline()``, the vocabulary too."""
        files, names = super().model_files(), self._vocabulary
        if not files or not names:
            return files
        tokenizer = {
            "tokenizer_class": "Wav2Vec2CTCTokenizer",
            "pad_token": names[0],
            "unk_token": names[0],
            "bos_token": None,
            "eos_token": None,
            "word_delimiter_token": WORD_END,
        }
        vocabulary = {name: number for number, name in enumerate(names)}
        return files | {"vocab.json": vocabulary, "tokenizer_config.json": tokenizer}

    def answers(self, inputs: Sequence[Any], probabilities: Rows, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """What is said, and its probability: of the transcript, over all ways of laying it along the frames."""
        found = []
        for row in probabilities:
            classes = collapsed(row.argmax(-1).tolist())
            likely = np.exp(-_losses([np.log(np.maximum(row, 1e-30))], [classes]))
            found.append({"text": written(classes, names), "probability": rounded(likely)[0]})
        return found

    def references(self, examples: Sequence[Example]) -> References:
        """The transcripts."""
        return [example["task_transcript"] for example in examples]

    def scores(self, logits: Rows, references: References, names: tuple[str, ...]) -> Scores:
        """1 less the word error rate, and 1 less the character error rate; below 0 where more is wrong than was said.

        The likeliest class of each frame, repeats and blanks removed.
        """

        @cache
        def counts() -> np.ndarray:
            return _counts(logits, references, names)

        return {
            "word_accuracy": lambda part: 1 - _rate(counts()[part, :2]),
            "character_accuracy": lambda part: 1 - _rate(counts()[part, 2:]),
        }

    def tables(self, logits: Rows, references: References, names: tuple[str, ...]) -> dict[str, Any]:
        """The word error rate ``wer`` and the character error rate ``cer``."""
        counts = _counts(logits, references, names)
        return {"wer": _rate(counts[:, :2]), "cer": _rate(counts[:, 2:])}

    def loss(self, logits: Rows, references: References) -> float:
        """The loss of the transcripts in nats a frame, at T = 1."""
        total = float(_losses(logits, [one.classes for one in references]).sum())
        return total / sum(map(len, logits)) if math.isfinite(total) else math.inf


def _named(split: Dataset, text: str) -> Dataset:
    split = split.select_columns(["id", "audio", text])
    return split if text == "text" else split.rename_columns({text: "text"})


def _losses(logits: Rows, classes: Sequence[list[int]]) -> np.ndarray:
    """−log p of each transcript, ``[N]``."""
    found = [
        ctc_loss(
            torch.from_numpy(np.asarray(row, np.float64))[None],
            torch.tensor([len(row)]),
            torch.tensor([letters], dtype=torch.long),
            torch.tensor([len(letters)]),
        )
        for row, letters in zip(logits, classes, strict=True)
    ]
    return torch.cat(found).numpy()


def _counts(logits: Rows, references: References, names: tuple[str, ...]) -> np.ndarray:
    """Of each recording, the words that are wrong and all its words; the characters likewise: ``[N, 4]``."""
    found = []
    for row, (text, _) in zip(logits, references, strict=True):
        said, true = written(collapsed(row.argmax(-1).tolist()), names), " ".join(text.split())
        words = edits(said.split(), true.split()), len(true.split())
        found.append((*words, edits(said, true), len(true)))
    return np.array(found).reshape(-1, 4)


def _rate(counts: np.ndarray) -> float:
    """Edits a word or character of what was said; where nothing was, the edits."""
    wrong, whole = counts.sum(0)
    return float(wrong / max(whole, 1))
