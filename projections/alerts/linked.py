"""Linked rules: groups of users joined over values that they share.

They are judged at ticks (`sliding.py`). The edges between users and values in the window are kept up. The groups are
computed anew from them where the window changed, since a group may fall apart when an event leaves. Bounds over many
ticks at once say where a group may be large enough, so other ticks are not looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from heapq import nsmallest
from typing import Any, Final

import numpy as np
import polars as pl

from coupon_ledger.projections.alerts.chunk import Int64, Released
from coupon_ledger.projections.alerts.episodes import Episode, Episodes, Key, micros_of
from coupon_ledger.projections.alerts.evaluator import Remade
from coupon_ledger.projections.alerts.linked_groups import USER, USER_BITS, Graph, Group
from coupon_ledger.projections.alerts.numbered import Numbered
from coupon_ledger.projections.alerts.rules import Linked, Rule
from coupon_ledger.projections.alerts.sliding import Keys, Passed, Sliding, Ticks, judge
from coupon_ledger.projections.connection import Reading

_COLUMN_BITS: Final = 28
_NUMBER: Final = (1 << _COLUMN_BITS) - 1
_SHOWN: Final = 50
"""How many users, values and hubs the details list."""
LATEST: Final = "latest_user"
"""The user of a group whose last event leaves the window last: a group goes on with the episode of this user."""
_AT_ONCE: Final = 100_000
"""So many events are pending at most, so that none of the pieces takes long."""
_FEW: Final = 10_000
"""So many users and values of before may always be kept."""


class LinkedRules(Remade):
    """All linked rules in force, in sets that share a graph."""

    def __init__(self, rules: Iterable[tuple[Rule, Episodes]]) -> None:
        self._graphs: dict[tuple[Any, ...], LinkedGraph] = {}
        for rule, episodes in rules:
            of = rule.expr
            assert isinstance(of, Linked)
            ticks = Ticks(micros_of(rule.every), micros_of(of.window))
            same = (frozenset(of.events), tuple(sorted(of.over)), of.hub_above, ticks)
            if same not in self._graphs:
                self._graphs[same] = LinkedGraph(*same)
            self._graphs[same].rules.append((of, episodes))

    @property
    def columns(self) -> set[str]:
        """The columns of the journal that the rules need."""
        return {column for graph in self._graphs.values() for column in graph.columns}

    @property
    def longest(self) -> int:
        """The longest window, in microseconds."""
        return max((graph.ticks.window for graph in self._graphs.values()), default=0)

    def warm_up(self, earlier: Released) -> None:
        """Take in events from before the first piece."""
        for graph in self._graphs.values():
            graph.warm_up(earlier)

    def see(self, reading: Reading, piece: Released) -> None:
        """Judge the ticks that the clock passes in `piece`, which follows the pieces before."""
        for graph in self._graphs.values():
            graph.see(piece)


class LinkedGraph:
    """The users and the values that they share. A key of `_edges` has the value's column and number, then the user's
    number."""

    def __init__(self, types: frozenset[str], over: tuple[str, ...], hub_above: int, ticks: Ticks) -> None:
        self.columns = {"user_id", *over}
        self.ticks = ticks
        self.rules: list[tuple[Linked, Episodes]] = []
        self._types = types
        self._over = over
        self._hub_above = hub_above
        self._users = Numbered()
        self._values = [Numbered() for _ in over]
        self._events = Sliding()
        self._edges = Sliding()
        self._pending: list[pl.DataFrame] = []

    def warm_up(self, earlier: Released) -> None:
        self.take(earlier)
        self.join()
        self.move(int(earlier.clock[-1]) // self.ticks.every)

    def see(self, piece: Released) -> None:
        passed = Passed(piece, self.ticks.every)
        self.take(piece)
        if sum(map(len, self._pending)) > _AT_ONCE:
            self.join()
        if passed.first <= passed.last:
            self.join()
            judge(self, passed.first, passed.last, passed)
            self.move(passed.last)
            self._forget()
        for _, episodes in self.rules:
            episodes.advance(int(piece.clock[-1]))

    def take(self, piece: Released) -> None:
        """Keep the events of the piece until a tick is passed, or they are many."""
        mask = piece.of_types(self._types) & piece.events["user_id"].is_not_null().to_numpy()
        rows, enters, leaves = self.ticks.of(piece, np.flatnonzero(mask))
        if len(rows):
            events = piece.events[rows].select("user_id", *self._over)
            self._pending.append(events.with_columns(enters=pl.Series(enters), leaves=pl.Series(leaves)))

    def join(self) -> None:
        """Hand the pending events over to the graph."""
        if not self._pending:
            return
        events = pl.concat(self._pending)
        self._pending.clear()
        users = self._users.of(events["user_id"])
        enters, leaves = events["enters"].to_numpy(), events["leaves"].to_numpy()
        self._events.add(users, enters, leaves)
        edges, rows = [], []
        for column, (name, values) in enumerate(zip(self._over, self._values, strict=True)):
            known = events[name].is_not_null()
            rows.append(np.flatnonzero(known.to_numpy()))
            numbers = column << _COLUMN_BITS | values.of(events[name].filter(known))
            edges.append(numbers << USER_BITS | users[rows[-1]])
        row = np.concatenate(rows)
        order = np.argsort(row, kind="stable")
        row = row[order]
        self._edges.add(np.concatenate(edges)[order], enters[row], leaves[row])

    def _forget(self) -> None:
        """Forget users and values that have no event any more, once they are many."""
        known = len(self._users) + sum(map(len, self._values))
        if known < 2 * (len(self._events.keys) + len(self._edges.keys)) + _FEW:
            return
        user_numbers = self._users.keep(self._events.all_keys())
        values = np.unique(self._edges.all_keys() >> USER_BITS)
        kept = [of.keep(values[values >> _COLUMN_BITS == c] & _NUMBER) for c, of in enumerate(self._values)]
        begins = np.cumsum([0, *map(len, kept)])
        flat = np.concatenate(kept)

        def renumbered(edges: Keys) -> Keys:
            value = edges >> USER_BITS
            column = value >> _COLUMN_BITS
            value = column << _COLUMN_BITS | flat[begins[column] + (value & _NUMBER)]
            numbers: Keys = value << USER_BITS | user_numbers[edges & USER]
            return numbers

        self._events.renumber(lambda users: user_numbers[users])
        self._edges.renumber(renumbered)

    # --- as `Judged`

    def move(self, tick: int) -> None:
        self._events.move(tick)
        self._edges.move(tick)

    def next_change(self) -> int | None:
        return self._events.next_change()

    def possible(self, last: int) -> bool:
        graph = Graph(self._edges.upper(last)[0], *self._events.upper(last))
        least = Graph(self._edges.lower(last)[0], *self._events.lower(last))
        joining = ~np.isin(graph.values, least.values[least.degrees > self._hub_above])
        return any(any(graph.groups(joining, of.users, of.at_least)) for of, _ in self.rules)

    def judge(self, last: int, passed: Passed) -> None:
        graph = Graph(self._edges.keys, self._events.keys, self._events.counts)
        joining = graph.degrees <= self._hub_above
        ticks = range(self._events.tick, last + 1)
        for of, episodes in self.rules:
            found = list(graph.groups(joining, of.users, of.at_least))
            if found:
                self.holds(of, episodes, graph, found, ticks, passed)

    def holds(
        self, of: Linked, episodes: Episodes, graph: Graph, found: list[Group], ticks: range, passed: Passed
    ) -> None:
        """Note that a rule holds for these groups at all these ticks."""
        group_of = np.full(len(self._users) + 1, -1)  # the last is for users that have no number
        for index, group in enumerate(found):
            group_of[group.users] = index
        latest = self._latest(found)
        keys: list[Key | None] = []
        for tick in ticks:
            clock = tick * self.ticks.every
            episodes.advance(clock)
            if not keys or any(key not in episodes.going_on for key in keys):
                keys = self._keys(found, group_of, episodes)
            for key, group, user in zip(keys, found, latest, strict=True):
                if key is not None:
                    size = len(group.users)
                    rises = episodes.rises(key, clock, size)
                    said = self.details(graph, group) if rises else _said(episodes.going_on[key])
                    details = None if said.get(LATEST) == user else {**said, LATEST: user}
                    episodes.true(key, clock, passed.place(tick), size, of.users, details)

    def _latest(self, found: list[Group]) -> list[str]:
        """The latest user of each group: of those whose last event leaves the window last, the smallest."""
        leaves = self._events.last_leaves(len(self._users))
        latest = []
        for group in found:
            of_group = leaves[group.users]
            latest.append(min(self._users.values(group.users[of_group == of_group.max()])))
        return latest

    def _keys(self, found: list[Group], group_of: Int64, episodes: Episodes) -> list[Key | None]:
        """The key of each group's episode. A group goes on with the episode that it has the latest user of; if it has
        those of several, with the oldest. Another group opens an episode under its smallest user whose name is not
        that of an open one; if there is none, it waits (None)."""
        oldest_first = sorted(episodes.going_on.values(), key=lambda e: (e.opened_at, e.key))
        latest = self._users.find(pl.Series([_said(e)[LATEST] for e in oldest_first], dtype=pl.String))
        going_on: dict[int, Key] = {}
        for episode, group in zip(oldest_first, group_of[latest].tolist(), strict=True):
            going_on.setdefault(group, episode.key)
        return [going_on.get(index) or self._new_key(group, episodes) for index, group in enumerate(found)]

    def _new_key(self, group: Group, episodes: Episodes) -> Key | None:
        keys: Iterator[Key] = ((("user_id", user),) for user in sorted(self._users.values(group.users)))
        return next((key for key in keys if key not in episodes.going_on), None)

    def details(self, graph: Graph, group: Group) -> dict[str, Any]:
        """How many users, values and hubs a group has, and the first: users with their events, values and hubs with
        their users."""
        values = graph.around(group)
        users = graph.degrees[np.searchsorted(graph.values, values)]
        hub = users > self._hub_above
        shared = ~hub & (users > 1)
        named = zip(self._users.values(group.users), group.counts.tolist(), strict=True)
        return {
            "count": group.events,
            "users": len(group.users),
            "values": int(shared.sum()),
            "hubs": int(hub.sum()),
            "first_users": _first([user, number] for user, number in named),
            "first_values": _first(self._named(values[shared], users[shared])),
            "first_hubs": _first(self._named(values[hub], users[hub])),
        }

    def names(self, group: Group) -> list[str]:
        """The users of a group, by name."""
        return self._users.values(group.users)

    def _named(self, values: Keys, counts: Int64) -> Iterator[list[Any]]:
        """Each value as its column, itself and its count."""
        for column, (name, numbered) in enumerate(zip(self._over, self._values, strict=True)):
            of_column = values >> _COLUMN_BITS == column
            named = numbered.values(values[of_column] & _NUMBER)
            for value, count in zip(named, counts[of_column].tolist(), strict=True):
                yield [name, value, count]


def _first(entries: Iterable[list[Any]]) -> list[list[Any]]:
    """The entries with the highest counts, which come last in each."""
    return nsmallest(_SHOWN, entries, key=lambda one: (-one[-1], one))


def _said(episode: Episode) -> Mapping[str, Any]:
    return episode.details or {}
