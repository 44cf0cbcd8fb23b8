"""Groups of users that share values: the connected components of the graph of users and values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from coupon_ledger.projections.alerts.chunk import Int64, Mask
from coupon_ledger.projections.alerts.sliding import Counts, Keys

USER_BITS: Final = 32
USER: Final = (1 << USER_BITS) - 1


@dataclass(frozen=True, slots=True)
class Group:
    """`users`: their numbers, in order; `counts`: how many events each has; `events`: how many all have."""

    users: Keys
    counts: Counts

    @property
    def events(self) -> int:
        return int(self.counts.sum())


class Graph:
    """Users and values. `edges`: in order, each with the number of a value, then that of a user. `users`: all users, in
    order, with their `counts` of events."""

    def __init__(self, edges: Keys, users: Keys, counts: Counts) -> None:
        self._edges = edges
        self._users = users
        self._counts = counts
        numbers = edges >> USER_BITS
        first = np.flatnonzero(np.diff(numbers, prepend=-1))
        self.values: Keys = numbers[first]
        self.degrees: Int64 = np.diff(np.append(first, len(numbers)))
        """How many users each of the `values` has."""

    def groups(self, joining: Mask, least_users: int, at_least: int) -> Iterator[Group]:
        """The groups with at least so many users and events. `joining`: which of the `values` join their users."""
        used = self._edges[np.repeat(joining & (self.degrees > 1), self.degrees)]
        members, where = np.unique(used & USER, return_inverse=True)
        if len(members) < least_users:
            return
        same = np.flatnonzero(np.diff(used >> USER_BITS) == 0)
        group = components(where[same], where[same + 1], len(members))
        counts = self._counts[np.searchsorted(self._users, members)]
        size = np.bincount(group)
        wanted = np.flatnonzero((size >= least_users) & (np.bincount(group, weights=counts) >= at_least))
        order = np.argsort(group, kind="stable")
        first = np.searchsorted(group[order], wanted)
        for begin, length in zip(first.tolist(), size[wanted].tolist(), strict=True):
            rows = order[begin : begin + length]
            yield Group(members[rows], counts[rows])

    def around(self, group: Group) -> Keys:
        """The values that the users of a group have, in order."""
        first = np.searchsorted(self._by_user, group.users << USER_BITS)
        number = np.searchsorted(self._by_user, (group.users + 1) << USER_BITS) - first
        rows = np.arange(number.sum()) + np.repeat(first - np.cumsum(number) + number, number)
        return np.unique(self._by_user[rows] & USER)

    @cached_property
    def _by_user(self) -> Keys:
        return np.sort((self._edges & USER) << USER_BITS | self._edges >> USER_BITS)


def components(first: Int64, second: Int64, number: int) -> Int64:
    """Per node, the smallest node of its component. `first`, `second`: the ends of each edge, as nodes below `number`.

    In each round, every tree hooks itself to the smallest tree beside it. At most half of the trees that have an edge
    left have no smaller one beside them, so the rounds are at most the logarithm of the number of nodes.
    """
    parent: Int64 = np.arange(number, dtype=np.int64)
    while len(first):
        ends = parent[first], parent[second]
        low, high = np.minimum(*ends), np.maximum(*ends)
        apart = low != high
        first, second = first[apart], second[apart]
        np.minimum.at(parent, high[apart], low[apart])
        while True:
            above = parent[parent]
            if np.array_equal(above, parent):
                break
            parent = above
    return parent
