"""Why a temperature, from logits that lie in files."""

from __future__ import annotations

from pathlib import Path

from setpoint.errors import RunError
from setpoint.insight.explain import explain_rows
from setpoint.insight.explanation import Explanation
from setpoint.insight.page import Page, explanation_parts
from setpoint.insight.report import write_report
from setpoint.insight.rows import counted
from setpoint.insight.slides import slides
from setpoint.tuning.saved_logits import read_logits, saved_names


def explain_files(
    logits: Path,
    labels: Path | None,
    student: Path | None,
    temperature: float | None,
    alpha: float,
    out: Path | None = None,
) -> Explanation:
    """``explain`` for saved logits, of the formats that ``read_logits`` knows; and its page, where one is wanted.

    Args:
        logits: the teacher's; may have labels beside them.
        labels: their labels, where these lie elsewhere.
        student: a student's logits on the same rows.
        temperature: the T to explain; the suggested one where None.
        alpha: the weight of the divergence.
        out: where to write the page.

    Raises:
        TargetError: a file that cannot be read, or that does not fit the others.
        RunError: the page cannot be written there.
    """
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        problem = "is a folder" if out.is_dir() else "lies in no folder that exists"
        raise RunError(f"'{out}' {problem}", "name a file in a folder that is there")
    teacher_logits, known = read_logits(logits, labels)
    student_logits = None
    if student is not None:  # with the teacher's labels, which say what rows are padding
        student_logits, _ = read_logits(student, labels or (None if known is None else logits))
    rows = counted(teacher_logits, known, student_logits, class_names=saved_names(logits))
    found = explain_rows(rows, temperature, alpha)
    if out is not None:
        page = Page(
            title=f"{logits.name}: why T = {found.temperature:.3g}",
            about=f"Setpoint · {found.rows:,} rows of {found.classes:,} classes",
            verdict=" ".join(section.sentences[0] for section in found.sections[:2]),
            found=found,
            classes=rows.class_names,
            slides=slides(rows, found),
            rest=explanation_parts(found, {}),
        )
        write_report(out, page)
    return found
