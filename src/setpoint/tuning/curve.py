"""A Gaussian process of a search's scores: what all trainings, short and long, say of the score at the last rung.

A score of candidate x, trained for s steps with a seed, is

    value = b(s, seed) + f(x) + d_s(x) + noise

- ``b``: a free mean for every (steps, seed), so that only differences between candidates that share both count: neither
  learning curves nor lucky seeds can mislead.
- ``f``: what is wanted, a Gaussian process with a squared-exponential kernel, a length scale for each dimension.
- ``d_s``: how the rung of s steps departs from the last: a Gaussian process with f's kernel that walks away from 0 in
  proportion to log(last / s) (Kennedy & O'Hagan 2000, Biometrika 87(1), with fidelity a walk instead of a chain).
- noise: what a seed does to one candidate alone; the rungs before the last have their own.

The means and the size of the noise are integrated out exactly, which makes the prediction a Student t (Rasmussen &
Williams 2006, §2.7; Handcock & Stein 1993, Technometrics 35(4)). The other hyperparameters are averaged over, not set
to their best values: with few scores the best values are sure of too much. The average is by importance sampling with
fixed quasi-random points, from the prior and then from a normal fitted to the posterior (Cappé et al. 2004, J. Comput.
Graph. Stat. 13(4)): no optimum to miss, and the same scores give the same curve.

All scores stay in the data, those of dropped candidates too; what halving selected by is then known to the model, and
the selection biases nothing (Rubin 1976, Biometrika 63(3)).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import qmc

from setpoint.tuning.space import Dimension

Array = NDArray[np.float64]

LENGTHS = (0.15, 5.0)  # of a dimension's range: no wiggle between neighbours, and as good as flat
ASIDE = 1e3
DRAWS = 256
CHUNK = 2_000_000
"""Numbers of a table over hyperparameters and pairs of scores, about: what is worked on at once."""


@dataclass(frozen=True)
class Score:
    """What one training scored on the validation split.

    Attributes:
        candidate: its place in the list of candidates.
        seed: of the training; candidates that share it started alike and saw the same batches.
        steps: how long it trained, which names its rung.
        value: the metric, higher is better; NaN where the training failed.
        parts: the metric on disjoint parts of the validation split, the same parts for all; may be empty.
    """

    candidate: int
    seed: int
    steps: int
    value: float
    parts: tuple[float, ...] = ()


@dataclass(frozen=True)
class Hyperparameters:
    """Sizes as standard deviations in units of the last rung's noise.

    Attributes:
        lengths: length scale of each dimension, in units of its range.
        signal: of f.
        drift: of d a factor e of steps before the last rung, in units of ``signal``.
        early_noise: of the noise before the last rung.
        interaction: the share of f's variance that is not a sum of what each dimension does alone.
    """

    lengths: tuple[float, ...]
    signal: float
    drift: float
    early_noise: float
    interaction: float


def scaled(dimensions: Sequence[Dimension], candidates: Sequence[Mapping[str, Any]]) -> list[Array]:
    """Candidates as numbers, a ``[candidates, columns]`` array for each dimension.

    A range becomes one column with its ends at 0 and 1; choices become one column each, a distance 1 apart. A value
    that is no number, such as a schedule of the temperature, is no point of a range: it is ``ASIDE``, so far away that
    neither tells anything of the other.

    Raises:
        KeyError: a candidate lacks a dimension.
        ValueError: a candidate has a value that is not among the choices.

    Examples:
        >>> space = [Dimension("T", 1.0, 16.0, log=True), Dimension("loss", choices=("kl", "mse"))]
        >>> [part.round(3).tolist() for part in scaled(space, [{"T": 4.0, "loss": "mse"}])]
        [[[0.5]], [[0.0, 0.707]]]
    """
    parts = []
    for dimension in dimensions:
        values = [candidate[dimension.name] for candidate in candidates]
        if dimension.is_range:
            scale = math.log if dimension.log else float
            low, high = map(scale, dimension.ends)
            parts.append(
                np.array(
                    [[ASIDE if isinstance(value, str) else (scale(value) - low) / (high - low)] for value in values]
                )
            )
        else:
            where = [dimension.choices.index(value) for value in values]
            parts.append(np.eye(len(dimension.choices))[where] * math.sqrt(0.5))
    return parts


def squares(a: Sequence[Array], b: Sequence[Array]) -> Array:
    """Squared distances between candidates as ``scaled`` gives them, ``[dimensions, a, b]``."""
    return np.stack([((x[:, None] - y[None]) ** 2).sum(-1) for x, y in zip(a, b, strict=True)])


def kernels(distances: Array, at: Sequence[Hyperparameters]) -> Array:
    """Correlation of f, ``[at, a, b]``: squared exponentials of each dimension alone and of all at once.

    What one dimension does holds, by the first part, wherever the others are; the second lets them interact
    (Rasmussen & Williams 2006, eq. 5.1; Duvenaud et al. 2011, additive Gaussian processes).
    """
    lengths, both = np.array([one.lengths for one in at]), _column(at, "interaction")
    total: Any = 0.0
    product: Any = 1.0
    for of_one, length in zip(distances, lengths.T, strict=True):  # one dimension after another: less memory
        alone = np.exp(-0.5 * of_one / length[:, None, None] ** 2)
        total, product = total + alone, product * alone
    correlation: Array = (1 - both) / len(distances) * total + both * product
    return correlation


def _column(at: Sequence[Hyperparameters], name: str) -> Array:
    """One of them of each, with two axes more."""
    return np.array([getattr(one, name) for one in at])[..., None, None]


class Curve:
    """The posterior of the score at the last rung, as a function of the candidate.

    Args:
        dimensions: what the search varies.
        candidates: a value for each dimension.
        scores: finite ones, at least two that share steps and seed.
        floor: standard deviation below which the noise is never held to be, in the metric's units.

    Attributes:
        degrees: of freedom of the prediction's Student t.
        noise: standard deviation of what a seed does to one candidate alone, at the last rung.

    Raises:
        ValueError: no two scores share steps and seed.

    Examples:
        >>> space = [Dimension("T", 1.0, 16.0, log=True)]
        >>> values = {0: (0.70, 0.71, 0.70), 1: (0.75, 0.76, 0.74), 2: (0.69, 0.71, 0.69)}
        >>> scores = [Score(c, seed, 100, v) for c, row in values.items() for seed, v in enumerate(row)]
        >>> curve = Curve(space, [{"T": 1.0}, {"T": 4.0}, {"T": 16.0}], scores)
        >>> mean, covariance = curve.predict([{"T": 4.0}, {"T": 16.0}])
        >>> mean.round(2).tolist(), covariance.shape
        ([0.75, 0.7], (2, 2))
    """

    def __init__(
        self,
        dimensions: Sequence[Dimension],
        candidates: Sequence[Mapping[str, Any]],
        scores: Sequence[Score],
        floor: float = 1e-9,
    ) -> None:
        self.dimensions, self.floor = dimensions, floor
        # In one order: sums of floats, and so the curve, do not depend on which training ended first.
        self.scores = sorted(scores, key=lambda score: (score.steps, score.seed, score.candidate))
        self.x = scaled(dimensions, [candidates[score.candidate] for score in self.scores])
        self._distances = squares(self.x, self.x)
        self.y = np.array([score.value for score in self.scores])
        blocks = sorted({(score.steps, score.seed) for score in self.scores})
        self.blocks = np.array([[(s.steps, s.seed) == block for block in blocks] for s in self.scores], dtype=float)
        self.degrees = len(self.scores) - len(blocks)
        if self.degrees < 1:
            raise ValueError("no two scores share steps and seed: nothing can be compared")
        last = blocks[-1][0]
        self.last = np.array([steps == last for steps, _ in blocks], dtype=float)
        self.last /= self.last.sum()
        self.gaps = np.array([math.log(last / score.steps) for score in self.scores])
        self.shares, self.posterior = self._average()
        self.noise = math.sqrt(self.shares @ self.posterior.variance)

    def conditional(self, at: Sequence[Hyperparameters]) -> Conditional:
        """The curve for given hyperparameters: generalised least squares for the free means, and simple kriging."""
        early = np.minimum.outer(self.gaps, self.gaps)  # a walk's covariance: the way that two rungs share
        drift, noise = _column(at, "drift"), np.where(self.gaps > 0, _column(at, "early_noise")[..., 0] ** 2, 1.0)
        covariance = kernels(self._distances, at) * _column(at, "signal") ** 2 * (1 + drift**2 * early)
        covariance += noise[:, None] * np.eye(len(self.y))
        inverse = np.linalg.inv(covariance)
        solved = inverse @ self.blocks
        normal = self.blocks.T @ solved
        means = np.linalg.inv(normal)
        gain = means @ solved.swapaxes(1, 2)
        projection = inverse - solved @ gain
        # Differences within a block alone reach the noise, so the level of the scores takes no digits from it.
        centred = self.y - self.blocks @ (self.blocks.T @ self.y / self.blocks.sum(0))
        variance = np.maximum(centred @ projection @ centred / self.degrees, 0.0) + self.floor**2
        log_determinants = np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(normal)[1]
        evidence = -0.5 * log_determinants - 0.5 * self.degrees * np.log(variance)
        return Conditional(at, projection, gain, means, variance, evidence)

    def weights(self, candidates: Sequence[Mapping[str, Any]]) -> Array:
        """``[candidates, scores]``: the posterior mean is this matrix times the scores, in ``self.scores``' order."""
        return np.tensordot(self.shares, self._linear(self.posterior, candidates)[0], 1)

    def predict(self, candidates: Sequence[Mapping[str, Any]]) -> tuple[Array, Array]:
        """The score that candidates would reach at the last rung, averaged over its seeds.

        Returns:
            The means ``[n]``, and a covariance ``[n, n]`` that is the squared scale of a Student t with ``degrees``.
        """
        linear, covariances = self._linear(self.posterior, candidates)
        means = linear @ self.y
        mean = self.shares @ means
        spread = means - mean
        return mean, np.tensordot(self.shares, covariances, 1) + (spread.T * self.shares) @ spread

    def _linear(self, given: Conditional, candidates: Sequence[Mapping[str, Any]]) -> tuple[Array, Array]:
        """For each of the hyperparameters ``[at, candidates, scores]``, as of ``weights``, and the covariance."""
        points, signal = scaled(self.dimensions, candidates), _column(given.at, "signal") ** 2
        cross = kernels(squares(points, self.x), given.at) * signal
        level = self.last @ given.gain  # of the last rung, from the scores
        projected = cross @ given.projection
        tied = (cross @ level[..., None])[..., 0]  # covariance of f's part and the level's
        covariance = kernels(squares(points, points), given.at) * signal - projected @ cross.swapaxes(1, 2)
        covariance += (self.last @ given.means @ self.last)[:, None, None] - tied[:, :, None] - tied[:, None, :]
        return projected + level[:, None], given.variance[:, None, None] * covariance

    def _average(self) -> tuple[Array, Conditional]:
        """Hyperparameters that stand for their posterior, and the share of each; those of no weight are left out."""
        size = len(self.dimensions) + 4
        points = _normal_points(size)
        share = self._weigh(points, np.zeros(len(points)))
        centre = share @ points
        spread = ((points - centre).T * share) @ (points - centre)
        factor = np.linalg.cholesky(2.0 * spread + 0.05 * np.eye(size))  # wider than the posterior: tails are covered
        second = centre + points @ factor.T
        share = self._weigh(second, 0.5 * (points**2).sum(1) - 0.5 * (second**2).sum(1))
        kept = share > 1e-2 * share.max()
        return share[kept] / share[kept].sum(), Conditional.joined(list(self._conditionals(second[kept])))

    def _weigh(self, points: Array, correction: Array) -> Array:
        """The share of each in the posterior."""
        logs = np.concatenate([one.evidence for one in self._conditionals(points)]) + correction
        share = np.exp(logs - logs.max())
        return np.asarray(share / share.sum())

    def _conditionals(self, points: Array) -> Iterator[Conditional]:
        """Of many hyperparameters, a few at once."""
        at, step = [_hyperparameters(point) for point in points], max(1, CHUNK // len(self.y) ** 2)
        return (self.conditional(at[i : i + step]) for i in range(0, len(at), step))


@dataclass(frozen=True)
class Conditional:
    """The curve for given hyperparameters, all but the variance in units of the noise.

    Attributes:
        at: the hyperparameters; all that follows has their axis first.
        projection: ``[at, scores, scores]``, C⁻¹ less what the free means take.
        gain: ``[at, blocks, scores]``: the free means from the scores.
        means: ``[at, blocks, blocks]``, the covariance of the free means.
        variance: ``[at]``, of the last rung's noise.
        evidence: ``[at]``, log of the restricted marginal likelihood, up to a constant.
    """

    at: Sequence[Hyperparameters]
    projection: Array
    gain: Array
    means: Array
    variance: Array
    evidence: Array

    @classmethod
    def joined(cls, parts: Sequence[Conditional]) -> Conditional:
        """Several as one."""
        arrays = {
            f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls) if f.name != "at"
        }
        return cls(at=[one for part in parts for one in part.at], **arrays)


def _hyperparameters(point: Array) -> Hyperparameters:
    """From standard normals, by weak priors: lengths like the range, f about as large as the noise, mostly a sum."""
    *lengths, signal, drift, early, interaction = map(float, point)
    return Hyperparameters(
        lengths=tuple(min(max(math.exp(0.6 * z), LENGTHS[0]), LENGTHS[1]) for z in lengths),
        signal=math.exp(2.5 * signal),
        drift=0.5 * math.exp(1.5 * drift),
        early_noise=math.exp(early),
        interaction=1 / (1 + math.exp(1 - 1.5 * interaction)),
    )


@cache
def _normal_points(size: int) -> Array:
    return np.asarray(ndtri(qmc.Sobol(size, scramble=True, rng=0).random(DRAWS)))
