"""Sequences drawn from a causal language model, token by token."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from setpoint.maths.tempering import log_temper


def sample(
    model: nn.Module,
    prompts: Tensor,
    length: int,
    *,
    classes: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Tensor:
    """Continue prompts to a length, each next token drawn from the model's distribution at a temperature.

    The model is run as it is; the same seed gives the same tokens. Written out, since ``generate`` of transformers
    stops at an end of text or never draws one, while training blocks go on after it.

    Args:
        model: a causal language model of transformers, in eval mode.
        prompts: token ids ``[B, k]``, k at least 1.
        length: tokens of a whole sequence, prompt included.
        classes: only the first so many entries of the vocabulary are drawn.
        temperature: divides the logits.
        top_k: draw among the k likeliest.
        top_p: draw among the likeliest whose mass first reaches p.
        seed: of the draws.

    Returns:
        Token ids ``[B, length]``.

    Examples:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> ends = {"bos_token_id": 0, "eos_token_id": 0}
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1, n_positions=8, **ends))
        >>> sample(model.eval(), torch.tensor([[1], [2]]), 6, classes=9).shape
        torch.Size([2, 6])
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    ids, cache = prompts.to(device), None
    with torch.no_grad():
        while ids.shape[1] < length:
            given = ids if cache is None else ids[:, -1:]
            output = model(input_ids=given, cache=cache, use_cache=True)
            cache = output.cache
            log_probs = likeliest(log_temper(output.logits[:, -1, :classes], temperature), top_k, top_p)
            drawn = torch.multinomial(log_probs.exp().cpu(), 1, generator=generator)
            ids = torch.cat([ids, drawn.to(device)], dim=1)
    return ids


def likeliest(log_probs: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Log-probabilities with ``-inf`` where a token is not among the likeliest; they are not normalised again.

    Args:
        log_probs: ``[..., C]``.
        top_k: as many are kept.
        top_p: the fewest likeliest are kept whose mass is at least p (nucleus, Holtzman et al. 2020,
            arXiv:1904.09751).

    Examples:
        >>> likeliest(torch.tensor([0.5, 0.3, 0.2]).log(), top_p=0.6).exp()
        tensor([0.5000, 0.3000, 0.0000])
    """
    if top_k is None and top_p is None:
        return log_probs
    ordered, order = log_probs.sort(dim=-1, descending=True, stable=True)
    out = torch.zeros_like(ordered, dtype=torch.bool)
    if top_k is not None:
        out[..., top_k:] = True
    if top_p is not None:
        shares = ordered.exp()
        out |= shares.cumsum(-1) - shares >= top_p  # what stands before it has the mass already
    return log_probs.masked_fill(torch.zeros_like(out).scatter(-1, order, out), -math.inf)
