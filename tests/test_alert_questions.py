"""What people ask about alerts: what is behind one, how good the rules are, and what an alert was before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.ledger.alert_commands import Acknowledge, Command, NotDelivered, Note, Resolve
from coupon_ledger.ledger.alert_events import event
from coupon_ledger.ledger.alert_evidence import values_in
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.errors import UnknownAlert, WrongQuestion
from coupon_ledger.projections.alerts.rules_file import load
from coupon_ledger.projections.alerts.templates import render, summary
from coupon_ledger.projections.database import open_database
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.alerts.behind import NOTHING, before, held_until
from coupon_ledger.questions.alerts.lives import id_of
from coupon_ledger.questions.local import Local
from coupon_ledger.reports.alerts import values_of
from tests.alert_world import EVENING, FARM, begin, book_of, consume, fire, publish, store_events, tell
from tests.command_line import DATABASE, coupon_event
from tests.examples import examples
from tests.folding import Row, scratch_store

FIRED = datetime(2026, 12, 1, 8, tzinfo=UTC)
LATER = "2026-12-02T08:00:00Z"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The sale, with an alert of each rule: a farm that mei took, judged true and saved money for; mass claims that
    nobody took, and about which a message was held back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "C.UTF-8")
        folder = tmp_path_factory.mktemp("alerts")
        begin(folder)
        ids = fire(folder, FIRED)
        publish(folder, [coupon_event("revoked", "c-7-9", coupon_id="c-7", reason="theft", occurred_at=LATER)])
        consume(folder)
        farm, mass = ids["device_farm"], ids["mass_claims"]
        commands: list[Command] = [
            Acknowledge(alert_id=farm, operator="mei", now=FIRED + timedelta(minutes=10)),
            NotDelivered(alert_id=mass, reason="silenced", cause="s-1", now=FIRED + timedelta(minutes=11)),
            Note(alert_id=farm, operator="mei", now=FIRED + timedelta(minutes=20), note="一个店员的手机"),
            Resolve(alert_id=farm, operator="mei", now=FIRED + timedelta(minutes=30), outcome="true",
                    saved_minor=3_500, currency="CNY"),
        ]  # fmt: skip
        book = book_of(folder)
        for command in commands:
            made = book.decide(command)
            for one in made:
                book.fold(one)
            tell(folder, made)
        return folder, ids


@pytest.fixture(scope="module")
def local(world: tuple[Path, dict[str, str]]) -> Iterator[Local]:
    with open_database(world[0] / DATABASE, read_only=True) as store, closing(Local(store)) as asked:
        yield asked


def rows(local: Local, question: str, **parameters: Any) -> list[Row]:
    return [row for frame in local.ask(question, **parameters).frames for row in frame.iter_rows(named=True)]


def farm(local: Local, world: tuple[Path, dict[str, str]], **parameters: Any) -> Row:
    return local.ask("alert", alert=world[1]["device_farm"], **parameters).row()


def test_open_alerts_come_first_by_severity_and_closed_ones_only_when_asked_for(local: Local) -> None:
    """Else the critical alert stands below the fold, or a settled one is worked on again."""
    assert [row["rule"] for row in rows(local, "alerts")] == ["mass_claims", "two_claims"]
    assert [row["rule"] for row in rows(local, "alerts", state="all")] == ["mass_claims", "device_farm", "two_claims"]
    assert [row["rule"] for row in rows(local, "alerts", state="resolved")] == ["device_farm"]


@pytest.mark.parametrize(
    ("chosen", "rules"),
    [
        ({"rule": "two_claims"}, {"two_claims"}),
        ({"severity": "high"}, {"mass_claims", "device_farm"}),
        ({"assignee": "mei"}, {"device_farm"}),
        ({"key": "d-farm"}, {"device_farm"}),
        ({"key": "campaign_id=k-*"}, {"mass_claims"}),
        ({"text": "店员"}, {"device_farm"}),
        ({"text": "MASS"}, {"mass_claims"}),
        ({"until": EVENING - timedelta(days=30)}, set()),
        ({"until": FIRED}, {"mass_claims", "device_farm", "two_claims"}),
        ({"since": EVENING - timedelta(days=30)}, {"mass_claims", "device_farm", "two_claims"}),
        ({"since": FIRED}, set()),
    ],
)
def test_filters_choose_alerts(local: Local, chosen: dict[str, Any], rules: set[str]) -> None:
    """Else whoever looks for what concerns them reads everything. Periods go by the data's clock: the alerts here are
    of an evening that was consumed weeks later, at `FIRED`."""
    assert {row["rule"] for row in rows(local, "alerts", state="all", **chosen)} == rules


def test_a_matcher_that_is_none_is_refused(local: Local) -> None:
    """Else an empty list says that nothing is wrong with the campaign."""
    with pytest.raises(WrongQuestion, match="label=value"):
        rows(local, "alerts", key="=8")


def test_a_day_is_one_of_the_zone_in_which_the_alerts_began(local: Local) -> None:
    """Else the alerts of the sale's first eight hours stand with the day before."""
    days = {
        zone: {g["grouped_by"] for g in rows(local, "alert-groups", by="day", state="all", zone=zone)}
        for zone in ("UTC", "Asia/Shanghai", "Pacific/Kiritimati")
    }
    assert days["UTC"] == days["Asia/Shanghai"] == {"2026-11-11"}
    assert days["Pacific/Kiritimati"] == {"2026-11-12"}


