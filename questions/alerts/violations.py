"""Rules of kind `violation`: how many violations stand, since when, and how much money is at stake.

What is found is a function of the facts and of the data's clock: it depends neither on batches nor on when it was asked
before.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.plain import plain
from coupon_ledger.projections.alerts.offenders import Offender
from coupon_ledger.projections.alerts.rules import Violations

SHOWN: Final = 20
"""Number of coupons and orders that the evidence of an alert names."""


def judge(standing: pl.DataFrame, of: Violations, clock: datetime) -> list[Offender]:
    """What the rule finds among the violations that stand: one offender per combination of `by`. `standing`: the result
    of `Standing.read`. `clock`: the data's clock (naive UTC).

    The condition holds for a combination if at least `at_least` of its violations stand in the window, and the money at
    stake in them is at least `min_money_minor`. Since when: the beginning of the time, up to now, in which it held
    without a break. Amounts of several currencies are not added up: the currency with the highest sum counts, and the
    details have all of them.
    """
    by = list(of.by)
    rows = combined(standing, of).with_columns(fault_at=pl.min_horizontal("fault_at", pl.lit(clock, pl.Datetime("us"))))
    present = rows if of.window is None else rows.filter(pl.col("fault_at") > clock - of.window)
    many = present.group_by("alike").len().filter(pl.col("len") >= of.at_least)
    if not many.height:
        return []
    rows = money_once(rows.join(many, on="alike", how="semi"))
    present = rows if of.window is None else rows.filter(pl.col("fault_at") > clock - of.window)
    money = _sums(present)
    main = money.group_by("alike", maintain_order=True).first().rename({"sum": "money_minor"})
    rows = rows.join(main.select("alike", main="currency"), on="alike", how="left")
    since = _since(rows, of, clock)
    found = present.group_by("alike").agg(
        *(pl.col(name).first() for name in by),
        count=pl.len(),
        first=pl.col("fault_at").min(),
        last=pl.col("fault_at").max(),
    )
    found = found.join(since, on="alike").join(main, on="alike", how="left").sort(*by, "alike")
    return list(_offenders(found, present, money, of))


def combined(standing: pl.DataFrame, of: Violations) -> pl.DataFrame:
    """The violations that the rule is about, with `alike`: a number for each combination of `by`."""
    rows = standing if not of.codes else standing.filter(pl.col("code").is_in(list(of.codes)))
    return rows.with_columns(alike=pl.concat_str([pl.lit(""), *of.by], separator="\x1f").hash())


def money_once(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of a combination that concern the same use: only the one with the highest amount keeps its money."""
    if rows["code"].n_unique() == 1:
        return rows
    ordered = rows.sort("money_minor", "fault_at", "code", descending=[True, False, False], nulls_last=True)
    first = pl.struct("alike", "use").is_first_distinct()
    return ordered.with_columns(money_minor=pl.when(first).then("money_minor"))


def _sums(rows: pl.DataFrame) -> pl.DataFrame:
    """The money at stake per combination and currency, highest first. Rows without money are left out."""
    known = rows.filter(pl.col("money_minor").is_not_null())
    sums = known.group_by("alike", "currency").agg(sum=pl.col("money_minor").cast(pl.Int128).sum())
    return sums.sort("alike", "sum", "currency", descending=[False, True, False], nulls_last=True)


def _since(rows: pl.DataFrame, of: Violations, clock: datetime) -> pl.DataFrame:
    """Since when the condition holds, per combination for which it holds now (`alike`, `since`)."""
    if of.window is None and not of.min_money_minor:
        instants = rows.group_by("alike").agg(pl.col("fault_at").sort().get(of.at_least - 1).alias("since"))
        return instants
    counts = pl.col("currency").eq_missing(pl.col("main"))
    money = pl.when(counts).then(pl.col("money_minor").cast(pl.Int128)).otherwise(0).fill_null(0)
    points = rows.select("alike", "fault_at", n=pl.lit(1, pl.Int64), money=money)
    if of.window is not None:
        left = points.select(
            "alike", pl.col("fault_at") + of.window, n=-pl.col("n"), money=pl.col("money") * pl.lit(-1, pl.Int128)
        )
        points = pl.concat([points, left.filter(pl.col("fault_at") <= clock)])
    steps = points.group_by("alike", "fault_at").agg(pl.col("n").sum(), pl.col("money").sum()).sort("alike", "fault_at")
    enough = pl.col("n").cum_sum().over("alike") >= of.at_least
    if of.min_money_minor:
        enough &= pl.col("money").cum_sum().over("alike") >= of.min_money_minor
    steps = steps.with_columns(holds=enough)
    last = steps.filter(~pl.col("holds")).group_by("alike").agg(pl.col("fault_at").max().alias("ended"))
    after = steps.join(last, on="alike", how="left").filter(
        pl.col("holds") & (pl.col("ended").is_null() | (pl.col("fault_at") > pl.col("ended")))
    )
    return after.group_by("alike").agg(pl.col("fault_at").min().alias("since"))


def _offenders(found: pl.DataFrame, present: pl.DataFrame, money: pl.DataFrame, of: Violations) -> Iterator[Offender]:
    sums = money.join(found, on="alike", how="semi").partition_by("alike", as_dict=True)
    shown = {name: _latest(present, name, found["alike"]) for name in ("coupon", "order")}
    for row in found.iter_rows(named=True):
        details: dict[str, Any] = {"count": row["count"], "first": row["first"], "last": row["last"]}
        details |= {f"{name}s": keys[row["alike"]] for name, keys in shown.items() if row["alike"] in keys}
        amounts = sums.get((row["alike"],))
        if amounts is not None and amounts.height > 1:
            details["money"] = {currency or "": int(total) for _, currency, total in amounts.iter_rows()}
        total = row["money_minor"]
        yield Offender(
            key={name: row[name] for name in of.by},
            value=float(row["count"]),
            threshold=float(of.at_least),
            since=row["since"],
            money_minor=None if total is None else int(total),
            currency=row["currency"],
            details=plain(details),
        )


def _latest(rows: pl.DataFrame, name: str, groups: pl.Series) -> dict[int, list[str]]:
    """The latest coupons or orders (`name`) of each of these combinations, at most `SHOWN`."""
    known = rows.filter(pl.col(name).is_not_null() & pl.col("alike").is_in(groups.implode()))
    last = known.group_by("alike", name).agg(pl.col("fault_at").max())
    listed = last.sort("fault_at", name, descending=[True, False]).group_by("alike").agg(pl.col(name).head(SHOWN))
    return dict(listed.iter_rows())
