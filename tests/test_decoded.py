"""Events that an archive keeps decoded beside their bytes: what a company would lose if a rebuild from them came to
other tables than the bytes, or if they were trusted where they should not be."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coupon_ledger.consumers.intake import validated
from coupon_ledger.ledger import archiver, validity
from coupon_ledger.ledger.archive import DECODED, SCHEMA, ArchiveLog, Stretch, verify
from coupon_ledger.ledger.archiver import Archiver, Merger
from coupon_ledger.ledger.errors import ArchiveDamaged
from coupon_ledger.ledger.log import LogReader, TopicPartition
from coupon_ledger.ledger.topics import COUPON, INPUT_TOPICS
from coupon_ledger.ledger.validity import DECODING, valid_events
from tests.test_whole import SEED, MemoryLog, at_once, batch_by_batch, rich_log, small_slices  # noqa: F401

pytestmark = pytest.mark.long

_OF_THIS_DECODING = "7850d46ea56843d9b54f59710561e2e420455672b528e3b0a2c369aeb1a84993"
Positions = Mapping[TopicPartition, int]


def archived(log: LogReader, folder: Path, *, decode: bool = True) -> Path:
    """Several files a partition, several row groups a file."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(archiver, "_GROUP_ROWS", 15)
        patched.setattr(archiver, "_READ_RECORDS", 15)
        Archiver(log, folder, decode=decode, file_records=100).run()
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of `rich_log(SEED)`, decoded."""
    return archived(rich_log(SEED), tmp_path_factory.mktemp("kept") / "archive")


def stretches(archive: ArchiveLog, tp: TopicPartition, until: int, count: int) -> list[Stretch]:
    found, at = [], 0
    while at < until:
        stretch = archive.decoded(tp, at, until, count)
        assert stretch is not None and stretch.first_offset == at < stretch.next_offset <= until
        found.append(stretch)
        at = stretch.next_offset
    return found


@pytest.mark.parametrize(("share", "count"), [pytest.param(1.0, 1, marks=pytest.mark.slow), (0.71, 20), (0.4, 1000)])
def test_they_are_what_decoding_the_bytes_comes_to(kept: Path, share: float, count: int) -> None:
    """Up to any position; what is no valid event is left as bytes."""
    log = rich_log(SEED)
    with closing(ArchiveLog(kept)) as archive:
        for tp, end in log.end_positions(log.partitions(INPUT_TOPICS)).items():
            until = int(end * share)
            chunks = [chunk.before(until) for chunk in log.read({tp: 0}, 10**6)] if until else []
            expected, letters, _ = validated(tp.topic, chunks)
            found = [(stretch, *stretch.read()) for stretch in stretches(archive, tp, until, count)]
            assert sum(len(stretch) for stretch, _, _ in found) == sum(map(len, chunks))
            if found:
                events = pl.concat([events for _, events, _ in found])
                events = events.with_columns(pl.col(pl.Datetime("us", "UTC")).dt.replace_time_zone(None))
                events = events.rename({"offset": "log_offset"}).select(
                    c for c in expected.columns if c != "log_partition"
                )
                assert events.equals(expected.drop("log_partition"))
            nothing, others, _ = validated(tp.topic, [chunk for _, _, chunk in found])
            assert nothing.is_empty() and others.equals(letters)


@pytest.mark.slow
def test_every_way_comes_to_the_same_tables(tmp_path: Path, small_slices: None) -> None:  # noqa: F811
    """Else a rebuild from an archive would never be found equal, or worse."""
    log = rich_log(SEED + 2)
    until = {p: int(end * 0.9) for p, end in log.end_positions(log.partitions(INPUT_TOPICS)).items()}
    found = []
    for way, source in ways(log, tmp_path).items():
        folder = tmp_path / way
        folder.mkdir()
        with closing(source):
            found.append((batch_by_batch if way == "batches" else at_once)(source, folder, until))
    assert all(tables == found[0] for tables in found)


def ways(log: MemoryLog, folder: Path) -> dict[str, LogReader]:
    """Also an archive that was begun without columns, or by a release that did not write any."""
    half = MemoryLog({p: rows[: len(rows) // 2] for p, rows in log.records.items()})
    begun = archived(half, folder / "begun", decode=False)
    return {
        "batches": log,
        "log": log,
        "bytes": ArchiveLog(archived(log, folder / "without", decode=False)),
        "columns": ArchiveLog(archived(log, folder / "with")),
        "both": ArchiveLog(archived(log, begun)),
    }


def test_joining_small_files_keeps_the_events_decoded(kept: Path, tmp_path: Path) -> None:
    """Else the housekeeping of every night would make the next rebuild slow."""
    folder = shutil.copytree(kept, tmp_path / "archive")
    before = len(list(folder.rglob("*.parquet")))
    Merger(folder).run()
    files = list(folder.rglob("*.parquet"))
    assert len(files) < before
    decoded = [DECODED in (pq.read_schema(file).metadata or {}) for file in files]
    assert decoded.count(True) >= len(INPUT_TOPICS)
    end = ArchiveLog(folder).end_positions([TopicPartition(COUPON, 0)])[TopicPartition(COUPON, 0)]
    with closing(ArchiveLog(folder)) as joined, closing(ArchiveLog(kept)) as small:
        whole, parts = (
            pl.concat([stretch.read()[0] for stretch in stretches(archive, TopicPartition(COUPON, 0), end, 10**6)])
            for archive in (joined, small)
        )
    assert whole.equals(parts)


def test_without_columns_the_files_are_as_first_released(tmp_path: Path) -> None:
    """Else no release before could read what this one archives for it."""
    folder = archived(rich_log(SEED), tmp_path / "archive", decode=False)
    schemas = {pq.read_schema(file).remove_metadata() for file in folder.rglob("*.parquet")}
    assert schemas == {SCHEMA}


def test_columns_of_another_decoding_are_not_used(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what an older release took for valid would stay so for ever. The bytes are read instead."""
    for decoding, used in ((DECODING, True), (DECODING + 1, False)):
        monkeypatch.setattr(validity, "DECODING", decoding)
        with closing(ArchiveLog(kept)) as archive:
            assert (archive.decoded(TopicPartition(COUPON, 0), 0, 10, 10) is not None) == used


