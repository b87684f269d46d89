"""The search itself: a worker that trains candidates rung by rung, beside others on the same study, to a verdict."""

from __future__ import annotations

import gc
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from tqdm.auto import tqdm

from setpoint.errors import Interrupted, LossError, RecipeError, SetpointWarning
from setpoint.job import Job
from setpoint.recipe_tune import TuneRecipe, parse_budget
from setpoint.targets.fingerprint import digest_json
from setpoint.teachers import Teacher, models_origin, teacher_logits, validation_logits
from setpoint.tuning import ladder, student
from setpoint.tuning.candidates import describe, make_candidates
from setpoint.tuning.outcome import Outcome, hand_over, write
from setpoint.tuning.plan import QUARTER, USEFUL, Costs, Plan, by_length, by_seconds, scoring
from setpoint.tuning.prior import suggest
from setpoint.tuning.study import Record, SharedStudy
from setpoint.tuning.verdict import decide
from setpoint.tuning.workers import Alive
from setpoint.types import TargetSource

PROBE = 12
"""Steps by which the price of a step is measured; the first of them warm up."""
SCORED = 2000
"""Validation examples by which candidates are compared before the last rung, at most."""
WAIT = 0.5
"""Seconds between looks at what other workers have done."""


class Search:
    """One worker of a search.

    Args:
        job: with a ``tune`` section in its recipe.
        teacher: as loaded.
        targets: of the teacher.

    Raises:
        RecipeError: nothing to search, or a budget that buys nothing.
        RunError: a storage that cannot be used.
    """

    def __init__(self, job: Job, teacher: Teacher, targets: TargetSource) -> None:
        assert job.recipe.tune is not None
        self.tune: TuneRecipe = job.recipe.tune
        self.bench = student.Bench(job, teacher, targets, self.tune.metric or job.task.metric)
        logits = teacher_logits(job, teacher, targets)
        self.suggestion = suggest(*validation_logits(job, teacher, targets))
        self.candidates = make_candidates(job.recipe, self.suggestion, logits)
        self.seeds = repeated(job.recipe.seeds, self.tune.repeats)
        self.full_steps = student.full_steps(self.bench)
        self.folder = job.path / "tuning"
        self._alive = Alive(self.folder / "workers")
        self.study = SharedStudy(
            self.tune.storage or f"sqlite:///{self.folder.resolve() / 'study.sqlite'}",
            study_name(job),
            self.candidates.dimensions,
            self.candidates.values,
            self._alive.name,
        )
        self._bar: Any = None
        self._seconds: dict[str, float] = {}

    def run(self) -> Outcome:
        """Search to the end, beside whoever else does; the outcome is the same for all.

        Raises:
            Interrupted: the user pressed Ctrl-C; it carries the best so far in its message.
        """
        # Each student's training begins with a garbage collection, which would walk over the encoded data every time.
        gc.freeze()
        with self._alive:
            try:
                plan = self._planned()
                with tqdm(
                    total=plan.steps, desc="tuning", unit="step", delay=2, leave=False, disable=None
                ) as self._bar:
                    self._bar.update(sum(_done(record) for record in self.study.records()))
                    self._work(plan)
                return self._outcome(plan, complete=True)
            except KeyboardInterrupt:
                raise Interrupted(self._so_far(), "the same command continues where it stopped") from None
            finally:
                gc.unfreeze()

    # ------------------------------------------------------------------------------------------------ the plan

    def _planned(self) -> Plan:
        """The plan, made by the worker of the first candidate and shared by all."""
        while True:
            made = self.study.plan
            if made is not None:
                self._seconds = made["seconds"]
                return Plan(tuple(made["rungs"]), tuple(made["sizes"]), made["repeats"], made["full_steps"])
            if 0 in self._mine(self.study.records()) or self.study.ask(1) == 0:
                self._plan()
            else:  # another worker makes it
                time.sleep(WAIT)

    def _plan(self) -> None:
        count, repeats = len(self.candidates.values), self.tune.repeats
        finalists = min(self.tune.finalists, count)
        costs = self._costs()
        ordinary = costs.ordinary(self.full_steps)
        amount, unit = (1.0, "runs") if self.tune.budget is None else parse_budget(self.tune.budget)
        if unit == "trials":
            count = min(count, int(amount))
            plan = by_length(1.0, count, finalists, repeats, self.full_steps)
        else:
            seconds = amount * ordinary if unit == "runs" else amount
            fewest = None if self.tune.budget is not None else min(USEFUL, count)
            try:
                plan = by_seconds(seconds, costs, count, finalists, repeats, self.full_steps, fewest)
            except RecipeError:
                if fewest is None:
                    raise
                plan = by_length(QUARTER, count, finalists, repeats, self.full_steps)
        search = plan.steps * costs.step + scoring(costs, plan.sizes, plan.repeats)
        final = self.full_steps * costs.step
        predicted = {"ordinary": ordinary, "targets": costs.spent, "search": search, "student": final}
        together = (costs.spent + search + final) / ordinary
        if self.tune.budget is None and together > 1.05:
            warnings.warn(
                f"the teacher costs so little here that one ordinary run's {ordinary:.0f} s buy no search: it takes"
                f" {together:.1f} times as long; tune.budget limits it",
                SetpointWarning,
                stacklevel=2,
            )
        self.study.set_plan(asdict(plan) | {"seconds": {name: round(s, 2) for name, s in predicted.items()}})

    def _costs(self) -> Costs:
        """The first steps of candidate 0, which go on later, and a few batches of the teacher, on the clock."""
        steps, seed, ends = min(PROBE, self.full_steps), self.seeds[0], list[float]()

        def train(until: int) -> tuple[torch.nn.Module, Any]:
            ends.append(time.perf_counter())
            recipe = self.candidates.recipes[0]
            return student.train_to(self.bench, recipe, 0, seed, until, lambda _: ends.append(time.perf_counter()))

        # What a worker left that died before it could set the plan would be no step on the clock.
        shutil.rmtree(self.bench.scratch(0, seed), ignore_errors=True)
        train(1)  # warms up
        ends.clear()
        model, processor = train(steps)
        took = time.perf_counter() - ends[0]
        warm = ends[1 + len(ends) // 4 :]
        step = (warm[-1] - warm[0]) / (len(warm) - 1) if len(warm) > 1 else 1e-3
        pause = max(took - step * (steps - 1), 0.0)
        examples = len(self.bench.job.encoded("validation", processor))  # encoded once for all, off the clock
        start = time.perf_counter()
        student.score(self.bench, model, processor, 0, seed, steps, SCORED)
        took = time.perf_counter() - start
        return Costs(
            step=step,
            teacher_step=student.teacher_seconds(self.bench),
            score=took,
            last_score=took * examples / min(examples, SCORED),
            pause=pause,
            spent=sum(s for name, s in self.bench.job.folder.seconds().items() if name.startswith("targets")),
        )

    # ------------------------------------------------------------------------------------------------ the work

    def _work(self, plan: Plan) -> None:
        self._drop_surplus(plan)
        while True:
            self.study.beat()
            records = self._taken(plan)
            tasks = ladder.next_tasks(records, self._mine(records), plan, self.seeds, plan.sizes[0])
            task = tasks[0]
            if task.kind == "done":
                return
            if task.kind == "wait":
                time.sleep(WAIT)
            elif task.kind == "take":
                self.study.ask(plan.sizes[0])
                self._drop_surplus(plan)
            elif task.kind == "drop":
                self.study.drop(task.number)
                shutil.rmtree(self.bench.scratch(task.number, 0).parent, ignore_errors=True)
            elif task.kind == "finish":
                [record] = [record for record in records if record.number == task.number]
                last = [score.value for score in record.scores if score.steps == plan.rungs[-1]]
                self.study.finish(task.number, sum(last) / len(last))
            else:
                self._train(task, plan)

    def _drop_surplus(self, plan: Plan) -> None:
        """Give up what this worker took beyond the plan, when another took its last candidate at the same moment."""
        for record in self.study.records():
            if record.number >= plan.sizes[0] and record.running and record.owner == self._alive.name:
                self.study.drop(record.number)

    def _train(self, task: ladder.Task, plan: Plan) -> None:
        recipe = self.candidates.recipes[task.number]

        def on_step(step: int) -> None:
            self._bar.update(1)
            self.study.beat()

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SetpointWarning)  # candidates reach out to the ends on purpose
                model, processor = student.train_to(self.bench, recipe, task.number, task.seed, task.steps, on_step)
            most = None if task.steps == plan.rungs[-1] else SCORED
            found, proxy = student.score(self.bench, model, processor, task.number, task.seed, task.steps, most)
        except LossError as error:
            if task.number == 0:
                raise
            self.study.fail(task.number, str(error))
            return
        self.study.report(task.number, found, proxy)
        best = max((s for r in self.study.records() for s in r.scores), key=lambda s: (s.steps, s.value))
        name = describe(self.candidates.dimensions, self.candidates.values[best.candidate])
        self._bar.set_postfix_str(f"best so far {name}: {self.bench.metric} {best.value:.4f}")

    def _taken(self, plan: Plan) -> list[Record]:
        """The plan's candidates that some worker has taken."""
        return [record for record in self.study.records() if record.number < plan.sizes[0]]

    def _mine(self, records: Sequence[Record]) -> set[int]:
        """The candidates that this worker trains: its own, and those of workers that are gone."""
        mine = set()
        for record in records:
            if record.running and record.owner != self._alive.name and self._gone(record):
                self.study.adopt(record.number)
                mine.add(record.number)
            elif record.owner == self._alive.name:
                mine.add(record.number)
        return mine

    def _gone(self, record: Record) -> bool:
        known = self._alive.knows(record.owner)
        return self.study.silent(record) if known is None else not known

    # ------------------------------------------------------------------------------------------------ the outcome

    def _outcome(self, plan: Plan, complete: bool) -> Outcome:
        records = tuple(self._taken(plan))
        scores = [score for record in records for score in record.scores]
        scores += [student.no_score(r.number, self.seeds[0], plan.rungs[0]) for r in records if r.failed]
        verdict = decide(
            self.candidates.dimensions,
            self.candidates.values,
            scores,
            full_steps=self.full_steps,
            metric=self.bench.metric,
            validation_rows=len(self.bench.job.splits.validation),
        )
        recipe = self.candidates.recipes[verdict.chosen]
        outcome = Outcome(recipe, verdict, self.suggestion, self.candidates, records, plan, self._seconds, complete)
        self.study.describe({"verdict": verdict.sentence, "suggested_temperature": self.suggestion.temperature})
        return outcome

    def _so_far(self) -> str:
        """The best so far, in words."""
        made = self.study.plan
        if made is None or not any(record.scores for record in self.study.records()):
            return "stopped before any candidate was scored"
        outcome = self._outcome(self._planned(), complete=False)
        best = describe(self.candidates.dimensions, self.candidates.values[outcome.verdict.best])
        return f"stopped; best so far {best}. {outcome.verdict.sentence}".removesuffix(".")


