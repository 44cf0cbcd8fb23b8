"""The embedded log keeps the contract, and what else can befall a file."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kafka.partitioner.default import murmur2 as kafka_murmur2

from coupon_ledger.ledger import sqlite_log
from coupon_ledger.ledger.errors import LogFull, LogReplaced, LogUnavailable, SettingsError
from coupon_ledger.ledger.log import Record, TopicPartition
from coupon_ledger.ledger.opening import open_backend, open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import COUPON, ORDER
from tests.contract.log_contract import (
    ROOT,
    Backend,
    LogContract,
    by_position,
    opened,
    read_until,
    records,
    reported,
    start_of,
    start_producer,
)


def path_of(settings: LogSettings) -> Path:
    return Path(settings.url.removeprefix("sqlite:///"))


def drop_head(settings: LogSettings, tp: TopicPartition, before: int) -> None:
    with closing(sqlite3.connect(path_of(settings))) as connection, connection:
        connection.execute("DROP TRIGGER IF EXISTS records_never_go")
        connection.execute(
            'DELETE FROM records WHERE "offset" < ? AND partition_id ='
            " (SELECT partition_id FROM partitions WHERE topic = ? AND partition = ?)",
            (before, settings.topic_prefix + tp.topic, tp.partition),
        )


@pytest.fixture
def backend(sqlite_log_settings: LogSettings) -> Backend:
    return Backend(sqlite_log_settings, drop_head)


class TestSqliteLog(LogContract):
    pass


@pytest.fixture
def log_file(sqlite_log_settings: LogSettings) -> Path:
    """A log with its topics, closed."""
    with opened(sqlite_log_settings, create=True) as log:
        log.create_topics()
    return path_of(sqlite_log_settings)


@pytest.mark.parametrize("statement", ["UPDATE records SET value = x'00'", "DELETE FROM records"])
def test_records_cannot_be_changed(sqlite_log_settings: LogSettings, log_file: Path, statement: str) -> None:
    """Else a slip in an SQLite client would rewrite history."""
    with opened(sqlite_log_settings) as log:
        log.append(records(10))
    with (
        closing(sqlite3.connect(log_file)) as connection,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        connection.execute(statement)


_FILL = """
import resource, signal, sys
from coupon_ledger.ledger.errors import LogFull
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.opening import open_backend, open_log
from coupon_ledger.ledger.settings import LogSettings
log = open_log(LogSettings(url=sys.argv[1]))
log.append([Record("coupon.events", b"k", b"before")])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    log.append([Record("coupon.events", b"k%d" % i, b"x" * 1000) for i in range(5000)])
except LogFull as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.append([Record("coupon.events", b"k", b"after")])
log.close()
"""


@pytest.mark.long
def test_no_room_leaves_nothing_half_written(sqlite_log_settings: LogSettings, log_file: Path) -> None:
    """Else a full disk would leave a part of a batch, and the publisher could not tell which."""
    limit = log_file.stat().st_size + 1_000_000
    filled = subprocess.run(
        [sys.executable, "-c", _FILL, sqlite_log_settings.url, str(limit)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (filled.returncode, filled.stderr) == (0, "")
    assert "no room to append" in filled.stdout and "free space" in filled.stdout
    with opened(sqlite_log_settings) as log:
        found = by_position(read_until(log, start_of(log), 2))
        assert [value for _, value in found.values()] == [b"before", b"after"]
        assert sum(log.end_positions(log.partitions()).values()) == 2


def test_a_full_database_is_log_full(
    sqlite_log_settings: LogSettings, log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else SQLite's own word for "no room" would reach the publisher as a riddle."""
    connect = sqlite3.connect

    def limited(*args: object, **kwargs: object) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)  # type: ignore[call-overload]
        connection.execute("PRAGMA max_page_count = 100")
        return connection

    monkeypatch.setattr(sqlite3, "connect", limited)
    with opened(sqlite_log_settings) as log:
        with pytest.raises(LogFull, match="database or disk is full"):
            log.append([Record(COUPON, b"k", b"x" * 1000)] * 5000)
        assert sum(log.end_positions(log.partitions()).values()) == 0
        log.append(records(1))


