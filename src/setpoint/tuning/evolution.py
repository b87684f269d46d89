"""Population-based training of the temperature: who goes on as whose copy, and what the best of them lived through.

Students train side by side. Now and then the worst of them go on as copies of the best, at a temperature a little
higher or lower, so that the temperature changes over the training of the one that is best at the end. These are pure
functions; `setpoint.tuning.flock` trains.

Source: Jaderberg et al. 2017, arXiv:1711.09846: truncation selection, and perturbation (by 0.8 or 1.2; here by 0.8 or
1.25, which undo each other).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from setpoint.tuning.plan import ROUNDS

FACTORS = (0.8, 1.25)
SHARE = 0.25
"""Of the students: how many are given up each time, and how many of the best are copied."""


class Move(NamedTuple):
    """A student that goes on as another's copy: the one copied, the one given up, and its temperature from then on."""

    source: int
    target: int
    temperature: float


class Life(NamedTuple):
    """Where a student comes from, and its ancestors' temperatures and its own, one for each part of the training."""

    founder: int
    temperatures: tuple[float, ...]


def select(losses: Sequence[float], temperatures: Sequence[float], draw: random.Random) -> list[Move]:
    """The moves after a part of the training; none where there is one student alone.

    Examples:
        >>> select([0.9, 0.2, 0.5, 0.4], [64.0, 4.0, 8.0, 2.0], random.Random(0))
        [Move(source=1, target=0, temperature=5.0)]
    """
    count = max(1, round(SHARE * len(losses)))
    order = sorted(range(len(losses)), key=lambda i: (losses[i], i))
    best = order[:count]
    moves = []
    for target in order[count:][-count:]:
        source = draw.choice(best)
        moves.append(Move(source, target, float(f"{temperatures[source] * draw.choice(FACTORS):.3g}")))
    return moves


def live_on(lives: Sequence[Life], moves: Sequence[Move]) -> list[Life]:
    """All lives one part of the training later.

    Examples:
        >>> live_on([Life(0, (64.0,)), Life(1, (4.0,))], [Move(1, 0, 3.2)])
        [Life(founder=1, temperatures=(4.0, 3.2)), Life(founder=1, temperatures=(4.0, 4.0))]
    """
    after = [Life(founder, (*past, past[-1])) for founder, past in lives]
    for source, target, temperature in moves:
        founder, past = lives[source]
        after[target] = Life(founder, (*past, temperature))
    return after


def as_steps(temperatures: Sequence[float]) -> dict[float, float]:
    """The schedule for a whole training: the temperature that begins at each progress.

    Examples:
        >>> as_steps([4.0, 4.0, 3.2, 3.2, 3.2, 3.2, 3.2, 3.2, 3.2, 2.56])
        {0.0: 4.0, 0.2: 3.2, 0.9: 2.56}
    """
    steps, at = {}, 0
    for temperature, equal in groupby(temperatures):
        steps[at / ROUNDS] = temperature
        at += len(list(equal))
    return steps


def told(temperatures: Sequence[float]) -> str:
    """The schedule in short.

    Examples:
        >>> told([4.0, 4.0, 3.2, 2.56])
        '4 → 3.2 → 2.56'
    """
    return " → ".join(f"{temperature:g}" for temperature, _ in groupby(temperatures))
