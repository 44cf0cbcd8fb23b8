"""Who the customers are: scores, tiers, groups and projections against known cases, and against a plain count of the
same orders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from coupon_ledger.analysis import lifetime
from coupon_ledger.analysis.customers import TooLittleData, clusters, drivers, quintile, scored, tiered
from coupon_ledger.analysis.lifetime import CannotFit, Purchases, fit_purchases, fit_spend
from coupon_ledger.projections.database import open_database
from coupon_ledger.questions.customers import customers as questions
from coupon_ledger.questions.customers.customers import known
from tests.command_line import ledger, ndjson
from tests.test_finance import DAY, NOON, Data, coupon, event, paid

CDNOW = Path(__file__).with_name("data") / "cdnow.csv"


# ── Known cases ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long
def test_the_models_of_lifetime_value_give_what_their_authors_found() -> None:
    """On CDNOW's customers; a projection that is off by a tenth would send a budget to the wrong people."""
    cdnow = pl.read_csv(CDNOW).cast(pl.Float64)
    x, t_x, t, z = (cdnow[name].to_numpy() for name in ("x", "t_x", "T", "zbar"))
    bought = fit_purchases(x, t_x, t)
    assert (bought.r, bought.alpha, bought.a, bought.b) == pytest.approx((0.243, 4.414, 0.793, 2.426), abs=1e-3)
    spent = fit_spend(x, z)
    assert (spent.p, spent.q, spent.v) == pytest.approx((6.25, 3.74, 15.44), abs=1e-2)
    one = np.ones(1)
    assert bought.expected(39.0, 2 * one, 30.43 * one, 38.86 * one)[0] == pytest.approx(1.226, abs=1e-3)


@pytest.mark.long
def test_the_unit_of_time_and_money_does_not_matter() -> None:
    cdnow = pl.read_csv(CDNOW).cast(pl.Float64)
    x, t_x, t, z = (cdnow[name].to_numpy() for name in ("x", "t_x", "T", "zbar"))
    weeks, days = fit_purchases(x, t_x, t), fit_purchases(x, 7 * t_x, 7 * t)
    assert days.expected(70.0, x, 7 * t_x, 7 * t) == pytest.approx(weeks.expected(10.0, x, t_x, t), rel=1e-2)
    assert fit_spend(x, 100 * z).expected(x, 100 * z) == pytest.approx(100 * fit_spend(x, z).expected(x, z), rel=1e-2)


def test_who_never_came_again_may_still_be_there_and_many_silent_gaps_mean_gone() -> None:
    model = Purchases(0.25, 4.4, 0.8, 2.4)
    silent = model.alive(np.array([0.0, 20.0, 400.0]), np.array([0.0, 10.0, 10.0]), np.array([40.0, 400.0, 4000.0]))
    assert silent[0] == 1 and silent[1] < 0.01 and silent[2] < 1e-100


def test_the_account_of_all_guests_is_projected_too() -> None:
    """Thousands of orders under one id: a series that overflows would leave every customer without an answer."""
    model = Purchases(0.243, 4.414, 0.793, 2.426)
    guests = model.expected(90.0, np.array([5_000.0]), np.array([300.0]), np.array([300.1]))
    assert guests[0] == pytest.approx(
        840.4 / 0.63257 * model.alive(*np.array([[5_000.0], [300.0], [300.1]]))[0], rel=1e-2
    )
    x, t_x, t = np.array([[0.0, 3.0], [0.0, 30.0], [50.0, 90.0]])
    near, at_one = (Purchases(1.0, 10.0, a, 3.0).expected(90.0, x, t_x, t) for a in (1.0001, 1.0))
    assert at_one == pytest.approx(near, rel=1e-3), "a model whose `a` is one is a limit, not a division by zero"


@pytest.mark.long
def test_customers_who_tell_nothing_fit_nothing() -> None:
    """No warnings of numpy's either: all at one instant; all who came again came at once, and never after."""
    with pytest.raises(CannotFit, match="one instant"):
        fit_purchases(np.ones(60), np.zeros(60), np.zeros(60))
    again = np.r_[np.ones(60), np.zeros(1_000)]
    assert np.isfinite(
        fit_purchases(again, again, np.full(1_060, 50.0)).alive(again, again, np.full(1_060, 50.0))
    ).all()


