"""The life of an alert: what is observed and done gives the right events, once, and every delivery of them the same
state."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coupon_ledger.ledger.alert_book import AlertBook
from coupon_ledger.ledger.alert_commands import (
    Acknowledge,
    Act,
    Assign,
    Condition,
    Delivered,
    NotDelivered,
    Note,
    Resolve,
    Terms,
    Tick,
)
from coupon_ledger.ledger.alert_events import (
    MAX_DETAILS_CHARS,
    TYPES,
    AlertEvent,
    decoded,
    event,
    fingerprint_of,
    read,
    record_of,
)
from coupon_ledger.ledger.alert_life import decide
from coupon_ledger.ledger.alert_silences import Matcher, Silence, Unsilence, evolve_silence
from coupon_ledger.ledger.alert_state import Alert, evolve
from coupon_ledger.ledger.errors import CommandRefused, InvalidEvent, LedgerError, UnknownAlert
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import ALERTS
from coupon_ledger.ledger.words import Note as Sentence
from coupon_ledger.ledger.words import Speaker
from tests.examples import examples

NOON: Final = datetime(2026, 11, 11, 12, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)
QUICK: Final = Terms(hold=timedelta(0), keep=5 * MINUTE)
Outcome = Literal["holds", "clear", "no_data", "error"]


def at(minutes: float) -> datetime:
    return NOON + minutes * MINUTE


def seen(outcome: Outcome, minute: float, alert_id: str | None = "a-1", **fields: Any) -> Condition:
    """What the evaluation says at that minute, by both clocks."""
    given: dict[str, Any] = {"rule": "drain", "labels": {"campaign": "k-1"}, "terms": QUICK} | fields
    return Condition(outcome=outcome, at=at(minute), now=at(minute), alert_id=alert_id, **given)


def lived(*commands: Any) -> tuple[Alert, list[str]]:
    """The state after these commands, and the types of their events."""
    alert: Alert | None = None
    types = []
    for command in commands:
        for made in decide(command, alert):
            alert = evolve(alert, made)
            types.append(made.type)
    assert alert is not None
    return alert, types


def by(kind: type[Any], minute: float, alert_id: str = "a-1", **fields: Any) -> Any:
    return kind(alert_id=alert_id, operator="mei", now=at(minute), **fields)


def told(minute: float, message: str = "m-1", channel: str = "mail", kind: str = "firing") -> Delivered:
    return Delivered(
        alert_id="a-1", message_id=message, channel=channel, kind=kind, group="drain@mail", now=at(minute)
    )  # fmt: skip


# ── From the condition to the end ────────────────────────────────────────────────────────────────────────────


def test_an_alert_fires_after_its_hold_and_is_resolved_after_its_keep() -> None:
    """Else a spike of a second wakes somebody, or an alert closes while the trouble goes on."""
    terms = Terms(hold=3 * MINUTE, keep=5 * MINUTE)
    alert, types = lived(seen("holds", 0, terms=terms), seen("holds", 2, since=at(0), terms=terms))
    assert (alert.status, types) == ("pending", ["pending"])
    commands = [
        seen("holds", 0, terms=terms),
        seen("holds", 4, since=at(0), terms=terms),
        seen("clear", 6, since=at(5)),
    ]
    alert, types = lived(*commands)
    assert (alert.status, types) == ("recovering", ["pending", "fired", "recovering"])
    assert (alert.fired_at, alert.over_since) == (at(3), at(5))
    alert, types = lived(*commands, seen("clear", 10, since=at(5)))
    assert (alert.status, types[3:], alert.resolved_by) == ("resolved", ["resolved"], None)


def test_the_events_do_not_depend_on_how_often_the_rule_was_evaluated() -> None:
    """Else a rebuild in large batches tells another life than the one that people saw."""
    terms = Terms(hold=3 * MINUTE, keep=5 * MINUTE)
    often = [seen("holds", m, since=at(0), terms=terms) for m in range(9)]
    often += [seen("clear", m, since=at(9), terms=terms) for m in range(9, 20)]
    rarely = [seen("holds", 8, since=at(0), terms=terms), seen("clear", 19, since=at(9), terms=terms)]
    (first, types), (second, others) = lived(*often), lived(*rarely)
    assert types == others == ["pending", "fired", "recovering", "resolved"]
    assert (first.fired_at, first.at, first.seen) == (second.fired_at, second.at, second.seen)
    ticked, types = lived(often[0], Tick(now=at(4)), often[9], Tick(now=at(14), terms=terms))
    assert types == others and ticked.seen == first.seen


def test_a_pending_alert_whose_condition_ends_was_never_an_alert() -> None:
    alert, types = lived(seen("holds", 0, terms=Terms(hold=3 * MINUTE)), seen("clear", 1))
    assert (alert.status, types, alert.fired_at) == ("normal", ["pending", "cleared"], None)


def test_a_condition_that_comes_back_in_time_goes_on_as_the_same_alert() -> None:
    """Else one episode that breathes is told as many."""
    alert, types = lived(seen("holds", 0), seen("clear", 2), seen("holds", 4), seen("holds", 5))
    assert (alert.status, types) == ("firing", ["fired", "recovering", "relapsed"])


def test_a_later_episode_opens_another_alert_of_the_same_fingerprint() -> None:
    alert, types = lived(seen("holds", 0), seen("clear", 2), seen("clear", 9, since=at(2)), seen("holds", 30, "a-2"))
    assert (alert.alert_id, alert.status, types[3:]) == ("a-2", "firing", ["fired"])
    assert (alert.told, alert.acknowledged, len(alert.changes)) == ((), None, 3)


def test_an_episode_whose_end_was_not_seen_is_closed_by_the_next() -> None:
    """Else the alert of before an outage stays open for ever."""
    book = AlertBook(decide(seen("holds", 0), None))
    events = book.decide(seen("holds", 30, "a-2"))
    for each in events:
        book.fold(each)
    assert [(e.alert_id, e.type) for e in events] == [("a-1", "resolved"), ("a-2", "fired")]
    assert [a.alert_id for a in book.open_alerts()] == ["a-2"]
    assert book.decide(seen("holds", 5, "a-1")) == [], "an observation of the past"


def test_the_same_observation_gives_one_event_however_often_it_is_made() -> None:
    """Else a consumer that repeats a batch fires twice."""
    outcomes: tuple[Outcome, ...] = ("holds", "no_data", "error")
    for outcome in outcomes:
        command = seen(outcome, 0)
        assert len(lived(command, command, replace(command, now=at(3)))[1]) == 1
    recovering, _ = lived(seen("holds", 0), seen("clear", 10))
    assert decide(seen("holds", 5), recovering) == [], "an observation of before"
    firing, _ = lived(seen("holds", 0), seen("clear", 10), seen("holds", 12))
    assert decide(seen("clear", 11), firing) == []
    again = decide(replace(seen("holds", 0), now=at(50)), None)
    assert [e.event_id for e in again] == [e.event_id for e in decide(seen("holds", 0), None)]


def test_what_becomes_worse_is_recorded_and_what_wobbles_is_not() -> None:
    alert, types = lived(
        seen("holds", 0, value=100.0, money_minor=1_000, currency="CNY"),
        seen("holds", 1, value=105.0, money_minor=1_050, currency="CNY"),
        seen("holds", 2, value=90.0, money_minor=900, currency="CNY"),
        seen("holds", 3, value=130.0, money_minor=900, currency="CNY"),
        seen("holds", 4, value=130.0, money_minor=900, currency="CNY", severity="critical"),
        seen("holds", 5, value=130.0, money_minor=900, currency="CNY", severity="info"),
    )
    assert types == ["fired", "updated", "updated"]
    assert (alert.severity, alert.magnitude) == ("critical", 130.0)
    alert, types = lived(seen("holds", 0, value=-50.0), seen("holds", 1, value=-80.0))
    assert types == ["fired", "updated"], "a fall is worse, the deeper it is"


def test_no_data_and_errors_are_told_and_an_alert_that_fired_lives_on_through_them() -> None:
    """Else a rule whose query fails is silent, and nobody sees that nobody looks."""
    alert, types = lived(seen("error", 0, problem="query took 11 s"), seen("error", 1), seen("clear", 2))
    assert (alert.status, types) == ("resolved", ["error", "resolved"])
    alert, types = lived(seen("error", 0, problem="query took 11 s"))
    assert alert.stands and alert.problem == "query took 11 s"
    alert, types = lived(seen("holds", 0), seen("no_data", 1), seen("error", 2), seen("holds", 3))
    assert (alert.status, types) == ("firing", ["fired", "no_data", "error", "relapsed"])
    alert, types = lived(seen("error", 5, None), seen("holds", 6, "a-1", since=at(2)))
    assert (alert.alert_id, alert.status, types) == ("a-1", "firing", ["error", "resolved", "fired"])


def test_evidence_that_does_not_fit_does_not_cost_the_alert() -> None:
    rows = ["x" * 1_000] * (MAX_DETAILS_CHARS // 1_000)
    evidence = {"rows": rows, "at": NOON, "odd": {1, 2}, "ratio": float("nan"), "query": "SELECT 1"}
    alert, _ = lived(seen("holds", 0, evidence=evidence, value=float("inf"), labels={"store": "x" * 10**6}))
    assert alert.evidence["query"] == "SELECT 1" and alert.evidence["left_out"] == ["odd", "ratio", "rows"]
    assert alert.value is None and len(alert.labels["store"]) == 1_000


# ── Operators ────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_acknowledgement_has_an_owner_and_ends_when_the_alert_clears() -> None:
    commands = [seen("holds", 0), by(Acknowledge, 1, until=at(60), note="blocking the device")]
    alert, _ = lived(*commands)
    assert (alert.status, alert.assignee) == ("acknowledged", "mei")
    alert, _ = lived(*commands, by(Assign, 2, assignee="li"), by(Note, 3, note="called the shop"))
    assert (alert.status, alert.assignee) == ("acknowledged", "li")
    alert, _ = lived(*commands, seen("clear", 4), seen("clear", 9, since=at(4)))
    assert (alert.status, alert.acknowledged) == ("resolved", None)


def test_old_acknowledgements_are_listed() -> None:
    """Else an alert that somebody took and forgot is never seen again."""
    book = AlertBook(decide(seen("holds", 0), None))
    for each in book.decide(by(Acknowledge, 1, until=at(60))):
        book.fold(each)
    assert book.old_acknowledgements(at(59)) == []
    assert [a.alert_id for a in book.old_acknowledgements(at(60))] == ["a-1"]


CLOSED: Final = [seen("holds", 0), seen("clear", 1), seen("clear", 8, since=at(1))]
PENDING: Final = [seen("holds", 0, terms=Terms(hold=9 * MINUTE))]


@pytest.mark.parametrize(
    ("before", "command", "says"),
    [
        (CLOSED, by(Acknowledge, 9), "closed, so it cannot be acknowledged"),
        (CLOSED, by(Assign, 9, assignee="li"), "closed, so it cannot be assigned"),
        (PENDING, by(Acknowledge, 1), "has not fired yet"),
        (PENDING, by(Resolve, 1, outcome="true"), "has not fired yet"),
        (PENDING, by(Act, 1, action="webhook", dry=True, effect={}), "has not fired yet"),
        (CLOSED[:1], by(Acknowledge, 9, until=at(8)), "has passed; name a later one"),
        (CLOSED[:1], by(Note, 9, note="  "), "the note is empty"),
        (CLOSED[:1], by(Resolve, 9, outcome="perhaps"), "say true, false or unknown"),
        (CLOSED[:1], by(Resolve, 9, outcome="true", saved_minor=5), "needs a currency"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_remedy_in_both_languages(before: Any, command: Any, says: str) -> None:
    alert, _ = lived(*before)
    with pytest.raises(CommandRefused) as refused:
        decide(command, alert)
    [sentence] = refused.value.args
    assert says in str(sentence) and "a-1" in str(sentence) and isinstance(sentence, Sentence)
    assert not re.search(r"alert|cannot|name", re.sub("`[^`]*`", "", Speaker("zh").say(sentence)))


def test_an_unknown_alert_or_silence_is_said_to_be_unknown() -> None:
    with pytest.raises(UnknownAlert, match="no alert a-1"):
        AlertBook().decide(by(Acknowledge, 0))
    with pytest.raises(UnknownAlert, match="no silence s-1"):
        AlertBook().decide(Unsilence(silence_id="s-1", operator="mei", now=NOON))


def test_an_outcome_can_be_said_at_the_end_and_afterwards() -> None:
    """Else a rule's precision knows only the alerts that somebody closed by hand."""
    alert, types = lived(*CLOSED, by(Resolve, 20, outcome="true", saved_minor=88_00, currency="CNY"))
    assert (alert.outcome, alert.saved_minor, alert.currency, types[-1]) == ("true", 88_00, "CNY", "resolved")
    assert alert.resolved_at == at(8) and alert.resolved_by is None
    alert, _ = lived(seen("holds", 0), by(Resolve, 3, outcome="false"))
    assert (alert.status, alert.outcome, alert.resolved_by) == ("resolved", "false", "mei")
    assert decide(seen("holds", 4), alert) == [], "what an operator closed stays closed in this episode"
    assert decide(by(Resolve, 5, outcome="false"), alert) == []
    book = AlertBook()
    for command in (*CLOSED, seen("holds", 30, "a-2"), by(Resolve, 31, outcome="true")):
        for each in book.decide(command):
            book.fold(each)
    assert (book.alerts["a-1"].outcome, book.alerts["a-2"].outcome) == ("true", None)