def test_groups_count_alerts_and_their_money(local: Local) -> None:
    """Else a wall of alerts cannot be seen from afar."""
    groups = {g["grouped_by"]: g for g in rows(local, "alert-groups", by="severity", state="all")}
    assert {name: (g["alerts"], g["open_alerts"], g["money_minor"]) for name, g in groups.items()} == {
        "critical": (1, 1, 4_000), "high": (1, 0, 4_000), "info": (1, 1, 4_000)
    }  # fmt: skip
    by_device = {g["grouped_by"]: g["alerts"] for g in rows(local, "alert-groups", by="device_id", state="all")}
    assert by_device == {"d-farm": 1, None: 2}
    with pytest.raises(WrongQuestion, match="by: no alert has 'foo'; name one of "):
        rows(local, "alert-groups", by="foo", state="all")


def test_behind_an_alert_are_the_coupons_users_and_orders_of_its_window(
    local: Local, world: tuple[Path, dict[str, str]]
) -> None:
    """Else the wrong people are called, or the device's honest claims of last week are revoked too."""
    row = farm(local, world)
    assert (row["events"], row["coupons"], row["users"], row["orders"]) == (8, 8, 8, 1)
    assert [c["coupon_id"] for c in row["coupon_list"]] == [f"c-{n}" for n in range(8)]
    assert {u["user_id"] for u in row["user_list"]} == {f"u-{n}" for n in range(8)}
    assert [o["order_id"] for o in row["order_list"]] == ["o-1"]
    assert row["stakes"] == [{"currency": "CNY", "coupons": 7, "discount_minor": 500, "promised_minor": 3_000}]


def test_the_first_ones_come_first_by_time(local: Local, world: tuple[Path, dict[str, str]]) -> None:
    """Else whoever looks for how it began reads the whole list."""
    assert [u["user_id"] for u in farm(local, world)["user_list"]] == [f"u-{n}" for n in range(8)]
    late = local.ask("alert", alert=world[1]["device_farm"], limit=3).row()
    assert [c["coupon_id"] for c in late["coupon_list"]] == ["c-0", "c-1", "c-2"]


def test_lists_are_limited_but_everything_is_counted(local: Local, world: tuple[Path, dict[str, str]]) -> None:
    """Else an alert with a million coupons fills the terminal, or looks small."""
    row = farm(local, world, limit=2)
    assert len(row["coupon_list"]) == len(row["user_list"]) == 2
    assert (row["coupons"], row["users"]) == (8, 8)


