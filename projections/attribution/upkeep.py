"""Keeps the table `paths` up to date with the live tables.

    mark         in a batch's transaction: add the ids with changed touches, orders or links to `stale_users`
    settle       between batches, not too often: compute the paths of the persons with stale ids again
    settle_all   compute the paths of all persons

A question that is asked while there are stale ids computes the paths of their persons itself, in temporary tables. All
of these compute paths with `build`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Final

import polars as pl

from coupon_ledger.ledger.topics import COUPON, ORDER, USER
from coupon_ledger.projections.attribution.paths import hashed, paths_of, ranked
from coupon_ledger.projections.attribution.persons import persons_of, whose
from coupon_ledger.projections.connection import Cursor, Reading, live_schema, sql
from coupon_ledger.projections.kept_table import Batch, KeptTable
from coupon_ledger.projections.live.changes import Changes
from coupon_ledger.projections.store import Store

if TYPE_CHECKING:
    from coupon_ledger.projections.past import Past

Put = Callable[[str, pl.DataFrame], None]
"""A function that inserts rows (the second argument) into a table (the first)."""

_AT_ONCE: Final = 1_500_000
"""Approximate number of touches and orders from which paths are computed at once."""
_IDS_AT_ONCE: Final = 20_000
_MOST_ASKED: Final = 0.2
"""If the number of stale ids exceeds this share of the number of paths, all paths are computed again."""
_PATHS_AT_ONCE: Final = 25_000
"""Approximate number of paths that the consumer writes between two batches."""
_FEW: Final = 10_000
_SOON_S: Final = 1.0
_SELDOM_S: Final = 30.0
_REST: Final = 9.0
"""The pause after settling while batches keep coming, as a multiple of the time that settling took."""
_AGAIN_S: Final = 0.02

_SOURCED: Final = """
SELECT person, occurred_at, source, rank FROM ({}) t JOIN sources s
ON s.kind = t.kind AND s.channel IS NOT DISTINCT FROM t.channel AND s.campaign_id IS NOT DISTINCT FROM t.campaign_id
"""
"""Query for touches with the hashes of their sources instead of the texts, which would take three times as long. {}:
the query for the touches."""
_STALE_TIMES: Final = "SELECT user_id, count(*) AS times FROM stale_users GROUP BY user_id LIMIT $most"
_TOUCHING: Final = "acquired_at acquired_by issued_at claimed_at owner issue_channel claim_channel campaign_id".split()
_ORDERING: Final = "user_id paid_at cancelled_at net_minor refunded_minor currency cost_of_goods_minor".split()
_log = logging.getLogger(__name__)


# --- Marking


def mark(store: Store, batch: Batch) -> None:
    """Add the ids to `stale_users` for which a batch may change the paths, inside the batch's transaction."""
    stale = [marked(batch.changes[topic]) for topic, marked in _MARKED.items() if topic in batch.changes]
    ids = pl.concat([batch.relinked["user_id"], *stale])
    if len(ids):
        store.insert("stale_users", ids.drop_nulls().unique().to_frame("user_id"))


def _of_coupons(changes: Changes) -> pl.Series:
    return _ids(changes, _TOUCHING, ("acquired_by", "owner"))


def _of_orders(changes: Changes) -> pl.Series:
    with_coupons = pl.col("coupon_ids").list.len().fill_null(0) > 0
    return _ids(changes, [*_ORDERING, "names_coupons"], ("user_id",), names_coupons=with_coupons)


def _of_users(changes: Changes) -> pl.Series:
    return changes.events("user_id", "type").filter(pl.col("type") == "touched")["user_id"]


def _ids(changes: Changes, columns: list[str], ids: Iterable[str], **more: pl.Expr) -> pl.Series:
    """The ids in the rows that a batch changed in one of the columns `columns`. `ids`: the columns that contain ids.
    Returns their values before and after the batch. `more`: expressions for further columns, which `columns` may
    name."""
    before, after = (rows.with_columns(**more).select(columns) for rows in (changes.before, changes.after))
    other = pl.select(pl.any_horizontal(before[c].ne_missing(after[c]) for c in columns)).to_series()
    return pl.concat([rows.filter(other)[i].alias("user_id") for rows in (before, after) for i in ids])


_MARKED: Final = {COUPON: _of_coupons, ORDER: _of_orders, USER: _of_users}


