"""The log on a real Kafka broker keeps the contract, and what else can befall brokers."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import CorruptRecordError, UnsupportedCodecError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from coupon_ledger.ledger.errors import AppendFailed, LogNotAnswering, LogNotInitialised, LogUnavailable, SettingsError
from coupon_ledger.ledger.kafka_log import KafkaLog
from coupon_ledger.ledger.kafka_reader import _first_recorded, decode_batch
from coupon_ledger.ledger.log import FIRST_RECORDED_US, LAST_RECORDED_US, EventLog, Record, TopicPartition
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import COUPON
from tests import kafka_broker
from tests.contract.log_contract import (
    PATIENCE_S,
    Backend,
    LogContract,
    by_position,
    opened,
    read_until,
    records,
    start_of,
)

pytestmark = pytest.mark.kafka


def server_of(settings: LogSettings) -> str:
    return settings.url.removeprefix("kafka://")


@contextmanager
def admin_of(settings: LogSettings) -> Iterator[Any]:
    admin = KafkaAdminClient(bootstrap_servers=server_of(settings))
    yield admin
    admin.close()


def drop_head(settings: LogSettings, tp: TopicPartition, before: int) -> None:
    with admin_of(settings) as admin:
        admin.delete_records({KafkaPartition(settings.topic_prefix + tp.topic, tp.partition): before})


@pytest.fixture
def backend(kafka_log_settings: LogSettings) -> Backend:
    return Backend(kafka_log_settings, drop_head)


class TestKafkaLog(LogContract):
    pass


@pytest.fixture
def kafka_log(kafka_log_settings: LogSettings) -> Iterator[EventLog]:
    with opened(kafka_log_settings) as log:
        log.create_topics()
        yield log


def producer_of(settings: LogSettings, **options: Any) -> Any:
    return KafkaProducer(bootstrap_servers=server_of(settings), acks="all", **options)


# --- what others put into the topics


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
def test_records_of_other_producers_are_read_as_the_client_reads_them(
    kafka_log_settings: LogSettings, kafka_log: EventLog, compression: str | None
) -> None:
    """Else our faster decoding would show other bytes than any Kafka client does."""
    seed = random.randrange(2**32)
    print("seed", seed)
    source = random.Random(seed)
    topic = kafka_log_settings.topic_prefix + COUPON
    producer = producer_of(kafka_log_settings, compression_type=compression, linger_ms=5)
    for number in range(2000):
        key = source.choice([None, b"", source.randbytes(source.randrange(200))])
        value = source.choice([b"", source.randbytes(source.randrange(300)), b"z" * source.randrange(20_000)])
        headers = [("h" * source.randrange(90), b"v" * source.randrange(200))] * source.randrange(3)
        producer.send(topic, value=None if key and number % 7 == 0 else value, key=key, headers=headers)
    producer.close()
    ours = by_position(read_until(kafka_log, start_of(kafka_log), 2000, max_records=300))
    assert {(p.partition, p.offset): row for p, row in ours.items()} == {
        (r.partition, r.offset): (r.key or b"", r.value or b"") for r in read_with_client(kafka_log_settings, 2000)
    }


def read_with_client(settings: LogSettings, number: int) -> list[ConsumerRecord]:
    consumer = KafkaConsumer(
        bootstrap_servers=server_of(settings), auto_offset_reset="earliest", isolation_level="read_committed"
    )
    consumer.assign([KafkaPartition(settings.topic_prefix + COUPON, p) for p in range(4)])
    found: list[ConsumerRecord] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < number:
        assert time.monotonic() < deadline
        for batch in consumer.poll(timeout_ms=500).values():
            found += batch
    consumer.close()
    return found


def test_only_committed_transactions_are_read(kafka_log_settings: LogSettings, kafka_log: EventLog) -> None:
    """Else what an upstream transaction took back would be counted."""
    topic = kafka_log_settings.topic_prefix + COUPON
    producer = producer_of(kafka_log_settings, transactional_id=topic, compression_type="lz4")
    producer.init_transactions()
    for number in range(9):
        producer.begin_transaction()
        for i in range(20):
            producer.send(topic, value=b"%d-%d" % (number, i), key=b"k", partition=0)
        producer.flush()
        if number % 3 == 1:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    producer.close()
    committed = [b"%d-%d" % (n, i) for n in range(9) if n % 3 != 1 for i in range(20)]
    first = TopicPartition(COUPON, 0)
    for max_records in (7, 10_000):
        chunks = read_until(kafka_log, {first: 0}, len(committed), max_records)
        assert [v for c in chunks for v in c.values] == committed
        assert all(a.next_offset <= b.next_offset for a, b in pairwise(chunks))
    end = kafka_log.end_positions([first])[first]
    # The last marker has no record behind it: reading must get past it all the same.
    at = chunks[-1].next_offset
    deadline = time.monotonic() + PATIENCE_S
    while at < end:
        assert time.monotonic() < deadline
        for chunk in kafka_log.read({first: at}, 10, timeout_s=1.0):
            assert len(chunk) == 0
            at = chunk.next_offset
    assert at == end == 9 * 21


def test_an_open_transaction_does_not_count_as_lag(kafka_log_settings: LogSettings, kafka_log: EventLog) -> None:
    """Else lag would never come down to 0 while an upstream transaction hangs."""
    topic = kafka_log_settings.topic_prefix + COUPON
    producer = producer_of(kafka_log_settings, transactional_id=topic)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, value=b"pending", key=b"k", partition=0)
    producer.flush()
    first = TopicPartition(COUPON, 0)
    assert kafka_log.end_positions([first]) == {first: 0}
    assert kafka_log.read({first: 0}, 10, timeout_s=0.5) == []
    # What waits is not hidden.
    assert kafka_log.high_watermarks([first]) == {first: 1}
    assert isinstance(kafka_log, KafkaLog)
    [open_] = kafka_log.open_transactions([first])[first]
    assert open_.first_offset == 0 and open_.written_at_ms > 0
    producer.commit_transaction()
    producer.close()
    assert [c.values for c in read_until(kafka_log, {first: 0}, 1)] == [[b"pending"]]


# --- decoding


def encoded(count: int, compression: int = 0) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, compression, False, -1, -1, -1, 1_000_000)
    for i in range(count):
        builder.append(i, 1000 + i, b"key-%d" % i, b"value-%d" % i * 30, [])
    built: bytearray = builder.build()
    return built


@pytest.mark.parametrize(
    ("timestamp", "recorded_at"),
    [(1 << 62, LAST_RECORDED_US), (-(1 << 62), FIRST_RECORDED_US), (-1, -1_000), (10**15, LAST_RECORDED_US)],
)
def test_timestamps_that_no_calendar_has_are_given_as_the_nearest(timestamp: int, recorded_at: int) -> None:
    """Else whoever shows them ends in a traceback, and a product of 64 bits is another instant."""
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1_000_000)
    for i in range(3):
        builder.append(i, timestamp, b"key", b"value", [])
    assert decode_batch(DefaultRecordBatch(builder.build())).recorded_at.tolist() == [recorded_at] * 3


def test_timestamps_of_producers_are_kept() -> None:
    """Else a topic made by someone else (CreateTime) would have one time for a whole batch."""
    columns = decode_batch(DefaultRecordBatch(encoded(300)))
    assert columns.recorded_at.tolist() == list(range(1_000_000, 1_300_000, 1000))
    assert columns.offsets.tolist() == list(range(300))


@pytest.mark.parametrize("compression", [0, 1, 2, 3, 4])
def test_damaged_batches_are_refused(compression: int) -> None:
    """Else damaged bytes (behind a matching checksum) could become other events."""
    seed = random.randrange(2**32)
    print("seed", seed)
    source = random.Random(seed)
    whole = encoded(20, compression)
    expected = decode_batch(DefaultRecordBatch(whole))
    assert not _damaged(whole, 61, 1).validate_crc()
    for _ in range(300):
        batch = _damaged(encoded(20), source.randrange(61, 600), source.randrange(1, 256))
        try:
            columns = decode_batch(batch)
        except CorruptRecordError:
            continue
        # A changed byte of a value is the checksum's to find; the shape must hold.
        assert len(columns.offsets) == len(columns.keys) == len(columns.values) == len(expected)


def _damaged(batch: bytearray, place: int, flip: int) -> DefaultRecordBatch:
    copy = bytearray(batch)
    copy[place] ^= flip
    return DefaultRecordBatch(copy)


def test_records_of_one_instant_are_shared() -> None:
    """Else one busy partition would leave the others' coupons standing still."""
    one, other, third = (TopicPartition(COUPON, p) for p in range(3))
    ready = {one: np.array([1, 5, 5, 5, 5, 5]), other: np.array([5, 5, 5, 5]), third: np.array([2, 3, 9])}
    assert _first_recorded(ready, 7) == {one: 3, other: 2, third: 2}
    assert _first_recorded(ready, 2) == {one: 1, other: 0, third: 1}
    assert _first_recorded(ready, 100) == {one: 6, other: 4, third: 3}


