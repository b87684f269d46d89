"""Embeddings of another width that give what a teacher's give: a closed form to start from, then Adam.

The sum of word, position and type goes through LayerNorm, so that no table by itself has a closed form. Only the
embedding output is looked at: there are a few million numbers and no layers, and some hundred steps settle them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from setpoint.maths.fitting import least_squares
from setpoint.narrowing import Batch, fit_norm

STEPS, TOKENS, RATE = 200, 4096, 1e-2
"""Steps of Adam, tokens in each, and the learning rate, which falls to 0 as a cosine."""

SAMPLE = 20_000
"""Tokens that the start is made on, and the error measured on."""


def fit_embeddings(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    counts: Tensor,
    batches: Sequence[Batch],
    basis: Tensor,
    *,
    seed: int = 0,
) -> float:
    """Make the student's embeddings, and their projection where it has one, give the teacher's in a basis.

    A word is drawn as often as the corpus has it, one more time each, so that none is left out; its position and type
    are those of some token of the batches.

    Args:
        student: of BERT's kind or ELECTRA's.
        teacher: of BERT's kind.
        counts: how often the corpus has each id, ``[V]``.
        batches: inputs of both.
        basis: of the hidden states, ``[D, d]``.
        seed: of the words that are drawn.

    Returns:
        the mean squared error of the embedding output over its variance, on words that are drawn anew.
    """
    body, source = student.base_model, teacher.base_model
    draw = _Words(source.embeddings, counts, batches, basis, seed)
    with torch.no_grad():
        _start(body, source.embeddings, draw, basis)
    parameters = [p for module in (body.embeddings, _projection(body)) for p in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    with torch.random.fork_rng(devices=[]):
        for _ in range(STEPS):
            words, wanted = draw(TOKENS)
            loss = (_output(body, words) - wanted).square().sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    optimizer.zero_grad()
    with torch.no_grad():
        words, wanted = draw(SAMPLE)
        error = (_output(body, words) - wanted).square().sum()
        return float(error / (wanted - wanted.mean(0)).square().sum())


Words = dict[str, Tensor]
"""``input_ids``, ``token_type_ids`` and ``position_ids``, each ``[N, 1]``: tokens on their own."""


class _Words:
    """Draws words, and what the teacher's embeddings are of them, in the basis."""

    def __init__(self, of: Any, counts: Tensor, batches: Sequence[Batch], basis: Tensor, seed: int) -> None:
        self._of, self._basis = of, basis
        self._weights = (counts + 1).double()
        padding = of.position_embeddings.padding_idx  # RoBERTa counts positions from behind it
        first = 0 if padding is None else padding + 1
        self._places = torch.cat([_places_of(batch, first) for batch in batches])
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, n: int) -> tuple[Words, Tensor]:
        ids = torch.multinomial(self._weights, n, replacement=True, generator=self._generator)[:, None]
        places = self._places[torch.randint(len(self._places), (n,), generator=self._generator)]
        words = {"input_ids": ids, "position_ids": places[:, :1], "token_type_ids": places[:, 1:]}
        with torch.no_grad():
            return words, self._of(**words)[:, 0] @ self._basis


def _places_of(batch: Batch, first: int) -> Tensor:
    """Position and type of each token that is no padding, ``[N, 2]``."""
    mask = batch["attention_mask"].bool()
    positions = torch.arange(mask.shape[1]).expand_as(mask) + first
    types = batch.get("token_type_ids", torch.zeros_like(positions))
    return torch.stack([positions[mask], types[mask]], 1)


def _projection(body: Any) -> nn.Module:
    projection: nn.Module = getattr(body, "embeddings_project", nn.Identity())
    return projection


def _output(body: Any, words: Words) -> Tensor:
    output: Tensor = _projection(body)(body.embeddings(**words)[:, 0])
    return output


def _start(body: Any, of: Any, draw: _Words, basis: Tensor) -> None:
    """In the teacher's basis where the student has no projection; else in that of most variance after the gain."""
    words, wanted = draw(SAMPLE)
    mine, projection = body.embeddings, _projection(body)
    ids, positions, types = (words[name][:, 0] for name in ("input_ids", "position_ids", "token_type_ids"))
    tables = [
        (mine.word_embeddings, of.word_embeddings.weight, ids),
        (mine.position_embeddings, of.position_embeddings.weight, positions),
        (mine.token_type_embeddings, of.token_type_embeddings.weight, types),
    ]
    down = basis
    if isinstance(projection, nn.Linear):
        sums = torch.stack([table[index] for _, table, index in tables]).sum(0)
        centred = (sums - sums.mean(0)).double()
        gain = of.LayerNorm.weight.double()[:, None]
        directions = torch.linalg.eigh(gain * (centred.T @ centred) * gain.T)[1][:, -projection.in_features :]
        down = (gain * directions).to(sums)
        tables = [(module, table - table[index].mean(0), index) for module, table, index in tables]
    for module, table, _ in tables:
        module.weight.copy_(table @ down)
    sums = torch.stack([module.weight[index] for module, _, index in tables]).sum(0)
    if isinstance(projection, nn.Linear):
        for module, _, _ in tables:
            module.weight.div_(sums.std())
        mine.LayerNorm.reset_parameters()
        weight, bias = least_squares(mine.LayerNorm(sums / sums.std()), wanted)
        projection.weight.copy_(weight)
        projection.bias.copy_(bias)
    else:
        fit_norm(mine.LayerNorm, sums, wanted)
