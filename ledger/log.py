"""The event log: the protocols that its implementations follow, and what they promise.

A log has topics, a topic has partitions, and a partition is a sequence of records with increasing offsets. Records are
appended and never changed. There are two implementations: `sqlite_log` (embedded) and `kafka_log`. Both pass all of
`tests/contract/log_contract.py`. An `archive` can only be read (`LogReader`).

Always true:
- `append` returns only when the records are durable. It returns their positions, in the order of the records.
- Records with the same key always go to the same partition: the one that Kafka's default partitioner chooses (murmur2).
- `recorded_at` (microseconds since the epoch, UTC) never decreases within a partition.
- `read` never skips records. If the log no longer has the records at a position, `read` raises `LogTruncated`.
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
    """A record that is to be appended. The log chooses its partition by `key`."""

    topic: str
    key: bytes
    value: bytes


class Position(NamedTuple):
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Consecutive records of one partition, as columns. Every column has one entry per record.

    `offsets`, `recorded_at`: one-dimensional int64 arrays; `recorded_at` is in µs since the epoch, from
    `FIRST_RECORDED_US` to `LAST_RECORDED_US`. `values`: the messages; `b""` for a record without a value (a Kafka
    tombstone). `wire`: the messages as the log stores them, if it stores them in another format than the ledger's;
    otherwise None. `next_offset`: the offset at which the next read continues. It can be higher than `offsets[-1] + 1`,
    since some offsets of a Kafka partition belong to transaction markers.
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
        """Returns the chunk without the records whose offset is `offset` or higher. If the chunk goes further than
        `offset`, `next_offset` becomes `offset`."""
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
    """A record as it is stored in the log. `recorded_at`: when the log recorded it, in µs since the epoch."""

    recorded_at: int
    key: bytes
    value: bytes

    def digest(self) -> bytes:
        """The SHA-256 digest of key and value together (32 bytes)."""
        return hashlib.sha256(len(self.key).to_bytes(8, "big") + self.key + self.value).digest()


class LogReader(Protocol):
    """What can be done with every log, and with an archive: read it."""

    url: str

    @property
    def visible_after_s(self) -> float:
        """How long after `recorded_at` the last reader may see a record, in seconds: replicas take a while, and the
        clocks of brokers differ a little. 0: nothing that is appended later has an earlier `recorded_at`."""
        ...

    def partitions(self, topics: Sequence[str] = ALL_TOPICS) -> list[TopicPartition]:
        """All partitions of these topics, sorted. Raises `LogNotInitialised` if a topic is missing."""
        ...

    def read(self, positions: Mapping[TopicPartition, int], max_records: int, timeout_s: float = 0.0) -> list[Chunk]:
        """Read up to `max_records` committed records. `positions`: for each partition to be read, the offset of the
        first record wanted.

        Across all these partitions, the records that were recorded first are returned: a later record is never returned
        before an earlier one of another partition. Exceptions are records that are appended during the read, and
        partitions that cannot be read at the moment. Records with the same `recorded_at` are in any order. An archive
        instead returns equal numbers of records from all partitions.

        Waits up to `timeout_s` for the first record, and returns an empty list if none arrives. A chunk may have no
        records if only its `next_offset` has moved. Raises `LogTruncated` if an offset in `positions` is before the
        earliest one that the log still has, or after the end of its partition.
        """
        ...

    def earliest_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """For each partition, the lowest offset that the log still has. For an empty partition, its end offset."""
        ...

    def end_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """For each partition, the offset that the next record will get.

        While a transaction is open in a partition, the end position is the offset of the transaction's first record,
        since reading stops there.
        """
        ...

    def high_watermarks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """For each partition, the offset after the last acknowledged record. Higher than the end position while a
        transaction is open, since the end position is then the offset of the transaction's first record."""
        ...

    def identities(self) -> dict[str, str]:
        """The ids of the topics, by topic name. A topic's id stays the same as long as the topic exists. If the topic
        is deleted and created again, it gets another id. Topics whose id is not known are left out."""
        ...

    def records_at(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, StoredRecord]:
        """The record at each of these positions, by partition. Partitions that have no record at the given offset are
        left out."""
        ...

    def next_recorded(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """When the first record at or after each of these positions was recorded (µs since the epoch), by partition,
        as far as the reader knows it without asking elsewhere. Those that it does not know are left out."""
        ...

    def close(self) -> None: ...


class EventLog(LogReader, Protocol):
    """A durable, partitioned log that can be read and appended to."""

    def create_topics(self) -> list[str]:
        """Create those of the ledger's topics that do not exist yet. The settings say with how many partitions and
        replicas.

        Returns the names of the topics that were created; an empty list if all existed.
        """
        ...

    def append(self, records: Sequence[Record]) -> list[Position]:
        """Append the records durably. Returns their positions, in the order of the records.

        Raises `AppendFailed` if some records were not acknowledged, with the index of each and the reason. Also raises
        `LogUnavailable`, `LogNotInitialised` and `LogFull`.
        """
        ...


class OpenTransaction(NamedTuple):
    """A transaction in one partition that is neither committed nor aborted. `producer_id`: the producer that opened it.
    `first_offset`: the offset of the transaction's first record in this partition; reading stops there.
    `written_at_ms`: when the producer last wrote to this partition, in ms since the epoch."""

    producer_id: int
    first_offset: int
    written_at_ms: int


class Backend(EventLog, Protocol):
    """A log as such, without the schema registry: records are returned as they are stored, and stored as they are
    given."""

    def open_transactions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, list[OpenTransaction]]:
        """The open transactions of each partition, oldest first. Partitions without one are left out. Empty if this log
        cannot say."""
        ...

    def examine(self) -> list[Finding]:
        """Check that the log's storage is intact and its configuration is right. Returns the findings that
        `coupon-ledger doctor` shows. Raises the errors of querying the log."""
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
        """Write these records to the log, each with its own partition, offset and time of recording (`recorded_at`).

        `begins`: each partition's earliest offset. `ends`: the offset that the next appended record will get, for each
        partition. `chunks`: the records, one partition after the other, in the order of their offsets. `gapless`:
        whether every offset from begin to end has a record. `anew`: first discard what an interrupted restore left in
        the log. Raises `LogNotEmpty` if the log has records with which these would mix, or, without `anew`, the remains
        of an interrupted restore.
        """
        ...
