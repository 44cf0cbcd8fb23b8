"""Who sends a request, and what this caller may do.

A system sends a token (`Authorization: Bearer cl_…`), a browser the cookie of its session. A request with a cookie that
changes something must come from a page of this service, and bring the session's `csrf` value, so that no page of
another origin can make a browser send it.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Final, Literal
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from coupon_ledger.api.service.problems import Refusal, of_error
from coupon_ledger.api.service.settings_store import Person, SettingsStore, Token
from coupon_ledger.api.service.settings_store import Scope as Rows
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.questions.access.access import Access
from coupon_ledger.questions.access.access import Scope as AccessScope
from coupon_ledger.questions.access.roles import roles

COOKIE: Final = "coupon-ledger-session"
CSRF_HEADER: Final = "x-csrf-token"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})

Right = Literal["publish", "check", "ask", "act", "operate", "administer"]
"""`check`: ask whether a coupon can be used. `ask`: ask questions. `act`: acknowledge, assign, silence and resolve
alerts. `operate`: rebuild, verify, replay and discard dead letters, back up. `administer`: people and tokens."""

RIGHTS: Final[Mapping[str, frozenset[Right]]] = {
    "publisher": frozenset({"publish", "check"}),
    "marketing": frozenset({"ask"}),
    "finance": frozenset({"ask"}),
    "risk": frozenset({"ask", "act"}),
    "manager": frozenset({"ask"}),
    "ops": frozenset({"check", "ask", "act", "operate"}),
    "admin": frozenset({"check", "ask", "act", "operate", "publish", "administer"}),
}
"""What each role may do. Which questions a role may ask, and what it sees of the answers, is in `questions/access`."""


_NOTHING: Final = Access(areas=frozenset())


_OF_THE_WHOLE: Final[frozenset[Right]] = frozenset({"act", "operate", "administer"})
"""Rights that need a scope over the whole ledger."""


@dataclass(frozen=True, slots=True)
class Caller:
    """`name`: as it is recorded: the person's name, or `token:` and the token's name. `rows`: which rows may be seen.
    `sources`: the values of `source` that may be published; None: any. `csrf`: for a browser, what its forms bring.
    `access`: which questions may be asked, and what is seen of the answers."""

    name: str
    role: str
    rows: Rows = field(default_factory=dict)
    sources: frozenset[str] | None = None
    csrf: str | None = None
    person: Person | None = None
    access: Access = field(default=_NOTHING, repr=False)

    def may(self, right: Right) -> bool:
        return right in RIGHTS.get(self.role, frozenset())


def of_person(person: Person, csrf: str, key: bytes) -> Caller:
    """`key`: the installation's key for pseudonyms."""
    access = _access(person.role, person.scope, key)
    return Caller(person.name, person.role, person.scope, None, csrf, person, access)


def of_token(token: Token, key: bytes) -> Caller:
    """`key`: the installation's key for pseudonyms."""
    any_source = token.role == "admin" and not token.sources
    sources = None if any_source else frozenset(token.sources)
    access = _access(token.role, token.scope, key)
    return Caller(f"token:{token.name}", token.role, token.scope, sources, access=access)


def _access(role: str, rows: Rows, key: bytes) -> Access:
    if role not in roles():
        return _NOTHING
    return roles()[role].access(key, scope_of(rows))


def scope_of(rows: Rows) -> AccessScope:
    """The rows as questions take them. Names of a kind that this version does not know hide everything."""
    if rows.keys() - {"campaign", "channel", "store"}:
        return AccessScope(campaigns=())
    campaigns, channels, stores = (tuple(rows[k]) if k in rows else None for k in ("campaign", "channel", "store"))
    return AccessScope(campaigns, channels, stores)


def caller_of(request: Request) -> Caller:
    """The caller of a request. Raises `Refusal` (401) if there is none."""
    caller: Caller | None = request.scope["state"].get("caller")
    if caller is None:
        detail = request.scope["state"].get("refused") or "send a token in the header Authorization, or sign in"
        raise Refusal(401, detail, {"WWW-Authenticate": "Bearer"})
    return caller


