"""``setpoint serve``: a model at an address, until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from setpoint.errors import RunError, SetpointWarning
from setpoint.shipping.limits import Limits
from setpoint.shipping.needs import need
from setpoint.shipping.versions import Served

VARIABLE = "SETPOINT_TOKEN"
GRACE = 30
"""Seconds that running requests have to be answered once the server is told to stop."""


def serve(
    model: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    limits: Limits | None = None,
    threads: int | None = None,
) -> None:
    """Answer requests until SIGINT or SIGTERM, and then those that are running.

    Args:
        model: a folder that ``setpoint export`` wrote, or a folder of versions with one that is current.
        host: the address to listen at; on another than this machine's own anybody may ask who has the token.
        port: the port; any free one where it is 0.
        token: what a request has to bear.
        limits: what a request may ask for.
        threads: that one batch is computed with.

    Raises:
        SetpointError: the model cannot be opened, or the address cannot be listened at.
    """
    need("fastapi", "httptools", "uvicorn", "prometheus_client")
    import uvicorn

    from setpoint.shipping.protocol import BoundedProtocol
    from setpoint.shipping.server import make_app

    if token is None and host not in ("127.0.0.1", "::1", "localhost"):
        warnings.warn(f"{host} is open to others, and there is no token", SetpointWarning, stacklevel=2)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"port {port} of {host} cannot be opened ({reason})", "choose another with --port") from None
    logging.basicConfig(format="setpoint: %(message)s")
    logging.getLogger("setpoint").setLevel(logging.INFO)
    served = Served(model, threads, apart=True)
    app = make_app(served, limits or Limits(), token)
    config = uvicorn.Config(
        app, http=BoundedProtocol, log_level="warning", timeout_graceful_shutdown=GRACE, server_header=False
    )
    shown = f"[{host}]" if ":" in host else host
    print(f"Serving {model} at http://{shown}:{listening.getsockname()[1]} (its API: /docs)", flush=True)

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """As uvicorn's own, but in the end the process exits with 0: to be told to stop is no failure."""
            before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for one, handler in before.items():
                    signal.signal(one, handler)

    try:
        Server(config).run(sockets=[listening])
    finally:
        served.close()


def read_token(file: Path | None) -> str | None:
    """The token in a file or in the variable ``SETPOINT_TOKEN``; None where there is neither.

    Raises:
        RunError: the file cannot be read, or the token is empty.
    """
    if file is None:
        token, where = os.environ.get(VARIABLE), f"variable {VARIABLE}"
    else:
        where = f"token file '{file}'"
        try:
            token = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{where} cannot be read ({error})", "give a text file") from None
    if token is None:
        return None
    if not token.strip():
        raise RunError(f"the {where} is empty", "write a token, or give none")
    return token.strip()
