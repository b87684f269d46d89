"""What a server takes: the size of a body, the number of inputs, the length of a text; and how a body is read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Bounds on what a request may ask for, and on what may wait.

    Attributes:
        body: bytes of a request's body.
        inputs: in a request.
        characters: of an input; it is refused before a tokenizer sees it.
        batch: inputs that are computed together.
        delay: seconds that an input waits for others.
        waiting: inputs that may wait for a batch; beyond them the server says that it is busy.
    """

    body: int = 1 << 20
    inputs: int = 256
    characters: int = 20_000
    batch: int = 32
    delay: float = 0.005
    waiting: int = 4096


class Refused(Exception):
    """A request that gets no answer but a status and a sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


async def read_body(stream: AsyncIterator[bytes], announced: str | None, most: int) -> bytes:
    """A request's body, given up on as soon as it is too large.

    Args:
        stream: its parts.
        announced: the header Content-Length.
        most: bytes that are read.

    Raises:
        Refused: 413 where it is longer.
    """
    problem = Refused(413, f"the body is larger than {most:,} bytes")
    if announced is not None and announced.isdecimal() and (len(announced) > 18 or int(announced) > most):
        raise problem
    parts, size = [], 0
    async for part in stream:
        size += len(part)
        if size > most:
            raise problem
        parts.append(part)
    return b"".join(parts)


def parse_inputs(body: bytes, most: int) -> list[Any]:
    """The list ``inputs`` of a body.

    Raises:
        Refused: 400 where it is no JSON in UTF-8, 422 where it has no such list, 413 where that is too long.
    """
    try:
        content = json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8, from byte {error.start} on") from None
    except RecursionError:
        raise Refused(400, "the body is nested too deep") from None
    except ValueError:
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(content, dict) or not isinstance(content.get("inputs"), list):
        raise Refused(422, 'the body has no list "inputs": send {"inputs": [...]}')
    inputs: list[Any] = content["inputs"]
    if len(inputs) > most:
        raise Refused(413, f"there are {len(inputs):,} inputs, more than {most:,}")
    return inputs


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