# --- Settling


class Upkeep:
    """Updates the paths of stale ids between batches: soon when the consumer is idle, rarely when it is busy. It takes
    at most a tenth of the consumer's time and hardly delays a commit. No answer depends on when the paths are updated.

    A second thread, with its own connection, computes the paths of some persons at a time. The consumer's thread only
    writes them, in pieces. Use as a context manager, which ends the thread.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(1, "paths")
        self._reading: Cursor | None = None
        self._making: Future[Made] | None = None
        self._started = self._ended = time.monotonic()

    def __enter__(self) -> Upkeep:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()
        self._pool.shutdown()

    def __call__(self, *, idle: bool) -> None:
        """Do the next piece of work, if it is time. Call between two batches. `idle`: whether no batch is waiting."""
        if self._making is None:
            rest = (1 if idle else _REST) * (self._ended - self._started)
            if time.monotonic() - self._ended > max(_SOON_S if idle else _SELDOM_S, rest):
                self._start()
        elif self._making.done():
            with self._store.transaction():
                left = self._making.result().put(self._store)
            if not left:
                self._making, self._ended = None, time.monotonic()

    def finish(self) -> None:
        """Update the paths of all stale ids. Call after the last batch."""
        self._drop()
        settle(self._store)

    def _start(self) -> None:
        self._started = time.monotonic()
        self._reading = self._store.cursor()
        self._making = self._pool.submit(_made_by, self._reading)

    def _drop(self) -> None:
        """Stop computing and discard the result. The ids stay stale, so their paths are computed again later."""
        if self._making is not None and self._reading is not None:
            while not self._making.done():
                self._reading.interrupt()  # repeat it, since the query may not have begun
                wait([self._making], timeout=_AGAIN_S)
        self._making = None


class Made:
    """New paths for the persons of some stale ids, computed from one committed state. `put` replaces the stored paths.

    Always true: these ids stay stale until all the new paths are written. Afterwards, only those ids are stale that
    batches have added to `stale_users` since that state."""

    def __init__(self, reading: Reading) -> None:
        """`reading`: a connection in a transaction that the caller rolls back."""
        self._stale = reading.frame(_STALE_TIMES, {"most": _IDS_AT_ONCE})
        ids = whose(reading, self._stale)
        self._persons = hashed(once_persons(ids))
        frames: dict[str, list[pl.DataFrame]] = {"paths": [], "touch_sources": []}
        build(reading, lambda table, rows: frames[table].append(rows), ids)
        self._paths, self._sources = (pl.concat(frames[table]) for table in ("paths", "touch_sources"))
        counted = self._persons.join(self._paths.group_by("person").len(), on="person", how="left")
        together = pl.col("len").fill_null(0).cum_sum() // _PATHS_AT_ONCE
        self._persons = counted.select("person", "person_hash", piece=together)

    def put(self, store: Store) -> bool:
        """Write one piece of the paths, inside the caller's transaction. Returns whether there is another piece."""
        first = pl.col("piece") == pl.col("piece").first()
        piece, self._persons = self._persons.filter(first), self._persons.filter(~first)
        known = store.frame("SELECT source FROM touch_sources")
        store.insert("touch_sources", self._sources.join(known, on="source", how="anti"))
        with store.given(gone=piece):
            store.delete("paths", store.frame(_query("rows_of_persons"))["row_id"])
        store.insert("paths", self._paths.join(piece, on=["person_hash", "person"], how="semi"))
        if not self._persons.height:
            self._done(store)
        return self._persons.height > 0

    def _done(self, store: Store) -> None:
        """Remove the ids from `stale_users`. Ids that a batch has added again since the paths were computed stay."""
        now = store.frame(_STALE_TIMES, {"most": None})
        counted = self._stale.select("user_id", before="times")
        again = now.join(counted, on="user_id", how="left").filter(pl.col("times") > pl.col("before").fill_null(0))
        store.execute("DELETE FROM stale_users")
        store.insert("stale_users", again.select("user_id"))


def _made_by(reading: Cursor) -> Made:
    try:
        reading.begin()
        return Made(reading)
    finally:
        reading.end()
        reading.close()


