"""A simulated sale day: coupons are issued, claimed in rushes and used. The events come in the order in which they
arrive in the log, which is not always the order in which they happened.

    for topic, frame in sale_day(World(seed=7, events=1_000_000)):
        …  # `cli/imports.py` appends them

What always holds: the same `World` gives the same events; every event is valid; in canonical order, a coupon's events
break none of the rules about one coupon, except for the share that does so on purpose (`illegal_share`); coupon uses
and orders agree on order ids and amounts.

The sale day is made in stages: the life of each coupon (`_lives`: arrays with one entry per coupon); the events of
those lives (`_facts`: arrays with one entry per event); the order of arrival (`_arrivals`: for each record, the index
of its event in `_facts`); and last, frame by frame, the wire columns. Each stage has its own random generator, so a
stage that is added later does not change the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final
from zlib import crc32

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from coupon_ledger.ledger.rules import types
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER

Array = npt.NDArray[Any]

CURRENCY: Final = "CNY"
# Average number of events per coupon, without repeats. It is measured, and follows from the probabilities in `_lives`.
EVENTS_PER_COUPON: Final = 3.3

_SECOND: Final = 1_000_000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_HOLD: Final = 15 * _MINUTE
_INSTANT: Final = pl.Datetime("us", "UTC")

# The day's rushes: the hour at which each starts, and its share of the people who come in a rush.
_RUSH_HOURS: Final = (0, 8, 10, 12, 20)
_RUSH_PARTS: Final = (0.45, 0.10, 0.13, 0.07, 0.25)

_KINDS: Final = types(COUPON)
_KIND: Final = {kind: number for number, kind in enumerate(_KINDS)}
_REASONS: Final = (
    None,
    "not_issued",
    "not_claimed",
    "not_used",
    "order_cancelled",
    "payment_timeout",
    "refund",
    "risk_control",
)
_REASON: Final = {reason: number for number, reason in enumerate(_REASONS)}
_CHANNELS: Final = ("app", "mini_program", "sms", "store")
# The orders that a coupon may have. An event names its order by one of these numbers, or -1 for none. A coupon's number
# and this one make the order's id.
_HELD, _HELD_AGAIN, _DIRECT, _AFTER_RETURN, _SECOND_USE = range(5)
_ORDERS_PER_COUPON: Final = 5
# Event ids derive from numbers. Those of order and campaign events start here, so that no two events have the same id.
_FIRST_ORDER_EVENT: Final = 1 << 40
_FIRST_CAMPAIGN_EVENT: Final = 1 << 48


@dataclass(frozen=True)
class World:
    """Parameters of the sale day. Shares are fractions of 1."""

    seed: int = 11
    """Not negative. Worlds that differ only in the seed have the same shape and different events."""
    events: int = 1_000_000
    """The number of records of `coupon.events`, repeats included. The real number differs by a few percent."""
    campaigns: int = 40
    """Number of campaigns that share the coupons."""
    campaign_skew: float = 1.1
    """Zipf's exponent: the k-th campaign's share of the coupons is proportional to k ** -campaign_skew."""
    coupons_per_user: float = 3.0
    """Coupons per user; determines the number of users."""
    user_skew: float = 2.0
    """How unevenly users get coupons: user number = users * uniform ** (1 + user_skew); 0 is even."""
    start: datetime = datetime(2026, 11, 10, 16, tzinfo=UTC)
    """The sale's first instant (midnight in China). It lasts a day; coupons are created in the two days before it."""
    repeat_share: float = 0.01
    """Share of the records that repeat an earlier record."""
    late_share: float = 0.02
    """Share of the events that arrive late: after 0.5% to 10% of the stream that should come after them."""
    illegal_share: float = 0.001
    """Share of the events that break a rule: half are second uses, half uses by a user other than the owner."""
    edition: str = ""
    """A part of the ids of campaigns, coupons and orders, so that several sales fit into one ledger. Their users are
    the same people."""
    orders: bool = False
    """Whether there are also events of the orders that reserve and use coupons. They are not counted in `events`."""
    frame_rows: int = 50_000
    """Coupon events per frame."""

    @property
    def coupons(self) -> int:
        return max(1, round(self.events * (1 - self.repeat_share) / EVENTS_PER_COUPON))

    @property
    def users(self) -> int:
        return max(2, round(self.coupons / self.coupons_per_user))

    @property
    def start_micros(self) -> int:
        return round(self.start.timestamp()) * _SECOND


