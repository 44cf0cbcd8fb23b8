"""A simulated experiment whose true effects are known: people with habits, their arms, coupons and orders.

    world = ExperimentWorld(seed=7)
    people, orders = drawn(world)      # arrays, for statistics
    for topic, frame in events(world): # people and orders as events, in the order of time
        …                              # `cli/imports.py` appends them
    truth(world)                       # the exact expected values per arm

What always holds: the same world gives the same people, orders and events; `truth` depends only on the world's
parameters, never on what was drawn.

The model: each person orders at random (Poisson) at a rate of their own (gamma: most buy seldom, a few often). The
amounts are heavy-tailed (log-normal) around a level of the person's own. A treatment gives a coupon. While the coupon
is valid, the person's rate is raised by a lift, which differs between segments. After its expiry, the rate is lowered
for a while, so part of the gain is lost (pulled-forward sales). Some of the people who order while the coupon is valid
use it, on their first order. Some orders are refunded, in full or by half.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER, USER

Array = npt.NDArray[Any]

CURRENCY: Final = "CNY"
CAMPAIGN_ID: Final = "experiment"
CONTROL: Final = "control"
OUTSIDE: Final = -1
"""`arm` of people who are in no arm."""
_INSTANT: Final = pl.Datetime("us", "UTC")
_SHOP: Final = "shop"
_MARKETING: Final = "marketing"


@dataclass(frozen=True)
class Treatment:
    """An arm whose people get a coupon. `lifts`: for each segment of the world, by what fraction the order rate rises
    while the coupon is valid."""

    name: str
    face_value_minor: int
    lifts: tuple[float, ...]


@dataclass(frozen=True)
class Segment:
    """A group of people. `share`: which fraction of all people it is; `rate`: the average number of orders per person
    and day."""

    name: str
    share: float
    rate: float


SEGMENTS: Final = (Segment("new", 0.3, 0.04), Segment("regular", 0.5, 0.08), Segment("loyal", 0.2, 0.16))


@dataclass(frozen=True)
class ExperimentWorld:
    """The parameters of an experiment. Shares are fractions of 1, amounts are minor units, and times are days from the
    start of the coupons' validity."""

    seed: int = 1
    people: int = 4_000
    control_share: float = 0.5
    treatments: tuple[Treatment, ...] = (Treatment("coupon", 1_000, (0.6, 0.3, 0.1)),)
    segments: tuple[Segment, ...] = SEGMENTS
    start: datetime = datetime(2025, 11, 1, tzinfo=UTC)
    valid_days: int = 14
    after_days: int = 7
    history_days: int = 42
    pulled_share: float = 0.2
    """Share of the orders added by a treatment that would otherwise have come in the days after expiry."""
    habit_shape: float = 1.5
    """Shape of the gamma distribution of rates within a segment: the smaller, the more uneven."""
    basket_minor: int = 3_000
    """The smallest basket. The amount that people spend above it is log-normal."""
    basket_median_minor: int = 4_000
    basket_sigma: float = 0.9
    level_sigma: float = 0.5
    cost_share: float = 0.55
    """Cost of the goods, as a share of the list price."""
    use_share: float = 0.8
    """The share that uses the coupon, among people who order while it is valid."""
    refund_share: float = 0.04
    half_refund_share: float = 0.02
    leak_share: float = 0.0
    """Share of the control that gets the first treatment's coupon by mistake."""
    booked_minor: int = 200_000
    """Cost of the whole campaign without the discounts."""

    @property
    def expiry(self) -> datetime:
        return self.start + timedelta(days=self.valid_days)

    @property
    def window_days(self) -> int:
        return self.valid_days + self.after_days


@dataclass(frozen=True)
class People:
    """Arrays with one entry per person. `segment`: the index of the person's segment in the world's segments; `rate`:
    orders per day; `level`: a factor on what the person spends above the smallest basket; `arm`: 0 for the control, 1…
    for the treatments, or `OUTSIDE`; `coupon`: the number of the treatment whose coupon the person got (0: none)."""

    segment: Array
    rate: Array
    level: Array
    arm: Array
    coupon: Array


