"""The versions of a run's student: folders that are whole or not there, and the name of the one that is current."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from setpoint.errors import RunError
from setpoint.files import read_json, sync_files, sync_folder, write_atomic, write_json
from setpoint.run_folder import RunFolder

NOTE = "version.json"
"""In a version's folder: where it comes from."""


class Versions:
    """``RUN/versions``: a folder a version, named 1, 2, …, and the file ``current``, which names one of them.

    Each folder is an export, which transformers and ``setpoint serve`` load as it stands, with a note of what it was
    made from. ``current`` is replaced in one step, so that a server that looks at it finds a whole version.

    Args:
        run: the run folder.
    """

    def __init__(self, run: str | Path) -> None:
        self.path = Path(run) / "versions"

    @property
    def current(self) -> str | None:
        """The name of the version that counts; None before the first.

        Raises:
            RunError: it names nothing that is there.
        """
        try:
            name = (self.path / "current").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        if not name.isdecimal() or not (self.path / name / NOTE).is_file():
            raise RunError(f"'{self.path / 'current'}' names no version", "write the number of a folder beside it")
        return name

    def folder(self, name: str) -> Path:
        """Where a version lies."""
        return self.path / name

    def note(self, name: str) -> dict[str, Any]:
        """What a version was made from."""
        found: dict[str, Any] = read_json(self.path / name / NOTE)
        return found

    def keep(self, write: Callable[[Path], object], note: Mapping[str, Any]) -> str:
        """Have the next version written, unless one of the same note is there already; gives its name."""
        names = sorted(int(folder.name) for folder in self.path.glob("[0-9]*") if folder.name.isdecimal())
        for number in names:
            if self.note(str(number)) == note:
                return str(number)
        name = str(names[-1] + 1 if names else 1)
        partial = self.path / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        write(partial)
        write_json(partial / NOTE, note)
        sync_files(partial)
        partial.rename(self.path / name)
        sync_folder(self.path)
        return name

    def promote(self, name: str) -> None:
        """Make a version the current one."""
        write_atomic(self.path / "current", f"{name}\n")


def rollback(run: str | Path) -> str:
    """Go back to the version before the current one; gives its name. The newer one stays where it is.

    Args:
        run: the run folder.

    Raises:
        RunError: no version was ever promoted, there is none before, or the folder is in use.
    """
    versions = Versions(run)
    if versions.current is None:
        raise RunError(f"'{run}' has no versions", "promote one with setpoint refresh first")
    with RunFolder(run):
        name = versions.current
        before = versions.note(name)["previous"] if name is not None else None
        if before is None:
            raise RunError(f"version {name} of '{run}' is its first", "there is nothing to go back to")
        versions.promote(str(before))
    return str(before)
