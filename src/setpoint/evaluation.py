"""What a model is worth and what it costs: quality, agreement with the teacher, parameters, size, latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor, nn
from tqdm.auto import tqdm

from setpoint.batching import length_of
from setpoint.reading import Reading
from setpoint.targets.teacher import FrozenTeacher
from setpoint.tasks.base import Collate, Example, Task
from setpoint.types import TargetSource, valid_rows

Chosen = TypeVar("Chosen")

MOST_LOGITS = 50_000_000
"""Logits that are kept at once where all of a split's would be too many."""


def predict(
    source: TargetSource,
    examples: Sequence[Example],
    collate: Collate,
    batch_size: int = 64,
    *,
    keep: Callable[[Tensor, Tensor], Tensor] | None = None,
    progress: bool = True,
) -> list[np.ndarray]:
    """Logits ``[rows, C + extras]`` of each example, in order, float32; computed in batches of like length.

    With ``keep``, what it leaves of the rows' logits and labels: a task's ``scored``.
    """
    order = sorted(range(len(examples)), key=lambda i: length_of(examples[i]))
    result: list[np.ndarray] = [np.empty(0)] * len(examples)
    bar = None  # to make one takes a tenth of what a small model takes for one input
    if progress:
        bar = tqdm(total=len(examples), desc="evaluation", unit="ex", delay=2, leave=False, disable=None)
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        batch = collate([examples[i] for i in chosen])
        rows, said = valid_rows(batch), source(batch).cpu()
        logits = (said if keep is None else keep(said, batch["labels"][rows])).numpy()
        counts = rows.reshape(len(rows), -1).sum(-1).tolist()
        for i, part in zip(chosen, np.split(logits, np.cumsum(counts)[:-1]), strict=True):
            result[i] = part
        if bar is not None:
            bar.update(len(chosen))
    if bar is not None:
        bar.close()
    return result


@dataclass(frozen=True)
class Outputs:
    """What a model says on a split.

    Attributes:
        scored: of each example what its task's scores need.
        logits: all logits, of the examples of ``sample`` where the scores need less.
    """

    scored: list[np.ndarray]
    logits: list[np.ndarray]


def outputs_of(source: TargetSource, task: Task, examples: Sequence[Example], collate: Collate) -> Outputs:
    """What a model says on a split."""
    scored = predict(source, examples, collate, keep=task.scored)
    if type(task).scored is Reading.scored:  # the very logits
        return Outputs(scored, scored)
    return Outputs(scored, predict(source, sample(examples, len(source.labels)), collate))


def sample(examples: Sequence[Chosen], classes: int, rows: Sequence[int] | None = None) -> Sequence[Chosen]:
    """Some of the examples, evenly spread: so many that their logits take little memory, however many classes.

    Args:
        examples: encoded, or whatever stands for them.
        classes: C.
        rows: how many rows each has, where that is not to be read off its labels.

    Examples:
        >>> sample(range(10), 10_000_000, rows=[1] * 10)
        range(0, 10, 2)
    """
    count = sum(rows or (np.size(example["labels"]) for example in examples))  # type: ignore[index]
    return examples[:: -(-count * classes // MOST_LOGITS) or 1]


def parameters(model: nn.Module) -> int:
    """The number of weights, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def size_bytes(model: nn.Module, folder: Path | None) -> int:
    """Bytes of the weights on disk; in memory, where the model lies in no folder."""
    files = list(folder.glob("model*.safetensors")) if folder is not None else []
    if files:
        return sum(file.stat().st_size for file in files)
    tensors = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}  # shared ones once
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def latency_ms(call: Callable[[], Any], repeats: int = 30) -> float:
    """Median milliseconds of a call, after three that warm up."""
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def evaluate(
    source: FrozenTeacher,
    folder: Path | None,
    task: Task,
    examples: Sequence[Example],
    collate: Collate,
    *,
    outputs: Outputs | None = None,
    teacher: Outputs | None = None,
) -> dict[str, Any]:
    """The record of one model on one split.

    Args:
        source: the model, frozen (a student is measured through the same door as its teacher).
        folder: where its weights lie.
        task: gives the metrics.
        examples: the split, encoded.
        collate: makes batches of it.
        outputs: the model's on the split, where they are known already.
        teacher: the teacher's on the same rows, to measure agreement.

    Returns:
        ``metrics``, ``parameters``, ``bytes``, ``latency_ms`` (one example of median length, on the model's device),
        and ``agreement`` where there is a teacher to agree with.
    """
    if outputs is None:
        outputs = outputs_of(source, task, examples, collate)
    typical = sorted(examples, key=length_of)[len(examples) // 2]
    one = collate([typical])
    record = {
        "metrics": task.metrics(outputs.scored, task.references(examples), source.labels),
        "parameters": parameters(source.model),
        "bytes": size_bytes(source.model, folder),
        "latency_ms": round(latency_ms(lambda: source.run(one).cpu()), 3),
    }
    alike = None if teacher is None else task.agreement(outputs.logits, teacher.logits, source.labels)
    return record if alike is None else record | {"agreement": alike}
