"""Gauges that are computed when they are scraped: open alerts, messages about them, and what is wrong in the tables.

What is in the tables is asked on a cursor like any question, at most every `_EVERY_S`. If no cursor is free in time,
the former numbers are shown again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from coupon_ledger.consumers.alerts.work import Figures
from coupon_ledger.ledger.errors import QueryStopped
from coupon_ledger.projections.readers import Readers, Running
from coupon_ledger.questions.states import states
from coupon_ledger.questions.states.parameters import ViolationFilter

_EVERY_S: Final = 15.0
_LIMIT_S: Final = 10.0
Rows = list[tuple[tuple[str, ...], float]]
"""Values of a gauge, each after those of its labels."""

FAULTS: Final = {
    "coupon_ledger_violations": ("Violations that count, by rule.", ("violation",)),
    "coupon_ledger_provisional_violations": (
        "Violations that the other topic may still take back, by rule.",
        ("violation",),
    ),
    "coupon_ledger_dead_letters": ("Records that cannot be folded, and that no operator discarded.", ()),
    "coupon_ledger_conflicts": ("Deliveries with another content under a known id, by topic.", ("topic",)),
}
ALERTS: Final = {
    "coupon_ledger_alerts_open": ("Open alerts, by rule and severity.", ("rule", "severity")),
    "coupon_ledger_alert_lag_seconds": (
        "How far the evaluation of alert rules is behind the newest committed record.",
        ("topic",),
    ),
    "coupon_ledger_messages_waiting": ("Messages about alerts that wait to be sent, by channel.", ("channel",)),
    "coupon_ledger_messages_given_up": (
        "Messages about alerts that could not be delivered, of the last 30 days, by channel.",
        ("channel",),
    ),
    "coupon_ledger_channel_failures": ("Failures of a channel in a row; 0 if it works.", ("channel",)),
}


class Present(Collector):
    """The collector of these gauges. `figures`: how alerts are; None if nobody works with them. `newest`: the newest
    committed record's time, in seconds since 1970."""

    def __init__(self, figures: Callable[[], Figures | None], newest: Callable[[], float | None]) -> None:
        self._figures, self._newest = figures, newest
        self._faults: dict[str, Rows] = {}
        self._looked_at = float("-inf")
        self._looking = threading.Lock()

    def look(self, readers: Readers) -> None:
        """Ask the tables, if the numbers are old. Callable from any thread."""
        with self._looking:
            if time.monotonic() - self._looked_at < _EVERY_S:
                return
            self._looked_at = time.monotonic()
            with suppress(QueryStopped), readers.snapshot(Running(), _LIMIT_S) as cursor:
                counts = states.violation_counts(cursor, ViolationFilter())
                by_code = list(counts.select("violation", "violations", "provisional").iter_rows())
                letters = cursor.rows(
                    "SELECT count(*) FROM dead_letters ANTI JOIN discarded USING (topic, log_partition, log_offset)"
                )
                conflicts = cursor.rows("SELECT topic, sum(conflicts) FROM checkpoints GROUP BY topic ORDER BY topic")
                self._faults = {
                    "coupon_ledger_violations": [((code,), number) for code, number, _ in by_code],
                    "coupon_ledger_provisional_violations": [((code,), number) for code, _, number in by_code],
                    "coupon_ledger_dead_letters": [((), float(letters[0][0]))],
                    "coupon_ledger_conflicts": [((topic,), float(number)) for topic, number in conflicts],
                }

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: a registry must not collect to learn the names."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from _families(FAULTS, self._faults)
        figures = self._figures()
        if figures is not None:
            yield from _families(ALERTS, self._of(figures))

    def _of(self, figures: Figures) -> dict[str, Rows]:
        channels = figures.channels
        return {
            "coupon_ledger_alerts_open": [(key, float(number)) for key, number in sorted(figures.open.items())],
            "coupon_ledger_alert_lag_seconds": [
                ((topic,), self._behind(until)) for topic, until in sorted(figures.evaluated_until.items())
            ],
            "coupon_ledger_messages_waiting": [((name,), float(c.waiting)) for name, c in channels.items()],
            "coupon_ledger_messages_given_up": [((name,), float(c.given_up)) for name, c in channels.items()],
            "coupon_ledger_channel_failures": [((name,), float(c.failures)) for name, c in channels.items()],
        }

    def _behind(self, until: datetime) -> float:
        newest = self._newest()
        return 0.0 if newest is None else max(0.0, newest - until.timestamp())


def _families(described: dict[str, tuple[str, tuple[str, ...]]], rows: dict[str, Rows]) -> Iterator[GaugeMetricFamily]:
    for name, (what, labels) in described.items():
        family = GaugeMetricFamily(name, what, labels=labels)
        for values, number in rows.get(name, ()):
            family.add_metric(values, number)
        yield family
