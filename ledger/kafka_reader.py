"""Reads Kafka's records as columns. kafka-python's consumer fetches the records; this module decodes each record
batch as a whole.

Each batch's checksum is verified, and only committed records are returned. Only this module, `kafka_log` and
`kafka_restore` use Kafka.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from typing import Final

import numpy as np
import numpy.typing as npt
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaPartition
from kafka.consumer.fetcher import CompletedFetch, Fetcher
from kafka.errors import CorruptRecordError, UnsupportedCodecError, UnsupportedVersionError
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords

from coupon_ledger.ledger.arrays import Int64Array
from coupon_ledger.ledger.log import FIRST_RECORDED_US, LAST_RECORDED_US, Chunk, TopicPartition
from coupon_ledger.ledger.partitioner import fair_shares

RECORDED_AT_HEADER: Final = "recorded_at"
"""The header of restored records: µs since the epoch, 8 bytes, big-endian."""
_RESTORED_HEAD: Final = bytes([2, 2 * len(RECORDED_AT_HEADER), *RECORDED_AT_HEADER.encode(), 16])
"""The bytes of a restored record before that header's value: the number of headers (1), the header's key with its
length, the length of its value (8). Numbers are zigzag varints."""
HOLD_S: Final = 2.0
_GATHER_S: Final = 0.3
_NONE: Final = np.empty(0, np.int64)
CODECS: Final = {
    DefaultRecordBatch.CODEC_SNAPPY: ("snappy", "snappy", "python-snappy"),
    DefaultRecordBatch.CODEC_LZ4: ("lz4", "lz4", "lz4"),
    DefaultRecordBatch.CODEC_ZSTD: ("zstd", "zstandard", "zstandard"),
}
"""Compressions that need a package: the name that producers use, the package's module, the package to install."""


def missing_codecs() -> dict[str, str]:
    """The compressions that this installation cannot read. The value for each is the package to install."""
    return {codec: package for codec, module, package in CODECS.values() if find_spec(module) is None}


_MS_LIMIT: Final = 1 << 61


@dataclass(frozen=True, slots=True)
class _Columns:
    """A decoded record batch, as arrays and lists of the same length n > 0. `recorded_at`: µs since the epoch."""

    offsets: Int64Array
    recorded_at: Int64Array
    keys: list[bytes]
    values: list[bytes]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def offset(self) -> int:
        """The offset of the first record. kafka-python compares it with the offset from which it fetched."""
        return int(self.offsets[0])

    def split(self, place: int) -> tuple[_Columns, _Columns]:
        head, tail = slice(None, place), slice(place, None)
        return (
            _Columns(self.offsets[head], self.recorded_at[head], self.keys[head], self.values[head]),
            _Columns(self.offsets[tail], self.recorded_at[tail], self.keys[tail], self.values[tail]),
        )


