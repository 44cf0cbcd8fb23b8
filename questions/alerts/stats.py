"""How good alert rules are: how often they fired, whether they were right, how soon, and what they saved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from statistics import quantiles
from typing import Any, Final, TypeVar

import polars as pl

from coupon_ledger.ledger.alert_missed import Missed
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.live.journal import MOMENTS
from coupon_ledger.questions.alerts.lives import Lives, lives, naive
from coupon_ledger.questions.alerts.parameters import AlertStats

PERIOD: Final = timedelta(days=30)
POOR: Final = 0.5
"""A rule of which less than this share of the judged alerts was right is poor."""
JUDGED: Final = 3
"""So many alerts must be judged before a rule is called poor."""
_Found = TypeVar("_Found", Alert, Missed)
_STATS: Final[dict[str, Any]] = {
    "rule": pl.String,
    "alerts": pl.Int64,
    "alerts_per_day": pl.Float64,
    "true_alerts": pl.Int64,
    "false_alerts": pl.Int64,
    "unknown_alerts": pl.Int64,
    "open_alerts": pl.Int64,
    "unjudged_alerts": pl.Int64,
    "missed_alerts": pl.Int64,
    "precision_rate": pl.Float64,
    "recall_rate": pl.Float64,
    "poor": pl.Boolean,
    "fired_p50_seconds": pl.Float64,
    "fired_p90_seconds": pl.Float64,
    "taken_p50_seconds": pl.Float64,
    "taken_p90_seconds": pl.Float64,
    "currency": pl.String,
    "caught_minor": pl.Int64,
    "missed_minor": pl.Int64,
    "saved_minor": pl.Int64,
    "alerts_before": pl.Int64,
    "precision_before_rate": pl.Float64,
    "since": pl.Datetime("us"),
    "until": pl.Datetime("us"),
}


def alert_stats(reading: Reading, parameters: AlertStats) -> pl.DataFrame:
    """How good each rule was: one row per rule, of the alerts that began in the period, by the data's clock, and fired.

    `true_alerts`, `false_alerts`, `unknown_alerts`: what operators said. `open_alerts`: still open.
    `unjudged_alerts`: closed, and nobody said whether they were right. `missed_alerts`: what the rule should have
    told and did not, as operators reported. `precision_rate`: true / (true + false). `recall_rate`: true / (true +
    missed); null if neither was said, or no alert is judged. `alerts_per_day`: of the days that have data. `poor`:
    at least `JUDGED` alerts are judged, and the precision is below `POOR`. `fired_…`, `taken_…`: from the moment at
    which the log recorded the event that opened the alert until it fired and until somebody acknowledged it, median
    and 90th percentile. `caught_minor`: the money at stake in alerts that were right; `missed_minor`: in what was
    missed; `saved_minor`: as operators say. They are null if there are several currencies. `…_before`: of the
    period before, which is as long.
    """
    known = lives(reading, parameters)
    first, last = _clock_span(reading, known)
    until = parameters.until or last + timedelta(microseconds=1)
    upper = parameters.until or datetime.max  # alerts that follow from no event may be later than the data
    earliest = datetime.min + 2 * PERIOD  # before it there is no period to compare with
    since = parameters.since or max(max(until, earliest) - PERIOD, datetime.min + PERIOD)
    before = since - min(max(until - since, timedelta(0)), since - datetime.min)
    recorded = dict(reading.frame(sql(__package__, "fired")).rows())
    alerts = [alert for alert in known.book.alerts.values() if alert.fired_at is not None]
    missed = [one for one in known.book.missed.values() if one.counts]
    of_rules: dict[str, tuple[list[Alert], list[Missed]]] = defaultdict(lambda: ([], []))
    for alert in _between(alerts, before, upper):
        of_rules[alert.rule][0].append(alert)
    for one in _between(missed, before, upper):
        of_rules[one.rule][1].append(one)
    rows = [
        _row(rule, *found, known, recorded, (since, until), _days(max(since, first), until))
        for rule, found in sorted(of_rules.items())
        if parameters.rule in (None, rule)
    ]
    return pl.DataFrame(rows, schema=_STATS, orient="row")


def _between(found: Iterable[_Found], since: datetime, until: datetime) -> Iterator[_Found]:
    return (one for one in found if since <= naive(one.since) < until)


def _clock_span(reading: Reading, known: Lives) -> tuple[datetime, datetime]:
    """The first and the last instant of the data's clock, not after now; without events, now."""
    [(first, last)] = reading.rows(f"SELECT min(moment), max(moment) FROM ({MOMENTS})")
    now = min(naive(known.now), datetime.max - timedelta(microseconds=1))
    return min(now, first or now), min(now, last or now)


