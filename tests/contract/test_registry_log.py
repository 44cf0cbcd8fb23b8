"""The Confluent wire format, with a registry that is up, down, or knows other things."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coupon_ledger import Publisher, schemas
from coupon_ledger.cli.main import cli
from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.ledger.codec import encode, single_object_header
from coupon_ledger.ledger.errors import LogUnavailable, RegistryUnavailable, SettingsError
from coupon_ledger.ledger.events import Event, parse_event
from coupon_ledger.ledger.log import EventLog, Record
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import COUPON, INPUT_TOPICS, ORDER
from coupon_ledger.projections.database import create_database, open_database
from scripts import make_docs
from tests.command_line import coupon_event, done, facts, ledger, ndjson, one_sentence, wait_until
from tests.contract.log_contract import Backend, LogContract, read_until
from tests.contract.test_sqlite_log import drop_head
from tests.fake_registry import FakeRegistry, fake_registry

QUICK = {"max.retries": 0}


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as found:
        yield found


def with_registry(log: LogSettings, registry: FakeRegistry, folder: Path) -> LogSettings:
    return replace(log, schema_registry=registry.url, schema_ids=str(folder / "ids.json"), registry=QUICK)


@pytest.fixture
def settings(log_settings: LogSettings, registry: FakeRegistry, tmp_path: Path) -> LogSettings:
    return with_registry(log_settings, registry, tmp_path)


@pytest.fixture
def backend(sqlite_log_settings: LogSettings, registry: FakeRegistry, tmp_path: Path) -> Backend:
    return Backend(with_registry(sqlite_log_settings, registry, tmp_path), drop_head)


class TestRegistryLog(LogContract):
    """It is a log like every other."""


@pytest.fixture
def plain(settings: LogSettings) -> Iterator[EventLog]:
    """The log beneath, as another team's client sees it."""
    log = open_log(replace(settings, schema_registry=""), create=True)
    log.create_topics()
    yield log
    log.close()


@pytest.fixture
def opened(settings: LogSettings, plain: EventLog) -> Iterator[EventLog]:
    log = open_log(settings)
    yield log
    log.close()


def event(kind: str, event_id: str, **fields: Any) -> Event:
    data = coupon_event(kind, event_id, **fields)
    return parse_event(data.pop("topic"), data)


def record(found: Event) -> Record:
    return Record(found.topic, found.key.encode(), encode(found))


def framed(found: Event, number: int) -> Record:
    """As another team's Confluent serializer writes it."""
    return Record(found.topic, found.key.encode(), b"\x00" + number.to_bytes(4, "big") + encode(found)[10:])


def everything(log: EventLog, topic: str = COUPON) -> list[bytes]:
    """The values of a topic to its end, sorted."""
    partitions = log.partitions([topic])
    number = sum(log.end_positions(partitions).values())
    chunks = read_until(log, dict.fromkeys(partitions, 0), number)
    return sorted(v for c in chunks for v in c.values)


def test_messages_stand_in_the_wire_format_and_are_read_back(
    opened: EventLog, plain: EventLog, registry: FakeRegistry, settings: LogSettings
) -> None:
    """A Confluent deserializer of another team reads ours; ours reads as if there were no registry."""
    records = [record(event("created", f"e-{n}", coupon_id=f"c-{n}")) for n in range(20)]
    opened.append(records)
    [number] = registry.subjects[f"{settings.topic_prefix}{COUPON}-value"]
    assert json.loads(registry.schemas[number]["schema"]) == schemas.current("coupon_event")
    assert everything(plain) == sorted(b"\x00" + number.to_bytes(4, "big") + r.value[10:] for r in records)
    assert everything(opened) == sorted(r.value for r in records)
    plain.append(records)  # a topic may hold both formats
    assert everything(opened) == sorted(2 * [r.value for r in records])
    assert len(registry.asked) == 2, "one look-up, one registration, however many messages"


def test_another_teams_registration_of_our_schema_is_known_by_its_fingerprint(
    opened: EventLog, plain: EventLog, registry: FakeRegistry
) -> None:
    """Java's tools add properties and drop docs; the bytes are the same."""
    javas = json.loads(json.dumps(schemas.current("coupon_event")).replace(': "string"', ': {"type": "string"}'))
    for field in javas["fields"]:
        del field["doc"]
        if field["type"] == {"type": "string"}:
            field["type"]["avro.java.string"] = "String"
    number = registry.register("other-value", json.dumps(javas))
    found = event("created", "e-1")
    plain.append([framed(found, number)])
    assert everything(opened) == [encode(found)]


