"""What coupons cost and who bears it: every split sums to what was split, every statement balances, and what is
doubtful is said."""

from __future__ import annotations

import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest

from coupon_ledger.cli.sources.complete_journey import load
from coupon_ledger.ledger import lifecycle
from coupon_ledger.ledger.codec import micros
from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.topics import ORDER
from coupon_ledger.projections.connection import sql
from coupon_ledger.projections.live.apply import apply
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.finance.statement import MOVES, OUT, statement
from coupon_ledger.questions.metrics.periods import Zone
from tests.command_line import done, ledger, ndjson
from tests.folding import fold_in, scratch_store
from tests.histories import START
from tests.test_verify import consumed

Data = dict[str, Any]
DAY = timedelta(days=1)
NOON = datetime(2025, 11, 11, 12, tzinfo=UTC)


# ── Statements ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with consumed(tmp_path_factory.mktemp("finance"), 13) as (_, store):
        yield store


def by_the_reference(store: Store, since: datetime | None, until: datetime | None) -> dict[Any, Counter[str]]:
    """Per campaign and currency, from the reference fold of every coupon."""
    rows = store.frame("SELECT * FROM coupon_events").drop("key_hash").to_dicts()
    of: dict[str, list[Delivery]] = defaultdict(list)
    for row in rows:
        at = [row.pop(name) for name in ("recorded_at", "log_partition", "log_offset")]
        of[row["coupon_id"]].append(Delivery(row, micros(at[0].replace(tzinfo=UTC)), at[1], at[2]))
    found: dict[Any, Counter[str]] = defaultdict(Counter)
    for deliveries in of.values():
        folded = lifecycle.fold(deliveries)
        coupon = folded.coupon
        account = found[coupon.campaign_id, coupon.currency]
        for step in folded.steps:
            was, is_ = step.before in OUT, step.after in OUT
            if was == is_:
                continue
            move = step.after if was else "returned" if step.before == "used" else "issued"
            move = "released" if was and step.event["type"] == "released" else move
            assert move in MOVES
            at = step.event["occurred_at"]
            worth = coupon.face_value_minor or 0
            if until is None or at < until:
                sign, unknown = 1 if is_ else -1, coupon.face_value_minor is None
                account.update(
                    {"closing_coupons": sign, "closing_minor": sign * worth, "closing_unknown": sign * unknown}
                )
            if since is not None and at < since:
                account.update(
                    {"opening_coupons": sign, "opening_minor": sign * worth, "opening_unknown": sign * unknown}
                )
            elif until is None or at < until:
                account.update({f"{move}_coupons": 1, f"{move}_minor": worth, f"{move}_unknown": int(unknown)})
    return found


@pytest.mark.parametrize(
    ("first", "last"), [(None, None), (timedelta(minutes=1), timedelta(minutes=3)), (timedelta(minutes=2), None)]
)
def test_a_statement_has_every_move_and_balances(world: Store, first: timedelta | None, last: timedelta | None) -> None:
    """Finance books the liability by it: a coupon too many is money that is not owed."""
    start = START.replace(tzinfo=None)
    since, until = (None if part is None else start + part for part in (first, last))
    wanted = by_the_reference(world, since, until)
    by_rows, folded = (statement(world, None, since, until, by_rows=rows) for rows in (True, False))
    assert by_rows.equals(folded)
    found = {(row["campaign_id"], row["currency"]): row for row in by_rows.to_dicts()}
    assert {key for key, account in wanted.items() if any(account.values())} <= set(found)
    assert {row["closing_minor"] is None for row in found.values()} == {True, False}
    assert len(found) > 2 and (since or until or any(row["returned_coupons"] for row in found.values()))
    for key, row in found.items():
        account = wanted[key]
        parts = ("opening", *MOVES, "closing")
        assert row["closing_without_value"] == account["closing_unknown"]
        assert row["without_value"] == account["issued_unknown"]
        for part in parts:
            coupons, unknown = account[f"{part}_coupons"], account[f"{part}_unknown"]
            assert row[f"{part}_coupons"] == coupons, (key, part)
            known = None if coupons and coupons == unknown else account[f"{part}_minor"]
            assert row[f"{part}_minor"] == known, (key, part, "not known is not 0")
        for unit in ("coupons", "minor"):
            signs = {"opening": 1, "closing": -1} | {move: 1 if move in MOVES[:2] else -1 for move in MOVES}
            assert sum(sign * (row[f"{part}_{unit}"] or 0) for part, sign in signs.items()) == 0


