"""The run folder: one process at a time, and stages that are done once.

A stage leaves its result in the folder and then a done-mark, ``stages/NAME.json``, that holds what the stage was made
from. A run that was stopped, at whatever moment, finds the marks and continues with the first stage that has none.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from setpoint.errors import RunError, SetpointError
from setpoint.files import read_json, write_json

OWN = {
    "checkpoints", "logs", "metrics.json", "recipe.json", "report.html", "report.md", "rewritten.jsonl", "stages",
    "states", "student", "student-pretrained", "student-shrunk", "student_hard", "targets", "teacher",
    "teacher-pretrained", "tuned.yaml", "tuning", "tuning.json", "refreshes", "versions", "tokenizer", "generated",
}  # fmt: skip
"""What a run writes into its folder, and all that starting over deletes."""

NOTE = "made_from.json"
"""In a scratch folder: what is being made there."""

FULL = 1 << 20
"""Free bytes below which a disk counts as full."""


def is_held(lock: Path) -> bool:
    """Whether some process holds the lock of a file; the kernel releases it when the process dies."""
    try:
        with open(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _own(name: str) -> bool:
    name = name.lstrip(".").removesuffix(".partial")
    return name in OWN or re.fullmatch(r"targets-\d+", name) is not None


class RunFolder(AbstractContextManager["RunFolder"]):
    """A folder that one run owns while it is open.

    Args:
        path: made if it does not exist.
        wait: until no other process has it open.

    Raises:
        RunError: another process has it open, or it cannot be written; on leaving: the disk is full.
    """

    def __init__(self, path: str | Path, *, wait: bool = False) -> None:
        self.path = Path(path)
        self._wait = wait

    def __enter__(self) -> RunFolder:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "a+")
        except OSError as error:
            raise RunError(
                f"run folder '{self.path}' cannot be written ({error.strerror})", "choose another with --run-dir"
            ) from None
        self._acquire(self._wait)
        return self

    def _acquire(self, wait: bool) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "another process"
            self._lock.close()
            raise RunError(
                f"run folder '{self.path}' is in use by {owner}", "wait for it, or choose another with --run-dir"
            ) from None
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()}")
        self._lock.flush()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Let other processes in for a while; what they do must not be in each other's way."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        try:
            yield
        finally:
            self._acquire(wait=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()  # releases the lock; the kernel does so too when the process is killed
        if error is not None and not isinstance(error, SetpointError) and self._disk_is_full(error):
            raise RunError(
                f"the disk is full while writing run folder '{self.path}'",
                "make room and run the same command again; it continues",
            ) from None

    def _disk_is_full(self, error: BaseException) -> bool:
        """Whether an error is that of a full disk; libraries in other languages do not say so in errno."""
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        return isinstance(error, Exception) and shutil.disk_usage(self.path).free < FULL

    def clear(self) -> None:
        """Forget what an earlier run left in the folder; other files stay.

        Raises:
            RunError: no run was here before, so that a folder such as ``logs`` is somebody else's; or others are at
                work here.
        """
        self._refuse_beside_workers()
        entries = [e for e in self.path.iterdir() if _own(e.name)]
        marks = [*self.path.glob("stages/*.json"), *self.path.glob(f"checkpoints/**/{NOTE}")]
        if entries and not marks:
            raise RunError(
                f"folder '{self.path}' holds '{entries[0].name}' but no run, so --fresh will not delete it",
                "choose another with --run-dir",
            )
        for entry in entries:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _refuse_beside_workers(self) -> None:
        """A search that other processes are at must not lose its folder."""
        for lock in (self.path / "tuning" / "workers").glob("*"):
            if is_held(lock):
                raise RunError(
                    f"run folder '{self.path}' has a search under way, so --fresh will not delete it",
                    "stop its workers, or choose another with --run-dir",
                )

    def mark(self, name: str) -> dict[str, Any] | None:
        """What the done-mark of a stage holds, or None where the stage is not done."""
        file = self.path / "stages" / f"{name}.json"
        if not file.exists():
            return None
        try:
            content: dict[str, Any] = read_json(file)
        except ValueError:  # damaged: as good as none
            return None
        return content if isinstance(content, dict) and content.keys() >= {"made_from", "seconds", "result"} else None

    def stage(
        self,
        name: str,
        made_from: Any,
        work: Callable[[], dict[str, Any] | None],
        *,
        redo: bool = True,
        output: Path | None = None,
        scratch: Path | None = None,
    ) -> dict[str, Any]:
        """Do a stage unless it is done; give the result that its mark holds.

        Args:
            name: names the mark.
            made_from: JSON data; everything that decides the stage's result.
            work: does the stage; may return JSON data to keep in the mark.
            redo: what to do where the stage was made from something else (the recipe has changed since): do it again,
                or, for a stage too costly to lose unasked, refuse.
            output: the folder that the stage leaves; where somebody has deleted it, the stage is not done.
            scratch: the folder where the work keeps what it resumes from. What was begun from something else is
                thrown away, and all of it once the mark stands.

        Raises:
            RunError: the stage was made from something else and ``redo`` is False.
        """
        done = self.mark(name) if output is None or output.exists() else None
        if done is not None and done["made_from"] == made_from:
            kept: dict[str, Any] = done["result"]
            return kept
        if done is not None and not redo:
            raise RunError(
                f"run folder '{self.path}' holds {name if name.endswith('s') else 'a ' + name} made from another "
                f"'{_difference(done['made_from'], made_from)}'",
                "start over with --fresh, or choose another folder with --run-dir",
            )
        mark = self.path / "stages" / f"{name}.json"
        mark.unlink(missing_ok=True)
        if scratch is not None:
            begin(scratch, made_from)
        start = time.perf_counter()
        result = work() or {}
        mark.parent.mkdir(exist_ok=True)
        write_json(mark, {"made_from": made_from, "seconds": round(time.perf_counter() - start, 2), "result": result})
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        return result

    def seconds(self) -> dict[str, float]:
        """How long each finished stage took, in seconds."""
        marks = {file.stem: self.mark(file.stem) for file in sorted((self.path / "stages").glob("*.json"))}
        return {name: mark["seconds"] for name, mark in marks.items() if mark is not None}


def read_left(path: str | Path, name: str) -> dict[str, Any]:
    """What a finished run has left in a file of its folder, such as ``recipe.json``.

    Raises:
        RunError: it is not there, or damaged.
    """
    path = Path(path)
    try:
        content = read_json(path / name)
    except OSError:
        raise RunError(f"'{path}' has no {name}", "give the folder of a run that is finished") from None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise damaged(path / name)
    return content


def damaged(file: Path) -> RunError:
    """The error for a file of a run that holds something else than the run has left."""
    return RunError(f"'{file}' is damaged", "run the recipe again; it continues")


def begin(scratch: Path, made_from: Any) -> None:
    """Make a scratch folder that belongs to one origin; what another left in it is not to be resumed."""
    note = scratch / NOTE
    if not note.exists() or read_json(note) != made_from:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        write_json(note, made_from)


def _difference(old: Any, new: Any, field: str = "") -> str:
    """The first field in which two recipes' data differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*new, *old]):
            if old.get(key) != new.get(key):
                joint = "." if key.replace(" ", "_").isidentifier() else " "  # a path stands apart
                return _difference(old.get(key), new.get(key), f"{field}{joint}{key}".lstrip(". "))
    return field
