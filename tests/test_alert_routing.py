"""Who is told of which alert: everybody who must know, once, and of everything else why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.ledger.alert_book import AlertBook
from coupon_ledger.ledger.alert_commands import Acknowledge, Condition, Delivered, NotDelivered, Resolve, Terms
from coupon_ledger.ledger.alert_routing import REASONS, Message, Policy, QuietHours, Route, Routing, route
from coupon_ledger.ledger.alert_silences import Matcher, Silence, Unsilence
from coupon_ledger.ledger.alert_state import Alert
from tests.examples import examples

NOON: Final = datetime(2026, 11, 11, 12, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)
TERMS: Final = Terms(keep=MINUTE, flap_changes=4, flap_window=30 * MINUTE, escalate_after=20 * MINUTE)
POLICY: Final = Policy(channels=("mail",))


def at(minutes: float) -> datetime:
    return NOON + minutes * MINUTE


class Desk:
    """A book with a queue that delivers at once what is routed, and records what is held back."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.book = AlertBook()
        self.policy = policy
        self.sent: list[Message] = []
        self.episodes: Counter[tuple[str, str]] = Counter()

    def do(self, *commands: Any) -> None:
        for command in commands:
            for each in self.book.decide(command):
                self.book.fold(each)

    def observe(
        self, minute: float, rule: str, outcome: Any = "holds", severity: str = "warning", **labels: str
    ) -> str:
        name = (rule, str(labels))
        known = [a for a in self.book.open_alerts() if (a.rule, str(a.labels)) == name]
        self.episodes[name] += not known and outcome == "holds"
        alert_id = f"{rule}/{'/'.join(labels.values())}/{self.episodes[name]}"
        self.do(Condition(rule=rule, labels=labels, outcome=outcome, at=at(minute), now=at(minute), severity=severity,
                          alert_id=alert_id if outcome == "holds" else None, terms=TERMS))  # fmt: skip
        return alert_id

    def look(self, minute: float, **given: Any) -> Routing:
        alerts = self.book.to_route(at(minute))
        return route(alerts, self.book.active_silences(at(minute)), self.policy, at(minute), **given)

    def send(self, minute: float, **given: Any) -> tuple[list[tuple[str, int]], dict[str, str]]:
        """The kinds of the messages that are sent, with the number of their alerts; what is held back, and why."""
        for each in self.book.tick(at(minute), terms_of=lambda _: TERMS):
            self.book.fold(each)
        routing = self.look(minute, **given)
        for message in routing.messages:
            self.deliver(minute, message)
        for held in routing.held:
            self.do(NotDelivered(alert_id=held.alert_id, reason=held.reason, cause=held.cause, now=at(minute)))
        return [(m.kind, len(m.alert_ids)) for m in routing.messages], {h.alert_id: h.reason for h in routing.held}

    def deliver(self, minute: float, message: Message) -> None:
        self.sent.append(message)
        for alert_id in message.alert_ids:
            for channel in message.channels:
                self.do(Delivered(alert_id=alert_id, message_id=message.message_id, channel=channel,
                                  kind=message.kind, group=message.group, now=at(minute)))  # fmt: skip


# ── Groups, repeats, the end ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long
def test_hundreds_of_alerts_of_a_rule_are_one_message() -> None:
    """Else the 27 double uses of a year are 27 mails, and the channel is muted within a week."""
    desk = Desk()
    first = desk.observe(0, "double-use", campaign="k-0")
    assert desk.send(0.1) == ([], {first: "grouped"})
    for n in range(1, 300):
        desk.observe(0.1, "double-use", campaign=f"k-{n}")
    assert desk.send(0.5)[0] == [("firing", 300)]
    late = desk.observe(1, "double-use", campaign="late")
    sent, held = desk.send(3)
    assert (sent, held[late], held[first]) == ([], "grouped", "not_due")
    assert desk.send(6)[0] == [("firing", 1)]


def test_groups_are_divided_by_the_labels_that_the_rule_names() -> None:
    desk = Desk(Policy(channels=("mail",), routes={"drain": Route(group_by=("campaign",))}))
    for campaign, device in (("k-1", "a"), ("k-1", "b"), ("k-2", "c")):
        desk.observe(0, "drain", campaign=campaign, device=device)
    assert sorted(desk.send(1)[0]) == [("firing", 1), ("firing", 2)]


