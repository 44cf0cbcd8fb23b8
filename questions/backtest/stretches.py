"""From stretches of time in which a condition held to the alerts that a rule would have raised.

An alert fires once its condition has held for the rule's `hold` without a break, and is over when it has not held for
the rule's `keep`: as live (`ledger/alert_life.py`). All instants are naive UTC.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.plain import plain
from coupon_ledger.projections.alerts.rules import Rule

SHOWN: Final[dict[str, Any]] = {
    "rule": pl.String,
    "rule_version": pl.String,
    "key": pl.String,
    "opened_at": pl.Datetime("us"),
    "fired_at": pl.Datetime("us"),
    "last_true_at": pl.Datetime("us"),
    "closed_at": pl.Datetime("us"),
    "value": pl.Float64,
    "peak": pl.Float64,
    "threshold": pl.Float64,
    "times_true": pl.Int64,
    "details": pl.String,
    "problem": pl.String,
}
"""The columns of a backtest."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The condition held for `group` from `since` on, and no longer at `until` (None: it still does). `values`: from
    which instant on which value was found, the earliest first; at least one."""

    group: int
    since: datetime
    until: datetime | None
    values: tuple[tuple[datetime, float], ...]


@dataclass(slots=True)
class Raised:
    """An alert. `over_at`: since when its condition has not held; None: it still does."""

    group: int
    opened_at: datetime
    fired_at: datetime
    over_at: datetime | None
    closed_at: datetime | None
    value: float
    peak: float
    times: int
    details: Mapping[str, Any] = field(default_factory=dict)

    def row(self, rule: Rule, key: Mapping[str, str], threshold: float, clock: datetime) -> dict[str, Any]:
        """The alert as a row of a backtest. `clock`: the end of what is known."""
        return {
            "rule": rule.name,
            "rule_version": rule.version,
            "key": json.dumps(dict(key), ensure_ascii=False),
            "opened_at": self.opened_at,
            "fired_at": self.fired_at,
            "last_true_at": self.over_at or clock,
            "closed_at": self.closed_at,
            "value": self.value,
            "peak": self.peak,
            "threshold": threshold,
            "times_true": self.times,
            "details": json.dumps(plain(dict(self.details)), ensure_ascii=False),
            "problem": None,
        }


def raised(stretches: Iterable[Stretch], rule: Rule, clock: datetime) -> Iterator[Raised]:
    """The alerts that these stretches raise. `stretches`: by group, then in order of time; they do not overlap.
    `clock`: the end of what is known."""
    alert: Raised | None = None
    for stretch in stretches:
        peak = max(value for _, value in stretch.values)
        if alert is not None and _goes_on(alert, stretch, rule.keep):
            alert.over_at = stretch.until
            alert.peak = max(alert.peak, peak)
            alert.times += len(stretch.values)
            continue
        if alert is not None:
            yield _ended(alert, rule.keep, clock)
        alert = None
        if (stretch.until or clock) - stretch.since >= rule.hold:
            fired = stretch.since + rule.hold
            value = next(value for at, value in reversed(stretch.values) if at <= fired)
            times = len(stretch.values)
            alert = Raised(stretch.group, stretch.since, fired, stretch.until, None, value, peak, times)
    if alert is not None:
        yield _ended(alert, rule.keep, clock)


def _goes_on(alert: Raised, stretch: Stretch, keep: timedelta) -> bool:
    return alert.group == stretch.group and alert.over_at is not None and stretch.since - alert.over_at < keep


def _ended(alert: Raised, keep: timedelta, clock: datetime) -> Raised:
    if alert.over_at is not None and alert.over_at + keep <= clock:
        alert.closed_at = alert.over_at + keep
    return alert


def stretches_of(steps: pl.DataFrame) -> Iterator[Stretch]:
    """The stretches of a condition that changes only at the given instants. `steps`: `group`, `at`, `value` and `holds`
    (from `at` to the group's next `at`), sorted by group and time, each instant of a group once."""
    changes = steps.filter(
        pl.col("holds") | pl.col("holds").shift(1, fill_value=False).over("group")  # what follows a stretch ends it
    )
    begun: datetime | None = None
    values: list[tuple[datetime, float]] = []
    rows = list(changes.select("group", "at", "value", "holds").iter_rows())
    for (group, at, value, holds), (other, end, _, goes_on) in pairwise([*rows, (None, None, None, False)]):
        if not holds:
            continue
        if begun is None:
            begun, values = at, []
        values.append((at, float(value)))
        if other != group or not goes_on:
            yield Stretch(group, begun, end if other == group else None, tuple(values))
            begun = None
