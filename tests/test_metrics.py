"""Every metric against a model that shares no code with it; zones, currencies, comparisons, late facts, the past."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest

from coupon_ledger.ledger.errors import NotThere, WrongQuestion
from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, KEY_FIELD, ORDER
from coupon_ledger.projections.live.apply import apply
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.local import Local
from coupon_ledger.questions.metrics.definitions import METRICS
from coupon_ledger.questions.metrics.periods import GRAINS, Buckets, Shift, Zone
from tests import metric_model
from tests.command_line import DATABASE, LOG, coupon_event, done, ledger, ndjson, one_sentence
from tests.folding import emptied, fold_in, scratch_store
from tests.metric_model import World, bucket_of, has, model, within, world

Row = dict[str, Any]
NEW_YORK = "America/New_York"
MODEL = model()
NOT_IN_THE_MODEL = {"claims_per_minute", "stock", "stock_left", "claims_per_minute_now", "minutes_to_sell_out"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("metrics")) as opened:
        yield opened


def fill(store: Store, told: World) -> None:
    for topic, deliveries in told.told.items():
        fold_in(store, apply, topic, [deliveries])


def ask(store: Store, *names: str, **given: Any) -> list[Row]:
    with closing(Local(store)) as local:
        return [r for frame in local.ask("metrics", names=",".join(names), **given).frames for r in frame.to_dicts()]


def members(rows: metric_model.Rows, slice_: Row, zone: ZoneInfo, grain: str | None) -> metric_model.Rows:
    """What lies in the slice of this row of an answer."""
    currency = slice_["currency"]

    def mine(row: Row) -> bool:
        return (
            (currency is None or (row.get("currency") or "XXX") == currency)
            and (grain is None or bucket_of(row["at"], grain, zone) == slice_["bucket"])
            and all(has(row, d, v, zone) for d, v in slice_.items() if d not in ("currency", "bucket"))
        )

    return within(rows, mine)


def same(found: float | None, wanted: float | None) -> bool:
    """Rates and quantiles within what floating point leaves open, all else to the unit."""
    if found is None or wanted is None or isinstance(found, int):
        return found == wanted
    return math.isclose(found, wanted, rel_tol=1e-9)


def check(store: Store, told: World, names: list[str], by: list[str], grain: str | None) -> None:
    """All rows of the answer, and that none is missing."""
    zone, rows = ZoneInfo(NEW_YORK), within(told.rows(), lambda _: True)
    answer = ask(store, *names, by=",".join(by) or None, grain=grain, zone=NEW_YORK)
    keys = [*by, *(["bucket"] if grain else [])]
    for row in answer:
        money = row.get("currency") is not None
        slice_ = {key: row[key] for key in keys} | {"currency": row.get("currency")}
        inside = members(rows, slice_, zone, grain)
        for name in names:
            if METRICS[name].money == money:
                assert same(row[name], MODEL[name](inside)), (name, slice_)
            else:
                assert row[name] is None, name
    for name in names:
        kinds = {str(METRICS[part].source) for part in METRICS[name].parts}
        if METRICS[name].additive and not ({"campaign", "coupon_type"} & set(by) and "coupon_orders" in kinds):
            values = [row[name] for row in answer if METRICS[name].money == (row.get("currency") is not None)]
            whole = MODEL[name](within(rows, lambda _: True))
            assert None in values or sum(values) == whole, name


def names_with(dimension: str | None) -> list[str]:
    return [n for n in MODEL if dimension is None or dimension in METRICS[n].dimensions]


def test_every_metric_has_a_model() -> None:
    """A metric that nothing is held against could be wrong for years."""
    assert set(METRICS) - NOT_IN_THE_MODEL == set(MODEL)


DIMENSIONS = (
    None, "campaign", "coupon_type", "channel", "segment", "store", "region", "reason", "weekday", "hour_of_day"
)  # fmt: skip


def agrees(store: Store, seed: int, dimension: str | None, grain: str | None) -> None:
    told = world(seed)
    print(f"seed {seed}")
    with emptied(store):
        fill(store, told)
        check(store, told, names_with(dimension), [dimension] if dimension else [], grain)


@pytest.mark.long
@pytest.mark.parametrize("dimension", [None, "campaign"])
def test_metrics_are_what_the_model_says_in_every_slice(store: Store, dimension: str | None) -> None:
    """Else two reports of the same sale would differ."""
    agrees(store, 1, dimension, None)


@pytest.mark.long
@pytest.mark.parametrize("grain", ["day"])
def test_metrics_are_what_the_model_says_in_every_bucket(store: Store, grain: str) -> None:
    """Clocks in New York are changed within these weeks."""
    agrees(store, 2, None, grain)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 104))
def test_many_worlds_agree_with_the_model(store: Store, seed: int) -> None:
    for dimension in DIMENSIONS:
        agrees(store, seed, dimension, None)
    for grain in ("day", "week", "month"):
        agrees(store, seed, "channel", grain)


# --- by hand


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class Events:
    """Events with ids of their own, at places of their own."""

    def __init__(self) -> None:
        self.told: dict[str, list[Delivery]] = {topic: [] for topic in INPUT_TOPICS}
        self._number = 0

    def tell(self, topic: str, key: str, kind: str, when: str, recorded: str | None = None, **fields: Any) -> None:
        self._number += 1
        event: Row = {"event_id": f"e{self._number}", "type": kind, "occurred_at": at(when), "source": "s"}
        event |= {KEY_FIELD[topic]: key, **fields}
        instant = round(at(recorded or when).timestamp() * 1_000_000)
        self.told[topic].append(Delivery(event, instant, 0, self._number))

    def coupon(self, coupon: str, *steps: tuple[str, str], campaign: str = "k", **fields: Any) -> None:
        own: dict[str, Row] = {
            "created": {"campaign_id": campaign, "coupon_type": "cash"},
            "issued": {"channel": "app"},
            "claimed": {"channel": "app", "user_id": "u"},
            "used": {"user_id": "u", "order_id": f"o-{coupon}", "discount_minor": 100},
        }
        for kind, when in steps:
            self.tell(COUPON, coupon, kind, when, **own[kind], **(fields if kind == "created" else {}))

    def paid(self, order: str, when: str, currency: str, gross: int, **fields: Any) -> None:
        amounts: Row = {"currency": currency, "gross_minor": gross, "net_minor": gross}
        self.tell(ORDER, order, "paid", when, user_id="u", **amounts, **fields)


@pytest.fixture
def told(store: Store) -> Iterator[Events]:
    with emptied(store):
        yield Events()


def asking(store: Store, told: Events, *names: str, **given: Any) -> list[Row]:
    for topic, deliveries in told.told.items():
        if deliveries:
            fold_in(store, apply, topic, [deliveries])
    told.told = {topic: [] for topic in INPUT_TOPICS}
    return ask(store, *names, **given)


def test_an_hour_that_comes_twice_is_two(store: Store, told: Events) -> None:
    """Else the night of a change of clocks shows double sales in one hour; and its day has 25 of them."""
    for n, when in enumerate(("2026-11-01T05:30", "2026-11-01T06:30", "2026-11-01T07:00", "2026-11-02T04:59")):
        told.coupon(f"c-{n}", ("created", when))
    hours = asking(
        store,
        told,
        "created_events",
        grain="hour",
        zone=NEW_YORK,
        since=at("2026-11-01T05:00"),
        until=at("2026-11-01T08:00"),
    )
    assert [(r["bucket"], r["created_events"]) for r in hours] == [
        ("2026-11-01 01:00-04:00", 1),
        ("2026-11-01 01:00-05:00", 1),
        ("2026-11-01 02:00-05:00", 1),
    ]
    [day] = asking(store, told, "created_events", "created_coupons", grain="day", zone=NEW_YORK)
    assert (day["bucket"], day["created_events"], day["starts_at"]) == ("2026-11-01", 4, datetime(2026, 11, 1, 4))


@pytest.mark.parametrize(
    "name",
    ["America/New_York", "Asia/Shanghai", "Australia/Lord_Howe", "Africa/Cairo", "Pacific/Apia", "Asia/Kathmandu"],
)
@pytest.mark.parametrize("grain", GRAINS)
def test_sql_and_calendar_agree_on_every_bucket(name: str, grain: str) -> None:
    """Around every change of clocks, by whole hours, half ones and a whole day."""
    zone = Zone(name)
    first, last = datetime(2011, 1, 1), datetime(2028, 1, 1)
    random_ = random.Random(name)
    moments = [first + timedelta(seconds=random_.randrange(17 * 31_536_000)) for _ in range(200)]
    for change, _ in zone.changes(first, last)[1:]:
        moments += [change + timedelta(minutes=m) for m in (-61, -60, -31, -30, -1, 0, 1, 29, 30, 31, 59, 60, 61)]
    buckets = Buckets(grain, zone)
    key_sql = buckets.key_sql("x.moment", min(moments), max(moments))
    asked = f"SELECT x.moment, {key_sql} FROM (SELECT unnest($moments::TIMESTAMP[]) AS moment) x"
    for moment, key in duckdb.execute(asked, {"moments": moments}).fetchall():
        local = moment.replace(tzinfo=UTC).astimezone(ZoneInfo(name))
        assert key == buckets.key(moment)
        assert buckets.start(key) <= moment < buckets.end(key)
        if not (name == "Australia/Lord_Howe" and grain == "hour"):  # an hour is cut in two there
            assert buckets.label(key) == bucket_of(local, grain, ZoneInfo(name)), moment


@pytest.mark.long
def test_currencies_are_apart_or_converted_and_never_added(store: Store, told: Events) -> None:
    """Else yen and yuan add up to a figure of nothing."""
    told.paid("o-1", "2026-11-11T01:00", "CNY", 1_000)
    told.paid("o-2", "2026-11-11T02:00", "CNY", 501)
    told.paid("o-3", "2026-11-11T03:00", "JPY", 200)
    apart = asking(store, told, "gmv_minor", "orders", "average_order_minor")
    assert {r["currency"]: (r["gmv_minor"], r["orders"], r["average_order_minor"]) for r in apart} == {
        "CNY": (1_501, None, 750.5),
        "JPY": (200, None, 200.0),
        None: (None, 3, None),
    }
    rates = [{"currency": "JPY", "rate": "0.05", "to": "CNY"}]  # 200 yen, without a minor unit, are 10 yuan
    both = {r["currency"]: r for r in ask(store, "gmv_minor", "orders", "average_order_minor", rates=rates)}
    assert (both["CNY"]["gmv_minor"], both[None]["orders"]) == (2_501, 3)
    assert both["CNY"]["average_order_minor"] == pytest.approx(2_501 / 3)
    [one] = ask(store, "gmv_minor", where={"currency": ["JPY"]})
    assert (one["currency"], one["gmv_minor"]) == ("JPY", 200)
    with pytest.raises(WrongQuestion, match="there is none for JPY; add it"):
        ask(store, "gmv_minor", rates=[{"currency": "USD", "rate": "7", "to": "CNY"}])


@pytest.mark.long
def test_nothing_to_divide_by_gives_no_figure(store: Store, told: Events) -> None:
    """Neither an error nor a 0 that looks like a bad campaign."""
    told.coupon("c", ("created", "2026-11-11T00:00"))
    rates = ("claim_rate", "use_rate", "cohort_use_rate", "coupon_order_share", "minutes_to_sell_out")
    [row] = asking(store, told, "claimed_events", *rates)
    assert row["claimed_events"] == 0
    assert all(row[name] is None for name in rates)
    [row] = ask(store, "coupon_gmv_minor", "simple_roi", "issue_to_claim_p50_s")[1:] or [{}]
    assert row["coupon_gmv_minor"] == 0 and row["simple_roi"] is None


@pytest.mark.long
def test_the_two_views_of_a_day_are_two_numbers(store: Store, told: Events) -> None:
    """Uses of that day; and of the coupons of that day, how many were used by now."""
    lived = [("created", "10T00:00"), ("issued", "10T01:00"), ("claimed", "10T02:00"), ("used", "11T02:00")]
    told.coupon("c-1", *((kind, f"2026-11-{when}") for kind, when in lived))
    told.coupon("c-2", ("created", "2026-11-11T00:00"), ("issued", "2026-11-11T01:00"), ("claimed", "2026-11-11T03:00"))
    days = asking(store, told, "used_events", "cohort_used", "cohort_use_rate", "use_rate", grain="day", zone="UTC")
    assert [(r["used_events"], r["cohort_used"], r["cohort_use_rate"], r["use_rate"]) for r in days] == [
        (0, 1, 1.0, 0.0),
        (1, 0, 0.0, 1.0),
    ]


def test_slices_stand_as_people_list_them(store: Store, told: Events) -> None:
    """Else campaign 10 is looked for behind campaign 9, and found behind campaign 1."""
    names = ["2", "10", "9a", "k-2", "k-10", "k-010", "1" * 256, "活动2", "活动10", "²"]
    for n, name in enumerate(reversed(names)):
        told.tell(COUPON, f"c-{n}", "created", "2026-11-11T01:00", campaign_id=name, coupon_type="cash")
    wanted = ["2", "9a", "10", "1" * 256, "k-2", "k-010", "k-10", "²", "活动2", "活动10"]
    assert [row["campaign"] for row in asking(store, told, "created_events", by="campaign")] == wanted
    by_day = ask(store, "created_events", by="campaign", grain="day")
    assert [row["campaign"] for row in by_day] == wanted


@pytest.mark.long
def test_an_order_with_two_coupons_counts_once_in_a_slice(store: Store, told: Events) -> None:
    for n, campaign in enumerate(("k-1", "k-1", "k-2")):
        told.coupon(f"c-{n}", ("created", "2026-11-11T00:00"), campaign=campaign)
        told.tell(COUPON, f"c-{n}", "used", "2026-11-11T01:00", user_id="u", order_id="o", discount_minor=5)
    told.paid("o", "2026-11-11T01:00", "CNY", 1_000)
    by = asking(store, told, "coupon_gmv_minor", by="campaign")
    assert [(r["campaign"], r["coupon_gmv_minor"]) for r in by] == [("k-1", 1_000), ("k-2", 1_000)]
    [both] = ask(store, "coupon_gmv_minor", where={"campaign": ["k-1", "k-2"]})
    assert both["coupon_gmv_minor"] == 1_000


@pytest.mark.long
def test_late_facts_are_announced_and_restated(store: Store, told: Events) -> None:
    """What a report said then can be asked again, and a report says which of its days may still change."""
    told.coupon("c-1", ("created", "2026-11-10T08:00"))
    told.coupon("c-2", ("created", "2026-11-11T00:10"))
    told.tell(
        COUPON, "c-3", "created", "2026-11-10T09:00", recorded="2026-11-11T00:12", campaign_id="k", coupon_type="cash"
    )
    days = asking(store, told, "created_events", grain="day", zone="UTC")
    assert [(r["bucket"], r["created_events"], r["open"]) for r in days] == [
        ("2026-11-10", 2, True),  # the clock, 00:10, has not passed its end by the grace of 15 minutes
        ("2026-11-11", 1, True),
    ]
    assert {r["data_clock"] for r in days} == {datetime(2026, 11, 11, 0, 10)}
    then = ask(store, "created_events", grain="day", zone="UTC", known_at=at("2026-11-11T00:11"))
    assert [r["created_events"] for r in then] == [1, 1]
    told.coupon("c-4", ("created", "2026-11-11T00:16"))
    days = asking(store, told, "created_events", grain="day", zone="UTC")
    assert [r["open"] for r in days] == [False, True]


@pytest.mark.slow
def test_every_metric_is_restated_as_it_was_known(store: Store) -> None:
    """As a ledger says it that had read no more."""
    told, names = world(3), names_with("campaign")
    known_at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=1_000_025)
    with emptied(store):
        fill(store, told)
        restated = ask(store, *names, by="campaign", known_at=known_at)
    before = {t: [d for d in ds if d.recorded_at <= 1_000_025] for t, ds in told.told.items()}
    assert all(0 < len(before[topic]) < len(told.told[topic]) for topic in (COUPON, ORDER))
    with emptied(store):
        fill(store, World(before))
        assert ask(store, *names, by="campaign") == restated


RESTATED = {
    "coupon_orders": "coupon_orders",
    "coupon_margin_minor": "coupon_margin_minor",
    "coupon_orders_without_cost": "coupon_orders_without_goods_cost",
    "discount_minor": "discount_cost_minor",
    "booked_minor": "other_cost_minor",
}
"""Columns of `restated`, and the metrics that they are."""


@pytest.mark.long
@pytest.mark.parametrize("seed", [5, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 18))])
def test_what_was_learned_is_the_whole_of_the_difference(store: Store, seed: int) -> None:
    """To the minor unit and the basis point, in every column; its two ends are what the metrics say of then and now."""
    told = world(seed)
    known_from = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=1_000_010 + seed % 20)
    steps = 0
    with emptied(store), closing(Local(store)) as local:
        fill(store, told)
        for campaign, options in ((None, {}), ("k-0", {"goods_rates": {"": 6000}}), ("k-1", {})):
            asked = {"known_from": known_from, "campaign": campaign, **options}
            found = [r for frame in local.ask("restated", **asked).frames for r in frame.to_dicts()]
            ends = {
                end: metrics_of(store, campaign, **options, **past)
                for end, past in (("known_then", {"known_at": known_from}), ("known_now", {}))
            }
            for currency in {row["currency"] for row in found}:
                lines = {row["line"]: row for row in found if row["currency"] == currency}
                causes = [row for name, row in lines.items() if not name.startswith("known_")]
                for column in found[0].keys() - {"line", "currency", "cases", "simple_roi_bp"}:
                    ended = [lines.get(end, {column: 0})[column] for end in ends]
                    assert ended[0] + sum(row[column] for row in causes) == ended[1], (column, lines)
                bp = [lines.get(end, {"simple_roi_bp": None})["simple_roi_bp"] for end in ends]
                if None not in bp:
                    assert bp[0] + sum(row["simple_roi_bp"] for row in causes) == bp[1]
                    steps += any(row["simple_roi_bp"] for row in causes)
                else:
                    assert {row["simple_roi_bp"] for row in causes} <= {None}
                for end, metrics in ends.items():
                    mine = metrics.get(currency or "XXX", {})
                    for column, metric in RESTATED.items():
                        if metric.endswith("_minor"):
                            assert lines.get(end, {column: 0})[column] == (mine.get(metric) or 0), (end, column, lines)
                    roi = mine.get("simple_roi")
                    told_bp = lines.get(end, {"simple_roi_bp": None})["simple_roi_bp"]
                    assert told_bp == (None if roi is None else pytest.approx(roi * 10_000, abs=0.5001))
            for end, metrics in ends.items():
                for column, metric in RESTATED.items():
                    if not metric.endswith("_minor"):
                        assert sum(row[column] for row in found if row["line"] == end) == (metrics[None][metric] or 0)
    assert steps, "some return moved"


def metrics_of(store: Store, campaign: str | None, **given: Any) -> dict[str | None, Row]:
    """Those of `RESTATED`, by currency; counts are of none."""
    where = None if campaign is None else {"campaign": [campaign]}
    return {row["currency"]: row for row in ask(store, *RESTATED.values(), "simple_roi", where=where, **given)}


@pytest.mark.long
def test_a_period_beside_the_one_before_and_last_years(store: Store, told: Events) -> None:
    for n, when in enumerate(("2025-11-11", "2026-11-09", "2026-11-10", "2026-11-11", "2026-11-11", "2026-11-12")):
        told.coupon(f"c-{n}", ("created", f"{when}T12:00"), campaign=f"k-{n % 2}")
    period = {"since": at("2026-11-11"), "until": at("2026-11-13"), "zone": "UTC"}
    [row] = asking(store, told, "created_events", compare="previous", **period)
    assert [row[f"created_events{s}"] for s in ("", "_before", "_change")] == [3, 2, 0.5]
    days = ask(store, "created_events", grain="day", compare="previous", **period)
    assert [(r["bucket"], r["created_events"], r["created_events_before"]) for r in days] == [
        ("2026-11-11", 2, 1),
        ("2026-11-12", 1, 1),
    ]
    years = ask(store, "created_events", grain="day", compare="last-year", **period)
    assert [(r["created_events_before"], r["created_events_change"]) for r in years] == [(1, 1.0), (0, None)]
    by = ask(store, "created_events", by="campaign", compare="previous", **period)
    assert [(r["campaign"], r["created_events"], r["created_events_before"]) for r in by] == [
        ("k-0", 1, 1),
        ("k-1", 2, 1),
    ]
    with pytest.raises(WrongQuestion, match="give --since"):
        ask(store, "created_events", compare="previous")


def test_months_are_compared_with_whole_months() -> None:
    """February is not the 28 days before March."""
    zone = Zone("Asia/Shanghai")
    since, until = zone.instant(datetime(2026, 3, 1)), zone.instant(datetime(2026, 4, 1))
    shift = Shift.between(since, until, zone, "previous", None)
    assert [zone.local(shift.instant(at, zone)) for at in (since, until)] == [
        datetime(2026, 2, 1),
        datetime(2026, 3, 1),
    ]
    weeks = Buckets("week", zone)
    last_year = Shift.between(since, until, zone, "last-year", weeks)
    assert last_year.key(datetime(2026, 3, 2), weeks) == datetime(2025, 3, 3), "Mondays both"


@pytest.mark.long
def test_targets_stand_beside_what_was_reached(store: Store, told: Events) -> None:
    """The last one that was set, of that campaign, in its currency."""
    told.coupon("c-1", ("created", "2026-11-11T00:00"), ("issued", "2026-11-11T01:00"), campaign="k-1", currency="CNY")
    told.coupon("c-2", ("created", "2026-11-11T00:00"), campaign="k-2")
    told.tell(COUPON, "c-1", "used", "2026-11-11T02:00", user_id="u", order_id="o", discount_minor=30)
    for when, metric, target in (("01", "created_events", 9), ("02", "created_events", 4), ("01", "claim_rate", 5_000),
                                 ("01", "discount_cost_minor", 60)):  # fmt: skip
        told.tell(CAMPAIGN, "k-1", "target_set", f"2026-11-{when}T00:00", metric=metric, target=target)
    asked = ("created_events", "claim_rate", "discount_cost_minor")
    rows = asking(store, told, *asked, by="campaign", compare="target")
    plain, money = ({r["campaign"]: r for r in rows if (r["currency"] is None) == no} for no in (True, False))
    assert (plain["k-1"]["created_events_target"], plain["k-1"]["created_events_reached"]) == (4, 0.25)
    assert plain["k-1"]["claim_rate_target"] == 0.5
    assert plain["k-2"]["created_events_target"] is None
    assert (money["k-1"]["discount_cost_minor_target"], money["k-1"]["discount_cost_minor_reached"]) == (60, 0.5)
    [both, *_] = ask(store, "created_events", where={"campaign": ["k-1", "k-2"]}, compare="target")
    assert both["created_events_target"] is None, "one of them has none"


@pytest.mark.long
def test_stock_is_left_until_it_is_sold_out(store: Store, told: Events) -> None:
    told.tell(CAMPAIGN, "k", "published", "2026-11-11T00:00", name="K", coupon_type="cash", quantity=25)
    for n in range(5):
        lived = [("created", "00:00"), ("issued", "00:30"), ("claimed", f"01:0{n}")]
        told.coupon(f"c-{n}", *((kind, f"2026-11-11T{when}") for kind, when in lived))
    [row] = asking(store, told, "stock_left", "claims_per_minute_now", "minutes_to_sell_out", by="campaign")
    assert (row["stock_left"], row["claims_per_minute_now"], row["minutes_to_sell_out"]) == (20, 0.5, 40)
    told.coupon("other", ("created", "2026-11-11T00:00"), campaign="free")
    rows = asking(store, told, "stock_left", "created_events", by="campaign")
    left = {row["campaign"]: row["stock_left"] for row in rows}
    assert left == {"k": 20, "free": None}, "what has no stock is not sold out"
    [row] = ask(store, "claims_per_minute", since=at("2026-11-11T00:54"), until=at("2026-11-12"))
    assert row["claims_per_minute"] == 0.5, "five in the ten minutes that have passed"


@pytest.mark.long
def test_margin_is_not_guessed(store: Store, told: Events) -> None:
    """An order without a cost of goods is no order without cost."""
    told.coupon("c-1", ("created", "2026-11-11T00:00"), ("used", "2026-11-11T01:00"))
    line = {"quantity": 1, "discount_minor": 0}
    lines = [
        {"sku": "a", "category": "food", "net_minor": 600, "cost_minor": None, **line},
        {"sku": "b", "category": "toys", "net_minor": 400, "cost_minor": 90, **line},
    ]
    told.paid("o-c-1", "2026-11-11T01:00", "CNY", 1_000, lines=lines)
    names = ("coupon_margin_minor", "simple_roi", "coupon_orders_without_goods_cost")
    rows = asking(store, told, *names)
    assert [(r["coupon_margin_minor"], r["simple_roi"]) for r in rows if r["currency"] == "CNY"] == [(None, None)]
    assert [r["coupon_orders_without_goods_cost"] for r in rows if r["currency"] is None] == [1]
    known = {r["currency"]: r for r in ask(store, *names, goods_rates={"food": 5000})}
    assert known["CNY"]["coupon_margin_minor"] == 1_000 - 300 - 90


@pytest.mark.long
def test_a_margin_of_some_orders_counts_these_alone(store: Store, told: Events) -> None:
    """One order without a figure must not blank the month; nor may it count as if its goods were free."""
    for n, cost in ((1, 300), (2, None)):
        told.coupon(f"c-{n}", ("created", "2026-11-11T00:00"), ("used", "2026-11-11T01:00"))
        told.paid(f"o-c-{n}", "2026-11-11T01:00", "CNY", 1_000, cost_of_goods_minor=cost)
    told.tell(ORDER, "o-c-1", "refunded", "2026-11-12T01:00", refund_minor=250)
    rows = asking(store, told, "coupon_margin_minor", "coupon_goods_cost_minor", "coupon_orders_without_goods_cost")
    [money] = [r for r in rows if r["currency"] == "CNY"]
    assert (money["coupon_margin_minor"], money["coupon_goods_cost_minor"]) == (750 - 225, 225), "a quarter went back"
    assert [r["coupon_orders_without_goods_cost"] for r in rows if r["currency"] is None] == [1]


@pytest.mark.long
def test_a_number_can_be_followed_to_its_rows(store: Store, told: Events) -> None:
    """Else finance has to believe it."""
    told.coupon("c-1", ("created", "2026-11-11T00:00"), ("issued", "2026-11-11T01:00"), ("claimed", "2026-11-11T02:00"))
    told.coupon("c-2", ("created", "2026-11-11T00:00"), ("issued", "2026-11-11T01:00"))
    asking(store, told, "claim_rate")
    with closing(Local(store)) as local:
        [frame] = local.ask("metric-explained", names="claim_rate", where={"campaign": ["k"]}, limit=1).frames
    parts = {r["part"]: r for r in frame.to_dicts()}
    assert {name: r["found"] for name, r in parts.items()} == {"claimed_events": 1, "open_issued_events": 2}
    assert [r["coupon_id"] for r in json.loads(parts["claimed_events"]["rows"])] == ["c-1"]
    assert "e.type = 'claimed'" in parts["claimed_events"]["sql"]


@pytest.mark.parametrize(
    ("names", "given", "said"),
    [
        ("nope", {}, "metric nope"),
        ("gmv_minor", {"by": "campaign"}, "has no campaign; ask it by channel"),
        ("orders", {"by": "colour"}, "dimension colour"),
        ("orders", {"where": "[]"}, "where: is no JSON object"),
        ("orders", {"zone": "Mars/Base"}, "zone Mars/Base: is not known"),
        ("orders", {"zone": "../etc/passwd"}, "is not known"),
        ("orders", {"grain": "decade"}, "grain decade"),
        ("orders", {"compare": "never"}, "comparison never"),
        ("orders", {"since": at("2026-11-12"), "until": at("2026-11-11")}, "ends before it begins"),
        ("stock_left", {"grain": "day"}, "in no period"),
        ("claims_per_minute", {}, "of how long a time"),
        ("created_events", {"compare": "target"}, "--by campaign"),
        ("created_events", {"compare": "target", "by": "campaign", "grain": "day"}, "leave out --grain"),
        ("gmv_minor", {"rates": []}, "lead to no currency"),
        ("gmv_minor", {"rates": [{"currency": "CNY", "rate": 0, "to": "USD"}]}, "a rate above 0"),
        ("gmv_minor", {"goods_rates": {"food": "much"}}, "basis points"),
    ],
)
def test_wrong_questions_are_told_what_to_ask(store: Store, names: str, given: Row, said: str) -> None:
    with pytest.raises((WrongQuestion, NotThere), match=re.escape(said)):
        ask(store, names, **given)


@pytest.mark.slow
def test_a_grain_too_fine_is_refused(store: Store, told: Events) -> None:
    """Else a question by minutes over years fills the memory beside the consumer."""
    told.coupon("c-1", ("created", "2020-11-11T00:00"))
    told.coupon("c-2", ("created", "2026-11-11T00:00"))
    with pytest.raises(WrongQuestion, match="more than 100,000 of them"):
        asking(store, told, "created_events", grain="minute")


# --- on the command line


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    order = {"topic": "order.events", "source": "shop", "type": "paid", "user_id": "u-1"}
    at = ("--log", f"sqlite:///{folder / LOG}")
    events = [
        coupon_event("created", "e-1", coupon_id="c-1", occurred_at="2026-11-10T15:59:59Z"),
        coupon_event("created", "e-2", coupon_id="c-2", occurred_at="2026-11-10T16:00:00Z"),
        coupon_event("used", "e-3", coupon_id="c-2", order_id="o-1", occurred_at="2026-11-10T17:00:00Z"),
        {**order, "event_id": "e-4", "order_id": "o-1", "occurred_at": "2026-11-10T17:00:00Z", "currency": "CNY",
         "gross_minor": 3_000, "net_minor": 2_500, "store": "s-1"},
        {**order, "event_id": "e-5", "order_id": "o-2", "occurred_at": "2026-11-10T17:00:00Z", "currency": "USD",
         "gross_minor": 1_000, "net_minor": 1_000},
    ]  # fmt: skip
    done("init", *at, "--database", folder / DATABASE)
    done("publish", "-", *at, stdin=ndjson(events))
    done("consume", *at, "--database", folder / DATABASE)
    return folder


@pytest.mark.long
def test_a_day_on_the_command_line_is_one_of_the_zone(shop: Path) -> None:
    """Else marketing's day begins at eight in the morning."""
    asked = ("metrics", "query", "created_events", "--since", "2026-11-11", "--database", shop / DATABASE, "-o", "json")
    assert [row["created_events"] for row in done(*asked).json] == [1]
    assert [row["created_events"] for row in done(*asked, "--zone", "America/New_York").json] == [0]


