"""Softmax at a temperature, how soft it is, and the temperature at which it is as soft as wanted."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from setpoint.errors import TemperatureError
from setpoint.maths.moments import centred, wide

MASKED = -1e7
"""Below it a logit is a mask: code that cannot write -inf writes -1e9 or the lowest number there is."""


def check_temperature(temperature: float | Tensor, name: str = "temperature") -> float | Tensor:
    """Give the temperature back if every value of it is finite and above 0.

    Raises:
        TemperatureError: it is not.

    Examples:
        >>> check_temperature(-1.0)
        Traceback (most recent call last):
        ...
        setpoint.errors.TemperatureError: temperature is -1.0: give a finite number above 0
    """
    if isinstance(temperature, Tensor):
        given = temperature.detach()
        ends = given.aminmax() if given.numel() > 1 else given.reshape(-1)  # two numbers, NaN if there is one
        if not all(0 < float(end) < math.inf for end in ends):
            bad = given[~(torch.isfinite(given) & (given > 0))][0].item()
            raise TemperatureError(f"{name} is {bad}", "give a finite number above 0")
    elif not (math.isfinite(temperature) and temperature > 0):
        raise TemperatureError(f"{name} is {temperature}", "give a finite number above 0")
    return temperature


def scaled_logits(
    logits: Float[Tensor, "*rows C"], temperature: float | Tensor | None = None, beta: float | Tensor | None = None
) -> Float[Tensor, "*more C"]:
    """Logits / T = β · logits, in float32 at least: the one place where a temperature meets logits.

    A temperature for each class (its last axis is C) divides logits that were centred on their row's mean: softmax
    forgets a constant added to a row, and only so does softmax(logits / T).

    Raises:
        TemperatureError: not exactly one of ``temperature`` and ``beta``, or one that is not finite and above 0.
    """
    if (temperature is None) == (beta is None):
        raise TemperatureError("neither or both of temperature and beta are given", "give one of them; beta is 1/T")
    scaled = wide(logits)
    given = beta if temperature is None else temperature
    if isinstance(given, Tensor) and given.ndim and given.shape[-1] > 1:
        scaled = centred(scaled)
    masked = scaled == -math.inf if isinstance(given, Tensor) and given.requires_grad else None
    if masked is not None:
        scaled = scaled.masked_fill(masked, 0.0)  # -inf / T would give T a gradient that is no number
    if temperature is not None:
        scaled = scaled / check_temperature(temperature)
    else:
        scaled = scaled * check_temperature(beta, "beta")  # type: ignore[arg-type]
    return scaled if masked is None else torch.where(masked, -math.inf, scaled)


def log_temper(
    logits: Float[Tensor, "*rows C"], temperature: float | Tensor | None = None, *, beta: float | Tensor | None = None
) -> Float[Tensor, "*more C"]:
    """Log softmax(logits / T).

    Args:
        logits: ``[..., C]``, of any float dtype; masked classes may be ``-inf``.
        temperature: T, a number or broadcastable to the logits.
        beta: 1/T instead.

    Returns:
        Log-probabilities ``[..., C]``, in float32 (float64 for float64 logits).

    Raises:
        TemperatureError: a temperature that is not finite and above 0.

    Examples:
        >>> log_temper(torch.tensor([0.0, 2.0]), 2.0).exp()
        tensor([0.2689, 0.7311])
    """
    return torch.log_softmax(scaled_logits(logits, temperature, beta), dim=-1)


def temper(
    logits: Float[Tensor, "*rows C"], temperature: float | Tensor | None = None, *, beta: float | Tensor | None = None
) -> Float[Tensor, "*more C"]:
    """softmax(logits / T): the probabilities p_T. Arguments as of ``log_temper``.

    The same as the power transform pᵝ / Σ pᵝ of p = softmax(logits) with β = 1/T, without its underflow.
    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.

    Examples:
        >>> temper(torch.tensor([0.0, 2.0]), beta=0.5)
        tensor([0.2689, 0.7311])
    """
    return torch.softmax(scaled_logits(logits, temperature, beta), dim=-1)


def log_partition(
    logits: Float[Tensor, "*rows C"], temperature: float | Tensor | None = None, *, beta: float | Tensor | None = None
) -> Float[Tensor, "*more"]:
    """Log Σ exp(logits / T), ``[...]``, in nats; at T = 1 where neither T nor ``beta`` = 1/T is given.

    Examples:
        >>> log_partition(torch.zeros(4)).exp()
        tensor(4.)
    """
    return torch.logsumexp(scaled_logits(logits, _or_one(temperature, beta), beta), dim=-1)


def entropy(
    logits: Float[Tensor, "*rows C"], temperature: float | Tensor | None = None, *, beta: float | Tensor | None = None
) -> Float[Tensor, "*more"]:
    """H(p_T) = −Σ p log p, ``[...]``, in nats; at T = 1 where neither T nor ``beta`` = 1/T is given.

    It never falls as T rises: dH/dT = Var_p(logits) / T³.

    Examples:
        >>> entropy(torch.zeros(4)).exp()
        tensor(4.)
    """
    return entropy_of(log_temper(logits, _or_one(temperature, beta), beta=beta))


def entropy_of(log_probs: Float[Tensor, "*rows C"]) -> Float[Tensor, "*rows"]:
    """H = −Σ p log p of log-probabilities, ``[...]``, in nats.

    Examples:
        >>> entropy_of(torch.tensor([0.5, 0.5, 0.0]).log()).exp()
        tensor(2.)
    """
    # A class of probability 0 has log-probability -inf; 0·log 0 = 0, in the gradient too.
    finite = log_probs.masked_fill(log_probs == -math.inf, 0.0)
    return -(log_probs.exp() * finite).sum(-1)


def effective_classes(
    logits: Float[Tensor, "*rows C"], temperature: float | Tensor | None = None, *, beta: float | Tensor | None = None
) -> Float[Tensor, "*more"]:
    """exp(H(p_T)), ``[...]``: the number of equally likely classes that would be as uncertain; from 1 to C.

    Examples:
        >>> effective_classes(torch.tensor([1.0, 1.0, -100.0]))
        tensor(2.)
    """
    return entropy(logits, temperature, beta=beta).exp()


def unmasked_classes(logits: Float[Tensor, "*rows C"]) -> Float[Tensor, "*more"]:
    """How many classes are not masked, ``[...]``: what ``effective_classes`` is of.

    Examples:
        >>> unmasked_classes(torch.tensor([[1.0, 1.0, -torch.inf], [1.0, 2.0, 3.0]]))
        tensor([2., 3.])
    """
    return (logits >= MASKED).sum(-1).float()


def _or_one(temperature: float | Tensor | None, beta: float | Tensor | None) -> float | Tensor | None:
    return 1.0 if temperature is None and beta is None else temperature
