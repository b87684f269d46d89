"""report.html: one page that opens anywhere, offline."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from setpoint.files import write_atomic
from setpoint.insight.explanation import Explanation
from setpoint.insight.page import Page
from setpoint.insight.plots import Plot


def write_report(path: str | Path, page: Page) -> None:
    """Write the page, atomically.

    Args:
        path: where to.
        page: what is on it.
    """
    write_atomic(path, to_html(page))


def to_html(page: Page) -> str:
    """The page as HTML: its scripts and styles are in it, and it loads nothing.

    Names of classes and rows are anybody's text: the template escapes them, data stand in blocks that no script can be
    smuggled into, and the browser is told to run no script but these two.
    """
    if page.found is None:
        return rendered("report.html.j2", page.plots, page=page)
    slides = script_json(json.dumps(_slides(page, page.found), allow_nan=False))
    return rendered("report.html.j2", page.plots, page=page, slider=slider(page.found), slides_json=slides)


def rendered(template: str, plots: Sequence[Plot], **values: Any) -> str:
    """A template of this folder with its plots and the scripts that draw them, as ``to_html`` says."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("setpoint.insight", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"slug": slug, "unbroken": unbroken}
    own = resources.files("setpoint.insight").joinpath("report.js")
    scripts = [get_plotlyjs(), own.read_text(encoding="utf-8")] if plots else []
    return environment.get_template(template).render(
        scripts=[Markup(script) for script in scripts],
        hashes=[script_hash(script) for script in scripts],
        figures={plot.name: script_json(plot.figure.to_json()) for plot in plots},
        plots=plots,
        **values,
    )


def slider(found: Explanation) -> dict[str, Any]:
    """Where the slider goes from and to, as log₂ T, and the temperatures that have a button."""
    low, high = _ends(found)
    calibration = found.suggestion.calibration
    marks = {
        "explained": found.temperature,
        "suggested": found.suggestion.temperature,
        "calibrated": 0.0 if calibration is None else calibration.temperature,
    }
    buttons = {"T = 1": 1.0} | {f"{name}, {t:.3g}": t for name, t in marks.items() if low <= t <= high}
    return {"low": math.log2(low), "high": math.log2(high), "buttons": buttons}


def _slides(page: Page, found: Explanation) -> dict[str, Any]:
    low, high = _ends(found)
    rows = [slide.logits() | {"shown": slide.shown} for slide in page.slides]
    return {"temperature": found.temperature, "low": low, "high": high, "rows": rows}


def _ends(found: Explanation) -> tuple[float, float]:
    table = found.over_temperature
    return table[0].temperature, table[-1].temperature


def script_json(text: str) -> Markup:
    r"""JSON as it may stand in a script element: without a ``<`` that could end it, or a separator of lines.

    Examples:
        >>> script_json('["</script>", "<!--"]')
        Markup('["\\u003c/script>", "\\u003c!--"]')
    """
    for sign in "<\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def script_hash(script: str) -> str:
    """What a content security policy calls a script.

    Examples:
        >>> script_hash("")
        'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='
    """
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def unbroken(text: str) -> str:
    r"""Text in which no line ends within an equation such as T = 4.

    Examples:
        >>> unbroken("At T = 4 it is")
        'At T\xa0=\xa04 it is'
    """
    return text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


def slug(title: str) -> str:
    """A heading as the name of its place.

    Examples:
        >>> slug("Before and after")
        'before-and-after'
    """
    return "".join(character if character.isalnum() else "-" for character in title.lower())
