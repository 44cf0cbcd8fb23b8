"""Cases: alerts about the same coupons, users or devices at the same time, which are likely one thing that happened.

Two alerts are of one case if both name a coupon, user or device, in their key or evidence, and the times of the events
behind them overlap; so are all alerts that are joined through others. An alert whose key names none, such as one about
a whole campaign, joins no two cases: it belongs to the one with which it shares most. What an alert names is stored
with it and bounded (`evidence.py`), so nothing but `coupon.alerts` is read. Alerts that share only what neither names
are not joined.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np

from coupon_ledger.ledger.alert_events import AlertEvent
from coupon_ledger.ledger.alert_state import Alert
from coupon_ledger.ledger.codec import micros
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
    """Per broad alert, the place of the case with which it shares most names; None if it shares none. A name counts
    where an alert of the case has it and overlaps.

    In arrays: a flood may have a thousand alerts on each side that all share two hundred names.
    """
    stretches = list(_stretches(cases))
    since = np.array([since for _, _, since, _ in stretches], dtype=np.int64)
    until = np.array([until for _, _, _, until in stretches], dtype=np.int64)
    place_of = np.array([place for _, place, _, _ in stretches], dtype=np.int64)
    numbers: dict[Named, list[int]] = defaultdict(list)
    for number, (named, *_) in enumerate(stretches):
        numbers[named].append(number)
    naming = {named: np.array(those) for named, those in numbers.items()}
    places: list[int | None] = []
    for trace in broad:
        found = [naming[named] for named in trace.named if named in naming]
        if not found:
            places.append(None)
            continue
        chosen, name = np.concatenate(found), np.repeat(np.arange(len(found)), [len(those) for those in found])
        overlap = (since[chosen] <= micros(trace.until)) & (until[chosen] >= micros(trace.since))
        shares = np.zeros((len(found), len(cases)), dtype=np.bool_)
        shares[name[overlap], place_of[chosen[overlap]]] = True
        shared = shares.sum(axis=0)
        places.append(int(shared.argmax()) if shared.any() else None)
    return places


def _stretches(cases: Sequence[Sequence[Trace]]) -> Iterator[tuple[Named, int, int, int]]:
    """The stretches of time during which a case has a name: the name, the place of the case, first and last instant.
    Alerts that overlap are one stretch."""
    for place, case in enumerate(cases):
        latest: dict[Named, tuple[int, int]] = {}
        for trace in sorted(case, key=lambda trace: trace.since):
            since, until = micros(trace.since), micros(trace.until)
            for named in trace.named:
                first, last = latest.get(named, (since, until))
                if last < since:
                    yield named, place, first, last
                    first, last = since, until
                latest[named] = first, max(last, until)
        yield from ((named, place, first, last) for named, (first, last) in latest.items())


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
