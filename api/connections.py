"""Limits the connections to the owner's endpoint. There can be only so many at once, and a connection over which no
request arrives in time is closed.

Always true:
- Connections never use up the file descriptors that the owner needs for its log and its database.
- Nothing that a client without a token sends makes the owner write a log message.
"""

from __future__ import annotations

import asyncio
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST: Final = 100
"""Maximum number of connections at once. Further ones are closed immediately."""
ASK_WITHIN_S: Final = 10.0
"""Seconds within which a client must send its first request after connecting."""


class Bounded(H11Protocol):
    """A connection that serves HTTP/1.1. The client is on the same machine, but may be broken or hostile."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST:
            transport.abort()
            return
        self._deadline = self.loop.call_later(ASK_WITHIN_S, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if not self.cycle and not self.transport.is_closing():
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Refuse input that is not HTTP. If an answer is being sent on this connection, the connection is closed
        instead."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()
        if self.cycle:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)
