"""Records who asked, exported or did what over HTTP, as operations in `coupon.operations`.

A request never waits for it: what is noted goes into a bounded queue, and a thread appends it in groups. While the log
is away, it waits. What does not fit is counted, and the loss is recorded as an operation of its own (`records_lost`).

The first view of a thing is recorded at once. Further views of it by the same caller within `SAME_S` are recorded
together afterwards, with their number.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

from coupon_ledger.api.service.appending import Appended
from coupon_ledger.ledger import operations
from coupon_ledger.ledger.errors import InvalidEvent
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.operations import Operation

SAME_S: Final = 600.0
MOST_WAITING: Final = 10_000
_MOST_VIEWS: Final = 20_000
_AT_ONCE: Final = 500
_AGAIN_S: Final = 1.0
_LOOK_S: Final = 1.0
_CALLER: Final = "the service"
_REASON: Final = "over HTTP"
KEPT_VALUES: Final = frozenset(
    "action after_days ahead_days active_days at by campaign channel checks code compare control coupon_type currency"
    " days expiry explain grain key_kind known_at known_from known_to limit method models name names outcome partition"
    " positions rule rules scope settled severity since state topic type until versions violation when within_s zone"
    " from_at to_at from_positions to_positions offset alpha power treatments control_arm ended".split()
)
"""Parameters of questions whose values are recorded. The others may name people, coupons or orders: of them, only the
name of the parameter is."""
_logger = logging.getLogger("coupon_ledger.service")

Append = Callable[[str, Sequence[Record]], "Future[Appended]"]
_Key = tuple[str, str, str | None, str]


class _View:
    """Further views of one thing since it was recorded. `until`: when they are recorded."""

    def __init__(self, until: float, details: Mapping[str, Any]) -> None:
        self.until = until
        self.details = details
        self.further = 0


class Audit:
    """`note` may be called from any thread. `append`: appends records, as `Appender.append`."""

    def __init__(self, append: Append, clock: Callable[[], float] = time.monotonic) -> None:
        self._append = append
        self._clock = clock
        self._queue: deque[Operation] = deque()
        self._views: OrderedDict[_Key, _View] = OrderedDict()
        self._lost = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """How many notes found no place since the last one that was recorded."""
        return self._lost

    def note(
        self, action: str, caller: str, subject: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        """Record that the caller did something. `action`: one of `operations.ACTIONS`."""
        self._put(_made(action, caller, subject, details))

    def view(self, action: str, caller: str, subject: str, details: Mapping[str, Any]) -> None:
        """Record that the caller saw something, unless the same was recorded within `SAME_S`; it is then counted."""
        key = (action, caller, subject, repr(sorted(details.items())))
        with self._changed:
            known = self._views.get(key)
            if known is not None and known.until > self._clock():
                known.further += 1
                return
            self._expire(_MOST_VIEWS - 1)
            if (over := self._views.pop(key, None)) is not None:
                self._end(key, over)
            self._views[key] = _View(self._clock() + SAME_S, details)
        self._put(_made(action, caller, subject, details))

    def close(self, within_s: float = 5.0) -> None:
        """Append what waits. What the log does not take in time is lost, and the service's log says so."""
        with self._changed:
            for key in list(self._views):
                self._end(key, self._views.pop(key))
            self._closed = True
            self._changed.notify()
        self._thread.join(within_s)
        if self._queue or self._lost:
            _logger.error("%d operations could not be recorded: the log is away", len(self._queue) + self._lost)

    def _put(self, done: Operation | None) -> None:
        if done is None:
            return
        with self._changed:
            if len(self._queue) >= MOST_WAITING:
                self._lost += 1
                return
            self._queue.append(done)
            self._changed.notify()

    def _expire(self, most: int) -> None:
        """End the views whose time is over, and the oldest ones beyond `most`."""
        now = self._clock()
        while self._views:
            key, view = next(iter(self._views.items()))
            if view.until > now and len(self._views) <= most:
                return
            del self._views[key]
            self._end(key, view)

    def _end(self, key: _Key, view: _View) -> None:
        if view.further:
            action, caller, subject, _ = key
            self._put(_made(action, caller, subject, {**view.details, "further": view.further}))

    def _run(self) -> None:
        while not (self._closed and not self._queue):
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed, _LOOK_S)
                self._expire(_MOST_VIEWS)
                group = [self._queue[i] for i in range(min(_AT_ONCE, len(self._queue)))]
            if group and not self._appended(group):
                time.sleep(_AGAIN_S)

    def _appended(self, group: Sequence[Operation]) -> bool:
        """Append the group, and take it from the queue. False if the log did not take it."""
        lost = self._lost
        records = [operations.record_of(done) for done in group]
        if lost and (said := _made("records_lost", _CALLER, None, {"count": lost})) is not None:
            records.append(operations.record_of(said))
        try:
            done = self._append(_CALLER, records).result()
        except Exception as error:  # any error: the next attempt may succeed
            _logger.warning("operations wait to be recorded (%d): %s", len(self._queue), error)
            return self._closed and self._given_up(group)
        if done.failures and not done.too_large:
            return self._closed and self._given_up(group)
        with self._changed:
            for _ in group:
                self._queue.popleft()
            self._lost -= lost
        return True

    def _given_up(self, group: Sequence[Operation]) -> bool:
        with self._changed:
            self._lost += len(group)
            for _ in group:
                self._queue.popleft()
        return True


def without_personal(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a question as they are recorded."""
    return {name: value if name in KEPT_VALUES else "(not recorded)" for name, value in parameters.items()}


def _made(action: str, caller: str, subject: str | None, details: Mapping[str, Any] | None) -> Operation | None:
    copied = None if details is None else dict(details)
    try:
        return operations.operation(action, why=_REASON, operator=caller, subject=subject, details=copied)
    except InvalidEvent as error:
        _logger.error("an operation (%s) cannot be recorded: %s", action, error)
        return None
