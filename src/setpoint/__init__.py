"""Knowledge distillation with the temperature under control.

The maths layer is imported with the package; what needs transformers waits until it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from setpoint.errors import SetpointError
from setpoint.maths.divergences import forward_kl, jensen_shannon, logit_mse, reverse_kl, soft_cross_entropy
from setpoint.maths.solving import calibrate_temperature, solve_temperature
from setpoint.maths.tempering import (
    effective_classes,
    entropy,
    log_partition,
    log_temper,
    temper,
)
from setpoint.objective import DistillationObjective, HardTargets
from setpoint.temperature import Constant, Cosine, Exponential, Linear, Step, TemperaturePolicy
from setpoint.types import LossOutput, TargetSource, Temperatures

if TYPE_CHECKING:
    from setpoint.pipeline import run
    from setpoint.recipe import Recipe
    from setpoint.recipe_file import load_recipe
    from setpoint.targets.store import TargetStore
    from setpoint.targets.teacher import FrozenTeacher
    from setpoint.training import DistillationTrainer

_LATER = {
    "DistillationTrainer": "setpoint.training",
    "FrozenTeacher": "setpoint.targets.teacher",
    "Recipe": "setpoint.recipe",
    "TargetStore": "setpoint.targets.store",
    "load_recipe": "setpoint.recipe_file",
    "run": "setpoint.pipeline",
}

__all__ = [
    "Constant",
    "Cosine",
    "DistillationObjective",
    "DistillationTrainer",
    "Exponential",
    "FrozenTeacher",
    "HardTargets",
    "Linear",
    "LossOutput",
    "Recipe",
    "SetpointError",
    "Step",
    "TargetSource",
    "TargetStore",
    "TemperaturePolicy",
    "Temperatures",
    "calibrate_temperature",
    "effective_classes",
    "entropy",
    "forward_kl",
    "jensen_shannon",
    "load_recipe",
    "log_partition",
    "log_temper",
    "logit_mse",
    "reverse_kl",
    "run",
    "soft_cross_entropy",
    "solve_temperature",
    "temper",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'setpoint' has no attribute '{name}'")
