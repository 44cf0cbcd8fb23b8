"""Reads the events of some coupons from the log itself, from its start, and decodes them record by record.

This is used to verify the tables that the consumer fills, so it shares no code with the consumer's columnar decoding
(`consumers/intake.py`). The events are stored in a temporary folder, so memory does not grow with the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.codec import decode, event_data
from coupon_ledger.ledger.errors import InvalidEvent, LogTruncated, LogUnavailable, StoreError, UndecodableRecord
from coupon_ledger.ledger.events import parse_event
from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.log import LAST_RECORDED_US, Chunk, LogReader, TopicPartition
from coupon_ledger.ledger.progress import Progress, ignore
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.live.signature import stable_hash

_AT_ONCE: Final = 50_000
_WAIT_S: Final = 5.0
_SCHEMA: Final = {
    "key_hash": pl.Int64,
    "log_partition": pl.Int64,
    "log_offset": pl.Int64,
    "recorded_at": pl.Int64,
    "value": pl.Binary,
}


class LogContents:
    """The log's events of the coupons whose key hashes are between `first` and `last` (both inclusive). Use as a
    context manager, which removes the temporary folder after the block."""

    def __init__(self, log: LogReader, first: int, last: int) -> None:
        self._log = log
        self._first, self._last = first, last
        self._read: dict[TopicPartition, int] = {}
        self._folder = TemporaryDirectory(prefix="coupon-ledger-")
        self._files: list[Path] = []

    def __enter__(self) -> LogContents:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def of(
        self,
        first: int,
        last: int,
        positions: Mapping[TopicPartition, int],
        set_aside: Set[tuple[int, int]] = frozenset(),
    ) -> dict[str, list[Delivery]]:
        """The deliveries before the given positions, by coupon, of the coupons whose key hashes are between `first` and
        `last` (both inclusive).

        `positions`: the next offset of each partition. `set_aside`: partition and offset of each valid event that the
        consumer has turned into a dead letter. The result leaves these out, and also records with an impossible time of
        recording.

        Raises `LogTruncated` if the log ends before one of the positions, and `LogUnavailable`.
        """
        self.read_on(positions)
        if not self._files:
            return {}
        until = pl.DataFrame(
            [(at.partition, end) for at, end in positions.items() if at.topic == COUPON],
            schema={"log_partition": pl.Int64, "end": pl.Int64},
            orient="row",
        )
        kept = pl.scan_parquet(self._files).filter(pl.col("key_hash").is_between(first, last))
        wanted = kept.join(until.lazy(), on="log_partition").filter(pl.col("log_offset") < pl.col("end")).collect()
        deliveries_of: dict[str, list[Delivery]] = {}
        for _, partition, offset, recorded_at, value, _ in wanted.iter_rows():
            if (partition, offset) in set_aside or not 0 <= recorded_at < LAST_RECORDED_US:
                continue
            event = _event(value)
            if event is not None and _valid(event):
                delivery = Delivery(_naive(event), recorded_at, partition, offset)
                deliveries_of.setdefault(event["coupon_id"], []).append(delivery)
        return deliveries_of

    def read_on(self, positions: Mapping[TopicPartition, int], progress: Progress = ignore) -> None:
        """Read the log at least up to these positions. Starts where the last call ended. `progress`: reports the number
        of records that this call has read. Raises what `of` raises."""
        ends = {at: end for at, end in positions.items() if at.topic == COUPON}
        there = self._log.end_positions(self._log.partitions([COUPON]))
        for at, end in ends.items():
            if there.get(at, 0) < end:
                raise LogTruncated(
                    f"{at.topic} partition {at.partition}: the log ends at {there.get(at, 0)}, but the database has"
                    f" read up to {end}; restore the log, or check --log and --database"
                )
        done, total = 0, sum(max(0, end - self._read.get(at, 0)) for at, end in ends.items())
        while behind := {at: self._read.get(at, 0) for at, end in ends.items() if self._read.get(at, 0) < end}:
            chunks = self._log.read(behind, _AT_ONCE, _WAIT_S)
            if not chunks:
                at, offset = next(iter(behind.items()))
                raise LogUnavailable(
                    f"{at.topic} partition {at.partition}: nothing came from offset {offset} on, though the log ends at"
                    f" {there[at]}; check the log and run again"
                )
            for chunk in chunks:
                self._read[TopicPartition(chunk.topic, chunk.partition)] = chunk.next_offset
                done += len(chunk)
                progress(done, max(done, total))
            self._keep(chunks)

    def _keep(self, chunks: list[Chunk]) -> None:
        """Store the events of the wanted coupons in a new temporary file."""
        rows, keys = [], []
        for chunk in chunks:
            records = zip(chunk.offsets.tolist(), chunk.recorded_at.tolist(), chunk.values, strict=True)
            for offset, recorded_at, value in records:
                event = _event(value)
                if event is not None:
                    keys.append(event["coupon_id"])
                    rows.append((chunk.partition, offset, recorded_at, value))
        hashes = stable_hash(pl.Series(keys, dtype=pl.String)).tolist()
        mine = [(h, *row) for h, row in zip(hashes, rows, strict=True) if self._first <= h <= self._last]
        if mine:
            file = Path(self._folder.name, f"{len(self._files)}.parquet")
            try:
                pl.DataFrame(mine, schema=_SCHEMA, orient="row").write_parquet(file, compression="lz4")
            except OSError as error:
                raise StoreError(
                    f"the log's events: cannot be kept in a temporary file ({error.strerror or error}); free space in"
                    " the folder for those (TMPDIR), or ask for a smaller --sample"
                ) from error
            self._files.append(file)


def _event(value: bytes) -> dict[str, Any] | None:
    """The coupon event that these bytes encode, whether it is valid or not. None if they do not encode a coupon
    event."""
    try:
        writer, row = decode(value)
    except UndecodableRecord:
        return None
    return row if writer.topic == COUPON else None


def _valid(event: dict[str, Any]) -> bool:
    try:
        parse_event(COUPON, event_data(event))
    except (UndecodableRecord, InvalidEvent):
        return False
    return True


def _naive(event: dict[str, Any]) -> dict[str, Any]:
    """The event with its instants as naive UTC, as in the tables."""
    return {k: v.replace(tzinfo=None) if isinstance(v, datetime) else v for k, v in event.items()}
