import subprocess
import sys

import setpoint

PUBLIC = """
    Constant Cosine DistillationObjective DistillationTrainer Exponential FrozenTeacher HardTargets Linear LossOutput
    Recipe SetpointError Step TargetSource TargetStore TemperaturePolicy Temperatures calibrate_temperature
    effective_classes entropy forward_kl jensen_shannon load_recipe log_partition log_temper logit_mse reverse_kl run
    solve_temperature soft_cross_entropy temper
""".split()  # noqa: SIM905 - names read better than quotes


def test_the_public_names_are_these():
    assert sorted(setpoint.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(setpoint, name).__doc__, name


def test_importing_the_maths_brings_in_torch_alone():
    code = "import sys, setpoint; print(*(m for m in sys.argv[1:] if m in sys.modules))"
    heavy = ["transformers", "datasets", "accelerate", "peft", "sklearn", "pydantic", "pyarrow", "plotly", "typer"]
    result = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_help_brings_in_no_framework():
    code = (
        "import sys\nfrom setpoint import cli\nsys.argv = ['setpoint', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "print(*(m for m in ('transformers', 'datasets', 'peft', 'plotly') if m in sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "setpoint run recipes/digits.yaml" in result.stdout
    assert result.stderr.split() == []
