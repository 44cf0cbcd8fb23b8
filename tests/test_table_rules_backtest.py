"""Backtests of rules on the tables: what they say is what an owner would have found in those days. If it were not, a
rule would be switched on, or let act by itself, by a promise that it does not keep."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.consumers.alerts.on_tables import OnTables
from coupon_ledger.ledger.alert_commands import Condition, Terms, Tick
from coupon_ledger.ledger.alert_life import decide
from coupon_ledger.ledger.alert_state import Alert, evolve
from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.topics import INPUT_TOPICS
from coupon_ledger.projections.alerts.rules import Rule, Violations
from coupon_ledger.projections.connection import Cursor
from coupon_ledger.projections.database import open_database
from coupon_ledger.projections.live.apply import apply
from coupon_ledger.projections.live.journal import CONFLICTS, JOURNAL
from coupon_ledger.projections.past import Cut, Past
from coupon_ledger.projections.store import Store
from coupon_ledger.questions import looking_back
from coupon_ledger.questions.alerts.offenders import Vitals
from coupon_ledger.questions.alerts.violations import judge
from coupon_ledger.questions.backtest import health, restored, violations
from coupon_ledger.questions.backtest.stretches import raised, stretches_of
from coupon_ledger.questions.parameters import Parameters
from coupon_ledger.questions.registry import answer
from tests.alert_owner import Place, append, told
from tests.alert_world import store_events
from tests.command_line import done
from tests.examples import examples
from tests.folding import frame_of, scratch_store
from tests.test_alert_offenders import NOW, emptied, publish
from tests.test_alert_offenders import health as judged_live
from tests.test_cross_rules import World, consume

START = datetime(2026, 1, 1)
MINUTE = timedelta(minutes=1)


def rule(expr: Mapping[str, Any], name: str = "r", **more: Any) -> Rule:
    return Rule.model_validate({"name": name, "expr": dict(expr), **more})


def at(minute: float) -> datetime:
    return START + minute * MINUTE


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("past")) as store:
        yield store


@pytest.fixture
def store(opened: Store) -> Store:
    emptied(opened)
    return opened


def asked(store: Store, rules: list[Rule], **period: Any) -> list[dict[str, Any]]:
    cursor = store.cursor()
    cursor.begin()
    try:
        values = {"rules": [one.as_json() for one in rules], **period}
        return [row for f in answer(cursor, "alert-backtest", values).frames for row in f.iter_rows(named=True)]
    finally:
        cursor.end()
        cursor.close()


# ── From stretches to alerts ─────────────────────────────────────────────────────────────────────────────────


@given(
    held=st.lists(st.booleans(), min_size=1, max_size=40),
    hold=st.integers(0, 4),
    keep=st.integers(0, 4),
)
@examples(200)
def test_an_alert_is_raised_and_ends_as_the_life_of_alerts_says(held: list[bool], hold: int, keep: int) -> None:
    """A backtest with other rules of firing would promise fewer, or later, alerts than people get."""
    terms = Terms(hold=hold * MINUTE, keep=keep * MINUTE)
    minutes = len(held) - 1
    steps = pl.DataFrame(
        {"group": 0, "at": [at(n) for n in range(len(held))], "value": [float(n) for n in range(len(held))]}
    ).with_columns(pl.Series("holds", held))
    tried = rule({"kind": "violation"}, hold=terms.hold, keep=terms.keep)
    found = list(raised(stretches_of(steps), tried, at(minutes)))
    assert [(a.opened_at, a.fired_at, a.closed_at) for a in found] == list(_lives(held, terms))


def _lives(held: list[bool], terms: Terms) -> Iterator[tuple[datetime, datetime, datetime | None]]:
    """When alerts opened, fired and were resolved, if the rule is asked every minute."""
    alert: Alert | None = None
    lives: dict[str, dict[str, datetime]] = defaultdict(dict)
    since = 0
    for minute, holds in enumerate(held):
        now = at(minute).replace(tzinfo=UTC)
        if holds and (minute == 0 or not held[minute - 1]):
            since = minute
        about: dict[str, Any] = {"rule": "r", "labels": {}, "at": now, "now": now, "terms": terms}
        if holds:
            goes_on = alert is not None and alert.is_open and not _over(alert, now)
            name = alert.alert_id if goes_on and alert is not None else str(since)
            condition = Condition(
                outcome="holds", alert_id=name, since=at(since).replace(tzinfo=UTC), value=1.0, **about
            )
        else:
            condition = Condition(outcome="clear", since=now, **about)
        for command in (Tick(now=now, clock=now, terms=terms), condition):  # time passes, then the answer is there
            for event in decide(command, alert):
                alert = evolve(alert, event)
                assert alert is not None and event.data_at is not None
                lives[alert.alert_id].setdefault(event.type, event.data_at.replace(tzinfo=None))
    for name, life in lives.items():
        if "fired" in life:
            yield at(int(name)), life["fired"], life.get("resolved")


def _over(alert: Alert, now: datetime) -> bool:
    return alert.over_since is not None and now - alert.over_since >= alert.keep


# ── Violations ───────────────────────────────────────────────────────────────────────────────────────────────

FAULT = st.tuples(st.integers(0, 30), st.sampled_from("ab"), st.sampled_from(["k-1", "k-2"]), st.integers(0, 3))


@given(
    faults=st.lists(FAULT, min_size=1, max_size=25),
    at_least=st.integers(1, 3),
    window=st.none() | st.integers(1, 12),
    money=st.sampled_from([0, 4]),
)
@examples(150)
def test_at_every_instant_the_condition_holds_as_it_is_judged_then(
    faults: list[tuple[int, str, str, int]], at_least: int, window: int | None, money: int
) -> None:
    """An owner that asked at that instant would have found the same keys, with the same number, since the same time."""
    standing = pl.DataFrame(
        [
            {"key_hash": n, "code": code, "fault_at": at(minute), "campaign": campaign, "channel": "app",
             "coupon": f"c{n}", "order": None, "currency": "CNY", "use": n, "money_minor": amount}
            for n, (minute, code, campaign, amount) in enumerate(faults)
        ],
        schema_overrides={"order": pl.String, "fault_at": pl.Datetime("us"), "use": pl.UInt64},
    )  # fmt: skip
    expr = {"kind": "violation", "by": ["campaign"], "at_least": at_least, "min_money_minor": money}
    tried = rule(expr | ({} if window is None else {"window": f"{window}m"}), keep="PT0S")
    assert isinstance(tried.expr, Violations)
    clock = at(45)
    found = list(violations.alerts(standing.with_columns(counts_at="fault_at"), tried, clock))
    for minute in range(46):
        past = standing.filter(pl.col("fault_at") <= at(minute))
        then = {json.dumps(dict(o.key)): o.since for o in judge(past, tried.expr, at(minute))}
        holding = [row for row in found if _holds(row, at(minute))]
        assert {row["key"]: row["opened_at"] for row in holding} == then


def _holds(row: Mapping[str, Any], instant: datetime) -> bool:
    return bool(row["opened_at"] <= instant and (row["closed_at"] is None or instant < row["closed_at"]))


def test_of_several_violations_in_one_use_the_money_counts_once_and_the_newest_are_named() -> None:
    """Evidence without ids is an alert that nobody can look into."""
    rows = [
        {"key_hash": 1, "code": code, "fault_at": at(minute), "campaign": "k", "channel": "", "coupon": f"c{minute}",
         "order": "o", "currency": "CNY", "use": use, "money_minor": 500, "counts_at": at(minute)}
        for minute, code, use in ((1, "a", 1), (2, "b", 1), (50, "a", 2))
    ]  # fmt: skip
    known = pl.DataFrame(rows, schema_overrides={"fault_at": pl.Datetime("us"), "counts_at": pl.Datetime("us")})
    tried = rule({"kind": "violation", "by": ["campaign"], "window": "10m"}, keep="PT0S")
    first, second = (json.loads(row["details"]) for row in violations.alerts(known, tried, at(100)))
    assert (first["count"], first["money_minor"], first["coupons"], first["orders"]) == (2, 500, ["c2", "c1"], ["o"])
    assert (second["count"], second["coupons"]) == (1, ["c50"])


USED = {"kind": "violation", "codes": ["used_when_used"], "by": ["campaign"]}
ORPHAN = {"kind": "violation", "codes": ["orphan_use"], "by": ["campaign"]}


def test_a_violation_counts_from_when_the_log_knew_of_it(store: Store) -> None:
    """An alert that comes two hours late is not the one that a backtest promises for the minute of the fault."""
    worth = {"coupon_type": "cash", "face_value_minor": 500, "currency": "CNY"}
    issued = {"type": "issued", "channel": "app", "campaign_id": "k-1", **worth}
    claimed = {"type": "claimed", "user_id": "u", "channel": "app"}
    used = {
        "type": "used",
        "order_id": "o",
        "user_id": "u",
        "discount_minor": 400,
        "currency": "CNY",
        "campaign_id": "k-1",
    }
    events: list[tuple[str, dict[str, Any], float, float]] = [
        ("c1", issued, 0, 0),
        ("c1", claimed, 1, 1),
        ("c1", used, 10, 10),
        ("c2", issued, 90, 90),
        ("c1", used, 5, 120),  # recorded late: the other use becomes the second one
        ("c2", claimed, 300, 300),
    ]
    _fold(store, events)
    rules = [rule(USED, "twice"), rule(ORPHAN, "orphan")]
    happened = {row["rule"]: row["fired_at"] for row in asked(store, rules, clock="occurred")}
    known = {row["rule"]: row["fired_at"] for row in asked(store, rules)}
    assert happened == {"twice": at(10), "orphan": at(5)}
    assert known == {"twice": at(90), "orphan": at(90)}  # the clock that the log had reached at minute 120
    _fold(store, [("c3", {**used, "campaign_id": "k-2"}, 301, 301), ("c4", {**used, "campaign_id": "k-3"}, 400, 400)])
    [third] = [row for row in asked(store, rules) if json.loads(row["key"]) == {"campaign": "k-2"}]
    assert (third["rule"], third["fired_at"]) == ("orphan", at(316))  # after the grace


# ── Against an owner that runs ───────────────────────────────────────────────────────────────────────────────

LIVE = """
use_defaults: false
groups:
- name: tables
  rules:
  - alert: twice
    expr: {kind: violation, codes: [used_when_used], by: [campaign]}
  - alert: often
    expr: {kind: violation, codes: [used_when_used], by: [campaign], at_least: 2, window: 1h}
    keep_firing_for: 10m
  - alert: dear
    expr: {kind: violation, codes: [used_when_used, used_when_revoked], by: [code], min_money_minor: 700, window: 2h}
    for: 5m
