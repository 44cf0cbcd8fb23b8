"""New coupons and orders for faults: lives that are legal in themselves, in the fields that the stream's own have."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import numpy as np
import polars as pl

from coupon_ledger.cli.sources.faults.hosts import Host
from coupon_ledger.cli.sources.faults.mix import INSTANT, Mix
from coupon_ledger.ledger.topics import COUPON, ORDER

ONLINE: Final = ("user_id", "device_id", "ip", "phone_prefix")
_MADE_UP: Final = "^f[0-9a-f]{8}-u"
"""The user ids of `bots`, by which another fault may have acted before."""


def customers(mix: Mix, size: int, outside: str | None = None) -> pl.DataFrame:
    """Different customers of the stream, at most `size`, in random order: the columns `ONLINE`, as in one of their
    claims or uses (null where the stream does not say). `outside`: a campaign; only customers without its coupons."""
    coupons = mix.frames[COUPON].filter(
        pl.col("user_id").is_not_null() & pl.col("type").is_in(["claimed", "used", "issued"])
    )
    whole = coupons.select(
        (pl.col(name) if name in coupons.columns else pl.lit(None, pl.String)).alias(name) for name in ONLINE
    )
    if outside is not None:
        inside = coupons.filter(campaign_id=outside).select("user_id").unique()
        whole = whole.join(inside, on="user_id", how="anti")
    whole = whole.filter(~pl.col("user_id").str.contains(_MADE_UP))
    known = whole.sort(pl.col("device_id").is_null(), *ONLINE).unique("user_id", keep="first", maintain_order=True)
    return known[mix.random.permutation(known.height)[:size]]


def bots(mix: Mix, size: int) -> pl.DataFrame:
    """Customers that nobody has seen before: each with a device, an address and a phone number of its own."""
    octets = mix.random.integers(1, 255, (3, size))
    return pl.DataFrame(
        {
            "user_id": mix.ids("u", size),
            "device_id": mix.ids("d", size),
            "ip": [f"45.{a}.{b}.{c}" for a, b, c in octets.T],
            "phone_prefix": [str(n) for n in mix.random.integers(1_300_000, 1_999_999, size)],
        },
        schema=dict.fromkeys(ONLINE, pl.String),
    )


def channel(mix: Mix, topic: str, kind: str, size: int) -> pl.Series:
    """The channels of `size` random events of the type `kind`; "app" if the stream has none."""
    events = mix.frames[topic]
    known = (
        events.filter(type=kind)["channel"].drop_nulls() if "channel" in events.columns else pl.Series(dtype=pl.String)
    )
    if known.is_empty():
        return pl.Series(["app"] * size, dtype=pl.String)
    return known.gather(mix.random.integers(0, len(known), size))


def claim(mix: Mix, host: Host, claims: pl.DataFrame, context: bool = False) -> pl.DataFrame:
    """Add coupons that are created and put out some hours before the first claim, then claimed. `claims`: `ONLINE` and
    `at`, one row per claim. Returns these rows with the coupon's `coupon_id` and `code`."""
    size = claims.height
    coupons = claims.with_columns(coupon_id=mix.ids("c", size), code=pl.lit(host.code, pl.String))
    ways = channel(mix, COUPON, "claimed", size)
    base = coupons.select("coupon_id", campaign_id=pl.lit(host.campaign_id))
    # Put out before the first of these claims, within the campaign's time.
    stocked = pl.lit(claims["at"].min(), INSTANT) - timedelta(hours=2)
    seconds = pl.Series(np.sort(mix.random.uniform(0, 3_600, size)) * 1e6).cast(pl.Int64).cast(pl.Duration("us"))
    created = base.with_columns(
        coupons["code"],
        occurred_at=stocked + seconds,
        coupon_type=pl.lit(host.coupon_type),
        face_value_minor=pl.lit(host.face_minor),
        min_spend_minor=pl.lit(host.min_spend_minor or None, pl.Int64),
        currency=pl.lit(mix.currency),
        valid_from=pl.lit(host.first - timedelta(days=1), INSTANT),
        valid_until=pl.lit(max(host.last, mix.over) + timedelta(days=7), INSTANT),
    )
    issued = base.with_columns(channel=ways, occurred_at=stocked + seconds + timedelta(seconds=30))
    claimed = base.with_columns(*(coupons[n] for n in (*ONLINE, "code")), channel=ways, occurred_at=coupons["at"])
    mix.add(COUPON, created, "created", context=True)
    mix.add(COUPON, issued, "issued", context=True)
    mix.add(COUPON, claimed, "claimed", context=context)
    return coupons


