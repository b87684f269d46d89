"""A comparison as a table for a terminal, and as one page that opens anywhere, offline."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from setpoint.files import human_bytes, write_atomic
from setpoint.insight.compare import Comparison
from setpoint.insight.report import rendered
from setpoint.insight.summary import terminal_table
from setpoint.maths.stats import Interval

WIDTH, MARGIN = 200, 10
"""Of the picture of an interval, in its own units."""


def print_comparison(found: Comparison) -> None:
    """Print the table, a column a run, and the sentences on stdout."""
    console = Console(markup=False)
    rows = compared_rows(found)
    title = f"{found.task}: distilled students on the test split"
    console.print(terminal_table(title, _turned(rows)))
    for sentence in found.sentences:
        console.print(sentence)


def write_comparison(path: str | Path, found: Comparison) -> None:
    """Write the page, atomically."""
    page = rendered(
        "compare.html.j2",
        [],
        found=found,
        rows=compared_rows(found),
        bars=bars([run.difference for run in found.runs]),
        width=WIDTH,
        changes=[{name: [_short(v) for v in pair] for name, pair in run.changes.items()} for run in found.runs],
    )
    write_atomic(path, page)


def compared_rows(found: Comparison) -> Sequence[dict[str, str]]:
    """The table, a row a run."""
    return [
        {
            "run": run.run,
            "temperature": run.temperature,
            found.metric: f"{run.score:.4f}{_spread(list(run.scores.values()))}",
            "against the first": _points(run.difference),
            "over hard labels": _points(run.gain),
            "agreement": "" if run.agreement is None else f"{run.agreement:.2%}",
            "size": human_bytes(run.bytes),
            "latency": f"{run.latency_ms:.2f} ms",
            "parameters": f"{run.parameters:,}",
            "teacher": f"{run.teacher} ({run.teacher_score:.4f})",
        }
        for run in found.runs
    ]


def _turned(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """A row a quantity and a column a run, numbered from 1; quantities that no run has are left out."""
    return [
        {"": name} | {str(number): row[name] for number, row in enumerate(rows, 1)}
        for name in rows[0]
        if any(row[name] for row in rows)
    ]


def _spread(scores: Sequence[float]) -> str:
    return f" ({min(scores):.4f} … {max(scores):.4f})" if len(scores) > 1 else ""


def _points(interval: Interval | None) -> str:
    """A difference in points, with its interval."""
    if interval is None:
        return ""
    ends = "" if math.isnan(interval.low) else f" ({100 * interval.low:+.2f} … {100 * interval.high:+.2f})"
    return f"{100 * interval.mean:+.2f}{ends}"


def bars(differences: Sequence[Interval | None]) -> list[dict[str, float] | None]:
    """Where to draw each interval on one axis with 0 in it: ``zero``, ``mean``, ``low`` and ``high``, from 0 to WIDTH.

    Examples:
        >>> bars([None, Interval(0.5, 0.0, 1.0, 3)])
        [None, {'zero': 10.0, 'mean': 100.0, 'low': 10.0, 'high': 190.0}]
    """
    ends = [v for one in differences if one for v in (one.mean, one.low, one.high) if not math.isnan(v)]
    least, most = min([0.0, *ends]), max([0.0, *ends])
    reach = (most - least) or 1.0

    def place(value: float) -> float:
        return round(MARGIN + (WIDTH - 2 * MARGIN) * (value - least) / reach, 2)

    return [
        None
        if one is None
        else {
            "zero": place(0.0),
            "mean": place(one.mean),
            "low": place(one.mean if math.isnan(one.low) else one.low),
            "high": place(one.mean if math.isnan(one.high) else one.high),
        }
        for one in differences
    ]


def _short(value: Any) -> str:
    """A field of a recipe as one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:79] + "…"
