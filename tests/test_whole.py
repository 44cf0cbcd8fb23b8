"""The fold of a whole history: what a company would lose if a database rebuilt fast were another than the one that was
filled day by day."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from coupon_ledger.consumers import bulk_load, rebuild
from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.ledger.codec import SCHEMA_NAME, encode_row
from coupon_ledger.ledger.errors import LogTruncated, LogUnavailable
from coupon_ledger.ledger.log import Chunk, LogReader, Record, StoredRecord, TopicPartition
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.progress import ignore
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import ALL_TOPICS, COUPON, INPUT_TOPICS, KEY_FIELD, USER
from coupon_ledger.projections import checkpoints
from coupon_ledger.projections.attribution import upkeep
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.digest import Digest, digests
from coupon_ledger.projections.live import bulk_fold, order_rules
from coupon_ledger.projections.sliced import first_hash, read_slice, write_slices
from coupon_ledger.projections.store import Store
from coupon_ledger.projections.tables import TABLES
from tests.command_line import ALL_EQUAL, Ran, done, finish, ledger, one_sentence
from tests.histories import history
from tests.test_cross_rules import GRACE, START, Told, World
from tests.test_rebuild import digests as told_digests
from tests.test_rebuild import filled, shop  # noqa: F401

SEED = 20261111
PARTITIONS = 3
_INCOMPLETE = {"event_id": "e", "type": "touched", "occurred_at": START, "source": "s", "user_id": "u"}
Row = tuple[int, int, bytes, bytes]
"""Offset, recorded_at, key, value."""


class MemoryLog:
    """A log whose events may lie in any partition; reads few at a time."""

    url = "memory://"
    visible_after_s = 0.0

    def __init__(self, records: Mapping[TopicPartition, Sequence[Row]]) -> None:
        self.records = records

    def partitions(self, topics: Sequence[str] = ALL_TOPICS) -> list[TopicPartition]:
        return sorted(p for p in self.records if p.topic in topics)

    def read(self, positions: Mapping[TopicPartition, int], max_records: int, timeout_s: float = 0.0) -> list[Chunk]:
        chunks = []
        for p, offset in positions.items():
            found = [r for r in self.records[p] if r[0] >= offset][: max(1, max_records // 5)]
            if found:
                offsets, times, keys, values = zip(*found, strict=True)
                next_offset = offsets[-1] + 1
                chunks.append(Chunk(*p, np.array(offsets), np.array(times), list(keys), list(values), next_offset))
        return chunks

    def earliest_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def end_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {p: self.records[p][-1][0] + 1 if self.records[p] else 0 for p in partitions}

    def high_watermarks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self.end_positions(partitions)

    def identities(self) -> dict[str, str]:
        return {}

    def records_at(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, StoredRecord]:
        return {
            p: StoredRecord(*row[1:]) for p, offset in positions.items() for row in self.records[p] if row[0] == offset
        }

    def next_recorded(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return {}

    def close(self) -> None:
        pass


def rich_log(seed: int, events: int = 150) -> MemoryLog:
    """Repeats, conflicts, late and future events, keys in several partitions, dead letters; rules across coupons."""
    told: list[Told] = list(World(seed).told)
    base = told[0][1].recorded_at
    for topic in INPUT_TOPICS:
        for delivery in history(topic, seed, events, keys=20).deliveries:
            told.append((topic, delivery))
    draw = random.Random(seed)
    records: dict[TopicPartition, list[Row]] = {TopicPartition(t, p): [] for t in ALL_TOPICS for p in range(PARTITIONS)}
    for topic, delivery in told:
        partition = records[TopicPartition(topic, delivery.partition)]
        key = delivery.event[KEY_FIELD[topic]].encode()
        recorded_at = max(delivery.recorded_at, base, partition[-1][1] if partition else 0)
        while draw.random() < 0.05:
            broken = draw.choice((b"", b"no event", encode_row(SCHEMA_NAME[USER], _INCOMPLETE)))
            partition.append((len(partition), recorded_at, key, broken))
        value = encode_row(SCHEMA_NAME[topic], delivery.event)
        partition.append((len(partition), recorded_at, key, value))
    return MemoryLog(records)


def by_table(store: Store) -> dict[str, Digest]:
    found = {d.table: d for d in digests(store)}
    assert {table for tables in TABLES.values() for table in tables} < set(found)
    return found


def batch_by_batch(log: LogReader, folder: Path, until: Mapping[TopicPartition, int]) -> dict[str, Digest]:
    create_database(folder / "batches.duckdb")
    with open_database(folder / "batches.duckdb") as store:
        for _ in Consumer(log, store, outlet=None, batch_size=300, grace=GRACE, until=until).run():
            pass
        return by_table(store)


def at_once(log: LogReader, folder: Path, until: Mapping[TopicPartition, int]) -> dict[str, Digest]:
    create_database(folder / "whole.duckdb")
    with open_database(folder / "whole.duckdb") as store:
        seen: list[tuple[int, int]] = []
        records = bulk_load.fold_whole(log, store, until, lambda done, total: seen.append((done, total)), GRACE)
        assert seen[-1] == (records, records)
        assert not bulk_load.spill_folder(store.file).exists()
        return by_table(store)


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_load, "_SLICE_EVENTS", 100)
    monkeypatch.setattr(bulk_load, "_FILE_RECORDS", 60)
    monkeypatch.setattr(bulk_fold, "_ACQUISITIONS_AT_ONCE", 2)
    monkeypatch.setattr(order_rules, "_AT_ONCE", 2)
    monkeypatch.setattr(rebuild, "WORTH_IT", 1)


@pytest.fixture
def some_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_load, "_SLICE_EVENTS", 1500)
    monkeypatch.setattr(rebuild, "WORTH_IT", 1)


def check(seed: int, folder: Path, share: float = 1.0, events: int = 150) -> None:
    print(f"seed {seed}")
    log = rich_log(seed, events)
    ends = log.end_positions(log.partitions(INPUT_TOPICS))
    until = {p: int(end * share) for p, end in ends.items()}
    assert at_once(log, folder, until) == batch_by_batch(log, folder, until)


@pytest.mark.long
def test_every_table_is_what_batches_make_of_it(tmp_path: Path, small_slices: None) -> None:
    """Else a rebuilt database could not be trusted, or would never be found equal."""
    check(SEED, tmp_path, events=60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEED + 10, SEED + 22))
def test_of_many_histories_too_at_positions_within_them(seed: int, tmp_path: Path, small_slices: None) -> None:
    """The same, up to where a live database happens to stand."""
    check(seed, tmp_path, random.Random(seed).choice((0.3, 0.7, 1.0)))


@pytest.mark.slow
def test_from_either_log(tmp_path: Path, small_slices: None, log_settings: LogSettings) -> None:
    """Kafka gives a few records of some partitions at a time, and its offsets need not be without gaps."""
    with closing(open_log(log_settings, create=True)) as log:
        log.create_topics()
        told = rich_log(SEED + 1).records.items()
        log.append([Record(p.topic, key, value) for p, records in told for _, _, key, value in records])
        until = log.end_positions(log.partitions(INPUT_TOPICS))
        assert at_once(log, tmp_path, until) == batch_by_batch(log, tmp_path, until)


@pytest.mark.long
def test_a_slice_begins_at_its_first_hash(tmp_path: Path) -> None:
    """Else a run that goes on would take back rows of a slice that is done, or leave those of one that is not."""
    rng = np.random.default_rng(SEED)
    for count in (1, 3, 7, 80, 65_536):
        hashes = rng.integers(0, 1 << 64, 2_000, dtype=np.uint64, endpoint=False)
        edges = [first_hash(number, count) for number in range(0, count, 1 + count // 50)]
        near = np.array([edge + step for edge in edges for step in (-1, 0) if edge + step >= 0], dtype=np.uint64)
        events = pl.DataFrame({"key_hash": np.concatenate([hashes, near]).view(np.int64)})
        write_slices(tmp_path / "slices", events, count)
        for number in range(0, count, 1 + count // 50):
            found = read_slice(tmp_path / "slices", number)["key_hash"].to_numpy().view(np.uint64).tolist()
            assert all(first_hash(number, count) <= h < first_hash(number + 1, count) for h in found)
            within = np.concatenate([hashes, near]).tolist()
            assert len(found) == sum(first_hash(number, count) <= h < first_hash(number + 1, count) for h in within)


def test_what_the_log_no_longer_holds_is_told_and_nothing_is_begun(tmp_path: Path) -> None:
    """Else a database without its first year would look whole."""
    log = rich_log(SEED)
    partition = TopicPartition(COUPON, 1)
    log.earliest_positions = lambda partitions: dict.fromkeys(partitions, 0) | {partition: 7}  # type: ignore[method-assign]
    with pytest.raises(LogTruncated, match=r"coupon.events partition 1.*nothing is skipped"):
        at_once(log, tmp_path, log.end_positions(log.partitions(INPUT_TOPICS)))
    log = rich_log(SEED)
    with pytest.raises(LogTruncated, match="the next offset is 1000000"):
        at_once(log, tmp_path, log.end_positions(log.partitions(INPUT_TOPICS)) | {partition: 1_000_000})
    assert not list(tmp_path.glob("*.slices"))


@pytest.mark.slow
def test_a_rebuild_folds_at_once_and_goes_on_in_batches(shop: Path, some_slices: None) -> None:  # noqa: F811
    """Fast or not, it is compared, and equal."""
    before = told_digests()
    told = done("rebuild", "--output", "json").json
    assert told["different"] == [] and len(told["equal"]) == sum(map(len, TABLES.values()))
    assert told_digests() == before
    assert not list(shop.glob("*.slices"))


_STEPS = (
    (bulk_fold, "write_journal", 3),
    (bulk_fold, "put_rows", 2),
    (bulk_fold, "put_beside", 3),
    (bulk_fold, "take_out", 1),
    (bulk_fold, "settle_orders", 1),
    (upkeep, "build", 1),
)
_TOLD_LATER = ((bulk_load._Load, "_reach", 2), (bulk_load._Load, "_reach", 9), (checkpoints, "save", 1))
"""The mark, or what ends it, comes after the rows were committed by others."""


@pytest.mark.parametrize(("place", "step", "passing"), (*_STEPS, *_TOLD_LATER))
@pytest.mark.slow
def test_an_interrupted_one_goes_on_where_it_was(
    place: object, step: str, passing: int, tmp_path: Path, small_slices: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Ctrl-C near the end of a history of years would cost all of it."""
    monkeypatch.setattr(bulk_load, "_COMMIT_S", 0.0)
    log = rich_log(SEED + 3)
    ends = log.end_positions(log.partitions(INPUT_TOPICS))
    expected = batch_by_batch(log, tmp_path, ends)
    done: list[str] = []
    interruptions = [(step, passing)]

    def counted(what: str, do: Callable[..., object]) -> Callable[..., object]:
        def counting(*arguments: object, **named: object) -> object:
            done.append(what)
            if [(what, done.count(what))] == interruptions:
                interruptions.clear()
                raise KeyboardInterrupt
            return do(*arguments, **named)

        return counting

    for where, name, _ in {(place, step, passing), *_STEPS}:
        monkeypatch.setattr(where, name, counted(name, getattr(where, name)))
    create_database(tmp_path / "whole.duckdb")
    with open_database(tmp_path / "whole.duckdb") as store, pytest.raises(KeyboardInterrupt):
        bulk_load.fold_whole(log, store, ends, ignore, GRACE)
    before = done.copy()
    with Store.open_generation(tmp_path / "whole.duckdb", tmp_path / "whole.duckdb", read_only=False) as store:
        assert bulk_load.records_begun(store)
        records = bulk_load.fold_whole(log, store, ends, ignore, GRACE)
        assert records == sum(ends.values())
        assert by_table(store) == expected
    assert not bulk_load.spill_folder(tmp_path / "whole.duckdb").exists()
    again = len(done) - len(before)
    done.clear()
    (tmp_path / "anew").mkdir()
    at_once(log, tmp_path / "anew", ends)
    assert len(done) < len(before) + again <= len(done) + 4


