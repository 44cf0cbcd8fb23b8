"""Loads the whole history of a log into an empty database, faster than the consumer does batch by batch. For each
topic, it does the first two steps; then, once for all topics, the third:

    scatter   read, decode and validate the records (`intake`), or take them decoded from an archive; write the valid
              events to temporary files beside the database, split into slices by the hashes of their keys
    fold      fold one slice after another (`projections.live.bulk_fold`), and write the results to the database; while
              one slice is written, threads fold the next ones
    settle    apply the rules across coupons and between topics, fill the other tables, and write the accounts

Always true: the tables equal those that the consumer builds from the same records, at the same positions. Until the
tables are complete, the database is marked so that it cannot be opened. After an interruption or a kill, the next run
continues from the last commit (`_Mark`), so at most a few seconds of work are lost. Memory does not grow with the log.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

import polars as pl

from coupon_ledger.consumers.intake import RULES, Oddities, skewed, validated
from coupon_ledger.consumers.runner import checked_ends, settled_marks
from coupon_ledger.consumers.tuning import keep_small
from coupon_ledger.ledger.archive import KeepsDecoded, Stretch
from coupon_ledger.ledger.errors import LogError
from coupon_ledger.ledger.log import Chunk, LogReader, TopicPartition
from coupon_ledger.ledger.progress import Progress
from coupon_ledger.ledger.topics import COUPON, INPUT_TOPICS, KEY_FIELD
from coupon_ledger.ledger.validity import decoded_by
from coupon_ledger.projections import checkpoints, kept
from coupon_ledger.projections.checkpoints import Account
from coupon_ledger.projections.connection import Adding
from coupon_ledger.projections.database import VERSION
from coupon_ledger.projections.generations import SLICES
from coupon_ledger.projections.identity import add_oddities, forget_oddities
from coupon_ledger.projections.live import bulk_fold, cross
from coupon_ledger.projections.live.signature import stable_hash
from coupon_ledger.projections.sliced import first_hash, read_slice, write_slices
from coupon_ledger.projections.store import Store, disk_failed
from coupon_ledger.projections.versions import VERSIONS, differing, written_versions

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Piece = Chunk | Stretch

WORTH_IT: Final = 100_000
"""Number of records from which a bulk load is faster than the consumer."""

_UNFINISHED: Final = 0
"""Version that marks a database as incomplete. No release has this version."""
_LAYOUT: Final = 2
"""Version of the temporary files. A run that finds files of another version starts over."""
_SLICE_EVENTS: Final = 125_000
_FILE_RECORDS: Final = 200_000
_POLL_S: Final = 0.5
_WORKERS: Final = 2
_SIDES: Final = 2
"""Number of connections that insert rows in parallel. Each keeps one core busy."""
_AHEAD: Final = 3
"""Maximum number of files or slices that are being computed, or are computed and not yet written to the database."""
_COMMIT_S: Final = 10.0
"""Time between two commits. An interrupted run continues from the last commit."""
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def spill_folder(file: Path) -> Path:
    """The folder with the temporary files of a bulk load into `file`."""
    return file.with_name(file.name + SLICES)


def fold_whole(
    log: LogReader,
    store: Store,
    until: Mapping[TopicPartition, int],
    progress: Progress,
    grace: timedelta | None = None,
) -> int:
    """Fill the empty store from the log, up to the positions `until`. Returns the number of records read.

    `progress`: reports the number of records. `grace`: the grace to set; None keeps the one in the database.

    If an interrupted run can be continued (`records_begun`), this call continues it, up to the positions with which the
    interrupted run was started. The result then includes the records that the interrupted run has read.

    Raises `LogTruncated`, `LogUnavailable`, `StoreFull`, `ConservationBroken`.
    """
    return _fill(log, store, _begun(store) or _Mark.first(store, INPUT_TOPICS, until), progress, grace)


def fold_again(log: LogReader, store: Store, topics: Sequence[str], progress: Progress) -> int:
    """Rebuild the tables of `topics` from the log, up to the positions that the store has reached. Returns the number
    of records read. Raises what `fold_whole` raises."""
    reached = checkpoints.load(store).items()
    until = {partition: account.next_offset for partition, account in reached if partition.topic in topics}
    # This run is never continued: the rest of the database is a copy, which is made again each time.
    return _fill(log, store, replace(_Mark.first(store, topics, until), made_by=""), progress, None)


def records_begun(store: Store) -> int | None:
    """If a bulk load into this database was interrupted and can be continued: the number of records that it has read,
    and that the next run does not read again. None otherwise."""
    mark = _begun(store)
    return None if mark is None else mark.read


@dataclass(frozen=True, slots=True)
class _Mark:
    """How far a run has come, so that the next run can continue it. Each mark belongs to one commit of the database,
    whose number is in the name of the mark's file (beside the temporary files). So after a crash, the next run finds
    the mark of the last commit.

    `made_by`: the result of `_made_by`. `commits`: the database's number of commits before the run. `topics`: the
    unfinished topics; the run is working on the first. `folding`: whether it is folding the slices of this topic; if
    not, it is still writing the topic's temporary files. `done`: how many of these slices or files are finished.
    `until`: the positions to read to. `clock`: the data's clock of the slices that are folded. `accounts`: the accounts
    of the records that are read or folded.
    """

    made_by: str
    commits: int
    topics: list[str]
    until: dict[TopicPartition, int]
    folding: bool = False
    done: int = 0
    clock: datetime | None = None
    accounts: dict[TopicPartition, Account] = field(default_factory=dict)

    @classmethod
    def first(cls, store: Store, topics: Sequence[str], until: Mapping[TopicPartition, int]) -> _Mark:
        return cls(_made_by(), _commits(store), list(topics), {p: n for p, n in until.items() if p.topic in topics})

    @property
    def read(self) -> int:
        """How many records the run has read."""
        return sum(account.read for account in self.accounts.values())

    @property
    def folded(self) -> int:
        """How many records the accounts count as applied, repeats, conflicts or dead letters."""
        return sum(a.applied + a.repeats + a.conflicts + a.dead_letters for a in self.accounts.values())

    def text(self) -> str:
        plain = {name: getattr(self, name) for name in ("made_by", "commits", "topics", "folding", "done")}
        clock = self.clock and self.clock.isoformat()
        until = [[*partition, offset] for partition, offset in self.until.items()]
        accounts = [[*partition, asdict(account)] for partition, account in self.accounts.items()]
        return json.dumps(plain | {"clock": clock, "until": until, "accounts": accounts})

    @classmethod
    def of(cls, text: str) -> _Mark:
        values = json.loads(text)
        values["clock"] = values["clock"] and datetime.fromisoformat(values["clock"])
        values["until"] = {TopicPartition(t, p): offset for t, p, offset in values["until"]}
        values["accounts"] = {TopicPartition(t, p): Account(**account) for t, p, account in values["accounts"]}
        return cls(**values)


def _begun(store: Store) -> _Mark | None:
    """The mark that belongs to the database's last commit, if the same code wrote it in a run that was interrupted and
    can be continued. None otherwise. A run cannot be continued after a reboot, since the temporary files may then be
    incomplete."""
    if store.rows("SELECT version FROM ledger") != [(_UNFINISHED,)] or any(differing(written_versions(store))):
        return None
    try:
        mark = _Mark.of(_mark_file(spill_folder(store.file), _commits(store)).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return mark if mark.made_by == _made_by() and _BOOT.exists() else None


def _commits(store: Store) -> int:
    [(commits,)] = store.rows("SELECT commits FROM ledger")
    return int(commits)


def _mark_file(folder: Path, commits: int) -> Path:
    return folder / f"mark-{commits}.json"


def _made_by() -> str:
    """A text that is the same for two runs only if one can use the temporary files of the other. It contains the
    versions of all code that determines these files, and the id of the machine's current boot."""
    boot = _BOOT.read_text(encoding="ascii").strip() if _BOOT.exists() else None
    decoded = [decoded_by(topic) for topic in INPUT_TOPICS]
    return json.dumps([VERSION, dict(VERSIONS), decoded, _LAYOUT, _SLICE_EVENTS, pl.__version__, boot])


