"""The search itself: a worker that trains candidates rung by rung, beside others on the same study, to a verdict."""

from __future__ import annotations

import gc
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tqdm.auto import tqdm

from setpoint.errors import Interrupted, LossError, RecipeError, SetpointWarning
from setpoint.job import Job
from setpoint.recipe_tune import TuneRecipe, parse_budget
from setpoint.targets.fingerprint import digest_json
from setpoint.teachers import Teacher, models_origin, teacher_logits, validation_logits
from setpoint.tuning import ladder, student
from setpoint.tuning.apart import Apart
from setpoint.tuning.candidates import describe, make_candidates, with_evolved
from setpoint.tuning.outcome import Outcome, hand_over, write
from setpoint.tuning.plan import LEAST, QUARTER, USEFUL, Plan, by_length, by_seconds
from setpoint.tuning.prior import suggest
from setpoint.tuning.study import Record, SharedStudy
from setpoint.tuning.together import Together
from setpoint.tuning.verdict import decide
from setpoint.tuning.way import Way
from setpoint.tuning.workers import WAIT, Alive
from setpoint.types import TargetSource


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
        held_out, labels = validation_logits(job, teacher, targets)
        self.suggestion = suggest(held_out, labels if job.task.row_labels else None)
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
        way = Together if self.tune.together else Apart
        recipes = self.candidates.recipes[: self._most()]
        self._way: Way = way(self.bench, recipes, self.seeds, self.full_steps, self.study, self._alive)
        self._is_evolved = False
        self._bar: Any = None
        self._seconds: dict[str, float] = {}

    def run(self) -> Outcome:
        """Search to the end, beside whoever else does; the outcome is the same for all.

        Raises:
            Interrupted: the user pressed Ctrl-C; it carries the best so far in its message.
        """
        # Each student's training begins with a garbage collection, which would walk over the encoded data every time.
        if is_ours := not gc.get_freeze_count():
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
                if is_ours:
                    gc.unfreeze()

    # ------------------------------------------------------------------------------------------------ the plan

    def _planned(self) -> Plan:
        """The plan, made by the worker of the first candidate and shared by all."""
        while True:
            made = self.study.plan
            if made is not None:
                self._seconds = made["seconds"]
                rungs, sizes = tuple(made["rungs"]), tuple(made["sizes"])
                return Plan(rungs, sizes, made["repeats"], made["full_steps"], made["flock"])
            if self._way.plans():
                self._plan()
            else:  # another worker makes it
                time.sleep(WAIT)

    def _budget(self) -> tuple[float, str]:
        return (1.0, "runs") if self.tune.budget is None else parse_budget(self.tune.budget)

    def _most(self) -> int:
        """How many candidates there may be."""
        amount, unit = self._budget()
        count = len(self.candidates.values)
        return min(count, int(amount)) if unit == "trials" else count

    def _plan(self) -> None:
        count, repeats, evolve = self._most(), self.tune.repeats, self.tune.evolve
        finalists = min(self.tune.finalists, count)
        # However small the budget, no candidate is trained less than in the shortest of all plans.
        shortest = by_length(LEAST, count, finalists, repeats, self.full_steps, evolve)
        costs = self._way.costs(shortest.rungs[0])
        ordinary = costs.ordinary(self.full_steps)
        amount, unit = self._budget()
        if unit == "trials":
            plan = by_length(1.0, count, finalists, repeats, self.full_steps, evolve)
        else:
            seconds = amount * ordinary if unit == "runs" else amount
            fewest = None if self.tune.budget is not None else min(USEFUL, count)
            try:
                plan = by_seconds(seconds, costs, count, finalists, repeats, self.full_steps, fewest, evolve)
            except RecipeError:
                if fewest is None:
                    raise
                plan = by_length(QUARTER, count, finalists, repeats, self.full_steps, evolve)
        search = costs.search(plan)
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

    # ------------------------------------------------------------------------------------------------ the work

    def _work(self, plan: Plan) -> None:
        self._drop_surplus(plan)
        while True:
            self.study.beat()
            records = self._taken(plan)
            tasks = ladder.next_tasks(records, self._way.mine(records, plan.sizes[0]), plan, self.seeds, plan.sizes[0])
            task = tasks[0]
            if task.kind == "done":
                return
            if task.kind == "wait":
                time.sleep(WAIT)
            elif task.kind == "take":
                self._way.take(records, plan, self._on_step)
                self._drop_surplus(plan)
            elif task.kind == "drop":
                self.study.drop(task.number)
                shutil.rmtree(self.bench.scratch(task.number, 0).parent, ignore_errors=True)
            elif task.kind == "finish":
                [record] = [record for record in records if record.number == task.number]
                last = [score.value for score in record.scores if score.steps == plan.rungs[-1]]
                self.study.finish(task.number, sum(last) / len(last))
            else:
                self._train(tasks, records, plan)

    def _drop_surplus(self, plan: Plan) -> None:
        """Give up what this worker took beyond the plan, when another took its last candidate at the same moment."""
        for record in self.study.records():
            if record.number >= plan.sizes[0] and record.running and record.owner == self._alive.name:
                self.study.drop(record.number)

    def _on_step(self, students: int) -> None:
        self._bar.update(students)
        self.study.beat()

    def _train(self, tasks: Sequence[ladder.Task], records: Sequence[Record], plan: Plan) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SetpointWarning)  # candidates reach out to the ends on purpose
            for task, result in self._way.train(tasks, records, plan, self._on_step):
                if not isinstance(result, LossError):
                    self.study.report(task.number, *result)
                elif task.number == 0:
                    raise result
                else:
                    self.study.fail(task.number, str(result))
        scores = [score for record in self.study.records() for score in record.scores]
        if not scores:
            return
        best = max(scores, key=lambda score: (score.steps, score.value))
        name = describe(self.candidates.dimensions, self.candidates.values[best.candidate])
        self._bar.set_postfix_str(f"best so far {name}: {self.bench.metric} {best.value:.4f}")

    def _taken(self, plan: Plan) -> list[Record]:
        """The plan's candidates that some worker has taken, one that was evolved among them."""
        evolved = self.study.evolved if self.tune.evolve and not self._is_evolved else None
        if evolved is not None:
            self.candidates = with_evolved(self.candidates, plan.sizes[0] - 1, **evolved)
            self.study.let_in(self.candidates.values)
            self._way.recipes = self.candidates.recipes
            self._is_evolved = True
        return [record for record in self.study.records() if record.number < plan.sizes[0]]

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
        how = self._way.how(plan)
        outcome = Outcome(
            recipe, verdict, self.suggestion, self.candidates, records, plan, self._seconds, complete, how
        )
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