@dataclass(frozen=True)
class Orders:
    """Arrays with one entry per order. `person`: the person's index in `People`; `day`: days since the start, negative
    before it; `gross`: the list price; `discount`: the amount that the coupon took off; `refunded`: which fraction of
    what was paid is refunded; `refund_after`: days from the order to the refund; `with_coupon`: whether the person used
    the coupon on the order."""

    person: Array
    day: Array
    gross: Array
    discount: Array
    refunded: Array
    refund_after: Array

    @property
    def with_coupon(self) -> Array:
        return self.discount > 0

    @property
    def net(self) -> Array:
        """The amount paid minus the amount refunded, per order."""
        return (self.gross - self.discount) - self.refund

    @property
    def refund(self) -> Array:
        return np.round((self.gross - self.discount) * self.refunded).astype(np.int64)


Choice = Callable[["People", Array, np.random.Generator], Array]
"""Assigns an arm to each person. It gets the people (without arms), the amount that each paid in the `window_days`
before the start, and a random generator."""


def drawn(world: ExperimentWorld, choose: Choice | None = None) -> tuple[People, Orders]:
    """Draw people and their orders. `choose`: the function that assigns arms to people; by default they are drawn with
    the probabilities `shares(world)`."""
    stages = [np.random.default_rng([world.seed, stage]) for stage in range(5)]
    people = _people(world, stages[0])
    past = _orders(world, people, stages[1], -world.history_days, 0, people.rate)
    lately = past.day >= -world.window_days
    paid = np.bincount(past.person[lately], past.net[lately], world.people)
    arm = (choose or _by_chance(world))(people, paid, stages[2])
    leaks = (arm == 0) & (stages[2].random(world.people) < world.leak_share)
    people = People(people.segment, people.rate, people.level, arm, np.where(leaks, 1, np.maximum(arm, 0)))
    lifts = _lifts(world)[people.coupon, people.segment]
    valid = _orders(world, people, stages[3], 0, world.valid_days, people.rate * (1 + lifts))
    valid = _with_coupons(world, people, valid, stages[3])
    rest = people.rate * (1 - lifts * world.pulled_share * world.valid_days / world.after_days)
    after = _orders(world, people, stages[4], world.valid_days, world.window_days, rest)
    parts = (past, valid, after)
    whole = (np.concatenate([getattr(part, name) for part in parts]) for name in Orders.__dataclass_fields__)
    return people, Orders(*whole)


def _by_chance(world: ExperimentWorld) -> Choice:
    def choose(people: People, _paid: Array, random: np.random.Generator) -> Array:
        return random.choice(len(shares(world)), len(people.segment), p=list(shares(world).values()))

    return choose


def shares(world: ExperimentWorld) -> dict[str, float]:
    """By the name of the arm, which fraction of the people is assigned to it; the control first."""
    each = (1 - world.control_share) / len(world.treatments)
    return {CONTROL: world.control_share} | {t.name: each for t in world.treatments}


def _lifts(world: ExperimentWorld) -> Array:
    """The lifts as a matrix: a row per number of a coupon (0: no coupon), a column per segment."""
    return np.array([(0.0,) * len(world.segments), *(t.lifts for t in world.treatments)])


def _people(world: ExperimentWorld, random: np.random.Generator) -> People:
    n = world.people
    segment = random.choice(len(world.segments), n, p=[s.share for s in world.segments])
    means = np.array([s.rate for s in world.segments])[segment]
    rate = random.gamma(world.habit_shape, means / world.habit_shape)
    level = np.exp(random.normal(0, world.level_sigma, n))
    none = np.zeros(n, dtype=np.int64)
    return People(segment, rate, level, none, none)


def _orders(
    world: ExperimentWorld, people: People, random: np.random.Generator, first: float, end: float, rate: Array
) -> Orders:
    count = random.poisson(rate * (end - first))
    person = np.repeat(np.arange(len(count)), count)
    day = random.uniform(first, end, len(person))
    beyond = world.basket_median_minor * np.exp(random.normal(0, world.basket_sigma, len(person)))
    gross = np.round(world.basket_minor + people.level[person] * beyond).astype(np.int64)
    fate = random.random(len(person))
    half = fate < world.refund_share + world.half_refund_share
    refunded = np.where(fate < world.refund_share, 1.0, np.where(half, 0.5, 0.0))
    order = np.lexsort((day, person))
    none = np.zeros(len(person), dtype=np.int64)
    return Orders(person, day[order], gross[order], none, refunded[order], random.uniform(1, 10, len(person)))


