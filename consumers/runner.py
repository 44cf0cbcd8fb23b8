"""The consumer: polls a batch, decodes it, folds it, and commits the changed rows and the next offsets together.

A background thread polls and decodes the next batch while the caller's thread folds the current one. Only the caller's
thread uses the database. If the process is killed at any moment, the next run continues from the last commit: nothing
is lost or counted twice.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

from coupon_ledger.consumers import failing, log_identity, outbox
from coupon_ledger.consumers.discards import note_discards
from coupon_ledger.consumers.intake import Intake, Oddities, take_in
from coupon_ledger.consumers.tuning import keep_small
from coupon_ledger.ledger.errors import LogError, LogNotAnswering, LogTruncated, RegistryUnavailable
from coupon_ledger.ledger.log import Chunk, EventLog, LogReader, TopicPartition
from coupon_ledger.ledger.patient_log import Patience, PatientLog
from coupon_ledger.ledger.progress import PhaseProgress, ignore
from coupon_ledger.ledger.topics import INPUT_TOPICS
from coupon_ledger.projections import checkpoints, kept
from coupon_ledger.projections.attribution.upkeep import Upkeep
from coupon_ledger.projections.checkpoints import Account, Completeness
from coupon_ledger.projections.compaction import compact
from coupon_ledger.projections.identity import LastRecords, add_oddities
from coupon_ledger.projections.live import cross
from coupon_ledger.projections.live.apply import Counts
from coupon_ledger.projections.store import Store

Boundary = Callable[[str], None]
"""A function that is called with the name of each step when it is reached. The consumer's steps: poll, decode, begin,
fold, offsets, commit."""

_POLL_S: Final = 0.5
_DISCOVERY_S: Final = 30.0
_ENDS_AGAIN_S: Final = 10.0
_JUST_NOW_S: Final = 10.0
"""Records that were recorded longer ago, by this machine's clock, have settled."""
_FIRST_BATCH: Final = 25_000
_SMALL_BATCH: Final = 10_000
"""A batch with fewer records than this means that there is no backlog. DuckDB then uses all cores, and the next batch
is polled only after the commit."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What the consumer reports after the commit of a batch."""

    records: int
    dead_letters: int
    seconds: float
    lag: int
    """Number of records between the committed positions and the last known end of the log."""
    lags: Mapping[TopicPartition, int] = field(default_factory=dict)
    """The same by partition."""
    changes: Mapping[TopicPartition, Account] = field(default_factory=dict)
    """By partition, for partitions whose account the batch changed: what it added, with the next offset."""
    late: Mapping[str, int] = field(default_factory=dict)
    """By topic: the number of events in the batch whose keys were refolded."""
    newest_recorded_at: float | None = None
    """The latest `recorded_at` of the batch's records, in seconds since the epoch."""
    data_clock: datetime | None = None
    """The highest min(occurred_at, recorded_at) of the events that the batch added to journals."""
    oddities: Mapping[str, Oddities] = field(default_factory=dict)
    """The counts of suspicious events by topic, only for topics with such events."""


