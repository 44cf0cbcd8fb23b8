"""The archive: byte-exact there and back, whole after any kill, and honest about what is missing, altered or lost."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaAdminClient, KafkaProducer

from coupon_ledger.ledger.archive import MANIFEST, ArchiveLog, Manifest, locked, read_manifest, restore, verify
from coupon_ledger.ledger.archiver import Archiver, Merger
from coupon_ledger.ledger.errors import LogNotEmpty, LogNotInitialised, LogTruncated, LogUnavailable
from coupon_ledger.ledger.log import Chunk, LogReader, Record, TopicPartition
from coupon_ledger.ledger.opening import open_backend
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import ALL_TOPICS, COUPON, ORDER
from tests.command_line import LOG, done, facts, finish, ledger, limited, one_sentence, start, wait_until
from tests.contract import test_sqlite_log
from tests.contract.log_contract import ROOT, opened, records
from tests.examples import examples

pytestmark = pytest.mark.vital

LOG_ERROR: Final = 4
DAY_US: Final = 86_400_000_000
START_US: Final = 1_794_000_000_000_000
Row = tuple[int, int, bytes, bytes]
"""Offset, recorded_at, key, value."""
Rows = dict[TopicPartition, list[Row]]
EVERYWHERE: Final = [TopicPartition(topic, p) for topic in ALL_TOPICS for p in range(2)]


def made(settings: LogSettings, rows: Mapping[TopicPartition, Sequence[Row]], ends: Mapping[Any, int]) -> None:
    """An embedded log with exactly these records."""
    chunks = [
        Chunk(*tp, np.array([r[0] for r in mine]), np.array([r[1] for r in mine]), [r[2] for r in mine],
              [r[3] for r in mine], mine[-1][0] + 1)
        for tp, mine in rows.items()
        if mine
    ]  # fmt: skip
    log = open_backend(settings, create=True)
    begins = {tp: rows[tp][0][0] if rows.get(tp) else end for tp, end in ends.items()}
    log.restore(begins, dict(ends), chunks, gapless=False)
    log.close()


def held(log: LogReader, max_records: int = 1000) -> tuple[Rows, dict[TopicPartition, int]]:
    """All records of a log or an archive, and where its partitions end."""
    partitions = log.partitions()
    at, ends = log.earliest_positions(partitions), log.end_positions(partitions)
    found: Rows = {tp: [] for tp in partitions}
    while left := {tp: offset for tp, offset in at.items() if offset < ends[tp]}:
        for c in log.read(left, max_records, 1.0):
            tp = TopicPartition(c.topic, c.partition)
            found[tp] += zip(c.offsets.tolist(), c.recorded_at.tolist(), c.keys, c.values, strict=True)
            at[tp] = c.next_offset
    return found, ends


def held_by(settings: LogSettings) -> tuple[Rows, dict[TopicPartition, int]]:
    with opened(settings) as log:
        return held(log)


def archived(settings: LogSettings, folder: Path, **options: Any) -> None:
    with opened(settings) as log:
        Archiver(log, folder, **options).run()


def drop_head(settings: LogSettings, before: int) -> None:
    test_sqlite_log.drop_head(settings, TopicPartition(COUPON, 0), before)


# --- there and back


@st.composite
def histories(draw: st.DrawFn) -> tuple[Rows, dict[TopicPartition, int]]:
    """Two topics with gaps, days, and any bytes; and ends that may lie behind the last record."""
    rows: Rows = {tp: [] for tp in EVERYWHERE}
    ends = dict.fromkeys(EVERYWHERE, 0)
    for tp in (TopicPartition(COUPON, 0), TopicPartition(COUPON, 1), TopicPartition(ORDER, 1)):
        steps = draw(
            st.lists(
                st.tuples(
                    st.sampled_from((1, 1, 1, 2, 5)),
                    st.sampled_from((0, 1, 999, DAY_US // 3, 2 * DAY_US)),
                    st.binary(max_size=5),
                    st.binary(max_size=40),
                ),
                max_size=30,
            )
        )
        offset, at = -1, START_US
        for step, pause, key, value in steps:
            offset, at = offset + step if offset >= 0 else 0, at + pause
            rows[tp].append((offset, at, key, value))
        ends[tp] = offset + 1
    return rows, ends


@pytest.mark.long
@examples(8)
@given(histories(), st.integers(1, 9), st.floats(0, 1))
def test_archived_and_restored_not_a_bit_differs(
    history: tuple[Rows, dict[TopicPartition, int]], file_records: int, share: float
) -> None:
    """Else a lost log would come back as another one. Archived in two runs, cut anywhere."""
    rows, ends = history
    begun = {tp: mine[: int(share * len(mine))] for tp, mine in rows.items()}
    begun_ends = {tp: mine[-1][0] + 1 if mine else 0 for tp, mine in begun.items()}
    with tempfile.TemporaryDirectory() as name:
        at = {part: LogSettings(url=f"sqlite:///{name}/{part}.db", partitions=2) for part in ("begun", "whole", "back")}
        folder = Path(name) / "archive"
        made(at["begun"], begun, begun_ends)
        made(at["whole"], rows, ends)
        archived(at["begun"], folder, file_records=file_records)
        archived(at["whole"], folder, file_records=file_records)
        assert verify(folder) == []
        archive = ArchiveLog(folder)
        assert held(archive, 7) == held_by(at["whole"]) == (rows, ends)
        archive.close()
        log = open_backend(at["back"], create=True)
        assert restore(folder, log) == sum(map(len, rows.values()))
        log.close()
        assert held_by(at["back"]) == (rows, ends)


def test_a_partition_that_begins_with_nothing_is_not_restored_as_another(
    tmp_path: Path, sqlite_log_settings: LogSettings
) -> None:
    """Else a consumer of the restored log would be told of a loss that there was not. The archive can be read."""
    first = TopicPartition(COUPON, 0)
    rows, ends = {first: [(3, START_US, b"k", b"v")]}, dict.fromkeys(EVERYWHERE, 0) | {first: 4}
    made(sqlite_log_settings, rows, ends)
    archived(sqlite_log_settings, tmp_path / "a", accept_loss=True)
    manifest = read_manifest(tmp_path / "a")
    [file] = manifest.files
    rewritten(tmp_path / "a", replace(manifest, files=(replace(file, first_offset=0),), losses=()))
    assert verify(tmp_path / "a") == []
    reader = ArchiveLog(tmp_path / "a")
    assert reader.earliest_positions([first]) == {first: 0}
    assert held(reader) == ({tp: rows.get(tp, []) for tp in EVERYWHERE}, ends)
    reader.close()
    log = open_backend(LogSettings(url=f"sqlite:///{tmp_path}/back.db"), create=True)
    with pytest.raises(LogUnavailable, match="begins at offset 0, its first record is at 3"):
        restore(tmp_path / "a", log)
    log.close()


def test_files_are_pruned_by_topic_and_day_and_sorted(tmp_path: Path, sqlite_log_settings: LogSettings) -> None:
    """Else whoever asks for one day would read the year."""
    first = TopicPartition(COUPON, 0)
    made(sqlite_log_settings, {first: [(n, START_US + n * DAY_US // 2, b"k", b"v") for n in range(6)]},
         dict.fromkeys(EVERYWHERE, 0) | {first: 6})  # fmt: skip
    archived(sqlite_log_settings, tmp_path / "a")
    files = read_manifest(tmp_path / "a").files
    assert sum(file.records for file in files) == 6 and len({file.day for file in files}) == len(files) >= 3
    for file in files:
        assert file.path.startswith(f"topic=coupon.events/day={file.day}/") and (tmp_path / "a" / file.path).exists()


def test_a_restored_log_goes_on_where_the_old_one_ended(tmp_path: Path, sqlite_log_settings: LogSettings) -> None:
    """Else new events would take the positions, or come before the time, of old ones."""
    made(sqlite_log_settings, {TopicPartition(COUPON, 1): [(0, 2**55, b"k", b"v")]},
         dict.fromkeys(EVERYWHERE, 0) | {TopicPartition(COUPON, 1): 3})  # fmt: skip
    archived(sqlite_log_settings, tmp_path / "a")
    with opened(sqlite_log_settings) as log:
        log.append([Record(COUPON, b"k%d" % n, b"new") for n in range(20)])
        found = held(log)[0][TopicPartition(COUPON, 1)]
    assert [row[0] for row in found] == [0, *range(3, 2 + len(found))]
    assert all(row[1] >= 2**55 for row in found)
    archived(sqlite_log_settings, tmp_path / "a")
    assert verify(tmp_path / "a") == []


@pytest.mark.slow
def test_the_restored_log_gives_the_same_facts(home: Path) -> None:
    """Else what people were told would change with a lost disk."""
    done("init")
    done("simulate", "--events", "3000", "--orders")
    done("consume")
    done("archive", "--to", "a")
    done("restore", "--from", "a", "--log", "sqlite:///back.db")
    other = ("--log", "sqlite:///back.db", "--database", "back.duckdb")
    done("init", *other)
    done("consume", *other)
    assert done("digest", "--output", "json", "--database", "back.duckdb").json == (
        done("digest", "--output", "json").json
    )
    assert facts("back.duckdb") == facts()


@pytest.mark.kafka
def test_kafka_is_archived_and_comes_back(
    home: Path, kafka_log_settings: LogSettings, sqlite_log_settings: LogSettings
) -> None:
    """Else a Kafka that lost its topics would be the end, or its events would have been known at another time."""
    kafka = ("--log", kafka_log_settings.url, "--topic-prefix")
    prefix = kafka_log_settings.topic_prefix
    done("init", *kafka, prefix)
    done("simulate", "--events", "3000", *kafka, prefix)
    done("archive", "--to", "a", *kafka, prefix)
    assert verify(Path("a")) == []
    done("simulate", "--events", "500", "--seed", "2", *kafka, prefix)
    done("archive", "--to", "a", *kafka, prefix)
    done("restore", "--from", "a", "--log", sqlite_log_settings.url)
    done("restore", "--from", "a", *kafka, prefix + "back.")
    expected = held_by(kafka_log_settings)
    assert held_by(sqlite_log_settings) == expected
    back = replace(kafka_log_settings, topic_prefix=prefix + "back.")
    assert held_by(back) == expected
    one_sentence(ledger("restore", "--from", "a", *kafka, prefix), LOG_ERROR, "is there already", "--topic-prefix")
    with opened(back) as log:
        [position] = log.append([Record(COUPON, b"k", b"new")])
        row = held(log)[0][TopicPartition(COUPON, position.partition)][-1]
        assert row[0] == position.offset and row[1] >= max(r[1] for rows in expected[0].values() for r in rows)


@pytest.mark.kafka
def test_an_embedded_log_moves_to_kafka_to_the_microsecond(
    home: Path, kafka_log_settings: LogSettings, sqlite_log_settings: LogSettings
) -> None:
    """Else "as known at" would give other answers after the move."""
    with opened(sqlite_log_settings, create=True) as log:
        log.create_topics()
        for _ in range(3):
            log.append(records(200))
    archived(sqlite_log_settings, Path("a"))
    log = open_backend(kafka_log_settings)
    restore(Path("a"), log)
    log.close()
    assert held_by(kafka_log_settings) == held_by(sqlite_log_settings)
    assert any(row[1] % 1000 for rows in held_by(kafka_log_settings)[0].values() for row in rows)


GAPS: Final = (3, 4, 6, 7, 10, 14, 15, 60)
"""Offsets with all kinds of gaps: before the first, of one, of two, of more."""


def with_gaps(folder: Path) -> tuple[Rows, dict[TopicPartition, int]]:
    """What the archive `a` in that folder holds: lost heads, gaps, ends behind the last record, nothing but an end."""
    rows = {
        TopicPartition(COUPON, 0): [(at, START_US + at * 1001, b"k%d" % at, b"v%d" % at) for at in GAPS],
        TopicPartition(COUPON, 1): [(at, START_US + at, b"k", b"v") for at in range(5)],
        TopicPartition(ORDER, 0): [(6, START_US, b"k", b"v")],
    }
    embedded = LogSettings(url=f"sqlite:///{folder}/log.db")
    ends = {TopicPartition(COUPON, 0): 63, TopicPartition(COUPON, 1): 6, TopicPartition(ORDER, 0): 7}
    ends = dict.fromkeys(EVERYWHERE, 0) | ends | {TopicPartition(ORDER, 1): 9}
    made(embedded, rows, ends)
    archived(embedded, folder / "a", accept_loss=True)
    manifest = read_manifest(folder / "a")
    # As of a Kafka whose retention ended at a marker: the records begin behind the earliest offset.
    files = tuple(replace(f, first_offset=5) if f.topic == ORDER else f for f in manifest.files)
    losses = tuple(replace(loss, next_offset=5) if loss.tp == (ORDER, 0) else loss for loss in manifest.losses)
    rewritten(folder / "a", replace(manifest, files=files, losses=losses))
    assert verify(folder / "a") == []
    reader = ArchiveLog(folder / "a")
    found = held(reader)
    reader.close()
    return found


@pytest.mark.kafka
def test_gaps_in_offsets_come_back_on_kafka(kafka_log_settings: LogSettings, tmp_path: Path) -> None:
    """Else positions that tables and people noted would name other events, or none."""
    expected = with_gaps(tmp_path)
    log = open_backend(kafka_log_settings)
    assert restore(tmp_path / "a", log) == sum(map(len, expected[0].values()))
    log.close()
    assert held_by(kafka_log_settings) == expected
    begins = {(COUPON, 0): 3, (ORDER, 0): 5, (ORDER, 1): 9}
    with opened(kafka_log_settings) as back:
        partitions = back.partitions()
        assert back.earliest_positions(partitions) == dict.fromkeys(partitions, 0) | begins
        with pytest.raises(LogTruncated):
            back.read({TopicPartition(COUPON, 0): 2}, 10, 1.0)
        assert all(back.append([Record(COUPON, b"k%d" % n, b"new")])[0].offset >= 6 for n in range(5))
    archived(kafka_log_settings, tmp_path / "a")
    assert verify(tmp_path / "a") == []


@pytest.mark.kafka
def test_one_offset_that_nothing_can_take_is_refused(kafka_log_settings: LogSettings, tmp_path: Path) -> None:
    """Else all records behind it would be one place off."""
    first = TopicPartition(COUPON, 0)
    embedded = LogSettings(url=f"sqlite:///{tmp_path}/log.db")
    made(embedded, {first: [(1, START_US, b"k", b"v")]}, dict.fromkeys(EVERYWHERE, 0) | {first: 2})
    archived(embedded, tmp_path / "a", accept_loss=True)
    manifest = read_manifest(tmp_path / "a")
    rewritten(tmp_path / "a", replace(manifest, files=(replace(manifest.files[0], first_offset=0),), losses=()))
    log = open_backend(kafka_log_settings)
    with pytest.raises(LogUnavailable, match="nothing can take the offset 0 of partition 0 alone"):
        restore(tmp_path / "a", log)
    log.close()


@pytest.mark.kafka
@pytest.mark.slow
def test_a_database_goes_on_from_a_restored_kafka_with_transactions(
    home: Path, kafka_log_settings: LogSettings
) -> None:
    """Else after the loss of a topic events would be skipped or folded twice. Each way gives the same tables."""
    prefix = kafka_log_settings.topic_prefix
    old = ("--log", kafka_log_settings.url, "--topic-prefix", prefix)
    new = ("--log", kafka_log_settings.url, "--topic-prefix", f"{prefix}back.")
    done("init", "--log", f"sqlite:///{LOG}")
    done("simulate", "--events", "1500", "--orders", "--log", f"sqlite:///{LOG}")
    done("init", *old)
    sent_in_transactions(LogSettings(url=f"sqlite:///{LOG}"), kafka_log_settings)
    done("consume", *old)
    done("archive", "--to", "a", *old)
    manifest = read_manifest(Path("a"))
    assert sum(manifest.ends().values()) > sum(file.records for file in manifest.files), "no gaps"
    done("restore", "--from", "a", *new)
    assert held_by(replace(kafka_log_settings, topic_prefix=f"{prefix}back.")) == held_by(kafka_log_settings)
    done("simulate", "--events", "300", "--seed", "5", *new)
    done("consume", *new)
    done("init", "--database", "other.duckdb", *new)
    done("consume", "--database", "other.duckdb", *new)
    told = done("rebuild", "--from", "archive", "--archive", "a", "--compare-only", "--output", "json", *new).json
    assert told["different"] == [] and told["equal"]
    assert facts("other.duckdb") == facts() == told["facts"]
    assert (
        done("digest", "--output", "json", "--database", "other.duckdb").json == done("digest", "--output", "json").json
    )


def sent_in_transactions(source: LogSettings, target: LogSettings) -> None:
    """The records, and between them some that are taken back."""
    producer = KafkaProducer(
        bootstrap_servers=target.url.removeprefix("kafka://"), transactional_id=target.topic_prefix + "upstream"
    )
    producer.init_transactions()
    for tp, rows in held_by(source)[0].items():
        for at in range(0, len(rows), 100):
            producer.begin_transaction()
            for _offset, _recorded_at, key, value in rows[at : at + 100]:
                producer.send(target.topic_prefix + tp.topic, value, key, None, tp.partition)
            producer.commit_transaction()
            producer.begin_transaction()
            for _ in range(at // 100 % 3 + 1):
                producer.send(target.topic_prefix + tp.topic, b"taken back", b"k", None, tp.partition)
            producer.abort_transaction()
    producer.close()


# --- killed


ARCHIVE: Final = """
import os, signal, sys
from pathlib import Path
from coupon_ledger.ledger.archiver import Archiver
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
url, folder, boundary, passings, commit_s = sys.argv[1:]
left = int(passings)
def reached(name):
    global left
    left -= name == boundary
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
log = open_log(LogSettings(url=url))
Archiver(log, Path(folder), file_records=100, commit_s=float(commit_s), at_boundary=reached).run()
"""


@pytest.mark.slow
@pytest.mark.parametrize("boundary", ["file", "written", "renamed", "manifest", "committed"])
@pytest.mark.parametrize("commit_s", [0, 60], ids=["a-manifest-per-file", "one-manifest"])
def test_killed_at_any_boundary_and_run_again_it_is_whole(
    boundary: str, commit_s: int, tmp_path: Path, sqlite_log_settings: LogSettings
) -> None:
    """Else a power cut would lose records, or have them twice."""
    with opened(sqlite_log_settings, create=True) as log:
        log.create_topics()
        log.append(records(1500))
    folder = tmp_path / "a"
    kills = 0
    for passing in (1, 2, 3, 5):
        ended = subprocess.run(
            [sys.executable, "-c", ARCHIVE, sqlite_log_settings.url, folder, boundary, str(passing), str(commit_s)],
            cwd=ROOT, check=False, timeout=60,
        )  # fmt: skip
        kills += ended.returncode == -signal.SIGKILL
        assert ended.returncode in (0, -signal.SIGKILL)
    assert kills >= 1
    archived(sqlite_log_settings, folder, file_records=100)
    assert verify(folder) == []
    archive = ArchiveLog(folder)
    assert held(archive) == held_by(sqlite_log_settings)
    archive.close()


def test_what_was_finished_before_an_error_is_kept(tmp_path: Path, sqlite_log_settings: LogSettings) -> None:
    """Else records could pass out of the log's retention while each run begins anew."""
    with opened(sqlite_log_settings, create=True) as log:
        log.create_topics()
        log.append(records(1000))
        passed = iter([False] * 3 + [True])

        def interrupted(boundary: str) -> None:
            if boundary == "file" and next(passed):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Archiver(log, tmp_path / "a", file_records=100, at_boundary=interrupted).run()
    assert len(read_manifest(tmp_path / "a").files) == 3
    assert verify(tmp_path / "a") == []
    archived(sqlite_log_settings, tmp_path / "a")
    assert verify(tmp_path / "a") == []


