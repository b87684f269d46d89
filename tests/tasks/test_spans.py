"""The best span, and the scores of SQuAD v1.1, against references that go through everything one by one."""

import math
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from setpoint.tasks.spans import best_of, best_span, exact_match, normalised, token_f1

logs = arrays(np.float64, 7, elements=st.floats(-30, 0) | st.just(-math.inf))


def every_span(starts, ends, most):
    return {
        (i, j): starts[i] + ends[j]
        for i in range(len(starts))
        for j in range(i, min(i + most, len(starts)))
        if starts[i] + ends[j] > -math.inf
    }


@given(logs, logs, st.integers(1, 9))
def test_the_best_span_is_the_best_of_all(starts, ends, most):
    found, spans = best_span(starts, ends, most), every_span(starts, ends, most)
    if not spans:
        assert found is None
        return
    assert found.start <= found.end < found.start + most
    assert found.log_probability == max(spans.values()) == spans[found.start, found.end]
    equals = [span for span, value in spans.items() if value == found.log_probability]
    assert (found.start, found.end) == min(equals, key=lambda span: (span[1] - span[0], span[0]))


def test_the_best_end_may_lie_before_the_best_start():
    span = best_span(np.log([0.3, 0.1, 0.6]), np.log([0.5, 0.4, 0.1]))
    assert (span.start, span.end) == (0, 0)
    assert math.exp(span.log_probability) == pytest.approx(0.15)
    assert best_span(np.empty(0), np.empty(0)) is None


def words_of(text):
    """The rule of SQuAD v1.1, letter by letter."""
    kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    words, word = [], ""
    for letter in kept + " ":
        if letter.isspace():
            words.append(word)
            word = ""
        else:
            word += letter
    return [word for word in words if word and word not in ("a", "an", "the")]


def f1_of(predicted, right):
    """Words are struck off one by one."""
    said, left = words_of(predicted), words_of(right)
    if not said or not left:
        return float(said == left)
    total, wanted, common = len(said), len(left), 0
    for word in said:
        if word in left:
            left.remove(word)
            common += 1
    if common == 0:
        return 0.0
    precision, recall = common / total, common / wanted
    return 2 * precision * recall / (precision + recall)


texts = st.lists(
    st.sampled_from(["the", "The", "a", "An", "U.S.", "us", "led", "led,", "1973", "—", "than", "'s", "é"])
)


@given(texts.map(" ".join), texts.map("  ".join))
def test_answers_are_scored_by_the_rule(predicted, right):
    assert normalised(predicted) == words_of(predicted)
    assert exact_match(predicted, right) == float(words_of(predicted) == words_of(right))
    assert token_f1(predicted, right) == pytest.approx(f1_of(predicted, right), abs=1e-12)
    assert token_f1(predicted, right) == token_f1(right, predicted)


@pytest.mark.parametrize(
    ("predicted", "right", "em", "f1"),
    [
        ("October 1973", "october  1973.", 1, 1),
        ("the Denver Broncos", "Denver Broncos", 1, 1),
        ("Denver", "Denver Broncos", 0, 2 / 3),
        ("gold gold", "gold", 0, 2 / 3),  # a word counts as often as it is there
        ("golden anniversary", "gold", 0, 0),
        ("theatre", "the atre", 0, 0),  # an article is a word of its own
        ("$12", "12", 1, 1),
        ("—", "—", 1, 1),  # no ASCII punctuation
        ("a", "the", 1, 1),
    ],
)
def test_known_cases(predicted, right, em, f1):
    assert (exact_match(predicted, right), token_f1(predicted, right)) == (em, pytest.approx(f1))


def test_the_nearest_right_answer_counts_for_each_score():
    assert best_of("in October 1973", ("1973", "October 1973")) == (0.0, pytest.approx(0.8))
    assert best_of("1973", ("October 1973", "1973")) == (1.0, 1.0)
    assert best_of("", ()) == (1.0, 1.0)
    assert best_of("x", ()) == (0.0, 0.0)
