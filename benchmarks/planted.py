"""Searches whose answer is known beforehand: a teacher ten times too sure or unsure, and a task where T cannot matter.

    python benchmarks/fashion.py ../shared/data/fashion_mnist runs/fashion-data
    python benchmarks/planted.py --out docs/results/planted

*Scaled*: the teacher of recipes/fashion.yaml with its logits times 1, 10 and 0.1 (its last layer's weights are). The
prior and the found T should move by that factor, and how soft the targets are at the found T should stay. Student and
teacher share T, the recipe's own T is 4 times the factor, and the student learns from the teacher alone (α = 1), for
the labels want logits of a scale of their own; and once more with the student at T = 1 (policy ``ttm``), where a
student sees the same targets at the same softness, whatever the factor. *Flat*: scikit-learn's digits with a student of
the teacher's own size.
Writes OUT.md and OUT.json; a killed benchmark goes on where it stopped.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from setpoint import pipeline, stages
from setpoint.files import write_atomic, write_json
from setpoint.job import open_job
from setpoint.recipe_file import load_recipe, parse_recipe
from setpoint.run_folder import RunFolder
from setpoint.teachers import load_teacher, prepare_targets, validation_logits
from setpoint.tuning.reasons import softness

ROOT = Path(__file__).parents[1]
FACTORS = (1.0, 10.0, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/planted"))
    parser.add_argument("--budget", default="16 trials")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    figures: dict[str, Any] = {
        "scaled": {},
        "ttm": {},
        "command": "python benchmarks/planted.py " + " ".join(sys.argv[1:]),
    }
    for factor in FACTORS:
        for kind in ("scaled", "ttm"):
            figures[kind][f"{factor:g}"] = scaled(options.run_dir, factor, options.budget, kind)
            print(kind, factor, figures[kind][f"{factor:g}"], flush=True)
    figures["flat"] = flat(options.run_dir, options.budget)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out.with_suffix(".json"), figures)
    write_atomic(options.out.with_suffix(".md"), page(figures))


def scaled(folder: Path, factor: float, budget: str, kind: str) -> dict[str, Any]:
    """What is found for a teacher whose logits are multiplied."""
    changes = {"objective": {"divergence": "forward_kl", "alpha": 1.0}, "seeds": [0], "hard_baseline": False}
    recipe = parse_recipe(load_recipe(ROOT / "recipes/fashion.yaml").model_dump() | changes)
    with RunFolder(folder / "teacher") as run_folder:
        job = open_job(recipe, run_folder)
        stages.train_teacher(job)
    model = folder / f"teacher-{factor:g}"
    if not model.exists():
        shutil.copytree(folder / "teacher/teacher", model)
        weights = load_file(model / "model.safetensors")
        for name in ("classifier.weight", "classifier.bias"):
            weights[name] = weights[name] * factor
        save_file(weights, model / "model.safetensors", {"format": "pt"})
    teacher = {"model": {"kind": "pretrained", "model": str(model)}}
    temperature: Any = 4 * factor
    search: dict[str, Any] = {"temperature": "auto"}
    if kind == "ttm":
        temperature = {"policy": "ttm", "temperature": temperature}
        search = {"temperature.temperature": {"low": 0.46 * factor, "high": 7.4 * factor}}
    tune = {"search": search, "budget": budget}
    recipe = parse_recipe(recipe.model_dump() | {"teacher": teacher, "temperature": temperature, "tune": tune})
    place = folder / f"{kind}-{factor:g}"
    outcome = pipeline.tune(recipe, place)
    with RunFolder(place) as run_folder:
        job = open_job(recipe, run_folder)
        loaded = load_teacher(job)
        logits, _ = validation_logits(job, loaded, prepare_targets(job, loaded))
    verdict = outcome.verdict
    found = outcome.candidates.values[verdict.chosen][verdict.knob]
    return {
        "suggested": outcome.suggestion.temperature,
        "found": found,
        "best": verdict.best_temperature,
        "low": verdict.low,
        "high": verdict.high,
        "effective_classes": softness(logits.double(), found),
        "effective_classes_best": softness(logits.double(), verdict.best_temperature),
        "sentence": verdict.sentence,
    }


def flat(folder: Path, budget: str) -> dict[str, Any]:
    """What is found where the student can do all that the teacher can, and the data are easy."""
    digits = load_recipe(ROOT / "recipes/digits.yaml")
    same = {"model": digits.teacher.model.model_dump()}
    changes = {"student": same, "tune": {"budget": budget}, "seeds": [0], "hard_baseline": False, "name": "flat"}
    outcome = pipeline.tune(parse_recipe(digits.model_dump() | changes), folder / "flat")
    values = outcome.candidates.values[outcome.verdict.chosen]
    return {"flat": outcome.verdict.flat, "chosen": values, "sentence": outcome.verdict.sentence}


def page(figures: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    lines = [
        "# Searches whose answer is known", "",
        "## A teacher ten times too sure, and ten times too unsure", "",
        "Fashion-MNIST at half size; the teacher's logits are multiplied; the recipe's own T is 4 times the"
        " factor; the student learns from the teacher alone."
        " In brackets: divided by the factor.", "",
        *table(figures["scaled"]),
        "With the student at T = 1, so that it sees the same targets at the same softness:", "",
        *table(figures["ttm"]),
    ]  # fmt: skip
    lines += ["## A student of the teacher's own size on easy data", "", f"*{figures['flat']['sentence']}*", ""]
    kept = ", ".join(f"{name} = {value:g}" for name, value in figures["flat"]["chosen"].items())
    return "\n".join([*lines, f"Chosen: {kept}.", "", f"Command: `{figures['command']}`", ""])


def table(rows: dict[str, Any]) -> list[str]:
    """A row for each factor, and what was said."""
    lines = [
        "| logits times | suggested from the logits | best T | within noise | effective classes there |"
        " chosen | effective classes there |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        k = float(name)
        lines.append(
            f"| {name} | {_both(row['suggested'], k)} | {_both(row['best'], k)} | {_both(row['low'], k)} …"
            f" {_both(row['high'], k)} | {row['effective_classes_best']:.2f} | {_both(row['found'], k)} |"
            f" {row['effective_classes']:.2f} |"
        )
    return [*lines, "", *(f"- × {name}: *{row['sentence']}*" for name, row in rows.items()), ""]


def _both(value: float, factor: float) -> str:
    return f"{value:.3g}" if factor == 1 else f"{value:.3g} ({value / factor:.3g})"


if __name__ == "__main__":
    main()