def _fill(log: LogReader, store: Store, mark: _Mark, progress: Progress, grace: timedelta | None) -> int:
    partitions = log.partitions(mark.topics)
    read = {p: mark.accounts.get(p, Account()).next_offset for p in partitions}
    for wanted in (read, {p: mark.until.get(p, 0) for p in partitions}):
        checked_ends(log, wanted, partitions)
    marks = settled_marks(log, partitions)
    with store.transaction():
        if grace is not None:
            cross.use_grace(store, grace)
        if not mark.accounts:
            bulk_fold.clear(store, mark.topics)
            forget_oddities(store, mark.topics)
            _set_version(store, _UNFINISHED)
    store.share_cores(alone=False)
    halves = _Halves(sum(mark.until.values()), progress, mark.read + mark.folded)
    with (
        _spilling(spill_folder(store.file), keep=bool(mark.accounts)) as folder,
        ThreadPoolExecutor(_WORKERS, "bulk-load") as pool,
        _Sides(store) as sides,
    ):
        return _Load(log, store, mark, marks, halves, folder, pool, sides).fill()


class _Load:
    """One run of a bulk load. Only the caller's thread uses the log and the store. The threads of `pool` decode,
    validate and fold, for which they need neither the log nor the store. The connections of `sides` insert most
    rows."""

    def __init__(
        self,
        log: LogReader,
        store: Store,
        mark: _Mark,
        marks: Mapping[TopicPartition, int],
        halves: _Halves,
        folder: Path,
        pool: ThreadPoolExecutor,
        sides: _Sides,
    ) -> None:
        self._log = log
        self._store = store
        self._mark = mark
        self._marks = marks
        self._halves = halves
        self._folder = folder
        self._pool = pool
        self._sides = sides
        self._commits = _commits(store)
        self._accounts = mark.accounts
        self._clock = mark.clock

    def fill(self) -> int:
        self._take_back()
        while self._mark.topics:
            topic, *others = self._mark.topics
            wanted = self._wanted(topic)
            slices = self._slices(topic)
            if not self._mark.folding:
                self._scatter(slices, wanted)
            self._fold(slices, others)
            slices.remove()
        self._settle()
        self._store.share_cores(alone=True)
        with self._store.transaction():
            checkpoints.save(self._store, self._accounts)
            self._save_progress()
            records = sum(account.read for account in self._accounts.values())
            self._store.execute(
                "UPDATE ledger SET commits = $commits, committed_at = $now, batch_records = $records,"
                " batch_seconds = NULL",
                {
                    "commits": self._mark.commits + 1,
                    "now": datetime.now(UTC).replace(tzinfo=None),
                    "records": records,
                },
            )
            _set_version(self._store, VERSION)
        self._halves.end()
        return records

    def _save_progress(self) -> None:
        positions = {p: account.next_offset for p, account in self._accounts.items()}
        complete = checkpoints.Completeness()
        complete.advance(checkpoints.last_recorded(self._store), positions, self._marks)
        complete.save(self._store)
        kept.release(self._store, complete.topics())

    def _wanted(self, topic: str) -> dict[TopicPartition, int]:
        return {p: offset for p, offset in self._mark.until.items() if p.topic == topic and offset > 0}

    def _slices(self, topic: str) -> _Slices:
        return _Slices(self._folder, topic, 1 + sum(self._wanted(topic).values()) // _SLICE_EVENTS)

    def _take_back(self) -> None:
        """Delete the rows that the sides of an interrupted run have committed since its last mark."""
        with self._store.transaction():
            if not self._mark.topics:
                bulk_fold.unsettle(self._store)
                return
            topic = self._mark.topics[0]
            if self._mark.folding:
                bulk_fold.unfold(self._store, topic, first_hash(self._mark.done, self._slices(topic).count))
            else:
                read = {p.partition: a.next_offset for p, a in self._accounts.items() if p.topic == topic}
                bulk_fold.unread(self._store, topic, read)

    def _settle(self) -> None:
        with self._store.transaction():
            bulk_fold.set_clock(self._store, self._clock)
            bulk_fold.put_persons(self._store)
        self._sides.share(bulk_fold.fills())
        self._sides.commit()

    def _in_steps(self, results: Iterator[_Result], take: Callable[[_Result], None]) -> None:
        """Call `take` with each result. Every `_COMMIT_S` seconds, commit, and write a mark from which the next run can
        continue."""
        more = True
        while more:
            with self._store.transaction():
                deadline = time.monotonic() + _COMMIT_S
                done, more = self._mark.done, False
                for result in results:
                    take(result)
                    del result
                    done += 1
                    if more := time.monotonic() >= deadline:
                        break
                self._sides.commit()
                self._reach(done=done)

    def _reach(self, **where: Any) -> None:
        """Count a commit inside the caller's transaction, and write the mark that belongs to this commit. `where`: the
        fields of the mark that change, with their new values."""
        self._commits += 1
        self._mark = replace(self._mark, accounts=self._accounts, clock=self._clock, **where)
        fresh = self._folder / "mark.new"
        with _room(self._folder):
            fresh.write_text(self._mark.text(), encoding="utf-8")
            fresh.replace(_mark_file(self._folder, self._commits))
        self._store.execute("UPDATE ledger SET commits = $commits", {"commits": self._commits})
        _mark_file(self._folder, self._commits - 2).unlink(missing_ok=True)

    def _scatter(self, slices: _Slices, wanted: dict[TopicPartition, int]) -> None:
        def take(written: _Written) -> None:
            for partition, records, next_offset in written.read:
                account = self._accounts.setdefault(partition, Account())
                account.read += records
                account.next_offset = next_offset
                self._halves.add(records)
            for partition, letters in written.letters.group_by("log_partition").len().iter_rows():
                self._accounts[TopicPartition(slices.topic, partition)].dead_letters += letters
            self._store.insert("dead_letters", written.letters)
            add_oddities(self._store, {slices.topic: astuple(written.oddities)})
            self._halves.add(written.letters.height)
            self._sides.do(next(turns), lambda side: bulk_fold.write_journal(side, slices.topic, written.events))

        slices.keep(self._mark.done)
        turns = count()
        numbered = enumerate(self._read(wanted), self._mark.done)
        self._in_steps(_ahead(self._pool, slices.write, numbered), take)
        with self._store.transaction():
            self._reach(folding=True, done=0)

    def _read(self, wanted: dict[TopicPartition, int]) -> Iterator[list[_Piece]]:
        """Yield all unread records up to the positions `wanted`, as groups of chunks and stretches. Each group has at
        least `_FILE_RECORDS` records; the last one may have fewer."""
        at = {p: self._accounts.get(p, Account()).next_offset for p in wanted}
        at = {p: offset for p, offset in at.items() if offset < wanted[p]}
        read: list[_Piece] = []
        while at:
            for piece in self._next(at, wanted):
                read.append(piece)
                partition = TopicPartition(piece.topic, piece.partition)
                at[partition] = piece.next_offset
                if at[partition] >= wanted[partition]:
                    del at[partition]
            if sum(map(len, read)) >= _FILE_RECORDS:
                yield read
                read = []
        if read:
            yield read

    def _next(self, at: dict[TopicPartition, int], wanted: dict[TopicPartition, int]) -> list[_Piece]:
        """The next records of each partition in `at`, as chunks and stretches. All partitions advance together, so that
        the journal is roughly in the order of recording. `at`: the next offset of each partition; `wanted`: the offsets
        before which to stop."""
        pieces: list[_Piece] = []
        if isinstance(self._log, KeepsDecoded) and not RULES.refuse_skewed:  # dead letters need the records' bytes
            share = _FILE_RECORDS // len(at)
            stretches = (self._log.decoded(p, offset, wanted[p], share) for p, offset in at.items())
            pieces += [stretch for stretch in stretches if stretch is not None]
        others = at.keys() - {piece.tp for piece in pieces if isinstance(piece, Stretch)}
        if others:
            chunks = self._log.read({p: at[p] for p in sorted(others)}, _FILE_RECORDS, _POLL_S)
            pieces += [chunk.before(wanted[TopicPartition(chunk.topic, chunk.partition)]) for chunk in chunks]
        return pieces

    def _fold(self, slices: _Slices, others: list[str]) -> None:
        like = bulk_fold.rows_like(self._store, slices.topic)

        def folded(number: int) -> tuple[pl.Series, bulk_fold.Slice, pl.DataFrame] | None:
            events = slices.read(number)
            if not events.height:
                return None
            one = bulk_fold.fold_slice(slices.topic, events, like)
            early, late = bulk_fold.parted(one.rows, slices.count)
            slices.put_aside("rows", number, late)
            slices.put_aside("repeats", number, one.repeats)
            for folder, part in one.kept.items():
                slices.put_aside(folder, number, part)
            return events["log_partition"], one, early

        def take(folded_slice: tuple[pl.Series, bulk_fold.Slice, pl.DataFrame] | None) -> None:
            if folded_slice is not None:
                partitions, one, early = folded_slice
                self._sides.do(0, lambda side: bulk_fold.put_rows(side, slices.topic, early))
                self._sides.do(1, lambda side: bulk_fold.put_beside(side, one))
                self._account_of(partitions, one)
                self._halves.add(len(partitions))
            keep_small()

        self._in_steps(_ahead(self._pool, folded, range(self._mark.done, slices.count)), take)
        with self._store.transaction():
            for late in slices.put_asides("rows"):
                bulk_fold.put_rows(self._store, slices.topic, late)
            if slices.topic == COUPON:
                bulk_fold.put_kept(self._store, slices.put_asides)
            if repeats := list(slices.put_asides("repeats")):
                bulk_fold.take_out(self._store, slices.topic, pl.concat(repeats))
            self._reach(topics=others, folding=False, done=0)

    def _account_of(self, partitions: pl.Series, one: bulk_fold.Slice) -> None:
        """Add the outcomes of one folded slice to the accounts, and advance the data's clock. `partitions`: the
        partition of each event in the slice; `one`: what folding the slice returned."""
        in_conflict = one.repeats.filter("conflict")
        valid, applied, conflicts = (
            dict(of.value_counts().iter_rows())
            for of in (partitions, one.facts["log_partition"], in_conflict["log_partition"])
        )
        for partition, events in valid.items():
            account = self._accounts[TopicPartition(one.topic, partition)]
            facts, contradicting = applied.get(partition, 0), conflicts.get(partition, 0)
            account.applied += facts
            account.conflicts += contradicting
            account.repeats += events - facts - contradicting
        self._clock = max((at for at in (self._clock, one.clock) if at is not None), default=None)


class _Sides:
    """Two connections (*sides*) that insert rows in parallel, each in its own thread and transaction. From the first
    insert into a table until `commit`, the store must not use this table."""

    def __init__(self, store: Store) -> None:
        self._sides = [(store.beside(), ThreadPoolExecutor(1, "side")) for _ in range(_SIDES)]
        self._under_way: list[deque[Future[None]]] = [deque() for _ in self._sides]
        self._shared: deque[Callable[[Adding], None]] = deque()

    def do(self, number: int, what: Callable[[Adding], None]) -> None:
        """Queue a task for one side, which calls `what` with its connection. `number`: the side, modulo the number of
        sides. Waits while this side has more than one unfinished task. Raises the error of an earlier task."""
        adding, thread = self._sides[number % _SIDES]
        under_way = self._under_way[number % _SIDES]
        if len(under_way) > 1:
            under_way.popleft().result()
        under_way.append(thread.submit(what, adding))

    def share(self, tasks: Iterable[Callable[[Adding], None]]) -> None:
        """Distribute the tasks over the sides: a side that has finished a task takes the next one."""
        self._shared = waiting = deque(tasks)

        def drain(adding: Adding) -> None:
            while True:
                try:
                    task = waiting.popleft()
                except IndexError:
                    return
                try:
                    task(adding)
                except BaseException:
                    waiting.clear()
                    raise

        for number in range(_SIDES):
            self.do(number, drain)

    def commit(self) -> None:
        """Wait until all tasks are done, and commit on both sides. Raises the error of a task that failed."""
        for number in range(_SIDES):
            self.do(number, Adding.commit)
        for under_way in self._under_way:
            while under_way:
                under_way.popleft().result()

    def __enter__(self) -> _Sides:
        return self

    def __exit__(self, *_: object) -> None:
        self._shared.clear()  # after an interruption no further task starts
        for adding, thread in self._sides:
            thread.shutdown(cancel_futures=True)
            adding.close()


@dataclass(frozen=True, slots=True)
class _Written:
    """The result of writing one temporary file. `events`: the valid events, which are in the file. `letters`: all other
    records that were read, as dead letters. `read`: for each chunk or stretch that was read, its partition, its number
    of records and its next offset. `oddities`: the counts of suspicious events."""

    events: pl.DataFrame
    letters: pl.DataFrame
    read: list[tuple[TopicPartition, int, int]]
    oddities: Oddities


class _Slices:
    """The events of one topic in temporary files, split into slices by the hashes of their keys. Each file has a part
    of every slice. The class also stores what was computed from a slice, such as rows, in files of their own
    (`put_aside`)."""

    def __init__(self, folder: Path, topic: str, count: int) -> None:
        self.topic = topic
        self.count = count
        self._folder = folder
        nothing, _, _ = validated(topic, [])
        self._nothing = bulk_fold.narrowed(topic, nothing.with_columns(key_hash=pl.lit(0, dtype=pl.Int64)))

    def write(self, numbered: tuple[int, list[_Piece]]) -> _Written:
        """Decode and validate records, and write the valid events to one temporary file. `numbered`: the number of the
        file, and the chunks and stretches with the records."""
        number, pieces = numbered
        chunks = [piece for piece in pieces if isinstance(piece, Chunk)]
        frames = []
        odd = Oddities()
        for stretch in pieces:
            if isinstance(stretch, Stretch):
                events, others = stretch.read()
                frames.append(_as_validated(events, stretch))
                odd = odd.plus(skewed(events["occurred_at"], events["recorded_at"].cast(pl.Int64).to_numpy()))
                chunks.append(others)
        events, letters, of_bytes = validated(self.topic, chunks)
        events = pl.concat([*frames, events.select(frames[0].columns)], rechunk=True) if frames else events
        events = events.with_columns(key_hash=pl.Series(stable_hash(events[KEY_FIELD[self.topic]]), dtype=pl.Int64))
        narrow = bulk_fold.narrowed(self.topic, events)
        with _room(self._folder):
            write_slices(
                self._folder / f"{self.topic}-{number:06}",
                narrow.select(c.name for c in narrow if c.null_count() < narrow.height or not narrow.height),
                self.count,
            )
        read = [(TopicPartition(piece.topic, piece.partition), len(piece), piece.next_offset) for piece in pieces]
        return _Written(events, letters, read, odd.plus(of_bytes))

    def read(self, number: int) -> pl.DataFrame:
        """All events of slice `number`, in the order in which they were read."""
        parts = [self._nothing, *(read_slice(file, number) for file in self._written_files())]
        return pl.concat(parts, how="diagonal", rechunk=True)

    def _written_files(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self.topic}-[0-9]*"))

    def keep(self, files: int) -> None:
        """Keep the first `files` files, and delete the others, which an interrupted run wrote after its last mark."""
        for file in self._written_files()[files:]:
            file.unlink()

    def put_aside(self, what: str, number: int, rows: pl.DataFrame) -> None:
        """Store rows that were computed from slice `number`. `what`: the name under which `put_asides` finds them."""
        with _room(self._folder):
            rows.write_ipc(self._folder / f"{self.topic}-{what}-{number:06}", compat_level=pl.CompatLevel.oldest())

    def put_asides(self, what: str) -> Iterator[pl.DataFrame]:
        """Read what was stored under the name `what`: one frame per slice, in the order of the slices."""
        return map(pl.read_ipc, sorted(self._folder.glob(f"{self.topic}-{what}-*")))

    def remove(self) -> None:
        for file in self._folder.glob(f"{self.topic}-*"):
            file.unlink()


def _as_validated(events: pl.DataFrame, stretch: Stretch) -> pl.DataFrame:
    """Events that an archive has stored decoded, with the columns of the events that `validated` returns. `stretch`:
    the stretch of the archive from which `events` were read."""
    return events.rename({"offset": "log_offset"}).with_columns(
        pl.col(pl.Datetime("us", "UTC")).dt.replace_time_zone(None),
        log_partition=pl.lit(stretch.partition, dtype=pl.Int32),
    )


class _Halves:
    """Reports the progress of a run as a number of records. Reading a record counts as half a record, and folding it as
    the other half.

    What an interrupted run has done before is not reported.
    """

    def __init__(self, records: int, progress: Progress, halves: int) -> None:
        """`records`: the number of records of all runs; `halves`: the work that earlier runs did, in half records."""
        self._records = records - halves // 2
        self._progress = progress
        self._before = halves // 2
        self._halves = halves
        progress(0, self._records)

    def add(self, records: int) -> None:
        """Report that one half of the work, reading or folding, is done for so many more `records`."""
        self._halves += records
        self._progress(self._done, max(self._done, self._records))

    def end(self) -> None:
        """Report that all work is done. The total is then the number of records that were found, which can be lower
        than expected, since offsets can have gaps."""
        self._progress(self._done, self._done)

    @property
    def _done(self) -> int:
        return self._halves // 2 - self._before


def _set_version(store: Store, version: int) -> None:
    """Store the version of the tables in the database. While the version is `_UNFINISHED`, other processes cannot open
    the database."""
    store.execute("UPDATE ledger SET version = $version", {"version": version})


def _ahead(pool: ThreadPoolExecutor, do: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Yield the result of `do` for each item, in the order of the items. While the caller uses one result, the threads
    of `pool` compute the next ones."""
    waiting: deque[Future[_Result]] = deque()
    for item in items:
        waiting.append(pool.submit(do, item))
        if len(waiting) >= _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def _spilling(folder: Path, *, keep: bool) -> Iterator[Path]:
    """Yield the folder for temporary files, and remove it after the block. After Ctrl-C or an error of the log or its
    archive, the folder stays, so that the next run can continue.

    `keep`: whether to keep the files that an interrupted run has left in the folder. If not, they are deleted first.
    """
    try:
        with _room(folder):
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=keep)
        yield folder
    except (KeyboardInterrupt, LogError):
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Within the block, replace an `OSError` by a `StoreFull` or `StoreError` that names the folder."""
    try:
        yield
    except OSError as error:
        raise disk_failed(f"folder {folder}: the events cannot be kept there meanwhile", error) from error
