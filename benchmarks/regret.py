"""What the tuner loses to the best of an exhaustive grid of temperatures, and what each of the two costs.

    python benchmarks/regret.py recipes/banking77.yaml --out docs/results/regret-banking77

The grid: eight temperatures at the recipe's alpha, each with the recipe's seeds, each read on the test split, and the
best of them chosen *by the test split*, as no user could. The tuner: `setpoint tune`, which reads validation data
alone, and then students with the same seeds. The teacher and its targets are shared.
Writes OUT.md and OUT.json. A killed benchmark continues where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from temperatures import measure

from setpoint import pipeline
from setpoint.files import read_json, write_atomic, write_json
from setpoint.maths.stats import mean_interval, paired_interval
from setpoint.recipe import Recipe
from setpoint.recipe_file import load_recipe, parse_recipe

GRID = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--budget", help="of the search; the tuner's own choice where not given")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe, options.overrides)
    folder = options.run_dir or Path("runs") / f"{recipe.name}-regret"
    grid = {f"T = {t:g}": t for t in GRID}
    measure(recipe, folder, grid)
    found, tuning = tune(recipe, folder, options.budget)
    figures = measure(recipe, folder, grid | {"found": found})
    figures |= {"tuning": tuning, "command": "python benchmarks/regret.py " + " ".join(sys.argv[1:])}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out.with_suffix(".json"), figures)
    write_atomic(options.out.with_suffix(".md"), page(figures))


def tune(recipe: Recipe, folder: Path, budget: str | None) -> tuple[Recipe, dict[str, Any]]:
    """Tune once; what was found, and what that took, is kept beside the run."""
    kept = folder / "regret.json"
    if not kept.exists():
        start = time.perf_counter()
        outcome = pipeline.tune(parse_recipe(recipe.model_dump() | {"tune": {"budget": budget}}), folder)
        write_json(kept, outcome.as_json() | {"took": time.perf_counter() - start})
    return load_recipe(folder / "tuned.yaml"), read_json(kept)


def page(figures: dict[str, Any]) -> str:
    """The table, in Markdown."""
    metric, cells, tuning = figures["metric"], figures["cells"], figures["tuning"]
    scores = {name: [r["metrics"][metric] for r in by_seed.values()] for name, by_seed in cells.items()}
    best = max((name for name in scores if name.startswith("T = ")), key=lambda name: sum(scores[name]))
    regret = paired_interval(scores[best], scores["found"])
    seconds = tuning["seconds"]
    chosen = tuning["candidates"][tuning["verdict"]["chosen"]]["values"]
    lines = [
        f"# {figures['recipe']}: the tuner against an exhaustive grid",
        "",
        f"Test {metric}, means of {len(scores['found'])} seeds, 95 % intervals (Student's t), paired by seed.",
        "",
        f"| | test {metric} | 95 % interval | best of the grid minus this |",
        "|---|---|---|---|",
    ]
    for name, values in scores.items():
        one, lost = mean_interval(values), paired_interval(scores[best], values)
        title = f"**found: {', '.join(f'{k} = {v}' for k, v in chosen.items())}**" if name == "found" else name
        lines.append(f"| {title} | {one.mean:.4f} | {one.low:.4f} … {one.high:.4f} | {_signed(lost)} |")
    within = "within" if regret.low <= 0 else "outside"
    lines += [
        "",
        f"Best of the grid by the test split: {best}. The tuner loses {100 * regret.mean:+.2f} points to it "
        f"({100 * regret.low:+.2f} … {100 * regret.high:+.2f}): {within} the noise of the seeds.",
        "",
        f"It said: *{tuning['verdict']['sentence']}*",
        "",
        f"From the logits alone it suggested T = {tuning['suggestion']['temperature']:.3g} "
        f"({tuning['suggestion']['low']:.3g} … {tuning['suggestion']['high']:.3g}).",
        "",
        f"The search took {tuning['took']:.0f} s (predicted {seconds['search']:.0f} s) where an ordinary run, teacher "
        f"online, takes {seconds['ordinary']:.0f} s, the targets {seconds['targets']:.0f} s and the final student "
        f"{seconds['student']:.0f} s; rungs of {tuning['plan']['rungs']} of {tuning['plan']['full_steps']} steps for "
        f"{tuning['plan']['sizes']} candidates.",
        "",
        f"Command: `{figures['command']}`",
        "",
    ]
    return "\n".join(lines)


def _signed(interval: Any) -> str:
    return f"{interval.mean:+.4f} ({interval.low:+.4f} … {interval.high:+.4f})"


if __name__ == "__main__":
    main()
