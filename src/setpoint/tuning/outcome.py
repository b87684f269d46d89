"""What a search has found, and the files that say so: the recipe to run, with its evidence, and all the figures."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from setpoint.files import write_atomic, write_json
from setpoint.job import Job
from setpoint.recipe import Recipe
from setpoint.recipe_file import recipe_to_yaml
from setpoint.tuning.candidates import Candidates, describe
from setpoint.tuning.findings import Verdict
from setpoint.tuning.plan import Plan
from setpoint.tuning.prior import Suggestion
from setpoint.tuning.study import Record


@dataclass(frozen=True)
class Outcome:
    """What a search has found.

    Attributes:
        recipe: the one to run, without ``tune``.
        verdict: what the scores show.
        suggestion: what the teacher's logits alone suggested.
        candidates: what was compared.
        records: what was measured.
        plan: how.
        seconds: what an ordinary run takes here, and what this search was to take.
        complete: whether the search went to its end.
        how: how candidates were trained, as a sentence; None where one after another.
    """

    recipe: Recipe
    verdict: Verdict
    suggestion: Suggestion
    candidates: Candidates
    records: tuple[Record, ...]
    plan: Plan
    seconds: dict[str, float]
    complete: bool
    how: str | None = None

    def as_json(self) -> dict[str, Any]:
        """All of it but the recipes, as plain data."""
        return {
            "verdict": asdict(self.verdict),
            "suggestion": asdict(self.suggestion),
            "dimensions": [asdict(dimension) for dimension in self.candidates.dimensions],
            "candidates": [
                {
                    "values": values,
                    "failed": any(record.failed for record in self.records if record.number == number),
                    "scores": [
                        {"seed": s.seed, "steps": s.steps, "value": s.value, "loss": record.proxies[s.seed, s.steps]}
                        for record in self.records
                        if record.number == number
                        for s in record.scores
                    ],
                }
                for number, values in enumerate(self.candidates.values)
            ],
            "plan": asdict(self.plan),
            "seconds": self.seconds,
            "complete": self.complete,
            "how": self.how,
        }


def write(outcome: Outcome, folder: Path) -> Path:
    """Write ``tuning.json``, all the figures, and ``tuned.yaml``, a recipe that needs no search; gives its path."""
    write_json(folder / "tuning.json", outcome.as_json())
    name = describe(outcome.candidates.dimensions, outcome.candidates.values[outcome.verdict.chosen])
    lines = [f"Found by setpoint tune: {name}.", *outcome.verdict.sentences]
    if not outcome.complete:
        lines.append("The search was stopped before its end; the same command continues it.")
    comment = "\n".join(textwrap.fill(line, 118, initial_indent="# ", subsequent_indent="# ") for line in lines)
    path = folder / "tuned.yaml"
    write_atomic(path, f"{comment}\n{recipe_to_yaml(outcome.recipe)}")
    return path


def hand_over(job: Job, trained: dict[int, Path]) -> None:
    """Let the run's students go on from where the finalist's paused: its checkpoints, by seed, become theirs."""
    for seed, checkpoints in trained.items():
        name = f"student/seed-{seed}"
        if checkpoints.is_dir() and not job.scratch(name).exists() and not (job.path / name).exists():
            job.scratch(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(checkpoints, job.scratch(name))
    for kind in ("candidate-*", "population-*"):
        for folder in (job.path / "tuning").glob(kind):
            shutil.rmtree(folder, ignore_errors=True)