@pytest.mark.long
def test_a_killed_producer_leaves_whole_batches(sqlite_log_settings: LogSettings, log_file: Path) -> None:
    """Else a crash upstream would damage the log, or lose what was acknowledged."""
    producer = start_producer(sqlite_log_settings, "killed", 100_000, 100)
    assert producer.stdout is not None
    receipts = dict(reported(producer.stdout.readline()) for _ in range(1000))
    producer.send_signal(signal.SIGKILL)
    # Whole lines only: the last one may be cut.
    rest = producer.stdout.read().rpartition("\n")[0].splitlines()
    receipts |= dict(map(reported, rest))
    producer.wait()
    producer.stdout.close()
    with opened(sqlite_log_settings) as log:
        end = sum(log.end_positions(log.partitions([COUPON])).values())
        assert end % 100 == 0
        found = by_position(read_until(log, start_of(log), end))
        assert all(found[position][1] == b"killed-%d" % number for number, position in receipts.items())
        log.append(records(10))
    with closing(sqlite3.connect(log_file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_clock_that_goes_back_does_not_show(
    sqlite_log_settings: LogSettings, log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else setting the machine's clock back would reorder what was known when, and alert rules, which had judged all up
    to then, would never see what other partitions got meanwhile."""
    with opened(sqlite_log_settings) as log:
        log.append([Record(COUPON, b"k", b"1")])
        monkeypatch.setattr("time.time_ns", lambda: 1_000_000_000)
        given = records(20, keys=20)
        log.append(given[:15])
        log.append(given[15:])
        chunks = read_until(log, start_of(log), 21)
        rows = sorted((t, v) for c in chunks for t, v in zip(c.recorded_at.tolist(), c.values, strict=True))
        assert [v for _, v in rows] == [b"1", *(record.value for record in given)]
        assert len({t for t, _ in rows}) == 21 and rows[0][0] > 1_000_000


def test_a_missing_file_names_the_remedy(sqlite_log_settings: LogSettings) -> None:
    """Else a typing error in the path would make a new, empty log."""
    with pytest.raises(LogUnavailable, match=r"no such file; run `coupon-ledger init`"):
        open_log(sqlite_log_settings)
    assert not path_of(sqlite_log_settings).exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """Else `init` with a wrong path would end in SQLite's "unable to open database file"."""
    with pytest.raises(LogUnavailable, match=r"folder .*nowhere is not there"):
        open_log(LogSettings(url=f"sqlite:///{tmp_path}/nowhere/log.db"), create=True)


@pytest.mark.parametrize("content", [b"", b"just a text, and no database at all" * 100])
def test_another_file_is_not_a_log(tmp_path: Path, content: bytes) -> None:
    """Else events would be written into someone else's file."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(LogUnavailable, match=r"notes\.txt"):
        open_log(LogSettings(url=f"sqlite:///{path}"))
    assert path.read_bytes() == content


def test_another_database_is_not_a_log(tmp_path: Path) -> None:
    """Else `init` would put its tables into an application's database."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE app (id INTEGER)")
    for create in (False, True):
        with pytest.raises(LogUnavailable, match="is no event log"):
            open_log(LogSettings(url=f"sqlite:///{path}"), create=create)


def test_a_folder_is_not_a_log(tmp_path: Path) -> None:
    """Else the reason would stay in the dark."""
    with pytest.raises(LogUnavailable, match="is a folder"):
        open_log(LogSettings(url=f"sqlite:///{tmp_path}"), create=True)


def test_a_newer_layout_is_refused(sqlite_log_settings: LogSettings, log_file: Path) -> None:
    """Else an old version would write into a file that it does not understand."""
    with closing(sqlite3.connect(log_file)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(LogUnavailable, match="layout 99, this version knows 1"):
        open_log(sqlite_log_settings)


def test_a_removed_file_is_noticed(sqlite_log_settings: LogSettings, log_file: Path) -> None:
    """Else a long-running publisher would go on appending to a file that no longer has a name."""
    with opened(sqlite_log_settings) as log:
        log_file.rename(log_file.with_name("moved.db"))
        with pytest.raises(LogReplaced, match="was removed"):
            log.append(records(1))


def test_a_reader_notices_a_file_that_was_removed_or_replaced(
    sqlite_log_settings: LogSettings, log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a consumer would wait for ever for records of a file that no longer has a name."""
    monkeypatch.setattr(sqlite_log, "LOOK_S", 0.0)
    with opened(sqlite_log_settings) as log:
        start = dict.fromkeys(log.partitions(), 0)
        log_file.rename(log_file.with_name("moved.db"))
        with pytest.raises(LogReplaced, match="was removed"):
            log.read(start, 10)
    log_file.with_name("moved.db").rename(log_file)
    with opened(sqlite_log_settings) as log:
        log_file.unlink()
        with opened(sqlite_log_settings, create=True) as other:
            other.create_topics()
        with pytest.raises(LogReplaced, match="was replaced"):
            log.read(start, 10, timeout_s=5)


def test_a_log_of_an_older_release_gets_its_id_when_it_is_first_written(
    sqlite_log_settings: LogSettings, log_file: Path
) -> None:
    with closing(sqlite3.connect(log_file)) as connection:
        connection.execute("DROP TABLE identity")
    with opened(sqlite_log_settings) as log:
        assert log.identities() == {}
        log.append(records(1))
        ids = log.identities()
        log.append(records(1))
    with opened(sqlite_log_settings) as log:
        assert log.identities() == ids and len(set(ids.values())) == 1


@pytest.mark.parametrize("url", ["sqlite://log.db", "sqlite:///", "redis://x"])
def test_an_address_without_a_path_is_refused(url: str) -> None:
    """Else a mistyped address would land somewhere unexpected."""
    with pytest.raises(SettingsError, match="log address"):
        open_log(LogSettings(url=url), create=True)


def test_an_address_may_be_relative(
    sqlite_log_settings: LogSettings, log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the default address would not work."""
    monkeypatch.chdir(log_file.parent)
    with opened(replace(sqlite_log_settings, url=f"sqlite:///{log_file.name}")) as log:
        monkeypatch.chdir("/")
        log.append(records(1))


@pytest.mark.long
def test_two_processes_may_make_the_same_log(sqlite_log_settings: LogSettings) -> None:
    """Else starting two services at once on a new machine would fail one of them."""
    make = (
        "import sys; from coupon_ledger.ledger.opening import open_log;"
        "from coupon_ledger.ledger.settings import LogSettings;"
        "log = open_log(LogSettings(url=sys.argv[1]), create=True); log.create_topics(); log.close()"
    )
    makers = [subprocess.Popen([sys.executable, "-c", make, sqlite_log_settings.url], cwd=ROOT) for _ in range(4)]
    assert [maker.wait(timeout=60) for maker in makers] == [0, 0, 0, 0]
    with opened(sqlite_log_settings) as log:
        assert len(log.partitions()) == 28


def test_records_of_one_instant_are_shared(sqlite_log_settings: LogSettings, tmp_path: Path) -> None:
    """Else one busy partition of a log from Kafka would leave the others' coupons standing still."""
    with opened(sqlite_log_settings, create=True) as log:
        log.create_topics()
        log.append(records(2_000))
        begins, ends = start_of(log), log.end_positions(log.partitions([COUPON]))
        chunks = [replace(c, recorded_at=np.full(len(c), 1_000_000)) for c in log.read(begins, 2_000)]
    restored = open_backend(replace(sqlite_log_settings, url=f"sqlite:///{tmp_path / 'restored.db'}"), create=True)
    restored.restore(begins, ends, chunks, gapless=True)
    counts = [len(c) for c in restored.read(begins, 400)]
    restored.close()
    assert len(counts) == 4 and 300 <= sum(counts) <= 400 and max(counts) - min(counts) <= 50


def test_a_batch_is_recorded_in_the_order_in_which_it_was_given(sqlite_log_settings: LogSettings) -> None:
    """Else an imported sale day would be judged one partition after the other: clocks would jump, events be late."""
    with opened(sqlite_log_settings, create=True) as log:
        log.create_topics()
        given = [record for n in range(5) for record in records(200, topic=[COUPON, ORDER][n % 2], prefix=str(n))]
        log.append(given[:700])
        log.append(given[700:])
        chunks = log.read(log.earliest_positions(log.partitions([COUPON, ORDER])), 5_000)
    rows = [(at, value) for c in chunks for at, value in zip(c.recorded_at.tolist(), c.values, strict=True)]
    assert [value for _, value in sorted(rows)] == [record.value for record in given]
    assert len({at for at, _ in rows}) == len(given)


def test_the_order_of_recording_holds_in_any_log(sqlite_log_settings: LogSettings) -> None:
    """Read in pieces of any size, no record comes behind one that was recorded later."""
    seed = random.randrange(2**32)
    print("seed", seed)
    source = random.Random(seed)
    with opened(sqlite_log_settings, create=True) as log:
        log.create_topics()
        for _ in range(60):
            topic, keys = source.choice([COUPON, ORDER]), source.choice([1, 2, 50])
            log.append(records(source.choice([1, 3, 40, 400]), topic=topic, keys=keys))
        at = log.earliest_positions(log.partitions([COUPON, ORDER]))
        ends = log.end_positions(list(at))
        latest = 0
        while at != ends:
            limit = source.choice([1, 5, 33, 300, 5_000])
            chunks = log.read(at, limit)
            assert 0 < sum(map(len, chunks)) <= limit
            assert min(int(c.recorded_at[0]) for c in chunks) >= latest
            latest = max(int(c.recorded_at[-1]) for c in chunks)
            at.update({TopicPartition(c.topic, c.partition): c.next_offset for c in chunks})


def test_topics_may_have_different_numbers_of_partitions(sqlite_log_settings: LogSettings) -> None:
    """Else a log restored from Kafka would put a coupon's next event into another partition than its last."""
    numbers = {COUPON: 4, ORDER: 3}
    ends = {TopicPartition(topic, n): 0 for topic, count in numbers.items() for n in range(count)}
    log = open_backend(sqlite_log_settings, create=True)
    log.restore(ends, ends, [], gapless=True)
    batch = [record for topic in numbers for record in records(60, topic=topic)]
    random.Random(1).shuffle(batch)
    expected = [(kafka_murmur2(r.key) & 0x7FFFFFFF) % numbers[r.topic] for r in batch]
    assert [position.partition for position in log.append(batch)] == expected
    log.close()
