"""How each rule is tried on the past, and what the past does not say.

stream      on the events, one after the other, as live
violations  on the violations that count
recordings  on when events and dead letters were recorded
states      asked in states of the past, which are restored
raised      the log says nothing about it: what counts are the alerts that the rule really raised
nothing     it cannot find anything
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from coupon_ledger.ledger.topics import COUPON, INPUT_TOPICS
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.projections.alerts.rules import STREAMED, Guardrail, Health, Reconciliation, Rule, Sql, Violations
from coupon_ledger.projections.alerts.safe_sql import refusal, tables_read
from coupon_ledger.projections.connection import Reading
from coupon_ledger.questions.backtest import restored
from coupon_ledger.questions.backtest.health import FINDERS
from coupon_ledger.questions.experiments import experiments
from coupon_ledger.questions.parameters import OfPast

_OUTSIDE: Final = {
    "lag": note("how far the consumer was behind"),
    "provisional": note("how far the consumer was behind"),
    "channel_dead": note("what channels took"),
    "rule_failed": note("which rules failed"),
}
_EMPTY: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Way:
    """How a rule is tried. `topics`: for `states`, those from which the tables are made that it reads; `by_key`:
    whether all of these are in `restored.BY_KEY`. `why`: what the past does not say."""

    rule: Rule
    kind: str
    topics: frozenset[str] = _EMPTY
    by_key: bool = False
    why: Note | None = None


def way_of(reading: Reading, rule: Rule, *, occurred: bool) -> Way:
    match rule.expr:
        case Violations():
            return Way(rule, "violations")
        case Sql():
            return _of_query(reading, rule, rule.expr)
        case Reconciliation():
            return _outside(rule, note("which faults the tables had"))
        case Guardrail():
            return _of_guardrail(reading, rule)
        case Health():
            return _of_health(rule, rule.expr, occurred=occurred)
    assert rule.expr.kind in STREAMED
    return Way(rule, "stream")


def _outside(rule: Rule, what: Note) -> Way:
    return Way(rule, "raised", why=note("the log does not say {what}; counted are the alerts that it really raised",
                                        what=what))  # fmt: skip


def _of_health(rule: Rule, of: Health, *, occurred: bool) -> Way:
    if of.of == "sweep_overdue":
        return Way(rule, "states", frozenset({COUPON}), by_key=True)
    if of.of not in FINDERS:
        return _outside(rule, _OUTSIDE[of.of])
    if occurred:
        return Way(rule, "nothing", why=note("it is about when events were recorded; try it with --clock recorded"))
    return Way(rule, "recordings")


def _of_guardrail(reading: Reading, rule: Rule) -> Way:
    if not experiments.experiments(reading, OfPast()).height:
        return Way(rule, "nothing", why=note("there is no experiment"))
    return Way(rule, "states", frozenset(INPUT_TOPICS))


def _of_query(reading: Reading, rule: Rule, of: Sql) -> Way:
    if (refused := refusal(reading, of.query)) is not None:
        return Way(rule, "nothing", why=note("its query {why}", why=refused))
    tables = tables_read(reading, of.query)
    if others := sorted(tables - restored.TOPICS_OF.keys()):
        return _outside(rule, note("what {tables} had in it", tables=others))
    topics = frozenset().union(*(restored.TOPICS_OF[table] for table in tables)) or frozenset({COUPON})
    return Way(rule, "states", topics, by_key=tables <= restored.BY_KEY)


def instants(reading: Reading, ways: Sequence[Way], since: datetime | None, until: datetime | None) -> list[datetime]:
    """At which instants the rules are asked that are tried on restored states, ascending."""
    every = [way.rule.every for way in ways if way.kind == "states"]
    known = restored.span(reading) if every else None
    if known is None:
        return []
    first, last = max(known[0], since or known[0]), min(known[1], until or known[1])
    return restored.instants(first, last, min(every)) if first <= last else []


def apart(at: Sequence[datetime]) -> timedelta | None:
    return at[1] - at[0] if len(at) > 1 else None