def test_a_statement_goes_on_where_the_last_one_ended(world: Store) -> None:
    """Else a month would be lost between two of them."""
    middle = START.replace(tzinfo=None) + timedelta(minutes=2)
    closing = statement(world, until=middle).select("campaign_id", "currency", "closing_coupons", "closing_minor")
    opening = statement(world, since=middle).select("campaign_id", "currency", "opening_coupons", "opening_minor")
    kept = closing.filter(pl.col("closing_coupons") != 0).rows()
    assert kept and set(kept) == set(opening.filter(pl.col("opening_coupons") != 0).rows())


# ── A small world, counted by hand ───────────────────────────────────────────────────────────────────────────


def event(topic: str, kind: str, key: str, days: float = 0, **fields: Any) -> Data:
    name = {"coupon.events": "coupon_id", "order.events": "order_id", "campaign.events": "campaign_id"}[topic]
    at = (NOON + days * DAY).isoformat()
    return {
        "topic": topic,
        "type": kind,
        "event_id": f"{kind}-{key}-{days}",
        "occurred_at": at,
        "source": "shop",
        name: key,
        **fields,
    }


def coupon(key: str, campaign: str, order: str | None, discount: int, currency: str = "CNY") -> Iterator[Data]:
    topic = "coupon.events"
    carried = {"campaign_id": campaign, "coupon_type": "cash", "face_value_minor": 1000, "currency": currency}
    yield event(topic, "created", key, -3, **carried)
    yield event(topic, "issued", key, -2, user_id="u", channel="app")
    if order:
        yield event(topic, "used", key, 0, user_id="u", order_id=order, discount_minor=discount)


def paid(key: str, net: int, discounts: list[tuple[str, int, str | None]], **fields: Any) -> Data:
    taken = [{"kind": kind, "amount_minor": amount, "funder": funder} for kind, amount, funder in discounts]
    head = {"user_id": "u", "currency": "CNY", "gross_minor": net + sum(d[1] for d in discounts), "net_minor": net}
    return event("order.events", "paid", key, 0, **{**head, "discounts": taken, "channel": "app", **fields})


WORLD: list[Data] = [
    event("campaign.events", "published", "k", -4, name="K", coupon_type="cash",
          funded_by={"brand": 3333, "merchant": 3333, "platform": 3334}, budget_minor=2_000, currency="CNY"),
    event("campaign.events", "published", "half", -4, name="H", coupon_type="cash", funded_by={"brand": 5000}),
    event("campaign.events", "cost_booked", "k", -1, cost_kind="media", amount_minor=700, currency="CNY"),
    event("campaign.events", "cost_booked", "k", -0.5, cost_kind="media", amount_minor=-200, currency="CNY"),
    *coupon("c1", "k", "o1", 1001),
    *coupon("c2", "half", "o1", 301),
    *coupon("c3", "none", "o2", 50),
    *coupon("c4", "k", "gone", 77),
    *coupon("c5", "k", None, 0),
    *coupon("c6", "k", "o5", 40, currency="USD"),
    paid("o1", 5000, [("coupon", 1400, "brand"), ("promotion", 99, "merchant")], cost_of_goods_minor=4000),
    paid("o2", 800, [("coupon", 50, "merchant")], channel="web", coupon_ids=["c3", "nobody"],
         lines=[{"sku": "s", "category": "TEA", "quantity": 2, "net_minor": 300, "cost_minor": 350},
                {"sku": "t", "category": "CUP", "quantity": 1, "net_minor": 500}]),
    paid("o3", 900, [("promotion", 500, None)]),
    event("order.events", "cancelled", "o3", 1, reason="late"),
    paid("o4", 600, [("member", 60, None)]),
    event("order.events", "refunded", "o4", 2, refund_minor=650),
    paid("o5", 0, [("coupon", 40, None)]),
    paid("o6", 1000, [("promotion", 5, "merchant")], currency="USD", cost_of_goods_minor=1500),
]  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        assert ledger("init").code == 0
        assert ledger("publish", "-", stdin=ndjson(WORLD)).code == 0
        assert ledger("consume").code == 0
        yield


