"""Which classes and which rows the temperature changes, and how: the targets one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from setpoint.insight.explanation import Example, OfClass, OfType, Said
from setpoint.insight.over_temperature import blocks
from setpoint.insight.rows import CountedRows
from setpoint.maths.divergences import total_variation
from setpoint.maths.sharing import dark_mass
from setpoint.maths.tempering import effective_classes, log_temper, temper

SHOWN = 5
"""Examples of each kind, and classes of each: what is read at a glance."""


@torch.no_grad()
def by_class(
    teacher_logits: Tensor, labels: Tensor | None, temperature: float, names: Sequence[str]
) -> tuple[OfClass, ...]:
    """A view of each class that has rows, in the order of the classes.

    Args:
        teacher_logits: ``[N, C]``; masked classes are ``-inf``.
        labels: ``[N]``, a class in every row; the teacher's top class where None.
        temperature: the one that is explained.
        names: of the classes.

    Examples:
        >>> v = torch.tensor([[4.0, 1.0, 0.0], [3.0, 2.0, 0.0]])
        >>> (view,) = by_class(v, None, 4.0, ("LOC", "ORG", "PER"))
        >>> view.name, view.rows, view.beside, round(view.effective_classes, 3)
        ('LOC', 2, 'ORG', 2.799)
    """
    classes = teacher_logits.shape[-1]
    of = teacher_logits.argmax(-1) if labels is None else labels
    values = torch.cat([_softness(teacher_logits[rows], temperature) for rows in blocks(teacher_logits)])
    beside = torch.cat([_beside(teacher_logits[rows], of[rows]) for rows in blocks(teacher_logits)])
    counts = torch.bincount(of, minlength=classes)
    means = torch.zeros(classes, 4, dtype=torch.float64, device=of.device).index_add(0, of, values) / counts[:, None]
    pairs, often = torch.unique(of * classes + beside, return_counts=True)
    usual: dict[int, tuple[int, int]] = {}
    for pair, rows_of_it in zip(pairs.tolist(), often.tolist(), strict=True):
        own, other = divmod(pair, classes)
        if rows_of_it > usual.get(own, (0, 0))[1]:
            usual[own] = (other, rows_of_it)
    found = []
    for own, (other, rows_of_it) in sorted(usual.items()):
        rows, (soft_at_one, soft, mass_at_one, mass) = int(counts[own]), means[own].tolist()
        share = rows_of_it / rows
        found.append(OfClass(names[own], rows, soft_at_one, soft, mass_at_one, mass, names[other], share))
    return tuple(found)


def _softness(logits: Tensor, temperature: float) -> Tensor:
    """Effective classes at 1 and at T, mass off the top class at 1 and at T: ``[N, 4]``, in float64."""
    classes = [effective_classes(logits, t) for t in (1.0, temperature)]
    masses = [dark_mass(logits, t)[0] for t in (1.0, temperature)]
    return torch.stack([*classes, *masses], dim=-1).double()


def _beside(logits: Tensor, of: Tensor) -> Tensor:
    """The most likely class of each row that is not its own, ``[N]``."""
    top = logits.topk(2, dim=-1).indices
    return torch.where(top[:, 0] == of, top[:, 1], top[:, 0])


@torch.no_grad()
def by_type(rows: CountedRows, temperature: float, types: Mapping[str, Sequence[bool]]) -> tuple[OfType, ...]:
    """A view of each type that has rows; none where rows have no label, or the student no row in their place.

    Args:
        rows: a teacher's and a student's, with their labels.
        temperature: the one that is explained.
        types: by name, for each row whether it is of that type.

    Examples:
        >>> v = torch.tensor([[4.0, 1.0, 0.0], [3.0, 2.0, 0.0]])
        >>> rows = CountedRows(v, torch.tensor([0, 1]), v, ("LOC", "ORG", "PER"), ("a", "b"))
        >>> [(view.name, view.rows, view.teacher) for view in by_type(rows, 4.0, {"number": [False, True]})]
        [('number', 1, 0.0)]
    """
    if rows.labels is None or rows.student_logits is None:
        return ()
    v, z = rows.teacher_logits, rows.student_logits
    soft = torch.cat([effective_classes(v[part], temperature) for part in blocks(v)]).double()
    teacher, student = v.argmax(-1), z.argmax(-1)
    figures = torch.stack([soft, teacher == rows.labels, student == rows.labels, teacher == student], dim=-1)
    found = []
    for name, flags in types.items():
        of = figures[torch.tensor(flags, dtype=torch.bool, device=v.device)]
        if len(of):
            found.append(OfType(name, len(of), *of.mean(0).tolist()))
    return tuple(found)


@torch.no_grad()
def examples(
    teacher_logits: Tensor,
    labels: Tensor | None,
    temperature: float,
    class_names: Sequence[str],
    row_names: Sequence[str] | None,
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The rows whose target the temperature moves most, and those where the teacher's top class has least at T = 1.

    Args:
        teacher_logits: ``[N, C]``; masked classes are ``-inf``.
        labels: ``[N]``, a class in every row; None where there are none.
        temperature: the one that is explained; at T = 1 nothing moves, and there are no such rows.
        class_names: of the classes.
        row_names: of the rows; their numbers where None.
    """
    measured = [_movement(teacher_logits[rows], temperature) for rows in blocks(teacher_logits)]
    moved, confidence = torch.cat(measured, dim=-1)

    def of(row: int) -> Example:
        said = [
            tuple(
                Said(class_names[int(k)], float(p))
                for p, k in zip(*temper(teacher_logits[row], t).topk(min(SHOWN, len(class_names))), strict=True)
                if p > 0
            )
            for t in (1.0, temperature)
        ]
        label = None if labels is None else class_names[int(labels[row])]
        return Example(row, str(row) if row_names is None else row_names[row], label, float(moved[row]), *said)

    most = [row for row in moved.argsort(descending=True, stable=True)[:SHOWN].tolist() if moved[row] > 0]
    least = confidence.argsort(stable=True)[:SHOWN].tolist()
    return tuple(of(row) for row in most), tuple(of(row) for row in least)


def _movement(logits: Tensor, temperature: float) -> Tensor:
    """How far each row's target moves from T = 1, and its top probability there: ``[2, N]``."""
    log_p = log_temper(logits, 1.0)
    return torch.stack([total_variation(log_temper(logits, temperature), log_p), log_p.amax(-1).exp()])
