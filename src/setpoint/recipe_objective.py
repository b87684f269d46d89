"""The sections of a recipe that say what the loss is: the divergence, its companions, and the hard targets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from setpoint.recipe_features import Features
from setpoint.recipe_values import Amount, Count, Fraction, Part, Positive, Rate


class PlainDivergence(Part):
    """A divergence without numbers of its own."""

    kind: Literal[
        "forward_kl",
        "reverse_kl",
        "jensen_shannon",
        "soft_cross_entropy",
        "logit_mse",
        "squared_error",
        "total_variation",
        "todi",
    ]
    """How far the student is from the teacher."""


class SkewDivergence(Part):
    """KL against a mixture of the two (DistiLLM)."""

    kind: Literal["skew_forward_kl", "skew_reverse_kl"]
    skew: Rate = 0.1
    """Share of the first distribution in the mixture."""


class AlphaBetaDivergence(Part):
    """The α–β divergence (ABKD)."""

    kind: Literal["alpha_beta"]
    alpha: Amount = 0.5
    """Power of the teacher's probabilities."""
    beta: Amount = 0.5
    """Power of the student's probabilities."""

    @model_validator(mode="after")
    def _not_both_zero(self) -> AlphaBetaDivergence:
        if self.alpha + self.beta == 0:
            raise ValueError("has alpha and beta 0: give one above 0")
        return self


class DecoupledDivergence(Part):
    """DKD: the target class and the others apart."""

    kind: Literal["dkd"]
    target: Amount = 1.0
    """Weight of the target class against all others."""
    other: Amount = 8.0
    """Weight of the distribution over the others."""


class NormalisedDivergence(Part):
    """NKD: the others renormalised at T, the target at T = 1."""

    kind: Literal["nkd"]
    other: Amount = 1.5
    """Weight of the others."""


class CorrelationDivergence(Part):
    """DIST: Pearson correlations within rows and between them."""

    kind: Literal["dist"]
    within: Amount = 1.0
    """Weight of the relation between the classes of a row."""
    between: Amount = 1.0
    """Weight of the relation between the rows of a class."""


class AdaptiveDivergence(Part):
    """AKL: forward and reverse KL, by where the two differ."""

    kind: Literal["adaptive_kl"]
    head: Annotated[Positive, Field(lt=1)] = 0.5
    """Probability mass that is the head."""


def _divergence_by_name(value: Any) -> Any:
    if isinstance(value, str):
        return {"kind": value}
    if value is not None and not isinstance(value, dict | Part):
        raise ValueError("give the name of a divergence, or a section of fields")
    return value


DivergenceRecipe = Annotated[
    Annotated[
        PlainDivergence
        | SkewDivergence
        | AlphaBetaDivergence
        | DecoupledDivergence
        | NormalisedDivergence
        | CorrelationDivergence
        | AdaptiveDivergence,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_divergence_by_name),
]


class HardRecipe(Part):
    """What the hard loss is taken against."""

    kind: Literal["labels", "teacher_argmax", "teacher_sample"] = "labels"
    """The data's labels, the teacher's most likely class, or a class sampled from its p_T."""
    top_k: Count | None = None
    """Sample among that many most likely classes only."""
    label_smoothing: Rate = 0.0
    """Share of the target that is spread over all classes."""
    mixture: Fraction = 1.0
    """Share of the teacher's class in the target; the rest is the data's label."""
    min_confidence: Fraction = 0.0
    """Probability below which the teacher's class does not count."""

    @model_validator(mode="after")
    def _top_k_of_a_sample(self) -> HardRecipe:
        if self.top_k is not None and self.kind != "teacher_sample":
            raise ValueError(f"has top_k with kind '{self.kind}': remove top_k, or set kind to teacher_sample")
        if self.kind == "labels" and (self.mixture < 1 or self.min_confidence > 0):
            raise ValueError("asks the teacher with kind 'labels': set kind to teacher_argmax or teacher_sample")
        return self


class ObjectiveRecipe(Part):
    """α · divergence + (1 − α) · hard loss, and what features there are, each by its own weight."""

    divergence: DivergenceRecipe | None = None
    """A name, or a section with ``kind``; where not given, that of the policy: ``forward_kl`` for most."""
    alpha: Fraction = 0.9
    """α, the weight of the divergence."""
    hard: HardRecipe = HardRecipe()
    """What the hard loss is taken against."""
    wrong_teacher: Fraction = 1.0
    """Weight of the divergence on rows that the teacher gets wrong."""
    features: Features = ()
    """What is learnt of the teacher's inner states: names, or sections with ``kind``; the teacher has to be live."""
