"""Released events: the events of one topic in their total order, (`recorded_at`, partition, offset), in pieces.

The *clock* of a topic is the running maximum of min(`occurred_at`, `recorded_at`) in that order. It decides which
window is open. So what a rule sees at an event does not depend on how the log was cut into batches.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import reduce
from itertools import pairwise
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from coupon_ledger.ledger.topics import KEY_FIELD
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.live.journal import JOURNAL

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
T = TypeVar("T")

EPOCH: Final = datetime(1970, 1, 1)
_MICROSECOND: Final = timedelta(microseconds=1)
_FIRST: Final = (datetime.min - EPOCH) // _MICROSECOND
_AT_ONCE: Final = 50_000
_POSITION: Final = ("recorded_at", "log_partition", "log_offset")
SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)
"""An odd number by which hashes are multiplied before they are mixed."""
ALWAYS: Final = ("key_hash", "event_id", "type", "occurred_at", *_POSITION)
CAMPAIGN_OF: Final = "campaign_id"


def micros(at: datetime) -> int:
    """Microseconds since the epoch of a naive UTC instant."""
    return (at - EPOCH) // _MICROSECOND


def instant(us: int) -> datetime:
    """The naive UTC instant of these microseconds since the epoch; of any before the year 1, its beginning, since a
    window may begin there."""
    return EPOCH + max(us, _FIRST) * _MICROSECOND


@dataclass(frozen=True, slots=True)
class Place:
    """The position of an event, and when it was recorded (naive UTC)."""

    recorded_at: datetime
    partition: int
    offset: int


@dataclass(slots=True)
class Released:
    """Events of one topic in their total order.

    `events`: one row per event. `at`: per event, min(occurred_at, recorded_at) in microseconds. `clock`: per event, the
    topic's clock when it has been seen. `before`: the clock before the first event; None at the beginning of the log.
    """

    topic: str
    events: pl.DataFrame
    at: Int64
    clock: Int64
    before: int | None
    _hashes: dict[tuple[str, ...], tuple[UInt64, Mask]] = field(default_factory=dict)
    _types: dict[frozenset[str], Mask] = field(default_factory=dict)
    _places: pl.DataFrame | None = None
    _computed: dict[Hashable, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, topic: str, events: pl.DataFrame, before: int | None) -> Released:
        at = events.select(pl.min_horizontal("occurred_at", "recorded_at").cast(pl.Int64)).to_series().to_numpy()
        start = at[:1] if before is None else np.array([before], dtype=np.int64)
        clock = np.maximum.accumulate(np.concatenate([start, at]))[1:] if len(at) else at
        return cls(topic, events, at, clock, before)

    def __len__(self) -> int:
        return len(self.at)

    def of_types(self, types: frozenset[str]) -> Mask:
        """Per event, whether it has one of these types."""
        if types not in self._types:
            self._types[types] = self.events["type"].is_in(list(types)).to_numpy()
        return self._types[types]

    def hashed(self, columns: tuple[str, ...]) -> tuple[UInt64, Mask]:
        """Per event, a hash of the values of these columns, and whether all of them have a value."""
        if columns not in self._hashes:
            if len(columns) == 1:
                column = self.events[columns[0]]
                self._hashes[columns] = column.hash(seed=0).to_numpy(), column.is_not_null().to_numpy()
            else:
                parts = [self.hashed((name,)) for name in columns]
                with np.errstate(over="ignore"):
                    mixed = reduce(lambda a, b: a * SPREAD ^ b, (hashes for hashes, _ in parts))
                self._hashes[columns] = mixed, reduce(np.logical_and, (known for _, known in parts))
        return self._hashes[columns]

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` returned when it was first asked for with this key: rules often need the same."""
        if key not in self._computed:
            self._computed[key] = compute()
        found: T = self._computed[key]
        return found

    def values(self, column: str, rows: Int64) -> list[Any]:
        return self.events[column].gather(rows).to_list()

    def recorded_when(self, clocks: Int64) -> Int64:
        """When the first events were recorded at which the clock has reached these instants (microseconds)."""
        recorded: Int64 = self.events["recorded_at"].cast(pl.Int64).to_numpy()
        return recorded[np.searchsorted(self.clock, clocks)]

    def place(self, row: int) -> Place:
        if self._places is None:
            self._places = self.events.select(_POSITION)
        return Place(*self._places.row(row))


def released(
    reading: Reading, topic: str, after: datetime, until: datetime, columns: Sequence[str], before: int | None
) -> Iterator[Released]:
    """Yield the events of `topic` that were recorded after `after` and not after `until` (naive UTC), in pieces of
    about 200,000. `columns`: further columns of the journal. `before`: the topic's clock before them."""
    for first, last in _stretches(reading, topic, after, until):
        events = _read(reading, topic, first, last, columns)
        if not events.height:
            continue
        piece = Released.of(topic, events, before)
        before = int(piece.clock[-1])
        yield piece


def _stretches(reading: Reading, topic: str, after: datetime, until: datetime) -> list[tuple[datetime, datetime]]:
    """Divide the time of recording into stretches (after, until] of about `_AT_ONCE` events."""
    bounds = {"after": after, "until": until}
    between = "recorded_at > $after AND recorded_at <= $until"
    counted = reading.frame(f"SELECT count(*) FROM {JOURNAL[topic]} WHERE {between}", bounds).item()
    if counted <= 2 * _AT_ONCE:
        return [(after, until)] if counted else []
    ends = reading.frame(
        f"""
        SELECT recorded_at, sum(count(*)) OVER (ORDER BY recorded_at) AS upto
        FROM {JOURNAL[topic]} WHERE {between} GROUP BY recorded_at
        QUALIFY upto // {_AT_ONCE} > (upto - count(*)) // {_AT_ONCE} ORDER BY recorded_at
        """,
        bounds,
    )["recorded_at"].to_list()
    edges = [after, *(end for end in ends if end < until), until]
    return list(pairwise(edges))


def _read(reading: Reading, topic: str, after: datetime, until: datetime, columns: Sequence[str]) -> pl.DataFrame:
    wanted = dict.fromkeys((*ALWAYS, KEY_FIELD[topic], *columns))
    return reading.frame(
        f"SELECT {', '.join(wanted)} FROM {JOURNAL[topic]} WHERE recorded_at > $after AND recorded_at <= $until"
        f" ORDER BY {', '.join(_POSITION)}",
        {"after": after, "until": until},
    )
