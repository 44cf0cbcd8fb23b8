"""A log that is appended to over HTTP: the service (`coupon-ledger run`) appends the events to its own log.

Each record is decoded, and sent as a line of NDJSON. The service validates and encodes it again; the record in its log
has the same bytes as the one given here. Nothing can be read through the service.

Always true: `append` returns when all records are durable in the service's log. A batch is sent in parts, so after an
error some of its records may be in the log.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final, NoReturn

from coupon_ledger.ledger.codec import JSON_FIELDS, decode
from coupon_ledger.ledger.errors import (
    AppendFailed,
    LogClosed,
    LogError,
    LogUnavailable,
    Problem,
    ServiceRefused,
    ServiceUnavailable,
    SettingsError,
)
from coupon_ledger.ledger.http_service import Service, problems_of
from coupon_ledger.ledger.log import Position, Record
from coupon_ledger.ledger.plain import instant
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import INPUT_TOPICS

PART_EVENTS: Final = 10_000
PART_BYTES: Final = 12_000_000
"""Limits of one request, below those of the service."""
EVENT_BYTES: Final = 4_000_000
"""The service takes no longer line."""
_HEADERS: Final = {"Content-Type": "application/x-ndjson"}


class HttpLog:
    """Appends events through the service at `settings.url`. For one thread at a time."""

    visible_after_s = 0.0

    def __init__(self, settings: LogSettings) -> None:
        """Connects with the first append. Raises `SettingsError`."""
        self.url = settings.url
        for name, value in (("topic-prefix", settings.topic_prefix), ("schema-registry", settings.schema_registry)):
            if value:
                raise SettingsError(f"setting {name}: the service at {self.url} has its own; leave it out")
        self._service = Service(settings.url, settings.token, settings.ca_file, settings.timeout_s)
        self._closed = False

    def append(self, records: Sequence[Record]) -> list[Position]:
        """As `EventLog.append`. Also raises `SettingsError` if the address, the token or its role are wrong."""
        if self._closed:
            raise LogClosed(f"log {self.url}: closed; open it again")
        appending = _Appending(self.url, [_line(record) for record in records])
        parts = deque(appending.parts())
        while parts:
            part = parts.popleft()
            try:
                reply = self._service.request("POST", "/v1/events", appending.body(part), _HEADERS)
            except ServiceUnavailable as error:
                appending.fail([*part, *(index for rest in parts for index in rest)], error)
                break
            except ServiceRefused as error:
                if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    raise self._refused(error) from None
                # A proxy in front of the service may have a lower limit than the service.
                parts.extendleft(reversed(appending.halves(part, str(error))))
            else:
                appending.take(part, reply.json)
        return appending.concluded()

    def create_topics(self) -> list[str]:
        raise SettingsError(f"log {self.url}: the service creates its topics itself; there is nothing to do here")

    def close(self) -> None:
        self._closed = True
        self._service.close()

    def _unreadable(self, *_: object, **__: object) -> NoReturn:
        if self._closed:
            raise LogClosed(f"log {self.url}: closed; open it again")
        raise SettingsError(
            f"log {self.url}: events can be published to it, not read from it; name the log behind the service instead"
        )

    partitions = read = earliest_positions = end_positions = high_watermarks = _unreadable
    identities = records_at = next_recorded = _unreadable

    def _refused(self, error: ServiceRefused) -> LogError | SettingsError:
        """The error for a request that was refused as a whole."""
        if error.status == HTTPStatus.FORBIDDEN:
            return SettingsError(f"{error}; use a token of such a role")
        if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            return SettingsError(f"log {self.url}: no events can be published there ({error}); check the address")
        return LogError(f"log {self.url}: nothing of the batch was appended: {error}")


class _Appending:
    """What has become of the records of one append, each known by its index."""

    def __init__(self, url: str, lines: Sequence[bytes]) -> None:
        self._url = url
        self._lines = lines
        self._positions: dict[int, Position] = {}
        self._failures: dict[int, str] = {}
        self._refused: dict[int, tuple[Problem, ...]] = {}
        self._too_large = {
            index: f"{len(line):,} bytes as JSON, more than the {EVENT_BYTES:,} that one event may have; split it"
            for index, line in enumerate(lines)
            if len(line) > EVENT_BYTES
        }
        self._unavailable: ServiceUnavailable | None = None

    def parts(self) -> Iterator[list[int]]:
        """The indexes of the records of each request."""
        part: list[int] = []
        size = 0
        for index, line in enumerate(self._lines):
            if index in self._too_large:
                continue
            if len(part) == PART_EVENTS or size + len(line) > PART_BYTES:
                yield part
                part, size = [], 0
            part.append(index)
            size += len(line)
        if part:
            yield part

    def body(self, part: Iterable[int]) -> bytes:
        return b"".join(self._lines[index] for index in part)

    def halves(self, part: list[int], why: str) -> list[list[int]]:
        """The two halves of a part that was too large. A single record is too large itself."""
        if len(part) == 1:
            self._too_large[part[0]] = why
            return []
        middle = len(part) // 2
        return [part[:middle], part[middle:]]

    def take(self, part: Sequence[int], answer: Any) -> None:
        items = answer.get("items") if isinstance(answer, dict) else None
        if not isinstance(items, list) or len(items) != len(part):
            raise SettingsError(f"log {self._url}: does not answer as coupon-ledger does; check the address")
        for index, item in zip(part, items, strict=True):
            if item["status"] == "appended":
                topic, partition, offset = item["position"].rsplit(":", 2)
                self._positions[index] = Position(topic, int(partition), int(offset))
            elif item.get("too_large"):
                self._too_large[index] = item["problems"][0]["rule"]
            else:
                self._refused[index] = problems_of(item.get("problems"))

    def fail(self, indexes: Sequence[int], error: ServiceUnavailable) -> None:
        self._failures |= dict.fromkeys(indexes, str(error))
        self._unavailable = error

    def concluded(self) -> list[Position]:
        """The positions. Raises `AppendFailed`, or `LogUnavailable` if the service took nothing."""
        if self._unavailable and len(self._failures) == len(self._lines):
            raise LogUnavailable(f"log {self._url}: {self._unavailable}")
        lost = {i: "; ".join(map(str, problems)) for i, problems in self._refused.items()} | self._too_large
        failures = self._failures | lost
        if failures:
            why = next(iter(failures.values()))
            raise AppendFailed(
                f"log {self._url}: {len(failures):,} of {len(self._lines):,} records were not appended ({why})",
                failures,
                self._too_large,
                self._refused,
            )
        return [self._positions[index] for index in range(len(self._lines))]


def _line(record: Record) -> bytes:
    """The record's event as a line of NDJSON. JSON fields are copied as text: read and written again, 1.0 would become
    1. Raises `UndecodableRecord`, and `LogError` for a topic that nobody publishes to."""
    if record.topic not in INPUT_TOPICS:
        raise LogError(f"topic {record.topic}: is not published to over HTTP; topics are {', '.join(INPUT_TOPICS)}")
    row = decode(record.value)[1]
    data: dict[str, Any] = {"topic": record.topic}
    data |= {name: value for name, value in row.items() if value is not None and name not in JSON_FIELDS}
    text = json.dumps(data, ensure_ascii=False, default=instant, separators=(",", ":"))
    for name in JSON_FIELDS & row.keys():
        if row[name] is not None:
            text = f'{text[:-1]},"{name}":{row[name]}}}'
    return text.encode() + b"\n"
