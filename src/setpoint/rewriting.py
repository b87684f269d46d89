"""Texts with some words replaced by what a masked language model expects there; the teacher labels them anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import AutoModelForMaskedLM

from setpoint import models
from setpoint.errors import ModelError, RecipeError
from setpoint.files import write_atomic
from setpoint.job import Job, transfer_id
from setpoint.recipe import PretrainedModel
from setpoint.recipe_data import RewriteRecipe
from setpoint.targets.fingerprint import digest_files
from setpoint.transfer import digest_inputs

BATCH = 64
Words = list[str]


def with_rewritten(job: Job) -> Job:
    """The job with rewritten copies of its training texts among its unlabelled inputs, where the recipe asks for them.

    They are made once and kept in the run folder, ``rewritten.jsonl``.

    Raises:
        RecipeError: the task has no texts.
        ModelError: the model is no masked language model.
    """
    recipe = job.recipe.data.rewrite
    if recipe is None:
        return job
    columns = job.task.input_columns()
    if not job.task.text or not columns.keys() <= {"text", "text_pair", "tokens"}:
        raise RecipeError(f"recipe section 'data.rewrite' is given for the task {job.recipe.task}", "remove it")
    file = job.path / "rewritten.jsonl"

    def work() -> dict[str, Any]:
        train = job.splits.train
        rows = [[row[field] for field in columns] for row in train]
        labelled = [row for row, name in zip(rows, train["id"], strict=True) if name not in job.unlabelled]
        made = list(_rewritten(labelled if recipe.labelled_only else rows, recipe))
        write_atomic(file, "".join(json.dumps(parts) + "\n" for parts in made))
        return {"texts": len(made)}

    fields = recipe.model_dump(mode="json")
    made_from = {"data": job.data, "rewrite": fields, "files": digest_files(fields)}
    job.folder.stage("rewritten", made_from, work, output=file)
    inputs = [_input(json.loads(line), columns) for line in file.read_text(encoding="utf-8").splitlines()]
    first = len(job.transfer)
    ids = {transfer_id(number) for number in range(first, first + len(inputs))}
    content = {**job.data["data"]["content"], "rewritten": digest_inputs(inputs)}
    data = {**job.data, "data": {**job.data["data"], "content": content}}
    return replace(job, transfer=[*job.transfer, *inputs], unlabelled=job.unlabelled | ids, data=data, _encoded={})


def _input(parts: list[Any], columns: dict[str, str]) -> Any:
    return parts[0] if "tokens" in columns else tuple(parts)


def _rewritten(rows: Sequence[list[Any]], recipe: RewriteRecipe) -> Iterator[list[Any]]:
    """Copies of each row's texts, each part a string or a list of words as it was."""
    tokenizer = models.load_tokenizer(recipe.model, "data.rewrite.model")
    if tokenizer.mask_token is None:
        raise ModelError(f"data.rewrite.model '{recipe.model}' has no mask token", "give a masked language model")
    spec = PretrainedModel(model=recipe.model)
    model = models.load_model(
        spec, AutoModelForMaskedLM, None, tokenizer, needs_head=True, field="data.rewrite.model"
    ).to(models.device())
    parts = [(part.split() if isinstance(part, str) else list(part)) for row in rows for part in row]
    copies = []
    for copy in range(recipe.copies):
        found = rewrite(parts, model, tokenizer, recipe.share, recipe.candidates, seed=copy)
        copies.append(iter(found))
    for row in rows:
        for copied in copies:
            yield [
                " ".join(words) if isinstance(part, str) else words for part, words in zip(row, copied, strict=False)
            ]


@torch.inference_mode()
def rewrite(
    texts: Sequence[Words], model: nn.Module, tokenizer: Any, share: float, candidates: int, *, seed: int = 0
) -> list[Words]:
    """Texts of the same number of words, some of them drawn from what a masked language model expects in their place.

    Each word is replaced with the probability ``share``; the new one is drawn from the model's ``candidates`` likeliest
    whole words but the old one, in proportion to their probabilities. What is drawn depends on text and seed alone.
    Source: the augmentation of Jiao et al. 2020 (TinyBERT), arXiv:1909.10351, Algorithm 1, for words of any length.

    Args:
        texts: lists of words.
        model: a masked language model.
        tokenizer: its tokenizer.
        share: of the words.
        candidates: how many words to draw from.
        seed: another seed gives other texts.
    """
    model.eval()
    device = next(model.parameters()).device
    whole = _whole_words(tokenizer).to(device)
    result = [list(words) for words in texts]
    starts = range(0, len(texts), BATCH)
    for start in tqdm(starts, desc="rewriting", unit="batch", delay=2, leave=False, disable=None):
        batch = range(start, min(start + BATCH, len(texts)))
        drawn = {i: torch.Generator().manual_seed(_seed(texts[i], seed)) for i in batch}
        places = {
            i: (torch.rand(len(texts[i]), generator=drawn[i]) < share).nonzero().flatten().tolist() for i in batch
        }
        chosen = [i for i in batch if places[i]]
        if not chosen:
            continue
        masked = [
            [tokenizer.mask_token if at in places[i] else word for at, word in enumerate(texts[i])] for i in chosen
        ]
        inputs = tokenizer(masked, is_split_into_words=True, truncation=True, padding=True, return_tensors="pt")
        logits = model(**{name: value.to(device) for name, value in inputs.items()}).logits
        for row, i in enumerate(chosen):
            at_mask = (inputs["input_ids"][row] == tokenizer.mask_token_id).nonzero().flatten()
            for place, position in zip(places[i], at_mask.tolist(), strict=False):  # the end may be cut off
                old = texts[i][place]
                word = _draw(
                    logits[row, position].masked_fill(~whole, -torch.inf), old, tokenizer, candidates, drawn[i]
                )
                result[i][place] = word
    return result


def _draw(logits: Tensor, old: str, tokenizer: Any, candidates: int, generator: torch.Generator) -> str:
    """A word other than the old one, written as that was."""
    top = logits.float().cpu().topk(candidates + 1)
    words = [tokenizer.decode([token]).strip() for token in top.indices.tolist()]
    other = [k for k, word in enumerate(words) if word.lower() != old.lower() and top.values[k] > -torch.inf]
    if not other:
        return old
    shares = top.values[other[:candidates]].softmax(-1)
    word: str = words[other[int(torch.multinomial(shares, 1, generator=generator))]]
    return word.capitalize() if old[:1].isupper() else word


def _whole_words(tokenizer: Any) -> Tensor:
    """Which entries of a vocabulary are words by themselves, of letters only."""
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    begins = next((sign for sign in ("Ġ", "▁") if any(piece.startswith(sign) for piece in pieces)), "")
    return torch.tensor([piece.startswith(begins) and piece.removeprefix(begins).isalpha() for piece in pieces])


def _seed(words: Words, seed: int) -> int:
    digest = hashlib.sha256(json.dumps([seed, words]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
