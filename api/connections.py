"""Connections to the owner's endpoint: their number is limited, and one that does not ask is closed.

What always holds: the files that the owner still has to open (its log, its database) find a place, whatever connects;
and what a stranger sends writes nothing to the owner's log.
"""

from __future__ import annotations

import asyncio
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST: Final = 100
"""Maximum number of connections at once; a further one is closed immediately."""
ASK_WITHIN_S: Final = 10.0
"""Seconds within which a client must send its first request after connecting."""


class Bounded(H11Protocol):
    """HTTP/1.1 for clients on the same machine, some of which may be broken or hostile."""

    _asking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST:
            transport.abort()
            return
        self._asking = self.loop.call_later(ASK_WITHIN_S, self._unless_asked)

    def _unless_asked(self) -> None:
        if not self.cycle and not self.transport.is_closing():
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Reject input that is not HTTP. An answer that is under way is dropped."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()
        if self.cycle:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asking is not None:
            self._asking.cancel()
        super().connection_lost(exc)