"""


def _life_of(number: int, day: int, faults: list[str]) -> list[dict[str, Any]]:
    first = datetime(2026, 1, 1 + day, 8, number % 60, tzinfo=UTC)
    about = {"topic": "coupon.events", "source": "app", "coupon_id": f"c-{number}", "campaign_id": f"k-{number % 3}"}
    types = ["issued", "claimed", "used", *faults]
    values = {"face_value_minor": 500, "coupon_type": "cash", "currency": "CNY", "channel": "app"}
    extra: dict[str, dict[str, Any]] = {
        "issued": values,
        "claimed": {"user_id": "u", "channel": "app"},
        "used": {"order_id": "o", "user_id": "u", "discount_minor": 400, "currency": "CNY"},
        "revoked": {"reason": "fraud"},
    }
    return [
        {**about, "event_id": f"{number}-{n}", "type": kind, "occurred_at": first + n * 7 * MINUTE, **extra[kind]}
        for n, kind in enumerate(types)
    ]


@pytest.mark.long
def test_a_backtest_says_what_a_running_owner_raised(tmp_path: Path) -> None:
    """The log is consumed day by day, with its rules asked each time, and the alerts then are those of the backtest."""
    r = random.Random(5)
    place = Place(tmp_path)
    place.rules.write_text(LIVE, encoding="utf-8")
    number = 0
    for day in range(3):
        events = []
        for _ in range(8):
            faults = r.choice([[], ["used"], ["used", "used"], ["revoked", "used"]])
            events += _life_of(number, day, faults)
            number += 1
        events.sort(key=lambda event: event["occurred_at"])
        for _, hour in groupby(events, key=lambda event: event["occurred_at"].minute // 8):
            append(place.log, hour)
            place.run(find=OnTables())
    live = {
        (event.rule, json.dumps(dict(event.labels)), event.data_at.replace(tzinfo=None))
        for event in told(place.log, "fired")
        if event.data_at is not None
    }
    with open_database(tmp_path / "a.duckdb") as store:
        cursor = store.cursor()
        cursor.begin()
        rows = [r for f in answer(cursor, "alert-backtest", {"clock": "occurred"}).frames for r in f.rows(named=True)]
        cursor.end()
        cursor.close()
    tried = {(row["rule"], row["key"], row["fired_at"]) for row in rows}
    assert {name for name, *_ in live} == {"twice", "often", "dear"}
    assert live == tried


# ── Restored states ──────────────────────────────────────────────────────────────────────────────────────────

TABLES = ("coupons", "orders", "campaigns", "users", "violations", "persons", "coupon_events", "order_events")

KEYED = ("coupons", "orders", "campaigns", "users", "coupon_events", "order_events")
DELIVERIES = (*JOURNAL.values(), *CONFLICTS.values())


@pytest.mark.long
@given(seed=st.integers(0, 10**6))
@examples(8)
def test_a_restored_state_is_that_of_a_question_about_the_past(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """A rule that is asked in a wrong state finds what never was."""
    world = World(seed)
    with scratch_store(tmp_path_factory.mktemp("live")) as store:
        consume(store, world.told)
        cursor = store.cursor()
        cursor.begin()
        known = restored.span(cursor)
        assert known is not None
        instants = restored.instants(*known, (known[1] - known[0]) / 5 or MINUTE)
        seen = []
        for state in restored.restored(cursor, instants, INPUT_TOPICS):
            newest = " UNION ALL ".join(f"SELECT recorded_at FROM {table}" for table in DELIVERIES)
            [(until,)] = state.cursor.rows(f"SELECT max(recorded_at) FROM ({newest})")
            seen.append((until, state.clock, _tables(state.cursor)))
        keyed = restored.restored(cursor, instants, INPUT_TOPICS, only_by_key=True)
        assert [(s.clock, _tables(s.cursor, KEYED)) for s in keyed] == [
            (clock, {name: tables[name] for name in KEYED}) for _, clock, tables in seen
        ]
        cursor.end()
        for until, clock, tables in seen:
            cursor.begin()
            past = Past(cursor, Cut(known_at=until))
            looking_back.everything(past, Parameters())
            assert cursor.rows("SELECT data_clock FROM ledger") == [(clock,)]
            assert _tables(cursor) == tables
            past.close()
            cursor.end()
        cursor.close()


def _tables(cursor: Cursor, tables: Sequence[str] = TABLES) -> dict[str, list[str]]:
    return {
        table: sorted(map(str, cursor.frame(f"SELECT * FROM {table}").drop("first_recorded_at", strict=False).rows()))
        for table in tables
    }


QUERY = {"kind": "sql", "key": ["campaign"], "value": "n",
         "query": "SELECT campaign_id AS campaign, count(*) AS n FROM coupons GROUP BY 1 HAVING n >= 3"}  # fmt: skip


def _claims(store: Store, number: int) -> None:
    """One coupon a minute, recorded when it is created."""
    created = {
        "type": "created",
        "campaign_id": "k-1",
        "coupon_type": "cash",
        "face_value_minor": 100,
        "currency": "CNY",
    }
    _fold(store, [(f"c{n}", created, n, n) for n in range(number)])


def _fold(store: Store, events: Sequence[tuple[str, Mapping[str, Any], float, float]]) -> None:
    """Fold events: coupon, content, and the minutes at which they happened and were recorded."""
    deliveries = []
    for n, (coupon, event, minute, recorded) in enumerate(events):
        about = {"event_id": f"{coupon}-{n}", "coupon_id": coupon, "source": "s"}
        micros = int(at(recorded).replace(tzinfo=UTC).timestamp() * 1e6)
        whole = {**about, **event, "occurred_at": at(minute).replace(tzinfo=UTC)}
        deliveries.append(Delivery(whole, micros, 0, int(recorded * 100) + n))
    with store.transaction():
        apply(store, "coupon.events", frame_of("coupon.events", deliveries))


def test_a_query_is_asked_in_each_state_and_one_that_fails_stops_no_other(store: Store) -> None:
    """Queries are the rules that people write themselves: nobody has tried them yet."""
    _claims(store, 10)
    broken = QUERY | {"query": "SELECT campaign_id AS campaign, 'x' AS n FROM coupons"}
    names = "abcdefghi"
    many_rows = ", ".join(f"coupons {name}" for name in names)
    slow = QUERY | {
        "query": f"SELECT a.campaign_id AS campaign, count(*) AS n FROM {many_rows} GROUP BY 1",
        "timeout": "1s",
    }
    rows = asked(store, [rule(slow, "slow"), rule(broken, "broken"), rule(QUERY, "many", hold="PT2M")])
    [stopped] = [row for row in rows if row["rule"] == "slow" and row["problem"] is not None]
    assert "took longer than 1 s" in stopped["problem"]
    [many] = [row for row in rows if row["rule"] == "many"]
    assert (many["opened_at"], many["fired_at"], many["value"], many["peak"]) == (at(2), at(4), 5, 10)
    [failed] = [row for row in rows if row["rule"] == "broken"]
    assert failed["fired_at"] is None and "no number" in failed["problem"]
    assert asked(store, [rule(QUERY, "many")], until=at(2)) == []


def test_what_cannot_be_restored_is_named(store: Store) -> None:
    """A rule that was left out in silence looks like one that found nothing."""
    _claims(store, 3)
    rules = [
        rule(QUERY, "query"),
        rule(QUERY | {"query": "SELECT rule AS campaign, 1 AS n FROM alert_events"}, "of_alerts"),
        rule({"kind": "health", "of": "lag"}, "lag"),
        rule({"kind": "reconciliation"}, "accounts"),
        rule({"kind": "guardrail"}, "arms"),
        rule({"kind": "violation"}, "faults"),
        rule({"kind": "velocity", "events": ["claimed"], "by": ["user_id"], "at_least": 2, "window": "1h"}, "fast"),
    ]
    cursor = store.cursor()
    cursor.begin()
    [plan] = answer(cursor, "alert-backtest-plan", {"rules": [one.as_json() for one in rules]}).frames
    cursor.end()
    cursor.close()
    by_rule = {row["rule"]: row for row in plan.iter_rows(named=True)}
    assert {name: row["tried_on"] for name, row in by_rule.items()} == {
        "query": "states", "of_alerts": "raised", "lag": "raised", "accounts": "raised", "arms": "nothing",
        "faults": "violations", "fast": "stream",
    }  # fmt: skip
    assert by_rule["query"]["restored_states"] == 3 and by_rule["query"]["apart_seconds"] == 60
    assert "alert_events" in by_rule["of_alerts"]["why"]


def test_of_rules_about_which_the_log_says_nothing_the_alerts_that_were_raised_count(store: Store) -> None:
    """Whether a lag rule is noisy can only be told from the alerts that people got."""
    now = at(10).replace(tzinfo=UTC)
    about: dict[str, Any] = {"labels": {}, "now": now, "at": now, "alert_id": "a" * 64, "value": 500.0}
    raised_live = [Condition(rule=name, outcome="holds", **about) for name in ("lag", "other")]
    store_events(store, [event for condition in raised_live for event in decide(condition, None)])
    lag = rule({"kind": "health", "of": "lag", "above": 120}, "lag")
    [row] = asked(store, [lag])
    assert (row["rule"], row["fired_at"], row["value"], row["closed_at"]) == ("lag", at(10), 500, None)
    assert json.loads(row["details"])["alert_id"] == "a" * 64
    assert asked(store, [lag], since=at(11)) == []
    store_events(store, [])


# ── Health ───────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    gaps=st.lists(st.sampled_from([20, 60, 60, 60, 400, 900, 2000]), min_size=30, max_size=60),
    delays=st.lists(st.sampled_from([-400, 0, 0, 700]), min_size=60, max_size=60),
    letters=st.lists(st.integers(0, 20_000), max_size=12),
    when=st.lists(st.integers(0, 25_000), min_size=5, max_size=5),
)
@examples(25)
def test_health_is_at_every_instant_what_was_judged_then(
    opened: Store, gaps: list[int], delays: list[int], letters: list[int], when: list[int]
) -> None:
    """An outage that the backtest does not see is a rule that is switched off for finding nothing."""
    first, second = NOW, timedelta(seconds=1)
    recorded = [first + sum(gaps[:n]) * second for n in range(len(gaps))]
    rules = [
        {"of": "silent_source", "above": 300, "window": "10m"},
        {"of": "late_share", "above": 0.3, "window": "10m"},
        {"of": "clock_skew", "above": 300, "window": "10m"},
        {"of": "dead_letters", "above": 1, "window": "30m"},
    ]
    instants = [t for t in sorted({first + s * second for s in when}) if t <= max(recorded)]

    def filled(until: datetime) -> None:
        emptied(opened)
        for n, (moment, delay) in enumerate(zip(recorded, delays, strict=False)):
            if moment <= until:
                publish(opened, f"s{n}", [moment], delay * second)
        opened.execute("UPDATE coupon_events SET source = 'pos'")
        dead = [(first + s * second, n) for n, s in enumerate(letters) if first + s * second <= until]
        for moment, n in dead:
            opened.execute(
                "INSERT INTO dead_letters VALUES ('order.events', 0, $n, $at, '', '', 'invalid', 'why')",
                {"n": n, "at": moment},
            )

    expected = {}
    for instant in instants:
        filled(instant)
        for of in rules:
            offenders = judged_live(opened, vitals=Vitals(instant), **of)  # type: ignore[arg-type]
            expected[of["of"], instant] = sorted(json.dumps(dict(o.key), sort_keys=True) for o in offenders)
    filled(datetime.max)
    cursor = opened.cursor()
    cursor.begin()
    for of in rules:
        tried = rule({"kind": "health", **of}, keep="PT0S")
        found = list(health.alerts(cursor, tried))
        for instant in instants:
            holding = sorted(json.dumps(json.loads(r["key"]), sort_keys=True) for r in found if _holds(r, instant))
            assert holding == expected[of["of"], instant], (of, instant)
    cursor.end()
    cursor.close()


# ── The command ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long
def test_the_command_tries_every_kind_and_says_what_it_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads fen as yuan, or nothing as no alert, decides wrongly."""
    monkeypatch.delenv("COUPON_LEDGER_ALERT_RULES")
    where = ("--log", f"sqlite:///{tmp_path / 'log.db'}")
    both = (*where, "--database", str(tmp_path / "ledger.duckdb"))
    done("init", *both)
    labels = str(tmp_path / "labels.ndjson")
    few = ("--days", "7", "--events", "1500", "--seed", "4")
    done("simulate", *few, "--fault", "double-use-ring", "--labels", labels, *where)
    done("consume", *both)
    tried = ("alerts", "backtest", *both, "--rule", "double_use", "--labels", labels)
    [row] = done(*tried, "-o", "json").json
    assert row["faults_found"] == 1 and row["caught_minor"] > 0 and row["currency"] == "CNY"
    assert f"{row['caught_minor'] / 100:,.2f}" in done(*tried).out  # people read yuan, not fen
    swept = done(*tried, "--sweep", "double_use.at_least=1,1000", "-o", "json").json
    assert [r["faults_found"] for r in swept] == [1, 0]
    whole = done("alerts", "backtest", *both)
    assert "consumer_lag" in whole.err and "left out" not in whole.err
    empty = done(*tried, "--from", "2001-01-01", "--to", "2001-02-01")
    assert "there are no events in this period" in empty.err

    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "groups: [{name: ours, rules: [{alert: double_use,"
        " expr: {kind: violation, codes: [used_when_used], by: [campaign], at_least: 100000}}]}]",
        encoding="utf-8",
    )
    other = done("alerts", "backtest", *both, "--rules", rules, "--rule", "double_use", "--differences", "-o", "json")
    assert other.json and all(r["only_in"] == "in_force" and r["behind_coupons"] for r in other.json)
