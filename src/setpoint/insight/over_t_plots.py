"""The plots of an explanation: over T, of calibration, and class by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from setpoint.insight.explanation import AtTemperature, Explanation
from setpoint.insight.plots import BLUE, GREEN, GREY, HEIGHT, ORANGE, Plot, line, over_t_axis, plain, styled
from setpoint.insight.tables import MOST_CLASSES

T_AXIS = "temperature T"
PERCENT = ".0%"
CLASS_HEIGHT = 22
"""Pixels of a class in the plot of classes."""
Value = Callable[[AtTemperature], float | None]


def explanation_plots(found: Explanation) -> dict[str, list[Plot]]:
    """The plots, by the title of the section they belong to."""
    return {
        "The targets": target_plots(found),
        "The gradient": gradient_plots(found),
        "Calibration": calibration_plots(found),
        "Student and teacher": fidelity_plots(found),
        "Class by class": class_plots(found),
        "Training rows and others": overfit_plots(found),
    }


def target_plots(found: Explanation) -> list[Plot]:
    """How soft the targets are over T."""
    mass = _over_t(
        found,
        "share of the mass",
        [
            ("off the top class", lambda at: at.dark_mass, BLUE, "solid"),
            ("of that, on the 2nd class", lambda at: at.runner_up_share, ORANGE, "dash"),
        ],
    )
    mass.update_yaxes(tickformat=PERCENT, rangemode="tozero")
    classes = _over_t(found, "effective classes", [("effective classes", lambda at: at.effective_classes, BLUE, "")])
    classes.update_layout(showlegend=False)
    return [
        Plot("effective-classes", "Effective classes of the targets over T", classes),
        Plot("dark-mass", "Mass of the targets off the top class over T, and how it is shared", mass),
    ]


def gradient_plots(found: Explanation) -> list[Plot]:
    """Where the gradient goes and how large it is over T."""
    target = "the label" if found.fits else "the top class"
    shares = _over_t(
        found,
        "share of the gradient",
        [
            (f"on {target}", lambda at: at.target_gradient, BLUE, "solid"),
            ("on others", lambda at: None if at.target_gradient is None else 1 - at.target_gradient, GREEN, "dash"),
            ("within the tail", lambda at: at.tail_gradient, ORANGE, "solid"),
            ("of the hard loss", lambda at: at.hard_gradient, GREY, "dashdot"),
        ],
    )
    shares.update_yaxes(tickformat=PERCENT, range=[-0.02, 1.02])
    norms = _over_t(
        found,
        "norm of the gradient",
        [
            ("with T²", lambda at: at.gradient_norm or None, BLUE, "solid"),
            ("without T²", lambda at: at.gradient_norm_unscaled or None, ORANGE, "dash"),
        ],
    )
    norms.update_yaxes(type="log", exponentformat="power", dtick=1)
    limit = _over_t(found, "distance from the limit", [("distance", lambda at: at.limit_distance, BLUE, "solid")])
    limit.update_yaxes(tickformat=PERCENT, rangemode="tozero")
    limit.update_layout(showlegend=False)
    return [
        Plot("gradient-shares", "Shares of the soft gradient over T, and the hard loss's share of the whole", shares),
        Plot("gradient-norms", "Norm of the gradient over T, with and without the scale T²", norms),
        Plot("gradient-limit", "How far the gradient is from that of matching logits, its limit at high T", limit),
    ]


def calibration_plots(found: Explanation) -> list[Plot]:
    """Loss and calibration error of the teacher over T, the student's at T = 1, and the reliability diagram."""
    plots = []
    for name, said, value in (
        ("nll", "loss on the labels (nats)", lambda at: at.nll),
        ("ece", "calibration error", lambda at: at.ece),
    ):
        figure = _over_t(found, said, [("teacher", value, GREY, "solid")])
        student = [fit for fit in found.fits if fit.model == "student"]
        for fit in student:
            marker = {"symbol": "diamond", "size": 10, "color": BLUE}
            place = {"x": [fit.temperature], "y": [getattr(fit, name)]}
            figure.add_trace(go.Scatter(**place, mode="markers", name="student, T = 1", marker=marker))
        whose = "Teacher's loss" if name == "nll" else "Teacher's expected calibration error"
        plots.append(Plot(name, f"{whose} over T{'; the student at T = 1' if student else ''}", figure))
    return [
        *plots,
        Plot(
            "reliability",
            "Reliability: how often a confidence is right; a mark a bin, the larger the more rows it has",
            reliability_figure(found),
        ),
    ]


