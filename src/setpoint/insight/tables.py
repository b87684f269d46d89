"""An explanation as tables, for a terminal and for Markdown alike: rows of text by column."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from setpoint.insight.explaining import percent, words
from setpoint.insight.explanation import AtTemperature, Example, Explanation

MOST_CLASSES = 24
"""Of more classes the softest are shown."""
Table = list[dict[str, str]]


def tables_by_section(found: Explanation) -> dict[str, dict[str, Table]]:
    """All tables that have rows, by the section they belong to and by title."""
    moved = f"Rows that move most between T = 1 and T = {found.temperature:.3g}"
    whole = {
        "The targets": {"Targets over T": over_t(found, TARGETS)},
        "The gradient": {"Gradient over T": over_t(found, GRADIENT)},
        "Calibration": {"How they fit the labels": fit_rows(found), "Reliability at T = 1": reliability_rows(found)},
        "Class by class": {"Classes": class_rows(found)},
        "Types of rows": {"Rows by type": type_rows(found)},
        "Training rows and others": {"Training and validation rows": overfit_rows(found)},
        "Examples": {
            moved: example_rows(found.most_changed, True),
            "Rows where the teacher is least sure": example_rows(found.least_sure, False),
        },
    }
    kept = {section: {title: table for title, table in of.items() if table} for section, of in whole.items()}
    return {section: of for section, of in kept.items() if of}


def tables(found: Explanation) -> dict[str, Table]:
    """All tables that have rows, by title."""
    return {title: table for of in tables_by_section(found).values() for title, table in of.items()}


def _percent(share: float | None) -> str:
    return "" if share is None else percent(share)


TARGETS: dict[str, Callable[[AtTemperature], str]] = {
    "classes": lambda at: f"{at.effective_classes:,.2f}",
    "entropy": lambda at: f"{at.entropy:.3f}",
    "off top": lambda at: percent(at.dark_mass),
    "others": lambda at: "" if at.other_classes is None else f"{at.other_classes:,.1f}",
    "2nd has": lambda at: _percent(at.runner_up_share),
    "NLL": lambda at: "" if at.nll is None else f"{at.nll:.3f}",
    "ECE": lambda at: "" if at.ece is None else f"{at.ece:.3f}",
    "KL": lambda at: "" if at.kl is None else f"{at.kl:.2g}",
}
GRADIENT: dict[str, Callable[[AtTemperature], str]] = {
    "on label": lambda at: _percent(at.target_gradient),
    "on others": lambda at: "" if at.target_gradient is None else percent(1 - at.target_gradient),
    "in tail": lambda at: _percent(at.tail_gradient),
    "hard": lambda at: _percent(at.hard_gradient),
    "norm": lambda at: f"{at.gradient_norm:.3g}",
    "norm/T²": lambda at: f"{at.gradient_norm_unscaled:.2g}",
    "to limit": lambda at: _percent(at.limit_distance),
}


def over_t(found: Explanation, columns: dict[str, Callable[[AtTemperature], str]]) -> Table:
    """A row for each octave and each marked temperature; columns that are empty in all are left out."""
    calibration = found.suggestion.calibration
    marks = {
        "explained": found.temperature,
        "suggested": found.suggestion.temperature,
        "calibrated": None if calibration is None else calibration.temperature,
    }
    rows = [at for at in found.over_temperature if at.temperature in (*marks.values(), _octave(at.temperature))]
    return _without_empty(
        [
            {
                "T": f"{at.temperature:.3g}",
                **{name: cell(at) for name, cell in columns.items()},
                "": ", ".join(name for name, t in marks.items() if t == at.temperature),
            }
            for at in rows
        ]
    )


def _octave(temperature: float) -> float:
    """The nearest power of two."""
    return float(2.0 ** round(math.log2(temperature)))


def fit_rows(found: Explanation) -> Table:
    """A row for each model and temperature whose fit was measured."""
    return [
        {
            "model": fit.model, "T": f"{fit.temperature:.3g}", "accuracy": f"{fit.accuracy:.4f}",
            "confidence": f"{fit.confidence:.4f}", "NLL": f"{fit.nll:.4f}", "ECE": f"{fit.ece:.4f}",
        }
        for fit in found.fits
    ]  # fmt: skip


def reliability_rows(found: Explanation) -> Table:
    """The reliability diagram as figures: a row for each bin that has rows, and each model's accuracy in it."""
    plain = {fit.model: fit.bins for fit in found.fits if fit.temperature == 1}
    rows = []
    for parts in zip(*plain.values(), strict=True):
        if any(part.rows for part in parts):
            row = {"confidence": f"{parts[0].low:.2f} to {parts[0].high:.2f}"}
            for model, part in zip(plain, parts, strict=True):
                row |= {f"{model}: right": _percent(part.accuracy), f"{model}: rows": f"{part.rows:,}"}
            rows.append(row)
    return rows


def class_rows(found: Explanation) -> Table:
    """A row a class, in order of the classes; of many, the softest first."""
    views = list(found.by_class)
    if len(views) > MOST_CLASSES:
        views = sorted(views, key=lambda view: -view.effective_classes)[:MOST_CLASSES]
    t = found.temperature
    return [
        {
            "class": view.name, "rows": f"{view.rows:,}", "at T = 1": f"{view.effective_classes_at_one:,.2f}",
            f"at {t:.3g}": f"{view.effective_classes:,.2f}", "off top at 1": percent(view.dark_mass_at_one),
            f"off top at {t:.3g}": percent(view.dark_mass), "beside": f"{view.beside} ({percent(view.beside_share)})",
        }
        for view in views
    ]  # fmt: skip


def type_rows(found: Explanation) -> Table:
    """A row for each type of rows that the task tells apart; of many, those first on which the two agree least."""
    views = list(found.by_type)
    if len(views) > MOST_CLASSES:
        views = sorted(views, key=lambda view: view.agreement)[:MOST_CLASSES]
    return [
        {
            "type": view.name, "rows": f"{view.rows:,}", "effective classes": f"{view.effective_classes:,.2f}",
            "teacher right": percent(view.teacher), "student right": percent(view.student),
            "agree": percent(view.agreement),
        }
        for view in views
    ]  # fmt: skip


def overfit_rows(found: Explanation) -> Table:
    """KL(teacher‖student) over T on training rows and on validation rows, and how the student fits the labels."""
    if found.overfit is None:
        return []
    train, validation = found.overfit.train, found.overfit.validation
    rows = [(f"KL at T = {at.temperature:.3g}", f"{at.train:.3g}", f"{at.validation:.3g}") for at in found.overfit.at]
    rows.append(("NLL at T = 1", f"{train.nll:.4f}", f"{validation.nll:.4f}"))
    rows.append(("accuracy", f"{train.accuracy:.4f}", f"{validation.accuracy:.4f}"))
    return [dict(zip(("", "training", "validation"), row, strict=True)) for row in rows]


def example_rows(examples: Sequence[Example], at_temperature: bool) -> Table:
    """A row an example: what it is, and what the teacher says of it."""
    rows = [
        {
            "row": example.name,
            "label": example.label or "",
            "at T = 1": words(example.at_one, 5),
            **({"at T": words(example.at_temperature, 5), "moved": percent(example.moved)} if at_temperature else {}),
        }
        for example in examples
    ]
    return _without_empty(rows)


def _without_empty(rows: Table) -> Table:
    return [{name: cell for name, cell in row.items() if any(one[name] for one in rows)} for row in rows]
