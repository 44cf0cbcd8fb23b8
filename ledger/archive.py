"""The archive: a copy of a log as a folder of Parquet files, readable without a broker and without this program.

    FOLDER/manifest.json                                        lists the files, with checksums
    FOLDER/archive.lock                                         locked while a process writes or verifies
    FOLDER/topic=T/day=2026-11-11/0-00000000000000000042.parquet   partition 0 from offset 42 on
    FOLDER/topic=T/day=2026-11-11/0-00000000000000000042-00000000000000001042.parquet   merged: up to offset 1041

Always true:
- A file has consecutive records of one partition, recorded on one day (UTC), in the order of their offsets. Keys and
  values are the bytes of the log.
- A file is complete and on disk under its name before the manifest lists it. The manifest is replaced atomically.
- The files of a partition follow one another without gap or overlap, except for losses that the manifest lists.
- No record is returned from a file whose bytes have changed.
- A file may also have the events' fields as columns, decoded from the values. The file's metadata says which version
  decoded them (`DECODED`). In the row of a record that is not a valid event, these columns are all null.

`archiver` writes archives; this module reads and verifies them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from coupon_ledger.ledger.arrays import Int64Array
from coupon_ledger.ledger.errors import ArchiveDamaged, ArchiveUnusable, LogNotInitialised, LogTruncated
from coupon_ledger.ledger.log import LAST_RECORDED_US, Backend, Chunk, StoredRecord, TopicPartition
from coupon_ledger.ledger.partitioner import fair_shares
from coupon_ledger.ledger.progress import Progress, ignore
from coupon_ledger.ledger.topics import ALL_TOPICS, INPUT_TOPICS
from coupon_ledger.ledger.validity import decoded_by

MANIFEST: Final = "manifest.json"
LOCK: Final = "archive.lock"
UNFINISHED: Final = ".new"
SUFFIX: Final = ".parquet"
NAME: Final = re.compile(
    r"topic=(?P<topic>[^/]+)/day=[^/]+/(?P<partition>[0-9]+)-(?P<first>[0-9]{20})(-[0-9]{20})?"
    + re.escape(SUFFIX)
    + f"(?P<unfinished>{re.escape(UNFINISHED)})?"
)
FORMAT: Final = 1
DAY_US: Final = 86_400_000_000
SCHEMA: Final = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("recorded_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("key", pa.large_binary(), nullable=False),
        pa.field("value", pa.large_binary(), nullable=False),
    ]
)
DECODED: Final = b"coupon-ledger.decoded"
"""The key in a file's metadata under which the version that decoded its columns is stored (`decoded_by`)."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of offsets of one partition, from `first_offset` (inclusive) to `next_offset` (exclusive)."""

    topic: str
    partition: int
    first_offset: int
    next_offset: int

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)

    def __str__(self) -> str:
        return f"{self.topic} partition {self.partition} offsets {self.first_offset} to {self.next_offset - 1}"


