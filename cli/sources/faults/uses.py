"""Faults that are in the uses: a coupon takes off more than it should, or more often."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from coupon_ledger.cli.sources.arrival import Frames
from coupon_ledger.cli.sources.faults.hosts import host_for
from coupon_ledger.cli.sources.faults.labels import Label
from coupon_ledger.cli.sources.faults.lives import ONLINE, baskets, bots, buy, claim, customers, give_back
from coupon_ledger.cli.sources.faults.mix import Mix, bounds, instants


def double_use_ring(
    frames: Frames,
    random: np.random.Generator,
    *,
    at: datetime | None = None,
    members: int = 20,
    more_uses: int = 2,
    devices: int = 3,
    hours: float = 36,
) -> tuple[Frames, Label]:
    """Members of a ring claim a coupon each and use it, then other members use the same coupon again.

    `more_uses`: uses of each coupon after the first; `devices`: how many devices the members share; `hours`: within
    which time all uses happen.
    """
    mix = Mix("double-use-ring", frames, random)
    start = mix.begin(at, timedelta(hours=hours))
    device = mix.ids("ring", devices).gather(random.integers(0, devices, members))
    people = bots(mix, members).with_columns(device_id=device)
    host = host_for(mix, start, start + timedelta(hours=hours), members)
    coupons = claim(mix, host, people.with_columns(at=instants(start, random.uniform(0, 1_800, members))), context=True)
    least = max(host.min_spend_minor, host.face_minor + 100)
    rounds, begun = [], start + timedelta(hours=1)
    step = (hours - 1) * 3_600 / (more_uses + 1)
    for number in range(more_uses + 1):
        user = people[(np.arange(members) + number) % members]
        uses = (
            coupons.select("coupon_id", "code")
            .hstack(user)
            .with_columns(
                at=instants(begun, number * step + random.uniform(0, 0.9 * step, members)),
                gross_minor=baskets(mix, members, least),
                discount_minor=pl.lit(host.face_minor),
            )
        )
        rounds.append(buy(mix, uses, context=number == 0))
    again = pl.concat(rounds[1:])
    first, last = bounds(again["at"])
    keys = {name: again[name] for name in ("device_id", "user_id", "coupon_id", "order_id")}
    return mix.label(first, last, host.campaign_id, host.face_minor * again.height, keys)


def refund_abuse(
    frames: Frames,
    random: np.random.Generator,
    *,
    at: datetime | None = None,
    abusers: int = 8,
    cycles: int = 4,
    below_minimum: int = 12,
    hours: float = 40,
) -> tuple[Frames, Label]:
    """Abusers use a coupon, get the order refunded and use it again; others send back so much of an order that the rest
    is below the coupon's minimum spend.

    `cycles`: uses per coupon, all but the last refunded in full; `below_minimum`: number of orders of the second sort.
    The money at stake: the discounts of all uses but each coupon's first, and of the orders below the minimum.
    """
    mix = Mix("refund-abuse", frames, random)
    start = mix.begin(at, timedelta(hours=hours))
    host = host_for(mix, start, start + timedelta(hours=hours), abusers + below_minimum, minimum=True)
    people = bots(mix, abusers + below_minimum)
    coupons = claim(mix, host, people.with_columns(at=instants(start, random.uniform(0, 1_200, people.height))))
    orders = [
        _cycle(mix, coupons.head(abusers), start, hours, cycles, number, host.face_minor, host.min_spend_minor)
        for number in range(cycles)
    ]
    part = coupons.slice(abusers).with_columns(
        at=instants(start, random.uniform(1_800, hours * 1_800, below_minimum)),
        gross_minor=pl.Series(host.min_spend_minor + random.integers(1, 500, below_minimum)),
        discount_minor=pl.lit(host.face_minor),
    )
    orders.append(buy(mix, part).with_columns(back_at=pl.col("at") + timedelta(hours=hours / 3)))
    give_back(mix, orders[-1], pl.col("gross_minor") - host.min_spend_minor + 500, whole=False)
    every = pl.concat(orders, how="diagonal")
    first, last = coupons["at"].min(), bounds(pl.concat([every["at"], every["back_at"].drop_nulls()]))[1]
    assert isinstance(first, datetime)
    keys = {name: every[name] for name in ("user_id", "coupon_id", "order_id")}
    money = host.face_minor * (abusers * (cycles - 1) + below_minimum)
    return mix.label(first, last, host.campaign_id, money, keys)


def _cycle(
    mix: Mix, coupons: pl.DataFrame, start: datetime, hours: float, cycles: int, number: int, face: int, minimum: int
) -> pl.DataFrame:
    """The use number `number` of each coupon, and its refund unless it is the last one."""
    step = hours * 3_600 / cycles
    size = coupons.height
    uses = coupons.with_columns(
        at=instants(start, 1_800 + number * step + mix.random.uniform(0, 0.2 * step, size)),
        gross_minor=baskets(mix, size, max(minimum, face + 100)),
        discount_minor=pl.lit(face),
    )
    orders = buy(mix, uses)
    if number == cycles - 1:
        return orders
    back = instants(start, 1_800 + (number + 0.4) * step + mix.random.uniform(0, 0.3 * step, size))
    orders = orders.with_columns(back_at=back)
    give_back(mix, orders, pl.col("net_minor"), whole=True)
    return orders


def price_error(
    frames: Frames,
    random: np.random.Generator,
    *,
    at: datetime | None = None,
    uses: int = 80,
    hours: float = 3,
    factor: int = 10,
) -> tuple[Frames, Label]:
    """A wrong amount in the shop: ordinary customers claim a coupon, and it takes off many times its face value.

    `factor`: how many times. The money at stake: what it takes off above the face value.
    """
    mix = Mix("price-error", frames, random)
    start = mix.begin(at, timedelta(hours=hours + 1), busy=True)
    host = host_for(mix, start - timedelta(hours=1), start + timedelta(hours=hours), uses)
    people = customers(mix, uses, outside=host.campaign_id)
    taken = host.face_minor * factor
    claims = people.with_columns(
        at=instants(start - timedelta(minutes=30), random.uniform(0, hours * 3_600, people.height))
    )
    coupons = claim(mix, host, claims, context=True)
    least = max(host.min_spend_minor, taken + 100)
    orders = buy(
        mix,
        coupons.with_columns(
            pl.col("at") + timedelta(minutes=30),
            gross_minor=baskets(mix, coupons.height, least),
            discount_minor=pl.lit(taken),
        ),
    )
    first, last = bounds(orders["at"])
    keys = {name: orders[name] for name in (*ONLINE[:1], "coupon_id", "order_id")}
    return mix.label(first, last, host.campaign_id, (taken - host.face_minor) * orders.height, keys)
