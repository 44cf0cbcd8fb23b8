"""Why a number changed: the causes add up exactly, each is what a model that shares no code says, and leads to its
events."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from coupon_ledger.analysis.decomposition import Quotient, chain, mix_and_rate, quotient_weights
from coupon_ledger.consumers.replay import REPLAYED
from coupon_ledger.ledger import operations
from coupon_ledger.ledger.errors import NotThere, WrongQuestion
from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, KEY_FIELD, ORDER, USER
from coupon_ledger.ledger.words import note
from coupon_ledger.projections.database import open_database
from coupon_ledger.projections.live.apply import apply
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.changes.causes import CAUSES, CHAINS, KINDS
from coupon_ledger.questions.changes.formula import Formula
from coupon_ledger.questions.local import Local
from coupon_ledger.questions.metrics.definitions import METRICS
from coupon_ledger.reports.labels import named
from coupon_ledger.reports.why import headline
from tests.command_line import DATABASE, LOG, coupon_event, done, ledger, ndjson, one_sentence
from tests.folding import emptied, fold_in, scratch_store
from tests.metric_model import World, model, within, world
from tests.test_metrics import Events, at

Row = dict[str, Any]
MODEL = model()
HEADS = ("before", "after", "change")
EPOCH = datetime(1970, 1, 1)
SOME = (
    "used_events", "used_coupons", "returned_users", "use_rate", "cohort_use_rate", "gmv_minor", "coupon_orders",
    "coupon_gmv_minor", "discount_cost_minor", "coupon_margin_minor", "simple_roi", "claim_to_use_p50_s",
    "average_order_minor", "plain_net_sales_minor",
)  # fmt: skip
"""One of each kind: events, distinct coupons and users, quotients, orders, money, unknown costs, quantiles."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("changes")) as opened:
        yield opened


def fill(store: Store, told: World) -> None:
    for topic, deliveries in told.told.items():
        if deliveries:
            fold_in(store, apply, topic, [deliveries])


def asked(local: Local, metric: str, **given: Any) -> list[Row]:
    return [row for frame in local.ask("change-explained", metric=metric, **given).frames for row in frame.to_dicts()]


def ask(store: Store, metric: str, **given: Any) -> list[Row]:
    with closing(Local(store)) as local:
        return asked(local, metric, **given)


def blocks(rows: Sequence[Row]) -> dict[str | None, list[Row]]:
    """The rows of each currency."""
    found: dict[str | None, list[Row]] = {}
    for row in rows:
        found.setdefault(row.get("currency"), []).append(row)
    return found


def exact(row: Row) -> Fraction | None:
    return None if row["exact"] is None else Fraction(row["exact"])


def causes_of(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["cause"] not in HEADS]


def contributions(rows: Sequence[Row]) -> dict[str, Any]:
    """The contributions that are not 0, by cause, as the metric's column shows them."""
    metric = next(name for name in rows[0] if name in METRICS)
    return {row["cause"]: row[metric] for row in causes_of(rows) if row[metric]}


def check_sums(rows: Sequence[Row], metric: str) -> None:
    """Contributions add up to the change, and the change leads from before to after."""
    for currency, mine in blocks(rows).items():
        before, after, change = (exact(row) for row in mine[:3])
        assert [row["cause"] for row in mine[:3]] == list(HEADS)
        if before is None or after is None:
            assert change is None, (metric, currency)
            continue
        assert change == after - before, (metric, currency)
        assert sum((exact(row) or 0 for row in causes_of(mine)), Fraction(0)) == change, (metric, currency)
        shown = [row[metric] for row in causes_of(mine)]
        if all(isinstance(value, int) for value in shown):
            assert sum(shown) == mine[2][metric], "what people read adds up, too"
        assert "unexplained" not in [row["cause"] for row in mine], (metric, currency)


# ── The arithmetic ───────────────────────────────────────────────────────────────────────────────────────────


