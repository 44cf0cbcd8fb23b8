"""Limits attempts to sign in: per name and address together, and per address.

After some failures, each further one makes the wait before the next try twice as long. What is remembered is bounded,
and forgotten after a while. A right password clears what is remembered of its name and address, but not of the address
alone: so nobody can use an account of their own to go on guessing those of others.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_FREE: Final = 5
"""Failures without a wait, for a name from one address."""
_FREE_OF_ADDRESS: Final = 30
"""Failures without a wait from one address, over all names."""
_FIRST_S: Final = 2.0
_LONGEST_S: Final = 900.0
_FORGET_S: Final = 3_600.0
_MOST: Final = 20_000


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last: float = 0.0


class Attempts:
    """For one event loop. `clock`: seconds that only go forward."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()

    def wait_s(self, name: str, address: str) -> float:
        """How long to wait before the next try; 0 if it may be made now."""
        return max(
            self._wait_of((name.casefold(), address), _FREE),
            self._wait_of(("", address), _FREE_OF_ADDRESS),
        )

    def failed(self, name: str, address: str) -> None:
        now = self._clock()
        for key in ((name.casefold(), address), ("", address)):
            failures = self._failures.setdefault(key, _Failures())
            if now - failures.last > _FORGET_S:
                failures.count = 0
            failures.count += 1
            failures.last = now
            self._failures.move_to_end(key)
        while len(self._failures) > _MOST:
            self._failures.popitem(last=False)

    def succeeded(self, name: str, address: str) -> None:
        self._failures.pop((name.casefold(), address), None)

    def _wait_of(self, key: tuple[str, str], free: int) -> float:
        failures = self._failures.get(key)
        if failures is None or failures.count < free:
            return 0.0
        since = self._clock() - failures.last
        wait = min(_FIRST_S * 2.0 ** min(failures.count - free, 20), _LONGEST_S)
        return 0.0 if since > _FORGET_S else max(0.0, wait - since)
