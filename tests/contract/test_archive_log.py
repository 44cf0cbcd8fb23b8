"""An archive is read as its log is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from coupon_ledger.ledger.archive import ArchiveLog
from coupon_ledger.ledger.archiver import Archiver
from coupon_ledger.ledger.log import Chunk, EventLog, Position, Record, StoredRecord, TopicPartition
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import ALL_TOPICS
from tests.contract.log_contract import Backend, ReadingContract, opened
from tests.contract.test_sqlite_log import drop_head


class Archived:
    """A log of which only the archive is read; each append is archived by a run of its own, in small files."""

    visible_after_s = 0.0

    def __init__(self, log: EventLog, folder: Path) -> None:
        self.url = log.url
        self._log = log
        self._folder = folder
        self._archive()

    def create_topics(self) -> list[str]:
        return self._log.create_topics()

    def append(self, records: Sequence[Record]) -> list[Position]:
        positions = self._log.append(records)
        self._archive()
        return positions

    def partitions(self, topics: Sequence[str] = ALL_TOPICS) -> list[TopicPartition]:
        return self._reader.partitions(topics)

    def read(self, positions: Mapping[TopicPartition, int], max_records: int, timeout_s: float = 0.0) -> list[Chunk]:
        return self._reader.read(positions, max_records, timeout_s)

    def earliest_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._reader.earliest_positions(partitions)

    def end_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._reader.end_positions(partitions)

    def high_watermarks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._reader.high_watermarks(partitions)

    def identities(self) -> dict[str, str]:
        return self._reader.identities()

    def records_at(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, StoredRecord]:
        return self._reader.records_at(positions)

    def next_recorded(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return self._reader.next_recorded(positions)

    def close(self) -> None:
        self._reader.close()

    def _archive(self) -> None:
        Archiver(self._log, self._folder, file_records=70).run()
        self._reader = ArchiveLog(self._folder)


@pytest.fixture
def backend(sqlite_log_settings: LogSettings) -> Backend:
    return Backend(sqlite_log_settings, drop_head)


class TestArchiveLog(ReadingContract):
    in_order_of_recording = False

    @pytest.fixture
    def log(self, backend: Backend, tmp_path: Path) -> Iterator[EventLog]:
        with opened(backend.settings, create=True) as log:
            log.create_topics()
            archived = Archived(log, tmp_path / "archive")
            yield archived
            archived.close()
