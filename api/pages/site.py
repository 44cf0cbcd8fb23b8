"""The routes of the pages: which page is at which address, who may open it, and what stands in its place when it cannot
be shown."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode
from zoneinfo import ZoneInfo

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from coupon_ledger.api.pages import alerts, campaign, campaigns, explore, now, objects, ops, replay, report, why
from coupon_ledger.api.pages.answers import PageAnswers
from coupon_ledger.api.pages.components import Freshness, Link, Person, State
from coupon_ledger.api.pages.looking import Looking, Maker, Page
from coupon_ledger.api.pages.rendering import FRAGMENT, PAGES, THEME_COOKIE, THEMES, Frame, render, static
from coupon_ledger.api.pages.shared import Shared
from coupon_ledger.api.service.asking import whose
from coupon_ledger.api.service.auditing import Audit
from coupon_ledger.api.service.bodies import body_of
from coupon_ledger.api.service.callers import Caller, check_csrf, same_origin
from coupon_ledger.api.service.openid import OpenId
from coupon_ledger.api.service.owner_link import OwnerLink
from coupon_ledger.api.service.problems import Refusal, of_error
from coupon_ledger.api.service.settings_store import SettingsStore
from coupon_ledger.api.service.sign_in import HOME, SignIn, client_of, inner
from coupon_ledger.ledger.errors import LedgerError, NotThere, OpenIdFailed, OwnerGone, QueryStopped
from coupon_ledger.ledger.settings import LANGUAGES
from coupon_ledger.ledger.words import Note
from coupon_ledger.reports.labels import say, text_of, word
from coupon_ledger.reports.view import View, showing, view

MAKERS: Final[Mapping[str, tuple[str, Maker]]] = {
    "/now": ("now", now.page),
    "/campaigns": ("campaigns", campaigns.page),
    "/campaigns/{campaign:path}": ("campaigns", campaign.page),
    "/coupons/{coupon:path}": ("campaigns", objects.coupon),
    "/orders/{order:path}": ("campaigns", objects.order),
    "/users/{user:path}": ("customers", objects.user),
    "/alerts": ("alerts", alerts.inbox),
    "/alerts/{alert}": ("alerts", alerts.alert),
    "/customers": ("customers", report.customers),
    "/finance": ("finance", report.finance),
    "/explore": ("explore", explore.page),
    "/ops": ("ops", ops.page),
    "/why": ("explore", why.page),
    "/replay": ("replay", replay.page),
}
"""By address: the entry of the top bar, and what makes the page."""
_PAGE_HEADERS: Final = {"Cache-Control": "no-store", "Vary": "Cookie, X-Fragment"}
_FRAGMENTS: Final = 300
"""Fragments that are kept."""
_CSRF: Final = "csrf-of-whoever-looks"
_LATE_S: Final = 60.0
_ALERTS_S: Final = 2.0
_LANG, _ZONE = "lang", "zone"
_SERVICE: Final = "the service"
_OPENID: Final = "coupon-ledger-openid"
_YEAR_S: Final = 365 * 86_400
_FORM_BYTES: Final = 10_000
_logger = logging.getLogger("coupon_ledger.service")


class Site:
    """Serves the pages, in one event loop."""

    def __init__(
        self,
        link: OwnerLink,
        store: SettingsStore,
        sign_in: SignIn,
        audit: Audit,
        default: View,
        openid: OpenId | None = None,
    ) -> None:
        """`default`: language and zone of viewers who have chosen none. `openid`: another way to sign in, if there is
        one."""
        self._openid = openid
        self._audit = audit
        self._link = link
        self._store = store
        self._sign_in = sign_in
        self._default = default
        self._answers = PageAnswers(link)
        self._fragments: Shared[Response] = Shared(_FRAGMENTS, rests=False)

    def add_to(self, app: FastAPI) -> None:
        routes = [
            Route("/", self._home),
            Route("/static/{name}", _static),
            Route("/sign-in", self._sign_in_page, methods=["GET"]),
            Route("/sign-in", self._signed_in, methods=["POST"]),
            Route("/sign-out", self._signed_out, methods=["POST"]),
            Route("/sign-in/openid", self._openid_begun),
            Route("/sign-in/openid/back", self._openid_back),
            Route("/preferences", self._preferences, methods=["POST"]),
            Route("/search", self._search),
            *(Route(path, self._page_at(here, maker), methods=["GET"]) for path, (here, maker) in MAKERS.items()),
        ]
        app.router.routes.extend(routes)

    # ── Pages ────────────────────────────────────────────────────────────────────────────────────────────────

    def _page_at(self, here: str, maker: Maker) -> Any:
        async def serve(request: Request) -> Response:
            caller = _person(request)
            if caller is None:
                return _to_sign_in(request)
            with showing(self._view(request, caller)):
                if _wants_fragment(request):
                    return await self._fragment(request, caller, here, maker)
                return await self._made(request, caller, here, maker)

        return serve

    async def _fragment(self, request: Request, caller: Caller, here: str, maker: Maker) -> Response:
        """What changes of a page. Viewers of the same page share it, with the `csrf` value of each in its place."""
        key = json.dumps([whose(caller), _path(request), view().lang, view().zone])
        made = partial(self._made, request, replace(caller, csrf=_CSRF), here, maker)
        response = await self._fragments.get(key, self._answers.version, made)
        body = bytes(response.body).replace(_CSRF.encode(), (caller.csrf or "").encode())
        return Response(body, response.status_code, _PAGE_HEADERS, response.media_type)

    async def _made(self, request: Request, caller: Caller, here: str, maker: Maker) -> Response:
        looking: Looking | None = None
        try:
            if not caller.may("ask"):
                raise Refusal(403, say("your role sees no pages; ask an admin for another one"))
            state = self._link.state
            if state is None:
                raise OwnerGone(say("the consumer does not answer at the moment"))
            self._audit.view(
                "asked", caller.name, request.url.path, {"page": here or "search", "from": client_of(request)}
            )
            values = {name: str(value) for name, value in request.path_params.items()}
            looking = Looking(caller, request.url.path, dict(request.query_params), state, self._answers, values)
            _ = looking.filters  # wrong filters are refused here, even if the page does not use them
            page = await maker(looking)
        except (Refusal, LedgerError) as error:
            looking = None  # its filters may be what is wrong
            status, shown = _instead(error)
            page = Page(_TITLES[shown.kind](), [shown], slices=None, status=status)
        frame = await self._frame(request, caller, here, page, looking)
        return self._html(request, frame, page, "page.html", title=page.title, under=page.under, parts=page.parts)

    def _html(self, request: Request, frame: Frame, page: Page, template: str, **parts: Any) -> Response:
        html = render(template, frame, fragment=_wants_fragment(request), **parts)
        return HTMLResponse(html, page.status, _PAGE_HEADERS)

    async def _frame(
        self, request: Request, caller: Caller | None, here: str, page: Page, looking: Looking | None
    ) -> Frame:
        person = caller.person if caller is not None else None
        theme = request.cookies.get(THEME_COOKIE, "auto")
        return Frame(
            title=page.title,
            here=here,
            path=_path(request),
            freshness=self._freshness(looking),
            person=None if person is None else Person(person.display_name, word(person.role), _pages_of(caller)),
            filters=None if looking is None else looking.filter_bar(page),
            crumbs=page.crumbs,
            alerts=await self._open_alerts(looking),
            theme=theme if theme in THEMES else "auto",
            wall="wall" in request.query_params,
            csrf=(caller.csrf or "") if caller is not None else "",
            clock=f"{view().local(datetime.now(UTC)):%H:%M}",
        )

    def _freshness(self, looking: Looking | None) -> Freshness:
        state = self._link.state or self._link.last
        if state is None:
            return Freshness("disconnected", say("the consumer does not answer"))
        commit = say("commit {n:count}", n=state.commits)
        clock = state.data_clock
        upto = "" if clock is None else say("data up to {at}", at=_clock_text(clock))
        said = " · ".join(filter(None, (commit, upto)))
        if self._link.state is None:
            return Freshness("disconnected", said, state.commits)
        if looking is not None and looking.filters.cut:
            return Freshness("past", said, state.commits)
        if state.lag:
            said += " · " + say("{n:count} record{n:s} behind", n=state.lag)
        late = state.lag and state.committed_at is not None and _age_s(state.committed_at) > _LATE_S
        return Freshness("late" if late else "live", said, state.commits)

    async def _open_alerts(self, looking: Looking | None) -> int:
        if looking is None or not looking.may("alert-groups"):
            return 0
        try:
            rows = await looking.answers.ask(looking.caller, "alert-groups", {"by": "severity"})
        except (Refusal, LedgerError):
            return 0
        urgent = [row for row in rows.rows if row["severity"] in ("critical", "high")]
        return sum(int(row["open_alerts"]) for row in urgent)

    # ── Signing in ───────────────────────────────────────────────────────────────────────────────────────────

    async def _home(self, request: Request) -> Response:
        return RedirectResponse(HOME if _person(request) is not None else "/sign-in", 303)

    async def _sign_in_page(self, request: Request) -> Response:
        if _person(request) is not None:
            return RedirectResponse(inner(request.query_params.get("next", HOME)), 303)
        with showing(self._view(request, None)):
            return await self._show_sign_in(request, request.query_params.get("next", HOME), "", 200)

    async def _show_sign_in(self, request: Request, back: str, failed: str, status: int) -> Response:
        page = Page(say("Sign in"), [], slices=None, status=status)
        frame = await self._frame(request, None, "", page, None)
        first = not self._store.has_admin()
        return self._html(
            request,
            frame,
            page,
            "sign_in.html",
            failed=failed,
            elsewhere=self._elsewhere(back),
            back=inner(back),
            first=first,
        )

    def _elsewhere(self, back: str) -> list[Link]:
        """Other ways to sign in."""
        if self._openid is None:
            return []
        return [Link(say("Sign in with your company's account"), f"/sign-in/openid?{urlencode({'next': inner(back)})}")]

    async def _signed_in(self, request: Request) -> Response:
        with showing(self._view(request, None)):
            same_origin(request)
            form = await _form(request)
            name, back = form.get("name", ""), inner(form.get("back", HOME))
            tried = await self._sign_in.tried(name[:100], form.get("password", "")[:1_000], client_of(request))
            where = {"from": client_of(request)}
            if tried.person is not None:
                self._audit.note("signed_in", tried.person.name, details=where)
                response: Response = RedirectResponse(back, 303)
                self._sign_in.begin(tried.person, response)
                return response
            self._audit.note("sign_in_failed", _SERVICE, name[:100] or None, where)
            failed, status = say("The name or the password is wrong."), 401
            if tried.wait_s:
                failed, status = say("Too many tries. Wait {n:count} second{n:s}.", n=int(tried.wait_s) + 1), 429
            elif tried.busy:
                failed, status = say("Too many people sign in at once. Try again in a moment."), 503
            return await self._show_sign_in(request, back, failed, status)

    async def _openid_begun(self, request: Request) -> Response:
        if self._openid is None:
            raise Refusal(404, "this service has no sign-in with OpenID Connect")
        with showing(self._view(request, None)):
            back = inner(request.query_params.get("next", HOME))
            try:
                begun = await asyncio.to_thread(self._openid.begin, _openid_address(request), back)
            except OpenIdFailed as error:
                return await self._show_sign_in(request, back, say(str(error)), 502)
            response = RedirectResponse(begun.url, 303)
            secure = self._sign_in.tls
            response.set_cookie(_OPENID, begun.cookie, max_age=600, path="/sign-in", httponly=True, secure=secure,
                                samesite="lax")  # fmt: skip
            return response

    async def _openid_back(self, request: Request) -> Response:
        if self._openid is None:
            raise Refusal(404, "this service has no sign-in with OpenID Connect")
        with showing(self._view(request, None)):
            cookie, query = request.cookies.get(_OPENID, ""), request.url.query
            try:
                finished = await asyncio.to_thread(self._openid.finish, cookie, query, _openid_address(request))
            except OpenIdFailed as error:
                return await self._show_sign_in(request, HOME, say(str(error)), 401)
            person, back = finished
            self._audit.note("signed_in", person.name, details={"from": client_of(request), "with": "openid"})
            # The session's cookie is not sent along when another site leads here, so the page is loaded anew.
            response = HTMLResponse("", 200, {"Refresh": f"0; url={inner(back)}"})
            self._sign_in.begin(person, response)
            response.delete_cookie(_OPENID, path="/sign-in")
            return response

    async def _signed_out(self, request: Request) -> Response:
        caller = _person(request)
        if caller is not None:
            check_csrf(request, (await _form(request)).get("csrf"))
            self._audit.note("signed_out", caller.name)
        response = RedirectResponse("/sign-in", 303)
        self._sign_in.end(request, response)
        return response

    async def _preferences(self, request: Request) -> Response:
        same_origin(request)
        form = await _form(request)
        response = RedirectResponse(inner(form.get("back", HOME)), 303)
        chosen = {_LANG: form.get("lang"), _ZONE: form.get("zone"), THEME_COOKIE: form.get("theme")}
        allowed = {_LANG: LANGUAGES, THEME_COOKIE: THEMES}
        for name, value in chosen.items():
            if value and (value in allowed[name] if name in allowed else _is_zone(value)):
                response.set_cookie(name, value, max_age=_YEAR_S, path="/", samesite="lax", secure=self._sign_in.tls)
        return response

    async def _search(self, request: Request) -> Response:
        caller = _person(request)
        if caller is None:
            return _to_sign_in(request)
        with showing(self._view(request, caller)):
            return await self._made(request, caller, "", objects.search)

    def _view(self, request: Request, caller: Caller | None) -> View:
        """Language and zone: of the URL, else of the cookie, else of the person, else of the browser, else the
        service's."""
        person = caller.person if caller is not None else None
        lang = next(
            (
                one
                for one in (
                    request.query_params.get(_LANG),
                    request.cookies.get(_LANG),
                    person.language if person is not None else None,
                    _of_browser(request.headers.get("accept-language", "")),
                )
                if one in LANGUAGES
            ),
            self._default.lang,
        )
        zones = (request.query_params.get(_ZONE), request.cookies.get(_ZONE), person.zone if person else None)
        zone = next((one for one in zones if one and _is_zone(one)), self._default.zone)
        return View(lang, zone)


