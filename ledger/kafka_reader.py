"""Kafka's records as columns: kafka-python's consumer fetches, and whole record batches are taken apart at once.

Beside `kafka_log` and `kafka_restore` the only module that knows Kafka. Each batch's checksum is verified, and only
committed records are handed out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import numpy as np
import numpy.typing as npt
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, UnsupportedVersionError
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords

from ledger.log import FIRST_RECORDED_US, LAST_RECORDED_US, Chunk, Int64Array, TopicPartition
from ledger.partitioner import fair_shares

RECORDED_AT_HEADER: Final = "recorded_at"
"""On restored records: µs since the epoch, 8 bytes, big-endian."""
_RESTORED_HEAD: Final = bytes([2, 2 * len(RECORDED_AT_HEADER), *RECORDED_AT_HEADER.encode(), 16])
"""One header, its key, the length of its value; lengths and counts are zigzag."""
_NONE: Final = np.empty(0, np.int64)
_MS_LIMIT: Final = 1 << 61


@dataclass(frozen=True, slots=True)
class _Columns:
    """A record batch decoded: arrays and lists of length n > 0. `recorded_at`: µs since the epoch."""

    offsets: Int64Array
    recorded_at: Int64Array
    keys: list[bytes]
    values: list[bytes]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def offset(self) -> int:
        """The first one's, where the client asks whether it lies before what it fetched from."""
        return int(self.offsets[0])

    def split(self, place: int) -> tuple[_Columns, _Columns]:
        head, tail = slice(None, place), slice(place, None)
        return (
            _Columns(self.offsets[head], self.recorded_at[head], self.keys[head], self.values[head]),
            _Columns(self.offsets[tail], self.recorded_at[tail], self.keys[tail], self.values[tail]),
        )


@dataclass(slots=True)
class _Buffered:
    """What is fetched of a partition and not read yet. `next_offset`: where the last read ended."""

    next_offset: int
    batches: deque[_Columns] = field(default_factory=deque)
    size: int = 0

    def add(self, batches: Sequence[_Columns]) -> None:
        self.batches.extend(batches)
        self.size += sum(map(len, batches))

    def take(self, size: int) -> list[_Columns]:
        """The next `size` records, of those that are there."""
        self.size -= size
        taken = []
        while size:
            batch = self.batches.popleft()
            if len(batch) > size:
                batch, rest = batch.split(size)
                self.batches.appendleft(rest)
            taken.append(batch)
            size -= len(batch)
        return taken


class Reader:
    """One consumer and what it fetched ahead. Used by one thread at a time."""

    def __init__(self, consumer: KafkaConsumer, prefix: str) -> None:
        self._consumer = consumer
        self._prefix = prefix
        self._buffers: dict[TopicPartition, _Buffered] = {}
        consumer._fetcher.PartitionRecords = _PartitionColumns

    def forget(self) -> None:
        """Seek anew at the next read."""
        self._buffers.clear()

    def read(self, positions: Mapping[TopicPartition, int], max_records: int, timeout_s: float) -> list[Chunk]:
        self._stand_at(positions)
        ready = sum(buffered.size for buffered in self._buffers.values())
        if ready < max_records:
            self._fetch(0.0 if ready else timeout_s)
        shares = fair_shares({tp: b.size for tp, b in self._buffers.items()}, max_records)
        chunks = [self._chunk(tp, shares.get(tp, 0)) for tp in self._buffers]
        return [chunk for chunk in chunks if chunk is not None]

    def _stand_at(self, positions: Mapping[TopicPartition, int]) -> None:
        if self._buffers.keys() != positions.keys():
            self._buffers.clear()
            self._consumer.assign([self._named(tp) for tp in positions])
        for tp, offset in positions.items():
            buffered = self._buffers.get(tp)
            if buffered is None or buffered.next_offset != offset:
                self._buffers[tp] = _Buffered(offset)
                self._consumer.seek(self._named(tp), offset)

    def _fetch(self, timeout_s: float) -> None:
        # The records of a poll are decoded batches here, see `_PartitionColumns`; all that came is taken.
        fetched = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=1_000_000)
        for named, batches in fetched.items():
            tp = TopicPartition(named.topic.removeprefix(self._prefix), named.partition)
            self._buffers[tp].add(batches)

    def _chunk(self, tp: TopicPartition, size: int) -> Chunk | None:
        buffered = self._buffers[tp]
        taken = buffered.take(size)
        if buffered.batches:
            next_offset = buffered.batches[0].offset
        else:
            # Where the fetches stand: behind transaction markers, which are never handed out.
            next_offset = self._consumer.position(self._named(tp))
        if next_offset == buffered.next_offset:
            return None
        buffered.next_offset = next_offset
        return Chunk(
            topic=tp.topic,
            partition=tp.partition,
            offsets=np.concatenate([_NONE, *(b.offsets for b in taken)]),
            recorded_at=np.concatenate([_NONE, *(b.recorded_at for b in taken)]),
            keys=[key for b in taken for key in b.keys],
            values=[value for b in taken for value in b.values],
            next_offset=next_offset,
        )

    def _named(self, tp: TopicPartition) -> KafkaPartition:
        return KafkaPartition(self._prefix + tp.topic, tp.partition)


