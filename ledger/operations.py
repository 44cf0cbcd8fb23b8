"""Operations: what operators did. Each is an event in the topic `coupon.operations` that says who did it and why.

    operations.append(log, "rebuild_swapped", why="faster disks", operator="mei", details={"generation": 7})

If an action is part of a database transaction, its record (`record_of`) is put in the outbox within that transaction,
and appended from there. Either way, the same record may be appended twice. Records with the same `event_id` are one
operation: `read` returns it once.
"""

from __future__ import annotations

import getpass
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, JsonValue, StringConstraints, ValidationError

from coupon_ledger.ledger.codec import EPOCH, decode, encode_row
from coupon_ledger.ledger.errors import InvalidEvent, Problem, UndecodableRecord
from coupon_ledger.ledger.events import MAX_TEXT_CHARS, Id, Instant, canonical_json, parse_json, problems_of
from coupon_ledger.ledger.log import Chunk, EventLog, LogReader, Position, Record
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.reading import chunks_to_end
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import OPERATIONS

ACTIONS: Final[Mapping[str, str]] = {
    "dead_letters_replayed": "dead letters were decoded again, and folded where they can be by now",
    "dead_letters_discarded": "dead letters were looked at and settled as they are",
    "correction_applied": "compensating events were appended from a file",
    "rebuild_swapped": "a rebuilt database took the live one's place",
    "rebuild_rolled_back": "the database before the last rebuild came back",
    "segment_defined": "a rule that chooses customers was defined, or defined anew, by its name",
    "attribution_model_defined": "a model of attribution was defined, or defined anew, by its name",
    "review_template_defined": "a layout of reviews was kept, or kept anew, by its name",
    "alert_rules_changed": "other alert rules came into force",
    "differences_accepted": "a rebuild that differs from the live tables was taken all the same",
    "signed_in": "somebody signed in to the pages",
    "sign_in_failed": "somebody tried to sign in, with a wrong name or password",
    "signed_out": "somebody signed out",
    "asked": "a question was asked over HTTP; further views within ten minutes are counted in one record",
    "exported": "a whole answer, or one in a file format, was fetched over HTTP",
    "person_added": "a person was added",
    "person_changed": "a person's role, scope, name or password was changed, or the person was disabled",
    "person_removed": "a person was removed",
    "token_created": "a token was made",
    "token_rotated": "a token got another secret",
    "token_revoked": "a token was made invalid",
    "job_started": "a job was started over HTTP",
    "job_stopped": "a job was stopped over HTTP",
    "records_lost": "some of what was done over HTTP could not be recorded; `count` says how much",
}
_SCHEMA: Final = "operation_event"
_logger = logging.getLogger(__name__)


Why = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=MAX_TEXT_CHARS)]


class Operation(BaseModel):
    """One action of an operator. `subject`: what the action was done to, such as a segment's name. `details`: further
    facts.

    `action`: one of `ACTIONS`. An operation that a newer ledger recorded may have another action.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    event_id: Id
    action: Id
    occurred_at: Instant
    operator: Id
    reason: Why
    subject: Id | None = None
    details: dict[str, JsonValue] | None = None


@dataclass(frozen=True, slots=True)
class RecordedOperation:
    """An operation that was read from the log, with its position and the time at which the log recorded it."""

    operation: Operation
    recorded_at: datetime
    position: Position


def user_name() -> str | None:
    """The name of the operating system's user who runs this process. None if the user has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a name
        return None


def operation(
    action: str,
    *,
    why: str,
    operator: str,
    subject: str | None = None,
    details: Mapping[str, Any] | None = None,
    event_id: str | None = None,
) -> Operation:
    """Make the `Operation` for an action that happens now. `event_id`: random if None. Give one if the action may be
    repeated and should count only once. Raises `InvalidEvent` if the action is unknown or a value is invalid."""
    if action not in ACTIONS:
        raise InvalidEvent([Problem("action", f"must be one of {', '.join(ACTIONS)}")])
    try:
        return Operation(
            event_id=event_id or str(uuid.uuid4()),
            action=action,
            occurred_at=datetime.now(UTC),
            operator=operator,
            reason=why,
            subject=subject,
            details=None if details is None else dict(details),
        )
    except ValidationError as error:
        raise InvalidEvent(problems_of(error)) from error


