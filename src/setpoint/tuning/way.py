"""How the candidates of a search are trained and by whom: one after another, or all together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from setpoint.errors import LossError
from setpoint.recipe import Recipe
from setpoint.tuning.curve import Score
from setpoint.tuning.ladder import Task
from setpoint.tuning.plan import Costs, Plan
from setpoint.tuning.student import SCORED, Bench
from setpoint.tuning.study import Record, SharedStudy
from setpoint.tuning.workers import Alive

Result = tuple[Task, tuple[Score, float] | LossError]
"""What came of a task: a score and the loss on the validation labels, or why there is none."""


class Way(ABC):
    """What a worker has to know to train candidates beside others on the same study.

    Args:
        bench: where candidates are trained.
        recipes: the candidates, as many as the search may have.
        seeds: of the finalists; the first is that of the search.
        full_steps: of a whole training.
        study: what all workers know.
        alive: which of them live.
    """

    def __init__(
        self,
        bench: Bench,
        recipes: Sequence[Recipe],
        seeds: Sequence[int],
        full_steps: int,
        study: SharedStudy,
        alive: Alive,
    ) -> None:
        self.bench, self.recipes, self.seeds, self.full_steps = bench, recipes, seeds, full_steps
        self.study, self.alive = study, alive

    @abstractmethod
    def plans(self) -> bool:
        """Whether it falls to this worker to make the plan."""

    @abstractmethod
    def costs(self, steps: int) -> Costs:
        """What things take, as measured by so many steps of a candidate at most: all are trained for these."""

    @abstractmethod
    def mine(self, records: Sequence[Record], total: int) -> set[int]:
        """The candidates that this worker trains now, of those taken and so many in all."""

    @abstractmethod
    def take(self, records: Sequence[Record], plan: Plan, on_step: Callable[[int], None]) -> None:
        """Take a candidate, where the plan has more than are taken and this worker may."""

    @abstractmethod
    def train(
        self, tasks: Sequence[Task], records: Sequence[Record], plan: Plan, on_step: Callable[[int], None]
    ) -> Iterator[Result]:
        """Do some of the tasks; ``on_step`` is told how many students made a step."""

    def how(self, plan: Plan) -> str | None:
        """What there is to say of the way, as a sentence."""
        return None

    def most(self, steps: int, plan: Plan) -> int | None:
        """How many validation examples are scored after so many steps; None for all."""
        return None if steps == plan.rungs[-1] else SCORED

    def gone(self, worker: str, since: float = 0.0) -> bool:
        """Whether a worker, that took something at that time, is no more."""
        known = self.alive.knows(worker)
        return self.study.silent(worker, since) if known is None else not known