@dataclass(slots=True)
class _Buffered:
    """The records of one partition that were fetched but not returned yet. `next_offset`: where the last read ended.
    `size`: how many records are buffered.

    `paused`: whether fetching from the partition is paused. `passed`: whether reading goes on without waiting for this
    partition. It becomes False when records of the partition arrive.
    """

    next_offset: int
    batches: deque[_Columns] = field(default_factory=deque)
    size: int = 0
    paused: bool = False
    passed: bool = False

    def add(self, batches: Sequence[_Columns]) -> None:
        self.batches.extend(batches)
        self.size += sum(map(len, batches))
        self.passed = False

    def times(self) -> Int64Array:
        """`recorded_at` of the buffered records, in their order. A value that is lower than an earlier one is raised to
        the highest earlier one, so that the values never decrease. This is needed since a topic that others created may
        have any timestamps."""
        return np.maximum.accumulate(np.concatenate([_NONE, *(batch.recorded_at for batch in self.batches)]))

    def take(self, size: int) -> list[_Columns]:
        """Remove the first `size` of the buffered records, and return them."""
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
    """Reads records through a Kafka consumer, and keeps those that were fetched ahead. Only one thread at a time may
    use it.

    Across partitions, records are returned in the order of `recorded_at`: a record is not returned while another
    partition may still have an earlier one. Two kinds of partitions are not waited for: those that were fetched to
    their end and, after `HOLD_S`, those that have more records but deliver none (their broker is away). So a record can
    be out of order only if it is recorded during a fetch at the log's end, or if it was on a broker that was away.
    """

    def __init__(self, consumer: KafkaConsumer, prefix: str) -> None:
        self._consumer = consumer
        self._prefix = prefix
        self._buffers: dict[TopicPartition, _Buffered] = {}
        self._ends: dict[KafkaPartition, int] = {}
        consumer._fetcher.PartitionRecords = _PartitionColumns
        self._record_ends()

    def forget(self) -> None:
        """Drop all buffered records. The next read fetches again from the positions that it is given."""
        self._buffers.clear()

    def read(self, positions: Mapping[TopicPartition, int], max_records: int, timeout_s: float) -> list[Chunk]:
        self._seek(positions)
        ready = self._gather(max_records, timeout_s)
        counts = _first_recorded(ready, max_records)
        chunks = [self._chunk(tp, counts.get(tp, 0)) for tp in self._buffers]
        return [chunk for chunk in chunks if chunk is not None]

    def next_recorded(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """As `LogReader.next_recorded`: of the partitions whose next record was fetched ahead."""
        known = {tp: self._buffers[tp] for tp, offset in positions.items() if self._is_next(tp, offset)}
        return {tp: int(buffered.batches[0].recorded_at[0]) for tp, buffered in known.items()}

    def _is_next(self, tp: TopicPartition, offset: int) -> bool:
        buffered = self._buffers.get(tp)
        return buffered is not None and buffered.next_offset == offset and buffered.size > 0

    # --- fetching

    def _seek(self, positions: Mapping[TopicPartition, int]) -> None:
        if self._buffers.keys() != positions.keys():
            self._buffers = {tp: buffered for tp, buffered in self._buffers.items() if tp in positions}
            self._consumer.assign([self._kafka_partition(tp) for tp in positions])
        for tp, offset in positions.items():
            buffered = self._buffers.get(tp)
            if buffered is None or buffered.next_offset != offset:
                self._buffers[tp] = _Buffered(offset)
                self._ends.pop(self._kafka_partition(tp), None)
                self._consumer.seek(self._kafka_partition(tp), offset)
                self._consumer.resume(self._kafka_partition(tp))

    def _gather(self, max_records: int, timeout_s: float) -> dict[TopicPartition, Int64Array]:
        """Fetch until `read` can return enough records, or nothing more arrives in time.

        Returns, per partition, `recorded_at` of the records that `read` can return.
        """
        started, fetched = time.monotonic(), False
        while True:
            buffered = {tp: b.times() for tp, b in self._buffers.items() if b.size}
            ready, behind = self._ready(buffered)
            number, passed_s = sum(map(len, ready.values())), time.monotonic() - started
            if number and (not behind or number >= max_records // 2 or passed_s > _GATHER_S):
                return ready
            if buffered and not number and passed_s > HOLD_S:
                for tp in behind - buffered.keys():
                    self._buffers[tp].passed = True
                continue
            if not buffered and fetched and passed_s >= timeout_s:
                return ready
            patience_s = _GATHER_S if number else HOLD_S if buffered else timeout_s
            self._pause_those_ahead(buffered, ready, max_records)
            self._fetch(max(0.0, patience_s - passed_s))
            fetched = True

    def _ready(
        self, buffered: Mapping[TopicPartition, Int64Array]
    ) -> tuple[dict[TopicPartition, Int64Array], set[TopicPartition]]:
        """Returns two things. First, per partition, `recorded_at` of the buffered records that `read` can return now,
        since no record still to be fetched can be earlier. Second, the partitions that still have records to fetch and
        are waited for."""
        behind = {tp for tp, b in self._buffers.items() if not b.passed and not self._is_at_end(tp)}
        if behind - buffered.keys():
            return {}, behind
        horizon = min((int(buffered[tp][-1]) for tp in behind), default=None)
        if horizon is None:
            return dict(buffered), behind
        return {tp: times[: np.searchsorted(times, horizon, side="right")] for tp, times in buffered.items()}, behind

    def _is_at_end(self, tp: TopicPartition) -> bool:
        """Whether all records that the partition had at its last fetch have been fetched."""
        end = self._ends.get(self._kafka_partition(tp))
        return end is not None and self._position(tp) >= end

    def _pause_those_ahead(
        self,
        buffered: Mapping[TopicPartition, Int64Array],
        ready: Mapping[TopicPartition, Int64Array],
        max_records: int,
    ) -> None:
        """Pause fetching from each partition that has buffered more than its share, while its records wait for other
        partitions. Resume fetching from the others. This limits the memory for buffered records."""
        share = max_records // len(self._buffers)
        for tp, b in self._buffers.items():
            ahead = b.size > share and len(ready.get(tp, _NONE)) < len(buffered[tp])
            if ahead != b.paused:
                (self._consumer.pause if ahead else self._consumer.resume)(self._kafka_partition(tp))
                b.paused = ahead

    def _fetch(self, timeout_s: float) -> None:
        # What a poll returns as records are whole decoded batches here (`_PartitionColumns`). Take all that arrived.
        fetched = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=1_000_000)
        for named, batches in fetched.items():
            tp = TopicPartition(named.topic.removeprefix(self._prefix), named.partition)
            self._buffers[tp].add(batches)

    def _record_ends(self) -> None:
        """Make kafka-python's fetcher store in `_ends`, at each fetch, the end of the partition for a reader of
        committed records."""
        fetcher = self._consumer._fetcher
        parse = fetcher._parse_fetched_data

        def parse_and_record(completed: CompletedFetch) -> object:
            partition = completed.partition_data
            if partition.error_code == 0:
                end = partition.last_stable_offset
                self._ends[completed.topic_partition] = partition.high_watermark if end is None or end < 0 else end
            return parse(completed)

        fetcher._parse_fetched_data = parse_and_record

    # --- returning

    def _chunk(self, tp: TopicPartition, size: int) -> Chunk | None:
        buffered = self._buffers[tp]
        taken = buffered.take(size)
        if buffered.batches:
            next_offset = buffered.batches[0].offset if size else buffered.next_offset
        else:
            # The fetch position has passed transaction markers, which are never returned as records.
            next_offset = self._position(tp)
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

    def _position(self, tp: TopicPartition) -> int:
        # The client's `position` would also query the brokers, and never return while they are away.
        return int(self._consumer._subscription.assignment[self._kafka_partition(tp)].position.offset)

    def _kafka_partition(self, tp: TopicPartition) -> KafkaPartition:
        return KafkaPartition(self._prefix + tp.topic, tp.partition)


def _first_recorded(ready: Mapping[TopicPartition, Int64Array], limit: int) -> dict[TopicPartition, int]:
    """How many records of each partition are among the `limit` records with the earliest `recorded_at`. `ready`:
    `recorded_at` per partition. If several partitions have records of the latest of these instants, and not all of them
    fit, the remaining places are shared equally among these partitions."""
    if sum(map(len, ready.values())) <= limit:
        return {tp: len(times) for tp, times in ready.items()}
    last = np.partition(np.concatenate(list(ready.values())), limit - 1)[limit - 1]
    before = {tp: int(np.searchsorted(times, last, side="left")) for tp, times in ready.items()}
    then = {tp: int(np.searchsorted(times, last, side="right")) - before[tp] for tp, times in ready.items()}
    shares = fair_shares(then, limit - sum(before.values()))
    return {tp: count + shares.get(tp, 0) for tp, count in before.items()}


class _PartitionColumns(Fetcher.PartitionRecords):  # type: ignore[misc] # the client has no types
    """A replacement for kafka-python's class for the fetched records of a partition. It yields whole batches as columns
    where the original yields single records.

    kafka-python creates two objects of 13 fields for each record; to decode a batch at once takes a fraction of the
    time. Everything else (which fetch is current, positions, errors in the middle) is left to kafka-python.
    """

    def _unpack_records(
        self, tp: KafkaPartition, records: MemoryRecords, _key: None, _value: None
    ) -> Iterator[_Columns]:
        try:
            while (batch := records.next_batch()) is not None:
                yield from self._columns(tp, batch)
        finally:
            # After an error too: otherwise the client would request the rest of this partition for ever.
            self.drain()

    def _columns(self, tp: KafkaPartition, batch: DefaultRecordBatch) -> Iterator[_Columns]:
        """Yield the batch as columns, without records before the offset from which the client fetched. Yields nothing
        if no records are left, or if the batch is not visible (`_is_visible`)."""
        if batch.magic < 2:
            raise UnsupportedVersionError(f"{tp}: record format {batch.magic}, 2 is needed (Kafka 0.11)")
        if not batch.validate_crc():
            raise CorruptRecordError(f"{tp}: the batch at offset {batch.base_offset} fails its checksum")
        self.leader_epoch = batch.leader_epoch
        visible = self._is_visible(batch)
        try:
            columns = decode_batch(batch) if visible else None
        except UnsupportedCodecError as error:
            raise UnsupportedCodecError(f"{tp.topic} partition {tp.partition}: {error}") from error
        self.next_fetch_offset = batch.next_offset
        if columns is not None:
            behind = int(np.searchsorted(columns.offsets, self.fetch_offset))
            if behind < len(columns):
                yield columns.split(behind)[1] if behind else columns

    def _is_visible(self, batch: DefaultRecordBatch) -> bool:
        """Whether a reader of committed records sees the batch. To be called for every batch, in the order of the
        batches."""
        if batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return False
        return not batch.is_control_batch


def decode_batch(batch: DefaultRecordBatch) -> _Columns:
    """Decode a batch of format 2 into columns. Raises `CorruptRecordError`, and `UnsupportedCodecError` like
    `_uncompress`.

    Format: https://kafka.apache.org/documentation/#recordbatch. Only the records' lengths are read one by one; each
    field is then read for all records at once. A null key or value becomes b"".
    """
    _uncompress(batch)
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


def _uncompress(batch: DefaultRecordBatch) -> None:
    """Decompress the batch in place. Raises `UnsupportedCodecError` if a package is missing, which the message names,
    and `CorruptRecordError` if the bytes cannot be decompressed."""
    try:
        batch._maybe_uncompress()
    except UnsupportedCodecError as error:
        codec, _, package = CODECS.get(batch.compression_type, (f"codec {batch.compression_type}", "", ""))
        remedy = f"pip install {package}" if package else "no version of the ledger reads it"
        raise UnsupportedCodecError(
            f"the batch at offset {batch.base_offset} is compressed with {codec}; {remedy}, then start again"
        ) from error
    except Exception as error:  # each package has errors of its own
        raise CorruptRecordError(f"the batch at offset {batch.base_offset} cannot be uncompressed: {error}") from error


def _micros(first_ms: int, deltas_ms: Int64Array) -> Int64Array:
    """`first_ms` plus each of `deltas_ms`, converted to µs and limited to the range of `recorded_at`
    (`FIRST_RECORDED_US` to `LAST_RECORDED_US`). Producers may write any 64-bit numbers. Both arguments are limited
    before they are added, so that the sum cannot overflow."""
    sums = min(max(first_ms, -_MS_LIMIT), _MS_LIMIT) + np.clip(deltas_ms, -_MS_LIMIT, _MS_LIMIT)
    return np.clip(sums, FIRST_RECORDED_US // 1000, LAST_RECORDED_US // 1000) * 1000


def _refine(recorded_at: Int64Array, octets: npt.NDArray[np.uint8], places: Int64Array, ends: Int64Array) -> None:
    """Make the timestamps of restored records exact, in place. `recorded_at` has timestamps exact to the ms. A restored
    record has its exact timestamp in µs as its only header. The header's value is used if it agrees with the timestamp
    on the ms. `places`, `ends`: where the headers of each record begin and end in `octets`.

    No producer can set `recorded_at` this way in the ledger's own topics: there the broker sets the timestamps, and
    headers are not read.
    """
    length = len(_RESTORED_HEAD) + 8
    rows = np.flatnonzero(ends - places == length)
    headers = octets[places[rows, None] + np.arange(length)]
    exact = np.ascontiguousarray(headers[:, -8:]).view(">i8")[:, 0].astype(np.int64)
    good = (headers[:, :-8] == np.frombuffer(_RESTORED_HEAD, np.uint8)).all(axis=1) & (
        exact // 1000 * 1000 == recorded_at[rows]
    )
    recorded_at[rows[good]] = exact[good]


def _extents(data: bytes, number: int) -> tuple[Int64Array, Int64Array]:
    """Two arrays: the index in `data` at which each record's body starts, and the index at which it ends. `number`: how
    many records `data` has."""
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
    """Two arrays: the zigzag varints that start at the indexes `places` of `octets`, and the index at which each
    ends."""
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
    """The byte strings whose lengths, followed by their bytes, start at the indexes `places`; and an array of the
    indexes at which they end. `data` and `octets` are the same bytes."""
    lengths, starts = _varints(octets, places)
    ends = starts + np.maximum(lengths, 0)  # a null has the length -1
    return [data[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)], ends
