"""The identity of the log that a database was filled from: the ids of its topics and the last record of each partition.

The last records are written in the transaction of each batch. A database from an older release, or just after a bulk
load, has not stored them; it is identified by the last records in its journals, conflicts and dead letters.
`consumers.log_identity` compares the identity with a log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.log import Chunk, StoredRecord, TopicPartition
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.store import Store

_ROOM: Final = "coupon_ledger.projections.identity"
_COUNTED: Final = ("other_keys", "skewed", "in_1970")
_SCHEMA: Final[dict[str, Any]] = {
    "topic": pl.String,
    "partition": pl.Int32,
    "next_offset": pl.Int64,
    "log_id": pl.String,
    "last_offset": pl.Int64,
    "recorded_at_us": pl.Int64,
    "digest": pl.String,
    "event_id": pl.String,
}


@dataclass(frozen=True, slots=True)
class LastRecord:
    """The last record that was consumed from a partition. `recorded_at`: µs since the epoch. `digest`: the digest of
    the record's key and value (`StoredRecord.digest`); None if it is not stored. `event_id`: used if there is no
    digest; the id of the event in the record, or None if the record is a dead letter."""

    offset: int
    recorded_at: int
    digest: bytes | None = None
    event_id: str | None = None

    def is_(self, stored: StoredRecord) -> bool:
        """Whether `stored`, which a log has at this record's offset, can be this record. `recorded_at` and the digest
        must be equal. If this record has no digest, the value of `stored` must contain the event's id."""
        if stored.recorded_at != self.recorded_at:
            return False
        if self.digest is not None:
            return stored.digest() == self.digest
        return self.event_id is None or self.event_id.encode() in stored.value


@dataclass(frozen=True, slots=True)
class ReadLog:
    """The identity of the log that a database was filled from, as stored in the database. `ids`: by topic, the log's
    id. `last`: by partition, the last record. `next_offsets`: by partition, the next offset; only partitions of which a
    record was read."""

    ids: Mapping[str, str]
    last: Mapping[TopicPartition, LastRecord]
    next_offsets: Mapping[TopicPartition, int]

    @property
    def topics(self) -> list[str]:
        return sorted({tp.topic for tp in self.next_offsets})

    def rows(self) -> pl.DataFrame:
        """One row per partition that was read: `topic`, `partition`, `next_offset` and `log_id`. From the partition's
        last record also `last_offset`, `recorded_at_us`, `digest` (hexadecimal) and `event_id`, which are null if it is
        unknown."""
        rows = []
        for tp, offset in sorted(self.next_offsets.items()):
            last = self.last.get(tp)
            values: tuple[Any, ...] = (None,) * 4
            if last is not None:
                values = last.offset, last.recorded_at, last.digest and last.digest.hex(), last.event_id
            rows.append((*tp, offset, self.ids.get(tp.topic), *values))
        return pl.DataFrame(rows, schema=_SCHEMA, orient="row")

    @classmethod
    def of_rows(cls, rows: Iterable[Mapping[str, Any]]) -> ReadLog:
        """The `ReadLog` that `rows` describes: the inverse of the method `rows`."""
        ids, last, next_offsets = {}, {}, {}
        for row in rows:
            tp = TopicPartition(row["topic"], row["partition"])
            next_offsets[tp] = row["next_offset"]
            if row["log_id"] is not None:
                ids[tp.topic] = row["log_id"]
            if row["last_offset"] is not None:
                digest = row["digest"] and bytes.fromhex(row["digest"])
                last[tp] = LastRecord(row["last_offset"], row["recorded_at_us"], digest, row["event_id"])
        return cls(ids, last, next_offsets)


def read_log(reading: Reading) -> ReadLog:
    """The identity that is stored in a database of any release."""
    checkpoints = reading.rows("SELECT topic, log_partition, next_offset FROM checkpoints WHERE read > 0")
    next_offsets = {TopicPartition(topic, partition): offset for topic, partition, offset in checkpoints}
    ids: dict[str, str] = {}
    last: dict[TopicPartition, LastRecord] = {}
    if _is_kept(reading):
        ids = dict(reading.rows("SELECT topic, id FROM log_topics"))
        last = _kept_last(reading)
    if next_offsets.keys() - last.keys():
        for topic, partition, offset, at, event_id in reading.rows(sql(_ROOM, "last_folded")):
            last.setdefault(TopicPartition(topic, partition), LastRecord(offset, at, None, event_id))
    return ReadLog(ids, {tp: record for tp, record in last.items() if tp in next_offsets}, next_offsets)


