"""The state of an alert, and how events change it.

Always true:
- `evolve` is pure and never fails, whatever events it gets.
- An event that was folded already changes nothing. An event that does not fit the phase is kept in `violations`, and
  changes nothing else: for example `acknowledged_when_resolved`, if two processes wrote at once.
- What concerns the condition (`since`, `fired_at`, `at`, …) is in the data's clock. What concerns people (`opened_at`,
  `told`, `acknowledged`, …) is in the wall clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from coupon_ledger.ledger.alert_events import TYPES, AlertEvent

Phase = Literal["normal", "pending", "firing", "recovering", "resolved", "no_data", "error"]
STATUSES: Final = (
    *("normal", "pending", "firing", "acknowledged", "silenced", "recovering", "resolved", "no_data", "error"),
)
"""What people are shown: the phases, and of firing alerts those that are acknowledged or silenced."""
SEVERITIES: Final = ("info", "warning", "high", "critical")
"""The least severe first."""
STANDING: Final = frozenset({"firing", "no_data", "error"})
"""Phases in which people must know of the alert."""
OPEN: Final = STANDING | {"pending", "recovering"}
CLOSED: Final = frozenset({"normal", "resolved"})
MOST_CHANGES: Final = 50


def rank(severity: str) -> int:
    """The place of a severity, from 0 (info) to 3 (critical)."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else 0


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Who took the alert, when, and until when they expect to settle it (None: no time was given)."""

    operator: str
    at: datetime
    until: datetime | None = None
    note: str | None = None

    def holds(self, now: datetime) -> bool:
        """Whether the expected time is still to come."""
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True)
class Telling:
    """A message about the alert that reached at least one channel. `kind`: firing, resolved, repeat, digest, escalation
    or flapping. `group`: the group of alerts that the message was about. `severity`: the alert's at that time."""

    message_id: str
    kind: str
    at: datetime
    severity: str
    group: str
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Withheld:
    """Why the last message was not sent. `cause`: what held it back, such as a silence's id or an alert's rule."""

    reason: str
    cause: str | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert: an episode in which a rule's condition held for these labels.

    `since`: since when the condition has held. `at`: the last instant that an event was about. `over_since`: in phase
    `recovering`, since when the condition has not held. `stood_at`: when people first had to know of it. `problem`: why
    the rule could not be judged. `hold`, `keep`: how long it must hold before the alert fires,
    and be over before it is resolved. `value`: the last recorded one. `magnitude`: how bad it was at its worst.
    `assignee`: who looks after it. `acted`: the actions that were really taken. `withholdings`: how many messages were
    held back. `turns`: how often the condition turned after the alert was opened. `changes`: the last instants at which
    alerts of this fingerprint began or ceased to fire.
    """

    alert_id: str
    fingerprint: str
    rule: str
    rule_version: str | None
    severity: str
    labels: Mapping[str, str]
    phase: Phase
    since: datetime
    at: datetime
    opened_at: datetime
    hold: timedelta = timedelta(0)
    keep: timedelta = timedelta(0)
    value: float | None = None
    magnitude: float | None = None
    money_minor: int | None = None
    currency: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    fired_at: datetime | None = None
    over_since: datetime | None = None
    stood_at: datetime | None = None
    resolved_at: datetime | None = None
    resolved_by: str | None = None
    outcome: str | None = None
    saved_minor: int | None = None
    assignee: str | None = None
    acknowledged: Acknowledgement | None = None
    escalated_at: datetime | None = None
    acted: frozenset[str] = frozenset()
    told: tuple[Telling, ...] = ()
    withheld: Withheld | None = None
    withholdings: int = 0
    turns: int = 0
    changes: tuple[datetime, ...] = ()
    flapping_since: datetime | None = None
    seen: frozenset[str] = frozenset()
    violations: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        return self.phase in OPEN

    @property
    def stands(self) -> bool:
        """Whether people must know of it: it fires, or its rule finds no data or fails."""
        return self.phase in STANDING

    @property
    def status(self) -> str:
        """The status that people are shown, except `silenced`, which `AlertBook.status` knows."""
        return "acknowledged" if self.stands and self.acknowledged else self.phase


def evolve(alert: Alert | None, event: AlertEvent) -> Alert | None:
    """The state after the event. `alert`: the state before; None if there was no alert of this fingerprint yet.

    The event is about this alert, or opens the next one of the fingerprint, which takes its place. `AlertBook` brings
    each event to the alert that it is about.
    """
    if event.alert_id is None or event.fingerprint is None:
        return alert
    if alert is None or event.alert_id != alert.alert_id:
        return _opened(alert, event) if event.type in _OPENING else alert
    if event.event_id in alert.seen:
        return alert
    seen = alert.seen | {event.event_id}
    if alert.phase not in _FITS.get(event.type, _ANY):
        return replace(alert, seen=seen, violations=(*alert.violations, f"{event.type}_when_{alert.phase}"))
    turns = alert.turns + (event.type in _TURNS)
    return replace(alert, seen=seen, turns=turns, **_CHANGES.get(event.type, _nothing)(alert, event))


Changes = dict[str, Any]


def _opened(before: Alert | None, event: AlertEvent) -> Alert:
    assert event.alert_id is not None and event.fingerprint is not None
    at = event.data_at or event.occurred_at
    opened = Alert(
        alert_id=event.alert_id,
        fingerprint=event.fingerprint,
        rule=event.rule or "",
        rule_version=event.rule_version,
        severity=event.severity or "info",
        labels=event.labels,
        phase=_OPENING[event.type],
        since=at,
        at=at,
        opened_at=event.occurred_at,
        changes=before.changes if before else (),
        flapping_since=before.flapping_since if before else None,
        seen=frozenset({event.event_id}),
    )
    return replace(opened, **_CHANGES[event.type](opened, event))


def _nothing(_alert: Alert, _event: AlertEvent) -> Changes:
    return {}


def _seen_condition(alert: Alert, event: AlertEvent) -> Changes:
    """What every event about the condition says of it."""
    at = event.data_at or event.occurred_at
    severity = event.severity or alert.severity
    magnitudes = [m for m in (alert.magnitude, _number(event.details.get("magnitude"))) if m is not None]
    value = _number(event.details.get("value"))
    evidence = event.details.get("evidence")
    return {
        "at": max(alert.at, at),
        "severity": max(alert.severity, severity, key=rank),
        "value": alert.value if value is None else value,
        "magnitude": max(magnitudes, default=None),
        "money_minor": alert.money_minor if event.money_minor is None else event.money_minor,
        "currency": event.currency or alert.currency,
        "evidence": evidence if isinstance(evidence, dict) else alert.evidence,
        "assignee": alert.assignee or event.assignee,
        "hold": _span(event, "hold_s", alert.hold),
        "keep": _span(event, "keep_s", alert.keep),
        "rule_version": event.rule_version or alert.rule_version,
    }


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _span(event: AlertEvent, name: str, known: timedelta) -> timedelta:
    seconds = _number(event.details.get(name))
    try:
        return known if seconds is None else timedelta(seconds=seconds)
    except OverflowError:
        return known


def _pending(alert: Alert, event: AlertEvent) -> Changes:
    at = event.data_at or event.occurred_at
    return _seen_condition(alert, event) | {"phase": "pending", "since": at}


def _fired(alert: Alert, event: AlertEvent) -> Changes:
    at = event.data_at or event.occurred_at
    changed = {"phase": "firing", "fired_at": at, "stood_at": event.occurred_at, "problem": None}
    since = alert.since if alert.phase == "pending" else at
    return _seen_condition(alert, event) | changed | {"since": since, "changes": _changed(alert, at)}


def _relapsed(alert: Alert, event: AlertEvent) -> Changes:
    at = event.data_at or event.occurred_at
    changed = {"phase": "firing", "over_since": None, "problem": None}
    return _seen_condition(alert, event) | changed | {"changes": _changed(alert, at)}


def _recovering(alert: Alert, event: AlertEvent) -> Changes:
    at = event.data_at or event.occurred_at
    changed = {"phase": "recovering", "over_since": at, "problem": None, "changes": _changed(alert, at)}
    return {"at": max(alert.at, at)} | changed


def _changed(alert: Alert, at: datetime) -> tuple[datetime, ...]:
    return (*alert.changes, at)[-MOST_CHANGES:]


def _not_judged(alert: Alert, event: AlertEvent) -> Changes:
    changed = {"phase": event.type, "over_since": None, "problem": event.note}
    return _seen_condition(alert, event) | changed | {"stood_at": alert.stood_at or event.occurred_at}


def _cleared(alert: Alert, event: AlertEvent) -> Changes:
    ended: Changes = {"phase": "normal", "acknowledged": None, "problem": None, "evidence": {}}
    return ended | {"at": max(alert.at, event.data_at or event.occurred_at)}


def _resolved(alert: Alert, event: AlertEvent) -> Changes:
    """Closes the alert, or says what came of one that is closed."""
    said = {
        "outcome": event.outcome or alert.outcome,
        "saved_minor": alert.saved_minor if event.saved_minor is None else event.saved_minor,
        "currency": event.currency or alert.currency,
    }
    if alert.phase == "resolved":
        return said
    return said | {
        "phase": "resolved",
        "at": max(alert.at, event.data_at or alert.at),
        "resolved_at": event.occurred_at,
        "resolved_by": event.operator,
        "acknowledged": None,
        "over_since": None,
        "problem": None,
        "evidence": {},
    }


def _flapping(_alert: Alert, event: AlertEvent) -> Changes:
    return {"flapping_since": event.data_at or event.occurred_at}


def _settled(_alert: Alert, _event: AlertEvent) -> Changes:
    return {"flapping_since": None, "changes": ()}


def _acknowledged(_alert: Alert, event: AlertEvent) -> Changes:
    who = event.operator or ""
    taken = Acknowledgement(who, event.occurred_at, event.until, event.note)
    return {"acknowledged": taken, "assignee": event.assignee or who, "escalated_at": None}


def _assigned(_alert: Alert, event: AlertEvent) -> Changes:
    return {"assignee": event.assignee}


def _acted(alert: Alert, event: AlertEvent) -> Changes:
    real = event.action is not None and event.details.get("dry") is not True
    return {"acted": alert.acted | {event.action}} if real else {}


def _escalated(_alert: Alert, event: AlertEvent) -> Changes:
    return {"escalated_at": event.occurred_at}


def _notified(alert: Alert, event: AlertEvent) -> Changes:
    channels = (event.channel,) if event.channel else ()
    kind, group = event.details.get("kind"), event.details.get("group")
    telling = Telling(
        event.message_id or event.event_id, str(kind), event.occurred_at, alert.severity, str(group), channels
    )
    told = list(alert.told)
    for place, earlier in enumerate(told):
        if earlier.message_id == telling.message_id:
            told[place] = replace(earlier, channels=tuple(dict.fromkeys((*earlier.channels, *channels))))
            break
    else:
        told.append(telling)
    return {"told": tuple(told), "withheld": None}


def _not_notified(alert: Alert, event: AlertEvent) -> Changes:
    cause = event.details.get("cause")
    why = Withheld(event.reason or "", None if cause is None else str(cause), event.occurred_at)
    return {"withheld": why, "withholdings": alert.withholdings + 1}


_OPENING: Final[Mapping[str, Phase]] = {
    "pending": "pending",
    "fired": "firing",
    "no_data": "no_data",
    "error": "error",
}
_TURNS: Final = frozenset({"pending", "recovering", "relapsed", "no_data", "error"})
_FIRED: Final = STANDING | {"recovering"}
_ANY: Final = OPEN | CLOSED
_FITS: Final[Mapping[str, frozenset[str]]] = {
    "pending": frozenset({"no_data", "error"}),
    "cleared": frozenset({"pending"}),
    "fired": frozenset({"pending", "no_data", "error"}),
    "updated": frozenset({"firing"}),
    "recovering": STANDING,
    "relapsed": frozenset({"recovering", "no_data", "error"}),
    "no_data": OPEN - {"no_data"},
    "error": OPEN - {"error"},
    "resolved": _FIRED | {"resolved"},
    "acknowledged": _FIRED,
    "owner_assigned": OPEN,
    "acted": _FIRED | {"resolved"},
    "escalated": _FIRED,
}
"""By type, the phases in which it fits. All other types fit in every phase."""
_CHANGES: Final[Mapping[str, Callable[[Alert, AlertEvent], Changes]]] = {
    "pending": _pending,
    "cleared": _cleared,
    "fired": _fired,
    "updated": _seen_condition,
    "recovering": _recovering,
    "relapsed": _relapsed,
    "no_data": _not_judged,
    "error": _not_judged,
    "resolved": _resolved,
    "flapping": _flapping,
    "settled": _settled,
    "acknowledged": _acknowledged,
    "owner_assigned": _assigned,
    "acted": _acted,
    "escalated": _escalated,
    "notified": _notified,
    "not_notified": _not_notified,
}
assert _FITS.keys() <= TYPES.keys() and _CHANGES.keys() <= TYPES.keys()
