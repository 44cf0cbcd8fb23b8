"""Reading beside the writer, in one process: snapshots, limits, and room for checkpoints."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from coupon_ledger.ledger.errors import QueryStopped
from coupon_ledger.projections.connection import Cursor
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.generations import wal_file
from coupon_ledger.projections.readers import Readers, Running
from coupon_ledger.projections.store import Store
from tests.command_line import PATIENCE_S, wait_until

ENDLESS = "SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    create_database(tmp_path / "s.duckdb")
    with open_database(tmp_path / "s.duckdb") as opened:
        yield opened


@pytest.fixture
def readers(store: Store) -> Iterator[Readers]:
    made = Readers(store, 2)
    yield made
    made.close()


def commits(store: Store) -> None:
    with store.transaction():
        store.execute("UPDATE ledger SET commits = commits + 1")


def test_a_question_sees_one_state_whatever_is_committed_meanwhile(store: Store, readers: Readers) -> None:
    """Else the first half of an answer could be of another state than the second."""
    with readers.snapshot(Running(), 30) as cursor:
        before = cursor.frame("SELECT commits FROM ledger").item()
        commits(store)
        assert cursor.frame("SELECT commits FROM ledger").item() == before
    with readers.snapshot(Running(), 30) as cursor:
        assert cursor.frame("SELECT commits FROM ledger").item() == before + 1


def test_a_question_cannot_write(store: Store, readers: Readers) -> None:
    with pytest.raises(Exception, match="read-only"), readers.snapshot(Running(), 30) as cursor:
        cursor.frame("DELETE FROM ledger")


@pytest.mark.parametrize("piecewise", [False, True])
def test_a_question_that_takes_too_long_is_stopped_and_frees_its_place(
    store: Store, readers: Readers, piecewise: bool
) -> None:
    """Else a few heavy questions would block all others for ever."""
    for _ in range(3):  # more than there are places
        with pytest.raises(QueryStopped, match=r"longer than 0\.05 s"), readers.snapshot(Running(), 0.05) as cursor:
            _ = list(cursor.batches(ENDLESS)) if piecewise else cursor.frame(ENDLESS)
    with readers.snapshot(Running(), 30) as cursor:
        assert cursor.frame("SELECT 1 AS one").item() == 1
    commits(store)


def test_whoever_asked_and_left_frees_the_place(readers: Readers) -> None:
    """Else killed readers would use up what the others need."""
    running = Running()
    threading.Timer(0.1, running.stop, ["gone"]).start()
    with pytest.raises(QueryStopped, match="gone"), readers.snapshot(running, 30) as cursor:
        cursor.frame(ENDLESS)
    with pytest.raises(QueryStopped, match="gone"), readers.snapshot(running, 30):
        pytest.fail("asked although the one who asked has gone")


@pytest.mark.parametrize("limit_s", [0.05, 60])
def test_a_stop_just_before_a_query_begins_ends_it_too(
    readers: Readers, monkeypatch: pytest.MonkeyPatch, limit_s: float
) -> None:
    """Else now and then a heavy question would run for ever, in spite of its limit: DuckDB forgets such a stop."""
    running = Running()
    check = Cursor._check

    def slow(self: Cursor) -> None:
        check(self)
        if limit_s == 60:
            running.stop("gone")
        wait_until(lambda: self._interrupted, "the stop")

    monkeypatch.setattr(Cursor, "_check", slow)
    failures: list[str] = []

    def ask() -> None:
        try:
            with readers.snapshot(running, limit_s) as cursor:
                cursor.frame(ENDLESS)
        except QueryStopped as error:
            failures.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(PATIENCE_S)
    [failure] = failures
    assert failure.startswith("gone" if limit_s == 60 else "the query took longer than 0.05 s")


@pytest.mark.long
def test_checkpoints_happen_under_readers_that_never_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the write-ahead log would fill the disk on a day with many readers."""
    limit = 300_000
    monkeypatch.setattr("coupon_ledger.projections.connection.WAL_LIMIT", limit)
    monkeypatch.setattr("coupon_ledger.projections.readers.WAL_LIMIT", limit)
    monkeypatch.setattr("coupon_ledger.projections.readers._EVERY_S", 0.1)
    create_database(tmp_path / "s.duckdb")
    finished = threading.Event()
    with open_database(tmp_path / "s.duckdb") as store:
        with store.transaction():
            store.execute("CREATE TABLE numbers AS SELECT range AS n, 0 AS v FROM range(20000)")
        readers = Readers(store, 3)

        def read() -> None:
            while not finished.is_set():
                with readers.snapshot(Running(), 30) as cursor:
                    cursor.frame("SELECT sum(v) FROM numbers")
                    finished.wait(0.03)

        def size() -> int:
            return wal_file(store.path).stat().st_size if wal_file(store.path).exists() else 0

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            seen: list[int] = []

            def written_back() -> bool:
                with store.transaction():
                    store.execute("UPDATE numbers SET v = v + 1 WHERE n % 4 = 0")
                seen.append(size())
                return max(seen) > limit and seen[-1] < limit

            wait_until(written_back, "a checkpoint")
        finally:
            finished.set()
            for thread in threads:
                thread.join()
            readers.close()


def test_closing_stops_what_runs(store: Store) -> None:
    """Else the consumer could not end while somebody asks."""
    readers = Readers(store, 1)
    failures: list[BaseException] = []
    began = threading.Event()

    def ask() -> None:
        try:
            with readers.snapshot(Running(), 60) as cursor:
                began.set()
                cursor.frame(ENDLESS)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert began.wait(30)
    readers.close()
    thread.join(30)
    assert not thread.is_alive() and failures


HOLDER = """
import sys
from pathlib import Path
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.store import Store
with open_database(Path(sys.argv[1]), read_only=True):
    print("reads", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_consumer_waits_for_who_only_reads(tmp_path: Path) -> None:
    """Else a `status` at the wrong moment, or one that watches, would keep a consumer from starting."""
    database = tmp_path / "s.duckdb"
    create_database(database)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None and holder.stdout is not None
    assert holder.stdout.readline() == b"reads\n"
    opened = threading.Event()

    def open_it() -> None:
        with open_database(database):
            opened.set()

    opening = threading.Thread(target=open_it)
    opening.start()
    holder.communicate(timeout=PATIENCE_S)
    opening.join(PATIENCE_S)
    assert opened.is_set()
