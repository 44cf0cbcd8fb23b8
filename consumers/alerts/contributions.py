"""Which parts drove an alert of a metric away from what was expected: by channel, and by campaign or store, unless the
rule's slices fix these. Computed from the journal when the alert is told, for the window that was last judged.

A part is expected to have the share that it had in the same window a week before or, if nothing happened then, a day
before. A rule that compares with an earlier window has the parts of that one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import fsum, isnan
from typing import Any, Final

from coupon_ledger.analysis.contributions import Contribution, Sums, of_ratios, of_sums
from coupon_ledger.ledger.plain import instant
from coupon_ledger.ledger.topics import COUPON, ORDER
from coupon_ledger.projections.alerts.buckets import tolerance_of
from coupon_ledger.projections.alerts.chunk import CAMPAIGN_OF
from coupon_ledger.projections.alerts.measures import MEASURES, SLICES, summed
from coupon_ledger.projections.alerts.rules import Metric, Rule, Threshold
from coupon_ledger.projections.alerts.threshold_rules import BEFORE
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.live.journal import happened

_MOST: Final = 10
_PARTS: Final = {COUPON: ("channel", "campaign"), ORDER: ("channel", "store")}
_AGO: Final = (timedelta(weeks=1), timedelta(days=1))
_WITH_CAMPAIGNS: Final = (
    "SELECT e.* REPLACE (coalesce(e.campaign_id, c.campaign_id) AS campaign_id) FROM ({events}) e"
    " LEFT JOIN coupons c ON c.key_hash = e.key_hash AND c.coupon_id = e.coupon_id"
)
"""An event that names no campaign counts for that of its coupon. To find what the rule knew would take much longer."""
_Parts = dict[str | None, Sums]


@dataclass(frozen=True, slots=True)
class _Judged:
    """The window that was judged (naive UTC), what the metric was in it and was expected to be, and the periods before;
    of these, the first one with events says what is expected of parts."""

    start: datetime
    end: datetime
    measured: float
    expected: float
    ago: tuple[timedelta, ...]


def contributions(reading: Reading, rule: Rule, row: Mapping[str, Any]) -> dict[str, Any]:
    """Evidence for an episode of a `metric` or `threshold` rule: its distance from what was expected (`gap`), and for
    each kind of parts a list of rows whose contributions add up to it. The journal may have events that came too late
    for the rule; then `late_gap` is to be added. Empty if the parts cannot be told apart. `row`: of `alert_episodes`,
    as it is after the last evaluation."""
    of = rule.expr
    assert isinstance(of, Metric | Threshold)
    judged = _judged(rule, of, row)
    names = [name for name in _PARTS[MEASURES[of.metric].topic] if name not in of.by]
    if judged is None or isnan(judged.expected) or not names:
        return {}
    try:
        contributed, since = _contributed(reading, of, json.loads(row["key"]), names, judged)
    except OverflowError:  # a week before would be before the calendar
        return {}
    found: dict[str, Any] = {}
    for name, parts in contributed.items():
        if parts is not None and len(parts) > 1:
            found[f"by_{name}"] = [dict(_row(name, part, one)) for part, one in _largest(parts)]
            found |= _distance(judged, fsum(one.contribution for one in parts.values()))
            found["compared_since"] = instant(since)
    return found


def _distance(judged: _Judged, told: float) -> dict[str, float]:
    """The gap, and what of it no part explains. `told`: the sum of the contributions."""
    decimals = 6 if abs(told) < 1 else 2
    gap, told = round(judged.measured - judged.expected, decimals), round(told, decimals)
    late = round(gap - told, decimals)
    return {"gap": gap, "late_gap": late} if abs(late) > 1.5 * 10**-decimals else {"gap": told}


def _judged(rule: Rule, of: Metric | Threshold, row: Mapping[str, Any]) -> _Judged | None:
    details = json.loads(row["details"] or "{}")
    if "measured" not in details:  # of an earlier version
        return None
    measured = details["measured"]
    if isinstance(of, Metric):
        start = _instant(details["bucket"])
        expected = (details["expected_low"] + details["expected_high"]) / 2
        return _Judged(start, start + of.bucket, measured, expected, _AGO)
    end = _instant(details["until"]) - timedelta(microseconds=tolerance_of(rule.every))
    start = end - max(1, of.window // rule.every) * rule.every
    if of.against is None:
        return _Judged(start, end, measured, row["threshold"], _AGO)
    ago = BEFORE.get(of.against, _AGO)
    return _Judged(start, end, measured, details["before"], ago)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text.removesuffix("Z"))


def _contributed(
    reading: Reading, of: Metric | Threshold, key: Mapping[str, str], names: Sequence[str], judged: _Judged
) -> tuple[dict[str, dict[str | None, Contribution] | None], datetime]:
    """The contribution of each part, by kind of parts, and since when what they are compared with was."""
    divide = of_sums if MEASURES[of.metric].per is None else of_ratios
    now, before, since = _sums(reading, of.metric, key, names, judged.start, judged.end), {}, judged.start
    for ago in judged.ago:
        since = judged.start - ago
        before = _sums(reading, of.metric, key, names, since, judged.end - ago)
        if any(before.values()):
            break
    return {name: divide(now[name], before[name], judged.expected) for name in names}, since


def _sums(
    reading: Reading, metric: str, key: Mapping[str, str], names: Sequence[str], start: datetime, end: datetime
) -> dict[str, _Parts]:
    """What the parts of each kind add to the metric in a window."""
    topic = MEASURES[metric].topic
    # Claims name their campaign. Coupons are looked at only if events do not.
    joined = topic == COUPON and "campaign" in (*key, *names) and _without_campaign(reading, metric, start, end)
    return _summed(reading, metric, key, names, start, end, with_campaigns=joined)


def _without_campaign(reading: Reading, metric: str, start: datetime, end: datetime) -> bool:
    """Whether events that count for the metric name no campaign."""
    of, per = summed(metric)
    query = f"SELECT {of} != 0 OR {per} != 0 FROM ({happened(COUPON)}) WHERE {CAMPAIGN_OF} IS NULL"
    return bool(reading.frame(query, {"start": start, "end": end}).item())


def _summed(
    reading: Reading,
    metric: str,
    key: Mapping[str, str],
    names: Sequence[str],
    start: datetime,
    end: datetime,
    *,
    with_campaigns: bool,
) -> dict[str, _Parts]:
    topic = MEASURES[metric].topic
    columns = {field: SLICES[topic][field] for field in (*key, *names)}
    journal = happened(topic)
    if with_campaigns:
        journal = _WITH_CAMPAIGNS.format(events=journal)
    tests = "".join(f" AND {columns[field]} = $key_{n}" for n, field in enumerate(key))
    of, per = summed(metric)
    grouped = [columns[name] for name in names]
    query = sql(__package__, "contributions").format(
        events=journal,
        kind=f"CASE {' '.join(f'WHEN grouping({column}) = 0 THEN {n}' for n, column in enumerate(grouped))} END",
        part=f"coalesce({', '.join(grouped)})",
        sets=", ".join(f"({column})" for column in grouped),
        of=of,
        per=per,
        tests=tests,
    )
    values = {f"key_{n}": value for n, value in enumerate(key.values())}
    found: dict[str, _Parts] = {name: {} for name in names}
    for kind, part, of_sum, per_sum in reading.frame(query, {"start": start, "end": end, **values}).iter_rows():
        found[names[kind]][part] = Sums(of_sum, per_sum)
    return found


def _largest(parts: Mapping[str | None, Contribution]) -> Iterator[tuple[str | None, Contribution]]:
    """The parts that contributed most, and the others as one."""
    ordered = sorted(parts.items(), key=lambda item: (-abs(item[1].contribution), item[0] or ""))
    yield from ordered[:_MOST]
    rest = [one for _, one in ordered[_MOST:]]
    if rest:
        yield "…", Contribution(None, None, round(fsum(one.contribution for one in rest), 6))


def _row(name: str, part: str | None, one: Contribution) -> Iterator[tuple[str, Any]]:
    yield name, part
    yield "value", one.value
    yield "expected", one.expected
    yield "contribution", one.contribution
