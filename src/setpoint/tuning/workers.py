"""Which workers of a search are alive: each holds a lock in the run folder, which the kernel releases at its death."""

from __future__ import annotations

import fcntl
import socket
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from setpoint.run_folder import is_held

WAIT = 0.5
"""Seconds between looks at what other workers have done."""


class Alive:
    """Names this worker, and shows to others of the same run folder that it lives.

    Args:
        folder: where the workers of this run folder keep their locks.

    Examples:
        >>> import tempfile
        >>> with Alive(Path(tempfile.mkdtemp())) as one:
        ...     two = Alive(one.folder)
        ...     two.knows(one.name), two.knows(two.name), two.knows("another:/place:7")
        (True, False, None)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._place = f"{socket.gethostname()}:{folder.resolve()}"
        self._id = uuid.uuid4().hex[:12]
        self.name = f"{self._place}:{self._id}"
        self._lock: Any = None
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Alive:
        self._lock = open(self.folder / self._id, "w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        (self.folder / self._id).unlink(missing_ok=True)
        self._lock.close()

    def knows(self, worker: str) -> bool | None:
        """Whether a worker lives; None where it belongs to another machine or folder."""
        place, _, name = worker.rpartition(":")
        if place != self._place:
            return None
        return is_held(self.folder / name)
