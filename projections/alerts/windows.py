"""Exact counts of one key in a sliding window."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import Protocol


class Window(Protocol):
    """What one key did lately. Instants are microseconds."""

    def add(self, at: int, value: str | None) -> None:
        """Add an event. `value`: that of the field whose values are counted."""

    def count(self, after: int) -> int:
        """The count of what happened after `after`. What is older is forgotten."""


class Events:
    """Counts events."""

    __slots__ = ("_at",)

    def __init__(self) -> None:
        self._at: list[int] = []

    def add(self, at: int, value: str | None) -> None:
        insort(self._at, at)

    def count(self, after: int) -> int:
        if self._at and self._at[0] <= after:
            del self._at[: bisect_right(self._at, after)]
        return len(self._at)


class Values:
    """Counts distinct values. Events without a value do not count."""

    __slots__ = ("_in_order", "_latest")

    def __init__(self) -> None:
        self._latest: dict[str, int] = {}
        self._in_order: list[tuple[int, str]] = []

    def add(self, at: int, value: str | None) -> None:
        if value is None:
            return
        before = self._latest.get(value)
        if before is None:
            self._gained(value)
        elif before >= at:
            return
        self._latest[value] = at
        insort(self._in_order, (at, value))

    def count(self, after: int) -> int:
        self._forget(after)
        return len(self._latest)

    def _forget(self, after: int) -> None:
        gone = 0
        for at, value in self._in_order:
            if at > after:
                break
            gone += 1
            if self._latest.get(value) == at:
                del self._latest[value]
                self._lost(value)
        if gone:
            del self._in_order[:gone]

    def _gained(self, value: str) -> None:
        """The value is inside the window from now on."""

    def _lost(self, value: str) -> None:
        """The value is not inside the window any more."""


class Run(Values):
    """Counts the longest run of consecutive numbers among the values, if it has at least `least` numbers. Values that
    are not numbers do not count."""

    __slots__ = ("_least", "_runs", "_times")

    def __init__(self, least: int) -> None:
        super().__init__()
        self._least = least
        self._runs = _Runs()
        self._times: dict[int, int] = {}
        """How many values stand for each number: 7 and 007 are one."""

    def add(self, at: int, value: str | None) -> None:
        if value is not None and value.isascii() and value.isdigit() and len(value) <= 18:
            super().add(at, value)

    def count(self, after: int) -> int:
        self._forget(after)
        longest = self._runs.longest
        return longest if longest >= self._least else 0

    def _gained(self, value: str) -> None:
        number = int(value)
        times = self._times[number] = self._times.get(number, 0) + 1
        if times == 1:
            self._runs.add(number)

    def _lost(self, value: str) -> None:
        number = int(value)
        self._times[number] -= 1
        if not self._times[number]:
            del self._times[number]
            self._runs.remove(number)


class _Runs:
    """Runs of consecutive numbers: their first numbers in order, the last number of each, and all lengths in order."""

    __slots__ = ("_firsts", "_last", "_lengths")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._last: dict[int, int] = {}
        self._lengths: list[int] = []

    @property
    def longest(self) -> int:
        return self._lengths[-1] if self._lengths else 0

    def add(self, number: int) -> None:
        """Add a number that is not there."""
        first = last = number
        after = bisect_right(self._firsts, number)
        if after < len(self._firsts) and self._firsts[after] == number + 1:
            last = self._take_out(after)[1]
        if after and self._last[self._firsts[after - 1]] == number - 1:
            first = self._take_out(after - 1)[0]
        self._put_in(first, last)

    def remove(self, number: int) -> None:
        """Remove a number that is there."""
        first, last = self._take_out(bisect_right(self._firsts, number) - 1)
        if first < number:
            self._put_in(first, number - 1)
        if number < last:
            self._put_in(number + 1, last)

    def _take_out(self, index: int) -> tuple[int, int]:
        first = self._firsts.pop(index)
        last = self._last.pop(first)
        del self._lengths[bisect_left(self._lengths, last - first + 1)]
        return first, last

    def _put_in(self, first: int, last: int) -> None:
        insort(self._firsts, first)
        self._last[first] = last
        insort(self._lengths, last - first + 1)
