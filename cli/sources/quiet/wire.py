"""The events of quiet days, as frames with the columns of the wire."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from coupon_ledger.cli.sources.arrival import ARRIVES_AT, Frames, with_arrival
from coupon_ledger.cli.sources.quiet.campaigns import EXPERIMENT, FLASH, GRANTED, PRIVATE, Campaign, campaigns_of
from coupon_ledger.cli.sources.quiet.lives import HOLD, Gifts, Purchases, arms_of, expiries_of, gifts_of, purchases_of
from coupon_ledger.cli.sources.quiet.orders import CHANNELS, Orders, channels, orders_of, reasons
from coupon_ledger.cli.sources.quiet.people import REGIONS, People, addresses, people_of
from coupon_ledger.cli.sources.quiet.world import CURRENCY, HOUR, INSTANT, MINUTE, Array, QuietWorld, waits
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER, USER

MARKETING: Final = "marketing"
WALLET: Final = "wallet"
SHOP: Final = "shop"
CRM: Final = "crm"
"""The publishing systems: marketing creates and expires coupons, customers claim them in the wallet and use them in the
shop, which also publishes orders."""

_TERMS: Final = ("face_value_minor", "percent_off_bp", "min_spend_minor")
_STOCK: Final = 1.6
_SPARE: Final = 400
_BUDGET: Final = 1.5
"""Stock and budget of a campaign, relative to what it takes."""


def quiet_days(world: QuietWorld) -> Frames:
    """The events of the stretch, by topic, with their time of arrival (see `cli/sources/arrival.py`)."""
    people, campaigns = people_of(world), campaigns_of(world)
    gifts = gifts_of(world, campaigns, people)
    purchases = purchases_of(world, campaigns, gifts)
    orders = orders_of(world, campaigns, people, gifts, purchases)
    coupons = _coupon_frame(world, campaigns, gifts)
    frames = {
        COUPON: _coupon_events(world, people, coupons, gifts, purchases, orders),
        ORDER: _order_events(world, people, orders),
        CAMPAIGN: _campaign_events(world, campaigns, gifts, orders),
        USER: _user_events(world, people, campaigns, gifts),
    }
    return {topic: _arriving(world, topic, frame) for topic, frame in frames.items()}


def _arriving(world: QuietWorld, topic: str, frame: pl.DataFrame) -> pl.DataFrame:
    random = world.random(f"arrival {topic}")
    frame = with_arrival(frame.sort("occurred_at", "event_id"), random)
    late = np.where(
        random.random(frame.height) < world.late_share, random.integers(MINUTE, 8 * MINUTE, frame.height), 0
    )
    frame = frame.with_columns(pl.col(ARRIVES_AT) + pl.Series(late).cast(pl.Duration("us")))
    again = frame.filter(pl.Series(random.random(frame.height) < world.repeat_share))
    after = pl.Series(waits(random, again.height, MINUTE, 1, HOUR)).cast(pl.Duration("us"))
    return pl.concat([frame, again.with_columns(pl.col(ARRIVES_AT) + after)]).sort(ARRIVES_AT, "event_id")


def _happened(key: str, kind: str, source: str, frame: pl.DataFrame, at: Array) -> pl.DataFrame:
    """Events of the type `kind`, one for each row of `frame` whose `at` is not 0. `key`: the column with the key."""
    return (
        frame.with_columns(occurred_at=pl.Series(at).cast(INSTANT))
        .filter(pl.Series(at > 0))
        .with_columns(type=pl.lit(kind), source=pl.lit(source), event_id=pl.format("{}-{}", key, pl.lit(kind)))
    )


def _instants(at: Array) -> pl.Series:
    return pl.Series(at).cast(INSTANT)


def _padded(prefix: str, numbers: Array, digits: int = 7) -> pl.Series:
    """Ids from numbers; null for negative ones."""
    number = pl.Series("id", numbers)
    text = pl.lit(prefix) + number.cast(pl.String).str.zfill(digits)
    return pl.select(pl.when(number >= 0).then(text)).to_series()


def _picked(values: tuple[str | int | None, ...], numbers: Array) -> pl.Series:
    return pl.Series(values).gather(pl.Series(numbers))


# --- coupons


def _coupon_frame(world: QuietWorld, campaigns: tuple[Campaign, ...], gifts: Gifts) -> pl.DataFrame:
    """One row per coupon, with what its events carry."""
    terms = pl.DataFrame(
        {
            "campaign_id": [c.campaign_id for c in campaigns],
            "code": [c.code for c in campaigns],
            "valid_from": _instants(np.array([c.claim_from for c in campaigns])),
            **_terms(campaigns),
        },
        schema_overrides={"code": pl.String},
    )
    number = np.arange(len(gifts.user))
    return terms[gifts.campaign].with_columns(
        coupon_id=_padded(f"{world.name}-c", number),
        user_id=_padded("u-", gifts.user),
        channel=_picked(CHANNELS[:3], number * 7 % 10 % 3),
        valid_until=_instants(gifts.valid_until),
    )


def _terms(campaigns: tuple[Campaign, ...]) -> dict[str, pl.Series]:
    amounts = {name: pl.Series(name, [getattr(c, name) or None for c in campaigns], dtype=pl.Int64) for name in _TERMS}
    return {"coupon_type": pl.Series([c.coupon_type for c in campaigns], dtype=pl.String)} | amounts


def _coupon_events(
    world: QuietWorld, people: People, coupons: pl.DataFrame, gifts: Gifts, purchases: Purchases, orders: Orders
) -> pl.DataFrame:
    base = coupons.select("coupon_id", "campaign_id")
    granted = pl.when(pl.Series(gifts.claimed_at == 0)).then(coupons["user_id"]).alias("user_id")
    put_out = base.with_columns(coupons["channel"], granted)
    ending = base.with_columns(reason=_why_expired(gifts, purchases))
    created = coupons.drop("user_id", "channel").with_columns(currency=pl.lit(CURRENCY))
    return pl.concat(
        [
            _happened("coupon_id", "created", MARKETING, created, gifts.created_at),
            _happened("coupon_id", "issued", MARKETING, put_out, gifts.issued_at),
            _claims(world, people, coupons, gifts),
            *_uses(world, people, coupons, orders),
            _happened("coupon_id", "expired", MARKETING, ending, expiries_of(world, gifts, purchases)),
        ],
        how="diagonal",
    )


def _claims(world: QuietWorld, people: People, coupons: pl.DataFrame, gifts: Gifts) -> pl.DataFrame:
    columns = coupons.select("coupon_id", "campaign_id", "user_id", "channel", "code")
    whole = _happened("coupon_id", "claimed", WALLET, columns, gifts.claimed_at)
    claimed = gifts.claimed_at > 0
    return whole.with_columns(
        *_online(world, people, gifts.user[claimed], gifts.claimed_at[claimed], world.random("claim addresses"))
    )


def _online(world: QuietWorld, people: People, user: Array, at: Array, random: np.random.Generator) -> list[pl.Series]:
    """Where and with what the customers `user` were online at the instants `at`."""
    return [
        addresses(world, people, user, at, random).alias("ip"),
        _padded("d-", people.device[user]).alias("device_id"),
        pl.Series("phone_prefix", people.phone_prefix[user]).cast(pl.String),
    ]


def _uses(world: QuietWorld, people: People, coupons: pl.DataFrame, orders: Orders) -> list[pl.DataFrame]:
    """The events of coupons that follow from orders: reserved, released, used, returned."""
    number = np.flatnonzero(orders.coupon >= 0)
    coupon = orders.coupon[number]
    rows = coupons.select("coupon_id", "code")[coupon].with_columns(
        order_id=_order_ids(world, number),
        user_id=_padded("u-", orders.user[number]),
        channel=_picked(CHANNELS, orders.channel[number]),
    )
    ids = rows.drop("code", "channel")

    def of(kind: str, at: Array, frame: pl.DataFrame) -> pl.DataFrame:
        events = _happened("coupon_id", kind, SHOP, frame, at)
        return events.with_columns(event_id=pl.format("{}-{}-{}", "coupon_id", "type", "order_id"))

    placed_at, paid_at = orders.placed_at[number], orders.paid_at[number]
    in_shop = orders.channel[number] == CHANNELS.index("store")
    online = rows.with_columns(
        *_online(world, people, orders.user[number], placed_at, world.random("use addresses")),
        discount_minor=pl.Series(orders.discount[number]),
        currency=pl.lit(CURRENCY),
    ).with_columns(ip=pl.when(pl.Series(in_shop)).then(pl.lit(None, pl.String)).otherwise("ip"))
    return [
        of(
            "reserved",
            np.where(orders.held[number], placed_at, 0),
            ids.with_columns(hold_until=_instants(placed_at + HOLD)),
        ),
        of("released", orders.cancelled_at[number], ids.drop("user_id").with_columns(reason=pl.lit("hold_timeout"))),
        of("used", paid_at, online),
        of("returned", orders.refunded_at[number], ids.drop("user_id").with_columns(reason=pl.lit("refund"))),
    ]


def _why_expired(gifts: Gifts, purchases: Purchases) -> pl.Series:
    late = purchases.returned_at > gifts.valid_until
    return pl.Series(np.select([gifts.user < 0, late], ["not_claimed", "order_cancelled"], "not_used"))


# --- orders


def _order_ids(world: QuietWorld, numbers: Array) -> pl.Series:
    return _padded(f"{world.name}-o", numbers)


def _order_events(world: QuietWorld, people: People, orders: Orders) -> pl.DataFrame:
    number = np.arange(len(orders.user))
    base = pl.DataFrame({"order_id": _order_ids(world, number), "currency": [CURRENCY] * len(number)})
    discount = pl.struct(kind=pl.lit("coupon"), amount_minor="coupon_off", funder=pl.lit("merchant"))
    promotion = pl.struct(kind=pl.lit("promotion"), amount_minor="promotion_off", funder=pl.lit("platform"))
    has_coupon = pl.col("coupon").is_not_null()
    taken = pl.concat_list(discount, promotion).list.filter(pl.element().struct.field("amount_minor") > 0)
    bought = (
        base.with_columns(
            user_id=_padded("u-", orders.user),
            channel=_picked(CHANNELS, orders.channel),
            store=pl.Series(np.where(orders.channel == CHANNELS.index("store"), orders.user % 20, -1)),
            region=_picked(REGIONS, people.region[orders.user]),
            gross_minor=pl.Series(orders.gross),
            net_minor=pl.Series(orders.net),
            cost_of_goods_minor=pl.Series(orders.cost),
            coupon=_padded(f"{world.name}-c", orders.coupon),
            coupon_off=pl.Series(orders.discount),
            promotion_off=pl.Series(orders.promotion),
        )
        .with_columns(
            store=pl.when(pl.col("store") >= 0).then(pl.format("store-{}", "store")),
            discounts=taken,
            coupon_ids=pl.when(has_coupon).then(pl.concat_list("coupon")),
        )
        .drop("coupon", "coupon_off", "promotion_off")
    )
    why = pl.Series(reasons(world.random("refunds"), len(number)))
    refund = base.with_columns(refund_minor=pl.Series(orders.refund), reason=why)
    return pl.concat(
        [
            _happened("order_id", "placed", SHOP, bought, orders.placed_at),
            _happened("order_id", "paid", SHOP, bought, orders.paid_at),
            _happened(
                "order_id",
                "cancelled",
                SHOP,
                base.with_columns(reason=pl.lit("payment_timeout")),
                orders.cancelled_at,
            ),
            _happened("order_id", "refunded", SHOP, refund, orders.refunded_at),
        ],
        how="diagonal",
    )


# --- campaigns and users


def _campaign_events(world: QuietWorld, campaigns: tuple[Campaign, ...], gifts: Gifts, orders: Orders) -> pl.DataFrame:
    size = len(campaigns)
    made = np.bincount(gifts.campaign, minlength=size)
    spent = np.bincount(gifts.campaign[orders.coupon[orders.coupon >= 0]], orders.discount[orders.coupon >= 0], size)
    base = pl.DataFrame({"campaign_id": [c.campaign_id for c in campaigns]}, schema={"campaign_id": pl.String})
    published = base.with_columns(
        name=pl.Series([c.name for c in campaigns], dtype=pl.String),
        mechanic=pl.Series(["flash_sale" if c.mode == FLASH else "coupon" for c in campaigns], dtype=pl.String),
        visibility=pl.Series(
            ["private" if c.mode in (PRIVATE, GRANTED, EXPERIMENT) else "public" for c in campaigns], dtype=pl.String
        ),
        quantity=pl.Series(_rounded(made * _STOCK + _SPARE, 100)),
        per_user_limit=pl.Series([c.per_user_limit for c in campaigns], dtype=pl.Int64),
        claim_from=_instants(np.array([c.claim_from for c in campaigns])),
        claim_until=_instants(np.array([c.claim_until for c in campaigns])),
        budget_minor=pl.Series(_rounded(spent * _BUDGET, 100_000)),
        currency=pl.lit(CURRENCY),
        applies_to=pl.lit('"all"'),
        funded_by=pl.lit('{"merchant":10000}'),
        **_terms(campaigns),
    )
    ended = np.array([c.claim_until for c in campaigns])
    events = [
        _happened("campaign_id", "published", MARKETING, published, np.array([c.published_at for c in campaigns])),
        _happened("campaign_id", "ended", MARKETING, base, np.where(ended < world.end_us, ended, 0)),
        *(_experiment_events(world, c) for c in campaigns if c.mode == EXPERIMENT),
    ]
    return pl.concat(events, how="diagonal").sort("occurred_at", "event_id")


def _rounded(numbers: Array, to: int) -> Array:
    return ((numbers // to + 1) * to).astype(np.int64)


def _experiment_events(world: QuietWorld, campaign: Campaign) -> pl.DataFrame:
    control, treated = arms_of(world)
    user = np.concatenate([control, treated])
    arm = (
        pl.Series(["control"])
        .new_from_index(0, len(control))
        .append(pl.Series(["coupon"]).new_from_index(0, len(treated)))
    )
    rows = pl.DataFrame({"user_id": _padded("u-", user), "arm": arm})
    rows = rows.with_columns(campaign_id=pl.lit(campaign.campaign_id))
    at = np.full(len(user), campaign.claim_from - HOUR)
    assigned = _happened("campaign_id", "assigned", MARKETING, rows, at)
    assigned = assigned.with_columns(event_id=pl.format("{}-assigned-{}", "campaign_id", "user_id"))
    plan = pl.DataFrame(
        {"campaign_id": [campaign.campaign_id] * 2, "metric": ["share:control", "share:coupon"], "target": [5_000] * 2}
    )
    targets = _happened("campaign_id", "target_set", MARKETING, plan, at[:2] - HOUR)
    targets = targets.with_columns(event_id=pl.format("{}-target-{}", "campaign_id", "metric"))
    return pl.concat([targets, assigned], how="diagonal")


def _user_events(world: QuietWorld, people: People, campaigns: tuple[Campaign, ...], gifts: Gifts) -> pl.DataFrame:
    """A profile of each customer, loaded in the night before the first day; and clicks before some of the claims."""
    random = world.random("touches")
    n = world.customers
    rows = pl.DataFrame({"user_id": _padded("u-", np.arange(n)), "region": _picked(REGIONS, people.region)})
    profiles = rows.select("user_id", attributes=pl.lit('{"region":"') + pl.col("region") + '"}')
    loaded = world.start_us - 4 * HOUR + np.sort(random.integers(0, HOUR, n))
    profiled = _happened("user_id", "profiled", CRM, profiles, loaded)
    number = np.flatnonzero((gifts.claimed_at > 0) & (random.random(len(gifts.user)) < 0.2))
    names = tuple(c.campaign_id for c in campaigns)
    clicks = pl.DataFrame(
        {
            "user_id": _padded("u-", gifts.user[number]),
            "campaign_id": _picked(names, gifts.campaign[number]),
            "kind": ["click"] * len(number),
            "channel": _picked(CHANNELS[:3], channels(random, len(number)) % 3),
        }
    )
    at = gifts.claimed_at[number] - random.integers(MINUTE // 6, 10 * MINUTE, len(number))
    touched = _happened("user_id", "touched", CRM, clicks, at)
    touched = touched.with_columns(event_id=pl.format("{}-click-{}", "user_id", pl.Series(number)))
    events = pl.concat([profiled, touched], how="diagonal")
    return events.with_columns(event_id=pl.lit(f"{world.name}-") + pl.col("event_id"))
