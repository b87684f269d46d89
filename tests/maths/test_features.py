"""Losses on inner states: each against loops, and what must not change them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import features as ref
from setpoint.errors import TargetError
from setpoint.maths.features import (
    attention_kl,
    attention_mse,
    attention_transfer,
    hidden_cosine,
    hidden_mse,
    pkd,
    relation_kl,
)

few = settings(max_examples=30)
seeds = st.integers(0, 10**6)
STATES = {"mse": (hidden_mse, ref.mse), "cosine": (hidden_cosine, ref.cosine), "pkd": (pkd, ref.pkd)}
states_kinds = pytest.mark.parametrize("kind", list(STATES))
ATTENTIONS = {"kl": (attention_kl, ref.attention_kl), "mse": (attention_mse, ref.attention_mse)}
attention_kinds = pytest.mark.parametrize("kind", list(ATTENTIONS))


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attentions(heads, mask, seed=0):
    """Distributions over the keys that are there, ``[B, heads, L, L]``."""
    scores = 2 * randn(len(mask), heads, mask.shape[1], mask.shape[1], seed=seed)
    return scores.masked_fill(~mask[:, None, None, :], -math.inf).softmax(-1)


def ragged(lengths):
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


LENGTHS = (5, 2, 4)
MASK = ragged(LENGTHS)


# ---------------------------------------------------------------------------------------------------- states


@states_kinds
@few
@given(seed=seeds, width=st.integers(1, 7))
def test_states_against_loops(kind, seed, width):
    ours, loop = STATES[kind]
    s, t = randn(2, 3, width, seed=seed), randn(2, 3, width, seed=seed + 1)
    values = ours(s, t)
    assert values.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            assert float(values[i, j]) == pytest.approx(loop(s[i, j].tolist(), t[i, j].tolist()), rel=1e-9, abs=1e-12)


@states_kinds
def test_equal_states_are_at_no_distance_and_no_distance_is_below_0(kind):
    s = randn(50, 6)
    assert STATES[kind][0](s.float(), s.float()).tolist() == [0.0] * 50
    assert (STATES[kind][0](s.float(), (s * (1 + 1e-7)).float()) >= 0).all()


@pytest.mark.parametrize("kind", ["cosine", "pkd"])
@few
@given(seed=seeds, a=st.floats(0.01, 100), b=st.floats(0.01, 100))
def test_lengths_do_not_matter_where_they_are_taken_away(kind, seed, a, b):
    s, t = randn(4, 5, seed=seed), randn(4, 5, seed=seed + 1)
    torch.testing.assert_close(STATES[kind][0](a * s, b * t), STATES[kind][0](s, t), rtol=1e-9, atol=1e-12)


@states_kinds
def test_gradients_of_states_are_derivatives_and_finite_at_0(kind):
    function = STATES[kind][0]
    s, t = randn(3, 4).requires_grad_(), randn(3, 4, seed=1)
    assert torch.autograd.gradcheck(lambda x: function(x, t), (s,))
    for start in (torch.zeros(2, 4), t[:2].clone()):
        start.requires_grad_()
        function(start, torch.cat([t[:1], torch.zeros(1, 4, dtype=t.dtype)]).to(start)).sum().backward()
        assert torch.isfinite(start.grad).all()


@states_kinds
def test_half_precision_is_computed_in_float32(kind):
    s, t = randn(40, 64).to(torch.bfloat16), randn(40, 64, seed=1).to(torch.bfloat16)
    value = STATES[kind][0](s, t)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), STATES[kind][0](s.double(), t.double()), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------------------- attentions


@attention_kinds
@few
@given(seed=seeds, heads=st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_attentions_against_loops_over_what_is_no_padding(kind, seed, heads):
    ours, loop = ATTENTIONS[kind]
    s, t = attentions(heads[0], MASK, seed), attentions(heads[1], MASK, seed + 1)
    values = ours(s, t, MASK)
    assert values.shape == MASK.shape
    for example, length in enumerate(LENGTHS):
        cut = [x[example, :, :length, :length].tolist() for x in (s, t)]
        for query in range(MASK.shape[1]):
            expected = loop(*cut, query) if query < length else 0.0
            assert float(values[example, query]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_squared_distance_of_scores_takes_those_of_padding_for_nothing():
    scores = randn(3, 2, 5, 5).masked_fill(~MASK[:, None, None, :], -math.inf)
    values = attention_mse(scores, 1 + scores, MASK)
    torch.testing.assert_close(values, MASK.double())


@attention_kinds
def test_equal_attentions_are_at_no_distance(kind):
    s = attentions(2, MASK).float()
    assert ATTENTIONS[kind][0](s, s, MASK).abs().max() == 0
    assert (ATTENTIONS[kind][0](s, attentions(2, MASK, 1).float(), MASK) >= 0).all()


@attention_kinds
def test_an_attention_of_no_probability_gives_a_finite_number_and_gradient(kind):
    s = torch.eye(3).expand(1, 2, 3, 3).clone().requires_grad_()
    t = torch.eye(3).flip(0).expand(1, 2, 3, 3)
    value = ATTENTIONS[kind][0](s, t)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(s.grad).all()


@attention_kinds
def test_gradients_of_attentions_are_derivatives_on_both_sides(kind):
    a, b = randn(3, 2, 5, 5).requires_grad_(), randn(3, 2, 5, 5, seed=1).requires_grad_()

    def of_scores(a, b):
        s, t = (x.masked_fill(~MASK[:, None, None, :], -math.inf).softmax(-1) for x in (a, b))
        return ATTENTIONS[kind][0](s, t, MASK)

    assert torch.autograd.gradcheck(of_scores, (a, b))


# ---------------------------------------------------------------------------------------------------- relations


@few
@given(seed=seeds, heads=st.integers(1, 3), widths=st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_relations_against_loops_over_what_is_no_padding(seed, heads, widths):
    s, t = (randn(3, 5, heads * width, seed=seed + i) for i, width in enumerate(widths))
    values = relation_kl(s, t, heads, MASK)
    for example, length in enumerate(LENGTHS):
        cut = [x[example, :length].tolist() for x in (s, t)]
        for query in range(5):
            expected = ref.relation_kl(*cut, heads, query) if query < length else 0.0
            assert float(values[example, query]) == pytest.approx(expected, rel=1e-8, abs=1e-11)


@few
@given(seed=seeds, heads=st.integers(1, 3))
def test_relations_are_the_same_however_each_head_is_rotated(seed, heads):
    s, t = randn(2, 4, 4 * heads, seed=seed), randn(2, 4, 3 * heads, seed=seed + 1)
    rotation = torch.block_diag(*(torch.linalg.qr(randn(4, 4, seed=seed + 2 + i))[0] for i in range(heads)))
    torch.testing.assert_close(relation_kl(s @ rotation, t, heads), relation_kl(s, t, heads), rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(
        relation_kl(s, s @ rotation, heads), torch.zeros(2, 4, dtype=s.dtype), rtol=0, atol=1e-12
    )


def test_relations_are_never_negative_and_their_gradients_derivatives():
    s, t = randn(3, 5, 6).requires_grad_(), randn(3, 5, 4, seed=1).requires_grad_()
    assert (relation_kl(s.float(), t.float(), 2, MASK) >= 0).all()
    assert torch.autograd.gradcheck(lambda a, b: relation_kl(a, b, 2, MASK), (s, t))


def test_relation_heads_divide_both_widths():
    with pytest.raises(TargetError, match="3 relation heads do not divide a width of 4: give a divisor of both"):
        relation_kl(randn(1, 2, 6), randn(1, 2, 4), heads=3)


# ---------------------------------------------------------------------------------------------------- masks


MASKED = {
    "attention_kl": lambda s, t, mask: attention_kl(s, t, mask),
    "attention_mse": lambda s, t, mask: attention_mse(s, t, mask),
    "relation_kl": lambda s, t, mask: relation_kl(s, t, 2, mask),
}


@pytest.mark.parametrize("name", list(MASKED))
def test_padding_is_as_if_it_were_not_there_whatever_stands_in_it(name):
    shape = (3, 5, 4) if name == "relation_kl" else (3, 2, 5, 5)
    make = randn if name == "relation_kl" else lambda *_, seed: attentions(2, MASK, seed)
    s, t = make(*shape, seed=0), make(*shape, seed=1)
    out = ~MASK[..., None] if name == "relation_kl" else ~(MASK[:, None, None, :] & MASK[:, None, :, None])
    dirty = s.masked_fill(out, math.nan).requires_grad_()
    value = MASKED[name](dirty, t.masked_fill(out, 7.0), MASK)
    assert value[~MASK].tolist() == [0.0] * int((~MASK).sum())
    value.sum().backward()
    assert torch.isfinite(dirty.grad).all()
    assert dirty.grad[out.expand_as(dirty)].abs().max() == 0
    for example, length in enumerate(LENGTHS):
        part = (slice(example, example + 1), *(slice(None),) * (s.ndim == 4), *(slice(length),) * (s.ndim - 2))
        cut = [x[part] for x in (s, t)]
        torch.testing.assert_close(value[example, :length], MASKED[name](*cut, None)[0].detach())


@pytest.mark.parametrize("name", list(MASKED))
def test_an_example_of_nothing_but_padding_gives_0(name):
    x = randn(1, 3, 4) if name == "relation_kl" else torch.full((1, 2, 3, 3), 1 / 3, dtype=torch.float64)
    x.requires_grad_()
    value = MASKED[name](x, x.detach().clone(), torch.zeros(1, 3, dtype=torch.bool))
    value.sum().backward()
    assert value.tolist() == [[0.0] * 3]
    assert torch.isfinite(x.grad).all()


# ---------------------------------------------------------------------------------------------------- maps


@few
@given(seed=seeds, channels=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_attention_transfer_against_loops(seed, channels):
    s, t = (randn(2, c, 3, 2, seed=seed + i) for i, c in enumerate(channels))
    values = attention_transfer(s, t)
    for example in range(2):
        expected = ref.pkd(ref.energy(s[example].tolist()), ref.energy(t[example].tolist()))
        assert float(values[example]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_attention_transfer_forgets_scale_sign_and_the_order_of_channels():
    s, t = randn(2, 4, 3, 3), randn(2, 6, 3, 3, seed=1)
    torch.testing.assert_close(attention_transfer(-5 * s[:, [2, 0, 3, 1]], 0.1 * t), attention_transfer(s, t))
    assert attention_transfer(s, 3 * s).abs().max() < 1e-15
    assert ((attention_transfer(s, t) >= 0) & (attention_transfer(s, t) <= 2)).all()


def test_gradients_of_maps_are_derivatives_and_finite_for_an_empty_map():
    s, t = randn(2, 2, 3, 2).requires_grad_(), randn(2, 3, 3, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: attention_transfer(x, t), (s,))
    empty = torch.zeros(2, 2, 3, 2).requires_grad_()
    attention_transfer(empty, t.float()).sum().backward()
    assert torch.isfinite(empty.grad).all()
