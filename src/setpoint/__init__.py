"""Knowledge distillation with the temperature under control.

Every public name is imported when it is first asked for: the maths brings in PyTorch, what trains models brings in
transformers, and the command line's ``--help`` neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from setpoint.errors import SetpointError as SetpointError
    from setpoint.errors import SetpointWarning as SetpointWarning
    from setpoint.hard import HardTargets as HardTargets
    from setpoint.maths.divergences import forward_kl as forward_kl
    from setpoint.maths.divergences import jensen_shannon as jensen_shannon
    from setpoint.maths.divergences import logit_mse as logit_mse
    from setpoint.maths.divergences import reverse_kl as reverse_kl
    from setpoint.maths.divergences import soft_cross_entropy as soft_cross_entropy
    from setpoint.maths.solving import calibrate_temperature as calibrate_temperature
    from setpoint.maths.solving import solve_temperature as solve_temperature
    from setpoint.maths.tempering import effective_classes as effective_classes
    from setpoint.maths.tempering import entropy as entropy
    from setpoint.maths.tempering import log_partition as log_partition
    from setpoint.maths.tempering import log_temper as log_temper
    from setpoint.maths.tempering import temper as temper
    from setpoint.objective import DistillationObjective as DistillationObjective
    from setpoint.pipeline import run as run
    from setpoint.recipe import Recipe as Recipe
    from setpoint.recipe_file import load_recipe as load_recipe
    from setpoint.targets.fingerprint import Fingerprint as Fingerprint
    from setpoint.targets.store import TargetStore as TargetStore
    from setpoint.targets.teacher import FrozenTeacher as FrozenTeacher
    from setpoint.temperature import Constant as Constant
    from setpoint.temperature import Cosine as Cosine
    from setpoint.temperature import Exponential as Exponential
    from setpoint.temperature import Linear as Linear
    from setpoint.temperature import Step as Step
    from setpoint.temperature import TemperaturePolicy as TemperaturePolicy
    from setpoint.training import DistillationTrainer as DistillationTrainer
    from setpoint.types import LossOutput as LossOutput
    from setpoint.types import TargetSource as TargetSource
    from setpoint.types import Temperatures as Temperatures

_HOMES = {
    "errors": ("SetpointError", "SetpointWarning"),
    "maths.divergences": ("forward_kl", "jensen_shannon", "logit_mse", "reverse_kl", "soft_cross_entropy"),
    "maths.solving": ("calibrate_temperature", "solve_temperature"),
    "maths.tempering": ("effective_classes", "entropy", "log_partition", "log_temper", "temper"),
    "hard": ("HardTargets",),
    "objective": ("DistillationObjective",),
    "pipeline": ("run",),
    "recipe": ("Recipe",),
    "recipe_file": ("load_recipe",),
    "targets.fingerprint": ("Fingerprint",),
    "targets.store": ("TargetStore",),
    "targets.teacher": ("FrozenTeacher",),
    "temperature": ("Constant", "Cosine", "Exponential", "Linear", "Step", "TemperaturePolicy"),
    "training": ("DistillationTrainer",),
    "types": ("LossOutput", "TargetSource", "Temperatures"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'setpoint' has no attribute '{name}'")
    return getattr(importlib.import_module(f"setpoint.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
