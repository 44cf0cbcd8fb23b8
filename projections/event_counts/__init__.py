"""The kept table `event_counts`: the number of coupon events by hour. Metrics of events sum these numbers instead of
counting millions of rows.

The transaction of each batch also updates the numbers. Always true: `event_counts` equals the result of
event_counts.sql on the journal and the table coupons.

An event is counted under its coupon's campaign, coupon type and channel. When one of these changes, the coupon's
earlier events must be counted under the new values. Usually the only earlier event is the creation. Then the coupon's
row has all values that are needed. Otherwise the earlier events are read from the journal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections import lookup
from coupon_ledger.projections.connection import Adding, sql
from coupon_ledger.projections.kept_table import Batch, KeptTable, OfSlices
from coupon_ledger.projections.live.changes import Changes
from coupon_ledger.projections.live.journal import JOURNAL
from coupon_ledger.projections.live.signature import stable_hash
from coupon_ledger.projections.store import Cache, Store

if TYPE_CHECKING:
    from coupon_ledger.projections.past import Past

TABLE: Final = "event_counts"
_KEY: Final = ["key_hash", "coupon_id"]
_SHARED: Final = ["campaign_id", "coupon_type"]
_EVENT: Final = [*_KEY, "event_id", "type", "occurred_at", "user_id", "channel", "reason"]
_KIND: Final = ["type", "to_user", "reason", *_SHARED, "channel"]
_CELL: Final = ["hour", *_KIND]
_ODD: Final = "(type = 'created' AND (channel IS NOT NULL OR reason IS NOT NULL))"
"""SQL condition that is true for a `created` event that cannot be counted from its coupon's row alone."""
_ODD_NUMBER: Final = np.uint64(0x9E3779B97F4A7C15)
_WRITTEN_AT_ONCE: Final = 500_000


class Known(Cache):
    """What is known in memory about the journal. `odd_creations`: whether it may have events that match `_ODD`; None
    until it is searched. The value may be True although there are none, for example after a rollback. This costs only
    time."""

    odd_creations: bool | None = None


def settle(store: Store, batch: Batch) -> None:
    """Update the counts for the changes that a batch makes to coupons and their journal, inside its transaction."""
    coupons = batch.changes.get(COUPON)
    if coupons is None:
        return
    before, after = _shared(coupons.before), _shared(coupons.after)
    came = pl.concat(e.select(_EVENT) for e in coupons.journalled)
    if came.filter(pl.sql_expr(_ODD)).height:
        store.cache(Known).odd_creations = True
    parts = [_cells(came, after, 1)]
    if coupons.dropped:
        parts.append(_cells(pl.concat(e.select(_EVENT) for e in coupons.dropped), after, -1))
    moved = _moved(coupons.before, before, after)
    if moved.height:
        earlier = _earlier(store, coupons, moved, came)
        parts += [_cells(earlier, before, -1), _cells(earlier, after, 1)]
    _add(store, _summed(parts).filter(pl.col("events") != 0))


def counted(facts: pl.DataFrame, coupons: pl.DataFrame) -> pl.DataFrame:
    """The counts for one slice of coupons. `facts`: all events of these coupons; `coupons`: their rows."""
    return _cells(facts.select(_EVENT), _shared(coupons), 1)


def put(into: Store | Adding, parts: Iterable[pl.DataFrame]) -> None:
    """Sum the counts of all slices (`parts`, from `counted`), and write them to the empty table."""
    waiting: list[pl.DataFrame] = []
    for part in parts:
        waiting.append(part)
        if sum(p.height for p in waiting[1:]) > _WRITTEN_AT_ONCE:
            waiting = [_summed(waiting)]
    for some in _summed(waiting).iter_slices(_WRITTEN_AT_ONCE) if waiting else ():
        into.insert(TABLE, _hashed(some))


