"""report.html: one page that opens anywhere, offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from setpoint.files import write_atomic
from setpoint.insight.summary import ROWS, TABLES, Run, summary_rows, tuning_rows, verdict

COLOURS = {"teacher": "#6b7280", "student_initial": "#c4b5a0", "student_hard": "#d97706", "student": "#2563eb"}
OCTAVE = 0.30103
"""Ticks of a logarithmic axis at 1, 2, 4 …: a tenfold range has too few of plotly's own, or ones without their zero."""


def write_report(
    path: str | Path,
    run: Run,
    *,
    recipe_yaml: str,
    softness: Mapping[str, Any],
    curves: Mapping[str, Mapping[int, Sequence[tuple[float, float]]]],
    seconds: Mapping[str, float],
    tuning: Mapping[str, Any] | None = None,
) -> None:
    """Write the page, atomically.

    Args:
        path: where to.
        run: what ``metrics.json`` holds.
        recipe_yaml: the recipe that was run.
        softness: ``temperatures``, ``effective_classes`` and ``top_probability`` of the teacher's targets over T,
            the number of ``classes``, and the temperature ``used`` (None where it was not one number).
        curves: by kind of student and by seed, the training loss as (step, nats).
        seconds: by stage, how long it took.
        tuning: what ``tuning.json`` holds, where the temperature was searched.
    """
    figures = {
        "scores": score_figure(run),
        "softness": softness_figure(softness),
        "curves": curve_figure(curves),
    }
    if tuning is not None and tuning["verdict"]["curve"]:
        figures["tuning"] = tuning_figure(tuning)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("setpoint.insight", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        run=run,
        verdict=verdict(run),
        rows=summary_rows(run),
        tables={
            f"{title}: {table}": record["metrics"][table]
            for name, title in ROWS.items()
            if (record := run.get(name)) is not None and name != "student_initial"
            for table in TABLES
            if table in record["metrics"]
        },
        softness_sentence=softness_sentence(softness),
        recipe_yaml=recipe_yaml,
        tuning=tuning,
        candidates=[] if tuning is None else tuning_rows(tuning),
        seconds=seconds,
        figures={name: figure.to_json() for name, figure in figures.items()},
        plotly=get_plotlyjs(),
    )
    write_atomic(path, page)


def _styled(figure: go.Figure, x: str, y: str) -> go.Figure:
    """One look for all figures; the page recolours text and grid for dark screens."""
    figure.update_layout(
        margin={"l": 56, "r": 16, "t": 16, "b": 48},
        height=320,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": 1.12, "x": 0},
        font={"family": "system-ui, sans-serif", "size": 13},
    )
    figure.update_xaxes(title=x, gridcolor="rgba(128,128,128,0.2)", zeroline=False)
    figure.update_yaxes(title=y, gridcolor="rgba(128,128,128,0.2)", zeroline=False)
    return figure


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
    figure.update_yaxes(autorange="reversed", automargin=True)
    return _styled(figure, f"test {metric}", "")


def softness_figure(softness: Mapping[str, Any]) -> go.Figure:
    """Effective classes of the teacher's targets over T, on a logarithmic axis."""
    figure = go.Figure(
        go.Scatter(
            x=softness["temperatures"], y=softness["effective_classes"], mode="lines", name="effective classes",
            line={"color": COLOURS["student"], "width": 3},
            customdata=softness["top_probability"],
            hovertemplate="T = %{x:.3g}: %{y:.3f} effective classes, top class %{customdata:.1%}<extra></extra>",
        )
    )  # fmt: skip
    if softness["used"] is not None:
        figure.add_vline(x=softness["used"], line={"dash": "dot", "color": COLOURS["student_hard"], "width": 2})
    _styled(figure, "temperature T", "effective classes of the targets")
    figure.update_xaxes(type="log", dtick=OCTAVE)
    figure.update_layout(showlegend=False)
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
                fillcolor="rgba(37,99,235,0.16)", hoverinfo="skip", showlegend=False,
            )
        )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=x, y=[point["mean"] for point in curve], mode="lines", name="expected score",
            line={"color": COLOURS["student"], "width": 3}, hovertemplate="%{x:.3g}: %{y:.4f}<extra></extra>",
        )
    )  # fmt: skip
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
            marker={"size": 9, "color": COLOURS["student_hard"], "opacity": 0.7},
            customdata=[seed for _, _, seed in dots],
            hovertemplate="%{x:.3g}, seed %{customdata}: %{y:.4f}<extra></extra>",
        )
    )  # fmt: skip
    _styled(figure, "temperature T" if knob == "temperature" else knob, "validation score")
    dimension = next(d for d in tuning["dimensions"] if d["name"] == knob)
    if dimension["log"]:
        figure.update_xaxes(type="log", dtick=OCTAVE)
    return figure


def softness_sentence(softness: Mapping[str, Any]) -> str:
    """What the temperature makes of the teacher's targets."""
    if softness["used"] is None:
        return f"The temperature is no one number; the targets have {softness['classes']} classes."
    at = min(range(len(softness["temperatures"])), key=lambda i: abs(softness["temperatures"][i] - softness["used"]))
    one = min(range(len(softness["temperatures"])), key=lambda i: abs(softness["temperatures"][i] - 1.0))
    classes, top = softness["effective_classes"], softness["top_probability"]
    return (
        f"At T = {softness['used']:g} the teacher's targets are as soft as {classes[at]:.2f} equally likely classes of "
        f"{softness['classes']}, with {top[at]:.0%} on the top class; "
        f"at T = 1 it is {classes[one]:.2f} and {top[one]:.0%}."
    )


def curve_figure(curves: Mapping[str, Mapping[int, Sequence[tuple[float, float]]]]) -> go.Figure:
    """Training loss over steps, a line a student."""
    figure = go.Figure()
    for kind, by_seed in curves.items():
        for number, (seed, points) in enumerate(by_seed.items()):
            figure.add_trace(
                go.Scatter(
                    x=[step for step, _ in points], y=[loss for _, loss in points], mode="lines", name=ROWS[kind],
                    legendgroup=kind, showlegend=number == 0, line={"color": COLOURS[kind], "width": 1.5}, opacity=0.8,
                    hovertemplate=f"{ROWS[kind]}, seed {seed}: %{{y:.3f}} at step %{{x}}<extra></extra>",
                )
            )  # fmt: skip
    return _styled(figure, "step", "training loss (nats)")
