"""Small ledgers in which money was once counted wrong: each from a file in `tests/cases`, asked as people ask it."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import partial
from math import floor
from pathlib import Path
from typing import Any

import pytest

from coupon_ledger.ledger.codec import micros
from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, KEY_FIELD, ORDER
from coupon_ledger.questions.local import Local
from tests.folding import scratch_store
from tests.test_attribution_paths import consume

Row = dict[str, Any]
Ask = Callable[..., list[Row]]
CASES = Path(__file__).parent / "cases"
START = datetime(2026, 10, 1, tzinfo=UTC)
INSTANTS = ("occurred_at", "valid_from", "valid_until", "hold_until", "claim_from", "claim_until")
LARGEST = 2**53 - 1


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Callable[[list[tuple[str, Row]]], Ask]]:
    """Consume these events in one batch; answers of questions by name."""
    with ExitStack() as stack:

        def opened(events: list[tuple[str, Row]]) -> Ask:
            store = stack.enter_context(scratch_store(tmp_path))
            told = [
                (topic, Delivery(event, micros(event["occurred_at"]), 0, n)) for n, (topic, event) in enumerate(events)
            ]
            consume(store, told)
            local = stack.enter_context(closing(Local(store)))
            return partial(rows_of, local)

        yield opened


def rows_of(local: Local, question: str, **parameters: Any) -> list[Row]:
    return [row for frame in local.ask(question, **parameters).frames for row in frame.to_dicts()]


def case(name: str) -> list[tuple[str, Row]]:
    events = [json.loads(line) for line in (CASES / f"{name}.ndjson").read_text(encoding="utf-8").splitlines()]
    for event in events:
        event |= {n: datetime.fromisoformat(event[n]) for n in INSTANTS if n in event}
        event |= {n: json.dumps(event[n]) for n in ("funded_by", "attributes") if isinstance(event.get(n), dict)}
    return [(event.pop("topic"), event) for event in events]


def tell(topic: str, kind: str, key: str, days: float = 0, **fields: Any) -> tuple[str, Row]:
    at = START + timedelta(days=days)
    head = {"event_id": f"{kind}-{key}-{days}", "type": kind, "occurred_at": at, "source": "s", KEY_FIELD[topic]: key}
    return topic, {**head, **fields}


def used_coupon(key: str, campaign: str, order: str, discount: int, **fields: Any) -> Iterator[tuple[str, Row]]:
    yield tell(COUPON, "created", key, 0, campaign_id=campaign, coupon_type="cash", **fields)
    yield tell(COUPON, "issued", key, 0.1, channel="app", user_id="u")
    yield tell(COUPON, "used", key, 1, user_id="u", order_id=order, discount_minor=discount)


def doubts_of(ask: Ask) -> dict[str, int]:
    return {row["doubt"]: row["cases"] for row in ask("finance-doubts")}


def split_of(ask: Ask, by: str = "kind") -> dict[Any, int]:
    return {tuple(row[name] for name in by.split(",")): row["discount_minor"] for row in ask("finance-split", by=by)}


@pytest.mark.long
@pytest.mark.parametrize("name", ["zero_total_refund", "free_order"])
def test_an_order_of_nothing_that_was_refunded_is_no_sale(name: str, asked: Any) -> None:
    """100% off, and the goods came back: one sale is left, and 8000 of discount were not clawed back."""
    ask = asked(case(name))
    [refunds] = ask("finance-refunds")
    assert (refunds["refunded_orders"], refunds["fully_refunded_orders"], refunds["not_clawed_back_minor"]) == (
        1,
        1,
        8000,
    )
    [margin] = ask("finance-margin")
    assert (margin["orders"], margin["net_sales_minor"]) == (1, 4000)
    assert ask("order", order="o1")[0]["status"] == "refunded"
    losses = {row["point"]: row["lost_minor"] for row in ask("finance-losses")}
    assert losses["use_on_cancelled_order"] == 8000


@pytest.mark.long
def test_a_discount_that_was_returned_is_none_anywhere(asked: Any) -> None:
    """The order was refunded by half and says 400 of coupons still; the coupon is with its owner again."""
    ask = asked(case("returned_coupon_still_in_split"))
    assert sum(split_of(ask).values()) == 0
    assert sum(row["discount_minor"] for row in ask("finance-cash")) == 0
    assert sum(row["discount_minor"] for row in ask("finance-categories")) == 0
    assert [row["discount_minor"] for row in ask("customer-orders")] == [0, 0]
    assert all(not row["discount_cost_minor"] for row in ask("metrics", names="discount_cost_minor"))
    [refunds] = ask("finance-refunds")
    assert (refunds["clawed_back_minor"], refunds["not_clawed_back_minor"]) == (400, 0)
    assert doubts_of(ask)["order_and_coupons_differ"] == 1


def test_a_discount_is_told_a_currency(asked: Any) -> None:
    """1000 euro cents and 150000 won were added up to 151000 of nothing."""
    ask = asked(case("campaign_two_currencies"))
    wanted = [{"currency": "EUR", "discount_minor": 1000}, {"currency": "KRW", "discount_minor": 150_000}]
    [listed], [shown] = ask("campaigns"), ask("campaign", campaign="k")
    assert listed["discounts"] == shown["discounts"] == wanted
    assert listed["discount_minor"] is None and shown["discount_minor"] is None and listed["currency"] is None
    [then] = ask("campaigns", at=datetime(2026, 10, 2, 12, tzinfo=UTC))
    assert then["discounts"] == [] and then["discount_minor"] == 0
    assert ask("campaign", campaign="k", at=datetime(2026, 10, 4, tzinfo=UTC))[0]["discounts"] == wanted


def test_a_campaign_of_one_currency_has_one_discount(asked: Any) -> None:
    [row] = asked(case("null_currency"))("campaigns")
    assert (row["discount_minor"], row["currency"]) == (500, "EUR")


def test_a_cost_in_another_currency_moves_no_budget(asked: Any) -> None:
    """Fifty thousand cents of budget are in the currency of the campaign's terms, whatever is booked on it."""
    rows = {row["currency"]: row for row in asked(case("campaign_currency_by_cost"))("finance-budgets")}
    assert (rows["USD"]["budget_minor"], rows["USD"]["left_minor"]) == (50_000, 50_000)
    assert rows["JPY"]["budget_minor"] is None and rows["JPY"]["spent_minor"] == 300_000