def told(*arguments: str) -> list[Data]:
    ran = ledger("report", "finance", *arguments, "--output", "ndjson")
    assert ran.code == 0, ran.err
    return ran.rows


def split(by: str, *more: str) -> dict[tuple[Any, ...], int]:
    names = by.split(",")
    return {
        (*(row[n] for n in names), row["currency"]): row["discount_minor"] for row in told("split", "--by", by, *more)
    }


def test_discounts_are_of_orders_that_stand_and_of_coupons_in_use(shop: None) -> None:
    """A cancelled or refunded order's promotion cost nothing; a coupon used on nobody's order did."""
    coupons = 1400 + 50 + 77 + 40
    assert split("kind") == {
        ("promotion", "CNY"): 99, ("coupon", "CNY"): coupons, ("promotion", "USD"): 5,
    }  # fmt: skip


def test_the_funders_shares_of_a_discount_sum_to_it(shop: None) -> None:
    """A cent that nobody bears would be missing at the end of the year. 1400 of coupons, as o1 says, are 98 more than
    what c1 and c2 took. The uses of k come to 1118: 372.6 for brand and merchant, 372.7 for the platform."""
    assert split("kind,funder") == {
        ("coupon", "brand", "CNY"): 373 + 151 + 98,
        ("coupon", "merchant", "CNY"): 372 + 50,
        ("coupon", "platform", "CNY"): 373,
        ("coupon", None, "CNY"): 150,
        ("promotion", "merchant", "CNY"): 99,
        ("promotion", "merchant", "USD"): 5,
    }  # fmt: skip


def test_discounts_by_campaign(shop: None) -> None:
    assert split("campaign") == {
        ("k", "CNY"): 1001 + 77 + 40, ("half", "CNY"): 301, ("none", "CNY"): 50, (None, "CNY"): 98 + 99,
        (None, "USD"): 5,
    }  # fmt: skip
    assert split("kind", "--campaign", "k") == {("coupon", "CNY"): 1118}


def test_every_split_sums_to_the_same(shop: None) -> None:
    """Else two people would tell two totals."""
    parts = ("kind", "campaign", "coupon-type", "channel", "store", "funder,day", "category", "category,funder")
    totals = [Counter[str]() for _ in parts]
    for by, total in zip(parts, totals, strict=True):
        for row in told("split", "--by", by):
            total[row["currency"]] += row["discount_minor"]
    assert all(total == totals[0] for total in totals), totals
    explained = Counter[str]()
    for row in told("split", "--explain"):
        explained[row["currency"]] += row["amount_minor"]
    assert explained == totals[0]
    by_goods = Counter[str]()
    for row in told("categories"):
        by_goods[row["currency"]] += row["discount_minor"]
    assert by_goods == totals[0]


