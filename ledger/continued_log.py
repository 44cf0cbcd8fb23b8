"""Reads an archive and its log as one log: records before the archive's end come from the archive, later ones from the
log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from coupon_ledger.ledger.archive import ArchiveLog, Span, Stretch
from coupon_ledger.ledger.errors import ArchiveUnusable, LogTruncated
from coupon_ledger.ledger.log import Chunk, EventLog, LogReader, Position, Record, StoredRecord, TopicPartition
from coupon_ledger.ledger.opening import open_backend
from coupon_ledger.ledger.registry_log import RegistryLog
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import ALL_TOPICS

_POLL_S: Final = 1.0


class ContinuedLog:
    """A log whose archived records are read from its archive. Everything else goes to the log itself. `close` closes
    both.

    Raises `ArchiveUnusable` if the archive was made from another log, `LogTruncated` if the log no longer has the
    records that directly follow the archive's end.
    """

    def __init__(self, archive: ArchiveLog, log: EventLog) -> None:
        self.url = f"{archive.url} and {log.url}"
        self._archive = archive
        self._log = log
        if why := another_log(archive, log):
            raise ArchiveUnusable(f"{archive.url}: it is of another log than {log.url} ({why}); name the one it is of")
        self._archived = archive.manifest.ends()
        held = log.earliest_positions(log.partitions())
        lost = [Span(*tp, self._archived.get(tp, 0), first) for tp, first in held.items()]
        if lost := [span for span in lost if span.next_offset > span.first_offset]:
            raise LogTruncated(
                f"{self.url}: neither holds {'; '.join(map(str, lost))}; restore them from another archive, nothing is"
                " skipped"
            )

    def create_topics(self) -> list[str]:
        return self._log.create_topics()

    def append(self, records: Sequence[Record]) -> list[Position]:
        return self._log.append(records)

    @property
    def visible_after_s(self) -> float:
        return self._log.visible_after_s

    def partitions(self, topics: Sequence[str] = ALL_TOPICS) -> list[TopicPartition]:
        return self._log.partitions(topics)

    def read(self, positions: Mapping[TopicPartition, int], max_records: int, timeout_s: float = 0.0) -> list[Chunk]:
        """Like `LogReader.read`. While any of the positions is before the archive's end, returns only archived records,
        and only of those partitions."""
        archived = {tp: offset for tp, offset in positions.items() if offset < self._archived.get(tp, 0)}
        return (
            self._archive.read(archived, max_records) if archived else self._log.read(positions, max_records, timeout_s)
        )

    def decoded(self, tp: TopicPartition, offset: int, end: int, count: int) -> Stretch | None:
        """The same as `ArchiveLog.decoded`: records whose events the archive stores decoded."""
        return self._archive.decoded(tp, offset, end, count)

    def earliest_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        archived = [tp for tp in partitions if self._archived.get(tp, 0)]
        return {**self._log.earliest_positions(partitions), **self._archive.earliest_positions(archived)}

    def end_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._log.end_positions(partitions)

    def high_watermarks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._log.high_watermarks(partitions)

    def identities(self) -> dict[str, str]:
        return self._log.identities()

    def records_at(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, StoredRecord]:
        archived = {tp: offset for tp, offset in positions.items() if offset < self._archived.get(tp, 0)}
        others = {tp: offset for tp, offset in positions.items() if tp not in archived}
        return {**self._archive.records_at(archived), **self._log.records_at(others)}

    def next_recorded(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        if any(offset < self._archived.get(tp, 0) for tp, offset in positions.items()):
            return {}  # the archive is not read in the order of recording
        return self._log.next_recorded(positions)

    def close(self) -> None:
        self._archive.close()
        self._log.close()


def open_continued(settings: LogSettings, archive: Path) -> EventLog:
    """Open the log at `settings.url` and its archive in the folder `archive`, as one log. Raises what opening the log
    or the archive raises."""
    backend = open_backend(settings)
    try:
        log = ContinuedLog(ArchiveLog(archive), backend)
    except BaseException:
        backend.close()
        raise
    if settings.schema_registry:
        return RegistryLog(log, settings)
    return log


def another_log(archive: ArchiveLog, log: LogReader) -> str | None:
    """Why `log` cannot be the log that was archived, in words. None if it may be that log.

    Compares the partitions, their ends, and the last archived record of each partition if the log still has it.
    """
    archived = {tp: end for tp, end in archive.manifest.ends().items() if archive.manifest.topics}
    partitions = log.partitions(sorted({tp.topic for tp in archived}))
    if missing := sorted(set(archived) - set(partitions)):
        return f"it has no partition {missing[0].partition} of {missing[0].topic}"
    earliest, ends = log.earliest_positions(partitions), log.end_positions(partitions)
    for tp, end in archived.items():
        if end > ends[tp]:
            return f"partition {tp.partition} of {tp.topic} ends at {ends[tp]}, not {end}"
        last = archive.last_record(tp)
        if last is None or last.offsets[0] < earliest[tp]:
            continue
        offset = int(last.offsets[0])
        chunk_in_log = next((chunk for chunk in read_some(log, tp, offset, 1) if len(chunk)), None)
        if not _same(last, chunk_in_log):
            return f"it has another record at offset {offset} of partition {tp.partition} of {tp.topic}"
    return None


def read_some(log: LogReader, tp: TopicPartition, offset: int, count: int) -> list[Chunk]:
    """Read up to `count` records of the partition from the offset `offset` on. Waits for the first record without a
    time limit, so the caller must know that there is one."""
    while not (chunks := log.read({tp: offset}, count, _POLL_S)):
        pass
    return chunks


def _same(one: Chunk, other: Chunk | None) -> bool:
    return other is not None and _first(one) == _first(other)


def _first(chunk: Chunk) -> tuple[int, int, bytes, bytes]:
    return int(chunk.offsets[0]), int(chunk.recorded_at[0]), chunk.keys[0], chunk.values[0]
