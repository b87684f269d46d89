"""One candidate's student: trained to a step, paused, scored, and trained on, as the run itself would train it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from setpoint import evaluation
from setpoint.arguments import training_arguments
from setpoint.job import Job
from setpoint.recipe import Recipe
from setpoint.run_folder import begin
from setpoint.stages import advance_student, student_origin
from setpoint.tasks.base import ALL, References, Rows
from setpoint.teachers import Teacher
from setpoint.tuning.curve import Score
from setpoint.types import TargetSource

PARTS = 10
"""Disjoint parts of the validation split that are scored each by itself too, to tell the noise of its being small."""
SCORED = 2000
"""Validation examples by which candidates are compared before the last rung, at most."""


@dataclass(frozen=True)
class Bench:
    """Where candidates are trained: a job, its teacher and targets, made once for all."""

    job: Job
    teacher: Teacher
    targets: TargetSource
    metric: str

    def job_of(self, recipe: Recipe) -> Job:
        """The job with a candidate's recipe."""
        return replace(self.job, recipe=recipe)

    def scratch(self, number: int, seed: int) -> Path:
        """Where a candidate's student keeps its checkpoints."""
        return self.job.path / "tuning" / f"candidate-{number}" / f"seed-{seed}"

    def scratch_of_all(self, seed: int) -> Path:
        """Where candidates that are trained together are kept."""
        return self.job.path / "tuning" / f"population-{seed}"


class OnStep(TrainerCallback):
    """Calls a function after each step."""

    def __init__(self, call: Callable[[int], None]) -> None:
        self._call = call

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Call it with the number of steps done."""
        self._call(state.global_step)


def full_steps(bench: Bench) -> int:
    """Optimisation steps of a whole training, as the Trainer counts them."""
    job = bench.job
    args = training_arguments(job.recipe.train, job.path, 0, metric=job.task.metric)
    if args.max_steps > 0:
        return int(args.max_steps)
    batches = len(job.training_data(bench.teacher.processor)) / args.train_batch_size / args.world_size
    batches = math.floor(batches) if args.dataloader_drop_last else math.ceil(batches)
    steps = max(math.ceil(batches / args.gradient_accumulation_steps), 1)
    return math.ceil(args.num_train_epochs * steps)


def train_to(
    bench: Bench, recipe: Recipe, number: int, seed: int, steps: int, on_step: Callable[[int], None]
) -> tuple[torch.nn.Module, Any]:
    """A candidate's student as it is after so many steps, on from where it paused; and its tokenizer."""
    job = bench.job_of(recipe)
    scratch = bench.scratch(number, seed)
    begin(scratch, student_origin(job, True, seed))
    trainer, processor = advance_student(
        job, bench.teacher, bench.targets, seed, scratch, "", until=steps, callbacks=[OnStep(on_step)]
    )
    return trainer.model, processor


def score(
    bench: Bench, model: torch.nn.Module, processor: Any, number: int, seed: int, steps: int, most: int | None
) -> tuple[Score, float]:
    """What a student is worth on the validation split: its metric, whole and in parts, and its loss at its best T.

    Args:
        bench: what it was trained on.
        model: the student.
        processor: its tokenizer.
        number: the candidate.
        seed: of the training.
        steps: steps trained.
        most: score at most so many examples, the same for all; all where None.
    """
    job = bench.job
    rows, references = _outputs(bench, model, processor, most)
    scored = job.task.scores(rows, references, job.splits.labels)[bench.metric]
    parts = min(PARTS, len(rows))
    split = tuple(scored(slice(i, None, parts)) for i in range(parts))
    return Score(number, seed, steps, scored(ALL), split), job.task.loss(rows, references)


def loss(bench: Bench, model: torch.nn.Module, processor: Any, most: int | None) -> float:
    """The second of what ``score`` gives alone."""
    return bench.job.task.loss(*_outputs(bench, model, processor, most))


def _outputs(bench: Bench, model: torch.nn.Module, processor: Any, most: int | None) -> tuple[Rows, References]:
    """What scores need of the student's logits on validation examples, and what they are held against."""
    job = bench.job
    examples: Sequence[Any] = job.encoded("validation", processor)
    if most is not None and most < len(examples):
        examples = examples[:: -(-len(examples) // most)]
    source, collate = job.frozen(model, processor, "student"), job.task.collate(processor)
    return evaluation.predict(source, examples, collate, keep=job.task.scored), job.task.references(examples)


def no_score(number: int, seed: int, steps: int) -> Score:
    """What stands for a training that gave no number."""
    return Score(number, seed, steps, math.nan)
