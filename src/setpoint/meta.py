"""The gradient by which a temperature learns from held-out labels: one step of lookahead, by finite differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from setpoint.errors import LossError, TemperatureError
from setpoint.objective import DistillationObjective, same_random_numbers
from setpoint.temperature import MetaTemperature
from setpoint.types import IGNORED_LABEL, LossOutput, logits_of

Loss = Callable[[], Tensor]


def meta_step(
    objective: DistillationObjective,
    model: nn.Module,
    train_batch: Mapping[str, Any],
    held_batch: Mapping[str, Any],
    learning_rate: float,
) -> float:
    """Move a learned temperature down the held-out loss after the student's next step; gives T.

    Call it between two steps of a loop of your own, about once in ``policy.every`` of them. The student's weights,
    gradients, buffers and mode, and the random numbers, are afterwards as before; the optimiser is not touched.

    Args:
        objective: whose temperature is a ``MetaTemperature``.
        model: the student; called with ``inputs``, it gives logits ``[..., C]`` or what holds them.
        train_batch: ``inputs``, a tensor or a mapping of arguments; ``teacher_logits`` ``[..., C]``; and ``labels``
            ``[...]``, −100 where a row has none, where the objective needs them.
        held_batch: ``inputs`` and ``labels`` of rows that the student is not trained on.
        learning_rate: of the student's next step.

    Raises:
        TemperatureError: the objective's temperature is another policy.
        TargetError: as of the objective.

    Examples:
        >>> student, teacher_logits = nn.Linear(2, 3), 9 * torch.eye(3)
        >>> objective = DistillationObjective(MetaTemperature(start=2.0), alpha=1.0)
        >>> train = {"inputs": torch.randn(3, 2), "teacher_logits": teacher_logits}
        >>> held = {"inputs": torch.randn(3, 2), "labels": torch.tensor([0, 1, 2])}
        >>> meta_step(objective, student, train, held, learning_rate=0.1) != 2.0
        True
    """
    policy = objective.temperature
    if not isinstance(policy, MetaTemperature):
        raise TemperatureError(f"the temperature is a {type(policy).__name__}", "give a MetaTemperature")

    def logits(inputs: Any) -> Tensor:
        return logits_of(model(**inputs) if isinstance(inputs, Mapping) else model(inputs))

    def train_loss() -> Tensor:
        given = {name: train_batch.get(name) for name in ("teacher_logits", "labels")}
        loss: LossOutput = objective(student_logits=logits(train_batch["inputs"]), **given)
        return loss.total

    def held_loss() -> Tensor:
        return label_loss(logits(held_batch["inputs"]), held_batch["labels"])

    found = hypergradient(policy, model, train_loss, held_loss, learning_rate)
    if found is not None:
        policy.move(found)
    return policy.temperature


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy at T = 1, in nats, of logits ``[..., C]`` on labels ``[...]``, −100 where there is none.

    Examples:
        >>> round(float(label_loss(torch.zeros(2, 3), torch.tensor([1, -100]))), 3)
        1.099
    """
    flat = logits.flatten(0, -2)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    return functional.cross_entropy(flat, labels.flatten().long(), ignore_index=IGNORED_LABEL)


def hypergradient(
    policy: MetaTemperature,
    model: nn.Module,
    train_loss: Loss,
    held_loss: Loss,
    learning_rate: float,
    gradients: Sequence[Tensor | None] | None = None,
    rounding: torch.dtype | None = None,
) -> Tensor | None:
    """dL_held(w − η·∂L_train/∂w) / dθ, a scalar: how the held-out loss after the next step changes with log T.

    By the chain rule it is −η · vᵀ·∂²L_train/∂w∂θ with v = ∇L_held after the step. The mixed derivative along v is the
    central difference of ∂L_train/∂θ at w ± ε·v. The step is that of plain gradient descent, whatever the optimiser.

    Both passes of ``train_loss`` have the mode of the model and the same random numbers, so the same dropout;
    ``held_loss`` is taken in eval mode. Only trainable weights are moved, and put back bit by bit.

    Args:
        policy: that ``train_loss`` depends on.
        model: the student.
        train_loss: computes the loss of the step anew.
        held_loss: computes the loss on held-out labels anew.
        learning_rate: η.
        gradients: ∂L_train/∂w of the trainable weights, where they are there already; computed otherwise.
        rounding: the dtype in which the model computes, where it is not that of its weights (autocast): the coarser
            it is, the longer the difference.

    Returns:
        None where nothing can be learnt: a loss that does not depend on T (α = 0), or that is not finite.

    Source: Liu et al. 2019 (DARTS, ICLR), arXiv:1806.09055, equations 7 and 8, with an ε of another size.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights:
        return None
    with _as_it_was(model, weights) as again:
        try:
            if gradients is None:
                gradients = again(lambda: torch.autograd.grad(train_loss(), weights, allow_unused=True))
            _move(weights, gradients, -learning_rate)
            ahead = again(lambda: torch.autograd.grad(held_loss(), weights, allow_unused=True), training=False)
            size = float(torch.stack([g.detach().double().norm() for g in ahead if g is not None]).norm())
            if not 0 < size < float("inf"):
                return None
            # The cube root of the rounding error is where rounding and curvature weigh about the same.
            precision = rounding or weights[0].dtype
            epsilon = torch.finfo(precision).eps ** (1 / 3) / size
            sides = []
            for sign in (1.0, -1.0):
                again.home()
                _move(weights, ahead, sign * epsilon)
                slope = again(lambda: _slope(policy, train_loss, weights))
                if slope is None:
                    return None
                sides.append(slope.double())
        except LossError:
            return None
    found = -learning_rate * (sides[0] - sides[1]) / (2 * epsilon)
    return found if bool(torch.isfinite(found)) else None


def _slope(policy: MetaTemperature, train_loss: Loss, weights: Sequence[Tensor]) -> Tensor | None:
    """∂L_train/∂θ where the weights stand; without a graph through the student, which would only cost."""
    for weight in weights:
        weight.requires_grad_(False)
    try:
        with policy.watched() as theta:
            loss = train_loss()
            return torch.autograd.grad(loss, theta, allow_unused=True)[0] if loss.requires_grad else None
    finally:
        for weight in weights:
            weight.requires_grad_(True)


@torch.no_grad()
def _move(weights: Sequence[Tensor], along: Sequence[Tensor | None], step: float) -> None:
    for weight, direction in zip(weights, along, strict=True):
        if direction is not None:
            weight.add_(direction.to(weight), alpha=step)


class _Again:
    """Runs a pass of the model that leaves no trace but the weights' place; each has the same random numbers."""

    def __init__(self, model: nn.Module, weights: Sequence[Tensor]) -> None:
        self._model, self._weights = model, weights
        self._home = [weight.detach().clone() for weight in weights]
        self._buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        self._modes = [(module, module.training) for module in model.modules()]

    def __call__(self, work: Callable[[], Any], training: bool = True) -> Any:
        try:
            if not training:
                self._model.eval()
            with torch.enable_grad(), same_random_numbers(self._weights[0].device):
                return work()
        finally:
            with torch.no_grad():
                for buffer, before in self._buffers:
                    buffer.copy_(before)
            for module, mode in self._modes:
                module.training = mode

    @torch.no_grad()
    def home(self) -> None:
        """Put the weights back."""
        for weight, before in zip(self._weights, self._home, strict=True):
            weight.copy_(before)


@contextmanager
def _as_it_was(model: nn.Module, weights: Sequence[Tensor]) -> Iterator[_Again]:
    again = _Again(model, weights)
    try:
        yield again
    finally:
        again.home()