class Consumer:
    """Consumes one log into one database. `run` may be called once."""

    def __init__(
        self,
        log: LogReader,
        store: Store,
        *,
        outlet: EventLog | None,
        batch_size: int,
        grace: timedelta | None = None,
        follow: bool = False,
        until: Mapping[TopicPartition, int] | None = None,
        caught_up: Callable[[], None] = lambda: None,
        between: Callable[[], bool] = lambda: False,
        at_boundary: Boundary = lambda _: None,
        progress: PhaseProgress = ignore,
    ) -> None:
        """`outlet`: the log to which dead letters are appended; None if another consumer of the same log appends them.

        `grace`: None leaves the database's as it is.

        `follow`: do not stop at the end of the log, and wait through outages of the log.

        `until`: stop at these positions instead of the log's current end.

        `caught_up`: called between batches, in the thread of `run`, whenever the whole log is folded.

        `between`: called between batches, in the thread of `run`; again as long as it returns True and no batch waits.
        It returns whether it has changed accounts.

        `progress`: done: the records since the start; total: these and the records that wait in the log.
        """
        self._stop = threading.Event()
        # A consumer that follows survives outages: it repeats calls while the log does not answer.
        self._patience = Patience(self._stop) if follow else None
        self._log = log if self._patience is None else PatientLog(log, self._patience)
        self._ends = _Ends(log, self._patience)
        self._until = until
        self._delivery = None if outlet is None else outbox.Delivery(store, outlet)
        self._store = store
        self._batch_size = batch_size
        self._grace = grace
        self._follow = follow
        self._caught_up = caught_up
        self._between = between
        self._reached = at_boundary
        self._progress = progress
        self._done = 0

    def stop(self) -> None:
        """Finish the current batch, then stop. Safe to call from a signal handler."""
        self._stop.set()

    def run(self) -> Iterator[Committed]:
        """Consume up to the log's current end or, if `until` was given, up to these positions. With `follow`, consume
        until `stop` is called. Yields after each commit.

        Raises `LogReplaced`, `LogTruncated`, `LogUnavailable`, `StoreFull`, `ConservationBroken`. With `follow`, waits
        while the log does not answer (for example because brokers are down, or leaders change), or while the schema
        registry is down.
        """
        try:
            yield from self._consume()
        except LogNotAnswering:
            # `stop` was called while the consumer waited for the log. That is no error.
            if self._patience is None or not self._stop.is_set():
                raise

    def _consume(self) -> Iterator[Committed]:
        log_identity.check(self._store, self._log)
        last = LastRecords(self._store)
        accounts = checkpoints.load(self._store)
        complete = Completeness.load(self._store)
        partitions = self._log.partitions(INPUT_TOPICS)
        for partition in partitions:
            accounts.setdefault(partition, Account())
        positions = {p: accounts[p].next_offset for p in partitions}
        ends = checked_ends(self._log, positions, partitions)
        marks_at_start = {} if self._follow else settled_marks(self._log, partitions)
        target = None if self._follow else ends if self._until is None else {**positions, **self._until}
        lag = sum(max(0, end - positions[p]) for p, end in ends.items())
        self._report("reading", 0, lag)
        if self._grace is not None:
            with self._store.transaction():
                cross.use_grace(self._store, self._grace)
        self._deliver()
        self._note_discards()
        reader = _ReadAhead(self._log, self._ends, positions, self._batch_size, target, self._stop, self._reached)
        with reader, Upkeep(self._store) as paths:
            for batch in reader.batches():
                while self._between():
                    accounts.update(checkpoints.load(self._store))
                    if batch is not None or reader.ready or self._stop.is_set():
                        break
                if batch is None:
                    if reader.idle:
                        self._report("following" if self._follow else "reading", self._done, 0)
                        self._caught_up()
                        paths(idle=True)
                    self._deliver(again=True)
                    continue
                chunks, taken, ends = batch.chunks, batch.taken, batch.ends
                started = time.perf_counter()
                before = dict(accounts)
                self._store.share_cores(alone=taken.records < _SMALL_BATCH)
                lag = sum(max(0, end - accounts[p].next_offset) for p, end in ends.items() if p in accounts)
                beside = _Beside(complete, marks_at_start or batch.marks, batch.upcoming, last, lag)
                try:
                    counts, clock = self._commit(chunks, taken, accounts, beside, started)
                except failing.FAILURES as error:
                    if not failing.of_the_events(error):
                        raise
                    taken = failing.set_aside(self._store, chunks, taken, error)
                    counts, clock = self._commit(chunks, taken, accounts, beside, started)
                self._done += taken.records
                self._reached("commit")
                compact(self._store)
                keep_small()
                if taken.dead_letters.height:
                    self._deliver()
                lags = {p: max(0, end - accounts[p].next_offset) for p, end in ends.items() if p in accounts}
                lag = sum(lags.values())
                self._report("reading" if lag or not self._follow else "following", self._done, lag)
                yield Committed(
                    taken.records,
                    taken.dead_letters.height,
                    time.perf_counter() - started,
                    lag,
                    lags,
                    _changes(before, accounts),
                    {topic: count.late for topic, count in counts.items() if count.late},
                    max((int(c.recorded_at[-1]) / 1e6 for c in chunks if len(c)), default=None),
                    clock,
                    taken.oddities,
                )
                if self._stop.is_set():
                    return
                if not lag:
                    self._caught_up()
                self._deliver(again=True)
                paths(idle=False)
            paths.finish()

    def _commit(
        self,
        chunks: list[Chunk],
        taken: Intake,
        accounts: dict[TopicPartition, Account],
        beside: _Beside,
        started: float,
    ) -> tuple[dict[str, Counts], datetime | None]:
        """Fold a batch, and write the changed rows, the accounts and the values in `beside`, all in one transaction.
        Returns what `failing.fold_all` returns. `accounts`: all accounts; updated once the transaction is committed.
        `started`: the time from which the duration of the batch is measured."""
        with self._store.transaction():
            self._reached("begin")
            counts, clock = failing.fold_all(
                self._store,
                taken.events,
                lambda step, done: self._report(step, self._done + done, beside.lag - done),
            )
            self._store_dead_letters(taken.dead_letters)
            self._reached("fold")
            keep_small()  # what the fold has freed, before alert rules need as much
            self._report("committing", self._done + taken.records, beside.lag - taken.records)
            moved = accounts_after(chunks, taken, counts, accounts)
            checkpoints.save(self._store, moved)
            positions = {p: account.next_offset for p, account in (accounts | moved).items()}
            beside.complete.advance(_last_recorded(chunks), positions, beside.marks, beside.upcoming)
            beside.complete.save(self._store)
            kept.release(self._store, beside.complete.topics())
            beside.last.keep(chunks)
            add_oddities(self._store, {topic: astuple(odd) for topic, odd in taken.oddities.items()})
            self._store.execute(
                "UPDATE ledger SET commits = commits + 1, committed_at = $now, batch_records = $records,"
                " batch_seconds = $seconds",
                {
                    "now": datetime.now(UTC).replace(tzinfo=None),
                    "records": taken.records,
                    "seconds": time.perf_counter() - started,
                },
            )
            self._reached("offsets")
        accounts.update(moved)
        return counts, clock

    def _report(self, phase: str, done: int, left: int) -> None:
        self._progress(phase, done, done + left)

    def _store_dead_letters(self, letters: pl.DataFrame) -> None:
        if letters.height:
            self._store.insert("dead_letters", letters)
            if self._delivery is not None:
                outbox.put_dead_letters(self._store, letters)

    def _deliver(self, *, again: bool = False) -> None:
        if self._delivery is not None:
            (self._delivery.again if again else self._delivery)()

    def _note_discards(self) -> None:
        if self._patience is None:
            note_discards(self._store, self._log)
        else:
            self._patience(lambda: note_discards(self._store, self._log))


