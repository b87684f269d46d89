"""How alike two models are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from setpoint.maths.divergences import forward_kl
from setpoint.maths.tempering import log_temper

Rows = Sequence[np.ndarray]


def agreement(student: Rows, teacher: Rows, classes: int | None = None) -> dict[str, float]:
    """How alike two models are, averaged over rows: the same top class, and KL(teacher‖student) at T = 1 in nats.

    Columns after those of the classes are left out. Where tokenizers of their own cut an example at different words,
    the words that both have are compared.
    """
    common = [min(len(z), len(v)) for z, v in zip(student, teacher, strict=True)]
    z, v = (
        torch.from_numpy(np.concatenate([part[:n, :classes] for part, n in zip(rows, common, strict=True)])).double()
        for rows in (student, teacher)
    )
    return {
        "top1": float((z.argmax(-1) == v.argmax(-1)).double().mean()),
        "kl": float(forward_kl(log_temper(z, 1.0), log_temper(v, 1.0)).mean()),
    }
