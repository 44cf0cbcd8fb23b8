"""The kept table `coupon_sales`: the coupons in use, each with the values of its order. Metrics of coupon uses, and of
sales with coupons, read it instead of joining all coupons to all orders.

It is updated in the transaction of each batch, for the orders that the rules between topics evaluate in this batch.
Always true: `coupon_sales` equals the result of coupon_sales.sql on the tables coupons and orders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections import lookup
from coupon_ledger.projections.connection import Adding, Reading, sql
from coupon_ledger.projections.kept_table import Batch, KeptTable
from coupon_ledger.projections.live.signature import stable_hash
from coupon_ledger.projections.store import Store

if TYPE_CHECKING:
    from coupon_ledger.projections.past import Past

TABLE: Final = "coupon_sales"
OF_COUPON: Final = "acquired_at campaign_id coupon_type claim_channel issue_channel owner currency".split()
"""The columns of `coupons` that the table keeps, in addition to those about the use."""
OF_ORDER: Final = "user_id channel store region currency cost_of_goods_minor lines".split()
"""The columns of `orders` that the table keeps, in addition to those that the rules between topics read."""
_ORDER: Final = ["order_hash", "order_id"]
_COUPON: Final = ["key_hash", "coupon_id"]
_USE: Final = [*_ORDER, *_COUPON, "used_at", "discount_minor"]
_COUPON_VALUES: Final = "acquired_at campaign_id coupon_type coupon_channel owner coupon_currency".split()
_ORDER_VALUES: Final = "gross_minor net_minor refunded_minor paid_at cancelled_at".split()
_AT_ONCE: Final = 500_000


def settle(store: Store, batch: Batch) -> None:
    """Update the rows about the orders that a batch affects (`batch.affected`), inside the batch's transaction."""
    affected, coupons = batch.affected, batch.changes.get(COUPON)
    if affected is None:
        return
    stored = lookup.of_hashes(store, TABLE, "order_hash", affected.orders["order_hash"])
    stored = stored.join(affected.orders, on=_ORDER, how="semi")
    of_coupons = stored.select(*_COUPON, *_COUPON_VALUES)
    if coupons is not None:
        changed = _of_coupons(coupons.after)
        of_coupons = pl.concat([of_coupons.join(changed, on=_COUPON, how="anti"), changed])
    wanted = affected.in_use.select(_USE).join(of_coupons, on=_COUPON)
    store.replace(TABLE, stored, wanted.join(_of_orders(affected.values), on=_ORDER, how="left"))


def fill(into: Store | Adding) -> None:
    """Fill the empty table from the tables coupons and orders."""
    [(coupons,)] = into.rows("SELECT count(*) FROM coupons WHERE state = 'used'")
    parts = 1 + coupons // _AT_ONCE
    ends = [-(1 << 63) + (1 << 64) * part // parts for part in range(parts)] + [1 << 63]
    for part in range(parts):
        into.insert(TABLE, _between(into, ends[part], ends[part + 1] - 1))


def stand_in(past: Past) -> None:
    """Put the table as of the cut in the place of the live one, as a view. The past rows of coupons and orders are
    already in place."""
    past.show(TABLE, sql(__package__, TABLE))


def _between(reading: Reading, first: int, last: int) -> pl.DataFrame:
    within = f"{sql(__package__, TABLE)} AND c.key_hash BETWEEN $first AND $last"
    rows = reading.frame(within, {"first": first, "last": last})
    return rows.with_columns(order_hash=pl.Series(stable_hash(rows["order_id"]), dtype=pl.Int64))


def _of_coupons(coupons: pl.DataFrame) -> pl.DataFrame:
    return coupons.select(*_COUPON, *OF_COUPON).with_columns(
        coupon_channel=pl.coalesce("claim_channel", "issue_channel"), coupon_currency="currency"
    ).select(*_COUPON, *_COUPON_VALUES)  # fmt: skip


def _of_orders(values: pl.DataFrame) -> pl.DataFrame:
    unknown = pl.col("cost_of_goods_minor").is_null()
    return values.select(*_ORDER, *_ORDER_VALUES, *OF_ORDER).with_columns(lines=pl.when(unknown).then("lines")).rename(
        {"user_id": "buyer"}
    )  # fmt: skip


COUPON_SALES: Final = KeptTable(
    folder="coupon_ledger.projections.coupon_sales",
    projection="metrics",
    tables={TABLE: ("coupon_id",)},
    settle=settle,
    fill=fill,
    stand_in=stand_in,
    audits=("coupon_sales",),
)
