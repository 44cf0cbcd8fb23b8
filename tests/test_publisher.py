"""What an upstream system gets: events in, a report of what was refused, nothing lost while the log fails."""

from __future__ import annotations

import gc
import json
import random
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import MessageSizeTooLargeError

from coupon_ledger import Publisher
from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.ledger.codec import JSON_FIELDS, decode
from coupon_ledger.ledger.errors import (
    AppendFailed,
    EventsTooLarge,
    LedgerError,
    LogClosed,
    LogFull,
    LogUnavailable,
    SettingsError,
)
from coupon_ledger.ledger.events import (
    Assigned,
    Claimed,
    CostBooked,
    Created,
    Discount,
    Event,
    Expired,
    Line,
    Linked,
    Paid,
    Profiled,
    Published,
    Refunded,
    Touched,
    Used,
)
from coupon_ledger.ledger.kafka_log import KafkaLog
from coupon_ledger.ledger.log import Chunk, EventLog, Position, Record, StoredRecord, TopicPartition
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import INPUT_TOPICS
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.live import journal
from tests import kafka_broker

AT = datetime(2026, 11, 11, 0, 0, 0, 5, tzinfo=UTC)


@pytest.fixture
def settings(log_settings: LogSettings) -> LogSettings:
    """A log that has its topics, on each backend."""
    _make(log_settings)
    return log_settings


def _make(settings: LogSettings) -> None:
    log = open_log(settings, create=True)
    log.create_topics()
    log.close()


def used(number: int, **changes: Any) -> Used:
    values = {"user_id": "u-1", "order_id": f"o-{number}", "discount_minor": number, **changes}
    common = {"event_id": f"e-{number}", "occurred_at": AT, "source": "shop", "coupon_id": f"c-{number}"}
    return Used.model_validate(common | values)


def records(settings: LogSettings) -> int:
    log = open_log(settings)
    try:
        return sum(log.end_positions(log.partitions(INPUT_TOPICS)).values())
    finally:
        log.close()


def ids_in(settings: LogSettings) -> set[str]:
    """The events in the log. One may be there twice: what is not known to be appended is appended again."""
    log = open_log(settings)
    try:
        chunks = log.read(dict.fromkeys(log.partitions(INPUT_TOPICS), 0), 100, 5.0)
        return {decode(value)[1]["event_id"] for chunk in chunks for value in chunk.values}
    finally:
        log.close()


# --- on both logs


def test_five_lines_are_enough(settings: LogSettings) -> None:
    """Else an upstream team would need more than the README to publish its first event."""
    with Publisher.open(settings.url, topic_prefix=settings.topic_prefix) as publisher:
        publisher.publish(used(1))
        publisher.publish({"topic": "coupon.events", **used(2).model_dump(mode="json")})
    assert (publisher.report.accepted, publisher.report.complete, publisher.waiting) == (2, True, ())
    assert records(settings) == 2