def test_what_stands_is_repeated_and_what_somebody_took_is_not() -> None:
    desk = Desk()
    first, other = desk.observe(0, "drain", ip="a"), desk.observe(0, "drain", ip="b")
    assert desk.send(1)[0] == [("firing", 2)]
    desk.do(Acknowledge(alert_id=other, operator="mei", now=at(2), until=at(600)))
    assert desk.send(240) == ([("escalation", 1)], {other: "acknowledged"})
    desk.do(Acknowledge(alert_id=first, operator="mei", now=at(241), until=at(300)))
    assert desk.send(299)[1][first] == "acknowledged"
    assert desk.send(500)[0] == [("escalation", 1)], "the expected time has passed"
    assert desk.send(741)[0] == [("escalation", 1), ("repeat", 1)]


def test_a_higher_severity_is_told_at_once() -> None:
    desk = Desk()
    desk.observe(0, "drain")
    assert desk.send(1)[0] == [("firing", 1)]
    desk.observe(7, "drain", severity="critical")
    assert desk.send(7)[0] == [("firing", 1)]
    assert desk.sent[-1].severity == "critical"


def test_the_end_is_told_once_to_those_who_were_told_of_the_beginning() -> None:
    desk = Desk()
    told = desk.observe(0, "drain", ip="a")
    desk.send(1)
    brief = desk.observe(2, "drain", ip="b")
    desk.do(Resolve(alert_id=brief, operator="mei", now=at(3), outcome="false"))
    desk.do(Resolve(alert_id=told, operator="mei", now=at(3), outcome="true"))
    assert desk.send(7)[0] == [("resolved", 1)] and desk.sent[-1].alert_ids == (told,)
    assert desk.send(60) == ([], {})


def test_messages_in_the_queue_count_as_sent_and_keep_their_key() -> None:
    """Else a slow mail server gets the same message at every look."""
    desk = Desk()
    desk.observe(0, "drain")
    [message] = desk.look(1).messages
    assert desk.look(2).messages[0].message_id == message.message_id
    again = desk.look(2, waiting=[message])
    assert (again.messages, [h.reason for h in again.held]) == ((), ["not_due"])
    desk.deliver(3, message)
    [repeat] = desk.look(250).messages
    assert repeat.message_id != message.message_id


# ── Held back ────────────────────────────────────────────────────────────────────────────────────────────────


def inhibited(**routes: tuple[str, ...]) -> Policy:
    return Policy(channels=("mail",), routes={name: Route(inhibited_by=rules) for name, rules in routes.items()})


def test_an_alert_is_held_back_by_the_one_that_explains_it() -> None:
    """Else lagging data sends an alert for every metric that it falsifies."""
    desk = Desk(inhibited(use_rate=("lag",)))
    lag = desk.observe(0, "lag", source="shop")
    same, other = (desk.observe(0, "use_rate", source=name, campaign="k") for name in ("shop", "app"))
    sent, held = desk.send(1)
    assert (sent, held) == ([("firing", 1), ("firing", 1)], {same: "inhibited"})
    assert {i for m in desk.sent for i in m.alert_ids} == {lag, other}
    withheld = desk.book.alerts[same].withheld
    assert withheld is not None and withheld.cause == "lag"
    desk.observe(10, "lag", "clear", source="shop")
    assert sorted(desk.send(11)[0]) == [("firing", 1), ("resolved", 1)]


def test_rules_that_hold_back_each_other_do_not_silence_both() -> None:
    desk = Desk(inhibited(a=("b",), b=("c",), c=("a",)))
    ids = [desk.observe(n / 10, name) for n, name in enumerate("abc")]
    sent, held = desk.send(2)
    assert sent and len(held) < 3 and set(held.values()) <= {"inhibited"}
    assert ids[0] not in held, "the one that has stood longest"


def test_a_silenced_alert_is_told_when_the_silence_ends() -> None:
    desk = Desk()
    alert = desk.observe(0, "drain", ip="a")
    silence = Silence(matchers=(Matcher("ip", "a"),), operator="mei", now=NOON, until=at(90), note="load test")
    desk.do(silence)
    assert desk.send(1) == ([], {alert: "silenced"})
    desk.do(Unsilence(silence_id=silence.silence_id, operator="mei", now=at(5)))
    assert desk.send(5)[0] == [("firing", 1)]