def sale_day(world: World) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the events as (topic, frame): first the published campaigns, then the coupon events in the order of
    arrival, and last the ends of campaigns. With `world.orders`, each frame of coupon events comes after all order
    events up to the time of its latest event."""
    campaigns = _campaigns(world)
    lives = _lives(world, campaigns)
    coupons = _coupons(world, campaigns, lives.gifts)
    facts = _facts(world, lives)
    orders = _order_facts(facts) if world.orders else None
    yield CAMPAIGN, _published(world, campaigns, lives.gifts)
    arrivals = _arrivals(world, len(facts.at))
    yielded = 0
    for first in range(0, len(arrivals), world.frame_rows):
        batch = arrivals[first : first + world.frame_rows]
        records = facts.take(batch)
        if orders is not None:
            due = int(np.searchsorted(orders.at, records.at.max(), side="right"))
            if due > yielded:
                yield ORDER, _order_frame(world, coupons, orders.take(np.arange(yielded, due)), yielded)
                yielded = due
        yield COUPON, _coupon_frame(world, campaigns, coupons, records, batch)
    yield CAMPAIGN, _ended(world, campaigns)


def _campaigns(world: World) -> pl.DataFrame:
    """One row per campaign, the one with the most coupons first: the values that all of its coupons share, under their
    wire names."""
    number = pl.int_range(world.campaigns, dtype=pl.Int64)
    opened, day_end = world.start_micros - 2 * _DAY, world.start_micros + _DAY - 1
    coupon_type = pl.Series(["cash", "threshold", "percent", "threshold", "shipping"])
    kind = pl.lit(coupon_type).gather(number % len(coupon_type))
    value = (number % 7 + 1) * 500
    return pl.select(
        campaign_id=_padded(f"camp-{world.edition}", number + 1, 4),
        coupon_type=kind,
        face_value_minor=pl.when(kind != "percent").then(value),
        percent_off_bp=pl.when(kind == "percent").then(value),
        min_spend_minor=pl.when(kind == "threshold").then(value * (5 + number % 4)),
        valid_from=pl.lit(opened).cast(_INSTANT),
        # Every fourth campaign ends with the sale day, and its unused coupons expire within the stream.
        valid_until=pl.when(number % 4 == 1).then(day_end).otherwise(day_end + 7 * _DAY).cast(_INSTANT),
    )


def _published(world: World, campaigns: pl.DataFrame, gifts: _Gifts) -> pl.DataFrame:
    made = np.bincount(gifts.campaign, minlength=world.campaigns)
    return campaigns.select(
        event_id=_event_ids(world, _FIRST_CAMPAIGN_EVENT + np.arange(world.campaigns)),
        type=pl.lit("published"),
        occurred_at="valid_from",
        source=pl.lit("marketing"),
        campaign_id="campaign_id",
        name=pl.lit("Sale day ") + pl.col("campaign_id"),
        mechanic=pl.lit("coupon"),
        visibility=pl.lit("public"),
        quantity=pl.Series(made, dtype=pl.Int64),
        claim_from="valid_from",
        claim_until="valid_until",
        coupon_type="coupon_type",
        face_value_minor="face_value_minor",
        percent_off_bp="percent_off_bp",
        min_spend_minor="min_spend_minor",
        currency=pl.lit(CURRENCY),
        applies_to=pl.lit('"all"'),
        funded_by=pl.lit('{"merchant":4000,"platform":6000}'),
    )


def _ended(world: World, campaigns: pl.DataFrame) -> pl.DataFrame:
    """The `ended` events of the campaigns that end with the sale day. The other campaigns go on after the last
    event."""
    first = _FIRST_CAMPAIGN_EVENT + world.campaigns
    return campaigns.select(
        event_id=_event_ids(world, first + np.arange(world.campaigns)),
        type=pl.lit("ended"),
        occurred_at="valid_until",
        source=pl.lit("marketing"),
        campaign_id="campaign_id",
    ).filter(pl.col("occurred_at") == pl.lit(world.start_micros + _DAY - 1).cast(_INSTANT))


@dataclass(frozen=True)
class _Gifts:
    """How each coupon reached its user: arrays with one entry per coupon. `direct`: whether the coupon was issued to
    the user directly, so that nobody has to claim it.

    A field `…_at`, here and in `_Purchases` and `_Ends`, is an instant in microseconds since the epoch; 0 if it did not
    happen.
    """

    campaign: Array
    user: Array
    direct: Array
    created_at: Array
    issued_at: Array
    claimed_at: Array


@dataclass(frozen=True)
class _Purchases:
    """When each coupon was reserved (`held_at`), released (`lost_at`), reserved and used again, and returned: arrays
    with one entry per coupon. `order`: on which of the coupon's orders it is used first, as a number such as
    `_HELD`."""

    order: Array
    held_at: Array
    lost_at: Array
    held_again_at: Array
    used_at: Array
    returned_at: Array
    used_again_at: Array


@dataclass(frozen=True)
class _Ends:
    revoked_at: Array
    expired_at: Array


@dataclass(frozen=True)
class _Lives:
    gifts: _Gifts
    purchases: _Purchases
    ends: _Ends


def _lives(world: World, campaigns: pl.DataFrame) -> _Lives:
    gifts = _gifts(world)
    purchases = _purchases(world, gifts)
    return _Lives(gifts, purchases, _ends(world, campaigns, gifts, purchases))


def _gifts(world: World) -> _Gifts:
    draw, start = _Draw(world, "gifts", world.coupons), world.start_micros
    parts = np.arange(1, world.campaigns + 1, dtype=float) ** -world.campaign_skew
    campaign = np.searchsorted(np.cumsum(parts) / parts.sum(), draw.uniform()).clip(0, world.campaigns - 1)
    user = (world.users * draw.uniform() ** (1 + world.user_skew)).astype(np.int64)
    issued = draw.chance(0.99)
    direct = issued & draw.chance(0.35)
    claimed = issued & ~direct & draw.chance(0.70)
    return _Gifts(
        campaign=campaign,
        user=user,
        direct=direct,
        created_at=start - 2 * _DAY + campaign * (_DAY // world.campaigns) + draw.wait(_MINUTE, 2 * _HOUR),
        issued_at=np.where(issued, start - 20 * _HOUR + draw.upto(19 * _HOUR), 0),
        claimed_at=np.where(claimed, start + draw.moment(), 0),
    )


def _purchases(world: World, gifts: _Gifts) -> _Purchases:
    """Draw the purchases. A purchase begins within the first 23 hours, so that its hold of 15 minutes and a second try
    end before the day does, when some coupons expire.
    """
    draw, start = _Draw(world, "purchases", world.coupons), world.start_micros
    claimed = gifts.claimed_at > 0
    ready = np.where(claimed, gifts.claimed_at, start)
    at_once = claimed & draw.chance(0.5)
    comes = np.where(at_once, ready, np.maximum(ready, start + draw.moment()))
    bought_at = np.minimum(comes + draw.wait(2 * _MINUTE, _HOUR), start + 23 * _HOUR)

    wanted = (gifts.direct | claimed) & draw.chance(0.42)
    held = wanted & draw.chance(0.85)
    lost = held & draw.chance(0.12)
    again = lost & draw.chance(0.40)
    used = wanted & (~lost | again)
    returned = used & draw.chance(0.06)

    lost_at = bought_at + _HOLD
    again_at = lost_at + draw.wait(3 * _MINUTE, _HOLD)
    used_at = np.where(again, again_at, bought_at) + np.where(held, draw.wait(_MINUTE, _HOLD - _MINUTE), 0)
    returned_at = used_at + draw.wait(3 * _HOUR, 2 * _DAY)
    used_again = returned & (returned_at < start + 23 * _HOUR) & draw.chance(0.5)
    return _Purchases(
        order=np.where(again, _HELD_AGAIN, np.where(held, _HELD, _DIRECT)),
        held_at=np.where(held, bought_at, 0),
        lost_at=np.where(lost, lost_at, 0),
        held_again_at=np.where(again, again_at, 0),
        used_at=np.where(used, used_at, 0),
        returned_at=np.where(returned, returned_at, 0),
        used_again_at=np.where(used_again, returned_at + draw.wait(10 * _MINUTE, 50 * _MINUTE), 0),
    )


def _ends(world: World, campaigns: pl.DataFrame, gifts: _Gifts, purchases: _Purchases) -> _Ends:
    """Draw how the coupons end. Some of those that were issued but never reserved or used are revoked. Of the campaigns
    that end with the sale day, all other coupons that are not in use expire."""
    draw, start = _Draw(world, "ends", world.coupons), world.start_micros
    bought = (purchases.held_at > 0) | (purchases.used_at > 0)
    revoked = (gifts.issued_at > 0) & ~bought & draw.chance(0.015)
    revoked_at = np.maximum(gifts.claimed_at, start) + draw.wait(_HOUR, _DAY)

    until = campaigns["valid_until"].to_physical().to_numpy()[gifts.campaign]
    in_use = (purchases.used_at > 0) & ((purchases.returned_at == 0) | (purchases.used_again_at > 0))
    left_over = (until < start + _DAY) & ~revoked & ~in_use
    expired_at = np.maximum(until, purchases.returned_at) + draw.wait(_MINUTE, _HOUR)
    return _Ends(
        revoked_at=np.where(revoked, np.minimum(revoked_at, start + 23 * _HOUR), 0),
        expired_at=np.where(left_over, expired_at, 0),
    )


class _Draw:
    """The random generator of one stage. Each method but `some` returns an array of `size` numbers. Durations are in
    microseconds."""

    def __init__(self, world: World, stage: str, size: int) -> None:
        self._rng = np.random.default_rng([world.seed, crc32(stage.encode())])
        self.size = size

    def uniform(self) -> Array:
        return self._rng.random(self.size)

    def chance(self, part: float) -> Array:
        return self.uniform() < part

    def upto(self, most: int) -> Array:
        return self._rng.integers(1, most, self.size)

    def wait(self, mean: int, most: int) -> Array:
        """Exponentially distributed durations with the mean `mean`, limited to the range from 1 to `most`."""
        return (1 + self._rng.exponential(mean, self.size)).clip(1, most).astype(np.int64)

    def moment(self) -> Array:
        """When people come, as durations since the sale's start. 70% come in one of the rushes; a third of these come
        just after a full minute."""
        rushes = np.array(_RUSH_HOURS) * _HOUR
        rush = self._rng.choice(rushes, self.size, p=_RUSH_PARTS) + self.wait(4 * _MINUTE, 90 * _MINUTE)
        sharp = rush - rush % _MINUTE + self.wait(2 * _SECOND, _MINUTE)
        rush = np.where(self.uniform() < 1 / 3, sharp, rush)
        return np.where(self.uniform() < 0.7, rush, self.upto(22 * _HOUR))

    def some(self, count: int, among: int) -> Array:
        """`count` different whole numbers from 0 to `among` (exclusive)."""
        return self._rng.choice(among, count, replace=False)

    def between(self, least: float, most: float) -> Array:
        return self._rng.uniform(least, most, self.size)


def _coupons(world: World, campaigns: pl.DataFrame, gifts: _Gifts) -> pl.DataFrame:
    """One row per coupon: the index of its campaign, and the gross amount and the discount of any order that uses
    it."""
    draw = _Draw(world, "coupons", world.coupons)
    # Baskets exceed every face value: an order of 0 could not be refunded in full.
    basket = 20_000 * np.exp(draw.between(-1.5, 1.5))
    rules = campaigns.with_row_index("campaign").select(
        pl.col("campaign").cast(pl.Int64), "face_value_minor", "percent_off_bp", "min_spend_minor"
    )
    coupons = pl.DataFrame({"campaign": gifts.campaign, "basket": basket.astype(np.int64)})
    gross = pl.col("basket") + pl.col("min_spend_minor").fill_null(0)
    off = pl.coalesce("face_value_minor", pl.col("gross_minor") * pl.col("percent_off_bp") // 10_000)
    return (
        coupons.join(rules, on="campaign", how="left", maintain_order="left")
        .with_columns(gross_minor=gross)
        .select("campaign", "gross_minor", discount_minor=off)
    )


@dataclass(frozen=True)
class _Facts:
    """Coupon events or order events, as arrays with one entry per event. `at`: the instant in microseconds; `kind`: the
    index of its type among the topic's types; `reason`: an index in `_REASONS`; `coupon`, `user`: their numbers (user
    -1: none); `order`: one of the numbers from `_HELD` to `_SECOND_USE`, or -1."""

    at: Array
    kind: Array
    coupon: Array
    user: Array
    order: Array
    reason: Array

    def take(self, numbers: Array) -> _Facts:
        return _Facts(*(getattr(self, field.name)[numbers] for field in fields(self)))


def _facts(world: World, lives: _Lives) -> _Facts:
    gifts, purchases, ends = lives.gifts, lives.purchases, lives.ends
    owner, nobody = gifts.user, np.full(world.coupons, -1)
    facts = [
        _happened("created", gifts.created_at, nobody),
        _happened("issued", gifts.issued_at, np.where(gifts.direct, owner, -1)),
        _happened("claimed", gifts.claimed_at, owner),
        _happened("reserved", purchases.held_at, owner, _HELD),
        _happened("released", purchases.lost_at, nobody, _HELD, _REASON["payment_timeout"]),
        _happened("reserved", purchases.held_again_at, owner, _HELD_AGAIN),
        _happened("used", purchases.used_at, owner, purchases.order),
        _happened("returned", purchases.returned_at, nobody, purchases.order, _REASON["refund"]),
        _happened("used", purchases.used_again_at, owner, _AFTER_RETURN),
        _happened("revoked", ends.revoked_at, nobody, reason=_REASON["risk_control"]),
        _happened("expired", ends.expired_at, nobody, reason=_why_expired(gifts, purchases)),
    ]
    return _with_illegal(world, lives, _in_order(facts))


def _why_expired(gifts: _Gifts, purchases: _Purchases) -> Array:
    return np.select(
        [gifts.issued_at == 0, purchases.returned_at > 0, gifts.direct | (gifts.claimed_at > 0)],
        [_REASON["not_issued"], _REASON["order_cancelled"], _REASON["not_used"]],
        _REASON["not_claimed"],
    )


def _happened(kind: str, at: Array, user: Array, order: Array | int = -1, reason: Array | int = 0) -> _Facts:
    """Events of the type `kind`, one for each coupon whose `at` is not 0. `at`, `user`: one entry per coupon."""
    coupon = np.flatnonzero(at)
    every = _Facts(
        at=at,
        kind=np.broadcast_to(np.uint8(_KIND[kind]), at.shape),
        coupon=np.arange(len(at), dtype=np.int32),
        user=user.astype(np.int32),
        order=np.broadcast_to(np.int8(order) if isinstance(order, int) else order.astype(np.int8), at.shape),
        reason=np.broadcast_to(np.uint8(reason) if isinstance(reason, int) else reason.astype(np.uint8), at.shape),
    )
    return every.take(coupon)


def _in_order(parts: list[_Facts]) -> _Facts:
    whole = _Facts(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(_Facts)))
    return whole.take(np.argsort(whole.at, kind="stable"))


def _with_illegal(world: World, lives: _Lives, facts: _Facts) -> _Facts:
    """Make some events break a rule: add second uses of coupons that are in use, and change the user of as many other
    uses to one who does not own the coupon. Returns all events, sorted by time."""
    purchases = lives.purchases
    once = np.flatnonzero((purchases.used_at > 0) & (purchases.returned_at == 0))
    used = np.flatnonzero(facts.kind == _KIND["used"])
    count = min(round(len(facts.at) * world.illegal_share / 2), len(once), len(used))
    draw = _Draw(world, "illegal", count)
    second_at = np.zeros(world.coupons, dtype=np.int64)
    again = once[draw.some(count, len(once))]
    second_at[again] = purchases.used_at[again] + _SECOND + draw.upto(5 * _MINUTE)
    stolen = used[draw.some(count, len(used))]
    facts.user[stolen] = (facts.user[stolen] + draw.upto(world.users)) % world.users
    return _in_order([facts, _happened("used", second_at, lives.gifts.user, _SECOND_USE)])


def _order_facts(facts: _Facts) -> _Facts:
    """The events of the orders, derived from the coupons' events.

    An order is placed when its coupon is reserved, or without a reservation when the coupon is used. It is paid when
    the coupon is used, cancelled when the coupon is released, and refunded when the coupon is returned.
    """
    is_kind = {kind: facts.kind == number for kind, number in _KIND.items()}
    placed = is_kind["reserved"] | (is_kind["used"] & (facts.order >= _DIRECT))
    became = {
        "placed": placed,
        "paid": is_kind["used"],
        "cancelled": is_kind["released"],
        "refunded": is_kind["returned"],
    }
    parts = []
    for number, kind in enumerate(types(ORDER)):
        part = facts.take(np.flatnonzero(became[kind]))
        parts.append(_Facts(part.at, np.full_like(part.kind, number), *_rest(part)))
    return _in_order(parts)


def _rest(facts: _Facts) -> tuple[Array, Array, Array, Array]:
    return facts.coupon, facts.user, facts.order, facts.reason


def _arrivals(world: World, events: int) -> Array:
    """The records in the order of arrival: for each, the index of its event in `_facts`. They arrive in the order of
    time, except late and repeated ones. `events`: the number of events in `_facts`."""
    least, most = events * 0.005, events * 0.10
    late = _Draw(world, "late", round(events * world.late_share))
    repeated = _Draw(world, "repeated", round(events * world.repeat_share / (1 - world.repeat_share)))
    place = np.arange(events, dtype=float)
    # An event near the end cannot be late: too few events follow it.
    place[late.some(late.size, events - int(least))] += late.between(least, most)
    which = repeated.some(repeated.size, events)
    # Half of the repeats come soon, like a producer's retries; half come at any later time, like a file sent twice.
    after = np.where(repeated.uniform() < 0.5, repeated.between(0.5, 500), repeated.between(0.5, 1 + most))
    number = np.concatenate([np.arange(events), which])
    return number[np.argsort(np.concatenate([place, place[which] + after]), kind="stable")]


def _coupon_frame(
    world: World, campaigns: pl.DataFrame, coupons: pl.DataFrame, records: _Facts, numbers: Array
) -> pl.DataFrame:
    kind, coupon, campaign = pl.col("type"), pl.col("coupon"), pl.col("campaign")
    created, used, claimed = kind == "created", kind == "used", kind == "claimed"
    known_to_marketing = ~kind.is_in(["reserved", "released", "used", "returned"])
    carried = [
        pl.when(created).then(_pick(campaigns[name], campaign)).alias(name)
        for name in campaigns.columns
        if name != "campaign_id"
    ]
    return (
        _gathered(coupons, records)
        .with_columns(_pick(_KINDS, pl.col("kind")).alias("type"))
        .select(
            _event_ids(world, numbers),
            "type",
            pl.col("at").cast(_INSTANT).alias("occurred_at"),
            pl.when(known_to_marketing).then(pl.lit("marketing")).otherwise(pl.lit("shop")).alias("source"),
            _coupon_id(world).alias("coupon_id"),
            pl.when(known_to_marketing).then(_pick(campaigns["campaign_id"], campaign)).alias("campaign_id"),
            _user_id(),
            pl.when(pl.col("order") >= 0).then(_order_id(world)).alias("order_id"),
            pl.when(claimed | (kind == "issued")).then(_pick(_CHANNELS, coupon % 4)).alias("channel"),
            _pick(_REASONS, pl.col("reason")).alias("reason"),
            *carried,
            pl.when(used).then("discount_minor").alias("discount_minor"),
            pl.when(created | used).then(pl.lit(CURRENCY)).alias("currency"),
            pl.when(kind == "reserved").then((pl.col("at") + _HOLD).cast(_INSTANT)).alias("hold_until"),
            pl.when(claimed).then(_ip()).alias("ip"),
            pl.when(claimed).then(_padded("d-", pl.col("user"), 8)).alias("device_id"),
            pl.when(claimed).then(_phone_prefix()).alias("phone_prefix"),
        )
    )


def _order_frame(world: World, coupons: pl.DataFrame, records: _Facts, first: int) -> pl.DataFrame:
    kind, net = pl.col("type"), pl.col("gross_minor") - pl.col("discount_minor")
    bought = kind.is_in(["placed", "paid"])
    discount = pl.struct(kind=pl.lit("coupon"), amount_minor="discount_minor", funder=pl.lit(None, pl.String))
    return (
        _gathered(coupons, records)
        .with_columns(_pick(types(ORDER), pl.col("kind")).alias("type"))
        .select(
            _event_ids(world, _FIRST_ORDER_EVENT + np.arange(first, first + len(records.at))),
            "type",
            pl.col("at").cast(_INSTANT).alias("occurred_at"),
            pl.lit("shop").alias("source"),
            _order_id(world).alias("order_id"),
            _user_id(),
            pl.when(bought).then(_pick(_CHANNELS, pl.col("coupon") % 2)).alias("channel"),
            pl.lit(CURRENCY).alias("currency"),
            pl.when(bought).then("gross_minor").alias("gross_minor"),
            pl.when(bought).then(net).alias("net_minor"),
            pl.when(bought).then(pl.concat_list(discount)).alias("discounts"),
            pl.when(kind == "refunded").then(net).alias("refund_minor"),
            pl.when(~bought).then(_pick(_REASONS, pl.col("reason"))).alias("reason"),
            pl.when(bought)
            .then(pl.concat_list(_padded(f"c-{world.edition}", pl.col("coupon"), 8)))
            .alias("coupon_ids"),
        )
    )


def _gathered(coupons: pl.DataFrame, records: _Facts) -> pl.DataFrame:
    """The events `records` as a frame, one row per event, with the columns of `_coupons` for its coupon."""
    columns = pl.DataFrame({field.name: getattr(records, field.name) for field in fields(records)})
    of_coupon = coupons[records.coupon]
    return columns.with_columns(pl.col("coupon", "user", "order").cast(pl.Int64)).hstack(of_coupon)


def _pick(values: pl.Series | tuple[str | None, ...], number: pl.Expr) -> pl.Expr:
    return pl.lit(pl.Series(values)).gather(number)


def _padded(prefix: str, number: pl.Expr, digits: int) -> pl.Expr:
    return pl.lit(prefix) + number.cast(pl.String).str.zfill(digits)


def _user_id() -> pl.Expr:
    return pl.when(pl.col("user") >= 0).then(_padded("u-", pl.col("user"), 7)).alias("user_id")


def _coupon_id(world: World) -> pl.Expr:
    return _padded(f"c-{world.edition}", pl.col("coupon"), 8)


def _order_id(world: World) -> pl.Expr:
    return _padded(f"o-{world.edition}", pl.col("coupon") * _ORDERS_PER_COUPON + pl.col("order"), 10)


def _ip() -> pl.Expr:
    """An expression for the user's IP address. A few users share an address."""
    mixed = pl.col("user") * 2_654_435_761 // 64
    octets = [mixed // 2**shift % 256 for shift in (0, 8)]
    return pl.concat_str(pl.lit("36"), mixed // 2**16 % 64 + 96, *octets, separator=".")


def _phone_prefix() -> pl.Expr:
    """An expression for the first seven digits of the user's mobile number."""
    return (1_300_000 + pl.col("user") * 7_919 % 700_000).cast(pl.String)


def _event_ids(world: World, numbers: Array) -> pl.Series:
    """One event id of 32 hex digits per number. Within a world, different numbers give different ids."""
    low = _mixed(numbers.astype(np.uint64) + _mixed(np.array([world.seed], dtype=np.uint64)))
    pairs = np.stack([low, _mixed(low)], axis=1)
    buffers = [None, pa.py_buffer(pairs.tobytes())]
    raw = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(pairs), buffers)
    return pl.Series("event_id", raw.cast(pa.binary())).bin.encode("hex")


def _mixed(numbers: Array) -> Array:
    """splitmix64's output function, which is a bijection on 64 bits (Steele, Lea and Flood 2014)."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
