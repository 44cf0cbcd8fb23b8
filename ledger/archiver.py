"""Writes archives, and merges their small files. Each run archives the log's records after the manifest's end, as new
files.

Always true:
- Each record is archived once: a run removes what a killed run left, and continues where the manifest ends.
- A file is on disk under its name before the manifest lists it.
- Nothing is skipped silently: if the log no longer has the next offset, the run fails, or lists the loss.
- Records of different logs are not mixed in one archive: each run first compares the log with the last archived record
  of each partition.
- A merge does not change the archived records at any moment: replaced files are removed only after the manifest lists
  their replacement.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from coupon_ledger.ledger.archive import (
    DAY_US,
    DECODED,
    LOCK,
    MANIFEST,
    NAME,
    SCHEMA,
    SUFFIX,
    UNFINISHED,
    ArchivedFile,
    ArchiveLog,
    Manifest,
    Span,
    altered,
    day_of,
    is_left,
    locked,
    part_of,
    read_manifest,
    unread,
)
from coupon_ledger.ledger.continued_log import another_log, read_some
from coupon_ledger.ledger.errors import ArchiveUnusable, LogTruncated
from coupon_ledger.ledger.log import Chunk, LogReader, TopicPartition
from coupon_ledger.ledger.progress import Progress, ignore
from coupon_ledger.ledger.topics import INPUT_TOPICS
from coupon_ledger.ledger.validity import decoded_by, valid_events

Boundary = Callable[[str], None]
"""Called with the name of each step reached: file, written, renamed, manifest, committed, removed."""

_READ_RECORDS: Final = 32_768
_GROUP_ROWS: Final = 32_768
_FILE_RECORDS: Final = 1_000_000
_COMMIT_S: Final = 5.0
_OWN: Final = frozenset({"event_id", "coupon_id", "order_id", "user_id", "key", "value"})
"""Columns whose values hardly repeat, so that a dictionary would be larger than the values."""
_WRITING: Final = {
    "compression": "zstd",
    "column_encoding": {"offset": "DELTA_BINARY_PACKED", "recorded_at": "DELTA_BINARY_PACKED"},
}


@dataclass(slots=True)
class Archived:
    """The result of one run: how many files, records and bytes it archived. `losses`: the ranges of offsets that it
    listed in the manifest as lost."""

    files: int = 0
    records: int = 0
    bytes: int = 0
    losses: tuple[Span, ...] = ()


class Archiver:
    """Archives one log into one folder, which is created if it is missing. `run` may be called once.

    `log`: the log without wrappers (`open_backend`), so that the stored bytes are archived. `accept_loss`: list records
    that the log no longer has as lost, instead of raising `LogTruncated`. `decode`: also store the events' fields,
    decoded, beside their bytes. `progress`: counts records; its total assumes that each offset still to be read has a
    record.
    """

    def __init__(
        self,
        log: LogReader,
        folder: Path,
        *,
        accept_loss: bool = False,
        decode: bool = True,
        progress: Progress = ignore,
        file_records: int = _FILE_RECORDS,
        commit_s: float = _COMMIT_S,
        at_boundary: Boundary = lambda _: None,
    ) -> None:
        self._log = log
        self._folder = folder
        self._accept_loss = accept_loss
        self._decode = decode
        self._progress = progress
        self._file_records = file_records
        self._commit_s = commit_s
        self._reached = at_boundary
        self._committed = Manifest()
        self._committed_at = time.monotonic()
        self._done = self._left = 0
        self._archived = Archived()

    def run(self) -> Archived:
        """Archive all records up to the log's current end.

        Raises `LogTruncated` if the log no longer has records that are not archived yet, unless that is accepted.
        Raises `ArchiveUnusable` if the folder cannot be written, is in use or has an archive of another log, and
        `ArchiveDamaged` if the manifest or a file that is read is not as it was written.
        """
        with _writable(self._folder):
            self._folder.mkdir(exist_ok=True)
        with _writable(self._folder), locked(self._folder, writing=True):
            partitions = self._log.partitions()
            ends = self._log.end_positions(partitions)
            manifest = self._continued(self._manifest(), partitions)
            self._remove_leftovers(manifest)
            archived = manifest.ends()
            self._left = sum(ends[tp] - archived[tp] for tp in partitions)
            self._progress(0, self._left)
            try:
                for tp in partitions:
                    for file in self._files(tp, archived[tp], ends[tp]):
                        manifest = replace(manifest, files=(*manifest.files, file))
                        self._count(file)
                        if time.monotonic() - self._committed_at >= self._commit_s:
                            self._commit(manifest)
            finally:
                # Also after an interruption, since the log may delete these records.
                self._commit(manifest)
        return self._archived

    def _count(self, file: ArchivedFile) -> None:
        self._archived.files += 1
        self._archived.records += file.records
        self._archived.bytes += file.bytes

    # --- Preparing

    def _manifest(self) -> Manifest:
        """The folder's manifest. Writes an empty one if the folder is empty. Raises `ArchiveUnusable` if the folder has
        other files but no manifest."""
        if (self._folder / MANIFEST).exists():
            self._committed = read_manifest(self._folder)
            return self._committed
        others = sorted({path.name for path in self._folder.iterdir()} - {LOCK, MANIFEST + UNFINISHED})
        if others:
            raise ArchiveUnusable(
                f"archive {self._folder}: no {MANIFEST} there, but {others[0]}; name an empty folder, or put back"
                " the manifest"
            )
        _write_manifest(self._folder, self._committed, self._reached)
        return self._committed

    def _continued(self, manifest: Manifest, partitions: list[TopicPartition]) -> Manifest:
        """The manifest that the run continues with. It has the log's current partitions, and lists as losses the
        offsets that the log no longer has and that are not archived.

        Raises `ArchiveUnusable` if the archive was made from another log, `LogTruncated` if there are losses that are
        not accepted.
        """
        self._check_same_log()
        counts = Counter(tp.topic for tp in partitions)
        manifest = replace(manifest, topics=dict(sorted(counts.items())))
        archived, earliest = manifest.ends(), self._log.earliest_positions(partitions)
        losses = tuple(Span(*tp, end, earliest[tp]) for tp, end in archived.items() if earliest[tp] > end)
        if losses and not self._accept_loss:
            raise LogTruncated(
                f"archive {self._folder}: log {self._log.url} no longer holds {'; '.join(map(str, losses))}, and they"
                " were not archived; restore them, or archive the rest with --accept-loss, which notes them as lost"
            )
        self._archived.losses = losses
        return replace(manifest, losses=(*manifest.losses, *losses))

    def _check_same_log(self) -> None:
        archive = ArchiveLog(self._folder)
        try:
            if why := another_log(archive, self._log):
                raise ArchiveUnusable(
                    f"archive {self._folder}: it is of another log than {self._log.url} ({why}); name that log, or a"
                    " new folder"
                )
        finally:
            archive.close()

    def _remove_leftovers(self, manifest: Manifest) -> None:
        """Remove unlisted files that a killed run left: unfinished files, and files of records after the manifest's
        end. The log still has these records."""
        named = {file.path for file in manifest.files}
        for path in self._folder.rglob("*"):
            name = path.relative_to(self._folder).as_posix()
            if name not in named and is_left(manifest, name):
                path.unlink()

    # --- Records

    def _files(self, tp: TopicPartition, start: int, end: int) -> Iterator[ArchivedFile]:
        """Write the partition's records into files, from the offset `start` at least up to the offset `end`. Yields
        each file when it is complete."""
        file: _File | None = None
        next_offset = start
        try:
            for chunk in self._chunks(tp, start, end):
                for part in _days(chunk):
                    first, day = int(part.offsets[0]), day_of(int(part.recorded_at[0]))
                    if file is not None and (file.day != day or file.records >= self._file_records):
                        whole, file = file, None
                        yield whole.finish(first)
                        start = first
                    if file is None:
                        file = _File(self._folder, tp, start, day, self._reached, decode=self._decode)
                        self._reached("file")
                    file.add(part)
                next_offset = chunk.next_offset
                self._left -= next_offset - int(chunk.offsets[0])
                self._done += len(chunk)
                self._progress(self._done, self._done + max(0, self._left))
            if file is not None:
                whole, file = file, None
                yield whole.finish(next_offset)
        finally:
            if file is not None:
                file.abandon()

    def _chunks(self, tp: TopicPartition, start: int, end: int) -> Iterator[Chunk]:
        """The partition's records from the offset `start` at least up to the offset `end`. The next chunks are read in
        the background while the caller processes the current ones."""
        if start >= end:
            return
        count = min(_READ_RECORDS, self._file_records)
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._read, tp, start, count)
            while start < end:
                chunks = coming.result()
                start = chunks[-1].next_offset
                if start < end:
                    coming = ahead.submit(self._read, tp, start, count)
                yield from (chunk for chunk in chunks if len(chunk))

    def _read(self, tp: TopicPartition, offset: int, count: int) -> list[Chunk]:
        return read_some(self._log, tp, offset, count)

    # --- The manifest

    def _commit(self, manifest: Manifest) -> None:
        if manifest != self._committed:
            _write_manifest(self._folder, manifest, self._reached)
        self._committed, self._committed_at = manifest, time.monotonic()


@dataclass(slots=True)
class Merged:
    """The result of one merge: `files` small files with `records` records became `into` files. `kept`: how many
    leftover files were not removed because the archive has readers. The next merge removes them."""

    files: int = 0
    into: int = 0
    records: int = 0
    kept: int = 0


class Merger:
    """Merges consecutive small files of one partition and day. `run` may be called once.

    While the archive has readers, the replaced files are kept for them. The next merge removes these files. `progress`:
    counts records.
    """

    def __init__(
        self,
        folder: Path,
        *,
        progress: Progress = ignore,
        file_records: int = _FILE_RECORDS,
        at_boundary: Boundary = lambda _: None,
    ) -> None:
        self._folder = folder
        self._progress = progress
        self._file_records = file_records
        self._reached = at_boundary
        self._done = self._total = 0
        self._merged = Merged()

    def run(self) -> Merged:
        """Merge the archive's small files. Raises `ArchiveDamaged`, and `ArchiveUnusable` if there is no archive or
        another process writes or verifies it."""
        with _writable(self._folder), locked(self._folder, writing=True):
            manifest = read_manifest(self._folder)
            self._remove_leftovers(manifest)
            groups = list(_small(manifest, self._file_records))
            self._total = sum(file.records for group in groups for file in group)
            self._progress(0, self._total)
            for group in groups:
                whole = self._joined(group)
                files = [whole if file is group[0] else file for file in manifest.files if file not in group[1:]]
                manifest = replace(manifest, files=tuple(files))
                _write_manifest(self._folder, manifest, self._reached)
                self._merged.files += len(group)
                self._merged.into += 1
                self._merged.records += whole.records
            self._remove_leftovers(manifest)
        return self._merged

    def _joined(self, group: Sequence[ArchivedFile]) -> ArchivedFile:
        first, end = group[0], group[-1].next_offset
        archive = ArchiveLog(self._folder)
        decode = any(DECODED in (pq.read_schema(self._folder / f.path).metadata or {}) for f in group)
        file = _File(self._folder, first.tp, first.first_offset, first.day, self._reached, decode=decode, before=end)
        try:
            self._reached("file")
            for chunk in (chunk for small in group for chunk in archive.chunks_of(small)):
                file.add(chunk)
                self._done += len(chunk)
                self._progress(self._done, self._total)
            return file.finish(end)
        except BaseException:
            file.abandon()
            raise
        finally:
            archive.close()

    def _remove_leftovers(self, manifest: Manifest) -> None:
        """Remove unfinished files, and unlisted files whose records are all in listed files. If the archive has readers
        now, remove nothing."""
        leftovers = sorted(path for path in self._folder.rglob("*") if self._is_leftover(path, manifest))
        with unread(self._folder) as removable:
            self._merged.kept = 0 if removable else len(leftovers)
            for path in leftovers if removable else ():
                path.unlink()
                self._reached("removed")

    def _is_leftover(self, path: Path, manifest: Manifest) -> bool:
        name = path.relative_to(self._folder).as_posix()
        parts = NAME.fullmatch(name)
        if parts is None or any(file.path == name for file in manifest.files):
            return False
        if parts["unfinished"]:
            return True
        tp, at = TopicPartition(parts["topic"], int(parts["partition"])), int(parts["first"])
        try:
            end = _last_offset(path) + 1
        except (pa.ArrowException, OSError):
            return False
        held = [file for file in manifest.files if file.tp == tp and file.first_offset < end and file.next_offset > at]
        for file in sorted(held, key=lambda file: file.first_offset):
            if file.first_offset > at or altered(self._folder, file):
                return False
            at = file.next_offset
        return at >= end


def _small(manifest: Manifest, file_records: int) -> Iterator[list[ArchivedFile]]:
    """The groups of files that can be merged: two or more consecutive files of one partition and day, with at most
    `file_records` records in all."""
    for spans in manifest.spans().values():
        group: list[ArchivedFile] = []
        for span in spans:
            file = span if isinstance(span, ArchivedFile) else None
            fits = (
                file is not None
                and group
                and file.day == group[0].day
                and sum(f.records for f in group) + file.records <= file_records
            )
            if not fits:
                if len(group) > 1:
                    yield group
                group = []
            if file is not None:
                group.append(file)
        if len(group) > 1:
            yield group


def _last_offset(path: Path) -> int:
    metadata = pq.read_metadata(path)
    return int(metadata.row_group(metadata.num_row_groups - 1).column(1).statistics.max)


def _write_manifest(folder: Path, manifest: Manifest, reached: Boundary) -> None:
    unfinished = folder / (MANIFEST + UNFINISHED)
    with unfinished.open("w", encoding="utf-8") as written:
        written.write(manifest.text())
        written.flush()
        os.fsync(written.fileno())
    reached("manifest")
    unfinished.replace(folder / MANIFEST)
    _sync_folder(folder)
    reached("committed")


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = Path(error.filename).name if error.filename else "a file"
        raise ArchiveUnusable(
            f"archive {folder}: {what} cannot be written ({error.strerror}); check space and permissions there, then"
            " run it again: what the manifest names is whole, and it goes on behind it"
        ) from error


class _File:
    """A new archive file while it is written. Its name is temporary until it is complete."""

    def __init__(
        self,
        folder: Path,
        tp: TopicPartition,
        first_offset: int,
        day: str,
        reached: Boundary,
        *,
        decode: bool,
        before: int | None = None,
    ) -> None:
        """`before`: the offset at which a merged file ends. It is part of the name, so that the name differs from those
        of the files that it replaces."""
        self.day = day
        self.records = 0
        self._folder = folder
        self._tp = tp
        self._first_offset = first_offset
        self._reached = reached
        end = "" if before is None else f"-{before:020}"
        self._path = f"topic={tp.topic}/day={day}/{tp.partition}-{first_offset:020}{end}{SUFFIX}"
        self._times: list[int] = []
        self._waiting: list[Chunk] = []
        self._decode = decode and tp.topic in INPUT_TOPICS
        self._unfinished = folder / (self._path + UNFINISHED)
        self._unfinished.parent.mkdir(parents=True, exist_ok=True)
        self._sink = _Sink(self._unfinished)
        schema = _decoded_schema(tp.topic) if self._decode else SCHEMA
        packed = [f.name for f in schema if f.name not in _OWN and f.name not in _WRITING["column_encoding"]]
        self._writer = pq.ParquetWriter(self._sink, schema, use_dictionary=packed, **_WRITING)

    def add(self, part: Chunk) -> None:
        self._times += [int(part.recorded_at.min()), int(part.recorded_at.max())]
        self.records += len(part)
        self._waiting.append(part)
        if sum(map(len, self._waiting)) >= _GROUP_ROWS:
            self._flush()

    def finish(self, next_offset: int) -> ArchivedFile:
        """Complete the file: sync it to disk and give it its final name. Returns its entry in the manifest.
        `next_offset`: where its range of offsets ends (exclusive)."""
        try:
            self._flush()
            self._writer.close()
            self._sink.settle()
        except BaseException:
            self.abandon()
            raise
        self._reached("written")
        path = self._folder / self._path
        self._unfinished.rename(path)
        for folder in (path.parent, path.parent.parent, self._folder):
            _sync_folder(folder)
        self._reached("renamed")
        return ArchivedFile(
            *self._tp,
            first_offset=self._first_offset,
            next_offset=next_offset,
            path=self._path,
            day=self.day,
            records=self.records,
            recorded_from=min(self._times),
            recorded_until=max(self._times),
            bytes=self._sink.size,
            sha256=self._sink.sha256.hexdigest(),
        )

    def abandon(self) -> None:
        self._sink.discard()
        with suppress(pa.ArrowException, OSError):
            self._writer.close()
        self._unfinished.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(_table(self._waiting, self._decode))
            self._waiting.clear()


def _table(chunks: list[Chunk], decode: bool) -> pa.Table:
    """The records of `chunks`, all from one partition, as an Arrow table. With `decode`, the table also has the fields
    of their events. In the row of a record that is not a valid event, these fields are null."""
    values = [value for chunk in chunks for value in chunk.values]
    columns = {
        "partition": np.full(len(values), chunks[0].partition, np.int32),
        "offset": np.concatenate([chunk.offsets for chunk in chunks]),
        "recorded_at": np.concatenate([chunk.recorded_at for chunk in chunks]).view("datetime64[us]"),
        "key": pa.array([key for chunk in chunks for key in chunk.keys], pa.large_binary()),
        "value": pa.array(values, pa.large_binary()),
    }
    if not decode:
        return pa.table(columns, schema=SCHEMA)
    topic = chunks[0].topic
    events, others = valid_events(topic, values)
    if others:
        row = pl.int_range(len(values), dtype=pl.Int64, eager=True).to_frame("row")
        events = row.join(events, on="row", how="left", maintain_order="left")
    fields = events.drop("row").to_arrow(compat_level=pl.CompatLevel.oldest())
    schema = _decoded_schema(topic)
    return pa.table(columns | {f: fields[f].cast(schema.field(f).type) for f in fields.column_names}, schema=schema)


@cache
def _decoded_schema(topic: str) -> pa.Schema:
    """The Arrow schema of files with decoded events: the columns of `SCHEMA`, then the fields of the topic's events."""
    nothing, _ = valid_events(topic, [])
    fields = nothing.drop("row").to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    return pa.schema([*SCHEMA, *fields], metadata={DECODED: decoded_by(topic)})


class _Sink(io.RawIOBase):
    """A new file whose size and checksum are computed as it is written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.size = 0
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if not self._file.closed:
            self._file.write(data)
            self.sha256.update(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size

    def settle(self) -> None:
        """Sync the file to disk and close it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Close the file. Later calls of `write` drop their data without an error."""
        with suppress(OSError):
            self._file.close()


def _days(chunk: Chunk) -> Iterator[Chunk]:
    """The chunk's records, split into one chunk per UTC day on which they were recorded."""
    cuts = np.flatnonzero(np.diff(chunk.recorded_at // DAY_US)) + 1
    for start, end in pairwise([0, *cuts.tolist(), len(chunk)]):
        yield part_of(chunk, start, end, chunk.next_offset)


def _sync_folder(folder: Path) -> None:
    """Sync the folder itself to disk, so that new and renamed files in it survive a crash."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
