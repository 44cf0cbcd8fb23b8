"""Events of `coupon.alerts`: the life of alerts, silences, what asked rules found, and what rules missed.

`alert_life.py` decides which events follow from what happened. This module makes, encodes and reads them. Events with
the same `event_id` are one event: whoever folds them counts it once.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from coupon_ledger.ledger.codec import EPOCH, decode, encode_row
from coupon_ledger.ledger.errors import InvalidEvent, Problem, UndecodableRecord
from coupon_ledger.ledger.events import (
    Amount,
    Currency,
    Id,
    Instant,
    SignedAmount,
    Text,
    canonical_json,
    parse_json,
    problems_of,
)
from coupon_ledger.ledger.log import Chunk, LogReader, Position, Record, TopicPartition
from coupon_ledger.ledger.plain import plain
from coupon_ledger.ledger.reading import chunks_to_end
from coupon_ledger.ledger.topics import ALERTS

TYPES: Final[Mapping[str, str]] = {
    "pending": "the condition holds, not yet long enough to fire",
    "cleared": "the condition was over before the alert fired",
    "fired": "the condition held long enough",
    "updated": "it became worse: more money, a larger value, or a higher severity",
    "recovering": "the condition is over, not yet long enough to be resolved",
    "relapsed": "the condition holds again, before the alert was resolved",
    "no_data": "the rule found no data to judge by",
    "error": "the rule could not be evaluated",
    "resolved": "the alert is closed: by itself, or by an operator, who says what came of it",
    "flapping": "it fires and recovers so often that messages about it are held back",
    "settled": "it has stopped flapping",
    "acknowledged": "somebody has taken it, until an expected time",
    "noted": "an operator wrote a note",
    "owner_assigned": "it was given to somebody",
    "acted": "an action was taken, or tried without effect (dry run)",
    "escalated": "nobody acted in time",
    "notified": "a message about it was delivered to a channel",
    "not_notified": "a message about it was held back or could not be delivered, and why",
    "silenced": "messages about alerts that match are held back from now on",
    "unsilenced": "a silence ended: its time was over, or an operator ended it",
    "observed": "an asked rule was evaluated: what it found",
    "missed": "an operator reports what the rule should have told and did not, or withdraws such a report",
}
"""By type, what happened. An event that a newer ledger wrote may have another type."""
OUTCOMES: Final = ("true", "false", "unknown")
MAX_DETAILS_CHARS: Final = 262_144
_SCHEMA: Final = "alert_event"
_JSON_FIELDS: Final = ("labels", "details")
_logger = logging.getLogger(__name__)


def _small(value: Any) -> Any:
    try:
        size = len(canonical_json(value).encode())
    except (ValueError, RecursionError) as error:
        raise PydanticCustomError("json", "must be JSON: {why}", {"why": str(error)}) from error
    if size > MAX_DETAILS_CHARS:
        raise PydanticCustomError("json", "must have at most {most} bytes as JSON", {"most": MAX_DETAILS_CHARS})
    return value


Labels = Annotated[dict[Id, Text], AfterValidator(_small)]
Details = Annotated[dict[str, JsonValue], AfterValidator(_small)]


class AlertEvent(BaseModel):
    """One event of `coupon.alerts`. `occurred_at`: by the wall clock. `data_at`: by the data's clock. `operator`: None
    for what the ledger did by itself. Amounts: in minor units of `currency`. The schema documents the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    event_id: Id
    type: Id
    occurred_at: Instant
    fingerprint: Id | None = None
    alert_id: Id | None = None
    silence_id: Id | None = None
    rule: Id | None = None
    rule_version: Id | None = None
    severity: Literal["critical", "high", "warning", "info"] | None = None
    labels: Labels = Field(default_factory=dict)
    data_at: Instant | None = None
    operator: Id | None = None
    assignee: Id | None = None
    until: Instant | None = None
    reason: Id | None = None
    note: Text | None = None
    outcome: Literal["true", "false", "unknown"] | None = None
    money_minor: SignedAmount | None = None
    saved_minor: Amount | None = None
    currency: Currency | None = None
    message_id: Id | None = None
    channel: Id | None = None
    action: Id | None = None
    details: Details = Field(default_factory=dict)

    @model_validator(mode="after")
    def _about_something(self) -> AlertEvent:
        if not (self.fingerprint and self.alert_id) and not self.silence_id and not self.rule:
            raise PydanticCustomError("needed", "must name an alert (fingerprint and alert_id), a silence or a rule")
        return self

    @property
    def key(self) -> str:
        """The key of the event's record: the alert's fingerprint, or the silence, or the rule that was asked or that
        missed something. So all that concerns one of them is in one partition, in order."""
        if self.fingerprint is not None:
            return self.fingerprint
        return f"silence:{self.silence_id}" if self.silence_id is not None else f"rule:{self.rule}"