def find(job: Job, teacher: Teacher, targets: TargetSource) -> Outcome:
    """Search, write what was found into the run folder, and leave the run's students where the finalist's paused."""
    with job.folder.shared():
        search = Search(job, teacher, targets)
        outcome = search.run()
    write(outcome, job.path)
    chosen = outcome.verdict.chosen
    hand_over(job, {seed: search.bench.scratch(chosen, seed) for seed in job.recipe.seeds})
    return outcome


def _done(record: Record) -> int:
    """Steps a candidate's students have been trained."""
    reached: dict[int, int] = {}
    for score in record.scores:
        reached[score.seed] = max(reached.get(score.seed, 0), score.steps)
    return sum(reached.values())


def study_name(job: Job) -> str:
    """Names the study after all that decides its scores, so that another recipe never goes on with it."""
    recipe = job.recipe
    made_from = models_origin(job) | recipe.model_dump(
        mode="json", include={"train", "temperature", "objective", "targets", "tune", "seeds"}
    )
    made_from["tune"].pop("storage")
    return f"{recipe.name}-{digest_json(made_from)[:12]}"


def repeated(seeds: Sequence[int], count: int) -> list[int]:
    """The recipe's seeds, so that its students go on from the finalists', and more where more are wanted.

    Examples:
        >>> repeated([7, 0], 3)
        [7, 0, 1]
    """
    more = (seed for seed in range(count + len(seeds)) if seed not in seeds)
    return [*seeds, *(next(more) for _ in range(count - len(seeds)))][:count]