PAGES_THERE: Final = tuple(key for key in PAGES if f"/{key}" in MAKERS)
"""The entries of the top bar that have a page."""

_AREAS: Final = {"customers": "customers", "finance": "finance", "alerts": "alerts", "ops": "ops"}
"""The area of questions that each page needs; the others need metrics."""


def _pages_of(caller: Caller | None) -> frozenset[str]:
    """The entries of the top bar that the caller may open."""
    areas = None if caller is None else caller.access.areas
    return frozenset(key for key in PAGES_THERE if areas is None or _AREAS.get(key, "metrics") in areas)


_TITLES: Final[Mapping[str, Any]] = {
    "forbidden": lambda: say("Not allowed"),
    "empty": lambda: say("Not found"),
    "failed": lambda: say("This page cannot be shown"),
    "late": lambda: say("The consumer does not answer"),
}


def _instead(error: Exception) -> tuple[int, State]:
    """What stands in place of a page, with the status."""
    status = of_error(error).status_code
    said = _said(error)
    if status == 403:
        return status, State("forbidden", said, say("back to the first page"), HOME)
    if status == 404 or isinstance(error, NotThere):
        return status, State("empty", said, say("search for something else"), "/search")
    if isinstance(error, OwnerGone):
        return 503, State("late", said, say("This page comes back by itself when it answers."))
    if isinstance(error, QueryStopped) or status == 504:
        return status, State("failed", said, say("choose a shorter period"), "?period=7d")
    return status, State("failed", said, say("back to the first page"), HOME)


