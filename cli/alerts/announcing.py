"""What `consume` says when alerts fire: a line for each, and only their number once there are many."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.alerts.options import short
from coupon_ledger.ledger.alert_state import rank
from coupon_ledger.reports.alerts import key_in_words
from coupon_ledger.reports.labels import say
from coupon_ledger.reports.text import middle_cut

if TYPE_CHECKING:
    from datetime import datetime

    from coupon_ledger.ledger.alert_state import Alert

_logger = logging.getLogger("coupon_ledger.consume")

_LINES: Final = 5
_WITHIN_S: Final = 10.0
"""At most `_LINES` alerts have a line of their own within `_WITHIN_S`; the others are counted."""
_VALUE: Final = 20
"""So many columns of each value of a key are shown."""


class Announcer:
    """Says on standard error which alerts have fired, the most severe first. `log_format`: that of `consume`; as JSON,
    each line is a log message `alert fired`, or `alerts fired` with their number.

    Call it regularly, also when nothing has fired, so that what was counted is said in time; `close` says the rest.
    """

    def __init__(self, log_format: str) -> None:
        self._for_people = log_format == "text"
        self._until = 0.0
        self._lines = self._counted = 0

    def __call__(self, fired: Sequence[Alert]) -> None:
        now = time.monotonic()
        if now >= self._until:
            self.close()
        if fired and not self._lines:
            self._until = now + _WITHIN_S
        room = max(0, _LINES - self._lines)
        chosen = _of_many_rules(fired)[:room]
        for alert in sorted(chosen, key=_at):
            self._one(alert)
        self._lines += len(chosen)
        self._counted += len(fired) - len(chosen)

    def close(self) -> None:
        """Say how many alerts fired that have no line of their own, and begin anew."""
        if self._counted and self._for_people:
            _echo(say("{n:count} more alert{n:s} fired; `coupon-ledger alerts list --state all`", n=self._counted))
        elif self._counted:
            _logger.info("alerts fired", extra={"more": self._counted})
        self._lines = self._counted = 0

    def _one(self, alert: Alert) -> None:
        if self._for_people:
            _echo(_sentence(alert))
            return
        named: dict[str, Any] = {"alert_id": alert.alert_id, "rule": alert.rule, "severity": alert.severity}
        _logger.info("alert fired", extra={**named, "key": dict(alert.labels), "fired_at": _at(alert).isoformat()})


def _of_many_rules(fired: Sequence[Alert]) -> list[Alert]:
    """The first alert of each rule, then the second ones, and so on; each time the most severe first."""
    turns: Counter[str] = Counter()
    placed = []
    for alert in sorted(fired, key=_at):
        placed.append((turns[alert.rule], -rank(alert.severity), alert))
        turns[alert.rule] += 1
    return [alert for _, _, alert in sorted(placed, key=lambda place: place[:2])]


def _echo(line: str) -> None:
    """Print on standard error. If nobody reads that any more, alerts go on all the same."""
    with suppress(OSError):
        click.echo(line, err=True)


def _sentence(alert: Alert) -> str:
    key = {name: middle_cut(value, _VALUE) for name, value in alert.labels.items()}
    return say("{at:instant} alert, {severity:word}: {rule}, {key}; `coupon-ledger alerts show {alert}`",
               at=_at(alert).replace(microsecond=0), severity=alert.severity, rule=alert.rule, key=key_in_words(key),
               alert=short(alert.alert_id))  # fmt: skip


def _at(alert: Alert) -> datetime:
    """When the alert fired, by the data's clock; of a rule that could not be judged, when that began."""
    return alert.fired_at or alert.since
