"""Runs one query of a rule within limits of time, memory and disk."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coupon_ledger.ledger.words import Note, note
from coupon_ledger.projections.connection import Cursor

_EVERY_S: Final = 0.02
_PAGES: Final = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may take. `memory_bytes`: growth of the process's memory while the query runs. DuckDB's own limit
    holds besides, for what it can write to disk. `disk_bytes`: growth of DuckDB's temporary files."""

    seconds: float
    memory_bytes: int = 600_000_000
    disk_bytes: int = 2_000_000_000


class Exceeded(Exception):
    """Raised if a query exceeded a limit. `why`: which one, with the remedy."""

    def __init__(self, why: Note) -> None:
        super().__init__(why)
        self.why = why


@contextmanager
def bounded(cursor: Cursor, limits: Limits) -> Iterator[None]:
    """Interrupt the queries of the block once they exceed the limits. The cursor can then be used again after its next
    `begin`. Raises `Exceeded`."""
    [(folder,)] = cursor.rows("SELECT current_setting('temp_directory')")
    watch = _Watch(cursor, limits, Path(folder) if folder else None)
    watch.start()
    try:
        yield
    except Exception as error:  # an interrupted query can raise various errors
        if watch.why is not None:
            raise Exceeded(watch.why) from error
        raise
    finally:
        watch.stop()
    if watch.why is not None:  # it ended just when it was interrupted
        raise Exceeded(watch.why)


class _Watch(threading.Thread):
    def __init__(self, cursor: Cursor, limits: Limits, folder: Path | None) -> None:
        super().__init__(name="limits of a rule's query", daemon=True)
        self._cursor = cursor
        self._limits = limits
        self._folder = folder
        self._done = threading.Event()
        self._before = _memory(), _size(folder)
        self._until = time.monotonic() + limits.seconds
        self.why: Note | None = None

    def stop(self) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        while not self._done.wait(_EVERY_S):
            self.why = self.why or self._exceeded()
            if self.why is not None:
                self._cursor.interrupt()  # repeatedly: DuckDB ignores an interruption just before a query begins

    def _exceeded(self) -> Note | None:
        limits, (memory, disk) = self._limits, self._before
        if time.monotonic() > self._until:
            return note(
                "took longer than {seconds} s; ask for less, or raise its timeout", seconds=f"{limits.seconds:g}"
            )
        if _memory() - memory > limits.memory_bytes:
            return note("took more than {n:count} MB of memory; ask for less", n=limits.memory_bytes // 1_000_000)
        if _size(self._folder) - disk > limits.disk_bytes:
            return note("wrote more than {n:count} MB to disk; ask for less", n=limits.disk_bytes // 1_000_000)
        return None


def _memory() -> int:
    """Resident memory of the process in bytes; 0 where the system does not say."""
    try:
        return int(_PAGES.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _size(folder: Path | None) -> int:
    if folder is None:
        return 0
    try:
        return sum(entry.stat().st_size for entry in os.scandir(folder))
    except OSError:  # there are no temporary files, or one was just removed
        return 0
