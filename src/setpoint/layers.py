"""Which layers two models have, by their configurations, and which of them are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from setpoint.errors import ModelError
from setpoint.recipe_features import AttentionFeature, FeatureRecipe, RelationFeature

Layers = Literal["uniform", "last", "learned"] | Sequence[tuple[int, int]]


def layer_pairs(
    layers: Layers, student: int, teacher: int, first: int = 0, field: str = "objective.features"
) -> tuple[tuple[int, int], ...]:
    """Which teacher layer each student layer is compared with; layers count from 1, and 0 is the embeddings' output.

    Args:
        layers: ``uniform``, m with m · teacher / student, rounded, halves up; ``last``, the last with the last;
            ``learned``, for which there are no pairs; or pairs.
        student: its number of layers.
        teacher: its number of layers.
        first: 0 where there is a state before the first layer, 1 where there is none (attentions).
        field: names the feature's section in errors.

    Raises:
        ModelError: pairs name a layer that is not there.

    Source: Jiao et al. 2020 (TinyBERT), arXiv:1909.10351, for the uniform ones.

    Examples:
        >>> layer_pairs("uniform", 4, 12), layer_pairs("last", 4, 12)
        (((0, 0), (1, 3), (2, 6), (3, 9), (4, 12)), ((4, 12),))
    """
    if layers == "uniform":
        return tuple((m, (2 * m * teacher + student) // (2 * student)) for m in range(first, student + 1))
    if layers == "last":
        return ((student, teacher),)
    if layers == "learned":
        return ()
    for pair in layers:
        for who, layer, most in (("student", pair[0], student), ("teacher", pair[1], teacher)):
            if not first <= layer <= most:
                raise ModelError(
                    f"{field} compares layer {layer} of the {who}, which has {first} to {most}",
                    "mend the list of layers",
                )
    return tuple(layers)


@dataclass(frozen=True)
class Shape:
    """What a model's configuration says of its inside: its layers, and width, heads and maps where it has them."""

    name: str
    field: str
    layers: int
    width: int | None
    heads: int | None
    maps: bool
    attention_dropout: float

    @classmethod
    def of(cls, config: Any, who: str, field: str = "objective.features") -> Shape:
        """That of a configuration of transformers; ``who`` names the model in errors, ``field`` the features' section.

        Raises:
            ModelError: it names no layers.
        """
        maps = getattr(config, "hidden_sizes", None) or getattr(config, "widths", None)
        layers = len(maps) if maps else getattr(config, "num_hidden_layers", None)
        if not layers:
            raise ModelError(f"{field} needs the layers of the {who}, whose config names none", "remove the features")
        drops = [
            value
            for name, value in vars(config).items()
            if name.startswith("att") and ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float)
        ]
        width, heads = (getattr(config, name, None) for name in ("hidden_size", "num_attention_heads"))
        return cls(
            name=who,
            field=field,
            layers=layers,
            width=width if isinstance(width, int) and not maps else None,
            heads=heads if isinstance(heads, int) else None,
            maps=bool(maps),
            attention_dropout=max(drops, default=0.0),
        )


def relation_heads(feature: RelationFeature, student: Shape) -> int:
    """Into how many parts states are split: as many as said, or as the student has attention heads."""
    return feature.heads or student.heads or 1


def check_feature(feature: FeatureRecipe, student: Shape, teacher: Shape) -> None:
    """Refuse a feature of states that one of the models does not have.

    Raises:
        ModelError: it is one.
    """
    for shape in (student, teacher):
        needs = {
            "attention": ("attention heads", shape.heads),
            "attention_transfer": ("convolutional maps", shape.maps),
        }
        what, there = needs.get(feature.kind, ("hidden states of one width", shape.width))
        if not there:
            raise ModelError(
                f"{student.field} has {feature.kind} while the {shape.name} has no {what}", "remove that feature"
            )
        heads = relation_heads(feature, student) if isinstance(feature, RelationFeature) else 1
        if shape.width is not None and shape.width % heads:
            raise ModelError(
                f"{student.field} has {heads} relation heads, which do not divide a width of {shape.width},"
                f" the {shape.name}'s",
                "give heads, a divisor of both widths",
            )
    if isinstance(feature, AttentionFeature) and student.attention_dropout > 0:
        # What transformers gives as attentions has gone through dropout: some of it 0, the rest too large.
        raise ModelError(
            f"{student.field} has attention while the student drops {student.attention_dropout:g} of its own",
            "set student.dropout to 0, or that field of its config",
        )
