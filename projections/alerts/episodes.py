"""Episodes: stretches of time in which the condition of a rule held for one key.

An episode is opened when the condition is found true for the first time, fires once it has held for as long as the rule
wants, and is closed when the condition has not been true for the rule's `keep`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final

import polars as pl
from polars.datatypes import DataType, DataTypeClass

from coupon_ledger.projections.alerts.chunk import Place, instant, micros
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.live.signature import stable_hash
from coupon_ledger.projections.store import Cache, Store

TABLE: Final = "alert_episodes"
PolarsDataType = DataType | DataTypeClass
Key = tuple[tuple[str, str], ...]
"""The fields of a key, each with its value."""
SCHEMA: Final[dict[str, PolarsDataType]] = {
    "episode_id": pl.String,
    "rule": pl.String,
    "rule_version": pl.String,
    "key": pl.String,
    "opened_at": pl.Datetime("us"),
    "fired_at": pl.Datetime("us"),
    "last_true_at": pl.Datetime("us"),
    "closed_at": pl.Datetime("us"),
    "opened_recorded_at": pl.Datetime("us"),
    "topic": pl.String,
    "log_partition": pl.Int32,
    "log_offset": pl.Int64,
    "value": pl.Float64,
    "peak": pl.Float64,
    "threshold": pl.Float64,
    "times": pl.Int64,
    "details": pl.String,
}


@dataclass(slots=True)
class Episode:
    """One episode. Instants are microseconds of the topic's clock. See `schema.sql`."""

    identity: str
    key: Key
    opened_at: int
    place: Place
    last_true_at: int
    value: float
    peak: float
    threshold: float
    times: int = 1
    fired_at: int | None = None
    closed_at: int | None = None
    details: Mapping[str, Any] | None = None


class Touched(Cache):
    """The ids of the episodes that were written since they were last taken. They are noted only for who asks for them
    (`watched`). A write that is rolled back is noted too, so whoever takes an id looks at the row that is there."""

    def __init__(self) -> None:
        self.watched = False
        self.ids: set[str] = set()

    def note(self, ids: Iterable[str]) -> None:
        if self.watched:
            self.ids.update(ids)


