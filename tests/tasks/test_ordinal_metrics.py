import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, mean_absolute_error, roc_auc_score, root_mean_squared_error

from setpoint.tasks.base import ALL
from setpoint.tasks.ordinal_metrics import (
    ORDINAL_SCORES,
    concordance,
    expected_values,
    ordinal_scores,
    ordinal_tables,
    quadratic_kappa,
)

NAMES = ("1", "2.5", "4")
pairs = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 3)), min_size=1, max_size=25)


@given(pairs)
def test_concordance_against_every_pair(rows):
    right = pairs = 0.0
    for value, label in rows:
        for other, lower in rows:
            if lower < label:
                pairs += 1
                right += 1.0 if value > other else 0.5 if value == other else 0.0
    found = concordance(*(np.array(column) for column in zip(*rows, strict=True)))
    assert found == pytest.approx(right / pairs if pairs else 0.5)


def test_concordance_of_two_classes_is_the_area_under_the_curve():
    generator = np.random.default_rng(0)
    values, classes = generator.normal(size=200).round(1), generator.integers(0, 2, 200)
    assert concordance(values, classes) == pytest.approx(roc_auc_score(classes, values))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=25))
def test_kappa_against_its_definition(rows):
    true, predicted = (np.array(column) for column in zip(*rows, strict=True))
    seen = sum((a - b) ** 2 for a, b in rows) / len(rows)
    chance = sum((a - b) ** 2 for a in true for b in predicted) / len(rows) ** 2
    wanted = 1 - seen / chance if len({*true, *predicted}) > 1 else 0.0
    assert quadratic_kappa(true, predicted, 4) == pytest.approx(wanted, abs=1e-12)


def made(n=60):
    generator = np.random.default_rng(1)
    logits, labels = generator.normal(size=(n, 3)) * 2, generator.integers(0, 3, n)
    return [row[None] for row in logits], [np.array([label]) for label in labels]


def test_expected_values_against_a_loop():
    logits = np.concatenate(made()[0])
    for row, found in zip(logits, expected_values(logits, NAMES), strict=True):
        weights = [math.exp(z) for z in row]
        assert found == pytest.approx(sum(w * float(n) for w, n in zip(weights, NAMES, strict=True)) / sum(weights))


def test_errors_are_those_of_scikit_learn():
    logits, labels = made()
    found = ordinal_tables(logits, labels, NAMES)
    true, values = np.concatenate(labels), expected_values(np.concatenate(logits), NAMES)
    rated = np.array([float(name) for name in NAMES])[true]
    shares = np.exp(np.concatenate(logits))
    assert found["rmse"] == pytest.approx(root_mean_squared_error(rated, values))
    assert found["mae"] == pytest.approx(mean_absolute_error(rated, values))
    assert found["log_loss"] == pytest.approx(log_loss(true, shares / shares.sum(-1, keepdims=True)))
    assert found["classes"]["2.5"]["support"] == (true == 1).sum()


def test_scores_of_some_examples():
    logits, labels = made()
    scores = ordinal_scores(logits, labels, NAMES)
    assert tuple(scores) == ORDINAL_SCORES
    some = np.array([0, 3, 3, 8, 20, 31])
    again = ordinal_scores([logits[i] for i in some], [labels[i] for i in some], NAMES)
    assert {name: score(some) for name, score in scores.items()} == {name: s(ALL) for name, s in again.items()}


def test_a_model_that_is_right_scores_one():
    logits = [row[None] for row in 50 * np.eye(3)]
    scores = ordinal_scores(logits, [np.array([i]) for i in range(3)], NAMES)
    assert {name: score(ALL) for name, score in scores.items()} == dict.fromkeys(ORDINAL_SCORES, 1.0)
    assert ordinal_tables(logits, [np.array([i]) for i in range(3)], NAMES)["rmse"] < 1e-9
