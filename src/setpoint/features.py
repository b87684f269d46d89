"""What a student learns of a teacher's inner states: projections, shares of layers, and sums over positions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from setpoint.errors import LossError, TargetError
from setpoint.layers import Layers, Shape, check_feature, layer_pairs, relation_heads
from setpoint.maths.features import (
    attention_kl,
    attention_mse,
    attention_transfer,
    hidden_cosine,
    hidden_mse,
    pkd,
    relation_kl,
)
from setpoint.maths.moments import wide
from setpoint.maths.reduce import masked_mean
from setpoint.recipe_features import AttentionFeature, FeatureRecipe, MapFeature, RelationFeature, StateFeature

STATES = {"hidden": hidden_mse, "cosine": hidden_cosine, "pkd": pkd}
ATTENTIONS = {"kl": attention_kl, "mse": attention_mse}


@dataclass(frozen=True)
class FeatureSum:
    """A term over a batch: the sum over what counts, a scalar, and how much counts; who trains divides.

    Attributes:
        total: the sum over layers and over positions, or over examples; without a mask each example, all of whose
            positions count, adds the mean over its positions.
        count: of the positions, or of the examples.
        per: what is counted.
    """

    total: Tensor
    count: Tensor | int
    per: Literal["positions", "examples"]


class FeatureObjective(nn.Module):
    """Σ weight · distance of inner states: a sum over layers, and a mean over positions that is left to the trainer.

    It holds what is learnt beside the student: the projections to the teacher's width, one a feature, and the shares of
    the teacher's layers. Neither is part of the student.

    Args:
        features: sections of a recipe, each of another kind.
        student: the student's configuration, of transformers.
        teacher: the teacher's.
        field: names the sections in errors.

    Raises:
        ModelError: a model that has no such states.

    Examples:
        >>> from transformers import BertConfig, BertModel
        >>> small = BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=2)
        >>> large = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=2, num_attention_heads=2)
        >>> objective = FeatureObjective([StateFeature(kind="hidden"), RelationFeature(kind="relations")], small, large)
        >>> ids, mask = torch.tensor([[1, 2, 0]]), torch.tensor([[1, 1, 0]])
        >>> student, teacher = (
        ...     BertModel(config)(input_ids=ids, attention_mask=mask, **objective.asks) for config in (small, large))
        >>> {name: int(part.count) for name, part in objective(student, teacher, mask).items()}
        {'hidden': 2, 'relations': 2}
    """

    def __init__(
        self, features: Sequence[FeatureRecipe], student: Any, teacher: Any, field: str = "objective.features"
    ) -> None:
        super().__init__()
        shapes = Shape.of(student, "student", field), Shape.of(teacher, "teacher", field)
        for feature in features:
            check_feature(feature, *shapes)
        self.weights: dict[str, float] = {feature.kind: feature.weight for feature in features}
        self.terms = nn.ModuleDict({feature.kind: _term(feature, *shapes) for feature in features})

    @property
    def asks(self) -> dict[str, bool]:
        """What both models have to be called with, such as ``output_hidden_states``."""
        return {f"output_{name}": True for name in self.reads}

    @property
    def reads(self) -> tuple[str, ...]:
        """Which of ``hidden_states`` and ``attentions`` are read of either output."""
        return tuple(dict.fromkeys(str(term.reads) for term in self.terms.values()))

    @property
    def teacher_layers(self) -> tuple[int, ...]:
        """Which of the teacher's layers are read, in order; 0 is the output of the embeddings."""
        return tuple(sorted({layer for term in self.terms.values() for layer in term.teacher_layers}))  # type: ignore[union-attr]

    def forward(self, student: Any, teacher: Any, mask: Tensor | None = None) -> dict[str, FeatureSum]:
        """The terms of a batch by the names of their kinds, unweighted.

        Args:
            student: what the model gives, a mapping or an object, with ``hidden_states`` (the embeddings' output and
                that of each layer) and ``attentions`` (of each layer).
            teacher: likewise; detached here.
            mask: ``[B, L]``, True or 1 where a position is no padding; all are where None.

        Raises:
            TargetError: states that are missing, or of shapes that do not fit.
        """
        given = None if mask is None else mask.bool()
        states = {
            name: (
                [wide(s) for s in _states(student, name, "student")],
                [wide(t.detach()) for t in _states(teacher, name, "teacher")],
            )
            for name in self.reads
        }
        # A product in half precision would tell two relations apart by rounding alone.
        with torch.autocast(states[self.reads[0]][0][0].device.type, enabled=False):
            return {name: term(*states[str(term.reads)], given) for name, term in self.terms.items()}

    def means(
        self, student: Any, teacher: Any, mask: Tensor | None = None, step: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The terms of a batch, each divided by what counts; arguments as of the call.

        Args:
            student: as of the call.
            teacher: as of the call.
            mask: as of the call.
            step: how many ``positions`` and ``examples`` count in the whole optimisation step, where this batch is a
                part of it: the parts' terms then sum to the mean.

        Raises:
            TargetError: as of the call.
            LossError: a term is not a finite number.
        """
        parts = self(student, teacher, mask)
        counts = {name: torch.as_tensor(part.count) if step is None else step[part.per] for name, part in parts.items()}
        means = {name: masked_mean(part.total, num_valid=counts[name]) for name, part in parts.items()}
        for name, value in zip(means, torch.stack([value.detach() for value in means.values()]).tolist(), strict=True):
            if not math.isfinite(value):
                raise LossError(f"the {name} feature is {value}", "lower the learning rate", 0)
        return means

    @staticmethod
    def counted(batches: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """How many positions and examples count in some batches, by ``attention_mask`` and, else, ``labels``."""
        masks = [batch["attention_mask"] for batch in batches if "attention_mask" in batch]
        return {
            "positions": torch.tensor(sum(int(mask.sum()) for mask in masks)),
            "examples": torch.tensor(sum(len(batch.get("attention_mask", batch.get("labels"))) for batch in batches)),
        }


# ---------------------------------------------------------------------------------------------------- terms


class _Term(nn.Module):
    """One feature: its pairs of layers, and what is done with each."""

    reads = "hidden_states"
    first = 0

    def __init__(self, layers: Layers, student: Shape, teacher: Shape) -> None:
        super().__init__()
        self.pairs = layer_pairs(layers, student.layers, teacher.layers, self.first, student.field)
        self.teacher_layers = {t for _, t in self.pairs}
        if layers == "learned":  # equal shares first
            self.shares = nn.Parameter(torch.zeros(student.layers, teacher.layers))
            self.teacher_layers = set(range(1, teacher.layers + 1))

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None) -> FeatureSum:
        raise NotImplementedError

    def layers(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """The states that are compared: those of each pair, or of each student layer and its share of the teacher's."""
        for s, t in self.pairs:
            yield student[s - self.first], teacher[t - self.first]
        if not self.pairs:
            below = 1 - self.first  # the embeddings are no layer
            mixed = torch.tensordot(self.shares.softmax(-1), torch.stack(list(teacher[below:])), dims=1)
            yield from zip(student[below:], mixed, strict=True)


class _States(_Term):
    def __init__(self, feature: StateFeature, student: Shape, teacher: Shape) -> None:
        super().__init__(feature.layers, student, teacher)
        assert student.width is not None
        assert teacher.width is not None
        self.distance, self.once = STATES[feature.kind], feature.kind == "pkd"
        self.projection: nn.Module = nn.Identity()
        if feature.projection == "always" or student.width != teacher.width:
            self.projection = nn.Linear(student.width, teacher.width, bias=False)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None) -> FeatureSum:
        numbers = _positions(student[0], mask, self.once)
        total = student[0].new_zeros(())
        for s, t in self.layers(student, teacher):
            _check_alike(s, t, mask)
            s, t = (x.flatten(0, 1).index_select(0, numbers) for x in (s, t))
            total = total + self.distance(self.projection(s), t).sum()
        return FeatureSum(total, len(numbers), "examples") if self.once else _over_positions(total, student[0], mask)


