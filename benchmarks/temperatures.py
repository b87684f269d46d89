"""Hard labels against distillation at several fixed temperatures: the same student, data, steps and seeds.

    python benchmarks/temperatures.py recipes/conll2003.yaml --temperatures 1 2 4 8 --out docs/results/conll2003

The teacher runs once; every cell is a student in one run folder, so a killed benchmark continues where it stopped.
Nothing is chosen by these figures; the test split is read by each cell's evaluation alone. Writes OUT.md, the tables,
and OUT.json, all the figures.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from setpoint import results, stages, teachers
from setpoint.files import write_atomic, write_json
from setpoint.job import Job, open_job
from setpoint.maths.stats import mean_interval, paired_interval
from setpoint.recipe import Recipe
from setpoint.recipe_file import load_recipe, parse_recipe
from setpoint.run_folder import RunFolder

HARD = "hard labels"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 2.0, 4.0, 8.0])
    parser.add_argument("--methods", nargs="*", default=[], help="temperature policies by name, with their defaults")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe, options.overrides)
    folder = options.run_dir or Path("runs") / f"{recipe.name}-temperatures"
    cells: dict[str, Any] = {f"T = {t:g}": t for t in options.temperatures}
    cells |= {name: {"policy": name} for name in options.methods}
    figures = measure(recipe, folder, cells)
    figures["command"] = "python benchmarks/temperatures.py " + " ".join(sys.argv[1:])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out.with_suffix(".json"), figures)
    write_atomic(options.out.with_suffix(".md"), page(figures))


def measure(recipe: Recipe, folder: Path, temperatures: dict[str, Any]) -> dict[str, Any]:
    """Train and evaluate every cell (a temperature, or a recipe), each done once and kept in the run folder."""
    with RunFolder(folder) as run_folder:
        job = open_job(recipe, run_folder)
        stages.train_teacher(job)
        teacher = teachers.load_teacher(job)
        targets = teachers.prepare_targets(job, teacher)
        cells = {HARD: None} | temperatures
        trained = {}
        for seed in recipe.seeds:  # seed by seed, so that a benchmark that was cut short still compares like with like
            for name, t in cells.items():
                changed = recipe if t is None else t
                if not isinstance(changed, Recipe):
                    changed = parse_recipe(recipe.model_dump() | {"temperature": t})
                cell = replace(job, recipe=changed)
                where = f"{name.replace(' ', '')}/seed-{seed}"
                stages.train_student(cell, teacher, None if t is None else targets, seed, where)
                trained[name, seed] = (cell, where)
        record, rows = results.measure_teacher(job, teacher)
        figures: dict[str, Any] = {
            "recipe": recipe.name,
            "metric": job.task.metric,
            "labels": list(job.splits.labels),
            "teacher": record,
            "cells": {name: {} for name in cells},
        }
        for (name, seed), (cell, where) in trained.items():

            def work(cell: Job = cell, where: str = where) -> dict[str, Any]:
                return results.measure_saved(cell, teacher, where, rows)

            stage = f"test-{where.replace('/', '-')}"
            figures["cells"][name][str(seed)] = run_folder.stage(
                stage, run_folder.mark(where.replace("/", "-"))["made_from"], work
            )
        return figures


def page(figures: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    metric, cells = figures["metric"], figures["cells"]
    first = next(iter(cells[HARD].values()))
    hard = [record["metrics"][metric] for record in cells[HARD].values()]
    lines = [
        f"# {figures['recipe']}: hard labels against fixed temperatures",
        "",
        f"Student: {first['parameters']:,} parameters, {first['bytes'] / 1e6:.1f} MB, {first['latency_ms']:.1f} ms an"
        f" example; teacher: {figures['teacher']['parameters']:,} parameters,"
        f" {figures['teacher']['bytes'] / 1e6:.1f} MB, {figures['teacher']['latency_ms']:.1f} ms."
        f" {len(hard)} seeds; intervals are 95 %, Student's t; gains are paired by seed.",
        "",
        f"| | test {metric} | 95 % interval | gain over hard labels | agreement with the teacher |",
        "|---|---|---|---|---|",
        f"| teacher | {figures['teacher']['metrics'][metric]:.4f} | | | |",
    ]
    for name, by_seed in cells.items():
        scores = [record["metrics"][metric] for record in by_seed.values()]
        interval, agreement = mean_interval(scores), mean_interval([r["agreement"]["top1"] for r in by_seed.values()])
        gain = ""
        if name != HARD:
            g = paired_interval(scores, hard)
            gain = f"{g.mean:+.4f} ({g.low:+.4f} … {g.high:+.4f})"
        lines.append(
            f"| {name} | {interval.mean:.4f} | {interval.low:.4f} … {interval.high:.4f} | {gain} |"
            f" {agreement.mean:.4f} |"
        )
    for table, title in {"entities": "entity", "tokens": "tag", "classes": "class"}.items():
        if table in first["metrics"]:
            lines += ["", f"## By {title}", "", *_f1_table(figures, table), "", *_full_table(figures, table)]
    return "\n".join([*lines, "", f"Command: `{figures['command']}`", ""])


def _mean(records: list[dict[str, Any]], table: str, name: str, score: str) -> float:
    return mean_interval([record["metrics"][table].get(name, {score: 0.0})[score] for record in records]).mean


def _f1_table(figures: dict[str, Any], table: str) -> list[str]:
    """F1 of each class, a column a cell."""
    cells = figures["cells"]
    lines = [
        "F1, means over seeds:",
        "",
        "| | support | teacher | " + " | ".join(cells) + " |",
        "|---|---|---|" + "---|" * len(cells),
    ]
    for name, row in figures["teacher"]["metrics"][table].items():
        means = " | ".join(f"{_mean(list(seeds.values()), table, name, 'f1'):.4f}" for seeds in cells.values())
        lines.append(f"| {name} | {row['support']:,} | {row['f1']:.4f} | {means} |")
    return lines


def _full_table(figures: dict[str, Any], table: str) -> list[str]:
    """Precision, recall and F1 of each class: the teacher's, the hard-label students' and the distilled ones'."""
    shown = {name: list(seeds.values()) for name, seeds in figures["cells"].items() if name in (HARD, "T = 4")}
    shown = {"teacher": [figures["teacher"]], **shown}
    scores = ("precision", "recall", "f1")
    lines = [
        "Precision / recall / F1, means over seeds:",
        "",
        "| | support | " + " | ".join(shown) + " |",
        "|---|---|" + "---|" * len(shown),
    ]
    for name, row in figures["teacher"]["metrics"][table].items():
        cells = [" / ".join(f"{_mean(records, table, name, s):.4f}" for s in scores) for records in shown.values()]
        lines.append(f"| {name} | {row['support']:,} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()
