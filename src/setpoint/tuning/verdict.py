"""The verdict of a search: what can be told, what is within noise, and what stays for want of proof."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import stdtrit  # Student's quantile

from setpoint.errors import SetpointError
from setpoint.tuning import wording
from setpoint.tuning.curve import Array, Curve, Score
from setpoint.tuning.findings import Estimate, Importance, Loss, MeasuredAt, Point, Verdict
from setpoint.tuning.space import Dimension

CONFIDENCE = 0.95
Z = 1.959963984540054  # the normal quantile of 0.975
CURVE_POINTS = 61
FLAT_WIDTH = 2.0  # simulated: 0.3 to 1 where the truth is flat, above 3 where the ends are unknown
IMPORTANCE_POINTS = 21


def decide(
    dimensions: Sequence[Dimension],
    candidates: Sequence[Mapping[str, Any]],
    scores: Sequence[Score],
    *,
    full_steps: int,
    metric: str,
    default: int = 0,
    validation_rows: int,
) -> Verdict:
    """Judge a search: a winner is declared only outside noise, and the default stays otherwise.

    Where the last rung is short of a whole training, a lead that shrinks from rung to rung is no win: candidates that
    learn faster are ahead at first. It is projected to the end, see ``fading``.

    The noise is that of the seeds, by the Gaussian process of `Curve`, and that of the validation split, by the spread
    of a difference over its parts, where all scores have parts. The second holds some of the first (what a seed does
    to single examples), so intervals are a little wide, never too narrow.

    Args:
        dimensions: what the search varied.
        candidates: a value for each dimension, by name.
        scores: of all trainings, those of dropped candidates and those that failed (NaN) too; higher is better.
        full_steps: of the training that the verdict is for.
        metric: its name; accuracy, F1, precision and recall are told in points.
        default: the candidate that is the recipe as it stands.
        validation_rows: how many examples the scores were measured on.

    Raises:
        SetpointError: no candidate has a score.
        ValueError: a score of a candidate that is not there, no such default, or rows or steps below 1.

    Examples:
        >>> space = [Dimension("temperature.temperature", 1.0, 16.0, log=True)]
        >>> candidates = [{"temperature.temperature": t} for t in (4.0, 1.0, 16.0)]
        >>> scores = [Score(c, seed, 100, 0.8 + 0.001 * ((c + seed) % 3)) for c in range(3) for seed in range(3)]
        >>> verdict = decide(space, candidates, scores, full_steps=1000, metric="f1", validation_rows=5000)
        >>> verdict.chosen, verdict.flat
        (0, True)
        >>> verdict.sentences[0]
        'Flat: no temperature between 1 and 16 can be told from T = 4, which stays.'
    """
    if not 0 <= default < len(candidates) or any(not 0 <= s.candidate < len(candidates) for s in scores):
        raise ValueError("the default or a score belongs to no candidate")
    if full_steps < 1 or validation_rows < 1:
        raise ValueError("full_steps and validation_rows are at least 1")
    failed = {score.candidate for score in scores if not math.isfinite(score.value)}
    kept = [score for score in scores if score.candidate not in failed]
    if not kept:
        raise SetpointError("no candidate of the search has a score", "look at why the trainings failed")
    verdict = _judge(
        dimensions, candidates, _informative(kept), full_steps, default, validation_rows, wording.is_share(metric)
    )
    verdict = replace(_projected(verdict, kept, full_steps), dropped=tuple(sorted(failed)))
    sentences = wording.sentences(verdict, dimensions, candidates, metric, validation_rows)
    return replace(verdict, sentences=sentences, sentence=" ".join(sentences))


def _informative(scores: Sequence[Score]) -> list[Score]:
    """Without the early rungs at which most candidates score the same, as F1 = 0 before anything is learned.

    Their lack of noise would be taken for exactness.
    """
    last = max(score.steps for score in scores)
    values: dict[int, list[float]] = {}
    for score in scores:
        values.setdefault(score.steps, []).append(score.value)
    stuck = {s for s, v in values.items() if s < last and 2 * Counter(v).most_common(1)[0][1] > len(v)}
    return [score for score in scores if score.steps not in stuck]


def _projected(verdict: Verdict, scores: Sequence[Score], full_steps: int) -> Verdict:
    """The verdict with the advantage at the training's end, by which it chooses."""
    if verdict.advantage is None or verdict.chosen == verdict.default:
        return replace(verdict, projected=verdict.advantage)
    left = fading(scores, verdict.best, verdict.default, full_steps, verdict.advantage.value)
    lost = (1 - left) * verdict.advantage.value
    ends = [None if end is None else end - lost for end in (verdict.advantage.low, verdict.advantage.high)]
    projected = Estimate(verdict.advantage.value - lost, *ends)  # as wide as it was: what is to come is no surer
    return replace(verdict, projected=projected, chosen=verdict.best if projected.is_told else verdict.default)


