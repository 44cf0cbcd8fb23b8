"""Evaluates rules on the tables for the owner: the questions of `questions/alerts`, with what only the owner knows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from coupon_ledger.consumers.alerts.asked import Moment
from coupon_ledger.projections.alerts.offenders import Offender
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.connection import Cursor
from coupon_ledger.questions.alerts.offenders import Standing, Vitals, offenders_of


class OnTables:
    """A `Find`. Remembers what it has read of the violations. Use from one thread at a time."""

    def __init__(self) -> None:
        self._standing = Standing()

    def __call__(self, reading: Cursor, rule: Rule, moment: Moment) -> Sequence[Offender]:
        vitals = Vitals(
            now=moment.now.astimezone(UTC).replace(tzinfo=None),
            lag_s=moment.lag_s,
            lag_records=moment.lag_records,
            dead_channels=moment.dead_channels,
            failing_rules=moment.failing_rules,
            problems=moment.problems,
        )
        return offenders_of(reading, rule, vitals, self._standing)
