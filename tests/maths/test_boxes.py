from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.maths.boxes import box_loss, giou, match


def by_pixels(a, b, side=400):
    """GIoU from counting the cells of a fine grid."""
    centres = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(centres, centres)

    def ends(box):
        return box[0] - box[2] / 2, box[1] - box[3] / 2, box[0] + box[2] / 2, box[1] + box[3] / 2

    def inside(box):
        left, top, right, bottom = ends(box)
        return (x > left) & (x < right) & (y > top) & (y < bottom)

    p, q = inside(a), inside(b)
    edges = np.array([ends(a), ends(b)])
    low, high = edges[:, :2].min(0), edges[:, 2:].max(0)
    around = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1])
    return (p & q).sum() / (p | q).sum() - (around.sum() - (p | q).sum()) / around.sum()


BOX = st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7), st.floats(0.1, 0.5), st.floats(0.1, 0.5))


@settings(max_examples=25, deadline=None)
@given(BOX, BOX)
def test_giou_is_that_of_counted_cells(a, b):
    found = giou(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64))
    assert float(found) == pytest.approx(by_pixels(a, b), abs=0.05)
    assert -1 < float(found) <= 1


@settings(max_examples=50, deadline=None)
@given(BOX, BOX)
def test_giou_knows_no_order_and_is_one_of_a_box_with_itself(a, b):
    a, b = (torch.tensor(box, dtype=torch.float64) for box in (a, b))
    assert float(giou(a, b)) == pytest.approx(float(giou(b, a)), abs=1e-12)
    assert float(giou(a, a)) == pytest.approx(1, abs=1e-12)
    assert float(box_loss(a, a)) == pytest.approx(0, abs=1e-12)
    assert float(box_loss(a, b)) >= -1e-12


def test_giou_by_hand_and_its_gradient():
    a = torch.tensor([0.2, 0.5, 0.2, 0.4], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.7, 0.5, 0.2, 0.4], dtype=torch.float64)
    assert float(giou(a, b)) == pytest.approx(-(0.7 * 0.4 - 0.16) / (0.7 * 0.4))  # apart: no cell is in both
    assert torch.autograd.gradcheck(lambda box: box_loss(box, b), (a,))


def test_boxes_without_area_give_numbers():
    flat = torch.zeros(4, requires_grad=True)
    loss = box_loss(flat, torch.zeros(4))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(flat.grad).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_match_is_the_best_of_all(seed):
    cost = torch.rand(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows, columns = match(cost)
    best = min(sum(cost[i, j] for j, i in enumerate(order)) for order in permutations(range(5), 4))
    assert float(cost[rows, columns].sum()) == pytest.approx(float(best))
    assert sorted(columns.tolist()) == [0, 1, 2, 3]
