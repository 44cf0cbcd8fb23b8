"""The table `alert_events`, and the book of alerts that is made from it.

The events are stored when they come back from the log, so the table is a function of the log. The book also knows what
is still in the outbox: these events have happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import polars as pl

from coupon_ledger.consumers.alerts.tail import Piece
from coupon_ledger.ledger.alert_book import AlertBook
from coupon_ledger.ledger.alert_events import AlertEvent, RecordedAlertEvent, decoded, read
from coupon_ledger.ledger.errors import LogNotInitialised
from coupon_ledger.ledger.log import LogReader, TopicPartition
from coupon_ledger.ledger.topics import ALERTS
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.live.signature import stable_hash
from coupon_ledger.projections.store import Store

_SCHEMA: Final[dict[str, pl.DataType]] = {
    **dict.fromkeys(
        ("event_id", "type", "fingerprint", "alert_id", "silence_id", "rule", "event"),
        pl.String(),
    ),
    "occurred_at": pl.Datetime("us"),
    "recorded_at": pl.Datetime("us"),
    "log_partition": pl.Int32(),
    "log_offset": pl.Int64(),
}


def positions(reading: Reading) -> dict[TopicPartition, int]:
    """The position in each partition of the topic from which it is to be read on."""
    rows = reading.rows("SELECT log_partition, next_offset FROM alert_positions")
    return {TopicPartition(ALERTS, partition): offset for partition, offset in rows}


def stored(reading: Reading) -> Iterator[AlertEvent]:
    """The events in the table, in the order of recording."""
    query = "SELECT event FROM alert_events ORDER BY recorded_at, log_partition, log_offset"
    for piece in reading.batches(query):
        yield from map(AlertEvent.model_validate_json, piece["event"].to_list())


def made(reading: Reading) -> AlertBook:
    """The book of all events in the table and in the outbox."""
    book = AlertBook(stored(reading))
    for value in reading.frame(f"SELECT value FROM outbox WHERE topic = '{ALERTS}' ORDER BY rowid")["value"]:
        book.fold(decoded(value))
    return book


def store_piece(store: Store, piece: Piece) -> list[AlertEvent]:
    """Store the events that are not in the table yet, and the positions after them, in a transaction. Returns these
    events."""
    first: dict[str, RecordedAlertEvent] = {}
    for recorded in piece.events:
        first.setdefault(recorded.event.event_id, recorded)
    with store.transaction():
        hashes = dict(zip(first, stable_hash(pl.Series(list(first), dtype=pl.String)).tolist(), strict=True))
        known = _known(store, list(hashes.values())) if first else set()
        fresh = {event_id: recorded for event_id, recorded in first.items() if event_id not in known}
        if fresh:
            frame = pl.DataFrame(map(_row, fresh.values()), schema=_SCHEMA)
            store.insert("alert_events", frame.with_columns(event_hash=pl.Series([hashes[i] for i in fresh])))
        store.execute("DELETE FROM alert_positions")
        rows = [(partition.partition, offset) for partition, offset in piece.positions.items()]
        store.insert("alert_positions", pl.DataFrame(rows, schema=["log_partition", "next_offset"], orient="row"))
    return [recorded.event for recorded in fresh.values()]


def store_all(store: Store, log: LogReader) -> None:
    """Store all events up to the present end of the topic. An archive from before the topic existed has none."""
    try:
        events, reached = read(log, positions(store))
    except LogNotInitialised:
        return
    store_piece(store, Piece(events, reached))


def _known(reading: Reading, hashes: list[int]) -> set[str]:
    query = "SELECT event_id FROM alert_events WHERE event_hash IN (SELECT unnest($hashes::BIGINT[]))"
    return set(reading.frame(query, {"hashes": hashes})["event_id"])


def _row(recorded: RecordedAlertEvent) -> dict[str, object]:
    event, position = recorded.event, recorded.position
    return {
        "event_id": event.event_id,
        "type": event.type,
        "fingerprint": event.fingerprint,
        "alert_id": event.alert_id,
        "silence_id": event.silence_id,
        "rule": event.rule,
        "event": event.model_dump_json(exclude_defaults=True),
        "occurred_at": _naive(event.occurred_at),
        "recorded_at": _naive(recorded.recorded_at),
        "log_partition": position.partition,
        "log_offset": position.offset,
    }


def _naive(at: datetime) -> datetime:
    return at if at.tzinfo is None else at.astimezone(UTC).replace(tzinfo=None)