def test_a_discount_is_spread_over_the_lines_of_its_order(shop: None) -> None:
    """Of o2 the coupon took 50 off 300 of tea and 500 of cups; the others have no lines, and are not forgotten."""
    assert split("category") == {
        ("TEA", "CNY"): 19, ("CUP", "CNY"): 31, ("(no lines)", "CNY"): 1400 + 77 + 40 + 99, ("(no lines)", "USD"): 5,
    }  # fmt: skip
    rest = next(r for r in told("categories") if (r["category"], r["currency"]) == ("(no lines)", "CNY"))
    assert (rest["orders"], rest["net_minor"], rest["margin_minor"], rest["lines_without_cost"]) == (2, 5000, 1000, 1)


def by_largest_remainder(amount: int, lines: list[Data]) -> list[int]:
    """The model: exact fractions, then a unit each for those that lost most by rounding down."""
    for weights in ([line["discount_minor"] or 0 for line in lines], [line["net_minor"] for line in lines]):
        if max(weights := [max(w, 0) for w in weights]) > 0:
            break
    else:
        weights = [1] * len(lines)
    exact = [Fraction(abs(amount) * weight, sum(weights)) for weight in weights]
    parts = [math.floor(part) for part in exact]
    for n in sorted(range(len(lines)), key=lambda n: (parts[n] - exact[n], n))[: abs(amount) - sum(parts)]:
        parts[n] += 1
    return parts if amount >= 0 else [-part for part in parts]


@pytest.mark.long
def test_every_discount_is_spread_to_the_minor_unit(tmp_path: Path) -> None:
    """Cents lost by rounding would be missing from the year; amounts up to the largest that an event may carry."""
    random_ = random.Random("spread")
    big = 2**53 - 1
    sizes = (0, 1, 2, 7, 100, 9_999, big)
    orders: dict[str, list[Data]] = {}
    for n in range(150):
        told = random_.random() < 0.5
        orders[f"o{n}"] = [
            {
                "sku": f"s{i}", "category": random_.choice(["A", "B", None]), "quantity": 1,
                "net_minor": random_.choice(sizes), "discount_minor": random_.choice(sizes) if told else None,
            }
            for i in range(random_.randrange(5))
        ]  # fmt: skip
    amounts = {order: random_.choice([*sizes, -5, -100]) for order in orders}
    with scratch_store(tmp_path) as store:
        paid_ = [
            {k: v for k, v in paid(order, 10, [], lines=lines or None).items() if k not in ("topic", "order_id") and v}
            for order, lines in orders.items()
        ]
        events = [e | {"order_id": o, "occurred_at": NOON} for e, o in zip(paid_, orders, strict=True)]
        fold_in(store, apply, ORDER, [[Delivery(event, 1, 0, n) for n, event in enumerate(events)]])
        taken = pl.DataFrame({"order_id": [*orders, "unknown"], "amount_minor": [*amounts.values(), 7]})
        with store.given(taken=taken):
            rows = store.frame(sql("coupon_ledger.questions.finance", "spread")).to_dicts()
    found: dict[str, Counter[str | None]] = {order: Counter() for order in (*orders, "unknown")}
    for row in rows:
        found[row["order_id"]][row["category"]] += row["amount_minor"]
    assert found.pop("unknown") == {"(no lines)": 7}
    for order, lines in orders.items():
        wanted = Counter[str | None]() if lines else Counter({"(no lines)": amounts[order]})
        for line, part in zip(lines, by_largest_remainder(amounts[order], lines) if lines else (), strict=True):
            wanted[line["category"]] += part
        assert found[order] == wanted, (order, lines, amounts[order])
        assert found[order].total() == amounts[order]


