"""Appends the events of many requests together: while one append is being made durable, requests collect for the next
(group commit). So the rate of single events does not depend on how long the disk or the brokers take for each.

Always true: a request is answered only when its events are durable, or when the log has failed to take them. What
waits is bounded; further requests are refused at once, and may come again.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final, NamedTuple

from coupon_ledger.api.service.problems import Refusal
from coupon_ledger.ledger.errors import AppendFailed
from coupon_ledger.ledger.log import EventLog, Position, Record

MOST_WAITING: Final = 60_000
"""Records that wait for an append, of all callers."""
MOST_OF_ONE: Final = 30_000
"""Records of one caller among them."""
_AT_ONCE: Final = 20_000


class Appended(NamedTuple):
    """What became of the records of a request, in their order. `positions`: where each is in the log; None if the log
    did not say, or did not take it. `failures`: why the log did not take a record, by index. `too_large`: those of them
    that it will never take."""

    positions: list[Position | None]
    failures: dict[int, str]
    too_large: frozenset[int]


class _Waiting(NamedTuple):
    caller: str
    records: Sequence[Record]
    future: Future[Appended]


class Appender:
    """Appends to one log, in a thread of its own. All methods may be called from any thread."""

    def __init__(self, log: EventLog) -> None:
        """`log`: closed by `close`."""
        self._log = log
        self._queue: deque[_Waiting] = deque()
        self._of: Counter[str] = Counter()
        self._waiting = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="appender")
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many records wait for an append."""
        return self._waiting

    def append(self, caller: str, records: Sequence[Record]) -> Future[Appended]:
        """Append the records. Raises `Refusal` (429 or 503) if too many wait. The future raises the errors of the
        log."""
        future: Future[Appended] = Future()
        with self._changed:
            if self._closed:
                raise Refusal(503, "the service stops; publish again in a moment", {"Retry-After": "2"})
            if self._of[caller] and self._of[caller] + len(records) > MOST_OF_ONE:
                raise Refusal(
                    429, f"{self._of[caller]:,} events of this caller wait already; publish again", {"Retry-After": "1"}
                )
            if self._waiting and self._waiting + len(records) > MOST_WAITING:
                raise Refusal(503, f"{self._waiting:,} events wait already; publish again", {"Retry-After": "1"})
            self._queue.append(_Waiting(caller, records, future))
            self._of[caller] += len(records)
            self._waiting += len(records)
            self._changed.notify()
        return future

    def close(self) -> None:
        """Append what waits, then close the log."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._log.close()

    def _run(self) -> None:
        while group := self._next():
            # From here on, nobody can cancel the others: a future that was cancelled takes no result.
            self._append([one for one in group if one.future.set_running_or_notify_cancel()])
            with self._changed:
                for waiting in group:
                    self._waiting -= len(waiting.records)
                    self._of[waiting.caller] -= len(waiting.records)
                    if not self._of[waiting.caller]:
                        del self._of[waiting.caller]

    def _next(self) -> list[_Waiting]:
        """The requests whose records are appended next. Empty when closed and nothing waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            group: list[_Waiting] = []
            records = 0
            while self._queue and (not group or records + len(self._queue[0].records) <= _AT_ONCE):
                group.append(self._queue.popleft())
                records += len(group[-1].records)
            return group

    def _append(self, group: list[_Waiting]) -> None:
        records = [record for waiting in group for record in waiting.records]
        if not records:
            return
        positions: Sequence[Position | None]
        failures: dict[int, str] = {}
        too_large: frozenset[int] = frozenset()
        try:
            positions = self._log.append(records)
        except AppendFailed as error:
            positions = [None] * len(records)
            failures, too_large = error.failures, frozenset(error.too_large)
        except Exception as error:  # any error: pass it to the requests, and keep the thread running
            for waiting in group:
                waiting.future.set_exception(error)
            return
        start = 0
        for waiting in group:
            end = start + len(waiting.records)
            waiting.future.set_result(
                Appended(
                    list(positions[start:end]),
                    {i - start: why for i, why in failures.items() if start <= i < end},
                    frozenset(i - start for i in too_large if start <= i < end),
                )
            )
            start = end
