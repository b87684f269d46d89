"""A temperature that is learnt with the student: it moves down the student's loss on rows that are held out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from setpoint.errors import TemperatureError
from setpoint.maths.tempering import check_temperature
from setpoint.temperature.base import HIGHEST, LOWEST, TemperaturePolicy, balanced, bounded, check_within, number
from setpoint.types import Temperatures

MOMENTUM, SQUARES = 0.9, 0.999
"""β₁ and β₂ of Adam (Kingma & Ba 2015, arXiv:1412.6980)."""
INSIDE = 1e-5
"""How far log T stays inside its bounds, so that rounding never puts T where clamping it takes its gradient away."""


class MetaTemperature(TemperaturePolicy):
    """One learned T = exp(θ), moved down the loss on held-out labels that the student has after its next step.

    The policy holds θ and takes the steps; the gradient is that of ``setpoint.meta``, which knows the student's
    weights. ``DistillationTrainer`` does it by itself: it takes ``held_out`` of the training examples, 64 at least but
    never more than half, out of the training, and never looks at the validation split, which selects. In a loop of
    your own call ``setpoint.meta_step`` between two steps; where nobody does, T stays at ``start``.

    The gradient costs two forward passes of the step's batch and a forward and backward pass of a held-out batch, so
    about 5/3 of a step on stored targets; once in ten steps it is about a sixth of the training. θ moves by Adam, so
    by about ``rate`` at each. Its moments are buffers beside θ: a checkpoint has all of it, the student's optimiser
    none.

    Args:
        start: T at the first step.
        rate: how far log T moves at most, about, each time.
        every: steps of the student between two moves.
        held_out: the share of the training examples that is held out, above 0 and at most 0.5.

    Raises:
        TemperatureError: a start or rate that is not finite and above 0, a share or number outside its range.

    Source: a bilevel problem by one step of lookahead, Luketina et al. 2016 (ICML), arXiv:1511.06727. Meta Knowledge
    Distillation (Liu et al. 2022) is that principle for temperatures; its parametrisation was never published, so one T
    for both sides, its logarithm, Adam and the numbers are ours.

    Examples:
        >>> policy = MetaTemperature(start=2.0)
        >>> policy.move(torch.tensor(-3.0))  # the held-out loss falls as T rises
        >>> round(policy.temperature, 3)
        2.103
    """

    log_temperature: Tensor
    moment: Tensor
    square: Tensor
    moves: Tensor

    def __init__(self, start: float = 4.0, rate: float = 0.05, every: int = 10, held_out: float = 0.05) -> None:
        super().__init__()
        self.start = check_within(float(check_temperature(start, "start")), "start", LOWEST, HIGHEST)
        self.rate = float(check_temperature(rate, "rate"))
        if every < 1:
            raise TemperatureError(f"every is {every}", "give a whole number, 1 or above")
        self.every = int(every)
        if held_out <= 0:
            raise TemperatureError(f"held_out is {held_out}", "give a share above 0, at most 0.5")
        self.held_out = check_within(held_out, "held_out", 0.0, 0.5)
        self.register_buffer("log_temperature", torch.tensor(math.log(self.start)))
        self.register_buffer("moment", torch.tensor(0.0))
        self.register_buffer("square", torch.tensor(0.0))
        self.register_buffer("moves", torch.tensor(0))

    @property
    def temperature(self) -> float:
        """T of this moment."""
        return float(bounded(self.log_temperature.detach().exp()))

    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperature of this moment, for every row; with a graph to θ only within ``watched``."""
        temperature = bounded(self.log_temperature.exp()).to(number(0.0, student_logits).dtype)
        return balanced(temperature, temperature, student_logits)

    @contextmanager
    def watched(self) -> Iterator[Tensor]:
        """Let losses made within reach θ, which is given: a scalar to differentiate by."""
        self.log_temperature.requires_grad_(True)
        try:
            yield self.log_temperature
        finally:
            self.log_temperature.requires_grad_(False)

    @torch.no_grad()
    def move(self, gradient: Tensor) -> None:
        """Take one step of Adam down a gradient by θ, within the bounds of T; none where it is not a finite number."""
        if not bool(torch.isfinite(gradient)):
            return
        self.moves += 1
        gradient, count = gradient.to(self.moment), int(self.moves)
        self.moment.lerp_(gradient, 1 - MOMENTUM)
        self.square.lerp_(gradient * gradient, 1 - SQUARES)
        size = (self.square / (1 - SQUARES**count)).sqrt()
        if float(size) > 0:
            self.log_temperature -= self.rate * self.moment / (1 - MOMENTUM**count) / size
        self.log_temperature.clamp_(math.log(LOWEST) + INSIDE, math.log(HIGHEST) - INSIDE)

    def extra_repr(self) -> str:
        """The numbers, for ``repr``."""
        return f"start={self.start:g}, rate={self.rate:g}, every={self.every}, held_out={self.held_out:g}"
