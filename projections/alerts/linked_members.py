"""All users of a group that a linked rule found. The details of an episode name only the first of a large group; the
journal has the others."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from coupon_ledger.ledger.plain import plain
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.alerts.chunk import micros, released
from coupon_ledger.projections.alerts.episodes import Episodes, micros_of
from coupon_ledger.projections.alerts.linked import LATEST, LinkedGraph
from coupon_ledger.projections.alerts.linked_groups import Graph, Group
from coupon_ledger.projections.alerts.rules import Linked, Rule
from coupon_ledger.projections.alerts.sliding import Passed, Ticks, judge
from coupon_ledger.projections.connection import Reading


def members(
    reading: Reading, rule: Rule, details: Mapping[str, Any], opened_at: datetime, last_true_at: datetime
) -> list[str] | None:
    """The users of the group with these details, in order: the graph is drawn again from the journal, and the group is
    looked for at the ticks of its episode. None if the journal does not show this very group.

    `details`: as the evaluation wrote them. `opened_at`, `last_true_at`: of the episode (naive UTC).
    """
    of = rule.expr
    assert isinstance(of, Linked)
    search = _Search(rule, of, details)
    first, last = micros(opened_at) // search.ticks.every, micros(last_true_at) // search.ticks.every
    [(newest,)] = reading.rows("SELECT max(recorded_at) FROM coupon_events")
    if newest is None:
        return None
    passed = None
    # An event that is younger than the window was also recorded later; the clock needs as much again.
    for piece in released(reading, COUPON, opened_at - 2 * of.window, newest, sorted(search.columns), None):
        search.take(piece)
        passed = Passed(piece, search.ticks.every)
        if passed.last >= last:
            break
    if passed is not None:
        search.join()
        judge(search, first, last, passed)
    return search.found


class _Search(LinkedGraph):
    """Looks for a group with these details. `found`: its users; None if it was not seen."""

    def __init__(self, rule: Rule, of: Linked, details: Mapping[str, Any]) -> None:
        ticks = Ticks(micros_of(rule.every), micros_of(of.window))
        super().__init__(frozenset(of.events), tuple(sorted(of.over)), of.hub_above, ticks)
        self.found: list[str] | None = None
        self._wanted = {name: value for name, value in details.items() if name != LATEST}
        as_large = of.model_copy(update={"users": details["users"], "at_least": details["count"]})
        self.rules.append((as_large, Episodes(rule, COUPON)))

    def possible(self, last: int) -> bool:
        return self.found is None and super().possible(last)

    def judge(self, last: int, passed: Passed) -> None:
        if self.found is None:
            super().judge(last, passed)

    def holds(
        self, of: Linked, episodes: Episodes, graph: Graph, found: list[Group], ticks: range, passed: Passed
    ) -> None:
        for group in found:
            if len(group.users) == of.users and plain(self.details(graph, group)) == self._wanted:
                self.found = sorted(self.names(group))
