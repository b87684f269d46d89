"""Whether new data are like the old: in what goes in, in what is predicted, and in whether the teacher still agrees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from setpoint.insight.explaining import percent
from setpoint.maths.drift import (
    distribution_distance,
    energy_distance,
    frequency_distance,
    holm,
    p_value,
    rate_distance,
    sharings,
)
from setpoint.maths.tempering import temper
from setpoint.tasks.base import Example, Rows

FALSE_ALARMS = 0.01
"""In how many cases without drift one is seen, all tests together."""
MOST_EXAMPLES = 1500
"""Of each side that are measured, drawn at random: enough for what matters, and done in seconds."""
MOST_TOKENS = 1000
"""The most frequent kinds of tokens, of both sides together, that are told apart."""


@dataclass(frozen=True)
class Observed:
    """What is seen of some examples, a row an example.

    Attributes:
        counts: of each token by its id; None where the inputs are no text.
        size: tokens of a text; of an image its mean brightness.
        pooled: the student's logits, mean over rows, ``[N, C]``.
        classes: rows that the student gives to each class, ``[N, C]``.
        confidence: the student's calibrated probability of its choice, mean over rows.
        apart: rows where student and teacher have another top class; None where no teacher was asked.
    """

    counts: tuple[Counter[int], ...] | None
    size: Tensor
    pooled: Tensor
    classes: Tensor
    confidence: Tensor
    apart: Tensor | None

    def __len__(self) -> int:
        return len(self.size)


@dataclass(frozen=True)
class DriftTest:
    """One comparison of new and old.

    Attributes:
        name: what is compared.
        statistic: how far apart they are.
        old: what one would say of the old examples.
        new: and of the new.
        p_value: of this test alone.
        adjusted: by Holm, for all tests together.
        drifted: whether that is within the rate of false alarms.
    """

    name: str
    statistic: float
    old: str
    new: str
    p_value: float
    adjusted: float
    drifted: bool


@dataclass(frozen=True)
class Drift:
    """What the tests have found.

    Attributes:
        old: how many old examples were measured.
        new: how many new ones.
        false_alarms: in how many cases without drift one is seen, all tests together.
        tests: one after the other.
        drifted: whether any of them sees drift.
        sentences: what one would say.
    """

    old: int
    new: int
    false_alarms: float
    tests: tuple[DriftTest, ...]
    drifted: bool
    sentences: tuple[str, ...]


def observe(
    examples: Sequence[Example], student: Rows, teacher: Rows | None = None, temperature: float = 1.0
) -> Observed:
    """See what there is to compare in some examples. Those without a row are left out.

    Args:
        examples: encoded, of any task.
        student: the student's logits on their rows.
        teacher: the teacher's on the same rows.
        temperature: calibrates the student's confidence.
    """
    kept = [i for i, rows in enumerate(student) if len(rows)]
    logits = [torch.from_numpy(np.asarray(student[i])).double() for i in kept]
    tops = [rows.argmax(-1) for rows in logits]
    classes = logits[0].shape[-1] if logits else 1
    text = all("input_ids" in examples[i] for i in kept)
    ids = [list(examples[i]["input_ids"]) for i in kept] if text else []
    size = [len(one) for one in ids] if text else [float(examples[i]["pixel_values"].mean()) for i in kept]
    apart = None
    if teacher is not None:
        # Tokenizers of their own may cut an example at different words; the rows of both are the first ones.
        pairs = ((tops[at], torch.from_numpy(np.asarray(teacher[i])).argmax(-1)) for at, i in enumerate(kept))
        apart = torch.tensor([float((a[: len(b)] != b[: len(a)]).sum()) for a, b in pairs])
    return Observed(
        counts=tuple(Counter(one) for one in ids) if text else None,
        size=torch.tensor(size, dtype=torch.float64),
        pooled=torch.stack([rows.mean(0) for rows in logits]),
        classes=torch.stack([torch.bincount(top, minlength=classes) for top in tops]).double(),
        confidence=torch.stack([temper(rows, temperature).amax(-1).mean() for rows in logits]),
        apart=apart,
    )


def measure_drift(
    old: Observed,
    new: Observed,
    *,
    class_names: Sequence[str] | None = None,
    false_alarms: float = FALSE_ALARMS,
    repeats: int = 1999,
    seed: int = 0,
) -> Drift:
    """Compare new examples with old ones.

    Args:
        old: examples of the kind that the student was trained for, but not trained on.
        new: the others.
        class_names: for the sentences.
        false_alarms: the chance that any test sees drift where there is none.
        repeats: random sharings of the examples between old and new; of six tests none can be sure of anything at
            a rate below 6 / (repeats + 1).
        seed: of the sharings.
    """
    compared = _Compared(old, new, sharings(len(old), len(new), repeats, seed))
    measured = {name: test() for name, test in compared.tests().items()}
    p_values = [p_value(statistics) for statistics in measured.values()]
    tests = tuple(
        DriftTest(name, float(values[0]), *compared.told(name, class_names), p, adjusted, adjusted <= false_alarms)
        for (name, values), p, adjusted in zip(measured.items(), p_values, holm(p_values), strict=True)
    )
    drifted = any(test.drifted for test in tests)
    return Drift(len(old), len(new), false_alarms, tests, drifted, _sentences(tests, false_alarms, len(old), len(new)))


@dataclass(frozen=True)
class _Compared:
    """Old and new examples in one row, and the ways to share them out."""

    old: Observed
    new: Observed
    sharings: Tensor

    def _both(self, name: str) -> Tensor:
        return torch.cat([getattr(self.old, name), getattr(self.new, name)])

    def tests(self) -> dict[str, Callable[[], Tensor]]:
        """By name, the statistics over all sharings."""
        found: dict[str, Callable[[], Tensor]] = {}
        if self.old.counts is not None and self.new.counts is not None:
            found["tokens"] = lambda: frequency_distance(self._tokens(), self.sharings)
        size = "lengths" if "tokens" in found else "brightness"
        found[size] = lambda: distribution_distance(self._both("size"), self.sharings)
        found["logits"] = lambda: energy_distance(self._scaled(), self.sharings)
        found["classes"] = lambda: frequency_distance(self._both("classes"), self.sharings)
        found["confidence"] = lambda: distribution_distance(self._both("confidence"), self.sharings)
        if self.old.apart is not None and self.new.apart is not None:
            rows = self._both("classes").sum(-1)
            found["disagreement"] = lambda: rate_distance(self._both("apart").double(), rows, self.sharings)
        return found

    def _tokens(self) -> Tensor:
        """Counts of the most frequent tokens, and of all others together; which they are, no sharing changes."""
        each = [*(self.old.counts or ()), *(self.new.counts or ())]
        total: Counter[int] = Counter()
        for one in each:
            total.update(one)
        place = {token: i for i, (token, _) in enumerate(sorted(total.items(), key=_most_first)[:MOST_TOKENS])}
        counts = torch.zeros(len(each), len(place) + 1, dtype=torch.float64)
        for row, one in enumerate(each):
            for token, times in one.items():
                counts[row, place.get(token, len(place))] += times
        return counts

    def _scaled(self) -> Tensor:
        points = self._both("pooled")
        return points / points.std(0).clamp(min=1e-12)

    def told(self, name: str, class_names: Sequence[str] | None) -> tuple[str, str]:
        """What one would say of old and new examples."""
        if name == "tokens" or name == "logits":
            return "", ""
        if name == "classes":
            shares = [side.classes.sum(0) / side.classes.sum() for side in (self.old, self.new)]
            most = int((shares[0] - shares[1]).abs().argmax())
            label = f"class {most}" if class_names is None else class_names[most]
            return f"{percent(float(shares[0][most]))} {label}", f"{percent(float(shares[1][most]))} {label}"
        if name == "lengths":
            return f"{float(self.old.size.median()):.0f} tokens", f"{float(self.new.size.median()):.0f} tokens"
        if name == "disagreement":
            old, new = (
                float(side.apart.sum() / side.classes.sum()) if side.apart is not None else 0.0
                for side in (self.old, self.new)
            )
            return percent(old), percent(new)
        field = "size" if name == "brightness" else name
        old, new = (float(getattr(side, field).mean()) for side in (self.old, self.new))
        return f"{old:.2f}", f"{new:.2f}"


def _most_first(entry: tuple[int, int]) -> tuple[int, int]:
    return -entry[1], entry[0]


_SAID = {
    "tokens": "the tokens are others, {distance} of them would have to be exchanged",
    "lengths": "texts have {new} at the median, not {old}",
    "brightness": "images have a mean brightness of {new}, not {old}",
    "logits": "the student's logits are distributed otherwise",
    "classes": "the student says {new}, not {old}",
    "confidence": "its calibrated confidence is {new} on average, not {old}",
    "disagreement": "student and teacher disagree in {new} of the rows, not {old}",
}


def _sentences(tests: Sequence[DriftTest], false_alarms: float, old: int, new: int) -> tuple[str, ...]:
    rate = f"at a false-alarm rate of {percent(false_alarms)} for all {len(tests)} tests together"
    measured = f"Compared were {new:,} new examples with {old:,} of the validation split, {rate}."
    seen = [test for test in tests if test.drifted]
    if not seen:
        return ("The new data are like the old as far as this can tell.", measured)
    told = "; ".join(
        _SAID[test.name].format(old=test.old, new=test.new, distance=percent(test.statistic))
        + f" (p = {test.adjusted:.2g})"
        for test in seen
    )
    return (f"The new data are not like the old: {told}.", measured)
