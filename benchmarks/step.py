"""What distilling costs a step: training from the store against plain fine-tuning of the same student.

    python benchmarks/step.py recipes/conll2003.yaml

Both run in one process, in turn, through the same Trainer loop, on the same batches: plain ``transformers.Trainer``
with the model's own loss, and ``DistillationTrainer`` from a store. Prints the ratio of their times, round by round,
and its median. A step is everything between two optimiser updates: collation, look-up, forward, backward, update.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, Trainer

from setpoint import DistillationTrainer, stages, teachers
from setpoint.arguments import training_arguments
from setpoint.job import Job, make_objective, open_job
from setpoint.recipe_file import load_recipe
from setpoint.run_folder import RunFolder


class PlainTrainer(Trainer):
    """transformers' own Trainer; only drops the ids, which the model does not know."""

    def compute_loss(self, model: Any, inputs: dict, *args: Any, **kwargs: Any) -> Any:
        """The model's own loss."""
        inputs.pop("example_id")
        return super().compute_loss(model, inputs, *args, **kwargs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe, options.overrides)
    limit = (options.steps + 1) * recipe.train.batch_size
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"limit": limit})})
    with tempfile.TemporaryDirectory() as folder, RunFolder(Path(folder) / "run") as run_folder:
        job = open_job(recipe, run_folder)
        stages.train_teacher(job)
        teacher = teachers.load_teacher(job)
        targets = teachers.prepare_targets(job, teacher)
        ratios = []
        for number in range(options.rounds):
            times = {}
            for kind in ("plain", "store") if number % 2 == 0 else ("store", "plain"):
                times[kind] = seconds(job, teacher, None if kind == "plain" else targets, options.steps, folder)
            ratios.append(times["store"] / times["plain"])
            print(
                f"round {number}: plain {1000 * times['plain'] / options.steps:.1f} ms a step,"
                f" from the store {1000 * times['store'] / options.steps:.1f} ms, ratio {ratios[-1]:.3f}",
                flush=True,
            )
        print(f"median ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} … {max(ratios):.3f})")


def seconds(job: Job, teacher: teachers.Teacher, targets: Any, steps: int, folder: str) -> float:
    """Wall seconds of so many steps, after three that warm up."""
    model, processor = stages.build_student(job, teacher, seed=0)
    args = training_arguments(job.recipe.train, folder, seed=0)
    args.max_steps, args.save_strategy, args.logging_strategy = steps + 3, "no", "no"
    common = {
        "model": model,
        "args": args,
        "train_dataset": job.training_data(processor),
        "data_collator": job.task.collate(processor),
    }
    if targets is None:
        trainer = PlainTrainer(**common)
    else:
        trainer = DistillationTrainer(**common, objective=make_objective(job.recipe), targets=targets)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    marks: list[float] = []
    step = trainer.training_step

    def timed(*arguments: Any, **keywords: Any) -> torch.Tensor:
        if len(marks) in (2, steps + 2) and torch.accelerator.is_available():
            torch.accelerator.synchronize()
        marks.append(time.perf_counter())
        return step(*arguments, **keywords)

    trainer.training_step = timed  # type: ignore[method-assign]
    trainer.train()
    return marks[-1] - marks[2]


if __name__ == "__main__":
    main()