def settle(store: Store) -> None:
    """Update the paths of the persons of all stale ids, in several transactions."""
    started, stale = time.perf_counter(), stale_ids(store).height
    if stale > max(_FEW, _MOST_ASKED * store.size("paths")):
        with store.transaction():
            settle_all(store)
    while stale_ids(store).height:
        made, left = _made_by(store.cursor()), True
        while left:
            with store.transaction():
                left = made.put(store)
    _log.debug("paths of %d ids computed again in %.2f s", stale, time.perf_counter() - started)


def settle_all(store: Store) -> None:
    """Compute the tables `persons` and `paths` anew, inside the caller's transaction."""
    PATHS.clear(store)
    store.insert("persons", persons_of(store))
    build(store, store.insert)


# --- Building


def stale_ids(reading: Reading) -> pl.DataFrame:
    return reading.frame("SELECT DISTINCT user_id FROM stale_users")


def once_persons(ids: pl.DataFrame) -> pl.DataFrame:
    """The names (`person`) of all persons that the given ids (`user_id`, `person`) belong to now or may have belonged
    to earlier. Since a person is named after one of its ids, each `user_id` is also a possible former name."""
    return pl.concat([ids["person"], ids["user_id"].alias("person")]).unique().to_frame()


def build(reading: Reading, put: Put, ids: pl.DataFrame | None = None) -> None:
    """Compute paths and the sources of touches, and pass them to `put`. The table `persons` must be up to date.

    `ids`: compute only the paths of the persons that these ids (`user_id`) belong to. If one id of a person is among
    them, all ids of this person must be.
    """
    if ids is None:
        _build(reading, put, "true", 1 + _rows(reading) // _AT_ONCE)
    else:
        with reading.given(chosen=ids.select("user_id")):
            _build(reading, put, "user_id IN (SELECT user_id FROM chosen)", 1 + ids.height // _IDS_AT_ONCE)


def _build(reading: Reading, put: Put, whose: str, parts: int) -> None:
    touches, orders = _query("touches"), _query("orders")
    sources = ranked(reading.frame(f"SELECT DISTINCT kind, channel, campaign_id FROM ({touches}) WHERE {whose}"))
    known = reading.frame("SELECT source FROM touch_sources")
    put("touch_sources", sources.drop("rank").join(known, on="source", how="anti"))
    some = f"{whose} AND hash(person) % $parts::UBIGINT = $part::UBIGINT"
    with reading.given(sources=sources):
        for part in range(parts):
            parameters = {"parts": parts, "part": part}
            touched = reading.frame(f"{_SOURCED.format(touches)} WHERE {some}", parameters)
            ordered = reading.frame(f"SELECT * EXCLUDE (user_id) FROM ({orders}) WHERE {some}", parameters)
            put("paths", paths_of(touched, ordered))


def _rows(reading: Reading) -> int:
    """An upper estimate of the number of touches and orders."""
    [(rows,)] = reading.rows(
        "SELECT 2 * (SELECT count(*) FROM coupons) + (SELECT count(*) FROM orders) + (SELECT count(*) FROM user_events)"
    )
    return int(rows)


def stand_in(past: Past) -> None:
    """Replace the live paths by the past ones for one question. Call it after the past rows of coupons, orders and
    users and the past persons have replaced the live ones."""
    for table in ("paths", *PATHS.helpers):
        past.make(table, f"SELECT * FROM {live_schema(past.reading)}.{table} LIMIT 0")
    build(past.reading, lambda table, rows: put_beside(past.reading, table, rows))


def put_beside(reading: Reading, table: str, rows: pl.DataFrame) -> None:
    """Insert rows into the temporary table `table`."""
    if rows.height:
        with reading.given(added=rows):
            reading.execute(f"INSERT INTO {table} BY NAME SELECT * FROM added")


def _query(name: str) -> str:
    return sql(__package__, name)


PATHS: Final = KeptTable(
    folder="coupon_ledger.projections.attribution",
    projection="attribution",
    tables={"persons": ("user_id",), "paths": ("order_id", "person", "ended_at")},
    helpers=("touch_sources", "stale_users"),
    settle=mark,
    fill=lambda adding: build(adding, adding.insert),
    stand_in=stand_in,
    audits=("persons", "paths", "touches_once"),
)
"""`settle` does not update the table `persons`: `persons.settle` has already done so, before the rules across coupons,
which read it."""
