"""The seeded sale day: the same seed, the same day; its shares; lives legal but for those made not so."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from coupon_ledger.cli.sources.simulate import World, sale_day
from coupon_ledger.ledger.codec import JSON_FIELDS
from coupon_ledger.ledger.events import parse_event
from coupon_ledger.ledger.rules import TRANSITIONS, types
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER

WORLD = World(seed=5, events=100_000, orders=True, frame_rows=20_000)
CANONICAL = pl.Enum(types(COUPON))


@pytest.fixture(scope="module")
def day() -> Mapping[str, pl.DataFrame]:
    return by_topic(WORLD)


@pytest.fixture(scope="module")
def arrived(day: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    return day[COUPON]


@pytest.fixture(scope="module")
def facts(arrived: pl.DataFrame) -> pl.DataFrame:
    """Without repeats, in canonical order within each coupon."""
    first = arrived.unique("event_id", keep="first", maintain_order=True)
    return first.sort("occurred_at", pl.col("type").cast(CANONICAL), "event_id")


def by_topic(world: World) -> Mapping[str, pl.DataFrame]:
    frames: dict[str, list[pl.DataFrame]] = {}
    for topic, frame in sale_day(world):
        frames.setdefault(topic, []).append(frame)
    return {topic: pl.concat(parts, how="diagonal") for topic, parts in frames.items()}


@pytest.mark.long
def test_the_same_seed_gives_the_same_day(day: Mapping[str, pl.DataFrame]) -> None:
    again = by_topic(replace(WORLD, frame_rows=7_000))
    for topic in (COUPON, CAMPAIGN):
        assert_frame_equal(again[topic], day[topic])
    assert_frame_equal(again[ORDER], day[ORDER])


@pytest.mark.long
def test_another_seed_gives_another_day(day: Mapping[str, pl.DataFrame]) -> None:
    other = by_topic(replace(WORLD, seed=6))
    for topic, frame in other.items():
        assert not frame["event_id"].is_in(day[topic]["event_id"].implode()).any()
    assert other[COUPON]["occurred_at"].sort().to_list() != day[COUPON]["occurred_at"].sort().to_list()


def test_orders_change_nothing_about_the_coupons(arrived: pl.DataFrame) -> None:
    assert_frame_equal(by_topic(replace(WORLD, orders=False))[COUPON], arrived)


def test_size_and_frames(arrived: pl.DataFrame) -> None:
    assert arrived.height == pytest.approx(WORLD.events, rel=0.02)
    assert arrived.height / arrived["coupon_id"].n_unique() == pytest.approx(3.3, rel=0.03)
    sizes = [frame.height for topic, frame in sale_day(WORLD) if topic == COUPON]
    assert set(sizes[:-1]) == {WORLD.frame_rows}


@pytest.mark.parametrize("events", [1, 30, 1_000])
def test_a_small_world_is_one_too(events: int) -> None:
    assert by_topic(World(events=events, orders=True))[COUPON].height >= 1


def test_repeats_are_an_earlier_record_once_more(arrived: pl.DataFrame, facts: pl.DataFrame) -> None:
    repeats = arrived.height - facts.height
    assert repeats / arrived.height == pytest.approx(WORLD.repeat_share, rel=0.05)
    assert arrived.unique().height == facts.height


def test_late_events_come_after_many_that_should_follow_them(facts: pl.DataFrame, arrived: pl.DataFrame) -> None:
    first = arrived.unique("event_id", keep="first", maintain_order=True)
    due = facts.select("event_id", due=pl.int_range(pl.len()))
    came = first.select("event_id", came=pl.int_range(pl.len()))
    by = due.join(came, on="event_id").select(by=pl.col("came") - pl.col("due"))
    late = by.filter(pl.col("by") > 0.003 * facts.height)
    assert late.height / facts.height == pytest.approx(WORLD.late_share, rel=0.05)
    assert by.filter(pl.col("by") > 0.11 * facts.height).is_empty()


def test_illegal_share(facts: pl.DataFrame) -> None:
    seconds = illegal_events(facts)
    owners = facts.filter(type="claimed").select("coupon_id", owner="user_id")
    uses = facts.filter(type="used").join(owners, on="coupon_id")
    granted = facts.filter(pl.col("type") == "issued", pl.col("user_id").is_not_null())
    direct = facts.filter(type="used").join(granted.select("coupon_id", owner="user_id"), on="coupon_id")
    thefts = pl.concat([uses, direct]).filter(pl.col("user_id") != pl.col("owner"))
    assert set(seconds) == {"used_when_used"}
    assert (len(seconds) + thefts.height) / facts.height == pytest.approx(WORLD.illegal_share, rel=0.1)


def illegal_events(facts: pl.DataFrame) -> list[str]:
    """What the transition table calls illegal, folded the plainest way."""
    found = []
    state: dict[str, str] = {}
    resting: dict[str, str] = {}
    for coupon, kind in facts.select("coupon_id", "type").iter_rows():
        before = state.get(coupon, "none")
        after = TRANSITIONS[kind][STATES[before]]
        if after.endswith("!"):
            found.append(f"{kind}_when_{before}")
            after = after[:-1]
        if after in ("reserved", "used") and before not in ("reserved", "used"):
            resting[coupon] = before
        state[coupon] = resting[coupon] if after == "resting" else after
    return found


STATES = {
    state: number
    for number, state in enumerate(["none", "created", "issued", "claimed", "reserved", "used", "expired", "revoked"])
}


def test_events_lie_within_the_coupons_validity(facts: pl.DataFrame) -> None:
    validity = facts.filter(type="created").select("coupon_id", first="valid_from", last="valid_until")
    held = facts.filter(pl.col("type").is_in(["claimed", "reserved", "used"])).join(validity, on="coupon_id")
    assert held["occurred_at"].is_between(held["first"], held["last"]).all()


def test_campaigns_and_users_are_skewed(facts: pl.DataFrame) -> None:
    made = facts.filter(type="created")["campaign_id"].value_counts(sort=True)["count"].to_list()
    assert len(made) == WORLD.campaigns
    assert made[0] / made[9] == pytest.approx(10**WORLD.campaign_skew, rel=0.25)
    claims = facts.filter(type="claimed")["user_id"].value_counts(sort=True)["count"].to_list()
    assert sum(claims[: len(claims) // 10]) > 0.3 * sum(claims)


def test_the_first_minutes_are_a_burst(facts: pl.DataFrame) -> None:
    minutes = facts.filter(type="claimed").group_by(pl.col("occurred_at").dt.truncate("1m")).len()
    busiest = minutes.sort("len", descending=True)["occurred_at"].head(5)
    assert WORLD.start in busiest.to_list()
    assert minutes.filter(pl.col("len") > 50 * pl.col("len").median()).height > 3


def test_event_ids_are_unique_over_the_topics(day: Mapping[str, pl.DataFrame], facts: pl.DataFrame) -> None:
    ids = pl.concat([facts["event_id"], day[ORDER]["event_id"], day[CAMPAIGN]["event_id"]])
    assert ids.n_unique() == ids.len()
    assert ids.str.len_chars().min() == 32


def test_orders_say_what_the_uses_say(day: Mapping[str, pl.DataFrame], facts: pl.DataFrame) -> None:
    used = facts.filter(type="used").select("coupon_id", "order_id", "user_id", "occurred_at", "discount_minor")
    paid = (
        day[ORDER]
        .filter(type="paid")
        .select(
            pl.col("coupon_ids").list.first().alias("coupon_id"),
            "order_id",
            "user_id",
            "occurred_at",
            pl.col("discounts").list.first().struct.field("amount_minor").alias("discount_minor"),
        )
    )
    assert_frame_equal(paid, used, check_row_order=False)
    returned = facts.filter(type="returned").select("order_id", "occurred_at")
    refunded = day[ORDER].filter(type="refunded").select("order_id", "occurred_at")
    assert_frame_equal(refunded, returned, check_row_order=False)


def test_an_orders_money_adds_up(day: Mapping[str, pl.DataFrame]) -> None:
    paid = day[ORDER].filter(type="paid")
    off = paid["discounts"].list.first().struct.field("amount_minor")
    assert (paid["gross_minor"] - off == paid["net_minor"]).all()
    assert (paid["net_minor"] > 0).all()
    coupons = day[COUPON].filter(type="created").select(pl.col("coupon_id"), "min_spend_minor").unique()
    spent = paid.with_columns(coupon_id=pl.col("coupon_ids").list.first()).join(coupons, on="coupon_id")
    assert (spent["gross_minor"] >= spent["min_spend_minor"].fill_null(0)).all()


def test_campaigns_stock_is_what_was_made(day: Mapping[str, pl.DataFrame], facts: pl.DataFrame) -> None:
    published = day[CAMPAIGN].filter(type="published").select("campaign_id", "quantity")
    made = facts.filter(type="created").group_by("campaign_id").agg(quantity=pl.len().cast(pl.Int64))
    assert_frame_equal(published, made, check_row_order=False)


def test_a_sample_of_every_type_is_valid(day: Mapping[str, pl.DataFrame]) -> None:
    chosen = random.Random(seed := 1111)
    print("seed", seed)
    for topic, frame in day.items():
        for (kind,), rows in frame.group_by("type"):
            assert kind in types(topic)
            for index in chosen.sample(range(rows.height), min(rows.height, 200)):
                parse_event(topic, published(rows.row(index, named=True)))


def published(row: dict[str, Any]) -> dict[str, Any]:
    """A wire row as a producer would write it."""
    present = {name: value for name, value in row.items() if value is not None}
    return {name: json.loads(v) if name in JSON_FIELDS else v for name, v in present.items()}
