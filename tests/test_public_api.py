import ast
import subprocess
import sys
from pathlib import Path

import pytest

import setpoint

PUBLIC = """
    Annealing AsymmetricTemperature CalibratedTargets Comparison ConfidenceTemperature Constant Continuation Cosine
    CurriculumTemperature DistillationObjective DistillationTrainer DynamicTemperature Explanation Exponential
    FeatureObjective Fingerprint FocalTemperature FrozenTeacher HardTargets InstanceCurriculumTemperature
    InstanceTemperature
    Interpolation Linear LogitStandardisation LossGap LossOutput MetaTemperature MultiTemperature NormKD Progressive
    Recipe SetpointError SetpointWarning Shipped Softness Spherical Splits Step Suggestion TargetSource TargetStore
    Task TeacherEnsemble TemperaturePolicy Temperatures TokenAdaptive TransformedTeacher WeightedSoftLabels
    WeightedTransformedTeacher
    adaptive_kl add_task alpha_beta calibrate_temperature calibration_error compare dist dkd effective_classes entropy
    explain export forward_kl jensen_shannon load_recipe log_partition log_temper logit_mse meta_step model_card nkd
    reverse_kl run
    skew_forward_kl skew_reverse_kl soft_cross_entropy soften suggest solve_temperature squared_error temper todi
    total_variation tune
""".split()  # noqa: SIM905 - names read better than quotes


def test_the_public_names_are_these():
    assert sorted(setpoint.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(setpoint, name).__doc__, name
    assert dir(setpoint) == sorted(PUBLIC)
    with pytest.raises(AttributeError, match="module 'setpoint' has no attribute 'nothing'"):
        setpoint.nothing  # noqa: B018


def test_type_checkers_are_told_the_same_names():
    tree = ast.parse(Path(setpoint.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    told = {alias.asname: statement.module for statement in block.body for alias in statement.names}
    assert told == {name: f"setpoint.{home}" for name, home in setpoint._HOME_OF.items()}


def test_importing_the_maths_brings_in_torch_alone():
    code = (
        "import sys\nfrom setpoint import DistillationObjective, explain, solve_temperature\n"
        "print(*(m for m in sys.argv[1:] if m in sys.modules))"
    )
    heavy = ["transformers", "datasets", "accelerate", "peft", "sklearn", "pydantic", "pyarrow", "plotly", "typer"]
    result = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_help_brings_in_no_framework():
    code = (
        "import sys\nfrom setpoint import cli\nsys.argv = ['setpoint', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "heavy = ('torch', 'transformers', 'datasets', 'peft', 'plotly')\n"
        "print(*(m for m in heavy if m in sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "setpoint run recipes/digits.yaml" in result.stdout
    assert result.stderr.split() == []
