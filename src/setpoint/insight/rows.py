"""The rows that an explanation is about: logits, labels and names, checked, without those that do not count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from setpoint.errors import TargetError
from setpoint.maths.tempering import MASKED
from setpoint.tuning.checking import check_labels, check_logits
from setpoint.types import IGNORED_LABEL


@dataclass(frozen=True)
class CountedRows:
    """What is measured.

    Attributes:
        teacher_logits: ``[N, C]``; masked classes are ``-inf``.
        labels: ``[N]``, a class in every row; None where there are none.
        student_logits: ``[N, C]``, likewise; None without a student.
        class_names: C of them.
        row_names: N of them.
    """

    teacher_logits: Tensor
    labels: Tensor | None
    student_logits: Tensor | None
    class_names: Sequence[str]
    row_names: Sequence[str]


def counted(
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    student_logits: Tensor | None = None,
    *,
    class_names: Sequence[str] | None = None,
    row_names: Sequence[str] | None = None,
) -> CountedRows:
    """Check logits, labels and names, and leave out the rows labelled ``-100``; arguments as of ``explain``.

    Raises:
        TargetError: logits or labels that are none, or do not fit each other, or names that do not fit them.

    Examples:
        >>> import torch
        >>> found = counted(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([-100, 1]))
        >>> found.teacher_logits, found.row_names
        (tensor([[0., 1.]]), ['1'])
    """
    check_logits(teacher_logits, "teacher_logits")
    if labels is not None:
        check_labels(labels, teacher_logits, "labels")
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
    rows, classes = teacher_logits.shape
    class_names = [str(k) for k in range(classes)] if class_names is None else class_names
    row_names = [str(row) for row in range(rows)] if row_names is None else row_names
    if labels is not None:
        counts = labels != IGNORED_LABEL
        row_names = [row_names[row] for row in counts.nonzero().squeeze(-1).tolist()]
        teacher_logits, labels = teacher_logits[counts], labels[counts].long()
        student_logits = None if student_logits is None else student_logits[counts]
    teacher_logits = teacher_logits.masked_fill(teacher_logits < MASKED, -math.inf)
    if student_logits is not None:
        student_logits = student_logits.masked_fill(student_logits < MASKED, -math.inf)
        _check_masks(teacher_logits, student_logits)
    return CountedRows(teacher_logits, labels, student_logits, class_names, row_names)


def _check_masks(teacher_logits: Tensor, student_logits: Tensor) -> None:
    """Refuse a class that the student alone masks: the divergence would be infinite."""
    alone = ((student_logits == -math.inf) & (teacher_logits != -math.inf)).any(-1).nonzero()
    if len(alone):
        row = int(alone[0])
        raise TargetError(f"student_logits masks a class in row {row} that the teacher's do not", "mask it in both")
