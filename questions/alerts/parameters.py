"""Parameters of the questions about alerts."""

from __future__ import annotations

from typing import Annotated, Literal

from coupon_ledger.questions.parameters import (
    DEFAULT_ZONE,
    Bounds,
    Hint,
    Instant,
    Limit,
    Offset,
    OfPast,
    Parameters,
    Partition,
    Zone,
)

STATES = (
    *("open", "closed", "all"),
    *("pending", "firing", "acknowledged", "silenced", "recovering", "resolved", "no_data", "error", "normal"),
)
"""What the state of alerts can be asked for: open or closed ones, all of them, or a status."""

_AsOf = Annotated[
    Instant | None,
    "The instant by the wall clock at which silences and expected times are judged. [default: that of the past, else"
    " of the last event]",
]


class AlertFilter(OfPast):
    """Which alerts a question is about. A field that is None does not restrict them."""

    state: Annotated[
        Literal[
            "open", "closed", "all", "pending", "firing", "acknowledged", "silenced", "recovering", "resolved",
            "no_data", "error", "normal",
        ],
        "Only alerts in this state: open, closed, all, or a status such as firing.",
    ] = "open"  # fmt: skip
    rule: Annotated[str | None, "Only alerts of this rule."] = None
    severity: Annotated[
        Literal["critical", "high", "warning", "info"] | None, "Only alerts that are at least so severe."
    ] = None
    assignee: Annotated[str | None, "Only alerts that this person looks after."] = None
    key: Annotated[
        str | None, "Only alerts about this: a value of the key, or name=value with * for any characters."
    ] = None
    since: Annotated[Instant | None, "Only alerts that began at or after this instant, by the data's clock."] = None
    until: Annotated[Instant | None, "Only alerts that began before this instant, by the data's clock."] = None
    text: Annotated[str | None, "Only alerts with this text in their rule, key, owner, or notes."] = None
    now: _AsOf = None


class Alerts(AlertFilter):
    limit: Limit = None


class AlertGroups(AlertFilter):
    by: Annotated[
        str,
        "Group by rule, severity, status, assignee, day, case (alerts about the same coupons, users or devices at the"
        " same time), or a name in the alerts' keys such as campaign.",
    ] = "rule"
    zone: Zone = DEFAULT_ZONE


class OneAlert(OfPast):
    alert: Annotated[str, "The alert's id, or as much of its beginning as no other alert's id has."]
    limit: Annotated[
        Annotated[int, Bounds(0, 100_000)], "At most this many coupons, users and orders in the lists; all are counted."
    ] = 100
    now: _AsOf = None


class AlertHistory(OfPast):
    alert: Annotated[str | None, "Only this alert: its id, or as much of its beginning as no other alert's id has."] = (
        None
    )
    type: Annotated[str | None, "Only events of this type, for example acknowledged."] = None
    operator: Annotated[str | None, "Only what this operator did."] = None
    since: Annotated[Instant | None, "Only events at or after this instant, by the wall clock."] = None
    until: Annotated[Instant | None, "Only events before this instant, by the wall clock."] = None
    limit: Annotated[Limit, "Only the last events, at most this many. [default: all]"] = None


class AlertEvents(Parameters):
    after: Annotated[
        tuple[tuple[Partition, Offset], ...],
        Hint("are no list of [partition, offset]"),
        "Only events at or after these offsets of `coupon.alerts`: lists of partition and offset.",
    ]
    limit: Annotated[Annotated[int, Bounds(1, 100_000)], "At most this many events, the first ones."] = 1_000


class Silences(OfPast):
    ended: Annotated[bool, "Include silences that have ended."] = False
    now: _AsOf = None


class AlertRules(Parameters):
    rule: Annotated[str | None, "Only this rule."] = None
    at: Annotated[
        Instant | None, "The rules that were in force for events recorded at this instant. [default: now]"
    ] = None
    versions: Annotated[bool, "Also the versions that are not in force."] = False


class AlertStats(OfPast):
    rule: Annotated[str | None, "Only this rule."] = None
    since: Annotated[
        Instant | None, "Only alerts that began at or after this instant, by the data's clock. [default: 30 days before"
        " the end]",
    ] = None  # fmt: skip
    until: Annotated[
        Instant | None, "Only alerts that began before this instant, by the data's clock. [default: the end of the"
        " data]",
    ] = None  # fmt: skip
    now: _AsOf = None
