"""What a budget buys, against sums made by hand."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.errors import RecipeError
from setpoint.tuning.plan import SHORTEST, Costs, Plan, by_length, by_seconds, halving


def total_steps(plan):
    """Step by step: everybody to the first rung, those left to the next, then the finalists' other seeds."""
    done = 0
    for rung, steps in enumerate(plan.rungs):
        for _ in range(plan.sizes[rung]):
            done += steps - (plan.rungs[rung - 1] if rung else 0)
    for _ in range(plan.repeats - 1):
        for _ in range(plan.sizes[-1]):
            done += plan.rungs[-1]
    return done + plan.flock * plan.rungs[-1]  # and the flock, to the last rung


def seconds(plan, costs):
    early, last = sum(plan.sizes[:-1]), plan.sizes[-1] * plan.repeats
    scores = early * costs.score + last * costs.last_score + (early + last) * costs.pause
    scores += plan.flock * 10 * costs.score  # after each tenth
    if costs.together is not None:  # the final student is trained from its start
        return costs.spent + total_steps(plan) * costs.together + scores + plan.full_steps * costs.step
    final = (plan.full_steps - plan.rungs[-1]) * costs.step  # it goes on from where a finalist paused
    return costs.spent + total_steps(plan) * costs.step + scores + final


@given(
    st.integers(1, 40), st.integers(1, 6), st.integers(1, 5), st.integers(20, 5000), st.floats(0.05, 1.0),
)  # fmt: skip
def test_rungs_rise_and_candidates_fall(candidates, finalists, repeats, full_steps, last):
    plan = by_length(last, candidates, finalists, repeats, full_steps)
    assert plan.steps == total_steps(plan)
    assert plan.sizes[0] == candidates
    assert plan.sizes[-1] == min(finalists, candidates)
    assert list(plan.sizes) == sorted(plan.sizes, reverse=True)
    assert list(plan.rungs) == sorted(plan.rungs)
    assert plan.rungs[0] >= 1
    assert plan.rungs[-1] == max(min(SHORTEST, full_steps), int(last * full_steps))


@given(
    step=st.floats(1e-3, 1.0), teacher=st.floats(0.0, 5.0), score=st.floats(0.0, 2.0), spent=st.floats(0.0, 100.0),
    factor=st.floats(0.5, 20.0), candidates=st.integers(4, 32), full_steps=st.integers(40, 20_000),
    pause=st.floats(0.0, 2.0), together=st.none() | st.floats(1e-3, 1.0),
    evolve=st.booleans(),
)  # fmt: skip
def test_a_plan_keeps_to_its_budget(
    step, teacher, score, spent, factor, candidates, full_steps, pause, together, evolve
):
    costs = Costs(step, teacher, score, 2 * score, spent, pause, together)
    budget = factor * costs.ordinary(full_steps)
    planned = 0.95 * budget  # the rest is for prices that were too low
    try:
        plan = by_seconds(budget, costs, candidates, 3, 3, full_steps, evolve=evolve)
    except RecipeError:  # what its message promises is tested below
        return
    assert seconds(plan, costs) <= planned * (1 + 1e-9)
    assert plan.flock == (min(8, plan.sizes[0] - 1) if evolve else 0)
    assert min(SHORTEST, full_steps) <= plan.rungs[0] <= plan.rungs[-1] <= full_steps
    assert plan.rungs[-1] >= 0.07 * full_steps
    # Nothing is left that would buy a tenth more, where more is of use.
    if plan.rungs[-1] < 0.9 * full_steps - 1 and plan.rungs[0] > SHORTEST + 1:
        longer = Plan(tuple(int(r * 1.1) + 1 for r in plan.rungs), plan.sizes, plan.repeats, full_steps, plan.flock)
        assert seconds(longer, costs) > planned


def test_a_budget_that_buys_nothing_says_what_would():
    costs = Costs(step=0.1, teacher_step=0.02, score=1.0, last_score=2.0, spent=5.0)
    with pytest.raises(RecipeError, match="the targets and the final student take 105 s") as caught:
        by_seconds(120.0, costs, 16, 3, 3, 1000)
    times, wanted = (float(n) for n in re.findall(r"([\d.]+)(?:x| s)", caught.value.mend))
    assert wanted < 205
    by_seconds(wanted, costs, 16, 3, 3, 1000)  # and either does
    by_seconds(times * costs.ordinary(1000), costs, 16, 3, 3, 1000)


def test_fewer_candidates_before_fewer_seeds():
    costs = Costs(step=0.1, teacher_step=0.1, score=0.0, last_score=0.0)
    plans = [by_seconds(100.0 + extra, costs, 16, 3, 3, 1000) for extra in (200.0, 110.0, 90.0, 70.0)]
    sizes = [(plan.sizes[0], plan.repeats) for plan in plans]
    assert sizes[0] == (16, 3)
    assert all(repeats == 3 for count, repeats in sizes if count > 4)
    assert [count for count, _ in sizes] == sorted((count for count, _ in sizes), reverse=True)


def test_where_no_price_is_named_a_search_is_worth_having_or_refused():
    costs = Costs(step=0.1, teacher_step=0.1, score=0.0, last_score=0.0)
    short = by_seconds(170.0, costs, 16, 3, 3, 1000)
    assert short.sizes[0] < 8
    with pytest.raises(RecipeError):
        by_seconds(170.0, costs, 16, 3, 3, 1000, fewest=8)
    plan = by_seconds(280.0, costs, 16, 3, 3, 1000, fewest=8)
    assert plan.sizes[0] >= 8
    assert plan.repeats == 3


@pytest.mark.parametrize(("candidates", "finalists"), [(16, 4), (17, 4), (9, 3), (5, 4), (2, 1), (1, 1)])
def test_halving_goes_from_all_to_the_finalists(candidates, finalists):
    sizes = halving(candidates, finalists)
    assert (sizes[0], sizes[-1]) == (candidates, finalists)
    for more, fewer in itertools.pairwise(sizes):
        assert 1.2 <= more / fewer <= 3 or more - fewer == 1
