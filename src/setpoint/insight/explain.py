"""Why this temperature, from logits alone: nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from setpoint.errors import TargetError, TemperatureError
from setpoint.insight.by_row import by_class, examples
from setpoint.insight.explaining import explained
from setpoint.insight.explanation import Explanation
from setpoint.insight.over_temperature import fidelity, fit, grid, over_temperature
from setpoint.insight.rows import CountedRows, counted
from setpoint.maths.softness import HIGHEST, LOWEST
from setpoint.maths.solving import CALIBRATION_RANGE
from setpoint.maths.tempering import unmasked_classes
from setpoint.tuning.prior import suggest


def explain(
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    student_logits: Tensor | None = None,
    temperature: float | None = None,
    alpha: float = 0.9,
    *,
    class_names: Sequence[str] | None = None,
    row_names: Sequence[str] | None = None,
) -> Explanation:
    """Say what a temperature makes of a teacher's targets and of the gradient, over T, by class and by example.

    The gradient is that of the forward KL at one T for both sides, scaled by T². With a student it is that student's;
    without one that of an untrained student, which gives each class 1/C.

    Args:
        teacher_logits: ``[N, C]``, of any dtype; masked classes are ``-inf`` or below -1e7.
        labels: ``[N]``, of held-out rows; those labelled ``-100`` do not count at all.
        student_logits: ``[N, C]``, of the same rows.
        temperature: the T to explain; where None, the one that ``suggest`` proposes.
        alpha: α, the weight of the divergence, in [0, 1].
        class_names: in the order of the logits; their numbers where None.
        row_names: what to call the rows; their numbers where None.

    Returns:
        The explanation; ``dataclasses.asdict`` makes JSON of it.

    Raises:
        TargetError: logits or labels that are none or do not fit each other, or α outside [0, 1].
        TemperatureError: a temperature outside 0.001 and 10 000.

    Examples:
        >>> logits = torch.tensor([[6.0, 3.0, 0.0], [0.0, 5.0, 4.0]])
        >>> found = explain(logits, torch.tensor([0, 1]), temperature=4.0, class_names=("LOC", "ORG", "PER"))
        >>> print(found.sections[0].sentences[0])
        At T = 4 the targets spread over 2.62 of 3 classes; 46% of the mass is off the top class, most of it on one
        other class.
        >>> found.least_sure[0].at_one[1]
        Said(name='PER', probability=0.267...)
    """
    rows = counted(teacher_logits, labels, student_logits, class_names=class_names, row_names=row_names)
    return explain_rows(rows, temperature, alpha)


@torch.no_grad()
def explain_rows(rows: CountedRows, temperature: float | None = None, alpha: float = 0.9) -> Explanation:
    """``explain`` for rows that were checked already."""
    teacher_logits, labels, student_logits = rows.teacher_logits, rows.labels, rows.student_logits
    suggestion = suggest(teacher_logits, labels)
    t = suggestion.temperature if temperature is None else temperature
    if not LOWEST <= t <= HIGHEST:
        raise TemperatureError(f"temperature is {t}", f"give a number from {LOWEST:g} to {HIGHEST:g}")
    if not 0 <= alpha <= 1:
        raise TargetError(f"alpha is {alpha}", "give a number in [0, 1]")
    calibrated = None if suggestion.calibration is None else suggestion.calibration.temperature
    marked = {1.0, t, suggestion.temperature}
    fits = []
    if labels is not None:
        fits.append(fit("teacher", teacher_logits, labels, 1.0))
        if calibrated not in (None, *CALIBRATION_RANGE):
            marked.add(calibrated)
            fits.append(fit("teacher", teacher_logits, labels, calibrated))
        if student_logits is not None:
            fits.append(fit("student", student_logits, labels, 1.0))
    most_changed, least_sure = examples(teacher_logits, labels, t, rows.class_names, rows.row_names)
    found = Explanation(
        temperature=t,
        alpha=alpha,
        rows=len(teacher_logits),
        classes=teacher_logits.shape[1],
        unmasked_classes=float(unmasked_classes(teacher_logits).mean()),
        student="uniform" if student_logits is None else "given",
        sections=(),
        suggestion=suggestion,
        over_temperature=over_temperature(teacher_logits, student_logits, labels, grid(marked), alpha),
        fits=tuple(fits),
        fidelity=None if student_logits is None else fidelity(teacher_logits, student_logits),
        by_class=by_class(teacher_logits, labels, t, rows.class_names),
        most_changed=most_changed,
        least_sure=least_sure,
    )
    return explained(found)
