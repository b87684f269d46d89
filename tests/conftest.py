"""Shapes are checked under test: jaxtyping's hook wraps the maths layer before anything imports it."""

import gc
import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook(["setpoint.maths", "setpoint.temperature", "setpoint.objective"], "beartype.beartype")

# A busy machine is no failure: speed is measured in benchmarks/, not here.
settings.register_profile("setpoint", deadline=None, derandomize=True)
settings.load_profile("setpoint")

if torch.cuda.is_available():  # the same numbers each time, as on a CPU
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.allow_tf32 = False

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_finish():
    """Each training begins with a garbage collection, which would walk over all that was imported for 0.3 s."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared():
    """The folder of real data sets, where this machine has it."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data")
    return SHARED


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory):
    """A tiny BERT whose head has its labels in another order than the data."""
    from tiny import save_teacher  # not at the top: the hook above comes before anything of Setpoint

    folder = tmp_path_factory.mktemp("teacher")
    save_teacher(folder)
    return folder


@pytest.fixture
def ner(tmp_path, teacher_folder):
    """A recipe for the tiny teacher, as plain data."""
    from tiny import ner_recipe

    return ner_recipe(tmp_path, teacher_folder)
