"""The whole history of a log into an empty database, faster than batch by batch.

    scatter   read each topic, decode and validate it (`intake`), unless an archive keeps it decoded, and lay its events
              down by slices of their keys, in files beside the database that are gone afterwards
    fold      one slice after the other (`projections.live.whole`), the next ones while this one is written
    settle    the rules across coupons, the accounts

What always holds: the tables are those that the consumer would have made of the same records, at the same positions.
Until they are, the database is marked as one that nobody can open, and that is where it was interrupted or killed.
Memory does not grow with the log.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

import polars as pl

from consumers.intake import told_valid
from consumers.runner import checked_ends
from consumers.tuning import keep_small
from ledger.archive import KeepsDecoded, Stretch
from ledger.log import Chunk, LogReader, TopicPartition
from ledger.topics import INPUT_TOPICS, KEY_FIELD
from projections import checkpoints
from projections.checkpoints import Account
from projections.generations import SLICES
from projections.live import cross, whole
from projections.live.signature import stable_hash
from projections.sliced import lay_down, taken_up
from projections.store import VERSION, Store, disk_failed

Advance = Callable[[int, int], None]
"""Told how many records came, and how many are left."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Piece = Chunk | Stretch

WORTH_IT: Final = 100_000
"""Records; fewer are consumed as soon."""

_UNFINISHED: Final = 0
"""The version of the tables in a database that is being filled; there is no such version."""
_SLICE_EVENTS: Final = 250_000
_FILE_RECORDS: Final = 200_000
_POLL_S: Final = 0.5
_WORKERS: Final = 2
_AHEAD: Final = 3
"""Pieces of work that are under way or wait to be taken."""


def spill_folder(file: Path) -> Path:
    """Where the events lie meanwhile, for a database in that file."""
    return file.with_name(file.name + SLICES)


def fold_whole(
    log: LogReader,
    store: Store,
    until: Mapping[TopicPartition, int],
    advance: Advance,
    grace: timedelta | None = None,
) -> int:
    """Fill the store, which is empty, with all that the log holds before these positions; returns how many records.

    Raises `LogTruncated`, `LogUnavailable`, `StoreFull`, `ConservationBroken`.
    """
    return _fill(log, store, until, advance, INPUT_TOPICS, grace)


def fold_again(log: LogReader, store: Store, topics: Sequence[str], advance: Advance) -> int:
    """Fill what follows from these topics anew, with all that the log holds before the positions that the store has
    reached; returns how many records. Raises what `fold_whole` raises."""
    reached = checkpoints.load(store).items()
    until = {partition: account.next_offset for partition, account in reached if partition.topic in topics}
    return _fill(log, store, until, advance, topics, None)


def _fill(
    log: LogReader,
    store: Store,
    until: Mapping[TopicPartition, int],
    advance: Advance,
    topics: Sequence[str],
    grace: timedelta | None,
) -> int:
    partitions = log.partitions(topics)
    for wanted in (dict.fromkeys(partitions, 0), {p: until.get(p, 0) for p in partitions}):
        checked_ends(log, wanted, partitions)
    with store.transaction():
        if grace is not None:
            cross.use_grace(store, grace)
        whole.clear(store, topics)
        _mark(store, _UNFINISHED)
    store.share_cores(alone=False)
    with _emptied(spill_folder(store.file)) as folder, ThreadPoolExecutor(_WORKERS, "whole") as pool:
        run = _Whole(log, store, until, _Progress(sum(until.values()), advance), folder, pool)
        return run.fill(topics)


