"""Why this temperature, from logits alone: nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from setpoint.errors import TargetError, TemperatureError
from setpoint.insight.by_row import by_class, examples
from setpoint.insight.explaining import explained
from setpoint.insight.explanation import Explanation
from setpoint.insight.over_temperature import fidelity, fit, grid, over_temperature
from setpoint.maths.softness import HIGHEST, LOWEST
from setpoint.maths.solving import CALIBRATION_RANGE
from setpoint.tuning.checking import MASKED, check_logits
from setpoint.tuning.prior import suggest
from setpoint.types import IGNORED_LABEL


@torch.no_grad()
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
    suggestion = suggest(teacher_logits, labels)
    t = suggestion.temperature if temperature is None else temperature
    _check(teacher_logits, student_logits, t, alpha, class_names, row_names)
    if labels is not None:
        counts = labels != IGNORED_LABEL
        if row_names is not None:
            row_names = [row_names[row] for row in counts.nonzero().squeeze(-1).tolist()]
        teacher_logits, labels = teacher_logits[counts], labels[counts].long()
        student_logits = None if student_logits is None else student_logits[counts]
    teacher_logits = teacher_logits.masked_fill(teacher_logits < MASKED, -math.inf)
    if student_logits is not None:
        student_logits = student_logits.masked_fill(student_logits < MASKED, -math.inf)
        _check_masks(teacher_logits, student_logits)
    names = [str(k) for k in range(teacher_logits.shape[1])] if class_names is None else class_names
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
    most_changed, least_sure = examples(teacher_logits, labels, t, names, row_names)
    found = Explanation(
        temperature=t,
        alpha=alpha,
        rows=len(teacher_logits),
        classes=teacher_logits.shape[1],
        student="uniform" if student_logits is None else "given",
        sections=(),
        suggestion=suggestion,
        over_temperature=over_temperature(teacher_logits, student_logits, labels, grid(marked), alpha),
        fits=tuple(fits),
        fidelity=None if student_logits is None else fidelity(teacher_logits, student_logits),
        by_class=by_class(teacher_logits, labels, t, names),
        most_changed=most_changed,
        least_sure=least_sure,
    )
    return explained(found)


def _check(
    teacher_logits: Tensor,
    student_logits: Tensor | None,
    temperature: float,
    alpha: float,
    class_names: Sequence[str] | None,
    row_names: Sequence[str] | None,
) -> None:
    if not LOWEST <= temperature <= HIGHEST:
        raise TemperatureError(f"temperature is {temperature}", f"give a number from {LOWEST:g} to {HIGHEST:g}")
    if not 0 <= alpha <= 1:
        raise TargetError(f"alpha is {alpha}", "give a number in [0, 1]")
    for what, names, count in zip(
        ("class_names", "row_names"), (class_names, row_names), reversed(teacher_logits.shape), strict=True
    ):
        if names is not None and len(names) != count:
            raise TargetError(f"{what} are {len(names)} for logits {list(teacher_logits.shape)}", f"give {count} names")
    if student_logits is not None:
        check_logits(student_logits, "student_logits")
        if student_logits.shape != teacher_logits.shape:
            raise TargetError(
                f"student_logits has the shape {list(student_logits.shape)} where the teacher's has"
                f" {list(teacher_logits.shape)}",
                "give both the same rows and classes",
            )


def _check_masks(teacher_logits: Tensor, student_logits: Tensor) -> None:
    """Refuse a class that the student alone masks: the divergence would be infinite."""
    alone = ((student_logits == -math.inf) & (teacher_logits != -math.inf)).any(-1).nonzero()
    if len(alone):
        row = int(alone[0])
        raise TargetError(f"student_logits masks a class in row {row} that the teacher's do not", "mask it in both")
