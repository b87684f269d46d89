"""One table across all domains: teacher, student on hard labels, distilled student, and the temperature each wants.

    python benchmarks/domains.py runs/conll2003 runs/sst2 ... --out docs/results/domains

reads finished runs (``setpoint run recipes/NAME.yaml --set tune={}``) and writes the table and, beside it, its JSON.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from setpoint.files import read_json, write_atomic, write_json
from setpoint.maths.stats import mean_interval


def row(folder: Path) -> dict:
    """What the table says of one run."""
    run = read_json(folder / "metrics.json")
    metric, names = run["metric"], [run["metric"], *run.get("beside", ())]
    models = {kind: run[kind] for kind in ("teacher", "student_hard", "student") if kind in run}
    found = {
        "name": run["name"],
        "task": run["task"],
        "metric": metric,
        "parameters": {kind: models[kind]["parameters"] for kind in ("teacher", "student")},
        "scores": {
            kind: {
                name: [seed["metrics"][name] for seed in one["seeds"].values()]
                if "seeds" in one
                else one["metrics"][name]
                for name in names
            }
            for kind, one in models.items()
        },
        "temperature": run["temperature"],
        "gain": run["gain"],
        "minutes": round(sum(read_json(mark)["seconds"] for mark in (folder / "stages").glob("*.json")) / 60, 1),
    }
    if (folder / "tuning.json").exists():
        tuning = read_json(folder / "tuning.json")
        verdict, suggestion = tuning["verdict"], tuning["suggestion"]
        found["tuned"] = {key: verdict[key] for key in ("best_temperature", "low", "high", "flat", "sentence")}
        kept = ("temperature", "effective_classes", "classes", "calibration", "reasons")
        found["suggestion"] = {key: suggestion[key] for key in kept}
    return found


def mean(values: list[float] | float) -> float:
    return sum(values) / len(values) if isinstance(values, list) else values


def told(values: list[float] | float) -> str:
    """A mean with its 95 % interval over seeds, where there are several."""
    if not isinstance(values, list) or len(values) < 2:
        return f"{mean(values):.4f}"
    found = mean_interval(values)
    return f"{found.mean:.4f} ({found.low:.4f} … {found.high:.4f})"


def table(rows: list[dict]) -> str:
    head = "| recipe | teacher | hard labels | distilled | gain | T (as good) |"
    lines = [head, "|---|---|---|---|---|---|"]
    for one in rows:
        scores, metric, gain, tuned = one["scores"], one["metric"], one["gain"], one.get("tuned")
        ratio = one["parameters"]["teacher"] / one["parameters"]["student"]
        hard = f"{mean(scores['student_hard'][metric]):.4f}" if "student_hard" in scores else ""
        gained = "" if gain is None else f"{100 * gain['mean']:+.2f} ± {50 * (gain['high'] - gain['low']):.2f}"
        ends = "" if tuned is None or tuned["low"] is None else f" ({tuned['low']:.2g} … {tuned['high']:.2g})"
        cells = [f"{one['name']}, {ratio:.3g}× smaller: {metric}", f"{mean(scores['teacher'][metric]):.4f}", hard]
        cells += [f"{mean(scores['student'][metric]):.4f}", gained, one["temperature"].removeprefix("T = ") + ends]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def others(rows: list[dict]) -> str:
    lines = ["| recipe | number | teacher | hard labels | distilled |", "|---|---|---|---|---|"]
    for one in rows:
        for name in list(one["scores"]["teacher"])[1:]:
            cells = [told(one["scores"][kind][name]) if kind in one["scores"] else "" for kind in one["scores"]]
            lines.append(f"| {one['name']} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def why(rows: list[dict]) -> str:
    """What the teacher's logits are like, and what the search found."""
    lines = [
        "| recipe | classes | suggested from logits alone | calibrated at | searched |",
        "|---|---|---|---|---|",
    ]
    for one in rows:
        if "suggestion" not in one:
            continue
        said, fitted = one["suggestion"], one["suggestion"]["calibration"]
        soft = f"T = {said['temperature']:.2g}, {said['effective_classes']:.3g} effective classes"
        calibrated = "" if fitted is None else f"T = {fitted['temperature']:.2g}"
        cells = [one["name"], f"{said['classes']:,}", soft, calibrated, one["tuned"]["sentence"].partition(". ")[0]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--out", type=Path, required=True, help="where to, without a suffix")
    given = parser.parse_args()
    rows = [row(folder) for folder in given.runs]
    write_json(given.out.with_suffix(".json"), rows)
    print(page := f"{table(rows)}\n\n{others(rows)}\n\n{why(rows)}\n")
    write_atomic(given.out.with_suffix(".table.md"), page)


if __name__ == "__main__":
    main()
