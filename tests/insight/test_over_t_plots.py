"""The plots hold the figures they say, and mark the temperature where it is."""

import math
from dataclasses import replace

import pytest
import torch

from setpoint import explain
from setpoint.insight.explanation import AtBoth, Overfit
from setpoint.insight.over_t_plots import explanation_plots

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(5).repeat(12)
TEACHER = 2 * torch.randn(60, 5, generator=GENERATOR) + 3 * torch.eye(5)[LABELS]
NAMES = ("O", "<b>LOC</b>", "ORG", "PER", "MISC")
FOUND = explain(TEACHER, LABELS, TEACHER / 2, 3.0, class_names=NAMES)


def traces(plots, name):
    (plot,) = [plot for of in plots.values() for plot in of if plot.name == name]
    return {trace.name: trace for trace in plot.figure.data}, plot.figure


def test_lines_over_t_are_the_table():
    plots, table = explanation_plots(FOUND), FOUND.over_temperature
    for name, line, value in (
        ("effective-classes", "effective classes", lambda at: at.effective_classes),
        ("dark-mass", "off the top class", lambda at: at.dark_mass),
        ("gradient-shares", "on the label", lambda at: at.target_gradient),
        ("gradient-shares", "on others", lambda at: 1 - at.target_gradient),
        ("gradient-shares", "within the tail", lambda at: at.tail_gradient),
        ("gradient-shares", "of the hard loss", lambda at: at.hard_gradient),
        ("gradient-norms", "with T²", lambda at: at.gradient_norm),
        ("gradient-norms", "without T²", lambda at: at.gradient_norm_unscaled),
        ("gradient-limit", "distance", lambda at: at.limit_distance),
        ("nll", "teacher", lambda at: at.nll),
        ("ece", "teacher", lambda at: at.ece),
        ("kl", "KL", lambda at: at.kl),
    ):
        trace = traces(plots, name)[0][line]
        assert list(trace.x) == [at.temperature for at in table]
        assert list(trace.y) == [value(at) for at in table]


def test_the_explained_temperature_is_marked_where_it_is():
    _, figure = traces(explanation_plots(FOUND), "nll")
    assert [shape.x0 for shape in figure.layout.shapes] == [3.0, FOUND.suggestion.temperature]
    (label,) = figure.layout.annotations
    assert (label.text, label.x) == ("T = 3", math.log10(3.0))  # plotly places labels of a log axis by the logarithm
    assert figure.layout.xaxis.type == "log"


def test_the_student_stands_at_t_1_and_the_bins_where_they_are():
    plots = explanation_plots(FOUND)
    (student,) = [fit for fit in FOUND.fits if fit.model == "student"]
    marks, _ = traces(plots, "nll")
    assert (marks["student, T = 1"].x, marks["student, T = 1"].y) == ((1.0,), (student.nll,))
    bins, _ = traces(plots, "reliability")
    assert len(bins) == 1 + len(FOUND.fits)
    full = [part for part in student.bins if part.rows]
    assert bins["student, T = 1"].x == tuple(part.confidence for part in full)
    assert bins["student, T = 1"].y == tuple(part.accuracy for part in full)


def test_classes_are_sorted_by_softness_and_their_names_are_text():
    marks, _ = traces(explanation_plots(FOUND), "classes")
    views = sorted(FOUND.by_class, key=lambda view: view.effective_classes)
    assert marks["T = 3"].x == tuple(view.effective_classes for view in views)
    assert marks["T = 1"].x == tuple(view.effective_classes_at_one for view in views)
    assert "&lt;b&gt;LOC&lt;/b&gt;" in marks["T = 1"].y


def test_training_rows_and_others():
    assert explanation_plots(FOUND)["Training rows and others"] == []
    student = FOUND.fits[-1]
    over = Overfit(9, (AtBoth(1.0, 0.1, 0.2), AtBoth(3.0, 0.3, 0.4)), student, student)
    lines, _ = traces(explanation_plots(replace(FOUND, overfit=over)), "overfit")
    assert (lines["training rows"].y, lines["validation rows"].y) == ((0.1, 0.3), (0.2, 0.4))


@pytest.mark.parametrize(
    "found",
    [
        explain(TEACHER),
        explain(torch.zeros(3, 5), temperature=2.0),
        explain(TEACHER, LABELS, TEACHER, 2.0),
        explain(20 * torch.eye(4).repeat(30, 1), torch.arange(4).repeat(30), temperature=2.0),
        explain(torch.tensor([[3.0, 0.0]])),
    ],
    ids=["no labels", "alike", "a copy", "always right", "one row"],
)
def test_odd_explanations_have_plots_too(found):
    for plots in explanation_plots(found).values():
        for plot in plots:
            assert "NaN" not in plot.figure.to_json()