@dataclass(frozen=True, slots=True)
class ArchivedFile(Span):
    """A file of the archive. `recorded_from`, `recorded_until`: the earliest and latest `recorded_at` of its records,
    in µs since the epoch.

    The file can have fewer records than its range has offsets, since transaction markers in a Kafka partition take
    offsets too.
    """

    path: str
    day: str
    records: int
    recorded_from: int
    recorded_until: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of the archive. `topics`: the number of partitions of each topic. `losses`: the ranges of offsets
    that the archive lacks because the log no longer had them when they were to be archived."""

    topics: Mapping[str, int] = field(default_factory=dict)
    files: tuple[ArchivedFile, ...] = ()
    losses: tuple[Span, ...] = ()

    def partitions(self) -> list[TopicPartition]:
        return sorted(TopicPartition(topic, p) for topic, count in self.topics.items() for p in range(count))

    def spans(self) -> dict[TopicPartition, list[Span]]:
        """Per partition, its files and losses in the order of their offsets."""
        spans_of: dict[TopicPartition, list[Span]] = {tp: [] for tp in self.partitions()}
        for span in sorted((*self.files, *self.losses), key=lambda span: span.first_offset):
            spans_of.setdefault(span.tp, []).append(span)
        return spans_of

    def ends(self) -> dict[TopicPartition, int]:
        """Per partition, the offset at which archiving continues: the one after its last file or loss, or 0."""
        return {tp: spans[-1].next_offset if spans else 0 for tp, spans in self.spans().items()}

    def text(self) -> str:
        """The manifest as JSON, with one line per file and per loss, and a checksum over all of it."""
        parts = {
            "format": json.dumps(FORMAT),
            "topics": json.dumps(dict(self.topics)),
            "files": _lines(self.files),
            "losses": _lines(self.losses),
        }
        digest = hashlib.sha256("".join(parts.values()).encode()).hexdigest()
        return "{\n" + ",\n".join(f'"{n}": {t}' for n, t in parts.items()) + f',\n"sha256": "{digest}"\n}}\n'


def _lines(rows: Iterable[Span]) -> str:
    lines = ",\n".join(json.dumps(asdict(row), ensure_ascii=False) for row in rows)
    return f"[\n{lines}\n]" if lines else "[]"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest. Raises `ArchiveUnusable` if it is missing, unreadable or written in another format,
    `ArchiveDamaged` if it is not as it was written."""
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ArchiveUnusable(f"archive {folder}: no {MANIFEST} there; name the folder of an archive") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ArchiveUnusable(f"archive {folder}: {MANIFEST} cannot be read ({error})") from error
    try:
        document = json.loads(text)
        written = document["format"]
        if written != FORMAT and isinstance(written, int):
            raise ArchiveUnusable(
                f"archive {folder}: written in format {written}, this version knows {FORMAT};"
                " use the version of coupon-ledger that wrote it, or a newer one"
            )
        manifest = Manifest(
            document["topics"],
            tuple(ArchivedFile(**row) for row in document["files"]),
            tuple(Span(**row) for row in document["losses"]),
        )
        altered = manifest.text() != text
    except (ValueError, KeyError, TypeError, AttributeError):
        altered = True
    if altered:
        raise ArchiveDamaged(
            f"archive {folder}: {MANIFEST} is not as it was written (torn or altered); put back a copy of it,"
            " or archive the log into a new folder"
        )
    return manifest


@contextmanager
def locked(folder: Path, *, writing: bool) -> Iterator[None]:
    """Within the block, no other process can write the archive. With `writing`, no other process can verify it either.
    The lock of a killed process is released.

    Raises `ArchiveUnusable` if another process has a conflicting lock.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT if writing else os.O_RDONLY, 0o644)
    except FileNotFoundError:
        yield  # nothing has been written here
        return
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_EX if writing else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArchiveUnusable(
                f"archive {folder}: another process writes or verifies it; wait for its end"
            ) from None
        yield
    finally:
        os.close(handle)


@contextmanager
def being_read(folder: Path) -> Iterator[None]:
    """Within the block, this process is a reader of the archive: a merge removes no files (see `unread`). Files can
    still be added."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


