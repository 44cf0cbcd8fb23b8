"""The kept table `event_counts`: coupon events counted by hour. Metrics of events sum these counts instead of millions
of rows.

It is updated by difference, in the transaction of each batch. Always true: `event_counts` equals the result of
event_counts.sql on the journal and the coupons.

An event counts under the campaign, type and channel of its coupon. When these change, the counts of the coupon's
earlier events move too. Usually the only earlier event is the creation, which the coupon's row records. Otherwise the
journal is read.
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
"""Condition on creations that cannot be counted from the coupon's row alone."""
_ODD_NUMBER: Final = np.uint64(0x9E3779B97F4A7C15)
_WRITTEN_AT_ONCE: Final = 500_000


class Known(Cache):
    """`odd_creations`: whether the journal may have creations that match `_ODD`. None until the journal was searched.
    It never needs a reset."""

    odd_creations: bool | None = None


def settle(store: Store, batch: Batch) -> None:
    """Update the counts with the changes of a batch to coupons and their journal. Inside the batch's transaction."""
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
    """The counts of all events (`facts`) of these coupons (rows)."""
    return _cells(facts.select(_EVENT), _shared(coupons), 1)


def put(into: Store | Adding, parts: Iterable[pl.DataFrame]) -> None:
    """Sum the parts from `counted`, and write them to the empty table."""
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
    """Count all events of the journal, unless a bulk load has already counted them slice by slice."""
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
    """Put the counts as of the cut in place, as a view. Journal and coupons are already in place."""
    past.show(TABLE, sql(__package__, "event_counts"))


def _shared(coupons: pl.DataFrame) -> pl.DataFrame:
    """The values of a coupon under which its events are counted."""
    return coupons.select(*_KEY, *_SHARED, of_coupon=pl.coalesce("claim_channel", "issue_channel"))


def _cells(events: pl.DataFrame, coupons: pl.DataFrame, sign: int) -> pl.DataFrame:
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
    """The former rows of existing coupons whose events now count under other values. `plain`: only the count of the
    creation moves."""
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
    """The events of these coupons from before the batch whose counts move."""
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
    """Whether the journal may have creations that match `_ODD`. It is searched once."""
    known = store.cache(Known)
    if known.odd_creations is None:
        known.odd_creations = bool(store.rows(f"SELECT 1 FROM {JOURNAL[COUPON]} WHERE {_ODD} LIMIT 1"))
    return known.odd_creations


def _hashed(cells: pl.DataFrame) -> pl.DataFrame:
    """Add `key_hash`. Texts are hashed once per kind, since texts are slow to hash and there are far fewer kinds than
    cells."""
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
