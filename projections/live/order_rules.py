"""The rules between topics: what coupons say of their uses against what orders say of theirs.

Evaluated order by order: for each order that a batch touches, from whichever side, all that is broken there is found
again. What is not due yet is not stored; the order is awaited, and looked at again once the data's clock has come.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import polars as pl

from ledger.rules import types
from ledger.topics import COUPON, ORDER
from projections.live import violations
from projections.live.signature import stable_hash
from projections.store import Reading, Store, sql

if TYPE_CHECKING:
    from projections.live.cross import Changes

_USE: Final = ["order_id", "used_at", "used_event_id", "discount_minor", "min_spend_minor"]
_ORDER: Final = ["order_hash", "order_id"]
_OF_ORDER: Final = ("unrecorded_use", "discount_mismatch")


def take_in(store: Store, coupons: Changes | None, orders: Changes | None, clock: datetime) -> pl.DataFrame:
    """Keep what the rules look up; the orders (`order_hash`, `order_id`) that must be looked at again."""
    affected = [pl.DataFrame(schema={"order_hash": pl.Int64, "order_id": pl.String})]
    if orders is not None:
        affected.append(orders.before.select(pl.col("key_hash").alias("order_hash"), "order_id"))
    if coupons is not None:
        affected += keep(store, coupons)
    with store.given(given_orders=pl.concat(affected)):
        return store.frame(sql(__package__, "orders_touched_by"), {"clock": clock})


def keep(store: Store, coupons: Changes) -> list[pl.DataFrame]:
    """Keep what the rules look up of coupons; the orders that something of that changed for."""
    return [_take_in_coupons(store, coupons), _take_in_uses(store, coupons)]


def all_orders(reading: Reading) -> pl.DataFrame:
    return reading.frame(sql(__package__, "all_orders"))


def settle(store: Store, affected: pl.DataFrame, clock: datetime, grace: timedelta) -> None:
    """Make what is stored about these orders what it should be."""
    if not affected.height:
        return
    with store.given(affected=affected):
        stored = store.frame(sql(__package__, "violations_of_orders"), {"orders": ORDER})
        store.execute(sql(__package__, "remove_awaited"))
    due, awaiting = broken(store, affected, clock, grace)
    violations.replace(store, stored, due)
    if awaiting.height:
        with store.given(awaiting=awaiting):
            store.execute(sql(__package__, "add_awaited"))


def broken(
    reading: Reading, affected: pl.DataFrame, clock: datetime, grace: timedelta
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is wrong about these orders, and of which of them something will be, and when (`due_at`)."""
    with reading.given(affected=affected):
        named = reading.frame(sql(__package__, "named_coupons"))
        named = named.with_columns(key_hash=pl.Series(stable_hash(named["coupon_id"]), dtype=pl.Int64))
        with reading.given(named=named):
            found = reading.frame(sql(__package__, "between_topics"), {"types": list(types(ORDER))})
    found = found.with_columns(due_at=pl.col("triggered_at") + grace)
    due = pl.col("due_at") <= clock
    awaiting = found.filter(~due).group_by(_ORDER).agg(pl.col("due_at").min())
    return _as_rows(found.filter(due)), awaiting


def _take_in_coupons(store: Store, coupons: Changes) -> pl.DataFrame:
    """The orders on which a coupon is used now, or was, and something of that changed."""
    columns = ["key_hash", "coupon_id", "state", *_USE]
    before, after = coupons.before.select(columns), coupons.after(*columns)
    used = pl.col("state") == "used"
    same = pl.select(pl.all_horizontal(before[c].eq_missing(after[c]) for c in ("state", *_USE))).to_series()
    removed, added = (_hashed(rows.filter(~same).filter(used)).drop("state") for rows in (before, after))
    if removed.height:
        with store.given(removed=removed):
            store.execute(sql(__package__, "remove_coupons_in_use"))
    store.insert("coupons_in_use", added)
    return pl.concat([removed.select(_ORDER), added.select(_ORDER)])


def _take_in_uses(store: Store, coupons: Changes) -> pl.DataFrame:
    """The orders that a `used` event names which came, or which is no fact any more."""
    columns = ["key_hash", "coupon_id", "order_id", "event_id"]
    added, removed = (
        _hashed(
            pl.concat(
                [
                    coupons.before.clear().select("key_hash", "coupon_id", "order_id", event_id="order_id"),
                    *(e.filter(pl.col("type") == "used").select(columns) for e in events),
                ]
            )
        )
        for events in (coupons.journalled, coupons.dropped)
    )
    if removed.height:
        with store.given(removed=removed):
            store.execute(sql(__package__, "remove_uses"))
    store.insert("uses", added)
    return pl.concat([removed.select(_ORDER), added.select(_ORDER)])


def _hashed(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(order_hash=pl.Series(stable_hash(rows["order_id"]), dtype=pl.Int64))


def _as_rows(found: pl.DataFrame) -> pl.DataFrame:
    """A violation stands with the coupon, or with the order where the order is at fault."""
    of_order = pl.col("violation").is_in(_OF_ORDER)
    return found.select(
        "violation",
        topic=pl.when(of_order).then(pl.lit(ORDER)).otherwise(pl.lit(COUPON)),
        key_hash=pl.when(of_order).then("order_hash").otherwise("key_hash"),
        key=pl.when(of_order).then("order_id").otherwise("coupon_id"),
        event_id="event_id",
        occurred_at="occurred_at",
        counterpart=pl.when(of_order).then("coupon_id").otherwise("order_id"),
        order_hash="order_hash",
    )
