"""The verdict against planted truths: rates over simulated searches, and the words."""

import json
import math
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.stats import binom

from setpoint.errors import SetpointError
from setpoint.tuning.curve import Score
from setpoint.tuning.space import Dimension
from setpoint.tuning.verdict import decide, fading, rows_needed, smallest_difference

T, ALPHA, CLASSES = "temperature.temperature", "objective.alpha", "temperature.effective_classes"
SPACE = [Dimension(T, 1.0, 12.0, log=True), Dimension(ALPHA, 0.0, 1.0)]
NOISE = 0.003  # what a seed does to one candidate
BEST = 3.1


def flat(candidate, steps):
    return 0.0


def peaked(candidate, steps):
    """3 points high over T = 1."""
    return -0.03 * (math.log(candidate[T] / BEST) / math.log(BEST)) ** 2


def misleading(candidate, steps):
    """Peaked in the end; early on a T of 9 is 2 points ahead."""
    return peaked(candidate, steps) + (900 - steps) / 800 * 0.05 * math.log(candidate[T] / BEST)


def search(truth, number, *, spread=False, parts=0, part_noise=0.0):
    """A search by halving: 12 candidates for 100 steps, 6 for 300, 4 for 900 with three seeds.

    ``spread``: the finalists hold the ends of the range too.
    """
    rng = np.random.default_rng(number)
    candidates = [{T: 4.0, ALPHA: 0.5}]
    candidates += [{T: float(12 ** rng.uniform()), ALPHA: float(rng.uniform())} for _ in range(11)]
    if spread:
        candidates[1], candidates[2] = {T: 1.0, ALPHA: 0.5}, {T: 12.0, ALPHA: 0.5}
    stays = {0, 1, 2} if spread else {0}
    hard = rng.normal(0, part_noise, (len(candidates), parts))
    alive, scores = list(range(12)), []
    for steps, seeds, keep in ((100, 1, 6), (300, 1, 4), (900, 3, 0)):
        means = dict.fromkeys(alive, 0.0)
        for seed in range(seeds):
            level = 0.5 + steps / 9000 + rng.normal(0, 0.004)
            for c in alive:
                whole = level + truth(candidates[c], steps) + rng.normal(0, NOISE)
                of_part = whole + hard[c] + rng.normal(0, part_noise, parts)
                value = float(of_part.mean()) if parts else whole
                scores.append(Score(c, seed, steps, value, tuple(of_part.tolist())))
                means[c] += value / seeds
        ranked = sorted(alive, key=lambda c: (c not in stays, -means[c]))
        alive = sorted(ranked[: max(keep, len(stays) + 1)])
    return candidates, scores


def judged(candidates, scores, space=SPACE, **fields):
    verdict = decide(
        space, candidates, scores, **{"full_steps": 900, "metric": "f1", "validation_rows": 10**6} | fields
    )
    json.dumps(asdict(verdict), allow_nan=False)
    return verdict


def rates(truth, count, **design):
    """How often each thing holds over simulated searches."""
    found = Counter()
    for number in range(count):
        candidates, scores = search(truth, number, **design)
        verdict = judged(candidates, scores)
        found["default kept"] += verdict.chosen == 0
        found["flat said"] += verdict.flat
        found["best within 1.5"] += 1 / 1.5 <= verdict.best_temperature / BEST <= 1.5
        found["range holds the best"] += verdict.low <= BEST <= verdict.high
        at = [{T: t, ALPHA: candidates[verdict.best][ALPHA]} for t in (verdict.best_temperature, 1.0)]
        lost = truth(at[0], 900) - truth(at[1], 900)
        loss = next(loss.loss for loss in verdict.losses if loss.name == "1")
        found["loss holds the truth"] += loss.low - 1e-9 <= lost <= loss.high + 1e-9
        found["loss told"] += loss.is_told
    print(truth.__name__, design, {name: f"{n}/{count}" for name, n in found.items()})
    return found


def often_enough(hits, count, rate):
    """A rate over many searches is held to its word; over few, to what that rate gives 99 times in 100."""
    return hits >= (rate * count if count >= 100 else binom.ppf(0.01, count, rate))


