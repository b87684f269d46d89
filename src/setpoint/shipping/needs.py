"""What shipping needs beyond what training does."""

from __future__ import annotations

import importlib.util

from setpoint.errors import SetpointError


def need(*packages: str) -> None:
    """Refuse to begin without a Python package that only the extra ``ship`` brings.

    Raises:
        SetpointError: naming the first that is missing, and the command that installs it.

    Examples:
        >>> need("json", "no_such_package")
        Traceback (most recent call last):
        setpoint.errors.SetpointError: the Python package 'no_such_package' is missing: pip install 'setpoint[ship]'
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise SetpointError(f"the Python package '{package}' is missing", "pip install 'setpoint[ship]'")