@pytest.mark.slow
def test_a_day_is_the_same_in_metrics_reports_and_reviews(shop: Path) -> None:
    """Else the same --since gives two figures of the same campaign, eight hours apart."""
    at = ("--database", shop / DATABASE)
    for zone, uses in (("Asia/Shanghai", 1), ("UTC", 0)):
        asked = ("--since", "2026-11-11", "--until", "2026-11-12", "--zone", zone, *at, "-o", "json")
        assert sum(row["net_uses"] or 0 for row in done("report", "roi", *asked).json) == uses
        assert sum(row["orders"] for row in done("report", "finance", "margin", *asked).json) == 2 * uses
        assert sum(row["net_uses"] for row in done("metrics", "query", "net_uses", *asked).json) == uses
        reviewed = done(
            "review", "k-1", "--section", "goal", "--at", "2026-11-11", "--zone", zone, *at, "--format", "json"
        ).json
        result = {row["metric"]: row["value"] for row in reviewed["sections"]["goal"]["tables"]["result"]}
        assert result["net_uses"] == 1 - uses, "by that day's first moment"
    one_sentence(ledger("report", "roi", "--zone", "Mars/Base", *at), 2, "Mars/Base")


@pytest.mark.long
def test_a_table_has_counts_and_amounts_in_one_row(shop: Path) -> None:
    line = done("metrics", "query", "coupon_orders", "coupon_gmv_minor", "--by", "store", "--database", shop / DATABASE)
    assert line.out.splitlines()[-1].split() == ["s-1", "1", "30.00"]
    by_store = ("metrics", "query", "orders", "--where", "store=", "--database", shop / DATABASE, "-o", "json")
    assert [row["orders"] for row in done(*by_store).json] == [1], "where it is not known"