def test_altered_columns_are_found_and_nothing_is_read_of_them(tmp_path: Path, kept: Path) -> None:
    """Else somebody could change the past without touching a byte of the log."""
    folder = Path(shutil.copytree(kept, tmp_path / "archive"))
    [file, *_] = sorted(folder.glob(f"topic={COUPON}/*/0-*.parquet"))
    table = pq.read_table(file, partitioning=None)
    place = table.schema.get_field_index("coupon_id")
    another = pa.array(["another" if text else None for text in table["coupon_id"].to_pylist()], pa.large_string())
    pq.write_table(table.set_column(place, table.schema.field(place), another), file)
    [finding] = verify(folder)
    assert finding.file == str(file.relative_to(folder)) and "altered" in finding.problem
    with closing(ArchiveLog(folder)) as archive, pytest.raises(ArchiveDamaged, match="altered"):
        archive.decoded(TopicPartition(COUPON, 0), 0, 10, 10)


def test_what_bytes_come_to_does_not_change_within_a_decoding() -> None:
    """Columns of released archives are used as long as `DECODING` is the same. Where this fails, events came to be
    valid or invalid, or others: raise `DECODING`, unless only a record got new fields, and put the new digest here."""
    told = hashlib.sha256(str(DECODING).encode())
    log = rich_log(SEED)
    for tp in log.partitions(INPUT_TOPICS):
        values = [value for _, _, _, value in log.records[tp]]
        events, others = valid_events(tp.topic, values)
        told.update(events.select(sorted(events.columns)).write_ndjson().encode())
        told.update(str(sorted((row, reason) for row, (reason, _) in others.items())).encode())
    assert told.hexdigest() == _OF_THIS_DECODING