def test_the_same_slice_before_shows_that_one_claim_in_two_days_was_usual(
    local: Local, world: tuple[Path, dict[str, str]]
) -> None:
    """Else nobody can tell whether this device always claims so."""
    periods = {p["period"]: p for p in farm(local, world)["periods"]}
    assert list(periods) == ["during", "window_before", "day_before", "week_before"]
    assert [p["events"] for p in periods.values()] == [8, 0, 1, 3]
    assert [p["windows"] for p in periods.values()] == [2, 1, 144, 1_008]
    assert periods["during"]["most_users"] == 5 and periods["week_before"]["most_events"] == 1
    assert periods["week_before"]["until"] == periods["during"]["since"], "no event is in both"


def test_the_life_is_told_in_order_and_the_evidence_survives_the_end(
    local: Local, world: tuple[Path, dict[str, str]]
) -> None:
    """Else who took it and why is lost as soon as it is closed."""
    row = farm(local, world)
    assert [e["type"] for e in row["life"]] == ["fired", "acknowledged", "noted", "resolved"]
    assert (row["status"], row["outcome"], row["saved_minor"], row["resolved_by"]) == ("resolved", "true", 3_500, "mei")
    assert json.loads(row["evidence"])["rows"] == [{"user_id": "u-0", "coupon_id": "c-0"}]
    assert json.loads(row["content"])["playbook"] == FARM.playbook


def test_why_a_message_was_not_sent_is_told(local: Local, world: tuple[Path, dict[str, str]]) -> None:
    """Else silence of a channel looks like peace."""
    row = local.ask("alert", alert=world[1]["mass_claims"]).row()
    assert [(e["reason"], e["cause"]) for e in row["life"] if e["type"] == "not_notified"] == [("silenced", "s-1")]
    assert row["withheld"] == "silenced"


@pytest.mark.long
@pytest.mark.parametrize("clock", ["at", "known_at"])
def test_an_alert_can_be_asked_for_as_it_was(local: Local, world: tuple[Path, dict[str, str]], clock: str) -> None:
    """Else an audit cannot say what was known when the decision was made."""
    known = {e["type"]: e for e in farm(local, world)["life"]}
    taken, ended = (known[name]["occurred_at"] for name in ("acknowledged", "resolved"))
    if clock == "known_at":
        with open_database(world[0] / DATABASE, read_only=True) as store:
            recorded = dict(store.rows("SELECT type, recorded_at FROM alert_events"))
        taken, ended = recorded["acknowledged"], recorded["resolved"]
    before = farm(local, world, **{clock: taken - timedelta(microseconds=1)})
    assert (before["status"], [e["type"] for e in before["life"]]) == ("firing", ["fired"])
    then = farm(local, world, **{clock: ended - timedelta(microseconds=1)})
    assert (then["status"], then["acknowledged_by"], then["outcome"]) == ("acknowledged", "mei", None)
    assert farm(local, world, **{clock: ended})["status"] == "resolved"
    first = {row["rule"]: row["status"] for row in rows(local, "alerts", state="all", **{clock: taken})}
    assert first == {"mass_claims": "firing", "device_farm": "acknowledged", "two_claims": "firing"}


def test_before_it_fired_there_was_no_alert(local: Local, world: tuple[Path, dict[str, str]]) -> None:
    """Else the past knows what nobody knew then."""
    with pytest.raises(UnknownAlert):
        farm(local, world, at=FIRED - timedelta(seconds=1))
    assert rows(local, "alerts", at=FIRED - timedelta(seconds=1)) == []


@pytest.mark.long
def test_the_coupons_behind_an_alert_are_those_of_the_past_too(
    local: Local, world: tuple[Path, dict[str, str]]
) -> None:
    """Else the report about the night shows coupons as revoked that were revoked a day later."""
    then, now = ({s["state"]: s["coupons"] for s in farm(local, world, **cut)["states"]} for cut in ({"at": FIRED}, {}))
    assert then == {"claimed": 7, "used": 1}
    assert now == {"claimed": 6, "used": 1, "revoked": 1}


