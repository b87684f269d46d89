"""What storing the teacher's logits saves: E epochs of distillation with a live teacher against from the store.

    python benchmarks/teacher_once.py recipes/conll2003.yaml --epochs 1 3 5

The store's times include building it. Both are the same student, data and steps, in turn in one process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from setpoint import stages, teachers
from setpoint.job import open_job
from setpoint.recipe import TargetsRecipe
from setpoint.recipe_file import load_recipe
from setpoint.run_folder import RunFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--examples", type=int, default=2000)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe, options.overrides)
    print("| epochs | live teacher, s | store, s (of which building) | live / store |\n|---|---|---|---|")
    for epochs in options.epochs:
        update = {
            "data": recipe.data.model_copy(update={"limit": options.examples}),
            "train": recipe.train.model_copy(update={"epochs": float(epochs)}),
        }
        times = {}
        building = 0.0
        for kind in ("live", "store"):
            cell = recipe.model_copy(update=update | {"targets": TargetsRecipe(kind=kind)})
            with tempfile.TemporaryDirectory() as folder, RunFolder(Path(folder) / "run") as run_folder:
                job = open_job(cell, run_folder)
                stages.train_teacher(job)
                teacher = teachers.load_teacher(job)
                start = time.perf_counter()
                targets = teachers.prepare_targets(job, teacher)
                building = time.perf_counter() - start
                stages.train_student(job, teacher, targets, 0, "student/seed-0")
                times[kind] = time.perf_counter() - start
        print(
            f"| {epochs} | {times['live']:.1f} | {times['store']:.1f} ({building:.1f}) |"
            f" {times['live'] / times['store']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