def _said(error: Exception) -> str:
    message = error.args[0] if error.args else ""
    return text_of(message) if isinstance(message, Note) else str(error)


def _wants_fragment(request: Request) -> bool:
    return request.headers.get(FRAGMENT[0]) == FRAGMENT[1]


def _person(request: Request) -> Caller | None:
    caller: Caller | None = request.scope["state"].get("caller")
    return caller if caller is not None and caller.person is not None else None


def _to_sign_in(request: Request) -> Response:
    if request.headers.get(FRAGMENT[0]):
        return HTMLResponse("", 401)
    return RedirectResponse(f"/sign-in?{urlencode({'next': inner(_path(request))})}", 303)


def _path(request: Request) -> str:
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path


async def _form(request: Request) -> dict[str, str]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refusal(415, "send a form (application/x-www-form-urlencoded)")
    body = await body_of(request, _FORM_BYTES)
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=50))
    except (ValueError, UnicodeDecodeError):
        raise Refusal(400, "the form cannot be read; send it again") from None


async def _static(request: Request) -> Response:
    try:
        contents, kind = static(request.path_params["name"])
    except KeyError:
        raise Refusal(404, "there is no such file") from None
    return Response(contents, 200, {"Cache-Control": "public, max-age=31536000, immutable"}, kind)


def _openid_address(request: Request) -> str:
    """Where the provider sends the browser back to."""
    return f"{request.url.scheme}://{request.headers['host']}/sign-in/openid/back"


def _of_browser(header: str) -> str | None:
    first = header.split(",")[0].strip().lower()
    return "zh" if first.startswith("zh") else "en" if first.startswith("en") else None


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return False
    return True


def _clock_text(clock: datetime) -> str:
    local, today = view().local(clock), view().local(datetime.now(UTC))
    return f"{local:%H:%M:%S}" if local.date() == today.date() else f"{local:%Y-%m-%d %H:%M:%S}"


def _age_s(at: datetime) -> float:
    return time.time() - at.replace(tzinfo=at.tzinfo or UTC).timestamp()