def test_a_command_of_an_operator_counts_once_when_it_is_repeated() -> None:
    command = by(Acknowledge, 1)
    assert lived(seen("holds", 0), command, command)[1] == ["fired", "acknowledged"]
    assert lived(seen("holds", 0), command, by(Acknowledge, 1))[1].count("acknowledged") == 2


def test_an_action_is_recorded_dry_or_real_and_an_automatic_one_once() -> None:
    """Else an automatic action revokes a group's coupons again at every evaluation."""
    act: dict[str, Any] = {"alert_id": "a-1", "action": "revoke_coupons", "effect": {"coupons": 31}, "now": at(1)}
    alert, types = lived(seen("holds", 0), Act(dry=True, operator="mei", **act))
    assert types[1:] == ["acted"] and not alert.acted
    automatic = Act(dry=False, **act)
    alert, types = lived(seen("holds", 0), automatic, replace(automatic, now=at(2), event_id="other"))
    assert types[1:] == ["acted"] and alert.acted == {"revoke_coupons"}
    assert lived(seen("holds", 0), Act(dry=False, operator="mei", **act), automatic)[1][1:] == ["acted"]


# ── Time ─────────────────────────────────────────────────────────────────────────────────────────────────────

PATIENT: Final = Terms(escalate_after=30 * MINUTE)


