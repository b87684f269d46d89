"""The search as an Optuna study: what is known of each candidate, shared by all workers and safe from a crash."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from setpoint.errors import RunError
from setpoint.tuning.curve import Score
from setpoint.tuning.space import Dimension

STALE = 90.0
"""Seconds without a sign of life after which a worker of another machine counts as gone."""
BEAT = 10.0
"""Seconds between signs of life."""
ATTEMPTS = 3
"""How often a storage is tried."""


@dataclass(frozen=True)
class Record:
    """One candidate, as the storage has it.

    Attributes:
        number: which candidate.
        owner: the worker that trains it; empty in the moment before it has signed.
        since: when it was taken, in seconds of the epoch.
        running: neither dropped nor finished.
        failed: its training gave no number.
        scores: what was measured.
        proxies: by (seed, steps): the loss on the validation labels, in nats, its temperature fitted; lower is better.
    """

    number: int
    owner: str
    since: float
    running: bool
    failed: bool
    scores: tuple[Score, ...]
    proxies: dict[tuple[int, int], float]

    def reached(self, seed: int) -> int:
        """Steps at which a seed's student was scored last."""
        return max((score.steps for score in self.scores if score.seed == seed), default=0)


class Design(BaseSampler):
    """Gives trial number n the n-th candidate, so that no worker has another's."""

    def __init__(self, values: Sequence[dict[str, Any]]) -> None:
        self._values = values

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None: candidates do not depend on scores."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The candidate's value; of a choice its name, for storages keep no sections of recipes."""
        value = self._values[trial.number][param_name]
        return str(value) if isinstance(param_distribution, CategoricalDistribution) else value


