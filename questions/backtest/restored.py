"""Restores states of the past, one after the other, in a database of its own.

The events of the journal are folded once, in the order of recording, piece by piece. After each piece the tables are
those that the ledger had then (`projections.past` folds each state from the start, which costs more from the third on).
Nothing of the live database is changed.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import polars as pl

from coupon_ledger.ledger.log import TopicPartition
from coupon_ledger.ledger.progress import Progress, ignore
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, ORDER, USER
from coupon_ledger.projections.checkpoints import Completeness
from coupon_ledger.projections.connection import Cursor, Reading, sql
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.live import cross
from coupon_ledger.projections.live.apply import fold_in, prepare
from coupon_ledger.projections.live.journal import CONFLICTS, JOURNAL, MOMENTS, columns
from coupon_ledger.projections.store import Store

MOST: Final = 60
"""Number of states that a backtest restores at most."""
_AT_ONCE: Final = 200_000
_FOREVER: Final = datetime(9999, 1, 1)

TOPICS_OF: Final[dict[str, frozenset[str]]] = {
    **{JOURNAL[topic]: frozenset({topic}) for topic in JOURNAL},
    **{CONFLICTS[topic]: frozenset({topic}) for topic in CONFLICTS},
    "coupons": frozenset({COUPON}),
    "orders": frozenset({ORDER}),
    "campaigns": frozenset({CAMPAIGN}),
    "users": frozenset({USER}),
    "persons": frozenset({USER}),
    "ledger": frozenset(),
    "event_counts": frozenset({COUPON}),
    "coupon_sales": frozenset({COUPON, ORDER}),
    "coupons_in_use": frozenset({COUPON}),
    "uses": frozenset({COUPON}),
    "acquisitions": frozenset({COUPON}),
    "campaign_terms": frozenset({CAMPAIGN}),
    "violations": frozenset(INPUT_TOPICS),
    "judged_violations": frozenset(INPUT_TOPICS),
}
"""The tables that are restored, each with the topics from which it is made. Not among them: what depends on how the log
was read, dead letters, alerts, and paths."""
BY_KEY: Final = frozenset({*JOURNAL.values(), *CONFLICTS.values(), "coupons", "orders", "campaigns", "users", "ledger"})
"""Those of them that follow from the events of one key at a time."""


@dataclass(frozen=True, slots=True)
class State:
    """A state of the past. `cursor`: reads it, in a transaction, until the next state is asked for. `clock`: the data's
    clock then (naive UTC)."""

    cursor: Cursor
    clock: datetime


def span(reading: Reading) -> tuple[datetime, datetime] | None:
    """The first and the last instant that the data's clock has had; None before the first event."""
    [(first, last)] = reading.rows(sql(__package__, "clock_span").format(moments=MOMENTS))
    return None if first is None else (first, last)


