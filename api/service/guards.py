"""What every request passes before a route sees it: the name by which the service was addressed, the number of requests
in flight, a client that does not read; and what every response carries."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coupon_ledger.api.service.problems import problem

IN_FLIGHT: Final = 1_200
"""Requests that are answered at once. Further ones get status 503."""
SEND_S: Final = 60.0
"""A client that receives no data for so long is disconnected."""
_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self';"
    " font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; manifest-src 'self'"
)
_HEADERS: Final = (
    (b"content-security-policy", _CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)
_HSTS: Final = (b"strict-transport-security", b"max-age=31536000")
_logger = logging.getLogger("coupon_ledger.service")


class Guards:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str], *, tls: bool) -> None:
        """`hosts`: the values of the header `Host` that are answered, in lower case, with the port where it is not the
        usual one. A page of another name that resolves to this machine is so kept from asking."""
        self._app = app
        self._hosts = frozenset(hosts)
        self._headers = [*_HEADERS, *([_HSTS] if tls else [])]
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sending = self._with_headers(send)
        hosts = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            names = "start it with --name for another"
            await problem(421, f"this service does not answer to that host name; {names}")(scope, receive, sending)
            return
        if self._in_flight >= IN_FLIGHT:
            busy = problem(503, "too many requests at once; send it again", {"Retry-After": "1"})
            await busy(scope, receive, sending)
            return
        self._in_flight += 1
        try:
            await self._answered(scope, receive, sending)
        finally:
            self._in_flight -= 1

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except (TimeoutError, asyncio.CancelledError):
            raise
        except Exception as error:
            _logger.error("%s %s: an error of the program", scope["method"], scope["path"][:200], exc_info=error)
            if begun:
                raise
            await problem(500, "an error of the program; the service's log has more")(scope, receive, send)

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(h for h in self._headers if h[0] not in present)]
            await asyncio.wait_for(send(message), SEND_S)

        return sending
