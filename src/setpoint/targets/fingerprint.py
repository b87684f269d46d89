"""What a target store was built from, as four digests, so that a store is never used for something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel

from setpoint.files import sha256_file
from setpoint.targets.teacher import FrozenTeacher


@dataclass(frozen=True)
class Fingerprint:
    """Digests of the four things that decide a teacher's logits."""

    teacher: str
    tokenizer: str
    preprocessing: str
    data: str

    @classmethod
    def of(
        cls, teacher: FrozenTeacher, tokenizer: Any, preprocessing: Mapping[str, Any], dataset: Dataset
    ) -> Fingerprint:
        """The fingerprint of what a store is about to be built from.

        Args:
            teacher: its weights, its labels and the order of its classes count.
            tokenizer: a fast tokenizer of transformers, or None.
            preprocessing: JSON data; whatever else turns an example into model inputs.
            dataset: the raw examples, ``id`` and inputs only: a corrected label does not change a teacher's logits.

        Examples:
            >>> data = Dataset.from_dict({"id": ["a"], "x": [1.0]})
            >>> teacher = FrozenTeacher(nn.Linear(1, 2), labels=("no", "yes"))
            >>> before = Fingerprint.of(teacher, None, {}, data)
            >>> with torch.no_grad():
            ...     _ = teacher.model.bias.add_(1)
            >>> before.differences(Fingerprint.of(teacher, None, {}, data))
            ['teacher']
        """
        return cls(
            teacher=digest_model(teacher.model, teacher.labels, teacher.class_order),
            tokenizer=digest_tokenizer(tokenizer),
            preprocessing=digest_json(preprocessing),
            data=digest_dataset(dataset),
        )

    def differences(self, other: Fingerprint) -> list[str]:
        """The parts in which two fingerprints differ.

        Examples:
            >>> Fingerprint("a", "b", "c", "d").differences(Fingerprint("a", "x", "c", "y"))
            ['tokenizer', 'data']
        """
        return [part.name for part in fields(self) if getattr(self, part.name) != getattr(other, part.name)]

    def as_dict(self) -> dict[str, str]:
        """The digests by name."""
        return asdict(self)


_NOT_THE_MODEL = {"_name_or_path", "transformers_version", "architectures", "id2label", "label2id"}
"""What a configuration says of where a model came from, and labels, which are counted by themselves."""


def digest_model(model: nn.Module, labels: Sequence[str], class_order: Sequence[int] | None = None) -> str:
    """Digest of a model's weights, buffers and configuration, and of the order its classes are wanted in."""
    sha = hashlib.sha256(json.dumps(list(labels)).encode())
    if isinstance(model, PreTrainedModel):  # an activation or a number of heads is in no weight
        fields = {name: value for name, value in model.config.to_dict().items() if name not in _NOT_THE_MODEL}
        sha.update(json.dumps(fields, sort_keys=True, default=str).encode())
    if class_order is not None:
        sha.update(json.dumps(list(class_order)).encode())
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def digest_tokenizer(tokenizer: Any) -> str:
    """Digest of a fast tokenizer; ``"none"`` where there is no tokenizer."""
    if tokenizer is None:
        return "none"
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    # A tokenizer keeps the truncation and padding of its last call, which belong to the preprocessing.
    backend.no_truncation()
    backend.no_padding()
    sides = [tokenizer.truncation_side, tokenizer.padding_side, list(tokenizer.model_input_names)]
    return hashlib.sha256((backend.to_str() + json.dumps(sides)).encode()).hexdigest()


def digest_json(value: Any) -> str:
    """Digest of JSON data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_files(fields: Any) -> dict[str, str]:
    """Digests of the local files and folders that JSON data name, by path.

    Examples:
        >>> digest_files({"model": "no/such/folder", "layers": 2})
        {}
    """
    if isinstance(fields, Mapping):
        fields = list(fields.values())
    if isinstance(fields, list | tuple):
        return {path: digest for field in fields for path, digest in digest_files(field).items()}
    if not isinstance(fields, str) or len(fields) > 4096 or not Path(fields).exists():
        return {}
    path = Path(fields)
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return {fields: digest_json({file.name: sha256_file(file) for file in files})}


def digest_dataset(dataset: Dataset) -> str:
    """Digest of the rows of a dataset, in their order, whatever its chunks, slices or index."""
    sha = hashlib.sha256()
    columns = sorted(dataset.column_names)
    for batch in dataset.select_columns(columns).with_format("arrow").iter(batch_size=4096):
        table = batch.combine_chunks()
        # Taking the rows copies them, so that offsets and padding of the file they came from do not count.
        table = table.take(pa.array(range(len(table)))).replace_schema_metadata(None)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        sha.update(sink.getvalue())
    return sha.hexdigest()
