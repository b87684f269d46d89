import math

import numpy as np
import pytest

from setpoint.maths.stats import Interval
from setpoint.recipe import DataRecipe
from setpoint.shipping.gate import decide, difference
from setpoint.tasks import make_task

BETTER, SAME, WORSE = (Interval(m, m - 0.01, m + 0.01, 50) for m in (0.05, 0.0, -0.05))
ONE = Interval(0.5, math.nan, math.nan, 1)


@pytest.mark.parametrize(
    ("on_old", "on_new", "promote"),
    [
        (SAME, BETTER, True), (BETTER, BETTER, True), (WORSE, BETTER, False), (SAME, SAME, False), (SAME, WORSE, False),
        (BETTER, SAME, False), (ONE, BETTER, False), (SAME, ONE, False),
    ],
)  # fmt: skip
def test_only_a_student_better_on_the_new_and_not_worse_on_the_old_is_promoted(on_old, on_new, promote):
    gate = decide(on_old, on_new, "f1")
    assert gate.promote is promote
    assert gate.sentences[1].endswith("so it is promoted." if promote else "so the student before it stays.")


@pytest.mark.parametrize(("name", "metric"), [("token-classification", "f1"), ("text-classification", "accuracy")])
def test_a_difference_is_that_of_the_scores_and_is_paired(name, metric):
    task = make_task(name, DataRecipe(train="x", test="x"))
    draw, names = np.random.default_rng(0), ("O", "B-PER", "B-LOC")
    rows = 1 if name == "text-classification" else 4
    labels = [draw.integers(0, 3, size=rows) for _ in range(60)]
    old = [np.eye(3)[y] + draw.normal(size=(rows, 3)) for y in labels]
    new = [z + 2 * np.eye(3)[y] * (i % 3 == 0) for i, (z, y) in enumerate(zip(old, labels, strict=True))]
    found = difference(task, names, new, old, labels)
    one, two = (task.metrics(side, labels, names)[metric] for side in (new, old))
    assert found.mean == pytest.approx(one - two)
    assert (found.low > 0, found.n) == (True, 60)
    same = difference(task, names, old, old, labels)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    # Not paired it would be wider.
    alone = [difference(task, names, side, [-z for z in side], labels) for side in (new, old)]
    assert found.high - found.low < max(side.high - side.low for side in alone)


def test_the_scores_of_tokens_are_those_of_any_examples():
    task = make_task("token-classification", DataRecipe(train="x", test="x"))
    draw, names = np.random.default_rng(0), ("O", "B-PER", "B-LOC")
    labels = [draw.integers(0, 3, size=n) for n in (4, 1, 3)]
    logits = [draw.normal(size=(len(y), 3)) for y in labels]
    chosen = np.array([2, 0, 2])
    for score, of in task.scores(logits, labels, names).items():
        picked = task.metrics([logits[i] for i in chosen], [labels[i] for i in chosen], names)
        assert of(chosen) == pytest.approx(picked[score]), score