def record_of(done: Operation) -> Record:
    row = done.__dict__ | {"details": None if done.details is None else canonical_json(done.details)}
    return Record(OPERATIONS, done.event_id.encode(), encode_row(_SCHEMA, row))


def append(
    log: EventLog,
    action: str,
    *,
    why: str,
    operator: str,
    subject: str | None = None,
    details: Mapping[str, Any] | None = None,
    event_id: str | None = None,
) -> Operation:
    """Append an operation to the log, and return it when it is durable. Raises `InvalidEvent`, and the errors of
    appending to the log."""
    done = operation(action, why=why, operator=operator, subject=subject, details=details, event_id=event_id)
    log.append([record_of(done)])
    return done


def read(log: LogReader) -> list[RecordedOperation]:
    """All operations in the log, each once, in the order in which they were recorded. Records that are not valid
    operations are skipped, with a warning. Raises the errors of reading the log."""
    records = [record for chunk in chunks_to_end(log, OPERATIONS, {}) for record in operations_in(chunk)]
    first: dict[str, RecordedOperation] = {}
    for record in sorted(records, key=lambda record: (record.recorded_at, record.position)):
        first.setdefault(record.operation.event_id, record)
    return list(first.values())


def operations_of(settings: LogSettings, action: str) -> list[Operation]:
    """The operations with this action that have a subject, in the order in which they were recorded. If several have
    the same subject, the last one is the one in force. Raises the errors of opening and reading the log."""
    log = open_log(settings)
    try:
        return [
            record.operation for record in read(log) if record.operation.action == action and record.operation.subject
        ]
    finally:
        log.close()


def operations_in(chunk: Chunk) -> list[RecordedOperation]:
    """The operations in a chunk of the topic. Records that are none are skipped, with a warning."""
    records = []
    for offset, at, value in zip(chunk.offsets.tolist(), chunk.recorded_at.tolist(), chunk.values, strict=True):
        position = Position(chunk.topic, chunk.partition, offset)
        try:
            records.append(RecordedOperation(operation_of(value), EPOCH + timedelta(microseconds=at), position))
        except (UndecodableRecord, InvalidEvent) as error:
            _logger.warning("%s %d %d: no operation (%s)", *position, error)
    return records


def operation_of(value: bytes) -> Operation:
    """The operation in a record's value. Raises `UndecodableRecord`, `InvalidEvent`."""
    writer, row = decode(value)
    if writer.name != _SCHEMA:
        raise UndecodableRecord(f"a {writer.name} does not belong on {OPERATIONS}")
    try:
        row["details"] = None if row["details"] is None else parse_json(row["details"])
        return Operation.model_validate(row)
    except ValidationError as error:
        raise InvalidEvent(problems_of(error)) from error
    except (ValueError, RecursionError) as error:
        raise UndecodableRecord(f"details: no JSON ({error})") from error


def spans(positions: list[Position]) -> list[list[str | int]]:
    """Positions in the form in which the details of an operation store them: for each run of consecutive offsets, a
    list of topic, partition, first offset and last offset."""
    runs: list[list[Any]] = []
    for topic, partition, offset in sorted(positions):
        if runs and runs[-1][:2] == [topic, partition] and runs[-1][3] == offset - 1:
            runs[-1][3] = offset
        else:
            runs.append([topic, partition, offset, offset])
    return runs


def positions_in(details: Mapping[str, Any]) -> list[Position]:
    """The positions that the details of an operation store: the inverse of `spans`. Raises `ValueError`, `TypeError` or
    `KeyError` if the details have another form."""
    return [
        Position(str(topic), int(partition), offset)
        for topic, partition, first, last in details["positions"]
        for offset in range(int(first), int(last) + 1)
    ]
