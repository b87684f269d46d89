"""What a verdict consists of: plain data, for the report and for JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """A difference of scores with its 95 % interval, whose ends are None where one seed tells no noise."""

    value: float
    low: float | None
    high: float | None

    @property
    def is_told(self) -> bool:
        """Whether the interval is known and leaves 0 out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Point:
    """The score that is expected at a temperature, the other dimensions at their best; None as in `Estimate`."""

    at: float
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Loss:
    """What a reference point loses to the best: ``default``, ``1``, ``low`` or ``high`` (the ends of the range)."""

    name: str
    at: float | None
    loss: Estimate


@dataclass(frozen=True)
class Importance:
    """How far the expected score moves over one dimension, the others at their best, and where it is highest."""

    name: str
    effect: Estimate
    best: Any


@dataclass(frozen=True)
class MeasuredAt:
    """The last rung: its steps, their share of the full training, and its seeds."""

    steps: int
    share: float
    seeds: int


@dataclass(frozen=True)
class Verdict:
    """What a search has shown. ``dataclasses.asdict`` of it is plain data for JSON.

    Attributes:
        best: the finalist of highest expected score.
        chosen: ``best`` where its advantage over the default is outside noise and does not fade, else the default.
        default: the candidate that stays unless another is told to be better.
        advantage: of ``best`` over the default; None where there is nothing to compare or the default failed.
        projected: ``advantage`` at the end of a whole training, should a lead go on shrinking as it did.
        flat: no temperature (where none is searched, no finalist) can be told from the best, though all are well known.
            Where some are too little known for that, ``low`` and ``high`` are wide and ``flat`` is false.
        knob: the dimension that stands for the temperature or softness; None where the search varies none.
        best_temperature: where the expected score is highest, the other dimensions as in ``best``.
        low: least temperature that cannot be told from the best one, in one piece with it.
        high: greatest such temperature.
        curve: expected scores over the range.
        losses: what reference points lose to the best temperature, or to ``best`` where there is none.
        importance: of every dimension, the greatest first.
        outweighed: for each dimension the others whose effect is smaller by more than noise.
        measured_at: the last rung.
        needed_examples: validation examples at which the advantage would be told from noise; None where it is told,
            where the parts of the split are not known, or where more examples alone would not do.
        smallest: the difference that the validation split can tell at all.
        dropped: candidates that failed.
        sentences: what a colleague would say.
        sentence: the same as one paragraph.
    """

    best: int
    chosen: int
    default: int
    measured_at: MeasuredAt
    smallest: float
    dropped: tuple[int, ...]
    knob: str | None
    best_temperature: float | None = None
    advantage: Estimate | None = None
    projected: Estimate | None = None
    flat: bool = False
    low: float | None = None
    high: float | None = None
    curve: tuple[Point, ...] = ()
    losses: tuple[Loss, ...] = ()
    importance: tuple[Importance, ...] = ()
    outweighed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    needed_examples: int | None = None
    sentences: tuple[str, ...] = ()
    sentence: str = ""
