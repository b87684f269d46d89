"""What shipping prints: tables and sentences on stdout."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from setpoint.files import human_bytes
from setpoint.shipping.manifest import Manifest


def print_export(place: Path, found: Manifest, why: str) -> None:
    """Say what was exported, how near it is to PyTorch, what it is worth, and where it lies."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    measured, parity = found.validation, found.parity
    change = measured.value - measured.pytorch
    grid.add_row("student", f"seed {found.seed}, {why}")
    grid.add_row("model", f"{found.model}, {found.dtype}, {human_bytes(found.files[found.model].bytes)}")
    grid.add_row("max |Δ logit|", f"{parity.largest:.2g} of logits up to {parity.scale:.3g}, {parity.rows:,} rows")
    grid.add_row("same top class", f"{100 * parity.agreement:.2f} % of the rows")
    grid.add_row(
        measured.metric,
        f"{measured.value:.4f} on {measured.examples:,} validation examples; PyTorch {measured.pytorch:.4f},"
        f" change {change:+.4f}",
    )
    grid.add_row("calibrated at", f"T = {found.temperature:.3g}")
    console = Console()
    console.print(grid)
    console.print(f"Export: {place}", soft_wrap=True)
