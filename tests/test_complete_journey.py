"""The real year as events: its numbers, its money, and the rules that turn redemptions into uses."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from coupon_ledger.cli.sources import complete_journey
from coupon_ledger.cli.sources.complete_journey import Tables, events, in_time_order, load, translate
from coupon_ledger.ledger.codec import JSON_FIELDS, SCHEMA_NAME
from coupon_ledger.ledger.columns import polars_schema
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.events import parse_event
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER, USER
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.live.apply import apply

Frames = Mapping[str, pl.DataFrame]

BASKET = {"store_id": 1, "quantity": 1, "retail_disc": 0.0, "coupon_match_disc": 0.0}


@pytest.fixture(scope="module")
def tables() -> Tables:
    return load()


@pytest.fixture(scope="module")
def year(tables: Tables) -> Frames:
    return translate(tables)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def line(basket: int, time: str, product: int, coupon: float, sales: float = 5.0) -> dict[str, Any]:
    sold = {"household_id": 7, "basket_id": basket, "product_id": product, "sales_value": sales}
    return BASKET | sold | {"coupon_disc": coupon, "transaction_timestamp": at(time)}


def tiny(lines: list[dict[str, Any]], redeemed: list[tuple[int, str]], campaign_type: str = "Type B") -> Frames:
    """Household 7, campaign 3 (1 to 31 May), upcs 10 and 20 on products 1 and 2; `redeemed`: (upc, day)."""
    coupons = [(10, 1, 3), (10, 2, 3), (20, 1, 3), (20, 2, 3), (20, 2, 3)]
    redemptions = [(7, upc, 3, at(day)) for upc, day in redeemed]
    return translate(
        Tables(
            transactions=pl.DataFrame(lines),
            products=pl.DataFrame({"product_id": [1, 2], "product_category": ["BREAD", None]}),
            campaigns=pl.DataFrame({"campaign_id": [3], "household_id": [7]}),
            campaign_descriptions=pl.DataFrame(
                {
                    "campaign_id": [3],
                    "campaign_type": [campaign_type],
                    "start_date": [at("2017-05-01")],
                    "end_date": [at("2017-05-31")],
                }
            ),
            coupons=pl.DataFrame(coupons, ["coupon_upc", "product_id", "campaign_id"], orient="row"),
            coupon_redemptions=pl.DataFrame(
                redemptions,
                {
                    "household_id": pl.Int64,
                    "coupon_upc": pl.Int64,
                    "campaign_id": pl.Int64,
                    "redemption_date": pl.Datetime,
                },
                orient="row",
            ),
            demographics=pl.DataFrame({"household_id": [7], "age": ["65+"], "home_ownership": [None]}),
        )
    )


def of_type(frames: Frames, topic: str, kind: str) -> pl.DataFrame:
    return frames[topic].filter(type=kind)


def discounts(frames: Frames) -> list[int]:
    """Of the uses, by coupon id, then time."""
    used = of_type(frames, COUPON, "used").sort("coupon_id", "occurred_at", "event_id")
    return used["discount_minor"].to_list()


def orders_used(frames: Frames) -> list[str]:
    return of_type(frames, COUPON, "used").sort("coupon_id", "occurred_at")["order_id"].to_list()


def test_a_product_under_two_redeemed_coupons_is_split_and_the_lowest_upc_gets_the_remainder() -> None:
    lines = [line(100, "2017-05-02T10:00", 1, 1.01), line(100, "2017-05-02T10:00", 2, 0.50)]
    frames = tiny(lines, [(20, "2017-05-02"), (10, "2017-05-02")])
    assert discounts(frames) == [51 + 25, 50 + 25]
    assert orders_used(frames) == ["100", "100"]


def test_a_coupon_not_redeemed_has_no_share() -> None:
    frames = tiny([line(100, "2017-05-02T10:00", 1, 1.01)], [(20, "2017-05-02")])
    assert discounts(frames) == [101]


def test_a_redemption_that_repeats_on_one_day_is_a_use_of_its_own_and_shares() -> None:
    frames = tiny([line(100, "2017-05-02T10:00", 1, 1.01)], [(10, "2017-05-02"), (10, "2017-05-02")])
    assert discounts(frames) == [51, 50]
    assert of_type(frames, COUPON, "used")["event_id"].n_unique() == 2


@pytest.mark.parametrize(
    ("why", "lines", "order"),
    [
        (
            "a discount on the coupon's product before any coupon discount",
            [line(1, "2017-05-02T09:00", 9, 1.0), line(2, "2017-05-02T11:00", 1, 0.2)],
            "2",
        ),
        (
            "any coupon discount before none",
            [line(1, "2017-05-02T09:00", 1, 0.0), line(2, "2017-05-02T11:00", 9, 1.0)],
            "2",
        ),
        (
            "the earliest",
            [line(1, "2017-05-02T11:00", 1, 1.0), line(2, "2017-05-02T09:00", 1, 0.2)],
            "2",
        ),
        (
            "then the lowest id",
            [line(2, "2017-05-02T09:00", 1, 1.0), line(1, "2017-05-02T09:00", 1, 0.2)],
            "1",
        ),
        ("any basket of the day", [line(5, "2017-05-02T09:00", 9, 0.0)], "5"),
    ],
)
def test_choice_of_the_basket(why: str, lines: list[dict[str, Any]], order: str) -> None:
    frames = tiny([*lines, line(0, "2017-05-03T09:00", 1, 1.0)], [(10, "2017-05-02")])
    assert orders_used(frames) == [order], why


def test_a_redemption_without_a_basket_is_at_noon_on_an_order_that_is_not() -> None:
    frames = tiny([line(100, "2017-05-03T10:00", 1, 1.0)], [(10, "2017-05-02")])
    used = of_type(frames, COUPON, "used").row(0, named=True)
    assert used["occurred_at"] == datetime(2017, 5, 2, 12, tzinfo=UTC)
    assert used["discount_minor"] == 0
    assert used["order_id"] not in frames[ORDER]["order_id"]


def test_life_of_a_mailed_coupon() -> None:
    frames = tiny([line(100, "2017-05-02T10:00", 1, 1.0)], [(10, "2017-05-02")])
    life = frames[COUPON].filter(coupon_id="3-7-20").sort("occurred_at", "type")
    assert life["type"].to_list() == ["created", "issued", "expired"]
    assert life["occurred_at"].to_list() == [*[datetime(2017, 5, 1, tzinfo=UTC)] * 2, at("2017-06-01T00:00Z")]
    assert life["valid_until"][0] == at("2017-05-31T23:59:59.999999Z")
    used = frames[COUPON].filter(coupon_id="3-7-10")
    assert sorted(used["type"]) == ["created", "issued", "used"]


def test_type_a_has_sixteen_coupons_the_redeemed_ones_by_name() -> None:
    frames = tiny([line(100, "2017-05-02T10:00", 1, 1.0)], [(10, "2017-05-02")], "Type A")
    ids = sorted(of_type(frames, COUPON, "created")["coupon_id"])
    assert ids == ["3-7-10", *(f"3-7-unknown-{number:02d}" for number in range(1, 16))]


def test_an_order_states_what_was_paid_and_what_was_taken_off() -> None:
    bread = line(100, "2017-05-02T10:00", 1, 0.55, sales=2.89) | {"quantity": 2, "coupon_match_disc": 0.45}
    other = line(100, "2017-05-02T10:00", 2, 0.0, sales=1.10) | {"retail_disc": 0.29}
    paid = tiny([bread, other], [])[ORDER].row(0, named=True)
    assert (paid["gross_minor"], paid["net_minor"]) == (289 + 45 + 110 + 29, 234 + 110)
    assert {d["kind"]: d["amount_minor"] for d in paid["discounts"]} == {
        "coupon": 55,
        "match": 45,
        "promotion": 29,
    }
    assert [(x["sku"], x["category"], x["net_minor"], x["discount_minor"]) for x in paid["lines"]] == [
        ("1", "BREAD", 234, 100),
        ("2", None, 110, 29),
    ]


def test_nothing_is_paid_out_when_coupons_are_worth_more_than_the_goods() -> None:
    paid = tiny([line(100, "2017-05-02T10:00", 1, 2.0, sales=0.5)], [])[ORDER].row(0, named=True)
    assert (paid["gross_minor"], paid["net_minor"], paid["lines"][0]["net_minor"]) == (50, 0, -150)


def test_the_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(complete_journey, "find_spec", absent)
    with pytest.raises(LedgerError, match=r"pip install 'coupon-ledger\[retail\]'"):
        next(events())


@pytest.mark.slow
def test_numbers_of_the_year(year: Frames) -> None:
    coupons = dict(year[COUPON].group_by("type").len().iter_rows())
    assert coupons == {"created": 108_590, "issued": 108_590, "used": 2_102, "expired": 108_590 - 2_075}
    assert year[COUPON]["coupon_id"].n_unique() == 108_590
    assert (year[ORDER].height, year[USER].height, year[CAMPAIGN].height) == (155_848, 801, 2 * 27)


@pytest.mark.slow
def test_redemptions_of_the_year(year: Frames) -> None:
    used = of_type(year, COUPON, "used")
    assert used.height - used["coupon_id"].n_unique() == 27
    without = used.join(year[ORDER], on="order_id", how="anti")
    assert (without.height, without["order_id"].n_unique()) == (233, 233)
    named = used.join(year[ORDER], on="order_id")
    assert (named["user_id"] == named["user_id_right"]).all()
    assert (named["occurred_at"] == named["occurred_at_right"]).all()


@pytest.mark.slow
def test_every_use_lies_within_its_coupons_validity(year: Frames) -> None:
    created = of_type(year, COUPON, "created").select("coupon_id", "valid_from", "valid_until")
    used = of_type(year, COUPON, "used").select("coupon_id", "occurred_at").join(created, on="coupon_id")
    assert used.height == 2_102
    assert used["occurred_at"].is_between(used["valid_from"], used["valid_until"]).all()


@pytest.mark.slow
def test_event_ids_are_unique_and_the_same_again(year: Frames, tables: Tables) -> None:
    for topic, frame in translate(tables).items():
        assert frame.equals(year[topic])
        assert frame["event_id"].n_unique() == frame.height


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "column"),
    [("promotion", "retail_disc"), ("coupon", "coupon_disc"), ("match", "coupon_match_disc")],
)
def test_discounts_sum_to_the_sources_total(year: Frames, tables: Tables, kind: str, column: str) -> None:
    taken = year[ORDER].explode("discounts", empty_as_null=False).unnest("discounts").filter(kind=kind)
    assert taken["amount_minor"].sum() == cents(tables, column)


@pytest.mark.slow
def test_orders_agree_with_the_sources_sales(year: Frames, tables: Tables) -> None:
    orders = year[ORDER]
    lines = orders.explode("lines", empty_as_null=False).unnest("lines", separator=".")
    assert lines.height == 1_469_307
    paid = cents(tables, "sales_value") - cents(tables, "coupon_disc")
    assert lines["lines.net_minor"].sum() == paid
    # The 19 baskets whose coupons were worth more than the goods, by 26.58 dollars together.
    assert orders["net_minor"].sum() == paid + 2_658
    taken = pl.col("discounts").list.eval(pl.element().struct.field("amount_minor")).list.sum()
    assert orders.filter(pl.col("gross_minor") - taken != pl.col("net_minor")).height == 19


@pytest.mark.slow
def test_no_use_took_more_off_than_its_basket_had(year: Frames) -> None:
    coupon = pl.col("discounts").list.eval(
        pl.element().filter(pl.element().struct.field("kind") == "coupon").struct.field("amount_minor")
    )
    taken = of_type(year, COUPON, "used").group_by("order_id").agg(pl.col("discount_minor").sum())
    orders = year[ORDER].select("order_id", coupon=coupon.list.sum()).join(taken, on="order_id")
    assert (orders["discount_minor"] <= orders["coupon"]).all()


@pytest.mark.slow
def test_batches_hold_everything_in_time_order(year: Frames) -> None:
    batches = list(in_time_order(year, batch_rows=5_000))
    assert max(frame.height for _, frame in batches) <= 5_000
    months = [frame["occurred_at"][0].strftime("%Y-%m") for _, frame in batches]
    assert months == sorted(months)
    for topic, frame in year.items():
        assert pl.concat(f for t, f in batches if t == topic).equals(frame)


@pytest.mark.slow
def test_a_sample_of_every_type_is_valid(year: Frames) -> None:
    chosen = random.Random(seed := 20170101)
    print("seed", seed)
    for topic, frame in year.items():
        for (_,), rows in frame.group_by("type"):
            for index in chosen.sample(range(rows.height), min(rows.height, 300)):
                parse_event(topic, published(rows.row(index, named=True)))


def published(row: dict[str, Any]) -> dict[str, Any]:
    """A wire row as a producer would write it."""
    present = {name: value for name, value in row.items() if value is not None}
    return {name: json.loads(v) if name in JSON_FIELDS else v for name, v in present.items()}


def cents(tables: Tables, column: str) -> int:
    # Summed by the source's own decimals, not by the module's rounding.
    return int(tables.transactions[column].cast(pl.Decimal(18, 2)).sum() * 100)


@pytest.mark.slow
def test_rules_between_topics_of_the_year(year: Frames, tmp_path: Path) -> None:
    """Redemptions without a basket would go unseen, or every basket with a discount would be accused."""
    path = tmp_path / "year.duckdb"
    create_database(path)
    with open_database(path) as store:
        for topic, frame in year.items():
            with store.transaction():
                apply(store, topic, wired(topic, frame))
        found = dict(
            store.frame("SELECT violation, count(*) FROM violations WHERE scope = 'cross' GROUP BY ALL").iter_rows()
        )
        twice = store.rows("SELECT count(*) FROM violations WHERE violation = 'used_when_used'")
        again = store.frame(
            "SELECT key FROM violations WHERE violation = 'used_when_used' AND event_id IN"
            " (SELECT event_id FROM coupon_events WHERE type = 'used' AND order_id LIKE 'no-basket%')"
        )
    # Of the 233, five are second uses: their coupons stand as used on the order of the first.
    assert (found, again.height) == ({"orphan_use": 233 - 5}, 5)
    assert twice == [(27,)]


def wired(topic: str, frame: pl.DataFrame) -> pl.DataFrame:
    """As it comes from the log, recorded after the year."""
    schema = polars_schema(SCHEMA_NAME[topic])
    whole = frame.select(
        (pl.col(c) if c in frame.columns else pl.lit(None)).cast(t).alias(c) for c, t in schema.items()
    )
    return whole.with_columns(
        pl.col(pl.Datetime("us", "UTC")).dt.replace_time_zone(None),
        recorded_at=pl.lit(datetime(2019, 1, 1)),
        log_partition=pl.lit(0, pl.Int32),
        log_offset=pl.int_range(pl.len()),
    )
