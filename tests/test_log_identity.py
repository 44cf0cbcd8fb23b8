"""A database knows the log that it was filled from: another one is refused before anything of it is folded."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from kafka import KafkaAdminClient

from coupon_ledger.ledger import kafka_log
from coupon_ledger.ledger.errors import LogReplaced
from coupon_ledger.ledger.log import TopicPartition
from coupon_ledger.ledger.opening import open_backend
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import ALL_TOPICS, COUPON
from tests.command_line import (
    DATABASE,
    LOG,
    PATIENCE_S,
    Data,
    Ran,
    coupon_event,
    done,
    ends,
    facts,
    finish,
    ledger,
    ndjson,
    one_sentence,
    start,
    wait_until,
)

pytestmark = pytest.mark.long

Arguments = tuple[str, ...]


def events(name: str, number: int) -> bytes:
    told: list[Data] = [coupon_event("created", f"{name}-{n}", coupon_id=f"c-{name}-{n}") for n in range(number)]
    return ndjson(told)


@pytest.fixture
def at(home: Path, log_settings: LogSettings) -> Arguments:
    """A database that has read 30 events of a log on either backend."""
    url = f"sqlite:///{LOG}" if log_settings.url.startswith("sqlite") else log_settings.url
    where = ("--log", url, "--topic-prefix", log_settings.topic_prefix)
    done("init", *where)
    done("publish", "-", *where, stdin=events("a", 30))
    done("consume", *where)
    return where


@pytest.fixture
def embedded(home: Path) -> None:
    done("init")
    done("publish", "-", stdin=events("a", 30))
    done("consume")


def lose(at: Arguments) -> None:
    """Remove the log, whichever it is."""
    if at[1].startswith("sqlite"):
        for file in Path().glob(f"{LOG}*"):
            file.unlink()
        return
    with closing(KafkaAdminClient(bootstrap_servers=at[1].removeprefix("kafka://"))) as admin:
        ours = [t for t in admin.list_topics() if t.startswith(at[3])]
        admin.delete_topics(ours)
        wait_until(lambda: not set(ours) & set(admin.list_topics()), "the end of the topics")


def make_anew(at: Arguments, number: int = 90) -> None:
    lose(at)
    said = done("init", *at).err
    assert "was filled from another log" in said and "restore" in said
    if number:
        done("publish", "-", *at, stdin=events("b", number))


def refused(ran: Ran, *words: str) -> None:
    one_sentence(ran, 4, "not the log that database", *words)
    assert "coupon-ledger init" not in ran.err


def offenders(*at: str) -> dict[str, Data]:
    ran = ledger("verify", *at, "--only", "positions_of_log", "--only", "same_log", "--output", "json")
    assert ran.out, ran.err
    return {check["check"]: check for check in ran.json["checks"] if check["offenders"]}


def errors_of_doctor(*at: str) -> list[Data]:
    ran = ledger("doctor", *at, "--output", "json")
    assert ran.code == 1
    return [finding for finding in ran.json if finding["level"] == "error"]


def test_a_log_made_anew_is_refused_by_every_command_that_reads_it(at: Arguments) -> None:
    """Before, its first records were never folded: the positions of the lost log were taken for its own."""
    before = facts()
    make_anew(at)
    refused(ledger("consume", *at), COUPON, "another record at offset")
    refused(ledger("rebuild", *at), COUPON)
    refused(ledger("expire", *at), COUPON)
    refused(ledger("dead-letters", "replay", *at, "--why", "a test", "--operator", "me"), COUPON)
    assert list(offenders(*at)) == ["same_log"]
    [error] = errors_of_doctor(*at)
    assert "not the log that database" in error["finding"] and "restore" in error["remedy"]
    status = done("status", *at, "--output", "json").json
    assert "another record" in status["log_problem"]
    assert "this is not the log that was read" in done("status", *at).out
    assert facts() == before
    done("rebuild", *at, "--database", "new.duckdb")  # as the message says
    assert facts("new.duckdb") != before


def test_a_lost_log_is_not_advised_to_be_made_anew(at: Arguments) -> None:
    """`publish` said to run init: the log that it made took events which this database never folds."""
    lose(at)
    refused_by = ledger("publish", "-", *at, stdin=events("c", 3))
    one_sentence(refused_by, 4, "but database", "was filled from it", "restore")
    assert "coupon-ledger init" not in refused_by.err


def test_a_shorter_log_has_no_negative_lag(at: Arguments) -> None:
    make_anew(at, 0)
    status = done("status", *at, "--output", "json").json
    assert status["lag"] == 0 and all(p["lag"] == 0 for p in status["partitions"])
    assert "ends at offset 0, and was read up to" in status["log_problem"]
    refused(ledger("consume", *at), "ends at offset 0")


def test_a_log_restored_from_its_archive_is_accepted(at: Arguments) -> None:
    done("archive", *at, "--to", "archive")
    lose(at)
    done("restore", *at, "--from", "archive")
    done("publish", "-", *at, stdin=events("b", 5))
    assert done("consume", *at).out.startswith("consumed 5 records")
    assert offenders(*at) == {}
    # From now on it is the log that the database knows.
    make_anew(at)
    refused(ledger("consume", *at))


def test_a_log_that_is_gone_is_not_made_by_init(at: Arguments) -> None:
    lose(at)
    for command in (("consume",), ("status",), ("expire",)):
        ran = ledger(*command, *at)
        assert ran.code == 4 and "coupon-ledger init" not in ran.err and "restore" in ran.err, ran.err
    [error] = errors_of_doctor(*at)
    assert "init" not in error["remedy"] and "restore" in error["remedy"]


def test_an_older_copy_of_the_log_that_grew_again_is_refused(embedded: None) -> None:
    """It has the id of the log that was read; its last records tell."""
    shutil.copy(LOG, "copy.db")
    done("publish", "-", stdin=events("a2", 8))
    done("consume")
    for file in Path().glob(f"{LOG}*"):
        file.unlink()
    Path("copy.db").rename(LOG)
    time.sleep(0.001)
    done("publish", "-", stdin=events("b", 60))
    refused(ledger("consume"), "another record at offset")


@pytest.mark.parametrize("kept", ["nothing", "no_ids", "whole"])
def test_a_database_that_does_not_know_the_log_yet_compares_its_journal(
    embedded: None, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of an older release, one that read a log of an older release, one folded from the whole history at once."""
    if kept == "whole":
        monkeypatch.setattr("coupon_ledger.consumers.rebuild.WORTH_IT", 1)
        Path(DATABASE).unlink()
        done("rebuild")
    with duckdb.connect(DATABASE) as connection:
        for table in ("last_records", "log_topics")[: {"nothing": 2, "no_ids": 0, "whole": 0}[kept]]:
            connection.execute(f"DROP TABLE {table}")
        if kept == "no_ids":
            connection.execute("DELETE FROM log_topics")
    done("consume")
    assert offenders() == {}
    with duckdb.connect(DATABASE) as connection:
        assert connection.execute("SELECT count(*) FROM log_topics").fetchone() == (4,)
        if kept == "nothing":
            connection.execute("DROP TABLE last_records; DROP TABLE log_topics")
    make_anew(("--log", f"sqlite:///{LOG}"))
    refused(ledger("consume"), "another record")


