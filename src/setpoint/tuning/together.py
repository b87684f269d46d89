"""Candidates trained together: one worker trains all of them, and another goes on should it be gone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from setpoint.tuning import flock, prices
from setpoint.tuning.cohort import Cohort
from setpoint.tuning.evolution import Move, told
from setpoint.tuning.ladder import Task
from setpoint.tuning.plan import Costs, Plan
from setpoint.tuning.population import Mode
from setpoint.tuning.study import Record
from setpoint.tuning.way import Result, Way
from setpoint.tuning.workers import WAIT


class Together(Way):
    """All candidates of a rung at once, a cohort for each seed; the run's student is then trained from its start."""

    _cohort: tuple[int, Cohort] | None = None

    def plans(self) -> bool:
        """The worker that leads makes the plan."""
        return self._leads()

    def costs(self, steps: int) -> Costs:
        """By steps of a Trainer, which are thrown away, and the first steps of all candidates, which go on later."""
        seed, everyone, steps = self.seeds[0], range(len(self.recipes)), min(prices.PROBE, steps)
        costs = prices.measure(self.bench, self.recipes[0], seed, steps)
        shutil.rmtree(self.bench.scratch(0, seed).parent)
        for folder in (self.bench.job.path / "tuning").glob("population-*"):  # of another study, or of a dead worker
            shutil.rmtree(folder)
        ends: list[float] = []

        def on_step(students: int) -> None:
            self.study.beat()
            ends.append(time.perf_counter())

        start = time.perf_counter()
        cohort = self._cohort_of(seed, everyone)
        cohort.train_to(set(everyone), steps, on_step)
        self._note_how(cohort)
        took = time.perf_counter() - start
        step = prices.pace(ends, prices.epoch(self.bench, self.bench.teacher.processor, seed)[1])
        pause = took - prices.pace(ends) * len(ends)
        return replace(costs, together=step / len(everyone), pause=max(pause, 0.0) / len(everyone))

    def mine(self, records: Sequence[Record], total: int) -> set[int]:
        """All candidates, once they are taken, or none."""
        return {record.number for record in records} if len(records) == total and self._leads() else set()

    def take(self, records: Sequence[Record], plan: Plan, on_step: Callable[[int], None]) -> None:
        """Take the next where this worker leads, and else leave it to the one that does; the last is evolved first."""
        if not self._leads():
            time.sleep(WAIT)
        elif plan.flock and len(records) == plan.sizes[0] - 1 and self.study.evolved is None:
            self._evolve(plan, on_step)
        else:
            self.study.ask(plan.sizes[0])

    def _evolve(self, plan: Plan, on_step: Callable[[int], None]) -> None:
        recipes = flock.members(self.recipes[: plan.sizes[0] - 1])
        folder = self.bench.job.path / "tuning" / "population-evolved"
        cohort = Cohort(self.bench, recipes, self.seeds[0], self.full_steps, folder, self._mode())
        rounds = [[Move(*move) for move in moves] for moves in self.study.rounds]

        def keep(rounds: list[list[Move]]) -> None:
            self.study.describe({"rounds": rounds})

        self._cohort = None  # one of all candidates is another once there is one more
        life = flock.evolve(cohort, recipes, plan.rungs[-1], rounds, keep, on_step)
        self._note_how(cohort)
        self.study.describe({"evolved": life._asdict()})

    def train(
        self, tasks: Sequence[Task], records: Sequence[Record], plan: Plan, on_step: Callable[[int], None]
    ) -> Iterator[Result]:
        """All tasks of the first one's seed."""
        seed, steps = tasks[0].seed, tasks[0].steps
        first = self.seeds[0]
        finalists = [record.number for record in records if record.reached(first) >= plan.rungs[-1]]
        cohort = self._cohort_of(seed, range(len(self.recipes)) if seed == first else finalists)
        cohort.train_to({record.number for record in records if record.running}, steps, on_step)
        self._note_how(cohort)
        for task in tasks:
            if task.seed == seed:
                yield task, cohort.score(task.number, self.most(steps, plan))

    def how(self, plan: Plan) -> str:
        """How many, and whether by vmap; and what was evolved."""
        said = f"{plan.sizes[0]} students learned from the same batches: {self.study.how}."
        evolved = self.study.evolved
        return said if evolved is None else f"{said} A flock evolved T = {told(evolved['temperatures'])}."

    def _leads(self) -> bool:
        leader = self.study.leader
        if leader == self.study.worker:
            return True
        self._cohort = None  # what another has trained since is on the disk
        if leader is None or self.gone(leader):
            self.study.lead()  # from the next look on: of two that do so at one moment the later leads
        return False

    def _cohort_of(self, seed: int, numbers: Sequence[int]) -> Cohort:
        """The cohort of a seed; all go the way that the first found out to be the better."""
        if self._cohort is None or self._cohort[0] != seed:
            recipes = {number: self.recipes[number] for number in numbers}
            folder = self.bench.scratch_of_all(seed)
            self._cohort = seed, Cohort(self.bench, recipes, seed, self.full_steps, folder, self._mode())
        return self._cohort[1]

    def _mode(self) -> Mode:
        how = self.study.how
        return "auto" if how is None else "vmap" if how.startswith("vmap") else "one by one"

    def _note_how(self, cohort: Cohort) -> None:
        """Keep which way is gone for all workers, and that a batch has turned it."""
        how, known = cohort.population.how, self.study.how
        if known is None or (
            known.startswith("vmap") and not how.startswith("vmap") and len(cohort.population.members) > 1
        ):
            self.study.describe({"how": how})
