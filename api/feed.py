"""The owner's feed: a line of JSON for each committed state, for its followers.

A line has the keys of an answer's `as_of`, `alerts` (the next offset of `coupon.alerts`, by partition), `lag` (records
between the committed positions and the log's end, as of the last commit) and `records` (committed since the owner
started). The first line comes at once. Lines that were not read in time are left out: only the latest state counts.
While nothing changes, a line comes every `ALIVE_S`. Nothing is done while nobody follows.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

from coupon_ledger.api.answers import as_of_fields
from coupon_ledger.consumers.runner import Committed
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.projections.readers import Readers, Running
from coupon_ledger.questions.registry import as_of

ALIVE_S: Final = 5.0
_LOOK_S: Final = 0.5
"""What changes without a commit, such as alerts, is looked for this often."""
_LIMIT_S: Final = 10.0


class Feed:
    """`committed` and `close` are called by the consumer's thread, `lines` by the endpoint's event loop."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._lag = self._records = 0
        self._followers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def committed(self, commit: Committed) -> None:
        self._lag = commit.lag
        self._records += commit.records
        self._wake()

    def close(self) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            for loop, changed in self._followers:
                with suppress(RuntimeError):  # the loop has just ended; the consumer must not end with it
                    loop.call_soon_threadsafe(changed.set)

    async def lines(self) -> AsyncIterator[bytes]:
        """Yields the lines of one follower, until the owner stops or the follower goes."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        follower = (loop, changed)
        with self._lock:
            self._followers.add(follower)
        try:
            before, sent_at = None, 0.0
            while not self._closed:
                changed.clear()
                state = await self._state()
                if state is not None and (state != before or loop.time() - sent_at >= ALIVE_S):
                    before, sent_at = state, loop.time()
                    yield json.dumps({**state, "lag": self._lag, "records": self._records}).encode() + b"\n"
                try:
                    await asyncio.wait_for(changed.wait(), _LOOK_S)
                except TimeoutError:
                    continue
        finally:
            with self._lock:
                self._followers.discard(follower)

    async def _state(self) -> dict[str, Any] | None:
        """The state that is committed now. None if it cannot be read at the moment, as during a switch."""
        try:
            return await asyncio.get_running_loop().run_in_executor(None, self._read)
        except LedgerError:
            return None

    def _read(self) -> dict[str, Any]:
        with self._readers.snapshot(Running(), _LIMIT_S) as cursor:
            alerts = cursor.rows("SELECT log_partition, next_offset FROM alert_positions ORDER BY log_partition")
            return {**as_of_fields(as_of(cursor)), "alerts": {str(p): offset for p, offset in alerts}}
