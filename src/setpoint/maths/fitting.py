"""Closed forms by which a smaller linear map takes the place of a larger one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

RIDGE = 1e-3
"""How strongly a fit is held to its start, as a share of the mean variance of its inputs."""


def least_squares(
    inputs: Float[Tensor, "N K"], targets: Float[Tensor, "N M"], start: Float[Tensor, "M K"] | None = None
) -> tuple[Float[Tensor, "M K"], Float[Tensor, " M"]]:
    """The affine map nearest to the targets, held to a start: ``min Σ_n ‖W x_n + b − y_n‖² + λ ‖W − W₀‖²``.

    λ is ``RIDGE`` times the mean of ``Σ_n (x_nk − x̄_k)²`` over the K inputs, so that neither their scale nor
    the number of rows changes what it means. Computed in float64.

    Args:
        inputs: ``[N, K]``.
        targets: ``[N, M]``.
        start: W₀, ``[M, K]``; 0 where not given.

    Returns:
        W, ``[M, K]``, and b, ``[M]``.

    Source: Hoerl and Kennard 1970, Technometrics 12(1), with the shrinkage towards W₀ in place of 0.

    Examples:
        >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> weight, bias = least_squares(x, x[:, :1] * 2 + 1, start=torch.tensor([[2.0, 0.0, 0.0]]))
        >>> torch.allclose(weight, torch.tensor([[2.0, 0.0, 0.0]])), torch.allclose(bias, torch.ones(1))
        (True, True)
    """
    x, y = inputs.double(), targets.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    first = torch.zeros(y.shape[1], x.shape[1], dtype=x.dtype) if start is None else start.double()
    gram = x.T @ x
    gram.diagonal().add_(RIDGE * gram.diagonal().mean() + 1e-12)
    weight = first + torch.linalg.solve(gram, x.T @ (y - x @ first.T)).T
    return weight.to(inputs), (y_mean - weight @ x_mean).to(inputs)


def fit_scale(
    inputs: Float[Tensor, "N K"], targets: Float[Tensor, "N K"]
) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
    """For each coordinate the line nearest to the targets: gain and bias with ``min Σ_n (g x_n + b − y_n)²``.

    Args:
        inputs: ``[N, K]``. A coordinate that does not vary gets the gain 0.
        targets: ``[N, K]``.

    Returns:
        gain, ``[K]``, and bias, ``[K]``.

    Source: simple linear regression, g = cov(x, y) / var(x).

    Examples:
        >>> x = torch.tensor([[0.0], [1.0], [2.0]])
        >>> fit_scale(x, 3 * x + 1)
        (tensor([3.]), tensor([1.]))
    """
    x, y = inputs - inputs.mean(0), targets - targets.mean(0)
    gain = (x * y).sum(0) / (x * x).sum(0).clamp_min(1e-12)
    return gain, targets.mean(0) - gain * inputs.mean(0)


def principal_basis(
    states: Sequence[Float[Tensor, "_ D"]], size: int, gain: Float[Tensor, " D"]
) -> Float[Tensor, "D size"]:
    """An orthonormal basis of the directions in which states vary most, each set of states counting alike.

    Within their span the basis is turned to the eigenvectors of ``Qᵀ diag(gain) Q``: there the gain of a LayerNorm is
    a diagonal between the new coordinates too, and a diagonal is all that a narrower LayerNorm has.

    Args:
        states: sets of hidden states, each ``[N, D]``.
        size: how many directions.
        gain: of a LayerNorm, ``[D]``.

    Returns:
        Q, ``[D, size]``.

    Source: principal components; their use for the hidden states of a transformer is SliceGPT's, Ashkboos et al. 2024,
    arXiv:2401.15024.

    Examples:
        >>> states = torch.tensor([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
        >>> principal_basis([states], 1, torch.ones(3)).abs()
        tensor([[1.],
                [0.],
                [0.]])
    """
    total = torch.zeros(len(gain), len(gain), dtype=torch.float64)
    for rows in states:
        centred = rows.double() - rows.double().mean(0)
        covariance = centred.T @ centred
        total += covariance / covariance.trace()
    basis = torch.linalg.eigh(total)[1][:, -size:]
    turn = torch.linalg.eigh(basis.T @ (gain.double()[:, None] * basis))[1]
    turned: Tensor = basis @ turn
    return turned.to(gain)


def smaller_product(
    left: Float[Tensor, "A R"],
    right: Float[Tensor, "R B"],
    of: Float[Tensor, "A A"],
    to: Float[Tensor, "B B"],
    size: int,
) -> tuple[Float[Tensor, "A size"], Float[Tensor, "size B"]]:
    """Two factors of a smaller inner size, their product nearest to ``P = left · right``: ``min E (xᵀ (P − P′) y)²``.

    With second moments ``E x xᵀ = U²`` and ``E y yᵀ = V²`` of independent x and y, it is the truncated singular value
    decomposition of ``U P V``, taken back.

    Args:
        left: ``[A, R]``.
        right: ``[R, B]``.
        of: E x xᵀ, ``[A, A]``.
        to: E y yᵀ, ``[B, B]``.
        size: the new inner size.

    Returns:
        the two factors, ``[A, size]`` and ``[size, B]``; each has the roots of the singular values.

    Source: Eckart and Young 1936, Psychometrika 1(3).

    Examples:
        >>> a, b = smaller_product(torch.diag(torch.tensor([3.0, 1.0])), torch.eye(2), torch.eye(2), torch.eye(2), 1)
        >>> (a @ b).round(decimals=3).abs()
        tensor([[3., 0.],
                [0., 0.]])
    """
    (u_root, u_back), (v_root, v_back) = _roots(of), _roots(to)
    u, s, v = torch.linalg.svd(u_root @ left.double() @ right.double() @ v_root, full_matrices=False)
    half = s[:size].sqrt()
    return (u_back @ u[:, :size] * half).to(left), (half[:, None] * v[:size] @ v_back).to(right)


def _roots(moment: Tensor) -> tuple[Tensor, Tensor]:
    """The square root of a second moment, and the inverse of that; directions that hardly occur count as rare ones."""
    values, vectors = torch.linalg.eigh(moment.double())
    values = values.clamp_min(values[-1] * 1e-10).sqrt()
    return vectors * values @ vectors.T, vectors / values @ vectors.T


def most_important(
    activations: Float[Tensor, "N K"], weight: Float[Tensor, "M K"], groups: int, count: int
) -> Int[Tensor, " _"]:
    """The columns of the groups of neurons that add most to a sum: the greatest ``E ‖W_g a_g‖²``.

    Args:
        activations: a, ``[N, K]``.
        weight: W, ``[M, K]``, by which they are multiplied.
        groups: how many equal groups the K neurons form, such as the heads of an attention; K, each is one.
        count: groups to choose.

    Returns:
        the numbers of the columns in rising order, ``[count · K / groups]``.

    Source: the norm of what a neuron contributes, as in magnitude pruning with activations (Sun et al. 2023,
    arXiv:2306.11695); here of whole groups.

    Examples:
        >>> a = torch.tensor([[1.0, 0.1, 2.0], [1.0, 0.1, 0.0]])
        >>> most_important(a, torch.tensor([[1.0, 5.0, 1.0]]), groups=3, count=2)
        tensor([0, 2])
    """
    n, k = activations.shape
    a = activations.reshape(n, groups, k // groups)
    w = weight.reshape(len(weight), groups, k // groups)
    moment = torch.einsum("ngi,ngj->gij", a, a) / n
    score = torch.einsum("mgi,gij,mgj->g", w, moment, w)
    chosen = score.topk(count).indices.sort().values
    return torch.arange(k).reshape(groups, -1)[chosen].flatten()
