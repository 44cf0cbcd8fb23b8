"""The owner's metrics, in the format of Prometheus. docs/operations.md lists their names and meanings; a test checks
that the list matches this file.

Counters count from the start of the process. Gauges show the present state of the database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from coupon_ledger.api.present import Present
from coupon_ledger.consumers.alerts.work import Figures
from coupon_ledger.consumers.runner import Committed
from coupon_ledger.projections.generations import file_of, wal_file
from coupon_ledger.questions.registry import AsOf

_PARTITION: Final = ("topic", "partition")
_RECORDS: Final = (1, 10, 100, 1_000, 10_000, 50_000, 100_000, 250_000, 500_000)
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the series, and no reader needs them


class Metrics:
    """The metrics of one owner. `committed` is called by the consumer's thread, all other methods by the endpoint's
    threads."""

    CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, database: Path, at_start: AsOf, figures: Callable[[], Figures | None] = lambda: None) -> None:
        """`figures`: how alerts are; None if nobody works with them."""
        registry = CollectorRegistry()
        self._registry = registry
        self._caught_up = True
        self._newest_recorded: float | None = None
        self._records = Counter(
            "coupon_ledger_records",
            "Records of the log that were committed, by what became of them: applied, repeat, conflict, dead_letter.",
            (*_PARTITION, "outcome"),
            registry=registry,
        )
        self._late = Counter(
            "coupon_ledger_late_events",
            "Events of keys that had to be folded again from their journal: late, repeated or in conflict.",
            ("topic",),
            registry=registry,
        )
        self._other_keys = Counter(
            "coupon_ledger_other_keys",
            "Events whose record has another key than the event's id, so they may lie in another partition.",
            ("topic",),
            registry=registry,
        )
        self._skewed = Counter(
            "coupon_ledger_skewed_events",
            "Events that happened further than instant-skew-days from when they were recorded.",
            ("topic",),
            registry=registry,
        )
        self._lag = Gauge(
            "coupon_ledger_lag_records",
            "Records between the committed position and the end of the log, as of the last commit.",
            _PARTITION,
            registry=registry,
        )
        Gauge(
            "coupon_ledger_lag_seconds",
            "Age of the newest committed record while others wait behind it; 0 when the end of the log is reached.",
            registry=registry,
        ).set_function(self._lag_seconds)
        self._position = Gauge(
            "coupon_ledger_next_offset", "The offset that is read next.", _PARTITION, registry=registry
        )
        self._batch = Histogram(
            "coupon_ledger_batch_records", "Records in one commit.", buckets=_RECORDS, registry=registry
        )
        self._seconds = Histogram(
            "coupon_ledger_commit_seconds",
            "From a batch's fold to its durable commit.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._last_commit = Gauge(
            "coupon_ledger_last_commit_timestamp_seconds", "When the last commit was.", registry=registry
        )
        self._clock = Gauge(
            "coupon_ledger_data_clock_timestamp_seconds",
            "The data's clock: the highest min(occurred_at, recorded_at) applied.",
            registry=registry,
        )
        for name, (what, file) in _FILES.items():
            Gauge(f"coupon_ledger_{name}_bytes", f"Size of {what}.", registry=registry).set_function(
                partial(_size, database, file)
            )
        self._questions = Histogram(
            "coupon_ledger_question_seconds",
            "From a question's turn to its whole answer, by question and outcome.",
            ("question", "outcome"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._running = Gauge(
            "coupon_ledger_questions_running", "Questions that run or are written.", registry=registry
        )
        self.present = Present(figures, lambda: self._newest_recorded)
        registry.register(self.present)
        ProcessCollector(registry=registry)
        self._at(at_start.committed_at, at_start.data_clock)
        for row in at_start.positions:
            self._position.labels(row["topic"], row["partition"]).set(row["next_offset"])

    def committed(self, commit: Committed) -> None:
        for at, change in commit.changes.items():
            outcomes = {
                "applied": change.applied,
                "repeat": change.repeats,
                "conflict": change.conflicts,
                "dead_letter": change.dead_letters,
            }
            for outcome, number in outcomes.items():
                # A late delivery at an earlier position can turn an applied event into a repeat: the change is
                # negative.
                self._records.labels(at.topic, at.partition, outcome).inc(max(0, number))
            self._position.labels(at.topic, at.partition).set(change.next_offset)
        for topic, number in commit.late.items():
            self._late.labels(topic).inc(number)
        for topic, odd in commit.oddities.items():
            self._other_keys.labels(topic).inc(odd.other_keys)
            self._skewed.labels(topic).inc(odd.skewed)
        for at, lag in commit.lags.items():
            self._lag.labels(at.topic, at.partition).set(lag)
        self._batch.observe(commit.records)
        self._seconds.observe(commit.seconds)
        self._caught_up = commit.lag == 0
        self._newest_recorded = commit.newest_recorded_at or self._newest_recorded
        self._at(datetime.now(UTC), commit.data_clock)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    @contextmanager
    def question(self, name: str) -> Iterator[None]:
        started, outcome = time.perf_counter(), "error"
        self._running.inc()
        try:
            yield
            outcome = "ok"
        finally:
            self._running.dec()
            self._questions.labels(name, outcome).observe(time.perf_counter() - started)

    def _at(self, committed_at: datetime | None, clock: datetime | None) -> None:
        if committed_at is not None:
            self._last_commit.set(committed_at.replace(tzinfo=UTC).timestamp())
        if clock is not None:
            self._clock.set(clock.replace(tzinfo=UTC).timestamp())

    def _lag_seconds(self) -> float:
        if self._caught_up or self._newest_recorded is None:
            return 0.0
        return max(0.0, time.time() - self._newest_recorded)


_FILES: Final[dict[str, tuple[str, Callable[[Path], Path]]]] = {
    "database": ("the database's file", file_of),
    "wal": ("the write-ahead log beside it", lambda database: wal_file(file_of(database))),
}


def _size(database: Path, file: Callable[[Path], Path]) -> float:
    with suppress(OSError):
        return float(file(database).stat().st_size)
    return 0.0
