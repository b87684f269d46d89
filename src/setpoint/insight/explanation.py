"""What ``explain`` finds: plain frozen values, which ``dataclasses.asdict`` turns into JSON."""

from __future__ import annotations

from dataclasses import dataclass

from setpoint.tuning.prior import Suggestion


@dataclass(frozen=True)
class AtTemperature:
    """What one temperature, of both sides, makes of the targets and of the gradient; means over rows.

    Attributes:
        temperature: T.
        effective_classes: exp(H) of the targets.
        entropy: H of the targets, in nats.
        dark_mass: their mass off the top class.
        other_classes: how many classes share that mass, exp(H) of it, averaged by mass; None where there is no mass.
        runner_up_share: the share of it that the second class has, averaged by mass; None likewise.
        nll: the teacher's loss on the labels at T, in nats; None without labels.
        ece: its expected calibration error at T; None without labels.
        kl: KL(teacher‖student) at T, in nats; None without a student.
        target_gradient: share of the square of the gradient q − p that is on the label's class, or without labels on
            the teacher's top class; the rest is on the others. None, like the next, where there is no gradient.
        tail_gradient: share of it that tells apart the classes which together have less than 1 % of the teacher's mass
            at T = 1. What pushes these classes alike is no part of it: labels alone would do that too.
        hard_gradient: the hard loss's share of the whole gradient, ‖hard‖ / (‖soft‖ + ‖hard‖), each with its weight;
            None without labels.
        gradient_norm: ‖scale · ∂KL/∂z‖ with the scale T², root mean square over rows.
        gradient_norm_unscaled: the same without the scale.
        limit_distance: how far the scaled gradient is from what it tends to as T grows, where distilling is matching
            logits, as a share of that limit; None where the limit is 0.
    """

    temperature: float
    effective_classes: float
    entropy: float
    dark_mass: float
    other_classes: float | None
    runner_up_share: float | None
    nll: float | None
    ece: float | None
    kl: float | None
    target_gradient: float | None
    tail_gradient: float | None
    hard_gradient: float | None
    gradient_norm: float
    gradient_norm_unscaled: float
    limit_distance: float | None


@dataclass(frozen=True)
class Bin:
    """The rows whose confidence is within a bin of a reliability diagram; None for means over no rows."""

    low: float
    high: float
    rows: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Fit:
    """How a model fits the labels at a temperature.

    Attributes:
        model: ``teacher`` or ``student``.
        temperature: T of its softmax.
        accuracy: how often its top class is the label.
        confidence: the mean probability of its top class.
        nll: its mean loss, in nats.
        ece: its expected calibration error.
        bins: the reliability diagram.
    """

    model: str
    temperature: float
    accuracy: float
    confidence: float
    nll: float
    ece: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Fidelity:
    """How far a student says what its teacher says; means over rows.

    Attributes:
        top1: how often both have the same top class.
        kl: KL(teacher‖student) at T = 1, in nats.
        rank_correlation: Spearman's ρ over the classes but the teacher's top one, which no temperature changes; None
            where no row has two others that differ.
    """

    top1: float
    kl: float
    rank_correlation: float | None


@dataclass(frozen=True)
class OfClass:
    """The targets of one class: of the rows labelled so, or without labels of those whose top class it is.

    Attributes:
        name: the class.
        rows: how many there are.
        effective_classes_at_one: exp(H) of the targets at T = 1.
        effective_classes: the same at the temperature that is explained.
        dark_mass_at_one: the mass off the top class at T = 1.
        dark_mass: the same at that temperature.
        beside: the class that is most often the runner-up, or the top class where that is another than this one.
        beside_share: in how many of the rows.
    """

    name: str
    rows: int
    effective_classes_at_one: float
    effective_classes: float
    dark_mass_at_one: float
    dark_mass: float
    beside: str
    beside_share: float


@dataclass(frozen=True)
class Said:
    """One class and what the teacher gives it."""

    name: str
    probability: float


@dataclass(frozen=True)
class Example:
    """One row, and the teacher's most likely classes at T = 1 and at the temperature that is explained.

    Attributes:
        row: its number, from 0, among those that count.
        name: what it was called, or its number among those that were given.
        label: its class; None without labels.
        moved: ½ Σ |p_T − p_1|, the mass that the temperature moves.
        at_one: what the teacher says at T = 1.
        at_temperature: what it says at T.
    """

    row: int
    name: str
    label: str | None
    moved: float
    at_one: tuple[Said, ...]
    at_temperature: tuple[Said, ...]


@dataclass(frozen=True)
class OfType:
    """The rows of one type, such as the words that no training example has; a row may be of several.

    Attributes:
        name: the type.
        rows: how many there are.
        effective_classes: exp(H) of their targets at the temperature that is explained.
        teacher: how often the teacher's top class is the label.
        student: how often the student's is.
        agreement: how often both have the same.
    """

    name: str
    rows: int
    effective_classes: float
    teacher: float
    student: float
    agreement: float


@dataclass(frozen=True)
class AtBoth:
    """KL(teacher‖student) at one temperature of both sides, in nats, on training and on validation rows."""

    temperature: float
    train: float
    validation: float


@dataclass(frozen=True)
class Overfit:
    """How much nearer a student is to its teacher, and to the labels, on what it was trained on.

    Attributes:
        examples: how many training examples were looked at.
        at: the divergence over T.
        train: how the student fits the training labels at T = 1.
        validation: how it fits the validation labels.
    """

    examples: int
    at: tuple[AtBoth, ...]
    train: Fit
    validation: Fit


@dataclass(frozen=True)
class Section:
    """What a colleague would say of one side of it."""

    title: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """Why a temperature, or why not.

    Attributes:
        temperature: T, the one that is explained.
        alpha: the weight of the divergence.
        rows: how many rows were measured; those labelled -100 were not.
        classes: C.
        unmasked_classes: those of a row that are not masked, mean over rows.
        student: ``given``, or ``uniform``: q = 1/C, which an untrained student says, where none was given.
        sections: the sentences.
        suggestion: what the teacher's logits alone suggest.
        over_temperature: the table over T, which has T = 1, the explained, the suggested and the calibrated T in it.
        fits: how the teacher fits the labels at T = 1 and at its calibrated T, and the student at T = 1.
        fidelity: how far the student says what the teacher says; None without one.
        by_class: a view for each class that has rows.
        most_changed: the rows whose targets the temperature moves most.
        least_sure: the rows where the teacher's top class has least at T = 1.
        by_type: a view for each type of rows, of a run whose task tells some apart.
        overfit: training rows beside validation rows; None where it is of no run.
    """

    temperature: float
    alpha: float
    rows: int
    classes: int
    unmasked_classes: float
    student: str
    sections: tuple[Section, ...]
    suggestion: Suggestion
    over_temperature: tuple[AtTemperature, ...]
    fits: tuple[Fit, ...]
    fidelity: Fidelity | None
    by_class: tuple[OfClass, ...]
    most_changed: tuple[Example, ...]
    least_sure: tuple[Example, ...]
    by_type: tuple[OfType, ...] = ()
    overfit: Overfit | None = None

    def at(self, temperature: float) -> AtTemperature:
        """The table's row for a temperature that is in it."""
        return next(row for row in self.over_temperature if row.temperature == temperature)
