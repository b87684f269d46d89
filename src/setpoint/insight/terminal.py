"""What the commands say on a terminal: a run, a search, a suggestion, an explanation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from setpoint.insight.summary import Run, detail_tables, summary_table, terminal_table, tuning_table, verdict

if TYPE_CHECKING:
    from setpoint.insight.explanation import Explanation
    from setpoint.tuning.outcome import Outcome
    from setpoint.tuning.prior import Suggestion


def print_run(results: Run, folder: Path) -> None:
    """Print what a run has shown, and what the search before it had found, where there was one."""
    console = Console(markup=False)
    for table in detail_tables(results):
        console.print(table)
    console.print(summary_table(results))
    console.print(verdict(results))
    tuning = results.get("tuning", {})
    for sentence in (*tuning.get("sentences", ()), *([tuning["how"]] if tuning.get("how") else [])):
        console.print(sentence)
    console.print(f"Report: {folder / 'report.html'}", soft_wrap=True)


def print_outcome(outcome: Outcome, folder: Path) -> None:
    """Print what a search has found."""
    console = Console(markup=False)
    console.print(tuning_table(outcome.as_json()))
    for sentence in (*outcome.verdict.sentences, *([outcome.how] if outcome.how else [])):
        console.print(sentence)
    console.print(f"Recipe: {folder / 'tuned.yaml'}", soft_wrap=True)


def print_suggestion(found: Suggestion) -> None:
    """Print a temperature to start from, and why."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_row("temperature", f"{found.temperature:.3g}")
    grid.add_row("to search", f"{found.low:.3g} to {found.high:.3g}")
    grid.add_row("effective classes", f"{found.effective_classes:,.2f} of {found.classes:,}, {found.rows:,} rows")
    if found.calibration is not None:
        before, after = found.calibration.ece_before, found.calibration.ece_after
        error = f"error {before:.3f} at T = 1, {after:.3f} there"
        grid.add_row("calibrated at", f"{found.calibration.temperature:.3g} ({error})")
    if found.label_smoothing:
        grid.add_row("label smoothing", f"about {found.label_smoothing:.2g}")
    for number, reason in enumerate(found.reasons):
        grid.add_row("" if number else "why", Text(reason))
    Console(markup=False).print(grid)


def print_explanation(found: Explanation) -> None:
    """Print the sentences, and two compact tables over T."""
    from setpoint.insight.tables import GRADIENT, TARGETS, over_t

    console = Console(markup=False)
    for section in found.sections:
        console.print(Text(section.title, style="bold"))
        console.print(Text(" ".join(section.sentences)), end="\n\n")
    for title, columns in (("Targets over T", TARGETS), ("Gradient over T", GRADIENT)):
        table = terminal_table(title, over_t(found, columns))
        table.box, table.padding = None, (0, 1, 0, 0)  # so that ten columns have room in 80 characters
        console.print(Padding(table, (0, 0, 1, 0)))


def print_sentences(sentences: Iterable[str]) -> None:
    """Print sentences, a paragraph each."""
    console = Console(markup=False)
    for sentence in sentences:
        console.print(sentence)
