"""What the owner's work with alerts knows: the rules in force, the book of alerts, the clocks; and what it has decided
and not appended yet."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime

from coupon_ledger.consumers.alerts import asked, conditions
from coupon_ledger.consumers.alerts.rules import Rules
from coupon_ledger.ledger.alert_book import AlertBook
from coupon_ledger.ledger.alert_commands import Command
from coupon_ledger.ledger.alert_events import AlertEvent
from coupon_ledger.ledger.alert_problems import RULES_FILE
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.log import Record
from coupon_ledger.projections.alerts.rules import STREAMED, Rule
from coupon_ledger.projections.connection import Reading

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Clocks:
    """`evaluated`: up to where the streamed rules were evaluated, by their clock; `data`: the data's clock; None before
    the first event. `until`: by topic, the instant of recording up to which they were evaluated."""

    evaluated: datetime | None = None
    data: datetime | None = None
    until: dict[str, datetime] = field(default_factory=dict)

    @classmethod
    def read(cls, reading: Reading) -> Clocks:
        rows = reading.rows("SELECT topic, released_until, clock FROM alert_progress")
        return cls(
            min((clock.replace(tzinfo=UTC) for _, _, clock in rows), default=None),
            asked.data_clock(reading),
            {topic: until.replace(tzinfo=UTC) for topic, until, _ in rows},
        )


@dataclass(slots=True)
class Known:
    """`made`: the events that were decided and folded into the book, and are to be appended; `records`: what is to be
    appended with them."""

    rules: Rules = field(default_factory=lambda: Rules({}, {}))
    book: AlertBook = field(default_factory=AlertBook)
    clocks: Clocks = field(default_factory=Clocks)
    made: list[AlertEvent] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def decide(self, command: Command) -> None:
        """Note the events that follow from a command."""
        try:
            events = self.book.decide(command)
        except LedgerError as error:
            _logger.warning("alerts: %s", error)
            return
        self.note(events)

    def note(self, events: list[AlertEvent]) -> None:
        for event in events:
            self.book.fold(event)
        self.made += events

    def clock_of(self, alert: Alert) -> datetime | None:
        """The clock by which time passes for an alert; None: the wall clock."""
        if conditions.is_problem(alert):
            return None
        if self.is_streamed(alert):
            # The evaluation says when a pending alert fires; time alone does not.
            return alert.since if alert.phase == "pending" else self.clocks.evaluated or alert.at
        rule = self.rule_of(alert)
        return None if rule is None or asked.follows_the_wall_clock(rule) else self.clocks.data

    def rule_of(self, alert: Alert) -> Rule | None:
        """The rule in force of this name, otherwise the version that opened the alert."""
        known = self.rules.versions.get((alert.rule, alert.rule_version or ""))
        return self.rules.by_name.get(alert.rule, known)

    def is_streamed(self, alert: Alert) -> bool:
        rule = self.rule_of(alert)
        return rule is not None and rule.expr.kind in STREAMED and not conditions.is_problem(alert)

    def is_obsolete(self, alert: Alert) -> bool:
        """Whether no rule in force says any more whether the alert's condition holds."""
        rule = self.rules.by_name.get(alert.rule)
        if rule is None:
            return dict(alert.labels) != RULES_FILE
        return self.is_streamed(alert) and alert.rule_version != rule.version
