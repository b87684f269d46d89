"""Examples that a teacher writes itself, token by token: what a student of sequence-level distillation learns from.

Source: Kim & Rush 2016, arXiv:1606.07947; theirs are the likeliest sequences, these are drawn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save
from torch import nn

from setpoint.errors import DataError, RunError
from setpoint.files import write_atomic
from setpoint.recipe_data import GenerateRecipe
from setpoint.sampling import sample
from setpoint.tasks.base import Example

TOGETHER = 64
"""Examples that are drawn at once, and kept at once: what is lost when a teacher is stopped."""


def generate(
    model: nn.Module,
    examples: Sequence[Example],
    how: GenerateRecipe,
    folder: Path,
    scratch: Path,
    *,
    classes: int,
    processor: Any = None,
) -> dict[str, Any]:
    """Draw examples from a teacher into a folder, each begun by the first tokens of a training example.

    Parts are drawn from seeds of their own and kept in ``scratch``, so that a stopped one goes on to the same examples.

    Args:
        model: the teacher, in eval mode.
        examples: the training examples; of those that are long enough the prompts are taken, at random.
        how: how many, and how they are drawn.
        folder: gets ``ids.safetensors``, and ``texts.jsonl`` where there is a tokenizer.
        scratch: where finished parts lie.
        classes: how many tokens can follow.
        processor: the tokenizer; None without text.

    Returns:
        The number of examples and of tokens.

    Raises:
        DataError: no example is longer than the prompts.
    """
    length = max(len(example["input_ids"]) for example in examples) + 1
    usable = [one["input_ids"] for one in examples if len(one["input_ids"]) >= how.prompt_tokens]
    if not usable or length <= how.prompt_tokens:
        raise DataError(
            f"data.generate.prompt_tokens is {how.prompt_tokens} while the longest example has {length - 1} tokens",
            f"give at most {max(length - 1, 1)}",
        )
    chosen = np.random.default_rng(0).choice(len(usable), how.examples)
    parts = []
    for number, first in enumerate(range(0, how.examples, TOGETHER)):
        file = scratch / f"part-{number:05d}.safetensors"
        if not file.exists():
            prompts = np.stack([usable[k][: how.prompt_tokens] for k in chosen[first : first + TOGETHER]])
            drawn = sample(
                model,
                torch.from_numpy(prompts),
                length,
                classes=classes,
                temperature=how.temperature,
                top_k=how.top_k,
                top_p=how.top_p,
                seed=number,
            )
            write_atomic(file, save({"ids": drawn.cpu().numpy().astype(np.int32)}))
        parts.append(load_file(file)["ids"])
    ids = np.concatenate(parts)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "ids.safetensors", save({"ids": ids}))
    if processor is not None:
        texts = processor.batch_decode(ids.tolist())
        lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
        write_atomic(folder / "texts.jsonl", "".join(lines))
    return {"examples": len(ids), "tokens": int(ids.size)}


def read_generated(folder: Path) -> list[Example]:
    """The examples that ``generate`` has left: each token but the first of each is a row.

    Raises:
        RunError: they are not there.
    """
    file = folder / "ids.safetensors"
    if not file.exists():
        raise RunError(f"'{file}' does not exist", "run the recipe again; it generates what is missing")
    ids = load_file(file)["ids"].astype(np.int64)
    return [
        {"id": f"generated-{i}", "input_ids": own[:-1], "labels": own[1:], "task_bytes": np.zeros(len(own) - 1, int)}
        for i, own in enumerate(ids)
    ]
