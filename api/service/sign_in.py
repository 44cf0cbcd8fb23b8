"""Signing in and out with a password.

A wrong name and a wrong password get the same answer, after the same time. Only a few passwords are checked at once, as
each check takes much memory and time on purpose.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from coupon_ledger.api.service.attempts import Attempts
from coupon_ledger.api.service.callers import COOKIE
from coupon_ledger.api.service.settings_store import LONGEST_S, Person, SettingsStore

_AT_ONCE: Final = 2
_MOST_WAITING: Final = 20
HOME: Final = "/now"


class Tried(NamedTuple):
    """The result of a try. `person`: None if it failed; `wait_s`: how long to wait before the next one, if that is
    why. `busy`: whether too many others try."""

    person: Person | None
    wait_s: float = 0.0
    busy: bool = False


class SignIn:
    """For one event loop."""

    def __init__(self, store: SettingsStore, *, tls: bool) -> None:
        self._store = store
        self.tls = tls
        self._attempts = Attempts()
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="passwords")
        self._waiting = 0

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def tried(self, name: str, password: str, address: str) -> Tried:
        """Check a name and a password. `address`: of the client."""
        wait_s = self._attempts.wait_s(name, address)
        if wait_s:
            return Tried(None, wait_s)
        if self._waiting >= _MOST_WAITING:
            return Tried(None, busy=True)
        self._waiting += 1
        try:
            check = asyncio.get_running_loop().run_in_executor(self._threads, self._store.with_password, name, password)
            person = await check
        finally:
            self._waiting -= 1
        if person is None:
            self._attempts.failed(name, address)
        else:
            self._attempts.succeeded(name, address)
        return Tried(person)

    def begin(self, person: Person, response: Response) -> None:
        """Begin a session of this person, whose cookie goes with the response."""
        response.set_cookie(
            self._cookie,
            self._store.begin_session(person.name),
            max_age=int(LONGEST_S),
            path="/",
            secure=self.tls,
            httponly=True,
            samesite="lax",
        )

    def end(self, request: Request, response: Response) -> None:
        """End the request's session, if it has one."""
        value = request.scope["state"].get("session")
        if isinstance(value, str):
            self._store.end_session(value)
        response.delete_cookie(self._cookie, path="/", secure=self.tls, httponly=True, samesite="lax")

    @property
    def _cookie(self) -> str:
        return f"__Host-{COOKIE}" if self.tls else COOKIE


def inner(address: str) -> str:
    """The address within this service to which a sign-in leads. Any other, such as one of another host, becomes the
    first page."""
    parts = urlsplit(address)
    ours = address.startswith("/") and not address.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return address if ours and not any(ord(c) < 32 or c == "\\" for c in address) else HOME


def client_of(request: Request) -> str:
    """The client's address, for limits and records."""
    return request.client.host if request.client is not None else ""
