"""report.md: an explanation for a terminal or a README, in words and tables."""

from __future__ import annotations

import re
from pathlib import Path

from setpoint.files import write_atomic
from setpoint.insight.explanation import Explanation
from setpoint.insight.tables import Table, tables


def write_markdown(path: str | Path, title: str, found: Explanation) -> None:
    """Write the page, atomically.

    Args:
        path: where to.
        title: its heading.
        found: what is said.
    """
    write_atomic(path, to_markdown(title, found))


def to_markdown(title: str, found: Explanation) -> str:
    """Title, sentences, tables."""
    parts = [f"# {plain(title)}"]
    for section in found.sections:
        parts += [f"## {section.title}", " ".join(plain(sentence) for sentence in section.sentences)]
    parts.append("## Tables")
    for name, table in tables(found).items():
        parts += [f"### {plain(name)}", _table(table)]
    return "\n\n".join(parts) + "\n"


def _table(rows: Table) -> str:
    """A table of GitHub's Markdown; the first column to the left, the others to the right."""
    head = [plain(name) for name in rows[0]]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *([plain(cell) for cell in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plain(text: str) -> str:
    """Text that Markdown shows as it is: the names of classes and rows are anybody's."""
    return re.sub(r"([\\`*|<\[])", r"\\\1", " ".join(text.split()))
