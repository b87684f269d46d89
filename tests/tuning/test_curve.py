import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad

from setpoint.tuning.curve import Curve, Hyperparameters, Score, kernels, scaled, squares
from setpoint.tuning.space import Dimension

SPACE = [Dimension("T", 1.0, 16.0, log=True), Dimension("loss", choices=("kl", "mse", "l1"))]
CANDIDATES = [
    {"T": 4.0, "loss": "kl"},
    {"T": 1.0, "loss": "mse"},
    {"T": 9.0, "loss": "kl"},
    {"T": 2.5, "loss": "l1"},
    {"T": 16.0, "loss": "l1"},
]
ASKED = [{"T": 4.0, "loss": "kl"}, {"T": 6.0, "loss": "mse"}, {"T": 1.2, "loss": "l1"}]
AT = Hyperparameters(lengths=(0.4, 0.9), signal=3.0, drift=0.7, early_noise=1.6, interaction=0.4)


def some_scores():
    rng = np.random.default_rng(3)
    trained = [(c, 0, 100) for c in range(5)] + [(c, 0, 300) for c in (0, 2, 3)]
    trained += [(c, seed, 900) for c in (0, 2, 3) for seed in (0, 1)] + [(0, 2, 900), (3, 2, 900)]
    return [Score(c, seed, steps, 0.5 + float(rng.normal(0, 0.01))) for c, seed, steps in trained]


def reference_kernel(a, b, at):
    """By hand: log T over its range; two columns of ½ each for differing choices; a sum, and all at once."""
    t = (math.log(a["T"]) - math.log(b["T"])) / math.log(16.0) / at.lengths[0]
    loss = (a["loss"] != b["loss"]) / at.lengths[1]
    by_one = (math.exp(-0.5 * t * t) + math.exp(-0.5 * loss * loss)) / 2
    return (1 - at.interaction) * by_one + at.interaction * math.exp(-0.5 * (t * t + loss * loss))


def reference_joint(scores, wide, at=AT):
    """Covariance of the scores, then of f plus the mean over the last rung's three seeds, with wide free means."""
    rows = [(CANDIDATES[s.candidate], s.steps, s.seed, True) for s in scores] + [(x, 900, None, False) for x in ASKED]
    joint = np.zeros((len(rows), len(rows)))
    for i, (x, steps, seed, observed) in enumerate(rows):
        for j, (other, other_steps, other_seed, other_observed) in enumerate(rows):
            shared = at.drift**2 * min(math.log(900 / steps), math.log(900 / other_steps))
            joint[i, j] = at.signal**2 * reference_kernel(x, other, at) * (1 + shared)
            if observed and other_observed:
                joint[i, j] += wide * (steps == other_steps and seed == other_seed)
            elif observed or other_observed:
                joint[i, j] += wide / 3 * ((steps if observed else other_steps) == 900)
            else:
                joint[i, j] += wide / 3
        if observed:
            joint[i, i] += 1.0 if steps == 900 else at.early_noise**2
    return joint


def test_the_posterior_is_that_of_dense_conditioning():
    scores = sorted(some_scores(), key=lambda s: (s.steps, s.seed, s.candidate))
    curve = Curve(SPACE, CANDIDATES, scores)
    one = curve.conditional([AT])
    [linear], [covariance] = curve._linear(one, ASKED)
    n = len(scores)
    joint = reference_joint(scores, 1e6)
    gain = joint[n:, :n] @ np.linalg.inv(joint[:n, :n])
    np.testing.assert_allclose(linear, gain, atol=2e-6)
    np.testing.assert_allclose(covariance / one.variance, joint[n:, n:] - gain @ joint[:n, n:], atol=1e-4)


def test_the_evidence_is_the_likelihood_with_the_means_and_the_noise_integrated_out():
    scores = sorted(some_scores(), key=lambda s: (s.steps, s.seed, s.candidate))
    y = np.array([s.value for s in scores]) - 0.5
    curve = Curve(SPACE, CANDIDATES, scores)
    evidences, found = [], []
    for at in (AT, replace(AT, lengths=(1.1, 0.3), signal=0.4, drift=1.5, early_noise=0.6, interaction=0.8)):
        # Free means with a far greater variance than anything else, whatever the noise.
        eigenvalues, vectors = np.linalg.eigh(reference_joint(scores, 1e7, at)[: len(y), : len(y)])
        squares = (vectors.T @ y) ** 2 / eigenvalues
        free = eigenvalues < 1e5  # directions that the means do not take
        half, degrees = squares[free].sum() / 2, free.sum()
        scale = 2 * half / degrees
        integral, _ = quad(lambda u: math.exp(-degrees * u / 2 - degrees / 2 * math.exp(-u)), -8, 8)  # noqa: B023
        log_density = -0.5 * np.log(eigenvalues).sum() - degrees / 2 * math.log(scale) + math.log(integral)
        evidences.append(log_density)
        found.append(float(curve.conditional([at]).evidence[0]))
    assert found[0] - found[1] == pytest.approx(evidences[0] - evidences[1], abs=1e-4)