@pytest.mark.long
def test_rates_convert_and_a_missing_one_is_named(shop: Path, tmp_path: Path) -> None:
    rates = tmp_path / "rates.csv"
    asked = ("metrics", "query", "gmv_minor", "--database", shop / DATABASE, "--rates", rates, "-o", "json")
    rates.write_text("currency,rate,to\nUSD,7.1,CNY\n", encoding="utf-8")
    assert [(row["currency"], row["gmv_minor"]) for row in done(*asked).json] == [("CNY", 10_100)]
    rates.write_text("currency,rate,to\nJPY,0.05,CNY\n", encoding="utf-8")
    assert "none for USD" in ledger(*asked).err
    rates.write_text("currency,rate\nUSD,7.1\n", encoding="utf-8")
    assert "has not the columns currency, rate, to" in ledger(*asked).err


@pytest.mark.long
def test_rates_of_goods_come_from_a_file_too(shop: Path, tmp_path: Path) -> None:
    """A supermarket has more categories than fit into a command, some with a comma in the name."""
    rates = tmp_path / "goods.csv"
    rates.write_text('category,percent\n"tea, green",40\n,60\n', encoding="utf-8")
    asked = ("metrics", "query", "coupon_margin_minor", "--database", shop / DATABASE, "-o", "ndjson")
    assert "1 coupon order has no known cost of goods" in done(*asked).err
    known = done(*asked, "--goods-rate", f"@{rates}")
    assert known.rows[0]["coupon_margin_minor"] == 1_000 and "no known cost" not in known.err
    assert "cannot be read" in ledger(*asked, "--goods-rate", "@nowhere.csv").err


def test_what_is_behind_a_number_is_shown(shop: Path) -> None:
    shown = done("metrics", "query", "discount_share", "--explain", "--database", shop / DATABASE).out
    assert "discount_cost_minor / nullif(coupon_gmv_minor, 0)" in shown and "c-2" in shown and "o-1" in shown
    assert "简单ROI" in done("metrics", "show", "simple_roi").out
    assert {row["name"] for row in done("metrics", "list", "-o", "json").json} == set(METRICS)
