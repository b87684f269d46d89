"""Halving by any number of workers, in any order, ends where one worker's halving ends, which a few lines compute."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.tuning.curve import Score
from setpoint.tuning.ladder import next_tasks
from setpoint.tuning.plan import Plan, halving
from setpoint.tuning.study import Record

SEEDS = [3, 0, 1]


class Storage:
    """What the workers share, without Optuna: who has which candidate, and what was reported."""

    def __init__(self, plan, losses, fails):
        self.plan, self.losses, self.fails = plan, losses, fails
        self.owner, self.state, self.scores, self.trained = [], [], [], 0

    def records(self):
        return [
            Record(
                number=n, owner=str(self.owner[n]), since=0.0, running=self.state[n] == "running",
                failed=self.state[n] == "failed",
                scores=tuple(Score(n, seed, steps, 0.5) for seed, steps in self.scores[n]),
                proxies={at: self.losses[n][at[1]] for at in self.scores[n]},
            )
            for n in range(len(self.owner))
        ]  # fmt: skip

    def do(self, worker, task):
        if task.kind == "take":
            self.owner.append(worker)
            self.state.append("running")
            self.scores.append({})
        elif task.kind == "drop":
            self.state[task.number] = "dropped"
        elif task.kind == "finish":
            self.state[task.number] = "finished"
        elif task.kind == "train":
            done = self.scores[task.number]
            assert (task.seed, task.steps) not in done, "trained twice"
            if self.fails.get(task.number) == task.rung:
                self.state[task.number] = "failed"
                return
            before = max((steps for seed, steps in done if seed == task.seed), default=0)
            self.trained += task.steps - before
            done[task.seed, task.steps] = None


def next_for(storage, worker):
    mine = {n for n, owner in enumerate(storage.owner) if owner == worker}
    return next_tasks(storage.records(), mine, storage.plan, SEEDS, storage.plan.sizes[0])


def play(plan, losses, fails, workers, chance):
    storage = Storage(plan, losses, fails)
    idle = 0
    while idle < 200:
        worker = chance.randrange(workers)
        tasks = next_for(storage, worker)
        if all(next_for(storage, w)[0].kind == "done" for w in range(workers)):
            return storage
        idle = idle + 1 if tasks[0].kind == "wait" else 0
        storage.do(worker, tasks[0])
    raise AssertionError("everybody waits")


def by_hand(plan, losses, fails):
    """Who is at each rung, computed at once."""
    alive = set(range(plan.sizes[0]))
    firm = {0, plan.sizes[0] - 1} if plan.flock else {0}
    reached = []
    for rung, steps in enumerate(plan.rungs):
        alive -= {n for n, where in fails.items() if where == rung}
        reached.append(set(alive))
        if rung + 1 < len(plan.rungs):
            others = sorted(alive - firm, key=lambda n: (losses[n][steps], n))
            alive = {*(alive & firm), *others[: plan.sizes[rung + 1] - len(firm)]}
    return reached


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_workers_in_any_order_halve_as_one_does(data):
    total = data.draw(st.integers(2, 12))
    evolve = data.draw(st.booleans())  # one candidate more, that always goes on
    sizes = tuple(size + evolve for size in halving(total, data.draw(st.integers(1, min(4, total)))))
    total, rungs = sizes[0], tuple(10 * 2**i for i in range(len(sizes)))
    plan = Plan(rungs, sizes, data.draw(st.integers(1, 3)), 1000, 5 * evolve)
    losses = [{steps: data.draw(st.integers(0, 5)) for steps in plan.rungs} for _ in range(total)]
    numbers = st.integers(1, total - 1)
    fails = data.draw(st.dictionaries(numbers, st.integers(0, len(sizes) - 1), max_size=3))
    chance = random.Random(data.draw(st.integers(0, 10**6)))
    storage = play(plan, losses, fails, data.draw(st.integers(1, 3)), chance)
    expected = by_hand(plan, losses, fails)
    for rung, steps in enumerate(plan.rungs):
        assert {n for n in range(total) if (SEEDS[0], steps) in storage.scores[n]} == expected[rung]
    finished = {n for n, state in enumerate(storage.state) if state == "finished"}
    assert finished == expected[-1]
    assert 0 in finished
    for n in finished:
        assert {seed for seed, steps in storage.scores[n] if steps == plan.rungs[-1]} == set(SEEDS[: plan.repeats])
    if not fails:
        assert storage.trained == plan.steps - plan.flock * plan.rungs[-1]
        assert {0, total - 1} <= finished or not evolve
    assert "running" not in storage.state


def test_a_worker_does_not_wait_for_what_cannot_matter():
    """Two of four go on; the one that is best of three goes on while the fourth is still being trained."""
    plan = Plan((10, 20), (4, 2), 1, 40)
    storage = Storage(plan, [{10: loss, 20: 0.0} for loss in (9, 1, 2, 3)], {})
    for worker in (0, 0, 0, 1):
        storage.do(worker, next_tasks(storage.records(), set(), plan, SEEDS, 4)[0])
    mine = {0, 1, 2}
    for _ in range(3):
        storage.do(0, next_tasks(storage.records(), mine, plan, SEEDS, 4)[0])
    tasks = next_tasks(storage.records(), mine, plan, SEEDS, 4)
    # Candidate 2 is out, for 1 is better and 0 is the recipe; whether 1 goes on depends on the fourth.
    assert [(task.kind, task.number) for task in tasks] == [("drop", 2)]
    storage.do(0, tasks[0])
    assert [(task.kind, task.number) for task in next_tasks(storage.records(), mine, plan, SEEDS, 4)] == [("train", 0)]
