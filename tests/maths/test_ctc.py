"""The loss of a transcript against the definition: a sum over every path, in float64."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference.ctc import probability, transcript_of
from setpoint.maths.ctc import ctc_loss
from setpoint.tasks.transcripts import collapsed, frames_needed


def one(logits, target):
    frames = torch.tensor([len(logits)])
    return ctc_loss(logits[None], frames, torch.tensor([target], dtype=torch.long), torch.tensor([len(target)]))[0]


def random_logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


TARGETS = [[1], [1, 2], [1, 1], [2, 1, 2], [2, 2, 1], []]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("frames", [4, 5])
def test_the_loss_is_minus_the_log_of_a_sum_over_all_paths(target, frames):
    logits = random_logits(frames, 3, seed=frames)
    assert float(one(logits, target)) == pytest.approx(-math.log(probability(logits.tolist(), target)), rel=1e-12)


def test_the_transcripts_of_some_frames_have_probabilities_that_add_up_to_one():
    logits = random_logits(4, 3, seed=9)
    every = {transcript_of(path) for path in itertools.product(range(3), repeat=4)}
    assert sum(math.exp(-float(one(logits, list(target)))) for target in every) == pytest.approx(1, rel=1e-12)


def test_gradients_are_those_of_finite_differences():
    logits = random_logits(2, 5, 4, seed=1).requires_grad_()
    frames, targets, lengths = torch.tensor([5, 3]), torch.tensor([[1, 1, 3], [2, 0, 0]]), torch.tensor([3, 1])
    assert torch.autograd.gradcheck(lambda z: ctc_loss(z, frames, targets, lengths), [logits])


@given(st.integers(0, 2**16), st.floats(-50, 50))
def test_a_constant_added_to_a_frame_changes_nothing_and_no_loss_is_below_zero(seed, shift):
    logits = random_logits(5, 4, seed=seed)
    moved = logits + torch.tensor([shift, 0.0, -shift, 1.0, 0.0], dtype=torch.float64)[:, None]
    assert float(one(logits, [3, 1])) == pytest.approx(float(one(moved, [3, 1])), abs=1e-9)
    assert float(one(logits, [3, 1])) >= 0


@given(st.permutations([1, 2, 3]), st.integers(0, 2**16))
def test_letters_have_no_order(order, seed):
    logits, target = random_logits(5, 4, seed=seed), [1, 3, 3]
    permuted = logits[:, [0, *order]]
    assert float(one(permuted, [1 + order.index(k) for k in target])) == pytest.approx(float(one(logits, target)))


def test_examples_of_a_batch_and_what_pads_them_do_not_matter_to_each_other():
    logits = random_logits(2, 6, 4, seed=3)
    both = ctc_loss(logits, torch.tensor([6, 4]), torch.tensor([[1, 2, 2], [3, 9, 9]]), torch.tensor([3, 1]))
    assert both.tolist() == pytest.approx([float(one(logits[0], [1, 2, 2])), float(one(logits[1, :4], [3]))])
    logits = logits.requires_grad_()
    ctc_loss(logits, torch.tensor([6, 4]), torch.tensor([[1, 2, 2], [3, 0, 0]]), torch.tensor([3, 1])).sum().backward()
    assert logits.grad[1, 4:].abs().max() == 0
    assert logits.grad[1, :4].abs().min() > 0


@pytest.mark.parametrize("target", [[1, 1, 1], [1, 2, 1, 2]])
def test_what_no_path_can_say_has_neither_loss_nor_gradient(target):
    assert frames_needed(target) > 3
    assert probability(random_logits(3, 3).tolist(), target) == 0
    logits = random_logits(3, 3).requires_grad_()
    loss = one(logits, target)
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad.abs().max() == 0


@given(st.lists(st.integers(0, 3), max_size=12))
def test_paths_say_what_groups_of_equal_classes_without_blanks_say(path):
    assert tuple(collapsed(path)) == transcript_of(path)
    assert frames_needed(collapsed(path)) <= len(path)


def test_half_precision_is_computed_in_single():
    logits = random_logits(6, 5).half()
    assert one(logits, [1, 2]).dtype == torch.float32
    assert float(one(logits, [1, 2])) == pytest.approx(float(one(logits.float(), [1, 2])))
