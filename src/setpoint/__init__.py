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
    from setpoint.features import FeatureObjective as FeatureObjective
    from setpoint.hard import HardTargets as HardTargets
    from setpoint.insight.compare import Comparison as Comparison
    from setpoint.insight.compare import compare as compare
    from setpoint.insight.explain import explain as explain
    from setpoint.insight.explanation import Explanation as Explanation
    from setpoint.insight.model_card import model_card as model_card
    from setpoint.maths.calibration import calibration_error as calibration_error
    from setpoint.maths.companions import adaptive_kl as adaptive_kl
    from setpoint.maths.companions import dist as dist
    from setpoint.maths.companions import dkd as dkd
    from setpoint.maths.companions import nkd as nkd
    from setpoint.maths.companions import squared_error as squared_error
    from setpoint.maths.companions import todi as todi
    from setpoint.maths.divergences import alpha_beta as alpha_beta
    from setpoint.maths.divergences import forward_kl as forward_kl
    from setpoint.maths.divergences import jensen_shannon as jensen_shannon
    from setpoint.maths.divergences import logit_mse as logit_mse
    from setpoint.maths.divergences import reverse_kl as reverse_kl
    from setpoint.maths.divergences import skew_forward_kl as skew_forward_kl
    from setpoint.maths.divergences import skew_reverse_kl as skew_reverse_kl
    from setpoint.maths.divergences import soft_cross_entropy as soft_cross_entropy
    from setpoint.maths.divergences import total_variation as total_variation
    from setpoint.maths.softness import soften as soften
    from setpoint.maths.solving import calibrate_temperature as calibrate_temperature
    from setpoint.maths.solving import solve_temperature as solve_temperature
    from setpoint.maths.tempering import effective_classes as effective_classes
    from setpoint.maths.tempering import entropy as entropy
    from setpoint.maths.tempering import log_partition as log_partition
    from setpoint.maths.tempering import log_temper as log_temper
    from setpoint.maths.tempering import temper as temper
    from setpoint.meta import meta_step as meta_step
    from setpoint.objective import DistillationObjective as DistillationObjective
    from setpoint.pipeline import run as run
    from setpoint.pipeline import tune as tune
    from setpoint.recipe import Recipe as Recipe
    from setpoint.recipe_file import load_recipe as load_recipe
    from setpoint.shipping.export import export as export
    from setpoint.shipping.shipped import Shipped as Shipped
    from setpoint.targets.combined import CalibratedTargets as CalibratedTargets
    from setpoint.targets.combined import TeacherEnsemble as TeacherEnsemble
    from setpoint.targets.fingerprint import Fingerprint as Fingerprint
    from setpoint.targets.store import TargetStore as TargetStore
    from setpoint.targets.teacher import FrozenTeacher as FrozenTeacher
    from setpoint.tasks import add_task as add_task
    from setpoint.tasks.base import Splits as Splits
    from setpoint.tasks.base import Task as Task
    from setpoint.temperature import Annealing as Annealing
    from setpoint.temperature import AsymmetricTemperature as AsymmetricTemperature
    from setpoint.temperature import ConfidenceTemperature as ConfidenceTemperature
    from setpoint.temperature import Constant as Constant
    from setpoint.temperature import Continuation as Continuation
    from setpoint.temperature import Cosine as Cosine
    from setpoint.temperature import CurriculumTemperature as CurriculumTemperature
    from setpoint.temperature import DynamicTemperature as DynamicTemperature
    from setpoint.temperature import Exponential as Exponential
    from setpoint.temperature import FocalTemperature as FocalTemperature
    from setpoint.temperature import InstanceCurriculumTemperature as InstanceCurriculumTemperature
    from setpoint.temperature import InstanceTemperature as InstanceTemperature
    from setpoint.temperature import Interpolation as Interpolation
    from setpoint.temperature import Linear as Linear
    from setpoint.temperature import LogitStandardisation as LogitStandardisation
    from setpoint.temperature import LossGap as LossGap
    from setpoint.temperature import MetaTemperature as MetaTemperature
    from setpoint.temperature import MultiTemperature as MultiTemperature
    from setpoint.temperature import NormKD as NormKD
    from setpoint.temperature import Progressive as Progressive
    from setpoint.temperature import Softness as Softness
    from setpoint.temperature import Spherical as Spherical
    from setpoint.temperature import Step as Step
    from setpoint.temperature import TemperaturePolicy as TemperaturePolicy
    from setpoint.temperature import TokenAdaptive as TokenAdaptive
    from setpoint.temperature import TransformedTeacher as TransformedTeacher
    from setpoint.temperature import WeightedSoftLabels as WeightedSoftLabels
    from setpoint.temperature import WeightedTransformedTeacher as WeightedTransformedTeacher
    from setpoint.training import DistillationTrainer as DistillationTrainer
    from setpoint.tuning.prior import Suggestion as Suggestion
    from setpoint.tuning.prior import suggest as suggest
    from setpoint.types import LossOutput as LossOutput
    from setpoint.types import TargetSource as TargetSource
    from setpoint.types import Temperatures as Temperatures

_HOMES: dict[str, tuple[str, ...]] = {
    "errors": ("SetpointError", "SetpointWarning"),
    "features": ("FeatureObjective",),
    "hard": ("HardTargets",),
    "insight.compare": ("Comparison", "compare"),
    "insight.explain": ("explain",),
    "insight.explanation": ("Explanation",),
    "insight.model_card": ("model_card",),
    "maths.calibration": ("calibration_error",),
    "maths.companions": ("adaptive_kl", "dist", "dkd", "nkd", "squared_error", "todi"),
    "maths.divergences": (
        "alpha_beta",
        "forward_kl",
        "jensen_shannon",
        "logit_mse",
        "reverse_kl",
        "skew_forward_kl",
        "skew_reverse_kl",
        "soft_cross_entropy",
        "total_variation",
    ),
    "maths.softness": ("soften",),
    "maths.solving": ("calibrate_temperature", "solve_temperature"),
    "maths.tempering": ("effective_classes", "entropy", "log_partition", "log_temper", "temper"),
    "meta": ("meta_step",),
    "objective": ("DistillationObjective",),
    "pipeline": ("run", "tune"),
    "recipe": ("Recipe",),
    "recipe_file": ("load_recipe",),
    "shipping.export": ("export",),
    "shipping.shipped": ("Shipped",),
    "targets.combined": ("CalibratedTargets", "TeacherEnsemble"),
    "targets.fingerprint": ("Fingerprint",),
    "targets.store": ("TargetStore",),
    "targets.teacher": ("FrozenTeacher",),
    "tasks": ("add_task",),
    "tasks.base": ("Splits", "Task"),
    "temperature": (
        "Annealing",
        "AsymmetricTemperature",
        "ConfidenceTemperature",
        "Constant",
        "Continuation",
        "Cosine",
        "CurriculumTemperature",
        "DynamicTemperature",
        "Exponential",
        "FocalTemperature",
        "InstanceCurriculumTemperature",
        "InstanceTemperature",
        "Interpolation",
        "Linear",
        "LogitStandardisation",
        "LossGap",
        "MetaTemperature",
        "MultiTemperature",
        "NormKD",
        "Progressive",
        "Softness",
        "Spherical",
        "Step",
        "TemperaturePolicy",
        "TokenAdaptive",
        "TransformedTeacher",
        "WeightedSoftLabels",
        "WeightedTransformedTeacher",
    ),
    "training": ("DistillationTrainer",),
    "tuning.prior": ("Suggestion", "suggest"),
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
