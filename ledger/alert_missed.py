"""What rules missed: operators report what a rule should have told and did not, such as what a chargeback shows later.

A report is of a rule, what it is about (labels), and when it began; a later one of the same corrects it. Such reports
are what the recall of `alerts stats` counts against.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from coupon_ledger.ledger.alert_events import AlertEvent, event
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.errors import CommandRefused
from coupon_ledger.ledger.words import note

_AFTER: Final = timedelta(microseconds=1)
"""A correction is later than what it corrects, also if the clock of another machine was ahead."""
_LAST: Final = datetime.max.replace(tzinfo=UTC) - _AFTER
About = tuple[str, tuple[tuple[str, str], ...], datetime | None]
"""What a report is about: the rule, the labels in order, and when it began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportMissed:
    """The operator reports what the rule missed. `labels`: what it was about, in the names of the rule's key; may be
    empty. `since`, `until`: when it happened, by the data's clock. `withdraw`: the report of it was wrong."""

    rule: str
    labels: Mapping[str, str]
    since: datetime
    until: datetime
    operator: str
    now: datetime
    note: str | None = None
    money_minor: int | None = None
    currency: str | None = None
    withdraw: bool = False
    event_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def about(self) -> About:
        return self.rule, tuple(sorted(self.labels.items())), self.since


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """What a rule missed, as the last report of it says. `counts`: whether it still stands. `reported`: when, and the
    event's id."""

    rule: str
    labels: Mapping[str, str]
    since: datetime
    until: datetime
    operator: str | None
    money_minor: int | None
    currency: str | None
    counts: bool
    reported: tuple[datetime, str]

    def after(self, other: Missed | None) -> Missed:
        """Of both reports, the one that was made last, in whatever order they arrive."""
        return self if other is None or other.reported <= self.reported else other


def about_of(event: AlertEvent) -> About:
    return event.rule or "", tuple(sorted(event.labels.items())), event.data_at


def decide_missed(command: ReportMissed, known: Missed | None, alerts: Iterable[Alert]) -> list[AlertEvent]:
    """The event that follows. `known`: the last report of the same; `alerts`: all that there are.

    Raises `CommandRefused` if the rule did raise an alert about it, if the report ends before it begins, and if there
    is no report to withdraw; `InvalidEvent` if a value is invalid.
    """
    if command.until < command.since:
        raise CommandRefused(note("what was missed would end before it began; name a later end"))
    if command.withdraw:
        if known is None or not known.counts:
            raise CommandRefused(
                note("nothing was reported as missed by {rule} with this key from {since:instant} on; `coupon-ledger"
                     " alerts history --type missed` lists the reports", rule=command.rule, since=command.since)
            )  # fmt: skip
    elif found := next((alert for alert in alerts if _is_about(alert, command)), None):
        raise CommandRefused(
            note("{rule} did not miss it: alert {alert} is about it; `coupon-ledger alerts resolve {alert} --true` says"
                 " that it was right", rule=command.rule, alert=found.alert_id)
        )  # fmt: skip
    now = command.now if known is None else max(command.now, min(known.reported[0], _LAST) + _AFTER)
    return [
        event(
            "missed",
            event_id=command.event_id,
            occurred_at=now,
            rule=command.rule,
            labels=dict(command.labels),
            data_at=command.since,
            until=command.until,
            operator=command.operator,
            note=command.note,
            outcome="false" if command.withdraw else "true",
            money_minor=command.money_minor,
            currency=command.currency,
        )
    ]


def _is_about(alert: Alert, command: ReportMissed) -> bool:
    """Whether the rule raised the alert for these labels while it happened, and nobody says that it was wrong."""
    same = alert.rule == command.rule and command.labels.items() <= alert.labels.items()
    fired = alert.fired_at is not None and alert.outcome != "false"
    return same and fired and alert.since <= command.until and alert.at >= command.since


def evolve_missed(event: AlertEvent) -> Missed | None:
    """What the report says. Pure, and never fails: None if it does not say when."""
    if event.data_at is None or event.rule is None:
        return None
    return Missed(
        rule=event.rule,
        labels=event.labels,
        since=event.data_at,
        until=event.until or event.data_at,
        operator=event.operator,
        money_minor=event.money_minor,
        currency=event.currency,
        counts=event.outcome != "false",
        reported=(event.occurred_at, event.event_id),
    )
