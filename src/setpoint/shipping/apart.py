"""A model in a process of its own, so that its Python and the server's do not wait for one another."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from setpoint.errors import ModelError, SetpointError
from setpoint.shipping.shipped import BATCH, Shipped, read_folder

GOING = 10.0
"""Seconds that a process has to go, once it is told to."""


class Apart(Shipped):
    """An exported student that reads inputs here and answers there; for one thread at a time."""

    _threads: int | None
    _pipe: Connection
    _process: Any

    @classmethod
    def open(cls, folder: str | Path, *, threads: int | None = None) -> Self:
        """As ``Shipped.open``, in another process, and what reads inputs here too.

        Raises:
            ModelError: as there.
        """
        place, manifest, task, processor = read_folder(folder)
        one = cls(place, manifest, task, processor, _Elsewhere(manifest.labels))
        one._threads = threads
        one._start()
        return one

    def answer(self, checked: Sequence[Any], batch_size: int = BATCH) -> list[dict[str, Any]]:
        """As of ``Shipped``. A process that has died, of too little memory for instance, is replaced once.

        Raises:
            RuntimeError: what went wrong there.
        """
        try:
            said, found = self._ask(checked, batch_size)
        except (EOFError, OSError):
            self.close()
            self._start()
            said, found = self._ask(checked, batch_size)
        if said is not None:
            raise RuntimeError(said)
        return found

    def close(self) -> None:
        """Let the process go."""
        self._pipe.close()
        self._process.join(GOING)
        if self._process.is_alive():
            self._process.kill()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self.folder, self._threads), daemon=True)
        self._process.start()
        theirs.close()
        # However this process ends, that one sees it and goes.
        Finalize(self, Connection.close, (self._pipe,), exitpriority=0)
        try:
            problem = self._pipe.recv()
        except EOFError:
            problem = (f"the process for '{self.folder}' died", "look whether there is enough memory")
        if problem is not None:
            self.close()
            raise ModelError(*problem)

    def _ask(self, checked: Sequence[Any], batch_size: int) -> tuple[str | None, list[dict[str, Any]]]:
        self._pipe.send((checked, batch_size))
        answered: tuple[str | None, list[dict[str, Any]]] = self._pipe.recv()
        return answered


@dataclass(frozen=True)
class _Elsewhere:
    """Stands where a model would be."""

    labels: tuple[str, ...]

    def __call__(self, batch: Mapping[str, Any]) -> Tensor:
        raise RuntimeError("the model is in another process")


def _work(pipe: Connection, folder: Path, threads: int | None) -> None:
    """What the process does: open the model, and answer until nobody is there to ask."""
    for one in (signal.SIGINT, signal.SIGTERM):  # they are the server's, which answers first what runs
        signal.signal(one, signal.SIG_IGN)
    try:
        shipped = Shipped.open(folder, threads=threads)
    except SetpointError as error:
        pipe.send((error.problem, error.mend))
        return
    pipe.send(None)
    while True:
        try:
            checked, batch_size = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answers: tuple[str | None, list[dict[str, Any]]] = None, shipped.answer(checked, batch_size)
        except Exception as error:  # theirs, who asked; the next may do better
            answers = f"{type(error).__name__}: {error}", []
        pipe.send(answers)