class _PartitionColumns(Fetcher.PartitionRecords):  # type: ignore[misc] # the client has no types
    """A fetched partition whose "records" are whole batches as columns.

    kafka-python makes two objects of 13 fields for each record; a batch decoded at once costs a fraction.
    Everything else (which fetch is current, positions, errors in the middle) stays the client's.
    """

    def _unpack_records(
        self, tp: KafkaPartition, records: MemoryRecords, _key: None, _value: None
    ) -> Iterator[_Columns]:
        try:
            while (batch := records.next_batch()) is not None:
                yield from self._columns(tp, batch)
        finally:
            # After an error too: the client would ask this partition's rest for ever otherwise.
            self.drain()

    def _columns(self, tp: KafkaPartition, batch: DefaultRecordBatch) -> Iterator[_Columns]:
        """What a reader sees of the batch: nothing, or its records from the fetched offset on."""
        if batch.magic < 2:
            raise UnsupportedVersionError(f"{tp}: record format {batch.magic}, 2 is needed (Kafka 0.11)")
        if not batch.validate_crc():
            raise CorruptRecordError(f"{tp}: the batch at offset {batch.base_offset} fails its checksum")
        self.leader_epoch = batch.leader_epoch
        visible = self._is_visible(batch)
        columns = decode_batch(batch) if visible else None
        self.next_fetch_offset = batch.next_offset
        if columns is not None:
            behind = int(np.searchsorted(columns.offsets, self.fetch_offset))
            if behind < len(columns):
                yield columns.split(behind)[1] if behind else columns

    def _is_visible(self, batch: DefaultRecordBatch) -> bool:
        """Whether a reader of committed records sees it. To be asked of each batch in order."""
        if batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return False
        return not batch.is_control_batch


def decode_batch(batch: DefaultRecordBatch) -> _Columns:
    """A batch of format 2 as columns. Raises `CorruptRecordError`.

    Format: https://kafka.apache.org/documentation/#recordbatch. Only the records' lengths are followed one
    by one; the fields of all records are then read together. A null key or value is b"".
    """
    batch._maybe_uncompress()
    data = bytes(memoryview(batch._buffer)[batch._pos :])
    octets = np.frombuffer(data, np.uint8)
    try:
        starts, ends = _extents(data, batch.records_count)
        place = starts + 1  # attributes: unused
        timestamp_deltas, place = _varints(octets, place)
        offset_deltas, place = _varints(octets, place)
        keys, place = _slices(data, octets, place)
        values, place = _slices(data, octets, place)
    except IndexError as error:
        raise CorruptRecordError(f"a record of the batch at offset {batch.base_offset} is cut off") from error
    # At least the number of headers follows.
    if (place >= ends).any() or (len(ends) and ends[-1] != len(data)):
        raise CorruptRecordError(f"a record of the batch at offset {batch.base_offset} has a wrong length")
    if batch.timestamp_type == batch.LOG_APPEND_TIME:
        recorded_at = _micros(batch.max_timestamp, np.zeros(len(starts), np.int64))
    else:
        recorded_at = _micros(batch.first_timestamp, timestamp_deltas)
        _refine(recorded_at, octets, place, ends)
    return _Columns(batch.base_offset + offset_deltas, recorded_at, keys, values)


def _micros(first_ms: int, deltas_ms: Int64Array) -> Int64Array:
    """Timestamps in µs, none beyond what can be shown. Producers may write any 64 bits; nothing overflows."""
    sums = min(max(first_ms, -_MS_LIMIT), _MS_LIMIT) + np.clip(deltas_ms, -_MS_LIMIT, _MS_LIMIT)
    return np.clip(sums, FIRST_RECORDED_US // 1000, LAST_RECORDED_US // 1000) * 1000


def _refine(recorded_at: Int64Array, octets: npt.NDArray[np.uint8], places: Int64Array, ends: Int64Array) -> None:
    """Restored records carry their instant to the µs as their one header; it may only refine the timestamp's ms.

    No producer can do so in the ledger's topics: there the broker stamps what it appends.
    """
    length = len(_RESTORED_HEAD) + 8
    rows = np.flatnonzero(ends - places == length)
    found = octets[places[rows, None] + np.arange(length)]
    exact = np.ascontiguousarray(found[:, -8:]).view(">i8")[:, 0].astype(np.int64)
    good = (found[:, :-8] == np.frombuffer(_RESTORED_HEAD, np.uint8)).all(axis=1) & (
        exact // 1000 * 1000 == recorded_at[rows]
    )
    recorded_at[rows[good]] = exact[good]


def _extents(data: bytes, number: int) -> tuple[Int64Array, Int64Array]:
    """Where each record's body starts and ends."""
    starts, ends = [], []
    place = 0
    for _ in range(number):
        octet = data[place]
        length = octet & 0x7F
        for shift in count(7, 7):
            place += 1
            if octet < 0x80:
                break
            octet = data[place]
            length |= (octet & 0x7F) << shift
        starts.append(place)
        place += length >> 1  # zigzag of a number that is never negative
        ends.append(place)
    return np.array(starts, np.int64), np.array(ends, np.int64)


def _varints(octets: npt.NDArray[np.uint8], places: Int64Array) -> tuple[Int64Array, Int64Array]:
    """The zigzag varints at these places, and where each ends."""
    octet = octets[places]
    raw = (octet & 0x7F).astype(np.int64)
    ends = places + 1
    longer = np.flatnonzero(octet >= 0x80)
    shift = 7
    while len(longer):
        octet = octets[ends[longer]]
        raw[longer] |= (octet & 0x7F).astype(np.int64) << shift
        ends[longer] += 1
        longer = longer[octet >= 0x80]
        shift += 7
    return (raw >> 1) ^ -(raw & 1), ends


def _slices(data: bytes, octets: npt.NDArray[np.uint8], places: Int64Array) -> tuple[list[bytes], Int64Array]:
    """The byte strings with their lengths before them at these places, and where each ends."""
    lengths, starts = _varints(octets, places)
    ends = starts + np.maximum(lengths, 0)  # a null has the length -1
    return [data[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)], ends