RESTORE: Final = """
import os, signal, sys
from pathlib import Path
from coupon_ledger.ledger.archive import restore
from coupon_ledger.ledger.opening import open_backend
from coupon_ledger.ledger.settings import LogSettings
def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)
restore(Path(sys.argv[2]), open_backend(LogSettings(url=sys.argv[1]), create=True), progress=killed)
"""


@pytest.mark.slow
def test_a_killed_restore_leaves_an_empty_log(tmp_path: Path, sqlite_log_settings: LogSettings) -> None:
    """Else half a log could be taken for all of it."""
    with opened(sqlite_log_settings, create=True) as log:
        log.create_topics()
        log.append(records(500))
    archived(sqlite_log_settings, tmp_path / "a")
    back = LogSettings(url=f"sqlite:///{tmp_path}/back.db")
    ended = subprocess.run([sys.executable, "-c", RESTORE, back.url, tmp_path / "a"], cwd=ROOT, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    log = open_backend(back)
    restore(tmp_path / "a", log)
    log.close()
    assert held_by(back) == held_by(sqlite_log_settings)


INTO_KAFKA: Final = """
import os, signal, sys
from pathlib import Path
from kafka import KafkaAdminClient, KafkaProducer
from coupon_ledger.ledger.archive import restore
from coupon_ledger.ledger.opening import open_backend
from coupon_ledger.ledger.settings import LogSettings
url, prefix, folder, method, passings, moment, anew = sys.argv[1:]
kind = KafkaProducer if hasattr(KafkaProducer, method) else KafkaAdminClient
real, left = getattr(kind, method), int(passings)
def killing(*arguments, **options):
    global left
    left -= 1
    if left or moment == "after":
        answer = real(*arguments, **options)
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
setattr(kind, method, killing)
restore(Path(folder), open_backend(LogSettings(url=url, topic_prefix=prefix)), anew=anew == "anew")
"""


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("method", "passing"),
    [
        ("create_topics", 1),
        ("create_topics", 2),
        ("flush", 1),
        ("flush", 3),
        ("commit_transaction", 1),
        ("abort_transaction", 1),
        ("delete_records", 1),
        ("alter_configs", 1),
        ("delete_topics", 1),
    ],
)
def test_a_killed_restore_into_kafka_is_never_taken_for_all(
    method: str, passing: int, moment: str, kafka_log_settings: LogSettings, tmp_path: Path
) -> None:
    """Else half a log could be taken for all of it, or records would be there twice. Twice killed, it comes back."""
    expected = with_gaps(tmp_path)
    log = open_backend(kafka_log_settings)
    made_nothing = (method, passing, moment) == ("create_topics", 1, "before")
    for anew in ("first", "anew"):
        passing = 1 if anew == "anew" and method == "create_topics" else passing  # the marker is there already
        ended = subprocess.run(
            [sys.executable, "-c", INTO_KAFKA, kafka_log_settings.url, kafka_log_settings.topic_prefix,
             tmp_path / "a", method, str(passing), moment, anew],
            cwd=ROOT, check=False, timeout=120,
        )  # fmt: skip
        assert ended.returncode == -signal.SIGKILL
        if (method, passing, moment) == ("delete_topics", 1, "after") and anew == "first":
            break  # the last of all calls: it is whole
        if made_nothing:
            with pytest.raises(LogNotInitialised, match="run `coupon-ledger init`"):
                log.partitions()
            continue
        for use in (log.partitions, log.create_topics, lambda: log.append(records(1))):
            with pytest.raises(LogNotInitialised, match=r"a restore into it has not ended.*--anew"):
                use()
        with pytest.raises(LogNotEmpty, match=r"a restore into it has not ended.*--anew"):
            restore(tmp_path / "a", log)
    else:
        restore(tmp_path / "a", log, anew=True)
    log.close()
    assert held_by(kafka_log_settings) == expected