def keep_ids(store: Store, ids: Mapping[str, str]) -> None:
    """Store the ids of these topics. Creates the tables if the database is from an older release."""
    kept = dict(store.rows("SELECT topic, id FROM log_topics")) if _is_kept(store) else None
    if kept is None:
        store.make_tables(_ROOM)
    if changed := {topic: id_ for topic, id_ in ids.items() if (kept or {}).get(topic) != id_}:
        with store.transaction():
            for topic, id_ in sorted(changed.items()):
                store.execute("INSERT OR REPLACE INTO log_topics VALUES ($topic, $id)", {"topic": topic, "id": id_})


class LastRecords:
    """Tracks the last record of each partition while a consumer runs. Create it before the first batch."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last = _kept_last(store)
        if not store.rows("SELECT 1 FROM last_records"):
            store.execute("INSERT INTO last_records VALUES ('[]')")

    def keep(self, chunks: Sequence[Chunk]) -> None:
        """Store the last record of each of these chunks, inside the caller's transaction. If the transaction is rolled
        back, this object is ahead of the database. That does no harm: either the next batch begins with the same
        chunks, or the process ends."""
        for chunk in chunks:
            if len(chunk):
                stored = StoredRecord(int(chunk.recorded_at[-1]), chunk.keys[-1], (chunk.wire or chunk.values)[-1])
                place = TopicPartition(chunk.topic, chunk.partition)
                self._last[place] = LastRecord(int(chunk.offsets[-1]), stored.recorded_at, stored.digest())
        rows = [(*tp, r.offset, r.recorded_at, r.digest.hex()) for tp, r in sorted(self._last.items()) if r.digest]
        self._store.execute("UPDATE last_records SET records = $records", {"records": json.dumps(rows)})


def _kept_last(reading: Reading) -> dict[TopicPartition, LastRecord]:
    return {
        TopicPartition(topic, partition): LastRecord(offset, at, bytes.fromhex(digest))
        for (text,) in reading.rows("SELECT records FROM last_records")
        for topic, partition, offset, at, digest in json.loads(text)
    }


def add_oddities(store: Store, counts: Mapping[str, tuple[int, ...]]) -> None:
    """Add `counts` to the stored counts of suspicious events, inside the caller's transaction. `counts`: by topic, one
    number for each counted column of the table `oddities`, in that order."""
    for topic, numbers in sorted(counts.items()):
        if any(numbers) and _is_kept(store, "oddities"):
            store.execute(
                "INSERT INTO oddities VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " other_keys = other_keys + excluded.other_keys, skewed = skewed + excluded.skewed,"
                " in_1970 = in_1970 + excluded.in_1970",
                [topic, *numbers],
            )


def forget_oddities(store: Store, topics: Sequence[str]) -> None:
    """Delete the counts of suspicious events of these topics, inside the caller's transaction."""
    if _is_kept(store, "oddities"):
        for topic in topics:
            store.execute("DELETE FROM oddities WHERE topic = $topic", {"topic": topic})


def oddities(reading: Reading) -> pl.DataFrame:
    """One row per topic that was read. `topic`; `events`: how many valid events were read, including repeats;
    `other_keys`, `skewed`, `in_1970`: how many of these are suspicious, by kind. These three are 0 in a database of an
    older release."""
    totals = reading.frame("SELECT topic, sum(read - dead_letters)::BIGINT AS events FROM checkpoints GROUP BY topic")
    if not _is_kept(reading, "oddities"):
        return totals.with_columns(pl.lit(0).alias(name) for name in _COUNTED).sort("topic")
    kept = reading.frame("SELECT * FROM oddities")
    return totals.join(kept, on="topic", how="left").with_columns(pl.col(_COUNTED).fill_null(0)).sort("topic")


def _is_kept(reading: Reading, table: str = "last_records") -> bool:
    query = "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"
    return (table,) in reading.rows(query)
