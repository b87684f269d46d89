"""What a finished run has left in its folder: plain data, read without its models or its data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from setpoint.run_folder import RunFolder, damaged, read_left


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        path: its folder, as it was given.
        recipe: what ``recipe.json`` holds.
        metrics: what ``metrics.json`` holds.
        tuning: what ``tuning.json`` holds; None where no temperature was searched.
        test: the digest of its test split; None where the mark of its evaluation is lost.
        labels: the names of its classes; none likewise.
    """

    path: Path
    recipe: Mapping[str, Any]
    metrics: Mapping[str, Any]
    tuning: Mapping[str, Any] | None
    test: str | None
    labels: tuple[str, ...]


def read_run(folder: str | Path) -> FinishedRun:
    """Read a run.

    Raises:
        RunError: the folder holds no finished run, or a file of it is damaged.
    """
    path = Path(folder)
    recipe, metrics = read_left(path, "recipe.json"), read_left(path, "metrics.json")
    for name in ("name", "task", "metric", "teacher", "student"):
        if name not in metrics:
            raise damaged(path / "metrics.json")
    tuning = read_left(path, "tuning.json") if (path / "tuning.json").exists() else None
    mark = RunFolder(path).mark("evaluation")
    origin = mark["made_from"] if mark is not None and isinstance(mark["made_from"], dict) else {}
    labels = origin.get("data", {}).get("labels", ())
    return FinishedRun(path, recipe, metrics, tuning, origin.get("test"), tuple(labels))