def _with_coupons(world: ExperimentWorld, people: People, valid: Orders, random: np.random.Generator) -> Orders:
    """Set the discounts of the orders `valid`, which come while the coupons are valid. The first order of a person with
    a coupon gets its discount with the probability `use_share`. Returns these orders."""
    faces = np.array([0, *(t.face_value_minor for t in world.treatments)])
    first = np.r_[True, valid.person[1:] != valid.person[:-1]] if len(valid.person) else np.array([], dtype=bool)
    used = first & (random.random(len(valid.person)) < world.use_share)
    discount = np.where(used, faces[people.coupon[valid.person]], 0)
    return Orders(valid.person, valid.day, valid.gross, discount, valid.refunded, valid.refund_after)


# --- the true effects


@dataclass(frozen=True)
class Expected:
    """Expected values for one person of an arm, from the world's start to the end of its `window_days`. Amounts are
    minor units. `buyer`: the probability of at least one order that is not refunded in full."""

    net_minor: float
    margin_minor: float
    discount_minor: float
    orders: float
    buyer: float


def truth(world: ExperimentWorld) -> dict[str, Expected]:
    """Expected values by the name of the arm. The values of the control include its people who got a coupon by mistake
    (`leak_share`)."""
    clean = [_expected(world, coupon) for coupon in range(len(world.treatments) + 1)]
    control = _mixed([clean[0], clean[1]], [1 - world.leak_share, world.leak_share])
    return dict(zip(shares(world), [control, *clean[1:]], strict=True))


def true_return(world: ExperimentWorld, treatment: str) -> float:
    """The incremental ROI of a treatment: (incremental margin - booked cost) / (discounts + booked cost). Each
    treatment bears an equal part of the booked cost."""
    arms, size = truth(world), world.people * shares(world)[treatment]
    booked = world.booked_minor / len(world.treatments)
    gain = size * (arms[treatment].margin_minor - arms[CONTROL].margin_minor)
    return (gain - booked) / (size * arms[treatment].discount_minor + booked)


def told_truth(world: ExperimentWorld) -> list[dict[str, Any]]:
    """Rows to print, one per treatment: its true effects per person compared with the control, and its true ROI."""
    arms = truth(world)
    return [
        {
            "arm": t.name,
            "face_value_minor": t.face_value_minor,
            "true_margin": arms[t.name].margin_minor - arms[CONTROL].margin_minor,
            "true_net_sales": arms[t.name].net_minor - arms[CONTROL].net_minor,
            "true_orders": arms[t.name].orders - arms[CONTROL].orders,
            "true_roi": true_return(world, t.name),
        }
        for t in world.treatments
    ]


def shown_world(seed: int, people: int) -> ExperimentWorld:
    """The world of `simulate --experiment`: a control, and three treatments with different face values. Some people of
    the control get a coupon by mistake."""
    treatments = (
        Treatment("face-5", 500, (0.5, 0.25, 0.1)),
        Treatment("face-10", 1_000, (1.0, 0.5, 0.2)),
        Treatment("face-20", 2_000, (0.7, 0.3, 0.0)),
    )
    return ExperimentWorld(
        seed=seed, people=people, control_share=0.4, treatments=treatments, leak_share=0.01, booked_minor=people * 30
    )


def _expected(world: ExperimentWorld, coupon: int) -> Expected:
    lifts = _lifts(world)[coupon].tolist()
    parts = [_of_segment(world, s.rate, lift, coupon) for s, lift in zip(world.segments, lifts, strict=True)]
    return _mixed(parts, [s.share for s in world.segments])


def _mixed(parts: Sequence[Expected], weights: Sequence[float]) -> Expected:
    names = Expected.__dataclass_fields__
    return Expected(*(sum(w * getattr(p, n) for w, p in zip(weights, parts, strict=True)) for n in names))


def _of_segment(world: ExperimentWorld, rate: float, lift: float, coupon: int) -> Expected:
    """The expected values for one person of a segment. `rate`, `lift`: of the segment; `coupon`: the number of the
    person's coupon (0: none). Sums over a Poisson number of orders are computed with Wald's identity, the probability
    of an order with the gamma distribution's Laplace transform."""
    valid = (1 + lift) * world.valid_days
    days = valid + world.after_days - lift * world.pulled_share * world.valid_days
    stays = 1 - world.refund_share
    paid = stays - world.half_refund_share / 2
    beyond = world.basket_median_minor * math.exp((world.basket_sigma**2 + world.level_sigma**2) / 2)
    gross = rate * days * (world.basket_minor + beyond)
    face = world.treatments[coupon - 1].face_value_minor if coupon else 0
    used = _any(world, rate * valid) * world.use_share * face
    net = paid * (gross - used)
    return Expected(
        net_minor=net,
        margin_minor=net - paid * world.cost_share * gross,
        discount_minor=stays * used,
        orders=rate * days * stays,
        buyer=_any(world, rate * days * stays),
    )


