"""The rooms of the reports against each other: the same orders, costs, discounts and persons, whoever is asked.

One random world with all that could be counted in several ways: refunds in part, in full and beyond, cancelled orders,
costs of goods told by order, by lines, in part and not at all, two currencies, persons under several ids, coupons
still in use on orders that are none. What an order brought is told once more in plain Python.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import floor
from typing import Any

import pytest

from coupon_ledger.ledger.codec import micros
from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, KEY_FIELD, ORDER, USER
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.local import Local
from tests.folding import scratch_store
from tests.test_attribution_paths import consume

Row = dict[str, Any]
START = datetime(2026, 11, 1, tzinfo=UTC)
CURRENCIES = ("CNY", "USD")
PERSONS = 16


class World:
    """Events by topic; `orders`: what each brought in the end, by plain Python."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"rooms {seed}")
        self.events: list[tuple[str, Row]] = []
        self.orders: list[Row] = []
        self.discount: Counter[tuple[str, str]] = Counter()
        self._people()
        for campaign in ("k", "j"):
            self._campaign(campaign)
        for n in range(220):
            self._order(n)

    def tell(self, topic: str, kind: str, key: str, day: float, /, **fields: Any) -> None:
        head = {"type": kind, "occurred_at": START + timedelta(days=day), "source": "s", KEY_FIELD[topic]: key}
        told = {name: value for name, value in fields.items() if value is not None}
        self.events.append((topic, {"event_id": f"e{len(self.events)}", **head, **told}))

    def _people(self) -> None:
        """Of every person several ids, the second of which is told to belong to the first only late."""
        self.ids = {f"u-{n}": [f"u-{n}", *(f"a-{n}-{m}" for m in range(n % 3))] for n in range(PERSONS)}
        for person, ids in self.ids.items():
            for one, other in pairwise(ids):
                self.tell(USER, "linked", one, 18, alias_id=other)
            self.tell(USER, "touched", self.random.choice(ids), 0.5, kind="view", channel="web")
            self.tell(CAMPAIGN, "assigned", "k", -1, user_id=ids[-1], arm=("control", "a")[int(person[2:]) % 2])
        # Orders are on record until past the experiment's window, and so the data's clock is.
        self.tell(ORDER, "paid", "late", 60, user_id="u-0", currency="CNY", gross_minor=1, net_minor=1)
        self.tell(ORDER, "cancelled", "late", 61, reason="r")

    def _campaign(self, campaign: str) -> None:
        at, until = (START + timedelta(days=n) for n in (0, 25))
        self.tell(
            CAMPAIGN, "published", campaign, -2, name=campaign, coupon_type="cash", claim_from=at, claim_until=until
        )
        for currency in CURRENCIES:
            cost = {"cost_kind": "media", "amount_minor": 500, "currency": currency}
            self.tell(CAMPAIGN, "cost_booked", campaign, 1, **cost)

    def _order(self, n: int) -> None:
        r, order = self.random, f"o-{n}"
        net, day = r.choice((0, 999, 1_250, 8_401)), r.uniform(1, 20)
        told = {
            "user_id": r.choice(r.choice(list(self.ids.values()))), "currency": r.choice(CURRENCIES), "net_minor": net,
            "channel": "app", "cost_of_goods_minor": r.choice((None, None, net // 3)), "lines": self._lines(net),
        }  # fmt: skip
        campaign, off = r.choice(("k", "j", None, None)), r.randrange(1, 200)
        kind = r.choice(("coupon", "coupon", "promotion"))
        taken = [] if campaign is None else [{"kind": kind, "amount_minor": off}]
        self.tell(ORDER, "paid", order, day, gross_minor=net + (off if taken else 0), discounts=taken, **told)
        back = r.choice((0, 0, 0, 0, net // 4, net, net + 70))
        if back:
            self.tell(ORDER, "refunded", order, day + 1, refund_minor=back)
        cancelled = r.random() < 0.1
        if cancelled:
            self.tell(ORDER, "cancelled", order, day + 1, reason="r")
        stands = not cancelled and not (back and back >= net)
        returned = campaign is not None and r.random() < 0.2
        on = order if r.random() < 0.95 else "unknown"
        if campaign is not None:
            self._coupon(n, campaign, on, told, day, off, returned=returned)
        used = campaign if on == order and not returned else None
        self.orders += [{**told, "order_id": order, "net": net - back, "used": used, "kind": kind}] if stands else []

    def _lines(self, net: int) -> list[Row] | None:
        parts = self.random.choice(((), ("tea, green",), ("tea, green", "cup")))
        lines = [{"sku": p, "category": p, "net_minor": net // len(parts), "quantity": 1} for p in parts]
        for line in lines:
            line |= {"cost_minor": 77} if self.random.random() < 0.6 else {}
        return lines or None

    def _coupon(self, n: int, campaign: str, order: str, told: Row, day: float, off: int, *, returned: bool) -> None:
        key = f"c-{n}"
        mine = {"campaign_id": campaign, "coupon_type": "cash", "currency": told["currency"]}
        self.tell(COUPON, "created", key, 0, **mine, valid_until=START + timedelta(days=25))
        self.tell(COUPON, "issued", key, 0.5, user_id=told["user_id"], channel="sms")
        self.tell(COUPON, "used", key, day, user_id=told["user_id"], order_id=order, discount_minor=off)
        if returned:
            self.tell(COUPON, "returned", key, day + 1, order_id=order)
        else:
            self.discount[campaign, told["currency"]] += off


def cost_of(order: Row, rates: dict[str, int]) -> int | None:
    """The rule of METRICS section 2: its own figure, else that of the lines, else a rate; what came back taken off."""

    def rated(net: int, category: str) -> int | None:
        bp = rates.get(category, rates.get(""))
        return None if bp is None else floor(net * bp / 10_000 + 0.5)

    lines = order["lines"] or [{"net_minor": order["net_minor"], "category": ""}]
    costs = [line.get("cost_minor", rated(line["net_minor"], line["category"])) for line in lines]
    whole: int | None = order["cost_of_goods_minor"]
    if whole is None:
        whole = None if None in costs else sum(costs)
    kept: float = order["net"] / order["net_minor"] if order["net_minor"] else 1
    return whole if whole is None or kept == 1 else floor(whole * kept + 0.5)


@pytest.fixture(scope="module")
def world() -> World:
    return World(6)


@pytest.fixture(scope="module")
def local(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with scratch_store(tmp_path_factory.mktemp("rooms")) as store:
        fill(store, world)
        with closing(Local(store)) as opened:
            yield opened


def fill(store: Store, world: World) -> None:
    """Recorded when it happened, in one batch."""
    told = sorted(world.events, key=lambda one: one[1]["occurred_at"])
    consume(store, [(topic, Delivery(e, micros(e["occurred_at"]), 0, n)) for n, (topic, e) in enumerate(told)])


@pytest.fixture(params=[{}, {"": 6_000, "tea, green": 4_500}, {"cup": 5_000}], ids=["no rates", "rates", "one rate"])
def rates(request: pytest.FixtureRequest) -> dict[str, int]:
    found: dict[str, int] = request.param
    return found


def rows(local: Local, question: str, rates: dict[str, int] | None = None, **asked: Any) -> list[Row]:
    goods = {"goods_rates": rates} if rates else {}
    return [row for frame in local.ask(question, **goods, **asked).frames for row in frame.to_dicts()]


def summed(found: list[Row], name: str) -> dict[str, Any]:
    """By currency."""
    totals: dict[str, Any] = {}
    for row in found:
        if row.get("currency") and row[name] is not None:
            totals[row["currency"]] = totals.get(row["currency"], 0) + row[name]
    return totals


def wanted(world: World, rates: dict[str, int], *, of: set[str | None] | None = None) -> dict[str, Row]:
    """By currency: orders, sales, and the margin of the orders whose cost is known."""
    found: dict[str, Row] = {}
    for order in world.orders:
        if of is not None and order["used"] not in of:
            continue
        total = found.setdefault(order["currency"], {"orders": 0, "sales": 0, "margin": 0, "without": 0})
        cost = cost_of(order, rates)
        total["orders"] += 1
        total["sales"] += order["net"]
        total["margin"] += 0 if cost is None else order["net"] - cost
        total["without"] += cost is None
    return found


def part(totals: dict[str, Row], name: str) -> dict[str, Any]:
    return {currency: total[name] for currency, total in totals.items()}


def test_the_world_has_what_was_counted_in_several_ways(world: World) -> None:
    without = {bool(cost_of(o, {}) is None) for o in world.orders}
    assert without == {True, False} and len(world.orders) < 180 and world.discount.total() > 0


@pytest.mark.long
def test_every_room_counts_the_same_orders(world: World, local: Local) -> None:
    """Else two people would tell two totals for one month."""
    totals = wanted(world, {})
    names = "orders,net_sales_minor"
    of_metrics = rows(local, "metrics", names=names)
    assert summed(of_metrics, "net_sales_minor") == part(totals, "sales")
    assert [row["orders"] for row in of_metrics if row["orders"] is not None] == [len(world.orders)]
    for question, orders, sales, asked in (
        ("finance-margin", "orders", "net_sales_minor", {}),
        ("customers", "orders", "net_sales_minor", {}),
        ("attribution", "orders", "sales_minor", {"models": "linear"}),
        ("attribution", "orders", "sales_minor", {"models": "redeemed", "by": "campaign"}),
    ):
        found = rows(local, question, None, **asked)
        assert summed(found, orders) == pytest.approx(part(totals, "orders")), question
        assert summed(found, sales) == part(totals, "sales"), question
    for currency, total in totals.items():
        [told] = rows(local, "experiment", campaign="k", currency=currency)
        assert sum(arm["orders"] for arm in told["arms"]) == total["orders"]
        assert sum(arm["net_minor"] for arm in told["arms"]) == total["sales"]


@pytest.mark.long
def test_every_room_has_the_same_cost_of_goods(world: World, local: Local, rates: dict[str, int]) -> None:
    """Else the margin would depend on whom one asks."""
    totals = wanted(world, rates)
    margin = rows(local, "finance-margin", rates)
    assert summed(margin, "margin_minor") == part(totals, "margin")
    assert summed(margin, "orders_without_cost") == part(totals, "without")
    credited = rows(local, "attribution", rates, models="position")
    assert summed(credited, "margin_minor") == part(totals, "margin")
    assert summed(credited, "without_cost") == pytest.approx(part(totals, "without"))
    [notes] = rows(local, "attribution-notes", rates)
    assert notes["without_cost"] == sum(part(totals, "without").values())
    if "" in rates:
        for currency, total in totals.items():
            [told] = rows(local, "experiment", rates, campaign="k", currency=currency)
            assert sum(arm["margin_minor"] for arm in told["arms"]) == total["margin"]


@pytest.mark.long
def test_every_room_has_the_same_margin_of_coupon_orders(world: World, local: Local, rates: dict[str, int]) -> None:
    totals = wanted(world, rates, of={"k", "j"})
    of_metrics = rows(local, "metrics", rates, names="coupon_margin_minor,coupon_orders_without_goods_cost")
    assert summed(of_metrics, "coupon_margin_minor") == part(totals, "margin")
    segments = rows(local, "customer-segments", rates)
    assert summed(rows(local, "customers"), "coupon_orders") == part(totals, "orders")
    assert summed(segments, "coupon_orders_without_cost") == part(totals, "without")
    credited = [r for r in rows(local, "attribution", rates, models="redeemed", by="campaign") if r["campaign"] in "kj"]
    assert summed(credited, "margin_minor") == part(totals, "margin")


@pytest.mark.long
def test_a_campaigns_discount_and_return_are_one_in_every_room(
    world: World, local: Local, rates: dict[str, int]
) -> None:
    """Metrics, finance, budgets and attribution; the simple ROI of the metrics is that of the model `redeemed`."""
    discount = {currency: world.discount["k", currency] for currency in CURRENCIES}
    of_metrics = rows(local, "metrics", rates, names="discount_cost_minor,simple_roi", where={"campaign": ["k"]})
    credited = rows(local, "attribution-roi", rates, campaign="k", models="redeemed")
    assert summed(of_metrics, "discount_cost_minor") == discount
    assert summed(credited, "discount_minor") == discount
    assert summed(rows(local, "finance-budgets", campaign="k"), "discount_minor") == discount
    assert summed(rows(local, "finance-split", by="kind", campaign="k"), "discount_minor") == discount
    assert summed(of_metrics, "simple_roi") == pytest.approx(summed(credited, "roi"), rel=1e-4)
    sold = {c: sum(u["discount"] for u in _uses(world) if u["currency"] == c and u["stands"]) for c in CURRENCIES}
    assert summed(credited, "without_sale_minor") == {c: discount[c] - sold[c] for c in CURRENCIES}


def test_uses_that_fit_no_order_are_said(world: World, local: Local) -> None:
    """They count in the cost of the campaign, as METRICS has it, so a reader must know of them."""
    doubts = rows(local, "finance-doubts")
    untold = Counter(o["currency"] for o in world.orders if o["used"] and o["kind"] != "coupon")
    assert summed([d for d in doubts if d["doubt"] == "use_that_order_does_not_tell"], "cases") == untold
    undone = summed([d for d in doubts if d["doubt"] == "use_on_order_undone"], "cases")
    back = {event["coupon_id"] for _, event in world.events if event["type"] == "returned"}
    uses = [e for _, e in world.events if e["type"] == "used" and e["coupon_id"] not in back]
    standing = {order["order_id"] for order in world.orders}
    assert sum(undone.values()) == sum(e["order_id"] not in standing | {"unknown"} for e in uses) > 0


def _uses(world: World) -> Iterator[Row]:
    """Uses of k that were not returned."""
    standing = {order["order_id"]: order["currency"] for order in world.orders}
    back = {event["coupon_id"] for _, event in world.events if event["type"] == "returned"}
    mine = {event["coupon_id"] for _, event in world.events if event.get("campaign_id") == "k" and "coupon_id" in event}
    for _, event in world.events:
        if event["type"] == "used" and event["coupon_id"] in mine - back:
            order = event["order_id"]
            yield {"discount": event["discount_minor"], "stands": order in standing, "currency": standing.get(order)}


@pytest.mark.long
def test_every_room_means_the_same_by_a_person(world: World, local: Local) -> None:
    """Else who buys by phone and by card is two customers here and one there."""
    whose = {one: person for person, ids in world.ids.items() for one in ids}
    buyers = {whose[order["user_id"]] for order in world.orders}
    assert {row["user_id"] for row in rows(local, "customers")} == buyers
    credited = {row["person"] for row in rows(local, "attribution-order", order=world.orders[0]["order_id"])}
    assert credited == {whose[world.orders[0]["user_id"]]}
    people = {r["person"] for c in CURRENCIES for r in rows(local, "experiment-people", campaign="k", currency=c)}
    assert people == set(world.ids)
    steps = {row["step"]: row["users"] for row in rows(local, "behaviour")}
    assert steps["ordered"] <= PERSONS and steps["view"] == PERSONS


@pytest.mark.long
def test_a_refund_above_the_order_is_said(world: World, local: Local) -> None:
    """Never a silent number: finance, attribution and experiments count the same ones."""
    doubts = summed([d for d in rows(local, "finance-doubts") if d["doubt"] == "refund_above_order"], "cases")
    [notes] = rows(local, "attribution-notes")
    assert notes["refunded_more_than_paid"] == sum(doubts.values()) > 0
    for currency in CURRENCIES:
        [told] = rows(local, "experiment", campaign="k", currency=currency)
        assert "over_refunded" in {warning["code"] for warning in told["warnings"]}
