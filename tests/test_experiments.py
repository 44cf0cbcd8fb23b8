"""`experiment`: from events to what a campaign caused, its rules for bad input, and arms that are drawn."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest

from benchmarks.coverage import outcomes
from coupon_ledger.cli.sources.experiment_world import CONTROL, campaign_id, drawn, shown_world, truth
from coupon_ledger.ledger.errors import NotThere
from coupon_ledger.questions.experiments import result
from coupon_ledger.questions.experiments.experiments import _other_campaigns
from coupon_ledger.questions.experiments.facts import Campaign
from tests.command_line import DATABASE, LOG, Data, done, ledger, ndjson, one_sentence
from tests.owners import owning

pytestmark = pytest.mark.long

SEED, PEOPLE = 11, 3_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A simulated experiment in a database; `--database` and its place."""
    folder = tmp_path_factory.mktemp("world")
    at = ("--log", f"sqlite:///{folder / LOG}")
    database = ("--database", str(folder / DATABASE))
    done("init", *at, *database)
    ran = done("simulate", "--experiment", "--seed", str(SEED), "--people", str(PEOPLE), *at)
    assert "true of campaign experiment-11" in ran.out and "true ROI" in ran.out
    done("consume", *at, *database)
    return database


def ledger_of(folder: Path, *told: Iterable[Data]) -> tuple[str, ...]:
    """A database of these events, each list appended an hour after the one before; the options that name it."""
    at = ("--log", f"sqlite:///{folder / LOG}")
    database = ("--database", str(folder / DATABASE))
    done("init", *at, *database)
    now = time.time_ns()
    for hour, events in enumerate(told):
        with patch("ledger.sqlite_log.time.time_ns", return_value=now + hour * 3_600 * 10**9):
            done("publish", "-", *at, stdin=ndjson(events))
    done("consume", *at, *database)
    return database


# ── A world whose truth is known ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_every_persons_figures_are_those_of_the_world(world: tuple[str, str]) -> None:
    """Else the statistics would be right, of the wrong numbers: refunds, returned coupons, goods that went back."""
    made = shown_world(SEED, PEOPLE)
    people, orders = drawn(made)
    expected = outcomes(made, orders)
    rows = done("experiment", "people", campaign_id(made), *world, "-o", "ndjson").rows
    assert len(rows) == PEOPLE
    for row in rows:
        number = int(row["person"].rpartition("u")[2])
        slack = 1 + len(row["order_ids"] or [])  # a minor unit an order: events are whole
        assert row["arm"] == [CONTROL, "face-5", "face-10", "face-20"][people.arm[number]]
        assert row["orders"] == expected.orders[number]
        assert row["net_minor"] == expected.net[number]
        assert row["margin_minor"] == pytest.approx(expected.margin[number], abs=slack)
        assert row["before_margin_minor"] == pytest.approx(expected.margin_before[number], abs=slack + 20)
        assert row["discount_minor"] == expected.discount[number]


@pytest.mark.slow
def test_the_estimate_stands_beside_the_truth(world: tuple[str, str]) -> None:
    made = shown_world(SEED, PEOPLE)
    shown = done("experiment", "show", campaign_id(made), "--by", "segment", *world, "-o", "json").json
    arms, control = truth(made), truth(made)[CONTROL]
    for row in shown["effects"]:
        if row["metric"] == "margin_minor" and row["method"] in ("plain", "cuped", "sequential"):
            true = arms[row["arm"]].margin_minor - control.margin_minor
            assert row["low"] < true < row["high"], row
    assert {row["part"] for row in shown["parts"]} == {"new", "regular", "loyal"}
    for row in shown["returns"]:
        assert row["simple_roi"] > row["roi"]
        assert row["cost_minor"] == pytest.approx(row["discount_minor"] + row["booked_minor"])
    assert sum(row["booked_minor"] for row in shown["returns"]) == pytest.approx(made.booked_minor)
    assert [point["face_value_minor"] for point in shown["response"][0]["points"]] == [0, 500, 1000, 2000]
    assert shown["srm_p"] > 0.001 and {arm["planned_share"] for arm in shown["arms"]} == {0.4, 0.2}
    assert [w["code"] for w in shown["warnings"]] == ["contamination"]