def escalations(*commands: Any) -> int:
    return lived(seen("holds", 0), *commands)[1].count("escalated")


def test_an_alert_escalates_when_nobody_acts_in_time_and_only_then() -> None:
    """Else a night's loss waits for the morning, or the head of department is woken for what is being dealt with."""
    late, later = Tick(now=at(31), terms=PATIENT), Tick(now=at(99), terms=PATIENT)
    assert escalations(late) == 0, "nobody was told"
    assert escalations(told(1), Tick(now=at(30), terms=PATIENT)) == 0
    assert escalations(told(1), late, later) == 1
    assert escalations(told(1), by(Acknowledge, 9), late, later) == 0
    assert escalations(told(1), by(Acknowledge, 9, until=at(20)), late, Tick(now=at(50), terms=PATIENT), later) == 1
    assert escalations(told(1), late, by(Acknowledge, 40, until=at(50)), Tick(now=at(80), terms=PATIENT)) == 2
    assert escalations(told(1), by(Act, 2, action="webhook", dry=False, effect={}), later) == 0
    assert escalations(told(1), by(Act, 2, action="webhook", dry=True, effect={}), later) == 1
    silenced = NotDelivered(alert_id="a-1", reason="silenced", cause="s-1", now=at(2))
    assert escalations(told(1), silenced, later) == 0
    dead = NotDelivered(alert_id="a-1", reason="channel_dead", cause="mail", now=at(2))
    assert escalations(dead, later) == 1, "nobody could be told"
    assert escalations(told(1), seen("clear", 2), later) == 0


