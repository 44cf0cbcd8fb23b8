"""Holds alerts against labelled faults: which are found, how soon, how many alerts one fault gives, and which are about
no fault."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl

from benchmarks.alert_stream import Found
from coupon_ledger.cli.sources.arrival import Frames
from coupon_ledger.cli.sources.faults import Label

_SLACK: Final = timedelta(days=1)
"""How long after the end of a fault an alert may still be about it; and how long before its first harm an alert may
name what belongs to it, such as the claims of a ring."""


@dataclass(frozen=True, slots=True)
class Score:
    """How one fault did. `delay`: from its start to the first alert that people are told about it; None if there is
    none. `caught`: the part of the fault that was still to come then (0 to 1). `alerts`: those that are about it and
    that people are told, `held`: those that another alert explains."""

    kind: str
    world: str
    seed: int
    money_minor: int
    delay: timedelta | None
    caught: float
    alerts: tuple[str, ...]
    held: int


@dataclass(frozen=True, slots=True)
class Stream:
    """What people are told in one stream, beyond what they are told in the same stream without faults: the scores of
    its faults, how many alerts are `about` at least one of them, and the `others`."""

    scores: tuple[Score, ...]
    about: int
    others: tuple[Found, ...]


def is_about(alert: Found, label: Label) -> bool:
    """Whether the alert names one of the fault's keys or its campaign or, while it goes on, names nothing."""
    named = {value for values in label.keys.values() for value in values} | {label.campaign_id}
    if named & set(alert.labels.values()):
        return label.start - _SLACK <= alert.fired_at <= label.end + _SLACK
    return not alert.labels and label.start <= alert.fired_at <= label.end + _SLACK


def without_known(found: Iterable[Found], quiet: Sequence[Found]) -> list[Found]:
    """The alerts that are not in the same stream without faults too: of the same rule, with the same labels, at about
    the same time."""
    known: dict[tuple[str, tuple[tuple[str, str], ...]], list[datetime]] = {}
    for alert in quiet:
        known.setdefault(_key(alert), []).append(alert.fired_at)
    return [
        alert
        for alert in found
        if not any(abs(alert.fired_at - at) <= timedelta(hours=6) for at in known.get(_key(alert), ()))
    ]


def _key(alert: Found) -> tuple[str, tuple[tuple[str, str], ...]]:
    return alert.name, tuple(sorted(alert.labels.items()))


def scored(
    world: str, seed: int, frames: Frames, labels: Sequence[Label], found: Sequence[Found], quiet: Sequence[Found]
) -> Stream:
    """`frames`: the stream with the faults; `quiet`: what was found in the stream without them."""
    new = without_known(found, quiet)
    scores = tuple(_score(world, seed, frames, label, new) for label in labels)
    told = [alert for alert in new if not alert.held]
    others = tuple(alert for alert in told if not any(is_about(alert, label) for label in labels))
    return Stream(scores, len(told) - len(others), others)


def _score(world: str, seed: int, frames: Frames, label: Label, found: Sequence[Found]) -> Score:
    about = [alert for alert in found if is_about(alert, label)]
    told = [alert for alert in about if not alert.held]
    in_time = [a.fired_at for a in told if a.fired_at >= label.start and a.rule.severity != "info"]
    first = min(in_time, default=None)
    return Score(
        kind=label.kind,
        world=world,
        seed=seed,
        money_minor=label.money_minor,
        delay=None if first is None else first - label.start,
        caught=0.0 if first is None else _still_to_come(frames, label, first),
        alerts=tuple(sorted(alert.name for alert in told)),
        held=len(about) - len(told),
    )


def _still_to_come(frames: Frames, label: Label, at: datetime) -> float:
    """The part of the fault's events that happen after `at`; without events of its own, of its time."""
    mine = pl.Series(label.event_ids, dtype=pl.String).implode()
    later = [f.filter(pl.col("event_id").is_in(mine))["occurred_at"] > at for f in frames.values()]
    number = sum(len(one) for one in later)
    if number:
        return sum(int(one.sum()) for one in later) / number
    return max(0.0, min(1.0, (label.end - at) / max(label.end - label.start, timedelta(seconds=1))))


# --- figures


def by_kind(scores: Sequence[Score]) -> Iterator[dict[str, Any]]:
    """One row per kind of fault, and one for all: faults, found, delays in minutes, alerts per fault, money."""
    kinds = list(dict.fromkeys(score.kind for score in scores))
    for kind in kinds:
        yield {"kind": kind, **_figures([s for s in scores if s.kind == kind])}
    yield {"kind": "all", **_figures(scores)}


def _figures(scores: Sequence[Score]) -> dict[str, Any]:
    found = [s for s in scores if s.delay is not None]
    delays = [s.delay / timedelta(minutes=1) for s in found if s.delay is not None]
    money = sum(s.money_minor for s in scores)
    firsts = Counter(rule for s in scores for rule in set(s.alerts))
    return {
        "faults": len(scores),
        "found": len(found),
        "median_delay_minutes": round(statistics.median(delays), 1) if delays else None,
        "worst_delay_minutes": round(max(delays), 1) if delays else None,
        "alerts_per_fault": round(sum(len(s.alerts) for s in scores) / max(len(scores), 1), 1),
        "held_per_fault": round(sum(s.held for s in scores) / max(len(scores), 1), 1),
        "money_found": round(sum(s.money_minor for s in found) / max(money, 1), 3),
        "money_before_harm": round(sum(s.money_minor * s.caught for s in found) / max(money, 1), 3),
        "rules": [name for name, _ in firsts.most_common(4)],
    }


def summary(streams: Sequence[Stream], quiet: Mapping[str, tuple[Sequence[Found], int]]) -> dict[str, Any]:
    """Precision, recall and noise. `quiet`: by world, the alerts of the streams without faults, and their days."""
    scores = [score for stream in streams for score in stream.scores]
    about = sum(stream.about for stream in streams)
    others = sum(len(stream.others) for stream in streams)
    return {
        "recall": round(sum(s.delay is not None for s in scores) / max(len(scores), 1), 3),
        "precision": round(about / max(about + others, 1), 3),
        "false_alerts_per_quiet_day": {
            world: round(sum(not a.held for a in found) / days, 3) for world, (found, days) in quiet.items()
        },
    }
