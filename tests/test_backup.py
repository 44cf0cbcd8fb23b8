"""`backup` and `restore-db`: a copy made beside a live consumer, whole or not there, and the way back."""

from __future__ import annotations

import contextlib
import http.client
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from coupon_ledger.ledger.topics import INPUT_TOPICS
from coupon_ledger.projections.database import open_database
from tests.command_line import (
    DATABASE,
    LOG,
    Data,
    coupon_event,
    done,
    ends,
    finish,
    ledger,
    limited,
    ndjson,
    one_sentence,
    start,
    wait_until,
)
from tests.owners import owning

BACKUP = "backup.duckdb"


def publish(first: int, number: int) -> None:
    events = (coupon_event("created", f"e-{n}", coupon_id=f"c-{n}") for n in range(first, first + number))
    done("publish", "-", stdin=ndjson(events))


def full(database: str | Path = DATABASE) -> str:
    digest: str = done("digest", "--output", "json", "--database", database).json[-1]["full"]
    return digest


def parts() -> list[str]:
    return [p.name for p in Path().glob("*.part-*")]


@pytest.fixture
def small(home: Path) -> None:
    done("init", "--partitions", "2")
    publish(0, 50)
    done("consume")


@pytest.mark.long
def test_a_backup_is_the_database_with_the_same_digest_and_positions(small: None) -> None:
    told = done("backup", BACKUP, "--verify", "--output", "json").json
    assert told["full_digest"] == full() == full(BACKUP)
    assert sum(p["next_offset"] for p in told["positions"]) == 50
    assert told["bytes"] == Path(BACKUP).stat().st_size
    assert done("state", "c-7", "--database", BACKUP).out == done("state", "c-7").out
    assert parts() == []


@pytest.mark.slow
def test_a_backup_keeps_what_makes_the_database_fast(small: None) -> None:
    done("backup", BACKUP)
    schema = "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() ORDER BY ALL"
    stored = (
        "SELECT DISTINCT column_name, compression FROM pragma_storage_info('coupon_events')"
        " WHERE segment_type = 'VARCHAR' AND column_name IN ('event_id', 'coupon_id') ORDER BY ALL"
    )
    version = "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"
    found = []
    for path in (DATABASE, BACKUP):
        with open_database(Path(path), read_only=True) as store:
            found.append([store.rows(query) for query in (schema, stored, version)])
    assert found[0] == found[1]
    assert found[1][1] == [("coupon_id", "Uncompressed"), ("event_id", "Uncompressed")]


@pytest.mark.slow
def test_nothing_is_overwritten_unless_it_is_said_so(small: None) -> None:
    done("backup", BACKUP)
    before = Path(BACKUP).read_bytes()
    publish(50, 1)
    done("consume")
    one_sentence(ledger("backup", BACKUP), 2, BACKUP, "is there already", "--force")
    assert Path(BACKUP).read_bytes() == before
    done("backup", BACKUP, "--force")
    assert full(BACKUP) == full()


@pytest.mark.slow
def test_force_replaces_neither_the_database_nor_what_is_no_backup(small: None) -> None:
    Path("link.duckdb").symlink_to(DATABASE)
    Path("letter.txt").write_text("no database")
    before = full()
    one_sentence(ledger("backup", DATABASE, "--force"), 2, DATABASE, "is the database itself")
    one_sentence(ledger("backup", "link.duckdb", "--force"), 2, "is the database itself")
    one_sentence(ledger("backup", "letter.txt", "--force"), 5, "letter.txt", "not a DuckDB file")
    one_sentence(ledger("backup", "no/folder/b.duckdb"), 2, "there is no folder")
    assert Path("letter.txt").read_text() == "no database"
    assert full() == before


@pytest.mark.slow
def test_restored_and_consumed_it_equals_the_live_one(small: None) -> None:
    done("backup", BACKUP)
    publish(50, 30)
    done("consume")
    live = full()
    told = done("restore-db", BACKUP, "--output", "json").json
    assert told["lag"] == 30
    assert full() == full(BACKUP) != live
    done("consume")
    assert full() == live == full(told["kept"])
    assert parts() == []


@pytest.mark.slow
def test_a_lost_database_is_restored(small: None) -> None:
    done("backup", BACKUP)
    live = full()
    Path(DATABASE).unlink()
    assert done("restore-db", BACKUP, "--output", "json").json["kept"] is None
    assert full() == live


@pytest.mark.slow
def test_restored_in_the_place_of_a_link_the_generation_stays(small: None) -> None:
    done("backup", BACKUP)
    Path(DATABASE).rename(f"{DATABASE}.gen2")
    Path(DATABASE).symlink_to(f"{DATABASE}.gen2")
    told = done("restore-db", BACKUP, "--output", "json").json
    assert Path(told["kept"]).name == f"{DATABASE}.gen2"
    assert Path(told["kept"]).is_file()
    assert full() == full(BACKUP)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["torn", "altered", "empty", "other"])
