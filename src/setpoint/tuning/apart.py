"""Candidates trained one after another, each by the worker that took it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from setpoint.errors import LossError
from setpoint.tuning import prices, student
from setpoint.tuning.ladder import Task
from setpoint.tuning.plan import Costs, Plan
from setpoint.tuning.study import Record
from setpoint.tuning.way import Result, Way


class Apart(Way):
    """Each candidate by the run's own trainer, paused at each rung, so that the run's student goes on from there."""

    def plans(self) -> bool:
        """The worker of the first candidate makes the plan."""
        return 0 in self.mine(self.study.records(), len(self.recipes)) or self.study.ask(1) == 0

    def costs(self, steps: int) -> Costs:
        """By the first steps of candidate 0, which go on later."""
        return prices.measure(self.bench, self.recipes[0], self.seeds[0], min(prices.PROBE, steps))

    def mine(self, records: Sequence[Record], total: int) -> set[int]:
        """Its own candidates, and those of workers that are gone."""
        mine = set()
        for record in records:
            if record.running and record.owner != self.alive.name and self.gone(record.owner, record.since):
                self.study.adopt(record.number)
                mine.add(record.number)
            elif record.owner == self.alive.name:
                mine.add(record.number)
        return mine

    def take(self, records: Sequence[Record], plan: Plan, on_step: Callable[[int], None]) -> None:
        """Take the next."""
        self.study.ask(plan.sizes[0])

    def train(
        self, tasks: Sequence[Task], records: Sequence[Record], plan: Plan, on_step: Callable[[int], None]
    ) -> Iterator[Result]:
        """The first task."""
        task = tasks[0]
        recipe = self.recipes[task.number]
        try:
            model, processor = student.train_to(
                self.bench, recipe, task.number, task.seed, task.steps, lambda _: on_step(1)
            )
            most = self.most(task.steps, plan)
            yield task, student.score(self.bench, model, processor, task.number, task.seed, task.steps, most)
        except LossError as error:
            yield task, error