@pytest.mark.long
def test_a_margin_takes_refunds_off_and_costs_that_are_known(shop: None) -> None:
    """o4 was given back 50 more than it paid, and is no sale; of o2 and o5 it is not known what the goods cost."""
    rows = {(row["channel"], row["currency"]): row for row in told("margin")}
    app = rows["app", "CNY"]
    assert (app["orders"], app["net_sales_minor"], app["cost_minor"], app["margin_minor"]) == (2, 5000, 4000, 1000)
    assert app["orders_without_cost"] == 1 and rows["web", "CNY"]["margin_minor"] is None
    assert rows["app", "USD"]["margin_minor"] == -500
    with_rates = {
        (row["channel"], row["currency"]): row for row in told("margin", "--goods-rate", "CUP=60", "--goods-rate", "50")
    }
    assert with_rates["web", "CNY"]["margin_minor"] == 800 - 350 - 300
    assert with_rates["app", "CNY"]["cost_minor"] == 4000
    assert with_rates["web", "CNY"]["orders_by_rate"] == 1
    by = {row["order_id"]: row["cost_by"] for row in told("margin", "--goods-rate", "50", "--explain")}
    assert by == {"o1": "order", "o2": "rate", "o3": None, "o4": None, "o5": "rate", "o6": "order"}


@pytest.mark.long
def test_what_was_sold_below_cost_is_told(shop: None) -> None:
    tea, cup = (next(row for row in told("categories") if row["category"] == name) for name in ("TEA", "CUP"))
    assert (tea["margin_minor"], tea["below_cost"], tea["lost_minor"]) == (-50, 1, 50)
    assert (cup["margin_minor"], cup["lines_without_cost"]) == (None, 1)


def test_a_budget_burns_by_discounts_and_booked_costs(shop: None) -> None:
    """The forecast is when marketing has to stop or to ask for more. One coupon of k says USD, its order CNY: what it
    took off was yuan."""
    rows = {(row["campaign_id"], row["currency"]): row for row in told("budget")}
    k = rows["k", "CNY"]
    assert (k["discount_minor"], k["media_minor"], k["spent_minor"], k["left_minor"]) == (1118, 500, 1618, 382)
    assert k["burned"] == pytest.approx(0.809) and k["per_day_minor"] == round(1618 / 7)
    clock = NOON + 2 * DAY
    exhausted = datetime.fromisoformat(k["exhausted_at"])
    assert exhausted - clock == pytest.approx(timedelta(days=382 / (1618 / 7)), abs=timedelta(seconds=1))
    assert k["liability_minor"] == 1000 and ("k", "USD") not in rows


@pytest.mark.long
def test_cash_has_every_flow_on_its_day(shop: None) -> None:
    days = {(row["day"], row["currency"]): row for row in told("cash")}
    assert days["2025-11-11", "CNY"]["paid_minor"] == 5000 + 800 + 900 + 600
    assert days["2025-11-11", "CNY"]["discount_minor"] == 1499 + 50 + 40 + 77, (
        "o3 and o4 took nothing off: they are no sales; c4 is gone, whatever its order is"
    )
    assert sum(row["discount_minor"] for row in days.values() if row["currency"] == "CNY") == sum(
        minor for (_, currency), minor in split("kind").items() if currency == "CNY"
    )
    assert days["2025-11-12", "CNY"]["cancelled_minor"] == 900
    assert days["2025-11-13", "CNY"]["refunded_minor"] == 650
    assert sum(row["flow_minor"] for row in days.values() if row["currency"] == "CNY") == 7300 - 900 - 650 - 500
    assert {row["day"] for row in told("cash", "--zone", "Pacific/Kiritimati")} & {"2025-11-14"}


def test_losses_have_their_money(shop: None) -> None:
    points = {row["point"]: row["lost_minor"] for row in told("losses")}
    assert points == {"use_without_paid_order": 77, "discount_above_value": 1}, "c1 took 1001 of 1000"


def test_refunds_say_what_was_not_clawed_back(shop: None) -> None:
    [row] = told("refunds")
    assert (row["cancelled_orders"], row["refunded_orders"], row["refunded_above_order"]) == (1, 1, 1)
    assert (row["refunded_minor"], row["cancelled_minor"]) == (650, 900)


