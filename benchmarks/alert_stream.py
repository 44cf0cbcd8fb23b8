"""Plays a stream of events to the alert rules, as the owner does: events are folded in the order of arrival, and every
few hours of the stream the rules on the tables are asked.

There is no log in between: an event's `recorded_at` is when it arrives. The accounts are kept as the consumer keeps
them, so that reconciliation has something to compare. A rule on the tables that is asked every few minutes in life is
asked every six hours here, in the first half of the stream once a day, and those that take longest once a day too;
while a short fault goes on, every hour. So their delays are too long by up to that time. Violations and silences have
an instant of their own, and count from it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from coupon_ledger.cli.sources.arrival import ARRIVES_AT, Frames
from coupon_ledger.consumers.alerts.conditions import labels_of
from coupon_ledger.ledger.codec import SCHEMA_NAME
from coupon_ledger.ledger.columns import polars_schema
from coupon_ledger.ledger.log import TopicPartition
from coupon_ledger.ledger.topics import INPUT_TOPICS
from coupon_ledger.ledger.validity import split_valid
from coupon_ledger.projections import checkpoints, kept
from coupon_ledger.projections.alerts.in_force import put_in_force
from coupon_ledger.projections.alerts.offenders import Offender
from coupon_ledger.projections.alerts.rules import ASKED, Health, Rule, Violations
from coupon_ledger.projections.checkpoints import Account, Completeness
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.live import cross
from coupon_ledger.projections.live.apply import fold_in, prepare
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.alerts.offenders import Standing, Vitals, offenders_of
from coupon_ledger.questions.alerts.violations import judge

_FOREVER: Final = datetime.max.replace(tzinfo=UTC)
STEPS: Final = (timedelta(days=1), timedelta(hours=6))
"""How often rules on the tables are asked, in the first half of a stream and in the second."""
_CLOSELY: Final = timedelta(hours=1)
_DAILY: Final = frozenset({"reconciliation", "guardrail"})
_DAY: Final = timedelta(days=1)


@dataclass(slots=True)
class Found:
    """An alert: its rule, its labels, and from when to when it stood (UTC). `held`: whether people were not told, since
    an alert of a rule in `inhibited_by` stood that explains it."""

    rule: Rule
    labels: Mapping[str, str]
    fired_at: datetime
    ended_at: datetime = _FOREVER
    held: bool = False

    @property
    def name(self) -> str:
        return self.rule.name


Span = tuple[datetime, datetime]


def alerts_of(
    frames: Frames,
    rules: Sequence[Rule],
    closely: Sequence[Span] = (),
    steps: tuple[timedelta, timedelta] = STEPS,
) -> list[Found]:
    """What the rules find in a stream, in order of time. `steps`: between two times at which rules on the tables are
    asked, in the first half of the stream and in the second; within the spans `closely` (UTC), every hour."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "suite.duckdb"
        create_database(path)
        with open_database(path) as store:
            with store.transaction():
                put_in_force(store, rules)
            store.share_cores(alone=True)
            asked = _Asked(store, rules)
            for now in _consumed(store, frames, steps, closely):
                asked(now)
            by_name = {rule.name: rule for rule in rules}
            found = sorted([*_episodes(store, by_name), *asked.found], key=lambda f: (f.fired_at, f.name))
    _hold_back(found)
    return found


# --- events


