"""Appends simulated events when their time comes, as if they happened now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Final, NamedTuple

import polars as pl

from coupon_ledger.ledger.log import Record

_AT_ONCE: Final = 20_000
_EVERY_S: Final = 0.2


class Due(NamedTuple):
    """A record, and when it is appended, in microseconds since the epoch."""

    at: int
    record: Record


def due(frames: Iterable[tuple[str, pl.DataFrame]], records: Callable[[str, pl.DataFrame], list[Record]]) -> list[Due]:
    """The records of the frames with their time, which is that of the event, or of an earlier one of its topic if that
    happened later. Sorted by time."""
    latest: dict[str, int] = {}
    found = []
    for topic, frame in frames:
        for at, record in zip(frame["occurred_at"].to_physical().to_list(), records(topic, frame), strict=True):
            latest[topic] = max(latest.get(topic, at), at)
            found.append(Due(latest[topic], record))
    return sorted(found, key=lambda one: one.at)


def in_time(
    found: list[Due], clock: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep
) -> Iterator[list[Record]]:
    """Yield the records when they are due: those of the past at once, some thousands at a time. `clock`: the time in
    seconds since the epoch."""
    now = int(clock() * 1e6)
    past = [one.record for one in found if one.at <= now]
    for first in range(0, len(past), _AT_ONCE):
        yield past[first : first + _AT_ONCE]
    for at_s, group in groupby(found[len(past) :], key=lambda one: one.at // int(_EVERY_S * 1e6)):
        sleep(max(0.0, (at_s + 1) * _EVERY_S - clock()))
        yield [one.record for one in group]