def instants(first: datetime, last: datetime, every: timedelta) -> list[datetime]:
    """Instants that are `every` apart, up to `last`; if these are more than `MOST`, further apart."""
    number = min(MOST, 1 + (last - first) // every)
    apart = every if number < MOST else (last - first) / (MOST - 1)
    return [last - apart * n for n in range(number)][::-1]


def restored(
    reading: Reading,
    at: Sequence[datetime],
    topics: Collection[str],
    progress: Progress = ignore,
    *,
    only_by_key: bool = False,
) -> Generator[State, None, None]:
    """Yield the state at each of the instants of the data's clock (naive UTC, ascending), unless it is that before: the
    latest one, in the order of recording, in which the clock had not passed the instant. Only events of `topics` are
    folded. `progress`: in events. `only_by_key`: restore the tables of `BY_KEY` only, which takes less time."""
    ends = _ends(reading, [*_on_the_way(reading, at[0], topics), *at])
    total = events(reading, topics)
    done = 0
    with _empty() as store:
        clock: datetime | None = None
        for (_, after), (instant, end) in pairwise([(None, datetime.min), *ends]):
            pieces = {topic: _piece(reading, topic, after, end) for topic in INPUT_TOPICS if topic in topics}
            clock = _clock(reading, after, end) or clock
            if clock is None or after == end:
                continue
            _fold(store, pieces, clock, only_by_key=only_by_key)
            done += sum(piece.height for piece in pieces.values())
            progress(done, max(done, total))
            if instant in at:
                yield from _seen(store, clock)


def _on_the_way(reading: Reading, first: datetime, topics: Collection[str]) -> list[datetime]:
    """Instants before the first one, so that what comes before it is folded in pieces."""
    known = span(reading)
    if known is None or known[0] >= first:
        return []
    pieces = events(reading, topics, first) // _AT_ONCE
    return [known[0] + (first - known[0]) * n / (pieces + 1) for n in range(1, pieces + 1)]


def events(reading: Reading, topics: Iterable[str], until: datetime = _FOREVER) -> int:
    """How many events of these topics happened until then."""
    counts = (f"SELECT count(*) AS n FROM {JOURNAL[topic]} WHERE occurred_at <= $until" for topic in sorted(topics))
    parts = " UNION ALL ".join(counts)
    return int(reading.frame(f"SELECT sum(n)::BIGINT FROM ({parts})", {"until": until}).item()) if parts else 0


def _ends(reading: Reading, at: Sequence[datetime]) -> list[tuple[datetime, datetime]]:
    """Each instant with the `recorded_at` of the first event by which the clock passes it."""
    frame = pl.DataFrame({"moment": pl.Series(at, dtype=pl.Datetime("us"))})
    with reading.given(instants=frame):
        beyond = reading.frame(sql(__package__, "recorded_beyond").format(moments=MOMENTS))
    joined = frame.join(beyond, on="moment", how="left").sort("moment", descending=True)
    ends = joined.with_columns(pl.col("recorded_at").fill_null(_FOREVER).cum_min()).sort("moment")
    return list(ends.select("moment", "recorded_at").iter_rows())


def _piece(reading: Reading, topic: str, after: datetime, end: datetime) -> pl.DataFrame:
    """The deliveries of the topic that were recorded from `after` on and before `end`."""
    names, between = ", ".join(columns(topic)), "recorded_at >= $after AND recorded_at < $end"
    return reading.frame(
        f"SELECT {names} FROM {JOURNAL[topic]} WHERE {between}"
        f" UNION ALL SELECT {names} FROM {CONFLICTS[topic]} WHERE {between}",
        {"after": after, "end": end},
    )


def _clock(reading: Reading, after: datetime, end: datetime) -> datetime | None:
    """The latest instant, by the earlier of both clocks, of the events recorded from `after` on and before `end`."""
    query = f"SELECT max(moment) FROM ({MOMENTS}) WHERE recorded_at >= $after AND recorded_at < $end"
    latest: datetime | None = reading.frame(query, {"after": after, "end": end}).item()
    return latest


@contextmanager
def _empty() -> Iterator[Store]:
    """An empty database, which is removed after the block. Of every topic, all is read, so no violation in it is
    provisional."""
    with TemporaryDirectory(prefix="coupon-ledger-") as folder:
        path = Path(folder) / "past.duckdb"
        create_database(path)
        with open_database(path) as store:
            store.execute("PRAGMA disable_checkpoint_on_shutdown")
            with store.transaction():
                Completeness({TopicPartition(topic, 0): _FOREVER for topic in INPUT_TOPICS}).save(store)
            yield store


def _fold(store: Store, pieces: Mapping[str, pl.DataFrame], clock: datetime, *, only_by_key: bool) -> None:
    with store.transaction():
        store.execute("UPDATE ledger SET data_clock = greatest(data_clock, $clock)", {"clock": clock})
        changes = [fold_in(store, prepare(topic, piece))[1] for topic, piece in pieces.items() if piece.height]
        if changes and not only_by_key:
            cross.settle(store, changes)


def _seen(store: Store, clock: datetime) -> Iterator[State]:
    cursor = store.cursor()
    try:
        cursor.begin()
        [(known,)] = cursor.rows("SELECT data_clock FROM ledger")
        yield State(cursor, known or clock)
    finally:
        cursor.end()
        cursor.close()