def test_an_alert_that_comes_and_goes_flaps_until_it_is_stable() -> None:
    """Else a value at its threshold sends a message a minute."""
    terms = Terms(keep=timedelta(0), flap_changes=4, flap_window=60 * MINUTE)
    commands: list[Any] = []
    for n in range(3):
        commands += [seen("holds", 4 * n, f"a-{n}", terms=terms), seen("clear", 4 * n + 2, f"a-{n}", terms=terms)]
    alert, types = lived(*commands[:4])
    assert alert.flapping_since is None
    alert, types = lived(*commands)
    assert alert.flapping_since == at(8) and types.count("flapping") == 1
    assert [e.type for e in decide(Tick(now=at(69), terms=terms), alert)] == []
    alert, types = lived(*commands, Tick(now=at(70), terms=terms))
    assert types[-1] == "settled" and alert.flapping_since is None


def test_a_silence_matches_by_its_labels_until_it_ends() -> None:
    book = AlertBook(decide(seen("holds", 0), None))
    matchers = (Matcher.parse("rule=dr*n"), Matcher.parse("campaign!=k-2"))
    silence = Silence(matchers=matchers, operator="mei", now=at(1), until=at(30), note="planned test")
    [begun] = book.decide(silence)
    assert begun.key == f"silence:{silence.silence_id}"
    book.fold(begun)
    book.fold(begun)
    [alert] = book.open_alerts()
    assert (book.status(alert, at(2)), book.status(alert, at(30))) == ("silenced", "firing")
    assert book.decide(silence) == [] and book.tick(at(29)) == []
    [ended] = book.tick(at(45))
    assert (ended.type, ended.occurred_at) == ("unsilenced", at(30))
    book.fold(ended)
    assert book.tick(at(46)) == [] and book.active_silences(at(2)) == []
    with pytest.raises(CommandRefused, match="ended already"):
        book.decide(Unsilence(silence_id=silence.silence_id, operator="mei", now=at(46)))


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"matchers": ()}, "1 to 20 matchers"), ({"until": NOON}, "has passed"), ({"note": " "}, "needs a reason")],
)
def test_a_silence_without_matcher_end_or_reason_is_refused(fields: dict[str, Any], says: str) -> None:
    """Else a slip silences everything for ever."""
    good: dict[str, Any] = {
        "matchers": (Matcher("rule", "drain"),),
        "operator": "mei",
        "now": at(1),
        "until": at(9),
        "note": "test",
    }
    with pytest.raises(CommandRefused, match=says):
        AlertBook().decide(Silence(**(good | fields)))
    with pytest.raises(CommandRefused, match="write label=value"):
        Matcher.parse("drain")


