"""Attribution: the models on cases whose results are known, what must hold for all of them, and the commands."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from coupon_ledger.analysis import attribution as credit
from coupon_ledger.analysis.attribution import Coalitions, Journeys, Paths
from coupon_ledger.ledger.errors import NotThere, WrongQuestion
from coupon_ledger.questions.attribution.credits import weights_of
from coupon_ledger.questions.attribution.models import BUILT_IN, OVER_ALL, Model, models_named
from coupon_ledger.questions.registry import QUESTIONS
from tests.command_line import DATABASE, Data, done, ledger, ndjson, one_sentence

SEED = 20261111
DAY = 86_400.0


def paths(*of: Sequence[int], ages: Sequence[Sequence[float]] | None = None) -> Paths:
    """Of states, each a day after the other unless said otherwise."""
    old = ages or [[DAY * n for n in range(len(one), 0, -1)] for one in of]
    states = np.array([s for one in of for s in one], dtype=np.int64)
    offsets = np.cumsum([0, *(len(one) for one in of)])
    return Paths(offsets, states, np.array([a for one in old for a in one], dtype=np.float64))


def some_paths(seed: int, states: int = 5) -> Paths:
    draw = random.Random(seed)
    return paths(*([draw.randrange(states) for _ in range(draw.randrange(8))] for _ in range(200)))


# ── Per order ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        ("last", [0, 0, 0, 1]),
        ("first", [1, 0, 0, 0]),
        ("linear", [0.25, 0.25, 0.25, 0.25]),
        ("position", [0.4, 0.1, 0.1, 0.4]),
        ("time_decay", [1 / 15, 2 / 15, 4 / 15, 8 / 15]),
        ("shapley", [0.25, 0.25, 0.25, 0.25]),
    ],
)
def test_a_path_of_four_touches(kind: str, weights: list[float]) -> None:
    """A week apart each, by hand: half-life a week, 40/20/40."""
    path = paths([0, 1, 2, 1], ages=[[28 * DAY, 21 * DAY, 14 * DAY, 7 * DAY]])
    if kind == "shapley":  # three channels share; one of them met the person twice
        weights = [1 / 3, 1 / 6, 1 / 3, 1 / 6]
    assert weights_of(BUILT_IN[kind], path).tolist() == pytest.approx(weights)


@pytest.mark.parametrize("kind", [k for k in BUILT_IN if k not in ("redeemed", "markov")])
def test_the_credits_of_an_order_sum_to_one(kind: str) -> None:
    """Else the channels together are paid for more orders than there were, or for fewer."""
    found = some_paths(SEED)
    sums = np.bincount(found.owners, weights_of(BUILT_IN[kind], found), len(found.lengths))
    assert sums[found.lengths > 0].tolist() == pytest.approx([1.0] * int((found.lengths > 0).sum()))
    assert not sums[found.lengths == 0].any()


def test_old_touches_alone_keep_their_order() -> None:
    """With a half-life of a minute, weights of a year ago vanish; the person still bought."""
    weights = credit.time_decay(paths([0, 1], ages=[[400 * DAY, 399 * DAY]]), 60)
    assert weights.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("shares", "weights"), [((0.4, 0.4), [0.5, 0.5]), ((0.6, 0.2), [0.75, 0.25]), ((0, 0), [0.5, 0.5])]
)
def test_of_two_touches_each_gets_its_part(shares: tuple[float, float], weights: list[float]) -> None:
    assert credit.position(paths([0, 1]), *shares).tolist() == pytest.approx(weights)
    assert credit.position(paths([0]), *shares).tolist() == [1]


# ── Markov ───────────────────────────────────────────────────────────────────────────────────────────────────

GOOGLE, MAILING = 0, 1


def test_markov_on_the_known_case() -> None:
    """google→buy 2, mailing→buy 1, google→mailing→buy 1, google→nothing 1."""
    journeys = Journeys(2)
    bought = paths([GOOGLE], [GOOGLE], [MAILING], [GOOGLE, MAILING], [GOOGLE])
    journeys.add(bought, np.array([True, True, True, True, False]))
    chance, effects = journeys.removal_effects()
    assert chance == pytest.approx(0.8)
    assert effects.tolist() == pytest.approx([0.75, 0.5])
    assert (4 * effects / effects.sum()).tolist() == pytest.approx([2.4, 1.6])


def test_removal_is_what_a_chain_without_the_channel_loses() -> None:
    """Against the definition: all that goes to the channel goes to nothing, and the chance is computed again."""
    journeys, found = Journeys(5), some_paths(SEED)
    draw = np.random.default_rng(SEED)
    journeys.add(found, draw.random(len(found.lengths)) < 0.4)
    chance, effects = journeys.removal_effects()
    counts = journeys.counts.astype(float)
    chances = counts / np.maximum(counts.sum(axis=1), 1)[:, None]
    for state in range(5):
        without = chances.copy()
        without[:, 7] += without[:, state]
        without[:, state] = 0
        inner = np.linalg.solve(np.eye(6) - without[:6, :6], without[:6, 6])
        assert 1 - inner[5] / chance == pytest.approx(effects[state])


def test_nobody_met_anybody() -> None:
    journeys = Journeys(2)
    journeys.add(paths([], []), np.array([True, False]))
    assert journeys.removal_effects()[0] == 0


# ── Shapley ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_shapley_is_the_mean_over_all_orders_of_joining() -> None:
    """Against the definition, for a game drawn at random."""
    worths = np.random.default_rng(SEED).random(32)
    worths[0] = 0
    values = credit.shapley(lambda c: worths[c.astype(np.int64)], 5)
    gains = np.zeros(5)
    for joining in permutations(range(5)):
        members = 0
        for player in joining:
            gains[player] += worths[members | 1 << player] - worths[members]
            members |= 1 << player
    assert values.tolist() == pytest.approx((gains / 120).tolist())
    assert values.sum() == pytest.approx(worths[31])


def game(coalitions: Any) -> Any:
    """Players 0 and 1 are alike, 2 is a dummy, 3 brings 2 by itself."""
    has = [(coalitions >> np.uint64(n)) & np.uint64(1) for n in range(4)]
    return 10.0 * (has[0] & has[1]) + 2.0 * has[3] + 1.0 * (has[0] | has[1])


@pytest.mark.parametrize("exact", [True, False])
def test_efficiency_symmetry_dummy(exact: bool) -> None:
    values, errors = (credit.shapley(game, 4), np.zeros(4)) if exact else credit.shapley_sampled(game, 4, 4_000, SEED)
    assert values.sum() == pytest.approx(13)
    assert values[2] == pytest.approx(0)
    assert values[3] == pytest.approx(2)
    assert abs(values[0] - values[1]) <= 1e-9 + 8 * errors[0]
    assert abs(values[0] - 5.5) <= 1e-9 + 4 * errors[0]


def test_by_orders_the_closed_form_is_the_shapley_value() -> None:
    """v(S): the orders of those who met no channels but S (Zhao et al.)."""
    found = some_paths(SEED, states=4)
    sets = [set(found.states[a:b].tolist()) for a, b in zip(found.offsets, found.offsets[1:], strict=False)]

    def worth(coalitions: Any) -> Any:
        members = [{n for n in range(4) if int(c) >> n & 1} for c in coalitions]
        return np.array([float(sum(bool(s) and s <= m for s in sets)) for m in members])

    by_state = np.bincount(found.states, credit.shared_by_distinct(found), 4)
    assert by_state.tolist() == pytest.approx(credit.shapley(worth, 4).tolist())


@pytest.mark.parametrize("states", [3, 20])
def test_by_rate_all_orders_are_credited(states: int) -> None:
    """Exact and drawn; of twenty only those that somebody met have a part."""
    found, ordered = some_paths(SEED, states=states), np.random.default_rng(SEED).random(200) < 0.5
    coalitions = Coalitions(states + 1)
    coalitions.add(found, ordered)
    values, errors = coalitions.value(draws=500)
    assert values.sum() == pytest.approx(int((ordered & (found.lengths > 0)).sum()))
    assert values[states] == 0
    assert errors.any() == (states > credit.EXACT_UP_TO)


@pytest.mark.parametrize(
    ("total", "weights"), [(100, [1, 1, 1]), (7, [0.5, 0.25, 0.25]), (-5, [1, 2]), (0, [0, 0]), (3, [5, -2])]
)
def test_whole_parts_sum_to_the_total(total: int, weights: list[float]) -> None:
    """A cent too few and the books do not close."""
    parts = credit.apportioned(total, np.array(weights, dtype=float))
    assert sum(parts) == total
    assert all(abs(p - total * w / (sum(weights) or 1)) < 1 for p, w in zip(parts, weights, strict=True))


# ── Models as data ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("models", "error", "words"),
    [
        ("lats", NotThere, "lats"),
        ([5], WrongQuestion, "JSON"),
        ([], WrongQuestion, "none is named"),
        ([{"name": "m", "kind": "last", "half_life_days": 3}], WrongQuestion, "half_life_days"),
        ([{"name": "m", "kind": "last", "look_back_days": 91}], WrongQuestion, "look_back_days"),
        ([{"name": "m", "kind": "guess"}], WrongQuestion, "kind"),
        ([{"name": "m", "kind": "position", "first_share": 0.8, "last_share": 0.8}], WrongQuestion, "sum to 1"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused(models: object, error: type[Exception], words: str) -> None:
    """Else somebody is paid by a number that means nothing."""
    with pytest.raises(error, match=words):
        models_named(QUESTIONS["attribution"].read("attribution", {"models": models}).models)


def test_every_kind_is_built_in() -> None:
    assert models_named(None) == models_named(["all"]) == list(BUILT_IN.values())
    assert models_named(["last", {"name": "m", "kind": "linear"}]) == [BUILT_IN["last"], Model(name="m", kind="linear")]


# ── The commands ─────────────────────────────────────────────────────────────────────────────────────────────


class ShopEvents:
    """Events of a small shop, by day of November."""

    def __init__(self) -> None:
        self.events: list[Data] = []

    def add(self, topic: str, kind: str, day: float, /, **more: Any) -> ShopEvents:
        at = f"2026-11-{int(day):02}T{int(day % 1 * 24):02}:00:00Z"
        head = {"topic": topic, "event_id": f"e{len(self.events)}", "type": kind, "occurred_at": at, "source": "s"}
        self.events.append(head | {n: v for n, v in more.items() if v is not None})
        return self

    def touch(self, user: str, channel: str, day: float, campaign: str | None = None) -> ShopEvents:
        return self.add(
            "user.events", "touched", day, user_id=user, kind="click", channel=channel, campaign_id=campaign
        )

    def buy(self, user: str, order: str, day: float, net: int = 1000, currency: str = "CNY", **more: Any) -> ShopEvents:
        money = {"currency": currency, "gross_minor": net, "net_minor": net}
        return self.add("order.events", "paid", day, order_id=order, user_id=user, **money, **more)

    def use(self, coupon: str, campaign: str, user: str, order: str, day: float, discount: int) -> ShopEvents:
        of: Data = {"coupon_id": coupon, "user_id": user}
        self.add("coupon.events", "created", day, coupon_id=coupon, campaign_id=campaign, coupon_type="cash")
        self.add("coupon.events", "issued", day, **of, channel="app")
        return self.add("coupon.events", "used", day, **of, order_id=order, discount_minor=discount)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    done("init")
    return tmp_path


def consume(told: ShopEvents) -> None:
    done("publish", "-", stdin=ndjson(told.events))
    done("consume")


def shown(*options: str) -> dict[tuple[str, str], tuple[float, int]]:
    by = options[options.index("--by") + 1] if "--by" in options else "channel"
    rows = done("attribution", "show", *options, "-o", "ndjson").rows
    return {(row[by], row["currency"]): (round(row["orders"], 6), row["sales_minor"]) for row in rows}


def known_case() -> ShopEvents:
    """METRICS' case for Markov: the last path but one under two ids of one person, who is known only later."""
    told = ShopEvents().touch("a", "google", 1).buy("a", "o-1", 2).touch("b", "google", 1).buy("b", "o-2", 2)
    told.touch("c", "mailing", 1).buy("c", "o-3", 2).touch("e", "google", 1)
    return told.touch("d", "google", 1).touch("d-phone", "mailing", 2).buy("d", "o-4", 3)