def _any(world: ExperimentWorld, mean: float) -> float:
    """The probability that a person has at least one order, if people have `mean` orders on average."""
    return float(1 - (1 + mean / world.habit_shape) ** -world.habit_shape)


# --- the events


def events(world: ExperimentWorld) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the events as (topic, frame): the campaign and the people, then orders and coupons day by day, and last the
    campaign's booked cost."""
    people, orders = drawn(world)
    yield CAMPAIGN, _published(world)
    yield USER, _profiled(world, people)
    yield CAMPAIGN, _assigned(world, people)
    coupon_events, order_events = _coupon_events(world, people, orders), _order_events(world, people, orders)
    days = pl.concat([coupon_events["occurred_at"], order_events["occurred_at"]]).dt.date().unique().sort()
    for day in days:
        for topic, frame in ((ORDER, order_events), (COUPON, coupon_events)):
            of_day = frame.filter(pl.col("occurred_at").dt.date() == day)
            if of_day.height:
                yield topic, of_day
    yield CAMPAIGN, _booked(world)


def _at(world: ExperimentWorld, days: Array) -> pl.Series:
    whole = (days * 86_400e6).astype(np.int64)
    return pl.Series(whole + round(world.start.timestamp()) * 1_000_000).cast(_INSTANT)


def _ids(prefix: str, numbers: Array) -> pl.Series:
    return pl.Series(numbers).cast(pl.String).str.zfill(6).str.replace("^", prefix)


def _event_frame(
    world: ExperimentWorld, topic: str, kind: str, source: str, key: pl.Series, at: pl.Series
) -> pl.DataFrame:
    """Events of one type, with the fields that every event has. `topic`: the name of the topic's key field, such as
    `coupon_id`; `kind`: the event type; `key`: the values of the key field; `at`: the instants. Worlds that differ in
    seed or start have different event ids, so their events are never repeats or conflicts of each other."""
    salt = hashlib.sha256(f"{world.seed}/{world.start.isoformat()}".encode()).hexdigest()[:8]
    return pl.DataFrame({topic: key, "occurred_at": at}).with_columns(
        type=pl.lit(kind), source=pl.lit(source), event_id=pl.lit(f"x{salt}-{kind}-") + pl.col(topic)
    )


def _campaign(world: ExperimentWorld, kind: str, count: int, day: float) -> pl.DataFrame:
    key = pl.Series([campaign_id(world)] * count)
    return _event_frame(world, "campaign_id", kind, _MARKETING, key, _at(world, np.full(count, day)))


def campaign_id(world: ExperimentWorld) -> str:
    return f"{CAMPAIGN_ID}-{world.seed}"


def _published(world: ExperimentWorld) -> pl.DataFrame:
    targets = [(f"share:{arm}", round(share * 10_000)) for arm, share in shares(world).items()]
    planned = _campaign(world, "target_set", len(targets), -2).with_columns(
        metric=pl.Series([metric for metric, _ in targets]),
        target=pl.Series([share for _, share in targets]),
        event_id=pl.col("event_id") + pl.Series([f"-{metric}" for metric, _ in targets]),
    )
    published = _campaign(world, "published", 1, -3).with_columns(
        name=pl.lit("An experiment with a known truth"),
        mechanic=pl.lit("coupon"),
        coupon_type=pl.lit("cash"),
        currency=pl.lit(CURRENCY),
        claim_from=pl.lit(world.start).cast(_INSTANT),
        claim_until=pl.lit(world.expiry).cast(_INSTANT),
    )
    return pl.concat([published, planned], how="diagonal")


def _profiled(world: ExperimentWorld, people: People) -> pl.DataFrame:
    names = pl.Series([f'{{"segment":"{s.name}"}}' for s in world.segments])
    ids = _users(world, np.arange(world.people))
    profiled = _event_frame(
        world, "user_id", "profiled", "crm", ids, _at(world, np.full(world.people, -world.history_days - 1.0))
    )
    return profiled.with_columns(attributes=names.gather(people.segment.tolist()))


def _users(world: ExperimentWorld, numbers: Array) -> pl.Series:
    return _ids(f"x{world.seed}-u", numbers)


