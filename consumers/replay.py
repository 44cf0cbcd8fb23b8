"""Replays dead letters: after a schema or the ledger was fixed, decodes them again, and folds them at their original
positions.

Always true afterwards: the tables, including the accounts, are the same as if a consumer with the present code had read
these records in the first place, at their original positions and times of recording.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

import numpy as np
import polars as pl

from coupon_ledger.consumers import failing, outbox
from coupon_ledger.consumers.discards import Signed, deliver, piece_of
from coupon_ledger.consumers.intake import Intake, take_in
from coupon_ledger.consumers.runner import Boundary, accounts_after
from coupon_ledger.ledger import operations
from coupon_ledger.ledger.errors import LedgerError, NothingChosen
from coupon_ledger.ledger.log import Chunk, EventLog, Position, TopicPartition
from coupon_ledger.ledger.progress import Progress, ignore
from coupon_ledger.ledger.registry_log import as_read
from coupon_ledger.projections import checkpoints
from coupon_ledger.projections.alerts.engine import evaluate_again
from coupon_ledger.projections.checkpoints import Account
from coupon_ledger.projections.dead_letters import Chosen, chosen_letters
from coupon_ledger.projections.store import Store

REPLAYED = "dead_letters_replayed"
Rows = list[dict[str, Any]]
Step = Callable[[Store, EventLog], Rows | None]
"""A function that does one step of a repair. The last step returns the outcome of the whole repair; earlier steps
return None."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """The outcome of a replay for one partition. `records`: how many dead letters were replayed. `applied`, `repeats`,
    `conflicts`: how much the replay adds to these numbers in the partition's account. `dead_letters`: how many of the
    records are dead letters again.

    If an event has several deliveries, the one with the earliest position counts as applied. A replayed delivery can be
    earlier than the one that counted so far, which may be in another partition. The replayed delivery then adds one to
    `applied` in its partition, and the other one subtracts one from `applied` in its own.
    """

    topic: str
    partition: int
    records: int
    applied: int
    repeats: int
    conflicts: int
    dead_letters: int


class _OnlyAsIf(Exception):
    """Raised inside the transaction of a dry run, at its end, so that the transaction is rolled back."""


def replay(
    store: Store,
    log: EventLog,
    chosen: Chosen,
    by: Signed,
    *,
    dry_run: bool = False,
    reached: Boundary = lambda _: None,
    progress: Progress = ignore,
) -> Rows:
    """Replay the dead letters that match `chosen`. Returns the outcome by partition: dictionaries with the fields of
    `Replayed`. A record that still cannot be folded becomes a dead letter again, with the new reason.

    Works in pieces. Each piece has a transaction with the changed rows, the accounts, and an operation that names the
    records of the piece. `by`: who replays them, and why. `dry_run`: do the same, but roll every transaction back; an
    event that occurs in two pieces then counts as applied in both. `reached`: see `Boundary`. `progress`: reports the
    number of dead letters.

    Raises `NothingChosen` if no dead letter matches, and what folding raises. Raises `LogUnavailable` if the log does
    not accept the operations now: the replay is then done, and the operations wait in the outbox.
    """
    step = Replay(chosen, by, dry_run=dry_run, reached=reached, progress=progress)
    while (rows := step(store, log)) is None:
        pass
    return rows


class Replay:
    """A replay that is done in steps (`Step`), each with a transaction of its own, so that the consumer can continue
    between two steps. The arguments are those of `replay`. Records that are read after the first step has begun are not
    replayed."""

    def __init__(
        self,
        chosen: Chosen,
        by: Signed,
        *,
        dry_run: bool = False,
        reached: Boundary = lambda _: None,
        progress: Progress = ignore,
    ) -> None:
        self._chosen = chosen
        self._by = by
        self._dry_run = dry_run
        self._reached = reached
        self._progress = progress
        self._after = Position("", -1, -1)
        self._read: Mapping[TopicPartition, Account] | None = None
        self._done = self._total = 0
        self._stopped = False
        self._outcomes: dict[TopicPartition, Replayed] = {}

    def stop(self) -> None:
        """Make the next step the last. It folds nothing, and returns the outcome so far. Callable from any thread."""
        self._stopped = True

    def __call__(self, store: Store, log: EventLog) -> Rows | None:
        """Replay the next piece and return None. If no piece is left, return the outcome of all pieces. Raises what
        `replay` raises."""
        if self._read is None:
            self._read = checkpoints.load(store)
            counted = chosen_letters(store, self._chosen, "count(*) AS n")
            self._total = next(counted)["n"][0]
        letters = None if self._stopped else self._next(store)
        if letters is None:
            return self._ended(store, log)
        if letters.height:
            for replayed in _piece(store, log, letters, self._by, self._dry_run, self._reached):
                at = TopicPartition(replayed.topic, replayed.partition)
                self._outcomes[at] = _sum(self._outcomes[at], replayed) if at in self._outcomes else replayed
            self._done += letters.height
            self._progress(self._done, self._total)
        return None

    def _next(self, store: Store) -> pl.DataFrame | None:
        """The next piece of the dead letters to replay. Leaves out those that were read after the first step, so a
        piece can be empty. None if no piece is left."""
        piece = piece_of(store, self._chosen, self._after)
        if piece is None:
            return None
        positions, letters = piece
        self._after = positions[-1]
        assert self._read is not None
        read = [(*at, account.next_offset) for at, account in self._read.items()]
        names: dict[str, Any] = {"topic": pl.String, "partition": letters.schema["partition"], "read": pl.Int64}
        then = letters.join(pl.DataFrame(read, schema=names, orient="row"), on=["topic", "partition"])
        return then.filter(pl.col("offset") < pl.col("read")).drop("read")

    def _ended(self, store: Store, log: EventLog) -> Rows:
        if not self._outcomes:
            raise NothingChosen("dead letters: none of these is there; see `coupon-ledger dead-letters list --all`")
        if not self._dry_run:
            deliver(store, log)
            self._reached("delivered")
        return [asdict(replayed) for _, replayed in sorted(self._outcomes.items())]


def _sum(one: Replayed, other: Replayed) -> Replayed:
    names = ("records", "applied", "repeats", "conflicts", "dead_letters")
    return replace(one, **{name: getattr(one, name) + getattr(other, name) for name in names})


def _piece(
    store: Store, log: EventLog, letters: pl.DataFrame, by: Signed, dry_run: bool, reached: Boundary
) -> list[Replayed]:
    accounts = checkpoints.load(store)
    chunks = as_read(log, _chunks(letters, accounts))
    taken = take_in(chunks)
    try:
        return _folded(store, by, dry_run, reached, letters, chunks, taken, accounts)
    except failing.FAILURES as error:
        if not failing.of_the_events(error):
            raise
        taken = failing.set_aside(store, chunks, taken, error)
        return _folded(store, by, dry_run, reached, letters, chunks, taken, accounts)


def _folded(
    store: Store,
    by: Signed,
    dry_run: bool,
    reached: Boundary,
    letters: pl.DataFrame,
    chunks: list[Chunk],
    taken: Intake,
    accounts: dict[TopicPartition, Account],
) -> list[Replayed]:
    unread = accounts | {p: _without(accounts[p], n) for p, n in _lengths(chunks).items()}
    try:
        with store.transaction():
            reached("begin")
            store.delete("dead_letters", letters["row_id"])
            store.insert("dead_letters", taken.dead_letters)
            counts, _ = failing.fold_all(store, taken.events)
            reached("fold")
            moved = accounts_after(chunks, taken, counts, unread)
            checkpoints.save(store, moved)
            if counts and not dry_run:
                evaluate_again(store)
            outcomes = _outcomes(moved, unread, chunks)
            if dry_run:
                raise _OnlyAsIf
            _sign(store, by, letters, taken.dead_letters, outcomes)
            reached("signed")
    except _OnlyAsIf:
        pass
    reached("commit")
    return outcomes


def _chunks(letters: pl.DataFrame, accounts: Mapping[TopicPartition, Account]) -> list[Chunk]:
    """The records of dead letters as chunks, as if they had just been read from the log. The next offsets of the chunks
    are those in `accounts`, so that the replay does not change these offsets."""
    chunks = []
    for (topic, partition), mine in letters.group_by("topic", "partition", maintain_order=True):
        at = TopicPartition(str(topic), int(str(partition)))
        recorded = mine["recorded_at"].cast(pl.Int64).to_numpy()
        keys, values = mine["key"].to_list(), mine["value"].to_list()
        offsets = mine["offset"].to_numpy().astype(np.int64)
        chunks.append(Chunk(*at, offsets, recorded, keys, values, accounts[at].next_offset))
    return chunks


def _lengths(chunks: list[Chunk]) -> dict[TopicPartition, int]:
    return {TopicPartition(c.topic, c.partition): len(c) for c in chunks}


def _without(account: Account, letters: int) -> Account:
    """The account as it would be if `letters` of its dead letters had not been read yet."""
    return replace(account, read=account.read - letters, dead_letters=account.dead_letters - letters)


def _outcomes(
    moved: Mapping[TopicPartition, Account], unread: Mapping[TopicPartition, Account], chunks: list[Chunk]
) -> list[Replayed]:
    """The outcome for each partition in `moved`, the accounts that the replay has changed. `unread`: the accounts
    before the replay, as if the replayed records had not been read yet; `chunks`: these records. A partition without
    replayed records has an outcome too if an event that counted there as applied now counts as applied elsewhere."""
    lengths = _lengths(chunks)
    outcomes = []
    for p, account in sorted(moved.items()):
        change = account.since(unread.get(p, Account()))
        parts = (change.applied, change.repeats, change.conflicts, change.dead_letters)
        outcomes.append(Replayed(*p, lengths.get(p, 0), *parts))
    return outcomes


def _sign(store: Store, by: Signed, letters: pl.DataFrame, dead: pl.DataFrame, outcomes: list[Replayed]) -> None:
    """Put the operation that describes this piece into the outbox, and count the commit, inside the caller's
    transaction. `letters`: the dead letters of the piece; `dead`: those that are dead letters again."""
    place = ["topic", "log_partition", "log_offset"]
    tried = letters.select("topic", log_partition=pl.col("partition").cast(pl.Int32), log_offset="offset")
    folded = [Position(*row) for row in tried.join(dead, on=place, how="anti").iter_rows()]
    details = {
        "records": letters.height,
        "folded": len(folded),
        "dead_letters": dead.height,
        "positions": operations.spans(folded),
        "accounts": [asdict(outcome) for outcome in outcomes],
    }
    outbox.put(store, [operations.record_of(by.operation(REPLAYED, None, details))])
    now = datetime.now(UTC).replace(tzinfo=None)
    store.execute("UPDATE ledger SET commits = commits + 1, committed_at = $now", {"now": now})


class Repairs:
    """The queue of repairs (replays and discards) that operators request from the owner of the database. The owner's
    thread does them step by step, between batches."""

    def __init__(self, store: Store, log: EventLog) -> None:
        self._store = store
        self._log = log
        self._requests: SimpleQueue[tuple[Future[Rows], Step]] = SimpleQueue()
        self._under_way: tuple[Future[Rows], Step] | None = None

    def use(self, store: Store) -> None:
        """From now on, do the repairs in `store`, another generation of the database."""
        self._store = store

    def ask(self, step: Step) -> Future[Rows]:
        """Request a repair. `step`: does one step of it per call. Returns a future with the outcome. Callable from any
        thread."""
        future: Future[Rows] = Future()
        self._requests.put((future, step))
        return future

    def __call__(self) -> bool:
        """Run the next step of a repair, if one is requested. Returns whether it ran one. If so, accounts may have
        changed, and there may be more steps."""
        if self._under_way is None:
            if self._requests.empty():
                return False
            self._under_way = self._requests.get()
            if not self._under_way[0].set_running_or_notify_cancel():
                self._under_way = None
                return False
        future, step = self._under_way
        try:
            rows = step(self._store, self._log)
        except LedgerError as error:
            self._under_way = None
            future.set_exception(error)
        else:
            if rows is not None:
                self._under_way = None
                future.set_result(rows)
        return True
