"""The plots of what only a run has: scores, the search for its temperature, and what happened while it trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from setpoint.insight.history import Curves, History
from setpoint.insight.plots import BLUE, GREEN, GREY, OCTAVE, ORANGE, SAND, Plot, line, styled
from setpoint.insight.summary import ROWS, Run

COLOURS = {"teacher": GREY, "student_initial": SAND, "student_hard": ORANGE, "student": BLUE}
STEP = "step"


def score_figure(run: Run) -> go.Figure:
    """The headline metric of each model: a bar at the mean, a dot a seed."""
    figure = go.Figure()
    metric = run["metric"]
    for name, title in ROWS.items():
        if name not in run or name == "student_initial":
            continue
        record = run[name]
        seeds = [seed["metrics"][metric] for seed in record.get("seeds", {}).values()] or [record["metrics"][metric]]
        figure.add_trace(
            go.Scatter(
                x=seeds, y=[title] * len(seeds), mode="markers", name=title, showlegend=False,
                marker={"size": 11, "color": COLOURS[name], "opacity": 0.65},
                hovertemplate=f"{title}: %{{x:.4f}}<extra></extra>",
            )
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=[record["metrics"][metric]], y=[title], mode="markers", name="mean", showlegend=False,
                marker={"symbol": "line-ns-open", "size": 26, "color": COLOURS[name], "line": {"width": 3}},
                hovertemplate=f"{title}, mean: %{{x:.4f}}<extra></extra>",
            )
        )  # fmt: skip
    styled(figure, f"test {metric}", "", height=220)
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_layout(margin={"t": 10})
    return figure


def tuning_figure(tuning: Mapping[str, Any]) -> go.Figure:
    """The expected score over what was searched, with its 95 % band; a dot a training at the last rung."""
    verdict = tuning["verdict"]
    knob, curve = verdict["knob"], verdict["curve"]
    x = [point["at"] for point in curve]
    figure = go.Figure()
    for side, fill in (("low", None), ("high", "tonexty")):
        figure.add_trace(
            go.Scatter(
                x=x, y=[point[side] for point in curve], mode="lines", line={"width": 0}, fill=fill,
                fillcolor="rgba(59,125,221,0.18)", hoverinfo="skip", showlegend=False,
            )
        )  # fmt: skip
    figure.add_trace(
        line(x, [point["mean"] for point in curve], "expected score", BLUE, hovertemplate="%{x:.3g}: %{y:.4f}")
    )
    last = verdict["measured_at"]["steps"]
    dots = [
        (candidate["values"][knob], score["value"], score["seed"])
        for candidate in tuning["candidates"]
        for score in candidate["scores"]
        if score["steps"] == last and isinstance(candidate["values"][knob], int | float)
    ]
    figure.add_trace(
        go.Scatter(
            x=[at for at, _, _ in dots], y=[value for _, value, _ in dots], mode="markers", name="a finalist's student",
            marker={"size": 9, "color": ORANGE, "opacity": 0.7},
            customdata=[seed for _, _, seed in dots],
            hovertemplate="%{x:.3g}, seed %{customdata}: %{y:.4f}<extra></extra>",
        )
    )  # fmt: skip
    styled(figure, "temperature T" if knob == "temperature" else knob, "validation score")
    dimension = next(d for d in tuning["dimensions"] if d["name"] == knob)
    if dimension["log"]:
        figure.update_xaxes(type="log", dtick=OCTAVE)
    return figure


def curve_figure(curves: Curves) -> go.Figure:
    """Training loss over steps, a line a student."""
    figure = go.Figure()
    for kind, by_seed in curves.items():
        _lines(figure, by_seed, ROWS[kind], COLOURS[kind])
    return styled(figure, STEP, "training loss (nats)")


HISTORY = {
    "temperature": ("temperature", "temperature T", {"temperature": "teacher", "student_temperature": "student"}),
    "softness": ("effective_classes", "effective classes", {"effective_classes": "effective classes"}),
    "terms": ("divergence", "loss (nats)", {"divergence": "divergence, scaled", "hard": "hard loss"}),
    "shares": ("kd_gradient_share", "share of the gradient", {"kd_gradient_share": "of the divergence"}),
}  # fmt: skip
"""Plots of the training: what must have been logged, the axis, and the lines."""
SAYS = {
    "temperature": "The temperature over the training, mean over the rows of a batch",
    "softness": "Effective classes of the targets over the training",
    "terms": "The terms of the loss over the training, before their weights",
    "shares": "The divergence's share of the gradient on the student's logits",
}


def history_plots(history: History) -> list[Plot]:
    """What was logged of the distilled students, a line a seed; a student's T that is the teacher's is no line."""
    plots = []
    for name, (needed, axis, lines) in HISTORY.items():
        if needed not in history:
            continue
        figure = go.Figure()
        for (quantity, title), colour in zip(lines.items(), (BLUE, ORANGE), strict=False):
            same = quantity == "student_temperature" and history.get(quantity) == history["temperature"]
            if quantity in history and not same:
                _lines(figure, history[quantity], title, colour)
        styled(figure, STEP, axis)
        figure.update_layout(showlegend=len({trace.name for trace in figure.data}) > 1)
        figure.update_yaxes(rangemode="tozero", tickformat=".0%" if name == "shares" else None)
        plots.append(Plot(name, SAYS[name], figure))
    return plots


def distribution_figure(temperatures: Sequence[float]) -> go.Figure:
    """How often a policy gives which temperature."""
    figure = go.Figure(go.Histogram(x=list(temperatures), nbinsx=40, marker={"color": GREEN}))
    return styled(figure, "temperature T", "rows")


def _lines(figure: go.Figure, by_seed: Mapping[int, Sequence[tuple[float, float]]], title: str, colour: str) -> None:
    """A line a seed, all of them one entry of the legend."""
    for number, (seed, points) in enumerate(by_seed.items()):
        figure.add_trace(
            line(
                [step for step, _ in points], [value for _, value in points], title, colour,
                mode="lines" if len(points) > 1 else "markers", legendgroup=title, showlegend=number == 0, opacity=0.75,
                line={"color": colour, "width": 1.5},
                hovertemplate=f"{title}, seed {seed}: %{{y:.3g}} at step %{{x}}<extra></extra>",
            )
        )  # fmt: skip
