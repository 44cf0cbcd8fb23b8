"""Rules of kind `violation` on the past: from the violations that stand now, all the alerts that they raised.

A violation counts from the instant of the fault on or, in the order of recording, from when it was known: when the log
had its last event that matters, and the grace of a rule between topics was over. One that a later fact took away is in
no table any more and does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.rules import DATA
from coupon_ledger.projections.alerts.rules import Rule, Violations
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.live.journal import MOMENTS
from coupon_ledger.projections.live.signature import stable_hash
from coupon_ledger.questions.alerts.standing import Standing
from coupon_ledger.questions.alerts.violations import SHOWN, combined, money_once
from coupon_ledger.questions.backtest.stretches import Raised, raised, stretches_of

_WITH_GRACE: Final[list[str]] = DATA["cross"]["between_topics"]


def known_violations(reading: Reading, *, occurred: bool) -> tuple[pl.DataFrame, datetime | None]:
    """The violations that count (`Standing.read`) with `counts_at`: from when each counts, and the data's clock.
    `occurred`: by the instant of the fault."""
    [(clock, grace)] = reading.rows("SELECT data_clock, grace_minutes FROM ledger")
    rows = Standing().read(reading, ())
    if clock is None:
        return rows.clear().with_columns(counts_at="fault_at"), None
    rows = rows.with_columns(fault_at=pl.min_horizontal("fault_at", pl.lit(clock, pl.Datetime("us"))))
    if occurred or not rows.height:
        return rows.with_columns(counts_at="fault_at"), clock
    grace_over = pl.col("fault_at") + timedelta(minutes=grace)
    due = pl.when(pl.col("code").is_in(_WITH_GRACE)).then(grace_over).otherwise("fault_at")
    counts_at = pl.min_horizontal(pl.max_horizontal(due, "recorded_clock"), pl.lit(clock, pl.Datetime("us")))
    return _with_clock(reading, rows).with_columns(counts_at=counts_at).drop("recorded_clock"), clock


def _with_clock(reading: Reading, rows: pl.DataFrame) -> pl.DataFrame:
    """Adds `recorded_clock`: the data's clock when the log had all events of the violation's key, and of its order,
    that had happened by the fault."""
    rows = rows.with_row_index("row")
    of_order = rows.filter(pl.col("order").is_not_null())
    hashes = pl.Series(stable_hash(of_order["order"]), dtype=pl.Int64)
    faults = pl.concat(
        [rows.select("row", "key_hash", "fault_at"), of_order.select("row", "fault_at", key_hash=hashes).select(
            "row", "key_hash", "fault_at"
        )]
    )  # fmt: skip
    with reading.given(faults=faults):
        recorded = reading.frame(sql(__package__, "recorded_by"))
    with reading.given(needed=recorded.select(until="recorded_at").unique()):
        clocks = reading.frame(sql(__package__, "clocks_at").format(moments=MOMENTS))
    clocks = clocks.sort("until").with_columns(pl.col("clock").cum_max())
    known = recorded.join(clocks, left_on="recorded_at", right_on="until").select("row", recorded_clock="clock")
    return rows.join(known.cast({"row": pl.UInt32}), on="row", how="left", maintain_order="left").drop("row")


def alerts(known: pl.DataFrame, rule: Rule, clock: datetime) -> Iterator[dict[str, Any]]:
    """The alerts of the rule, as rows of a backtest. `known`, `clock`: as `known_violations` gives them."""
    of = rule.expr
    assert isinstance(of, Violations)
    rows = money_once(combined(known, of))
    if not rows.height:
        return
    keys = dict(rows.group_by("alike").agg(pl.struct(of.by).first() if of.by else pl.lit(None)).iter_rows())
    found = list(raised(stretches_of(_steps(rows, of, clock)), rule, clock))
    evidence = _evidence(rows, found, of, clock)
    for number, alert in enumerate(found):
        alert.details = evidence[number]
        yield alert.row(rule, keys[alert.group] or {}, float(of.at_least), clock)


def _steps(rows: pl.DataFrame, of: Violations, clock: datetime) -> pl.DataFrame:
    """Per combination and instant, how many violations count then, and whether the condition holds. Amounts of several
    currencies are not added up: the highest sum counts."""
    counted = rows.select("alike", "currency", at="counts_at", until=_leaves(of), n=pl.lit(1, pl.Int64),
                          money=pl.col("money_minor").cast(pl.Int128).fill_null(0))  # fmt: skip
    points = counted.select("alike", "currency", "at", "n", "money")
    if of.window is not None:
        counted = counted.filter(pl.col("at") < pl.col("until"))
        gone = counted.filter(pl.col("until") <= clock).select(
            "alike", "currency", pl.col("until").alias("at"), -pl.col("n"), pl.col("money") * pl.lit(-1, pl.Int128)
        )
        points = pl.concat([counted.select(points.columns), gone])
    steps = points.group_by("alike", "at").agg(pl.col("n").sum()).sort("alike", "at")
    steps = steps.with_columns(value=pl.col("n").cum_sum().over("alike"))
    holds = pl.col("value") >= of.at_least
    if of.min_money_minor:
        sums = points.group_by("alike", "currency", "at").agg(pl.col("money").sum()).sort("alike", "currency", "at")
        sums = sums.with_columns(money=pl.col("money").cum_sum().over("alike", "currency"))
        steps = _highest(steps, sums)
        holds &= pl.col("money") >= of.min_money_minor
    return steps.select(group="alike", at="at", value="value", holds=holds)


def _leaves(of: Violations) -> pl.Expr:
    return pl.lit(None, pl.Datetime("us")) if of.window is None else pl.col("fault_at") + of.window


def _highest(steps: pl.DataFrame, sums: pl.DataFrame) -> pl.DataFrame:
    """Adds `money`: at each step, the highest sum of a currency."""
    per_currency = [
        steps.join_asof(one.select("alike", "at", "money").sort("at"), on="at", by="alike", check_sortedness=False)
        .select(pl.col("money").fill_null(0)).to_series()
        for one in sums.partition_by("currency")
    ]  # fmt: skip
    return steps.with_columns(money=pl.max_horizontal(per_currency))


def _evidence(rows: pl.DataFrame, found: list[Raised], of: Violations, clock: datetime) -> dict[int, dict[str, Any]]:
    """By number of an alert, what is behind it: the violations that counted while it stood."""
    if not found:
        return {}
    alerts = pl.DataFrame(
        {
            "number": range(len(found)),
            "alike": pl.Series([a.group for a in found], dtype=rows["alike"].dtype),
            "opened_at": pl.Series([a.opened_at for a in found], dtype=pl.Datetime("us")),
            "over_at": pl.Series([a.over_at or clock for a in found], dtype=pl.Datetime("us")),
        }
    ).sort("over_at")
    mine = rows.sort("counts_at").join_asof(
        alerts, left_on="counts_at", right_on="over_at", by="alike", strategy="forward", check_sortedness=False
    )
    if of.window is not None:
        mine = mine.filter(pl.col("fault_at") + of.window > pl.col("opened_at"))
    mine = mine.filter(pl.col("number").is_not_null()).sort("fault_at", descending=True)
    sums = mine.filter(pl.col("money_minor").is_not_null()).group_by("number", "currency").agg(
        money_minor=pl.col("money_minor").cast(pl.Int128).sum()
    ).sort("money_minor", descending=True).group_by("number", maintain_order=True).first()  # fmt: skip
    behind = mine.group_by("number").agg(
        count=pl.len(),
        first=pl.col("fault_at").min(),
        last=pl.col("fault_at").max(),
        coupons=pl.col("coupon").drop_nulls().unique(maintain_order=True).head(SHOWN),
        orders=pl.col("order").drop_nulls().unique(maintain_order=True).head(SHOWN),
    )
    joined = behind.join(sums.cast({"money_minor": pl.Int64}), on="number", how="left")
    return {
        row.pop("number"): {name: value for name, value in row.items() if value not in (None, [])}
        for row in joined.iter_rows(named=True)
    }
