"""Why a temperature, from logits that lie in files."""

from __future__ import annotations

from pathlib import Path

from setpoint.insight.explain import explain
from setpoint.insight.explanation import Explanation
from setpoint.tuning.saved_logits import read_logits, saved_names


def explain_files(
    logits: Path, labels: Path | None, student: Path | None, temperature: float | None, alpha: float
) -> Explanation:
    """``explain`` for saved logits, of the formats that ``read_logits`` knows.

    Args:
        logits: the teacher's; may have labels beside them.
        labels: their labels, where these lie elsewhere.
        student: a student's logits on the same rows.
        temperature: the T to explain; the suggested one where None.
        alpha: the weight of the divergence.

    Raises:
        TargetError: a file that cannot be read, or that does not fit the others.
    """
    teacher_logits, known = read_logits(logits, labels)
    student_logits = None
    if student is not None:  # with the teacher's labels, which say what rows are padding
        student_logits, _ = read_logits(student, labels or (None if known is None else logits))
    return explain(teacher_logits, known, student_logits, temperature, alpha, class_names=saved_names(logits))