def checked_ends(
    log: LogReader, wanted: Mapping[TopicPartition, int], partitions: list[TopicPartition]
) -> dict[TopicPartition, int]:
    """The ends of the partitions. `wanted`: for each partition, the next offset to read. Raises `LogTruncated` if such
    an offset is before the partition's earliest offset or after its end."""
    earliest, ends = log.earliest_positions(partitions), log.end_positions(partitions)
    for outside in checkpoints.outside({p: Account(wanted[p]) for p in partitions}, earliest, ends):
        raise LogTruncated(f"{outside}; nothing is skipped: restore the log, or check --log and --database")
    return ends


def settled_marks(
    log: LogReader, partitions: Sequence[TopicPartition], chunks: Sequence[Chunk] = ()
) -> dict[TopicPartition, int]:
    """The high watermarks of the partitions, looked up after a wait, if records that were recorded at the same time as
    these chunks (without chunks: as the log's end) may not be visible yet."""
    newest = max((int(chunk.recorded_at[-1]) / 1e6 for chunk in chunks if len(chunk)), default=time.time())
    if newest > time.time() - _JUST_NOW_S:
        time.sleep(log.visible_after_s)
    return log.high_watermarks(partitions)


def accounts_after(
    chunks: list[Chunk],
    taken: Intake,
    counts: Mapping[str, Counts],
    accounts: Mapping[TopicPartition, Account],
) -> dict[TopicPartition, Account]:
    """The accounts that a batch changes, with the values that they have after it. `chunks`: the batch's records;
    `taken`: the intake of these records; `counts`: the result of folding the batch, by topic; `accounts`: all accounts
    before the batch."""
    dead = {
        (topic, partition): n
        for topic, partition, n in taken.dead_letters.group_by("topic", "log_partition").len().iter_rows()
    }
    touched = {TopicPartition(c.topic, c.partition) for c in chunks}
    for topic, count in counts.items():
        touched |= {TopicPartition(topic, p) for p in (*count.applied, *count.conflicts)}
    valid = {
        (topic, partition): n
        for topic, batch in taken.events.items()
        for partition, n in batch.events.group_by("log_partition").len().iter_rows()
    }
    moved = {}
    for p in touched:
        before = accounts.get(p, Account())
        count = counts.get(p.topic, Counts())
        applied, conflicts = count.applied.get(p.partition, 0), count.conflicts.get(p.partition, 0)
        mine = [c for c in chunks if (c.topic, c.partition) == p]
        moved[p] = Account(
            next_offset=mine[-1].next_offset if mine else before.next_offset,
            read=before.read + sum(len(c) for c in mine),
            applied=before.applied + applied,
            conflicts=before.conflicts + conflicts,
            repeats=before.repeats + valid.get(p, 0) - applied - conflicts,
            dead_letters=before.dead_letters + dead.get(p, 0),
        )
    return moved


