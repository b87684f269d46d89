"""The teacher's logits, shrunk first and whole at the end: annealing by distance, then labels alone."""

from __future__ import annotations

from torch import Tensor

from setpoint.errors import TemperatureError
from setpoint.temperature.base import TemperaturePolicy, number
from setpoint.types import Temperatures


class _Shrinking(TemperaturePolicy):
    """A teacher temperature steps/1, steps/2, … 1 over a first share of the training; student 1, scale 1."""

    divergence = "squared_error"

    def __init__(self, steps: int, share: float) -> None:
        super().__init__()
        if steps < 1:
            raise TemperatureError(f"steps is {steps}", "give 1 or more")
        if not 0 < share <= 1:
            raise TemperatureError(f"share is {share}", "give a number above 0, at most 1")
        self.steps, self.share = steps, share

    def at(self, progress: float) -> float:
        """The teacher's temperature, 1/φ, at a progress in [0, 1]."""
        done = min(int(max(progress, 0.0) / self.share * self.steps), self.steps - 1)
        return self.steps / (done + 1)

    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperatures of the moment, for every row."""
        one = number(1.0, student_logits)
        return Temperatures(teacher=number(self.at(progress), student_logits), student=one, scale=one)

    def extra_repr(self) -> str:
        """The numbers, for ``repr``."""
        return f"steps={self.steps}, share={self.share:g}"


class Annealing(_Shrinking):
    """Annealing-KD: ‖z − φv‖² with φ from 1/steps to 1, and after that share of the training the hard loss alone.

    The objective's α has no say: it is 1 in the first phase and 0 in the second, which goes on from where the first
    ended. Divergence: ``squared_error``, averaged over classes as in its code.

    Args:
        steps: the paper's T_max, how many values φ takes.
        share: the first phase's share of the training.

    Source: Jafari et al. 2021 (EACL), arXiv:2104.07163, and its code.

    Examples:
        >>> [Annealing(steps=4, share=0.5).at(p) for p in (0.0, 0.2, 0.4, 0.9)]
        [4.0, 2.0, 1.0, 1.0]
    """

    def __init__(self, steps: int = 10, share: float = 2 / 3) -> None:
        super().__init__(steps, share)

    def alpha(self, alpha: float, progress: float) -> float:
        """1 in the first phase, 0 in the second."""
        return 1.0 if progress < self.share else 0.0


class Continuation(_Shrinking):
    """Continuation-KD: ψ·hard loss + (1 − ψ)·‖z − φv‖², φ from 1/steps to 1 and ψ from 0 to 1 over that share.

    The objective's α has no say: it is 1 − ψ. The paper subtracts a margin m·φ from the distance, and nowhere gives m;
    here it is 0. The distance is averaged over classes, as Annealing-KD's code has it: the paper calls it a mean and
    writes a sum.

    Args:
        steps: the paper's T_max, how many values φ takes.
        share: the share of the training at whose end ψ and φ are 1.

    Source: Jafari et al. 2022 (Findings of EMNLP), arXiv:2212.05998.

    Examples:
        >>> Continuation(share=0.75).alpha(0.9, 0.375)
        0.5
    """

    def __init__(self, steps: int = 20, share: float = 0.75) -> None:
        super().__init__(steps, share)

    def alpha(self, alpha: float, progress: float) -> float:
        """1 − ψ, ψ rising evenly over the first share of the training."""
        return 1.0 - min(max(progress, 0.0) / self.share, 1.0)
