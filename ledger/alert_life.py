"""The life of an alert: which events follow from what was observed, done or delivered.

    normal → pending → firing → (acknowledged | silenced) → recovering → resolved

`no_data` and `error` are phases of their own, entered from any open phase or from none. `decide` and `evolve` are pure.
An observation that says nothing new gives no event. Automatic events have ids that are computed from what they are
about, so one that is appended twice counts once.

    events = decide(Condition(...), alert)
    for event in events:
        alert = evolve(alert, event)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import singledispatch
from typing import Any, Final

from coupon_ledger.ledger.alert_commands import (
    Acknowledge,
    Act,
    Assign,
    ByOperator,
    Command,
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
    OUTCOMES,
    AlertEvent,
    event,
    event_id_of,
    hash_of,
)
from coupon_ledger.ledger.alert_state import Alert, evolve, rank
from coupon_ledger.ledger.errors import CommandRefused, UnknownAlert
from coupon_ledger.ledger.events import MAX_TEXT_CHARS, canonical_json
from coupon_ledger.ledger.plain import plain
from coupon_ledger.ledger.words import note

_EVIDENCE_CHARS: Final = MAX_DETAILS_CHARS * 3 // 4


def decide(command: Command, alert: Alert | None) -> list[AlertEvent]:
    """The events that follow from the command, in their order; an empty list if it says nothing new.

    `alert`: the present alert of the fingerprint; None if there was none yet. Raises `CommandRefused` if the command
    does not fit the alert's state, `UnknownAlert` if there is no alert, `InvalidEvent` if a value is invalid.
    """
    seen = alert.seen if alert else frozenset()
    return [made for made in _decide(command, alert) if made.event_id not in seen]


@singledispatch
def _decide(command: object, alert: Alert | None) -> Iterator[AlertEvent]:
    raise TypeError(f"{type(command).__name__} is no command of an alert")


# ── What the evaluation says ─────────────────────────────────────────────────────────────────────────────────


@_decide.register
def _(c: Condition, alert: Alert | None) -> Iterator[AlertEvent]:
    made = list(_STEPS[c.outcome](c, alert))
    yield from made
    for each in made:
        alert = evolve(alert, each)
    if alert is not None:
        yield from _flapping(alert, c.now, c.terms)


def _holds(c: Condition, alert: Alert | None) -> Iterator[AlertEvent]:
    if c.alert_id is None:
        raise ValueError("a condition that holds names its episode in alert_id")
    if alert is None:
        yield from _opening(c)
    elif alert.alert_id != c.alert_id:
        if not _of_an_earlier_episode(c, alert):
            yield from _superseded(c, alert)
            yield from _opening(c)
    elif c.at >= alert.at:
        yield from _holds_on(c, alert)


def _of_an_earlier_episode(c: Condition, alert: Alert) -> bool:
    opened_by_a_condition = alert.fired_at is not None or alert.phase in ("pending", "normal")
    return opened_by_a_condition and (c.since or c.at) < alert.since


def _opening(c: Condition) -> Iterator[AlertEvent]:
    since = c.since or c.at
    if c.terms.hold:
        yield _of_condition("pending", c, since)
    if c.at - since >= c.terms.hold:
        yield _of_condition("fired", c, since + c.terms.hold)


def _superseded(c: Condition, alert: Alert) -> Iterator[AlertEvent]:
    """Closes an alert whose end was not seen, since another episode has begun."""
    if alert.phase == "pending":
        yield _automatic("cleared", alert, c.now, data_at=max(alert.at, c.since or c.at))
    elif alert.is_open:
        yield _automatic("resolved", alert, c.now, data_at=max(alert.at, c.since or c.at), reason="next_episode")


def _holds_on(c: Condition, alert: Alert) -> Iterator[AlertEvent]:
    if alert.phase == "pending" or (alert.phase in ("no_data", "error") and alert.fired_at is None):
        since = alert.since if alert.phase == "pending" else c.since or c.at
        if c.at - since >= c.terms.hold:
            yield _of_condition("fired", c, max(since + c.terms.hold, alert.at))
        elif alert.phase != "pending":
            yield _of_condition("pending", c, max(since, alert.at), alert.turns)
    elif alert.phase in ("recovering", "no_data", "error"):
        yield _of_condition("relapsed", c, c.at, alert.turns)
    elif alert.phase == "firing" and _worse(c, alert):
        yield _of_condition("updated", c, c.at, c.at, c.severity, _magnitude(c), c.money_minor)


def _worse(c: Condition, alert: Alert) -> bool:
    if rank(c.severity) > rank(alert.severity):
        return True
    pairs = [(_magnitude(c), alert.magnitude)]
    if c.currency == alert.currency:
        pairs.append((c.money_minor, alert.money_minor))
    return any(new is not None and new > (known or 0) * (1 + c.terms.growth) for new, known in pairs)


def _clear(c: Condition, alert: Alert | None) -> Iterator[AlertEvent]:
    if alert is None or not alert.is_open or c.alert_id not in (None, alert.alert_id) or c.at < alert.at:
        return
    if alert.phase == "pending":
        yield _automatic("cleared", alert, c.now, data_at=c.at)
    elif alert.fired_at is None:
        yield _automatic("resolved", alert, c.now, data_at=c.at, reason="cleared")
    else:
        over = alert.over_since or max(c.since or c.at, alert.at)
        if alert.phase != "recovering":
            yield _automatic("recovering", alert, c.now, alert.turns, data_at=over)
        if c.at - over >= c.terms.keep:
            yield _automatic("resolved", alert, c.now, data_at=over + c.terms.keep, reason="cleared")


def _not_judged(c: Condition, alert: Alert | None) -> Iterator[AlertEvent]:
    if alert is None or not alert.is_open:
        made = _of_condition(c.outcome, c, c.at)
        if alert is None or made.alert_id != alert.alert_id:
            yield made
    elif alert.phase != c.outcome and c.at >= alert.at:
        yield _automatic(c.outcome, alert, c.now, alert.turns, data_at=c.at, note=_short(c.problem))


_STEPS: Final = {"holds": _holds, "clear": _clear, "no_data": _not_judged, "error": _not_judged}


def _of_condition(kind: str, c: Condition, data_at: datetime, *about: object) -> AlertEvent:
    fingerprint = c.fingerprint
    alert_id = c.alert_id or hash_of(fingerprint, c.outcome, c.at)
    numbers = {"value": _finite(c.value), "magnitude": _magnitude(c)}
    spans = {"hold_s": c.terms.hold.total_seconds(), "keep_s": c.terms.keep.total_seconds()}
    details = {name: number for name, number in (numbers | spans).items() if number is not None}
    return event(
        kind,
        event_id=event_id_of(kind, alert_id, *about),
        occurred_at=c.now,
        fingerprint=fingerprint,
        alert_id=alert_id,
        rule=c.rule,
        rule_version=c.rule_version,
        severity=c.severity,
        labels={name: _short(value) for name, value in c.labels.items()},
        data_at=data_at,
        assignee=c.owner,
        note=_short(c.problem),
        money_minor=c.money_minor,
        currency=c.currency,
        details=details | ({"evidence": _fitting(c.evidence)} if c.evidence else {}),
    )


def _magnitude(c: Condition) -> float | None:
    if c.magnitude is None and c.value is not None:
        return _finite(abs(c.value))
    return _finite(c.magnitude)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…"


def _fitting(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """The evidence as JSON values. What is too large for an event, or no JSON, is left out: an alert without its
    evidence is better than none."""
    kept: dict[str, Any] = {}
    left = _EVIDENCE_CHARS
    for name, part in evidence.items():
        try:
            size = len(canonical_json({name: plain(part)}).encode())
        except (TypeError, ValueError, RecursionError):
            size = left + 1
        if size <= left:
            kept[name] = plain(part)
            left -= size
    left_out = sorted(str(name)[:100] for name in evidence.keys() - kept.keys())[:20]
    return kept | ({"left_out": left_out} if left_out else {})


def _automatic(kind: str, alert: Alert, now: datetime, *about: object, **fields: Any) -> AlertEvent:
    return event(kind, event_id=event_id_of(kind, alert.alert_id, *about), occurred_at=now, **_of(alert), **fields)


def _of(alert: Alert) -> dict[str, Any]:
    named = {"fingerprint": alert.fingerprint, "alert_id": alert.alert_id, "severity": alert.severity}
    return named | {"rule": alert.rule or None, "rule_version": alert.rule_version}


# ── What time does ───────────────────────────────────────────────────────────────────────────────────────────


@_decide.register
def _(tick: Tick, alert: Alert | None) -> Iterator[AlertEvent]:
    if alert is None:
        return
    clock = tick.clock or tick.now
    if alert.phase == "pending" and clock - alert.since >= alert.hold:
        yield _automatic("fired", alert, tick.now, data_at=alert.since + alert.hold)
    if alert.over_since is not None and clock - alert.over_since >= alert.keep:
        yield _automatic("resolved", alert, tick.now, data_at=alert.over_since + alert.keep, reason="cleared")
    since, patience = _nobody_acted_since(alert, tick.now), tick.terms.escalate_after
    if since is not None and patience is not None and tick.now - since >= patience:
        yield _automatic("escalated", alert, tick.now, since, reason="nobody_acted")
    if alert.flapping_since is not None:
        last = max((alert.flapping_since, *alert.changes))
        if clock - last >= tick.terms.flap_window:
            yield _automatic("settled", alert, tick.now, alert.flapping_since, data_at=last + tick.terms.flap_window)


def _nobody_acted_since(alert: Alert, now: datetime) -> datetime | None:
    """Since when people could have acted on a standing alert and did not; None if somebody did, nobody was told, or it
    has been escalated since."""
    if not alert.stands or alert.escalated_at is not None or alert.acted:
        return None
    if alert.withheld is not None and alert.withheld.reason in ("silenced", "inhibited"):
        return None
    if alert.acknowledged is not None:
        until = alert.acknowledged.until
        return until if until is not None and not alert.acknowledged.holds(now) else None
    if alert.told:
        return alert.told[0].at
    return alert.stood_at if alert.withheld is not None and alert.withheld.reason == "channel_dead" else None


def _flapping(alert: Alert, now: datetime, terms: Terms) -> Iterator[AlertEvent]:
    if alert.flapping_since is None and alert.changes:
        last = max(alert.changes)
        recent = [at for at in alert.changes if last - at < terms.flap_window]
        if len(recent) > terms.flap_changes:
            yield _automatic("flapping", alert, now, last, data_at=last, details={"changes": len(recent)})


# ── What operators do ────────────────────────────────────────────────────────────────────────────────────────


@_decide.register
def _(command: Acknowledge, alert: Alert | None) -> Iterator[AlertEvent]:
    alert = _known(alert, command.alert_id)
    _must_have_fired(alert, note("acknowledged"))
    if command.until is not None and command.until <= command.now:
        raise CommandRefused(
            note("alert {alert}: its expected time {until:instant} has passed; name a later one", alert=alert.alert_id,
                 until=command.until)
        )  # fmt: skip
    yield _by("acknowledged", command, alert, until=command.until, assignee=command.operator)


@_decide.register
def _(command: Note, alert: Alert | None) -> Iterator[AlertEvent]:
    alert = _known(alert, command.alert_id)
    if not (command.note or "").strip():
        raise CommandRefused(note("alert {alert}: the note is empty; write what should be remembered",
                                  alert=alert.alert_id))  # fmt: skip
    yield _by("noted", command, alert)


@_decide.register
def _(command: Assign, alert: Alert | None) -> Iterator[AlertEvent]:
    alert = _known(alert, command.alert_id)
    _must_be_open(alert, note("assigned"))
    yield _by("owner_assigned", command, alert, assignee=command.assignee)


@_decide.register
def _(command: Resolve, alert: Alert | None) -> Iterator[AlertEvent]:
    alert = _known(alert, command.alert_id)
    if command.outcome not in OUTCOMES:
        raise CommandRefused(note("alert {alert}: outcome {outcome} is unknown; say true, false or unknown",
                                  alert=alert.alert_id, outcome=command.outcome))  # fmt: skip
    if command.saved_minor is not None and command.currency is None and alert.currency is None:
        raise CommandRefused(note("alert {alert}: saved money needs a currency; name one", alert=alert.alert_id))
    if alert.phase != "resolved":
        _must_have_fired(alert, note("resolved"))
    said = (command.outcome, command.saved_minor, command.note)
    if alert.phase == "resolved" and said == (alert.outcome, alert.saved_minor, None):
        return
    currency = None if command.saved_minor is None else command.currency or alert.currency
    yield _by("resolved", command, alert, reason="operator", outcome=command.outcome,
              saved_minor=command.saved_minor, currency=currency)  # fmt: skip


@_decide.register
def _(command: Act, alert: Alert | None) -> Iterator[AlertEvent]:
    alert = _known(alert, command.alert_id)
    if alert.phase != "resolved":
        _must_have_fired(alert, note("acted on"))
    if command.operator is None and command.action in alert.acted:
        return
    about = event_id_of("acted", alert.alert_id, command.action, str(command.dry))
    yield event(
        "acted",
        event_id=about if command.operator is None else command.event_id,
        occurred_at=command.now,
        operator=command.operator,
        note=command.note,
        action=command.action,
        details={"dry": command.dry, "effect": _fitting(command.effect)},
        **_of(alert),
    )


def _by(kind: str, command: ByOperator, alert: Alert, **fields: Any) -> AlertEvent:
    made = {"event_id": command.event_id, "occurred_at": command.now, "operator": command.operator}
    return event(kind, **made, note=command.note, **_of(alert), **fields)


def _known(alert: Alert | None, alert_id: str) -> Alert:
    if alert is None or alert.alert_id != alert_id:
        raise UnknownAlert(note("there is no alert {alert}; `coupon-ledger alerts list` lists them", alert=alert_id))
    return alert


def _must_have_fired(alert: Alert, done: object) -> None:
    _must_be_open(alert, done)
    if alert.phase == "pending":
        raise CommandRefused(
            note("alert {alert} has not fired yet, so it cannot be {done}; wait until it fires, or silence it",
                 alert=alert.alert_id, done=done)
        )  # fmt: skip


def _must_be_open(alert: Alert, done: object) -> None:
    if not alert.is_open:
        raise CommandRefused(
            note("alert {alert} is closed, so it cannot be {done}; write a note, or say with `alerts resolve` what came"
                 " of it", alert=alert.alert_id, done=done)
        )  # fmt: skip


# ── What became of messages ──────────────────────────────────────────────────────────────────────────────────


@_decide.register
def _(command: Delivered, alert: Alert | None) -> Iterator[AlertEvent]:
    alert = _known(alert, command.alert_id)
    details = {"kind": command.kind, "group": command.group}
    about = (command.message_id, command.channel)
    yield _automatic("notified", alert, command.now, *about, message_id=command.message_id, channel=command.channel,
                     details=details)  # fmt: skip


@_decide.register
def _(command: NotDelivered, alert: Alert | None) -> Iterator[AlertEvent]:
    alert = _known(alert, command.alert_id)
    known = alert.withheld
    if command.reason == "not_due" or (known and (known.reason, known.cause) == (command.reason, command.cause)):
        return
    about = (command.reason, command.cause, len(alert.told), alert.withholdings)
    details = {} if command.cause is None else {"cause": command.cause}
    yield _automatic("not_notified", alert, command.now, *about, reason=command.reason, details=details)
