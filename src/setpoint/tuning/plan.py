"""What a budget buys: how many candidates, how many steps to each rung, how many seeds. Pure arithmetic."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

from setpoint.errors import RecipeError

SHORTEST = 20
"""Steps below which a student's score says nothing."""
LEAST = 0.07
"""Of the whole training: a last rung below which what finalists score says nothing of how they end. Measured on
CoNLL-2003 and Fashion-MNIST: at 2 % the order was wrong, from 12 % on it was right; between them candidates that learn
faster are ahead, and the verdict asks how their lead goes on."""
QUARTER = 0.25
"""Of the whole training: what finalists get where no budget is given and one ordinary run's time buys nothing."""
USEFUL = 8
"""Candidates, with all seeds, that a search is worth having for where nobody has named its price."""
FLOCK = 8
"""Students of a flock that evolves a schedule, at most."""
ROUNDS = 10
"""Parts of a flock's training, after each of which its students are compared."""
FEWEST = 4
"""Candidates below which there is no search."""
RESERVE = 0.05
"""Of a budget that is left unplanned, for prices that were taken in seconds are known no better."""


@dataclass(frozen=True)
class Costs:
    """What things take, in seconds, as measured on this machine.

    Attributes:
        step: an optimisation step of the student from stored targets.
        teacher_step: the teacher's forward pass on the examples of one step.
        score: scoring a student on the validation examples of a rung.
        last_score: the same at the last rung, where all examples are scored.
        spent: what the targets took already.
        pause: setting a student up, or reading where it paused, and writing where it pauses again.
        together: a step of one student among others that are trained with it; None where each is trained by itself,
            so that the final student goes on from where the best finalist paused.
    """

    step: float
    teacher_step: float
    score: float
    last_score: float
    spent: float = 0.0
    pause: float = 0.0
    together: float | None = None

    def ordinary(self, full_steps: int) -> float:
        """Seconds of one ordinary run: a student trained with a live teacher."""
        return full_steps * (self.step + self.teacher_step)

    def search(self, plan: Plan) -> float:
        """Seconds of a search: its students' steps, all scores, and the pauses at which they are taken."""
        early, last = sum(plan.sizes[:-1]), plan.sizes[-1] * plan.repeats
        scores = early * (self.score + self.pause) + last * (self.last_score + self.pause)
        scores += plan.flock * ROUNDS * self.score
        return plan.steps * (self.step if self.together is None else self.together) + scores


@dataclass(frozen=True)
class Plan:
    """A successive halving.

    Attributes:
        rungs: steps after which candidates are compared.
        sizes: how many candidates are trained to each rung; the last are the finalists.
        repeats: seeds of the finalists.
        full_steps: steps of a whole training.
        flock: students that evolve one candidate more, the last, over as many steps as the last rung has; 0 for none.
    """

    rungs: tuple[int, ...]
    sizes: tuple[int, ...]
    repeats: int
    full_steps: int
    flock: int = 0

    @property
    def steps(self) -> int:
        """All student steps of the search."""
        return round(_steps(self.sizes, self.repeats, self.rungs)) + self.flock * self.rungs[-1]

    @property
    def firm(self) -> tuple[int, ...]:
        """The candidates that go on from every rung: the recipe as it stands, and the one that was evolved."""
        return (0, self.sizes[0] - 1) if self.flock else (0,)


def halving(candidates: int, finalists: int) -> tuple[int, ...]:
    """How many candidates reach each rung: fewer by the same factor, about 2, from one to the next.

    Source: successive halving, Jamieson & Talwalkar 2016 (AISTATS), arXiv:1502.07943.

    Examples:
        >>> halving(16, 4), halving(16, 3), halving(3, 3)
        ((16, 8, 4), (16, 7, 3), (3,))
    """
    rungs = max(0, round(math.log2(candidates / finalists)))
    if rungs == 0:
        return (candidates,) if candidates == finalists else (candidates, finalists)
    return tuple(round(candidates * (finalists / candidates) ** (i / rungs)) for i in range(rungs + 1))


