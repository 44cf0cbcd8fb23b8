"""Silences: until they end, messages about the alerts that match are held back.

A silence is about many alerts, also those that fire later. So it has a life of its own: its events have the silence's
id as key, and whether an alert is silenced is computed when it is asked.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import singledispatch
from typing import Any, Final

from coupon_ledger.ledger.alert_commands import Tick
from coupon_ledger.ledger.alert_events import AlertEvent, event, event_id_of
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.errors import CommandRefused, UnknownAlert
from coupon_ledger.ledger.words import note

OWN_LABELS: Final = ("rule", "severity", "alert_id")
"""Names that a matcher can use beside the alert's labels."""
_MOST_MATCHERS: Final = 20
_MOST_CHARS: Final = 256


@dataclass(frozen=True, slots=True)
class Matcher:
    """A test of one label. `value`: the text that it must be, or must not be if `equal` is false; `*` stands for any
    characters. A label that an alert does not have is an empty text."""

    label: str
    value: str
    equal: bool = True

    def matches(self, alert: Alert) -> bool:
        known = getattr(alert, self.label) if self.label in OWN_LABELS else alert.labels.get(self.label, "")
        return _like(known, self.value) == self.equal

    def __str__(self) -> str:
        return f"{self.label}{'=' if self.equal else '!='}{self.value}"

    @staticmethod
    def parse(text: str) -> Matcher:
        """The matcher written as `label=value` or `label!=value`. Raises `CommandRefused` for other texts."""
        label, separator, value = text.partition("=")
        equal = not label.endswith("!")
        label = label.removesuffix("!").strip()
        if not separator or not label or len(text) > _MOST_CHARS:
            raise CommandRefused(
                note("matcher {text}: write label=value or label!=value, such as rule=double-use or campaign=k-*, with"
                     " at most {most:count} characters", text=text[:100], most=_MOST_CHARS)
            )  # fmt: skip
        return Matcher(label, value.strip(), equal)


def _like(text: str, pattern: str) -> bool:
    """Whether the text has the pattern's parts between asterisks, in their order. Takes linear time for each part."""
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    *middle, last = others
    at = len(first)
    for part in middle:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return text.startswith(first) and text.endswith(last) and len(text) - len(last) >= at


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """The operator silences all alerts that satisfy every one of `matchers`, until an instant."""

    matchers: tuple[Matcher, ...]
    operator: str
    now: datetime
    until: datetime
    note: str
    silence_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsilence:
    """The operator ends a silence before its time."""

    silence_id: str
    operator: str
    now: datetime
    note: str | None = None
    event_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceState:
    """A silence. `until`: when it ends by itself. `ended_at`: when it ended; None while it lasts."""

    silence_id: str
    matchers: tuple[Matcher, ...]
    operator: str | None
    began_at: datetime
    until: datetime
    note: str | None
    ended_at: datetime | None = None
    ended_by: str | None = None

    def holds(self, now: datetime) -> bool:
        return self.ended_at is None and now < self.until

    def matches(self, alert: Alert) -> bool:
        return bool(self.matchers) and all(matcher.matches(alert) for matcher in self.matchers)


SilenceCommand = Silence | Unsilence | Tick


def decide_silence(command: SilenceCommand, silence: SilenceState | None) -> list[AlertEvent]:
    """The events that follow from the command. `silence`: the silence that it is about; None if there is none yet.
    Raises `CommandRefused`, `UnknownAlert` and `InvalidEvent` like `alert_life.decide`."""
    return list(_decide(command, silence))


def evolve_silence(silence: SilenceState | None, event: AlertEvent) -> SilenceState | None:
    """The state after the event. Pure, and never fails. A silence begins and ends once: later events change nothing."""
    if event.silence_id is None:
        return silence
    if silence is None:
        return _begun(event) if event.type == "silenced" else None
    if event.type == "unsilenced" and silence.ended_at is None:
        return replace(silence, ended_at=event.occurred_at, ended_by=event.operator)
    return silence


def silenced_by(alert: Alert, silences: Iterable[SilenceState], now: datetime) -> SilenceState | None:
    """The silence that holds back messages about the alert: of several, the one that lasts longest."""
    holding = [silence for silence in silences if silence.holds(now) and silence.matches(alert)]
    return max(holding, key=lambda silence: (silence.until, silence.silence_id), default=None)


@singledispatch
def _decide(command: object, silence: SilenceState | None) -> Iterator[AlertEvent]:
    raise TypeError(f"{type(command).__name__} is no command of a silence")


@_decide.register
def _(command: Silence, silence: SilenceState | None) -> Iterator[AlertEvent]:
    if silence is not None:
        return
    if not 1 <= len(command.matchers) <= _MOST_MATCHERS:
        raise CommandRefused(
            note("a silence needs 1 to {most:count} matchers; name a rule or a label, such as rule=double-use",
                 most=_MOST_MATCHERS)
        )  # fmt: skip
    if command.until <= command.now:
        raise CommandRefused(note("the silence would end at {until:instant}, which has passed; name a later end",
                                  until=command.until))  # fmt: skip
    if not command.note.strip():
        raise CommandRefused(note("a silence needs a reason; say why these alerts need not be told"))
    yield event(
        "silenced",
        event_id=event_id_of("silenced", command.silence_id),
        occurred_at=command.now,
        silence_id=command.silence_id,
        operator=command.operator,
        until=command.until,
        note=command.note,
        details={"matchers": [{"label": m.label, "value": m.value, "equal": m.equal} for m in command.matchers]},
    )


@_decide.register
def _(command: Unsilence, silence: SilenceState | None) -> Iterator[AlertEvent]:
    if silence is None:
        raise UnknownAlert(note("there is no silence {silence}; `coupon-ledger alerts silences` lists them",
                                silence=command.silence_id))  # fmt: skip
    if not silence.holds(command.now):
        raise CommandRefused(note("silence {silence} has ended already; nothing is left to do",
                                  silence=command.silence_id))  # fmt: skip
    yield event(
        "unsilenced",
        event_id=command.event_id,
        occurred_at=command.now,
        silence_id=command.silence_id,
        operator=command.operator,
        reason="operator",
        note=command.note,
    )


@_decide.register
def _(tick: Tick, silence: SilenceState | None) -> Iterator[AlertEvent]:
    if silence is not None and silence.ended_at is None and not silence.holds(tick.now):
        ended = event_id_of("unsilenced", silence.silence_id)
        yield event("unsilenced", event_id=ended, occurred_at=silence.until, silence_id=silence.silence_id,
                    reason="time_over")  # fmt: skip


def _begun(event: AlertEvent) -> SilenceState:
    matchers = event.details.get("matchers")
    return SilenceState(
        silence_id=event.silence_id or "",
        matchers=tuple(map(_matcher, matchers)) if isinstance(matchers, list) else (),
        operator=event.operator,
        began_at=event.occurred_at,
        until=event.until or event.occurred_at,
        note=event.note,
    )


def _matcher(stored: Any) -> Matcher:
    """One that was stored otherwise matches nothing."""
    if not isinstance(stored, Mapping):
        return Matcher("alert_id", "")
    return Matcher(str(stored.get("label")), str(stored.get("value")), stored.get("equal") is not False)