def fading(scores: Sequence[Score], best: int, default: int, full_steps: int, lead: float) -> float:
    """What is left at the training's end of a lead that shrinks as it did from the rung before to the last.

    Leads are taken to go with a power of the steps, as errors do while training goes on. One that grows stays as it is.

    Args:
        scores: of all rungs.
        best: the candidate in the lead.
        default: the other one.
        full_steps: of a whole training.
        lead: at the last rung, above 0.

    Returns:
        A share from 0 to 1; 1 where no earlier rung has scores of both with the same seed.

    Examples:
        >>> scores = [Score(0, 0, 100, 0.2), Score(1, 0, 100, 0.4), Score(0, 0, 200, 0.5), Score(1, 0, 200, 0.6)]
        >>> fading(scores, best=1, default=0, full_steps=800, lead=0.1)
        0.25
    """
    values = {(score.candidate, score.seed, score.steps): score.value for score in scores}
    last = max(score.steps for score in scores)
    before: dict[int, list[float]] = {}
    for (candidate, seed, steps), value in values.items():
        if candidate == best and steps < last and (default, seed, steps) in values:
            before.setdefault(steps, []).append(value - values[default, seed, steps])
    if not before:
        return 1.0
    steps = max(before)
    earlier = float(np.mean(before[steps]))
    if earlier <= lead:
        return 1.0
    return float((lead / earlier) ** (math.log(full_steps / last) / math.log(last / steps)))


class _Contrasts:
    """Differences between points of the posterior, with all the noise there is."""

    def __init__(self, curve: Curve, points: Sequence[Mapping[str, Any]], is_known: bool) -> None:
        self.mean, self.covariance = curve.predict(points)
        self.degrees, self.is_known = curve.degrees, is_known
        self.by_part = np.zeros((len(points), 0))
        counts = {len(score.parts) for score in curve.scores}
        if len(counts) == 1 and min(counts) > 1:
            # The posterior mean is linear in the scores, so every part of the split has a curve of its own.
            self.by_part = curve.weights(points) @ np.array([score.parts for score in curve.scores])
            self.by_part -= self.by_part.mean(0)  # that a part is hard for all is no noise

    def noise(self, contrast: Array) -> tuple[float, float, float]:
        """Of a contrast: the variance by seeds, the variance by the sampling of the split, Student's quantile.

        The degrees of freedom are those of a sum of variances (Welch 1947, Biometrika 34).
        """
        seeds = max(float(contrast @ self.covariance @ contrast), 0.0)
        parts = self.by_part.shape[1]
        split = float((contrast @ self.by_part).var(ddof=1)) / parts if parts else 0.0
        if seeds + split == 0:
            return 0.0, 0.0, Z
        degrees = (seeds + split) ** 2 / (seeds**2 / self.degrees + split**2 / max(parts - 1, 1))
        return seeds, split, float(stdtrit(degrees, 0.5 + CONFIDENCE / 2))

    def estimate(self, contrast: Array) -> Estimate:
        """The contrast with its interval."""
        value = round(float(contrast @ self.mean), 12)  # points that are the same differ by rounding, which is no gain
        if not self.is_known:
            return Estimate(value, None, None)
        seeds, split, quantile = self.noise(contrast)
        half = quantile * math.sqrt(seeds + split)
        return Estimate(value, value - half, value + half)

    def less(self, a: int, b: int) -> Array:
        """The contrast of point ``a`` less point ``b``."""
        contrast = np.zeros(len(self.mean))
        contrast[a] += 1
        contrast[b] -= 1
        return contrast