def test_a_batch_cut_short_is_refused() -> None:
    """Else the last records of a cut batch would silently be missing."""
    whole = encoded(20)
    for end in range(61, len(whole)):
        with pytest.raises(CorruptRecordError):
            decode_batch(DefaultRecordBatch(whole[:end]))


@pytest.mark.parametrize("compression", [1, 2, 3, 4])
def test_damaged_compressed_batches_are_refused(compression: int) -> None:
    """Else each compression's own error would end the consumer without a word that names the batch."""
    seed = random.randrange(2**32)
    print("seed", seed)
    source = random.Random(seed)
    whole = encoded(20, compression)
    for _ in range(300):
        batch = _damaged(encoded(20, compression), source.randrange(61, len(whole)), source.randrange(1, 256))
        with suppress(CorruptRecordError):
            assert len(decode_batch(batch)) == 20


@pytest.mark.parametrize(
    ("compression", "module", "package"), [(2, "snappy", "python-snappy"), (4, "zstd", "zstandard")]
)
def test_a_compression_that_cannot_be_read_names_its_package(
    compression: int, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the remedy would be to check the network."""
    batch = DefaultRecordBatch(encoded(20, compression))
    monkeypatch.setattr(f"kafka.codec.{module}", None)
    with pytest.raises(UnsupportedCodecError, match=f"pip install {package}"):
        decode_batch(batch)


def test_a_missing_package_is_said_with_the_partition(
    kafka_log_settings: LogSettings, kafka_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody would know which producer to ask."""
    topic = kafka_log_settings.topic_prefix + COUPON
    producer = producer_of(kafka_log_settings, compression_type="zstd")
    producer.send(topic, value=b"v" * 1000, key=b"k", partition=1)
    producer.close()
    monkeypatch.setattr("kafka.codec.zstd", None)
    with pytest.raises(LogUnavailable, match=rf"{topic} partition 1: .* zstd; pip install zstandard") as refused:
        kafka_log.read(start_of(kafka_log), 10, timeout_s=PATIENCE_S)
    assert not isinstance(refused.value, LogNotAnswering)
    monkeypatch.undo()
    assert [c.values for c in read_until(kafka_log, start_of(kafka_log), 1) if len(c)] == [[b"v" * 1000]]


def test_a_failed_checksum_stops_reading(kafka_log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else damage on the way or on the broker's disk would become facts."""
    kafka_log.append(records(10))
    monkeypatch.setattr(DefaultRecordBatch, "validate_crc", lambda _: False)
    with pytest.raises(LogUnavailable, match="checksum"):
        kafka_log.read(start_of(kafka_log), 10, timeout_s=PATIENCE_S)
    monkeypatch.undo()
    assert sum(map(len, read_until(kafka_log, start_of(kafka_log), 10))) == 10


# --- topics, options, groups


def test_topics_are_made_to_keep_everything(kafka_log_settings: LogSettings, kafka_log: EventLog) -> None:
    """Else Kafka would delete the ledger's truth after seven days."""
    from kafka.admin import ConfigResource, ConfigResourceType

    resource = ConfigResource(ConfigResourceType.TOPIC, kafka_log_settings.topic_prefix + COUPON)
    with admin_of(kafka_log_settings) as admin:
        described = str(admin.describe_configs([resource]))
    for setting, value in (
        ("message.timestamp.type", "LogAppendTime"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
    ):
        assert value in described.partition(setting)[2][:120]


def test_nothing_makes_a_topic_by_the_way(kafka_log_settings: LogSettings) -> None:
    """Else a mistyped prefix would make topics with a broker's defaults: one partition, seven days."""
    tp = TopicPartition(COUPON, 0)
    with opened(kafka_log_settings) as log:
        with pytest.raises(LogNotInitialised):
            log.append(records(1))
        with pytest.raises(LogNotInitialised):
            log.end_positions([tp])
        assert log.read({tp: 0}, 10, timeout_s=0.5) == []
    with admin_of(kafka_log_settings) as admin:
        assert not [t for t in admin.list_topics() if t.startswith(kafka_log_settings.topic_prefix)]


def test_two_may_create_topics_at_once(kafka_log_settings: LogSettings) -> None:
    """Else starting two services at once would fail one of them."""
    made: list[list[str]] = []

    def make() -> None:
        with opened(kafka_log_settings) as log:
            made.append(log.create_topics())

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(made) == 3 and len({t for topics in made for t in topics}) == sum(map(len, made)) == 7


def test_more_replicas_than_brokers_is_explained(kafka_log_settings: LogSettings) -> None:
    """Else `init` would end in an error number."""
    with (
        opened(replace(kafka_log_settings, replication=3)) as log,
        pytest.raises(LogUnavailable, match="replication factor of 3"),
    ):
        log.create_topics()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"sasl_mechanisn": "PLAIN"}, "unknown option sasl_mechanisn"),
        ({"acks": "1"}, "acks is set by the ledger"),
        ({"isolation_level": "read_uncommitted"}, "isolation_level is set by the ledger"),
        ({"request_timeout_ms": "soon"}, "request_timeout_ms = 'soon' is not a int"),
        ({"ssl_check_hostname": "perhaps"}, "ssl_check_hostname = 'perhaps' is not a boolean"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], problem: str) -> None:
    """Else a mistyped TLS setting would be ignored, or a promise of the log be switched off."""
    with pytest.raises(SettingsError, match=problem):
        open_log(LogSettings(url="kafka://127.0.0.1:9092", kafka=options))


