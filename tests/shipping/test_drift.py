import re

import numpy as np
import pytest
import torch
from scipy import stats

from setpoint.maths.drift import p_value, rate_distance, sharings
from setpoint.shipping.drift import Observed, measure_drift, observe

NAMES = ["O", "LOC", "PER"]


def sentences(random, n, *, tokens=0.0, longer=0.0, shift=0.0, sharper=1.0, apart=0.1):
    """Sentences whose rows are far from independent: each has its own bent, which all its words share."""
    examples, student, teacher = [], [], []
    for _ in range(n):
        length = int(random.integers(3, 12) * (1 + longer))
        words = random.integers(0, 20, size=length) + 20 * (random.random(length) < tokens)
        bent = random.normal(size=3) + np.array([0.0, shift, 0.0])
        rows = sharper * (bent + 0.3 * random.normal(size=(length, 3)))
        wrong = rows.copy()
        if random.random() < apart:  # the teacher differs in a whole sentence or not at all
            wrong[:, rows.mean(0).argmin()] += 9.0
        examples.append({"input_ids": words.tolist()})
        student.append(rows.astype(np.float32))
        teacher.append(wrong.astype(np.float32))
    return observe(examples, student, teacher)


def drift(seed, n=40, repeats=999, false_alarms=0.01, **changes):
    random = np.random.default_rng(seed)
    old, new = sentences(random, n), sentences(random, n, **changes)
    return measure_drift(old, new, class_names=NAMES, false_alarms=false_alarms, repeats=repeats)


def assert_stated_rate(pairs, false_alarms, repeats):
    alarms = sum(drift(seed, 20, repeats, false_alarms).drifted for seed in range(pairs))
    most = stats.binom.ppf(0.9995, pairs, false_alarms)
    assert alarms <= most, (alarms, most)
    # Holm's rate is at most the stated one; that it is near it shows that the tests do not sleep.
    assert alarms >= stats.binom.ppf(0.001, pairs, false_alarms / 3), alarms


def test_false_alarms_are_as_rare_as_stated():
    assert_stated_rate(40, 0.2, 149)


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_stated_at_the_usual_rate():
    assert_stated_rate(400, 0.01, 699)


def test_rows_of_a_sentence_are_not_taken_for_independent():
    """To share out single rows, as a plain test of two proportions does, would see drift where there is none."""
    alarms = {"sentences": 0, "rows": 0}
    for seed in range(40):
        random = np.random.default_rng(seed)
        old, new = sentences(random, 20, apart=0.5), sentences(random, 20, apart=0.5)
        hits, rows = torch.cat([old.apart, new.apart]).double(), torch.cat([old.classes, new.classes]).sum(-1)
        by_sentence = p_value(rate_distance(hits, rows, sharings(20, 20, 199)))
        ones = torch.cat([(torch.arange(int(n)) < int(h)).double() for h, n in zip(hits, rows, strict=True)])
        before = int(old.classes.sum())
        by_row = p_value(rate_distance(ones, torch.ones_like(ones), sharings(before, len(ones) - before, 199)))
        alarms["sentences"] += by_sentence <= 0.05
        alarms["rows"] += by_row <= 0.05
    assert alarms["sentences"] <= stats.binom.ppf(0.999, 40, 0.05)
    assert alarms["rows"] > 10


@pytest.mark.parametrize(
    ("changes", "seen", "words"),
    [
        ({"tokens": 0.5}, {"tokens"}, r"the tokens are others, [3-6]\d% of them would have to be exchanged"),
        ({"longer": 1.0}, {"lengths"}, r"texts have 1\d tokens at the median, not [678] tokens"),
        ({"shift": 2.0}, {"logits", "classes"}, r"the student says \d\d% (O|LOC|PER), not \d\d% (O|LOC|PER)"),
        ({"sharper": 4.0}, {"confidence"}, r"its calibrated confidence is 0\.\d\d on average, not 0\.\d\d"),
        ({"apart": 0.7}, {"disagreement"}, r"student and teacher disagree in [67]\d% of the rows, not \d+%"),
    ],
)
def test_planted_drift_is_seen_and_said(changes, seen, words):
    found = drift(1, n=80, **changes)
    assert found.drifted
    assert seen <= {test.name for test in found.tests if test.drifted}
    assert found.sentences[0].startswith("The new data are not like the old: ")
    assert re.search(words, found.sentences[0]), found.sentences[0]


def test_without_drift_it_says_what_it_could_have_told():
    found = drift(2)
    assert not found.drifted
    assert found.sentences == (
        "The new data are like the old as far as this can tell.",
        "Compared were 40 new examples with 40 of the validation split, at a false-alarm rate of 1% for all 6 tests"
        " together.",
    )
    assert [test.name for test in found.tests] == [
        "tokens", "lengths", "logits", "classes", "confidence", "disagreement",
    ]  # fmt: skip


def test_what_is_observed_is_what_is_there():
    rows = [np.array([[2.0, 0, 0], [0, 0, 1.0]]), np.empty((0, 3)), np.array([[0, 5.0, 0]])]
    teacher = [np.array([[2.0, 0, 0], [0, 3.0, 1.0]]), np.empty((0, 3)), np.array([[0, 5.0, 0]])]
    examples = [{"input_ids": [7, 7, 9]}, {"input_ids": [1]}, {"input_ids": [9]}]
    found = observe(examples, rows, teacher, temperature=2.0)
    assert len(found) == 2  # an example of which every word was cut off says nothing
    assert found.counts == ({7: 2, 9: 1}, {9: 1})
    assert (found.size.tolist(), found.apart.tolist()) == ([3, 1], [1, 0])
    assert found.classes.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert found.pooled.tolist() == [[1.0, 0.0, 0.5], [0.0, 5.0, 0.0]]
    sure = [np.exp(z / 2).max() / np.exp(z / 2).sum() for z in rows[0]]
    assert found.confidence[0] == pytest.approx(np.mean(sure))


def test_images_and_data_without_a_teacher_are_compared_by_what_they_have():
    random = np.random.default_rng(0)

    def images(bright):
        pixels = [{"pixel_values": torch.from_numpy(random.random((1, 4, 4))) * bright} for _ in range(40)]
        return observe(pixels, [random.normal(size=(1, 3)) for _ in pixels])

    found = measure_drift(images(1.0), images(0.5), repeats=999)
    assert [test.name for test in found.tests] == ["brightness", "logits", "classes", "confidence"]
    assert [test.name for test in found.tests if test.drifted] == ["brightness"]
    assert "images have a mean brightness of 0.25, not 0.5" in found.sentences[0]
    assert isinstance(images(1.0), Observed)