def _assigned(world: ExperimentWorld, people: People) -> pl.DataFrame:
    inside = np.flatnonzero(people.arm != OUTSIDE)
    users = _users(world, inside)
    return _campaign(world, "assigned", len(inside), -1).with_columns(
        user_id=users,
        arm=pl.Series(list(shares(world))).gather(people.arm[inside].tolist()),
        event_id=pl.col("event_id") + pl.lit("-") + users,
    )


def _booked(world: ExperimentWorld) -> pl.DataFrame:
    return _campaign(world, "cost_booked", 1, float(world.window_days)).with_columns(
        cost_kind=pl.lit("media"), amount_minor=pl.lit(world.booked_minor), currency=pl.lit(CURRENCY)
    )


def _coupon_events(world: ExperimentWorld, people: People, orders: Orders) -> pl.DataFrame:
    """The events of all coupons, sorted by time. A coupon is created and issued; then it is used on an order, or else
    it expires. It is returned if the order is refunded in full."""
    faces = pl.Series([0, *(t.face_value_minor for t in world.treatments)])
    holders = np.flatnonzero(people.coupon > 0)

    def those(kind: str, source: str, person: Array, day: Array) -> pl.DataFrame:
        frame = _event_frame(world, "coupon_id", kind, source, _ids(f"x{world.seed}-c", person), _at(world, day))
        return frame.with_columns(user_id=_users(world, person))

    value = faces.gather(people.coupon[holders].tolist())
    created = those("created", _MARKETING, holders, np.full(len(holders), -0.02)).with_columns(
        user_id=pl.lit(None, pl.String),
        campaign_id=pl.lit(campaign_id(world)),
        coupon_type=pl.lit("cash"),
        face_value_minor=value,
        currency=pl.lit(CURRENCY),
        valid_from=pl.lit(world.start).cast(_INSTANT),
        valid_until=pl.lit(world.expiry).cast(_INSTANT),
    )
    issued = those("issued", _MARKETING, holders, np.zeros(len(holders))).with_columns(channel=pl.lit("app"))
    uses = np.flatnonzero(orders.with_coupon)
    used = those("used", _SHOP, orders.person[uses], orders.day[uses]).with_columns(
        order_id=_ids(f"x{world.seed}-o", uses), discount_minor=pl.Series(orders.discount[uses])
    )
    back = uses[orders.refunded[uses] == 1]
    returned = those("returned", _SHOP, orders.person[back], orders.day[back] + orders.refund_after[back]).with_columns(
        order_id=_ids(f"x{world.seed}-o", back), reason=pl.lit("refund")
    )
    unused = np.setdiff1d(holders, orders.person[uses])
    expired = those("expired", _MARKETING, unused, np.full(len(unused), float(world.valid_days))).with_columns(
        reason=pl.lit("not_used"), user_id=pl.lit(None, pl.String)
    )
    whole = pl.concat([created, issued, used, returned, expired], how="diagonal")
    return whole.sort("occurred_at", "event_id")


def _order_events(world: ExperimentWorld, people: People, orders: Orders) -> pl.DataFrame:
    number = np.arange(len(orders.person))
    coupons = _ids(f"x{world.seed}-c", orders.person)
    discount = pl.struct(kind=pl.lit("coupon"), amount_minor="taken", funder=pl.lit("merchant"))
    bought = _event_frame(world, "order_id", "paid", _SHOP, _ids(f"x{world.seed}-o", number), _at(world, orders.day))
    paid = (
        bought.with_columns(
            user_id=_users(world, orders.person),
            channel=pl.lit("app"),
            currency=pl.lit(CURRENCY),
            gross_minor=pl.Series(orders.gross),
            net_minor=pl.Series(orders.gross - orders.discount),
            cost_of_goods_minor=pl.Series(np.round(orders.gross * world.cost_share).astype(np.int64)),
            taken=pl.Series(orders.discount),
            coupon=coupons,
        )
        .with_columns(
            discounts=pl.when(pl.col("taken") > 0).then(pl.concat_list(discount)),
            coupon_ids=pl.when(pl.col("taken") > 0).then(pl.concat_list("coupon")),
        )
        .drop("taken", "coupon")
    )
    back = np.flatnonzero(orders.refunded > 0)
    at = _at(world, orders.day[back] + orders.refund_after[back])
    refunded = _event_frame(world, "order_id", "refunded", _SHOP, _ids(f"x{world.seed}-o", back), at).with_columns(
        currency=pl.lit(CURRENCY), refund_minor=pl.Series(orders.refund[back]), reason=pl.lit("unwanted")
    )
    return pl.concat([paid, refunded], how="diagonal").sort("occurred_at", "event_id")