EVERY_TOPIC: tuple[Event, ...] = (
    Created(
        event_id="🎟️ 1",
        occurred_at=AT,
        source="shop",
        coupon_id="券-1",
        campaign_id="k-1",
        coupon_type="cash",
        face_value_minor=2**53 - 1,
        min_spend_minor=0,
        percent_off_bp=10_000,
        currency="CNY",
        valid_from=datetime(1, 1, 1, tzinfo=UTC),
        valid_until=datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        attributes={"b": [1, 2.5, None, True], "a": {"券": "🎟️"}},
    ),
    Claimed(event_id="2", occurred_at=AT, source="shop", coupon_id="券-1", user_id="u", channel="wide, \n'text'"),
    used(3, ip="::1", device_id="d", phone_prefix="138"),
    Expired(event_id="4", occurred_at=AT, source="job", coupon_id="c-4", reason="not_used"),
    Paid(
        event_id="5",
        occurred_at=AT,
        source="shop",
        order_id="o-1",
        user_id="u-1",
        currency="JPY",
        gross_minor=300,
        net_minor=250,
        discounts=(Discount(kind="coupon", amount_minor=50), Discount(kind="match", amount_minor=0, funder="brand")),
        coupon_ids=("c-1", "c-2"),
        lines=(Line(sku="s-1", net_minor=-5), Line(sku="s-2", category="bread", quantity=2, cost_minor=3)),
    ),
    Refunded(event_id="6", occurred_at=AT, source="shop", order_id="o-1", refund_minor=250),
    Published(
        event_id="7",
        occurred_at=AT,
        source="plan",
        campaign_id="k-1",
        name="双十一",
        coupon_type="cash",
        applies_to={"skus": ["s-1"]},
        funded_by={"platform": 7_000, "brand": 3_000},
    ),
    CostBooked(
        event_id="8",
        occurred_at=AT,
        source="erp",
        campaign_id="k-1",
        cost_kind="media",
        amount_minor=-7,
        currency="EUR",
    ),
    Assigned(event_id="9", occurred_at=AT, source="plan", campaign_id="k-1", user_id="u-1", arm="control"),
    Profiled(event_id="10", occurred_at=AT, source="crm", user_id="u-1", attributes={}),
    Linked(event_id="11", occurred_at=AT, source="crm", user_id="u-1", alias_id="m-1"),
    Touched(event_id="12", occurred_at=AT, source="app", user_id="u-1", kind="view"),
)


@pytest.mark.long
def test_what_was_published_is_what_the_consumer_reads(settings: LogSettings, tmp_path: Path) -> None:
    """Else the ledger would hold something other than what the shop said."""
    with Publisher.open(settings.url, topic_prefix=settings.topic_prefix) as publisher:
        for event in EVERY_TOPIC:
            assert publisher.publish(event)
    tables = journalled(settings, tmp_path)
    found = {(topic, row["event_id"]): row for topic, rows in tables.items() for row in rows}
    assert len(found) == len(EVERY_TOPIC)
    for event in EVERY_TOPIC:
        assert found[event.topic, event.event_id] == as_row(event)