@pytest.mark.parametrize("url", ["kafka://", "kafka://host", "kafka://host:port", "kafka://a:1,,b:2"])
def test_an_address_without_a_port_is_refused(url: str) -> None:
    """Else the client would try localhost."""
    with pytest.raises(SettingsError, match="is not host:port"):
        open_log(LogSettings(url=url))


def test_options_reach_the_clients_with_their_types(kafka_log_settings: LogSettings) -> None:
    """Else options from the environment, which are text, could not be used."""
    options = {"fetch_max_wait_ms": "100", "metrics_enabled": "true", "receive_buffer_bytes": "65536"}
    with opened(replace(kafka_log_settings, kafka=options | {"client_id": "shop"})) as log:
        log.create_topics()
        log.append(records(10))
        assert sum(map(len, read_until(log, start_of(log), 10))) == 10


def test_group_offsets_are_published(kafka_log_settings: LogSettings, kafka_log: EventLog) -> None:
    """Else Kafka's lag tools would not show the ledger."""
    assert isinstance(kafka_log, KafkaLog)
    kafka_log.append(records(100))
    at = kafka_log.end_positions(kafka_log.partitions([COUPON]))
    group = kafka_log_settings.topic_prefix + "ledger"
    deadline = time.monotonic() + PATIENCE_S
    while kafka_log.commit_group(at, group) is not None:  # the broker's group topic is made meanwhile
        assert time.monotonic() < deadline
    with admin_of(kafka_log_settings) as admin:
        offsets = admin.list_group_offsets(group)[group]
    found = {tp.partition: meta.offset for tp, meta in offsets.items()}
    assert found == {tp.partition: offset for tp, offset in at.items()}


