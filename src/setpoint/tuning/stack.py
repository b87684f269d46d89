"""K modules whose weights are views of stacked tensors ``[K, ...]``, run through ``vmap`` or one after the other.

What works element by element (an optimiser, clipping, copying) sees the stack alone and treats all K at once.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from setpoint.errors import ModelError
from setpoint.types import logits_of


class Stack:
    """K copies of models of one architecture.

    Frozen parameters and unsaved buffers (positions and such) that all models have alike exist once and are in no
    stack. While ``interleaved``, what ``nn.Embedding`` looks up lies in memory as ``[vocabulary, K, width]``: vmap
    looks all students' rows up at once, and would otherwise copy the whole table there and back at each step.

    Attributes:
        students: the K modules.
        bf16: whether the models run in bfloat16.
        whole: by name, what differs between students or may come to differ: ``[K, ...]``.
        trained: the names of those that have gradients.
        interleaved: how tables are laid out from the next ``keep`` on.

    Raises:
        ModelError: the models are not of one architecture.

    Examples:
        >>> stack = Stack([nn.Linear(2, 1), nn.Linear(2, 1)])
        >>> stack.whole["weight"].shape, stack.batched({"input": torch.ones(3, 2)}).shape
        (torch.Size([2, 1, 2]), torch.Size([2, 3, 1]))
    """

    def __init__(self, models: Sequence[nn.Module], bf16: bool = False) -> None:
        every = [_tensors(model) for model in models]
        first = every[0]
        kinds = [{name: (t.shape, t.dtype, t.requires_grad) for name, t in tensors.items()} for tensors in every]
        if any(kind != kinds[0] for kind in kinds):
            raise ModelError("the students are not of one architecture", "give models with the same weights by name")
        self.device = next(iter(first.values())).device
        self.bf16, self.interleaved = bf16, True
        self._tables = {
            f"{name}.weight".lstrip(".") for name, part in models[0].named_modules() if isinstance(part, nn.Embedding)
        }
        saved = models[0].state_dict().keys() - dict(models[0].named_parameters()).keys()
        shared = {
            name
            for name, tensor in first.items()
            # A buffer that is saved may be a count or a running mean, which each student has for itself.
            if not tensor.requires_grad
            and name not in saved
            and all(torch.equal(tensor, tensors[name]) for tensors in every[1:])
        }
        self.students = [
            copy.deepcopy(model, {id(tensors[name]): first[name] for name in shared})
            for model, tensors in zip(models, every, strict=True)
        ]
        self.whole: dict[str, Tensor] = {}
        self._set({n: [_tensors(student)[n].detach() for student in self.students] for n in first.keys() - shared})
        self.trained = [name for name, tensor in first.items() if tensor.requires_grad]
        for name in self.trained:
            self.whole[name].requires_grad_()

    def keep(self, indices: Sequence[int]) -> None:
        """Forget all students but these; the tensors of ``whole`` are new ones."""
        self.students = [self.students[i] for i in indices]
        self._set({name: [whole.detach()[i] for i in indices] for name, whole in self.whole.items()})
        for name in self.trained:
            self.whole[name].requires_grad_()

    def _set(self, values: Mapping[str, list[Tensor]]) -> None:
        self.whole = {name: self.join(name, slices) for name, slices in values.items()}
        for i, student in enumerate(self.students):
            tensors = _tensors(student)
            for name, whole in self.whole.items():
                tensors[name].data = whole[i]

    def join(self, name: str, slices: Sequence[Tensor]) -> Tensor:
        """K tensors as one, in the layout of the weight of this name."""
        if self.interleaved and name in self._tables:
            return torch.stack(list(slices), 1).transpose(0, 1)
        return torch.stack(list(slices))

    # ------------------------------------------------------------------------------------------------ forward

    def train(self, training: bool) -> None:
        """Training or eval mode, for all."""
        for student in self.students:
            if student.training != training:
                student.train(training)

    def batched(self, inputs: Mapping[str, Any]) -> Tensor:
        """All students' logits ``[K, ...]`` through vmap; dropout is another for each. Fails where vmap does."""

        def one(weights: dict[str, Tensor]) -> Tensor:
            return logits_of(functional_call(self.students[0], weights, (), dict(inputs)))

        with self._autocast(), sdpa_kernel(SDPBackend.MATH):  # the only kernel whose batching rule takes masks
            logits: Tensor = torch.vmap(one, randomness="different")(self.whole)
        return logits

    def alone(self, i: int, inputs: Mapping[str, Any]) -> Tensor:
        """The i-th student's logits."""
        with self._autocast():
            return logits_of(self.students[i](**inputs))

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    # ------------------------------------------------------------------------------------------------ gradients

    def gather(self) -> None:
        """Bring the gradients of the students, run one by one, into the stack.

        A weight that no student used has none there too: an optimiser leaves it alone, where a gradient of 0 would
        have it decay.
        """
        tensors = [_tensors(student) for student in self.students]
        for name in self.trained:
            own = [one[name] for one in tensors]
            if any(weight.grad is not None for weight in own):
                grads = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in own]
                self.whole[name].grad = self.join(name, grads)
            for weight in own:
                weight.grad = None

    def forget(self) -> None:
        """Forget all gradients."""
        for weight in [*self.whole.values(), *(w for s in self.students for w in s.parameters())]:
            weight.grad = None

    def clip(self, most: float) -> None:
        """Shorten each student's gradient to this norm, as ``clip_grad_norm_`` does it for one model."""
        weights = [self.whole[name] for name in self.trained if self.whole[name].grad is not None]
        if not weights:
            return
        grads = [weight.grad for weight in weights if weight.grad is not None]
        norms = [_norms(grad) for grad in grads]
        factor = (most / (torch.linalg.vector_norm(torch.stack(norms), dim=0) + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(factor.reshape(-1, *[1] * (grad.ndim - 1)))


def _norms(grad: Tensor) -> Tensor:
    """The norm of each ``grad[i]``, ``[K]``."""
    if not grad.is_contiguous():  # a table: torch is several times quicker with one axis after the other
        grad = torch.linalg.vector_norm(grad, dim=-1)
    return grad.abs() if grad.ndim == 1 else torch.linalg.vector_norm(grad, dim=tuple(range(1, grad.ndim)))


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())