def journalled(settings: LogSettings, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What a consumer made of the log: the events of each topic."""
    path = folder / "ledger.duckdb"
    create_database(path)
    log = open_log(settings)
    try:
        with open_database(path) as store:
            letters = sum(c.dead_letters for c in Consumer(log, store, outlet=log, batch_size=1_000).run())
            assert letters == 0
            tables = {t: store.frame(f"SELECT * FROM {journal.JOURNAL[t]}").to_dicts() for t in INPUT_TOPICS}
    finally:
        log.close()
    for row in (row for rows in tables.values() for row in rows):
        for name in (*journal.POSITION, "key_hash"):
            del row[name]
        for name in JSON_FIELDS & row.keys():
            row[name] = row[name] and json.loads(row[name])
    return tables


def as_row(event: Event) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.replace(tzinfo=None)
        return list(value) if isinstance(value, tuple) else value

    return {name: plain(value) for name, value in event.model_dump().items()}


def test_refused_events_are_reported_and_the_others_go_on(settings: LogSettings) -> None:
    """Else one wrong event would stop a shop's events, or vanish."""
    good = {"topic": "coupon.events", **used(1).model_dump(mode="json")}
    with Publisher.open(settings.url, topic_prefix=settings.topic_prefix) as publisher:
        taken = [
            publisher.publish(event)
            for event in (
                good,
                {**good, "event_id": "e-bad", "discount_minor": 5.5, "currency": "RMB", "user_id": None},
                {**good, "topic": "coupons"},
                {k: v for k, v in good.items() if k != "topic"},
                {**good, "event_id": 7},
                {**good, "event_id": "e-2"},
            )
        ]
    assert taken == [True, False, False, False, False, True]
    report = publisher.report
    assert (report.accepted, report.complete) == (2, False)
    assert [(r.number, r.event_id) for r in report.refused] == [(1, "e-bad"), (2, "e-1"), (3, "e-1"), (4, None)]
    assert {p.field for p in report.refused[0].problems} == {"discount_minor", "currency", "user_id"}
    assert all(p.rule for r in report.refused for p in r.problems)
    assert records(settings) == 2


def test_an_error_in_the_block_is_handed_on_and_appends_nothing_more(settings: LogSettings) -> None:
    """Else half of what a failing program was about to say would be published as if it were whole."""
    with (
        pytest.raises(RuntimeError, match="the shop failed"),
        Publisher.open(settings.url, topic_prefix=settings.topic_prefix, batch_size=2) as publisher,
    ):
        for number in range(3):
            publisher.publish(used(number))
        raise RuntimeError("the shop failed")
    assert records(settings) == 2, "a full batch goes at once"
    assert publisher.waiting == ("e-2",), "what was given and not appended can be told"


def test_a_closed_publisher_refuses_whatever_comes(settings: LogSettings) -> None:
    """On Kafka it silently connected again, with nobody to close it and its last batch never flushed."""
    publisher = Publisher.open(settings.url, topic_prefix=settings.topic_prefix)
    publisher.publish(used(1))
    publisher.close()
    for use in (lambda: publisher.publish(used(2)), publisher.flush):
        with pytest.raises(LogClosed, match=r"closed; open another"):
            use()
    publisher.close()
    assert (publisher.waiting, publisher.report.accepted, records(settings)) == ((), 1, 1)


def test_after_an_error_in_the_block_the_publisher_is_closed(settings: LogSettings) -> None:
    """Else what a failed program goes on to publish would be appended after all, without what came before it."""
    publisher = Publisher.open(settings.url, topic_prefix=settings.topic_prefix)
    with pytest.raises(RuntimeError), publisher:
        publisher.publish(used(1))
        raise RuntimeError("the shop failed")
    with pytest.raises(LogClosed):
        publisher.flush()
    publisher.close()
    assert publisher.waiting == ("e-1",) and records(settings) == 0


@pytest.fixture
def limited(settings: LogSettings, monkeypatch: pytest.MonkeyPatch) -> LogSettings:
    """A log that takes no record of two megabytes: a topic as brokers make it, and an SQLite with a lower limit."""

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = sqlite3.Connection(*arguments, **options)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)
        return connection

    monkeypatch.setattr("coupon_ledger.ledger.sqlite_log.sqlite3.connect", connect)
    return settings


def paid_for_much(event_id: str) -> Paid:
    """An order of two megabytes that do not compress."""
    source = random.Random(event_id)
    lines = tuple(Line(sku=source.randbytes(100).hex()) for _ in range(10_000))
    common = {"user_id": "u-1", "currency": "CNY", "gross_minor": 1, "net_minor": 1, "discounts": ()}
    return Paid(event_id=event_id, occurred_at=AT, source="shop", order_id=f"o-{event_id}", lines=lines, **common)


@pytest.mark.long
def test_events_that_are_too_large_are_named_and_the_others_are_appended(
    limited: LogSettings, pauses: list[float]
) -> None:
    """Else one huge order would keep a shop's events waiting for ever, and nobody could say which order it is."""
    publisher = Publisher.open(limited.url, topic_prefix=limited.topic_prefix)
    for event in (used(0), paid_for_much("huge-1"), used(2), used(3), paid_for_much("huge-2"), used(5)):
        assert publisher.publish(event)
    with pytest.raises(EventsTooLarge) as raised:
        publisher.flush()
    assert raised.value.event_ids == ("huge-1", "huge-2")
    size, limit = r"2,0\d\d,\d{3} bytes", r"1,0(48,588|00,000)\b"
    assert re.search(rf"event huge-1 of order\.events: {size} .*{limit}.*split", str(raised.value))
    assert "\n" not in str(raised.value)
    assert (publisher.waiting, publisher.report.accepted) == ((), 4)
    assert [(r.number, r.event_id) for r in publisher.report.refused] == [(1, "huge-1"), (4, "huge-2")]
    assert re.search(limit, str(publisher.report.refused[0].problems[0]))
    publisher.publish(used(6))
    publisher.close()
    assert publisher.report.accepted == 5
    assert ids_in(limited) == {f"e-{n}" for n in (0, 2, 3, 5, 6)}


