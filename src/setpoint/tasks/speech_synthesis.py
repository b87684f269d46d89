"""Speech as sequences of codes, each predicted from those before it, from what is said and by whom."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from datasets import ClassLabel, Dataset

from setpoint.errors import DataError
from setpoint.sampling import sample
from setpoint.tasks.audio import recordings
from setpoint.tasks.base import Example, Sample, Splits
from setpoint.tasks.codec import Frames, learn_codebook, nearest, wav
from setpoint.tasks.labels import as_names, class_names, feature_names, to_ids
from setpoint.tasks.readers import read_splits
from setpoint.tasks.sequences import NextToken
from setpoint.types import IGNORED_LABEL

SAMPLED = 5
"""Recordings that a model shows in the report."""


class SpeechSynthesis(NextToken):
    """Recordings of labels, such as words, and who speaks; a row for each code of a recording, and for its end.

    A code is the nearest of ``data.codes`` frames, which are learnt from the training split and kept in the run. A
    sequence begins with tokens for the label and the speaker, which nothing predicts.
    """

    name: ClassVar[str] = "speech-synthesis"
    text: ClassVar[bool] = False
    generates: ClassVar[bool] = False
    _codebook: np.ndarray
    _frames: Frames
    _kinds: tuple[str, ...] = ()
    _speakers: tuple[str, ...] = ()

    def load(self) -> Splits:
        """Read and check recordings, labels and speakers; learn the codebook; replace frames by codes."""
        data = self.data
        raw = read_splits(data, ("audio", "label", "speaker"))
        named = {s: as_names(found[data.label], feature_names(found, data.label)) for s, found in raw.items()}
        self._kinds = class_names(data.labels, feature_names(raw["train"], data.label), named["train"])
        spoken = {s: [str(v) for v in found[data.speaker]] if data.speaker else [] for s, found in raw.items()}
        self._speakers = tuple(sorted(set(spoken["train"])))
        frames = {split: self._log_mels(found) for split, found in raw.items()}
        every = np.concatenate(frames["train"])
        if len(every) < data.codes:
            raise DataError(f"data.train has {len(every)} frames for {data.codes} codes", "give a smaller data.codes")
        file = None if self.folder is None else self.folder / "codebook.safetensors"
        self._codebook = learn_codebook(every, data.codes, file)
        splits = {}
        for split, found in raw.items():
            columns: dict[str, Any] = {
                "id": found["id"][:],
                "codes": [nearest(own, self._codebook).tolist() for own in frames[split]],
                "label": to_ids(named[split], self._kinds, split),
            }
            if self._speakers:
                columns["speaker"] = to_ids(spoken[split], self._speakers, split)
            splits[split] = Dataset.from_dict(columns).cast_column("label", ClassLabel(names=list(self._kinds)))
        labels = (*map(str, range(data.codes)), "end")
        return Splits(splits["train"], splits["validation"], splits["test"], labels, ())

    def _log_mels(self, split: Dataset) -> list[np.ndarray]:
        found = []
        for name, (samples, rate) in zip(split["id"], recordings(split, self.data.audio), strict=True):
            if rate is not None and rate != self.data.sampling_rate:
                raise DataError(
                    f"the recording of example '{name}' has {rate} samples in a second, not {self.data.sampling_rate}",
                    "set data.sampling_rate, or give recordings of one rate",
                )
            self._frames = Frames(self.data.sampling_rate)
            found.append(self._frames.log_mel(samples))
        return found

    def vocabulary(self, processor: Any) -> int:
        """The codes, and the end."""
        return self.data.codes + 1

    def conditions(self, splits: Splits) -> int:
        """The labels and the speakers."""
        return len(self._kinds) + len(self._speakers)

    def encode(self, split: Dataset, processor: Any) -> list[Example]:
        """What is said, by whom, and the codes; each but what comes first is a label, and so is the end."""
        first, end, most = self.data.codes + 1, self.data.codes, self.data.max_length
        speakers = (
            [[first + len(self._kinds) + who] for who in split["speaker"]] if self._speakers else [[]] * len(split)
        )
        found = []
        for name, kind, who, codes in zip(split["id"], split["label"], speakers, split["codes"], strict=True):
            whole = np.array([first + kind, *who, *codes, end], dtype=np.int64)
            labels = whole[1:].copy()
            labels[: len(who)] = IGNORED_LABEL
            found.append({"id": name, "input_ids": whole[:-1][:most], "labels": labels[:most]})
        return found

    def samples(self, source: Any, processor: Any, seed: int) -> list[Sample]:
        """Recordings that a model makes up, of the first labels, each by another speaker."""
        found = []
        for number, kind in enumerate(self._kinds[:SAMPLED]):
            prompt, about = [self.data.codes + 1 + number], kind
            if self._speakers:
                who = number % len(self._speakers)
                prompt.append(self.data.codes + 1 + len(self._kinds) + who)
                about = f"{kind}, speaker {self._speakers[who]}"
            length = min(self.data.max_length, 80)
            drawn = sample(
                source.model, torch.tensor([prompt]), length, classes=self.data.codes + 1, seed=seed + number
            )
            codes = drawn[0, len(prompt) :].tolist()
            codes = codes[: codes.index(self.data.codes)] if self.data.codes in codes else codes
            heard = self._frames.heard(self._codebook[codes])
            found.append(Sample("audio", wav(heard, self.data.sampling_rate), about))
        return found