def test_every_formula_is_computed_exactly() -> None:
    """Else a metric that is added later would have no explanation."""
    for metric in METRICS.values():
        formula = Formula.of_metric(metric)
        names = (*metric.parts, "minutes")
        assert formula.value({name: Fraction(3) for name in names}) is not None or formula.per is not None, metric.name
        assert formula.value(dict.fromkeys(names)) is None or "greatest" in metric.base
    assert set(CHAINS) <= set(METRICS) and all(set(steps) <= set(METRICS) for steps in CHAINS.values())
    assert all(named(cause) is not None for cause in CAUSES)


def test_a_quotient_is_split_between_numerator_and_denominator() -> None:
    """2 of 4 become 3 of 5: the numerator gives 0.25 if it moves first and 0.2 if last, so 0.225; the other -0.125."""
    of, per = quotient_weights(Quotient(Fraction(2), Fraction(4)), Quotient(Fraction(3), Fraction(5)))
    assert (of, per) == (Fraction(9, 40), Fraction(-1, 8))
    assert of + per == Fraction(3, 5) - Fraction(1, 2)


def test_mix_and_rates_add_up_in_any_world() -> None:
    """Also with slices that are new, gone, without a denominator, or negative."""
    random_ = random.Random(7)
    for _ in range(300):
        sides = [
            {
                n: Quotient(Fraction(random_.randrange(-3, 9)), Fraction(random_.randrange(0, 6)))
                for n in range(5)
                if random_.random() < 0.8
            }
            for _ in range(2)
        ]
        sums = [
            Quotient(*(sum(column, Fraction(0)) for column in zip(*s.values(), strict=True))) if s else None
            for s in sides
        ]
        if any(one is None or not one.per for one in sums):
            continue
        old, new = (one.of / one.per for one in sums if one is not None)
        effects = mix_and_rate(*sides)
        assert sum((mix + rate for mix, rate in effects.values()), Fraction(0)) == new - old


def test_a_slice_with_its_old_rate_has_only_a_mix_effect() -> None:
    """Two channels at 10% and 30%: half of each, then a quarter and three quarters. No rate moved."""
    before = {"a": Quotient(Fraction(5), Fraction(50)), "b": Quotient(Fraction(15), Fraction(50))}
    after = {"a": Quotient(Fraction(5), Fraction(50)), "b": Quotient(Fraction(45), Fraction(150))}
    effects = mix_and_rate(before, after)
    assert [effect.rate for effect in effects.values()] == [0, 0]
    assert sum(effect.mix for effect in effects.values()) == Fraction(1, 20)


def test_a_funnel_is_replaced_step_by_step() -> None:
    """100 owned, 40 used, 36 kept; then 120, 60, 51. By hand: 20 x 0.36; 120 x 0.1 x 0.9; 60 x (0.85 - 0.9)."""
    numbers = ([Fraction(n) for n in (100, 40, 36)], [Fraction(n) for n in (120, 60, 51)])
    assert chain(*numbers) == [Fraction(36, 5), Fraction(54, 5), Fraction(-3)]
    assert chain([Fraction(0), Fraction(1)], [Fraction(1), Fraction(1)]) is None


# ── Two states: against a model ──────────────────────────────────────────────────────────────────────────────


def recorded_late(told: World, seed: int) -> World:
    """The same world, with most events recorded soon after they happened and some many days later."""
    random_ = random.Random(f"late {seed}")
    for deliveries in told.told.values():
        for n, one in enumerate(deliveries):
            delay = timedelta(
                seconds=random_.choice((1, 60, 3_600)) if random_.random() < 0.6 else random_.randrange(900_000)
            )
            instant = one.event["occurred_at"] + delay
            deliveries[n] = Delivery(one.event, round(instant.timestamp() * 1_000_000), one.partition, one.offset)
    return told


def instant_of(delivery: Delivery) -> datetime:
    return EPOCH + timedelta(microseconds=delivery.recorded_at)