@pytest.mark.kafka
@pytest.mark.slow
def test_kafka_lost_a_topic_as_the_runbook_has_it(
    home: Path, kafka_log_settings: LogSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the procedure would fail on the day when it is needed. What was not archived is lost, and told; sent again
    by its producers it counts."""
    for name, value in (("LOG", kafka_log_settings.url), ("TOPIC_PREFIX", kafka_log_settings.topic_prefix)):
        monkeypatch.setenv(f"COUPON_LEDGER_{name}", value)
    lost = (ORDER, kafka_log_settings.topic_prefix + ORDER)
    done("init")
    done("simulate", "--events", "600", "--orders")
    done("archive", "--to", "a")
    done("consume")
    before = facts()
    delete_topic(kafka_log_settings, lost[1])
    one_sentence(ledger("consume"), LOG_ERROR, f"no topic {lost[0]}", "`coupon-ledger restore`", "`--topic`")
    done("init")
    one_sentence(ledger("consume"), LOG_ERROR, f"of {lost[0]} ends at offset 0, and was read up to", "`--topic`")
    one_sentence(ledger("restore", "--from", "a", "--topic", lost[0]), LOG_ERROR, "is there already")
    delete_topic(kafka_log_settings, lost[1])
    done("restore", "--from", "a", "--topic", lost[0])
    done("consume")
    assert done("rebuild", "--compare-only", "--output", "json").json["facts"] == facts() == before
    done("simulate", "--events", "100", "--orders", "--seed", "2")
    done("consume")
    after = facts()
    delete_topic(kafka_log_settings, lost[1])
    done("restore", "--from", "a", "--topic", lost[0])
    for command in ("consume", "rebuild"):
        one_sentence(ledger(command), LOG_ERROR, f"of {lost[0]} ends at offset")
    for path in Path().glob("coupon-ledger.duckdb*"):
        path.unlink()
    done("rebuild")
    assert facts() != after
    done("simulate", "--events", "100", "--orders", "--seed", "2")
    done("consume")
    assert facts() == after
    done("archive", "--to", "a")
    done("archive", "verify", "a")


def delete_topic(settings: LogSettings, name: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=settings.url.removeprefix("kafka://"))
    admin.delete_topics([name])
    wait_until(lambda: admin.describe_topics([name])[0]["error_code"] != 0, f"the end of {name}")
    admin.close()


# --- merged


def small_files(settings: LogSettings, folder: Path, file_records: int = 40) -> Rows:
    """An archive of many files, of several days, runs and partitions; what it holds."""
    first, second = TopicPartition(COUPON, 0), TopicPartition(COUPON, 1)
    rows = {
        first: [(n, START_US + n * DAY_US // 200, b"k%d" % n, b"v%d" % n) for n in range(500)],
        second: [(n + 7, START_US + n, b"k%d" % n, b"w%d" % n) for n in range(0, 300, 2)],
    }
    made(settings, rows, dict.fromkeys(EVERYWHERE, 0) | {first: 500, second: 310})
    archived(settings, folder, file_records=file_records, accept_loss=True)
    return held_in(folder)


def held_in(folder: Path) -> Rows:
    reader = ArchiveLog(folder)
    found, ends = held(reader)
    assert ends == read_manifest(folder).ends() | ends
    reader.close()
    return found


@pytest.mark.long
def test_merged_not_a_bit_differs_and_it_goes_on(home: Path, sqlite_log_settings: LogSettings) -> None:
    """Else an archive of a run every hour would be slow to read, or the way to a faster one would lose records."""
    before = small_files(sqlite_log_settings, Path("a"))
    old = read_manifest(Path("a"))
    assert "merged 16 files into 4" in done("archive", "merge", "a").out
    merged = read_manifest(Path("a"))
    assert len(merged.files) == len(old.files) - 12 == len(list(Path("a").rglob("*.parquet")))
    assert (merged.ends(), merged.losses, merged.topics) == (old.ends(), old.losses, old.topics)
    assert verify(Path("a")) == [] and held_in(Path("a")) == before
    assert all(file.path.startswith(f"topic={file.topic}/day={file.day}/") for file in merged.files)
    assert "merged 0 files" in done("archive", "merge", "a").out and read_manifest(Path("a")) == merged
    with opened(sqlite_log_settings) as log:
        log.append(records(50))
    archived(sqlite_log_settings, Path("a"), file_records=10)
    done("archive", "merge", "a")
    assert verify(Path("a")) == []
    done("restore", "--from", "a", "--log", "sqlite:///back.db")
    assert held_by(LogSettings(url="sqlite:///back.db")) == held_by(sqlite_log_settings)


@pytest.mark.long
def test_who_reads_an_archive_is_not_disturbed_by_merging(home: Path, sqlite_log_settings: LogSettings) -> None:
    """Else a rebuild from the archive would fail because of a timer."""
    before = small_files(sqlite_log_settings, Path("a"))
    reader = ArchiveLog(Path("a"))
    assert "old files still being read: " in done("archive", "merge", "a").err
    assert held(reader)[0] == before
    reader.close()
    findings = verify(Path("a"))
    assert len(findings) == 16 and all("is a leftover: " in f.problem for f in findings)
    done("archive", "merge", "a")
    assert verify(Path("a")) == [] and held_in(Path("a")) == before


@pytest.mark.long
def test_a_leftover_stays_where_what_replaced_it_is_damaged(home: Path, sqlite_log_settings: LogSettings) -> None:
    """Else the last copy of records would be removed."""
    small_files(sqlite_log_settings, Path("a"))
    reader = ArchiveLog(Path("a"))
    done("archive", "merge", "a")
    reader.close()
    [merged] = [f for f in read_manifest(Path("a")).files if f.tp == (COUPON, 1)]
    (Path("a") / merged.path).write_bytes(b"")
    done("archive", "merge", "a")
    left = {f.file for f in verify(Path("a"))}
    assert merged.path in left and len(left) == 1 + len(list(Path("a").rglob("1-*.parquet"))) - 1 > 2


MERGE: Final = """
import os, signal, sys
from pathlib import Path
from coupon_ledger.ledger.archiver import Merger
folder, boundary, passings = sys.argv[1:]
left = int(passings)
def reached(name):
    global left
    left -= name == boundary
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
Merger(Path(folder), at_boundary=reached).run()
"""


@pytest.mark.slow
@pytest.mark.parametrize("passing", [1, 2])
@pytest.mark.parametrize("boundary", ["file", "written", "renamed", "manifest", "committed", "removed"])
def test_killed_while_merging_it_is_whole(
    boundary: str, passing: int, tmp_path: Path, sqlite_log_settings: LogSettings
) -> None:
    """Else a power cut would lose records, or have them twice; or leave files that nobody knows what to do with."""
    folder = tmp_path / "a"
    before = small_files(sqlite_log_settings, folder)
    ended = subprocess.run(
        [sys.executable, "-c", MERGE, folder, boundary, str(passing)], cwd=ROOT, check=False, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL
    assert held_in(folder) == before
    assert all(".new" in f.file or "is a leftover" in f.problem for f in verify(folder))
    archived(sqlite_log_settings, folder)
    assert held_in(folder) == before
    Merger(folder).run()
    assert verify(folder) == [] and held_in(folder) == before


@pytest.mark.slow
def test_a_rebuild_from_a_merged_archive_is_the_same(home: Path) -> None:
    """Else merging would change what people are told."""
    done("init")
    for seed in range(3):
        done("simulate", "--events", "1000", "--orders", "--seed", str(seed))
        done("archive", "--to", "a")
    done("consume")
    done("archive", "merge", "a")
    told = done("rebuild", "--from", "archive", "--archive", "a", "--compare-only", "--output", "json").json
    assert told["different"] == [] and told["equal"] and told["facts"] == facts()
    done("archive", "verify", "a")


# --- what can be wrong


@pytest.fixture
def archive(home: Path) -> Path:
    """The archive `a` of the log in the working folder, with several files for each partition of one topic."""
    settings = LogSettings(url=f"sqlite:///{LOG}")
    with opened(settings, create=True) as log:
        log.create_topics()
        log.append(records(1000))
    archived(settings, Path("a"), file_records=100)
    assert done("archive", "verify", "a").out == f"archive a: {told(read_manifest(Path('a')))}\n"
    return home / "a"


def told(manifest: Manifest) -> str:
    return f"whole, 1,000 records in {len(manifest.files)} files, {sum(f.bytes for f in manifest.files):,} bytes"


def second(archive: Path) -> str:
    """The path of a file in the midst of its partition."""
    return read_manifest(archive).files[1].path


def missing(archive: Path) -> str:
    (archive / second(archive)).unlink()
    return "is missing"


def altered(archive: Path) -> str:
    path = archive / second(archive)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return "its checksum is another"


def torn(archive: Path) -> str:
    path = archive / second(archive)
    path.write_bytes(path.read_bytes()[:-100])
    return "is altered"


def swapped(archive: Path) -> str:
    """With a manifest that knows the bytes: only the records can tell."""
    manifest = read_manifest(archive)
    good, other = manifest.files[1], manifest.files[2]
    shutil.copy(archive / other.path, archive / good.path)
    rewritten(archive, replace(manifest, files=(
        manifest.files[0], replace(good, bytes=other.bytes, sha256=other.sha256), *manifest.files[2:])))  # fmt: skip
    return "disagrees with the manifest in"


def overlapping(archive: Path) -> str:
    manifest = read_manifest(archive)
    one = manifest.files[1]
    path = one.path.replace("day=", "day=x")
    (archive / path).parent.mkdir()
    shutil.copy(archive / one.path, archive / path)
    rewritten(archive, replace(manifest, files=(*manifest.files, replace(one, path=path))))
    return f"both hold {one}"


def gap(archive: Path) -> str:
    manifest = read_manifest(archive)
    one = manifest.files[1]
    (archive / one.path).unlink()
    rewritten(archive, replace(manifest, files=(manifest.files[0], *manifest.files[2:])))
    return f"nothing holds {one}"


def unlisted(archive: Path) -> str:
    (archive / "notes.txt").write_text("mine")
    return "is unlisted"


def rewritten(archive: Path, manifest: Manifest) -> None:
    (archive / MANIFEST).write_text(manifest.text(), encoding="utf-8")


@pytest.mark.parametrize("spoil", [missing, altered, torn, swapped, overlapping, gap, unlisted])
def test_verify_names_the_file_and_what_is_wrong(archive: Path, spoil: Callable[[Path], str]) -> None:
    """Else a damaged archive would be noticed on the day when it is needed."""
    others: dict[Callable[[Path], str], str] = {
        unlisted: "notes.txt",
        gap: read_manifest(archive).files[2].path,
        overlapping: second(archive).replace("day=", "day=x"),
    }
    named = others.get(spoil, second(archive))
    problem = spoil(archive)
    ran = ledger("archive", "verify", "a", "--output", "ndjson")
    one_sentence(ran, LOG_ERROR, "archive a: 1 finding,")
    [finding] = ran.rows
    assert finding["file"] == named and problem in finding["problem"]


@pytest.mark.parametrize("spoil", [missing, altered, torn])
def test_no_record_comes_out_of_a_damaged_file(archive: Path, spoil: Callable[[Path], str]) -> None:
    """Else a rebuild or a restore would make facts of damaged bytes."""
    name = second(archive)
    problem = spoil(archive)
    one_sentence(ledger("restore", "--from", "a", "--log", "sqlite:///back.db"), LOG_ERROR, name, problem)
    done("archive", "--to", "b")
    with opened(LogSettings(url="sqlite:///back.db")) as log, pytest.raises(LogNotInitialised):
        log.partitions()


@pytest.mark.parametrize("spoil", [overlapping, gap])
def test_an_archive_with_a_gap_or_an_overlap_is_not_read(archive: Path, spoil: Callable[[Path], str]) -> None:
    """Else a rebuild or a restore would skip records in silence, or fold them twice."""
    problem = spoil(archive)
    one_sentence(ledger("restore", "--from", "a", "--log", "sqlite:///back.db"), LOG_ERROR, problem)
    one_sentence(ledger("archive", "--to", "a"), LOG_ERROR, problem)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_torn_manifest_is_told(archive: Path, keep: float) -> None:
    """Else half of the files would be taken for all, or removed as leftovers."""
    path = archive / MANIFEST
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    files = sorted(archive.rglob("*.parquet"))
    for command in (("archive", "verify", "a"), ("archive", "--to", "a"), ("restore", "--from", "a", "--log", "sqlite:///b.db")):  # fmt: skip  # noqa: E501
        one_sentence(ledger(*command), LOG_ERROR, "manifest.json is not as it was written")
    assert sorted(archive.rglob("*.parquet")) == files


def test_an_altered_manifest_is_told(archive: Path) -> None:
    """Else a slip in an editor would move positions."""
    path = archive / MANIFEST
    path.write_text(path.read_text().replace('"next_offset": 100', '"next_offset": 101', 1))
    one_sentence(ledger("archive", "verify", "a"), LOG_ERROR, "manifest.json is not as it was written")


def test_without_its_manifest_nothing_is_removed(archive: Path) -> None:
    """Else archiving into a folder whose manifest was lost would clear the folder."""
    (archive / MANIFEST).unlink()
    files = sorted(archive.rglob("*.parquet"))
    one_sentence(ledger("archive", "--to", "a"), LOG_ERROR, "no manifest.json there", "put back")
    assert sorted(archive.rglob("*.parquet")) == files
    one_sentence(ledger("archive", "verify", "a"), LOG_ERROR, "no manifest.json there")
    one_sentence(ledger("archive"), 2, "--to")


def test_another_logs_records_do_not_come_in(archive: Path) -> None:
    """Else two histories would be mixed, and neither could be restored."""
    other = LogSettings(url="sqlite:///other.db")
    with opened(other, create=True) as log:
        log.create_topics()
        log.append(records(100))
    one_sentence(ledger("archive", "--to", "a", "--log", other.url), LOG_ERROR, "is of another log", "ends at")
    with opened(other) as log:
        log.append(records(2000))
    one_sentence(ledger("archive", "--to", "a", "--log", other.url), LOG_ERROR, "another record at offset")
    done("archive", "verify", "a")


@pytest.mark.slow
def test_two_archivers_do_not_spoil_each_other(archive: Path) -> None:
    """Else a second cron job would damage the archive of the first."""
    with locked(archive, writing=True):
        for command in (("archive", "--to", "a"), ("archive", "verify", "a")):
            one_sentence(ledger(*command), LOG_ERROR, "archive a: another process")
    both = [start("archive", "--to", "b") for _ in range(2)]
    assert {finish(process).code for process in both} <= {0, LOG_ERROR}
    done("archive", "--to", "b")
    assert f"{done('archive', 'verify', 'b').out}".startswith("archive b: whole, 1,000 records")


@pytest.mark.long
def test_what_retention_took_is_told_with_its_positions(archive: Path) -> None:
    """Else a hole would be found on the day when the log is rebuilt."""
    settings = LogSettings(url=f"sqlite:///{LOG}")
    with opened(settings) as log:
        log.append(records(800))
        end = log.end_positions([TopicPartition(COUPON, 0)])[TopicPartition(COUPON, 0)]
    begin = read_manifest(archive).ends()[TopicPartition(COUPON, 0)]
    drop_head(settings, end - 20)
    lost = f"coupon.events partition 0 offsets {begin} to {end - 21}"
    one_sentence(ledger("archive", "--to", "a"), LOG_ERROR, f"no longer holds {lost}", "--accept-loss")
    assert lost in done("archive", "--to", "a", "--accept-loss").err
    assert f"noted as lost: {lost}" in done("archive", "verify", "a").out
    reader = ArchiveLog(archive)
    with pytest.raises(LogTruncated, match=f"{lost} were lost"):
        reader.read({TopicPartition(COUPON, 0): begin}, 10)
    [chunk] = reader.read({TopicPartition(COUPON, 0): end - 20}, 1000)
    assert chunk.offsets.tolist() == list(range(end - 20, end))
    reader.close()
    back = ("restore", "--from", "a", "--log", "sqlite:///back.db")
    one_sentence(ledger(*back), LOG_ERROR, lost, "--accept-loss")
    done(*back, "--accept-loss")


@pytest.mark.long
def test_restoring_needs_an_empty_log(archive: Path) -> None:
    """Else two logs would be mixed."""
    one_sentence(ledger("restore", "--from", "a"), LOG_ERROR, "holds records already")
    done("init", "--log", "sqlite:///empty.db", "--partitions", "9")
    done("restore", "--from", "a", "--log", "sqlite:///empty.db")
    assert held_by(LogSettings(url="sqlite:///empty.db")) == held_by(LogSettings(url=f"sqlite:///{LOG}"))


@pytest.mark.slow
def test_a_full_disk_is_told_and_run_again_it_is_whole(home: Path) -> None:
    """Else a full disk would leave an archive that looks whole."""
    noise = random.Random(1)
    with opened(LogSettings(url=f"sqlite:///{LOG}"), create=True) as log:
        log.create_topics()
        log.append([Record(COUPON, b"k%d" % n, noise.randbytes(500)) for n in range(3000)])
    ran = limited("archive", "--to", "a", file_bytes=200_000)
    one_sentence(ran, LOG_ERROR, "archive a:", "cannot be written (File too large)", "run it again")
    assert not list(Path("a").rglob("*.new"))
    done("archive", "--to", "a")
    assert done("archive", "verify", "a").out.startswith("archive a: whole, 3,000 records")


@pytest.mark.long
def test_a_folder_that_cannot_be_made_is_named(archive: Path) -> None:
    """Else a slip in the path would end in a traceback."""
    one_sentence(ledger("archive", "--to", "no/such/folder"), LOG_ERROR, "archive no/such/folder", "cannot be written")
    one_sentence(ledger("archive", "--to", LOG), LOG_ERROR, f"archive {LOG}", "cannot be written")


def test_an_archive_of_a_newer_format_is_no_damaged_one(tmp_path: Path) -> None:
    """Else its owner would be told to throw it away."""
    newer = Manifest().text().replace('"format": 1', '"format": 2').replace('"files": []', '"files": [{"uri": "s3"}]')
    (tmp_path / MANIFEST).write_text(newer)
    one_sentence(ledger("archive", "verify", tmp_path), LOG_ERROR, "format 2", "newer one")


def test_what_a_killed_run_left_is_said_to_be_that(archive: Path) -> None:
    """Else somebody moves files about by hand, in a folder that is as it must be."""
    (archive / f"{MANIFEST}.new").write_text("{")
    left = Path(second(archive)).with_name("1-00000000000000900000.parquet")
    (archive / left).write_bytes(b"PAR1")
    ran = ledger("archive", "verify", "a", "--output", "ndjson")
    one_sentence(ran, LOG_ERROR, "archive a: 1 finding,")
    [finding] = ran.rows
    assert finding["file"] == left.as_posix() and "the next one of `coupon-ledger archive`" in finding["problem"]
    done("archive", "--to", "a")
    done("archive", "verify", "a")


@pytest.mark.parametrize("action", [["--to", "a"], ["merge", "a"]])
def test_an_archive_that_cannot_be_locked_is_named(archive: Path, action: list[str]) -> None:
    (archive / "archive.lock").unlink()
    (archive / "archive.lock").mkdir()
    one_sentence(ledger("archive", *action), LOG_ERROR, "archive a: archive.lock cannot be written", "permissions")