def _changes(
    before: Mapping[TopicPartition, Account], after: Mapping[TopicPartition, Account]
) -> dict[TopicPartition, Account]:
    return {p: account.since(before.get(p, Account())) for p, account in after.items() if account is not before.get(p)}


@dataclass(frozen=True, slots=True)
class _Beside:
    """What a commit writes besides rows and accounts (`complete`, `last`), and the values that it needs for this
    (`marks`, `lag`).

    `complete`: up to when each partition has been read completely. `marks`: as in `_Batch`; without `follow`, those
    at the start of the run. `upcoming`: as in `_Batch`. `last`: the last records that were consumed. `lag`: how many
    records of the log were not folded before this batch.
    """

    complete: Completeness
    marks: Mapping[TopicPartition, int]
    upcoming: Mapping[TopicPartition, datetime]
    last: LastRecords
    lag: int


def _last_recorded(chunks: list[Chunk]) -> dict[TopicPartition, datetime]:
    """The latest `recorded_at` (naive UTC) of the records in these chunks, by partition."""
    last: dict[TopicPartition, datetime] = {}
    for chunk in chunks:
        if len(chunk):
            partition = TopicPartition(chunk.topic, chunk.partition)
            at = checkpoints.naive_utc(int(chunk.recorded_at.max()))
            last[partition] = max(at, last.get(partition, at))
    return last


