"""A label for each recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForAudioClassification

import setpoint.audio  # noqa: F401 - registers the project's own small networks
from setpoint.tasks.base import Batch, Collate, Example, Rows, Scores, Splits
from setpoint.tasks.classification_metrics import class_answer, classification_scores, classification_tables
from setpoint.tasks.labels import as_names, class_names, feature_names, to_ids
from setpoint.tasks.readers import read_splits
from setpoint.tasks.sound import Sound, check_augment, features_of, pad_sounds, sounds


class AudioClassification(Sound):
    """Recordings with labels; a row for each recording."""

    name: ClassVar[str] = "audio-classification"
    metric: ClassVar[str] = "accuracy"
    score_names: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "mcc")

    def load(self) -> Splits:
        """Read and check recordings and labels."""
        data = self.data
        check_augment(data)
        raw = read_splits(data, ("audio", "label"))
        kept = feature_names(raw["train"], data.label)
        names = {
            split: as_names(dataset[data.label], feature_names(dataset, data.label)) for split, dataset in raw.items()
        }
        labels = class_names(data.labels, kept, names["train"])
        splits = {}
        for split, dataset in raw.items():
            recorded = dataset.select_columns(["id", data.audio]).rename_columns({data.audio: "audio"})
            splits[split] = recorded.add_column("label", to_ids(names[split], labels, split))
        return Splits(splits["train"], splits["validation"], splits["test"], labels)

    def encode(self, split: Dataset, processor: Any) -> list[Example]:
        """Spectrograms ``[columns, mel_bins]`` or samples ``[samples]``."""
        return self._encoded(sounds(split, self.data), split["id"], split["label"])

    def encode_inputs(self, inputs: Sequence[Any], processor: Any) -> list[Example]:
        """The same of recordings without labels."""
        return self._encoded(inputs, [f"input {i}" for i in range(len(inputs))], [0] * len(inputs))

    def _encoded(self, recorded: Sequence[np.ndarray], ids: Sequence[str], labels: Sequence[int]) -> list[Example]:
        return [
            {"id": name, "input_values": features_of(samples, self.data), "labels": label}
            for name, samples, label in zip(ids, recorded, labels, strict=True)
        ]

    def answers(self, inputs: Sequence[Any], probabilities: Rows, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """The label of each recording, its probability, and those of all."""
        return [class_answer(row[0], names) for row in probabilities]

    def collate(self, processor: Any) -> Collate:
        """Pad to the longest recording of the batch, and mask, unless ``data.seconds`` makes all as long."""
        masked = self.data.seconds is None

        def collate(examples: list[Example]) -> Batch:
            return pad_sounds(examples, masked) | {
                "labels": torch.tensor([example["labels"] for example in examples]),
                "example_id": [example["id"] for example in examples],
            }

        return collate

    def model_class(self) -> Any:
        """The Auto class with a head over the whole recording."""
        return AutoModelForAudioClassification

    def scores(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> Scores:
        """Accuracy, macro F1, Matthews correlation."""
        return classification_scores(logits, labels, names)

    def tables(self, logits: Rows, labels: Rows, names: tuple[str, ...]) -> dict[str, Any]:
        """The table over classes."""
        return classification_tables(logits, labels, names)
