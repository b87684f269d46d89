"""The sections of a recipe that say how the temperature is set, one for each policy.

Their fields and defaults are the arguments of the policy of that name in ``setpoint.temperature``; a test holds the two
together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from setpoint.recipe_values import (
    Amount,
    Beta,
    Count,
    Fraction,
    MaskShare,
    Part,
    Positive,
    Progress,
    Rate,
    Temperature,
)


class ConstantTemperature(Part):
    """One temperature, as ``temperature`` or ``beta`` = 1/T; or one for each side, ``teacher`` and ``student``."""

    policy: Literal["constant"] = "constant"
    temperature: Temperature | None = None
    """T, of both sides."""
    beta: Beta | None = None
    """1/T, of both sides."""
    teacher: Temperature | None = None
    """T of the teacher's logits."""
    student: Temperature | None = None
    """T of the student's logits."""

    @model_validator(mode="after")
    def _one_way(self) -> ConstantTemperature:
        one = (self.temperature is not None) + (self.beta is not None)
        sides = (self.teacher is not None) + (self.student is not None)
        if (one, sides) not in {(1, 0), (0, 2)}:
            raise ValueError("is not one temperature: give temperature, or beta, or both teacher and student")
        return self

    @property
    def of_teacher(self) -> float:
        """T of the teacher's logits, however it was given."""
        return self.temperature or self.teacher or 1 / (self.beta or 1)


class ScheduledTemperature(Part):
    """A temperature that goes from ``start`` to ``end`` over the training; or ``beta``, the two as 1/T."""

    policy: Literal["linear", "cosine", "exponential"]
    """The shape of the way."""
    start: Temperature | None = None
    """T at the first step."""
    end: Temperature | None = None
    """T at the last step."""
    beta: tuple[Beta, Beta] | None = None
    """1/T at the first step and at the last."""

    @model_validator(mode="after")
    def _one_way(self) -> ScheduledTemperature:
        given = tuple(value is not None for value in (self.start, self.end, self.beta))
        if given not in {(True, True, False), (False, False, True)}:
            raise ValueError("is not two temperatures: give start and end, or beta for both")
        return self


class StepTemperature(Part):
    """A temperature that jumps."""

    policy: Literal["step"]
    steps: dict[Progress, Temperature] | None = None
    """Maps the progress at which a temperature begins to it; the first is 0."""
    beta: dict[Progress, Beta] | None = None
    """The same with 1/T."""

    @model_validator(mode="after")
    def _starts_at_zero(self) -> StepTemperature:
        if (self.steps is None) == (self.beta is None):
            raise ValueError("is not one list of temperatures: give steps, or beta for each step")
        if 0.0 not in (self.steps or self.beta or {}):
            raise ValueError("has no temperature for the start: give one for progress 0.0")
        return self


class ProgressiveTemperature(Part):
    """A temperature that climbs by equal steps."""

    policy: Literal["progressive"]
    start: Temperature = 1.0
    """T of the first stage."""
    end: Temperature = 2.0
    """T of the last stage."""
    stages: Annotated[Count, Field(ge=2)] = 4
    """Equal parts of the training, each with its temperature."""


class MultiTemperature(Part):
    """The sum of the divergence at several temperatures."""

    policy: Literal["multi"]
    temperatures: Annotated[tuple[Temperature, ...], Field(min_length=1)] = (2.0, 3.0, 4.0, 5.0, 6.0)
    """The temperatures."""


class SoftnessTemperature(Part):
    """The temperature at which the targets are as soft as wanted, by row or for the data set."""

    policy: Literal["softness"]
    effective_classes: Annotated[Positive, Field(gt=1)] | None = None
    """Wanted number of equally likely classes, exp(H)."""
    entropy: Positive | None = None
    """Wanted entropy H, in nats."""
    other_mass: Annotated[Positive, Field(lt=1)] | None = None
    """Wanted probability of all classes but the top one."""
    end: Positive | None = None
    """The same at the last step, where it shall change."""
    per: Literal["row", "dataset"] = "row"
    """A temperature for each row, or one at which the mean is as wanted."""

    @model_validator(mode="after")
    def _one_kind(self) -> SoftnessTemperature:
        given = (self.effective_classes, self.entropy, self.other_mass)
        if sum(value is not None for value in given) != 1:
            raise ValueError("is not one softness: give effective_classes, or entropy, or other_mass")
        return self


class SpreadTemperature(Part):
    """A ratio to the spread of each row's logits: standardised (LSKD), or weighted by variance too (NormKD)."""

    policy: Literal["lskd", "normkd"]
    temperature: Temperature = 2.0
    """T after the spread is divided out."""


class SphericalTemperature(Part):
    """Spherical KD: every row of logits brought to the teacher's mean spread, then T."""

    policy: Literal["spherical"]
    temperature: Temperature = 4.0
    """T after that."""


class DynamicTemperature(Part):
    """DTKD: temperatures that level the top logits of teacher and student."""

    policy: Literal["dtkd"]
    temperature: Temperature = 4.0
    """The mean of the two."""
    own: Fraction = 0.75
    """Share of the term with temperatures of their own; the rest has the mean on both sides."""
    warmup: Fraction = 1 / 12
    """Share of the training over which the divergence grows to its weight."""


class TeacherTemperature(Part):
    """The teacher at T and the student at 1: TTM, or weighted by softness (WTTM)."""

    policy: Literal["ttm", "wttm"]
    temperature: Temperature = 4.0
    """T of the teacher."""


class AsymmetricTemperature(Part):
    """ATS: one temperature for the teacher's logit of the right class, another for the others."""

    policy: Literal["ats"]
    target: Temperature = 4.0
    """T of the label's class."""
    other: Temperature = 2.0
    """T of the others."""


