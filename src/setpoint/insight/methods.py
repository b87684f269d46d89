"""The catalogue of methods for a terminal. Brings in no framework, as the command that prints it is to be quick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_HEADINGS = {
    "temperature": "Temperature: temperature: NAME, or temperature: {policy: NAME, FIELD: VALUE}",
    "divergence": "Divergence: objective: {divergence: NAME}, or {divergence: {kind: NAME, FIELD: VALUE}}",
    "hard": "Hard targets: objective: {hard: {kind: NAME}}",
}


def print_methods(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows of ``catalogue.table``, under a heading for each kind."""
    console = Console(markup=False)
    for kind, heading in _HEADINGS.items():
        chosen = [row for row in rows if row["kind"] == kind]
        if not chosen:
            continue
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        for row in chosen:
            fields = ", ".join(f"{key}={value}" for key, value in row["defaults"].items() if value is not None)
            details = [row["reference"], f"needs {row['needs']}" if row["needs"] else "", fields]
            about = Text(row["when"]).append("\n" + " · ".join(filter(None, details)), style="dim")
            grid.add_row(Text(row["name"], style="bold"), about)
        console.print(Text(heading, style="bold"))
        console.print(Padding(grid, (0, 0, 1, 2)))