@pytest.mark.long
def test_a_linked_id_brings_its_touches_along(shop: Path) -> None:
    """Else a mailing to the member number earns nothing of what the account buys."""
    told = known_case()
    consume(told)
    assert shown("--model", "last") == {("google", "CNY"): (3, 3000), ("mailing", "CNY"): (1, 1000)}
    consume(ShopEvents().add("user.events", "linked", 9, user_id="d", alias_id="d-phone"))
    assert shown("--model", "last") == {("google", "CNY"): (2, 2000), ("mailing", "CNY"): (2, 2000)}
    assert shown("--model", "markov") == {("google", "CNY"): (2.4, 2400), ("mailing", "CNY"): (1.6, 1600)}
    assert shown("--model", "linear") == {("google", "CNY"): (2.5, 2500), ("mailing", "CNY"): (1.5, 1500)}
    before = ("--at", "2026-11-08")
    assert shown("--model", "last", *before) == {("google", "CNY"): (3, 3000), ("mailing", "CNY"): (1, 1000)}
    rows = done("attribution", "show", "--explain", "o-4", "-o", "ndjson").rows
    assert [(r["touch"], r["channel"], r["credits"]["last"], r["credits"]["linear"]) for r in rows if r["touch"]] == [
        (1, "google", 0, 0.5),
        (2, "mailing", 1, 0.5),
    ]
    assert not set(OVER_ALL[:1]) & set(rows[0]["credits"]), "a removal effect is no credit of an order"


