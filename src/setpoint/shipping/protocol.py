"""uvicorn's fast HTTP protocol, with a bound on what a request may send before its body."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD = 1 << 16
"""Bytes of a request's line and headers. The parser in C has no bound of its own: it would keep whatever comes."""


class BoundedProtocol(HttpToolsProtocol):
    """Refuses a request whose head does not end within ``HEAD`` bytes, with 431, and hangs up."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head, self._has_head = 0, False

    def data_received(self, data: bytes) -> None:
        """Read on, a part of a request or of several."""
        if not self._has_head:
            self._head += len(data)
        super().data_received(data)
        if not self._has_head and self._head > HEAD and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def on_headers_complete(self) -> None:
        """The head has come whole."""
        self._has_head = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """So has the body; what comes now is the head of another."""
        self._head, self._has_head = 0, False
        super().on_message_complete()
