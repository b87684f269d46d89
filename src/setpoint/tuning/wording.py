"""The verdict in a colleague's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from setpoint.tuning.space import Dimension

if TYPE_CHECKING:
    from setpoint.tuning.findings import Estimate, Verdict

TEMPERATURES = ("T", "temperature")
SOFTNESSES = {"effective_classes": "effective classes", "entropy": "nats of entropy", "other_mass": "of other mass"}
SHARES = ("accuracy", "f1", "precision", "recall")
POINT = 0.01
TOO_COARSE = 2 * POINT  # a split that tells no less is called small
MOST_TIMES = 100  # more examples than so many times those at hand are no advice


def is_temperature(name: str) -> bool:
    """Whether a dimension is a temperature itself, rather than a softness or a part of a schedule.

    Examples:
        >>> is_temperature("temperature.temperature"), is_temperature("temperature.effective_classes")
        (True, False)
    """
    return _last(name) in TEMPERATURES


def is_knob(name: str) -> bool:
    """Whether a dimension says how soft the targets are, as temperature or softness.

    Examples:
        >>> is_knob("temperature.entropy"), is_knob("objective.alpha")
        (True, False)
    """
    return _last(name) in (*TEMPERATURES, *SOFTNESSES)


def is_share(metric: str) -> bool:
    """Whether a metric is a share of 1, told in points.

    Examples:
        >>> is_share("f1"), is_share("macro_accuracy"), is_share("loss")
        (True, True, False)
    """
    return metric.split("_")[-1] in SHARES


def sentences(
    verdict: Verdict,
    dimensions: Sequence[Dimension],
    candidates: Sequence[Mapping[str, Any]],
    metric: str,
    rows: int,
) -> tuple[str, ...]:
    """What the verdict says, a sentence or two for each thing that can be told."""
    words = _Words(verdict, dimensions, candidates, metric)
    said = [
        *words.choice(),
        *words.losses(),
        *words.importance(),
        *words.validation(rows),
        *words.failures(),
        words.measured(),
    ]
    return tuple(
        sentence.replace("softness", "Softness", 1) if sentence[:8] == "softness" else sentence for sentence in said
    )


class _Words:
    def __init__(
        self,
        verdict: Verdict,
        dimensions: Sequence[Dimension],
        candidates: Sequence[Mapping[str, Any]],
        metric: str,
    ) -> None:
        self.verdict, self.dimensions, self.candidates, self.metric = verdict, dimensions, candidates, metric
        self.knob = next((d for d in dimensions if d.name == verdict.knob), None)
        self.told = verdict.advantage is not None and verdict.advantage.low is not None
        # Ahead when it was measured, and at the end nobody knows.
        self.fades = verdict.chosen == verdict.default and verdict.advantage is not None and verdict.advantage.is_told

    def choice(self) -> list[str]:
        """What is best, what cannot be told from it, and what is chosen."""
        verdict = self.verdict
        if verdict.advantage is None and verdict.chosen != verdict.default:
            return [f"The recipe as it stands has no score; {self._named(verdict.best)} is the best of the others."]
        if verdict.advantage is None:
            return ["No two candidates were trained alike, so there is nothing to compare: the recipe stays as it is."]
        if not self.told:
            seeds = "One seed tells" if verdict.measured_at.seeds == 1 else "Seeds that share no candidates tell"
            return [f"{seeds} no noise, so no winner is declared and {self._default()} stays."]
        if verdict.flat:
            return [self._flat()]
        if self.fades:
            lead = f"{self._named(verdict.best)} was {self._with_noise(verdict.advantage)} ahead"
            shrinks = "but that lead shrinks as the training goes on; nobody can tell that any is left at the end"
            return [
                f"{lead} of the recipe as it stands, {shrinks}, and {self._default() if self.knob else 'it'} stays."
            ]
        said = []
        if self.knob and (verdict.low, verdict.high) == self.knob.ends:
            low, high = map(_number, self.knob.ends)
            said.append(
                f"{self._at(verdict.best_temperature, ' = ')} looks best, but nothing in {low}–{high} can be told "
                f"from it: too little of the range was trained to the end."
            )
        elif self.knob:
            said.append(
                f"Best {self._at(verdict.best_temperature, ' ')}{self._end()}; anything in "
                f"{_number(verdict.low)}–{_number(verdict.high)} is within noise."
            )
        if verdict.chosen != verdict.default:
            return [*said, self._gain()]
        if verdict.best == verdict.default:
            return [*said, f"{self._default(True)} is the best that was trained."]
        near = f"within noise of {self._named(verdict.best)}, which is {self._with_noise(verdict.advantage)} ahead"
        return [*said, f"{self._default(True)} is {near}, and stays."]

    def _end(self) -> str:
        """That the best is the lowest or the highest that was searched, where it is."""
        low, high = self.knob.ends if self.knob else (None, None)
        for end, further in ((low, "lower"), (high, "higher")):
            if self.verdict.best_temperature == end:
                return f", the end of what was searched (look {further} too)"
        return ""

    def _flat(self) -> str:
        verdict = self.verdict
        if self.knob is None:
            return "Flat: nothing that was tried can be told from the recipe as it stands, which stays."
        noun = "temperature" if is_temperature(self.knob.name) else "softness"
        low, high = self.knob.ends
        begin = f"Flat: no {noun} between {_number(low)} and {_number(high)}{self._unit()} can be told from"
        if verdict.chosen == verdict.default:
            return f"{begin} {self._at(self.candidates[verdict.default][self.knob.name], ' = ')}, which stays."
        return f"{begin} any other. {self._gain()}"

    def _gain(self) -> str:
        verdict = self.verdict
        assert verdict.advantage is not None
        return f"{self._named(verdict.best)} gains {self._with_noise(verdict.advantage)} over the recipe as it stands."

    def losses(self) -> list[str]:
        """What T = 1 and the ends of the range lose, where that is outside noise."""
        if self.knob is None or self.verdict.flat or self.fades:
            return []
        said = {loss.at: loss.loss for loss in self.verdict.losses if loss.name != "default" and loss.loss.is_told}
        return [f"{self._at(at, ' = ')} loses {self._with_noise(loss)}." for at, loss in said.items()]

    def importance(self) -> list[str]:
        """Which dimension matters more than which, outside noise; of those only what touches the knob, if any."""
        if self.fades:
            return []
        said = []
        for name, less in self.verdict.outweighed.items():
            others = [other for other in less if self.knob is None or self.knob.name in (name, other)]
            if others:
                said.append(f"{self._label(name)} matters more than {_listed(map(self._label, others))} here.")
        return said

    def validation(self, rows: int) -> list[str]:
        """How many examples would be needed, where nothing could be told and more examples would have helped."""
        verdict = self.verdict
        if verdict.chosen != verdict.default or not self.told or self.fades:
            return []
        if verdict.needed_examples is not None and verdict.needed_examples <= MOST_TIMES * rows and verdict.advantage:
            gain = self._amount(verdict.advantage.value)
            needed = _rounded(verdict.needed_examples)
            return [
                f"To tell the {gain} that {self._named(verdict.best)} seems to gain, "
                f"about {needed} validation examples would be needed instead of {rows:,}."
            ]
        if not is_share(self.metric) or verdict.smallest < TOO_COARSE:
            return []
        needed = _rounded(rows * (verdict.smallest / POINT) ** 2)
        least = f"{verdict.smallest / POINT:.2g} points"
        return [
            f"Validation has {rows:,} examples, which tell no difference below {least}: "
            f"about {needed} would be needed to tell 1 point."
        ]

    def failures(self) -> list[str]:
        """How many candidates failed."""
        count = len(self.verdict.dropped)
        return [f"{count} candidate{'s' * (count > 1)} failed and {'were' if count > 1 else 'was'} left out."] * (
            count > 0
        )

    def measured(self) -> str:
        """At how much training, with how many seeds."""
        at = self.verdict.measured_at
        return f"Measured at {_number(100 * at.share)} % of the training with {at.seeds} seed{'s' * (at.seeds > 1)}."

    def _named(self, candidate: int) -> str:
        """A candidate by what it changes."""
        of, stands = self.candidates[candidate], self.candidates[self.verdict.default]
        changed = [
            self._at(of[d.name], " = ") if d is self.knob else f"{_spoken(d.name)} = {_number(of[d.name])}"
            for d in self.dimensions
            if of[d.name] != stands[d.name]
        ]
        return ", ".join(changed) or "the recipe as it stands"

    def _default(self, at_length: bool = False) -> str:
        if self.knob is None:
            return "The recipe as it stands" if at_length else "the recipe as it stands"
        at = self._at(self.candidates[self.verdict.default][self.knob.name], " = ")
        return f"The recipe as it stands, {at}," if at_length else at

    def _at(self, value: Any, sign: str) -> str:
        """The knob at a value: "T = 4", or "softness 2.5 effective classes"."""
        assert self.knob is not None
        if is_temperature(self.knob.name):
            return f"T{sign}{_number(value)}"
        return f"softness {_number(value)}{self._unit()}"

    def _unit(self) -> str:
        assert self.knob is not None
        return "" if is_temperature(self.knob.name) else f" {SOFTNESSES[_last(self.knob.name)]}"

    def _label(self, name: str) -> str:
        if self.knob is None or name != self.knob.name:
            return _spoken(name)
        return "T" if is_temperature(name) else "softness"

    def _amount(self, value: float, half: float | None = None) -> str:
        """The size of a difference, whoever is ahead: "0.8 ± 0.3 F1"."""
        if not is_share(self.metric):
            return f"{abs(value):.3g}" + ("" if half is None else f" ± {half:.2g}") + f" {self.metric}"
        figures = [abs(value) / POINT] if half is None else [abs(value) / POINT, half / POINT]
        digits = 1 if figures[-1] >= 0.15 else 2
        name = {"f1": "F1", "accuracy": "points of accuracy"}.get(self.metric, f"points of {_spoken(self.metric)}")
        return " ± ".join(f"{figure:.{digits}f}" for figure in figures) + f" {name}"

    def _with_noise(self, estimate: Estimate) -> str:
        assert estimate.high is not None
        return self._amount(estimate.value, estimate.high - estimate.value)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _spoken(name: str) -> str:
    return _last(name).replace("_", " ")


def _number(value: Any) -> str:
    """Two digits, as far as a colleague would say; choices as they are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"


def _rounded(count: float) -> str:
    """A count to two digits, thousands apart."""
    return f"{int(float(f'{count:.2g}')):,}"


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