def test_a_damaged_backup_is_refused_and_the_database_stays(small: None, damage: str) -> None:
    done("backup", BACKUP)
    content = bytearray(Path(BACKUP).read_bytes())
    if damage == "torn":
        del content[len(content) // 2 :]
    elif damage == "altered":
        content[content.rindex(b"shop")] ^= 1
    elif damage == "empty":
        content.clear()
    else:
        content = bytearray(b"something else altogether")
    Path(BACKUP).write_bytes(content)
    before = full()
    one_sentence(ledger("restore-db", BACKUP), 5, f"backup {BACKUP}", "name another backup")
    assert full() == before
    assert parts() == []


@pytest.mark.slow
def test_a_backup_of_another_log_or_ahead_of_it_is_refused(small: None) -> None:
    done("backup", BACKUP)
    log = "sqlite:///other.log.db"
    done("init", "--log", log, "--database", "other.duckdb")
    one_sentence(ledger("restore-db", BACKUP, "--log", log), 4, BACKUP, "ahead of the log", "--log")


@pytest.mark.slow
def test_a_backup_whose_positions_the_log_has_let_go_is_refused(small: None) -> None:
    done("backup", BACKUP)
    publish(50, 100)
    done("consume")
    live = full()
    with contextlib.closing(sqlite3.connect(LOG)) as log, log:
        log.execute("DROP TRIGGER records_never_go")
        log.execute('DELETE FROM records WHERE "offset" < 40')
    one_sentence(ledger("restore-db", BACKUP), 4, BACKUP, "not in the log any more", "archive")
    assert full() == live


@pytest.mark.slow
def test_a_full_disk_leaves_no_backup(small: None) -> None:
    ran = limited("backup", BACKUP, file_bytes=200_000)
    one_sentence(ran, 5, "disk is full")
    assert not Path(BACKUP).exists()
    assert parts() == []
    done("backup", BACKUP)


def consumed(summary: Data) -> int:
    return sum(summary[part] for part in ("applied", "repeats", "conflicts", "dead_letters"))


@contextmanager
def asking_all_the_time(address: str, headers: dict[str, str]) -> Iterator[list[int]]:
    """Readers beside it; their HTTP statuses."""
    statuses: list[int] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            connection = http.client.HTTPConnection(address, timeout=30)
            connection.request("GET", "/v1/summary", headers=headers)
            statuses.append(connection.getresponse().status)
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.mark.slow
def test_beside_a_live_consumer_and_readers_nobody_notices(home: Path) -> None:
    done("init")
    done("simulate", "--events", "30000")
    done("consume")
    with owning() as owner, asking_all_the_time(owner.address, owner.headers) as statuses:
        making = start("backup", BACKUP, "--verify", "--output", "json")
        rounds = 0
        while making.poll() is None or rounds < 5:
            publish(100 * rounds, 100)
            rounds += 1
        made = finish(making)
        assert made.code == 0, made.err
        one_sentence(ledger("restore-db", BACKUP), 5, "in use by", str(owner.process.pid))
        wait_until(lambda: consumed(owner.answer("summary")["rows"][0]) == ends(INPUT_TOPICS), "the tail")
    assert set(statuses) == {200}
    live = full()
    assert full(BACKUP) == made.json["full_digest"] != live
    done("restore-db", BACKUP, "--database", "second.duckdb")
    done("consume", "--database", "second.duckdb")
    assert full("second.duckdb") == live


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_nothing_under_its_name(home: Path) -> None:
    done("init")
    done("simulate", "--events", "30000")
    done("consume")
    by_itself = start("backup", BACKUP, "--verify")
    wait_until(lambda: parts() != [], "the copy")
    by_itself.kill()
    finish(by_itself)
    assert not Path(BACKUP).exists()
    with owning() as owner:
        asking = start("backup", BACKUP, "--verify")
        wait_until(lambda: any(str(asking.pid) in part for part in parts()), "the owner's copy")
        asking.kill()
        finish(asking)
        wait_until(lambda: parts() == [], "the end of what nobody waits for")
        assert not Path(BACKUP).exists()
        interrupted = start("backup", BACKUP, "--verify")
        wait_until(lambda: parts() != [], "the next copy")
        owner.process.send_signal(signal.SIGTERM)
        ran = finish(interrupted)
        assert finish(owner.process).code == 0
        assert ran.code == 5, ran.err
        assert parts() == [] and not Path(BACKUP).exists()
    done("backup", BACKUP)
    assert full(BACKUP) == full()


@pytest.mark.slow
def test_force_replaces_a_backup_of_another_version(small: None) -> None:
    """Else the nightly backup would end with the first release that changes the tables."""
    done("backup", BACKUP)
    with duckdb.connect(BACKUP) as connection:
        connection.execute("UPDATE ledger SET version = 1")
    done("backup", BACKUP, "--force")
    assert full(BACKUP) == full()