# --- brokers that are away


def test_no_broker_is_said_in_one_sentence(caplog: pytest.LogCaptureFixture) -> None:
    """Else a wrong address would be a page of tracebacks."""
    with pytest.raises(LogUnavailable) as refused, opened(LogSettings(url="kafka://127.0.0.1:1")) as log:
        log.partitions()
    assert "kafka://127.0.0.1:1" in str(refused.value) and "ECONNREFUSED" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not [t for t in threading.enumerate() if t.name.startswith("kafka")]


@pytest.fixture(scope="module")
def mortal() -> Iterator[kafka_broker.JavaBroker]:
    if reason := kafka_broker.why_no_java():
        pytest.skip(f"needs a broker that can be killed: {reason}")
    broker = kafka_broker.java_broker(brief=True)
    yield broker
    broker.remove()


@pytest.fixture
def own_broker(mortal: kafka_broker.JavaBroker) -> kafka_broker.JavaBroker:
    """A broker that the test may end."""
    if mortal.pid is None:
        mortal.start()
    return mortal


def settings_at(broker: kafka_broker.JavaBroker, **options: Any) -> LogSettings:
    return LogSettings(url=f"kafka://{broker.address}", topic_prefix=f"t{uuid.uuid4().hex[:12]}.", kafka=options)


