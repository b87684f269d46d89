"""The recipe's ``tune`` section: what is searched before students are trained, and at what price."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Tag, model_validator

from setpoint.recipe_values import Count, Flag, Number, Part, Text

SOFTNESS = ("temperature.effective_classes", "temperature.entropy", "temperature.other_mass")
"""The fields by which softness is searched in place of the temperature."""
SEARCHABLE = ("temperature", "objective", "train", "student")
"""The sections whose fields may be searched; the others decide the data, the teacher, or what is compared."""
_LENGTH = ("train.epochs", "train.batch_size", "train.gradient_accumulation")


class Range(Part):
    """All values between two ends."""

    low: Number
    """The lowest value."""
    high: Number
    """The highest value."""
    log: Flag | None = None
    """Search on a log scale; so it is for temperatures, softness and learning rates where not said."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Range:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"has no values from {self.low:g} to {self.high:g}: give low below high")
        if self.log and self.low <= 0:
            raise ValueError(f"goes down to {self.low:g} on a log scale: give low above 0")
        return self


def _candidates(value: Any) -> Any:
    """``[1, 2, 4]`` is a list of choices, ``{low: 1, high: 8}`` a range."""
    if isinstance(value, list | tuple) and not value:
        raise ValueError("lists no value: give some, or a range such as {low: 1, high: 8}")
    if value != "auto" and not isinstance(value, list | tuple | dict | Range):
        raise ValueError(f"is {value!r}: give a list of values, a range such as {{low: 1, high: 8}}, or auto")
    return value


def _kind(value: Any) -> str:
    return "auto" if value == "auto" else "list" if isinstance(value, list | tuple) else "range"


Dimension = Annotated[
    Annotated[
        Annotated[Literal["auto"], Tag("auto")]
        | Annotated[Range, Tag("range")]
        | Annotated[tuple[Any, ...], Tag("list")],
        Discriminator(_kind),
    ],
    BeforeValidator(_candidates),
]


def _flat(value: Any) -> Any:
    """``{objective: {alpha: […]}}``, as overrides on the command line make it, is ``{objective.alpha: […]}``."""
    if not isinstance(value, dict):
        return value
    flat: dict[Any, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, dict) and inner and not inner.keys() & Range.model_fields.keys():
            flat |= {f"{name}.{deeper}": values for deeper, values in _flat(inner).items()}
        else:
            flat[name] = inner
    return flat


_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(x|s|m|h|trials?)")


def _budget(value: Any) -> Any:
    match = _BUDGET.fullmatch(str(value).strip())
    if isinstance(value, bool) or match is None or float(match[1]) == 0:
        raise ValueError("give a multiple of an ordinary run such as 1.0x, a time such as 30m or 2h, or 24 trials")
    if match[2].startswith("trial") and not float(match[1]).is_integer():
        raise ValueError("give a whole number of trials")
    return str(value).strip()


Budget = Annotated[str, BeforeValidator(_budget)]


def parse_budget(budget: str) -> tuple[float, Literal["runs", "seconds", "trials"]]:
    """A budget as a number and its unit.

    Examples:
        >>> parse_budget("1.5x"), parse_budget("30m"), parse_budget("24 trials")
        ((1.5, 'runs'), (1800.0, 'seconds'), (24.0, 'trials'))
    """
    match = _BUDGET.fullmatch(budget)
    assert match is not None, budget
    number, unit = float(match[1]), match[2]
    if unit == "x":
        return number, "runs"
    if unit.startswith("trial"):
        return number, "trials"
    return number * {"s": 1, "m": 60, "h": 3600}[unit], "seconds"


class TuneRecipe(Part):
    """What is searched, and at what price. The recipe as it stands is always the first candidate.

    Candidates are trained a little and scored on the validation split; the better ones go on, and the finalists are
    trained with several seeds. A value other than the recipe's is taken only where it is better beyond the noise.
    """

    search: Annotated[dict[Text, Dimension], BeforeValidator(_flat)] = {}  # noqa: RUF012 - pydantic copies it
    """Recipe fields and their candidates: a list, ``{low: …, high: …}``, or ``auto`` for the range that the teacher's
    logits suggest; the temperature and ``objective.alpha`` where not given."""
    candidates: Count = 16
    """Candidates at the first rung, the recipe as it stands among them."""
    finalists: Count = 3
    """Candidates at the last rung."""
    repeats: Count = 3
    """Seeds with which each finalist is trained."""
    budget: Budget | None = None
    """For all, final student and teacher's pass included: 1.0x of one ordinary run with a live teacher, a time such as
    30m or 2h, or a number of trials (``24 trials``), which are trained to the end whatever that takes. Where not given,
    1.0x, or as much as a search takes that can tell something."""
    population: Flag = False
    """Train the candidates together, on the same batches, by one worker; quicker where ``vmap`` suits the student. For
    what students can differ in side by side: fields of ``temperature`` and ``objective``."""
    evolve: Flag = False
    """Also let a flock of students, trained together as with ``population``, which this implies, evolve a schedule of
    the temperature; it is one candidate more, a finalist from the start, and is taken where it is better beyond the
    noise."""
    metric: Text | None = None
    """The task's metric to raise; its headline metric where not given."""
    storage: Text | None = None
    """An Optuna storage, such as ``postgresql+psycopg://user@host/database``, that several workers share; a file in
    the run folder where not given."""

    @model_validator(mode="after")
    def _can_be_searched(self) -> TuneRecipe:
        for name, values in self.search.items():
            section = name.partition(".")[0]
            if section not in SEARCHABLE:
                raise ValueError(f"names '{name}': give a field of {', '.join(SEARCHABLE)}")
            if name in _LENGTH:
                raise ValueError(f"names '{name}', by which candidates would be trained unequally: leave it out")
            if values == "auto" and name not in ("temperature", *SOFTNESS):
                raise ValueError(f"gives auto for '{name}': give a list, or a range such as {{low: 0.1, high: 1}}")
            if isinstance(values, Range) and values.low <= 0 and is_log(name, values):
                raise ValueError(f"has '{name}' from {values.low:g}, on a log scale: give low above 0")
        of_softness = [name for name in self.search if name in SOFTNESS]
        if len(of_softness) + ("temperature" in self.search) > 1:
            raise ValueError("has both temperature and softness, or softness twice: give one, each decides the other")
        if self.finalists > self.candidates:
            raise ValueError(f"has {self.finalists} finalists of {self.candidates} candidates: give at most as many")
        return self

    @property
    def together(self) -> bool:
        """Whether candidates are trained together."""
        return self.population or self.evolve


def is_log(name: str, values: Range) -> bool:
    """Whether a range is searched on a log scale.

    Examples:
        >>> is_log("train.learning_rate", Range(low=1e-5, high=1e-3)), is_log("objective.alpha", Range(low=0, high=1))
        (True, False)
    """
    if values.log is not None:
        return values.log
    return name in ("temperature", *SOFTNESS) or name.endswith(("learning_rate", ".tau", ".temperature"))
