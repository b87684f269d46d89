import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from setpoint.maths.drift import (
    distribution_distance,
    energy_distance,
    frequency_distance,
    holm,
    p_value,
    rate_distance,
    sharings,
)

NEW = sharings(7, 5, repeats=20, seed=3)


def each(values):
    """The old and the new part of values, for each sharing."""
    return [(values[~new], values[new]) for new in NEW.numpy()]


@pytest.mark.parametrize("ties", [False, True])
def test_the_gap_of_distributions_is_scipys(ties):
    values = np.random.default_rng(0).normal(size=12)
    values = values.round() if ties else values
    expected = [stats.ks_2samp(old, new).statistic for old, new in each(values)]
    assert distribution_distance(torch.from_numpy(values), NEW).tolist() == pytest.approx(expected)


def test_the_energy_distance_is_that_of_its_definition_and_of_scipy():
    points = np.random.default_rng(0).normal(size=(12, 3))

    def mean(a, b):
        return np.mean([np.linalg.norm(x - y) for x in a for y in b])

    expected = [2 * mean(x, y) - mean(x, x) - mean(y, y) for x, y in each(points)]
    assert energy_distance(torch.from_numpy(points), NEW).tolist() == pytest.approx(expected)
    line = points[:, 0]
    expected = [stats.energy_distance(x, y) ** 2 for x, y in each(line)]
    assert energy_distance(torch.from_numpy(line[:, None]), NEW).tolist() == pytest.approx(expected)


def test_frequencies_and_rates_are_those_of_a_loop():
    counts = np.random.default_rng(0).integers(0, 5, size=(12, 4)).astype(float)
    expected = []
    for old, new in each(counts):
        p, q = (part.sum(0) / part.sum() for part in (old, new))
        expected.append(sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2)
    assert frequency_distance(torch.from_numpy(counts), NEW).tolist() == pytest.approx(expected)
    hits, rows = counts[:, 0], counts.sum(-1)
    expected = [
        abs(a.sum() / m.sum() - b.sum() / n.sum()) for (a, b), (m, n) in zip(each(hits), each(rows), strict=True)
    ]
    assert rate_distance(torch.from_numpy(hits), torch.from_numpy(rows), NEW).tolist() == pytest.approx(expected)


def test_the_p_value_is_that_of_all_sharings():
    values = torch.tensor([0.1, 0.5, 0.7, 1.3, 1.4, 2.0, 2.2])
    found = p_value(distribution_distance(values, sharings(4, 3, repeats=20_000)))
    every = [[i in chosen for i in range(7)] for chosen in itertools.combinations(range(7), 3)]
    statistics = distribution_distance(values, torch.tensor(every))
    exact = float((statistics >= distribution_distance(values, sharings(4, 3, repeats=1))[0] - 1e-12).double().mean())
    assert found == pytest.approx(exact, abs=0.01)
    assert exact == pytest.approx(stats.ks_2samp(values[:4], values[4:], method="exact").pvalue)


def test_a_p_value_is_never_nought():
    assert p_value(torch.tensor([9.0, *[0.0] * 99])) == 0.01
    assert p_value(torch.tensor([0.3, 0.1 + 0.2])) == 1.0  # the same but for rounding


def test_holm_rejects_what_its_procedure_rejects():
    """Reference: step down from the smallest p until one is above α / (m − place)."""
    for p in np.random.default_rng(0).random((200, 5)) ** 3:
        for alpha in (0.01, 0.05, 0.3):
            rejected, order = [False] * 5, np.argsort(p)
            for place, number in enumerate(order):
                if p[number] > alpha / (5 - place):
                    break
                rejected[number] = True
            assert [value <= alpha for value in holm(p.tolist())] == rejected
    assert holm([]) == []


def test_sharings_are_what_they_were_and_spread_evenly():
    found = sharings(30, 10, repeats=4000)
    assert found.shape == (4001, 40)
    assert found[0].tolist() == [False] * 30 + [True] * 10
    assert set(found.sum(-1).tolist()) == {10}
    assert (found[1:].double().mean(0) - 0.25).abs().max() < 0.03
    assert torch.equal(found, sharings(30, 10, repeats=4000))