@pytest.mark.long
def test_what_is_doubtful_is_said(shop: None) -> None:
    """A number that rests on odd data must not look like one that does not."""
    doubts = {(row["doubt"], row["currency"]): row["cases"] for row in told("doubts")}
    assert doubts == {
        ("order_names_unknown_coupon", "CNY"): 1,
        ("order_not_above_zero", "CNY"): 1,
        ("refund_above_order", "CNY"): 1,
        ("coupon_of_another_currency", "CNY"): 1,
        ("use_without_paid_order", "CNY"): 1,
        ("order_and_coupons_differ", "CNY"): 1,
        ("campaign_without_cost", "CNY"): 2,
        ("order_without_cost_of_goods", "CNY"): 2,
        ("funding_not_whole", None): 1,
    }
    shown = ledger("report", "finance", "doubts", "--lang", "zh").out
    assert "超额退款" in shown and "未知券" in shown


@pytest.mark.long
def test_funders_above_the_whole_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of 110% charged 2,200 for a discount of 2,000, and took the rest from a campaign that nobody funds."""
    monkeypatch.chdir(tmp_path)
    many = {"platform": 5000, "merchant": 6000}
    events = [event("campaign.events", "published", "A", -4, name="A", coupon_type="cash", funded_by=many)]
    for key, campaign, discount in (("a", "A", 2000), ("aa", "A", 1), ("b", "B", 1000)):
        events += coupon(key, campaign, f"o-{key}", discount)
        events.append(paid(f"o-{key}", 7000, [("coupon", discount, None)]))
    done("init")
    done("publish", "-", stdin=ndjson([{k: v for k, v in e.items() if v is not None} for e in events]))
    done("consume")
    rows = done("report", "finance", "split", "--by", "funder", "--output", "json").json
    borne = {row["funder"]: row["discount_minor"] for row in rows}
    assert borne == {"merchant": 1091, "platform": 910, None: 1000}, "6/11 and 5/11 of 2,001"


@pytest.mark.long
def test_the_past_is_restated(shop: None) -> None:
    """As of the day of the sale, nothing was cancelled or refunded yet."""
    then = {
        (row["kind"], row["currency"]): row["discount_minor"] for row in told("split", "--at", "2025-11-11T20:00:00Z")
    }
    assert then["promotion", "CNY"] == 599 and then["member", "CNY"] == 60


@pytest.mark.slow
def test_a_restated_figure_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was told late is the whole of the difference, column by column, for a campaign and for all."""
    monkeypatch.chdir(tmp_path)
    booked: Data = {"cost_kind": "media", "amount_minor": 7, "currency": "CNY"}
    early = [
        *(paid(f"o{n}", 1000, []) for n in range(4)),
        *coupon("c0", "k", "o0", 50),
        *coupon("c1", "k", "o1", 60),
        *coupon("c2", "k", None, 0),
    ]
    late = [
        event("order.events", "refunded", "o0", 5, refund_minor=300),
        event("order.events", "cancelled", "o3", 5, reason="late"),
        event("coupon.events", "returned", "c1", 5, order_id="o1"),
        event("coupon.events", "used", "c2", 5, user_id="u", order_id="o2", discount_minor=20),
        event("campaign.events", "cost_booked", "k", 5, **booked),
        paid("o9", 400, []),
    ]
    assert ledger("init").code == 0
    now = time.time_ns()
    for hours, told in ((0, early), (2, late)):
        with patch("ledger.sqlite_log.time.time_ns", return_value=now + hours * 3_600 * 10**9):
            made = [{k: v for k, v in e.items() if v is not None} for e in told]
            assert ledger("publish", "-", stdin=ndjson(made)).code == 0
    assert ledger("consume").code == 0
    then = datetime.fromtimestamp(now / 1e9 + 3_600, UTC).isoformat()

    def lines(*options: str) -> dict[str, tuple[int, ...]]:
        ran = ledger("report", "restated", "--known-from", then, *options, "-o", "ndjson")
        assert ran.code == 0, ran.err
        figures = ("orders", "net_sales_minor", "discount_minor", "booked_minor")
        found = {row["line"]: tuple(row[name] for name in figures) for row in ran.rows}
        first, last = found["known_then"], found["known_now"]
        causes = [told for line, told in found.items() if line not in ("known_then", "known_now")]
        assert tuple(map(sum, zip(first, *causes, strict=True))) == last
        return found

    assert lines() == {
        "known_then": (4, 4000, 110, 0),
        "refund_told_late": (0, -300, 0, 0),
        "cancelled_late": (-1, -1000, 0, 0),
        "return_told_late": (0, 0, -60, 0),
        "use_told_late": (0, 0, 20, 0),
        "cost_told_late": (0, 0, 0, 7),
        "order_told_late": (1, 400, 0, 0),
        "known_now": (4, 3100, 70, 7),
    }
    assert lines("--campaign", "k") == {
        "known_then": (2, 2000, 110, 0),
        "refund_told_late": (0, -300, 0, 0),
        "return_told_late": (-1, -1000, -60, 0),
        "use_told_late": (1, 1000, 20, 0),
        "cost_told_late": (0, 0, 0, 7),
        "known_now": (2, 1700, 70, 7),
    }
    assert ledger("report", "restated").code == 2