def test_a_publisher_that_knows_its_schema_needs_no_registry(settings: LogSettings, registry: FakeRegistry) -> None:
    """A registry's restart is no outage of the shop, also after the shop's own restart."""
    log = open_log(settings, create=True)
    log.create_topics()
    log.close()
    options: dict[str, Any] = {
        "schema_registry": registry.url,
        "schema_ids": settings.schema_ids,
        "registry": QUICK,
        "topic_prefix": settings.topic_prefix,
    }
    with Publisher.open(settings.url, **options) as publisher:
        publisher.publish(event("created", "e-1"))
    registry.down()
    with Publisher.open(settings.url, **options) as publisher:
        publisher.publish(event("issued", "e-2"))
    assert publisher.report.accepted == 1
    with pytest.raises(LogUnavailable, match=f"schema registry {registry.url}"):
        open_log(settings).append([Record(ORDER, b"o", single_object_header(schemas.current("order_event")))])


def test_a_registry_that_refuses_is_named_and_nothing_is_appended(
    opened: EventLog, plain: EventLog, registry: FakeRegistry
) -> None:
    registry.refuses = True
    with pytest.raises(RegistryUnavailable, match=r"registering the schema of .*coupon.events-value .*incompatible"):
        opened.append([record(event("created", "e-1"))])
    assert everything(plain) == []


# ── Consuming ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def shop(tmp_path: Path, settings: LogSettings, plain: EventLog, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a log and a database, settings for the command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COUPON_LEDGER_LOG", settings.url)
    monkeypatch.setenv("COUPON_LEDGER_TOPIC_PREFIX", settings.topic_prefix)
    monkeypatch.setenv("COUPON_LEDGER_SCHEMA_REGISTRY", settings.schema_registry)
    monkeypatch.setenv("COUPON_LEDGER_SCHEMA_IDS", settings.schema_ids)
    monkeypatch.setenv("COUPON_LEDGER_SCHEMA_REGISTRY_MAX_RETRIES", "0")
    done("init")
    return tmp_path


EVENTS = [
    coupon_event("created", "e-1"),
    coupon_event("issued", "e-2", occurred_at="2026-11-11T00:00:01Z"),
    coupon_event("claimed", "e-3", occurred_at="2026-11-11T00:00:02Z"),
]


