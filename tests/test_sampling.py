"""Sampling token by token: the distribution, its cut, and what a seed is for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from setpoint.sampling import likeliest, sample


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(vocab_size=6, n_embd=8, n_layer=2, n_head=2, n_positions=8, initializer_range=0.6, **ends)
    return GPT2LMHeadModel(config).eval()


def test_tokens_are_drawn_from_the_models_distribution(model):
    """By counting pairs of tokens against the chain rule, with no cache in the reference."""
    draws, t = 20_000, 1.5
    drawn = sample(model, torch.zeros(draws, 1, dtype=torch.long), 3, classes=5, temperature=t, seed=1)
    counts = np.zeros((5, 5))
    np.add.at(counts, (drawn[:, 1].numpy(), drawn[:, 2].numpy()), 1)
    with torch.no_grad():
        first = (model(input_ids=torch.tensor([[0]])).logits[0, -1, :5].double() / t).softmax(-1).numpy()
        second = [
            (model(input_ids=torch.tensor([[0, k]])).logits[0, -1, :5].double() / t).softmax(-1).numpy()
            for k in range(5)
        ]
    expected = first[:, None] * np.stack(second)
    assert np.abs(counts / draws - expected).max() < 4 * np.sqrt(0.25 / draws)
    assert drawn.max() < 5  # the sixth is none of the classes


def test_a_seed_gives_the_same_tokens_and_the_prompt_stays(model):
    prompts = torch.tensor([[1, 2], [3, 4]])
    one, again, other = (sample(model, prompts, 8, classes=6, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(one[:, :2], prompts)


def test_the_likeliest_alone_is_what_greedy_decoding_gives(model):
    found = sample(model, torch.tensor([[1]]), 8, classes=6, top_k=1, seed=5)[0].tolist()
    ids = [1]
    for _ in range(7):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert found == ids


@given(
    st.lists(st.floats(0.01, 1), min_size=1, max_size=8), st.none() | st.integers(1, 9), st.none() | st.floats(0.05, 1)
)
def test_what_is_kept_is_found_by_a_loop(weights, top_k, top_p):
    shares = torch.tensor(weights, dtype=torch.float64)
    shares = shares / shares.sum()
    kept, mass = set(), 0.0
    for rank, k in enumerate(sorted(range(len(weights)), key=lambda k: (-float(shares[k]), k))):
        if (top_k is None or rank < top_k) and (top_p is None or mass < top_p - 1e-12):
            kept.add(k)
        mass += float(shares[k])
    found = likeliest(shares.log(), top_k, None if top_p is None else top_p - 1e-12)
    assert {k for k in range(len(weights)) if found[k] > -torch.inf} == kept