@pytest.mark.long
@given(st.text("ab*", max_size=8), st.text("ab", max_size=8))
def test_an_asterisk_stands_for_any_text(pattern: str, text: str) -> None:
    def like(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "*":
            return like(pattern[1:], text) or (bool(text) and like(pattern, text[1:]))
        return text[:1] == pattern[0] and like(pattern[1:], text[1:])

    alert, _ = lived(seen("holds", 0, labels={"code": text}))
    assert Matcher("code", pattern).matches(alert) == like(pattern, text)


def test_why_a_message_was_not_sent_is_recorded_once_until_it_changes() -> None:
    def held(minute: float, reason: str, cause: str | None = None) -> NotDelivered:
        return NotDelivered(alert_id="a-1", reason=reason, cause=cause, now=at(minute))

    commands = [held(1, "grouped"), held(2, "grouped"), held(3, "inhibited", "lag"), held(4, "inhibited", "skew"),
                told(5), told(5), told(6, channel="sms"), held(7, "not_due"), held(8, "grouped")]  # fmt: skip
    alert, types = lived(seen("holds", 0), *commands)
    assert types[1:] == [*["not_notified"] * 3, *["notified"] * 2, "not_notified"]
    [telling] = alert.told
    assert telling.channels == ("mail", "sms")
    assert alert.withheld is not None and alert.withheld.reason == "grouped"


# ── Events ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_event_says_what_is_wrong_with_it() -> None:
    for kind, fields, says in (
        ("fires", {}, "type: must be one of pending"),
        ("fired", {}, "must name an alert"),
        ("fired", {"rule": "drain", "severity": "loud"}, "severity"),
        ("observed", {"rule": "drain", "details": {"rows": "x" * MAX_DETAILS_CHARS}}, "details: must have at most"),
        ("observed", {"rule": "drain", "labels": {"a": "x" * 2_000}}, "labels.a"),
    ):
        with pytest.raises(InvalidEvent, match=says):
            event(kind, event_id="e-1", occurred_at=NOON, **fields)


def test_the_fingerprint_is_that_of_rule_and_labels_whatever_their_order() -> None:
    """Else an alert that comes again is another one after an update."""
    assert fingerprint_of("drain", {"a": "1", "b": "2"}) == fingerprint_of("drain", {"b": "2", "a": "1"})
    assert fingerprint_of("drain", {}) == "fb33d1a6dd6a7c1128b00aaff2e7761c"
    assert (
        len({fingerprint_of("drain", {"a": "b"}), fingerprint_of("a", {"drain": "b"}), fingerprint_of("drain", {})})
        == 3
    )


EVENTS: Final = st.builds(
    AlertEvent,
    event_id=st.sampled_from([f"e-{n}" for n in range(30)]),
    type=st.sampled_from([*TYPES, "of_a_newer_ledger"]),
    occurred_at=st.integers(0, 500).map(at),
    fingerprint=st.just("f-1"),
    alert_id=st.sampled_from(["a-1", "a-2"]),
    rule=st.sampled_from([None, "drain"]),
    severity=st.sampled_from([None, "critical", "info"]),
    data_at=st.none() | st.integers(0, 500).map(at),
    operator=st.sampled_from([None, "mei"]),
    until=st.none() | st.integers(0, 500).map(at),
    outcome=st.sampled_from([None, "true"]),
    money_minor=st.none() | st.integers(-5, 10**12),
    silence_id=st.sampled_from([None, None, "s-1"]),
    details=st.dictionaries(
        st.sampled_from(["hold_s", "keep_s", "value", "magnitude", "evidence", "dry", "kind", "cause", "matchers"]),
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), st.lists, max_leaves=3),
        max_size=4,
    ),
)


