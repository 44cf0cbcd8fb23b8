"""The questions `alert-backtest`, the alerts that rules would have raised, and `alert-backtest-plan`, how each is
tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.ledger.progress import Progress, ignore, stage
from coupon_ledger.projections.alerts import in_force
from coupon_ledger.projections.alerts.backtest import in_order, replay
from coupon_ledger.projections.alerts.engine import topics_of
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.questions.backtest import health, recorded, restored, violations
from coupon_ledger.questions.backtest.asked import Asking
from coupon_ledger.questions.backtest.parameters import BacktestOf, Period
from coupon_ledger.questions.backtest.plan import Way, apart, instants, way_of
from coupon_ledger.questions.backtest.stretches import SHOWN

_FOREVER: Final = datetime(9999, 1, 1)
_PLAN: Final[dict[str, Any]] = {
    "rule": pl.String,
    "rule_version": pl.String,
    "rule_kind": pl.String,
    "tried_on": pl.String,
    "restored_states": pl.Int64,
    "apart_seconds": pl.Float64,
    "why": pl.String,
    "note": pl.String,
}


def event_span(reading: Reading, of: Period) -> pl.DataFrame:
    """When the first and the last event of a coupon or an order happened, and how many events there are in the period
    by the data's clock, which alerts go by: one row."""
    return reading.frame(sql(__package__, "event_span"), of.bound)


def backtest_plan(reading: Reading, of: BacktestOf) -> pl.DataFrame:
    """How a backtest tries each rule: one row per rule.

    `tried_on`: the events one by one (`stream`), the `violations` that count, when events and dead letters were
    recorded (`recordings`), `states` of the past that are restored; or only the alerts that it really `raised`; or
    `nothing`. `restored_states`: in how many states it is asked, `apart_seconds` apart by the data's clock. `why`:
    what the past does not say; `note`: the same as a note.
    """
    occurred = of.clock == "occurred"
    ways = [way_of(reading, rule, occurred=occurred) for rule in _rules(reading, of)]
    with in_order(reading, occurred=occurred):
        at = instants(reading, ways, of.since, of.until)
    between = apart(at)
    rows = [
        {
            "rule": way.rule.name,
            "rule_version": way.rule.version,
            "rule_kind": way.rule.expr.kind,
            "tried_on": way.kind,
            "restored_states": len(at) if way.kind == "states" else None,
            "apart_seconds": between.total_seconds() if between is not None and way.kind == "states" else None,
            "why": None if way.why is None else str(way.why),
            "note": None if way.why is None else way.why.dumps(),
        }
        for way in ways
    ]
    return pl.DataFrame(rows, schema=_PLAN)


def backtest(reading: Reading, of: BacktestOf, progress: Progress = ignore) -> pl.DataFrame:
    """The alerts that rules would have raised: one row per episode that fired in the period.

    `opened_at`: when the condition was first true; `fired_at`: when the alert was raised; `last_true_at`, `closed_at`:
    when it was last true, and when it was over. `value`, `peak`, `threshold`: the value when it fired, the most extreme
    one, and what it is compared with. `times_true`: how often the condition was true. `details`: what is behind it, as
    JSON. A rule that failed has a row with only its `problem`. `alert-backtest-plan` says how each rule is tried.
    """
    occurred = of.clock == "occurred"
    ways = [way_of(reading, rule, occurred=occurred) for rule in _rules(reading, of)]
    until = of.until or _FOREVER
    # In the order of recording, what was recorded later may have happened before, as in an imported year.
    streamed = [way.rule for way in ways if way.kind == "stream"]
    asked = [way for way in ways if way.kind == "states"]
    first = restored.events(reading, frozenset().union(*(topics_of(rule) for rule in streamed)))
    second = restored.events(reading, frozenset().union(*(way.topics for way in asked)))
    stages = stage(progress, after=second), stage(progress, before=first)
    found = replay(reading, streamed, until if occurred else _FOREVER, occurred=occurred, progress=stages[0])
    rows = [*_on_violations(reading, ways, occurred=occurred), *_in_states(reading, asked, of, stages[1])]
    for way in ways:
        if way.kind == "recordings":
            rows += health.alerts(reading, way.rule)
    rows += recorded.alerts(reading, [way.rule for way in ways if way.kind == "raised"])
    streamed_alerts = found.rename({"times": "times_true"}).with_columns(problem=pl.lit(None, pl.String))
    alerts = pl.concat([streamed_alerts.select(list(SHOWN)), pl.DataFrame(rows, schema=SHOWN)])
    within = pl.col("fired_at") < until
    if of.since is not None:
        within &= pl.col("fired_at") >= of.since
    return alerts.filter(within | pl.col("problem").is_not_null()).sort("opened_at", "rule", "key", nulls_last=True)


def _rules(reading: Reading, of: BacktestOf) -> list[Rule]:
    from pydantic import ValidationError

    if of.rules is None:
        return [f.rule for f in in_force.stored(reading) if f.until is None]
    try:
        return [Rule.model_validate(dict(rule)) for rule in of.rules]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise WrongQuestion(f"rules: {place}: {first['msg']}; `alerts rules check` says more") from error


def _on_violations(reading: Reading, ways: Sequence[Way], *, occurred: bool) -> Iterator[dict[str, Any]]:
    rules = [way.rule for way in ways if way.kind == "violations"]
    if not rules:
        return
    known, clock = violations.known_violations(reading, occurred=occurred)
    if clock is not None:
        for rule in rules:
            yield from violations.alerts(known, rule, clock)


def _in_states(reading: Reading, ways: Sequence[Way], of: BacktestOf, progress: Progress) -> Iterator[dict[str, Any]]:
    """The alerts of the rules that are asked in restored states."""
    with in_order(reading, occurred=of.clock == "occurred"):
        at = instants(reading, ways, of.since, of.until)
        if not at:
            return
        asked = [Asking(way.rule) for way in ways]
        topics = frozenset().union(*(way.topics for way in ways))
        by_key = all(way.by_key for way in ways)
        with closing(restored.restored(reading, at, topics, progress, only_by_key=by_key)) as states:
            for state in states:
                for one in asked:
                    one.see(state)
    for one in asked:
        yield from one.alerts(at[-1])