class FocalTemperature(Part):
    """FLSW: lower temperatures for rows on which student and teacher disagree."""

    policy: Literal["flsw"]
    temperature: Temperature = 4.0
    """T of a row of mean difficulty."""
    strength: Amount = 1.0
    """How far difficulty moves T."""
    gamma: Positive = 2.0
    """The power of 1 − cosine that difficulty is."""
    lowest: Temperature = 1.0
    """The lowest T a row gets."""


class ConfidenceTemperature(Part):
    """CWSM: lower temperatures for rows on which the student is unsure."""

    policy: Literal["cwsm"]
    temperature: Temperature = 4.0
    """T of a row of mean difficulty."""
    strength: Amount = 1.0
    """How far difficulty moves T."""
    lowest: Temperature = 1.0
    """The lowest T a row gets."""


class WeightedSoftLabels(Part):
    """WSLD: a constant T; rows that the student knows better than the teacher count less."""

    policy: Literal["wsld"]
    temperature: Temperature = 4.0
    """T, of both sides."""


class AnnealedTeacher(Part):
    """The teacher's logits shrunk first and whole later, matched by squared error; then labels alone (Annealing-KD)."""

    policy: Literal["annealing"]
    steps: Count = 10
    """How many levels the teacher's logits go through, from 1/steps to 1."""
    share: MaskShare = 2 / 3
    """The first phase's share of the training."""


class ContinuedTeacher(Part):
    """Annealing-KD with the hard loss fading in (Continuation-KD)."""

    policy: Literal["continuation"]
    steps: Count = 20
    """How many levels the teacher's logits go through, from 1/steps to 1."""
    share: MaskShare = 0.75
    """The share of the training after which the hard loss is alone."""


class LossGapTemperature(Part):
    """DTS: a cosine downwards, held up while the student's loss is far above the teacher's."""

    policy: Literal["dts"]
    temperature: Temperature = 4.0
    """T at the start."""
    lowest: Temperature = 2.0
    """The lowest T."""
    highest: Temperature = 4.0
    """The highest T."""

    @model_validator(mode="after")
    def _in_order(self) -> LossGapTemperature:
        if self.lowest > self.highest:
            raise ValueError("has lowest above highest: give lowest at most as high")
        return self


class LearnedTemperature(Part):
    """CTKD: a learned temperature that makes the loss harder, one for all or (ctkd_instance) one a row."""

    policy: Literal["ctkd", "ctkd_instance"]
    lowest: Temperature = 1.0
    """The lower bound of T."""
    span: Temperature = 20.0
    """How far above it T can go."""
    warmup: Fraction = 10 / 240
    """Share of the training over which T learns to move."""


class ReinforcedTemperature(Part):
    """ITKD: an agent that learns, from how the student's accuracy moves, which temperature each row gets."""

    policy: Literal["itkd"]
    highest: Temperature = 10.0
    """The upper bound of T."""
    warmup: Fraction = 20 / 240
    """Share of the training at ``start``, before the agent acts."""
    start: Temperature = 4.0
    """T in that time."""
    every: Annotated[Count, Field(le=10_000)] = 20
    """Batches between two updates of the agent."""


class MetaTemperature(Part):
    """A learned temperature that lowers the student's loss on examples held out of the training."""

    policy: Literal["meta"]
    start: Temperature = 4.0
    """T at the first step."""
    rate: Positive = 0.05
    """How far log T moves at most, about, each time."""
    every: Count = 10
    """Steps of the student between two moves."""
    held_out: Annotated[MaskShare, Field(le=0.5)] = 0.05
    """The share of the training examples that is held out: 64 of them at least, half of them at most."""


class TokenTemperature(Part):
    """AdaKD: the hardest rows alone, each at its own temperature."""

    policy: Literal["adakd"]
    temperature: Temperature = 1.0
    """T of a row of median difficulty."""
    strength: Amount = 0.5
    """How far difficulty moves T."""
    tolerance: Annotated[Rate, Field(gt=0)] = 0.05
    """How much the loss has to move, and how much the share of rows then does."""
    warmup: Fraction = 0.05
    """Share of the training in which all rows are kept."""


class InterpolatedTeacher(Part):
    """TAID: targets that go from the student's own to the teacher's."""

    policy: Literal["taid"]
    start: Fraction = 0.4
    """The teacher's share at the first step."""
    rate: Amount = 5e-4
    """How fast it may run ahead of the even way."""
    momentum: Rate = 0.99
    """Of the running mean of the loss's fall."""


def _temperature_by_number(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"policy": "constant", "temperature": value}
    if isinstance(value, str):
        return {"policy": value}
    if not isinstance(value, dict | Part):
        raise ValueError("give a number above 0, the name of a policy, or a section of fields")
    return value if isinstance(value, Part) or "policy" in value else {"policy": "constant", **value}


TemperatureRecipe = Annotated[
    Annotated[
        ConstantTemperature
        | ScheduledTemperature
        | StepTemperature
        | ProgressiveTemperature
        | MultiTemperature
        | SoftnessTemperature
        | SpreadTemperature
        | SphericalTemperature
        | DynamicTemperature
        | TeacherTemperature
        | AsymmetricTemperature
        | FocalTemperature
        | ConfidenceTemperature
        | WeightedSoftLabels
        | AnnealedTeacher
        | ContinuedTeacher
        | LossGapTemperature
        | LearnedTemperature
        | ReinforcedTemperature
        | MetaTemperature
        | TokenTemperature
        | InterpolatedTeacher,
        Field(discriminator="policy"),
    ],
    BeforeValidator(_temperature_by_number),
]