def test_a_coupon_without_a_currency_is_of_no_other_one(asked: Any) -> None:
    doubts = doubts_of(asked(case("null_currency")))
    assert "coupon_of_another_currency" not in doubts and doubts["campaign_without_cost"] == 1


def test_a_budget_without_a_currency_says_so(asked: Any) -> None:
    """Nothing can be taken off an amount whose currency nobody knows."""
    told = [
        tell(CAMPAIGN, "published", "k", -1, name="K", coupon_type="cash", budget_minor=5000),
        *used_coupon("c1", "k", "o1", 100),
        tell(ORDER, "paid", "o1", 1, user_id="u", currency="EUR", gross_minor=900, net_minor=800),
    ]
    ask = asked(told)
    rows = {row["currency"]: row for row in ask("finance-budgets")}
    assert (rows[None]["budget_minor"], rows[None]["left_minor"], rows[None]["burned"]) == (5000, None, None)
    assert rows["EUR"]["spent_minor"] == 100
    assert doubts_of(ask)["budget_without_currency"] == 1


def test_who_bears_a_use_on_a_refunded_order_is_whom_the_order_names(asked: Any) -> None:
    assert split_of(asked(case("funder_of_refunded_order")), "funder,campaign") == {("platform", "M"): 88}


@pytest.mark.parametrize(("name", "flow"), [("paid_after_cancel", 24_000), ("reopened", 13_500)])
def test_money_that_came_after_a_cancellation_came_in(name: str, flow: int, asked: Any) -> None:
    days = asked(case(name))("finance-cash")
    assert sum(row["flow_minor"] for row in days) == flow and sum(row["cancelled_minor"] for row in days) == 0


def test_an_edit_that_takes_the_coupon_off_the_order_is_doubtful(asked: Any) -> None:
    """An empty list of discounts says that there is none."""
    ask = asked(case("edit_removes_coupon"))
    assert doubts_of(ask)["use_that_order_does_not_tell"] == 1
    assert split_of(ask) == {("coupon",): 1000}


