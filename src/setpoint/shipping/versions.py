"""The model that a server answers with, and the version that takes its place while it does."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from setpoint.errors import ModelError, SetpointError
from setpoint.shipping.apart import Apart
from setpoint.shipping.manifest import NAME
from setpoint.shipping.shipped import Shipped

CURRENT = "current"
"""In a folder of versions: a file that holds the name of one of them, or a link to it."""
VERSION = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"

logger = logging.getLogger("setpoint.serve")


def promoted(folder: str | Path) -> Path:
    """The exported folder that is to be served: the one given, or in a folder of versions the one that is current.

    Raises:
        ModelError: it is neither; or ``current`` names something else than a folder beside it.
    """
    folder = Path(folder)
    if (folder / NAME).is_file():
        return folder
    current = folder / CURRENT
    try:
        name = os.readlink(current) if current.is_symlink() else current.read_bytes()[:256].decode().strip()
    except (OSError, UnicodeDecodeError):
        raise ModelError(
            f"'{folder}' has neither {NAME} nor {CURRENT}",
            "give a folder that setpoint export wrote, or one of versions",
        ) from None
    if re.fullmatch(VERSION, name) is None or name == CURRENT or (folder / name).is_symlink():
        raise ModelError(f"'{current}' names {name!r}", "let it name a folder beside it")
    return folder / name


class Served:
    """An opened model, and the way to the next.

    Args:
        folder: an exported folder, or a folder of versions.
        threads: as of ``Shipped.open``.
        apart: whether each version has a process of its own.

    Attributes:
        now: the model that answers, and the name of its folder; one value, as the two change in another thread.
        failures: how many versions could not be taken.

    Raises:
        ModelError: the model cannot be opened.
    """

    def __init__(self, folder: str | Path, threads: int | None = None, apart: bool = False) -> None:
        self._folder, self._threads = Path(folder), threads
        self._kind: type[Shipped] = Apart if apart else Shipped
        self._turn = threading.Lock()
        place = promoted(folder)
        self.now = (self._kind.open(place, threads=threads), place.resolve().name)
        self._tried, self._problem = self.version, ""
        self.failures = 0

    @property
    def shipped(self) -> Shipped:
        """The model that answers."""
        return self.now[0]

    @property
    def version(self) -> str:
        """The name of its folder."""
        return self.now[1]

    def answer(self, checked: list[Any]) -> Sequence[tuple[str, dict[str, Any]]]:
        """The version and the answer for each input; one batch is never of two versions."""
        with self._turn:
            shipped, version = self.now
            return [(version, answer) for answer in shipped.answer(checked, len(checked))]

    def close(self) -> None:
        """Let the model go, where it has a process of its own."""
        with self._turn:
            _let_go(self.shipped)

    def refresh(self) -> bool:
        """Take the version that is current by now; gives whether it is another.

        One that cannot be opened, or is of another task, is told in the log, and the model that answers stays.
        """
        if (self._folder / NAME).is_file():
            return False
        try:
            place = promoted(self._folder)
            if place.name == self._tried:
                return False
            self._tried = place.name
            found = self._kind.open(place, threads=self._threads)
            self._check(found)
        except SetpointError as error:
            if str(error) != self._problem:  # it is looked at every second, and told once
                self._problem = str(error)
                self.failures += 1
                logger.error("%s; version %s stays", error, self.version)
            return False
        self._problem = ""
        with self._turn:  # not while a batch is with the old one
            old, self.now = self.shipped, (found, place.name)
        _let_go(old)
        return True

    def _check(self, found: Shipped) -> None:
        old, new = self.shipped.manifest, found.manifest
        for field in ("task", "columns", "image_shape", "pixels", "sound"):
            if getattr(old, field) != getattr(new, field):
                _let_go(found)
                raise ModelError(
                    f"'{found.folder}' has {field} {getattr(new, field)} where the served model has"
                    f" {getattr(old, field)}",
                    "serve it by another server",
                )


def _let_go(shipped: Shipped) -> None:
    if isinstance(shipped, Apart):
        shipped.close()