def test_statistics_follow_what_operators_said(local: Local) -> None:
    """Else a rule that cries wolf is kept, and one that saves money is switched off."""
    stats = {row["rule"]: row for row in rows(local, "alert-stats", now=FIRED + timedelta(days=1))}
    device_farm = stats["device_farm"]
    assert (device_farm["alerts"], device_farm["true_alerts"], device_farm["precision_rate"]) == (1, 1, 1.0)
    assert (device_farm["caught_minor"], device_farm["saved_minor"], device_farm["currency"]) == (4_000, 3_500, "CNY")
    assert stats["mass_claims"]["open_alerts"] == 1 and stats["mass_claims"]["precision_rate"] is None
    assert device_farm["taken_p50_seconds"] - device_farm["fired_p50_seconds"] == pytest.approx(600)


def test_statistics_of_a_period_leave_out_other_alerts_but_show_the_trend(local: Local) -> None:
    """Else the month's figures are those of the year."""
    later = EVENING + timedelta(days=10)
    stats = {r["rule"]: r for r in rows(local, "alert-stats", since=later, until=later + timedelta(days=10))}
    assert {r["alerts_before"] for r in stats.values()} == {1} and {r["alerts"] for r in stats.values()} == {0}
    assert stats["device_farm"]["precision_before_rate"] == 1.0


def test_rules_in_force_and_their_versions(world: tuple[Path, dict[str, str]], local: Local) -> None:
    """Else nobody knows which threshold judged the sale."""
    known = {row["rule"]: row for row in rows(local, "alert-rules")}
    assert set(known) == {"device_farm", "mass_claims", "two_claims"}
    assert known["device_farm"]["rule_version"] == FARM.version
    assert known["device_farm"]["in_force_since"] is None, "from the beginning"
    assert [row["rule"] for row in rows(local, "alert-rules", rule="two_claims")] == ["two_claims"]


IDS = st.lists(st.text("0123456789abcdef", min_size=4, max_size=6), min_size=1, unique=True)


@pytest.mark.long
@given(IDS, st.data())
@examples(200)
def test_a_beginning_names_the_one_alert_that_has_it(ids: list[str], data: st.DataObject) -> None:
    """Else a shortened id acts on another alert than the one that was meant."""
    wanted = data.draw(st.sampled_from(ids))
    beginning = wanted[: data.draw(st.integers(0, len(wanted)))]
    fitting = [i for i in ids if i.startswith(beginning)]
    if beginning in ids or (len(fitting) == 1 and beginning):
        assert id_of(ids, beginning) == (beginning if beginning in ids else wanted)
    else:
        with pytest.raises((UnknownAlert, WrongQuestion)):
            id_of(ids, beginning)


OUTCOMES = st.lists(st.sampled_from(["true", "false", "unknown", None]), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("stats")) as made:
        yield made


@pytest.mark.long
@given(outcomes=OUTCOMES)
@examples(30)
def test_precision_is_the_share_of_right_alerts_among_the_judged(store: Store, outcomes: list[str | None]) -> None:
    """Else open and unknown alerts make a rule look better or worse than it is."""
    events = []
    for number, outcome in enumerate(outcomes):
        of = {"fingerprint": f"f-{number}", "alert_id": f"a-{number}", "rule": "r", "occurred_at": FIRED}
        events.append(event("fired", event_id=f"fired-{number}", severity="high", **of))
        if outcome is not None:
            events.append(event("resolved", event_id=f"resolved-{number}", operator="mei", outcome=outcome, **of))
    store_events(store, events)
    with closing(Local(store)) as asked:
        [row] = rows(asked, "alert-stats", now=FIRED + timedelta(days=1))
    right, wrong = outcomes.count("true"), outcomes.count("false")
    assert row["precision_rate"] == (right / (right + wrong) if right + wrong else None)
    assert row["poor"] == (right + wrong >= 3 and right < wrong)
    counts = [row[f"{name}_alerts"] for name in ("true", "false", "unknown", "unjudged", "open")]
    assert sum(counts) == row["alerts"] == len(outcomes)
    assert row["open_alerts"] == outcomes.count(None)


SPANS = st.integers(60, 31 * 86_400).map(lambda seconds: timedelta(seconds=seconds))
OPENED = datetime(2026, 11, 11, 12)


