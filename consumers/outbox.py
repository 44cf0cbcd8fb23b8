"""The outbox: records that the ledger itself still has to append to the log.

A record is written to the table `outbox` in the same transaction as the change that caused it. Later it is appended to
the log, at least once. The record in the table already has its event id, and is appended with the same id each time. So
a second delivery counts as a repeat.

The ids of dead letters, expiries and releases are computed from what they are about. The ids of operations (of replays
and discards) are random.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

import polars as pl

from coupon_ledger.ledger.codec import encode_row
from coupon_ledger.ledger.errors import AppendFailed, LogError
from coupon_ledger.ledger.log import EventLog, Record
from coupon_ledger.ledger.topics import DEAD_LETTERS
from coupon_ledger.projections.store import Store

_BATCH: Final = 1_000
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_logger = logging.getLogger(__name__)


def put_dead_letters(store: Store, letters: pl.DataFrame) -> None:
    """Put these dead letters into the outbox, as records of the topic for dead letters, inside the caller's
    transaction."""
    if not letters.height:
        return
    rows = letters.rename({"log_partition": "partition", "log_offset": "offset"}).with_columns(
        pl.col("recorded_at").cast(pl.Int64)
    )
    put(store, [_dead_letter(row) for row in rows.iter_rows(named=True)])


def put(store: Store, records: Sequence[Record]) -> None:
    """Put these records into the outbox, inside the caller's transaction."""
    frame = pl.DataFrame(records, schema={"topic": pl.String, "key": pl.Binary, "value": pl.Binary}, orient="row")
    store.insert("outbox", frame)


def _dead_letter(row: dict[str, object]) -> Record:
    position = f"{row['topic']}-{row['partition']}-{row['offset']}"
    return Record(DEAD_LETTERS, position.encode(), encode_row("dead_letter", {**row, "event_id": position}))


def deliver(store: Store, log: EventLog) -> None:
    """Append the records in the outbox to the log. Records that the log does not accept stay in the outbox, and a
    warning is logged."""
    if problem := _append(store, log):
        _logger.warning("outbox: %s", problem)


class Delivery:
    """Appends the records in the outbox of a long-running process to the log. If the log does not accept some of them,
    the next attempt comes after a pause. The pause becomes longer with each failure.

    Logs one warning when the log first refuses records, and another when all of them have been appended.
    """

    def __init__(self, store: Store, log: EventLog) -> None:
        self._store = store
        self._log = log
        self._since: float | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._next = 0.0

    def __call__(self) -> None:
        """Append the records in the outbox. After a failure, does so only once the pause is over."""
        if self._since is None:
            self._attempt()
        else:
            self.again()

    def again(self) -> None:
        """If the log did not accept some records in the last attempt, and the pause since then is over, append them
        now."""
        if self._since is not None and time.monotonic() >= self._next:
            self._attempt()

    def _attempt(self) -> None:
        problem = _append(self._store, self._log)
        if problem is None:
            if self._since is not None:
                _logger.warning("outbox: all is appended again after %.0f s", time.monotonic() - self._since)
            self._since, self._pause_s = None, _FIRST_PAUSE_S
            return
        if self._since is None:
            self._since = time.monotonic()
            _logger.warning("outbox: %s", problem)
        self._next = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


def _append(store: Store, log: EventLog) -> str | None:
    """Append the records in the outbox to the log, and delete those that were appended from the outbox. Returns None if
    the outbox is then empty, otherwise a text that says why it is not."""
    while True:
        rows = store.frame(
            "SELECT rowid AS row_id, topic, key, value FROM outbox ORDER BY rowid LIMIT $n", {"n": _BATCH}
        )
        if not rows.height:
            return None
        left: dict[int, str] = {}
        problem = None
        try:
            log.append([Record(t, k, v) for _, t, k, v in rows.iter_rows()])
        except AppendFailed as error:
            left = error.failures
            problem = f"{len(left)} records wait to be appended: {error}"
        except LogError as error:
            return f"{rows.height} records wait to be appended: {error}"
        appended = rows.select("row_id").with_row_index().filter(~pl.col("index").is_in(list(left)))
        with store.transaction():
            store.delete("outbox", appended["row_id"])
        if problem:
            return problem
