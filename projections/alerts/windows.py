"""Exact counts of one key in a sliding window."""

from __future__ import annotations

from bisect import bisect_right, insort
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
        if value is None or self._latest.get(value, at - 1) >= at:
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
        if gone:
            del self._in_order[:gone]


class Run(Values):
    """Counts the longest run of consecutive numbers among the values, if it has at least `least` numbers. Values that
    are not numbers do not count."""

    __slots__ = ("_least",)

    def __init__(self, least: int) -> None:
        super().__init__()
        self._least = least

    def add(self, at: int, value: str | None) -> None:
        if value is not None and value.isascii() and value.isdigit() and len(value) <= 18:
            super().add(at, value)

    def count(self, after: int) -> int:
        if super().count(after) < self._least:
            return 0
        numbers = {int(value) for value in self._latest}
        longest = 0
        for number in numbers:
            if number - 1 not in numbers:
                length = 1
                while number + length in numbers:
                    length += 1
                longest = max(longest, length)
        return longest if longest >= self._least else 0
