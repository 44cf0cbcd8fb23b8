"""Routes that publish events: one event, or a batch as JSON, NDJSON or CSV.

An answer comes when the events are durable in the log. Publishing an event again is safe: the ledger counts the second
copy as a repeat. Each event of a batch has its own result, so one bad event does not hold up the others.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from io import BytesIO
from typing import Any, Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from coupon_ledger.api.service.appending import Appended, Appender
from coupon_ledger.api.service.bodies import body_of
from coupon_ledger.api.service.callers import Caller, allowed, check_csrf
from coupon_ledger.api.service.openapi import EXAMPLE_EVENT, responses
from coupon_ledger.api.service.problems import Refusal
from coupon_ledger.ledger.errors import UnusableFile
from coupon_ledger.ledger.formats.csv_rows import csv_items
from coupon_ledger.ledger.formats.json_array import json_array_items
from coupon_ledger.ledger.formats.ndjson import json_item, lines_of, ndjson_items
from coupon_ledger.ledger.formats.rows import Filling, Item, Refused
from coupon_ledger.ledger.log import Position, Record
from coupon_ledger.ledger.topics import INPUT_TOPICS

MOST_EVENTS: Final = 10_000
"""Events in one request."""
_INLINE_BYTES: Final = 8_000
"""A body up to this size is read in the event loop: handing it to a thread would take longer."""
_BOM: Final = b"\xef\xbb\xbf"
_KINDS: Final = {"application/json": "json", "application/x-ndjson": "ndjson", "text/csv": "csv"}


def routes(appender: Appender, threads: Executor) -> APIRouter:
    """`threads`: read the bodies of batches."""
    router = APIRouter(tags=["publish"])

    @router.post("/v1/events", status_code=200, openapi_extra=_DESCRIBED, responses=_RESPONSES, response_model=None)
    async def publish(request: Request) -> Response:
        """Publish one event (a JSON object) or up to 10,000 (a JSON array, NDJSON or CSV).

        The answer comes when the events are durable. Publishing the same events again is harmless. An event that breaks
        a rule is refused with all its problems; the other events of a batch are published. `wait_for` in the answer is
        for the header `Wait-For` of a later question, which then sees these events.
        """
        caller = allowed(request, "publish")
        check_csrf(request)
        kind, topic, zone = _asked(request)
        body = await body_of(request)
        read = partial(_read, body, kind, topic, zone, Filling(sources=caller.sources))
        if len(body) <= _INLINE_BYTES:
            batch = read()
        else:
            batch = await asyncio.get_running_loop().run_in_executor(threads, read)
        return await _published(appender, caller, batch)

    return router


def _asked(request: Request) -> tuple[str, str | None, ZoneInfo | None]:
    """Format of the body, topic and zone of a publishing request. Raises `Refusal`."""
    query = request.query_params
    if unknown := query.keys() - {"topic", "zone"}:
        raise Refusal(422, f"parameter {min(unknown)}: there is none of that name; there are topic and zone")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _KINDS:
        raise Refusal(415, f"Content-Type {media_type or '(none)'}: send {', '.join(_KINDS)}")
    topic = query.get("topic")
    if topic is not None and topic not in INPUT_TOPICS:
        raise Refusal(422, f"topic {topic}: there is none of that name; there are {', '.join(INPUT_TOPICS)}")
    if _KINDS[media_type] == "csv" and topic is None:
        raise Refusal(422, f"topic: CSV names none; add ?topic= with one of {', '.join(INPUT_TOPICS)}")
    return _KINDS[media_type], topic, _zone(query.get("zone"))


def _zone(name: str | None) -> ZoneInfo | None:
    try:
        return None if name is None else ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise Refusal(422, f"zone {name}: is no time zone; write one such as Asia/Shanghai") from None


class _Batch:
    """The events of a request: what could be read, and what was refused. `single`: the body is one JSON object."""

    def __init__(self, items: Iterable[Item], *, single: bool = False) -> None:
        self.single = single
        self.records: list[Record] = []
        self.refused: dict[int, Refused] = {}
        """By the event's place in the request, from 0."""
        self.places: list[int] = []
        """The place of each record."""
        for item in items:
            if item is None:
                continue
            place = len(self.places) + len(self.refused)
            if place >= MOST_EVENTS:
                raise Refusal(413, f"the request has more than {MOST_EVENTS:,} events; send them in parts")
            if isinstance(item, Refused):
                self.refused[place] = item
            else:
                self.records.append(item)
                self.places.append(place)