def _judge(
    dimensions: Sequence[Dimension],
    candidates: Sequence[Mapping[str, Any]],
    scores: Sequence[Score],
    full_steps: int,
    default: int,
    rows: int,
    is_share: bool,
) -> Verdict:
    last = max(score.steps for score in scores)
    final = [score for score in scores if score.steps == last]
    seeds = len({score.seed for score in final})
    # The default comes first, so that it wins where all is equal.
    finalists = sorted({score.candidate for score in final}, key=lambda candidate: (candidate != default, candidate))
    is_trained = any(score.candidate == default for score in scores)
    knob = next((d for d in dimensions if d.is_range and wording.is_knob(d.name)), None)
    bare = Verdict(
        best=finalists[0],
        chosen=default if is_trained else finalists[0],
        default=default,
        measured_at=MeasuredAt(last, last / full_steps, seeds),
        smallest=smallest_difference(rows),
        dropped=(),
        knob=knob.name if knob else None,
    )
    if max(Counter((score.steps, score.seed) for score in scores).values()) == 1:
        return bare
    # A share moves in steps of 1/rows, so it is never exact.
    curve = Curve(dimensions, candidates, scores, 1 / (rows * math.sqrt(12)) if is_share else 1e-9)
    is_known = len(final) - len(finalists) - seeds + 1 > 0  # of the last rung's scores some are free to show the noise
    expected = curve.predict([candidates[c] for c in finalists])[0]
    best = finalists[_highest(expected)]
    peak = dict(candidates[best])
    if knob:
        grid = _grid(knob, CURVE_POINTS)
        peak[knob.name] = grid[_highest(curve.predict([{**peak, knob.name: value} for value in grid])[0])]

    # Every point that is asked about, so that one joint posterior answers all.
    points: list[Mapping[str, Any]] = [peak, candidates[default]] + [candidates[c] for c in finalists]
    grids: dict[str, range] = {}
    for dimension in dimensions:
        values = _grid(dimension, CURVE_POINTS if dimension is knob else IMPORTANCE_POINTS)
        grids[dimension.name] = range(len(points), len(points) + len(values))
        points += [{**peak, dimension.name: value} for value in values]
    marks: list[tuple[str, float]] = []
    if knob:
        low, high = knob.ends
        ones = [("1", 1.0)] if low <= 1 <= high and wording.is_temperature(knob.name) else []
        marks = [*ones, ("low", low), ("high", high)]
        points += [{**peak, knob.name: value} for _, value in marks]
    views = _Contrasts(curve, points, is_known)

    place = {candidate: 2 + i for i, candidate in enumerate(finalists)}
    contrast = views.less(place[best], 1)
    advantage = views.estimate(contrast)
    told = best != default and advantage.is_told
    losses = [Loss("default", candidates[default][knob.name] if knob else None, views.estimate(views.less(0, 1)))]
    losses += [
        Loss(name, value, views.estimate(views.less(0, len(points) - len(marks) + i)))
        for i, (name, value) in enumerate(marks)
    ]
    others = [views.less(0, i) for i in (grids[knob.name] if knob else place.values())]
    within = [not views.estimate(other).is_told for other in others]
    # Flat is a finding: not told though known about as well as if each point had been trained with all seeds.
    narrow = FLAT_WIDTH * curve.noise * math.sqrt(2 / seeds)
    is_narrow = all(math.sqrt(views.noise(other)[0]) <= narrow for other in others)
    found = replace(
        bare,
        best=best,
        chosen=best if told or not is_trained else default,
        advantage=advantage if is_trained else None,
        flat=is_known and is_narrow and all(within),
        losses=tuple(losses),
        needed_examples=None if advantage.is_told or not is_known or not is_trained else _needed(views, contrast, rows),
        **_importance(views, dimensions, points, grids),
    )
    if knob is None:
        return found
    middle = grid.index(peak[knob.name])
    first = next((i + 1 for i in range(middle, -1, -1) if not within[i]), 0)
    end = next((i - 1 for i in range(middle, len(grid)) if not within[i]), len(grid) - 1)
    levels = [views.estimate(np.eye(len(points))[i]) for i in grids[knob.name]]
    return replace(
        found,
        best_temperature=peak[knob.name],
        low=grid[first],
        high=grid[end],
        curve=tuple(Point(at, e.value, e.low, e.high) for at, e in zip(grid, levels, strict=True)),
    )