class _Whole:
    """One run. The log and the store are the caller's thread's alone; what needs neither is done by the pool."""

    def __init__(
        self,
        log: LogReader,
        store: Store,
        until: Mapping[TopicPartition, int],
        progress: _Progress,
        folder: Path,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._log = log
        self._store = store
        self._until = until
        self._progress = progress
        self._folder = folder
        self._pool = pool
        self._accounts: dict[TopicPartition, Account] = {}
        self._clock: datetime | None = None

    def fill(self, topics: Sequence[str]) -> int:
        for topic in topics:
            with self._store.transaction():
                slices = self._scatter(topic)
            with self._store.transaction():
                self._fold(slices)
            slices.remove()
        self._store.share_cores(alone=True)
        with self._store.transaction():
            whole.settle(self._store, self._clock)
            checkpoints.save(self._store, self._accounts)
            records = sum(account.read for account in self._accounts.values())
            self._store.execute(
                "UPDATE ledger SET commits = commits + 1, committed_at = $now, batch_records = $records",
                {"now": datetime.now(UTC).replace(tzinfo=None), "records": records},
            )
            _mark(self._store, VERSION)
        self._progress.done_all()
        return records

    def _scatter(self, topic: str) -> _Slices:
        wanted = {p: offset for p, offset in self._until.items() if p.topic == topic and offset > 0}
        slices = _Slices(self._folder, topic, 1 + sum(wanted.values()) // _SLICE_EVENTS)
        for events, letters in _ahead(self._pool, slices.lay_down, enumerate(self._read(wanted))):
            for partition, count in letters.group_by("log_partition").len().iter_rows():
                self._accounts[TopicPartition(topic, partition)].dead_letters += count
            self._store.insert("dead_letters", letters)
            self._progress.done(letters.height)
            whole.write_journal(self._store, topic, events)
        return slices

    def _read(self, wanted: dict[TopicPartition, int]) -> Iterator[list[_Piece]]:
        """All records before these positions, many at a time."""
        at = dict.fromkeys(wanted, 0)
        read: list[_Piece] = []
        records = 0
        while at:
            for piece in self._next(at, wanted):
                partition = TopicPartition(piece.topic, piece.partition)
                records += self._account_for(partition, piece)
                read.append(piece)
                at[partition] = piece.next_offset
                if at[partition] >= wanted[partition]:
                    del at[partition]
            if records >= _FILE_RECORDS:
                yield read
                read, records = [], 0
        if records:
            yield read

    def _next(self, at: dict[TopicPartition, int], wanted: dict[TopicPartition, int]) -> list[_Piece]:
        """Some of every partition, so that the journal comes to lie in the order of the log."""
        found: list[_Piece] = []
        if isinstance(self._log, KeepsDecoded):
            share = _FILE_RECORDS // len(at)
            stretches = (self._log.decoded(p, offset, wanted[p], share) for p, offset in at.items())
            found += [stretch for stretch in stretches if stretch is not None]
        others = at.keys() - {piece.tp for piece in found if isinstance(piece, Stretch)}
        if others:
            chunks = self._log.read({p: at[p] for p in sorted(others)}, _FILE_RECORDS, _POLL_S)
            found += [chunk.before(wanted[TopicPartition(chunk.topic, chunk.partition)]) for chunk in chunks]
        return found

    def _account_for(self, partition: TopicPartition, piece: _Piece) -> int:
        records = piece.records if isinstance(piece, Stretch) else len(piece)
        account = self._accounts.setdefault(partition, Account())
        account.read += records
        account.next_offset = piece.next_offset
        self._progress.done(records)
        return records

    def _fold(self, slices: _Slices) -> None:
        like = whole.rows_like(self._store, slices.topic)

        def folded(number: int) -> tuple[pl.Series, whole.Slice, pl.DataFrame] | None:
            events = slices.take_up(number)
            if not events.height:
                return None
            one = whole.fold_slice(slices.topic, events, like)
            early, late = whole.parted(one.rows, slices.count)
            slices.put_aside(number, late)
            return events["log_partition"], one, early

        repeats = []
        for found in _ahead(self._pool, folded, range(slices.count)):
            if found is not None:
                partitions, one, early = found
                whole.put(self._store, one)
                whole.put_rows(self._store, slices.topic, early)
                self._account_of(partitions, one)
                repeats.append(one.repeats)
                self._progress.done(len(partitions))
                del partitions, one, early
            del found
            keep_small()
        for late in slices.put_asides():
            whole.put_rows(self._store, slices.topic, late)
        if repeats:
            whole.take_out(self._store, slices.topic, pl.concat(repeats))

    def _account_of(self, partitions: pl.Series, one: whole.Slice) -> None:
        in_conflict = one.repeats.filter("conflict")
        valid, applied, conflicts = (
            dict(of.value_counts().iter_rows())
            for of in (partitions, one.facts["log_partition"], in_conflict["log_partition"])
        )
        for partition, count in valid.items():
            account = self._accounts[TopicPartition(one.topic, partition)]
            told = applied.get(partition, 0), conflicts.get(partition, 0)
            account.applied += told[0]
            account.conflicts += told[1]
            account.repeats += count - sum(told)
        self._clock = max((at for at in (self._clock, one.clock) if at is not None), default=None)


class _Slices:
    """The events of a topic, parted by the hashes of their keys. A file holds a piece of each slice, side by side."""

    def __init__(self, folder: Path, topic: str, count: int) -> None:
        self.topic = topic
        self.count = count
        self._folder = folder
        self._schema = pl.Schema()
        self._files: list[Path] = []

    def lay_down(self, numbered: tuple[int, list[_Piece]]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The valid events of these pieces, into a file; they themselves, and the dead letters."""
        number, pieces = numbered
        chunks = [piece for piece in pieces if isinstance(piece, Chunk)]
        frames = []
        for stretch in pieces:
            if isinstance(stretch, Stretch):
                events, others = stretch.read()
                frames.append(_as_told(events, stretch))
                chunks.append(others)
        events, letters = told_valid(self.topic, chunks)
        events = pl.concat([*frames, events.select(frames[0].columns)], rechunk=True) if frames else events
        events = events.with_columns(key_hash=pl.Series(stable_hash(events[KEY_FIELD[self.topic]]), dtype=pl.Int64))
        narrow = whole.narrowed(self.topic, events)
        if events.height:
            file = self._folder / f"{self.topic}-{number:06}"
            with _room(self._folder):
                lay_down(file, narrow.select(c.name for c in narrow if c.null_count() < narrow.height), self.count)
            self._files.append(file)
        self._schema = narrow.schema
        return events, letters

    def take_up(self, number: int) -> pl.DataFrame:
        """All events of one slice, in the order in which they were read."""
        parts = [pl.DataFrame(schema=self._schema), *(taken_up(file, number) for file in sorted(self._files))]
        return pl.concat(parts, how="diagonal", rechunk=True)

    def put_aside(self, number: int, rows: pl.DataFrame) -> None:
        with _room(self._folder):
            rows.write_ipc(self._aside(number), compat_level=pl.CompatLevel.oldest())

    def put_asides(self) -> Iterator[pl.DataFrame]:
        for file in map(self._aside, range(self.count)):
            if file.exists():
                yield pl.read_ipc(file)

    def _aside(self, number: int) -> Path:
        return self._folder / f"{self.topic}-rows-{number:06}"

    def remove(self) -> None:
        for file in self._folder.iterdir():
            file.unlink()


def _as_told(events: pl.DataFrame, stretch: Stretch) -> pl.DataFrame:
    """As `told_valid` gives them."""
    return events.rename({"offset": "log_offset"}).with_columns(
        pl.col(pl.Datetime("us", "UTC")).dt.replace_time_zone(None),
        log_partition=pl.lit(stretch.partition, dtype=pl.Int32),
    )


class _Progress:
    """Half of the work is done when a record was read, the other half when it was folded."""

    def __init__(self, records: int, advance: Advance) -> None:
        self._records = records
        self._advance = advance
        self._halves = 0
        advance(0, records)

    def done(self, records: int) -> None:
        told = self._halves // 2
        self._halves += records
        self._advance(self._halves // 2 - told, max(0, self._records - self._halves // 2))

    def done_all(self) -> None:
        """Also where offsets have gaps, and records were fewer than they seemed."""
        self._advance(0, 0)


def _mark(store: Store, version: int) -> None:
    """By which version of the tables the database is filled."""
    store.execute("UPDATE ledger SET version = $version", {"version": version})


def _ahead(pool: ThreadPoolExecutor, do: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """What becomes of each item, in their order, some of them worked on ahead."""
    waiting: deque[Future[_Result]] = deque()
    for item in items:
        waiting.append(pool.submit(do, item))
        if len(waiting) >= _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """A folder for the time being, without what a killed run left there."""
    try:
        with _room(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_failed(f"folder {folder}: the events cannot be kept there meanwhile", error) from error