@pytest.mark.long
def test_the_window_ends_at_the_microsecond_in_the_sum_and_in_its_explanation(shop: Path) -> None:
    """Else `--explain` shows a credit that the channel's figure does not have."""
    told = ShopEvents().touch("u", "google", 1).buy("u", "o-1", 1)
    told.events[0]["occurred_at"], told.events[1]["occurred_at"] = "2026-10-01T23:59:59.5Z", "2026-11-01T00:00:00Z"
    consume(told)
    assert set(shown("--model", "last")) == {("(none)", "CNY")}
    rows = done("attribution", "show", "--explain", "o-1", "--model", "last", "-o", "ndjson").rows
    assert [row["credits"] for row in rows if row["kind"] == "click"] == [{"last": 0}]


@pytest.mark.long
def test_what_is_taken_back_is_credited_no_more(shop: Path) -> None:
    """A channel would be paid for a cancelled order."""
    told = known_case()
    consume(told)
    back = ShopEvents()
    back.add("order.events", "cancelled", 4, order_id="o-1", reason="r").events[-1]["event_id"] = "x-1"
    back.add("order.events", "refunded", 4, order_id="o-2", refund_minor=400).events[-1]["event_id"] = "x-2"
    back.add("order.events", "refunded", 4, order_id="o-3", refund_minor=2000).events[-1]["event_id"] = "x-3"
    consume(back)
    assert shown("--model", "last") == {("google", "CNY"): (2, 1600)}
    said = done("attribution", "show", "--model", "last").err
    assert "1 cancelled, 1 refunded" in said and "1 order was refunded more than was paid" in said