def test_a_backup_of_another_log_is_refused(embedded: None) -> None:
    done("backup", "backup.duckdb")
    make_anew(("--log", f"sqlite:///{LOG}"))
    ran = ledger("restore-db", "backup.duckdb")
    one_sentence(ran, 4, "made from another log")


def test_a_correction_computed_from_one_log_is_not_appended_to_another(embedded: None) -> None:
    make_anew(("--log", f"sqlite:///{LOG}"))
    Path("correction.ndjson").write_bytes(
        b'{"coupon_id": "c-a-1", "type": "issued", "channel": "app", "occurred_at": "2026-11-12T00:00:00Z"}\n'
    )
    ran = ledger("correct", "correction.ndjson", "--why", "a test", "--operator", "me", "--apply")
    refused(ran)


@pytest.mark.parametrize(
    "command",
    [
        ("attribution", "models", "define", "patient", "--kind", "time_decay", "--half-life-days", "21"),
        ("segments", "define", "big", "--rule", "net_sales_minor > 100000"),
        ("review", "k-1", "--section", "goal", "--save-template", "short"),
        ("experiment", "assign", "k-1", "--control", "0.5", "--users", "members.txt"),
    ],
)
def test_what_is_defined_beside_a_database_is_not_appended_to_another_log(
    embedded: None, command: tuple[str, ...]
) -> None:
    Path("members.txt").write_text("u-1\nu-2\n")
    by = () if command[0] == "experiment" else ("--why", "a test", "--operator", "me")
    log = ("--log", f"sqlite:///{LOG}")
    done(*command, *by)
    make_anew(log)
    before = ends(ALL_TOPICS)
    ran = ledger(*command, *by)
    assert ran.code == 4 and "not the log that database" in ran.err.splitlines()[-1], ran.err
    assert ends(ALL_TOPICS) == before
    lose(log)
    ran = ledger(*command, *by)
    assert ran.code == 4 and "was filled from it" in ran.err.splitlines()[-1], ran.err


