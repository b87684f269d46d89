"""What models cost as a table, and as a page with their accuracy against their latency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go
from rich.console import Console
from rich.table import Table

from setpoint.files import human_bytes, write_atomic
from setpoint.insight.plots import BLUE, GREY, OCTAVE, Plot, plain, styled
from setpoint.insight.report import rendered
from setpoint.shipping.bench import Cost

COLOURS = {"pytorch": GREY, "onnx": BLUE}


def cost_rows(costs: Sequence[Cost]) -> list[dict[str, str]]:
    """A row for each model; the first is what the others are compared with."""
    return [
        {
            "model": cost.model,
            "runtime": _runtime(cost),
            "size": human_bytes(cost.bytes),
            "p50 ms": f"{cost.p50_ms:.2f}",
            "p95 ms": f"{cost.p95_ms:.2f}",
            "times as fast": f"{costs[0].p50_ms / cost.p50_ms:.1f}",
            f"per s at {costs[0].batch_size}": f"{cost.per_second:,.0f}",
            "memory": human_bytes(cost.memory_bytes),
            costs[0].metric: f"{cost.score:.4f}",
        }
        for cost in costs
    ]


def print_costs(costs: Sequence[Cost]) -> None:
    """Print the table on stdout."""
    rows = cost_rows(costs)
    table = Table(header_style="bold", box=None, padding=(0, 1, 0, 0))
    for name in rows[0]:
        table.add_column(name, justify="left" if name in ("model", "runtime") else "right", overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    Console(markup=False).print(table)


def cost_figure(costs: Sequence[Cost]) -> go.Figure:
    """A point for each model, as large as its file; better is up and to the left."""
    largest = max(cost.bytes for cost in costs)
    by_speed = sorted(costs, key=lambda cost: cost.p50_ms)
    # Names out of each other's way.
    sides = {id(cost): ("bottom center", "top center")[i % 2] for i, cost in enumerate(by_speed)}
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
                text=[plain(Path(cost.model).name) for cost in chosen],
                customdata=[(human_bytes(cost.bytes), f"{cost.per_second:,.0f}") for cost in chosen],
                hovertemplate="%{text}<br>%{x:.2f} ms, %{y:.4f}<br>%{customdata[0]}, %{customdata[1]} a second",
                mode="markers+text",
                textposition=[sides[id(cost)] for cost in chosen],
                cliponaxis=False,
                marker={"color": colour, "size": [10 + 30 * (cost.bytes / largest) ** 0.5 for cost in chosen]},
                name=runtime,
            )
        )  # fmt: skip
    styled(figure, "milliseconds for one input", f"{costs[0].metric} on the validation split", height=420)
    return figure.update_xaxes(type="log", dtick=OCTAVE)


def verdict(costs: Sequence[Cost]) -> str:
    """What the fastest saves against the first, and what it costs."""
    first, fastest = costs[0], min(costs, key=lambda cost: cost.p50_ms)
    if fastest is first:
        return f"{_label(first)} is the fastest: {first.p50_ms:.2f} ms for one input."
    points = 100 * (fastest.score - first.score)
    return (
        f"{_label(fastest)} answers in {fastest.p50_ms:.2f} ms, {first.p50_ms / fastest.p50_ms:.1f} times as fast as"
        f" {_label(first)}; its file has {human_bytes(fastest.bytes)} against {human_bytes(first.bytes)}, and its"
        f" {first.metric} of {fastest.score:.4f} is {abs(points):.2f} points {'lower' if points < 0 else 'higher'}."
    )


def _runtime(cost: Cost) -> str:
    return cost.runtime if cost.dtype == "float32" else f"{cost.runtime} {cost.dtype}"


def _label(cost: Cost) -> str:
    return f"{Path(cost.model).name} ({_runtime(cost)})"


def write_page(path: str | Path, costs: Sequence[Cost]) -> None:
    """Write the figure and the table as a page that opens offline, atomically."""
    says = (
        f"{costs[0].metric} on the validation split against milliseconds for one input: a point at the median, its"
        " line to the 95th percentile, as large as the model's file; better is up and to the left"
    )
    plot = Plot("costs", says, cost_figure(costs), whole=True)
    write_atomic(path, rendered("bench.html.j2", [plot], rows=cost_rows(costs), verdict=verdict(costs)))