@pytest.mark.slow
def test_all_of_it_is_shown_and_machines_get_one_table_or_an_object(shop: None) -> None:
    for lang, titles in (
        ("en", ("Discounts", "Net sales and margin", "Budget", "Cash", "Statement")),
        ("zh", ("优惠构成", "毛利", "预算", "现金流", "券负债对账")),
    ):
        shown = ledger("report", "finance", "--lang", lang)
        assert shown.code == 0 and all(title in shown.out for title in titles), shown.out
    everything = ledger("report", "finance", "--output", "json").json
    assert {"split", "statement", "doubts"} < set(everything)
    for wrong, word in (
        (("--output", "csv"), "name one part"),
        (("split", "--by", "colour"), "colour"),
        (("cash", "--zone", "Mars/Base"), "Mars/Base"),
        (("losses", "--by", "kind"), "--by"),
        (("doubts", "--explain"), "--explain"),
        (("losses", "--since", "2025-11-01"), "--since"),
        (("margin", "--campaign", "k"), "--campaign"),
        (("margin", "--goods-rate", "x=200"), "x=200"),
    ):
        ran = ledger("report", "finance", *wrong)
        assert ran.code == 2 and word in ran.err, wrong


def test_days_are_those_of_the_zone() -> None:
    """A sale day begins at midnight there, also where clocks are changed."""
    new_york = Zone("America/New_York").offsets()
    change = new_york.filter(pl.col("since") == datetime(2026, 11, 1, 6))
    assert change["offset_us"].to_list() == [-5 * 3_600_000_000]
    assert Zone("Asia/Shanghai").offsets()["offset_us"].to_list()[-2] == 8 * 3_600_000_000
    with pytest.raises(WrongQuestion):
        Zone("nowhere")


# ── The real year ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_discounts_of_the_real_year_are_those_of_its_own_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retail, coupon and coupon-match, to the cent: what a retailer's own books say."""
    monkeypatch.chdir(tmp_path)
    for command in (("init",), ("import", "complete-journey"), ("consume",)):
        assert ledger(*command).code == 0
    lines = load().transactions
    cents = {
        name: int((lines[name] * 100).round().sum()) for name in ("retail_disc", "coupon_disc", "coupon_match_disc")
    }
    by_goods = sum(row["discount_minor"] for row in told("categories"))
    assert sum(split("category").values()) == by_goods == sum(cents.values())
    assert split("kind") == {
        ("promotion", "USD"): cents["retail_disc"],
        ("coupon", "USD"): cents["coupon_disc"],
        ("match", "USD"): cents["coupon_match_disc"],
    }
    assert ledger("verify", "--only", "liability").code == 0