@dataclass(frozen=True, slots=True)
class _Failed:
    """Put into the queue by the thread of `_ReadAhead` when an error ends it. `error`: this error."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class _Batch:
    """`ends`: the end of every partition, looked up after the chunks were read. `marks`: by partition, the high
    watermark, looked up so late that no record of the time of these chunks can appear any more: if it equals the next
    offset, all records that were recorded no later than these chunks have been read. Empty without `follow`.
    `upcoming`: when the next record of a partition was recorded (naive UTC), where it is known; all that were recorded
    before it have been read."""

    chunks: list[Chunk]
    taken: Intake
    ends: dict[TopicPartition, int]
    marks: dict[TopicPartition, int]
    upcoming: dict[TopicPartition, datetime]


class _Ends:
    """Looks up the ends of the log's partitions. While the log does not answer, assumes that every partition has more
    records. So batches that have already been read can still be folded."""

    def __init__(self, log: LogReader, patience: Patience | None) -> None:
        self._log = log
        self._patience = patience
        self._again_at = 0.0

    def after(
        self, positions: Mapping[TopicPartition, int], before: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """The current ends of the partitions in `positions` (next offset by partition). `before`: the ends that were
        last known. If the log does not answer, returns for each partition an end that is higher than its next
        offset."""
        started = time.monotonic()
        if self._patience is None or started >= self._again_at:
            try:
                ends = self._log.end_positions(list(positions))
            except LogNotAnswering as error:
                if self._patience is None:
                    raise
                self._again_at = time.monotonic() + _ENDS_AGAIN_S
                self._patience.failed(error, started)
            else:
                if self._patience is not None:
                    self._patience.answered()
                return ends
        return {p: max(before.get(p, 0), offset + 1) for p, offset in positions.items()}

    def marks(self, positions: Mapping[TopicPartition, int], chunks: Sequence[Chunk]) -> dict[TopicPartition, int]:
        """The high watermarks of the partitions in `positions` (next offset by partition), looked up as late as
        `_Batch` says. `chunks`: the records that were read before. If the log does not answer, returns for each
        partition one that is higher than its next offset."""
        if self._patience is None or time.monotonic() >= self._again_at:
            try:
                return settled_marks(self._log, list(positions), chunks)
            except LogNotAnswering:
                if self._patience is None:
                    raise
        return {p: offset + 1 for p, offset in positions.items()}


class _ReadAhead:
    """Polls and decodes batches in a thread, one batch ahead of the fold. Two batches ahead would cost memory and save
    no time.

    Once a batch is small (`_SMALL_BATCH`), the next batch is polled only after the commit of the small one. If it were
    polled earlier, the records that arrive during the fold would have to wait for the batch after it.
    """

    def __init__(
        self,
        log: LogReader,
        ends: _Ends,
        positions: dict[TopicPartition, int],
        batch_size: int,
        target: dict[TopicPartition, int] | None,
        stop: threading.Event,
        reached: Boundary,
    ) -> None:
        self._log = log
        self._ends = ends
        self._positions = dict(positions)
        self._batch_size = batch_size
        self._target = target
        self._stop = stop
        self._reached = reached
        self.idle = False
        """Whether the last poll returned nothing, and all earlier batches have been yielded."""
        self._closed = threading.Event()
        self._room = threading.Semaphore()
        self._queue: queue.SimpleQueue[_Batch | _Failed | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)

    def __enter__(self) -> _ReadAhead:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._room.release()
        self._thread.join()

    @property
    def ready(self) -> bool:
        """Whether the next batch is decoded and can be folded."""
        return not self._queue.empty()

    def batches(self) -> Iterator[_Batch | None]:
        """Yield the batches. Yields None whenever no batch has arrived for `_POLL_S` seconds. Raises the error that
        ended the thread."""
        while True:
            try:
                item = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                yield None
                continue
            if item is None:
                return
            if isinstance(item, _Failed):
                raise item.error
            behind = item.taken.records >= min(_SMALL_BATCH, self._batch_size)
            if behind:
                self._room.release()
            yield item
            del item  # frees its memory before waiting for the next one
            if not behind:
                self._room.release()

    def _run(self) -> None:
        try:
            for batch in self._poll():
                self._queue.put(batch)
            self._queue.put(None)
        except BaseException as error:
            self._queue.put(_Failed(error))

    def _poll(self) -> Iterator[_Batch]:
        ends = dict(self._target) if self._target is not None else {}
        looked = 0.0
        # The first batches are small, so that folding starts soon.
        size = min(_FIRST_BATCH, self._batch_size)
        while self._room.acquire() and not (self._stop.is_set() or self._closed.is_set()):
            wanted = self._wanted()
            if not wanted:
                return
            if self._target is None and time.monotonic() - looked > _DISCOVERY_S:
                looked = time.monotonic()
                for partition in self._log.partitions(INPUT_TOPICS):
                    self._positions.setdefault(partition, 0)
            try:
                chunks = self._log.read(wanted, size, _POLL_S)
                self.idle = not chunks
            except RegistryUnavailable:
                # The registry is needed to read on, so the next records stay in the log. `PatientLog` reports the
                # outage.
                if self._target is not None:
                    raise
                self._closed.wait(_POLL_S)
                chunks, self.idle = [], False
            if not chunks:
                self._room.release()
                continue
            size = min(2 * size, self._batch_size)
            if self._target is not None:
                chunks = [c.before(self._target[TopicPartition(c.topic, c.partition)]) for c in chunks]
            for chunk in chunks:
                self._positions[TopicPartition(chunk.topic, chunk.partition)] = chunk.next_offset
            if self._target is None:
                ends = self._ends.after(self._positions, ends)
            self._reached("poll")
            taken = take_in(chunks)
            self._reached("decode")
            marks = self._ends.marks(self._positions, chunks) if self._target is None else {}
            yield _Batch(chunks, taken, ends, marks, self._upcoming(chunks))

    def _upcoming(self, chunks: Sequence[Chunk]) -> dict[TopicPartition, datetime]:
        """When the next record was recorded of partitions with records to come that had none among these chunks."""
        read = {TopicPartition(chunk.topic, chunk.partition) for chunk in chunks if len(chunk)}
        waiting = {p: offset for p, offset in self._wanted().items() if p not in read}
        try:
            known = self._log.next_recorded(waiting) if waiting else {}
        except LogError:
            return {}  # the next read says what is wrong
        return {p: checkpoints.naive_utc(at) for p, at in known.items()}

    def _wanted(self) -> dict[TopicPartition, int]:
        """The partitions to read from, each with its next offset. Without partitions that have reached the target."""
        if self._target is None:
            return self._positions
        return {p: o for p, o in self._positions.items() if o < self._target.get(p, 0)}
