"""What the page is made of: parts with sentences, plots and tables; those of an explanation, and those of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from setpoint.insight.explanation import Explanation
from setpoint.insight.history import Curves, History
from setpoint.insight.over_t_plots import explanation_plots
from setpoint.insight.plots import Plot
from setpoint.insight.run_plots import curve_figure, distribution_figure, history_plots, score_figure, tuning_figure
from setpoint.insight.slides import Slide
from setpoint.insight.summary import ROWS, Run, score_tables, summary_rows, tuning_rows
from setpoint.insight.tables import Table, tables_by_section
from setpoint.tasks.base import Sample

OPEN = ("Types of rows", "Examples")
"""Sections whose tables are what one reads, not what one looks up."""


@dataclass(frozen=True)
class Part:
    """A part of the page.

    Attributes:
        title: its heading.
        sentences: what it says, first of all.
        tables: shown, by title; one without a title stands right below the sentences.
        plots: below these.
        more: tables that are folded away.
        text: folded too, as it is.
        samples: what models have made, by model; shown last.
    """

    title: str
    sentences: Sequence[str] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    plots: Sequence[Plot] = ()
    more: Mapping[str, Table] = field(default_factory=dict)
    text: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: its heading.
        about: a line above it.
        verdict: what it says in short.
        found: what the slider begins with; None where nothing is tempered.
        classes: names of the classes, in the order of the logits.
        slides: the rows under the slider.
        note: what the slider and the parts after it were measured on.
        first: what comes before the slider.
        rest: what comes after it.
    """

    title: str
    about: str
    verdict: str
    found: Explanation | None
    classes: Sequence[str]
    slides: Sequence[Slide]
    note: Sequence[str] = ()
    first: Sequence[Part] = ()
    rest: Sequence[Part] = ()

    @property
    def plots(self) -> list[Plot]:
        """All plots, in order."""
        return [plot for part in (*self.first, *self.rest) for plot in part.plots]


@dataclass(frozen=True)
class Trained:
    """What a run has left of its trainings.

    Attributes:
        curves: training losses.
        history: what was logged of the distilled students.
        temperatures: what the trained policy gives the validation rows; empty where it is one number or not known.
    """

    curves: Curves
    history: History
    temperatures: Sequence[float] = ()


def explanation_parts(found: Explanation, plots: Mapping[str, Sequence[Plot]]) -> list[Part]:
    """A part for each section that there is something to say of, or to show; what the run was is said elsewhere.

    Args:
        found: the explanation.
        plots: of sections of its own, beside those of the explanation.
    """
    sentences = {section.title: section.sentences for section in found.sections}
    tables, drawn = tables_by_section(found), explanation_plots(found) | dict(plots)
    titles = [title for title in dict.fromkeys([*sentences, *tables]) if title != "The run"]
    return [
        Part(
            title,
            sentences.get(title, ()),
            tables=tables.get(title, {}) if title in OPEN else {},
            plots=drawn.get(title, ()),
            more={} if title in OPEN else tables.get(title, {}),
        )
        for title in titles
    ]


def result_parts(run: Run, tuning: Mapping[str, Any] | None) -> list[Part]:
    """What the run has shown on the test split, and how its temperature was found."""
    says = "Score of each model on the test split: a dot a seed, a bar the mean"
    scores = Plot("scores", says, score_figure(run), whole=True)
    parts = [Part("Before and after", tables={"": summary_rows(run)}, plots=[scores])]
    if tuning is not None:
        parts.append(_search(tuning))
    return parts


def _search(tuning: Mapping[str, Any]) -> Part:
    suggestion, verdict = tuning["suggestion"], tuning["verdict"]
    told = [verdict["sentence"], tuning.get("how") or ""]
    told.append(
        f"From the teacher's logits alone, before any training, one would start at T = {suggestion['temperature']:.3g}"
        f" and search {suggestion['low']:.3g} to {suggestion['high']:.3g}."
    )
    drawn = []
    if verdict["curve"]:
        share = verdict["measured_at"]["share"]
        when = "" if share == 1 else f", after {100 * share:.2g} % of the training"
        says = f"Expected validation score over what was searched, with its 95 % interval{when}"
        drawn = [Plot("tuning", says, tuning_figure(tuning), whole=True)]
    candidates = {"Candidates, on validation data": tuning_rows(tuning)}
    return Part("How the temperature was found", [one for one in told if one], plots=drawn, more=candidates)


def training_plots(trained: Trained) -> list[Plot]:
    """What happened while the students trained."""
    scales = "Training loss, a line a seed; the distilled student's has the divergence times T² in it"
    plots = [Plot("curves", scales, curve_figure(trained.curves)), *history_plots(trained.history)]
    if trained.temperatures:
        says = "The temperatures that the trained policy gives the validation rows"
        plots.append(Plot("temperatures", says, distribution_figure(trained.temperatures)))
    return plots


def detail_part(run: Run, recipe_yaml: str, seconds: Mapping[str, float]) -> Part:
    """What one looks up: scores class by class, the recipe, and how long it took."""
    more: dict[str, Table] = {}
    for name, title in ROWS.items():
        for table, scores in score_tables(run.get(name, {})).items():
            if name != "student_initial":
                more[f"{title}: {table}"] = [_score_row(of, row) for of, row in scores.items()]
    more["Time by stage"] = [{"stage": stage, "seconds": f"{s:.1f}"} for stage, s in seconds.items()]
    return Part("Details", more=more, text={"Recipe": recipe_yaml})


def _score_row(name: str, row: Mapping[str, float]) -> dict[str, str]:
    figures = {column: f"{value:,}" if isinstance(value, int) else f"{value:.4f}" for column, value in row.items()}
    return {"": name, **figures}
