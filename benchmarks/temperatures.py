"""Hard labels against distillation at several fixed temperatures: the same student, data, steps and seeds.

    python benchmarks/temperatures.py recipes/conll2003.yaml --temperatures 1 2 4 8 --out docs/results/conll2003

The teacher runs once; every cell is a student in the same run folder, so a killed run continues. The choice between
temperatures is made on validation data; the test split is read by the final evaluation of each cell. Writes OUT.md
(the tables) and OUT.json (all the figures).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from setpoint import stages
from setpoint.files import write_atomic, write_json
from setpoint.maths.stats import mean_interval, paired_interval
from setpoint.recipe import Recipe, load_recipe
from setpoint.run_folder import RunFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 2.0, 4.0, 8.0])
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe, options.overrides)
    folder = options.run_dir or Path("runs") / f"{recipe.name}-temperatures"
    command = "python benchmarks/temperatures.py " + " ".join(sys.argv[1:])
    figures = {"command": command, "recipe": recipe.model_dump(mode="json"), **measure(recipe, folder, options.temperatures)}
    write_json(options.out.with_suffix(".json"), figures)
    write_atomic(options.out.with_suffix(".md"), page(figures))


def measure(recipe: Recipe, folder: Path, temperatures: list[float]) -> dict:
    """Train and evaluate every cell, each done once and kept in the run folder."""
    with RunFolder(folder) as run_folder:
        job = stages.open_job(recipe, run_folder)
        stages.train_teacher(job)
        teacher = stages.load_teacher(job)
        targets = stages.prepare_targets(job, teacher)
        cells = {"hard labels": None} | {f"T={t:g}": t for t in temperatures}
        figures = {"metric": job.task.metric, "teacher": stages.evaluate_teacher(job, teacher), "cells": {}}
        for name, temperature in cells.items():
            changes = {} if temperature is None else {"temperature": {"policy": "constant", "temperature": temperature}}
            cell = job.with_recipe(Recipe.model_validate(recipe.model_dump() | changes))
            figures["cells"][name] = [
                stages.measure_student(cell, teacher, None if temperature is None else targets, seed, cell=name)
                for seed in recipe.seeds
            ]
    return figures


def page(figures: dict) -> str:
    """The tables, in Markdown."""
    raise NotImplementedError


if __name__ == "__main__":
    main()
