"""What several viewers need is made once: they share one result for each state of the ledger.

Always true:
- While a result is being made, all requests for it wait for that one.
- After a result was made, the next one is begun only after a rest, which is longer the longer it took. So however fast
  commits come, and however many look, making results takes a bounded part of the processor's time.
- Nothing is made while nobody looks.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

RESTS: Final = 3.0
"""A rest is so many times as long as making the result took."""
LONGEST_REST_S: Final = 3.0


class _Kept(Generic[T]):
    """`version`: of the state at which the result was begun. `ended`, `took_s`: when it was made, and how long that
    took."""

    def __init__(self, version: str, task: asyncio.Task[T]) -> None:
        self.version = version
        self.task = task
        self.began = time.monotonic()
        self.ended = 0.0
        task.add_done_callback(self._end)

    def _end(self, _: object) -> None:
        self.ended = time.monotonic()

    def rest_s(self) -> float:
        return max(0.0, self.ended + min(RESTS * (self.ended - self.began), LONGEST_REST_S) - time.monotonic())


class Shared(Generic[T]):
    """For one event loop. `most`: how many results are kept."""

    def __init__(self, most: int, *, rests: bool = True) -> None:
        self._most = most
        self._rests = rests
        self._kept: OrderedDict[str, _Kept[T]] = OrderedDict()

    async def get(
        self, key: str, version: Callable[[], str], make: Callable[[], Awaitable[T]], lasting_s: float = 0.0
    ) -> T:
        """The result `key` for the present state. `version`: of the present state. `make`: makes the result.
        `lasting_s`: for so long, a result counts for later states too. Raises what `make` raises; a failure is not
        kept."""
        while True:
            kept = self._kept.get(key)
            if kept is None:
                return await self._made(key, version(), make)
            if not kept.task.done():
                return await _of(kept.task)
            lasts = lasting_s and time.monotonic() - kept.ended < lasting_s
            if kept.version == version() or lasts:
                self._kept.move_to_end(key)
                return kept.task.result()
            rest_s = kept.rest_s() if self._rests else 0.0
            if rest_s == 0.0:
                return await self._made(key, version(), make)
            await asyncio.sleep(rest_s)

    async def _made(self, key: str, version: str, make: Callable[[], Awaitable[T]]) -> T:
        async def running() -> T:
            return await make()

        task = asyncio.get_running_loop().create_task(running())
        kept = self._kept[key] = _Kept(version, task)
        self._kept.move_to_end(key)
        task.add_done_callback(lambda _: self._forget_failed(key, kept))
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return await _of(task)

    def _forget_failed(self, key: str, kept: _Kept[Any]) -> None:
        failed = kept.task.cancelled() or kept.task.exception() is not None
        if failed and self._kept.get(key) is kept:
            del self._kept[key]


async def _of(task: asyncio.Task[T]) -> T:
    """The task's result. A caller that is cancelled does not cancel the task, which others wait for."""
    return await asyncio.shield(task)
