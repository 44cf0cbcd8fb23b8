"""`doctor`: each finding, provoked."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from importlib.machinery import ModuleSpec
from pathlib import Path

import duckdb
import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from coupon_ledger.api.contact import token_file
from coupon_ledger.ledger.kafka_reader import CODECS
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import COUPON
from tests.command_line import DATABASE, LOG, coupon_event, done, ledger, ndjson
from tests.owners import owning


@pytest.fixture
def healthy(home: Path) -> None:
    done("init")
    done("publish", "-", stdin=ndjson([coupon_event("created", "e-1"), coupon_event("issued", "e-2")]))
    done("consume")


def found(*arguments: str, level: str = "error") -> dict[str, tuple[str, str]]:
    """What and remedy of the findings of that level, by object."""
    ran = ledger("doctor", "--output", "json", *arguments)
    assert ran.code == int(any(f["level"] == "error" for f in ran.json)), ran.err
    chosen = {f["object"]: (f["finding"], f["remedy"]) for f in ran.json if f["level"] == level}
    assert all(remedy for _, remedy in chosen.values()) or level == "ok"
    return chosen


def in_database(statement: str) -> None:
    with duckdb.connect(DATABASE) as connection:
        connection.execute(statement)


def in_log(*statements: str) -> None:
    with closing(sqlite3.connect(LOG)) as log, log:
        for statement in statements:
            log.execute(statement)


@pytest.mark.long
def test_nothing_is_found_where_all_is_well(healthy: None) -> None:
    assert found() == found(level="warning") == {}
    assert "0 errors, 0 warnings" in done("doctor").out
    assert found(level="ok")["positions"][0] == "2 records, all folded"


def test_what_is_not_there(home: Path) -> None:
    errors = found()
    assert errors[f"database {DATABASE}"] == ("not there", "make it with `coupon-ledger init`")
    assert errors[f"log sqlite:///{LOG}"] == ("no such file", "run `coupon-ledger init` to make it")


@pytest.mark.slow
def test_a_database_of_another_version(healthy: None) -> None:
    in_database("UPDATE ledger SET version = 99")
    [(what, remedy)] = found().values()
    assert "version 99" in what and "newer coupon-ledger" in remedy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "level", "place", "words", "remedy"),
    [
        ("INSERT INTO outbox VALUES ('t', 'k', 'v')", "warning", "outbox", "1 record to be appended", "consume"),
        (
            "INSERT INTO dead_letters VALUES ('coupon.events', 0, 7, now(), 'k', 'v', 'invalid_event', '…')",
            "warning",
            "dead letters",
            "1 record not folded",
            "dead-letters list",
        ),
        ("UPDATE ledger SET data_clock = now() + INTERVAL 1 HOUR", "error", "data's clock", "ahead", "chronyc"),
        ("UPDATE checkpoints SET next_offset = 900", "error", f"log sqlite:///{LOG}", "was read up to 900", "--log"),
    ],
    ids=["outbox", "dead letters", "data clock", "positions"],
)
def test_what_the_database_tells(
    healthy: None, statement: str, level: str, place: str, words: str, remedy: str
) -> None:
    in_database(statement)
    what, do = found(level=level)[place]
    assert words in what and remedy in do


@pytest.mark.slow
def test_what_is_not_folded_yet(healthy: None) -> None:
    done("publish", "-", stdin=ndjson([coupon_event("claimed", "e-3")]))
    assert found(level="warning")["lag"] == ("1 record not folded yet", "coupon-ledger consume")


@pytest.mark.slow
def test_a_damaged_log(healthy: None) -> None:
    size = Path(LOG).stat().st_size
    in_log("PRAGMA wal_checkpoint(TRUNCATE)")
    with Path(LOG).open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 4))
    assert found()


@pytest.mark.slow
def test_a_log_that_may_be_changed(healthy: None) -> None:
    in_log("DROP TRIGGER records_never_go")
    what, remedy = found()[f"log file {Path(LOG).absolute()}"]
    assert "records_never_go" in what and "archive" in remedy


@pytest.mark.slow
def test_a_log_whose_clock_is_ahead(healthy: None) -> None:
    ahead = (time.time_ns() // 1000) + 3_600_000_000
    in_log(
        f"INSERT INTO records SELECT partition_id, next_offset, {ahead}, x'00', x'00' FROM partitions LIMIT 1",
        f"UPDATE partitions SET next_offset = next_offset + 1, recorded_at = {ahead}"
        " WHERE partition_id = (SELECT partition_id FROM records ORDER BY recorded_at DESC LIMIT 1)",
    )
    what, remedy = found()["clock"]
    assert "ahead of this machine's clock" in what and "chronyc" in remedy


@pytest.mark.slow
def test_a_disk_too_small_for_as_much_again(healthy: None) -> None:
    os.truncate(DATABASE, 1 << 43)  # takes no room, but a copy would
    what, remedy = found(level="warning")["disk of the database"]
    assert "too little" in what and "free space" in remedy


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_rights(healthy: None, home: Path) -> None:
    Path(DATABASE).chmod(0o444)
    home.chmod(0o555)
    try:
        errors = found()
    finally:
        home.chmod(0o755)
    assert f"folder {home}" in errors and f"file {DATABASE}" in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lacking", "place", "arguments", "level"),
    [
        ("crc32c", "crc32c", (), "warning"),
        ("fastapi", "extra [service]", (), "warning"),
        ("confluent_kafka", "extra [registry]", ("--schema-registry", "http://127.0.0.1:1"), "error"),
    ],
)
def test_missing_packages(
    healthy: None,
    monkeypatch: pytest.MonkeyPatch,
    lacking: str,
    place: str,
    arguments: tuple[str, ...],
    level: str,
) -> None:
    there: Callable[..., ModuleSpec | None] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == lacking else there(name))
    _, remedy = found(*arguments, level=level)[place]
    assert remedy.startswith("pip install")


@pytest.mark.slow
def test_an_archive(healthy: None) -> None:
    done("archive", "--to", "kept")
    assert "2 records" in found("--archive", "kept", level="ok")["archive kept"][0]
    next(Path("kept").rglob("*.parquet")).unlink()
    what, remedy = found("--archive", "kept")["archive kept"]
    assert "missing" in what and remedy == "coupon-ledger archive verify kept"
    assert "archive nowhere" in found("--archive", "nowhere")


@pytest.mark.slow
def test_beside_an_owner_and_after_one_that_was_killed(healthy: None) -> None:
    with owning() as owner:
        assert f"process {owner.process.pid}" in found(level="ok")["owner"][0]
        assert found() == {}
        token = token_file(Path(DATABASE))
        token.chmod(0o644)
        assert found()[f"token file {token}"][1] == f"chmod 600 {token}"
        token.chmod(0o600)
        owner.process.kill()
        owner.process.wait()
    [(what, remedy)] = found(level="warning").values()
    assert f"process {owner.process.pid}, which is gone" in what and remedy == "coupon-ledger consume"
    done("consume")
    assert found(level="warning") == {}


# ── Kafka ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def kafka(home: Path, kafka_log_settings: LogSettings) -> tuple[str, ...]:
    at = ("--log", kafka_log_settings.url, "--topic-prefix", kafka_log_settings.topic_prefix)
    done("init", *at, "--partitions", "2")
    done("publish", "-", *at, stdin=ndjson([coupon_event("created", "e-1")]))
    done("consume", *at)
    return (*at, "--partitions", "2")


@pytest.mark.kafka
def test_topics_as_they_must_be(kafka: tuple[str, ...]) -> None:
    assert found(*kafka) == found(*kafka, level="warning") == {}
    assert found(*kafka, level="ok")[f"topic {kafka[3]}{COUPON}"][0] == "2 partitions, 1 replicas, kept for ever"


@pytest.mark.kafka
def test_markers_of_transactions_are_no_records(kafka: tuple[str, ...]) -> None:
    """Positions count them, and more records seemed to be there than were ever appended."""
    server = kafka[1].removeprefix("kafka://")
    with closing(KafkaProducer(bootstrap_servers=server, transactional_id=kafka[3])) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(kafka[3] + COUPON, value=b"taken back", key=b"c-1")
        producer.flush()
        producer.abort_transaction()
    done("consume", *kafka[:4])
    assert found(*kafka, level="ok")["positions"][0] == "1 record, all folded"


@pytest.mark.kafka
def test_a_missing_codec(kafka: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CODECS, 4, ("zstd", "no_such_module", "zstandard"))
    what, remedy = found(*kafka)["compression zstd"]
    assert "zstandard is missing" in what and remedy == "pip install zstandard"


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("key", "value", "level"),
    [
        ("retention.ms", "604800000", "warning"),
        ("retention.bytes", "1000000", "warning"),
        ("cleanup.policy", "compact", "error"),
        ("message.timestamp.type", "CreateTime", "error"),
    ],
)
def test_topics_configured_otherwise(kafka: tuple[str, ...], key: str, value: str, level: str) -> None:
    topic = kafka[3] + COUPON
    with closing(KafkaAdminClient(bootstrap_servers=kafka[1].removeprefix("kafka://"))) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {key: value})])
    what, remedy = found(*kafka, level=level)[f"topic {topic}"]
    assert what.startswith(f"{key} is {value}: ")
    assert remedy.startswith("kafka-configs.sh") and topic in remedy


@pytest.mark.kafka
def test_topics_with_less_than_the_settings_say(kafka: tuple[str, ...]) -> None:
    topic = f"topic {kafka[3]}{COUPON}"
    assert "1 replicas, and the settings say 3" in found(*kafka, "--replication", "3", level="warning")[topic][0]
    assert "2 partitions, and the settings say 6" in found(*kafka, "--partitions", "6", level="warning")[topic][0]


@pytest.mark.kafka
def test_records_that_wait_behind_an_open_transaction(kafka: tuple[str, ...]) -> None:
    """Before, all was said to be folded: acknowledged events were nowhere to be seen."""
    topic = kafka[3] + COUPON
    server = kafka[1].removeprefix("kafka://")
    hanging = KafkaProducer(bootstrap_servers=server, transactional_id=topic, transaction_timeout_ms=600_000)
    hanging.init_transactions()
    hanging.begin_transaction()
    hanging.send(topic, value=b"never committed", key=b"k", partition=0)
    hanging.flush()
    with closing(KafkaProducer(bootstrap_servers=server)) as producer:
        producer.send(topic, value=b"acknowledged", key=b"k", partition=0)
        producer.flush()
    done("consume", *kafka[:4])
    what, remedy = found(*kafka, level="warning")[f"partition 0 of {COUPON}"]
    assert what.startswith("2 acknowledged records wait behind an open transaction") and "producer" in what
    assert "kafka-transactions.sh" in remedy
    status = done("status", *kafka[:4], "--output", "json").json
    assert status["open_transaction"] == 2 and status["lag"] == 0
    assert "2 acknowledged records behind open transactions in 1 partition:" in done("status", *kafka[:4]).out
    hanging.abort_transaction()
    hanging.close()
    done("consume", *kafka[:4])
    assert done("status", *kafka[:4], "--output", "json").json["open_transaction"] == 0


@pytest.mark.kafka
def test_a_topic_that_is_gone_and_brokers_that_are_not_there(kafka: tuple[str, ...]) -> None:
    with closing(KafkaAdminClient(bootstrap_servers=kafka[1].removeprefix("kafka://"))) as admin:
        admin.delete_topics([kafka[3] + COUPON])
    [(what, remedy)] = found(*kafka).values()
    assert COUPON in what and "restore" in remedy and "coupon-ledger init" not in remedy
    assert "log kafka://127.0.0.1:1" in found("--log", "kafka://127.0.0.1:1")