@pytest.mark.long
@examples(100)
@given(st.lists(EVENTS, max_size=20))
def test_no_sequence_of_events_stops_the_fold(events: list[AlertEvent]) -> None:
    """Else one odd record in the topic ends the owner, and nobody is told of anything."""
    alert, silence = None, None
    book = AlertBook(events)
    for each in events:
        alert = evolve(alert, each)
        silence = evolve_silence(silence, each)
        assert evolve(alert, each) == alert, "an event that comes again changes nothing"
    for known in book.alerts.values():
        assert book.status(known, at(9)) and decide(Tick(now=at(600), terms=PATIENT), known) is not None


# ── The life against a small model ───────────────────────────────────────────────────────────────────────────

HOLD: Final = 2
KEEP: Final = 3
TERMS: Final = Terms(hold=HOLD * MINUTE, keep=KEEP * MINUTE, flap_changes=49)


class Model:
    """One fingerprint's alert in whole minutes, written without a look at the code."""

    def __init__(self) -> None:
        self.phase = "none"
        self.episode = 0
        self.began = self.over = 0
        self.fired = False
        self.taken: str | None = None
        self.outcome: str | None = None
        self.resolved_by_hand = False

    @property
    def closed(self) -> bool:
        return self.phase in ("none", "normal", "resolved")

    def close(self, phase: str) -> None:
        self.phase, self.taken = phase, None

    def holds(self, minute: int) -> None:
        if self.closed and not self.resolved_by_hand:
            self.episode += 1
            self.began, self.fired, self.outcome, self.phase = minute, False, None, "pending"
        elif self.phase in ("recovering", "no_data", "error") and self.fired:
            self.phase = "firing"
        elif self.phase in ("no_data", "error"):
            self.began, self.phase = minute, "pending"
        if self.phase == "pending" and minute - self.began >= HOLD:
            self.phase, self.fired = "firing", True

    def clear(self, minute: int) -> None:
        self.resolved_by_hand = False
        if self.phase == "pending":
            self.close("normal")
        elif self.phase in ("no_data", "error") and not self.fired:
            self.close("resolved")
        elif self.phase in ("firing", "no_data", "error"):
            self.phase, self.over = "recovering", minute
        self.passes(minute)

    def unknown(self, phase: str) -> None:
        if self.closed:
            self.episode += 1
            self.fired, self.outcome, self.resolved_by_hand = False, None, False
        self.phase = phase

    def passes(self, minute: int) -> None:
        if self.phase == "pending" and minute - self.began >= HOLD:
            self.phase, self.fired = "firing", True
        if self.phase == "recovering" and minute - self.over >= KEEP:
            self.close("resolved")


