"""Rules of kind `health` on the past: those that follow from when events and dead letters were recorded.

Their clock is the wall clock, so an instant of the past is one of recording. Live they are asked now and then; here
they are judged at every second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from coupon_ledger.projections.alerts.rules import Health, Rule
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.questions.alerts.health import FEWEST_GAPS, LONGER, OUTAGE_AFTER
from coupon_ledger.questions.backtest.stretches import raised, stretches_of

_SECOND: Final = timedelta(seconds=1)
_SOURCE: Final = ("source", "topic")


def alerts(reading: Reading, rule: Rule) -> Iterator[dict[str, Any]]:
    """The alerts of a rule whose `of` is in `FINDERS`, as rows of a backtest."""
    of = rule.expr
    assert isinstance(of, Health)
    [(newest,)] = reading.rows(sql("coupon_ledger.questions.alerts", "newest"))
    if newest is None:
        return
    steps = FINDERS[of.of](reading, of)
    names = [name for name in steps.columns if name not in ("at", "value", "holds")]
    steps = steps.filter(pl.col("at") <= newest).sort(*names, "at")
    steps = steps.with_columns(group=pl.struct(names).rank("dense").cast(pl.Int64))
    keys = {row.pop("group"): row for row in steps.select("group", *names).unique("group").iter_rows(named=True)}
    for alert in raised(stretches_of(steps), rule, newest):
        yield alert.row(rule, keys[alert.group], of.above, newest)


def _dead_letters(reading: Reading, of: Health) -> pl.DataFrame:
    letters = reading.frame(sql(__package__, "dead_letters"))
    leaves = pl.min_horizontal(pl.col("recorded_at") + of.window, "discarded_at")
    rows = letters.with_columns(leaves=pl.max_horizontal(leaves, "recorded_at"))
    steps = _counted(rows.select("topic", "reason", at="recorded_at", until="leaves", n=pl.lit(1, pl.Int64)), ["n"])
    return steps.select("topic", "reason", "at", value=pl.col("n").cast(pl.Float64), holds=pl.col("n") > of.above)


def _late_share(reading: Reading, of: Health) -> pl.DataFrame:
    rows = _lateness(reading, of)
    steps = _counted(
        rows.select(*_SOURCE, "first_at", "at", until=pl.col("at") + of.window, n="events", late="late"), ["n", "late"]
    )
    share = (pl.col("late") / pl.col("n")).fill_nan(0.0)
    began_before = pl.col("at") - of.window >= pl.col("first_at")  # one that has just begun brings its past along
    return steps.select(*_SOURCE, "at", value=share, holds=(share > of.above) & began_before)


def _clock_skew(reading: Reading, of: Health) -> pl.DataFrame:
    rows = _lateness(reading, of).filter(pl.col("ahead_s") > of.above)
    counted = rows.select(*_SOURCE, "at", until=pl.col("at") + of.window, n=pl.lit(1, pl.Int64))
    steps = _counted(counted, ["n"])
    ahead = rows.select(*_SOURCE, "at", value="ahead_s").sort("at")
    steps = steps.sort("at").join_asof(ahead, on="at", by=list(_SOURCE), check_sortedness=False)
    return steps.select(*_SOURCE, "at", value=pl.col("value").cast(pl.Float64), holds=pl.col("n") > 0)


def _lateness(reading: Reading, of: Health) -> pl.DataFrame:
    window_us = of.window // timedelta(microseconds=1)
    return reading.frame(sql(__package__, "lateness"), {"window_us": window_us}).rename({"until": "at"})


def _counted(rows: pl.DataFrame, counts: list[str]) -> pl.DataFrame:
    """How much of each count there is from each instant on. `rows`: the group's columns, `at`, `until` (from when on it
    no longer counts) and the counts."""
    group = [name for name in rows.columns if name not in ("at", "until", *counts)]
    there = rows.select(*group, "at", *counts)
    gone = rows.select(*group, pl.col("until").alias("at"), *(-pl.col(n).cast(pl.Int64) for n in counts))
    points = pl.concat([there.cast(dict.fromkeys(counts, pl.Int64)), gone])
    steps = points.group_by(*group, "at").agg(pl.col(counts).sum()).sort(*group, "at")
    return steps.with_columns(pl.col(counts).cum_sum().over(group) if group else pl.col(counts).cum_sum())


def _silent_source(reading: Reading, of: Health) -> pl.DataFrame:
    """A source is silent from when its gap has become too long until its next event, or until the silence is as long as
    all that is known of it."""
    seconds = reading.frame(sql(__package__, "seconds_of_sources"))
    parts = [
        part.select(*_SOURCE).head(1).join(_silences(part["second"].to_numpy(), of), how="cross")
        for part in seconds.partition_by(*_SOURCE)
    ]
    schema: dict[str, Any] = {**dict.fromkeys(_SOURCE, pl.String), **_SILENCE}
    return pl.concat([pl.DataFrame(schema=schema), *parts])


_SILENCE: Final = {"at": pl.Datetime("us"), "value": pl.Float64, "holds": pl.Boolean}


def _silences(seconds: np.ndarray[Any, np.dtype[np.int64]], of: Health) -> pl.DataFrame:
    gaps = np.diff(seconds)
    number = np.arange(1, len(seconds))  # gaps before each event but the first
    longest = np.maximum.accumulate(gaps)
    shorter = np.minimum(np.concatenate([[0], longest[:-1]]), gaps)
    following = np.maximum.accumulate(shorter)
    known_s = seconds[1:] - seconds[0]
    outage = (known_s > OUTAGE_AFTER.total_seconds()) & (longest > 2 * following)
    usual = np.where(outage, following, longest)
    begins = seconds[1:] + np.maximum(LONGER * usual, usual + of.above)
    ends = np.minimum(np.concatenate([seconds[2:], [np.iinfo(np.int64).max]]), seconds[1:] + known_s)
    judged = (number >= FEWEST_GAPS) & (known_s >= of.window.total_seconds()) & (begins < ends)
    silence = pl.DataFrame({"begins": begins[judged], "ends": ends[judged], "usual": usual[judged]})
    since = (pl.col("begins") * 1_000_000).cast(pl.Int64).cast(pl.Datetime("us"))
    until = (pl.col("ends") * 1_000_000).cast(pl.Int64).cast(pl.Datetime("us"))
    beyond = (pl.col("ends") - pl.col("begins")).cast(pl.Float64) + of.above
    there = silence.select(at=since, value=beyond, holds=pl.lit(True))
    return pl.concat([there, silence.select(at=until, value=pl.lit(0.0), holds=pl.lit(False))]).sort("at")


FINDERS: Final[Mapping[str, Callable[[Reading, Health], pl.DataFrame]]] = {
    "dead_letters": _dead_letters,
    "late_share": _late_share,
    "clock_skew": _clock_skew,
    "silent_source": _silent_source,
}
"""Each returns the steps of a condition (`stretches_of`), with the columns of its key instead of `group`."""