def _row(
    rule: str,
    alerts: Iterable[Alert],
    missed: Iterable[Missed],
    known: Lives,
    recorded: dict[str, datetime],
    period: tuple[datetime, datetime],
    days: float,
) -> dict[str, Any]:
    since, until = period
    now: list[Alert] = []
    before: list[Alert] = []
    for alert in alerts:
        (now if naive(alert.since) >= since else before).append(alert)
    reported = [one for one in missed if naive(one.since) >= since]
    said = {outcome: _said(now, outcome) for outcome in ("true", "false", "unknown")}
    still_open = sum(alert.is_open and alert.outcome is None for alert in now)
    precision = _precision(now)
    fired, taken = _delays(now, known, recorded)
    priced = [alert.currency for alert in now if alert.money_minor is not None or alert.saved_minor is not None]
    currency = _only([*priced, *(one.currency for one in reported if one.money_minor is not None)])
    return {
        "rule": rule,
        "alerts": len(now),
        "alerts_per_day": len(now) / days,
        "true_alerts": said["true"],
        "false_alerts": said["false"],
        "unknown_alerts": said["unknown"],
        "open_alerts": still_open,
        "unjudged_alerts": len(now) - still_open - sum(said.values()),
        "missed_alerts": len(reported),
        "precision_rate": precision,
        "recall_rate": None if precision is None and now else _share(said["true"], len(reported)),
        "poor": precision is not None and precision < POOR and said["true"] + said["false"] >= JUDGED,
        "fired_p50_seconds": _quantile(fired, 50),
        "fired_p90_seconds": _quantile(fired, 90),
        "taken_p50_seconds": _quantile(taken, 50),
        "taken_p90_seconds": _quantile(taken, 90),
        "currency": currency,
        "caught_minor": _sum(a.money_minor for a in now if a.outcome == "true") if currency else None,
        "missed_minor": _sum(one.money_minor for one in reported) if currency else None,
        "saved_minor": _sum(a.saved_minor for a in now) if currency else None,
        "alerts_before": len(before),
        "precision_before_rate": _precision(before),
        "since": since,
        "until": until,
    }


def _days(since: datetime, until: datetime) -> float:
    return max((until - since) / timedelta(days=1), 1e-9)


def _said(alerts: Iterable[Alert], outcome: str) -> int:
    return sum(alert.outcome == outcome for alert in alerts)


def _precision(alerts: Sequence[Alert]) -> float | None:
    return _share(_said(alerts, "true"), _said(alerts, "false"))


def _share(some: int, others: int) -> float | None:
    return some / (some + others) if some + others else None


def _delays(alerts: Iterable[Alert], known: Lives, recorded: dict[str, datetime]) -> tuple[list[float], list[float]]:
    """Seconds until each alert fired, and until each was acknowledged. `recorded`: by alert id, when the log recorded
    the event that opened it; alerts of rules that are asked are counted from when they were opened."""
    fired: list[float] = []
    taken: list[float] = []
    for alert in alerts:
        at = recorded.get(alert.alert_id)
        start = alert.opened_at if at is None else at.replace(tzinfo=UTC)
        for kind, delays in (("fired", fired), ("acknowledged", taken)):
            first = next((e.occurred_at for e in known.events[alert.alert_id] if e.type == kind), None)
            if first is not None:
                delays.append(max(0.0, (first - start).total_seconds()))
    return fired, taken


def _quantile(values: list[float], percent: int) -> float | None:
    if len(values) < 2:
        return values[0] if values else None
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def _only(currencies: Iterable[str | None]) -> str | None:
    known = set(currencies)
    return known.pop() if len(known) == 1 else None


def _sum(amounts: Iterable[int | None]) -> int | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None