class Lives(RuleBasedStateMachine):
    """Two fingerprints live through observations, commands and time. Each has a model of its own."""

    names = st.sampled_from(["k-1", "k-2"])

    @initialize()
    def begin(self) -> None:
        self.minute = 0
        self.models = {name: Model() for name in ("k-1", "k-2")}
        self.book = AlertBook()
        self.events: list[AlertEvent] = []

    def current(self, name: str) -> Alert | None:
        return self.book.alerts.get(self.book.current.get(fingerprint_of("drain", {"campaign": name}), ""))

    def id_of(self, name: str) -> str:
        return f"{name}/{self.models[name].episode}"

    def take(self, events: Sequence[AlertEvent]) -> None:
        for each in events:
            assert decoded(record_of(each).value) == each
            self.book.fold(each)
            self.events.append(each)

    def observe(self, name: str, outcome: Outcome) -> None:
        command = Condition(
            rule="drain", labels={"campaign": name}, outcome=outcome, at=at(self.minute), now=at(self.minute + 7),
            alert_id=None if outcome == "clear" else self.id_of(name), terms=TERMS,
        )  # fmt: skip
        self.take(self.book.decide(command))
        assert self.book.decide(command) == [], "the same observation says nothing new"

    @rule(minutes=st.integers(1, 4))
    def time_passes(self, minutes: int) -> None:
        self.minute += minutes

    @rule()
    def tick(self) -> None:
        for model in self.models.values():
            model.passes(self.minute)
        self.take(self.book.tick(at(self.minute), terms_of=lambda _: TERMS))

    @rule(name=names)
    def the_condition_holds(self, name: str) -> None:
        self.models[name].holds(self.minute)
        self.observe(name, "holds")

    @rule(name=names)
    def the_condition_is_over(self, name: str) -> None:
        self.models[name].clear(self.minute)
        self.observe(name, "clear")

    @rule(name=names, phase=st.sampled_from(["no_data", "error"]))
    def it_cannot_be_judged(self, name: str, phase: Literal["no_data", "error"]) -> None:
        self.models[name].unknown(phase)
        self.observe(name, phase)

    def attempt(self, name: str, command: Any, allowed: bool) -> bool:
        try:
            events = self.book.decide(command)
        except LedgerError:
            assert not allowed, "a command that fits was refused"
            return False
        assert allowed, "a command that does not fit was taken"
        self.take(events)
        return True

    @precondition(lambda self: any(model.episode for model in self.models.values()))
    @rule(name=names, operator=st.sampled_from(["mei", "li"]))
    def acknowledge(self, name: str, operator: str) -> None:
        model = self.models[name]
        command = Acknowledge(alert_id=self.id_of(name), operator=operator, now=at(self.minute))
        if self.attempt(name, command, not model.closed and model.phase != "pending"):
            model.taken = operator

    @precondition(lambda self: any(model.episode for model in self.models.values()))
    @rule(name=names, outcome=st.sampled_from(["true", "false"]))
    def resolve(self, name: str, outcome: Literal["true", "false"]) -> None:
        model = self.models[name]
        command = Resolve(alert_id=self.id_of(name), operator="mei", now=at(self.minute), outcome=outcome)
        if self.attempt(name, command, model.phase not in ("none", "normal", "pending")):
            if model.phase != "resolved":
                model.resolved_by_hand = True
                model.close("resolved")
            model.outcome = outcome

    @invariant()
    def the_book_agrees_with_the_models(self) -> None:
        for name, model in self.models.items():
            alert = self.current(name)
            assert (alert.phase if alert else "none") == model.phase
            if alert is not None:
                assert alert.alert_id == self.id_of(name)
                assert (alert.fired_at is not None, alert.outcome) == (model.fired, model.outcome)
                assert (alert.acknowledged.operator if alert.acknowledged else None) == model.taken

    @invariant()
    def no_decided_event_is_impossible_or_appended_twice(self) -> None:
        assert not [alert.violations for alert in self.book.alerts.values() if alert.violations]
        assert len({e.event_id for e in self.events}) == len(self.events)

    def teardown(self) -> None:
        if hasattr(self, "events"):
            for deliveries in (self.events * 2, list(repeated(self.events)), sorted(self.events, key=lambda e: e.key)):
                assert contents(AlertBook(deliveries)) == contents(self.book)


