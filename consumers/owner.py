"""The work of the process that owns a database: the process consumes, sweeps, replays dead letters, and switches to
other generations. It does one step after another, in one thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from coupon_ledger.consumers.alerts.work import AlertWork, Figures
from coupon_ledger.consumers.operation_book import OperationBook
from coupon_ledger.consumers.replay import Repairs
from coupon_ledger.consumers.runner import Boundary, Committed, Consumer
from coupon_ledger.consumers.sweeper import Sweeper
from coupon_ledger.ledger.errors import LedgerError, StoreNotInitialised
from coupon_ledger.ledger.log import EventLog
from coupon_ledger.ledger.progress import PhaseProgress, ignore
from coupon_ledger.projections import checkpoints, generations
from coupon_ledger.projections.alerts import engine as alerts
from coupon_ledger.projections.database import check_version
from coupon_ledger.projections.live.cross import clock_and_grace
from coupon_ledger.projections.store import Store
from coupon_ledger.projections.versions import written_versions
from coupon_ledger.questions.parameters import Parameters
from coupon_ledger.questions.states import states

_logger = logging.getLogger("coupon_ledger.owner")


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The result of a switch to another generation. `file`: the name of the file that is live now; `previous`: the name
    of the file that was live before. `records`: how many records were folded into the new generation during the switch,
    to catch up. `seconds`: the duration of the switch, in which nothing was consumed."""

    file: str
    previous: str
    records: int
    seconds: float


class Owner:
    """Consumes one log into the live generation of one database. `run` may be called once.

    `close` closes the log and the live generation, so the caller must not close them.
    """

    def __init__(
        self,
        store: Store,
        log: EventLog,
        *,
        batch_size: int,
        grace: timedelta | None = None,
        follow: bool = False,
        sweep_every: timedelta | None = None,
        alerts: AlertWork | None = None,
        operations: OperationBook | None = None,
        progress: PhaseProgress = ignore,
    ) -> None:
        """`alerts`: the work with alerts of this store; None: alert rules are evaluated, and nobody is told.
        `operations`: keeps the table of operations up to date; None: it stays as it is."""
        self.store = store
        self.alert_work = alerts
        self._operations = operations
        self.sweeper = Sweeper(store, log, sweep_every)
        self.repairs = Repairs(store, log)
        self.on_succession: Callable[[Store], None] = Store.close
        """A function that is called after a switch with the former generation. It must close this generation once no
        reader uses it."""
        self._log = log
        self._batch_size = batch_size
        self._grace = grace
        self._follow = follow
        self._progress = progress
        self._stopped = False
        self._requests: SimpleQueue[tuple[Future[Succeeded], Path]] = SimpleQueue()
        self._consumer = self._new_consumer()

    def _new_consumer(self) -> Consumer:
        return Consumer(
            self._log,
            self.store,
            outlet=self._log,
            batch_size=self._batch_size,
            grace=self._grace,
            follow=self._follow,
            caught_up=self._caught_up,
            between=self._between,
            progress=self._progress,
        )

    def _caught_up(self) -> None:
        self.sweeper()
        self._look()

    def _between(self) -> bool:
        self._look()
        return self.repairs()

    def _look(self) -> None:
        if self._operations is not None:
            self._operations()
        if self.alert_work is not None:
            self.alert_work()

    def run(self) -> Iterator[Committed]:
        """Consume as `Consumer.run` does. After a switch to another generation, continue with that one."""
        if self._operations is not None:
            self._operations.use(self.store)
        if self.alert_work is not None:
            self.alert_work.begin()
        while True:
            for commit in self._consumer.run():
                if self.alert_work is not None:
                    self.alert_work.committed(commit)
                yield commit
            if self._stopped or self._requests.empty():
                if self.alert_work is not None and not self._stopped:
                    self.alert_work.finish()
                if self._operations is not None and not self._stopped:
                    self._operations.finish(self._log)
                return
            self._answer(*self._requests.get())
            self._consumer = self._new_consumer()
            if self._stopped or not self._requests.empty():
                self._consumer.stop()

    @property
    def figures(self) -> Figures | None:
        """How alerts are, for metrics; None if nobody works with them. Callable from any thread."""
        return None if self.alert_work is None else self.alert_work.figures

    def stop(self) -> None:
        """Finish the current batch, then stop. Safe to call from a signal handler."""
        self._stopped = True
        self._consumer.stop()
        if self.alert_work is not None:
            self.alert_work.stop()

    def ask(self, file: Path) -> Future[Succeeded]:
        """Request a switch to the generation `file`. Returns a future with the result. Callable from any thread."""
        future: Future[Succeeded] = Future()
        self._requests.put((future, file))
        self._consumer.stop()
        return future

    def close(self) -> None:
        """Cancel the requested switches that have not begun, and close the live generation and the log."""
        while not self._requests.empty():
            self._requests.get()[0].cancel()
        if self.alert_work is not None:
            self.alert_work.close()
        if self._operations is not None:
            self._operations.close()
        self.store.close()
        self._log.close()

    def _answer(self, future: Future[Succeeded], file: Path) -> None:
        """Switch to the generation `file`, and set the result of `future`. If the switch fails, the live generation
        stays the same, and `future` gets the error."""
        if not future.set_running_or_notify_cancel():
            return
        started = time.monotonic()
        before = self.store
        try:
            self.store, records = succeed(before, file, self._log, self._batch_size)
        except (LedgerError, OSError) as error:
            _logger.error("%s stays live: %s", before.file.name, error)
            future.set_exception(error)
            return
        self.sweeper.use(self.store)
        self.repairs.use(self.store)
        if self._operations is not None:
            self._operations.use(self.store)
        if self.alert_work is not None:
            self.alert_work.use(self.store)
        self.on_succession(before)
        done = _succeeded(self.store, records, started)
        _logger.info("succeeded", extra={"file": done.file, "records": done.records, "seconds": done.seconds})
        future.set_result(done)