@pytest.mark.long
def test_many_customers_are_fitted_to_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a million take minutes; what is found is that of the many."""
    random = np.random.default_rng(3)
    t = random.uniform(50, 100, 4_000)
    rate, stays = random.gamma(1.5, 1 / 10, 4_000), random.random(4_000) < 0.7
    x = random.poisson(rate * t * np.where(stays, 1, 0.4)).astype(float)
    t_x = np.where(x > 0, t * np.where(stays, 1, 0.4) * random.random(4_000) ** (1 / np.maximum(x, 1)), 0)
    of_all = fit_purchases(x, t_x, t).expected(30, x, t_x, t).mean()
    monkeypatch.setattr(lifetime, "FITTED", 1_000)
    assert fit_purchases(x, t_x, t).expected(30, x, t_x, t).mean() == pytest.approx(of_all, rel=0.1)


def test_who_buys_thousands_of_times_has_a_projection_too() -> None:
    """One shop that orders all day would leave a report of a million customers without an answer."""
    model = lifetime.Purchases(0.243, 4.414, 0.793, 2.426)
    x, t = np.array([0.0, 2.0, 60.0, 5_000.0, 20_000.0]), np.full(5, 20.0)
    for ahead in (1.0, 30.0, 500.0):
        found = model.expected(ahead, x, t, t)
        assert np.isfinite(found).all() and (np.diff(found) > 0).all()


@pytest.mark.long
def test_where_people_hardly_ever_leave_they_have_a_projection_too() -> None:
    """A shop without repeat buyers that left ended the report of its customers in a warning and in empty values.

    The wanted values are the series itself, summed with 60 decimals.
    """
    model = lifetime.Purchases(1.2843, 13.138, 1205.7, 21811.18)
    x, t = np.array([1.0, 5.0]), np.array([37.0, 52.0])
    lost = lifetime._stays(model.r + x, model.b + x, model.a + model.b + x - 1, 90 / (model.alpha + t + 90))
    assert 1 - lost == pytest.approx([0.18543577688842527, 0.35507764348113646], rel=1e-12)
    assert np.isfinite(model.expected(90.0, x, t, t)).all()
    busiest = lifetime.Purchases(0.3, 5.0, 20_000.0, 9.0).expected(90.0, np.array([30_000.0]), t[:1], t[:1])
    assert np.isfinite(busiest).all() and 0 <= busiest[0] < 100_000


def test_too_few_customers_carry_no_projection() -> None:
    few = np.ones(10)
    with pytest.raises(CannotFit):
        fit_purchases(few, few, 2 * few)
    with pytest.raises(CannotFit):
        fit_spend(few, few)


def test_equal_customers_get_equal_scores() -> None:
    """Else two people who did the same would get different offers; and where most bought once, once is no merit."""
    assert quintile(pl.Series([1] * 90 + [2] * 10)).to_list() == [1] * 90 + [5] * 10
    scores = quintile(pl.Series([1, 1, 1, 1, 2, 3, 4, 5, 6, 7])).to_list()
    assert scores == [1, 1, 1, 1, 3, 3, 4, 4, 5, 5]
    assert quintile(pl.Series([1, 2, 3, 4, 5]), low_is_best=True).to_list() == [5, 4, 3, 2, 1]
    assert quintile(pl.Series([0.5, 0.5]), low_is_best=True).to_list() == [5, 5]


def test_segments_and_tiers_follow_what_customers_did() -> None:
    rows = pl.DataFrame(
        {
            "recency_days": [1.0, 2.0, 50.0, 60.0, 400.0],
            "orders": [50, 1, 30, 3, 2],
            "net_sales_minor": [9000, 10, 8000, 400, 20],
            "coupon_order_share": [0.0, 1.0, 0.1, 0.9, 1.0],
        }
    )
    assert scored(rows)["segment"].to_list() == ["champion", "new", "loyal", "at_risk", "hibernating"]
    found = tiered(rows)
    assert found["high_value"].to_list() == [True, False, False, False, False]
    assert found["active"].to_list() == [True, True, False, False, False]
    assert found["bargain_hunter"].to_list() == [False, False, False, True, False]


@pytest.mark.slow
def test_planted_groups_are_found_again() -> None:
    random = np.random.default_rng(1)
    centres = [(1.0, 100.0), (200.0, 2.0), (200.0, 100.0)]
    points = np.concatenate([np.exp(random.normal(np.log(c), 0.1, (60, 2))) for c in centres])
    found = clusters(pl.DataFrame(points, schema=["recency_days", "orders"], orient="row"), ("recency_days", "orders"))
    assert found.choice.filter("chosen")["k"].to_list() == [3]
    groups = [set(found.cluster[n : n + 60].tolist()) for n in (0, 60, 120)]
    assert all(len(group) == 1 for group in groups) and len(set.union(*groups)) == 3
    with pytest.raises(TooLittleData):
        clusters(pl.DataFrame({"orders": [1] * 500}), ("orders",))


@pytest.mark.slow
def test_a_planted_driver_is_found_and_an_idle_one_is_not() -> None:
    """Of the idle feature the interval must hold one: no effect."""
    random = np.random.default_rng(2)
    works, idle = random.normal(size=4_000), random.normal(size=4_000)
    came = random.random(4_000) < 1 / (1 + np.exp(-(0.2 + np.log(2) * works)))
    told = drivers(pl.DataFrame({"works": works, "idle": idle, "came": came}), "came", ("works", "idle")).to_dicts()
    strong, weak = told
    assert strong["low"] < 2 * 1.0 < strong["high"] and strong["p"] < 1e-9 and strong["correlation"] > 0.2
    assert weak["low"] < 1 < weak["high"]


@pytest.mark.long
@pytest.mark.parametrize("came", [[True] * 5 + [False] * 95, [n < 50 for n in range(100)]])
def test_a_regression_that_the_data_do_not_carry_is_refused(came: list[bool]) -> None:
    """Too few of one outcome; or an outcome that the feature tells for certain."""
    rows = pl.DataFrame({"n": range(100), "came": came})
    with pytest.raises(TooLittleData):
        drivers(rows, "came", ("n",))


# ── A small shop ─────────────────────────────────────────────────────────────────────────────────────────────


def order(key: str, user: str, days: float, net: int, off: int = 0, **more: Any) -> Data:
    taken = [("promotion", off, None)] if off else []
    told = paid(key, net, taken, user_id=user, **more)  # type: ignore[arg-type]
    return told | {"occurred_at": (NOON + days * DAY).isoformat(), "event_id": f"paid-{key}"}


ORDERS = [
    order("a1", "ann", 0, 1000),
    order("a2", "ann", 20, 2000),
    order("a3", "ann", 40, 500, off=100),
    order("a4", "ann", 45, 900),
    order("b1", "bob", 1, 300),
    order("b2", "bob", 100, 300, currency="USD"),
    order("c1", "cat", 2, 800),
    order("d1", "dan", 3, 700),
    event("order.events", "cancelled", "d1", 4, reason="late"),
    order("e1", "eve", 5, 600),
    event("order.events", "refunded", "e1", 6, refund_minor=100),
]
COUPONS = [
    *coupon("k1", "k", "a2", 10),
    *coupon("k2", "k", "c1", 10),
    *coupon("k3", "k", None, 0),
]
for told in COUPONS:
    told["user_id"] = told.get("user_id") and {"k1": "ann", "k2": "cat", "k3": "cat"}[told["coupon_id"]]
TOUCHES = [
    {"topic": "user.events", "type": "touched", "event_id": f"t-{user}-{kind}", "user_id": user, "kind": kind,
     "occurred_at": NOON.isoformat(), "source": "web", "channel": "app", "campaign_id": "k"}
    for user, kind in (("ann", "view"), ("ann", "cart"), ("bob", "view"), ("cat", "view"), ("fay", "view"))
]  # fmt: skip
PROFILES = [
    {"topic": "user.events", "type": "profiled", "event_id": "p-ann", "user_id": "ann", "source": "crm",
     "occurred_at": NOON.isoformat(), "attributes": {"tag": "vip"}}
]  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("customers")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        told = [{k: v for k, v in e.items() if v is not None} for e in (*ORDERS, *COUPONS, *TOUCHES, *PROFILES)]
        for command in (("init",), ("publish", "-"), ("consume",)):
            ran = ledger(*command, stdin=ndjson(told))
            assert ran.code == 0, ran.err
        yield


def report(*arguments: str) -> list[Data]:
    ran = ledger("report", *arguments, "--output", "ndjson")
    assert ran.code == 0, ran.err
    return ran.rows


def test_customers_are_those_whose_orders_stand(shop: None) -> None:
    """dan cancelled, fay only looked; eve's refund is taken off; bob's dollars are none of his yuan."""
    with open_database(Path("coupon-ledger.duckdb"), read_only=True) as store:
        rows = {(row["user_id"], row["currency"]): row for row in known(store.cursor()).to_dicts()}
    assert set(rows) == {("ann", "CNY"), ("bob", "CNY"), ("bob", "USD"), ("cat", "CNY"), ("eve", "CNY")}
    ann = rows["ann", "CNY"]
    assert (ann["orders"], ann["net_sales_minor"], ann["coupon_orders"], ann["full_price_after"]) == (4, 4400, 1, 1)
    assert ann["mean_gap_days"] == pytest.approx(15) and ann["recency_days"] == pytest.approx(55)
    assert (ann["received"], ann["used"], rows["cat", "CNY"]["received"]) == (1, 1, 2)
    assert ann["discounted_net_minor"] == 2500 and ann["discounted_sales_share"] == pytest.approx(2500 / 4400)
    assert rows["eve", "CNY"]["net_sales_minor"] == 500 and ann["projected_minor"] is None


@pytest.mark.long
def test_customers_read_part_by_part_are_the_same(shop: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is in another part would be missing, or scored among fewer."""
    with open_database(Path("coupon-ledger.duckdb"), read_only=True) as store:
        whole = known(store.cursor())
        monkeypatch.setattr(questions, "_ORDERS_AT_ONCE", 2)
        assert known(store.cursor()).equals(whole)


