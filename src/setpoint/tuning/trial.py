"""Whether a stack of students goes through ``vmap`` or one by one: tried out on a batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from setpoint.tuning.stack import Stack

_GAP = 1e-3  # how far vmap's logits may be from a student's own, beside the largest: rounding stays below 1e-5
_GAP_BF16 = 5e-2  # likewise where logits have 8 bits


def choose(stack: Stack, inputs: Mapping[str, Any], mode: str) -> str:
    """The way to go, with the reason: ``vmap …`` or ``one by one …``.

    Weights, buffers and random numbers are as before, and no gradients are left.

    Args:
        stack: the students.
        inputs: of the model, a batch.
        mode: ``auto``, ``vmap`` (where it works and gives the same logits, even if it is slower) or ``one by one``.

    Examples:
        >>> stack = Stack([torch.nn.Linear(2, 1)] * 2)
        >>> choose(stack, {"input": torch.ones(3, 2)}, "one by one")
        'one by one (as asked for)'
    """
    if mode == "one by one":
        return "one by one (as asked for)"
    if len(stack.students) == 1:
        return "one by one (a single student)"
    random, buffers = (
        random_state(stack.device),
        {n: w.clone() for n, w in stack.whole.items() if n not in stack.trained},
    )
    try:
        gap = _difference(stack, inputs)
        if not gap <= (_GAP_BF16 if stack.bf16 else _GAP):
            return f"one by one (under vmap the logits differ by {gap:.1g})"
        once, each = _race(stack, inputs)
    except _VmapRefused as refusal:
        return f"one by one ({refusal})"
    finally:
        stack.forget()
        for name, value in buffers.items():
            stack.whole[name].detach().copy_(value)
        set_random_state(random, stack.device)
    times = f"{1000 * once:.3g} ms on the sample, one by one {1000 * each:.3g} ms"
    return f"one by one (vmap took {times})" if once > each and mode == "auto" else f"vmap ({times})"


def reason(error: Exception) -> str:
    """What vmap said, in short."""
    text = " ".join(str(error).split())
    return f"vmap: {type(error).__name__}: {text[:160]}{'…' if len(text) > 160 else ''}"


class _VmapRefused(Exception):
    """vmap cannot run this model."""


@torch.no_grad()
def _difference(stack: Stack, inputs: Mapping[str, Any]) -> float:
    stack.train(False)
    alone = torch.stack([stack.alone(i, inputs) for i in range(len(stack.students))])
    return float((_refusing(stack.batched, inputs) - alone).abs().max() / alone.abs().max().clamp(min=1.0))


def _race(stack: Stack, inputs: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds of forward, backward and clipping each way: the best of three, in turn."""

    def once() -> None:
        _refusing(lambda: stack.batched(inputs).float().square().mean().backward())
        stack.clip(math.inf)  # changes nothing

    def each() -> None:
        for i in range(len(stack.students)):
            stack.alone(i, inputs).float().square().mean().backward()
        stack.interleaved = False  # as it will be, should this be the quicker way
        stack.gather()
        stack.interleaved = True
        stack.clip(math.inf)

    def seconds(work: Callable[[], None]) -> float:
        stack.forget()
        start = time.perf_counter()
        work()
        if stack.device.type == "cuda":
            torch.cuda.synchronize(stack.device)
        return time.perf_counter() - start

    stack.train(True)
    rounds = [(seconds(once), seconds(each)) for _ in range(3)]
    return min(vmap for vmap, _ in rounds), min(loop for _, loop in rounds)


def _refusing(work: Callable[..., Any], *args: Any) -> Any:
    try:
        return work(*args)
    except Exception as error:  # whatever a model, torch or one of their libraries says to vmap
        raise _VmapRefused(reason(error)) from error


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of the random numbers, by ``random.cpu`` and ``random.cuda``."""
    there = {"random.cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"random.cpu": torch.get_rng_state()} | there


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Go back to such a state."""
    torch.set_rng_state(state["random.cpu"].cpu())
    if "random.cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["random.cuda"].cpu(), device)
