"""What all plots of the page have in common: one look, and names that are text to the browser, whatever they are."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

BLUE, ORANGE, GREY, GREEN, SAND = "#3b7ddd", "#d9730d", "#7c8594", "#2e9e6b", "#b8a58a"
GRID = "rgba(128,128,128,0.22)"
OCTAVE = 0.30103
"""Ticks of a logarithmic axis at 1, 2, 4 …: a tenfold range has too few of plotly's own, or ones without their zero."""
HEIGHT = 300


@dataclass(frozen=True)
class Plot:
    """A plot of the page.

    Attributes:
        name: names its element.
        says: what it shows, as its caption and for those who do not see it.
        figure: the plot.
        whole: whether it takes the page's whole width; else two stand side by side where there is room.
    """

    name: str
    says: str
    figure: go.Figure
    whole: bool = False


def plain(name: str) -> str:
    """A name as plotly shows it unchanged: it takes some HTML in text for what it means.

    Examples:
        >>> plain("<b>LOC</b>")
        '&lt;b&gt;LOC&lt;/b&gt;'
    """
    return html.escape(name, quote=False)


def styled(figure: go.Figure, x: str, y: str, height: int = HEIGHT) -> go.Figure:
    """One look for all; the page recolours text for dark screens."""
    axis = {"gridcolor": GRID, "zeroline": False, "automargin": True}
    axis |= {"ticks": "outside", "ticklen": 4, "tickcolor": "rgba(0,0,0,0)"}  # room between the labels of both axes
    titles = {name: {"title": {"text": title, "standoff": 8}} for name, title in (("xaxis", x), ("yaxis", y))}
    figure.update_layout(
        margin={"l": 56, "r": 14, "t": 36, "b": 46},
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        font={"family": "system-ui, sans-serif", "size": 13},
        **{name: axis | title for name, title in titles.items()},
    )
    return figure


def line(x: list[Any], y: list[Any], name: str, colour: str, dash: str = "solid", **more: Any) -> go.Scatter:
    """A line; a dash of its own tells it from others where colours do not."""
    style = {"color": colour, "dash": dash, "width": 2.5}
    return go.Scatter(**{"x": x, "y": y, "mode": "lines", "name": name, "line": style} | more)


def over_t_axis(figure: go.Figure, marks: dict[str, float]) -> go.Figure:
    """Temperatures on a logarithmic axis, with a dotted line at each marked one."""
    lines, labels = [], []
    for name, t in marks.items():
        explained = name == "explained"
        look = {"dash": "dot", "width": 2 if explained else 1, "color": ORANGE if explained else GREY}
        lines.append({"type": "line", "x0": t, "x1": t, "y0": 0, "y1": 1, "yref": "paper", "line": look})
        if explained:  # a label, unlike a line, is placed by the logarithm
            place = {"x": math.log10(t), "y": 1, "yref": "paper", "xanchor": "left", "yanchor": "top"}
            labels.append({"text": f"T = {t:.3g}", "showarrow": False, "font": {"size": 11}} | place)
    figure.update_layout(xaxis={"type": "log", "dtick": OCTAVE}, shapes=lines, annotations=labels)
    return figure
