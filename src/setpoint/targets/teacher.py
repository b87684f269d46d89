"""A live teacher: in eval mode, without gradients, its batch-norm statistics unmoved."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from setpoint.errors import ModelError, TargetError
from setpoint.reading import Reading
from setpoint.types import is_input, valid_rows


class FrozenTeacher:
    """A TargetSource that runs the teacher on each batch.

    The model is put in eval mode and its parameters lose their gradients; at each call both are checked, so that a
    stray ``model.train()`` cannot turn dropout on or move batch-norm statistics.

    Args:
        model: any module whose output is logits or has ``.logits`` / ``["logits"]``.
        labels: class names, in the order the logits are wanted in.
        class_order: for each of ``labels`` its column in the model's logits, where the model has another order.
        name: names the model in errors.
        reading: how the model's output is read, where its logits are not simply ``.logits`` of classes.

    Raises:
        ModelError: ``class_order`` is no order of the labels.
        TargetError: at a call: the teacher gives non-finite logits (named by example) or logits of another shape than
            the labels ask for, or was put back into training.

    Examples:
        >>> teacher = FrozenTeacher(nn.Linear(4, 2), labels=("no", "yes"))
        >>> teacher({"input": torch.zeros(3, 4), "labels": torch.tensor([0, 1, 1])}).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        labels: Sequence[str],
        class_order: Sequence[int] | None = None,
        name: str = "teacher",
        reading: Reading | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.labels, self.name, self.reading = tuple(labels), name, reading or Reading()
        self.class_order = None if class_order is None else tuple(class_order)
        if class_order is not None and sorted(class_order) != list(range(len(self.labels))):
            raise ModelError(
                f"class_order {list(class_order)} does not name each of {len(self.labels)} columns once", "mend it"
            )
        parameters = inspect.signature(model.forward).parameters.values()
        self._modules, self._weights = list(model.modules()), list(model.parameters())  # found once: it takes 1 ms
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        self._accepts = None if takes_any else {parameter.name for parameter in parameters}
        self._asks: Mapping[str, bool] = {}
        self._passes: list[Any] | None = None

    def takes(self, name: str) -> bool:
        """Whether a column of a batch is an input of the model."""
        return is_input(name) and (self._accepts is None or name in self._accepts)

    @torch.no_grad()
    def run(self, batch: Mapping[str, Any]) -> Tensor:
        """The model's own logits of a batch, ``[B, C]`` or ``[B, L, C]``, as its reading has them, unchecked."""
        here = self._here(batch)
        output = self.output(here, **self._asks)
        if self._passes is not None:
            self._passes.append(output)
        return self.reading.logits(output, here)

    @torch.no_grad()
    def output(self, batch: Mapping[str, Any], **asks: bool) -> Any:
        """All that the model gives for a batch, called with ``output_hidden_states=True`` and the like, unchecked."""
        return self.model(**{name: value for name, value in self._here(batch).items() if self.takes(name)}, **asks)

    def _here(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        device = next((weight.device for weight in self._weights), torch.device("cpu"))
        return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}

    @contextmanager
    def watched(self, asks: Mapping[str, bool]) -> Iterator[list[Any]]:
        """Keep what the model gives in each pass within, called with ``output_hidden_states=True`` and the like."""
        self._asks, self._passes = asks, []
        try:
            yield self._passes
        finally:
            self._asks, self._passes = {}, None

    @torch.no_grad()
    def __call__(self, batch: Mapping[str, Any]) -> Tensor:
        """Teacher logits ``[R, C + extras]`` in float32 for the valid rows of a batch."""
        self._check_frozen()
        logits = self.run(batch)
        rows = valid_rows(batch)
        wanted = (*rows.shape, len(self.labels) + self.reading.extras)
        if logits.shape != wanted:
            raise TargetError(
                f"the {self.name} gives logits of shape {tuple(logits.shape)} where labels and classes"
                f" ask for {wanted}",
                f"give a {self.name} of the same task and labels",
            )
        logits = logits[rows.to(logits.device)].float()
        if self.class_order is not None:
            logits = logits[:, [*self.class_order, *range(len(self.labels), logits.shape[-1])]]
        if not _usable(logits).all():
            raise TargetError(
                f"{self.name} logits are not finite for {_culprits(logits, batch, rows)}", f"mend the {self.name}"
            )
        return logits

    def _check_frozen(self) -> None:
        # Every module: one batch-norm layer in training mode is enough to move the statistics.
        if any(module.training for module in self._modules):
            raise TargetError("the teacher was put back into training mode", "call eval() on it and leave it so")
        if any(parameter.requires_grad for parameter in self._weights):
            raise TargetError("the teacher's weights ask for gradients again", "call requires_grad_(False) on it")


def _usable(logits: Tensor) -> Tensor:
    """Rows of finite logits, but for classes that are masked by -inf; not all may be."""
    finite = torch.isfinite(logits)
    return (finite | (logits == -math.inf)).all(-1) & finite.any(-1)


def _culprits(logits: Tensor, batch: Mapping[str, Any], rows: Tensor) -> str:
    """The examples whose logits are not finite, by id."""
    per_example = rows.reshape(len(rows), -1).sum(-1)
    owner = torch.arange(len(rows)).repeat_interleave(per_example.cpu())
    bad = owner[~_usable(logits).cpu()].unique().tolist()
    ids = batch.get("example_id")
    names = [repr(ids[i]) if ids is not None else f"number {i} of the batch" for i in bad]
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"example{'s' if len(names) > 1 else ''} {shown}"
