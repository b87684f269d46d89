"""Rows to move the temperature over: their logits, and what one would look at in each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from setpoint.insight.explanation import Explanation
from setpoint.insight.rows import CountedRows

EACH = 4
"""Rows of each kind: those that move most, those the teacher is least sure of, and ordinary ones."""
ALL_SHOWN = 24
"""As many classes are shown one by one; of more, the first ``TOP`` of the teacher and what matters beside them."""
TOP = 10
MOST_LOGITS = 120_000
"""Logits that the page holds at most, about 2.5 MB of text: of a large vocabulary fewer rows."""


@dataclass(frozen=True)
class Slide:
    """One row, whose targets and gradient the page computes at any temperature.

    Attributes:
        name: what the row is called.
        kind: why it is shown.
        label: the number of its class; None without labels.
        teacher: the teacher's logits of all classes, so that what the classes that are not shown have in sum is exact.
        student: the student's; None for an untrained one, which gives each class 1/C.
        shown: the numbers of the classes that are shown one by one.
    """

    name: str
    kind: str
    label: int | None
    teacher: tuple[float, ...]
    student: tuple[float, ...] | None
    shown: tuple[int, ...]

    @property
    def others(self) -> int:
        """How many classes are not shown one by one."""
        return len(self.teacher) - len(self.shown)

    def logits(self) -> dict[str, Any]:
        """What the page computes with, as JSON has it: a masked class is null."""
        models = {"teacher": self.teacher, "student": self.student}
        return {
            name: None if values is None else [None if value == -math.inf else value for value in values]
            for name, values in models.items()
        }


def slides(rows: CountedRows, found: Explanation) -> tuple[Slide, ...]:
    """The rows that move most, those the teacher is least sure of, and some from all over; each once.

    Args:
        rows: what was explained.
        found: its explanation.

    Examples:
        >>> import torch
        >>> from setpoint.insight.explain import explain_rows
        >>> from setpoint.insight.rows import counted
        >>> rows = counted(torch.tensor([[6.0, 3.0, 0.0], [0.0, 5.0, 4.0]]))
        >>> [(slide.name, slide.kind) for slide in slides(rows, explain_rows(rows, 4.0))]
        [('0', 'moves most'), ('1', 'moves most')]
    """
    count, classes = rows.teacher_logits.shape
    step = max(1, count // (3 * EACH + 1))
    kinds = {
        "moves most": [example.row for example in found.most_changed[:EACH]],
        "least sure": [example.row for example in found.least_sure],
        "ordinary": range(step, count, step),
    }
    held = classes if rows.student_logits is None else 2 * classes
    most = max(1, min(3 * EACH, MOST_LOGITS // held))
    chosen: dict[int, str] = {}
    for number, (kind, candidates) in enumerate(kinds.items(), start=1):
        new = [row for row in candidates if row not in chosen]
        chosen |= dict.fromkeys(new[: -(-most * number // len(kinds)) - len(chosen)], kind)
    return tuple(_slide(rows, row, kind) for row, kind in chosen.items())


def _slide(rows: CountedRows, row: int, kind: str) -> Slide:
    v = rows.teacher_logits[row]
    z = None if rows.student_logits is None else rows.student_logits[row]
    label = None if rows.labels is None else int(rows.labels[row])
    return Slide(
        name=rows.row_names[row],
        kind=kind,
        label=label,
        teacher=tuple(v.tolist()),
        student=None if z is None else tuple(z.tolist()),
        shown=_shown(v, z, label),
    )


def _shown(v: Tensor, z: Tensor | None, label: int | None) -> tuple[int, ...]:
    """All classes in their order; of many, the teacher's first, the student's own first, and the label."""
    if len(v) <= ALL_SHOWN:
        return tuple(range(len(v)))
    first: Sequence[int] = v.topk(TOP).indices.tolist()
    beside = ([] if z is None else [int(z.argmax())]) + ([] if label is None else [label])
    return tuple(dict.fromkeys([*first, *beside]))