def test_validity_that_ends_before_it_begins_and_a_net_above_gross_are_doubtful(asked: Any) -> None:
    doubts = {row["doubt"]: row for row in asked(case("discount_above_face"))("finance-doubts")}
    assert doubts["coupon_ends_before_it_begins"]["cases"] == 1
    assert (doubts["net_above_gross"]["cases"], doubts["net_above_gross"]["amount_minor"]) == (1, 2000)


def test_net_sales_by_category_are_those_by_channel(asked: Any) -> None:
    """Five of six came back: 4500 are left of it, in both reports, with a sixth of the cost."""
    ask = asked(case("below_min_after_refund"))
    totals = [Counter[str](), Counter[str]()]
    for total, question in zip(totals, ("finance-categories", "finance-margin"), strict=True):
        for row in ask(question):
            total.update({name: row[name] for name in ("net_sales_minor", "refunded_minor", "margin_minor")})
    assert (
        totals[0]
        == totals[1]
        == {"net_sales_minor": 8500, "refunded_minor": 22_500, "margin_minor": 8500 - 3000 - 1000}
    )


# ── Funders ──────────────────────────────────────────────────────────────────────────────────────────────────


def by_largest_remainder(amount: int, shares: dict[str, int]) -> dict[str, int]:
    """The model: exact fractions; what rounding leaves to the largest remainders, then larger shares, then by name."""
    exact = {name: Fraction(amount * bp, 10_000) for name, bp in shares.items()}
    parts = {name: floor(part) for name, part in exact.items()}
    order = sorted(shares, key=lambda name: (parts[name] - exact[name], -shares[name], name))
    for name in order[: amount - sum(parts.values())]:
        parts[name] += 1
    return parts


def test_one_use_is_split_by_largest_remainder_and_many_do_not_drift(asked: Any) -> None:
    """Ten uses of 1.501 dinar: the thousandth that is left over went to the same funder each time."""
    ask = asked(case("funder_rounding"))
    shares = {"platform": 3333, "merchant": 3333, "brand": 3334}
    parts = ask("finance-split", explain=True)
    first = {row["funder"]: row["amount_minor"] for row in parts if row["coupon_id"] == "k0"}
    assert first == by_largest_remainder(1501, shares) == {"platform": 500, "merchant": 500, "brand": 501}
    total = Counter[str]()
    for row in parts:
        total[row["funder"]] += row["amount_minor"]
    assert total == by_largest_remainder(sum(total.values()), shares)


@pytest.mark.parametrize("seed", range(3))
def test_funders_of_any_campaign_get_their_share_to_the_minor_unit(seed: int, asked: Any) -> None:
    """Whatever the shares, a hundred percent or not, and whatever the discounts: every use sums to itself, and no
    funder is a minor unit away from its exact share of all uses."""
    draw = random.Random(f"funders {seed}")
    shares: dict[str, dict[str, int]] = {}
    told: list[tuple[str, Row]] = []
    taken: dict[str, int] = {}
    for k in ("k0", "k1", "k2", "k3"):
        names = ["a", "b", "c", "d", "e"][: draw.randrange(1, 6)]
        cuts = sorted(draw.randrange(10_001) for _ in names[1:])
        parts = [end - start for start, end in zip([0, *cuts], [*cuts, 10_000], strict=True)]
        parts[0] = max(parts[0] - draw.choice((0, 0, 700)), 0)
        shares[k] = dict(zip(names, parts, strict=True))
        funded = json.dumps(shares[k])
        told.append(tell(CAMPAIGN, "published", k, -1, name=k, coupon_type="cash", currency="CNY", funded_by=funded))
        for n in range(25):
            key = f"{k}-{n}"
            taken[key] = draw.choice((0, 1, 2, 99, draw.randrange(10**6), LARGEST))
            told += used_coupon(key, k, f"o-{key}", taken[key], currency="CNY")
    ask = asked(told)
    of_use: Counter[str] = Counter()
    of_funder: Counter[tuple[str, str | None]] = Counter()
    for row in ask("finance-split", explain=True):
        of_use[row["coupon_id"]] += row["amount_minor"]
        of_funder[row["campaign_id"], row["funder"]] += row["amount_minor"]
    assert +of_use == +Counter(taken)
    for k, of in shares.items():
        whole = sum(minor for key, minor in taken.items() if key.startswith(k))
        for name, bp in of.items():
            assert abs(of_funder[k, name] - Fraction(whole * bp, 10_000)) < 1, (k, name, of)
