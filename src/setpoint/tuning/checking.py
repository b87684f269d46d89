"""What logits and labels have to be before anything is measured on them; each fault is one sentence."""

from __future__ import annotations

import torch
from torch import Tensor

from setpoint.errors import TargetError
from setpoint.maths.tempering import MASKED
from setpoint.types import IGNORED_LABEL


def check_logits(logits: Tensor, name: str) -> None:
    """Refuse what are no logits ``[N, C]``, naming the first row that is wrong."""
    if logits.ndim != 2:
        raise TargetError(f"{name} has the shape {list(logits.shape)}", "give one row of logits an example, [N, C]")
    if len(logits) == 0:
        raise TargetError(f"{name} has no rows", "give the logits of some hundred examples or more")
    if logits.shape[1] < 2:
        mend = "give a column for each; for the one logit of a sigmoid, that logit beside a column of zeros"
        raise TargetError(f"{name} has {logits.shape[1]} class{'' if logits.shape[1] == 1 else 'es'}", mend)
    top = logits.amax(-1)  # NaN and inf show in it
    bad = (~top.isfinite() | (top < MASKED)).nonzero()
    if len(bad):
        row = int(bad[0])
        kind = "NaN" if bool(top[row].isnan()) else "inf" if float(top[row]) > 0 else "no class that is not masked"
        raise TargetError(f"{name} has {kind} in row {row}", "mend the teacher, or leave the row out")
    if bool((logits[0] >= 0).all()) and bool((logits >= 0).all()):
        whole = logits.sum(-1, dtype=None if logits.dtype == torch.float64 else torch.float32)
        if bool(((whole - 1).abs() < 5e-3).all()):  # as near as float16 keeps it
            raise TargetError(f"{name} holds probabilities, each row from 0 to 1 with sum 1", "take their logarithm")


def check_labels(labels: Tensor, logits: Tensor, name: str) -> None:
    """Refuse labels that do not belong to the logits ``[N, C]``, naming the first row that is wrong."""
    if labels.shape != logits.shape[:1]:
        problem = f"{name} have the shape {list(labels.shape)} where the logits have {len(logits)} rows"
        raise TargetError(problem, "give one label a row")
    if labels.is_floating_point() or labels.is_complex():
        raise TargetError(f"{name} are of dtype {str(labels.dtype).removeprefix('torch.')}", "give whole numbers")
    labels, classes = labels.long(), logits.shape[1]
    counts = labels != IGNORED_LABEL
    if not bool(counts.any()):
        raise TargetError(f"{name} are {IGNORED_LABEL} in every row, so that none counts", "label some, or none at all")
    wrong = (counts & ((labels < 0) | (labels >= classes))).nonzero()
    if len(wrong):
        row = int(wrong[0])
        mend = f"give 0 to {classes - 1}, or {IGNORED_LABEL} for a row that does not count"
        raise TargetError(f"{name} have {int(labels[row])} in row {row}, which is none of {classes} classes", mend)
    chosen = logits.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    wrong = (counts & (chosen < MASKED)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise TargetError(
            f"{name} have {int(labels[row])} in row {row}, where that class is masked", "mend label or mask"
        )
