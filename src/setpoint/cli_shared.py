"""What all commands share: JSON on stdout, and a terminal that is left to Setpoint's own words."""

from __future__ import annotations

import json
import warnings
from typing import Annotated, Any

import typer

from setpoint import processes
from setpoint.errors import SetpointWarning
from setpoint.files import finite

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else there.")]


def quiet() -> None:
    """Leave the terminal to Setpoint's own progress bars, warnings and sentences."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.simplefilter("ignore")
    if processes.leads():
        warnings.simplefilter("always", SetpointWarning)
    warnings.showwarning = lambda message, *_: typer.echo(f"setpoint: {message}", err=True)


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    typer.echo(json.dumps(finite(value), indent=2))