@pytest.mark.long
def test_segments_add_up_to_all_customers(shop: None) -> None:
    rows = report("segments", "rfm")
    by_currency: dict[str, list[Data]] = defaultdict(list)
    for row in rows:
        by_currency[row["currency"]].append(row)
    assert sum(row["customers"] for row in by_currency["CNY"]) == 4
    assert sum(row["net_sales_minor"] for row in by_currency["CNY"]) == 4400 + 300 + 800 + 500
    assert sum(row["sales_share"] for row in by_currency["CNY"]) == pytest.approx(1)
    assert all(row["simple_roi"] is None for row in rows)


@pytest.mark.long
def test_a_segments_return_is_the_margin_of_its_coupon_orders_over_their_discount(shop: None) -> None:
    """ann's order of 2000 and cat's of 800 had a coupon of 10 each; of what was paid, 60% is the goods' cost."""
    rows = report("segments", "rfm", "--goods-rate", "60")
    told = {row["segment"]: (row["coupon_discount_minor"], row["simple_roi"]) for row in rows if row["simple_roi"]}
    assert sorted(told.values()) == [(10, 32.0), (10, 80.0)]


@pytest.mark.long
def test_who_used_a_coupon_was_new_or_returning(shop: None) -> None:
    """ann had bought before, cat had not: a campaign to win customers won one of two."""
    rows = {row["customer"]: row for row in report("segments", "at-use")}
    assert set(rows) == {"new", "returning"}
    shown = ("campaign_id", "uses", "share", "customers", "orders", "net_sales_minor", "discount_minor", "came_again")
    assert [rows["new"][name] for name in shown] == ["k", 1, 0.5, 1, 1, 800, 10, 0]
    assert [rows["returning"][name] for name in shown] == ["k", 1, 0.5, 1, 1, 2000, 10, 1]
    assert report("segments", "at-use", "--at", (NOON + timedelta(days=1.5)).isoformat()) == []


