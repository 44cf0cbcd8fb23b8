"""What the owner's work with alerts puts its messages into: the queue of messages, and whoever delivers them.

Implements `consumers.alerts.telling.Messages`. A message of the routing names alerts; here it gets its words, from the
texts of their rules.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from coupon_ledger.consumers.alerts.conditions import is_problem
from coupon_ledger.consumers.alerts.telling import Channel as How
from coupon_ledger.consumers.alerts.telling import Queued, SentState
from coupon_ledger.delivery.channels import Channel, read
from coupon_ledger.delivery.deliverer import Deliverer
from coupon_ledger.delivery.messages import AlertMessage, Item, MessageKind
from coupon_ledger.delivery.queue import ChannelState, Followed, MessageQueue
from coupon_ledger.ledger.alert_evidence import values_in
from coupon_ledger.ledger.alert_problems import FILE_RULE, RULES_FILE, said_in
from coupon_ledger.ledger.alert_routing import Message
from coupon_ledger.ledger.alert_state import Alert, rank
from coupon_ledger.ledger.plain import instant
from coupon_ledger.ledger.words import Note, Speaker, note
from coupon_ledger.projections.alerts.rules import Rule, Severity
from coupon_ledger.projections.alerts.rules_file import Loaded
from coupon_ledger.projections.alerts.templates import Reader, render, summary

_SETTLING_S: Final = 0.05
_AGAIN_S: Final = 0.5
"""The counts of messages may be this old, since counting reads every message."""
_STATES: Final[Mapping[str, SentState]] = {"sent": "sent", "given_up": "given_up"}
_KINDS: Final[Mapping[str, MessageKind]] = {
    "firing": "firing",
    "resolved": "resolved",
    "repeat": "repeat",
    "digest": "digest",
    "escalation": "escalation",
    "flapping": "flapping",
}
_SEVERITY: Final[Mapping[str, Severity]] = {
    "critical": "critical",
    "high": "high",
    "warning": "warning",
    "info": "info",
}
_MOST_ITEMS: Final = 20
NO_CHANNEL: Final = note("no channel is known until the rules file is mended, so nobody is told of alerts")
"""Channels are not stored, since they have secrets: after a start with a file that cannot be read, there are none."""
_LANGUAGES: Final[tuple[Literal["en", "zh"], ...]] = ("en", "zh")


class Posting:
    """Puts messages into the queue in `file`, which is made when there are channels, and delivers them. `folder`: the
    one that paths of secrets are relative to. `language`, `zone`: of channels that name none; `zone` also of instants
    in summaries."""

    def __init__(self, file: Path, *, folder: Path | None = None, language: str = "en", zone: str = "UTC") -> None:
        self._file = file
        self._opened: tuple[MessageQueue, Deliverer] | None = None
        self._states: Mapping[str, ChannelState] = {}
        self._look_at = 0.0
        self._channels: Mapping[str, Channel] = {}
        self._folder, self._language, self._zone = folder, language, zone

    def use(self, file: Loaded) -> Sequence[Note]:
        channels, problems = read(
            file.channels,
            file.channel_lines,
            file=file.file,
            folder=self._folder,
            language=self._language,
            zone=self._zone,
        )
        # While a part of the file cannot be read, the rules in it stay in force as they were, and so do the channels.
        self._channels = channels if file.whole else {**self._channels, **channels}
        if self._opened is not None:
            self._opened[1].use(self._channels)
        elif self._channels or self._file.exists():
            queue = MessageQueue(self._file)
            self._opened = queue, Deliverer(queue, self._channels)
        unknown = [] if file.whole or self._channels else [NO_CHANNEL]
        return [*unknown, *(problem.note() for problem in problems)]

    def channels(self) -> Mapping[str, How]:
        if self._opened is not None and time.monotonic() >= self._look_at:
            self._states, self._look_at = self._opened[0].channels(), time.monotonic() + _AGAIN_S
        states = self._states
        return {name: _how(states.get(name, ChannelState(name))) for name in self._channels}

    def put(self, messages: Sequence[Message], alerts: Mapping[str, Alert], rules: Mapping[str, Rule]) -> None:
        assert self._opened is not None, "there are messages only if there are channels"
        queue, deliverer = self._opened
        words = [(message_of(m, [alerts[i] for i in m.alert_ids], rules, self._zone), m.channels) for m in messages]
        queue.enqueue_all(words, about={m.message_id: dumped(m) for m in messages})
        deliverer.wake()

    def queued(self) -> Sequence[Queued]:
        return [] if self._opened is None else [_queued(followed) for followed in self._opened[0].followed()]

    def forget(self, message_ids: Collection[str]) -> None:
        if self._opened is not None:
            self._opened[0].forget(message_ids)

    def settle(self, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until and any(map(self._may_send, self._channels)):
            time.sleep(_SETTLING_S)

    def _may_send(self, channel: str) -> bool:
        assert self._opened is not None
        queue, now = self._opened[0], time.time()
        state, due = queue.channel(channel), queue.next_due(channel)
        return state.waiting > 0 and state.rests_until <= now and (due is None or due <= now)

    def close(self) -> None:
        if self._opened is not None:
            queue, deliverer = self._opened
            deliverer.close()
            queue.close()


def _how(state: ChannelState) -> How:
    since = None if state.since is None else datetime.fromtimestamp(state.since, UTC)
    return How(state.waiting, state.given_up, state.failures, since, state.error or "", state.dead)


def dumped(message: Message) -> str:
    """The message as JSON text, from which `loaded` makes it again."""
    return json.dumps(asdict(message) | {"at": instant(message.at)})


def loaded(text: str) -> Message:
    data = json.loads(text)
    lists = {name: tuple(data[name]) for name in ("channels", "alert_ids")}
    return Message(**{**data, **lists, "at": datetime.fromisoformat(data["at"])})


def _queued(followed: Followed) -> Queued:
    return Queued(
        loaded(followed.about), {channel: _STATES.get(state, "waiting") for channel, state in followed.states.items()}
    )


# ── Words ────────────────────────────────────────────────────────────────────────────────────────────────────


def message_of(message: Message, alerts: Sequence[Alert], rules: Mapping[str, Rule], zone: str = "UTC") -> AlertMessage:
    """The words of a message about these alerts: the most severe one in full, the others in a line each."""
    first, *others = sorted(alerts, key=lambda a: (-rank(a.severity), -(a.money_minor or 0), a.alert_id))
    rule = rules.get(first.rule)
    named = message.rule or ", ".join(sorted({alert.rule for alert in alerts}))
    return AlertMessage(
        key=message.message_id,
        alert_id=first.alert_id,
        rule=named,
        severity=_SEVERITY.get(message.severity, "info"),
        kind=_KINDS[message.kind],
        summary=summary_of(first, rule, zone),
        since=first.since,
        until=first.at if first.phase == "resolved" else None,
        keys=first.labels,
        metric=getattr(rule.expr, "metric", None) if rule is not None else None,
        value=first.value,
        threshold=_number(first.evidence.get("threshold")),
        money_minor=first.money_minor,
        currency=first.currency,
        playbook=rule.playbook if rule is not None else None,
        items=tuple(Item(summary_of(a, rules.get(a.rule), zone), a.labels) for a in others[:_MOST_ITEMS]),
        further=max(0, len(others) - _MOST_ITEMS),
    )


def summary_of(alert: Alert, rule: Rule | None, zone: str = "UTC") -> dict[str, str]:
    """What an alert says in one line, by language. Values of its key are in it as they are."""
    if rule is None or is_problem(alert):
        return {lang: Speaker(lang).say(_of_problem(alert)) for lang in _LANGUAGES}
    values = values_of(alert, rule)
    at = ZoneInfo(zone)

    def written(when: datetime) -> str:
        aware = when if when.tzinfo else when.replace(tzinfo=UTC)
        return f"{aware.astimezone(at):%Y-%m-%d %H:%M}"

    def said(lang: str) -> str:
        error = said_in(values, values.get("error"))
        own = {"error": Speaker(lang).say(error)} if isinstance(error, Note) else {}
        return render(summary(rule, lang), rule, values | own, Reader(lang, written, personal=True))

    return {lang: said(lang) for lang in _LANGUAGES}


def _of_problem(alert: Alert) -> Note:
    if not is_problem(alert):
        return note("{rule}: {value}", rule=alert.rule, value=alert.value)
    problem = said_in(alert.evidence, alert.problem)
    if alert.rule == FILE_RULE:
        return note("the rules file has a problem: {problem}", problem=problem)
    if dict(alert.labels) == RULES_FILE:
        return note("the rules file is wrong about {rule}: {problem}", rule=alert.rule, problem=problem)
    return note("rule {rule} cannot be evaluated: {problem}", rule=alert.rule, problem=problem)


def values_of(alert: Alert, rule: Rule) -> dict[str, Any]:
    """The values of an alert for the templates of its rule. Who contributed most is left out: these are persons, and a
    channel that may not name persons could not recognise them in a text."""
    own = {name: value for name, value in values_in(alert.evidence).items() if name not in ("rows", "top", "seen")}
    return own | dict(alert.labels) | {
        "alert": alert.alert_id,
        "rule": alert.rule,
        "group": rule.group,
        "severity": alert.severity,
        "owner": alert.assignee or rule.owner,
        "playbook": rule.playbook,
        "value": alert.value,
        "count": own.get("count", alert.value),
        "since": alert.since,
        "at": alert.fired_at,
        "lasted": alert.at - alert.since,
        "window": getattr(rule.expr, "window", None),
        "money": None if alert.money_minor is None else (alert.money_minor, alert.currency),
        "currency": alert.currency,
        "of": getattr(rule.expr, "of", None),
        "metric": getattr(rule.expr, "metric", None),
    }  # fmt: skip


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
