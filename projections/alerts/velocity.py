"""Velocity rules: many events with one key in a sliding window.

For each piece of released events, per stream (event types and key): the events are sorted by the hash of their key, and
counted. With the counters of earlier events, this gives an upper bound of each key's count in a window. Keys whose
bound reaches a rule's threshold are counted exactly, event by event; their earlier events are read from the journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl

from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.alerts.campaigns import with_campaigns
from coupon_ledger.projections.alerts.chunk import CAMPAIGN_OF, SPREAD, Int64, Mask, Place, Released, UInt64
from coupon_ledger.projections.alerts.counters import Counters
from coupon_ledger.projections.alerts.episodes import Episodes, Key, micros_of
from coupon_ledger.projections.alerts.evaluator import Remade
from coupon_ledger.projections.alerts.preceded import Preceded
from coupon_ledger.projections.alerts.rules import After, Rule, Velocity
from coupon_ledger.projections.alerts.windows import Events, Run, Values, Window
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.live.journal import JOURNAL

_KEPT: Final = 20_000
"""Number of keys of a rule whose exact windows are kept in memory."""
_AT_ONCE: Final = 20_000


class VelocityRules(Remade):
    """All velocity rules in force, in groups that share a stream."""

    def __init__(self, rules: Iterable[tuple[Rule, Episodes]]) -> None:
        self._streams: dict[tuple[frozenset[str], tuple[str, ...], After | None], _Stream] = {}
        for rule, episodes in rules:
            of = rule.expr
            assert isinstance(of, Velocity)
            stream = (frozenset(of.events), of.by, of.after)
            if stream not in self._streams:
                self._streams[stream] = _Stream(*stream)
            self._streams[stream].add(_VelocityRule(rule, of, episodes))

    @property
    def columns(self) -> set[str]:
        """The columns of the journal that the rules need."""
        return {column for stream in self._streams.values() for column in stream.columns}

    @property
    def longest(self) -> int:
        """The longest window, in microseconds."""
        return max((stream.longest for stream in self._streams.values()), default=0)

    def warm_up(self, earlier: Released) -> None:
        """Count events from before the first piece."""
        for stream in self._streams.values():
            stream.warm_up(earlier)

    def see(self, reading: Reading, piece: Released) -> None:
        """Evaluate the rules at each event of `piece`, which follows the pieces before."""
        for stream in self._streams.values():
            stream.see(reading, piece)


class _Stream:
    def __init__(self, types: frozenset[str], by: tuple[str, ...], after: After | None) -> None:
        self._types = types
        self._by = by
        self._after = after
        self._preceded = None if after is None else Preceded(after)
        self._classes: dict[tuple[int, str | None], _Class] = {}

    def add(self, rule: _VelocityRule) -> None:
        of = self._classes.setdefault((rule.window, rule.field), _Class(rule.field))
        of.rules.append(rule)
        of.counters = Counters(rule.window, (rule.at_least for rule in of.rules))

    @property
    def columns(self) -> set[str]:
        return {*self._by, *(c for of in self._classes.values() for rule in of.rules for c in rule.columns)}

    @property
    def longest(self) -> int:
        return self._longest_window + (self._preceded.within if self._preceded else 0)

    @property
    def _longest_window(self) -> int:
        return max(window for window, _ in self._classes)

    def warm_up(self, earlier: Released) -> None:
        keys = _Keys.of_rows(earlier, self._by, self._rows(earlier))
        for of in self._classes.values():
            of.count(earlier, keys.counted(earlier, self._by, of.counts, of.counters.window))

    def _rows(self, piece: Released) -> Int64:
        """The rows of the events that belong to this stream."""
        mask = piece.of_types(self._types) & piece.hashed(self._by)[1]
        if self._preceded is not None:
            mask = mask & self._preceded.see(piece, self._longest_window)
        return np.flatnonzero(mask)

    def see(self, reading: Reading, piece: Released) -> None:
        keys = _Keys.of_rows(piece, self._by, self._rows(piece))
        counted = [keys.counted(piece, self._by, of.counts, of.counters.window) for of in self._classes.values()]
        exact: list[_Exact] = []
        for of, of_class in zip(self._classes.values(), counted, strict=True):
            if len(keys.rows):
                exact += of.to_count(piece, keys, of_class.number)
            of.count(piece, of_class)
        self._load(reading, piece, exact)
        for one in exact:
            one.rule.see(piece, one)
            one.rule.limit_memory()

    def _load(self, reading: Reading, piece: Released, exact: Sequence[_Exact]) -> None:
        """Add the events from before the piece, which the journal has, to the windows of keys that are new there. All
        rules are asked for at once, since a query reads the events of the longest window, however few keys there
        are."""
        wanting = [one for one in exact if one.wanted]
        if piece.before is None or not wanting:
            return
        longest = max(one.rule.window for one in wanting)
        fields = sorted({name for one in wanting for name in one.rule.columns} - set(self._by))
        keys = sorted({key for one in wanting for key in one.wanted})
        for first in range(0, len(keys), _AT_ONCE):
            some = pl.DataFrame(keys[first : first + _AT_ONCE], schema=dict.fromkeys(self._by, pl.String), orient="row")
            found = earlier(reading, self._types, self._after, some, fields, piece.before - longest, piece.place(0))
            for one in wanting:
                one.rule.take(found, one.wanted, piece.before)


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of a piece. `rows`: the rows of all events, by key, and per key in order; `key_of`: per row, the place
    of its key. Per key, its hash and the number of its rows."""

    rows: Int64
    key_of: Int64
    hashes: UInt64
    number: Int64

    @classmethod
    def of_rows(cls, piece: Released, by: tuple[str, ...], rows: Int64) -> _Keys:
        hashes = piece.hashed(by)[0][rows]
        order = np.argsort(hashes, kind="stable")
        rows, hashes = rows[order], hashes[order]
        first = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]][: len(rows)])
        number = np.diff(np.r_[first, len(rows)])
        return cls(rows, np.repeat(np.arange(len(first)), number), hashes[first], number)

    def counted(self, piece: Released, by: tuple[str, ...], field_counted: str | None, window: int) -> _Counted:
        """What a rule counts: all events; or, if it counts the values of a field, one event per key, value and
        generation of the counters."""
        if field_counted is None:
            return _Counted(self.rows, self.hashes[self.key_of], None, self.number)
        of_pairs, with_value = piece.hashed((*by, field_counted))
        pairs, known = of_pairs[self.rows], with_value[self.rows]
        generation = (piece.at[self.rows] // window).astype(np.uint64)
        with np.errstate(over="ignore"):
            once = np.unique((pairs ^ generation * SPREAD)[known], return_index=True)[1]
        chosen = np.flatnonzero(known)[once]
        key = self.key_of[chosen]
        number = np.bincount(key, minlength=len(self.hashes))
        return _Counted(self.rows[chosen], self.hashes[key], pairs[chosen], number)

    def of(self, mask: Mask) -> Int64:
        """The rows of the events whose key `mask` selects, in the order of the piece."""
        return np.sort(self.rows[mask[self.key_of]])


@dataclass(frozen=True, slots=True)
class _Counted:
    """The rows that count, with the hash of the key of each and, if values are counted, of key and value (`pairs`).
    `number`: how many there are per key."""

    rows: Int64
    hashes: UInt64
    pairs: UInt64 | None
    number: Int64


@dataclass(slots=True)
class _Class:
    """The rules of a stream that have the same window and count the same: events or the values of a field."""

    counts: str | None
    rules: list[_VelocityRule] = field(default_factory=list)
    counters: Counters = field(init=False)

    def count(self, piece: Released, counted: _Counted) -> None:
        """Count the events of a piece that was seen."""
        self.counters.add(counted.hashes, piece.at[counted.rows], int(piece.clock[-1]), counted.pairs)

    def to_count(self, piece: Released, keys: _Keys, number: Int64) -> Iterator[_Exact]:
        """What the rules must count exactly in a piece. `number`: how many of its events count, per key."""
        carried = self.counters.bounds(keys.hashes)
        bound = carried + number
        least = min(rule.at_least for rule in self.rules)
        many = bound >= least
        if many.any() and int(piece.clock[-1]) - int(piece.clock[0]) > self.counters.window:
            bound = np.where(many, carried + np.minimum(self._most(piece, keys, many), number), bound)
        before = set(keys.hashes[many & (carried > 0)].tolist())
        for rule in self.rules:
            mask = bound >= rule.at_least
            rule.forget(keys.hashes, mask)
            if mask.any() and (exact := rule.to_count(piece, keys.of(mask), before)) is not None:
                yield exact

    def _most(self, piece: Released, keys: _Keys, wanted: Mask) -> Int64:
        """Per key, the highest number of its events in the piece that lie within one window; 0 for keys that are not
        `wanted`."""
        chosen = wanted[keys.key_of]
        at, key = piece.at[keys.rows[chosen]], keys.key_of[chosen]
        order = np.lexsort((at, key))
        at, key = at[order], key[order]
        # One line of instants with the keys one after the other, so that one search counts for all keys. The instants
        # are numbered: microseconds times keys may be more than a number holds, if one event has a clock of long ago.
        instants = np.unique(at)
        line = key * len(instants) + np.searchsorted(instants, at)
        begins = key * len(instants) + np.searchsorted(instants, at - self.counters.window, side="right")
        within = np.arange(len(line)) + 1 - np.searchsorted(line, begins)
        most = np.zeros(len(keys.hashes), dtype=np.int64)
        np.maximum.at(most, key, within)
        return most


class _VelocityRule:
    """One rule, with the exact windows of the keys that may reach its threshold."""

    def __init__(self, rule: Rule, of: Velocity, episodes: Episodes) -> None:
        self.rule = rule
        self.window = micros_of(of.window)
        self.at_least = of.at_least
        self.late = 0
        self._of = of
        self.field = of.distinct or of.consecutive
        self._episodes = episodes
        self._windows: dict[tuple[str, ...], Window] = {}
        self._hashes: dict[int, tuple[str, ...]] = {}

    @property
    def columns(self) -> set[str]:
        return {*self._of.where, *([self.field] if self.field else [])}

    def _fresh(self) -> Window:
        if self._of.consecutive:
            return Run(self.at_least)
        return Values() if self._of.distinct else Events()

    def to_count(self, piece: Released, rows: Int64, before: Set[int]) -> _Exact | None:
        """Of these events, whose keys may reach the threshold, those that the rule counts. `before`: the hashes of the
        keys that may have events before the piece."""
        for name, allowed in self._of.where.items():
            rows = rows[piece.events[name].gather(rows).is_in(list(allowed)).to_numpy()]
        if not len(rows):
            return None
        keys = list(zip(*(piece.values(name, rows) for name in self._of.by), strict=True))
        hashes = piece.hashed(self._of.by)[0][rows].tolist()
        new = {key: key_hash for key, key_hash in zip(keys, hashes, strict=True) if key not in self._windows}
        for key, key_hash in new.items():
            self._windows[key] = self._fresh()
            self._hashes[key_hash] = key
        return _Exact(self, rows, keys, {key for key, key_hash in new.items() if key_hash in before})

    def take(self, events: pl.DataFrame, wanted: Set[tuple[str, ...]], clock: int) -> None:
        """Add earlier events to the windows of these keys. `events`: with `at`, in microseconds."""
        counts = pl.col("at") > clock - self.window
        for name, allowed in self._of.where.items():
            counts &= pl.col(name).is_in(list(allowed))
        value = pl.col(self.field) if self.field else pl.lit(None)
        for *key, counted, at in events.filter(counts).select(*self._of.by, value.alias("value"), "at").iter_rows():
            if (named := tuple(key)) in wanted:
                self._windows[named].add(at, counted)

    def see(self, piece: Released, exact: _Exact) -> None:
        """Count these events exactly."""
        rows = exact.rows
        values = piece.values(self.field, rows) if self.field else [None] * len(rows)
        seen = zip(rows.tolist(), exact.keys, values, piece.at[rows].tolist(), piece.clock[rows].tolist(), strict=True)
        for row, key, value, at, clock in seen:
            after = clock - self.window
            if at <= after:
                self.late += 1
                continue
            window = self._windows[key]
            window.add(at, value)
            count = window.count(after)
            if count >= self.at_least:
                self._episodes.true(self._key(key), clock, piece.place(row), count, self.at_least)

    def limit_memory(self) -> None:
        if len(self._windows) > _KEPT:
            self._windows.clear()
            self._hashes.clear()

    def forget(self, hashes: UInt64, counted: Mask) -> None:
        """Forget the windows of the keys of a piece that are not counted exactly, so that their events are not added.
        `hashes`: of all keys, in order."""
        known = np.fromiter(self._hashes, dtype=np.uint64, count=len(self._hashes))
        place = np.minimum(np.searchsorted(hashes, known), len(hashes) - 1)
        for key_hash in known[(hashes[place] == known) & ~counted[place]].tolist():
            self._windows.pop(self._hashes.pop(key_hash), None)

    def _key(self, values: tuple[str, ...]) -> Key:
        return tuple(zip(self._of.by, values, strict=True))


@dataclass(frozen=True, slots=True)
class _Exact:
    """What a rule must count exactly in a piece: rows and the key of each. `wanted`: the keys whose earlier events its
    windows lack."""

    rule: _VelocityRule
    rows: Int64
    keys: list[tuple[str, ...]]
    wanted: set[tuple[str, ...]]


def earlier(
    reading: Reading,
    types: Set[str],
    follows: After | None,
    keys: pl.DataFrame,
    fields: Sequence[str],
    after: int,
    before: Place,
) -> pl.DataFrame:
    """The events of these keys and types that were recorded before the event at `before`, and happened after `after`
    (microseconds), and follow others as a rule says (`follows`): the key's values, the `fields`, and the instant `at`
    in microseconds."""
    conditions = [
        f"type IN ({_listed(sorted(types))})",
        "occurred_at > make_timestamp($after) AND recorded_at > make_timestamp($after)",  # maybe before the year 1
        "(recorded_at, log_partition, log_offset) < ($recorded_at, $partition, $offset)",
    ]
    events = f"SELECT * FROM {JOURNAL[COUPON]} WHERE {' AND '.join(conditions)}"
    if CAMPAIGN_OF in (*keys.columns, *fields):
        events = with_campaigns(events)
    where = "true" if follows is None else f"EXISTS ({_preceding(follows)})"
    on = " AND ".join(f"k.{name} = e.{name}" for name in keys.columns)
    named = ", ".join(f"e.{name}" for name in (*keys.columns, *fields))
    with reading.given(wanted_keys=keys):
        return reading.frame(
            f"SELECT {named}, epoch_us(least(e.occurred_at, e.recorded_at)) AS at"
            f" FROM ({events}) e JOIN (SELECT * FROM wanted_keys) k ON {on} WHERE {where}",
            {
                "after": after,
                "recorded_at": before.recorded_at,
                "partition": before.partition,
                "offset": before.offset,
            },
        )


def _preceding(after: After) -> str:
    """SQL for the earlier event of the same coupon that an event `e` must follow."""
    within = f"to_microseconds({micros_of(after.within)})"
    at, before = (f"least({name}.occurred_at, {name}.recorded_at)" for name in ("e", "a"))
    return (
        f"SELECT 1 FROM {JOURNAL[COUPON]} a WHERE a.key_hash = e.key_hash"
        f" AND a.type = '{after.event}' AND {before} BETWEEN {at} - {within} AND {at}"
        " AND (a.recorded_at, a.log_partition, a.log_offset) < (e.recorded_at, e.log_partition, e.log_offset)"
    )


def _listed(values: Iterable[str]) -> str:
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)
