"""Compares what rules would have found: rules with others, alert by alert, and with known faults."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.ledger.events import Instant

_AFTER: Final = timedelta(days=1)
"""How long after the end of a fault an alert may still be about it."""
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """A known fault. `start`, `end`: naive UTC. `names`: its keys and its campaign."""

    kind: str
    start: datetime
    end: datetime
    names: frozenset[str]
    money_minor: int
    currency: str | None = None

    def is_meant_by(self, alert: Row) -> bool:
        """Whether an alert is about this fault: it fired in time, and names one of its keys, or has no key."""
        key = key_of(alert)
        in_time = alert["fired_at"] >= self.start and alert["fired_at"] - self.end <= _AFTER
        return in_time and (not key or bool(self.names & {str(value) for value in key.values()}))


def read_faults(file: Path) -> list[Fault]:
    """The faults in a file of labels, as `simulate --labels` writes them. Raises `WrongQuestion`, naming the line."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except ValueError as error:
        raise WrongQuestion(f"{file}: is no UTF-8 text; `simulate --labels` writes such a file") from error
    return [_fault(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]


class _Label(BaseModel):
    """A line of the file."""

    kind: str
    since: Instant = Field(alias="from")
    until: Instant
    keys: dict[str, list[str]]
    campaign_id: str | None = None
    money_minor: int | None = None
    currency: str | None = None


def _fault(file: Path, number: int, line: str) -> Fault:
    try:
        label = _Label.model_validate_json(line)
        if label.until < label.since:
            raise ValueError("until is before from")
    except ValueError as error:
        why = str(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            why = ": ".join([".".join(map(str, first["loc"])), first["msg"]][not first["loc"] :])
        raise WrongQuestion(
            f"{file} line {number}: no label of a fault ({why}); `simulate --labels` writes such a file"
        ) from error
    names = {value for values in label.keys.values() for value in values}
    campaign = {label.campaign_id} if label.campaign_id else set()
    start, end = _naive(label.since), _naive(label.until)
    return Fault(label.kind, start, end, frozenset(names | campaign), label.money_minor or 0, label.currency)


def _naive(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(tzinfo=None)


def key_of(alert: Row) -> dict[str, str]:
    key: dict[str, str] = json.loads(alert["key"]) if isinstance(alert["key"], str) else alert["key"]
    return key


def by_rule(
    tried: Sequence[Row], current: Sequence[Row], days: float, faults: Sequence[Fault], conditions: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """One row per rule: how many alerts the tried rules and those in force raise, how many both do, and how the tried
    ones do on the faults.

    `days`: the length of the period. `conditions`: those of the tried rules (`Rule.condition`), by name; these rules
    are listed even without alerts. `faults_found`: the number of faults
    that an alert of the rule is about; `unfounded`: the number of alerts that are about no fault. Both are None without
    faults. `caught_minor`: the money of the faults found, in the minor unit of `currency`, which is None if there are
    several.
    """
    mine, theirs = _grouped(tried), _grouped(current)
    for name in sorted({*conditions, *mine, *theirs}):
        alerts, before = mine.get(name, []), theirs.get(name, [])
        both = sum(any(_same(a, b) for b in before) for a in alerts)
        hits = [fault for fault in faults if any(fault.is_meant_by(a) for a in alerts)]
        delays = [min(a["fired_at"] for a in alerts if fault.is_meant_by(a)) - fault.start for fault in hits]
        yield {
            "rule": name,
            "condition": conditions.get(name),
            "alerts": len(alerts),
            "alerts_per_day": round(len(alerts) / days, 2) if days else None,
            "alerts_in_force": len(before),
            "in_both": both,
            "faults_found": len(hits) if faults else None,
            "unfounded": sum(not any(f.is_meant_by(a) for f in faults) for a in alerts) if faults else None,
            "delay_minutes": round(median(d / timedelta(minutes=1) for d in delays), 1) if delays else None,
            "caught_minor": sum(fault.money_minor for fault in hits) if faults else None,
            "currency": _currency(faults),
        }


def by_fault(tried: Sequence[Row], faults: Iterable[Fault]) -> Iterator[dict[str, Any]]:
    """One row per fault: the rules that found it, and how long after its start."""
    for fault in faults:
        about = [a for a in tried if fault.is_meant_by(a)]
        first = min((a["fired_at"] for a in about), default=None)
        yield {
            "fault": fault.kind,
            "fault_from": fault.start,
            "is_found": bool(about),
            "delay_minutes": None if first is None else round((first - fault.start) / timedelta(minutes=1), 1),
            "found_by": sorted({a["rule"] for a in about}),
            "money_minor": fault.money_minor,
            "currency": fault.currency,
        }


def _currency(faults: Iterable[Fault]) -> str | None:
    """The currency of the faults, if all have the same."""
    currencies = {fault.currency for fault in faults}
    return currencies.pop() if len(currencies) == 1 else None


def differences(tried: Sequence[Row], current: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Every alert that only the tried rules or only those in force raise, in order of time."""
    only = [("tried", a) for a in tried if not any(_same(a, b) for b in current)]
    only += [("in_force", b) for b in current if not any(_same(a, b) for a in tried)]
    for side, alert in sorted(only, key=lambda pair: (pair[1]["fired_at"], pair[1]["rule"])):
        yield {"only_in": side, **{name: alert[name] for name in _OF_DIFFERENCE}}


_OF_DIFFERENCE: Final = (
    *("rule", "rule_version", "key", "fired_at", "closed_at", "value", "threshold"),
    *("opened_at", "last_true_at", "details"),
)


def _grouped(alerts: Iterable[Row]) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = defaultdict(list)
    for alert in alerts:
        grouped[alert["rule"]].append(alert)
    return grouped


def _same(one: Row, other: Row) -> bool:
    """Whether both are about the same key at overlapping times."""
    if one["rule"] != other["rule"] or one["key"] != other["key"]:
        return False
    ends = (alert["closed_at"] or datetime.max for alert in (one, other))
    return bool(max(one["opened_at"], other["opened_at"]) <= min(ends))
