"""Whether two models say the same: their logits compared row by row, in batches of several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import torch

from setpoint.shipping.manifest import Parity
from setpoint.tasks.base import Collate, Example
from setpoint.types import TargetSource

EXAMPLES = 300
"""How many are compared, spread over the split."""
SIZES = (1, 2, 7, 32)
"""Of the batches; long examples and short ones come together in them, so that there is padding."""


def compare(reference: TargetSource, other: TargetSource, examples: Sequence[Example], collate: Collate) -> Parity:
    """How far the logits of one model are from another's.

    Args:
        reference: the model to be matched.
        other: the model to match it.
        examples: encoded; up to 300 of them are compared.
        collate: makes batches of them.
    """
    chosen = list(examples[:: -(-len(examples) // EXAMPLES)])
    largest = scale = 0.0
    agreed = rows = 0
    for batch in in_sizes(chosen):
        collated = collate(batch)
        v, z = (source(collated).cpu().double() for source in (reference, other))
        if len(v) == 0:
            continue
        # A difference that is no number has to be the largest, and max() would forget it; but classes that both mask
        # are the same.
        apart = torch.where(v == z, 0.0, (v - z).abs())
        difference = float(apart.nan_to_num(nan=torch.inf).max())
        largest, scale = max(largest, difference), max(scale, float(v[v.isfinite()].abs().max()))
        agreed += int((v.argmax(-1) == z.argmax(-1)).sum())
        rows += len(v)
    return Parity(largest=largest, scale=scale, agreement=agreed / max(rows, 1), rows=rows)


def in_sizes(examples: Sequence[Example]) -> list[list[Example]]:
    """Examples in batches of one size after the other, all of them once.

    Examples:
        >>> [len(batch) for batch in in_sizes([{}] * 50)]
        [1, 2, 7, 32, 1, 2, 5]
    """
    batches, left, sizes = [], list(examples), cycle(SIZES)
    while left:
        size = next(sizes)
        batches.append(left[:size])
        left = left[size:]
    return batches
