"""Candidates with one seed, trained together on the batches that the Trainer would give each of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Set
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate import skip_first_batches
from torch import nn

from setpoint.errors import LossError
from setpoint.job import make_objective
from setpoint.objective import DistillationObjective
from setpoint.recipe import Recipe
from setpoint.run_folder import begin
from setpoint.stages import build_student, make_trainer, student_origin
from setpoint.teachers import teacher_logits
from setpoint.tuning import student
from setpoint.tuning.curve import Score
from setpoint.tuning.population import Mode, Population


class Cohort:
    """A population of candidates that start alike and see the same batches.

    It goes on from where it was saved in its folder, if it was.

    Args:
        bench: where candidates are trained.
        recipes: by the candidates' numbers.
        seed: of the untrained student and of the data's order.
        max_steps: of a whole training.
        folder: where it is saved.
        mode: as for a ``Population``.

    Attributes:
        population: the students, each at its candidate's place among ``recipes``.
        seed: as given.
    """

    def __init__(
        self,
        bench: student.Bench,
        recipes: Mapping[int, Recipe],
        seed: int,
        max_steps: int,
        folder: Path,
        mode: Mode = "auto",
    ) -> None:
        job = bench.job
        self._bench, self._numbers, self.seed, self._folder = bench, list(recipes), seed, folder
        learns = [one.model_dump(mode="json", include={"temperature", "objective"}) for one in recipes.values()]
        begin(folder, student_origin(job, True, seed) | {"candidates": learns})
        self._model, self._processor = build_student(job, bench.teacher, seed)
        # A trainer that trains nothing: its arguments and the order of its batches are what is wanted.
        nothing = DistillationObjective(alpha=0.0)
        self._trainer = make_trainer(job, self._model, self._processor, job.recipe.train, nothing, None, seed, folder)
        self._loader = self._trainer.get_train_dataloader()
        self._logits = teacher_logits(job, bench.teacher, bench.targets)
        objectives = [self._objective(recipe) for recipe in recipes.values()]
        data, args = self._trainer.train_dataset, self._trainer.args
        sample = job.task.collate(self._processor)([data[i] for i in range(min(args.train_batch_size, len(data)))])
        self.population = Population(
            [self._model] * len(recipes), objectives, args, max_steps, sample=sample, mode=mode
        )
        if Population.is_saved(folder):
            self.population.load(folder)

    def _objective(self, recipe: Recipe) -> DistillationObjective:
        objective = make_objective(recipe)
        objective.temperature.fit(self._logits)
        return objective.to(self._trainer.args.device)

    def teach(self, number: int, recipe: Recipe) -> None:
        """Let a candidate's student learn as this recipe says from now on."""
        self.population.objectives[self._at(number)] = self._objective(recipe)

    def train_to(self, numbers: Set[int], steps: int, on_step: Callable[[int], None]) -> None:
        """Train these candidates to a step, and save them; the others are forgotten.

        Args:
            numbers: the candidates that are still in.
            steps: where to pause; nothing is done where it is reached.
            on_step: told after each step how many students made it.
        """
        population = self.population
        if population.steps >= steps:
            return
        population.keep([i for i, place in enumerate(population.members) if self._numbers[place] in numbers])
        for batch in islice(self._batches(population.steps), steps - population.steps):
            needs_teacher = any(objective.needs_teacher for objective in population.objectives)
            population.step(batch, self._bench.targets(batch) if needs_teacher else None)
            on_step(len(population.members))
        population.save(self._folder)

    def score(self, number: int, most: int | None) -> tuple[Score, float] | LossError:
        """What a candidate's student is worth now, as ``student.score`` tells it, or why there is none."""
        lost = self.population.lost.get(self._numbers.index(number))
        if lost is not None:
            return lost
        steps = self.population.steps
        return student.score(self._bench, self._alone(number), self._processor, number, self.seed, steps, most)

    def loss(self, number: int, most: int | None) -> float:
        """The loss on the validation labels alone; infinite where the student was lost."""
        if self._numbers.index(number) in self.population.lost:
            return math.inf
        return student.loss(self._bench, self._alone(number), self._processor, most)

    def _at(self, number: int) -> int:
        """Where a candidate is among the students that are left."""
        return self.population.members.index(self._numbers.index(number))

    def _alone(self, number: int) -> nn.Module:
        """A candidate's student, until the next one is asked for."""
        self._model.load_state_dict(self.population.state_dict(self._at(number)))
        return self._model

    def _batches(self, done: int) -> Iterator[Any]:
        """The Trainer's batches after so many steps, epoch by epoch."""
        while True:
            epoch, first = divmod(done, len(self._loader))
            self._trainer.state.epoch = float(epoch)  # its sampler may ask
            loader = skip_first_batches(self._loader, first) if first else self._loader
            loader.set_epoch(epoch)
            yield from loader
            done += len(self._loader) - first
