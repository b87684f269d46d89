"""Every way to set a temperature, as a TemperaturePolicy."""

from setpoint.temperature.annealing import Annealing as Annealing
from setpoint.temperature.annealing import Continuation as Continuation
from setpoint.temperature.asymmetric import AsymmetricTemperature as AsymmetricTemperature
from setpoint.temperature.asymmetric import TransformedTeacher as TransformedTeacher
from setpoint.temperature.asymmetric import WeightedTransformedTeacher as WeightedTransformedTeacher
from setpoint.temperature.base import TemperaturePolicy as TemperaturePolicy
from setpoint.temperature.constant import Constant as Constant
from setpoint.temperature.dynamic import Interpolation as Interpolation
from setpoint.temperature.dynamic import LossGap as LossGap
from setpoint.temperature.dynamic import TokenAdaptive as TokenAdaptive
from setpoint.temperature.learned import CurriculumTemperature as CurriculumTemperature
from setpoint.temperature.learned import InstanceCurriculumTemperature as InstanceCurriculumTemperature
from setpoint.temperature.meta import MetaTemperature as MetaTemperature
from setpoint.temperature.per_row import ConfidenceTemperature as ConfidenceTemperature
from setpoint.temperature.per_row import FocalTemperature as FocalTemperature
from setpoint.temperature.per_row import WeightedSoftLabels as WeightedSoftLabels
from setpoint.temperature.reinforced import InstanceTemperature as InstanceTemperature
from setpoint.temperature.schedules import Cosine as Cosine
from setpoint.temperature.schedules import Exponential as Exponential
from setpoint.temperature.schedules import Linear as Linear
from setpoint.temperature.schedules import Progressive as Progressive
from setpoint.temperature.schedules import Step as Step
from setpoint.temperature.several import MultiTemperature as MultiTemperature
from setpoint.temperature.softness import Softness as Softness
from setpoint.temperature.statistics import DynamicTemperature as DynamicTemperature
from setpoint.temperature.statistics import LogitStandardisation as LogitStandardisation
from setpoint.temperature.statistics import NormKD as NormKD
from setpoint.temperature.statistics import Spherical as Spherical

POLICIES: dict[str, type[TemperaturePolicy]] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "exponential": Exponential,
    "step": Step,
    "progressive": Progressive,
    "multi": MultiTemperature,
    "softness": Softness,
    "lskd": LogitStandardisation,
    "normkd": NormKD,
    "spherical": Spherical,
    "dtkd": DynamicTemperature,
    "ttm": TransformedTeacher,
    "wttm": WeightedTransformedTeacher,
    "ats": AsymmetricTemperature,
    "flsw": FocalTemperature,
    "cwsm": ConfidenceTemperature,
    "wsld": WeightedSoftLabels,
    "annealing": Annealing,
    "continuation": Continuation,
    "dts": LossGap,
    "ctkd": CurriculumTemperature,
    "ctkd_instance": InstanceCurriculumTemperature,
    "itkd": InstanceTemperature,
    "meta": MetaTemperature,
    "adakd": TokenAdaptive,
    "taid": Interpolation,
}
"""Policies by the name they have in a recipe; their fields there are their arguments here."""
