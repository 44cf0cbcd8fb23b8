"""The service's link to the owner: who it is, which state it has committed, and questions to it.

The owner may start later than the service, stop, or be replaced; the link finds it again. One thread follows the
owner's feed for the whole service, whatever the number of viewers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from coupon_ledger.api.client import Remote
from coupon_ledger.api.contact import INTERFACE
from coupon_ledger.ledger.errors import OwnerGone, StoreOwned
from coupon_ledger.ledger.topics import ALERTS
from coupon_ledger.projections.ownership import owner

AT_ONCE: Final = 16
"""Questions that are asked of the owner at once. Further ones wait."""
_AGAIN_S: Final = 0.2
_SLOWEST_AGAIN_S: Final = 2.0
_logger = logging.getLogger("coupon_ledger.service")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class State:
    """A state that the owner has committed, as its feed tells it. `positions`: the next offset by topic and partition.
    `alerts`: that of `coupon.alerts`, by partition. `lag`: records that wait in the log. `records`: committed since the
    owner started."""

    commits: int
    committed_at: datetime | None
    data_clock: datetime | None
    positions: Mapping[tuple[str, int], int]
    alerts: Mapping[int, int]
    lag: int
    records: int

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> State:
        return cls(
            line["commits"],
            _instant(line["committed_at"]),
            _instant(line["data_clock"]),
            {(row["topic"], row["partition"]): row["next_offset"] for row in line["positions"]},
            {int(partition): offset for partition, offset in line["alerts"].items()},
            line["lag"],
            line["records"],
        )

    @property
    def version(self) -> str:
        """Differs between two states in which a question may have different answers."""
        return f"{self.commits}.{sum(self.alerts.values())}"

    def reached(self, positions: Mapping[tuple[str, int], int]) -> bool:
        """Whether everything before these positions was read."""
        return all(self._next(*at) >= offset for at, offset in positions.items())

    def _next(self, topic: str, partition: int) -> int:
        return self.alerts.get(partition, 0) if topic == ALERTS else self.positions.get((topic, partition), 0)


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


class OwnerLink:
    """`ask`, `wait_for` and `changes` are for the event loop in which `begin` was called."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.state: State | None = None
        """The latest state; None while the owner does not answer."""
        self.last: State | None = None
        """The latest state that is known, even if the owner does not answer now."""
        self._remote: Remote | None = None
        self._closed = threading.Event()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="asking")
        self._followers: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._follow, name="owner-link", daemon=True)

    def begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # ── Questions ────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self, work: Callable[[Remote], _T]) -> _T:
        """Have a thread do `work` with the owner. Raises `OwnerGone` if no owner answers."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(self.remote()))

    def remote(self) -> Remote:
        """The owner. Raises `OwnerGone`."""
        remote = self._remote
        if remote is None:
            raise OwnerGone(
                f"database {self.database.name}: no consumer answers at the moment; ask again in a moment, and look"
                " whether `coupon-ledger consume --follow` runs"
            )
        return remote

    # ── States ───────────────────────────────────────────────────────────────────────────────────────────────

    async def wait_for(self, positions: Mapping[tuple[str, int], int], limit_s: float) -> bool:
        """Wait until everything before these positions was read. False if it was not within `limit_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s), self.changes() as changes:
                async for state in changes:
                    if state is not None and state.reached(positions):
                        return True
        return False

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[State | None]]:
        """Within the block, an iterator yields the present state, then each later one that the reader comes to; None
        while the owner does not answer."""
        changed = asyncio.Event()
        changed.set()

        async def states() -> AsyncIterator[State | None]:
            while True:
                await changed.wait()
                changed.clear()
                yield self.state

        self._followers.add(changed)
        iterator = states()
        try:
            yield iterator
        finally:
            self._followers.discard(changed)

    def _follow(self) -> None:
        """Follow the feed of the present owner, until `close`."""
        pause_s = _AGAIN_S
        while not self._closed.is_set():
            try:
                for line in self._lines():
                    pause_s = _AGAIN_S
                    self._tell(State.of_line(line))
                    if self._closed.is_set():
                        return
            except Exception as error:  # any error: look for the owner again
                if self.state is not None:
                    _logger.warning("the consumer does not answer: %s", error)
            self._remote = None
            self._tell(None)
            self._closed.wait(pause_s)
            pause_s = min(2 * pause_s, _SLOWEST_AGAIN_S)

    def _lines(self) -> Iterator[dict[str, Any]]:
        announced = owner(self.database)
        if announced.get("url") is None:
            return
        if announced.get("interface") != INTERFACE:
            raise StoreOwned(
                f"database {self.database.name}: its consumer is another version of coupon-ledger"
                f" ({announced.get('release')}); restart it with this one"
            )
        remote = Remote(announced["url"], self.database)
        for line in remote.follow():
            self._remote = remote
            yield line

    def _tell(self, state: State | None) -> None:
        if state == self.state:
            return
        self.state = state
        self.last = state or self.last
        if self._loop is not None and not self._loop.is_closed():
            with suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for changed in self._followers:
            changed.set()
