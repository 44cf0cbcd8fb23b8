"""The orders of quiet days: those on which coupons are used, and the others.

A field `…_at` is an instant in microseconds since the epoch; 0 if it did not happen.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np

from coupon_ledger.cli.sources.quiet.campaigns import Campaign
from coupon_ledger.cli.sources.quiet.lives import Gifts, Purchases
from coupon_ledger.cli.sources.quiet.people import People
from coupon_ledger.cli.sources.quiet.world import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Array,
    QuietWorld,
    moments,
    rhythm,
    waits,
)

CHANNELS: Final = ("app", "mini_program", "web", "store")
_CHANNEL_PARTS: Final = (0.5, 0.3, 0.12, 0.08)
_PLAIN_ORDERS: Final = 0.14
"""Number of orders without a coupon, as a share of a day's events."""
_REASONS: Final = ("unwanted", "damaged", "late")


@dataclass(frozen=True)
class Orders:
    """Arrays with one entry per order. `coupon`: the number of the coupon, or -1; `held`: whether the coupon is
    reserved for the order; `user`: the customer's number; `channel`: an index in `CHANNELS`; amounts in minor units:
    `gross` (list price), `discount` (of the coupon), `promotion` (other discounts), `cost` (of the goods), `refund`."""

    coupon: Array
    held: Array
    user: Array
    channel: Array
    placed_at: Array
    paid_at: Array
    cancelled_at: Array
    refunded_at: Array
    gross: Array
    discount: Array
    promotion: Array
    cost: Array
    refund: Array

    @property
    def net(self) -> Array:
        """What the customer pays."""
        return self.gross - self.discount - self.promotion

    def take(self, numbers: Array) -> Orders:
        return Orders(*(getattr(self, f.name)[numbers] for f in fields(self)))


def channels(random: np.random.Generator, size: int) -> Array:
    return random.choice(len(CHANNELS), size, p=_CHANNEL_PARTS)


def orders_of(
    world: QuietWorld, campaigns: tuple[Campaign, ...], people: People, gifts: Gifts, purchases: Purchases
) -> Orders:
    """All orders, sorted by the instant when they were placed."""
    parts = [_with_coupons(world, campaigns, gifts, purchases), _plain(world, people)]
    parts.append(_second_uses(world, parts[0]))
    whole = [np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Orders)]
    orders = Orders(*whole)
    return orders.take(np.argsort(orders.placed_at, kind="stable"))


def _baskets(random: np.random.Generator, size: int) -> Array:
    return (3_500 + 7_000 * np.exp(random.normal(0, 0.7, size))).astype(np.int64)


def _with_coupons(world: QuietWorld, campaigns: tuple[Campaign, ...], gifts: Gifts, purchases: Purchases) -> Orders:
    coupon = np.flatnonzero(purchases.placed_at)
    random, size = world.random("coupon orders"), len(coupon)
    campaign = gifts.campaign[coupon]
    minimum, face, part = (
        np.array([getattr(c, name) for c in campaigns])[campaign]
        for name in ("min_spend_minor", "face_value_minor", "percent_off_bp")
    )
    # People fill up their baskets to reach the minimum.
    gross = np.maximum(_baskets(random, size), minimum + random.integers(0, 1_500, size))
    discount = np.where(part > 0, gross * part // 10_000, face)
    return Orders(
        coupon=coupon,
        held=purchases.held[coupon],
        user=gifts.user[coupon],
        channel=channels(random, size),
        placed_at=purchases.placed_at[coupon],
        paid_at=purchases.used_at[coupon],
        cancelled_at=purchases.lost_at[coupon],
        refunded_at=purchases.returned_at[coupon],
        gross=gross,
        discount=discount,
        promotion=np.zeros(size, dtype=np.int64),
        cost=_cost(random, gross),
        refund=np.where(purchases.returned_at[coupon] > 0, gross - discount, 0),
    )


def _plain(world: QuietWorld, people: People) -> Orders:
    random = world.random("plain orders")
    placed_at = moments(random, world.start_us, rhythm(world) * world.events_per_day * _PLAIN_ORDERS)
    size = len(placed_at)
    gross = _baskets(random, size)
    promotion = np.where(random.random(size) < 0.2, gross // 20, 0)
    paid_at = placed_at + waits(random, size, 2 * MINUTE, 20 * SECOND, 14 * MINUTE)
    paid = (random.random(size) < 0.95) & (paid_at < world.end_us)
    cancelled_at = placed_at + 30 * MINUTE
    refunded_at = paid_at + waits(random, size, 40 * HOUR, 6 * HOUR, 6 * DAY)
    refunded = paid & (random.random(size) < 0.04) & (refunded_at < world.end_us)
    part = np.where(random.random(size) < 0.3, 2, 1)
    return Orders(
        coupon=np.full(size, -1),
        held=np.zeros(size, dtype=bool),
        user=people.draw(random, size),
        channel=channels(random, size),
        placed_at=placed_at,
        paid_at=np.where(paid, paid_at, 0),
        cancelled_at=np.where(~paid & (cancelled_at < world.end_us), cancelled_at, 0),
        refunded_at=np.where(refunded, refunded_at, 0),
        gross=gross,
        discount=np.zeros(size, dtype=np.int64),
        promotion=promotion,
        cost=_cost(random, gross),
        refund=np.where(refunded, (gross - promotion) // part, 0),
    )


def _second_uses(world: QuietWorld, first: Orders) -> Orders:
    """Further orders on which some of the coupons are used once more."""
    random = world.random("second uses")
    lasting = np.flatnonzero((first.paid_at > 0) & (first.refunded_at == 0) & (first.paid_at < world.end_us - DAY))
    chosen = lasting[random.random(len(lasting)) < world.double_use_share]
    again = first.take(chosen)
    placed_at = again.paid_at + waits(random, len(chosen), 3 * HOUR, MINUTE, DAY - HOUR)
    return replace(again, held=np.zeros(len(chosen), dtype=bool), placed_at=placed_at, paid_at=placed_at + 30 * SECOND)


def _cost(random: np.random.Generator, gross: Array) -> Array:
    return (gross * random.uniform(0.5, 0.65, len(gross))).astype(np.int64)


def reasons(random: np.random.Generator, size: int) -> Array:
    """Why customers give orders back."""
    return np.array(_REASONS)[random.integers(0, len(_REASONS), size)]
