"""The service's web application: the HTTP API under `/v1`, the live feed, health, and the pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from coupon_ledger.api.pages.site import Site
from coupon_ledger.api.service import administering, asking, operating, publishing, usable
from coupon_ledger.api.service.alerting import Alerting
from coupon_ledger.api.service.appending import Appender
from coupon_ledger.api.service.auditing import Audit
from coupon_ledger.api.service.callers import Identify
from coupon_ledger.api.service.guards import Guards
from coupon_ledger.api.service.jobs import Jobs
from coupon_ledger.api.service.kept_answers import KeptAnswers
from coupon_ledger.api.service.live import Live
from coupon_ledger.api.service.openapi import responses
from coupon_ledger.api.service.openid import OpenId, Provider
from coupon_ledger.api.service.owner_link import OwnerLink
from coupon_ledger.api.service.problems import MEDIA_TYPE, SCHEMA, Refusal, handled, problem
from coupon_ledger.api.service.settings_store import SettingsStore
from coupon_ledger.api.service.sign_in import SignIn
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.reports.view import View

_READING_THREADS: Final = 2
"""Threads that read the bodies of batches."""
_ABOUT: Final = """\
Publish events, ask whether a coupon can be used, ask every question of the ledger, follow commits and alerts.

Send a token in the header `Authorization: Bearer …` (`coupon-ledger tokens add`). Errors are
`application/problem+json`; `detail` says what is wrong and what to do. Amounts are integers in the currency's minor
unit, instants RFC 3339 in UTC.
"""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the application is made of. `publish`: whether events can be published. `hosts`: values of the header
    `Host` that it answers to. `origins`: those of its own pages."""

    link: OwnerLink
    store: SettingsStore
    appender: Appender
    publish: bool
    log: LogSettings
    alerting: Alerting
    audit: Audit
    jobs: Jobs
    hosts: frozenset[str]
    origins: frozenset[str]
    tls: bool
    default_view: View = field(default_factory=View)
    openid: Provider | None = None


def application(parts: Parts) -> tuple[ASGIApp, Live]:
    _, identified, live = _api(parts, KeptAnswers())
    return Guards(identified, parts.hosts, tls=parts.tls), live


def document(folder: Path) -> dict[str, Any]:
    """The OpenAPI description of a service that publishes. `folder`: an empty one, for a log and a store."""
    log = LogSettings(url=f"sqlite:///{folder / 'log.db'}")
    with (
        SettingsStore(folder / "settings.db") as store,
        closing(Appender(open_log(log, create=True))) as appender,
        closing(OwnerLink(folder / "none.duckdb")) as link,
        closing(Alerting(link, log, None)) as alerting,
        closing(Audit(appender.append)) as audit,
        closing(KeptAnswers()) as kept,
    ):
        names: frozenset[str] = frozenset()
        parts = Parts(link, store, appender, True, log, alerting, audit, Jobs({}), names, names, tls=False)
        return described(_api(parts, kept)[0])


def _api(parts: Parts, kept: KeptAnswers) -> tuple[FastAPI, Identify, Live]:
    threads = ThreadPoolExecutor(_READING_THREADS, thread_name_prefix="reading")

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        parts.link.begin()
        try:
            yield
        finally:
            live.leave()
            await parts.jobs.close()
            parts.link.close()
            for part in (parts.alerting, parts.audit, parts.appender):
                await asyncio.to_thread(part.close)
            threads.shutdown(wait=False, cancel_futures=True)
            sign_in.close()
            kept.close()

    app = FastAPI(
        title="coupon-ledger",
        version=version("coupon-ledger"),
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=running,
    )
    sign_in = SignIn(parts.store, tls=parts.tls)
    identified = Identify(app, parts.store, parts.origins)
    live = Live(parts.link, identified)
    _add_health(app, parts)
    if parts.publish:
        app.include_router(publishing.routes(parts.appender, threads))
    app.include_router(usable.routes(parts.link))
    asking.Asking(parts.link, kept, parts.store.secret("cursors"), parts.audit).add_to(app)
    app.include_router(parts.alerting.routes())
    app.include_router(operating.routes(parts.link, parts.jobs, parts.audit, parts.log))
    app.include_router(administering.routes(parts.store, parts.audit))
    app.include_router(live.routes())
    openid = None if parts.openid is None else OpenId(parts.openid, parts.store)
    Site(parts.link, parts.store, sign_in, parts.audit, parts.default_view, openid).add_to(app)
    for kind in (LedgerError, RequestValidationError, HTTPException, Refusal):
        app.add_exception_handler(kind, handled)
    return app, identified, live


def _add_health(app: FastAPI, parts: Parts) -> None:
    @app.get("/health", tags=["service"])
    async def health() -> dict[str, str]:
        """Whether the service runs."""
        return {"status": "ok"}

    @app.get("/ready", tags=["service"], responses=responses(503), response_model=None)
    async def ready() -> Response:
        """Whether the service can answer: the consumer answers too."""
        state = parts.link.state
        if state is None:
            return problem(503, "the consumer does not answer", {"Retry-After": "1"})
        return JSONResponse({"status": "ok", "commits": state.commits, "lag": state.lag})

    @app.get("/v1/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(described(app), headers={"Cache-Control": "max-age=300"})

    @app.get("/robots.txt", include_in_schema=False)
    async def robots(_: Request) -> PlainTextResponse:
        return PlainTextResponse("User-agent: *\nDisallow: /\n")


def described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description of the API."""
    if app.openapi_schema is None:
        for route in _routes(app.routes):
            if route.name.startswith("question:"):
                extra: dict[str, Any] = {}
                asking.describe(extra, route.name.partition(":")[2], in_body="POST" in (route.methods or ()))
                route.openapi_extra = extra
        schema = app.openapi()
        refusals = _share_refusals(schema)
        schema["components"] = {
            **schema.get("components", {}),
            "responses": refusals,
            "schemas": {
                **schema.get("components", {}).get("schemas", {}),
                "Answer": asking.ANSWER,
                "Problem": SCHEMA,
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        }
        schema["security"] = [{"token": []}]
    assert app.openapi_schema is not None
    return app.openapi_schema


def _share_refusals(schema: dict[str, Any]) -> dict[str, Any]:
    """Replace the refusals of all routes by references. Returns what they refer to."""
    shared: dict[str, Any] = {}
    for operation in (operation for path in schema["paths"].values() for operation in path.values()):
        for status, response in operation["responses"].items():
            if MEDIA_TYPE in response.get("content", {}):
                shared[f"Refused{status}"] = response
                operation["responses"][status] = {"$ref": f"#/components/responses/Refused{status}"}
    return shared


def _routes(routes: Iterable[object]) -> list[APIRoute]:
    return [route for route in routes if isinstance(route, APIRoute)]
