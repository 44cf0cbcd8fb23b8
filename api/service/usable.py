"""Whether a coupon can be used on an order: the route that order systems ask before they accept it as payment.

Requests that come while a question is being answered are asked together in the next one, so that many small requests
cost the owner few questions.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NamedTuple

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from coupon_ledger.api.answers import as_of_fields
from coupon_ledger.api.client import Remote
from coupon_ledger.api.service.asking import wait_for_positions, whose
from coupon_ledger.api.service.callers import Caller, allowed
from coupon_ledger.api.service.openapi import responses
from coupon_ledger.api.service.owner_link import OwnerLink
from coupon_ledger.api.service.problems import Refusal
from coupon_ledger.ledger.lifecycle import FIRST_CARRIED
from coupon_ledger.ledger.plain import plain
from coupon_ledger.questions.access.access import Access

AT_ONCE: Final = 500
"""Checks in one question."""
_LONGEST_ID: Final = 500
_SHOWN: Final = (
    "coupon_id",
    "order_id",
    "usable",
    "reasons",
    "detail",
    "state",
    *FIRST_CARRIED,
)
_PARAMETERS: Final = {
    "order": "The order on which it would be used.",
    "user": "The user who would use it. Without it, the order's user.",
    "gross_minor": "The order's list price in minor units. Without it, that of the order.",
    "at": "When it would be used (RFC 3339). Without it, now.",
}


class _Check(NamedTuple):
    coupon: str
    order: str | None
    user: str | None
    gross_minor: int | None


class _Waiting(NamedTuple):
    check: _Check
    future: asyncio.Future[dict[str, Any]]


class Checks:
    """Collects checks, and asks them together. For one event loop."""

    def __init__(self, link: OwnerLink) -> None:
        self._link = link
        self._waiting: dict[tuple[str, datetime | None], list[_Waiting]] = defaultdict(list)
        self._callers: dict[str, Caller] = {}
        self._asking = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def check(self, caller: Caller, check: _Check, at: datetime | None) -> dict[str, Any]:
        """The row of the question `usable`, with `as_of`. `at`: None for now."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        group = whose(caller)
        self._callers[group] = caller
        self._waiting[group, at].append(_Waiting(check, future))
        if not self._asking:
            self._asking = True
            task = asyncio.create_task(self._ask_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _ask_all(self) -> None:
        try:
            while self._waiting:
                (group, at), waiting = self._waiting.popitem()
                for start in range(0, len(waiting), AT_ONCE):
                    await self._ask(self._callers[group], at, waiting[start : start + AT_ONCE])
        finally:
            self._asking = False
            self._callers.clear()

    async def _ask(self, caller: Caller, at: datetime | None, waiting: list[_Waiting]) -> None:
        checks = [tuple(one.check) for one in waiting]
        when = at or datetime.now(UTC)
        try:
            rows = await self._link.run(partial(_asked, caller, checks, when))
        except Exception as error:  # every request of the group must hear of it
            for one in waiting:
                if not one.future.done():
                    one.future.set_exception(error)
            return
        for one, row in zip(waiting, rows, strict=True):
            if not one.future.done():  # its client may have gone
                one.future.set_result(row)


def _asked(caller: Caller, checks: list[tuple[Any, ...]], when: datetime, remote: Remote) -> list[dict[str, Any]]:
    # The answer shows no personal data, so none need be masked; who may ask is checked by the route.
    rights = Access(scope=caller.access.scope)
    answer = remote.restricted(rights).ask("usable", checks=checks, when=when)
    as_of = as_of_fields(answer.as_of)
    rows = [row for frame in answer.frames for row in frame.to_dicts()]
    return [{**{name: plain(row[name]) for name in _SHOWN}, "as_of": as_of} for row in rows]


def routes(link: OwnerLink) -> APIRouter:
    router, checks = APIRouter(tags=["coupons"]), Checks(link)

    @router.get("/v1/coupons/{coupon:path}/usable", responses=_RESPONSES, openapi_extra=_DESCRIBED, response_model=None)
    async def usable(coupon: str, request: Request) -> Response:
        """Whether a coupon can be used, on this order and by this user, with the reasons if it cannot. The answer is
        200 either way; `usable` says which. Nothing is reserved by asking."""
        caller = allowed(request, "check")
        check, at = _check(coupon, request)
        await wait_for_positions(link, request)
        return JSONResponse(await checks.check(caller, check, at), headers={"Cache-Control": "no-store"})

    return router


def _check(coupon: str, request: Request) -> tuple[_Check, datetime | None]:
    given = request.query_params
    if unknown := given.keys() - _PARAMETERS.keys():
        raise Refusal(422, f"{min(unknown)[:40]}: there is none of that name; there are {', '.join(_PARAMETERS)}")
    for name, value in {"coupon": coupon, **given}.items():
        if not value or len(value) > _LONGEST_ID or "\0" in value:
            raise Refusal(422, f"{name}: is empty or too long; give an id")
    gross = given.get("gross_minor")
    if gross is not None and not (gross.isascii() and gross.isdigit() and len(gross) <= 16):
        raise Refusal(422, f"gross_minor {gross[:20]}: is no amount; give a whole number of minor units")
    check = _Check(coupon, given.get("order"), given.get("user"), None if gross is None else int(gross))
    return check, _instant(given.get("at"))


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            raise ValueError(text)
        return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Refusal(422, f"at {text[:40]}: is no instant; write it as 2026-11-11T20:00:00Z") from None


_ANSWER: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["coupon_id", "usable", "reasons", "as_of"],
    "properties": {
        "coupon_id": {"type": "string"},
        "order_id": {"type": ["string", "null"]},
        "usable": {"type": "boolean"},
        "reasons": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Codes: violations that a use would be (docs/events.md), not_there, order_over,"
            " other_currency.",
        },
        "detail": {"type": ["string", "null"], "description": "The first reason in a sentence."},
        "state": {"type": ["string", "null"]},
        "as_of": {"type": "object"},
    },
}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    **responses(401, 403, 422, 429, 503, 504),
    200: {
        "description": "Yes or no, with the reasons.",
        "content": {
            "application/json": {
                "schema": _ANSWER,
                "example": {
                    "coupon_id": "c-1",
                    "order_id": "o-1",
                    "usable": False,
                    "reasons": ["used_when_used"],
                    "detail": "coupon c-1 is used",
                    "state": "used",
                    "as_of": {
                        "commits": 4812,
                        "committed_at": "2026-11-11T20:14:07.100000Z",
                        "data_clock": "2026-11-11T20:14:07.000000Z",
                        "positions": [],
                    },
                },
            }
        },
    },
}
_DESCRIBED: Final = {
    "parameters": [
        *(
            {
                "name": name,
                "in": "query",
                "description": about,
                "schema": {"type": "integer", "minimum": 0} if name == "gross_minor" else {"type": "string"},
            }
            for name, about in _PARAMETERS.items()
        ),
        {"name": "Wait-For", "in": "header", "schema": {"type": "string"}},
    ]
}
