"""Cases: alerts about the same coupons, users or devices at the same time, which are likely one thing that happened.

Two alerts are of one case if both name a coupon, user or device, in their key or evidence, and the times of the events
behind them overlap; so are all alerts that are joined through others. An alert whose key names none, such as one about
a whole campaign, joins no two cases: it belongs to the one with which it shares most. What an alert names is stored
with it and bounded (`evidence.py`), so nothing but `coupon.alerts` is read. Alerts that share only what neither names
are not joined.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from coupon_ledger.ledger.alert_events import AlertEvent
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.questions.alerts.lives import Lives, evidence_of

MOST: Final = 2_000
"""How many alerts are looked at: the open ones first, then the latest."""
_MOST_NAMED: Final = 200
"""How many coupons, users and devices of one alert are looked at."""
NAMES: Final = {
    **{"coupon": "coupon_id", "coupon_id": "coupon_id", "coupons": "coupon_id", "coupon_ids": "coupon_id"},
    **{"user": "user_id", "user_id": "user_id", "users": "user_id", "user_ids": "user_id"},
    **{"device": "device_id", "device_id": "device_id"},
}
"""Names in keys and evidence of coupons, users and devices, and of which of them they are."""
Named = tuple[str, str]
"""`coupon_id`, `user_id` or `device_id`, and the id."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What an alert is about. `since`, `until`: the events behind it happened between them, by the data's clock.
    `began`: when its condition was first true. `is_broad`: its key names no coupon, user or device."""

    alert_id: str
    since: datetime
    until: datetime
    named: frozenset[Named]
    began: datetime
    is_broad: bool = False

    def overlaps(self, other: Trace) -> bool:
        return self.since <= other.until and other.since <= self.until


class Cases:
    """The cases of the alerts in a book. Each alert that is looked at is in exactly one, maybe alone."""

    def __init__(self, known: Lives) -> None:
        fired = [alert for alert in known.book.alerts.values() if alert.phase != "normal"]
        newest = sorted(fired, key=lambda a: (a.is_open, a.opened_at, a.alert_id), reverse=True)[:MOST]
        self.traces = {a.alert_id: trace_of(a, known.events.get(a.alert_id, ())) for a in newest}
        self._of: dict[str, tuple[str, ...]] = {}
        for case in joined(self.traces.values()):
            self._of |= dict.fromkeys(case, case)

    def case_id(self, alert_id: str) -> str | None:
        """The id of the case: that of its first alert. None for an alert that is not looked at."""
        case = self._of.get(alert_id)
        return None if case is None else case[0]

    def alerts(self, alert_id: str) -> tuple[str, ...]:
        """The ids of the alerts of the case, the first one first."""
        return self._of.get(alert_id, (alert_id,))

    def shared(self, one: str, other: str) -> dict[str, int]:
        """How many coupons, users and devices both alerts name; all 0 if they are joined through others."""
        both = self.traces[one].named & self.traces[other].named
        return {kind: sum(name == kind for name, _ in both) for kind in ("coupon_id", "user_id", "device_id")}


def trace_of(alert: Alert, events: Iterable[AlertEvent]) -> Trace:
    """What the alert is about. `events`: its events."""
    evidence = evidence_of(events)
    named: dict[Named, None] = {}
    for one in (*_of_fields(alert.labels), *_of_evidence(evidence)):
        named[one] = None
        if len(named) == _MOST_NAMED:
            break
    window = evidence.get("window_s")
    seconds = float(window) if isinstance(window, int | float) and not isinstance(window, bool) else 0.0
    try:
        since = alert.since - timedelta(seconds=max(0.0, seconds))
    except OverflowError:
        since = alert.since
    is_broad = not NAMES.keys() & alert.labels.keys()
    return Trace(alert.alert_id, since, max(alert.at, alert.since), frozenset(named), alert.since, is_broad)


def _of_evidence(evidence: Mapping[str, Any]) -> Iterator[Named]:
    details = evidence.get("details")
    for part in (evidence.get("seen"), details, evidence):
        if isinstance(part, dict):
            yield from _of_fields(part)
            yield from (("user_id", str(one[0])) for one in _lists(part.get("first_users")))
            values = (one for one in _lists(part.get("first_values")) if len(one) > 1)
            yield from ((NAMES[str(name)], str(value)) for name, value, *_ in values if str(name) in NAMES)
    for row in evidence.get("rows") or ():
        if isinstance(row, dict):
            yield from _of_fields(row)


def _lists(value: Any) -> Iterator[list[Any]]:
    return (one for one in value if isinstance(one, list) and one) if isinstance(value, list) else iter(())


def _of_fields(fields: Mapping[str, Any]) -> Iterator[Named]:
    """What these fields name: each a text, or a list of texts."""
    for name, value in fields.items():
        if name in NAMES:
            yield from ((NAMES[name], one) for one in (value if isinstance(value, list) else [value]) if _is_id(one))


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def joined(traces: Iterable[Trace]) -> Iterator[tuple[str, ...]]:
    """The alerts that belong together, the first one of each case first."""
    narrow: list[Trace] = []
    broad: list[Trace] = []
    for trace in traces:
        (broad if trace.is_broad else narrow).append(trace)
    cases = _connected(narrow)
    places = _with_most_shared(broad, cases)
    for trace, place in zip(broad, places, strict=True):
        if place is not None:
            cases[place].append(trace)
    cases += _connected(trace for trace, place in zip(broad, places, strict=True) if place is None)
    return (tuple(trace.alert_id for trace in sorted(case, key=_first)) for case in cases)


def _first(trace: Trace) -> tuple[datetime, str]:
    return trace.began, trace.alert_id


def _with_most_shared(broad: Iterable[Trace], cases: Sequence[Sequence[Trace]]) -> list[int | None]:
    """Per broad alert, the place of the case with which it shares most names; None if it shares none."""
    naming: dict[Named, list[tuple[int, Trace]]] = defaultdict(list)
    for place, case in enumerate(cases):
        for trace in case:
            for named in trace.named:
                naming[named].append((place, trace))
    places: list[int | None] = []
    for trace in broad:
        shared = Counter(
            place
            for named in trace.named
            for place in {place for place, other in naming.get(named, ()) if trace.overlaps(other)}
        )
        places.append(min(shared, key=lambda place: (-shared[place], place), default=None))
    return places


def _connected(traces: Iterable[Trace]) -> list[list[Trace]]:
    """The alerts that share a name while they overlap, also through others."""
    in_order = sorted(traces, key=lambda trace: (trace.since, trace.alert_id))
    above = list(range(len(in_order)))

    def root(number: int) -> int:
        while above[number] != number:
            above[number] = number = above[above[number]]
        return number

    latest: dict[Named, int] = {}
    """Of the alerts so far that name it, the one that ends last."""
    for number, trace in enumerate(in_order):
        for named in trace.named:
            other = latest.get(named)
            if other is not None and in_order[other].until >= trace.since:
                low, high = sorted((root(other), root(number)))
                above[high] = low
            if other is None or trace.until > in_order[other].until:
                latest[named] = number
    cases: dict[int, list[Trace]] = {}
    for number, trace in enumerate(in_order):
        cases.setdefault(root(number), []).append(trace)
    return list(cases.values())