class SharedStudy:
    """A study in a storage that workers share.

    Args:
        url: an Optuna storage.
        name: of the study; made where it is not there.
        dimensions: what varies.
        values: the candidates, by number.
        worker: names this process, other than any other's.

    Raises:
        RunError: the storage cannot be reached, or its driver is not installed.
    """

    def __init__(
        self,
        url: str,
        name: str,
        dimensions: Sequence[Dimension],
        values: Sequence[dict[str, Any]],
        worker: str,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._values = list(values)
        self._dimensions = dimensions
        self.worker = worker
        self._beat = 0.0
        self._study = _opened(url, name, Design(self._values))

    @property
    def plan(self) -> dict[str, Any] | None:
        """What the worker of the first candidate decided for all."""
        plan: dict[str, Any] | None = self._attributes().get("plan")
        return plan

    def set_plan(self, plan: dict[str, Any]) -> None:
        """Decide for all."""
        self._study.set_user_attr("plan", plan)

    @property
    def leader(self) -> str | None:
        """The worker that trains all candidates, where they are trained together."""
        leader: str | None = self._attributes().get("leader")
        return leader

    def lead(self) -> None:
        """Be that worker; of two that say so at one moment the later is."""
        self._beat = 0.0
        self.beat()
        self.describe({"leader": self.worker})

    @property
    def how(self) -> str | None:
        """The way in which candidates are trained together."""
        how: str | None = self._attributes().get("how")
        return how

    @property
    def rounds(self) -> list[list[list[Any]]]:
        """The moves of a flock that evolves a schedule, as far as they are decided."""
        return self._attributes().get("rounds", [])

    @property
    def evolved(self) -> dict[str, Any] | None:
        """What the flock evolved: ``founder`` and ``temperatures``."""
        evolved: dict[str, Any] | None = self._attributes().get("evolved")
        return evolved

    def let_in(self, values: Sequence[dict[str, Any]]) -> None:
        """These are the candidates from now on, the last of them evolved."""
        self._values[:] = values

    def describe(self, attributes: dict[str, Any]) -> None:
        """Note something of the whole study, for those who look at it with Optuna's own tools."""
        for name, value in attributes.items():
            self._study.set_user_attr(name, value)

    def records(self) -> list[Record]:
        """Every candidate that some worker has taken."""
        return [_record(trial) for trial in self._trials() if trial.number < len(self._values)]

    def ask(self, total: int) -> int | None:
        """Take the next candidate, where fewer than so many are taken; None where they are.

        Workers that ask at one moment each get one, even beyond the total.
        """
        if len(self._trials()) >= total:
            return None
        trial = self._study.ask()
        if trial.number >= len(self._values):
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        trial.set_user_attr("worker", self.worker)
        if self.evolved is not None:  # no point of the space, as Optuna sees it
            for name, value in self._values[trial.number].items():
                trial.set_user_attr(name, value)
            return trial.number
        for dimension in self._dimensions:
            value = self._values[trial.number][dimension.name]
            if dimension.is_range and isinstance(value, int | float):
                low, high = dimension.ends
                trial.suggest_float(dimension.name, min(low, value), max(high, value), log=dimension.log)
            else:
                choices = tuple(dict.fromkeys(str(values[dimension.name]) for values in self._values))
                trial.suggest_categorical(dimension.name, choices)
        return trial.number

    def adopt(self, number: int) -> None:
        """Take over the candidate of a worker that is gone."""
        self._trial(number).set_user_attr("worker", self.worker)

    def report(self, number: int, score: Score, proxy: float) -> None:
        """Keep what was measured."""
        trial = self._trial(number)
        kept = trial.user_attrs.get("scores", [])
        entry = asdict(score) | {"proxy": proxy}
        trial.set_user_attr("scores", [*kept, entry])
        first = (kept[0] if kept else entry)["seed"]
        if score.seed == first:
            trial.report(score.value, score.steps)

    def drop(self, number: int) -> None:
        """The candidate is not to go on."""
        self._study.tell(number, state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """The candidate could not be trained."""
        self._trial(number).set_user_attr("error", reason)
        self._study.tell(number, state=TrialState.FAIL)

    def finish(self, number: int, value: float) -> None:
        """The candidate has gone all the way."""
        self._study.tell(number, value)

    def beat(self) -> None:
        """Give a sign of life, where the last is some time ago."""
        if time.time() - self._beat > BEAT:
            self._beat = time.time()
            self._study.set_user_attr(f"worker:{self.worker}", self._beat)

    def silent(self, worker: str, since: float = 0.0) -> bool:
        """Whether a worker has given no sign of life for long; that it took something then is one."""
        seen = self._attributes().get(f"worker:{worker}", 0.0)
        return time.time() - max(float(seen), since) > STALE

    def _attributes(self) -> dict[str, Any]:
        return self._study.user_attrs

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _trial(self, number: int) -> Trial:
        return Trial(self._study, self._trials()[number]._trial_id)


def _opened(url: str, name: str, sampler: BaseSampler) -> optuna.Study:
    """The study; made where it is not there."""
    for attempt in range(ATTEMPTS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return optuna.create_study(
                    storage=url, study_name=name, sampler=sampler, direction="maximize", load_if_exists=True
                )
        except ImportError as error:
            raise RunError(
                f"tune.storage '{_without_password(url)}' needs a driver that is not installed ({error})",
                "install it, for PostgreSQL with pip install 'psycopg[binary]'",
            ) from None
        except Exception as error:  # whatever a database's driver raises
            # Two workers that make the tables at the same moment are in each other's way, once.
            if attempt < ATTEMPTS - 1:
                time.sleep(1.0)
                continue
            reason = str(error).strip().partition("\n")[0]
            raise RunError(
                f"tune.storage '{_without_password(url)}' cannot be used ({reason})",
                "check that the server runs and that the URL is an Optuna storage's",
            ) from None
    raise AssertionError("the last attempt returns or raises")


def _record(trial: FrozenTrial) -> Record:
    entries = trial.user_attrs.get("scores", [])
    return Record(
        number=trial.number,
        owner=trial.user_attrs.get("worker", ""),
        since=trial.datetime_start.timestamp() if trial.datetime_start else 0.0,
        running=trial.state == TrialState.RUNNING,
        failed=trial.state == TrialState.FAIL,
        scores=tuple(
            Score(trial.number, e["seed"], e["steps"], e["value"], tuple(e.get("parts", ()))) for e in entries
        ),
        proxies={(e["seed"], e["steps"]): e["proxy"] for e in entries},
    )


def _without_password(url: str) -> str:
    scheme, found, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{found}{user.partition(':')[0]}{at}{place}" if at else url
