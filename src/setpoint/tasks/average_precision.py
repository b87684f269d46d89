"""Average precision of detected boxes as COCO defines it, for any part of the pictures, quickly.

Source: the evaluation of COCO (cocodataset.org, "Detection evaluation"): precision at 101 recalls, the mean over
classes and over thresholds of the IoU from 0.5 to 0.95. Which object a detection finds is decided picture by picture,
once; a part of the pictures only sorts what is known of them. Areas are not told apart, and there are no crowds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 100
"""Detections of a picture and class that count, the surest ones."""


@dataclass(frozen=True)
class Found:
    """What was found in a picture: boxes ``[N, 4]`` as (x, y, w, h) from the centre, a class and a score each."""

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Objects:
    """What is in a picture: boxes ``[M, 4]`` as (x, y, w, h) from the centre, and a class each."""

    boxes: np.ndarray
    classes: np.ndarray


class AveragePrecision:
    """The average precision of what was found in pictures.

    Args:
        found: of each picture.
        objects: of the same pictures.
        classes: how many there are.

    Examples:
        >>> box = np.array([[0.5, 0.5, 0.2, 0.2]])
        >>> found = [Found(box, np.array([0]), np.array([0.9])), Found(box, np.array([0]), np.array([0.8]))]
        >>> there = [Objects(box, np.array([0])), Objects(box + 0.3, np.array([0]))]
        >>> round(AveragePrecision(found, there, 1)(slice(None)), 4), AveragePrecision(found, there, 1)([0])
        (0.505, 1.0)
    """

    def __init__(self, found: Sequence[Found], objects: Sequence[Objects], classes: int) -> None:
        self._given, self._classes = list(zip(found, objects, strict=True)), classes

    @cached_property
    def _matched(self) -> list[list[tuple[np.ndarray, np.ndarray, int]]]:
        """Of each picture and class the scores, falling, which are right at each threshold, and how many objects."""
        return [[_match(found, there, c) for c in range(self._classes)] for found, there in self._given]

    def by_class(self, part: slice | np.ndarray | Sequence[int]) -> np.ndarray:
        """``[thresholds, classes]`` of some pictures, in any number; NaN of a class that is in none of them."""
        chosen = np.arange(len(self._given))[part]
        result = np.full((len(THRESHOLDS), self._classes), np.nan)
        for c in range(self._classes):
            here = [self._matched[i][c] for i in chosen]
            count = sum(objects for _, _, objects in here)
            if count:
                order = np.argsort(-np.concatenate([s for s, _, _ in here]), kind="stable")
                right = np.concatenate([r for _, r, _ in here], 1)[:, order]
                result[:, c] = [_area(row, count) for row in right]
        return result

    def __call__(self, part: slice | np.ndarray | Sequence[int], threshold: float | None = None) -> float:
        """The mean over classes and thresholds, or at one threshold; 0 where there are no objects."""
        table = self.by_class(part)
        table = table if threshold is None else table[[int(np.argmin(abs(THRESHOLDS - threshold)))]]
        return float(np.nanmean(table)) if np.isfinite(table).any() else 0.0


def _match(found: Found, there: Objects, label: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The surest detection first, each takes the free object that it overlaps most, if enough."""
    mine, wanted = found.classes == label, there.boxes[there.classes == label]
    order = np.argsort(-found.scores[mine], kind="stable")[:MOST]
    overlap = iou(found.boxes[mine][order], wanted)
    right = np.zeros((len(THRESHOLDS), len(order)), bool)
    for t, threshold in enumerate(THRESHOLDS) if len(wanted) else ():
        free = overlap.copy()
        for i in range(len(order)):
            best = int(free[i].argmax())
            if free[i, best] >= threshold:
                right[t, i], free[:, best] = True, -1
    return found.scores[mine][order], right, len(wanted)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes ``[N, 4]`` and ``[M, 4]``: ``[N, M]``.

    Examples:
        >>> iou(np.array([[0.5, 0.5, 0.2, 0.2]]), np.array([[0.6, 0.5, 0.2, 0.2]])).round(4)
        array([[0.3333]])
    """
    a, b = a[:, None], b[None]
    low = np.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = np.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    inside = np.clip(high - low, 0, None).prod(-1)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - inside
    return np.asarray(inside / np.maximum(union, np.finfo(float).tiny))


def _area(right: np.ndarray, count: int) -> float:
    """The mean over 101 recalls of the best precision at that recall or above; 0 at recalls that are not reached."""
    hits = right.cumsum()
    precision = hits / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / count, RECALLS)
    return float(np.append(best, 0.0)[places].mean())
