"""What every event log must keep, as one suite. A backend supplies `Backend` and overrides no test."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
from kafka.partitioner.default import murmur2 as kafka_murmur2

from coupon_ledger.ledger.errors import LogClosed, LogNotInitialised, LogTruncated
from coupon_ledger.ledger.log import Chunk, EventLog, Position, Record, TopicPartition
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import ALL_TOPICS, COUPON, ORDER

ROOT: Final = Path(__file__).resolve().parents[2]
PATIENCE_S: Final = 30.0

_PRODUCER: Final = """
import sys
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
url, prefix, name, batches, size = sys.argv[1:]
log = open_log(LogSettings(url=url, topic_prefix=prefix))
for batch in range(int(batches)):
    numbers = range(batch * int(size), (batch + 1) * int(size))
    positions = log.append(
        [Record("coupon.events", b"key-%d" % (n % 97), b"%s-%d" % (name.encode(), n)) for n in numbers]
    )
    for number, position in zip(numbers, positions, strict=True):
        print(number, position.partition, position.offset, flush=number + 1 == numbers.stop)
log.close()
"""


@dataclass(frozen=True)
class Backend:
    """`settings`: a log that is not there yet. `drop_head` forgets a partition's records before an offset."""

    settings: LogSettings
    drop_head: Callable[[LogSettings, TopicPartition, int], None]


@contextmanager
def opened(settings: LogSettings, *, create: bool = False) -> Iterator[EventLog]:
    log = open_log(settings, create=create)
    try:
        yield log
    finally:
        log.close()


def records(number: int, *, topic: str = COUPON, keys: int = 50, prefix: str = "") -> list[Record]:
    return [
        Record(topic, f"key-{i % keys}".encode(), f"{prefix}value-{i}-{'x' * (i % 90)}".encode()) for i in range(number)
    ]


def start_of(log: EventLog, topic: str = COUPON) -> dict[TopicPartition, int]:
    return dict.fromkeys(log.partitions([topic]), 0)


def read_until(
    log: EventLog, positions: Mapping[TopicPartition, int], number: int, max_records: int = 10_000
) -> list[Chunk]:
    """Read on from `positions` until `number` records came."""
    at = dict(positions)
    chunks: list[Chunk] = []
    deadline = time.monotonic() + PATIENCE_S
    while sum(map(len, chunks)) < number:
        assert time.monotonic() < deadline, f"{sum(map(len, chunks))} of {number} records came"
        for chunk in log.read(at, max_records, timeout_s=1.0):
            at[TopicPartition(chunk.topic, chunk.partition)] = chunk.next_offset
            chunks.append(chunk)
    return chunks


def by_position(chunks: Sequence[Chunk]) -> dict[Position, tuple[bytes, bytes]]:
    rows = [
        (Position(chunk.topic, chunk.partition, offset), (key, value))
        for chunk in chunks
        for offset, key, value in zip(chunk.offsets.tolist(), chunk.keys, chunk.values, strict=True)
    ]
    found = dict(rows)
    assert len(found) == len(rows), "a record came twice"
    return found