def cuts_of(told: World, seed: int) -> tuple[datetime, datetime]:
    """Two instants between which a good part of the records came."""
    instants = sorted(instant_of(d) for deliveries in told.told.values() for d in deliveries)
    random_ = random.Random(f"cut {seed}")
    first = instants[random_.randrange(len(instants) // 4, len(instants) // 2)]
    return first, instants[random_.randrange(2 * len(instants) // 3, len(instants))]


def part_of(told: World, inside: Callable[[Delivery], bool]) -> World:
    return World({topic: [d for d in deliveries if inside(d)] for topic, deliveries in told.told.items()})


def modelled(told: World, metric: str, currency: str | None) -> float | None:
    def mine(row: Row) -> bool:
        return currency is None or (row.get("currency") or "XXX") == currency

    return MODEL[metric](within(told.rows(), mine))


def same(found: Fraction | None, wanted: float | None) -> bool:
    if found is None or wanted is None:
        return found is None and wanted is None
    return abs(float(found) - wanted) <= 1e-9 * max(1.0, abs(wanted))


def cause_in_words(delivery: Delivery, horizon: datetime) -> str:
    """The cause of a record, told again without SQL."""
    kind = next((name for name, one in KINDS.items() if delivery.event["type"] in one["types"]), None)
    if kind is None:
        return "other_events"
    return f"{'late' if delivery.event['occurred_at'].replace(tzinfo=None) <= horizon else 'new'}_{kind}"


def check_against_model(store: Store, seed: int, metrics: Sequence[str]) -> None:
    print(f"seed {seed}")
    told = recorded_late(world(seed), seed)
    first, last = cuts_of(told, seed)
    with emptied(store):
        fill(store, told)
        with closing(Local(store)) as local:
            for metric in metrics:
                rows = asked(local, metric, known_at_before=first, known_at_after=last)
                check_sums(rows, metric)
                for currency, mine in blocks(rows).items():
                    check_block(told, metric, currency, mine, first, last)


def check_block(
    told: World, metric: str, currency: str | None, rows: Sequence[Row], first: datetime, last: datetime
) -> None:
    """Both numbers are the model's; and the contribution of every cause of a sum is by how much the model's number
    moves when the records of the causes are added one after another."""
    for row, until in zip(rows, (first, last), strict=False):
        assert same(exact(row), modelled(part_of(told, lambda d, u=until: instant_of(d) <= u), metric, currency))  # type: ignore[misc]
    if METRICS[metric].formula or exact(rows[0]) is None or exact(rows[1]) is None:
        return
    found = {row["cause"]: exact(row) for row in causes_of(rows)}
    reached = modelled(part_of(told, lambda d: instant_of(d) <= first), metric, currency)
    for stage, cause in enumerate(CAUSES):
        if cause not in {cause_in_words(d, first) for ds in told.told.values() for d in ds}:
            continue
        so_far = CAUSES[: stage + 1]
        state = part_of(
            told,
            lambda d, s=so_far: instant_of(d) <= first or (instant_of(d) <= last and cause_in_words(d, first) in s),  # type: ignore[misc]
        )
        now = modelled(state, metric, currency)
        moved = Fraction(now or 0) - Fraction(reached or 0)
        assert same(found.get(cause, Fraction(0)), float(moved)), (metric, currency, cause)
        reached = now


@pytest.mark.long
def test_causes_are_what_a_model_says_when_they_are_added_one_by_one(store: Store) -> None:
    """Else the page that says why would name the wrong cause, with a sum that looks right."""
    check_against_model(store, 1, SOME[:8])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20, 23))
def test_every_metric_in_many_worlds(store: Store, seed: int) -> None:
    """The same for all metrics."""
    check_against_model(store, seed, sorted(MODEL))


@pytest.mark.slow
@pytest.mark.parametrize("by", ["campaign", "channel", "segment", "store", "weekday"])
def test_slices_of_causes_add_up(store: Store, by: str) -> None:
    """Also where an order counts in two campaigns, and where what a slice is changes."""
    told = recorded_late(world(5), 5)
    first, last = cuts_of(told, 5)
    with emptied(store):
        fill(store, told)
        with closing(Local(store)) as local:
            for metric in (name for name in SOME if by in METRICS[name].dimensions and "_p50" not in name):
                rows = asked(local, metric, by=by, known_at_before=first, known_at_after=last)
                check_sums(rows, metric)


@pytest.mark.long
def test_the_objects_behind_a_cause_add_up_to_it_and_name_its_events(store: Store) -> None:
    """Else a sum could not be followed to the events that made it."""
    told = recorded_late(world(2), 2)
    first, last = cuts_of(told, 2)
    between = {
        d.event["event_id"]: cause_in_words(d, first)
        for deliveries in told.told.values()
        for d in deliveries
        if first < instant_of(d) <= last
    }
    with emptied(store):
        fill(store, told)
        with closing(Local(store)) as local:
            for metric in ("used_events", "discount_cost_minor", "coupon_gmv_minor", "use_rate"):
                rows = asked(local, metric, known_at_before=first, known_at_after=last)
                for currency, mine in blocks(rows).items():
                    for row in causes_of(mine):
                        behind = asked(
                            local,
                            metric,
                            known_at_before=first,
                            known_at_after=last,
                            explain=row["cause"],
                            limit=10_000,
                        )
                        ours = [one for one in behind if one.get("currency") == currency]
                        assert sum((exact(one) or 0 for one in ours), Fraction(0)) == exact(row), (metric, row)
                        ids = [i for one in ours for i in one["event_ids"]]
                        assert ids and {between[i] for i in ids} == {row["cause"]}, (metric, row)
                        assert row["events"] == len(set(ids)) and behind[0]["found"] == len(behind)
            used = {i for i, cause in between.items() if cause.endswith("_uses")}
            found = {
                i
                for cause in ("late_uses", "new_uses")
                for one in asked(
                    local, "used_events", known_at_before=first, known_at_after=last, explain=cause, limit=10_000
                )
                for i in one["event_ids"]
            }
            assert found == used, "exactly the uses that were recorded between"


@pytest.mark.long
def test_a_reversed_question_has_the_negated_change(store: Store) -> None:
    told = recorded_late(world(3), 3)
    first, last = cuts_of(told, 3)
    with emptied(store):
        fill(store, told)
        for metric in ("discount_cost_minor", "use_rate"):
            there = blocks(ask(store, metric, known_at_before=first, known_at_after=last))
            back = blocks(ask(store, metric, known_at_before=last, known_at_after=first))
            for currency, rows in there.items():
                check_sums(back[currency], metric)
                assert exact(back[currency][2]) == -(exact(rows[2]) or 0)


@pytest.mark.long
def test_odd_states_are_answered(store: Store) -> None:
    """Equal ones, one before the first record, an empty ledger: a change of 0, never an error."""
    early = datetime(2020, 1, 1)
    names = ("gmv_minor", "use_rate", "stock_left", "minutes_to_sell_out", "used_users", "claim_to_use_p50_s")
    with emptied(store):
        for metric in (*names, "claims_per_minute"):
            rows = ask(store, metric, known_at_before=early, since=early if metric == "claims_per_minute" else None)
            check_sums(rows, metric)
            assert not causes_of(rows)
        told = recorded_late(world(4), 4)
        first, last = cuts_of(told, 4)
        fill(store, told)
        for metric in names:
            check_sums(ask(store, metric, known_at_before=early), metric)
            check_sums(ask(store, metric, at_before=first, at_after=last), metric)
            equal = ask(store, metric, known_at_before=first, known_at_after=first)
            check_sums(equal, metric)
            assert not causes_of(equal)


def test_what_cannot_be_asked_is_refused_with_a_remedy(store: Store) -> None:
    early = datetime(2020, 1, 1)
    for given, said in (
        ({}, "between what is not said"),
        ({"known_at_before": early, "compare": "week"}, "not both"),
        ({"compare": "week"}, "of which period"),
        ({"compare": "fortnight", "since": early, "until": datetime(2021, 1, 1)}, "there are day, week, month, year"),
        ({"before_since": early, "since": early, "until": datetime(2021, 1, 1)}, "no start or no end"),
        ({"known_at_before": early, "explain": "ghosts"}, "cause ghosts: there is none"),
        ({"known_at_before": early, "replayed": ["coupon.events:0:x"]}, "write TOPIC:PARTITION:FIRST-LAST"),
        ({"known_at_before": early, "by": "reason"}, "has no reason"),
        ({"compare": "week", "since": early, "until": datetime(2020, 1, 8), "explain": "volume"}, "no such metric"),
    ):
        with pytest.raises(WrongQuestion, match=said):
            ask(store, "gmv_minor", **given)
    with pytest.raises(NotThere, match="metric ghosts"):
        ask(store, "ghosts", known_at_before=early)
    with pytest.raises(WrongQuestion, match="is no sum over slices"):
        ask(store, "claim_to_use_p50_s", known_at_before=early, by="campaign")


# ── Two states: each cause by hand ───────────────────────────────────────────────────────────────────────────

REPORTED = datetime(2026, 11, 12)
LATE = "2026-11-13T00:00"
NEW = "2026-11-14T00:00"


@pytest.fixture
def told(store: Store) -> Iterator[Events]:
    """A sale: coupon c used on order o (1,000, discount 100); a coupon d, claimed; both recorded as they happened."""
    with emptied(store):
        events = Events()
        lived = (("created", "2026-11-11T00:00"), ("issued", "2026-11-11T01:00"), ("claimed", "2026-11-11T02:00"))
        events.coupon("c", *lived, ("used", "2026-11-11T03:00"))
        events.coupon("d", *lived)
        events.paid("o-c", "2026-11-11T03:00", "CNY", 1_000)
        yield events


def why(store: Store, told: Events, metric: str, **given: Any) -> dict[str, Any]:
    fill(store, World(told.told))
    rows = ask(store, metric, **{"known_at_before": REPORTED, **given})
    check_sums(rows, metric)
    return contributions(rows)


def test_a_late_use_and_a_new_one(store: Store, told: Events) -> None:
    use: Row = {"user_id": "u", "order_id": "o-d", "discount_minor": 70}
    told.tell(COUPON, "d", "used", "2026-11-11T05:00", recorded=LATE, **use)
    told.coupon("e", ("created", NEW), ("claimed", NEW), ("used", NEW))
    assert why(store, told, "discount_cost_minor") == {"late_uses": 70, "new_uses": 100}
    assert [r["object"] for r in ask(store, "discount_cost_minor", known_at_before=REPORTED, explain="late_uses")] == [
        "d"
    ]


def test_refunds_returns_and_cancellations(store: Store, told: Events) -> None:
    told.paid("o-2", "2026-11-11T04:00", "CNY", 500)
    told.tell(ORDER, "o-c", "refunded", "2026-11-11T20:00", recorded=LATE, refund_minor=95)
    told.tell(ORDER, "o-2", "cancelled", NEW, reason="x")
    told.tell(COUPON, "c", "returned", NEW, order_id="o-c")
    assert why(store, told, "gmv_minor") == {"late_refunds": -95, "new_cancellations": -500}
    assert contributions(ask(store, "coupon_gmv_minor", known_at_before=REPORTED)) == {
        "late_refunds": -95,
        "new_returns": -905,
    }
    assert contributions(ask(store, "net_used_events", known_at_before=REPORTED)) == {"new_returns": -1}


def test_late_orders_and_costs(store: Store, told: Events) -> None:
    told.tell(
        ORDER, "o-9", "paid", "2026-11-11T09:00", recorded=LATE, user_id="u", currency="CNY", gross_minor=7, net_minor=7
    )
    told.tell(CAMPAIGN, "k", "cost_booked", "2026-11-11T09:00", recorded=LATE, cost_kind="media", amount_minor=30,
              currency="CNY")  # fmt: skip
    assert why(store, told, "gmv_minor") == {"late_orders": 7}
    assert contributions(ask(store, "other_cost_minor", known_at_before=REPORTED)) == {"late_costs": 30}


def test_a_correction_and_a_sweep(store: Store, told: Events) -> None:
    """Compensating events and the ledger's own expiries are told apart from what systems published."""
    told.tell(COUPON, "c", "returned", "2026-11-11T06:00", recorded=LATE, order_id="o-c", event_id="correct:1")
    told.tell(COUPON, "d", "expired", NEW, reason="not_used", event_id="sweep:1")
    assert why(store, told, "discount_cost_minor") == {"corrections": -100}
    assert contributions(ask(store, "expired_events", known_at_before=REPORTED)) == {"sweeps": 1}


def test_a_replayed_dead_letter_was_not_in_the_earlier_number(store: Store, told: Events) -> None:
    """It was recorded in time, so only the spans of the replay can tell."""
    use: Row = {"user_id": "u", "order_id": "o-d", "discount_minor": 70}
    told.tell(COUPON, "d", "used", "2026-11-11T05:00", **use)
    place = told.told[COUPON][-1]
    span = f"{COUPON}:{place.partition}:{place.offset}-{place.offset}"
    assert why(store, told, "discount_cost_minor") == {}
    rows = ask(store, "discount_cost_minor", known_at_before=REPORTED, replayed=[span])
    assert contributions(rows) == {"replayed_records": 70} and rows[0]["discount_cost_minor"] == 100


def test_another_content_takes_the_place_of_what_counted(store: Store, told: Events) -> None:
    """By positions: partition 1 was read, partition 0 with an earlier record of the same event was not."""
    first = told.told[COUPON][3]
    assert first.event["type"] == "used"
    told.told[COUPON].append(Delivery({**first.event, "discount_minor": 60}, first.recorded_at + 1, 1, 0))
    fill(store, World(told.told))
    before = f"{COUPON}:0:{first.offset},{COUPON}:1:1,{ORDER}:0:1000"
    with store.transaction():
        for topic, partition, offset in ((COUPON, 0, 1_000), (COUPON, 1, 1), (ORDER, 0, 1_000)):
            store.execute(
                f"INSERT INTO checkpoints VALUES ('{topic}', {partition}, {offset}, {offset}, {offset}, 0, 0, 0)"
            )
    try:
        rows = ask(store, "discount_cost_minor", positions_before=before)
        check_sums(rows, "discount_cost_minor")
        assert (rows[0]["discount_cost_minor"], contributions(rows)) == (60, {"other_contents": 40})
    finally:
        with store.transaction():
            store.execute("DELETE FROM checkpoints")


def test_amended_terms_move_the_stock(store: Store, told: Events) -> None:
    told.tell(CAMPAIGN, "k", "published", "2026-11-10T00:00", quantity=5, name="n", coupon_type="cash")
    told.tell(CAMPAIGN, "k", "amended", NEW, quantity=8)
    told.tell(COUPON, "e", "claimed", NEW, user_id="u", channel="app", campaign_id="k")
    assert why(store, told, "stock_left") == {"new_claims": -1, "new_terms": 3}


def test_a_profile_moves_a_segment(store: Store, told: Events) -> None:
    told.tell(USER, "u", "profiled", NEW, attributes='{"segment":"vip"}')
    assert why(store, told, "gmv_minor", where={"segment": ["vip"]}) == {"new_profiles": 1_000}
    [behind] = ask(store, "gmv_minor", where={"segment": ["vip"]}, known_at_before=REPORTED, explain="new_profiles")
    assert (behind["object"], behind["types"]) == ("o-c", ["profiled"])


def test_time_and_goods_rates_are_causes(store: Store, told: Events) -> None:
    """More minutes of the period passed, or the costs of goods are given at another rate."""
    told.coupon("e", ("created", "2026-11-12T12:00"))
    assert set(why(store, told, "claims_per_minute", since=at("2026-11-11T00:00"), until=at("2026-11-13T00:00"))) == {
        "clock"
    }
    given = {"goods_rates": {"": 6_000}, "goods_rates_before": {"": 5_000}}
    assert contributions(ask(store, "coupon_margin_minor", known_at_before=REPORTED, **given)) == {"goods_rates": -100}


def test_linked_ids_change_no_metric(store: Store, told: Events) -> None:
    """Metrics count users as written; an explanation must not claim otherwise."""
    told.tell(USER, "u", "linked", NEW, alias_id="m")
    assert why(store, told, "used_users") == {}


# ── Two periods ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long
@pytest.mark.parametrize("by", [None, "campaign", "channel"])
def test_two_periods_are_explained_exactly(store: Store, by: str | None) -> None:
    told = world(6)
    week = {"since": datetime(2026, 11, 2), "until": datetime(2026, 11, 9)}
    with emptied(store):
        fill(store, told)
        with closing(Local(store)) as local:
            for metric in (*SOME, "claim_rate", "net_uses", "claims_per_minute"):
                if (by and by not in METRICS[metric].dimensions) or (by and "_p50" in metric):
                    continue
                for given in (
                    {"compare": "week"},
                    {"before_since": datetime(2000, 1, 1), "before_until": datetime(2000, 2, 1)},
                ):
                    check_sums(asked(local, metric, by=by, zone="UTC", **week, **given), metric)


@pytest.mark.long
def test_the_objects_of_two_periods_add_up(store: Store) -> None:
    """Else the coupons and orders behind a comparison would not make its number."""
    given = {"since": datetime(2026, 11, 2), "until": datetime(2026, 11, 9), "compare": "week", "zone": "UTC"}
    with emptied(store):
        fill(store, world(6))
        with closing(Local(store)) as local:
            for metric in ("gmv_minor", "coupon_gmv_minor", "discount_cost_minor", "use_rate", "other_cost_minor"):
                behind = blocks(asked(local, metric, explain=metric, limit=10_000, **given))
                for currency, rows in blocks(asked(local, metric, **given)).items():
                    objects = behind.get(currency, [])
                    assert sum((exact(one) or 0 for one in objects), Fraction(0)) == exact(rows[2]), (metric, currency)
                    assert all(one["event_ids"] for one in objects)


def test_a_sale_against_the_last_one_by_its_funnel(store: Store) -> None:
    """Last week 2 owned, 1 used at 100; this week 4 owned, 3 used at 100."""
    events = Events()
    for n in range(6):
        day = "2026-11-03" if n < 2 else "2026-11-10"
        steps = [("created", f"{day}T01:00"), ("claimed", f"{day}T02:00")]
        events.coupon(f"c-{n}", *steps, *([("used", f"{day}T03:00")] if n not in (1, 5) else []))
    week = {"since": datetime(2026, 11, 9), "until": datetime(2026, 11, 16), "zone": "UTC"}
    with emptied(store):
        fill(store, World(events.told))
        rows = ask(store, "discount_cost_minor", compare="week", **week)
        behind = ask(store, "discount_cost_minor", compare="week", explain="owned_events", **week)
    check_sums(rows, "discount_cost_minor")
    assert [(r["cause"], r["metric"], r["discount_cost_minor"]) for r in causes_of(rows)] == [
        ("volume", "owned_events", 100),
        ("rate", "used_events", 100),
        ("rate", "net_uses", 0),
        ("rate", "discount_cost_minor", 0),
    ]
    assert {row["object"]: row["owned_events"] for row in behind} == {f"c-{n}": -1 if n < 2 else 1 for n in range(6)}
    assert behind[0]["types"] == ["created", "claimed", "used"] and behind[0]["found"] == 6


# ── From the command line ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long
def test_the_command_explains_in_both_languages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else people would see codes, or a table that does not add up."""
    monkeypatch.chdir(tmp_path)
    done("init")
    lived = (("created", "2026-11-11T00:00:00Z"), ("claimed", "2026-11-11T01:00:00Z"), ("used", "2026-11-11T02:00:00Z"))
    done("publish", "-", stdin=ndjson([coupon_event(kind, when) for kind, when in lived]))
    done("consume")
    day = ("--since", "2026-11-11", "--until", "2026-11-12", "--known-at-before", "2026-11-11")
    assert "discount rose by" in done("why", "discount_cost_minor", *day).out
    chinese = done("why", "discount_cost_minor", *day, "--lang", "zh").out
    assert "上升" in chinese and "新增的核销" in chinese
    rows = json.loads(done("why", "discount_cost_minor", *day, "-o", "json").out)
    check_sums(rows, "discount_cost_minor")
    [behind] = json.loads(done("why", "discount_cost_minor", *day, "--explain", "new_uses", "-o", "json").out)
    assert (behind["object"], behind["types"]) == ("c-1", ["used"])
    assert done("why", "discount_cost_minor", *day, "--replays", "-o", "json").out
    one_sentence(ledger("why", "discount_cost_minor", "--explain", "volume"), 2)
    one_sentence(ledger("why", "ghosts", *day), 1)


@pytest.mark.long
def test_the_command_finds_replays_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a number that a replay of dead letters mended would have no cause."""
    monkeypatch.chdir(tmp_path)
    done("init")
    lived = (("created", "2026-11-11T00:00:00Z"), ("claimed", "2026-11-11T01:00:00Z"), ("used", "2026-11-11T02:00:00Z"))
    done("publish", "-", stdin=ndjson([coupon_event(kind, when) for kind, when in lived]))
    done("consume")
    with open_database(tmp_path / DATABASE, read_only=True) as store:
        [(partition, offset)] = store.rows("SELECT log_partition, log_offset FROM coupon_events WHERE type = 'used'")
    reported = datetime.now(UTC).isoformat()
    log = open_log(LogSettings(f"sqlite:///{tmp_path / LOG}"))
    try:
        positions = {"positions": [[COUPON, partition, offset, offset]]}
        operations.append(log, REPLAYED, why="the schema is known now", operator="mei", details=positions)
    finally:
        log.close()
    given = ("why", "used_events", "--known-at-before", reported, "-o", "json")
    assert contributions(json.loads(done(*given).out)) == {}
    assert contributions(json.loads(done(*given, "--replays").out)) == {"replayed_records": 1}
    assert contributions(json.loads(done(*given, "--replays", "--known-at-after", reported).out)) == {}


# ── For people ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_sentence_names_the_change_and_its_largest_causes() -> None:
    rows: list[Row] = [
        {"cause": cause, "currency": "CNY", "gmv_minor": value}
        for cause, value in (
            ("before", 0),
            ("after", 120_450),
            ("change", 120_450),
            ("late_uses", 130_000),
            ("late_refunds", -9_550),
        )
    ]
    since = note("since what was known at {at:instant}", at=datetime(2026, 11, 12, tzinfo=UTC))
    said = str(headline(rows, "gmv_minor", "minor", since))
    assert said == (
        "gmv_minor rose by 1,204.50 CNY since what was known at 2026-11-12T00:00:00Z, to 1,204.50 CNY:"
        " 1,300.00 CNY late_uses, -95.50 CNY late_refunds"
    )


def test_all_topics_have_kinds() -> None:
    """Else events of a topic would be `other_events` without a name."""
    assert {kind["topic"] for kind in KINDS.values()} == set(INPUT_TOPICS)
    assert set(KEY_FIELD) >= set(INPUT_TOPICS)