def by_length(
    last: float, candidates: int, finalists: int, repeats: int, full_steps: int, evolve: bool = False
) -> Plan:
    """The plan that ignores time: the finalists are trained for a share of the whole training, up to 1.

    Examples:
        >>> by_length(1.0, 16, 4, 3, full_steps=800).rungs
        (200, 400, 800)
    """
    return _plan(candidates, finalists, last * full_steps, repeats, full_steps, evolve)


def by_seconds(
    seconds: float,
    costs: Costs,
    candidates: int,
    finalists: int,
    repeats: int,
    full_steps: int,
    fewest: int | None = None,
    evolve: bool = False,
) -> Plan:
    """The longest rungs that seconds buy, what the targets took and the final student's training included.

    Where even the shortest do not fit, there are fewer candidates, then fewer seeds.

    Args:
        seconds: the whole budget.
        costs: as measured.
        candidates: at the first rung, at most.
        finalists: at the last.
        repeats: seeds of the finalists, at most.
        full_steps: steps of a whole training.
        fewest: candidates at the first rung, at least, and then with all seeds.
        evolve: whether a flock evolves one candidate more.

    Raises:
        RecipeError: not even so few fit; where none are named, not even four candidates with two seeds.

    Examples:
        >>> costs = Costs(step=0.1, teacher_step=0.1, score=0.2, last_score=0.2, spent=10.0)
        >>> by_seconds(400.0, costs, candidates=16, finalists=4, repeats=3, full_steps=1000).rungs
        (43, 87, 175)
    """
    left = (1 - RESERVE) * seconds - costs.spent - full_steps * costs.step
    # The number of seeds is cut last, since without repetition nothing is known of the noise.
    tried = [(n, repeats) for n in range(candidates, min(FEWEST, candidates) - 1, -1)]
    tried += [(min(FEWEST, candidates), r) for r in range(repeats - 1, 1, -1)]
    if fewest is not None:
        tried = [one for one in tried if one[0] >= fewest and one[1] == repeats]
    for n, seeds in tried:
        lasts = range(max(min(SHORTEST, full_steps), math.ceil(LEAST * full_steps)), full_steps + 1)

        def price(last: int, n: int = n, seeds: int = seeds) -> float:
            return _seconds(_plan(n, finalists, last, seeds, full_steps, evolve), costs)

        fitting = bisect.bisect_right(lasts, left, key=price)
        if fitting:
            return _plan(n, finalists, lasts[fitting - 1], seeds, full_steps, evolve)
    need = seconds + (price(lasts[0]) - left) / (1 - RESERVE)
    times = math.ceil(100 * need / costs.ordinary(full_steps)) / 100
    raise RecipeError(
        f"tune.budget leaves nothing for a search: {seconds:.0f} s of which the targets and the final student take "
        f"{costs.spent + full_steps * costs.step:.0f} s",
        f"give at least {times:.2f}x, which is {math.ceil(need)} s here",
    )


def _plan(candidates: int, finalists: int, last: float, repeats: int, full_steps: int, evolve: bool) -> Plan:
    """Rungs in inverse proportion to how many candidates are left, so that each costs about the same.

    None is shorter than tells something; two of one length are two cuts after one training.
    """
    shortest = min(SHORTEST, full_steps)
    sizes = tuple(size + evolve for size in halving(candidates, min(finalists, candidates)))
    rungs = tuple(min(full_steps, max(shortest, int(last * sizes[-1] / size))) for size in sizes)
    return Plan(rungs, sizes, repeats, full_steps, min(FLOCK, candidates) if evolve else 0)


def _seconds(plan: Plan, costs: Costs) -> float:
    """What a plan takes beside the targets and the final student's training, less what that is spared."""
    spared = plan.rungs[-1] * costs.step if costs.together is None else 0.0
    return costs.search(plan) - spared


def _steps(sizes: tuple[int, ...], repeats: int, rungs: tuple[float, ...]) -> float:
    before = (0.0, *rungs[:-1])
    search = sum(size * (rung - old) for size, rung, old in zip(sizes, rungs, before, strict=True))
    return search + sizes[-1] * (repeats - 1) * rungs[-1]