@pytest.mark.slow
def test_a_manager_can_read_it(world: tuple[str, str]) -> None:
    asked = ("experiment", "show", f"experiment-{SEED}", *world)
    english = ("Incremental margin: face-10", "95% simultaneous interval", "Incremental ROI", "simple ROI", "Effects")
    chinese = ("增量毛利：face-10", "95%", "增量ROI", "简单ROI", "面值响应")
    for lang, words in (("en", english), ("zh", chinese)):
        shown = done(*asked, "--lang", lang).out
        assert [one for one in words if one not in shown] == [], shown
    rows = done("experiment", "show", f"experiment-{SEED}", *world, "-o", "csv").out.splitlines()
    assert rows[0].startswith("arm,metric,label,method") and len(rows) == 1 + 3 * 13


@pytest.mark.slow
def test_it_is_restored_as_it_stood(world: tuple[str, str]) -> None:
    """Else nobody could say why last week's report had another figure."""
    asked = ("experiment", "show", f"experiment-{SEED}", *world, "-o", "json")
    now, later = done(*asked).json, done(*asked, "--at", "2099-01-01", "--known-at", "2099-01-01").json
    assert later == now
    early = done(*asked, "--at", "2025-11-08").json
    assert not early["over"] and "not_over" in {w["code"] for w in early["warnings"]}
    assert sum(a["orders"] for a in early["arms"]) < sum(a["orders"] for a in now["arms"])
    one_sentence(ledger(*asked, "--at", "2025-10-31T00:00:00Z"), 1, "has not begun")


@pytest.mark.slow
def test_without_arms_it_is_weaker_and_says_so(world: tuple[str, str]) -> None:
    """The arms are forgotten, and what was drawn by chance passes either placebo."""
    for method in ("matched", "historical"):
        ran = ledger("experiment", "compare", f"experiment-{SEED}", "--method", method, *world, "-o", "json")
        if ran.code:
            one_sentence(ran, 1, "the placebo failed")
            continue
        assert "weaker evidence" in ran.json["conclusion"] and ran.json["placebo_p"] > 0.05
        assert {"not_randomised", "has_arms"} <= {w["code"] for w in ran.json["warnings"]}
    late = ("--start", "2025-10-10", "--expiry", "2025-11-15")
    refused = ledger("experiment", "compare", f"experiment-{SEED}", *late, *world)
    one_sentence(refused, 1, "comparison refused", "twice the window before the start")


@pytest.mark.slow
def test_planned_from_past_sales_or_from_figures(world: tuple[str, str]) -> None:
    plan = done("experiment", "plan", "--until", "2025-11-01", *world, "-o", "json").json
    assert plan["people"] == plan["known_people"] and plan["metric"] == "margin_minor"
    assert plan["smallest_lift_cuped"] < plan["smallest_lift"] and plan["people_needed"] > plan["people"]
    figures = done("experiment", "plan", "--mean", "100", "--sd", "200", "--people", "10000", "-o", "json").json
    assert figures["smallest_lift"] == pytest.approx(2.8016 * 200 * 2 / 100, rel=1e-4)
    asked = ("experiment", "plan", "--mean", "100", "--sd", "200", "--people", "10000")
    assert "10,000 people can show a change of 11.2%" in done(*asked, "--lang", "en").out
    assert "11.2%" in (shown := done(*asked, "--lang", "zh").out) and "people" not in shown
    one_sentence(ledger("experiment", "plan", "--mean", "100"), 2, "--mean and --sd go together")
    one_sentence(ledger("experiment", "plan", "--until", "2025-09-01", *world), 1, "past sales")


@pytest.mark.slow
def test_the_owner_of_the_database_answers_the_same(world: tuple[str, str]) -> None:
    """Else the figure would depend on whether the consumer happens to run."""
    folder = Path(world[1]).parent
    campaign = f"experiment-{SEED}"
    asked = [
        (*command, *world, "-o", "json")
        for command in (
            ("experiment", "show", campaign, "--by", "segment"),
            ("experiment", "show", campaign, "--at", "2025-11-10"),
            ("experiment", "compare", campaign, "--method", "historical"),
            ("experiment", "plan", "--until", "2025-11-01"),
            ("experiment", "people", campaign),
        )
    ]
    alone = [ledger(*arguments) for arguments in asked]
    with owning("--log", f"sqlite:///{folder / LOG}", database=folder / DATABASE):
        beside = [ledger(*arguments) for arguments in asked]
    assert [(ran.code, ran.out) for ran in beside] == [(ran.code, ran.out) for ran in alone]


# ── Rules for bad input ──────────────────────────────────────────────────────────────────────────────────────