def test_a_model_is_defined_before_there_is_a_database(embedded: None) -> None:
    Path(DATABASE).unlink()
    done("attribution", "models", "define", "patient", "--kind", "linear", "--why", "a test", "--operator", "me")
    assert "patient" in done("attribution", "models", "list", "--output", "json").out


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_follower_ends_when_its_log_goes_away(embedded: None, how: str) -> None:
    """Before, it went on for ever and read the file that had no name any more."""
    follower = start("consume", "--follow", "--log-format", "json")
    try:
        wait_until(lambda: ledger("status").code == 0 and Path(f"{DATABASE}.owner").exists(), "the owner")
        if how == "replaced":
            done("init", "--log", "sqlite:///other.db", "--database", "other.duckdb")
            Path("other.db").replace(LOG)
        else:
            Path(LOG).rename("elsewhere.db")
        ran = finish(follower)
    finally:
        if follower.poll() is None:
            follower.kill()
    assert ran.code == 4 and how in ran.err, ran.err


# ── Kafka ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def topics(kafka_log_settings: LogSettings) -> Iterator[tuple[LogSettings, KafkaAdminClient]]:
    with closing(open_backend(kafka_log_settings)) as log:
        log.create_topics()
    address = kafka_log_settings.url.removeprefix("kafka://")
    with closing(KafkaAdminClient(bootstrap_servers=address)) as admin:
        yield kafka_log_settings, admin


@pytest.mark.kafka
@pytest.mark.parametrize("again", [False, True], ids=["deleted", "recreated"])
def test_a_reader_notices_a_topic_that_was_deleted(
    topics: tuple[LogSettings, KafkaAdminClient], again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No record of a topic that was created again is handed out, even where it has grown beyond what was read."""
    from tests.contract.log_contract import records

    monkeypatch.setattr(kafka_log, "CONFIRM_S", 0.5)
    settings, admin = topics
    with closing(open_backend(settings)) as log, closing(open_backend(settings)) as other:
        partitions = log.partitions([COUPON])
        log.append(records(40))
        positions = dict.fromkeys(partitions, 0)
        deadline = time.monotonic() + PATIENCE_S
        while positions != log.end_positions(partitions):
            assert time.monotonic() < deadline
            for chunk in log.read(positions, 100, 0.5):
                positions[TopicPartition(chunk.topic, chunk.partition)] = chunk.next_offset
        name = settings.topic_prefix + COUPON
        admin.delete_topics([name])
        wait_until(lambda: name not in admin.list_topics(), "the end of the topic")
        if again:
            other.create_topics()
            other.append(records(400))
        with pytest.raises(LogReplaced, match="created again" if again else "was deleted"):
            while time.monotonic() < deadline:
                assert not sum(map(len, log.read(positions, 100, 0.5)))
