"""The connections of the service: bounded in number, in the size of headers, and in the time that a client takes to
send them. Clients may be slow, broken or hostile."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST: Final = 1_000
"""Connections at once. Further ones are closed immediately."""
HEADERS_WITHIN_S: Final = 10.0
"""Seconds in which the headers of a request must arrive, counted from the connection or from the request's first
byte."""
MOST_HEADER_BYTES: Final = 65_536


class Patient(HttpToolsProtocol):
    """One connection over HTTP/1.1."""

    _deadline: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _in_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST:
            transport.abort()
            return
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        if self._in_headers:
            self._header_bytes += len(data)
        with suppress(UnicodeDecodeError):  # a path that is no ASCII; refused below
            super().data_received(data)
            if self._in_headers and self._header_bytes > MOST_HEADER_BYTES:
                self.transport.abort()
            return
        self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0
        if not self._in_headers:
            self._in_headers = True
            self._await_headers()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._calm()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._calm()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self._calm()
        self._deadline = self.loop.call_later(HEADERS_WITHIN_S, self._too_late)

    def _calm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()