COUNTS = [pytest.param(8, id="few"), pytest.param(200, id="many", marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", COUNTS)
def test_a_flat_truth_is_called_flat_and_the_default_stays(count):
    found = rates(flat, count)
    assert often_enough(found["default kept"], count, 0.95)
    assert often_enough(found["flat said"], count, 0.9)


@pytest.mark.parametrize("count", COUNTS)
def test_a_peak_is_found_and_its_intervals_hold_the_truth(count):
    found = rates(peaked, count)
    assert often_enough(found["best within 1.5"], count, 0.9)
    assert often_enough(found["range holds the best"], count, 0.9)
    assert often_enough(found["loss holds the truth"], count, 0.9)
    assert found["flat said"] <= 0.02 * count


@pytest.mark.parametrize("count", COUNTS)
def test_where_the_ends_are_finalists_their_loss_is_told(count):
    found = rates(peaked, count, spread=True)
    assert often_enough(found["loss told"], count, 0.95)
    assert often_enough(found["loss holds the truth"], count, 0.9)
    assert often_enough(found["range holds the best"], count, 0.9)


@pytest.mark.parametrize("count", [pytest.param(5, id="few"), COUNTS[1]])
def test_the_last_rung_overrules_the_early_ones(count):
    found = rates(misleading, count, spread=True)
    assert often_enough(found["best within 1.5"], count, 0.9)
    assert often_enough(found["range holds the best"], count, 0.9)


def fading_search(before, lead, number=0, full_steps=3000):
    """T = 1 is ahead of the recipe's T = 4 by ``before`` after 100 steps, by ``lead`` after 300; T = 12 is no use."""
    rng = np.random.default_rng(number)
    candidates = [{T: 4.0, ALPHA: 0.5}, {T: 1.0, ALPHA: 0.5}, {T: 12.0, ALPHA: 0.5}]
    scores = []
    for steps, seeds, ahead in ((100, 1, before), (300, 3, lead)):
        for seed in range(seeds):
            for c, gain in enumerate((0.0, ahead, -0.01)):
                scores.append(Score(c, seed, steps, 0.5 + steps / 3000 + gain + rng.normal(0, NOISE / 3)))
    return judged(candidates, scores, full_steps=full_steps)


def test_a_lead_that_shrinks_is_no_win():
    """As of a candidate that learns faster; at the same lead one that does not shrink wins, and so does a grown one."""
    shrinking, steady, growing = (fading_search(before, 0.03) for before in (0.3, 0.03, 0.01))
    assert shrinking.advantage.is_told
    assert (shrinking.chosen, steady.chosen, growing.chosen) == (0, 1, 1)
    assert shrinking.projected.value < 0.1 * shrinking.advantage.value
    assert growing.projected == growing.advantage
    assert shrinking.sentence == (
        "T = 1 was 3.0 ± 0.2 F1 ahead of the recipe as it stands, but that lead shrinks as the training goes on; "
        "nobody can tell that any is left at the end, and T = 4 stays. Measured at 10 % of the training with 3 seeds."
    )
    whole = fading_search(0.3, 0.03, full_steps=300)  # measured at the end there is nothing to project
    assert (whole.chosen, whole.projected) == (1, whole.advantage)


def test_the_projection_is_a_line_through_logarithms():
    rng = np.random.default_rng(0)
    for _ in range(50):
        before, lead = sorted(rng.uniform(0.01, 0.3, 2))[::-1]
        steps, last, full = sorted(rng.integers(10, 5000, 3).tolist())
        if steps == last:
            continue
        scores = [Score(0, 0, steps, 0.2), Score(1, 0, steps, 0.2 + before), Score(0, 0, last, 0.5)]
        scores += [Score(1, 0, last, 0.5 + lead), Score(1, 5, steps, 0.9), Score(2, 0, steps, 0.9)]
        line = np.polyfit(np.log([steps, last]), np.log([before, lead]), 1)
        expected = math.exp(np.polyval(line, math.log(full))) / lead
        assert fading(scores, 1, 0, full, lead) == pytest.approx(expected)
    assert fading([Score(0, 0, 10, 0.2), Score(1, 0, 10, 0.3)], 1, 0, 100, 0.1) == 1.0


@pytest.mark.parametrize("count", [pytest.param(5, id="few"), COUNTS[1]])
def test_the_luck_of_a_split_is_no_winner(count):
    """Truths are the same; the split's examples favour some candidates by more than the seeds' noise."""
    found = rates(flat, count, parts=8, part_noise=0.02)
    assert often_enough(found["default kept"], count, 0.95)


def grid_scores(space, candidates, truth, seeds=3, noise=NOISE, parts=0, part_noise=0.0, steps=120):
    """Every candidate trained to the end with every seed."""
    rng = np.random.default_rng(0)
    hard = rng.normal(0, part_noise, (len(candidates), parts))
    scores = []
    for seed in range(seeds):
        level = 0.8 + rng.normal(0, 0.005)
        for c, candidate in enumerate(candidates):
            value = level + truth(candidate) + rng.normal(0, noise)
            of_part = tuple((value + hard[c]).tolist())
            scores.append(Score(c, seed, steps, float(np.mean(of_part)) if parts else value, of_part))
    return scores


POINTS = [(4.0, 0.5), (1.0, 0.5), (2.0, 0.5), (3.0, 0.9), (6.0, 0.5), (12.0, 0.5), (3.0, 0.5), (3.0, 0.1)]
CANDIDATES = [{T: t, ALPHA: a} for t, a in POINTS]


def said_of(truth, candidates=CANDIDATES, space=SPACE, rows=10**6, metric="f1", **fields):
    scores = grid_scores(space, candidates, truth, **fields)
    return judged(candidates, scores, space, full_steps=1000, metric=metric, validation_rows=rows)


def test_a_peak_in_words():
    verdict = said_of(lambda c: peaked(c, 0))
    best, gain, one, twelve, matters, measured = verdict.sentences
    assert best == "Best T 3.2; anything in 2.7–3.6 is within noise."
    assert gain.startswith("T = 3 gains 0.1")
    assert one == "T = 1 loses 2.9 ± 0.3 F1."
    assert twelve.startswith("T = 12 loses 4.1 ± 0.3 F1")
    assert matters == "T matters more than alpha here."
    assert measured == "Measured at 12 % of the training with 3 seeds."
    assert verdict.sentence == " ".join(verdict.sentences)
    assert [point.at for point in verdict.curve[:: len(verdict.curve) - 1]] == [1.0, 12.0]
    top = max(verdict.curve, key=lambda point: point.mean)
    assert top.at == verdict.best_temperature
    assert top.mean == pytest.approx(0.8, abs=0.01)  # in the metric's units, at the last rung
    assert all(point.low < point.mean < point.high for point in verdict.curve)
    assert [loss.name for loss in verdict.losses] == ["default", "1", "low", "high"]


@pytest.mark.parametrize(
    ("slope", "words"), [(-0.03, "T 1, {} (look lower too); "), (0.03, "T 12, {} (look higher too); ")]
)
def test_a_best_at_the_end_of_the_range_in_words(slope, words):
    verdict = said_of(lambda c: slope * math.log(c[T]))
    assert verdict.sentences[0].startswith("Best " + words.format("the end of what was searched"))


def test_a_flat_curve_in_words():
    verdict = said_of(lambda c: 0.0)
    assert verdict.sentences == (
        "Flat: no temperature between 1 and 12 can be told from T = 4, which stays.",
        "Measured at 12 % of the training with 3 seeds.",
    )
    assert (verdict.low, verdict.high) == (1.0, 12.0)


def test_alpha_that_matters_more_is_said_to():
    verdict = said_of(lambda c: peaked(c, 0) / 3 + 0.03 * c[ALPHA])
    assert "alpha matters more than T here." in verdict.sentences
    assert verdict.importance[0].name == ALPHA
    assert verdict.importance[0].best == pytest.approx(1.0)
    assert (verdict.chosen, verdict.outweighed[ALPHA]) == (3, (T,))
    assert "T = 3, alpha = 0.9 gains" in verdict.sentence


def test_ends_that_were_never_trained_long_are_unknown_rather_than_flat():
    few = [{T: t, ALPHA: 0.5} for t in (4.0, 3.8, 4.2)]
    verdict = said_of(lambda c: 0.02 * math.log(c[T]), few)
    assert not verdict.flat
    assert (verdict.low, verdict.high) == (1.0, 12.0)
    assert "looks best, but nothing in 1–12 can be told from it" in verdict.sentence


def test_a_split_too_small_is_said_with_how_many_it_needs():
    verdict = said_of(lambda c: 0.0, rows=60)
    assert (
        "Validation has 60 examples, which tell no difference below 8 points: about 3,800 would be needed to tell "
        "1 point." in verdict.sentences
    )
    assert "Validation" not in said_of(lambda c: 0.0, rows=5000).sentence


def test_the_examples_that_the_difference_needs_are_counted_from_the_parts():
    truth = lambda c: 0.03 * (c[ALPHA] == 0.9)  # noqa: E731
    verdict = said_of(truth, rows=300, parts=8, part_noise=0.05)
    assert verdict.chosen == 0
    assert verdict.needed_examples > 300
    assert "validation examples would be needed instead of 300." in verdict.sentence
    enough = said_of(truth, rows=300, parts=8, part_noise=0.002)
    assert (enough.chosen, enough.needed_examples) == (3, None)


def test_one_seed_declares_no_winner():
    verdict = said_of(lambda c: peaked(c, 0), seeds=1)
    assert (verdict.chosen, verdict.flat) == (0, False)
    assert verdict.sentences[0] == "One seed tells no noise, so no winner is declared and T = 4 stays."
    assert verdict.sentences[-1].endswith("with 1 seed.")
    assert verdict.advantage.low is None
    assert verdict.curve[0].high is None


def test_one_candidate_is_compared_with_nothing():
    verdict = said_of(lambda c: 0.0, CANDIDATES[:1])
    assert (verdict.best, verdict.chosen, verdict.curve) == (0, 0, ())
    assert "nothing to compare" in verdict.sentence


def test_equal_scores_are_flat():
    scores = [Score(c, seed, 120, 0.75) for c in range(len(CANDIDATES)) for seed in range(3)]
    verdict = judged(CANDIDATES, scores)
    assert (verdict.best, verdict.chosen, verdict.flat) == (0, 0, True)


def test_a_candidate_that_failed_is_left_out_and_told():
    scores = grid_scores(SPACE, CANDIDATES, lambda c: peaked(c, 0))
    broken = [replace(s, value=math.nan) if (s.candidate, s.seed) == (6, 1) else s for s in scores]
    verdict = judged(CANDIDATES, broken)
    assert verdict.dropped == (6,)
    assert verdict.best != 6
    assert "1 candidate failed and was left out." in verdict.sentences
    assert verdict == judged(CANDIDATES, [s for s in broken if s.candidate != 6 or s.seed == 1])


def test_a_default_that_failed_cannot_stay():
    scores = [
        replace(s, value=math.inf) if s.candidate == 0 else s for s in grid_scores(SPACE, CANDIDATES, lambda c: 0)
    ]
    verdict = judged(CANDIDATES, scores)
    assert verdict.chosen == verdict.best != 0
    assert verdict.advantage is None
    assert verdict.sentence.startswith("The recipe as it stands has no score; T = ")
    with pytest.raises(SetpointError, match="no candidate of the search has a score"):
        judged(CANDIDATES, [replace(s, value=math.nan) for s in scores])


def test_scores_of_zero_before_anything_is_learned_tell_nothing():
    scores = grid_scores(SPACE, CANDIDATES, lambda c: 0.0)
    zeros = [Score(c, 0, 10, 0.0) for c in range(len(CANDIDATES))]
    assert judged(CANDIDATES, zeros + scores) == judged(CANDIDATES, scores)


def test_choices_alone():
    space = [Dimension("objective.divergence", choices=("kl", "rkl", "js"))]
    candidates = [{"objective.divergence": choice} for choice in ("kl", "rkl", "js")]
    better = said_of(lambda c: 0.02 * (c["objective.divergence"] == "js"), candidates, space)
    assert (better.chosen, better.knob, better.best_temperature, better.curve) == (2, None, None, ())
    assert better.sentences[0].startswith("divergence = js gains 2.")
    same = said_of(lambda c: 0.0, candidates, space)
    assert same.flat
    assert same.sentences[0].startswith("Flat: nothing that was tried can be told")
    worse = said_of(lambda c: -0.02 * (c["objective.divergence"] != "kl"), candidates, space)
    assert worse.sentences[0] == "The recipe as it stands is the best that was trained."


def test_softness_is_called_softness():
    space = [Dimension(CLASSES, 1.5, 9.0, log=True)]
    candidates = [{CLASSES: x} for x in (2.0, 1.5, 4.0, 6.0, 9.0)]
    verdict = said_of(lambda c: -0.02 * math.log(c[CLASSES] / 5) ** 2, candidates, space, metric="accuracy")
    assert verdict.sentences[0].startswith("Best softness 4.8 effective classes; anything in 3.")
    assert "Softness 1.5 effective classes loses 2.8 ± 0.3 points of accuracy." in verdict.sentences
    assert "1" not in [loss.name for loss in verdict.losses]


def test_a_metric_that_is_no_share_is_told_in_its_own_units():
    verdict = said_of(lambda c: 100 * peaked(c, 0), metric="bleu", noise=0.3)
    assert "bleu." in next(s for s in verdict.sentences if s.startswith("T = 1 loses"))


def test_a_constant_the_order_and_the_seeds_names_change_nothing():
    candidates, scores = search(peaked, 3)
    verdict = judged(candidates, scores)
    assert (
        judged(candidates, [replace(s, seed=(7, 40, 3)[s.seed]) for s in scores[::-1]]).sentences == verdict.sentences
    )
    moved = judged(candidates, [replace(s, value=s.value + 0.25) for s in scores])
    assert moved.sentences == verdict.sentences
    assert (moved.low, moved.high, moved.chosen) == (verdict.low, verdict.high, verdict.chosen)
    assert moved.advantage.high == pytest.approx(verdict.advantage.high, rel=1e-6)


def test_a_temperature_in_other_units_is_the_same_temperature():
    candidates, scores = search(peaked, 3, spread=True)
    verdict = judged(candidates, scores)
    tenfold = [{**candidate, T: 10 * candidate[T]} for candidate in candidates]
    other = judged(tenfold, scores, [Dimension(T, 10.0, 120.0, log=True), SPACE[1]])
    for name in ("best_temperature", "low", "high"):
        assert getattr(other, name) == pytest.approx(10 * getattr(verdict, name))
    assert verdict.low > 1


def test_what_a_split_can_tell():
    assert smallest_difference(60) == pytest.approx(0.08, abs=1e-3)
    assert smallest_difference(1) == 1.0
    for rows in (2, 20, 60, 500, 10_000):
        for disagreement in (0.02, 0.1, 0.5):
            least = smallest_difference(rows, disagreement)
            assert least == 1.0 or rows_needed(least * (1 + 1e-9), disagreement) == pytest.approx(rows, abs=1)
    for call in (lambda: smallest_difference(0), lambda: smallest_difference(9, 0.0), lambda: rows_needed(0.0)):
        with pytest.raises(ValueError, match="at least 1|are in"):
            call()


def test_a_paired_difference_at_the_limit_is_told_half_the_time():
    """Two models that disagree on a tenth of 1000 examples, the truth at the smallest difference."""
    rng = np.random.default_rng(0)
    least = smallest_difference(1000)
    wins = rng.binomial(1000, 0.05 + least / 2, 4000) - rng.binomial(1000, 0.05 - least / 2, 4000)
    assert np.mean(wins / 1000 > least) == pytest.approx(0.5, abs=0.04)


def test_what_does_not_fit_together_is_refused():
    scores = grid_scores(SPACE, CANDIDATES, lambda c: 0.0)
    with pytest.raises(ValueError, match="belongs to no candidate"):
        judged(CANDIDATES[:3], scores)
    with pytest.raises(ValueError, match="belongs to no candidate"):
        judged(CANDIDATES, scores, default=99)
    with pytest.raises(ValueError, match="at least 1"):
        judged(CANDIDATES, scores, validation_rows=0)


@pytest.mark.parametrize("gain", [0.0, 0.05])
def test_a_schedule_is_compared_with_the_best_and_is_no_point_of_the_curve(gain):
    """Constants peak at T = 4, 5 points over the default; the schedule is as good as they are, or better."""
    space = [Dimension("temperature", 1.0, 16.0, log=True)]
    candidates = [{"temperature": t} for t in (16.0, 1.0, 2.0, 4.0, 8.0, "16 → 5 (evolved)")]
    means = [0.60, 0.61, 0.63, 0.65, 0.63, 0.65 + gain]
    rng = np.random.default_rng(0)
    scores = [Score(c, s, 100, m + float(rng.normal(0, NOISE))) for s in range(3) for c, m in enumerate(means)]
    verdict = decide(space, candidates, scores, full_steps=100, metric="f1", validation_rows=100_000)
    assert verdict.best_temperature == pytest.approx(4, rel=0.3)
    assert max(point.mean for point in verdict.curve) < 0.66
    if gain:
        assert verdict.chosen == verdict.best == 5
        assert "T = 16 → 5 (evolved) gains 10" in verdict.sentence
    means[5] = 0.60 + gain / 50  # no better than the default, or a little
    some = [one for one in scores if one.candidate in (0, 5)]
    some = [replace(one, value=means[one.candidate] + float(rng.normal(0, NOISE))) for one in some]
    verdict = decide(space, candidates, some, full_steps=100, metric="f1", validation_rows=100_000)
    assert verdict.chosen == 0
