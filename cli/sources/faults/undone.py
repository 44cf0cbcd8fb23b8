"""Take back what does not happen because of a fault: orders with the uses of coupons on them, and claims."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from coupon_ledger.cli.sources.faults.mix import INSTANT, Mix
from coupon_ledger.ledger.topics import COUPON, ORDER


def undo(mix: Mix, order_ids: pl.Series, claimed: pl.Series | None = None) -> int:
    """Remove all events of these orders, and those of coupons on them; and of the coupons `claimed`, the claim and all
    that followed, orders included. Coupons that nothing else happened to expire after their validity, if that is within
    the stretch. Returns what the customers would have paid, in minor units."""
    coupons = mix.frames[COUPON]
    unclaimed = _among("coupon_id", claimed if claimed is not None else pl.Series(dtype=pl.String))
    later = coupons.filter(unclaimed & ~pl.col("type").is_in(["created", "issued"]))
    lost = pl.concat([order_ids, later["order_id"].drop_nulls()])
    orders = mix.frames[ORDER].filter(_among("order_id", lost))
    removed = pl.concat([later, coupons.filter(_among("order_id", lost))])
    mix.remove(ORDER, orders["event_id"])
    mix.remove(COUPON, removed["event_id"])
    _expire(mix, removed, unclaimed)
    return int(orders.filter(type="paid").unique("event_id")["net_minor"].sum())


def _among(column: str, values: pl.Series) -> pl.Expr:
    return pl.col(column).is_in(values.unique().implode())


def _expire(mix: Mix, removed: pl.DataFrame, unclaimed: pl.Expr) -> None:
    """Let the coupons of the `removed` events expire, unless their other events say how they ended."""
    mine = mix.frames[COUPON].filter(_among("coupon_id", removed["coupon_id"]))
    others = mine.filter(~_among("event_id", removed["event_id"]))
    ended = others.filter(pl.col("type").is_in(["used", "expired", "revoked"]))
    expired = (
        of_coupons(others.filter(~_among("coupon_id", ended["coupon_id"])))
        .select(
            "coupon_id",
            "campaign_id",
            occurred_at=pl.col("valid_until") + timedelta(minutes=10),
            reason=pl.when(unclaimed).then(pl.lit("not_claimed")).otherwise(pl.lit("not_used")),
        )
        .filter(pl.col("occurred_at") < pl.lit(mix.over, INSTANT))
    )
    if expired.height:
        mix.add(COUPON, expired, "expired", context=True)


def of_coupons(events: pl.DataFrame) -> pl.DataFrame:
    """One row per coupon: its `campaign_id` and `valid_until`, where the events say so."""
    return events.group_by("coupon_id", maintain_order=True).agg(
        pl.col("campaign_id").drop_nulls().first(), pl.col("valid_until").drop_nulls().first()
    )