def buy(mix: Mix, uses: pl.DataFrame, context: bool = False) -> pl.DataFrame:
    """Add orders on which coupons are used. `uses`: `ONLINE`, `coupon_id`, `code`, `at`, `gross_minor` and
    `discount_minor`, one row per order. Returns these rows with `order_id` and `net_minor`."""
    size = uses.height
    orders = uses.with_columns(order_id=mix.ids("o", size), net_minor=pl.col("gross_minor") - pl.col("discount_minor"))
    ways = channel(mix, ORDER, "paid", size)
    known = mix.frames[ORDER]
    has = {n for n in ("channel", "store", "cost_of_goods_minor") if n in known.columns and known[n].count()}
    discount = pl.struct(kind=pl.lit("coupon"), amount_minor="discount_minor", funder=pl.lit("merchant"))
    paid = orders.select(
        "order_id",
        "user_id",
        "gross_minor",
        "net_minor",
        occurred_at="at",
        currency=pl.lit(mix.currency),
        discounts=pl.concat_list(discount),
        coupon_ids=pl.concat_list("coupon_id"),
    )
    if "channel" in has:
        paid = paid.with_columns(channel=ways)
    elif "store" in has:
        stores = known["store"].drop_nulls()
        paid = paid.with_columns(store=stores.gather(mix.random.integers(0, len(stores), size)))
    if "cost_of_goods_minor" in has:
        paid = paid.with_columns(cost_of_goods_minor=pl.col("gross_minor") * 58 // 100)
    if known.filter(type="placed").height:
        placed = paid.with_columns(occurred_at=pl.col("occurred_at") - timedelta(seconds=45))
        mix.add(ORDER, placed, "placed", context=context)
    used = orders.select(
        "coupon_id", "order_id", *ONLINE, "code", "discount_minor", occurred_at="at", currency=pl.lit(mix.currency)
    )
    mix.add(ORDER, paid, "paid", context=context)
    mix.add(COUPON, used, "used", context=context)
    return orders


def baskets(mix: Mix, size: int, least_minor: int) -> pl.Series:
    """List prices of orders like those of the stream, but at least `least_minor`."""
    known = mix.frames[ORDER]["gross_minor"].drop_nulls()
    drawn = known.gather(mix.random.integers(0, len(known), size)).to_numpy()
    return pl.Series(np.maximum(drawn, least_minor + mix.random.integers(1, 1_000, size)))


def give_back(mix: Mix, orders: pl.DataFrame, refund_minor: pl.Expr, whole: bool) -> None:
    """Add refunds. `orders`: `order_id`, `coupon_id` and `back_at`, the instant; `refund_minor`: the amount. `whole`:
    whether the coupon is returned too."""
    refunded = orders.select(
        "order_id",
        occurred_at="back_at",
        refund_minor=refund_minor,
        currency=pl.lit(mix.currency),
        reason=pl.lit("unwanted"),
    )
    mix.add(ORDER, refunded, "refunded")
    if whole:
        returned = orders.select("order_id", "coupon_id", occurred_at="back_at", reason=pl.lit("refund"))
        mix.add(COUPON, returned, "returned", mix.source(COUPON, "used"))
