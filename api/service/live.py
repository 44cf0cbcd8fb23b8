"""The live feed: commits and events of alerts, as server-sent events.

    event: commit    a state that the owner has committed: data's clock, lag, positions
    event: alert     an event in the life of an alert: which, of which rule, what happened
    event: away      the owner does not answer; the last state stands
    event: beat      nothing changes, and the service is there

Each has an `id`. A client that reconnects with `Last-Event-ID` gets the present state, and every event of alerts since.
A client that reads slowly gets fewer commits, never old ones.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import StreamingResponse

from coupon_ledger.api.client import Remote
from coupon_ledger.api.service.asking import on_behalf_of
from coupon_ledger.api.service.callers import Caller, Identify, allowed
from coupon_ledger.api.service.openapi import responses
from coupon_ledger.api.service.owner_link import OwnerLink, State
from coupon_ledger.api.service.problems import Refusal
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.plain import plain

MOST: Final = 500
"""Clients that follow at once."""
EVERY_S: Final = 0.25
"""Commits are sent at most this often."""
_ALIVE_S: Final = 15.0
_ID: Final = re.compile(r"[0-9]{1,15}(?:~[0-9]{1,6}:[0-9]{1,15})*")
_MOST_ALERTS: Final = 1_000


class Live:
    """Serves the clients that follow, in one event loop."""

    def __init__(self, link: OwnerLink, identify: Identify) -> None:
        self._link = link
        self._identify = identify
        self._clients = 0
        self._stopping = False
        self._waiting: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def leave(self) -> None:
        """Let all clients go: the service stops. Safe to call from a signal handler."""
        self._stopping = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._let_go)

    def _let_go(self) -> None:
        for stop in self._waiting:
            stop.set()

    @property
    def clients(self) -> int:
        return self._clients

    def routes(self) -> APIRouter:
        router = APIRouter(tags=["live"])

        async def follow(request: Request) -> StreamingResponse:
            """Follow commits and alerts as server-sent events."""
            caller = allowed(request, "ask")
            if self._clients >= MOST:
                raise Refusal(503, f"{MOST} clients follow already; come again later", {"Retry-After": "10"})
            since = _since(request.headers.get("last-event-id", ""))
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            return StreamingResponse(self._events(request, caller, since), headers=headers, media_type=_MEDIA_TYPE)

        router.add_api_route("/v1/live", follow, responses=_RESPONSES, openapi_extra=_DESCRIBED, response_model=None)
        router.add_api_route("/live", follow, include_in_schema=False, response_model=None)
        return router

    async def _events(self, request: Request, caller: Caller, since: Mapping[int, int] | None) -> AsyncIterator[bytes]:
        self._clients += 1
        self._loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._waiting.add(stop)
        try:
            yield b"retry: 1000\n\n"
            async with self._link.changes() as changes:
                known = since if since is None else dict(since)
                async with aclosing(_spaced(changes, stop)) as states:
                    async for state in states:
                        if self._stopping or not self._identify.still_valid(request, caller):
                            return
                        if state is _NOTHING:
                            yield b"event: beat\ndata: {}\n\n"
                        elif state is None:
                            yield b"event: away\ndata: {}\n\n"
                        elif isinstance(state, State):
                            known = dict(state.alerts) if known is None else known
                            async for event in self._alert_events(caller, known, state):
                                yield event
                            yield _event("commit", _text_id(state.commits, known), _commit(state))
        finally:
            self._waiting.discard(stop)
            self._clients -= 1

    async def _alert_events(self, caller: Caller, known: dict[int, int], state: State) -> AsyncIterator[bytes]:
        """The events of alerts that this caller may see, after `known`, which they advance. If the owner goes away in
        between, `known` stays behind the state, and the next call goes on from there."""
        while any(known.get(partition, 0) < offset for partition, offset in state.alerts.items()):
            since = {partition: known.get(partition, 0) for partition in state.alerts}
            try:
                events = await self._link.run(partial(_recorded, caller, since))
            except LedgerError:
                return
            for event in events:
                since[event["partition"]] = max(since[event["partition"]], event["offset"] + 1)
                known.update(since)
                yield _event("alert", _text_id(state.commits, since), event)
            if len(events) < _MOST_ALERTS:
                known.update({p: max(offset, since[p]) for p, offset in state.alerts.items()})


class _Nothing:
    pass


_NOTHING: Final = _Nothing()


async def _spaced(
    changes: AsyncIterator[State | None], stopping: asyncio.Event
) -> AsyncGenerator[State | _Nothing | None]:
    """The states, at most one every `EVERY_S`; `_NOTHING` while nothing changes."""
    following = asyncio.ensure_future(anext(changes))
    stop = asyncio.ensure_future(stopping.wait())
    try:
        while not stop.done():
            done, _ = await asyncio.wait({following, stop}, timeout=_ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
            if following in done:
                state = following.result()
                following = asyncio.ensure_future(anext(changes))
                yield state
                await asyncio.sleep(EVERY_S)
            else:
                yield _NOTHING
    finally:
        following.cancel()
        stop.cancel()


def _recorded(caller: Caller, since: Mapping[int, int], remote: Remote) -> list[dict[str, Any]]:
    answer = on_behalf_of(caller, remote).ask("alert-events", after=list(since.items()), limit=_MOST_ALERTS)
    return [row for frame in answer.frames for row in frame.to_dicts()]


def _commit(state: State) -> dict[str, Any]:
    return {
        "commits": state.commits,
        "committed_at": plain(state.committed_at),
        "data_clock": plain(state.data_clock),
        "lag": state.lag,
        "records": state.records,
        "positions": [f"{topic}:{partition}:{offset}" for (topic, partition), offset in state.positions.items()],
    }


def _event(kind: str, event_id: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {kind}\nid: {event_id}\ndata: {json.dumps(plain(data), ensure_ascii=False)}\n\n".encode()


def _text_id(commits: int, alerts: Mapping[int, int]) -> str:
    return f"{commits}" + "".join(f"~{partition}:{offset}" for partition, offset in sorted(alerts.items()))


def _since(last_id: str) -> dict[int, int] | None:
    """The offsets of `coupon.alerts` after the event with this id. None if there is none."""
    if not _ID.fullmatch(last_id):
        return None
    pairs = (one.split(":") for one in last_id.split("~")[1:])
    return {int(partition): int(offset) for partition, offset in pairs}


_MEDIA_TYPE: Final = "text/event-stream"
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    **responses(401, 403, 503),
    200: {
        "description": "Server-sent events, without end.",
        "content": {
            _MEDIA_TYPE: {
                "schema": {"type": "string"},
                "example": 'event: commit\nid: 4812~0:3\ndata: {"commits": 4812, "lag": 0}\n\n',
            }
        },
    },
}
_DESCRIBED: Final = {
    "parameters": [
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "The id of the last event that was read. Events of alerts since then come first.",
            "schema": {"type": "string"},
        }
    ]
}