def test_events_that_are_too_large_are_named_when_the_block_ends(limited: LogSettings) -> None:
    """Else a script that publishes one file would end as if everything had been appended."""
    with (
        pytest.raises(EventsTooLarge, match="event huge of order"),
        Publisher.open(limited.url, topic_prefix=limited.topic_prefix) as publisher,
    ):
        publisher.publish(paid_for_much("huge"))
        publisher.publish(used(1))
    assert (publisher.report.accepted, ids_in(limited)) == (1, {"e-1"})


def test_an_event_of_usual_size_is_never_refused_for_a_limit_that_nobody_knows() -> None:
    """Else a small event that shared a batch with a huge one would be set aside for ever."""
    log: Any = SimpleNamespace(_message_limit=lambda _topic: None)
    sizes = (100, 2_000_000, 900_000)
    records = [Record("coupon.events", b"c-1", bytes(size)) for size in sizes]
    refused = dict.fromkeys(range(len(records)), MessageSizeTooLargeError())
    too_large = KafkaLog._too_large(log, records, refused, 100_000_000)
    assert list(too_large) == [1] and "1,048,588 (Kafka's default" in too_large[1]


@pytest.mark.kafka
def test_what_the_client_would_not_send_is_too_large(kafka_log_settings: LogSettings) -> None:
    """Else an option of the client, met by one event, would look like a broker that is away."""
    _make(kafka_log_settings)
    options = {"max_request_size": 100_000}
    publisher = Publisher.open(kafka_log_settings.url, topic_prefix=kafka_log_settings.topic_prefix, kafka=options)
    publisher.publish(paid_for_much("huge"))
    publisher.publish(used(1))
    with pytest.raises(EventsTooLarge, match=r"event huge of order.*100,000, Kafka's option max_request_size"):
        publisher.close()
    assert publisher.report.accepted == records(kafka_log_settings) == 1


@pytest.mark.kafka
def test_a_topic_with_a_low_limit_takes_all_events_that_fit(kafka_log_settings: LogSettings) -> None:
    """Else a batch of small events would be refused for the size of the batch."""
    _make(kafka_log_settings)
    admin = KafkaAdminClient(bootstrap_servers=kafka_log_settings.url.removeprefix("kafka://"))
    topic = kafka_log_settings.topic_prefix + "coupon.events"
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "5000"})])
    admin.close()
    with Publisher.open(kafka_log_settings.url, topic_prefix=kafka_log_settings.topic_prefix) as publisher:
        for number in range(1_000):
            publisher.publish(used(number, device_id=random.Random(number).randbytes(100).hex()))
    assert publisher.report.accepted == 1_000
    assert records(kafka_log_settings) >= 1_000