@pytest.mark.slow
def test_a_dead_broker_loses_nothing_acknowledged(own_broker: kafka_broker.JavaBroker) -> None:
    """Else a power cut would lose receipts, or leave the publisher unable to go on."""
    settings = settings_at(own_broker, delivery_timeout_ms=3000, request_timeout_ms=2000)
    with opened(settings) as log, opened(settings) as fresh:
        log.create_topics()
        before = log.append(records(200, prefix="before-"))
        own_broker.kill()
        batch = records(50, prefix="during-")
        with pytest.raises(AppendFailed, match="50 of 50 records were not acknowledged") as failed:
            log.append(batch)
        assert set(failed.value.failures) == set(range(50))
        with pytest.raises(LogUnavailable):
            log.end_positions([TopicPartition(COUPON, 0)])
        with pytest.raises(LogUnavailable):
            fresh.append(batch)
        own_broker.start()
        during = [log.append([batch[i]])[0] for i in failed.value.failures]
        found = by_position(read_until(log, start_of(log), 250))
        assert set(before) | set(during) <= set(found)
        assert {v for _, v in found.values()} == {r.value for r in [*records(200, prefix="before-"), *batch]}


@pytest.mark.slow
def test_a_hanging_broker_ends_the_wait(own_broker: kafka_broker.JavaBroker) -> None:
    """Else a publisher would wait for ever on a broker that neither answers nor closes."""
    settings = settings_at(own_broker, delivery_timeout_ms=2000, request_timeout_ms=1500)
    with opened(settings) as log:
        log.create_topics()
        log.append(records(10))
        own_broker.pause()
        try:
            with pytest.raises(AppendFailed, match="broker not reachable") as failed:
                log.append(records(10, prefix="again-"))
            with pytest.raises(LogUnavailable):
                log.end_positions([TopicPartition(COUPON, 0)])
        finally:
            own_broker.resume()
        retried = [log.append([records(10, prefix="again-")[i]])[0] for i in failed.value.failures]
        deadline = time.monotonic() + PATIENCE_S
        while not set(retried) <= set(by_position(read_until(log, start_of(log), 20))):
            assert time.monotonic() < deadline


@pytest.mark.slow
def test_a_reader_survives_a_restart(own_broker: kafka_broker.JavaBroker) -> None:
    """Else every restart of a broker would need a restart of the ledger."""
    with opened(settings_at(own_broker)) as log:
        log.create_topics()
        log.append(records(100))
        at = start_of(log)
        for chunk in read_until(log, at, 100):
            at[TopicPartition(chunk.topic, chunk.partition)] = chunk.next_offset
        own_broker.kill()
        assert log.read(at, 10, timeout_s=0.5) == []
        own_broker.start()
        [position] = log.append([Record(COUPON, b"k", b"after")])
        assert set(by_position(read_until(log, at, 1))) == {position}


@pytest.mark.slow
def test_a_silent_broker_is_noticed_by_the_reader(
    own_broker: kafka_broker.JavaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a ledger cut off from its log would look as if it were up to date."""
    monkeypatch.setattr("coupon_ledger.ledger.kafka_log.PROBE_S", 0.5)
    with opened(settings_at(own_broker)) as log:
        log.create_topics()
        at = start_of(log)
        own_broker.kill()
        deadline = time.monotonic() + PATIENCE_S
        with pytest.raises(LogUnavailable):
            while time.monotonic() < deadline:
                log.read(at, 10, timeout_s=0.3)


WAITING = """
import gc, os
from coupon_ledger.ledger import kafka_log
from coupon_ledger.ledger.errors import LogUnavailable
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings

kafka_log.ANSWER_MS, kafka_log.COLLECT_S = 300, 0.0
gc.disable()  # as seldom as it runs where nothing happens
log = open_log(LogSettings(url="kafka://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"))
for _ in range(8):
    try:
        log.partitions()
    except LogUnavailable:
        print(len(os.listdir("/proc/self/fd")))
"""


def test_waiting_for_a_broker_costs_no_sockets() -> None:
    """After half an hour without a broker a consumer could open no file any more, and end.

    In a process of its own: here the test's capture of log records would keep them.
    """
    ran = subprocess.run([sys.executable, "-c", WAITING], capture_output=True, text=True, check=True)
    first, *more = map(int, ran.stdout.split())
    assert len(more) == 7 and max(more) <= first + 8, (first, more)


def test_what_is_read_is_in_arrays(kafka_log: EventLog) -> None:
    """Else the columnar decoding behind would fall back to rows."""
    kafka_log.append(records(10))
    for chunk in read_until(kafka_log, start_of(kafka_log), 10):
        assert chunk.offsets.dtype == chunk.recorded_at.dtype == np.int64