@dataclass(frozen=True, slots=True)
class RecordedAlertEvent:
    """An event that was read from the log, with its position and the time at which the log recorded it."""

    event: AlertEvent
    recorded_at: datetime
    position: Position


def event(kind: str, /, **fields: Any) -> AlertEvent:
    """Make an event of a type. Raises `InvalidEvent` if the type is unknown or a value is invalid."""
    if kind not in TYPES:
        raise InvalidEvent([Problem("type", f"must be one of {', '.join(TYPES)}")])
    try:
        return AlertEvent(type=kind, **fields)
    except ValidationError as error:
        raise InvalidEvent(problems_of(error)) from error


def fingerprint_of(rule: str, labels: Mapping[str, str]) -> str:
    """The fingerprint of a rule's alerts with these labels: 32 hexadecimal digits."""
    return hash_of("alert", rule, dict(labels))


def event_id_of(kind: str, *about: object) -> str:
    """The id of an automatic event, computed from what the event is about, so that it counts once however often it is
    appended. `about`: texts, numbers, instants and None."""
    return f"alert:{hash_of(kind, *about)}"


def hash_of(*about: object) -> str:
    """32 hexadecimal digits that stand for these values."""
    return hashlib.sha256(canonical_json(plain(about)).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def record_of(made: AlertEvent) -> Record:
    texts = {name: canonical_json(value) if (value := getattr(made, name)) else None for name in _JSON_FIELDS}
    return Record(ALERTS, made.key.encode(), encode_row(_SCHEMA, made.__dict__ | texts))


def read(
    log: LogReader, positions: Mapping[TopicPartition, int] | None = None
) -> tuple[list[RecordedAlertEvent], dict[TopicPartition, int]]:
    """The events from these positions up to the present end of the topic, in the order in which they were recorded, and
    the positions at which the next read continues. A partition that is not in `positions` is read from its start.

    A delivery that repeats an earlier one is returned like any other. Records that are not valid events are skipped,
    with a warning. Raises the errors of reading the log.
    """
    next_positions = dict(positions or {})
    chunks = chunks_to_end(log, ALERTS, next_positions)
    events = [recorded for chunk in chunks for recorded in events_in(chunk)]
    return sorted(events, key=lambda recorded: (recorded.recorded_at, recorded.position)), next_positions


def events_in(chunk: Chunk) -> Iterable[RecordedAlertEvent]:
    """The events in a chunk of the topic. Records that are not valid events are skipped, with a warning."""
    for offset, at, value in zip(chunk.offsets.tolist(), chunk.recorded_at.tolist(), chunk.values, strict=True):
        position = Position(chunk.topic, chunk.partition, offset)
        try:
            yield RecordedAlertEvent(decoded(value), EPOCH + timedelta(microseconds=at), position)
        except (UndecodableRecord, InvalidEvent) as error:
            _logger.warning("%s %d %d: no event of an alert (%s)", *position, error)


def decoded(value: bytes) -> AlertEvent:
    """The event in a record's value. Raises `UndecodableRecord` or `InvalidEvent` if there is none."""
    writer, row = decode(value)
    if writer.name != _SCHEMA:
        raise UndecodableRecord(f"a {writer.name} does not belong on {ALERTS}")
    data = {name: field for name, field in row.items() if field is not None}
    try:
        data |= {name: parse_json(data[name]) for name in _JSON_FIELDS if name in data}
        return AlertEvent.model_validate(data)
    except ValidationError as error:
        raise InvalidEvent(problems_of(error)) from error
    except (ValueError, RecursionError) as error:
        raise UndecodableRecord(f"labels or details: no JSON ({error})") from error
