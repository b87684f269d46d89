"""Every way to set a temperature, as a TemperaturePolicy."""

from setpoint.temperature.base import TemperaturePolicy as TemperaturePolicy
from setpoint.temperature.constant import Constant as Constant
from setpoint.temperature.schedules import Cosine as Cosine
from setpoint.temperature.schedules import Exponential as Exponential
from setpoint.temperature.schedules import Linear as Linear
from setpoint.temperature.schedules import Step as Step

POLICIES: dict[str, type[TemperaturePolicy]] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "exponential": Exponential,
    "step": Step,
}
"""Policies by the name they have in a recipe; their fields there are their arguments here."""