def campaign_event(k: str, kind: str, event_id: str, at: str = "2025-03-01T00:00:00Z", **fields: Any) -> Data:
    common = {"source": "plan", "occurred_at": at, "campaign_id": k, "event_id": f"{k}-{event_id}"}
    return {"topic": "campaign.events", "type": kind, **common, **fields}


def assigned(k: str, user: str, arm: str, at: str = "2025-03-01T00:00:00Z") -> Data:
    return campaign_event(k, "assigned", f"a-{user}-{arm}", at, user_id=user, arm=arm)


def cost(k: str, amount: int, currency: str = "CNY") -> Data:
    event = campaign_event(k, "cost_booked", f"cost-{amount}")
    return event | {"cost_kind": "media", "amount_minor": amount, "currency": currency}


def paid(order: str, user: str, net: int, at: str = "2025-03-12T00:00:00Z", **fields: Any) -> Data:
    common = {"source": "shop", "occurred_at": at, "order_id": order, "event_id": f"p-{order}", "user_id": user}
    figures = {"currency": "CNY", "gross_minor": net, "net_minor": net, "cost_of_goods_minor": net // 2}
    told = {"topic": "order.events", "type": "paid", **common, **figures, **fields}
    return {name: value for name, value in told.items() if value is not None}


def after_paid(kind: str, order: str, **fields: Any) -> Data:
    common = {"source": "shop", "occurred_at": "2025-03-28T00:00:00Z", "order_id": order, "event_id": f"r-{order}"}
    return {"topic": "order.events", "type": kind, **common, **fields}


def coupon(k: str, user: str, issued_at: str = "2025-03-10T00:00:00Z") -> list[Data]:
    common = {"topic": "coupon.events", "source": "plan", "coupon_id": f"c-{user}"}
    made = {"campaign_id": k, "coupon_type": "cash", "face_value_minor": 500, "valid_until": "2025-03-20T00:00:00Z"}
    return [
        {**common, "type": "created", "event_id": f"c-{user}-1", "occurred_at": "2025-02-05T00:00:00Z", **made},
        {**common, "type": "issued", "event_id": f"c-{user}-2", "occurred_at": issued_at, "channel": "app",
         "user_id": user},
    ]  # fmt: skip


def small_world(k: str, **figures: Any) -> list[Data]:
    """Four people an arm, with an order each: of about 1,000 in the control, 2,000 in the treatment."""
    events = [
        campaign_event(k, "published", "pub", name=k, coupon_type="cash", claim_from="2025-03-10T00:00:00Z"),
        campaign_event(k, "target_set", "s-1", metric="share:control", target=5000),
        campaign_event(k, "target_set", "s-2", metric="share:a", target=5000),
    ]
    users = [(f"{k}.c{n}", f"{k}.t{n}") for n in range(4)]
    for c, t in users:
        events += [assigned(k, c, CONTROL), assigned(k, t, "a"), *coupon(k, t)]
    for n, (c, t) in enumerate(users):
        events += [paid(f"o-{c}", c, 1000 + n, **figures), paid(f"o-{t}", t, 2000 + n, **figures)]
    return events


LINES = [
    {"sku": "s-1", "category": "dairy", "net_minor": 600},
    {"sku": "s-2", "category": "toys", "net_minor": 300},
    {"sku": "s-3", "category": "toys", "net_minor": 100, "cost_minor": 90},
]
LINK = {"topic": "user.events", "type": "linked", "source": "crm", "occurred_at": "2025-01-01T00:00:00Z",
        "event_id": "link-1", "user_id": "linked.t0", "alias_id": "linked.phone"}  # fmt: skip
CASES: dict[str, list[Data]] = {
    "counted": [
        cost("counted", 100),
        paid("x-1", "counted.t0", 900, "2025-03-09T23:59:59Z"),
        paid("x-2", "counted.t0", 900, "2025-03-27T00:00:00Z"),
        paid("x-3", "counted.t0", 900), after_paid("cancelled", "x-3", reason="other"),
        paid("x-4", "counted.t0", 900, "2025-03-26T23:59:59Z"), after_paid("refunded", "x-4", refund_minor=300),
        paid("x-5", "nobody", 900),
    ],
    "overlapping": [
        cost("overlapping", 100),
        assigned("overlapping", "overlapping.t0", CONTROL, "2025-03-02T00:00:00Z"),
        assigned("overlapping", "late", "a", "2025-03-11T00:00:00Z"), paid("l-1", "late", 5000),
        *coupon("overlapping", "had", "2025-02-20T00:00:00Z"), assigned("overlapping", "had", CONTROL),
        paid("l-2", "had", 5000),
    ],
    "hindsight": [
        cost("hindsight", 100), paid("h-1", "hindsight.new", 9000)
    ],
    "mixed": [
        cost("mixed", 100), *coupon("mixed", "mixed.c1"), *coupon("mixed", "stranger"),
        assigned("elsewhere", "mixed.t1", "a"),
    ],
    "odd": [
        cost("odd", 100), cost("odd", -40),
        paid("y-1", "odd.t0", 900), after_paid("refunded", "y-1", refund_minor=1500),
        paid("y-2", "odd.t1", 0, cost_of_goods_minor=0),
        paid("y-3", "odd.t2", 100, cost_of_goods_minor=-10),
        paid("y-4", "odd.t3", 100, coupon_ids=["nobody-knows"]),
    ],
    "currencies": [
        cost("currencies", 100), cost("currencies", 7, "USD"), paid("z-1", "currencies.t0", 900, currency="USD")
    ],
    "free": [],
    "lines": [cost("lines", 100), paid("w-1", "lines.t0", 1000, lines=LINES, cost_of_goods_minor=None)],
    "linked": [
        cost("linked", 100), LINK, paid("v-1", "linked.phone", 900),
        assigned("linked", "linked.phone", CONTROL, "2025-03-03T00:00:00Z"),
    ],
    "uneven": [cost("uneven", 100), *(assigned("uneven", f"more-{n}", CONTROL) for n in range(40))],
    "unassigned": [],
    "silent": [cost("silent", 100)],
    "alone": [cost("alone", 100), assigned("alone", "alone.x", "b"), paid("n-1", "alone.x", 500)],
    "vanished": [cost("vanished", 100), campaign_event("vanished", "target_set", "s-3", metric="share:b", target=5000)],
}  # fmt: skip


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A database with a campaign per case; the options that name it."""
    events = [
        paid("history", "somebody", 100, "2025-01-01T00:00:00Z"),
        paid("clock", "somebody", 100, "2025-06-01T00:00:00Z"),
    ]
    for k, more in CASES.items():
        made = small_world(k, **({"cost_of_goods_minor": None} if k == "free" else {}))
        left_out = {"unassigned": "assigned", "silent": "paid"}.get(k)
        events += [e for e in made if e["type"] != left_out] + more
    return ledger_of(tmp_path_factory.mktemp("cases"), events, [assigned("hindsight", "hindsight.new", "a")])


def shown(cases: tuple[str, ...], campaign: str, *options: str) -> Data:
    found: Data = done("experiment", "show", campaign, *options, *cases, "-o", "json").json
    return found


def warned(found: Data) -> dict[str, str]:
    return {w["code"]: w["warning"] for w in found["warnings"]}


def sums(found: Data, of: str) -> list[float]:
    """Of the control, then of the treatment."""
    return [arm[of] for arm in found["arms"]]


def test_what_is_counted(cases: tuple[str, ...]) -> None:
    """Orders without the coupon count; those before, after the window and cancelled ones do not; refunds are reversed
    with their goods."""
    found = shown(cases, "counted")
    assert sums(found, "net_minor") == [4006, 8006 + 600]
    assert sums(found, "margin_minor") == [4006 - 2002, 8006 - 4002 + 300]
    assert sums(found, "orders") == [4, 5]
    assert found["srm_p"] == 1 and warned(found) == {}
    assert found["returns"][0]["booked_minor"] == 100 and found["returns"][0]["discount_minor"] == 0


def test_overlapping_and_late_arms(cases: tuple[str, ...]) -> None:
    found = shown(cases, "overlapping")
    assert sums(found, "people") == [4, 4] and sums(found, "assigned") == [5, 5]
    assert "1 people were assigned to several arms" in warned(found)["overlapping_arms"]
    assert "2 people" in warned(found)["assigned_late"]


def test_an_arm_told_only_when_its_orders_were_known(cases: tuple[str, ...]) -> None:
    """It may have been chosen by what people bought."""
    assert "1 people" in warned(shown(cases, "hindsight"))["recorded_late"]


def test_contamination_outsiders_and_other_experiments(cases: tuple[str, ...]) -> None:
    found = shown(cases, "mixed")
    assert sums(found, "got_coupon") == [1, 4]
    assert {"contamination", "outsiders", "other_experiments"} == set(warned(found))
    assert "1 of 4 people in control" in warned(found)["contamination"]


def test_odd_amounts(cases: tuple[str, ...]) -> None:
    found = shown(cases, "odd")
    told = warned(found)
    assert {"over_refunded", "of_nothing", "negative_cost", "unknown_coupons", "booked_not_positive"} == set(told)
    assert sums(found, "net_minor")[1] == 8006 + 200, "refunded to nothing, not below"
    assert found["booked"] == [{"cost_kind": "media", "amount_minor": 60}]


def test_the_orders_behind_a_person_are_those_that_the_estimate_counts(cases: tuple[str, ...]) -> None:
    """What was refunded in full was not bought: its id beside the figures would be an order that is not in them."""
    for campaign in ("odd", "counted"):
        people = done("experiment", "people", campaign, *cases, "-o", "json").json
        assert sum(row["orders"] for row in people) > 0
        assert all(len(row["order_ids"] or []) == row["orders"] for row in people)
        assert "y-1" not in {order for row in people for order in row["order_ids"] or []}


def test_currencies_are_never_added_up(cases: tuple[str, ...]) -> None:
    one_sentence(ledger("experiment", "show", "currencies", *cases), 2, "CNY, USD", "--currency")
    found = shown(cases, "currencies", "--currency", "CNY")
    assert sums(found, "net_minor") == [4006, 8006] and "other_currencies" in warned(found)
    assert found["returns"][0]["booked_minor"] == 100


def test_without_cost(cases: tuple[str, ...]) -> None:
    """Neither the campaign's nor the goods': what cannot be told is null, and said."""
    found = shown(cases, "free")
    assert {"no_cost", "without_cost"} == set(warned(found)) and found["returns"] == []
    assert {e["metric"] for e in found["effects"]} == {"net_minor", "orders", "buyers"}
    rated = shown(cases, "free", "--goods-rate", "75")
    assert sums(rated, "margin_minor") == [pytest.approx(4006 / 4, abs=2), pytest.approx(8006 / 4, abs=2)]
    assert rated["returns"][0]["roi"] is None, "nothing was spent"
    assert "cannot be told" in done("experiment", "show", "free", *cases).out


def test_margin_rates_of_categories(cases: tuple[str, ...]) -> None:
    found = shown(cases, "lines", "--goods-rate", "50", "--goods-rate", "dairy=80")
    assert sums(found, "margin_minor")[1] == pytest.approx(8006 - 4002 + 120 + 150 + 10, abs=1e-6)
    for wrong in ("150", "dairy=", "x"):
        one_sentence(ledger("experiment", "show", "lines", "--goods-rate", wrong, *cases), 2, wrong)


def test_linked_ids_are_one_person(cases: tuple[str, ...]) -> None:
    """Else what a member buys by phone number would be nobody's."""
    found = shown(cases, "linked")
    assert sums(found, "net_minor")[1] == 8006 + 900 and "overlapping_arms" in warned(found)


def test_arms_of_the_wrong_size_are_not_believed(cases: tuple[str, ...]) -> None:
    found = shown(cases, "uneven")
    assert found["srm_p"] < 0.001 and "no figure can be trusted" in warned(found)["sample_ratio"]
    one_sentence(ledger("experiment", "show", "uneven", "--shares", "control=44,a=4", *cases), 2, "is no part of one")
    assert shown(cases, "uneven", "--shares", "control=0.917,a=0.083")["srm_p"] > 0.9


def test_an_arm_that_nobody_came_into_is_one_too(cases: tuple[str, ...]) -> None:
    """Of three equal arms: 4, 4 and none. Else the worst of all mismatches would be no mismatch."""
    assert shown(cases, "vanished")["srm_p"] == pytest.approx(0.1353, abs=1e-4)


def test_an_arm_of_one_person_takes_no_other_along(cases: tuple[str, ...]) -> None:
    found = shown(cases, "alone")
    assert {e["arm"] for e in found["effects"]} == {"a"} and "b 1" in warned(found)["arm_too_small"]
    told = ledger("experiment", "show", "alone", "--control-arm", "b", *cases)
    one_sentence(told, 1, "campaign alone: b 1, a 4, control 4 people", "2 are needed")


def test_where_nobody_bought_nothing_is_said(cases: tuple[str, ...]) -> None:
    found = shown(cases, "silent")
    [effect, *_] = found["effects"]
    assert effect["effect"] == 0 and effect["p"] is None
    assert [found["returns"][0][name] for name in ("incremental_margin_minor", "low_minor", "roi")] == [0, None, None]
    assert "nothing can be said" in found["conclusions"][0]


def arms_of_chance(seed: int, treatments: int) -> list[result.Arm]:
    """Small arms of which some differ from the control, by chance or by what they got."""
    random = np.random.default_rng(seed)

    def arm(name: str, shift: float) -> result.Arm:
        bought = np.round(random.normal(1_000 + shift, 300, 30))
        window = pl.DataFrame(
            {"margin_minor": bought, "net_minor": bought, "orders": 1, "coupon_orders": 1}
            | {"discount_minor": 100.0, "coupon_margin_minor": 500.0}
        )
        return result.Arm(name, pl.DataFrame({"person": range(30), "face_value_minor": 1}), window, window * 0)

    return [arm("control", 0), *(arm(f"t{n}", random.uniform(0, 300)) for n in range(treatments))]


def test_a_sentence_never_contradicts_its_interval() -> None:
    """Else a manager reads that a coupon works beside an interval that says that it may not."""
    said: Counter[str] = Counter()
    for seed in range(60):
        control, *treatments = arms_of_chance(seed, 1 + seed % 4)
        effects = result.effects(control, treatments, ["margin_minor"])
        for row in (row for row in effects if row["method"] == "plain"):
            [money] = [r for r in result.returns(control, treatments, 0) if r["arm"] == row["arm"]]
            text = str(result.sentence(row["arm"], row, None, money, None))
            several = len(treatments) > 1
            assert ("simultaneous" in text) is several is (row["simultaneous_low"] is not None)
            low, high = (row[f"simultaneous_{n}" if several else n] for n in ("low", "high"))
            assert (row["low"], row["high"]) == (low, high) or low < row["low"] < row["high"] < high
            sized, found = not low <= 0 <= high, row["p_corrected"] < 0.05
            assert found or not sized, "Holm finds what Bonferroni finds"
            words = ["cannot be told", "how much is not (", "than without it ("][found + (found and sized)]
            assert words in text
            said[words] += several
            open_ = money["p_corrected"] >= 0.05
            assert ("earned or lost money is open" in text) is open_
            low, high = (money[f"roi_simultaneous_{n}" if several else f"roi_{n}"] for n in ("low", "high"))
            assert open_ or ("how much is not sure" in text) is (low <= 0 <= high)
    assert len(said) == 3 and min(said.values()) > 1, said


def test_the_sequential_interval_is_the_wider_the_earlier_one_looks(cases: tuple[str, ...]) -> None:
    """Tuned anew at every look it would promise what it does not hold."""

    def width(found: Data) -> float:
        rows = {e["method"]: e for e in found["effects"] if e["metric"] == "margin_minor"}
        wide, plain = (rows[method]["high"] - rows[method]["low"] for method in ("sequential", "plain"))
        return float(wide / plain)

    early = shown(cases, "counted", "--at", "2025-03-12T12:00:00Z")
    assert not early["over"] and width(early) > 1.2 * width(shown(cases, "counted"))
    assert sums(early, "net_minor") == [4006, 8006 + 900], "those of the last instant on record are known too"


def test_no_arms_no_claim(cases: tuple[str, ...]) -> None:
    one_sentence(ledger("experiment", "show", "unassigned", *cases), 1, "unassigned", "experiment compare")
    one_sentence(ledger("experiment", "show", "k-404", *cases), 1, "campaign k-404")
    one_sentence(ledger("experiment", "compare", "unassigned", "--currency", "CNY", *cases), 1, "refused", "too few")


def test_what_other_campaigns_reached_is_refused() -> None:
    """Else the effect of the campaign before would be told as this one's."""
    of = Campaign("k", {})
    targeted = pl.Series([True] * 10 + [False] * 10)
    assert _other_campaigns(of, pl.Series([False] * 20), targeted) == []
    [told] = _other_campaigns(of, pl.Series(([True] + [False] * 9) * 2), targeted)
    assert told.code == "other_campaigns"
    with pytest.raises(NotThere, match=r"100.0% of the targeted and 0.0% of the others"):
        _other_campaigns(of, targeted, targeted)


# ── Drawing arms ─────────────────────────────────────────────────────────────────────────────────────────────


def test_arms_are_drawn_recorded_and_kept(tmp_path: Path) -> None:
    """Else a second run, or another machine, would move people between arms."""
    people = [
        {"topic": "user.events", "type": "profiled", "source": "crm", "occurred_at": "2025-01-01T00:00:00Z",
         "event_id": f"u-{n}", "user_id": f"u-{n}", "attributes": {"tier": "gold" if n % 4 else "new"}}
        for n in range(200)
    ]  # fmt: skip
    link = {**people[0], "type": "linked", "event_id": "link", "alias_id": "u-1"}
    del link["attributes"]
    database = ledger_of(tmp_path, [*people, link])
    at = ("--log", f"sqlite:///{tmp_path / LOG}", *database)
    command = ("experiment", "assign", "k", "--control", "0.5", "--stratify", "tier", *at, "--at", "2025-03-01")
    dry = done(*command, "--dry-run", "-o", "json").json
    assert {(r["stratum"], r["arm"]): r["people"] for r in dry} in (
        {("gold", CONTROL): 75, ("gold", "treatment"): 74, ("new", CONTROL): 25, ("new", "treatment"): 25},
        {("gold", CONTROL): 74, ("gold", "treatment"): 75, ("new", CONTROL): 25, ("new", "treatment"): 25},
        {("gold", CONTROL): 75, ("gold", "treatment"): 75, ("new", CONTROL): 25, ("new", "treatment"): 24},
        {("gold", CONTROL): 75, ("gold", "treatment"): 75, ("new", CONTROL): 24, ("new", "treatment"): 25},
    )
    assert done(*command, "-o", "json").json == dry
    done(*command, "-o", "json")  # before it is consumed: a repeat
    done("consume", *at)
    again = done(*command, "-o", "json").json
    assert [r["people"] for r in again] == [0] * 4
    assert [r["there_already"] for r in again] == [r["people"] for r in dry]
    assert done("status", *at, "-o", "json").json["conflicts"] == 0
    one_sentence(ledger(*command, "--arm", "a=0.4"), 2, "sum to 0.9")


@pytest.mark.slow
def test_a_list_of_people_is_assigned_once_each(tmp_path: Path) -> None:
    database = ledger_of(tmp_path, small_world("k"))
    at = ("--log", f"sqlite:///{tmp_path / LOG}", *database)
    file = tmp_path / "users.txt"
    file.write_text("k.t0\nnew-1\nnew-2\nnew-1\n\n")
    rows = done("experiment", "assign", "k", "--users", file, *at, "--dry-run", "-o", "json").json
    assert Counter(r["stratum"] for r in rows) == {"–": 2, "all": 2}
    assert sum(r["people"] for r in rows) == 2, "k.t0 has an arm"
    one_sentence(ledger("experiment", "assign", "k", "--users", tmp_path / "no", *at), 2, "no", "cannot be read")
    done("experiment", "assign", "k", "--users", file, *at, "-o", "json")
    done("consume", *at)
    again = done("experiment", "assign", "k", "--users", file, *at, "-o", "json").json
    assert sum(r["people"] for r in again) == 0, "whom the ledger knows by the arm alone keeps it"
    late = done("experiment", "assign", "k", "--users", "-", *at, "--dry-run", stdin=b"new-3\n").err
    assert "has begun" in late and "are to be had since 2025-03-10" in late
    before = ("--at", "2025-02-01", "--dry-run")
    early = done("experiment", "assign", "k", "--users", "-", *at, *before, stdin=b"new-3\n").err
    assert "has begun" not in early
    listed = done("experiment", "arms", "k", *database, "-o", "json").json
    assert {"new-1", "new-2", "k.t0"} <= {row["person"] for row in listed} and len(listed) == 10
    assert {row["arm"] for row in done("experiment", "arms", "k", "--arm", "a", *database, "-o", "json").json} == {"a"}
    one_sentence(ledger("experiment", "arms", "k-404", *database), 1, "k-404", "experiment assign")


def test_the_draw_is_balanced_over_the_past() -> None:
    """What the simulated arms bought before differs by chance alone."""
    made = shown_world(SEED, PEOPLE)
    people, orders = drawn(made)
    before = outcomes(made, orders).margin_before
    means = [before[people.arm == arm].mean() for arm in range(4)]
    assert np.ptp(means) < 6 * before.std() / np.sqrt(PEOPLE / 5)
