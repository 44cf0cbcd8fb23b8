"""Rules of kind `health`: the condition of the ledger and of those who publish to it.

What the tables do not say comes from the owner, as `Vitals`. Instants are naive UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from coupon_ledger.ledger.plain import plain
from coupon_ledger.ledger.words import Note
from coupon_ledger.projections.alerts.offenders import Offender
from coupon_ledger.projections.alerts.rules import Health
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.live.journal import JOURNAL

LOOKED_AT: Final = 5_000_000
"""Number of events of a topic, the latest ones, from which the usual gaps of its sources are taken."""
FEWEST_GAPS: Final = 20
"""Gaps that a source must have had before its silence means anything."""
LONGER: Final = 1.5
"""How many times its longest usual gap a source must be silent: one that publishes at random breaks its own record now
and then, by a little."""
OUTAGE_AFTER: Final = timedelta(days=3)
"""If a source has published for longer, a single gap that is twice as long as all others was an outage."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the owner knows and the tables do not say.

    `now`: the wall clock; None: when the latest record was recorded. `lag_s`: for how long the oldest record of the log
    that is not consumed has waited, in seconds; 0 if all are consumed. `lag_records`: how many wait. `dead_channels`,
    `failing_rules`: per channel of delivery, and per rule, how many attempts in a row have failed. `problems`: why the
    failing rules failed.
    """

    now: datetime | None = None
    lag_s: float = 0.0
    lag_records: int = 0
    dead_channels: Mapping[str, int] = field(default_factory=dict)
    failing_rules: Mapping[str, int] = field(default_factory=dict)
    problems: Mapping[str, Note] = field(default_factory=dict)


def offenders(reading: Reading, of: Health, clock: datetime, vitals: Vitals) -> list[Offender]:
    """What the rule finds. The meaning of `above`, and the key of an offender, by `of`:

    - `lag`: seconds that the oldest waiting record has waited; no key
    - `silent_source`: seconds without an event of a source beyond its longest usual gap, if it is longer than `LONGER`
      of it; `source`, `topic`
    - `dead_letters`: number of new dead letters in the window that nobody discarded; `topic`, `reason`
    - `late_share`: part (0 to 1) of the events recorded in the window that happened longer ago than the window when
      they were recorded; `source`, `topic`. A source that began within the window brings its past along: not counted
    - `clock_skew`: seconds that `occurred_at` is ahead of `recorded_at` at most, in the window; `source`, `topic`
    - `provisional`: number of violations that have been provisional for longer than the window; `code`
    - `sweep_overdue`: number of coupons that should have expired longer ago than the window, of campaigns that each
      have more than `above`
    - `channel_dead`: messages in a row that a channel did not take; `channel`
    - `rule_failed`: evaluations in a row in which a rule failed; `rule`

    `clock`: the data's clock.
    """
    now = _now(reading, clock, vitals)
    found = _FINDERS[of.of](reading, of, _Moment(clock, now, vitals))
    return [offender for offender in found if offender.value > of.above]


_CAMPAIGNS: Final = 10
"""How many campaigns an alert about the sweep names."""


@dataclass(frozen=True, slots=True)
class _Moment:
    """`read_until`: up to when the log has been consumed."""

    clock: datetime
    now: datetime
    vitals: Vitals

    @property
    def read_until(self) -> datetime:
        return self.now - timedelta(seconds=self.vitals.lag_s)


def _now(reading: Reading, clock: datetime, vitals: Vitals) -> datetime:
    if vitals.now is not None:
        return vitals.now
    [(newest,)] = reading.rows(sql(__package__, "newest"))
    return newest or clock


def _lag(_: Reading, of: Health, moment: _Moment) -> Iterator[Offender]:
    vitals = moment.vitals
    yield Offender({}, vitals.lag_s, of.above, moment.read_until, details={"records": vitals.lag_records})


def _silent_source(reading: Reading, of: Health, moment: _Moment) -> Iterator[Offender]:
    for row in _rows(reading, "publishing", rows=LOOKED_AT):
        usual = _usual_gap(row)
        silent_s = (moment.read_until - row["last_at"]).total_seconds()
        known = row["gaps"] >= FEWEST_GAPS and of.window.total_seconds() <= row["span_s"] and silent_s <= row["span_s"]
        if not known or silent_s <= LONGER * usual:
            continue
        since = row["last_at"] + timedelta(seconds=usual)
        details = {"last_at": row["last_at"], "silent_s": silent_s, "usual_gap_s": usual}
        yield Offender(_of_source(row), silent_s - usual, of.above, since, details=plain(details))


def _usual_gap(row: Mapping[str, Any]) -> float:
    outage = row["span_s"] > OUTAGE_AFTER.total_seconds() and row["longest"] > 2 * row["next"]
    return float(row["next"] if outage else row["longest"])


def _dead_letters(reading: Reading, of: Health, moment: _Moment) -> Iterator[Offender]:
    for row in _rows(reading, "new_dead_letters", since=moment.now - of.window, until=moment.now):
        key = {"topic": row["topic"], "reason": row["reason"]}
        details = {"first": row["first_at"], "last": row["last_at"], "detail": row["detail"][:500]}
        yield Offender(key, row["letters"], of.above, row["first_at"], details=plain(details))


def _late_share(reading: Reading, of: Health, moment: _Moment) -> Iterator[Offender]:
    for row in _lateness(reading, of, moment):
        share = row["late"] / row["events"]
        if share > of.above and _published_before(reading, row, moment.read_until - of.window):
            details = {"late": row["late"], "events": row["events"]}
            yield Offender(_of_source(row), share, of.above, moment.read_until, details=details)


def _published_before(reading: Reading, row: Mapping[str, Any], at: datetime) -> bool:
    """Whether the source has published to the topic before. One that has just begun brings its past along."""
    found = reading.frame(
        f"SELECT 1 FROM {JOURNAL[row['topic']]} WHERE source = $source AND recorded_at <= $at LIMIT 1",
        {"source": row["source"], "at": at},
    )
    return bool(found.height)


def _clock_skew(reading: Reading, of: Health, moment: _Moment) -> Iterator[Offender]:
    for row in _lateness(reading, of, moment):
        yield Offender(_of_source(row), row["ahead_s"], of.above, moment.read_until, details={"events": row["events"]})


def _lateness(reading: Reading, of: Health, moment: _Moment) -> Iterator[dict[str, Any]]:
    until, window_us = moment.read_until, of.window // timedelta(microseconds=1)
    return _rows(reading, "lateness", since=until - of.window, until=until, window_us=window_us)


def _provisional(reading: Reading, of: Health, moment: _Moment) -> Iterator[Offender]:
    for row in _rows(reading, "staying_provisional", before=moment.now - of.window):
        yield Offender({"code": row["code"]}, row["violations"], of.above, row["first_at"] + of.window)


def _sweep_overdue(reading: Reading, of: Health, moment: _Moment) -> Iterator[Offender]:
    """One for all campaigns, since the sweep is one job. Single coupons are late when a hold crosses their end."""
    late = [
        row for row in _rows(reading, "sweep_overdue", before=moment.clock - of.window) if row["coupons"] > of.above
    ]
    if late:
        coupons, since = sum(row["coupons"] for row in late), min(row["first_at"] for row in late) + of.window
        most = sorted(late, key=lambda row: (-row["coupons"], row["campaign"]))[:_CAMPAIGNS]
        details = {"campaigns": len(late), "most_in": [[row["campaign"], row["coupons"]] for row in most]}
        yield Offender({}, coupons, of.above, since, details=details)


def _channel_dead(_: Reading, of: Health, moment: _Moment) -> Iterator[Offender]:
    for channel, failures in sorted(moment.vitals.dead_channels.items()):
        yield Offender({"channel": channel}, failures, of.above, moment.now)


def _rule_failed(_: Reading, of: Health, moment: _Moment) -> Iterator[Offender]:
    for rule, failures in sorted(moment.vitals.failing_rules.items()):
        problem = moment.vitals.problems.get(rule)
        why = {} if problem is None else {"error": str(problem), "said": problem.dumps()}
        yield Offender({"rule": rule}, failures, of.above, moment.now, details={"failed": rule, **why})


def _of_source(row: Mapping[str, Any]) -> dict[str, str]:
    return {"source": row["source"], "topic": row["topic"]}


def _rows(reading: Reading, name: str, **parameters: object) -> Iterator[dict[str, Any]]:
    return reading.frame(sql(__package__, name), parameters).iter_rows(named=True)


_FINDERS: Final[Mapping[str, Callable[[Reading, Health, _Moment], Iterator[Offender]]]] = {
    "lag": _lag,
    "silent_source": _silent_source,
    "dead_letters": _dead_letters,
    "late_share": _late_share,
    "clock_skew": _clock_skew,
    "provisional": _provisional,
    "sweep_overdue": _sweep_overdue,
    "channel_dead": _channel_dead,
    "rule_failed": _rule_failed,
}