def _read(body: bytes, kind: str, topic: str | None, zone: ZoneInfo | None, filling: Filling) -> _Batch:
    try:
        if kind == "json":
            body = body.removeprefix(_BOM).strip(b" \t\r\n")
            if not body.startswith(b"["):
                return _Batch([json_item(1, body, topic, filling)], single=True)
            return _Batch(json_array_items(_Bytes(body), topic, "body", filling))
        if kind == "ndjson":
            return _Batch(ndjson_items(lines_of(_Bytes(body)), topic, filling))
        assert topic is not None
        return _Batch(csv_items(_lines(body), topic, "body", filling, zone=zone))
    except UnusableFile as error:
        raise Refusal(422, str(error)) from None


class _Bytes(BytesIO):
    """The body as a source of bytes from which everything can be read at once."""

    def fileno(self) -> int:
        raise OSError("no file")


def _lines(body: bytes) -> Iterator[bytes | None]:
    return lines_of(_Bytes(body))


async def _published(appender: Appender, caller: Caller, batch: _Batch) -> Response:
    if batch.single and batch.refused:
        refused = batch.refused[0]
        raise Refusal(422, "; ".join(map(str, refused.problems)), problems=_problems(refused))
    if not batch.records:
        return _answer(200, {"appended": 0, "refused": len(batch.refused), "wait_for": "", "items": _items(batch)})
    done = await asyncio.wrap_future(appender.append(caller.name, batch.records))
    if batch.single:
        return _of_one(batch, done)
    failed = len(done.failures)
    body = {
        "appended": len(batch.records) - failed,
        "refused": len(batch.refused) + len(done.too_large),
        "failed": failed - len(done.too_large),
        "wait_for": wait_for(done.positions),
        "items": _items(batch, done),
    }
    return _answer(503 if failed > len(done.too_large) else 200, body)


def _of_one(batch: _Batch, done: Appended) -> Response:
    if done.failures:
        if done.too_large:
            raise Refusal(422, f"the log does not take it: {done.failures[0]}")
        raise Refusal(503, f"the log did not take it ({done.failures[0]}); publish again", {"Retry-After": "1"})
    position = done.positions[0]
    return _answer(201, {"position": _text(position), "wait_for": wait_for(done.positions)})


def _items(batch: _Batch, done: Appended | None = None) -> list[dict[str, Any]]:
    """The result of each event, in the order of the request."""
    results: dict[int, dict[str, Any]] = {
        place: {"item": place, "status": "refused", "event_id": _name(one.event_id), "problems": _problems(one)}
        for place, one in batch.refused.items()
    }
    for index, place in enumerate(batch.places if done is not None else ()):
        assert done is not None
        if index in done.failures:
            status = "refused" if index in done.too_large else "failed"
            problems = [{"field": "", "rule": done.failures[index]}]
            results[place] = {"item": place, "status": status, "problems": problems}
            if index in done.too_large:
                results[place]["too_large"] = True
        else:
            results[place] = {"item": place, "status": "appended", "position": _text(done.positions[index])}
    return [results[place] for place in sorted(results)]


def _problems(refused: Refused) -> list[dict[str, str]]:
    return [{"field": problem.field, "rule": problem.rule} for problem in refused.problems]


def _name(event_id: object) -> str | None:
    return event_id if isinstance(event_id, str) else None


def _text(position: Position | None) -> str | None:
    return None if position is None else f"{position.topic}:{position.partition}:{position.offset}"


