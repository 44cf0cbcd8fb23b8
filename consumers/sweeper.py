"""Sweeps: finds coupons that have expired and holds that are over (`projections.due`), and appends the ledger's own
events for them to the log.

The events are first written to the outbox in a transaction, and then appended to the log. When they are read from the
log, they are folded like any other event. A sweep may be killed at any moment, and several sweeps may run on one log:
an event that is appended twice counts once.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue
from typing import Final

import polars as pl

from coupon_ledger.consumers import outbox
from coupon_ledger.consumers.runner import Committed, Consumer
from coupon_ledger.ledger.codec import encode_row, micros
from coupon_ledger.ledger.errors import ConservationBroken, LedgerError, LogUnavailable, StillToCome
from coupon_ledger.ledger.log import EventLog, Record
from coupon_ledger.ledger.plain import instant
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.due import SOURCE, due
from coupon_ledger.projections.store import Store

_AT_ONCE: Final = 20_000
"""Maximum number of coupons that a `Sweeper` sweeps between two batches. The consumer waits meanwhile."""

_logger = logging.getLogger("coupon_ledger.sweep")

Swept = Counter[str]
"""Number of events by reason."""


def over(until: datetime | None) -> datetime | None:
    """The instant up to which to sweep, in naive UTC; None if `until` is None. Raises `StillToCome` if it is in the
    future."""
    if until is None:
        return None
    if until > datetime.now(UTC):
        raise StillToCome(
            f"--until {instant(until)} is still to come, and an expiry cannot be undone; name an instant that is past"
        )
    return until.astimezone(UTC).replace(tzinfo=None)


def sweep(
    store: Store, log: EventLog, until: datetime, events: Callable[[pl.DataFrame], None] = lambda _: None
) -> Swept:
    """Append all events that are due at `until` (naive UTC) to the log, in pieces. Returns their number by reason. The
    whole log must have been folded into the database before. `events`: a function that is called with each piece that
    was appended (a frame with the columns of `due`).

    Raises `LogUnavailable` if the log does not accept some events. These stay in the outbox, and the next consumer or
    sweep appends them.
    """
    swept: Swept = Counter()
    _deliver(store, log)
    for piece in due(store, until):
        _put(store, piece)
        _deliver(store, log)
        swept.update(piece["reason"].to_list())
        events(piece)
    return swept


def _deliver(store: Store, log: EventLog) -> None:
    outbox.deliver(store, log)
    if waiting := _waiting(store):
        raise LogUnavailable(
            f"log {log.url}: did not take {waiting:,} records, which wait in the database; run again when it does"
        )


def expire(
    store: Store,
    log: EventLog,
    consumer: Callable[[], Consumer],
    until: datetime | None,
    committed: Callable[[Committed], None] = lambda _: None,
) -> Swept:
    """Fold the log to its end, sweep, and repeat both until nothing is due. Returns the number of events by reason.

    The log is folded first since a sweep must see everything that has happened. A sweep can make another one necessary:
    once a coupon is released, an event that was illegal before can reserve the coupon again.

    `consumer`: makes a consumer that stops at the end of the log. `until`: the instant up to which to sweep (naive UTC;
    None for the data's clock). `committed`: a function that is called after each commit.

    Raises what consuming and `sweep` raise. Raises `ConservationBroken` if two sweeps in a row append the same events,
    since the first sweep then changed nothing.
    """
    swept: Swept = Counter()
    before = None
    while True:
        outbox.deliver(store, log)
        for commit in consumer().run():
            committed(commit)
        fingerprint = _Fingerprint()
        # Folding moves the data's clock, so it is read again in each round.
        upto = until or clock(store)
        round_ = sweep(store, log, upto, fingerprint.add) if upto else Swept()
        if not round_:
            return swept
        if fingerprint.value == before:
            raise ConservationBroken(
                f"database {store.path}: {round_.total():,} events of a sweep were appended and changed nothing;"
                " see `coupon-ledger dead-letters list`, and report it"
            )
        swept += round_
        before = fingerprint.value


class _Fingerprint:
    """A checksum over the ids of events that does not depend on the order of the events."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, events: pl.DataFrame) -> None:
        self.value = (self.value + int(events["event_id"].hash(seed=0).cast(pl.UInt64).sum())) % 2**64


class Sweeper:
    """Sweeps between a consumer's batches: when a sweep is requested (`ask`), and at intervals of `every` (None:
    never). The latter sweeps go up to the data's clock."""

    def __init__(self, store: Store, log: EventLog, every: timedelta | None = None) -> None:
        self._store = store
        self._log = log
        self._delivery = outbox.Delivery(store, log)
        self._every_s = every.total_seconds() if every else None
        self._next = 0.0
        self._requests: SimpleQueue[tuple[Future[Swept], datetime | None]] = SimpleQueue()

    def use(self, store: Store) -> None:
        """From now on, sweep `store`, another generation of the database."""
        self._store = store
        self._delivery = outbox.Delivery(store, self._log)

    def ask(self, until: datetime | None) -> Future[Swept]:
        """Request a sweep up to `until` (naive UTC; None for the data's clock). Returns a future with the number of
        events by reason. Callable from any thread."""
        future: Future[Swept] = Future()
        self._requests.put((future, until))
        return future

    def __call__(self) -> None:
        """Do a sweep if one is requested or its time has come. The owner's thread calls this when the whole log has
        been folded."""
        if not self._requests.empty():
            self._answer(*self._requests.get())
        elif self._every_s is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every_s
            self._sweep_some()

    def _answer(self, future: Future[Swept], until: datetime | None) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            upto = until or clock(self._store)
            future.set_result(sweep(self._store, self._log, upto) if upto else Swept())
        except LedgerError as error:
            future.set_exception(error)

    def _sweep_some(self) -> None:
        """Sweep at most `_AT_ONCE` coupons. If the outbox has records from before, only try to append these."""
        until = clock(self._store)
        if until is None:
            return
        if _waiting(self._store):
            self._delivery()
            return
        for piece in due(self._store, until, _AT_ONCE):
            _put(self._store, piece)
            self._delivery()
            _logger.info("swept", extra={"events": piece.height, "until": until.isoformat() + "Z"})
            # The next call sweeps on at once. It comes when these events have been folded.
            self._next = 0.0
            return


def clock(store: Store) -> datetime | None:
    """The data's clock in naive UTC, or the present if that is earlier, since the clock of the log's brokers may be
    ahead. None if the database has no events."""
    [(at,)] = store.rows("SELECT data_clock FROM ledger")
    return None if at is None else min(at, datetime.now(UTC).replace(tzinfo=None))


def _put(store: Store, events: pl.DataFrame) -> None:
    records = [
        Record(COUPON, row["coupon_id"].encode(), _encoded(row))
        for row in events.select("event_id", "type", "occurred_at", "coupon_id", "reason", "order_id").iter_rows(
            named=True
        )
    ]
    with store.transaction():
        outbox.put(store, records)


def _encoded(row: dict[str, object]) -> bytes:
    at = row["occurred_at"]
    assert isinstance(at, datetime)
    return encode_row("coupon_event", {**row, "source": SOURCE, "occurred_at": micros(at.replace(tzinfo=UTC))})


def _waiting(store: Store) -> int:
    [(waiting,)] = store.rows("SELECT count(*) FROM outbox")
    return int(waiting)
