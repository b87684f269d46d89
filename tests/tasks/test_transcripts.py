"""Characters and edits."""

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.errors import DataError
from setpoint.tasks.transcripts import edits, spelt, vocabulary, written

NAMES = ("<pad>", "|", "a", "b", "c")


def fewest(said, true):
    """By the definition: the best of all first steps."""

    @functools.cache
    def left(i, j):
        if i == len(said) or j == len(true):
            return len(said) - i + len(true) - j
        steps = [1 + left(i + 1, j), 1 + left(i, j + 1), (said[i] != true[j]) + left(i + 1, j + 1)]
        return min(steps)

    return left(0, 0)


words = st.text("abc", max_size=7)


@given(words, words)
def test_edits_are_the_fewest_of_all_ways(said, true):
    assert edits(said, true) == fewest(said, true)


@given(words, words, words)
def test_edits_are_a_distance(a, b, c):
    assert edits(a, b) == edits(b, a)
    assert (edits(a, b) == 0) == (a == b)
    assert edits(a, c) <= edits(a, b) + edits(b, c)


@given(st.lists(st.text("abc", min_size=1, max_size=4), max_size=4))
def test_what_is_spelt_is_written_again(said):
    text = " ".join(said)
    assert written(spelt(text, NAMES, "train"), NAMES) == text


def test_spaces_around_words_do_not_count():
    assert spelt("  ab  c ", NAMES, "train") == spelt("ab c", NAMES, "train") == [2, 3, 1, 4]
    assert written([1, 2, 1, 1, 3, 1], NAMES) == "a b"


def test_the_vocabulary_is_that_of_the_transcripts_or_what_is_listed():
    assert vocabulary(None, ["cab a", "b"]) == NAMES
    assert vocabulary(["_", "b", "a"], ["cab"]) == ("_", "b", "a")
    with pytest.raises(DataError, match="data.train has no transcript with a letter in it: give transcripts"):
        vocabulary(None, ["", " "])


def test_a_character_that_is_no_class_is_refused():
    with pytest.raises(DataError, match="data.test has the character 'x' in a transcript, which no training") as error:
        spelt("axb", NAMES, "test")
    assert str(error.value).endswith("mend the transcripts, or list every character in data.labels, the blank first")
    with pytest.raises(DataError, match=r"data.test has a transcript of several words, and data.labels has no '\|'"):
        spelt("a b", ("<pad>", "a", "b"), "test")
    assert spelt("ab", ("a", "b", "a"), "test") == [2, 1]  # the blank, whatever it is called, is no character
