"""Several processes for each training (torchrun, accelerate launch): the first does a run, the others train with it.

The first process reads, decides, stores and writes as if it were alone. Where a training begins it calls the others,
which build the same trainer and train with it; between calls they wait.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

PATIENCE = datetime.timedelta(days=30)
"""How long the others wait for a call: as long as a teacher may take over its data."""


def together() -> bool:
    """Whether this process is one of several.

    Examples:
        >>> together(), leads()
        (False, True)
    """
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def leads() -> bool:
    """Whether this process is the first, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def call(kind: str, **given: Any) -> None:
    """Tell the others what begins; nothing where there are none, or this is one of them."""
    if together() and leads():
        _broadcast((kind, given))


def calls() -> Iterator[tuple[str, dict[str, Any]]]:
    """What the first process calls for, one after the other, until it is done."""
    while True:
        try:
            kind, given = _broadcast(None)
        except RuntimeError:  # the first has ended, and has said why
            raise SystemExit(1) from None
        yield kind, given


def _broadcast(message: Any) -> Any:
    """From the first process to all; pickled, which is safe among processes of one program."""
    import torch.distributed

    held = [message]
    torch.distributed.broadcast_object_list(held, src=0, group=_group())
    return held[0]


@cache
def _group() -> Any:
    """A group of all processes beside that of the training, which would give up on a call after some minutes."""
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.accelerator.is_available())
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