@contextmanager
def unread(folder: Path) -> Iterator[bool]:
    """Yields True if no process reads the archive (see `being_read`), otherwise False. If True, new readers wait until
    the block ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


# --- Reading


class ArchiveLog:
    """The archive in `folder`, read like a log (`LogReader`). Records have the partitions and offsets that they had in
    the log.

    An open `ArchiveLog` does not change: to read records that are archived later, open a new one. Only one thread at a
    time may use it. Raises `ArchiveUnusable` if there is no readable archive, `ArchiveDamaged` if its manifest or a
    file is not as it was written.
    """

    visible_after_s = 0.0

    def __init__(self, folder: Path) -> None:
        self.url = f"archive://{folder}"
        self._folder = folder
        with ExitStack() as reading:
            if folder.is_dir():
                reading.enter_context(being_read(folder))
            self.manifest = read_manifest(folder)
            if problem := next(_misplaced(self.manifest), None):
                raise ArchiveDamaged(
                    f"archive {folder}: {problem.file}: {problem.problem}; see `coupon-ledger archive verify`"
                )
            self._reading = reading.pop_all()
        self._files = {
            tp: [span for span in spans if isinstance(span, ArchivedFile)]
            for tp, spans in self.manifest.spans().items()
        }
        self._ends = self.manifest.ends()
        self._opened: dict[TopicPartition, _OpenFile] = {}

    def partitions(self, topics: Sequence[str] = ALL_TOPICS) -> list[TopicPartition]:
        self._require(topics)
        return [tp for tp in self.manifest.partitions() if tp.topic in set(topics)]

    def read(self, positions: Mapping[TopicPartition, int], max_records: int, timeout_s: float = 0.0) -> list[Chunk]:
        """Like `LogReader.read`, but returns equal shares of all partitions instead of the records that were recorded
        first. Never waits, since no new records can arrive."""
        self._require([tp.topic for tp in positions])
        for tp, offset in positions.items():
            self._check_held(tp, offset)
        available = {tp: self._ends[tp] - offset for tp, offset in positions.items()}
        shares = fair_shares(available, max_records)
        return [self._chunk(tp, positions[tp], share) for tp, share in shares.items()]

    def earliest_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Per partition, the first offset of its first file. If the partition has no file: the offset at which
        archiving continues."""
        self._require([tp.topic for tp in partitions])
        return {tp: self._files[tp][0].first_offset if self._files[tp] else self._ends[tp] for tp in partitions}

    def end_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        self._require([tp.topic for tp in partitions])
        return {tp: self._ends[tp] for tp in partitions}

    def high_watermarks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self.end_positions(partitions)

    def identities(self) -> dict[str, str]:
        """Always empty: the archive only has copies of the topics, and copies have no ids."""
        return {}

    def records_at(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, StoredRecord]:
        records = {}
        for tp, offset in positions.items():
            file = self._file_at(tp, offset) if tp in self._files else None
            chunk = self._open(file).take(offset, 1) if file is not None else None
            if chunk is not None and len(chunk) and int(chunk.offsets[0]) == offset:
                records[tp] = StoredRecord(int(chunk.recorded_at[0]), chunk.keys[0], chunk.values[0])
        return records

    def next_recorded(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return {}

    def decoded(self, tp: TopicPartition, offset: int, end: int, count: int) -> Stretch | None:
        """About `count` records of the partition `tp` whose events the archive stores decoded, from the offset `offset`
        on and before the offset `end`. None if no file has `offset`, or if the file there has no decoded events or was
        decoded by another version."""
        file = self._file_at(tp, offset)
        return None if file is None else self._open(file).decoded(offset, end, count)

    def close(self) -> None:
        for opened in self._opened.values():
            opened.close()
        self._opened.clear()
        self._reading.close()

    def chunks(self, partitions: Sequence[TopicPartition]) -> Iterator[Chunk]:
        """All archived records of these partitions, one partition after the other. Offsets that were lost are
        skipped."""
        for tp in partitions:
            for file in self._files[tp]:
                yield from self.chunks_of(file)
            self._close(tp)

    def chunks_of(self, file: ArchivedFile) -> Iterator[Chunk]:
        at = file.first_offset
        while at < file.next_offset:
            chunk = self._open(file).take(at, file.records)
            at = chunk.next_offset
            yield chunk

    def last_record(self, tp: TopicPartition) -> Chunk | None:
        """A chunk with only the last archived record of the partition. None if the partition has no archived
        records."""
        return self._open(self._files[tp][-1]).last() if self._files.get(tp) else None

    def _require(self, topics: Sequence[str]) -> None:
        if missing := sorted(set(topics) - self.manifest.topics.keys()):
            raise LogNotInitialised(f"{self._named()}: no topic {', '.join(missing)}; archive a log that has it")

    def _named(self) -> str:
        return f"archive {self._folder}"

    def _check_held(self, tp: TopicPartition, offset: int) -> None:
        if offset == self._ends[tp] or self._file_at(tp, offset) is not None:
            return
        [earliest] = self.earliest_positions([tp]).values()
        if earliest < offset < self._ends[tp]:
            [lost] = [s for s in self.manifest.losses if s.tp == tp and s.first_offset <= offset < s.next_offset]
            raise LogTruncated(f"{self._named()}: {lost} were lost before they were archived; nothing is skipped")
        raise LogTruncated(
            f"{self._named()}: partition {tp.partition} of {tp.topic} has no offset {offset}, it holds"
            f" {earliest} to {self._ends[tp]}; read from the log, or from another archive"
        )

    def _chunk(self, tp: TopicPartition, offset: int, count: int) -> Chunk:
        """Up to `count` records from `offset` on, from several files if needed. Ends before the next loss."""
        parts = []
        while count > 0 and (file := self._file_at(tp, offset)) is not None:
            part = self._open(file).take(offset, count)
            parts.append(part)
            offset = part.next_offset
            count -= len(part)
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _file_at(self, tp: TopicPartition, offset: int) -> ArchivedFile | None:
        files = self._files[tp]
        place = bisect_right(files, offset, key=lambda file: file.first_offset) - 1
        return files[place] if place >= 0 and offset < files[place].next_offset else None

    def _open(self, file: ArchivedFile) -> _OpenFile:
        opened = self._opened.get(file.tp)
        if opened is None or opened.file is not file:
            self._close(file.tp)
            opened = self._opened[file.tp] = _OpenFile(self._folder, file)
        return opened

    def _close(self, tp: TopicPartition) -> None:
        if tp in self._opened:
            self._opened.pop(tp).close()


@runtime_checkable
class KeepsDecoded(Protocol):
    """A log that can return some of its events already decoded, since an archive stores them that way."""

    def decoded(self, tp: TopicPartition, offset: int, end: int, count: int) -> Stretch | None: ...


@dataclass(frozen=True, slots=True)
class Stretch(Span):
    """Consecutive records of one partition whose events the file at `path` stores decoded. `records`: how many.

    `row`, `end_row`: the range of rows that `read` loads from the file (`end_row` exclusive). It consists of whole row
    groups, so `read` leaves out rows with offsets outside `first_offset` to `next_offset`.
    """

    path: Path
    row: int
    end_row: int
    records: int

    def __len__(self) -> int:
        return self.records

    def read(self) -> tuple[pl.DataFrame, Chunk]:
        """Read the records. Returns two things: the valid events as a frame (the fields of their schema, `offset`,
        `recorded_at`), and all other records as a chunk. Events that were recorded before 1970, or not before
        `LAST_RECORDED_US`, are in the chunk. Any thread may call this."""
        rows = pl.scan_parquet(self.path, glob=False, hive_partitioning=False).slice(self.row, self.end_row - self.row)
        events = rows.drop("partition", "key", "value").collect()
        if self.records < events.height:
            events = events.filter(pl.col("offset").is_between(self.first_offset, self.next_offset - 1))
        usable = pl.col("event_id").is_not_null() & pl.col("recorded_at").cast(pl.Int64).is_between(
            0, LAST_RECORDED_US, closed="left"
        )
        if events.select(usable.all()).item():
            return events, self._chunk(pl.DataFrame(schema=_BYTES))
        others = events.filter(~usable).select("offset")
        chunk = self._chunk(rows.select(*_BYTES).join(others.lazy(), on="offset", how="semi").sort("offset").collect())
        return events.filter(usable), chunk

    def _chunk(self, rows: pl.DataFrame) -> Chunk:
        return Chunk(
            topic=self.topic,
            partition=self.partition,
            offsets=rows["offset"].to_numpy(),
            recorded_at=rows["recorded_at"].cast(pl.Int64).to_numpy(),
            keys=rows["key"].to_list(),
            values=rows["value"].to_list(),
            next_offset=self.next_offset,
        )


_BYTES: Final = {
    "offset": pl.Int64(),
    "recorded_at": pl.Datetime("us", "UTC"),
    "key": pl.Binary(),
    "value": pl.Binary(),
}


class _OpenFile:
    """An open file of the archive, whose checksum was verified. The row group that was read last stays in memory."""

    def __init__(self, folder: Path, file: ArchivedFile) -> None:
        self.file = file
        problem = altered(folder, file)
        if problem:
            raise ArchiveDamaged(f"archive {folder}: {file.path} {problem}; put back a copy of it")
        self._parquet = pq.ParquetFile(folder / file.path)
        groups = [self._parquet.metadata.row_group(i) for i in range(self._parquet.num_row_groups)]
        self._first_offsets = [group.column(1).statistics.min for group in groups]
        self._last_offsets = [group.column(1).statistics.max for group in groups]
        self._rows = np.cumsum([0, *(group.num_rows for group in groups)]).tolist()
        self._path = folder / file.path
        kept = (self._parquet.schema_arrow.metadata or {}).get(DECODED)
        self._is_decoded = file.topic in INPUT_TOPICS and kept == decoded_by(file.topic).encode()
        self._group = -1
        self._chunk: Chunk

    def close(self) -> None:
        self._parquet.close()

    def take(self, offset: int, count: int) -> Chunk:
        """Up to `count` records from the offset `offset` on, all from one row group."""
        group = bisect_left(self._last_offsets, offset)
        if group == len(self._last_offsets):
            return part_of(self._chunk_of(group - 1), 0, 0, self.file.next_offset)
        chunk = self._chunk_of(group)
        start = int(np.searchsorted(chunk.offsets, offset))
        return part_of(chunk, start, min(start + count, len(chunk)), chunk.next_offset)

    def decoded(self, offset: int, end: int, count: int) -> Stretch | None:
        """About `count` records of this file, from the offset `offset` on and before the offset `end`, with their
        decoded events. None if there are no such records, or if this version did not decode the file's events."""
        first = bisect_left(self._last_offsets, offset)
        if not self._is_decoded or first == len(self._last_offsets):
            return None
        behind = bisect_left(self._first_offsets, end)
        last = min(max(first + 1, bisect_left(self._rows, self._rows[first] + count)), behind)
        if last <= first:
            return None
        is_last = last == len(self._last_offsets)
        next_offset = min(end, self.file.next_offset if is_last else self._last_offsets[last - 1] + 1)
        outside = self._records_within(first, self._first_offsets[first], offset)
        outside += self._records_within(last - 1, next_offset, self._last_offsets[last - 1] + 1)
        row, end_row = self._rows[first], self._rows[last]
        return Stretch(*self.file.tp, offset, next_offset, self._path, row, end_row, end_row - row - outside)

    def _records_within(self, group: int, start: int, end: int) -> int:
        """How many records of the row group have an offset from `start` (inclusive) to `end` (exclusive)."""
        if start >= end:
            return 0
        offsets = self._parquet.read_row_group(group, columns=["offset"])["offset"].to_numpy()
        return int(np.searchsorted(offsets, end) - np.searchsorted(offsets, start))

    def last(self) -> Chunk:
        chunk = self._chunk_of(len(self._last_offsets) - 1)
        return part_of(chunk, len(chunk) - 1, len(chunk), chunk.next_offset)

    def _chunk_of(self, group: int) -> Chunk:
        if group != self._group:
            table = self._parquet.read_row_group(group, columns=["offset", "recorded_at", "key", "value"])
            offsets = table["offset"].to_numpy()
            is_last = group == len(self._last_offsets) - 1
            self._chunk = Chunk(
                topic=self.file.topic,
                partition=self.file.partition,
                offsets=offsets,
                recorded_at=table["recorded_at"].cast(pa.int64()).to_numpy(),
                keys=table["key"].to_numpy().tolist(),
                values=table["value"].to_numpy().tolist(),
                next_offset=self.file.next_offset if is_last else int(offsets[-1]) + 1,
            )
            self._group = group
        return self._chunk


def part_of(chunk: Chunk, start: int, end: int, next_offset: int) -> Chunk:
    """The chunk's records with the indexes `start` to `end` (exclusive). `next_offset`: where reading continues after
    the chunk's last record."""
    if start == 0 and end == len(chunk):
        return chunk
    rows = slice(start, end)
    return Chunk(
        topic=chunk.topic,
        partition=chunk.partition,
        offsets=chunk.offsets[rows],
        recorded_at=chunk.recorded_at[rows],
        keys=chunk.keys[rows],
        values=chunk.values[rows],
        next_offset=int(chunk.offsets[end]) if 0 < end < len(chunk) else next_offset,
    )


def _joined(parts: Sequence[Chunk]) -> Chunk:
    return Chunk(
        topic=parts[0].topic,
        partition=parts[0].partition,
        offsets=np.concatenate([part.offsets for part in parts]),
        recorded_at=np.concatenate([part.recorded_at for part in parts]),
        keys=[key for part in parts for key in part.keys],
        values=[value for part in parts for value in part.values],
        next_offset=parts[-1].next_offset,
    )


# --- Restoring


def restore(
    folder: Path,
    log: Backend,
    *,
    topics: Sequence[str] = (),
    accept_loss: bool = False,
    anew: bool = False,
    progress: Progress = ignore,
) -> int:
    """Restore the archive into the empty log `log`. Returns the number of restored records. `progress`: counts records.

    `topics`: the topics to restore; all if empty. `accept_loss`: restore even if records after the first archived one
    were lost. `anew`: first delete what an interrupted restore left.

    Raises `LogNotEmpty` if the log has records, `LogTruncated` if records were lost and `accept_loss` is not set. Also
    raises any error of reading the archive or writing the log.
    """
    archive = ArchiveLog(folder)

    def chunks() -> Iterator[Chunk]:
        done = 0
        for chunk in archive.chunks(partitions):
            yield chunk
            done += len(chunk)
            progress(done, records)

    try:
        partitions = archive.partitions(list(topics) or sorted(archive.manifest.topics))
        earliest, ends = archive.earliest_positions(partitions), archive.end_positions(partitions)
        losses = [loss for loss in archive.manifest.losses if loss.tp in ends]
        lost = [str(loss) for loss in losses if loss.first_offset >= earliest[loss.tp]]
        if lost and not accept_loss:
            raise LogTruncated(
                f"archive {folder}: {'; '.join(lost)} were lost before they were archived, and the restored log would"
                " not show it; restore the rest with --accept-loss"
            )
        records = sum(file.records for file in archive.manifest.files if file.tp in ends)
        gapless = records == sum(ends.values()) - sum(earliest.values())
        log.restore(earliest, ends, chunks(), gapless=gapless, anew=anew)
    finally:
        archive.close()
    return records


# --- Verifying


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem that `verify` found. `file`: the file with the problem (or the manifest), as a path within the
    archive's folder."""

    file: str
    problem: str


def verify(folder: Path, progress: Progress = ignore) -> list[Finding]:
    """List all problems of the archive: files that are missing, altered, overlapping, not in the manifest or different
    from what it says, and gaps between files.

    Reads every file. `progress`: counts records. Raises `ArchiveUnusable` if there is no readable archive or another
    process writes it, `ArchiveDamaged` if the manifest is not as it was written.
    """
    with locked(folder, writing=False):
        manifest = read_manifest(folder)
        findings = [*_misplaced(manifest), *_unlisted(folder, manifest)]
        done, total = 0, sum(file.records for file in manifest.files)
        for file in manifest.files:
            problem = altered(folder, file) or _disagreement(folder, file)
            if problem:
                findings.append(Finding(file.path, problem))
            done += file.records
            progress(done, total)
    return findings


def altered(folder: Path, file: ArchivedFile) -> str | None:
    """What is wrong with the file, in words: it is missing, cannot be read, or has other bytes than were written. None
    if nothing is wrong."""
    path = folder / file.path
    try:
        size = path.stat().st_size
        if size != file.bytes:
            return f"is altered: {size:,} bytes instead of {file.bytes:,}"
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError:
        return f"is missing: it held {file}"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if digest == file.sha256 else "is altered: its checksum is another"


def _disagreement(folder: Path, file: ArchivedFile) -> str | None:
    """How the file's records differ from what the manifest says about them, in words. None if they do not differ."""
    try:
        with pq.ParquetFile(folder / file.path) as parquet:
            table = parquet.read(columns=["partition", "offset", "recorded_at"])
    except (pa.ArrowException, OSError) as error:
        return f"is no Parquet file: {str(error).splitlines()[0]}"
    offsets: Int64Array = table["offset"].to_numpy()
    recorded_at: Int64Array = table["recorded_at"].cast(pa.int64()).to_numpy()
    days = np.unique(recorded_at // DAY_US)
    holds = {
        "its records": (len(offsets), file.records),
        "its partitions": (table["partition"].unique().to_pylist(), [file.partition]),
        "the order of its offsets": (bool((np.diff(offsets) > 0).all()), True),
        "its offsets": (bool(((offsets >= file.first_offset) & (offsets < file.next_offset)).all()), True),
        "its days": ([day_of(int(d) * DAY_US) for d in days], [file.day]),
        "its times": ((int(recorded_at.min()), int(recorded_at.max())), (file.recorded_from, file.recorded_until)),
    }
    wrong = [name for name, (held, listed) in holds.items() if held != listed]
    return f"disagrees with the manifest in {', '.join(wrong)}" if wrong else None


def _misplaced(manifest: Manifest) -> Iterator[Finding]:
    """One finding for each overlap of two files or losses of a partition, and for each gap between them."""
    for tp, spans in manifest.spans().items():
        for before, after in pairwise([Span(*tp, 0, 0), *spans]):
            name = after.path if isinstance(after, ArchivedFile) else MANIFEST
            if after.first_offset > before.next_offset:
                gap = Span(*tp, before.next_offset, after.first_offset)
                yield Finding(name, f"a gap before it: nothing holds {gap}")
            elif after.first_offset < before.next_offset:
                last = min(before.next_offset, after.next_offset)
                other = before.path if isinstance(before, ArchivedFile) else MANIFEST
                yield Finding(name, f"overlaps {other}: both hold {Span(*tp, after.first_offset, last)}")


def _unlisted(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    # The next run overwrites the unfinished manifest of a killed run.
    known = {MANIFEST, MANIFEST + UNFINISHED, LOCK, *(file.path for file in manifest.files)}
    counts: dict[str, int] = defaultdict(int)
    for file in manifest.files:
        counts[file.path] += 1
    for path, count in counts.items():
        if count > 1:
            yield Finding(path, f"is listed {count} times")
    for unlisted in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        name = unlisted.relative_to(folder).as_posix()
        if name not in known:
            holder = _holder(manifest, name)
            if holder:
                what = f"is a leftover: {holder.path} holds its records; `coupon-ledger archive merge` removes it"
            elif is_left(manifest, name):
                what = "is unlisted: a run that did not end left it; the next one of `coupon-ledger archive` removes it"
            else:
                what = "is unlisted: the manifest does not name it"
            yield Finding(name, what)


def is_left(manifest: Manifest, name: str) -> bool:
    """Whether a killed run left the file `name`: it is unfinished, or begins where the manifest's last file of its
    partition ends, or later. The next run removes it and archives its records again."""
    if (parts := NAME.fullmatch(name)) is None:
        return False
    end = manifest.ends().get(TopicPartition(parts["topic"], int(parts["partition"])), 0)
    return bool(parts["unfinished"]) or int(parts["first"]) >= end


def _holder(manifest: Manifest, name: str) -> ArchivedFile | None:
    """The listed file that has the first record of the unlisted file `name`. None if there is none. A merge leaves such
    an unlisted file: a small file that it has replaced, or a merged file that the manifest does not list yet."""
    if (parts := NAME.fullmatch(name)) is None:
        return None
    tp, first = TopicPartition(parts["topic"], int(parts["partition"])), int(parts["first"])
    return next((f for f in manifest.files if f.tp == tp and f.first_offset <= first < f.next_offset), None)


def day_of(recorded_at: int) -> str:
    """The UTC day of `recorded_at` (µs since the epoch), as in `2026-11-11`."""
    return str(np.datetime64(recorded_at // DAY_US, "D"))