def repeated(events: Sequence[AlertEvent]) -> Iterator[AlertEvent]:
    """Every event is followed by the repeat of an earlier one."""
    for n, each in enumerate(events):
        yield each
        yield events[n // 2]


def contents(book: AlertBook) -> Any:
    return book.alerts, book.current, book.silences, {a.alert_id for a in book.open_alerts()}


TestLives = pytest.mark.long(Lives.TestCase)
TestLives.settings = settings(examples(150), stateful_step_count=40)


# ── The topic ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_follower_continues_where_it_stopped_and_repeats_do_no_harm(log_settings: LogSettings) -> None:
    """Else a restart of the owner forgets who took which alert, or fires it again."""
    log = open_log(log_settings, create=True)
    log.create_topics()
    assert read(log)[0] == []
    whole = AlertBook()
    made: list[AlertEvent] = []
    for n in range(6):
        name = f"a-{n}"
        commands = [seen("holds", n, name, labels={"campaign": name}, evidence={"rows": [n]}), by(Acknowledge, n, name)]
        for command in commands:
            for each in whole.decide(command):
                whole.fold(each)
                made.append(each)
    silence = Silence(matchers=(Matcher("rule", "x*"),), operator="mei", now=at(1), until=at(30), note="测试")
    made += whole.decide(silence)
    whole.fold(made[-1])
    log.append([record_of(each) for each in made[:5]] + [Record(ALERTS, b"x", b"poison")])
    first, positions = read(log)
    log.append([record_of(each) for each in made[3:] + made[:5]])
    rest, positions = read(log, positions)
    assert read(log, positions) == ([], positions)
    log.close()
    assert sorted(r.event.event_id for r in first) == sorted(e.event_id for e in made[:5])
    assert len(rest) == len(made) - 3 + 5
    assert contents(AlertBook(r.event for r in [*first, *rest])) == contents(whole)
    assert [r.event for r in first + rest if r.event.silence_id] == made[-1:]
