"""Sums of a metric per slice and bucket of time, as they stand when a bucket is closed.

A bucket is closed once the topic's clock has passed its end by a tolerance, so that events that are a little late still
count. An event that comes later counts in no bucket. All sums are stored, so that a restart goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from coupon_ledger.projections.alerts.chunk import Place, Released
from coupon_ledger.projections.alerts.measures import Measure
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.store import Store

TABLES: Final = ("alert_series", "alert_open_series", "alert_buckets")
"""Where buckets are stored."""
_TOLERANCE: Final = 5 * 60 * 1_000_000
Slice = tuple[str, ...]


def tolerance_of(length: timedelta) -> int:
    """How long after its end a bucket of this length is closed, in microseconds."""
    return min(round(length.total_seconds() * 1_000_000), _TOLERANCE)


class Sums(NamedTuple):
    """`of`: the sum of the numerator; `per`: of the denominator (0 if the metric has none)."""

    of: float
    per: float

    def plus(self, other: Sums) -> Sums:
        return Sums(self.of + other.of, self.per + other.per)


NOTHING: Final = Sums(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Closed:
    """A bucket that was closed. `number`: its start divided by its length. `at`: the instant (microseconds of the
    topic's clock) at which it was closed, within `piece`."""

    number: int
    at: int
    piece: Released
    sums: dict[Slice, Sums]

    @property
    def place(self) -> Place:
        """The first event from then on."""
        return self.piece.place(int(np.searchsorted(self.piece.clock, self.at)))


class Buckets:
    """Sums up the events of one metric, in buckets of one length. Yields each bucket once, in order of time, also those
    without events, until `patience` of them have followed the last one with events."""

    def __init__(
        self,
        rule: Rule,
        measure: Measure,
        columns: tuple[str, ...],
        length: int,
        patience: int,
        *,
        late_now: bool = False,
        always: range = range(0),
    ) -> None:
        """`columns`: the columns of the journal by which the sums are sliced; events without a value in one of them do
        not count. `length`: of a bucket, in microseconds. `patience`: a number of buckets. `late_now`: count late
        events in the first open bucket instead of nowhere, for sums over all buckets. `always`: the buckets that are
        yielded without events, too, however long ago the last ones were."""
        self.length = length
        self.tolerance = tolerance_of(timedelta(microseconds=length))
        self.rule, self.version = rule.name, rule.version
        self._named = {"rule": rule.name, "version": rule.version}
        self._measure = measure
        self._columns = columns
        self._late_now = late_now
        self._always = always
        self._patience = patience
        self._latest: int | None = None
        """The last closed bucket with events."""
        self._open: dict[int, dict[Slice, Sums]] = {}
        self._next: int | None = None
        self._changed = False
        self._closed: dict[int, dict[Slice, Sums]] = {}

    @property
    def next(self) -> int | None:
        """The first bucket that is not closed; None before the first event."""
        return self._next

    def restore(self, reading: Reading, clock: int | None) -> None:
        """Go on with what is stored. `clock`: the topic's clock, in microseconds; None before the first event."""
        found = reading.frame(
            "SELECT next_bucket FROM alert_buckets WHERE rule = $rule AND rule_version = $version", self._named
        )
        if found.height:
            self._next = found.item()
            self._latest = self._last_before(reading, self._next)
            self._open = dict(self._stored(reading, "alert_open_series", -(2**62), 2**62))
        elif clock is not None:
            self._next = (clock - self.tolerance) // self.length

    def _last_before(self, reading: Reading, bucket: int) -> int | None:
        latest = reading.frame(
            "SELECT max(bucket) FROM alert_series WHERE rule = $rule AND rule_version = $version AND bucket < $bucket",
            {**self._named, "bucket": bucket},
        )
        return None if latest.item() is None else int(latest.item())

    def first(self, reading: Reading) -> int | None:
        """The first closed bucket with events; None if there is none."""
        first = reading.frame(
            "SELECT min(bucket) FROM alert_series WHERE rule = $rule AND rule_version = $version AND bucket < $next",
            {**self._named, "next": self._next},
        )
        return None if first.item() is None else int(first.item())

    def history(self, reading: Reading, since: int) -> Iterator[tuple[int, dict[Slice, Sums]]]:
        """The closed buckets from `since` on, as `see` has yielded them."""
        if self._next is None:
            return
        latest: int | None = None
        for bucket, sums in [*self.stored(reading, since, self._next), (self._next, {})]:
            if latest is not None:
                for empty in range(latest + 1, min(bucket, latest + 1 + self._patience)):
                    yield empty, {}
            if sums:
                yield bucket, sums
            latest = bucket

    def stored(self, reading: Reading, since: int, until: int) -> list[tuple[int, dict[Slice, Sums]]]:
        """The closed buckets from `since` on and before `until` that have events."""
        return self._stored(reading, "alert_series", since, until)

    def _stored(self, reading: Reading, table: str, since: int, until: int) -> list[tuple[int, dict[Slice, Sums]]]:
        rows = reading.frame(
            f"SELECT bucket, slice, of, per FROM {table} WHERE rule = $rule AND rule_version = $version"
            " AND bucket >= $since AND bucket < $until ORDER BY bucket, slice",
            {**self._named, "since": since, "until": until},
        )
        found: dict[int, dict[Slice, Sums]] = {}
        for bucket, key, of, per in rows.iter_rows():
            found.setdefault(bucket, {})[tuple(json.loads(key))] = Sums(of, per)
        return list(found.items())

    def changes(self) -> _Changes | None:
        """What has changed since the last call; None if nothing has."""
        if self._next is None or not self._changed:
            return None
        changes = _Changes(self._next, list(self._rows(self._closed)), list(self._rows(self._open)))
        self._closed, self._changed = {}, False
        return changes

    def _rows(self, buckets: Mapping[int, Mapping[Slice, Sums]]) -> Iterator[tuple[Any, ...]]:
        for bucket, by_slice in buckets.items():
            for key, sums in by_slice.items():
                yield self.rule, self.version, _text_of(key), bucket, *sums

    def see(self, piece: Released) -> Iterator[Closed]:
        """Add the events of `piece`, and yield the buckets that are closed by its end."""
        if self._next is None:
            self._next = (int(piece.clock[0]) - self.tolerance) // self.length
            self._changed = True
        self._add(piece)
        end = int(piece.clock[-1])
        while (at := (self._next + 1) * self.length + self.tolerance) <= end:
            number, self._next, self._changed = self._next, self._next + 1, True
            sums = self._open.pop(number, {})
            if sums:
                self._closed[number] = sums
                self._latest = number
            elif (self._latest is None or number - self._latest > self._patience) and number not in self._always:
                self._next = max(self._next, min(self._of_interest(number, (end - self.tolerance) // self.length)))
                continue
            yield Closed(number, at, piece, sums)

    def _of_interest(self, number: int, last: int) -> Iterator[int]:
        """Where the next bucket may be that is yielded, after `number` and not after `last`."""
        yield from self._open
        yield last
        if number < self._always.start:
            yield self._always.start

    def _add(self, piece: Released) -> None:
        same = (id(self._measure), self._columns, self.length, self._late_now)
        for bucket, key, sums in piece.once(same, lambda: list(self._summed(piece))):
            self._changed = True
            by_slice = self._open.setdefault(bucket, {})
            by_slice[key] = by_slice[key].plus(sums) if key in by_slice else sums

    def _summed(self, piece: Released) -> Iterator[tuple[int, Slice, Sums]]:
        """The sums of the events of `piece` by bucket and slice."""
        measure = self._measure
        per = pl.lit(0) if measure.per is None else measure.per
        number = piece.at // self.length
        first_open = (piece.clock - self.tolerance) // self.length
        on_time = number >= first_open
        if self._late_now:
            number, on_time = np.maximum(number, first_open), np.ones(len(piece), dtype=np.bool_)
        sums = (
            piece.events.select(
                *self._columns,
                bucket=pl.Series(number),
                on_time=pl.Series(on_time),
                of=measure.of.cast(pl.Float64),
                per=per.cast(pl.Float64),
            )
            .filter(pl.col("on_time") & ((pl.col("of") != 0) | (pl.col("per") != 0)))
            .drop_nulls(list(self._columns))
            .group_by("bucket", *self._columns, maintain_order=True)
            .agg(pl.col("of").sum(), pl.col("per").sum())
        )
        for bucket, *values, of, per_sum in sums.iter_rows():
            yield bucket, tuple(values), Sums(of, per_sum)


class _Changes(NamedTuple):
    """The first bucket that is not closed, rows of the buckets that were closed, and of those that are not."""

    next: int
    closed: list[tuple[Any, ...]]
    open: list[tuple[Any, ...]]


def save(store: Store, buckets: Iterable[Buckets]) -> None:
    """Store what has changed since the last call, inside the caller's transaction: so many statements, however many
    rules there are and however long their history is."""
    changed = [(one, changes) for one in buckets if (changes := one.changes()) is not None]
    if not changed:
        return
    ends = [(one.rule, one.version, changes.next) for one, changes in changed]
    frame = pl.DataFrame(ends, schema={n: _SCHEMA.get(n, pl.Int64) for n in _ENDS}, orient="row")
    with store.given(changed_series=frame):
        for table in ("alert_open_series", "alert_buckets"):
            store.execute(
                f"DELETE FROM {table} USING changed_series c"
                f" WHERE {table}.rule = c.rule AND {table}.rule_version = c.rule_version"
            )
    store.insert("alert_buckets", frame)
    for table, rows in (
        ("alert_series", [row for _, changes in changed for row in changes.closed]),
        ("alert_open_series", [row for _, changes in changed for row in changes.open]),
    ):
        store.insert(table, pl.DataFrame(rows, schema=_SCHEMA, orient="row"))


@lru_cache(100_000)
def _text_of(key: Slice) -> str:
    return json.dumps(key, ensure_ascii=False)


def runs(closed: Iterable[Closed], at_most: int) -> Iterator[list[Closed]]:
    """The buckets in lists, of `at_most` each, in which every bucket is the one after that before."""
    run: list[Closed] = []
    for one in closed:
        if run and (one.number != run[-1].number + 1 or len(run) == at_most):
            yield run
            run = []
        run.append(one)
    if run:
        yield run


_ENDS: Final = ("rule", "rule_version", "next_bucket")
_SCHEMA: Final[dict[str, Any]] = {
    "rule": pl.String,
    "rule_version": pl.String,
    "slice": pl.String,
    "bucket": pl.Int64,
    "of": pl.Float64,
    "per": pl.Float64,
}