def allowed(request: Request, right: Right) -> Caller:
    """The caller of a request that needs this right. Raises `Refusal` (401, 403)."""
    caller = caller_of(request)
    if not caller.may(right):
        able = ", ".join(role for role, rights in RIGHTS.items() if right in rights)
        raise Refusal(403, f"the role {caller.role} may not do this; roles that may: {able}")
    if right in _OF_THE_WHOLE and caller.access.scope:
        raise Refusal(403, "this is about the whole ledger, and you may see a part of it; ask an admin")
    return caller


class Identify:
    """Finds out who sends a request, and puts the `Caller` into `scope["state"]`. Requests without credentials pass,
    and routes refuse them (`caller_of`)."""

    def __init__(self, app: ASGIApp, store: SettingsStore, origins: frozenset[str]) -> None:
        """`origins`: those of the service's own pages, such as `https://coupons.example.com`."""
        self._app = app
        self._store = store
        self._key = store.secret("pseudonyms")
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            state = scope.setdefault("state", {})
            try:
                state["caller"] = self._caller(scope, state)
            except (Refusal, LedgerError) as error:
                await of_error(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def still_valid(self, request: Request, caller: Caller) -> bool:
        """Whether the request would still have this caller if it came now."""
        try:
            return self._caller(request.scope, {}) == caller
        except (Refusal, LedgerError):
            return False

    def _caller(self, scope: Scope, state: dict[str, object]) -> Caller | None:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value)
        authorization = headers.get(b"authorization", [])
        if authorization:
            kind, _, text = authorization[0].decode("latin-1").partition(" ")
            token = self._store.of_token(text.strip()) if kind.lower() == "bearer" and len(authorization) == 1 else None
            if token is None:
                state["refused"] = "the token is unknown, expired or revoked; ask an admin for another"
                return None
            return of_token(token, self._key)
        value = session_cookie(headers.get(b"cookie", []))
        session = self._store.session(value) if value is not None else None
        if session is None:
            return None
        if scope["method"] not in _SAFE:
            self._check_origin(headers)
            brought = headers.get(CSRF_HEADER.encode(), [])
            state["csrf_checked"] = len(brought) == 1 and hmac.compare_digest(brought[0], session.csrf.encode())
        state["session"] = value
        return of_person(session.person, session.csrf, self._key)

    def _check_origin(self, headers: Mapping[bytes, list[bytes]]) -> None:
        """Refuse a change that a page of another origin sends with this browser's cookie."""
        origins = {one.decode("latin-1").lower() for one in headers.get(b"origin", [])}
        if not origins and (referer := headers.get(b"referer")):
            with suppress(ValueError):  # no address; refused below
                parts = urlsplit(referer[0].decode("latin-1"))
                origins = {f"{parts.scheme}://{parts.netloc}".lower()}
        if not origins or not origins <= self._origins:
            raise Refusal(403, "this change does not come from a page of this service; open the page here again")


def check_csrf(request: Request, form_value: object = None) -> None:
    """For a change that a browser requests: check that its page has this session's `csrf` value, in the header or in
    the form. Raises `Refusal` (403). Requests with a token need none."""
    caller = caller_of(request)
    if caller.csrf is None or request.scope["state"].get("csrf_checked"):
        return
    if not isinstance(form_value, str) or not hmac.compare_digest(form_value.encode(), caller.csrf.encode()):
        raise Refusal(403, "the page is from an earlier session; reload it and try again")


def same_origin(request: Request) -> None:
    """For forms sent without a session. Raises `Refusal` (403) if the form comes from a page of another origin."""
    origin = request.headers.get("origin", "")
    if urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise Refusal(403, "this form does not come from a page of this service; open the page here again")


def session_cookie(headers: list[bytes]) -> str | None:
    """The value of the session's cookie in the request's `Cookie` headers."""
    cookies: SimpleCookie = SimpleCookie()
    for header in headers:
        try:
            cookies.load(header.decode("latin-1"))
        except CookieError:
            return None
    names = (f"__Host-{COOKIE}", COOKIE)
    return next((cookies[name].value for name in names if name in cookies), None)