def _summed(parts: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(parts).group_by(_CELL).agg(pl.col("events").sum())


def fill(into: Store | Adding) -> None:
    """Fill the table by counting the journal, unless a bulk load has already filled it slice by slice."""
    if into.rows(f"SELECT 1 FROM {TABLE} LIMIT 1"):
        return
    counted = f"SELECT row_number() OVER () AS place, * FROM ({sql(__package__, 'event_counts')})"
    into.execute(f"CREATE OR REPLACE TEMP TABLE counted AS {counted}")
    [(cells,)] = into.rows("SELECT count(*) FROM counted")
    some = "SELECT * EXCLUDE (place) FROM counted WHERE place BETWEEN $first AND $last"
    for first in range(1, cells + 1, _WRITTEN_AT_ONCE):
        within = {"first": first, "last": first + _WRITTEN_AT_ONCE - 1}
        into.insert(TABLE, _hashed(into.frame(some, within)))
    into.execute("DROP TABLE temp.counted")


def stand_in(past: Past) -> None:
    """Put the counts as of the cut in the place of the live ones, as a view. The past journal and the past rows of
    coupons are already in place."""
    past.show(TABLE, sql(__package__, "event_counts"))


def _shared(coupons: pl.DataFrame) -> pl.DataFrame:
    """Per coupon, the columns of its row that its events are counted by."""
    return coupons.select(*_KEY, *_SHARED, of_coupon=pl.coalesce("claim_channel", "issue_channel"))


def _cells(events: pl.DataFrame, coupons: pl.DataFrame, sign: int) -> pl.DataFrame:
    """The counts of `events`, each multiplied by `sign` (1 or -1). `coupons`: what they are counted by, from
    `_shared`."""
    cells = events.join(coupons, on=_KEY).select(
        pl.col("occurred_at").dt.truncate("1h").alias("hour"),
        "type",
        ((pl.col("type") == "issued") & pl.col("user_id").is_not_null()).alias("to_user"),
        "reason",
        *_SHARED,
        pl.coalesce("channel", "of_coupon").alias("channel"),
    )
    return cells.group_by(_CELL).agg(events=pl.len().cast(pl.Int64) * sign)


def _moved(rows: pl.DataFrame, before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """The coupons whose earlier events must be counted under other values after the batch. Each has the values of its
    former row that `_earlier` needs, and `plain`: whether the creation is the only event whose count changes.

    `rows`: the coupons' rows before the batch. `before`, `after`: their values from `_shared`, in the order of `rows`.
    """
    other = [before[c].ne_missing(after[c]).alias(c) for c in (*_SHARED, "of_coupon")]
    same_but_channel = ~(other[0] | other[1])
    plain = (
        (pl.col("violations") == 0)
        & (
            ((pl.col("state") == "created") & (pl.col("events") == 1))
            | ((pl.col("state") == "issued") & (pl.col("events") == 2))
        )
        & same_but_channel
    )
    changed = (~same_but_channel | other[2]) & (rows["events"] > 0)
    return rows.select(*_KEY, "first_recorded_at", "created_at", plain=plain).filter(changed)


def _earlier(store: Store, coupons: Changes, moved: pl.DataFrame, came: pl.DataFrame) -> pl.DataFrame:
    """The events from before the batch that must be counted under new values. `moved`: the coupons, from `_moved`.
    `came`: the events that the batch added to the journal."""
    stored = pl.concat([came.clear(), *(e.select(_EVENT) for e in coupons.stored)])
    parts = [stored.join(moved, on=_KEY, how="semi")]
    advanced = moved.join(stored, on=_KEY, how="anti")
    plain = pl.lit(False) if _odd_creations(store) else pl.col("plain")
    created = advanced.filter(plain).select(*_KEY, type=pl.lit("created"), occurred_at="created_at")
    others = advanced.filter(~plain)
    if others.height:
        since = others["first_recorded_at"].min()
        events = lookup.of_journal(store, JOURNAL[COUPON], others["key_hash"], since)  # type: ignore[arg-type]
        events = events.select(_EVENT).join(others, on=_KEY, how="semi")
        parts.append(events.join(came, on=[*_KEY, "event_id"], how="anti"))
    return pl.concat([*parts, created], how="diagonal")


def _odd_creations(store: Store) -> bool:
    """Whether the journal may have events that match `_ODD`. Searches the journal only on the first call."""
    known = store.cache(Known)
    if known.odd_creations is None:
        known.odd_creations = bool(store.rows(f"SELECT 1 FROM {JOURNAL[COUPON]} WHERE {_ODD} LIMIT 1"))
    return known.odd_creations


def _hashed(cells: pl.DataFrame) -> pl.DataFrame:
    """Add `key_hash`, a hash of the hour and of the other columns. Texts are slow to hash, so each combination of the
    other columns is hashed once for all hours."""
    kinds = cells.select(_KIND).unique()
    values = [(pl.lit("=") + pl.col(c).cast(pl.String)).fill_null("") for c in _KIND]
    text = kinds.select(pl.concat_str(values, separator="\x1f")).to_series()
    kinds = kinds.with_columns(of_kind=pl.Series(stable_hash(text), dtype=pl.Int64))
    cells = cells.join(kinds, on=_KIND, how="left", nulls_equal=True)
    hours = cells["hour"].cast(pl.Int64).to_numpy().astype(np.uint64) * _ODD_NUMBER
    return cells.with_columns(key_hash=pl.Series(cells["of_kind"].to_numpy() ^ hours.view(np.int64))).drop("of_kind")


def _add(store: Store, cells: pl.DataFrame) -> None:
    """Add these counts to the stored ones."""
    cells = _hashed(cells)
    stored = lookup.of_keys(store, TABLE, cells.select("key_hash").unique())
    counts = stored.select("row_id", *_CELL, was="events")
    cells = cells.join(counts, on=_CELL, how="left", nulls_equal=True)
    store.delete(TABLE, cells["row_id"].drop_nulls())
    summed = cells.with_columns(events=pl.col("events") + pl.col("was").fill_null(0))
    store.insert(TABLE, summed.select("key_hash", *_CELL, "events").filter(pl.col("events") != 0))


EVENT_COUNTS: Final = KeptTable(
    folder="coupon_ledger.projections.event_counts",
    projection="metrics",
    tables={TABLE: ("hour", "type", "to_user", "reason", "campaign_id", "coupon_type", "channel")},
    settle=settle,
    fill=fill,
    stand_in=stand_in,
    audits=("event_counts",),
    of_slices=OfSlices(counted, put),
)
