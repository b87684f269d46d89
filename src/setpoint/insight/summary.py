"""What a run has shown, as one sentence and one table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from setpoint.files import human_bytes

Run = Mapping[str, Any]
"""What ``metrics.json`` holds."""

ROWS = {
    "teacher": "teacher",
    "student_initial": "student, untrained",
    "student_hard": "student, hard labels",
    "student": "student, distilled",
}


def verdict(run: Run) -> str:
    """What a colleague would say of the run: how much smaller, how much is kept, and what distilling gained."""
    teacher, student, metric = run["teacher"], run["student"], run["metric"]
    ratio = teacher["parameters"] / student["parameters"]
    kept = student["metrics"][metric] / teacher["metrics"][metric] if teacher["metrics"][metric] else math.nan
    size = f"is {ratio:.3g}× smaller than its teacher" if ratio >= 1 else f"is {1 / ratio:.3g}× larger than its teacher"
    return f"The student {size} and keeps {kept:.1%} of its {metric}. {_gain_sentence(run)}"


def _gain_sentence(run: Run) -> str:
    gain = run.get("gain")
    how = f"Distilling at {run['temperature']}"
    if gain is None:
        return "No student was trained on hard labels to compare with."
    points = 100 * gain["mean"]
    if gain["n"] < 2 or gain["low"] is None or math.isnan(gain["low"]):
        return f"{how} changed {run['metric']} by {points:+.2f} points against hard labels; one seed tells no noise."
    interval = f"95 % interval {100 * gain['low']:+.2f} … {100 * gain['high']:+.2f}, {gain['n']} seeds"
    if gain["low"] > 0:
        return f"{how} gained {points:.2f} points over hard labels ({interval})."
    if gain["high"] < 0:
        return f"{how} lost {-points:.2f} points to hard labels ({interval})."
    return f"{how} made no difference to hard labels that can be told from noise: {points:+.2f} points ({interval})."


def summary_rows(run: Run) -> list[dict[str, str]]:
    """The table, a row a model: what it scores, how often it says what the teacher says, what it costs."""
    rows = []
    for name, title in ROWS.items():
        if name not in run:
            continue
        record = run[name]
        scores = [seed["metrics"][run["metric"]] for seed in record.get("seeds", {}).values()]
        spread = f" ({min(scores):.4f} … {max(scores):.4f})" if len(scores) > 1 else ""
        rows.append(
            {
                "model": title,
                run["metric"]: f"{record['metrics'][run['metric']]:.4f}{spread}",
                **{name: f"{record['metrics'][name]:.4g}" for name in run.get("beside", ())},
                "agreement": f"{record['agreement']['top1']:.2%}" if "agreement" in record else "",
                "parameters": f"{record['parameters']:,}",
                "size": human_bytes(record["bytes"]),
                "latency": f"{record['latency_ms']:.2f} ms",
            }
        )
    return rows


def summary_table(run: Run) -> Table:
    """The table for a terminal."""
    rows = summary_rows(run)
    table = Table(title=f"{run['name']}: test split, {run['temperature']}")
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "model" else "right")
    for row in rows:
        table.add_row(*row.values())
    return table


TITLES = {"entities": "entities (seqeval)", "tokens": "tokens, by tag"}
BESIDE = {"teacher": "teacher f1", "student_hard": "hard f1"}
MOST_LINES = 24
"""Longer tables stand in the report alone."""


def detail_tables(run: Run) -> list[Table]:
    """The distilled student's table over entities, tags or classes for a terminal, the others' F1 beside it."""
    others = [name for name in BESIDE if name in run]
    tables = []
    for key, rows in score_tables(run["student"]).items():
        if len(rows) > MOST_LINES or not all("f1" in row for row in rows.values()):
            continue
        table = Table(title=f"{TITLES.get(key, key)}: {ROWS['student']}")
        table.add_column("")
        for name in ("precision", "recall", "f1", *(BESIDE[other] for other in others), "support"):
            table.add_column(name, justify="right")
        for name, row in rows.items():
            beside = [run[other]["metrics"][key].get(name, {}).get("f1") for other in others]
            figures = [row["precision"], row["recall"], row["f1"], *beside]
            table.add_row(name, *("" if x is None else f"{x:.4f}" for x in figures), f"{row['support']:,}")
        tables.append(table)
    return tables


def score_tables(record: Mapping[str, Any]) -> dict[str, Mapping[str, Mapping[str, float]]]:
    """The tables among a model's metrics, such as ``classes``: by name, each of rows by name."""
    return {name: value for name, value in record.get("metrics", {}).items() if isinstance(value, Mapping) and value}


def tuning_rows(tuning: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row a candidate, those that were trained longest first: its values, steps, seeds and mean score."""
    verdict = tuning["verdict"]
    rows = []
    for number, candidate in enumerate(tuning["candidates"]):
        if not candidate["scores"]:
            continue
        steps = max(score["steps"] for score in candidate["scores"])
        last = [score["value"] for score in candidate["scores"] if score["steps"] == steps]
        marks = [
            name
            for name, is_it in (
                ("the recipe", number == verdict["default"]),
                ("best", number == verdict["best"]),
                ("chosen", number == verdict["chosen"]),
                ("failed", candidate["failed"]),
            )
            if is_it
        ]
        rows.append((steps, sum(last) / len(last), candidate["values"], len(last), ", ".join(marks)))
    return [
        {
            **{name: f"{value:g}" if isinstance(value, int | float) else str(value) for name, value in values.items()},
            "steps": f"{steps:,}",
            "seeds": str(seeds),
            "score": f"{score:.4f}",
            "": marks,
        }
        for steps, score, values, seeds, marks in sorted(rows, key=lambda row: row[:2], reverse=True)
    ]


def tuning_table(tuning: Mapping[str, Any]) -> Table:
    """``tuning_rows`` for a terminal."""
    return terminal_table("Candidates on validation data", tuning_rows(tuning))


def terminal_table(title: str, rows: Sequence[Mapping[str, str]]) -> Table:
    """Rows of text by column for a terminal: columns of figures, and one without a name for remarks."""
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        table.add_column(name, justify="left" if name == "" else "right")
    for row in rows:
        table.add_row(*row.values())
    return table