def test_what_flaps_is_told_once_and_then_not_until_it_is_stable() -> None:
    desk = Desk()
    for n in range(8):
        desk.observe(2 * n, "drain")
        desk.send(2 * n + 0.5)
        desk.observe(2 * n + 0.6, "drain", "clear")
        desk.send(2 * n + 1.7)
    kinds = Counter(message.kind for message in desk.sent)
    assert kinds["flapping"] == 1 and kinds["firing"] <= 2 and len(desk.sent) <= 4
    alert = desk.observe(16, "drain")
    sent, held = desk.send(17)
    assert (sent, held[alert]) == ([], "flapping")
    assert desk.send(60)[0] == [("firing", 1)], "it stands, and has not flapped for half an hour"


def test_a_rule_that_floods_sends_so_many_messages_and_one_digest() -> None:
    desk = Desk(Policy(channels=("mail",), routes={"drain": Route(group_by=("ip",))}, flood_cap=5))
    ids = [desk.observe(0, "drain", ip=f"{n:02}") for n in range(30)]
    sent, held = desk.send(1)
    assert sorted(sent) == [("digest", 25), *[("firing", 1)] * 5] and not held
    more = [desk.observe(2, "drain", ip=f"1{n:02}") for n in range(9)]
    sent, held = desk.send(3)
    assert not sent and {held[alert] for alert in more} == {"flood_cap"}
    sent, _ = desk.send(62)
    assert sorted(sent) == [("digest", 4), ("escalation", 30), *[("firing", 1)] * 5]
    assert {i for m in desk.sent for i in m.alert_ids} == {*ids, *more}


def test_a_catch_up_sends_no_old_messages_and_one_digest_of_what_still_stands() -> None:
    """Else the owner's return after an outage sends a night's alerts at once."""
    desk = Desk(Policy(channels=("mail",), mark=at(100)))
    ids = [desk.observe(n, "drain", ip=str(n)) for n in range(9)]
    desk.observe(20, "drain", "clear", ip="0")
    desk.observe(22, "drain", "clear", ip="0")
    sent, held = desk.send(50)
    assert not sent and set(held.values()) == {"catch_up"} and ids[0] not in held
    assert desk.send(99, clock=at(99))[0] == []
    fresh = desk.observe(101, "drain", ip="new")
    sent, _ = desk.send(102, clock=at(101))
    assert sorted(sent) == [("digest", 8), ("firing", 1)] and desk.sent[-1].alert_ids == (fresh,)


@pytest.mark.parametrize(("hour", "quiet"), [(15, True), (14, False), (23, True), (0, False)])
def test_quiet_hours_hold_back_what_is_not_urgent(hour: int, quiet: bool) -> None:
    """23:00 to 8:00 in Shanghai is 15:00 to 0:00 in UTC."""
    hours = QuietHours(time(23), time(8), ZoneInfo("Asia/Shanghai"))
    desk = Desk(Policy(channels=("mail",), quiet_hours=hours))
    minute = (datetime(2026, 11, 12, hour, tzinfo=UTC) - NOON) / MINUTE
    alert = desk.observe(minute - 1, "slow")
    urgent = desk.observe(minute - 1, "drain", severity="critical")
    sent, held = desk.send(minute)
    assert len(sent) == (1 if quiet else 2) and urgent not in held
    assert held == ({alert: "quiet_hours"} if quiet else {})


def test_low_severities_are_told_in_a_digest_across_rules() -> None:
    desk = Desk()
    ids = [desk.observe(n, name, severity="info") for n, name in enumerate(("a", "b", "c"))]
    assert desk.send(30) == ([], dict.fromkeys(ids, "awaits_digest"))
    assert desk.send(60)[0] == [("digest", 3)] and desk.sent[0].rule is None


def test_an_escalation_goes_to_other_people() -> None:
    desk = Desk(Policy(channels=("mail",), routes={"drain": Route(escalate_to=("sms", "phone"))}))
    desk.observe(0, "drain")
    desk.send(1)
    assert desk.send(20)[0] == [] and desk.send(21)[0] == [("escalation", 1)]
    assert desk.sent[-1].channels == ("sms", "phone")
    assert desk.send(22)[0] == []


def test_a_dead_channel_is_left_out_and_said_and_the_alert_is_told_when_one_lives() -> None:
    desk = Desk(Policy(channels=("mail", "wecom")))
    alert = desk.observe(0, "drain")
    assert desk.send(1, dead={"mail", "wecom"}) == ([], {alert: "channel_dead"})
    assert desk.send(2, dead={"mail"}) == ([("firing", 1)], {alert: "channel_dead"})
    assert desk.sent[-1].channels == ("wecom",)
    desk = Desk(Policy())
    alert = desk.observe(0, "drain")
    assert desk.send(1) == ([], {alert: "no_channel"})