def test_the_mixture_has_the_mean_and_covariance_of_its_parts():
    curve = Curve(SPACE, CANDIDATES, some_scores())
    mean, covariance = curve.predict(ASKED)
    assert curve.shares.sum() == pytest.approx(1)
    assert len(curve.shares) > 20
    np.testing.assert_allclose(curve.weights(ASKED) @ curve.y, mean)
    first, second = np.zeros(3), np.zeros((3, 3))
    for weight, at in zip(curve.shares, curve.posterior.at, strict=True):
        [linear], [part] = curve._linear(curve.conditional([at]), ASKED)
        first += weight * (linear @ curve.y)
        second += weight * (part + np.outer(linear @ curve.y, linear @ curve.y))
    np.testing.assert_allclose(mean, first)
    np.testing.assert_allclose(covariance, second - np.outer(first, first), atol=1e-12)
    assert np.linalg.eigvalsh(covariance).min() > -1e-12


def test_a_constant_and_the_order_change_nothing():
    scores = some_scores()
    mean, covariance = Curve(SPACE, CANDIDATES, scores).predict(ASKED)
    moved = [replace(s, value=s.value + 7.0) for s in scores]
    np.testing.assert_allclose(Curve(SPACE, CANDIDATES, moved).predict(ASKED)[0], mean + 7.0, atol=1e-10)
    shuffled = [replace(s, seed=(5, 11, 2)[s.seed]) for s in reversed(scores)]
    for found, expected in zip(Curve(SPACE, CANDIDATES, shuffled).predict(ASKED), (mean, covariance), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_what_one_rung_or_seed_adds_to_all_changes_no_difference():
    scores = some_scores()
    curve = Curve(SPACE, CANDIDATES, scores)
    lifted = Curve(SPACE, CANDIDATES, [replace(s, value=s.value + 0.1 * s.seed + s.steps / 900) for s in scores])
    before, after = curve.predict(ASKED)[0], lifted.predict(ASKED)[0]
    np.testing.assert_allclose(after - after[0], before - before[0], atol=1e-9)
    assert after[0] - before[0] == pytest.approx(1.1)  # the last rung and the mean of its seeds


def test_the_noise_is_that_of_many_replicates():
    rng = np.random.default_rng(0)
    values = 0.8 + rng.normal(0, 0.02, (1, 24)) + rng.normal(0, 0.003, (5, 24))
    scores = [Score(c, seed, 900, float(values[c, seed])) for c in range(5) for seed in range(24)]
    curve = Curve(SPACE, CANDIDATES, scores)
    assert curve.noise == pytest.approx(0.003, rel=0.2)
    assert curve.degrees == 96


def test_only_comparable_scores_make_a_curve():
    with pytest.raises(ValueError, match="nothing can be compared"):
        Curve(SPACE, CANDIDATES, [Score(0, 0, 100, 0.5), Score(1, 1, 100, 0.6)])
    with pytest.raises(ValueError, match="not in"):
        scaled(SPACE, [{"T": 4.0, "loss": "unknown"}])


def test_a_value_that_is_no_number_stands_aside_of_the_range():
    x = scaled([SPACE[0]], [{"T": 1.0}, {"T": 16.0}, {"T": "4 → 2 (evolved)"}])
    assert kernels(squares(x, x), [replace(AT, lengths=(5.0,))])[0, 2].tolist() == [0.0, 0.0, 1.0]


def test_what_is_worked_on_at_once_changes_nothing(monkeypatch):
    mean, covariance = Curve(SPACE, CANDIDATES, some_scores()).predict(ASKED)
    monkeypatch.setattr("setpoint.tuning.curve.CHUNK", 1)
    for found, expected in zip(Curve(SPACE, CANDIDATES, some_scores()).predict(ASKED), (mean, covariance), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9)
