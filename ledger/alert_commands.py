"""What can happen to an alert: commands, as `alert_life.decide` takes them.

The clock travels inside each command, and so does the random id of what an operator did.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from coupon_ledger.ledger.alert_events import fingerprint_of
from coupon_ledger.ledger.alert_state import MOST_CHANGES


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How an alert of a rule lives. `hold`, `keep`: how long the condition must hold until the alert fires, and be over
    until it is resolved. `growth`: by which share it must become worse to be recorded anew. An alert that begins or
    ceases to fire more than `flap_changes` times (at most 49) within `flap_window` flaps. `escalate_after`: how long
    after people were told somebody must have acted; None: it never escalates."""

    hold: timedelta = timedelta(0)
    keep: timedelta = timedelta(minutes=5)
    growth: float = 0.1
    flap_changes: int = 6
    flap_window: timedelta = timedelta(hours=1)
    escalate_after: timedelta | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.flap_changes < MOST_CHANGES:
            raise ValueError(f"flap_changes must be from 1 to {MOST_CHANGES - 1}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What the evaluation of a rule says about one set of labels.

    `outcome`: whether the condition holds, or could not be judged. `at`: the instant by the data's clock. `now`: by the
    wall clock. `since`: since when it has held or been over; None: since `at`. `alert_id`: the id of the episode;
    needed if it holds. `value`: for people. `magnitude`: how bad it is, the higher the worse; None: the absolute value.
    `problem`: why it could not be judged. `owner`: who looks after alerts of this rule.
    """

    rule: str
    labels: Mapping[str, str]
    outcome: Literal["holds", "clear", "no_data", "error"]
    at: datetime
    now: datetime
    since: datetime | None = None
    alert_id: str | None = None
    rule_version: str | None = None
    severity: str = "warning"
    value: float | None = None
    magnitude: float | None = None
    money_minor: int | None = None
    currency: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    owner: str | None = None
    terms: Terms = field(default_factory=Terms)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.rule, self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByOperator:
    """What the commands of operators share. `note`: their words."""

    alert_id: str
    operator: str
    now: datetime
    note: str | None = None
    event_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledge(ByOperator):
    """The operator takes the alert. `until`: when they expect to have settled it; messages about it stop until then."""

    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note(ByOperator):
    """The operator writes `note` beside the alert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign(ByOperator):
    """The operator gives the alert to `assignee`."""

    assignee: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolve(ByOperator):
    """The operator closes the alert, or says what came of one that is closed. `outcome`: whether it was right."""

    outcome: Literal["true", "false", "unknown"]
    saved_minor: int | None = None
    currency: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """An action was taken. `effect`: what it did, or would do (`dry`). `operator`: None if the rule says that it is
    taken without asking; it is then recorded once for each alert."""

    alert_id: str
    action: str
    dry: bool
    effect: Mapping[str, Any]
    now: datetime
    operator: str | None = None
    note: str | None = None
    event_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A message about the alert reached a channel. `kind`, `group`: those of the message."""

    alert_id: str
    message_id: str
    channel: str
    kind: str
    group: str
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NotDelivered:
    """A message about the alert was held back, or could not be delivered. `reason`: a code such as `quiet_hours`.
    `cause`: what held it back, such as the id of a silence, the inhibiting rule, or the dead channel."""

    alert_id: str
    reason: str
    now: datetime
    cause: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time passes. `clock`: the data's clock up to which the rule was evaluated; None: that of an asked rule, which is
    the wall clock."""

    now: datetime
    clock: datetime | None = None
    terms: Terms = field(default_factory=Terms)


Command = Condition | Acknowledge | Note | Assign | Resolve | Act | Delivered | NotDelivered | Tick
