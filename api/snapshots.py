"""Snapshots that the owner holds, so that clients can ask several questions about one committed state.

A snapshot ends when it is released, when it was not used for `IDLE_S`, and at the latest `LONGEST_S` after it began. It
must end, because DuckDB can write no checkpoint while an older state is being read. The owner holds at most `MOST`
snapshots at once.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from coupon_ledger.ledger.errors import NoSnapshot, QueryStopped, TooManySnapshots
from coupon_ledger.ledger.progress import Progress
from coupon_ledger.projections.readers import Readers, Running
from coupon_ledger.questions.snapshot import Snapshot

MOST: Final = 2
IDLE_S: Final = 20.0
LONGEST_S: Final = 900.0
_LOOK_S: Final = 1.0


class Held:
    """A snapshot that is held. It answers one question at a time."""

    def __init__(self, readers: Readers) -> None:
        self.running = Running()
        self._progress: Progress | None = None
        self._busy = threading.Lock()
        self._waiting = 0
        self._counting = threading.Lock()
        self._used_at = time.monotonic()
        with ExitStack() as stack:
            cursor = stack.enter_context(readers.cursor(self.running, LONGEST_S))
            self._snapshot = Snapshot(cursor, self._report)
            stack.callback(self._snapshot.close)
            self._stack = stack.pop_all()

    def _report(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(done, total)

    def expect(self) -> None:
        """Announce a question that will use this snapshot. Until `answered` is called, the snapshot does not count as
        idle, even if the question still waits for a thread. The caller must call `answered` in any case."""
        with self._counting:
            self._waiting += 1

    def answered(self) -> None:
        with self._counting:
            self._waiting -= 1
            self._used_at = time.monotonic()

    @contextmanager
    def asking(self, progress: Progress, limit_s: float) -> Iterator[Snapshot]:
        """Within the block, one question uses the snapshot; its answer must be read within the block. If the question
        takes longer than `limit_s`, the snapshot ends.

        Raises `QueryStopped` if the snapshot has been stopped, and `TooManySnapshots` if it is answering another
        question.
        """
        if not self._busy.acquire(blocking=False):
            raise TooManySnapshots("this snapshot is answering another question; ask again")
        late = threading.Timer(limit_s, self.running.stop, [f"the query took longer than {limit_s:g} s; ask for less"])
        late.daemon = True
        try:
            self.running.check()
            self._progress = progress
            late.start()
            yield self._snapshot
        except Exception as error:  # an interrupted query raises different errors, depending on where it was
            if self.running.stopped and not isinstance(error, QueryStopped):
                raise QueryStopped(self.running.stopped) from error
            raise
        finally:
            late.cancel()
            self._busy.release()

    @property
    def idle(self) -> bool:
        """Whether the snapshot should be released: no question uses it or waits for it, and it was not used for
        `IDLE_S` or has been stopped."""
        with self._counting:
            if self._waiting:
                return False
            return self.running.stopped is not None or time.monotonic() - self._used_at > IDLE_S

    def end(self) -> None:
        """Stop the question that is using the snapshot, if any. Then close the snapshot."""
        self.running.stop("the snapshot was let go")
        with self._busy:
            self._stack.close()


class Snapshots:
    """All snapshots that the owner holds, by name. Every thread may use this object."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._held: dict[str, Held] = {}
        self._reserved = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name="snapshots", daemon=True)
        self._thread.start()

    def hold(self) -> str:
        """Begin a snapshot of the last committed state, and return its name. Raises `TooManySnapshots` if no more can
        be held, and `QueryStopped` if the owner stops."""
        with self._lock:
            if len(self._held) + self._reserved >= MOST or self._closed.is_set():
                raise TooManySnapshots("too many snapshots are held at once; ask again")
            self._reserved += 1
        name, held = secrets.token_urlsafe(16), None
        try:
            held = Held(self._readers)  # may wait for a cursor, so it runs outside the lock
        finally:
            with self._lock:
                self._reserved -= 1
                closed = self._closed.is_set()
                if held is not None and not closed:
                    self._held[name] = held
        if closed:
            held.end()
            raise TooManySnapshots("the consumer stops; ask again")
        return name

    def of(self, name: str) -> Held:
        """The snapshot with this name. Also announces a question to it (`expect`). Raises `NoSnapshot` if there is
        none."""
        with self._lock:
            if name not in self._held:
                raise NoSnapshot(f"snapshot {name}: is not held, or no longer; begin again")
            self._held[name].expect()
            return self._held[name]

    def let_go(self, name: str) -> None:
        """Release the snapshot with this name. If there is none, nothing happens."""
        with self._lock:
            held = self._held.pop(name, None)
        if held is not None:
            held.end()

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            names = list(self._held)
        for name in names:
            self.let_go(name)
        self._thread.join()

    def _look(self) -> None:
        while not self._closed.wait(_LOOK_S):
            with self._lock:
                idle = [name for name, held in self._held.items() if held.idle]
            for name in idle:
                self.let_go(name)
