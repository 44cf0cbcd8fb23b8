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
REST_WITHIN_S: Final = 5.0
"""Seconds in which the rest of a body must arrive that was answered before its end."""
MOST_HEADER_BYTES: Final = 65_536
"""Bytes of a request besides its body: headers, trailers, and what chunks add beyond `_OF_A_CHUNK`."""
_OF_A_CHUNK: Final = 32


class Patient(HttpToolsProtocol):
    """One connection over HTTP/1.1."""

    _deadline: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _in_headers = True
    _in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST:
            transport.abort()
            return
        self._await_end(HEADERS_WITHIN_S)

    def data_received(self, data: bytes) -> None:
        self._header_bytes += len(data)
        with suppress(UnicodeDecodeError):  # a path that is no ASCII; refused below
            super().data_received(data)
            if self._header_bytes > MOST_HEADER_BYTES:
                self.transport.abort()
            return
        self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0
        if not self._in_headers:
            self._in_headers = True
            self._await_end(HEADERS_WITHIN_S)

    def on_headers_complete(self) -> None:
        self._in_headers, self._in_body = False, True
        self._calm()
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        self._header_bytes = max(self._header_bytes - _OF_A_CHUNK, 0)

    def on_body(self, body: bytes) -> None:
        self._header_bytes = max(self._header_bytes - len(body), 0)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._calm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body and self.cycle.response_complete:
            self._await_end(REST_WITHIN_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._calm()
        super().connection_lost(exc)

    def _await_end(self, within_s: float) -> None:
        self._calm()
        self._deadline = self.loop.call_later(within_s, self._too_late)

    def _calm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()
