"""Every report against every other: the same orders, money and coupons, in all currencies, whoever is asked.

`walk` asks all of them and holds their totals against the reconciliation that reports end with. It walks a random world
with all that could be counted in several ways, a simulated sale day, and the real retail year.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from coupon_ledger.ledger.codec import micros
from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, KEY_FIELD, ORDER
from coupon_ledger.projections.database import open_database
from coupon_ledger.questions.finance.finance import MARGIN_BY, SPLIT_BY
from coupon_ledger.questions.local import Local
from coupon_ledger.reports.review import SECTIONS, CampaignAnswers, review_of
from tests.command_line import DATABASE, done
from tests.folding import scratch_store
from tests.test_attribution_paths import consume

pytestmark = pytest.mark.vital

Row = dict[str, Any]
Totals = dict[str | None, Any]
START = datetime(2026, 11, 1, tzinfo=UTC)
CURRENCIES = ("CNY", "JPY", "KWD")


# ── The world ────────────────────────────────────────────────────────────────────────────────────────────────


class World:
    """Orders in three currencies: paid, cancelled, paid again, refunded in part, in full, with nothing and beyond; with
    lines that make up the order or do not; with coupons in use, returned, unknown, of other currencies, of none."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(f"reconciliation {seed}")
        self.events: list[tuple[str, Row]] = []
        for n, campaign in enumerate(("k", "j", "i")):
            own = {"currency": CURRENCIES[n]} if n else {}
            funded = json.dumps({"platform": 3_333, "brand": 6_667}) if n < 2 else None
            terms = {"coupon_type": "cash", "budget_minor": 50_000, "funded_by": funded, **own}
            self.tell(CAMPAIGN, "published", campaign, -2, name=campaign, **terms)
            for currency in CURRENCIES[: n + 1]:
                self.tell(CAMPAIGN, "cost_booked", campaign, 1, cost_kind="media", amount_minor=777, currency=currency)
        for n in range(140):
            self._order(n)
        for n in range(30):
            self._coupon(f"open-{n}", self.draw.choice(CURRENCIES), None)
        self.tell(ORDER, "refunded", "never-paid", 3, refund_minor=45)

    def tell(self, topic: str, kind: str, key: str, day: float, /, **fields: Any) -> None:
        head = {"type": kind, "occurred_at": START + timedelta(days=day), "source": "s", KEY_FIELD[topic]: key}
        told = {name: value for name, value in fields.items() if value is not None}
        self.events.append((topic, {"event_id": f"e{len(self.events)}", **head, **told}))

    def _order(self, n: int) -> None:
        draw, order, day = self.draw, f"o-{n}", self.draw.uniform(1, 20)
        currency, net = draw.choice(CURRENCIES), draw.choice((0, 999, 1_250, 8_401))
        coupons = [f"c-{n}-{m}" for m in range(draw.choice((0, 0, 1, 1, 2)))]
        used = [(one, draw.choice(("k", "j", "i", None)), draw.randrange(0, 200)) for one in coupons]
        taken = sum(off for *_, off in used) + draw.choice((0, 0, 0, 35))
        kinds = draw.choice(("coupon", "coupon", "promotion", None))
        said = {
            "coupon": [{"kind": "coupon", "amount_minor": taken, "funder": "platform"}],
            "promotion": [{"kind": "promotion", "amount_minor": 60}],
            None: draw.choice(([], None)),
        }[kinds]
        sold = {
            "user_id": f"u-{draw.randrange(12)}", "currency": currency, "net_minor": net, "gross_minor": net + taken,
            "discounts": said, "channel": draw.choice(("app", "web", None)), "lines": self._lines(net),
            "cost_of_goods_minor": draw.choice((None, None, net // 3)),
            "coupon_ids": draw.choice((None, [*coupons, "unknown"] if n % 9 == 0 else coupons)),
        }  # fmt: skip
        if draw.random() < 0.95:
            self.tell(ORDER, "paid", order, day, **sold)
        if draw.random() < 0.15:
            self.tell(ORDER, "cancelled", order, day + 0.2, reason="r")
            if draw.random() < 0.5:
                self.tell(ORDER, "paid", order, day + 0.3, **sold)
        back = draw.choice((None, None, None, None, 0, net // 4, net // 3, net, net + 70))
        if back is not None:
            self.tell(ORDER, "refunded", order, day + 1, refund_minor=back)
        for coupon, campaign, off in used:
            self._coupon(coupon, draw.choice((currency, currency, "USD", None)), campaign)
            on = order if draw.random() < 0.95 else "nobody-knows"
            self.tell(COUPON, "used", coupon, day, user_id=sold["user_id"], order_id=on, discount_minor=off)
            if draw.random() < 0.25:
                self.tell(COUPON, "returned", coupon, day + 1, order_id=on)

    def _lines(self, net: int) -> list[Row] | None:
        names = self.draw.choice(((), ("tea",), ("tea", "cup"), ("tea", "cup", "cup")))
        lines = [{"sku": name, "category": name, "net_minor": net // len(names), "quantity": 1} for name in names]
        for line in lines:
            line |= {"cost_minor": 77} if self.draw.random() < 0.8 else {}
        return lines or None

    def _coupon(self, key: str, currency: str | None, campaign: str | None) -> None:
        worth = self.draw.choice((None, 500))
        kind = {"coupon_type": "cash", "currency": currency, "face_value_minor": worth}
        if campaign is not None:
            self.tell(COUPON, "created", key, 0, campaign_id=campaign, **kind)
        self.tell(COUPON, "issued", key, 0.5, user_id="u-0", channel=self.draw.choice(("sms", "app")))
        if key.startswith("open") and self.draw.random() < 0.3:
            self.tell(COUPON, "expired", key, 9, reason="not_used")


# ── The walk ─────────────────────────────────────────────────────────────────────────────────────────────────


class Walk:
    """Totals by currency of what is asked; a currency that is not known is None, whatever the report calls it."""

    def __init__(self, local: Local) -> None:
        self.local = local

    def ask(self, question: str, **asked: Any) -> list[Row]:
        rows = [row for frame in self.local.ask(question, **asked).frames for row in frame.to_dicts()]
        for row in rows:
            if row.get("currency") in ("XXX", "(unknown)"):
                row["currency"] = None
        return rows

    def totals(self, column: str, question: str, **asked: Any) -> Totals:
        return added((row.get("currency"), row[column]) for row in self.ask(question, **asked))

    def metric(self, name: str, **asked: Any) -> Totals:
        return self.totals(name, "metrics", names=name, **asked)


def added(amounts: Iterable[tuple[str | None, Any]]) -> Totals:
    """By currency, without those that come to nothing."""
    totals: Totals = defaultdict(int)
    for currency, amount in amounts:
        totals[currency] += amount or 0
    return {currency: amount for currency, amount in totals.items() if amount}


def reconciled(walk: Walk, **asked: Any) -> Mapping[tuple[str, str], tuple[Totals, Totals]]:
    """Of each line its numbers and its amounts; every total must be what stands above it."""
    found: dict[tuple[str, str], tuple[Totals, Totals]] = {}
    sums: dict[tuple[str, str | None, str], Any] = defaultdict(int)
    for row in walk.ask("finance-reconciliation", **asked):
        for place, name in enumerate(("number", "amount_minor")):
            key = (row["account"], row["currency"], name)
            if row[name] is not None and row["total"]:
                assert row[name] == pytest.approx(sums[key], abs=0.001), row
            elif not row["total"]:
                sums[key] += row[name] or 0
            line = found.setdefault((row["account"], row["line"]), ({}, {}))
            if row[name]:
                line[place][row["currency"]] = row[name]
    return found


def walk_all(local: Local) -> None:
    walk = Walk(local)
    told = defaultdict(lambda: ({}, {}), reconciled(walk))
    _orders(walk, *told["orders", "orders_that_stand"])
    _coupon_orders(walk, *told["orders", "orders_with_a_coupon"])
    assert told["coupons", "orders_with_its_coupons"][0] == told["orders", "orders_with_a_coupon"][0]
    _discounts(walk, told["coupon_discount", "coupon_discounts"][1])
    _uses(walk, told["coupon_discount", "of_coupons_in_use"][1], told["coupons", "coupons_in_use"][0])
    assert walk.totals("flow_minor", "finance-cash") == told["cash", "cash_flow"][1]
    doubts = walk.ask("finance-doubts")
    undone = ("use_without_paid_order", "use_on_order_undone")
    assert told["coupon_discount", "on_orders_that_do_not_stand"][1] == added(
        (row["currency"], row["amount_minor"]) for row in doubts if row["doubt"] in undone
    )
    _coupons(walk, doubts)
    for row in walk.ask("campaigns"):
        if row["campaign_id"] is not None and row["in_use"]:
            _campaign(walk, row)


def _orders(walk: Walk, orders: Totals, sales: Totals) -> None:
    assert sum(walk.metric("orders").values()) == sum(orders.values())
    assert walk.metric("net_sales_minor") == sales
    for by in MARGIN_BY:
        assert walk.totals("orders", "finance-margin", by=by) == orders, by
        assert walk.totals("net_sales_minor", "finance-margin", by=by) == sales, by
    assert walk.totals("net_sales_minor", "finance-categories") == sales
    refunded = walk.totals("refunded_minor", "finance-margin")
    assert walk.totals("refunded_minor", "finance-categories") == refunded
    assert walk.totals("orders", "customers") == orders
    assert walk.totals("net_sales_minor", "customers") == sales
    assert walk.totals("net_sales_minor", "customer-segments") == sales
    assert walk.totals("net_sales_minor", "customer-orders") == sales
    credited = walk.ask("attribution", models="linear,redeemed", by="campaign")
    for model in ("linear", "redeemed"):
        mine = [row for row in credited if row["model"] == model]
        assert added((row["currency"], row["sales_minor"]) for row in mine) == sales, model
        assert added((row["currency"], row["orders"]) for row in mine) == pytest.approx(orders), model


def _coupon_orders(walk: Walk, orders: Totals, sales: Totals) -> None:
    assert sum(walk.metric("coupon_orders").values()) == sum(orders.values())
    assert walk.metric("coupon_net_sales_minor") == sales
    assert walk.totals("coupon_orders", "customers") == orders


def _discounts(walk: Walk, of_coupons: Totals) -> None:
    split = walk.ask("finance-split")
    assert added((row["currency"], row["discount_minor"]) for row in split if row["kind"] == "coupon") == of_coupons
    whole = added((row["currency"], row["discount_minor"]) for row in split)
    for by in (*SPLIT_BY, "funder,campaign"):
        assert walk.totals("discount_minor", "finance-split", by=by) == whole, by
    assert walk.totals("discount_minor", "finance-cash") == whole
    assert walk.totals("discount_minor", "finance-categories") == whole
    behind = walk.ask("finance-split", explain=True)
    assert added((row["currency"], row["amount_minor"]) for row in behind) == whole
    sold = added((row["currency"], row["amount_minor"]) for row in behind if row["sold"])
    assert walk.totals("discount_minor", "customer-orders") == sold


def _uses(walk: Walk, discount: Totals, coupons: Totals) -> None:
    assert walk.metric("discount_cost_minor") == discount
    assert sum(walk.metric("net_uses").values()) == sum(coupons.values())
    campaigns = walk.ask("campaigns")
    listed = [one for row in campaigns for one in row["discounts"]]
    assert added((one["currency"], one["discount_minor"]) for one in listed) == discount
    assert sum(row["in_use"] for row in campaigns) == sum(coupons.values())
    of_none = added(
        (row["currency"], row["amount_minor"])
        for row in walk.ask("finance-doubts")
        if row["doubt"] == "use_of_no_campaign"
    )
    budgets = walk.totals("discount_minor", "finance-budgets")
    assert added([*budgets.items(), *of_none.items()]) == discount


def _coupons(walk: Walk, doubts: list[Row]) -> None:
    """What is out, and what nobody knows of it."""
    states = {row["state"]: row["coupons"] for row in walk.ask("states")}
    statement = walk.ask("finance-statement")
    out = sum(states.get(state, 0) for state in ("issued", "claimed", "reserved"))
    assert sum(row["closing_coupons"] for row in statement) == out
    unknown = sum(row["cases"] for row in doubts if row["doubt"] == "coupon_without_value")
    assert sum(row["closing_without_value"] for row in statement) == unknown
    for row in statement:
        if row["closing_coupons"] and row["closing_coupons"] == row["closing_without_value"]:
            assert row["closing_minor"] is None, "the value of coupons whose value nobody knows"
    assert sum(row["coupons"] for row in walk.ask("expiries")) == states.get("expired", 0)
    assert sum(row["coupons"] for row in walk.ask("campaigns")) == sum(states.values())


def _campaign(walk: Walk, row: Row) -> None:
    """One campaign in the reports, metrics, attribution and the review."""
    k, where = row["campaign_id"], {"campaign": [row["campaign_id"]]}
    discount = added((one["currency"], one["discount_minor"]) for one in row["discounts"])
    told = defaultdict(lambda: ({}, {}), reconciled(walk, campaign=k))
    assert sum(told["coupons", "coupons_in_use"][0].values()) == row["in_use"]
    assert told["coupons", "coupons_in_use"][1] == discount
    assert walk.metric("discount_cost_minor", where=where) == discount
    assert walk.totals("discount_minor", "finance-split", campaign=k) == discount
    assert walk.totals("discount_minor", "finance-budgets", campaign=k) == discount
    orders = told["coupons", "orders_with_its_coupons"][0]
    assert sum(walk.metric("coupon_orders", where=where).values()) == sum(orders.values())
    roi = walk.ask("attribution-roi", campaign=k, models="redeemed")
    assert added((one["currency"], one["discount_minor"]) for one in roi) == discount
    credited = added((one["currency"], one["orders"]) for one in roi)
    assert credited == pytest.approx(told["coupons", "orders_credited_by_redeemed"][0], abs=0.0001)
    without_sale = {currency: -minor for currency, minor in told["coupons", "on_orders_that_do_not_stand"][1].items()}
    assert added((one["currency"], one["without_sale_minor"]) for one in roi) == without_sale
    costs = {"names": "cost_minor,other_cost_minor", "where": where}
    spent = walk.totals("spent_minor", "finance-budgets", campaign=k)
    assert walk.totals("cost_minor", "metrics", **costs) == spent
    assert added((one["currency"], one["cost_minor"]) for one in roi) == spent


def review_reconciles(local: Local, campaign: str) -> None:
    """A page is read as one: its tables tell one discount, one cost, one count of coupons in use."""
    sections = review_of(
        CampaignAnswers(local, campaign, {}, None), [name for name in SECTIONS if name != "incrementality"]
    )
    [listed] = [row for row in Walk(local).ask("campaigns") if row["campaign_id"] == campaign]
    discount = added((one["currency"], one["discount_minor"]) for one in listed["discounts"])
    tables = {title: rows for section in sections.values() for title, rows in section.tables.items()}
    result = [row for row in tables["result"] if row["metric"] == "discount_cost_minor"]
    for name, rows, column in (
        ("goal", result, "value"),
        ("channels", tables["coupons by channel"], "discount_cost_minor"),
        ("cost", tables["discount (优惠)"], "discount_minor"),
        ("budget", tables["budget and booked costs (预算与成本)"], "discount_minor"),
        ("funders", tables["discounts by funder (出资方)"], "discount_minor"),
        ("trend", tables["by day"], "discount_cost_minor"),
    ):
        told = added(
            (None if row["currency"] in ("XXX", "(unknown)") else row["currency"], row[column]) for row in rows
        )
        assert told == discount, name
    [in_use] = [row["coupons"] for row in tables["coupons (券)"] if row["step"] == "in_use"]
    assert in_use == listed["in_use"] == sum(row["net_uses"] or 0 for row in tables["coupons by channel"])


# ── Worlds that are walked ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=range(2))
def local(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    world = World(request.param)
    told = sorted(world.events, key=lambda one: one[1]["occurred_at"])
    with scratch_store(tmp_path_factory.mktemp("walk")) as store:
        consume(store, [(topic, Delivery(e, micros(e["occurred_at"]), 0, n)) for n, (topic, e) in enumerate(told)])
        with closing(Local(store)) as opened:
            yield opened


@pytest.mark.long
def test_no_number_of_a_random_world_contradicts_another(local: Local) -> None:
    walk_all(local)


def test_the_random_world_has_every_line(local: Local) -> None:
    """Else the walk would hold nothing against nothing."""
    lines = {row["line"] for row in Walk(local).ask("finance-reconciliation")}
    lines |= {row["line"] for row in Walk(local).ask("finance-reconciliation", campaign="k")}
    assert lines >= set(
        "cancelled refunded_in_full refunded_in_part returned_since named_by_coupons_alone on_orders_that_do_not_stand"
        " of_no_known_use refunds_above_orders refunds_without_payment booked_costs further_coupons_of_an_order"
        " of_coupons_of_others".split()
    )


@pytest.mark.long
@pytest.mark.parametrize("campaign", ["k", "j", "i"])
def test_no_table_of_a_review_contradicts_another(campaign: str, local: Local) -> None:
    review_reconciles(local, campaign)


@pytest.mark.slow
@pytest.mark.parametrize(
    "made",
    [("simulate", "--events", "60000", "--seed", "7", "--orders"), ("simulate", "--experiment", "--seed", "7"),
     ("import", "complete-journey")],
    ids=["sale day", "experiment", "retail year"],
)  # fmt: skip
def test_no_number_of_a_whole_world_contradicts_another(
    made: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (("init",), made, ("consume",)):
        done(*command)
    with open_database(Path(DATABASE), read_only=True) as store, closing(Local(store)) as local:
        walk_all(local)
        most = max(Walk(local).ask("campaigns"), key=lambda row: (row["campaign_id"] is not None, row["in_use"]))
        review_reconciles(local, most["campaign_id"])
