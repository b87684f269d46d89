"""The sections of a recipe that say what students learn of a teacher beside its logits: ``objective.features``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from setpoint.recipe_values import Count, Index, Part, Positive

Pairs = Annotated[tuple[tuple[Index, Index], ...], Field(min_length=1)]


class _Feature(Part):
    weight: Positive = 1.0
    """Its weight; the loss on logits, where there is one, has 1."""


class StateFeature(_Feature):
    """Hidden states: their squared distance (TinyBERT), 1 − cosine (DistilBERT), or PKD's of the first position."""

    kind: Literal["hidden", "cosine", "pkd"]
    layers: Literal["uniform", "last", "learned"] | Pairs = "uniform"
    """Which layers are compared: each of the student's with the teacher's at the same depth, the last two (for
    ``relations`` where not given), each with a mixture of the teacher's by learnt shares, or a list of pairs
    ``[student's, teacher's]``, where 0 is the output of the embeddings."""
    projection: Literal["auto", "always"] = "auto"
    """A learnt linear map from the student's width to the teacher's: where they differ, or always."""


class AttentionFeature(_Feature):
    """Attention probabilities: their KL (MobileBERT) or squared distance (TinyBERT)."""

    kind: Literal["attention"]
    layers: Literal["uniform", "last", "learned"] | Pairs = "uniform"
    """Which layers are compared."""
    distance: Literal["kl", "mse"] = "kl"
    """How far two attentions are apart."""


class RelationFeature(_Feature):
    """How the positions of a text are related by their hidden states, by KL (MiniLMv2's relations)."""

    kind: Literal["relations"]
    layers: Literal["uniform", "last", "learned"] | Pairs = "last"
    """Which layers are compared."""
    heads: Count | None = None
    """Relation heads, a divisor of both widths; the student's attention heads where not given."""


class MapFeature(_Feature):
    """Where convolutional maps have their energy (attention transfer)."""

    kind: Literal["attention_transfer"]
    layers: Literal["uniform", "last"] | Pairs = "uniform"
    """Which layers are compared."""


def _feature_by_name(value: Any) -> Any:
    if isinstance(value, str):
        return {"kind": value}
    if not isinstance(value, dict | Part):
        raise ValueError("give the name of a feature, or a section of fields")
    if isinstance(value, dict) and "kind" not in value:
        raise ValueError("has no kind: add one, such as hidden")
    return value


def _each_once(features: tuple[FeatureRecipe, ...]) -> tuple[FeatureRecipe, ...]:
    kinds = [feature.kind for feature in features]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise ValueError(f"names '{kind}' twice: give each kind once, with a list of layers")
    return features


FeatureRecipe = Annotated[
    Annotated[StateFeature | AttentionFeature | RelationFeature | MapFeature, Field(discriminator="kind")],
    BeforeValidator(_feature_by_name),
]
Features = Annotated[tuple[FeatureRecipe, ...], AfterValidator(_each_once)]
