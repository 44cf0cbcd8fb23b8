"""The service's web application: the HTTP API under `/v1`, the live feed, health, and the pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

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
from coupon_ledger.api.service.owner_link import OwnerLink
from coupon_ledger.api.service.problems import Refusal, handled, problem
from coupon_ledger.api.service.settings_store import SettingsStore
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.settings import LogSettings

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


def application(parts: Parts) -> tuple[ASGIApp, Live]:
    threads = ThreadPoolExecutor(_READING_THREADS, thread_name_prefix="reading")
    kept = KeptAnswers()

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
    for kind in (LedgerError, RequestValidationError, HTTPException, Refusal):
        app.add_exception_handler(kind, handled)
    return Guards(identified, parts.hosts, tls=parts.tls), live


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
        schema["components"] = {
            **schema.get("components", {}),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        }
        schema["security"] = [{"token": []}]
    assert app.openapi_schema is not None
    return app.openapi_schema


def _routes(routes: Iterable[object]) -> list[APIRoute]:
    return [route for route in routes if isinstance(route, APIRoute)]
