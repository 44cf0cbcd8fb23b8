"""Keeps the table `operation_events` up to date with `coupon.operations`.

A thread of its own reads the topic; the owner stores what was read between its batches, so it never waits for the log.
The table is a function of the log: operations are stored when they come back from it, each once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import polars as pl

from coupon_ledger.consumers.alerts.tail import Opening, Piece, Tail
from coupon_ledger.ledger.errors import LedgerError, LogNotInitialised
from coupon_ledger.ledger.events import canonical_json
from coupon_ledger.ledger.log import LogReader, TopicPartition
from coupon_ledger.ledger.operations import RecordedOperation, operations_in
from coupon_ledger.ledger.reading import chunks_to_end
from coupon_ledger.ledger.topics import OPERATIONS
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.live.signature import stable_hash
from coupon_ledger.projections.store import Store

_ROOM: Final = "coupon_ledger.projections.operations"
_WAIT_S: Final = 0.5
_SCHEMA: Final[dict[str, pl.DataType]] = {
    **dict.fromkeys(("event_id", "action", "operator", "subject", "reason", "details"), pl.String()),
    "occurred_at": pl.Datetime("us"),
    "recorded_at": pl.Datetime("us"),
    "log_partition": pl.Int32(),
    "log_offset": pl.Int64(),
}


class OperationBook:
    """For the owner's thread: `use` says which store, and the object itself stores what was read. `reader`: opens the
    log for the thread that reads."""

    def __init__(self, reader: Opening) -> None:
        self._reader = reader
        self._tail: Tail | None = None

    def use(self, store: Store) -> None:
        self.close()
        store.make_tables(_ROOM)
        self._store = store
        self._tail = Tail(self._reader, positions(store), _WAIT_S, topic=OPERATIONS, decode=operations_in)

    def __call__(self) -> None:
        piece = None if self._tail is None else self._tail.taken()
        if piece is not None:
            store_piece(self._store, piece)

    def finish(self, log: LogReader) -> None:
        """For a run that ends with the log: store everything up to its present end, if the log can be read."""
        if self._tail is None:
            return
        self.close()
        try:
            store_all(self._store, log)
        except LedgerError:
            return  # the next run reads on from here

    def close(self) -> None:
        if self._tail is not None:
            self._tail.close()
            self._tail = None


def positions(reading: Reading) -> dict[TopicPartition, int]:
    """The position in each partition of the topic from which it is to be read on."""
    rows = reading.rows("SELECT log_partition, next_offset FROM operation_positions")
    return {TopicPartition(OPERATIONS, partition): offset for partition, offset in rows}


def store_all(store: Store, log: LogReader) -> None:
    """Store all operations up to the present end of the topic."""
    reached = positions(store)
    found: list[RecordedOperation] = []
    try:
        for chunk in chunks_to_end(log, OPERATIONS, reached):
            found += operations_in(chunk)
    except LogNotInitialised:
        return
    store_piece(store, Piece(sorted(found, key=lambda one: (one.recorded_at, one.position)), reached))


def store_piece(store: Store, piece: Piece) -> None:
    """Store the operations that are not in the table yet, and the positions after them, in a transaction."""
    first: dict[str, RecordedOperation] = {}
    for recorded in piece.events:
        first.setdefault(recorded.operation.event_id, recorded)
    hashes = dict(zip(first, stable_hash(pl.Series(list(first), dtype=pl.String)).tolist(), strict=True))
    with store.transaction():
        known = _known(store, list(hashes.values())) if first else set()
        fresh = [one for event_id, one in first.items() if event_id not in known]
        if fresh:
            frame = pl.DataFrame(map(_row, fresh), schema=_SCHEMA)
            mine = pl.Series([hashes[one.operation.event_id] for one in fresh])
            store.insert("operation_events", frame.with_columns(event_hash=mine))
        store.execute("DELETE FROM operation_positions")
        rows = [(partition.partition, offset) for partition, offset in piece.positions.items()]
        store.insert("operation_positions", pl.DataFrame(rows, schema=["log_partition", "next_offset"], orient="row"))


def _known(reading: Reading, hashes: Sequence[int]) -> set[str]:
    query = "SELECT event_id FROM operation_events WHERE event_hash IN (SELECT unnest($hashes::BIGINT[]))"
    return set(reading.frame(query, {"hashes": hashes})["event_id"])


def _row(recorded: RecordedOperation) -> dict[str, object]:
    done, position = recorded.operation, recorded.position
    names = ("event_id", "action", "operator", "subject", "reason")
    return {
        **{name: getattr(done, name) for name in names},
        "details": None if done.details is None else canonical_json(done.details),
        "occurred_at": _naive(done.occurred_at),
        "recorded_at": _naive(recorded.recorded_at),
        "log_partition": position.partition,
        "log_offset": position.offset,
    }


def _naive(at: datetime) -> datetime:
    return at if at.tzinfo is None else at.astimezone(UTC).replace(tzinfo=None)