def on_the_wire(topic: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The columns of the topic's schema, from the frame or null."""
    schema = polars_schema(SCHEMA_NAME[topic])
    return frame.select(
        *(pl.col(n).cast(kind) if n in frame.columns else pl.lit(None, kind).alias(n) for n, kind in schema.items())
    )


def _positioned(frames: Frames) -> dict[str, pl.DataFrame]:
    """The events as they come from a log: validated, each recorded when it arrived."""
    found = {}
    for topic in INPUT_TOPICS:
        frame = frames.get(topic)
        if frame is None or not frame.height:
            continue
        frame = frame.sort(ARRIVES_AT, "event_id")
        valid, invalid = split_valid(topic, on_the_wire(topic, frame))
        assert not invalid, invalid[:3]
        recorded = frame[ARRIVES_AT].gather(valid["row"]).dt.replace_time_zone(None).cast(pl.Datetime("us"))
        found[topic] = (
            valid.with_columns(pl.col(pl.Datetime("us", "UTC")).dt.replace_time_zone(None))
            .with_columns(
                recorded_at=recorded,
                log_partition=pl.lit(0, dtype=pl.Int32),
                log_offset=pl.col("row").cast(pl.Int64),
            )
            .drop("row")
        )
    return found


def _consumed(
    store: Store, frames: Frames, steps: tuple[timedelta, timedelta], closely: Sequence[Span]
) -> Iterator[datetime]:
    """Fold the events, one step of time after the other. Yields the instant (naive UTC) after each that has events."""
    events = _positioned(frames)
    accounts = {TopicPartition(topic, 0): Account() for topic in events}
    arrivals = pl.concat([frame["recorded_at"] for frame in events.values()]).sort()
    now, middle, last = arrivals[0], arrivals[len(arrivals) // 2], arrivals[-1]
    done = dict.fromkeys(events, 0)
    while now < last:
        now = min(_next(now, steps[0] if now < middle else steps[1], closely), last)
        upto = {topic: int(frame["recorded_at"].search_sorted(now, side="right")) for topic, frame in events.items()}
        if upto == done:
            continue
        batch = {topic: frame[done[topic] : upto[topic]] for topic, frame in events.items()}
        done = upto
        with store.transaction():
            _fold(store, batch, accounts)
            checkpoints.save(store, accounts)
            Completeness(dict.fromkeys(accounts, now)).save(store)
            kept.release(store, dict.fromkeys(INPUT_TOPICS, now))
        yield now


def _next(now: datetime, step: timedelta, closely: Sequence[Span]) -> datetime:
    """When the rules are asked after `now` (naive UTC)."""
    spans = [(start.replace(tzinfo=None), end.replace(tzinfo=None)) for start, end in closely]
    if any(start <= now < end for start, end in spans):
        return now + _CLOSELY
    return min([now + step, *(start for start, _ in spans if now < start)])


def _fold(store: Store, batch: Mapping[str, pl.DataFrame], accounts: Mapping[TopicPartition, Account]) -> None:
    changes = []
    for topic, frame in batch.items():
        if not frame.height:
            continue
        counts, changed = fold_in(store, prepare(topic, frame))
        changes.append(changed)
        account = accounts[TopicPartition(topic, 0)]
        applied, conflicts = counts.applied.get(0, 0), counts.conflicts.get(0, 0)
        account.next_offset += frame.height
        account.read += frame.height
        account.applied += applied
        account.conflicts += conflicts
        account.repeats += frame.height - applied - conflicts
    if changes:
        cross.settle(store, changes)


# --- alerts


def _episodes(store: Store, rules: Mapping[str, Rule]) -> Iterator[Found]:
    rows = store.rows("SELECT rule, key, fired_at, closed_at FROM alert_episodes WHERE fired_at IS NOT NULL")
    for rule, key, fired_at, closed_at in rows:
        ended_at = _FOREVER if closed_at is None else closed_at.replace(tzinfo=UTC)
        yield Found(rules[rule], labels_of(json.loads(key)), fired_at.replace(tzinfo=UTC), ended_at)


@dataclass
class _Asked:
    """Asks the rules on the tables, and remembers which of their alerts stand."""

    store: Store
    rules: Sequence[Rule]
    found: list[Found] = field(default_factory=list)
    _standing: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[Found, datetime]] = field(default_factory=dict)
    _read: Standing = field(default_factory=Standing)
    _before: datetime | None = None
    _day: datetime | None = None

    def __call__(self, now: datetime) -> None:
        """`now`: naive UTC."""
        daily = self._day is None or now >= self._day + _DAY
        cursor = self.store.cursor()
        cursor.begin()
        try:
            violations = self._read.read(cursor, ())
            [(clock,)] = cursor.rows("SELECT data_clock FROM ledger")
            for rule in self.rules:
                if isinstance(rule.expr, Violations):
                    self._note(rule, judge(violations, rule.expr, clock), now)
                elif rule.expr.kind in ASKED and (daily or rule.expr.kind not in _DAILY):
                    self._note(rule, offenders_of(cursor, rule, Vitals(now=now)), now)
        finally:
            cursor.end()
            cursor.close()
        self._before = now
        self._day = now if daily else self._day

    def _note(self, rule: Rule, offenders: Iterable[Offender], now: datetime) -> None:
        for offender in offenders:
            labels = labels_of(offender.key)
            key = (rule.name, tuple(sorted(labels.items())))
            alert = self._standing[key][0] if key in self._standing else self._fired(rule, labels, offender, now)
            self._standing[key] = (alert, now)
        for key, (alert, seen) in list(self._standing.items()):
            if key[0] == rule.name and now - seen > rule.keep:
                alert.ended_at = (seen + rule.keep).replace(tzinfo=UTC)
                del self._standing[key]

    def _fired(self, rule: Rule, labels: Mapping[str, str], offender: Offender, now: datetime) -> Found:
        """A violation is found as soon as the tables change, and a silence once it is too long. If that was before the
        last time the rule was asked, a fact has come late."""
        at = _at_once(rule, offender)
        soon = at is not None and (self._before is None or at >= self._before)
        alert = Found(rule, labels, (at if at is not None and soon else now).replace(tzinfo=UTC))
        self.found.append(alert)
        return alert


def _at_once(rule: Rule, offender: Offender) -> datetime | None:
    """When a rule that is asked all the time finds the offender (naive UTC); None if it does not say."""
    if isinstance(rule.expr, Violations):
        return offender.since
    if isinstance(rule.expr, Health) and rule.expr.of == "silent_source":
        return offender.since + timedelta(seconds=max(rule.expr.above, offender.details["usual_gap_s"] / 2))
    return None


def _hold_back(found: Sequence[Found]) -> None:
    """Mark the alerts of which nobody is told, since another one explains them (`ledger/alert_inhibition.py`)."""
    for alert in found:
        alert.held = any(
            other.name in alert.rule.inhibited_by
            and other.fired_at <= alert.fired_at < other.ended_at
            and all(alert.labels.get(name, value) == value for name, value in other.labels.items())
            for other in found
        )