class _Attentions(_Term):
    reads = "attentions"
    first = 1

    def __init__(self, feature: AttentionFeature, student: Shape, teacher: Shape) -> None:
        super().__init__(feature.layers, student, teacher)
        self.distance = ATTENTIONS[feature.distance]
        self.heads = student.heads == teacher.heads

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None) -> FeatureSum:
        if not self.pairs and not self.heads:
            teacher = [t.mean(1, keepdim=True) for t in teacher]
        total = student[0].new_zeros(())
        for s, t in self.layers(student, teacher):
            _check_alike(s[:, 0], t[:, 0], mask)
            total = total + self.distance(s, t, mask).sum()
        return _over_positions(total, student[0][:, 0], mask)


class _Relations(_Term):
    def __init__(self, feature: RelationFeature, student: Shape, teacher: Shape) -> None:
        super().__init__(feature.layers, student, teacher)
        self.heads = relation_heads(feature, student)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None) -> FeatureSum:
        total = student[0].new_zeros(())
        for s, t in self.layers(student, teacher):
            _check_alike(s, t, mask)
            total = total + relation_kl(s, t, self.heads, mask).sum()
        return _over_positions(total, student[0], mask)


class _Maps(_Term):
    first = 1

    def __init__(self, feature: MapFeature, student: Shape, teacher: Shape) -> None:
        super().__init__(feature.layers, student, teacher)
        self.stages = student.layers, teacher.layers

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None) -> FeatureSum:
        # In front of the stages' maps some models have that of their stem.
        student, teacher = (maps[-n:] for maps, n in zip((student, teacher), self.stages, strict=True))
        total = student[0].new_zeros(())
        for s, t in self.layers(student, teacher):
            if s.shape[-2:] != t.shape[-2:]:
                raise TargetError(
                    f"objective.features compares maps of {tuple(s.shape[-2:])} and {tuple(t.shape[-2:])} positions",
                    "give pairs of layers whose maps have one size",
                )
            total = total + attention_transfer(s, t).sum()
        return FeatureSum(total, len(student[0]), "examples")


