"""Shapes are checked under test: jaxtyping's hook wraps the maths layer before anything imports it."""

from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook(["setpoint.maths", "setpoint.temperature", "setpoint.objective"], "beartype.beartype")

# A busy machine is no failure: speed is measured in benchmarks/, not here.
settings.register_profile("setpoint", deadline=None, derandomize=True)
settings.load_profile("setpoint")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared():
    """The folder of real data sets, where this machine has it."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data")
    return SHARED