@pytest.mark.parametrize(
    ("how", "code"), [(KeyboardInterrupt, 130), (partial(LogUnavailable, "log x: is away; wait"), 4)], ids=["C", "log"]
)
@pytest.mark.slow
def test_an_interrupted_rebuild_goes_on(
    shop: Path,  # noqa: F811
    some_slices: None,
    monkeypatch: pytest.MonkeyPatch,
    how: Callable[[], BaseException],
    code: int,
) -> None:
    """The same, for who runs the command, or whose broker was restarted meanwhile."""
    monkeypatch.setattr(bulk_load, "_COMMIT_S", 0.0)
    put, calls = bulk_fold.put_beside, iter(range(100))

    def interrupted(*arguments: object) -> None:
        if next(calls) == 3:
            raise how()
        put(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(bulk_fold, "put_beside", interrupted)
        assert ledger("rebuild").code == code
    told = done("rebuild")
    assert "going on" in told.out + told.err and ALL_EQUAL in told.out
    assert not list(shop.glob("*.slices"))


@pytest.mark.slow
def test_a_rebuild_of_all_does_not_go_on_with_one_of_a_few_projections(
    shop: Path,  # noqa: F811
    some_slices: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the tables that were copied from the live database would be proven equal to themselves."""
    monkeypatch.setattr(bulk_load, "_COMMIT_S", 0.0)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(bulk_fold, "settle_orders", interrupted)
        assert ledger("rebuild", "--projection", "orders").code == 130
    told = done("rebuild")
    assert "going on" not in told.out + told.err and ALL_EQUAL in told.out


_BROKEN_OFF = """
import os, resource, signal, sys
from pathlib import Path
from coupon_ledger.consumers import bulk_load
from coupon_ledger.consumers import rebuild
from coupon_ledger.projections import checkpoints
from coupon_ledger.projections.live import bulk_fold

how, step, passing = sys.argv[1], sys.argv[2], int(sys.argv[3])
rebuild.WORTH_IT, bulk_load._SLICE_EVENTS, bulk_load._FILE_RECORDS, bulk_load._COMMIT_S = 1, 500, 500, 0
steps = {
    "read": (bulk_load._Slices, "write"),
    "fold": (bulk_fold, "put_beside"),
    "reach": (bulk_load._Load, "_reach"),
    "settle": (bulk_fold, "settle_orders"),
    "save": (checkpoints, "save"),
    "done": (rebuild, "fold_whole"),
}
place, name = steps[step]
done = getattr(place, name)

def break_off():
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    largest = Path("coupon-ledger.duckdb.rebuild").stat().st_size if step == "fold" else 100
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))

