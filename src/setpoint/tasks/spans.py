"""Spans of a text that answer a question: the best one by its ends, and how near it is to the right ones."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MOST_TOKENS = 30
"""The longest answer that is given, as is usual for SQuAD."""


class Span(NamedTuple):
    """From a position to another, both within it, and the logarithm of its probability."""

    log_probability: float
    start: int
    end: int


def best_span(starts: np.ndarray, ends: np.ndarray, most: int = MOST_TOKENS) -> Span | None:
    """The likeliest span: the sum of its ends' log-probabilities is largest, over all with start <= end.

    Every span is looked at, and not those of the n best ends alone. Among equals it is the shortest, then the first.

    Args:
        starts: log-probability of each position to be the start, ``[L]``; ``-inf`` where it is none.
        ends: the same of the end, ``[L]``.
        most: positions that a span may have.

    Returns:
        The span; None where there is none.

    Examples:
        >>> best_span(np.log([0.2, 0.8]), np.log([0.9, 0.1]))
        Span(log_probability=-1.7147984280919266, start=0, end=0)
    """
    found = None
    for longer in range(min(most, len(starts))):
        sums = starts[: len(starts) - longer] + ends[longer:]
        start = int(sums.argmax())
        if sums[start] > (-np.inf if found is None else found.log_probability):
            found = Span(float(sums[start]), start, start + longer)
    return found


def normalised(text: str) -> list[str]:
    """The words of an answer that are compared: lower case, without ASCII punctuation and the articles a, an, the.

    Source: the evaluation of SQuAD v1.1, Rajpurkar et al. 2016, arXiv:1606.05250, section 6.

    Examples:
        >>> normalised("The U.S.-led  attack,")
        ['usled', 'attack']
    """
    plain = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def exact_match(predicted: str, right: str) -> float:
    """1 where two answers have the same words in the same order, else 0.

    Examples:
        >>> exact_match("the Norman dukes.", "Norman Dukes"), exact_match("dukes", "Norman dukes")
        (1.0, 0.0)
    """
    return float(normalised(predicted) == normalised(right))


def token_f1(predicted: str, right: str) -> float:
    """F1 of the words of an answer, each as often as it is there; without any word, whether both have none.

    Examples:
        >>> round(token_f1("the dukes of Normandy", "Norman dukes"), 3), token_f1("", ""), token_f1("a", "x")
        (0.4, 1.0, 0.0)
    """
    said, wanted = normalised(predicted), normalised(right)
    if not said or not wanted:
        return float(said == wanted)
    return 2 * (Counter(said) & Counter(wanted)).total() / (len(said) + len(wanted))


def best_of(predicted: str, right: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 against the right answer that is nearest; a question without one wants nothing.

    Examples:
        >>> best_of("1973", ("October 1973", "1973")), best_of("", ()), best_of("1973", ())
        ((1.0, 1.0), (1.0, 1.0), (0.0, 0.0))
    """
    each = right or ("",)
    return max(exact_match(predicted, one) for one in each), max(token_f1(predicted, one) for one in each)