def test_a_publisher_finds_the_log_of_the_commands(
    home: Path, sqlite_log_settings: LogSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every application would repeat addresses, prefixes and passwords that the consumer has already."""
    settings = replace(sqlite_log_settings, topic_prefix="prod.")
    _make(settings)
    Path("coupon-ledger.toml").write_text(f'[coupon-ledger]\nlog = "{settings.url}"\ntopic-prefix = "prod."\n')
    with Publisher.from_settings() as publisher:
        publisher.publish(used(1))
    Path("coupon-ledger.toml").rename("shop.toml")
    with Publisher.from_settings("shop.toml", topic_prefix="prod.") as publisher:
        publisher.publish(used(2))
    monkeypatch.setenv("COUPON_LEDGER_TOPIC_PREFIX", "prod.")
    with Publisher.from_settings(log=settings.url) as publisher:
        publisher.publish(used(3))
    assert records(settings) == 3
    with pytest.raises(SettingsError, match=r"elsewhere\.toml"):
        Publisher.from_settings("elsewhere.toml")
    with pytest.raises(SettingsError, match="topic_prefixx"):
        Publisher.from_settings(topic_prefixx="prod.")


# --- a log that fails


class FlakyLog:
    """A log that fails as it is told to, one entry an append: None (it works), an error, or the set of the indexes
    that are not acknowledged."""

    url = "flaky://"
    visible_after_s = 0.0

    def __init__(self, *failures: LedgerError | set[int] | None) -> None:
        self.failures = list(failures)
        self.held: list[Record] = []
        self.appends = 0
        self.closed = False

    def append(self, records: Sequence[Record]) -> list[Position]:
        self.appends += 1
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, LedgerError):
            raise failure
        lost = failure or set()
        self.held += [record for i, record in enumerate(records) if i not in lost]
        if lost:
            raise AppendFailed("some were not acknowledged", dict.fromkeys(sorted(lost), "timed out"))
        return [Position(record.topic, 0, n) for n, record in enumerate(records)]

    def close(self) -> None:
        self.closed = True

    def create_topics(self) -> list[str]:
        raise NotImplementedError

    def partitions(self, topics: Sequence[str] = ()) -> list[TopicPartition]:
        raise NotImplementedError

    def read(self, positions: Mapping[TopicPartition, int], max_records: int, timeout_s: float = 0.0) -> list[Chunk]:
        raise NotImplementedError

    def earliest_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        raise NotImplementedError

    def end_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        raise NotImplementedError

    def high_watermarks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        raise NotImplementedError

    def identities(self) -> dict[str, str]:
        raise NotImplementedError

    def records_at(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, StoredRecord]:
        raise NotImplementedError

    def next_recorded(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        raise NotImplementedError


def keys(log: FlakyLog) -> list[str]:
    return [record.key.decode() for record in log.held]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that a publisher makes, none of them waited for."""
    made: list[float] = []
    monkeypatch.setattr("coupon_ledger.ledger.publisher.time.sleep", made.append)
    return made


def unavailable() -> LogUnavailable:
    return LogUnavailable("the log is away")


def test_a_log_that_is_away_for_a_moment_costs_nothing(pauses: list[float]) -> None:
    """Else every restart of a broker would lose events upstream."""
    log: EventLog = FlakyLog(unavailable(), unavailable(), None)
    assert isinstance(log, FlakyLog)
    with Publisher(log) as publisher:
        for number in range(3):
            publisher.publish(used(number))
    assert keys(log) == ["c-0", "c-1", "c-2"]
    assert publisher.report.accepted == 3 and log.closed
    assert len(pauses) == 2 and pauses == sorted(pauses) and pauses[0] < pauses[1]


def test_only_what_was_not_acknowledged_is_appended_again(pauses: list[float]) -> None:
    """Else every hiccup would double a batch, or leave a hole in it."""
    log = FlakyLog({1, 3}, {0}, None)
    with Publisher(log) as publisher:
        for number in range(5):
            publisher.publish(used(number))
    assert keys(log) == ["c-0", "c-2", "c-4", "c-3", "c-1"]
    assert (publisher.report.accepted, publisher.waiting) == (5, ())


def test_what_could_not_be_appended_is_kept_for_the_next_flush(pauses: list[float]) -> None:
    """Else a caller that handles the error and goes on would have lost the batch."""
    log = FlakyLog({0}, unavailable(), unavailable())
    publisher = Publisher(log, attempts=3)
    for number in range(2):
        publisher.publish(used(number))
    with pytest.raises(LogUnavailable, match="away"):
        publisher.flush()
    assert (keys(log), publisher.waiting, publisher.report.accepted) == (["c-1"], ("e-0",), 1)
    publisher.publish(used(2))
    publisher.flush()
    assert (keys(log), publisher.waiting, publisher.report.accepted) == (["c-1", "c-0", "c-2"], (), 3)
    publisher.flush()
    assert log.appends == 4, "nothing waits, nothing is appended"


def test_a_full_log_is_told_at_once(pauses: list[float]) -> None:
    """Else a publisher would sit and wait for room that nobody makes."""
    log = FlakyLog(LogFull("no room"))
    publisher = Publisher(log)
    publisher.publish(used(1))
    with pytest.raises(LogFull):
        publisher.flush()
    assert pauses == [] and publisher.waiting == ("e-1",)
    publisher.flush()
    assert keys(log) == ["c-1"]


def test_what_is_too_large_is_named_although_the_log_is_away_then(pauses: list[float]) -> None:
    """Else an event refused just before an outage would vanish: it waits no more, and nothing was raised for it."""
    log = FlakyLog(AppendFailed("too large", {0: "not written", 1: "9 bytes"}, {1: "9 bytes"}), unavailable())
    publisher = Publisher(log, attempts=1)
    for number in range(2):
        publisher.publish(used(number))
    with pytest.raises(LogUnavailable):
        publisher.flush()
    assert list(publisher.waiting) == ["e-0"]
    with pytest.raises(EventsTooLarge, match=r"event e-1 of coupon\.events: 9 bytes"):
        publisher.flush()
    assert not publisher.waiting and keys(log) == ["c-0"]
    publisher.flush()
    assert pauses == []


def test_leaving_the_block_while_the_log_is_away_says_what_is_left(pauses: list[float]) -> None:
    """Else the last events before a shutdown would be lost without a trace."""
    log = FlakyLog(*[unavailable() for _ in range(5)])
    with pytest.raises(LogUnavailable), Publisher(log) as publisher:
        publisher.publish(used(1))
    assert publisher.waiting == ("e-1",) and log.closed


def test_a_full_batch_goes_by_itself() -> None:
    """Else a long-running publisher would keep a day in memory."""
    log = FlakyLog()
    publisher = Publisher(log, batch_size=2)
    for number in range(5):
        publisher.publish(used(number))
    assert (keys(log), publisher.waiting) == (["c-0", "c-1", "c-2", "c-3"], ("e-4",))


@pytest.mark.slow
def test_a_repeat_of_the_same_event_counts_once(sqlite_log_settings: LogSettings, tmp_path: Path) -> None:
    """Else a retry whose first try had arrived would be a double use."""
    _make(sqlite_log_settings)
    for _ in range(2):
        with Publisher.open(sqlite_log_settings.url) as publisher:
            publisher.publish(used(1))
    assert records(sqlite_log_settings) == 2
    assert len(journalled(sqlite_log_settings, tmp_path)["coupon.events"]) == 1


# --- a broker that fails


@pytest.fixture
def own_broker() -> Iterator[kafka_broker.JavaBroker]:
    if reason := kafka_broker.why_no_java():
        pytest.skip(f"needs a broker that can be stopped: {reason}")
    broker = kafka_broker.java_broker(brief=True)
    yield broker
    broker.remove()
    # kafka-python's refused sockets go now, while the session's filters know them.
    gc.collect()


@pytest.mark.kafka
@pytest.mark.slow
def test_a_broker_that_is_stopped_and_started_again_loses_nothing(
    own_broker: kafka_broker.JavaBroker, tmp_path: Path
) -> None:
    """Else a broker's upgrade would cost the events of that minute."""
    settings = LogSettings(
        url=f"kafka://{own_broker.address}",
        kafka={"delivery_timeout_ms": 3_000, "request_timeout_ms": 1_000, "max_block_ms": 2_000},
    )
    _make(settings)
    with Publisher.open(settings.url, kafka=settings.kafka, attempts=20) as publisher:
        for number in range(100):
            publisher.publish(used(number))
        publisher.flush()
        own_broker.stop()
        for number in range(100, 200):
            publisher.publish(used(number))
        # It comes back while the publisher is trying.
        restart = threading.Timer(2.0, own_broker.start)
        restart.start()
        assert own_broker.pid is None
        publisher.flush()
        restart.join()
    assert (publisher.report.accepted, publisher.waiting) == (200, ())
    rows = journalled(settings, tmp_path)["coupon.events"]
    assert {row["event_id"] for row in rows} == {f"e-{n}" for n in range(200)} and len(rows) == 200
