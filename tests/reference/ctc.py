"""CTC once more, by its definition: every path through the frames, in float64; imports nothing of Setpoint."""

import itertools
import math

from reference.companions import log_softmax


def transcript_of(path):
    """What a path says: repeats removed, then blanks (class 0)."""
    return tuple(key for key, _ in itertools.groupby(path) if key != 0)


def probability(logits, target):
    """The probability of a transcript, summed over all paths that say it."""
    frames = [log_softmax(row) for row in logits]
    paths = itertools.product(range(len(logits[0])), repeat=len(logits))
    return math.fsum(
        math.exp(math.fsum(row[k] for row, k in zip(frames, path, strict=True)))
        for path in paths
        if transcript_of(path) == tuple(target)
    )