@pytest.mark.long
def test_coupons_of_an_order_share_it_by_their_discounts(shop: Path) -> None:
    """And what cannot be credited has rows of its own, each currency apart."""
    told = ShopEvents().use("c-1", "k-1", "u", "o-1", 2, 300).use("c-2", "k-2", "u", "o-1", 2, 100)
    told.buy("u", "o-1", 3, coupon_ids=["c-1", "c-2"]).buy("w", "o-2", 3, currency="USD")
    told.buy("x", "o-3", 3, net=0).buy("y", "o-4", 3, coupon_ids=["c-99"])
    told.touch("w", "late", 9)
    consume(told)
    assert shown("--model", "redeemed", "--by", "campaign") == {
        ("k-1", "CNY"): (0.75, 750),
        ("k-2", "CNY"): (0.25, 250),
        ("(unknown coupon)", "CNY"): (1, 1000),
        ("(none)", "CNY"): (1, 0),
        ("(none)", "USD"): (1, 1000),
    }
    assert shown("--model", "last")["(none)", "USD"] == (1, 1000), "a touch after the order led to nothing"
    said = done("attribution", "show", "--model", "last").err
    for words in (
        "2 currencies",
        "3 orders were led to by no touch",
        "1 order brought no sales",
        "1 order with coupons of which none",
    ):
        assert words in said
    shares = {r["campaign"]: r["orders"] for r in done(
        "attribution", "show", "--by", "campaign", "--campaign", "k-1", "--model", "redeemed", "-o", "ndjson").rows
        if r["currency"] == "CNY"}  # fmt: skip
    assert shares == {"k-1": 0.75, "(other campaigns)": 0.25, "(none)": 1, "(unknown coupon)": 1}