def waiting(path: Path, *, back: bool) -> Path:
    """The file of the generation to switch to. This is the rebuilt generation or, with `back`, the previous one.
    `path`: the path of the database.

    Raises `StoreNotInitialised` if there is no such generation.
    """
    file = generations.previous(path) if back else generations.rebuilt_file(path)
    if file is None or not file.exists():
        what = "previous generation to go back to" if back else "rebuilt database; run `coupon-ledger rebuild`"
        raise StoreNotInitialised(f"database {path}: there is no {what}")
    return file


def take_place(
    path: Path, log: EventLog, batch_size: int, *, back: bool, reached: Boundary = lambda _: None
) -> Succeeded:
    """Switch the database `path` to the generation that `waiting` returns. For databases that no process owns. `back`:
    as in `waiting`; `reached`: as in `succeed`.

    Raises `StoreOwned` if a process owns the database, and what `waiting` and `succeed` raise.
    """
    started, file = time.monotonic(), waiting(path, back=back)
    if not path.exists():
        generations.make_room(path)
        file.rename(path)
        return Succeeded(path.name, "", 0, round(time.monotonic() - started, 3))
    with closing(Store.open_generation(path, generations.file_of(path), read_only=False)) as before:
        before.own()
        store, records = succeed(before, file, log, batch_size, reached)
        store.close()
    return _succeeded(store, records, started)


def _succeeded(store: Store, records: int, started: float) -> Succeeded:
    previous = generations.previous(store.path)
    assert previous is not None
    return Succeeded(store.file.name, previous.name, records, round(time.monotonic() - started, 3))


def succeed(
    before: Store, file: Path, log: EventLog, batch_size: int, reached: Boundary = lambda _: None
) -> tuple[Store, int]:
    """Bring the generation `file` to the positions of the live generation (`before`), and make it live. Returns the
    store of the new live generation, which this process now owns, and the number of records that were folded into it.

    Nothing may be consumed into `before` during the call. `before` stays open for its readers, and its outbox is
    copied. If this raises, `before` is still live, and a later call can switch to `file`.

    `reached`: a function that is called with the name of each step when it is reached: added, caught up, and the steps
    of `generations.make_live`.
    """
    path = before.path
    built = file == generations.rebuilt_file(path)
    if built:
        file = generations.add(path, file)
        reached("added")
    try:
        store = Store.open_generation(path, file, read_only=False)
        try:
            check_version(store)
            records = _catch_up(store, before, log, batch_size)
            _hand_over(before, store)
            reached("caught up")
            generations.make_live(path, file, reached)
        except BaseException:
            store.close()
            raise
    except BaseException:
        if built:
            generations.take_back(path, file)
        raise
    before.disown()
    store.own()
    return store, records


def _catch_up(store: Store, before: Store, log: EventLog, batch_size: int) -> int:
    until = {partition: account.next_offset for partition, account in checkpoints.load(before).items()}
    _, grace = clock_and_grace(before)
    consumer = Consumer(log, store, outlet=None, batch_size=batch_size, grace=grace, until=until)
    return sum(commit.records for commit in consumer.run())


def alert_rules_of(store: Store) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
    """The columns `alert_rules` and `alerts_until` of the answer to `standing`, also of a database that another version
    of the code filled. Empty for one of an old release, which has no alerts."""
    if "alerts" not in written_versions(store):
        return (), ()
    row = states.standing(store, Parameters()).row(0, named=True)
    return row["alert_rules"] or (), row["alerts_until"] or ()


def _hand_over(before: Store, after: Store) -> None:
    """Copy the outbox and the alert rules of `before` to `after`, evaluate these rules as far as `before` has, and set
    the number of commits of `after` higher than that of `before`: answers show this number, so it must not fall."""
    waiting = before.frame("SELECT * FROM outbox")
    [(commits,)] = before.rows("SELECT commits FROM ledger")
    alerts.take_over(after, *alert_rules_of(before))
    with after.transaction():
        after.execute("DELETE FROM outbox")
        after.insert("outbox", waiting)
        after.execute("UPDATE ledger SET commits = greatest(commits, $before) + 1", {"before": commits})
