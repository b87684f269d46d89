import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from setpoint.maths.fitting import RIDGE, fit_scale, least_squares, most_important, principal_basis, smaller_product


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("rows", [40, 5])
def test_the_fit_is_the_minimum_of_its_objective(rows):
    """By autograd: the gradient of the objective, as it is written down, is 0 there; fewer rows than inputs too."""
    x, y, start = normal(rows, 7), normal(rows, 3, seed=1), normal(3, 7, seed=2)
    weight, bias = (t.requires_grad_(True) for t in least_squares(x, y, start))
    strength = RIDGE * np.mean([rows * np.var(x[:, k].numpy()) for k in range(7)])
    loss = ((x @ weight.T + bias - y) ** 2).sum() + strength * ((weight - start) ** 2).sum()
    for gradient in torch.autograd.grad(loss, (weight, bias)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-8, rtol=0)


def test_without_a_start_the_fit_is_held_to_nothing():
    x, y = normal(30, 4), normal(30, 2, seed=1)
    assert all(map(torch.equal, least_squares(x, y), least_squares(x, y, torch.zeros(2, 4, dtype=torch.float64))))


@given(st.floats(1e-2, 1e2), st.integers(1, 3))
def test_neither_the_scale_nor_a_copy_of_the_rows_changes_a_fit(scale, copies):
    x, y, start = normal(20, 4), normal(20, 2, seed=1), normal(2, 4, seed=2)
    weight, bias = least_squares(x, y, start)
    scaled, same = least_squares((x * scale).repeat(copies, 1), y.repeat(copies, 1), start / scale)
    torch.testing.assert_close(scaled * scale, weight)
    torch.testing.assert_close(same, bias)


def test_a_scale_is_simple_regression_of_each_coordinate():
    x, y = normal(50, 3), normal(50, 3, seed=1)
    gain, bias = fit_scale(x, y)
    for k in range(3):
        line = stats.linregress(x[:, k], y[:, k])
        assert (float(gain[k]), float(bias[k])) == pytest.approx((line.slope, line.intercept))
    constant, there = fit_scale(torch.ones(5, 1), torch.arange(5.0)[:, None])
    assert (float(constant), float(there)) == (0.0, 2.0)


def test_a_basis_spans_the_principal_directions_and_makes_the_gain_a_diagonal():
    states = [
        normal(60, 6) * torch.tensor([9.0, 1, 7, 1, 5, 1]) + 3,
        normal(30, 6, seed=1) * torch.tensor([9.0, 1, 7, 1, 5, 1]),
    ]
    gain = normal(6, seed=2)
    basis = principal_basis(states, 3, gain)
    torch.testing.assert_close(basis.T @ basis, torch.eye(3, dtype=torch.float64))
    turned = basis.T @ torch.diag(gain) @ basis
    torch.testing.assert_close(turned, torch.diag(turned.diagonal()))
    shares = sum(np.cov(s.numpy().T) / np.trace(np.cov(s.numpy().T)) for s in states)
    kept = np.trace(basis.numpy().T @ shares @ basis.numpy())
    assert kept == pytest.approx(np.sort(np.linalg.eigvalsh(shares))[-3:].sum())


def test_a_smaller_product_is_the_best_of_its_rank():
    """Against the singular values, by NumPy, of what it is to be near to; and no product near by is nearer."""
    a, b, x, y = normal(5, 4), normal(4, 6, seed=1), normal(40, 5, seed=2), normal(40, 6, seed=3)
    of, to = x.T @ x / 40, y.T @ y / 40
    left, right = smaller_product(a, b, of, to, 2)

    def error(left, right):
        gap = (a @ b - left @ right).numpy()
        return np.trace(gap.T @ of.numpy() @ gap @ to.numpy())  # E (xᵀ gap y)², x and y independent

    u, v = np.linalg.cholesky(of.numpy()).T, np.linalg.cholesky(to.numpy())
    values = np.linalg.svd(u @ (a @ b).numpy() @ v, compute_uv=False)
    assert left.shape == (5, 2)
    assert error(left, right) == pytest.approx((values[2:] ** 2).sum())
    for seed in range(10):
        assert error(left + 1e-3 * normal(5, 2, seed=seed), right) > error(left, right)


def test_a_product_of_full_size_stays_what_it_is():
    a, b, moment = normal(5, 4), normal(4, 5, seed=1), torch.eye(5, dtype=torch.float64)
    left, right = smaller_product(a, b, moment, moment, 4)
    torch.testing.assert_close(left @ right, a @ b)


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_what_is_important_is_what_a_loop_says(groups):
    a, w, size = normal(20, 6), normal(4, 6, seed=1), 6 // groups
    scores = []
    for g in range(groups):
        columns = slice(g * size, (g + 1) * size)
        scores.append(sum(float((w[:, columns] @ row[columns]).norm() ** 2) for row in a) / 20)
    best = sorted(np.argsort(scores)[-(groups - 1) :])
    expected = [c for g in best for c in range(g * size, (g + 1) * size)]
    assert most_important(a, w, groups, groups - 1).tolist() == expected
