"""Target sources made of others: one with a temperature of its own, and several as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from setpoint.errors import TargetError
from setpoint.maths.tempering import entropy, log_temper, scaled_logits
from setpoint.types import TargetSource

COMBINATIONS = ("probabilities", "logits")


def first_source(source: TargetSource | None) -> TargetSource | None:
    """The source itself that gives the logits, live or stored, of the first teacher where there are several.

    Examples:
        >>> from torch import nn
        >>> from setpoint.targets.teacher import FrozenTeacher
        >>> teacher = FrozenTeacher(nn.Linear(4, 2), labels=("no", "yes"))
        >>> first_source(TeacherEnsemble([CalibratedTargets(teacher, 2.0)])) is teacher
        True
    """
    if isinstance(source, TeacherEnsemble):
        return first_source(source.sources[0])
    return first_source(source.source) if isinstance(source, CalibratedTargets) else source


class CalibratedTargets:
    """A TargetSource whose logits are divided by a temperature of their own before anything else reads them.

    With the T that minimises held-out loss the teacher's probabilities at T = 1 are calibrated, and a policy's
    temperature counts from there.

    Args:
        source: gives the logits.
        temperature: what divides them.
    """

    def __init__(self, source: TargetSource, temperature: float) -> None:
        self.source, self.temperature = source, temperature

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, the source's."""
        return self.source.labels

    def __call__(self, batch: Mapping[str, Any]) -> Tensor:
        """Logits ``[R, C]`` in float32 for the valid rows of a batch."""
        return scaled_logits(self.source(batch), self.temperature)


class TeacherEnsemble:
    """Several teachers as one TargetSource.

    The combined logits are Σ w·v (``logits``: the geometric mean of the teachers' probabilities) or log Σ w·softmax(v)
    (``probabilities``: their arithmetic mean), with weights that sum to 1; softmax of either at T = 1 is the ensemble's
    distribution, and a policy's temperature tempers that.

    Args:
        sources: the teachers, alike in labels; give each its own temperature by ``CalibratedTargets``.
        weights: one for each, above 0; equal where None.
        combine: ``probabilities`` or ``logits``.
        by_confidence: weigh each row's teachers by 1 / effective classes too, so that the surer speaks louder.

    Raises:
        TargetError: no source, labels that differ, or weights that do not fit.

    Source: Hinton et al. 2015, arXiv:1503.02531, for both means.

    Examples:
        >>> class Says:
        ...     labels = ("no", "yes")
        ...     def __init__(self, *logits):
        ...         self.logits = torch.tensor([logits])
        ...     def __call__(self, batch):
        ...         return self.logits
        >>> both = TeacherEnsemble([Says(2.0, 0.0), Says(0.0, 2.0)])
        >>> both({}).softmax(-1)
        tensor([[0.5000, 0.5000]])
    """

    def __init__(
        self,
        sources: Sequence[TargetSource],
        weights: Sequence[float] | None = None,
        combine: str = "probabilities",
        by_confidence: bool = False,
    ) -> None:
        if not sources:
            raise TargetError("an ensemble of no teachers is given", "give one at least")
        if combine not in COMBINATIONS:
            raise TargetError(f"combine is '{combine}'", f"give one of {', '.join(COMBINATIONS)}")
        weights = [1.0] * len(sources) if weights is None else list(weights)
        if len(weights) != len(sources) or any(not weight > 0 for weight in weights):
            raise TargetError(f"weights are {weights} for {len(sources)} teachers", "give each a number above 0")
        for source in sources[1:]:
            if source.labels != sources[0].labels:
                raise TargetError(
                    f"the teachers' labels differ: {list(sources[0].labels)} and {list(source.labels)}",
                    "give teachers of the same classes in the same order",
                )
        self.sources, self.combine, self.by_confidence = tuple(sources), combine, by_confidence
        self._log_weights = torch.tensor(weights).log()

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, those of every source."""
        return self.sources[0].labels

    def __call__(self, batch: Mapping[str, Any]) -> Tensor:
        """Combined logits ``[R, C]`` in float32 for the valid rows of a batch."""
        parts = [source(batch) for source in self.sources]
        if len({part.shape for part in parts}) > 1:
            raise TargetError("the teachers give different rows for a batch", "give teachers of one tokenizer")
        logits = torch.stack(parts)
        log_weights = self._log_weights.to(logits.device)[:, None].expand(logits.shape[:-1])
        if self.by_confidence:
            log_weights = log_weights - entropy(logits)
        log_weights = log_weights.log_softmax(0).unsqueeze(-1)
        if self.combine == "logits":
            return (log_weights.exp() * logits).sum(0)
        return torch.logsumexp(log_weights + log_temper(logits, 1.0), dim=0)