def _importance(
    views: _Contrasts, dimensions: Sequence[Dimension], points: Sequence[Mapping[str, Any]], grids: Mapping[str, range]
) -> dict[str, Any]:
    """The fields ``importance`` and ``outweighed``."""
    found, contrasts = [], {}
    for name in (dimension.name for dimension in dimensions):
        top = max(grids[name], key=lambda i: views.mean[i])
        contrasts[name] = views.less(top, min(grids[name], key=lambda i: views.mean[i]))
        found.append(Importance(name, views.estimate(contrasts[name]), points[top][name]))
    found.sort(key=lambda one: -one.effect.value)
    outweighed = {
        a.name: tuple(
            b.name
            for b in found[i + 1 :]
            if (d := views.estimate(contrasts[a.name] - contrasts[b.name])).is_told and d.value > 0
        )
        for i, a in enumerate(found)
    }
    return {"importance": tuple(found), "outweighed": outweighed}


def _needed(views: _Contrasts, contrast: Array, rows: int) -> int | None:
    """Rows at which the contrast would be told, if all stayed as it looks now: the split's noise goes with 1/rows."""
    seeds, split, quantile = views.noise(contrast)
    room = float(contrast @ views.mean) ** 2 - quantile**2 * seeds
    return math.ceil(rows * quantile**2 * split / room) if split > 0 and room > 0 else None


def _highest(means: Array) -> int:
    """The place of the highest, the first of those that differ by rounding alone."""
    return int(np.flatnonzero(means >= means.max() - 1e-12)[0])


def _grid(dimension: Dimension, count: int) -> list[Any]:
    """Values over a range, both ends included, or the choices."""
    if not dimension.is_range:
        return list(dimension.choices)
    low, high = dimension.ends
    values = np.geomspace(low, high, count) if dimension.log else np.linspace(low, high, count)
    return [low, *values[1:-1].tolist(), high]


def smallest_difference(rows: int, disagreement: float = 0.1) -> float:
    """The difference of two models' accuracy that ``rows`` examples tell at 95 %, were the seeds without noise.

    Two models that disagree on a share d of the examples differ with variance d / rows, and by no more than d: where
    the difference needs more disagreement than assumed, it is taken to have it.

    Source: McNemar 1947, Psychometrika 12(2).

    Raises:
        ValueError: rows below 1 or a disagreement outside (0, 1].

    Examples:
        >>> round(smallest_difference(1000), 4)
        0.0196
    """
    if rows < 1 or not 0 < disagreement <= 1:
        raise ValueError("rows are at least 1 and the disagreement is in (0, 1]")
    return min(max(Z * math.sqrt(disagreement / rows), Z * Z / rows), 1.0)


def rows_needed(difference: float, disagreement: float = 0.1) -> int:
    """How many examples tell a difference of accuracy, as `smallest_difference` reckons.

    Raises:
        ValueError: a difference or disagreement outside (0, 1].

    Examples:
        >>> rows_needed(0.01)
        3842
    """
    if not 0 < difference <= 1 or not 0 < disagreement <= 1:
        raise ValueError("difference and disagreement are in (0, 1]")
    return math.ceil(Z * Z * max(disagreement, difference) / difference**2)
