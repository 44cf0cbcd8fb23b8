"""The rules between topics: they compare the uses in coupon events with what order events say about coupons.

They are evaluated per order. When a batch changes an order, or a coupon in use on it, all violations of this order are
computed again. A violation is due, and stored, once the grace is over by the data's clock. Until then, the order is in
the table `awaited`, with the instant at which it must be evaluated again.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from coupon_ledger.ledger.rules import types
from coupon_ledger.ledger.topics import COUPON, ORDER
from coupon_ledger.projections import coupon_sales as sales
from coupon_ledger.projections import lookup
from coupon_ledger.projections.connection import Adding, Reading, sql
from coupon_ledger.projections.live import violations
from coupon_ledger.projections.live.changes import Affected, Changes
from coupon_ledger.projections.live.entities import WIDE
from coupon_ledger.projections.live.signature import stable_hash
from coupon_ledger.projections.store import Store

_USE: Final = (
    "order_id used_at used_event_id discount_minor min_spend_minor coupon_type face_value_minor percent_off_bp".split()
)
_ORDER: Final = ["order_hash", "order_id"]
_COUPON: Final = ["key_hash", "coupon_id"]
_IN_USE: Final = ["order_hash", *_COUPON, *_USE]
_VALUES: Final = (
    "order_id gross_minor net_minor refunded_minor paid_at cancelled_at repaid_at coupon_ids discounts".split()
    + sales.OF_ORDER
)
_USE_EVENT: Final = [*_COUPON, "order_id", "event_id", "recorded_at"]
_OF_ORDER: Final = ("unrecorded_use", "discount_mismatch", "paid_after_cancel")
_AT_ONCE: Final = 50_000


def update(store: Store, coupons: Changes | None, orders: Changes | None, clock: datetime) -> Affected:
    """Update the tables `coupons_in_use` and `uses` for the changes of a batch. Returns the orders to evaluate: those
    that the batch affects, and those in `awaited` whose instant `clock` (the data's clock) has reached."""
    touched = [store.frame(sql(__package__, "awaited_until"), {"clock": clock})]
    if orders is not None:
        touched.append(_values(orders.after).select(_ORDER))
    if coupons is None:
        affected = pl.concat(touched).unique()
        in_use = _of_orders(store, "coupons_in_use", affected).select(_IN_USE)
    else:
        was, now, removed, added = *_changed(coupons), *_use_events(coupons)
        orders_named = [rows.select(_ORDER) for rows in (was, now, removed, added, _holds_changed(coupons))]
        affected = pl.concat([*touched, *orders_named]).unique()
        in_use = _update_in_use(store, affected, was, now)
        _update_uses(store, removed, added)
    return Affected(affected, _values_of(store, affected, orders), in_use)


def _update_in_use(store: Store, orders: pl.DataFrame, was: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """Update the table `coupons_in_use`. Returns its rows for `orders`. `was`, `now`: the coupons in use before and
    after the batch, from `_changed`."""
    before = _of_orders(store, "coupons_in_use", orders)
    store.delete("coupons_in_use", before.join(was, on=_COUPON, how="semi")["row_id"])
    store.insert("coupons_in_use", now)
    return pl.concat([before.join(was, on=_COUPON, how="anti").select(_IN_USE), now.select(_IN_USE)])


def looked_up(coupons: Changes) -> dict[str, pl.DataFrame]:
    """The rows that coupons, all of them new, add to the tables `coupons_in_use` and `uses`. Returns them by table."""
    (_, now), (_, added) = _changed(coupons), _use_events(coupons)
    return {"coupons_in_use": now, "uses": added}


def _update_uses(store: Store, removed: pl.DataFrame, added: pl.DataFrame) -> None:
    if removed.height:
        with store.given(removed=removed):
            store.execute(sql(__package__, "remove_uses"))
    store.insert("uses", added)


def _values_of(store: Store, orders: pl.DataFrame, changes: Changes | None) -> pl.DataFrame:
    """The rows of these orders after the batch. `changes`: what the batch changed in orders; None if nothing."""
    if changes is None:
        return _values(_of_orders(store, "orders", orders, "key_hash"))
    fresh = _values(changes.after)
    others = orders.join(fresh, on="order_id", how="anti")
    return pl.concat([_values(_of_orders(store, "orders", others, "key_hash")), fresh])


def everything(reading: Reading) -> Iterator[Affected]:
    """Yield, in pieces, all orders that a rule between topics may apply to, each with its rows and coupons in use."""
    for orders in reading.frame(sql(__package__, "all_orders")).iter_slices(_AT_ONCE):
        yield as_stored(reading, orders)


def as_stored(reading: Reading, orders: pl.DataFrame) -> Affected:
    """The input for evaluating these orders (`order_hash`, `order_id`): their stored rows and the coupons in use on
    them."""
    with reading.given(affected=orders):
        rows = reading.frame(sql(__package__, "rows_of_orders"))
        in_use = reading.frame(sql(__package__, "in_use_on_orders"))
    return Affected(orders, _values(rows), in_use.select(_IN_USE))


def settle(store: Store, affected: Affected, clock: datetime, grace: timedelta) -> None:
    """Evaluate these orders, and update their rows in `violations` and `awaited`. `clock`: the data's clock."""
    orders = affected.orders
    if not orders.height:
        return
    store.delete("awaited", _of_orders(store, "awaited", orders)["row_id"])
    stored = lookup.of_hashes(store, "violations", "order_hash", orders["order_hash"])
    order_id = pl.when(pl.col("topic") == ORDER).then("key").otherwise("counterpart")
    stored = stored.with_columns(order_id=order_id).join(orders, on=_ORDER, how="semi")
    due, awaiting = broken(store, affected, clock, grace)
    violations.replace(store, stored, due)
    store.insert("awaited", awaiting)


def settle_new(adding: Adding, affected: Affected, clock: datetime, grace: timedelta) -> None:
    """Like `settle`, for orders that have no rows in `violations` and `awaited` yet. So it only inserts."""
    due, awaiting = broken(adding, affected, clock, grace)
    violations.add(adding, due)
    adding.insert("awaited", awaiting)


def broken(
    reading: Reading, affected: Affected, clock: datetime, grace: timedelta
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Evaluate the rules between topics for these orders. Returns two frames: the violations that are due, and the
    orders with violations that are not due yet, each with the earliest `due_at`."""
    named = _named(affected)
    with reading.given(order_values=affected.values, in_use=affected.in_use, named=named):
        broken = reading.frame(sql(__package__, "between_topics"), {"types": list(types(ORDER))})
    broken = broken.with_columns(due_at=pl.col("triggered_at") + grace)
    is_due = pl.col("due_at") <= clock
    awaiting = broken.filter(~is_due).group_by(_ORDER).agg(pl.col("due_at").min())
    due = _without_held(reading, broken.filter(is_due), named)
    return _as_violations(_with_trigger_of_uses(reading, due)), awaiting


def _without_held(reading: Reading, due: pl.DataFrame, named: pl.DataFrame) -> pl.DataFrame:
    """Remove from `due` the violations of `discount_mismatch` whose order names a coupon that is still reserved for
    this order. `named`: the coupons that orders name but that are not in use on them, from `_named`."""
    mismatch = pl.col("violation") == "discount_mismatch"
    held = named.join(due.filter(mismatch).select(_ORDER), on=_ORDER, how="semi")
    if not held.height:
        return due
    keys = held.select(_COUPON).unique()
    if isinstance(reading, Store):
        rows = lookup.of_keys(reading, "coupons", keys)
    else:
        with reading.given(wanted=keys):
            rows = reading.frame(sql(__package__, "rows_of_coupons"))
    rows = rows.filter(pl.col("state").cast(pl.String) == "reserved")
    held = held.join(rows.select("coupon_id", "order_id"), on=["coupon_id", "order_id"], how="semi")
    return pl.concat([due.filter(~mismatch), due.filter(mismatch).join(held, on=_ORDER, how="anti")])


def _with_trigger_of_uses(reading: Reading, due: pl.DataFrame) -> pl.DataFrame:
    """Fill in `trigger_recorded_at` for the violations whose grace begins with a `used` event."""
    by_use = due.filter(pl.col("trigger_event_id").is_not_null())
    if not by_use.height:
        return due
    with reading.given(
        triggers=by_use.select(*_ORDER, "trigger_hash", "trigger_coupon_id", "trigger_event_id").unique()
    ):
        recorded = reading.frame(sql(__package__, "uses_recorded_at"))
    on = ["trigger_coupon_id", "trigger_event_id"]
    joined = due.join(recorded, on=on, how="left", maintain_order="left")
    return joined.with_columns(trigger_recorded_at=pl.coalesce("trigger_recorded_at", "recorded_at"))


def _named(affected: Affected) -> pl.DataFrame:
    """The coupons that an order names although they are not in use on it, for orders that are paid and not cancelled.
    One row per order and coupon."""
    paid = pl.col("paid_at").is_not_null() & pl.col("cancelled_at").is_null()
    named = affected.values.filter(paid).select(*_ORDER, coupon_id="coupon_ids").explode("coupon_id")
    named = named.drop_nulls("coupon_id").unique().join(affected.in_use, on=[*_ORDER, "coupon_id"], how="anti")
    return named.with_columns(key_hash=pl.Series(stable_hash(named["coupon_id"]), dtype=pl.Int64))


def _of_orders(store: Store, table: str, orders: pl.DataFrame, column: str = "order_hash") -> pl.DataFrame:
    """The rows of `table` for these orders, with their `row_id`. `column`: the column of `table` with the hash of the
    order."""
    rows = lookup.of_hashes(store, table, column, orders["order_hash"])
    return rows.join(orders, left_on=[column, "order_id"], right_on=_ORDER, how="semi")


def _values(orders: pl.DataFrame) -> pl.DataFrame:
    return orders.select(pl.col("key_hash").alias("order_hash"), *_VALUES).cast(WIDE)


def _changed(coupons: Changes) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The coupons for which the batch changed a value that `coupons_in_use` or `coupon_sales` stores. Returns two
    frames: those that were in use before the batch, with their former values, and those that are in use after it, with
    their new ones. A coupon can be in one of the frames or in both."""
    compared = list(dict.fromkeys(("state", *_USE, *sales.OF_COUPON)))
    before, after = (rows.select(*_COUPON, *compared) for rows in (coupons.before, coupons.after))
    used = pl.col("state") == "used"
    same = pl.select(pl.all_horizontal(before[c].eq_missing(after[c]) for c in compared)).to_series()
    was, now = (_hashed(rows.filter(~same).filter(used).select(*_COUPON, *_USE)) for rows in (before, after))
    return was, now


def _holds_changed(coupons: Changes) -> pl.DataFrame:
    """The orders for which the batch changed whether a coupon is reserved for them: newly reserved, or no longer."""
    held = pl.col("state") == "reserved"
    before, after = (
        rows.select("coupon_id", order_id=pl.when(held).then("order_id")) for rows in (coupons.before, coupons.after)
    )
    other = before["order_id"].ne_missing(after["order_id"])
    ids = pl.concat([before["order_id"].filter(other), after["order_id"].filter(other)]).drop_nulls().unique()
    return _hashed(ids.to_frame())


def _use_events(coupons: Changes) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two frames of `used` events: those that the batch removed from the journal, and those that it added."""
    instant = pl.lit(None, pl.Datetime("us"))
    none = coupons.before.clear().select(*_COUPON, "order_id", event_id="order_id", recorded_at=instant)
    added, removed = (
        _hashed(pl.concat([none, *(e.filter(pl.col("type") == "used").select(_USE_EVENT) for e in events)]))
        for events in (coupons.journalled, coupons.dropped)
    )
    return removed, added


def _hashed(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(order_hash=pl.Series(stable_hash(rows["order_id"]), dtype=pl.Int64))


def _as_violations(broken: pl.DataFrame) -> pl.DataFrame:
    """Convert the result of between_topics.sql to the columns of `violations.SCHEMA`. The key is the order if the rule
    is about the order as a whole, or is `unrecorded_use`. Otherwise it is the coupon."""
    of_order = pl.col("violation").is_in(_OF_ORDER)
    return broken.select(
        "violation",
        topic=pl.when(of_order).then(pl.lit(ORDER)).otherwise(pl.lit(COUPON)),
        key_hash=pl.when(of_order).then("order_hash").otherwise("key_hash"),
        key=pl.when(of_order).then("order_id").otherwise("coupon_id"),
        event_id="event_id",
        occurred_at="occurred_at",
        counterpart=pl.when(of_order).then("coupon_id").otherwise("order_id"),
        order_hash="order_hash",
        trigger_topic="trigger_topic",
        trigger_recorded_at="trigger_recorded_at",
    )
