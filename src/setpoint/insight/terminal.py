"""An explanation for a terminal: the sentences, and two compact tables over T."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from setpoint.insight.explanation import Explanation
from setpoint.insight.summary import terminal_table
from setpoint.insight.tables import GRADIENT, TARGETS, over_t


def print_explanation(found: Explanation) -> None:
    """Print it on stdout."""
    console = Console()
    for section in found.sections:
        console.print(Text(section.title, style="bold"))
        console.print(Text(" ".join(section.sentences)), end="\n\n")
    for title, columns in (("Targets over T", TARGETS), ("Gradient over T", GRADIENT)):
        table = terminal_table(title, over_t(found, columns))
        table.box, table.padding = None, (0, 1, 0, 0)  # so that ten columns have room in 80 characters
        console.print(Padding(table, (0, 0, 1, 0)))
