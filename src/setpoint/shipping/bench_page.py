"""What models cost as a table, and as a page with their accuracy against their latency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go
from rich.console import Console
from rich.table import Table

from setpoint.files import write_atomic
from setpoint.insight.summary import human_bytes
from setpoint.shipping.bench import Cost

COLOURS = {"pytorch": "#6b7280", "onnx": "#2563eb"}


def cost_table(costs: Sequence[Cost]) -> Table:
    """A row for each model; the first is what the others are compared with."""
    table = Table(title_justify="left", header_style="bold", box=None, padding=(0, 1, 0, 0))
    for name in ("model", "runtime", "size", "p50 ms", "p95 ms", "times as fast", f"per s at {costs[0].batch_size}"):
        table.add_column(name, justify="left" if name in ("model", "runtime") else "right", overflow="fold")
    table.add_column("memory", justify="right")
    table.add_column(costs[0].metric, justify="right")
    for cost in costs:
        table.add_row(
            cost.model,
            cost.runtime if cost.dtype == "float32" else f"{cost.runtime} {cost.dtype}",
            human_bytes(cost.bytes),
            f"{cost.p50_ms:.2f}",
            f"{cost.p95_ms:.2f}",
            f"{costs[0].p50_ms / cost.p50_ms:.1f}",
            f"{cost.per_second:,.0f}",
            human_bytes(cost.memory_bytes),
            f"{cost.score:.4f}",
        )
    return table


def print_costs(costs: Sequence[Cost]) -> None:
    """Print the table on stdout."""
    Console().print(cost_table(costs))


def cost_figure(costs: Sequence[Cost]) -> go.Figure:
    """A point for each model, as large as its file; better is up and to the left."""
    largest = max(cost.bytes for cost in costs)
    figure = go.Figure()
    for runtime, colour in COLOURS.items():
        chosen = [cost for cost in costs if cost.runtime == runtime]
        if not chosen:
            continue
        figure.add_trace(
            go.Scatter(
                x=[cost.p50_ms for cost in chosen],
                y=[cost.score for cost in chosen],
                error_x={
                    "type": "data", "symmetric": False, "array": [cost.p95_ms - cost.p50_ms for cost in chosen],
                    "arrayminus": [0] * len(chosen),
                },
                text=[f"{Path(cost.model).name} {cost.dtype if cost.dtype != 'float32' else ''}" for cost in chosen],
                customdata=[(human_bytes(cost.bytes), f"{cost.per_second:,.0f}") for cost in chosen],
                hovertemplate="%{text}<br>%{x:.2f} ms, %{y:.4f}<br>%{customdata[0]}, %{customdata[1]} a second",
                mode="markers+text",
                textposition="bottom center",
                marker={"color": colour, "size": [10 + 30 * (cost.bytes / largest) ** 0.5 for cost in chosen]},
                name=runtime,
            )
        )  # fmt: skip
    figure.update_xaxes(title="milliseconds for one input, p50 (line to p95)", type="log")
    figure.update_yaxes(title=f"{costs[0].metric} on the validation split")
    figure.update_layout(template="plotly_white", title="Accuracy against latency", legend_title="runtime")
    return figure


def write_page(path: str | Path, costs: Sequence[Cost]) -> None:
    """Write the figure as a page that opens offline, atomically."""
    write_atomic(path, cost_figure(costs).to_html(include_plotlyjs=True, full_html=True))