class Episodes:
    """The episodes of one rule version that are not closed, and what has changed since `changed` was last called."""

    def __init__(self, rule: Rule, topic: str, grain: int = 0) -> None:
        """`grain`: how far apart evaluations are, in microseconds; an episode lasts at least until the next one."""
        self.rule = rule
        self._topic = topic
        self._hold = micros_of(rule.hold)
        self._keep = micros_of(rule.keep) + grain
        self._open: dict[Key, Episode] = {}
        self._changed: dict[str, Episode] = {}
        self._dropped: set[str] = set()

    def __contains__(self, key: Key) -> bool:
        return key in self._open

    @property
    def going_on(self) -> Mapping[Key, Episode]:
        """The episodes that are not closed."""
        return self._open

    def rises(self, key: Key, clock: int, value: float) -> bool:
        """Whether this value at `clock` would open an episode, or pass the peak of the one that goes on."""
        episode = self._open.get(key)
        return episode is None or clock >= episode.last_true_at + self._keep or value > episode.peak

    def true(
        self,
        key: Key,
        clock: int,
        place: Place,
        value: float,
        threshold: float,
        details: Mapping[str, Any] | None = None,
        *,
        less_is_worse: bool = False,
    ) -> None:
        """Note that the condition is true at `clock`. `place`: the event at which it was found. `details` replace
        those that were given before."""
        episode = self._open.get(key)
        if episode is not None and clock >= episode.last_true_at + self._keep:
            self._close(episode)
            episode = None
        if episode is None:
            identity = self._id(key, clock, place)
            episode = self._open[key] = Episode(identity, key, clock, place, clock, value, value, threshold)
        else:
            episode.last_true_at = max(episode.last_true_at, clock)
            episode.peak = min(episode.peak, value) if less_is_worse else max(episode.peak, value)
            episode.times += 1
        if details is not None:
            episode.details = details
        if episode.fired_at is None and clock >= episode.opened_at + self._hold:
            episode.fired_at, episode.value = clock, value
        self._changed[episode.identity] = episode

    def advance(self, clock: int) -> None:
        """Close the episodes that are over at `clock`."""
        for episode in [e for e in self._open.values() if clock >= e.last_true_at + self._keep]:
            self._close(episode)

    def _close(self, episode: Episode) -> None:
        del self._open[episode.key]
        if episode.fired_at is None:
            self._changed.pop(episode.identity, None)
            self._dropped.add(episode.identity)
        else:
            episode.closed_at = episode.last_true_at + self._keep
            self._changed[episode.identity] = episode

    def restore(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Go on with these rows of the table, which are not closed."""
        for row in rows:
            key: Key = tuple((field, value) for field, value in json.loads(row["key"]).items())
            self._open[key] = Episode(
                row["episode_id"],
                key,
                micros(row["opened_at"]),
                Place(row["opened_recorded_at"], row["log_partition"], row["log_offset"]),
                micros(row["last_true_at"]),
                row["value"],
                row["peak"],
                row["threshold"],
                row["times"],
                None if row["fired_at"] is None else micros(row["fired_at"]),
                None,
                None if row["details"] is None else json.loads(row["details"]),
            )

    def changed(self) -> tuple[list[dict[str, Any]], set[str]]:
        """The rows to write, and the ids of all rows to delete before."""
        rows = [self._row(episode) for episode in self._changed.values()]
        gone = self._dropped | self._changed.keys()
        self._changed, self._dropped = {}, set()
        return rows, gone

    def _id(self, key: Key, opened_at: int, place: Place) -> str:
        # One event can pass several ticks, at which different episodes of a key open.
        position = (self._topic, str(place.partition), str(place.offset), str(opened_at))
        parts = (self.rule.name, text_of(key), *position)
        return sha256("\x1f".join(parts).encode()).hexdigest()[:20]

    def _row(self, episode: Episode) -> dict[str, Any]:
        details = episode.details
        return {
            "episode_id": episode.identity,
            "rule": self.rule.name,
            "rule_version": self.rule.version,
            "key": text_of(episode.key),
            "opened_at": instant(episode.opened_at),
            "fired_at": None if episode.fired_at is None else instant(episode.fired_at),
            "last_true_at": instant(episode.last_true_at),
            "closed_at": None if episode.closed_at is None else instant(episode.closed_at),
            "opened_recorded_at": episode.place.recorded_at,
            "topic": self._topic,
            "log_partition": episode.place.partition,
            "log_offset": episode.place.offset,
            "value": episode.value,
            "peak": episode.peak,
            "threshold": episode.threshold,
            "times": episode.times,
            "details": None if details is None else json.dumps(details, ensure_ascii=False, sort_keys=True),
        }


def micros_of(span: timedelta) -> int:
    """A `timedelta` in microseconds."""
    return round(span.total_seconds() * 1_000_000)


def text_of(key: Key) -> str:
    """The key as JSON, with its fields in order."""
    return json.dumps(dict(key), ensure_ascii=False, separators=(",", ":"))


def write(store: Store, changed: Iterable[tuple[list[dict[str, Any]], set[str]]]) -> None:
    """Write what `Episodes.changed` returned, inside the caller's transaction."""
    rows: list[dict[str, Any]] = []
    gone: set[str] = set()
    for some, others in changed:
        rows += some
        gone |= others
    if gone:
        store.cache(Touched).note(gone)
        store.execute(
            f"DELETE FROM {TABLE} WHERE episode_id IN (SELECT unnest($gone::VARCHAR[]))", {"gone": list(gone)}
        )
    frame = pl.DataFrame(rows, schema=SCHEMA)
    store.insert(TABLE, frame.with_columns(episode_hash=pl.Series(stable_hash(frame["episode_id"]), dtype=pl.Int64)))


def end(store: Store, ended: Iterable[tuple[str, str]]) -> None:
    """Close the episodes of rules that are no longer in force, inside the caller's transaction. `ended`: the name and
    version of each."""
    names, versions = zip(*ended, strict=True) if (ended := list(ended)) else ((), ())
    given = {"names": list(names), "versions": list(versions)}
    mine = (
        "closed_at IS NULL AND (rule, rule_version) IN (SELECT unnest($names::VARCHAR[]), unnest($versions::VARCHAR[]))"
    )
    store.execute(f"DELETE FROM {TABLE} WHERE {mine} AND fired_at IS NULL", given)
    store.execute(
        f"UPDATE {TABLE} SET closed_at = greatest(last_true_at, (SELECT clock FROM alert_progress p WHERE p.topic ="
        f" {TABLE}.topic)) WHERE {mine}",
        given,
    )


def stored_open(reading: Reading) -> Iterator[dict[str, Any]]:
    """The rows of all episodes that are not closed."""
    return iter(reading.frame(f"SELECT {', '.join(SCHEMA)} FROM {TABLE} WHERE closed_at IS NULL").iter_rows(named=True))
