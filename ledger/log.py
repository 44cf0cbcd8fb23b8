"""The event log: the protocols that implementations follow, and what they promise.

A log has topics, a topic has partitions, a partition is a sequence of records at increasing offsets. Records are
appended and never changed. Implementations: `sqlite_log` (embedded), `kafka_log`. Both pass the whole of
`tests/contract/log_contract.py`. An `archive` has only the reading side (`LogReader`).

Always true:
- `append` returns only when the records are durable; it returns their positions, in the same order.
- a key always goes to the same partition: murmur2 of the key, as Kafka's default partitioner does.
- `recorded_at` (microseconds since the epoch, UTC) never decreases within a partition.
- `read` never skips: a position that the log no longer holds raises `LogTruncated`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from coupon_ledger.ledger.findings import Finding
from coupon_ledger.ledger.topics import ALL_TOPICS

if TYPE_CHECKING:
    from coupon_ledger.ledger.arrays import Int64Array


FIRST_RECORDED_US: Final = -62_135_510_400_000_000
LAST_RECORDED_US: Final = 253_402_214_400_000_000
"""0001-01-02 and 9999-12-31 in UTC. `recorded_at` is clamped to this range, so that it can be shown in every time zone,
whatever timestamp a producer wrote into a Kafka topic with CreateTime."""


class TopicPartition(NamedTuple):
    topic: str
    partition: int


class Record(NamedTuple):
    """A record to append. `key` decides the partition."""

    topic: str
    key: bytes
    value: bytes


class Position(NamedTuple):
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Consecutive records of one partition, as columns of equal length n.

    `offsets`, `recorded_at` (µs since the epoch, from `FIRST_RECORDED_US` to `LAST_RECORDED_US`): int64 arrays of shape
    (n,). `values`: n payloads; a record without a value (a Kafka tombstone) is `b""`. `wire`: the payloads as stored in
    the log, if their format is not the ledger's own; otherwise None. `next_offset`: where reading continues; it can lie
    beyond `offsets[-1] + 1`, since a Kafka partition also holds transaction markers.
    """

    topic: str
    partition: int
    offsets: Int64Array
    recorded_at: Int64Array
    keys: list[bytes]
    values: list[bytes]
    next_offset: int
    wire: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def before(self, offset: int) -> Chunk:
        """The chunk without its records from `offset` on, so that reading continues at `offset` at the latest."""
        if self.next_offset <= offset:
            return self
        n = int(self.offsets.searchsorted(offset))
        return replace(
            self,
            offsets=self.offsets[:n],
            recorded_at=self.recorded_at[:n],
            keys=self.keys[:n],
            values=self.values[:n],
            next_offset=offset,
            wire=self.wire and self.wire[:n],
        )


class StoredRecord(NamedTuple):
    """A record as the log stores it. `recorded_at`: µs since the epoch."""

    recorded_at: int
    key: bytes
    value: bytes

    def digest(self) -> bytes:
        """SHA-256 of key and value, 32 bytes."""
        return hashlib.sha256(len(self.key).to_bytes(8, "big") + self.key + self.value).digest()


class LogReader(Protocol):
    """The reading side of a log, or of its archive."""

    url: str

    def partitions(self, topics: Sequence[str] = ALL_TOPICS) -> list[TopicPartition]:
        """The partitions of these topics, sorted. Raises `LogNotInitialised` if a topic is missing."""
        ...

    def read(self, positions: Mapping[TopicPartition, int], max_records: int, timeout_s: float = 0.0) -> list[Chunk]:
        """Up to `max_records` committed records from these offsets on: those recorded first, across all partitions.

        A log returns no record while an earlier one waits in another partition, except for records appended during the
        read, and partitions that cannot be read for now. Records of one instant come in any order. An archive returns
        equal shares of all partitions instead.

        Waits up to `timeout_s` for the first record; returns an empty list if there is none. A chunk may also have no
        records and only a moved `next_offset`. Raises `LogTruncated` if a position lies before the earliest offset held
        or after the end of its partition.
        """
        ...

    def earliest_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset still held, per partition (the end offset if a partition is empty)."""
        ...

    def end_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset that the next record will get, per partition.

        If a transaction is open, the end is at its first record, since readers get no further.
        """
        ...

    def high_watermarks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset after the last acknowledged record, per partition. It is above the end position while records
        wait behind an open transaction."""
        ...

    def identities(self) -> dict[str, str]:
        """The id of each topic. It is stable as long as the topic exists; a topic that is deleted and created again
        gets another one. Topics without a known id are left out."""
        ...

    def records_at(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, StoredRecord]:
        """The records at exactly these offsets. Partitions without a record there are left out."""
        ...

    def close(self) -> None: ...


class EventLog(LogReader, Protocol):
    """An append-only, partitioned, durable log."""

    def create_topics(self) -> list[str]:
        """Create the ledger's missing topics, with partitions and replication from the settings.

        Returns the names of those created; a second call creates nothing.
        """
        ...

    def append(self, records: Sequence[Record]) -> list[Position]:
        """Append durably; return the records' positions in their order.

        Raises `AppendFailed` with the index and the reason of each record that was not acknowledged, `LogUnavailable`,
        `LogNotInitialised`, `LogFull`.
        """
        ...


class OpenTransaction(NamedTuple):
    """A transaction that is neither committed nor aborted, in one partition. `first_offset`: the offset of its first
    record there; readers get no further. `written_at_ms`: when its producer last wrote there, in ms since the epoch."""

    producer_id: int
    first_offset: int
    written_at_ms: int


class Backend(EventLog, Protocol):
    """A log without a wrapper around it: it takes and returns records as they are stored."""

    def open_transactions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, list[OpenTransaction]]:
        """Open transactions by partition, oldest first; partitions without one are left out. Empty if the log cannot
        tell."""
        ...

    def examine(self) -> list[Finding]:
        """Check that the log is stored and configured as it must be. Returns findings for people (`coupon-ledger
        doctor`). Raises what querying the log raises."""
        ...

    def restore(
        self,
        begins: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        chunks: Iterable[Chunk],
        *,
        gapless: bool,
        anew: bool = False,
    ) -> None:
        """Fill the log with these records, each at its own partition, offset and instant (`recorded_at`).

        `begins`, `ends`: per partition, the earliest offset, and the offset that the next appended record will get.
        `chunks`: the records, partition by partition in the order of their offsets. `gapless`: whether every offset
        from begin to end has a record. `anew`: discard what an interrupted restore left; otherwise its remains raise
        `LogNotEmpty`. Also raises `LogNotEmpty` if the records would mix with others.
        """
        ...