def wait_for(positions: Sequence[Position | None]) -> str:
    """The positions after these, by partition, as the header `Wait-For` takes them."""
    after: dict[tuple[str, int], int] = {}
    for position in positions:
        if position is not None:
            at = (position.topic, position.partition)
            after[at] = max(after.get(at, 0), position.offset + 1)
    return ",".join(f"{topic}:{partition}:{offset}" for (topic, partition), offset in sorted(after.items()))


def _answer(status: int, body: dict[str, Any]) -> Response:
    headers = {"Cache-Control": "no-store", **({"Retry-After": "1"} if status == 503 else {})}
    text = json.dumps(body, ensure_ascii=False).encode(errors="backslashreplace")
    return Response(text, status, headers, "application/json")


_ITEM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["item", "status"],
    "properties": {
        "item": {"type": "integer", "description": "The event's place in the request, from 0."},
        "status": {"enum": ["appended", "refused", "failed"]},
        "position": {"type": ["string", "null"], "description": "TOPIC:PARTITION:OFFSET"},
        "event_id": {"type": ["string", "null"]},
        "problems": {"type": "array", "items": {"type": "object"}},
        "too_large": {"type": "boolean", "description": "Present if the log refused the event because of its size."},
    },
}
_PUBLISHED: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["appended", "refused", "wait_for", "items"],
    "properties": {
        "appended": {"type": "integer", "description": "Events that are durable in the log."},
        "refused": {"type": "integer", "description": "Events that break a rule. Do not send them again as they are."},
        "failed": {"type": "integer", "description": "Events that the log did not take. Send them again."},
        "wait_for": {"type": "string", "description": "For the header Wait-For of a later question."},
        "items": {"type": "array", "items": _ITEM, "description": "One result an event, in the order of the request."},
    },
}
_ONE: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["position", "wait_for"],
    "properties": {"position": {"type": ["string", "null"]}, "wait_for": {"type": "string"}},
}
_RESPONSES: Final = {
    **responses(400, 401, 403, 408, 413, 415, 422, 429, 503),
    200: {
        "description": "What became of each event of the batch.",
        "content": {
            "application/json": {
                "schema": _PUBLISHED,
                "example": {
                    "appended": 1,
                    "refused": 1,
                    "failed": 0,
                    "wait_for": "coupon.events:2:42",
                    "items": [
                        {"item": 0, "status": "appended", "position": "coupon.events:2:41"},
                        {
                            "item": 1,
                            "status": "refused",
                            "event_id": "e-2",
                            "problems": [{"field": "coupon_id", "rule": "is missing"}],
                        },
                    ],
                },
            }
        },
    },
    201: {
        "description": "The event is durable.",
        "content": {
            "application/json": {
                "schema": _ONE,
                "example": {"position": "coupon.events:2:41", "wait_for": "coupon.events:2:42"},
            }
        },
    },
}
_DESCRIBED: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": "topic",
            "in": "query",
            "description": "Topic of events that name none. Needed for CSV.",
            "schema": {"type": "string", "enum": list(INPUT_TOPICS)},
        },
        {
            "name": "zone",
            "in": "query",
            "description": "Time zone of instants in CSV that state none, such as Asia/Shanghai.",
            "schema": {"type": "string"},
        },
    ],
    "requestBody": {
        "required": True,
        "description": "Fields of each event: docs/events.md. With Content-Encoding: gzip if it is packed.",
        "content": {
            "application/json": {
                "schema": {"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]},
                "example": EXAMPLE_EVENT,
            },
            "application/x-ndjson": {"schema": {"type": "string"}, "example": json.dumps(EXAMPLE_EVENT) + "\n"},
            "text/csv": {
                "schema": {"type": "string"},
                "example": ",".join(k for k in EXAMPLE_EVENT if k != "topic")
                + "\n"
                + ",".join(str(v) for k, v in EXAMPLE_EVENT.items() if k != "topic")
                + "\n",
            },
        },
    },
}