@pytest.mark.long
def test_roi_takes_the_discount_off_once(shop: Path) -> None:
    """(margin - booked) / (discount + booked): 1000 - 400 goods, 100 off, 200 booked of which 50 were taken back."""
    told = ShopEvents().use("c-1", "k-1", "u", "o-1", 2, 100).buy("u", "o-1", 3, cost_of_goods_minor=400)
    for amount in (200, -50):
        told.add("campaign.events", "cost_booked", 1, campaign_id="k-1", cost_kind="media", amount_minor=amount,
                 currency="CNY")  # fmt: skip
    consume(told)
    rows = done("attribution", "show", "--campaign", "k-1", "--roi", "-o", "ndjson").rows
    assert [row["model"] for row in rows] == list(BUILT_IN)
    assert {(row["margin_minor"], row["cost_minor"], row["roi"]) for row in rows} == {(600, 250, 1.8)}
    one_sentence(ledger("attribution", "show", "--campaign", "k-9", "--roi"), 1, "k-9")


@pytest.mark.slow
def test_roi_is_told_with_a_warning_where_some_cost_of_goods_is_not_known(shop: Path) -> None:
    """One order without a figure must not blank the campaign; nor count as if its goods were free."""
    told = ShopEvents().use("c-1", "k", "u", "o-1", 2, 100).buy("u", "o-1", 3, cost_of_goods_minor=400)
    told.use("c-2", "k", "w", "o-2", 2, 100).buy("w", "o-2", 3).use("c-3", "j", "w", "o-3", 3, 50).buy("w", "o-3", 4)
    consume(told)
    roi = ("attribution", "show", "--roi", "--model", "redeemed", "--campaign")
    [row] = done(*roi, "k", "-o", "ndjson").rows
    assert (row["margin_minor"], row["without_cost"], row["roi"]) == (600, 1, 3)
    assert "2 orders have no known cost of goods" in done(*roi, "k").err
    [nothing] = done(*roi, "j", "-o", "ndjson").rows
    assert nothing["margin_minor"] is None and nothing["roi"] is None, "of no order the cost is known"
    [rated] = done(*roi, "k", "--goods-rate", "50", "-o", "ndjson").rows
    assert (rated["margin_minor"], rated["without_cost"], rated["roi"]) == (1100, 0, 5.5)
    assert "2 orders have a cost of goods by --goods-rate" in done(*roi, "k", "--goods-rate", "50").err


@pytest.mark.long
def test_models_are_kept_by_name(shop: Path) -> None:
    """What last quarter was paid by must be there next quarter, with who chose it and why."""
    consume(known_case())
    define = ("attribution", "models", "define", "patient", "--kind", "time_decay", "--operator", "mei", "--why")
    done(*define, "try", "--half-life-days", "1")
    done(*define, "slower", "--half-life-days", "1000000")
    kept = done("attribution", "models", "show", "patient", "-o", "ndjson").rows
    assert [(row["operator"], row["why"], row["parameters"]["half_life_days"]) for row in kept] == [
        ("mei", "try", 1.0),
        ("mei", "slower", 1_000_000.0),
    ]
    assert [row["name"] for row in done("attribution", "models", "list", "-o", "ndjson").rows] == [*BUILT_IN, "patient"]
    rows = {row["channel"]: row for row in done("attribution", "compare", "last", "patient", "-o", "ndjson").rows}
    assert rows["google"]["orders patient"] == pytest.approx(rows["google"]["orders last"])
    assert "attribution_model_defined" in done("operations", "-o", "json").out
    one_sentence(ledger("attribution", "show", "--model", "quick"), 1, "quick", "models list")
    one_sentence(ledger(*define, "x", "--worth", "rate"), 2, "worth")
    assert json.loads(done("attribution", "models", "show", "last", "-o", "json").out)[0]["parameters"]


@pytest.mark.slow
def test_a_database_from_before_is_told_what_to_do(shop: Path) -> None:
    """It is not answered by empty tables; without the log being read again it has all that it needs."""
    consume(known_case())
    wanted = shown()
    with duckdb.connect(DATABASE) as connection:
        for table in ("persons", "paths", "touch_sources", "stale_users"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("DELETE FROM projections WHERE name = 'attribution'")
    one_sentence(ledger("attribution", "show"), 5, "projection attribution", "rebuild")
    done("rebuild", "--projection", "attribution", "--why", "it is new", "--operator", "mei")
    assert shown() == wanted
    done("verify")
