"""The API for upstream systems: validate, encode and append events, and report those that were refused.

    with Publisher.open("kafka://localhost:9092") as publisher:
        publisher.publish(events.Used(event_id="e-1", ...))
    # leaving the block flushes; publisher.report says what was refused

docs/publishing.md says when events are durable, and how to react to each error.

An exception in the block propagates, and events that wait are not appended: `waiting` names them.

Delivery is at least once: an append that failed or timed out is retried with the same `event_id`, which the ledger
counts as a repeat and folds once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from coupon_ledger.ledger.codec import encode
from coupon_ledger.ledger.errors import AppendFailed, InvalidEvent, LogUnavailable, Problem
from coupon_ledger.ledger.events import Event, parse_with_topic
from coupon_ledger.ledger.log import EventLog, Record
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings

_FIRST_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that was not appended: its number among all published events (from 0), and every rule that it breaks."""

    number: int
    event_id: str | None
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class Report:
    """The outcome of the events published so far: accepted (durably appended), or refused."""

    accepted: int = 0
    refused: list[Refused] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.refused


class Publisher:
    """Appends events in batches. Not safe for use by several threads at once."""

    def __init__(self, log: EventLog, *, batch_size: int = 10_000, attempts: int = 5) -> None:
        self._log = log
        self._batch_size = batch_size
        self._attempts = attempts
        self._waiting: list[tuple[str, Record]] = []
        self._given = 0
        self.report = Report()

    @classmethod
    def open(cls, log: str, *, batch_size: int = 10_000, attempts: int = 5, **settings: Any) -> Self:
        """Open a publisher to the log at that address. `settings`: further fields of `LogSettings`."""
        return cls(open_log(LogSettings(url=log, **settings)), batch_size=batch_size, attempts=attempts)

    @property
    def waiting(self) -> tuple[str, ...]:
        """The `event_id` of every event that was taken and is not known to be in the log, in order."""
        return tuple(event_id for event_id, _ in self._waiting)

    def publish(self, event: Event | Mapping[str, Any]) -> bool:
        """Take an event, or its data with a `topic`. Returns False if it is refused (see `report`).

        The event is durable after the next `flush`. Raises what `flush` raises when the batch is full.
        """
        number, self._given = self._given, self._given + 1
        try:
            parsed = event if isinstance(event, Event) else parse_with_topic(event)
        except InvalidEvent as error:
            event_id = event.get("event_id") if isinstance(event, Mapping) else None
            name = event_id if isinstance(event_id, str) else None
            self.report.refused.append(Refused(number, name, error.problems))
            return False
        self._waiting.append((parsed.event_id, Record(parsed.topic, parsed.key.encode(), encode(parsed))))
        if len(self._waiting) >= self._batch_size:
            self.flush()
        return True

    def flush(self) -> None:
        """Append the waiting events durably. Failures are retried with growing pauses.

        Raises `AppendFailed` or another `LogError` after the last attempt; `waiting` names the events that are left,
        which the next flush appends.
        """
        pause = _FIRST_PAUSE_S
        for attempt in range(1, self._attempts + 1):
            try:
                self._append()
                return
            except (AppendFailed, LogUnavailable) as error:
                if attempt == self._attempts:
                    # The message is complete; the client's own frames and causes would put forty lines before it.
                    raise error.with_traceback(None) from None
            time.sleep(pause)
            pause *= 2

    def _append(self) -> None:
        if not self._waiting:
            return
        try:
            self._log.append([record for _, record in self._waiting])
        except AppendFailed as error:
            kept = [self._waiting[i] for i in sorted(error.failures)]
            self.report.accepted += len(self._waiting) - len(kept)
            self._waiting = kept
            raise
        self.report.accepted += len(self._waiting)
        self._waiting = []

    def close(self) -> None:
        """Flush and close the log, even if the flush fails (`waiting` then names what is left)."""
        try:
            self.flush()
        finally:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._log.close()