def test_coming_again_is_counted_of_those_who_had_the_time(shop: None) -> None:
    """ann came again 20 days after her first coupon, cat did not; the clock stands at day 100."""
    rows = {row["days"]: row for row in report("cohorts", "repurchase")}
    assert [(rows[n]["could"], rows[n]["came"]) for n in (7, 30, 60, 90)] == [(2, 0), (2, 1), (2, 1), (1, 0)]
    assert rows[30]["full_price"] == 1


@pytest.mark.long
def test_cohorts_follow_months_of_the_zone(shop: None) -> None:
    rows = {(row["cohort"], row["months_later"]): row for row in report("cohorts", "retention")}
    november = rows["2025-11-01", 0]
    assert (november["customers"], november["came"], november["open"]) == (4, 4, False)
    assert {later: row["came"] for (first, later), row in rows.items() if first == "2025-11-01"} == {
        0: 4,
        1: 1,
        2: 0,
        3: 1,
    }
    assert rows["2025-11-01", 3]["open"]
    nobody = {first: (row["customers"], row["came"]) for (first, _), row in rows.items() if first > "2025-11-01"}
    assert nobody == dict.fromkeys(("2025-12-01", "2026-01-01", "2026-02-01"), (0, 0)), "months without new customers"
    began = {row["cohort"] for row in report("cohorts", "coupon") if row["customers"]}
    assert began == {"2025-11-01", "2025-12-01"}