def broken_off(*arguments, **more):
    global passing
    passing -= 1
    if not passing and how == "full":
        break_off()
    found = done(*arguments, **more)
    if not passing:
        break_off()
    return found

setattr(place, name, broken_off)
from coupon_ledger.cli.main import main
sys.argv = ["coupon-ledger", "rebuild"]
main()
"""


def broken_off(how: str, step: str, passing: int) -> Ran:
    command = [sys.executable, "-c", _BROKEN_OFF, how, step, str(passing)]
    return finish(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "passing"), [("read", 2), ("reach", 2), ("fold", 4), ("reach", 5), ("settle", 1), ("save", 1), ("done", 1)]
)
def test_killed_at_any_step_the_next_run_makes_it_whole(
    shop: Path,  # noqa: F811
    some_slices: None,
    step: str,
    passing: int,
) -> None:
    """Else a power cut would leave a database that is neither the old nor the new one."""
    before = told_digests()
    assert broken_off("kill", step, passing).code == -signal.SIGKILL
    assert told_digests() == before
    assert ALL_EQUAL in done("rebuild").out
    assert told_digests() == before
    assert not list(shop.glob("*.slices")) and not list(shop.glob("*.rebuild*"))


@pytest.mark.slow
@pytest.mark.parametrize(("step", "what"), [("read", "folder"), ("fold", "database")])
def test_a_full_disk_is_told_and_run_again_it_is_whole(
    shop: Path,  # noqa: F811
    some_slices: None,
    step: str,
    what: str,
) -> None:
    """Else a part of a history could be taken for all of it, or what is left of it would keep the disk full."""
    one_sentence(broken_off("full", step, 1), 5, what, "free space and run again")
    assert not list(shop.glob("*.slices"))
    assert ALL_EQUAL in done("rebuild").out