@pytest.mark.long
@given(window=SPANS, lasted=SPANS, ago=st.lists(st.integers(0, 5 * 10**6), max_size=20))
@examples(60)
def test_the_slice_before_comes_in_whole_windows_of_the_rule(
    store: Store, window: timedelta, lasted: timedelta, ago: list[int]
) -> None:
    """Else a rule of seven days is compared with a "day before" of seven days, or an event counts on both sides."""
    end = OPENED + lasted
    times = [end - timedelta(seconds=seconds) for seconds in ago]
    with claims_at(store, times):
        wanted = {**NOTHING.parameters, "types": ["claimed"]}
        found = before(store, replace(NOTHING, parameters=wanted, opened=OPENED, window=window, until=end)).to_dicts()
    during, last, *longer = found
    assert (during["since"], during["until"]) == (OPENED - window, end)
    assert (last["since"], last["until"], last["windows"]) == (OPENED - 2 * window, OPENED - window, 1)
    assert all(p["until"] - p["since"] == p["windows"] * window for p in (last, *longer))
    assert {p["until"] for p in (last, *longer)} == {during["since"]}
    assert len(longer) <= 2 and all(p["windows"] > 1 for p in longer)
    days = {"day_before": 1, "week_before": 7, "four_weeks_before": 28}
    for period in longer:
        missing = timedelta(days=days[period["period"]]) - period["windows"] * window
        assert timedelta(0) <= missing < window, "as many whole windows as fit"
    for period in found:
        assert period["events"] == sum(period["since"] < at <= period["until"] for at in times)


@contextmanager
def claims_at(store: Store, times: list[datetime]) -> Iterator[None]:
    """Within the block, the journal has a claim at each of these instants, and nothing else."""
    insert = (
        "INSERT INTO coupon_events BY NAME SELECT n AS key_hash, 'e' || n AS event_id, 'claimed' AS type, happened AS"
        " occurred_at, 'app' AS source, 'c' || n AS coupon_id, happened AS recorded_at, 0 AS log_partition, n AS"
        " log_offset FROM (SELECT unnest($times::TIMESTAMP[]) AS happened, unnest(range(len($times))) AS n)"
    )
    store.execute("BEGIN")
    try:
        store.execute(insert, {"times": times})
        yield
    finally:
        store.execute("ROLLBACK")


def test_a_text_names_what_the_evaluation_measured() -> None:
    """Else a budget's alert says "– of –" to the manager who reads it aloud."""
    [rule] = [rule for rule in load(None).rule_set.rules if rule.name == "budget_spent"]
    details = {"spent": [441_000, "CNY"], "budget": [500_000, "CNY"]}
    row: Row = {
        **dict.fromkeys(
            "users coupons orders money_minor currency window_seconds assignee threshold last_true_at events".split()
        ),
        "alert_id": "a" * 32,
        "severity": "critical",
        "key": '{"campaign": "k-8"}',
        "evidence": json.dumps({"details": details}),
        "measured": 0.882,
        "opened_at": FIRED.replace(tzinfo=None),
        "fired_at": FIRED.replace(tzinfo=None),
    }
    text = render(summary(rule, "en"), rule, values_of(row, rule, []))
    assert text == "Campaign k-8 has spent its whole budget: 4,410.00 CNY of 5,000.00 CNY"


@pytest.mark.parametrize(
    ("evidence", "until"),
    [({"details": {"last": "2026-12-01T09:00:00Z"}}, 9), ({"details": {"last": "soon"}}, 8), ({}, 8)],
)
def test_behind_violations_are_all_that_stand(evidence: dict[str, Any], until: int) -> None:
    """An alert fires as of its first violation. Else `act` leaves the later ones alone."""
    [rule] = [rule for rule in load(None).rule_set.rules if rule.name == "double_use"]
    alert = cast("Alert", SimpleNamespace(since=FIRED, at=FIRED))
    assert held_until(alert, rule, None, values_in(evidence)) == datetime(2026, 12, 1, until)