def test_the_way_from_looking_to_buying(shop: None) -> None:
    steps = {row["step"]: row["users"] for row in report("funnel", "behaviour")}
    assert steps == {"view": 4, "coupon": 2, "cart": 1, "ordered": 5, "paid": 5, "returned": 2}


@pytest.mark.long
def test_all_parts_are_shown_and_what_the_data_do_not_carry_is_refused(shop: None) -> None:
    ran = ledger("report", "segments")
    assert ran.code == 0 and "Segments by recency" in ran.out and "refused: " in ran.out
    assert ledger("report", "segments", "clusters").code == 2


@pytest.mark.long
def test_a_library_that_is_missing_is_named_with_the_remedy(shop: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics are an extra: who has not installed them must not read a traceback."""
    monkeypatch.setattr("coupon_ledger.analysis.find_spec", lambda _: None)
    for asked in (("report", "segments", "rfm"), ("review", "k", "--format", "html")):
        ran = ledger(*asked)
        assert ran.code != 0 and "coupon-ledger[" in ran.err and "Traceback" not in ran.err


@pytest.mark.long
def test_the_past_has_its_own_customers(shop: None) -> None:
    then = report("segments", "rfm", "--at", (NOON + timedelta(days=1.5)).isoformat())
    assert sum(row["customers"] for row in then) == 2


# ── Segments by rules ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long
def test_a_segment_is_defined_shown_counted_and_exported(shop: None) -> None:
    """The next campaign is sent to these ids, and to no others."""
    rule = "orders >= 2 AND currency = 'CNY'"
    made = ledger("segments", "define", "regular", "--rule", rule, "--why", "winter", "--operator", "mei")
    assert made.code == 0 and "1 customer " in made.out
    [listed] = ledger("segments", "list", "--output", "ndjson").rows
    assert (listed["name"], listed["rule"], listed["operator"], listed["reason"]) == ("regular", rule, "mei", "winter")
    assert [row["user_id"] for row in ledger("segments", "show", "regular", "--output", "ndjson").rows] == ["ann"]
    assert ledger("segments", "export", "regular").out.split() == ["user_id", "ann"]
    span = ("--since", "2025-11-20", "--until", "2025-12-20", "--every", "15d")
    sizes = ledger("segments", "size", "regular", *span, "--output", "ndjson").rows
    assert [row["customers"] for row in sizes] == [0, 1, 1]
    assert (
        ledger("segments", "define", "regular", "--rule", "used > 0", "--why", "again", "--operator", "mei").code == 0
    )
    assert ledger("segments", "export", "regular").out.split() == ["user_id", "ann", "cat"]


@pytest.mark.long
def test_a_tag_of_the_profile_can_be_asked_for(shop: None) -> None:
    rule = """attributes LIKE '%"tag":"vip"%'"""
    assert "1 customer " in ledger("segments", "define", "vip", "--rule", rule, "--why", "x", "--operator", "mei").out


@pytest.mark.parametrize(
    "rule",
    ["nonsense >", "price > 3", "user_id IN (SELECT a FROM read_csv('/etc/passwd'))", "orders + 1", "1; DROP TABLE x"],
)
def test_a_rule_can_name_nothing_but_what_is_known_of_customers(shop: None, rule: str) -> None:
    """Rules come from people, and are kept: none may read a file or another table."""
    ran = ledger("segments", "define", "odd", "--rule", rule, "--why", "x", "--operator", "mei")
    assert ran.code == 2 and "rule" in ran.err and "Traceback" not in ran.err
    assert ledger("segments", "show", "odd").code != 0
