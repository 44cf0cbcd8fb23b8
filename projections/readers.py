"""Runs questions on the owner's database while the consumer writes: a few cursors, each of which serves one question at
a time, in its own snapshot.

- A question sees one committed state, whatever is committed while it runs. Readers and writer never wait for each
  other, except before a checkpoint (below).
- A snapshot ends when its question has run, after `limit_s` at most. No snapshot is open while an answer is sent.
- `change` switches to another generation of the database. No question fails, and none sees both generations.
- DuckDB can checkpoint only while no older snapshot is open. If questions always overlapped, the write-ahead log would
  grow for ever. So when a checkpoint is due, new questions wait briefly until the running ones are done.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from coupon_ledger.ledger.errors import QueryStopped
from coupon_ledger.projections.connection import WAL_LIMIT, Cursor
from coupon_ledger.projections.generations import wal_file
from coupon_ledger.projections.store import Store

_HELD_S: Final = 2.0
"""How long new questions wait while a checkpoint is due."""
_EVERY_S: Final = 10.0
"""Minimum time between the starts of two such waits."""
_AGAIN_S: Final = 0.05
_STOPS: Final = "the consumer stops; run the command again"


class Running:
    """The control of one question that runs or will run. `stop` may be called from any thread, before, during and after
    the question's run."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._cursor: Cursor | None = None
        self.stopped: str | None = None

    def stop(self, why: str) -> None:
        """Interrupt the question, or keep it from starting. `why`: the text of the `QueryStopped` that it raises."""
        with self._changed:
            self.stopped = self.stopped or why
            self._changed.notify_all()

    def enter(self, cursor: Cursor, limit_s: float) -> None:
        """Start to watch the question, which runs on `cursor`. Until `leave`, the cursor is interrupted if the question
        is stopped or has run for `limit_s` seconds."""
        self.check()
        self._cursor = cursor
        threading.Thread(target=self._watch, args=(limit_s,), daemon=True).start()

    def leave(self) -> None:
        with self._changed:
            self._cursor = None
            self._changed.notify_all()

    def check(self) -> None:
        """Raises `QueryStopped` if the question was stopped."""
        if self.stopped:
            raise QueryStopped(self.stopped)

    def _watch(self, limit_s: float) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self.stopped or self._cursor is None, limit_s):
                self.stopped = f"the query took longer than {limit_s:g} s; ask for less, or stop the consumer"
            # Repeat it: DuckDB ignores an interruption just before a query begins.
            while self._cursor is not None:
                self._cursor.interrupt()
                self._changed.wait(_AGAIN_S)


class Readers:
    """The cursors for at most `slots` questions at once. The thread that uses the store must create and close this
    object; questions may run in any thread."""

    def __init__(self, store: Store, slots: int) -> None:
        self._store = store
        self._free = [store.cursor() for _ in range(slots)]
        self._all = tuple(self._free)
        self._retired: list[tuple[Store, set[Cursor]]] = []
        self._changed = threading.Condition()
        self._held_until = 0.0
        self._next_hold = 0.0
        self._closed = False
        store.after_commit = self._make_room

    @contextmanager
    def snapshot(self, question: Running, limit_s: float) -> Iterator[Cursor]:
        """Yield a cursor that reads the last committed state. Waits until a cursor is free. Raises `QueryStopped` if
        the question is stopped or takes longer than `limit_s` seconds."""
        with self.cursor(question, limit_s) as cursor:
            cursor.begin()
            yield cursor

    @contextmanager
    def cursor(self, question: Running, limit_s: float) -> Iterator[Cursor]:
        """Like `snapshot`, but without a transaction: each query sees the state that is committed when the query
        begins."""
        cursor = self._take(question)
        try:
            question.enter(cursor, limit_s)
            yield cursor
        except Exception as error:  # an interrupted query can raise various errors
            why = question.stopped or (_STOPS if self._closed else None)
            if why and not isinstance(error, QueryStopped):
                raise QueryStopped(why) from error
            raise
        finally:
            question.leave()
            cursor.end()
            self._give_back(cursor)

    def change(self, store: Store) -> None:
        """Switch to another generation of the database, which is open as `store`. Running questions finish on the
        former generation. It is closed when the last of them ends."""
        fresh = [store.cursor() for _ in self._all]
        store.after_commit = self._make_room
        with self._changed:
            idle, self._free = self._free, fresh
            reading = set(self._all) - set(idle)
            before, self._store, self._all = self._store, store, tuple(fresh)
            before.after_commit = lambda: None
            for cursor in idle:
                cursor.close()
            self._retired.append((before, reading))
            self._changed.notify_all()
        self._close_retired()

    def close(self) -> None:
        """Interrupt the running questions, wait until they have ended, and close all cursors."""
        self._store.after_commit = lambda: None
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            while running := self._running():
                for cursor in running:  # repeatedly: see `Running._watch`
                    cursor.interrupt()
                self._changed.wait(_AGAIN_S)
        self._close_retired()
        for cursor in self._all:
            cursor.close()

    def _running(self) -> list[Cursor]:
        retired = [cursor for _, reading in self._retired for cursor in reading]
        return [*(cursor for cursor in self._all if cursor not in self._free), *retired]

    def _close_retired(self) -> None:
        """Close the former generations on which no question runs any more."""
        with self._changed:
            done = [store for store, reading in self._retired if not reading]
            self._retired = [(store, reading) for store, reading in self._retired if reading]
        for store in done:
            store.close()

    def _take(self, question: Running) -> Cursor:
        with self._changed:
            while not self._closed:
                held = self._held_until - time.monotonic()
                if self._free and held <= 0:
                    return self._free.pop()
                self._changed.wait(held if held > 0 else None)
                question.check()
        raise QueryStopped(_STOPS)

    def _give_back(self, cursor: Cursor) -> None:
        with self._changed:
            live = cursor in self._all
            if live:
                self._free.append(cursor)
            else:
                cursor.close()
                for _, reading in self._retired:
                    reading.discard(cursor)
            self._changed.notify_all()
        if not live:
            self._close_retired()

    def _make_room(self) -> None:
        """Called after each commit. If a checkpoint is due, make new questions wait for a short time. When the running
        ones have ended, DuckDB can checkpoint at one of the next commits."""
        try:
            due = wal_file(self._store.file).stat().st_size > WAL_LIMIT
        except OSError:
            due = False
        now = time.monotonic()
        with self._changed:
            if not due:
                self._held_until = 0.0
                self._changed.notify_all()
            elif now >= self._next_hold:
                self._held_until, self._next_hold = now + _HELD_S, now + _EVERY_S
