"""The question `alert-backtest`: the episodes that rules would have opened."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import polars as pl

from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.ledger.progress import Progress, ignore
from coupon_ledger.projections.alerts import in_force
from coupon_ledger.projections.alerts.backtest import replay
from coupon_ledger.projections.connection import Reading
from coupon_ledger.questions.backtest.parameters import BacktestOf
from coupon_ledger.questions.parameters import Parameters

_FOREVER: Final = datetime(9999, 1, 1)
_SHOWN: Final = (
    *("rule", "rule_version", "key", "opened_at", "fired_at", "last_true_at", "closed_at"),
    *("value", "peak", "threshold", "times_true", "details"),
)


def event_span(reading: Reading, _: Parameters) -> pl.DataFrame:
    """When the first and the last event of a coupon or an order happened: one row."""
    return reading.frame(
        "SELECT min(occurred_at) AS first_event_at, max(occurred_at) AS last_event_at FROM ("
        "SELECT occurred_at FROM coupon_events UNION ALL SELECT occurred_at FROM order_events)"
    )


def backtest(reading: Reading, of: BacktestOf, progress: Progress = ignore) -> pl.DataFrame:
    """The alerts that rules would have raised: one row per episode that fired in the period.

    `opened_at`: when the condition was first true; `fired_at`: when the alert was raised; `last_true_at`, `closed_at`:
    when it was last true, and when it was over. `value`, `peak`, `threshold`: the value when it fired, the most extreme
    one, and what it is compared with. `times_true`: how often the condition was true. Rules on the tables are left out.
    """
    from pydantic import ValidationError

    from coupon_ledger.projections.alerts.rules import Rule

    if of.rules is None:
        rules = [f.rule for f in in_force.stored(reading) if f.until is None]
    else:
        try:
            rules = [Rule.model_validate(dict(rule)) for rule in of.rules]
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise WrongQuestion(f"rules: {place}: {first['msg']}; `alerts rules check` says more") from error
    until, occurred = of.until or _FOREVER, of.clock == "occurred"
    # In the order of recording, what was recorded later may have happened before, as in an imported year.
    found = replay(reading, rules, until if occurred else _FOREVER, occurred=occurred, progress=progress)
    fired = found.filter(pl.col("fired_at").is_not_null() & (pl.col("fired_at") < until))
    if of.since is not None:
        fired = fired.filter(pl.col("fired_at") >= of.since)
    return fired.rename({"times": "times_true"}).select(_SHOWN)