def start_producer(settings: LogSettings, name: str, batches: int, size: int) -> subprocess.Popen[str]:
    arguments = [settings.url, settings.topic_prefix, name, str(batches), str(size)]
    return subprocess.Popen([sys.executable, "-c", _PRODUCER, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def reported(line: str) -> tuple[int, Position]:
    number, partition, offset = map(int, line.split())
    return number, Position(COUPON, partition, offset)


class AppendingContract:
    """What was appended is in the log. Subclassed with a fixture `log`. `records`: records that the log takes."""

    records = staticmethod(records)

    def test_returned_positions_are_where_the_records_are(self, log: EventLog) -> None:
        """Else a publisher's receipt would point at someone else's event."""
        batch = self.records(3000)
        positions = log.append(batch)
        found = by_position(read_until(log, start_of(log), len(batch)))
        assert found == {p: (r.key, r.value) for p, r in zip(positions, batch, strict=True)}

    def test_a_batch_may_mix_topics(self, log: EventLog) -> None:
        """Else events of one business act could not be appended together."""
        batch = [
            record for pair in zip(self.records(300), self.records(300, topic=ORDER), strict=True) for record in pair
        ]
        positions = log.append(batch)
        found = by_position(read_until(log, start_of(log) | start_of(log, ORDER), len(batch)))
        assert found == {p: (r.key, r.value) for p, r in zip(positions, batch, strict=True)}
        assert [p.topic for p in positions] == [r.topic for r in batch]

    def test_a_keys_records_keep_their_order(self, log: EventLog) -> None:
        """Else a coupon could be used before it was issued."""
        for batch in range(5):
            log.append(self.records(200, keys=7, prefix=f"{batch:02}-"))
        seen: dict[bytes, list[bytes]] = {}
        for key, value in by_position(read_until(log, start_of(log), 1000)).values():
            seen.setdefault(key, []).append(value)
        for key, values in seen.items():
            expected = [
                r.value for batch in range(5) for r in self.records(200, keys=7, prefix=f"{batch:02}-") if r.key == key
            ]
            assert values == expected

    def test_recorded_at_never_decreases(self, log: EventLog) -> None:
        """Else "as known at" would give different answers for the same instant."""
        before_us = time.time_ns() // 1000
        for _ in range(5):
            log.append(self.records(50))
        chunks = read_until(log, start_of(log), 250)
        for tp in start_of(log):
            times = [t for c in chunks if c.partition == tp.partition for t in c.recorded_at.tolist()]
            assert times == sorted(times)
            # The broker's clock counts milliseconds.
            assert all(before_us - 1000 <= t <= time.time_ns() // 1000 for t in times)

    def test_nothing_appended_is_nothing(self, log: EventLog) -> None:
        """Else an empty batch would be an error that publishers must step around."""
        assert log.append([]) == []


class ReadingContract(AppendingContract):
    """What was appended is read, from the log itself or from its archive. Subclassed with a fixture `backend`.
    `in_order_of_recording`: whether `read` returns what was recorded first."""

    in_order_of_recording = True

    @pytest.fixture
    def log(self, backend: Backend) -> Iterator[EventLog]:
        with opened(backend.settings, create=True) as log:
            log.create_topics()
            yield log

    @pytest.mark.parametrize(("key", "value"), [(b"", b"v"), (b"k", b""), (b"", b""), (b"\x00\xff", b"\x00" * 10)])
    def test_any_bytes_come_back(self, log: EventLog, key: bytes, value: bytes) -> None:
        """Else a damaged record could not even be put among the dead letters."""
        [position] = log.append([Record(COUPON, key, value)])
        assert by_position(read_until(log, start_of(log), 1)) == {position: (key, value)}

    def test_a_large_value_comes_back(self, log: EventLog) -> None:
        """Else an order with very many lines would block its partition."""
        value = random.Random(1).randbytes(900 * 1024)
        batch = [
            Record(COUPON, b"large", value),
            Record(COUPON, b"large", b"small"),
            Record(COUPON, b"k", value),
        ]
        positions = log.append(batch)
        found = by_position(read_until(log, start_of(log), 3))
        assert found == {p: (r.key, r.value) for p, r in zip(positions, batch, strict=True)}

    def test_reading_starts_where_it_is_asked_to(self, log: EventLog) -> None:
        """Else a restart would skip or repeat events."""
        batch = records(400)
        everything = dict(zip(log.append(batch), batch, strict=True))
        at = {tp: end // 2 for tp, end in log.end_positions(log.partitions([COUPON])).items()}
        wanted = {p for p in everything if p.offset >= at[TopicPartition(p.topic, p.partition)]}
        assert set(by_position(read_until(log, at, len(wanted)))) == wanted
        assert log.read(log.end_positions(list(at)), 100) == []

    def test_the_same_place_can_be_read_again(self, log: EventLog) -> None:
        """Else a batch whose commit failed would be lost to the tables."""
        log.append(records(300))
        at = start_of(log)
        first = by_position(read_until(log, at, 300, max_records=100))
        assert by_position(read_until(log, at, 300, max_records=70)) == first
        one = next(iter(at))
        only = log.end_positions([one])[one]
        assert len(by_position(read_until(log, {one: 0}, only))) == only

    def test_max_records_is_kept_and_nothing_is_skipped(self, log: EventLog) -> None:
        """Else a batch could outgrow the memory, or lose its tail."""
        log.append(records(1000))
        at = start_of(log)
        seen = 0
        deadline = time.monotonic() + PATIENCE_S
        while seen < 1000:
            assert time.monotonic() < deadline
            chunks = log.read(at, 33, timeout_s=1.0)
            assert sum(map(len, chunks)) <= 33
            for chunk in chunks:
                tp = TopicPartition(chunk.topic, chunk.partition)
                assert chunk.offsets.tolist() == list(range(at[tp], at[tp] + len(chunk)))
                assert len(chunk) == len(chunk.keys) == len(chunk.offsets) == len(chunk.recorded_at)
                at[tp] = chunk.next_offset
                seen += len(chunk)

    def test_when_the_next_record_was_recorded_is_true_where_it_is_known(self, log: EventLog) -> None:
        """Else a topic of few events seems to be read further than it is, and what waits for it is judged without it;
        or not as far, and alerts wait for the end of a catch-up."""
        batch = records(400)
        log.append(batch)
        log.append(records(30, topic=ORDER))
        everything = start_of(log) | start_of(log, ORDER)
        chunks = read_until(log, everything, 430)
        at = {(c.topic, c.partition, o): t for c in chunks for o, t in zip(c.offsets, c.recorded_at, strict=True)}
        positions, ends, left = dict(everything), log.end_positions(list(everything)), 430
        while left:
            read = {TopicPartition(c.topic, c.partition): c for c in log.read(positions, 100, 1.0) if len(c)}
            left -= sum(map(len, read.values()))
            positions |= {tp: chunk.next_offset for tp, chunk in read.items()}
            known = log.next_recorded(positions)
            assert all(at[*tp, positions[tp]] == recorded for tp, recorded in known.items())
            waiting = {tp for tp, offset in positions.items() if offset < ends[tp] and tp not in read}
            assert not self.in_order_of_recording or waiting <= known.keys()

    def test_a_position_behind_the_end_is_refused(self, log: EventLog) -> None:
        """Else tables ahead of their log (one restored from an older copy) would silently stand still."""
        log.append(records(100))
        ahead = {tp: end + 5 for tp, end in log.end_positions(log.partitions([COUPON])).items()}
        with pytest.raises(LogTruncated, match=r"coupon\.events.*holds 0 to"):
            log.read(ahead, 10, timeout_s=PATIENCE_S)

    def test_reading_nothing_ends_with_the_timeout(self, log: EventLog) -> None:
        """Else a consumer with nothing to do could not be stopped."""
        assert log.read(start_of(log), 10, timeout_s=0.3) == []
        assert log.read({}, 10) == []


class LogContract(ReadingContract):
    """Subclassed by each backend with a fixture `backend`."""

    # --- the order of recording

    @pytest.mark.parametrize("max_records", [7, 40, 100_000])
    def test_partitions_advance_together(self, log: EventLog, max_records: int) -> None:
        """Else a coupon's uses would be folded long before the orders that were recorded beside them."""
        keys = _keys_of_partitions(4)
        topics = (COUPON, ORDER)
        for number in range(40):
            # One partition is busy, another idle, one topic gives more than the other.
            log.append([Record(COUPON, keys[0], b"c%d" % number)] * 30)
            log.append([Record(ORDER, keys[number % 2], b"o%d" % number)] * 2)
            if number == 0:
                log.append([Record(ORDER, keys[3], b"first")])
        at = log.earliest_positions(log.partitions(topics))
        ends = log.end_positions(list(at))
        latest, seen = 0, 0
        deadline = time.monotonic() + PATIENCE_S
        while seen < sum(ends.values()):
            assert time.monotonic() < deadline
            chunks = [c for c in log.read(at, max_records, timeout_s=1.0) if len(c)]
            seen += sum(map(len, chunks))
            assert sum(map(len, chunks)) <= max_records
            for chunk in chunks:
                assert int(chunk.recorded_at[0]) >= latest
                at[TopicPartition(chunk.topic, chunk.partition)] = chunk.next_offset
            latest = max([latest, *(int(c.recorded_at[-1]) for c in chunks)])
        assert at == ends

    # --- appending

    def test_partitions_are_kafkas(self, log: EventLog) -> None:
        """Else moving from the embedded log to Kafka would scatter a coupon's events."""
        seed = random.randrange(2**32)
        print("seed", seed)
        source = random.Random(seed)
        batch = [Record(COUPON, source.randbytes(source.randrange(40)), b"v") for _ in range(500)]
        number = len(log.partitions([COUPON]))
        expected = [(kafka_murmur2(r.key) & 0x7FFFFFFF) % number for r in batch]
        assert [p.partition for p in log.append(batch)] == expected

    def test_appended_is_durable_and_seen_by_another_instance(self, backend: Backend, log: EventLog) -> None:
        """Else an acknowledged event could be lost with the process that appended it."""
        positions = log.append(records(100))
        with opened(backend.settings) as other:
            assert set(by_position(read_until(other, start_of(other), 100))) == set(positions)

    @pytest.mark.long
    def test_two_producer_processes_lose_nothing(self, backend: Backend, log: EventLog) -> None:
        """Else two upstream systems could not publish at the same time."""
        producers = {name: start_producer(backend.settings, name, 10, 200) for name in ("left", "right")}
        receipts = {
            position: f"{name}-{number}".encode()
            for name, producer in producers.items()
            for number, position in map(reported, producer.communicate(timeout=120)[0].splitlines())
        }
        assert [p.returncode for p in producers.values()] == [0, 0]
        found = by_position(read_until(log, start_of(log), 4000))
        assert {position: value for position, (_, value) in found.items()} == receipts
        assert len(receipts) == 4000
        for tp, end in log.end_positions(log.partitions([COUPON])).items():
            offsets = sorted(p.offset for p in receipts if p.partition == tp.partition)
            assert offsets == list(range(end))

    def test_a_closed_log_refuses_every_request(self, backend: Backend, log: EventLog) -> None:
        """Else a log used after `close` would hold connections that nobody closes."""
        tp = TopicPartition(COUPON, 0)
        with opened(backend.settings) as closed:
            closed.append(records(1))
        for refused in (
            lambda: closed.append(records(1)),
            lambda: closed.partitions([COUPON]),
            lambda: closed.end_positions([tp]),
            lambda: closed.read({tp: 0}, 1),
            closed.create_topics,
        ):
            with pytest.raises(LogClosed, match="closed; open it again"):
                refused()
        closed.close()
        assert sum(log.end_positions(log.partitions([COUPON])).values()) == 1

    # --- topics

    def test_create_topics_is_idempotent(self, backend: Backend, log: EventLog) -> None:
        """Else a second `init` would fail, or lose what is there."""
        log.append(records(10))
        with opened(replace(backend.settings, partitions=9)) as other:
            assert other.create_topics() == []
            assert len(other.partitions([COUPON])) == backend.settings.partitions
            assert sum(map(len, read_until(other, start_of(other), 10))) == 10

    def test_create_topics_names_what_it_made(self, backend: Backend) -> None:
        """Else `init` could not say what it did."""
        with opened(backend.settings, create=True) as log:
            assert sorted(log.create_topics()) == sorted(ALL_TOPICS)
            expected = [TopicPartition(t, p) for t in sorted(ALL_TOPICS) for p in range(4)]
            assert log.partitions() == expected

    def test_missing_topics_are_named(self, backend: Backend) -> None:
        """Else someone with a fresh log would not know that `init` is what is missing."""
        with opened(backend.settings, create=True) as log:
            for refused in (
                lambda: log.partitions([COUPON]),
                lambda: log.append(records(1)),
                lambda: log.end_positions([TopicPartition(COUPON, 0)]),
            ):
                with pytest.raises(LogNotInitialised, match=r"coupon\.events.*coupon-ledger init"):
                    refused()

    def test_the_prefix_keeps_logs_apart(self, backend: Backend, log: EventLog) -> None:
        """Else a test environment on the same brokers would read production's events."""
        log.append(records(10))
        settings = replace(backend.settings, topic_prefix=backend.settings.topic_prefix + "other.")
        with opened(settings) as other:
            with pytest.raises(LogNotInitialised):
                other.partitions()
            other.create_topics()
            assert set(other.end_positions(other.partitions()).values()) == {0}
            [position] = other.append([Record(COUPON, b"k", b"theirs")])
            assert by_position(read_until(other, start_of(other), 1)) == {position: (b"k", b"theirs")}
            assert {tp.topic for tp in other.partitions()} == set(ALL_TOPICS)
        assert sum(log.end_positions(log.partitions()).values()) == 10

    # --- reading

    def test_retention_is_noticed(self, backend: Backend, log: EventLog) -> None:
        """Else a rebuild over a shortened log would quietly produce tables with holes."""
        log.append(records(400))
        partitions = log.partitions([COUPON])
        first = partitions[0]
        end = log.end_positions(partitions)
        assert log.earliest_positions(partitions) == dict.fromkeys(partitions, 0)
        backend.drop_head(backend.settings, first, 10)
        assert log.earliest_positions(partitions) == dict.fromkeys(partitions, 0) | {first: 10}
        assert log.end_positions(partitions) == end
        with pytest.raises(LogTruncated, match=rf"no offset 3, it holds 10 to {end[first]}"):
            log.read({first: 3}, 10, timeout_s=PATIENCE_S)
        assert min(p.offset for p in by_position(read_until(log, {first: 10}, end[first] - 10))) == 10
        backend.drop_head(backend.settings, first, end[first])
        assert log.earliest_positions([first]) == log.end_positions([first]) == {first: end[first]}
        [position] = log.append([Record(COUPON, _keys_of_partitions(4)[0], b"next")])
        assert position == Position(COUPON, 0, end[first])

    def test_a_waiting_read_wakes_for_anothers_append(self, backend: Backend, log: EventLog) -> None:
        """Else an event would be visible only at the end of the consumer's wait."""
        chunks: list[Chunk] = []
        at = start_of(log)
        reader = threading.Thread(target=lambda: chunks.extend(log.read(at, 10, timeout_s=120.0)))
        reader.start()
        with opened(backend.settings) as other:
            [position] = other.append([Record(COUPON, b"k", b"v")])
        reader.join(PATIENCE_S)
        assert not reader.is_alive()
        assert set(by_position(chunks)) == {position}

    @pytest.mark.long
    def test_ends_can_be_asked_while_another_thread_reads(self, log: EventLog) -> None:
        """Else lag could not be shown while events are folded."""
        failures: list[BaseException] = []

        def read() -> None:
            try:
                read_until(log, at, 5000, max_records=50)
            except BaseException as error:
                failures.append(error)

        at = start_of(log)
        reader = threading.Thread(target=read)
        reader.start()
        ends = []
        for _ in range(50):
            log.append(records(100))
            ends.append(sum(log.end_positions(list(at)).values()))
            assert set(log.earliest_positions(list(at)).values()) == {0}
        reader.join(PATIENCE_S)
        assert failures == [] and not reader.is_alive()
        assert ends == list(range(100, 5001, 100))


def _keys_of_partitions(number: int) -> list[bytes]:
    """A key for each partition, in the partitions' order."""
    found: dict[int, bytes] = {}
    for i in range(1000):
        key = b"probe-%d" % i
        found.setdefault((kafka_murmur2(key) & 0x7FFFFFFF) % number, key)
    return [found[partition] for partition in range(number)]
