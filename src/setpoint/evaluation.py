"""What a model is worth and what it costs: quality, agreement with the teacher, parameters, size, latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from setpoint.maths.divergences import forward_kl
from setpoint.maths.tempering import log_temper
from setpoint.targets.teacher import FrozenTeacher
from setpoint.tasks.base import Collate, Example, Rows, Task
from setpoint.types import IGNORED_LABEL, TargetSource, valid_rows


def predict(
    source: TargetSource,
    examples: Sequence[Example],
    collate: Collate,
    batch_size: int = 64,
    *,
    progress: bool = True,
) -> list[np.ndarray]:
    """Logits ``[rows, C]`` of each example, in order, float32; computed in batches of like length."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].get("input_ids", ())))
    result: list[np.ndarray] = [np.empty(0)] * len(examples)
    bar = None  # to make one takes a tenth of what a small model takes for one input
    if progress:
        bar = tqdm(total=len(examples), desc="evaluation", unit="ex", delay=2, leave=False, disable=None)
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        batch = collate([examples[i] for i in chosen])
        logits = source(batch).cpu().numpy()
        rows = valid_rows(batch)
        counts = rows.reshape(len(rows), -1).sum(-1).tolist()
        for i, part in zip(chosen, np.split(logits, np.cumsum(counts)[:-1]), strict=True):
            result[i] = part
        if bar is not None:
            bar.update(len(chosen))
    if bar is not None:
        bar.close()
    return result


def label_rows(examples: Sequence[Example]) -> list[np.ndarray]:
    """The labels of each example's rows, in order."""
    labels = (np.atleast_1d(np.asarray(example["labels"])) for example in examples)
    return [row[row != IGNORED_LABEL] for row in labels]


def agreement(student: Rows, teacher: Rows) -> dict[str, float]:
    """How alike two models are, averaged over rows: the same top class, and KL(teacher‖student) at T = 1 in nats.

    Where tokenizers of their own cut an example at different words, the words that both have are compared.
    """
    common = [min(len(z), len(v)) for z, v in zip(student, teacher, strict=True)]
    z, v = (
        torch.from_numpy(np.concatenate([part[:n] for part, n in zip(rows, common, strict=True)])).double()
        for rows in (student, teacher)
    )
    return {
        "top1": float((z.argmax(-1) == v.argmax(-1)).double().mean()),
        "kl": float(forward_kl(log_temper(z, 1.0), log_temper(v, 1.0)).mean()),
    }


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
    rows: Rows | None = None,
    teacher_rows: Rows | None = None,
) -> dict[str, Any]:
    """The record of one model on one split.

    Args:
        source: the model, frozen (a student is measured through the same door as its teacher).
        folder: where its weights lie.
        task: gives the metrics.
        examples: the split, encoded.
        collate: makes batches of it.
        rows: the model's logits on the split, where they are known already.
        teacher_rows: the teacher's logits on the same rows, to measure agreement.

    Returns:
        ``metrics``, ``parameters``, ``bytes``, ``latency_ms`` (one example of median length, on the model's device),
        and ``agreement`` where there are teacher's rows.
    """
    if rows is None:
        rows = predict(source, examples, collate)
    typical = sorted(examples, key=lambda e: len(e.get("input_ids", ())))[len(examples) // 2]
    one = collate([typical])
    record = {
        "metrics": task.metrics(rows, label_rows(examples), source.labels),
        "parameters": parameters(source.model),
        "bytes": size_bytes(source.model, folder),
        "latency_ms": round(latency_ms(lambda: source.run(one).cpu()), 3),
    }
    if teacher_rows is not None:
        record["agreement"] = agreement(rows, teacher_rows)
    return record