@pytest.mark.slow
def test_the_facts_are_those_of_the_plain_format(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wire format is no fact: the digest must not know of it."""
    done("publish", "-", stdin=ndjson(EVENTS))
    done("consume")
    with_registry = facts()
    monkeypatch.setenv("COUPON_LEDGER_SCHEMA_REGISTRY", "")
    monkeypatch.setenv("COUPON_LEDGER_LOG", f"sqlite:///{shop / 'plain.db'}")
    done("init", "--database", "plain.duckdb")
    done("publish", "-", stdin=ndjson(EVENTS))
    done("consume", "--database", "plain.duckdb")
    assert facts("plain.duckdb") == with_registry


@pytest.mark.slow
def test_every_command_that_opens_the_log_takes_the_registry_as_a_flag(
    shop: Path, registry: FakeRegistry, plain: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one command publishes another would show as undecodable, or append in the other format."""
    monkeypatch.delenv("COUPON_LEDGER_SCHEMA_REGISTRY")
    flag = ("--schema-registry", registry.url)
    done("init", *flag)
    done("publish", "-", *flag, stdin=ndjson(EVENTS))
    done("simulate", "--events", "20", *flag)
    assert {value[:1] for value in everything(plain)} == {b"\x00"}
    rows = done("tail", "--no-follow", "--key", "c-1", "-o", "ndjson", *flag).rows
    assert [row["event"]["event_id"] for row in rows] == ["e-1", "e-2", "e-3"]
    done("consume", *flag)
    assert done("status", "-o", "json", *flag).json["dead_letters"] == 0
    for path, command in make_docs.commands("coupon-ledger", cli):
        taken = {option for parameter in command.params for option in parameter.opts}
        assert not taken & {"--log"} or taken >= {"--topic-prefix", "--schema-registry"}, path


@pytest.mark.slow
def test_a_registry_that_is_down_does_not_stop_a_consumer_that_knows_the_schema(
    shop: Path, registry: FakeRegistry
) -> None:
    """Known ids outlive the process and the database: a rebuild needs no registry either."""
    done("publish", "-", stdin=ndjson(EVENTS))
    done("consume")
    before = facts()
    registry.down()
    (shop / "coupon-ledger.duckdb").unlink()
    done("init")
    done("consume")
    assert facts() == before
    assert done("state", "c-1", "--output", "json").json["state"] == "claimed"


@pytest.mark.slow
def test_an_unknown_id_is_neither_dropped_nor_dead_lettered_while_the_registry_is_down(
    shop: Path, registry: FakeRegistry, plain: EventLog
) -> None:
    """The command says what it waits for; what it could read is committed; later it goes on from there."""
    number = registry.register("coupon.events-value", json.dumps(schemas.current("coupon_event")))
    found = [event("created", "e-1"), event("issued", "e-2", occurred_at="2026-11-11T00:00:01Z")]
    others = [record(event("created", f"p-{n}", coupon_id=f"p-{n}")) for n in range(40)]
    plain.append([record(found[0]), framed(found[1], number), *others])
    registry.down()
    ran = ledger("consume")
    assert ran.code == 4
    [error] = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert f"waits at offset 1: schema registry {registry.url}: schema id {number} cannot be had" in error
    status = done("status", "--output", "json").json
    read = {p["partition"]: p["next_offset"] for p in status["partitions"] if p["topic"] == COUPON and p["lag"]}
    assert list(read.values()) == [1], "its partition waits at the record, the others went on"
    assert done("dead-letters", "list", "--output", "ndjson").rows == []
    assert done("state", "c-1", "--output", "json").json["state"] == "created"
    registry.up()
    done("consume")
    assert done("state", "c-1", "--output", "json").json["state"] == "issued"
    assert done("status", "--output", "json").json["lag"] == 0


@pytest.mark.slow
def test_a_consumer_that_follows_waits_for_the_registry(
    settings: LogSettings, registry: FakeRegistry, plain: EventLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says what it waits for, other partitions stay live, and it goes on by itself."""
    number = registry.register("coupon.events-value", json.dumps(schemas.current("coupon_event")))
    registry.down()
    plain.append([framed(event("created", "e-1"), number)])
    create_database(tmp_path / "live.duckdb")
    seen: dict[str, int] = {"read": 0}
    with open_database(tmp_path / "live.duckdb") as store:
        log = open_log(settings)
        consumer = Consumer(log, store, outlet=log, batch_size=100, follow=True)

        def feed() -> None:
            try:
                wait_until(lambda: "cannot be had" in caplog.text, "the warning")
                plain.append([record(event("created", f"p-{n}", coupon_id=f"p-{n}")) for n in range(40)])
                wait_until(lambda: seen["read"] >= 20, "what the other partitions hold")
                registry.up()
                wait_until(lambda: seen["read"] == 41, "what waited")
            finally:
                consumer.stop()

        feeder = threading.Thread(target=feed)
        feeder.start()
        for committed in consumer.run():
            seen["read"] += committed.records
            assert committed.dead_letters == 0
        feeder.join()
        log.close()
    assert seen["read"] == 41
    assert registry.url in caplog.text


@pytest.mark.slow
def test_an_id_that_was_not_there_once_waits_with_the_others(
    settings: LogSettings, registry: FakeRegistry, plain: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that is about to go down may not know yet what it will know; one look is no word."""
    found = event("created", "e-1")
    plain.append([framed(found, 17), framed(found, 18)])
    answer = registry.answer

    def failing(method: str, path: str, body: Any) -> tuple[int, Any]:
        return (500, {"error_code": 50001, "message": "store"}) if path.endswith("/18") else answer(method, path, body)

    monkeypatch.setattr(registry, "answer", failing)
    log = open_log(settings)
    with pytest.raises(RegistryUnavailable, match="waits at offset 0"):
        read_until(log, dict.fromkeys(log.partitions([COUPON]), 0), 1)
    monkeypatch.undo()
    assert registry.register("a-value", json.dumps(schemas.current("coupon_event"))) == 17
    registry.schemas[18] = registry.schemas[17]
    read: list[bytes] = []

    def came() -> bool:
        with contextlib.suppress(RegistryUnavailable):  # it is asked again after a pause
            read[:] = everything(log)
        return bool(read)

    wait_until(came, "the answer")
    assert read == [encode(found)] * 2
    log.close()


@pytest.mark.slow
def test_ids_of_schemas_that_are_not_ours_become_dead_letters_as_they_were(
    shop: Path, registry: FakeRegistry, plain: EventLog
) -> None:
    """A stranger's message must not hold up the topic, and nothing of it is lost."""
    stranger = registry.register("x-value", '{"type": "record", "name": "x", "fields": []}')
    proto = registry.register("y-value", 'syntax = "proto3";', kind="PROTOBUF")
    ours = registry.register("coupon.events-value", json.dumps(schemas.current("coupon_event")))
    good = framed(event("created", "e-1"), ours)
    bad = [
        b"\x00" + stranger.to_bytes(4, "big"),
        b"\x00" + proto.to_bytes(4, "big") + b"body",
        b"\x00" + (999).to_bytes(4, "big") + b"body",
        good.value + b"too long",
        b"\x00\x01",
    ]
    plain.append([good, *(Record(COUPON, b"k", value) for value in bad)])
    done("consume")
    letters = done("dead-letters", "list", "--output", "ndjson").rows
    assert sorted(row["reason"] for row in letters) == ["undecodable"] * 2 + ["unknown_schema"] * 3
    shown = [
        done("dead-letters", "show", COUPON, str(at["partition"]), str(at["offset"]), "--output", "json").json["value"]
        for at in letters
    ]
    assert sorted(shown) == sorted(value.hex() for value in bad)
    assert done("state", "c-1", "--output", "json").json["state"] == "created"


@pytest.mark.long
@pytest.mark.parametrize("kind", ["timestamp-millis", None])
def test_a_schema_with_another_unit_of_time_is_refused(
    shop: Path, registry: FakeRegistry, plain: EventLog, kind: str | None
) -> None:
    """Its fingerprint is that of ours; before, its events were folded in 1970 without a word."""
    theirs = json.loads(json.dumps(schemas.current("coupon_event")))
    [instant] = [field for field in theirs["fields"] if field["name"] == "occurred_at"]
    instant["type"] = {"type": "long", "logicalType": kind} if kind else "long"
    number = registry.register("coupon.events-value", json.dumps(theirs))
    plain.append([framed(event("created", "e-1"), number)])
    done("consume")
    [letter] = done("dead-letters", "list", "--output", "ndjson").rows
    assert letter["reason"] == "unknown_schema"
    assert f"id {number} of a schema registry: its occurred_at is {kind or 'a plain number'}" in letter["detail"]
    assert "timestamp-micros" in letter["detail"]


@pytest.mark.long
def test_a_file_of_ids_that_is_broken_costs_only_questions(
    settings: LogSettings, plain: EventLog, registry: FakeRegistry
) -> None:
    found = event("created", "e-1")
    number = registry.register("coupon.events-value", json.dumps(schemas.current("coupon_event")))
    plain.append([framed(found, number)])
    file = Path(settings.schema_ids)
    for text in ("{", "[]", json.dumps({registry.url: {"reading": {"x": "zz"}}})):
        file.write_text(text)
        log = open_log(settings)
        assert everything(log) == [encode(found)]
        log.close()
    assert json.loads(file.read_text())[registry.url]["reading"] == {str(number): encode(found)[:10].hex()}


def test_what_is_not_the_registry_is_named(settings: LogSettings, plain: EventLog, registry: FakeRegistry) -> None:
    """A wrong address must not turn a topic into dead letters."""
    plain.append([framed(event("created", "e-1"), 17)])
    for wrong in (f"{registry.url}/elsewhere", "http://127.0.0.1:1"):
        log = open_log(replace(settings, schema_registry=wrong))
        with pytest.raises(RegistryUnavailable, match=wrong):
            read_until(log, dict.fromkeys(log.partitions(INPUT_TOPICS), 0), 1)
        log.close()
    for text in ("registry:8081", "http://ledger:hush@registry:8081"):
        with pytest.raises(SettingsError, match="schema-registry"):
            open_log(replace(settings, schema_registry=text))


def test_a_client_that_is_not_installed_is_named(settings: LogSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is not there by default, and an operator must learn its name."""
    monkeypatch.setattr("coupon_ledger.ledger.registry_log.absent", lambda _: ["confluent_kafka"])
    with pytest.raises(SettingsError, match=r"pip install 'coupon-ledger\[registry\]'"):
        open_log(settings, create=True)


def test_the_clients_options_reach_it(shop: Path, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry behind a password could not be used."""
    monkeypatch.setenv("COUPON_LEDGER_SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO", "ledger:hush")
    done("publish", "-", stdin=ndjson(EVENTS))
    assert registry.authorizations == {"Basic bGVkZ2VyOmh1c2g="}
    monkeypatch.setenv("COUPON_LEDGER_SCHEMA_REGISTRY_COLOUR", "blue")
    (shop / "ids.json").unlink()
    one_sentence(ledger("publish", "-", stdin=ndjson(EVENTS)), 2, "[schema-registry]", "colour")
