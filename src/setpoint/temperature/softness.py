"""Softness is the setpoint, temperature the knob: targets as soft as wanted, for whatever teacher."""

from __future__ import annotations

import math

from torch import Tensor

from setpoint.errors import TemperatureError
from setpoint.maths.softness import KINDS, soften, soften_mean
from setpoint.temperature.base import TemperaturePolicy, balanced, bounded
from setpoint.types import Temperatures

FITTED_ROWS = 20_000
"""Rows that a temperature for the whole data set is solved on; more would not move it."""


class Softness(TemperaturePolicy):
    """T such that the targets have a wanted softness; the same T for the student, scale T².

    T = 4 means something else for every teacher; "as uncertain as among 3 equally likely classes" means the same for
    all.

    Args:
        effective_classes: wanted exp(H(p_T)), above 1 and below C;
        entropy: or wanted H(p_T) in nats, above 0 and below log C;
        other_mass: or wanted mass off the top class, above 0 and below 1 − 1/C.
        end: the softness at the end of the training, where it shall move from the one above to this one; geometrically
            for effective classes, that is evenly in entropy, and evenly for the others.
        per: ``row``: each row gets the temperature that makes it so soft. ``dataset``: one temperature, at which the
            mean over the rows given to ``fit`` (over each batch without it) is so soft.

    A wanted softness beyond a row's ends (1 and C classes; C is less where classes are masked) is met as nearly as T
    within 0.001 and 10 000 can; a row whose logits are all equal has no choice and gets T = 1. Rows whose top class is
    tied cannot be sharper than the tie.

    Raises:
        TemperatureError: not exactly one of the three, one out of its range, or ``per`` unknown.

    Examples:
        >>> import torch
        >>> from setpoint.maths.tempering import effective_classes
        >>> v = torch.tensor([[0.0, 1.0, 5.0], [0.0, 8.0, 9.0]])
        >>> temperatures = Softness(effective_classes=2.0)(v, v)
        >>> (effective_classes(v, temperatures.teacher) - 2).abs().max() < 2e-4
        tensor(True)
    """

    def __init__(
        self,
        *,
        effective_classes: float | None = None,
        entropy: float | None = None,
        other_mass: float | None = None,
        end: float | None = None,
        per: str = "row",
    ) -> None:
        super().__init__()
        targets = {"effective_classes": effective_classes, "entropy": entropy, "other_mass": other_mass}
        given = {kind: value for kind, value in targets.items() if value is not None}
        if len(given) != 1:
            raise TemperatureError(f"{len(given)} kinds of softness are given", f"give one of {', '.join(KINDS)}")
        ((self.kind, self.start),) = given.items()
        self.end = self.start if end is None else end
        if per not in ("row", "dataset"):
            raise TemperatureError(f"per is '{per}'", "give 'row' or 'dataset'")
        self.per = per
        low, high = {"effective_classes": (1.0, math.inf), "entropy": (0.0, math.inf), "other_mass": (0.0, 1.0)}[
            self.kind
        ]
        for name, value in ((self.kind, self.start), ("end", self.end)):
            if not low < value < high:
                between = f"a number between {low:g} and {high:g}" if high < math.inf else f"a number above {low:g}"
                raise TemperatureError(f"{name} is {value}", f"give {between}")
        self._fitted: Tensor | None = None
        self._scratch: list[Tensor] = []
        self._solved: tuple[float, float] | None = None

    def at(self, progress: float) -> float:
        """The wanted softness at a progress in [0, 1]."""
        progress = min(max(progress, 0.0), 1.0)
        if self.kind == "effective_classes":
            return float(self.start * (self.end / self.start) ** progress)
        return self.start + progress * (self.end - self.start)

    def fit(self, teacher_logits: Tensor) -> None:
        """Keep some of these logits ``[N, C]``, for ``per="dataset"``."""
        self._fitted = teacher_logits[:: -(-len(teacher_logits) // FITTED_ROWS) or 1].detach().clone()
        self._solved = None

    def forward(
        self, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor | None = None, progress: float = 0.0
    ) -> Temperatures:
        """The temperatures of these rows."""
        # A temperature for the data set is dear: it is solved anew 64 times over the training, not at each step.
        wanted = self.at(progress if self.per == "row" else round(progress * 64) / 64)
        if self.per == "row":
            rows = soften(teacher_logits.detach(), self.kind, wanted, scratch=self._scratch)
            rows = bounded(rows).unsqueeze(-1)
            return balanced(rows, rows, student_logits)
        logits = teacher_logits.detach() if self._fitted is None else self._fitted
        if self._fitted is None or self._solved is None or self._solved[0] != wanted:
            self._solved = (wanted, soften_mean(logits, self.kind, wanted))
        return balanced(self._solved[1], self._solved[1], student_logits)

    def extra_repr(self) -> str:
        """The wanted softness, for ``repr``."""
        moves = "" if self.end == self.start else f", end={self.end:g}"
        return f"{self.kind}={self.start:g}{moves}, per={self.per}"