# ── Nothing is lost, nothing floods ──────────────────────────────────────────────────────────────────────────

RULES: Final = ("a", "b", "c")
STEPS: Final = st.tuples(
    st.sampled_from(["holds", "holds", "holds", "clear", "error", "take", "silence", "send", "send", "send"]),
    st.sampled_from(RULES),
    st.sampled_from(["x", "y"]),
    st.sampled_from(["critical", "warning", "info"]),
    st.sampled_from([0.05, 0.5, 3, 20, 70]),
)
POLICIES: Final = st.builds(
    Policy,
    channels=st.sampled_from([("mail",), ("mail", "wecom"), ()]),
    routes=st.fixed_dictionaries(
        {},
        optional={
            name: st.builds(
                Route,
                inhibited_by=st.lists(st.sampled_from(RULES), max_size=2).map(tuple),
                group_by=st.sampled_from([None, ("ip",)]),
                escalate_to=st.sampled_from([(), ("phone",)]),
            )
            for name in RULES
        },
    ),
    flood_cap=st.integers(1, 3),
    quiet_hours=st.none() | st.just(QuietHours(time(13), time(14))),
    mark=st.none() | st.just(at(30)),
)


def check(routing: Routing, alerts: Sequence[Alert], dead: Collection[str]) -> None:
    told = {alert_id for message in routing.messages for alert_id in message.alert_ids}
    held = {each.alert_id for each in routing.held}
    assert {alert.alert_id for alert in alerts if alert.stands} <= told | held
    assert {each.reason for each in routing.held} <= set(REASONS)
    assert not {h.alert_id for h in routing.held if h.reason != "channel_dead"} & told
    assert len({m.message_id for m in routing.messages}) == len(routing.messages)
    assert all(m.channels and not set(m.channels) & set(dead) for m in routing.messages)


@pytest.mark.long
@examples(150)
@given(POLICIES, st.lists(STEPS, max_size=40), st.sampled_from([(), ("mail",)]))
def test_every_alert_that_stands_is_in_a_message_or_has_a_reason(
    policy: Policy, steps: list[Any], dead: tuple[str, ...]
) -> None:
    """Else an alert is lost, and nobody can say why; or a rule sends more than it may."""
    desk = Desk(policy)
    minute = 0.0
    sent: list[tuple[float, Message]] = []
    for what, rule, ip, severity, minutes in steps:
        minute += minutes
        if what in ("holds", "clear", "error"):
            desk.observe(minute, rule, what, severity, ip=ip)
        elif what == "silence":
            matchers = (Matcher("rule", rule), Matcher("ip", ip))
            desk.do(Silence(matchers=matchers, operator="li", now=at(minute), until=at(minute + 30), note="test"))
        elif what == "take":
            for alert in [a for a in desk.book.open_alerts() if a.rule == rule and a.stands]:
                desk.do(Acknowledge(alert_id=alert.alert_id, operator="mei", now=at(minute), until=at(minute + 40)))
        else:
            alerts = desk.book.to_route(at(minute))
            routing = desk.look(minute, dead=dead, clock=at(minute))
            check(routing, alerts, dead)
            assert desk.look(minute, dead=dead, clock=at(minute)) == routing, "the same state gives the same messages"
            keys = {m.message_id for m in routing.messages}
            again = desk.look(minute, dead=dead, clock=at(minute), waiting=routing.messages)
            assert not keys & {m.message_id for m in again.messages}
            before = len(desk.sent)
            desk.send(minute, dead=dead, clock=at(minute))
            sent += [(minute, message) for message in desk.sent[before:]]
    keys_sent = [message.message_id for _, message in sent]
    assert len(set(keys_sent)) == len(keys_sent)
    for begin, _ in sent:
        hour = [m for then, m in sent if begin <= then < begin + 60 and m.rule and m.kind != "escalation"]
        assert all(count <= policy.flood_cap + 1 for count in Counter(m.rule for m in hour).values())
    for alert in desk.book.alerts.values():
        kinds = [t.kind for t in alert.told]
        assert kinds.count("resolved") <= 1 and ("resolved" not in kinds or kinds[0] != "resolved")