def reliability_figure(found: Explanation) -> go.Figure:
    """Accuracy over confidence, a point a bin, as large as it has rows."""
    figure = go.Figure(line([0, 1], [0, 1], "as sure as right", GREY, "dot", hoverinfo="skip"))
    looks = [(GREY, "circle"), (GREEN, "square"), (BLUE, "diamond")]
    kinds = {"teacher": looks[:2], "student": looks[2:]}
    for fit in found.fits:
        colour, symbol = kinds[fit.model].pop(0) if len(kinds[fit.model]) > 1 else kinds[fit.model][0]
        bins = [part for part in fit.bins if part.rows]
        whole = sum(part.rows for part in bins)
        figure.add_trace(
            go.Scatter(
                x=[part.confidence for part in bins], y=[part.accuracy for part in bins], mode="markers",
                name=f"{fit.model}, T = {fit.temperature:.3g}",
                marker={
                    "symbol": symbol, "color": colour, "opacity": 0.8,
                    "size": [6 + 14 * (part.rows / whole) ** 0.5 for part in bins],
                },
                customdata=[part.rows for part in bins],
                hovertemplate="confidence %{x:.3f}: right in %{y:.1%} of %{customdata:,} rows",
            )
        )  # fmt: skip
    styled(figure, "confidence", "right")
    figure.update_xaxes(range=[-0.03, 1.05])
    figure.update_yaxes(range=[-0.05, 1.07], tickformat=PERCENT)
    return figure


def fidelity_plots(found: Explanation) -> list[Plot]:
    """KL(teacher‖student) over T."""
    figure = _over_t(found, "KL (nats)", [("KL", lambda at: at.kl, BLUE, "solid")])
    figure.update_layout(showlegend=False)
    figure.update_yaxes(rangemode="tozero")
    return [Plot("kl", "KL from teacher to student over T, both at that T", figure)]


def class_plots(found: Explanation) -> list[Plot]:
    """Effective classes of each class at T = 1 and at T; of many, the softest."""
    views = sorted(found.by_class, key=lambda view: view.effective_classes)[-MOST_CLASSES:]
    names = [plain(view.name) for view in views]
    figure = go.Figure()
    for view, name in zip(views, names, strict=True):
        ends = [view.effective_classes_at_one, view.effective_classes]
        figure.add_trace(
            line(ends, [name, name], "", GREY, showlegend=False, hoverinfo="skip", line={"width": 1, "color": GREY})
        )
    marks = [
        ("T = 1", GREY, "circle-open", [view.effective_classes_at_one for view in views]),
        (f"T = {found.temperature:.3g}", BLUE, "circle", [view.effective_classes for view in views]),
    ]
    for said, colour, symbol, value in marks[found.temperature == 1 :]:
        marker = {"color": colour, "symbol": symbol, "size": 10}
        rows = [view.rows for view in views]
        hover = "%{y}, %{customdata:,} rows: %{x:.2f}"
        figure.add_trace(
            go.Scatter(x=value, y=names, mode="markers", name=said, marker=marker, customdata=rows, hovertemplate=hover)
        )
    styled(figure, "effective classes of the targets", "", height=max(HEIGHT, 90 + CLASS_HEIGHT * len(views)))
    figure.update_yaxes(type="category", automargin=True)
    return [Plot("classes", "How soft the targets of each class are", figure, whole=True)]


def overfit_plots(found: Explanation) -> list[Plot]:
    """KL(teacher‖student) over T on training rows beside validation rows."""
    if found.overfit is None:
        return []
    at = found.overfit.at
    figure = go.Figure(
        [
            line([one.temperature for one in at], [one.train for one in at], "training rows", ORANGE, "dash"),
            line([one.temperature for one in at], [one.validation for one in at], "validation rows", BLUE),
        ]
    )
    figure.update_yaxes(rangemode="tozero")
    over_t_axis(styled(figure, T_AXIS, "KL (nats)"), {"explained": found.temperature})
    return [Plot("overfit", "KL from teacher to student over T, on rows it was trained on and on others", figure)]


def _over_t(found: Explanation, y: str, lines: Sequence[tuple[str, Value, str, str]]) -> go.Figure:
    """Lines over the temperatures; one that has no value anywhere is left out."""
    x = [at.temperature for at in found.over_temperature]
    traces = []
    for name, value, colour, dash in lines:
        values = [value(at) for at in found.over_temperature]
        if any(v is not None for v in values):
            traces.append(line(x, values, name, colour, dash or "solid", hovertemplate="T = %{x:.3g}: %{y:.3g}"))
    figure = styled(go.Figure(traces), T_AXIS, y)
    return over_t_axis(figure, {"explained": found.temperature, "suggested": found.suggestion.temperature})