def _term(feature: FeatureRecipe, student: Shape, teacher: Shape) -> _Term:
    if isinstance(feature, StateFeature):
        return _States(feature, student, teacher)
    if isinstance(feature, AttentionFeature):
        return _Attentions(feature, student, teacher)
    if isinstance(feature, RelationFeature):
        return _Relations(feature, student, teacher)
    return _Maps(feature, student, teacher)


# ---------------------------------------------------------------------------------------------------- checks


def _states(output: Any, name: str, who: str) -> Sequence[Tensor]:
    states = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
    if not states or states[0] is None:
        raise TargetError(f"the {who} gives no {name}", "remove the feature that reads them")
    return states  # type: ignore[no-any-return]


def _check_alike(student: Tensor, teacher: Tensor, mask: Tensor | None) -> None:
    """Refuse states ``[B, L, …]`` of other positions than those of the other model, or of the mask."""
    if student.shape[:2] != teacher.shape[:2] or (mask is not None and mask.shape != student.shape[:2]):
        shapes = [tuple(x.shape[:2]) for x in (student, teacher, *([] if mask is None else [mask]))]
        raise TargetError(
            f"objective.features compares states of {' and '.join(map(str, shapes))} examples and positions",
            "give teacher and student that read the same tokens or patches",
        )


def _over_positions(total: Tensor, states: Tensor, mask: Tensor | None) -> FeatureSum:
    if mask is None:  # how many positions a whole step has is not known from its batches, as of images
        return FeatureSum(total / states.shape[1], len(states), "examples")
    return FeatureSum(total, mask.sum(), "positions")


def _positions(states: Tensor, mask: Tensor | None, first: bool) -> Tensor:
    """The numbers of the positions that count in ``[B·L]``: all that are no padding, or each example's first."""
    if first:
        starts = torch.arange(states.shape[0], device=states.device) * states.shape[1]
        return starts if mask is None else starts + mask.int().argmax(-1)
    if mask is None:
        return torch.arange(states.shape[0] * states.shape[1], device=states.device)
    return mask.flatten().nonzero().squeeze(-1)
