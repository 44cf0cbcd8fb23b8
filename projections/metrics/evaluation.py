"""From a question about metrics to its values: the parts by source, brought together; then the formulas.

What always holds: a formula sees sums of its slice, bucket and currency alone, and gives null where it would divide by
zero. A slice without rows in a bucket has 0 there (null, if it is a quantile). Amounts of several currencies are apart,
or converted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

import polars as pl

from projections.metrics.definitions import METRICS, MINUTES, SOURCES, Metric
from projections.metrics.money import Rates
from projections.metrics.periods import MOST_BUCKETS, Buckets, Shift, Zone
from projections.metrics.statements import Slice, Statement, aggregates
from projections.store import Reading, sql
from projections.unanswered import WrongQuestion

_INSTANT: Final = pl.Datetime("us")
_WHOLE_UNITS: Final = ("events", "coupons", "users", "orders", "minor")
_MOMENT: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class Asked:
    """A question about metrics that may be asked of each. `where`: any of these values by dimension, an empty one for
    where it is not known."""

    metrics: tuple[Metric, ...]
    by: tuple[str, ...]
    where: Mapping[str, Sequence[str]]
    since: datetime | None
    until: datetime | None
    zone: Zone
    buckets: Buckets | None
    compare: str | None
    rates: Rates | None
    goods_bp: Mapping[str, int]

    @property
    def shifts(self) -> bool:
        return self.compare in ("previous", "last-year")


class Evaluation:
    """One question on one state of the database."""

    def __init__(self, reading: Reading, asked: Asked) -> None:
        self._reading = reading
        self._asked = asked
        [(clock, grace)] = reading.rows("SELECT data_clock, grace_minutes FROM ledger")
        self.clock: datetime | None = clock
        self._grace = timedelta(minutes=grace)

    def frame(self) -> pl.DataFrame:
        """Grain: one slice and bucket, and a currency (null for what is not money) where some metric is money."""
        groups = []
        for money in (False, True):
            if metrics := [m for m in self._asked.metrics if m.money == money]:
                groups.append(self._group(metrics, money=money))
        found = pl.concat(groups, how="diagonal")
        return self._arranged(found)

    def _group(self, metrics: Sequence[Metric], *, money: bool) -> pl.DataFrame:
        """All that is money, or all that is not."""
        asked = self._asked
        keys = [*asked.by, *(["currency"] if money else [])]
        parts = self._parts(metrics, self.slice(asked.since, asked.until), money=money)
        if asked.compare == "target":
            return self._beside_targets(self._values(metrics, self._filled(parts, keys, None), keys, money), metrics)
        if not asked.shifts:
            return self._values(metrics, self._filled(parts, keys, self._keys_of(parts)), keys, money)
        shift = self._shift
        earlier = self.slice(shift.instant(self._since, asked.zone), shift.instant(self._until, asked.zone))
        before = self._parts(metrics, earlier, money=money)
        slices = pl.concat([parts.select(keys), before.select(keys)]).unique() if keys else None
        buckets = self._keys_of(parts)
        then = [shift.key(key, asked.buckets) for key in buckets] if buckets is not None and asked.buckets else None
        values = self._values(metrics, self._filled(parts, keys, buckets, slices), keys, money)
        others = self._values(
            metrics, self._filled(before, keys, list(dict.fromkeys(then)) if then else then, slices), keys, money
        )
        keys = [key for key in (*keys, "bucket") if key in values.columns]
        return self._beside(values, others, keys, dict(zip(buckets or (), then or (), strict=True)), metrics)

    # --- parts

    def slice(self, since: datetime | None, until: datetime | None) -> Slice:
        asked = self._asked
        low, high = (since, until) if since and until else self._bounds
        span = (since or low, max(until or high, since or low))
        return Slice(asked.by, asked.where, since, until, span, asked.zone, asked.buckets, asked.goods_bp)

    @cached_property
    def _bounds(self) -> tuple[datetime, datetime]:
        """What every instant in the tables lies in."""
        [(first, last)] = self._reading.rows(sql(__package__, "bounds"))
        return (first, last + _MOMENT) if first else (datetime(2000, 1, 1), datetime(2000, 1, 2))

    def statements(
        self, metrics: Sequence[Metric], slice_: Slice, *, money: bool
    ) -> Iterable[tuple[list[Metric], Statement]]:
        """One for each source that these metrics are made from."""
        names = dict.fromkeys(part for metric in metrics for part in metric.parts)
        by_source: dict[str, list[Metric]] = {}
        for name in names:
            by_source.setdefault(str(METRICS[name].source), []).append(METRICS[name])
        for source, parts in by_source.items():
            yield parts, aggregates(SOURCES[source], parts, slice_, money=money)

    def _parts(self, metrics: Sequence[Metric], slice_: Slice, *, money: bool) -> pl.DataFrame:
        keys = [*(["bucket"] if slice_.buckets else []), *slice_.by, *(["currency"] if money else [])]
        whole: pl.DataFrame | None = None
        parts: list[Metric] = []
        for some, statement in self.statements(metrics, slice_, money=money):
            found = self._reading.frame(statement.sql, statement.parameters)
            parts += some
            whole = found if whole is None else _joined(whole, found, keys)
        assert whole is not None
        nothing = not whole.height and not slice_.by and not slice_.buckets
        if nothing:
            whole = whole.clear(1)  # of all there is, one row
        return _without_gaps(whole, parts, pl.lit(nothing))

    def _keys_of(self, parts: pl.DataFrame) -> list[datetime] | None:
        """All buckets of the period: those asked for, where that is not said from the first to the last that holds
        something."""
        asked, buckets = self._asked, self._asked.buckets
        if buckets is None:
            return None
        found = parts["bucket"].drop_nulls()
        first = buckets.key(asked.since) if asked.since else found.min()
        if first is None:
            return []
        last = max((buckets.start(at) for at in (found.max(),) if at is not None), default=first)  # type: ignore[type-var,arg-type]
        clock = self.clock if asked.since and self.clock else first
        until = asked.until or max(last, clock) + _MOMENT  # type: ignore[type-var,operator]
        return list(buckets.keys(first, until))  # type: ignore[arg-type]

    def _filled(
        self,
        parts: pl.DataFrame,
        keys: list[str],
        buckets: list[datetime] | None,
        slices: pl.DataFrame | None = None,
    ) -> pl.DataFrame:
        """A row for each slice, in each bucket."""
        if not keys and buckets is None:
            return parts
        if slices is None:
            slices = parts.select(keys).unique() if keys else pl.DataFrame({"_": [0]})
        if buckets is not None:
            if slices.height * len(buckets) > MOST_BUCKETS:
                raise WrongQuestion(
                    f"metrics: {slices.height:,} slices in {len(buckets):,} buckets are more than {MOST_BUCKETS:,} rows;"
                    " ask for a shorter period, a coarser grain or fewer slices"
                )
            slices = slices.join(pl.DataFrame({"bucket": buckets}, schema={"bucket": _INSTANT}), how="cross")
            keys = ["bucket", *keys]
        names = [name for name in parts.columns if name not in keys]
        there = parts.with_columns(_found=pl.lit(True))
        wide = slices.select(keys).join(there, on=keys, how="left", nulls_equal=True)
        return _without_gaps(wide, [METRICS[name] for name in names], pl.col("_found").is_null()).drop("_found")

    # --- values

    def _values(self, metrics: Sequence[Metric], parts: pl.DataFrame, keys: list[str], money: bool) -> pl.DataFrame:
        keys = [name for name in (*keys, "bucket") if name in parts.columns]
        if money and self._asked.rates is not None:
            amounts = [name for name in parts.columns if name in METRICS and METRICS[name].unit == "minor"]
            parts = self._asked.rates.convert(parts, [k for k in keys if k != "currency"], amounts)
        parts = self._with_minutes(parts)
        columns = [*keys, *(f"{_formula(metric)} AS {metric.name}" for metric in metrics)]
        with self._reading.given(parts=parts):
            return self._reading.frame(f"SELECT {', '.join(columns)} FROM parts")

    def _with_minutes(self, parts: pl.DataFrame) -> pl.DataFrame:
        """The minutes of the bucket, or of the period, until the data's clock."""
        asked, clock = self._asked, self.clock
        if clock is None:
            return parts.with_columns(pl.lit(None, pl.Float64).alias(MINUTES))
        bounds = (asked.since or datetime.min, min(asked.until or datetime.max, clock))
        if asked.buckets is None:
            passed = (bounds[1] - bounds[0]) / timedelta(minutes=1)
            return parts.with_columns(pl.lit(max(0.0, passed) if asked.since else None, pl.Float64).alias(MINUTES))
        buckets = parts["bucket"].unique().to_list()
        spans = [(asked.buckets.start(key), asked.buckets.end(key)) for key in buckets]
        passed_each = [(min(end, bounds[1]) - max(start, bounds[0])) / timedelta(minutes=1) for start, end in spans]
        lengths = pl.DataFrame(
            {"bucket": buckets, MINUTES: [max(0.0, p) for p in passed_each]},
            schema={"bucket": _INSTANT, MINUTES: pl.Float64},
        )
        return parts.join(lengths, on="bucket", how="left")

    # --- comparison

    @cached_property
    def _since(self) -> datetime:
        if self._asked.since is None:
            raise WrongQuestion(f"comparison with {self._asked.compare}: of which period is not said; give --since")
        return self._asked.since

    @cached_property
    def _until(self) -> datetime:
        until = self._asked.until or self.clock
        if until is None or until <= self._since:
            raise WrongQuestion("comparison: the period ends before it begins; give --since and --until of one")
        return until

    @cached_property
    def _shift(self) -> Shift:
        asked = self._asked
        return Shift.between(self._since, self._until, asked.zone, str(asked.compare), asked.buckets)

    def _beside(
        self,
        values: pl.DataFrame,
        others: pl.DataFrame,
        keys: list[str],
        then: Mapping[datetime, datetime],
        metrics: Sequence[Metric],
    ) -> pl.DataFrame:
        """Each value, what it was before, and the change as a part of that."""
        others = others.rename({metric.name: f"{metric.name}_before" for metric in metrics})
        if then:
            pairs = pl.DataFrame(
                {"bucket": list(then), "_then": list(then.values())}, schema={"bucket": _INSTANT, "_then": _INSTANT}
            )
            values = values.join(pairs, on="bucket", how="left")
            others = others.rename({"bucket": "_then"})
            keys = ["_then" if key == "bucket" else key for key in keys]
        if keys:
            wide = values.join(others, on=keys, how="left", nulls_equal=True)
        else:
            wide = pl.concat([values, others], how="horizontal")
        changes = [_change(pl.col(m.name), pl.col(f"{m.name}_before")).alias(f"{m.name}_change") for m in metrics]
        return wide.drop("_then", strict=False).with_columns(changes)

    def _beside_targets(self, values: pl.DataFrame, metrics: Sequence[Metric]) -> pl.DataFrame:
        """Each value, its target, and the part of it that is reached."""
        asked = self._asked
        campaigns = asked.where.get("campaign")
        told = self._reading.frame(
            sql(__package__, "targets"),
            {"metrics": [m.name for m in metrics], "campaigns": list(campaigns) if campaigns else None},
        )
        by = "campaign" in asked.by
        for metric in metrics:
            mine = told.filter(pl.col("metric") == metric.name)
            targets = _targets(mine, metric, values, by=by, asked=asked)
            name = f"{metric.name}_target"
            keys = [k for k in ("campaign", "currency") if k in targets.columns]
            if keys:
                values = values.join(targets.rename({"target": name}), on=keys, how="left", nulls_equal=True)
            else:
                values = values.with_columns(pl.lit(targets["target"].first(), pl.Float64).alias(name))
            reached = pl.when(pl.col(name) != 0).then(pl.col(metric.name) / pl.col(name))
            values = values.with_columns(reached.alias(f"{metric.name}_reached"))
        return values

    # --- the answer

    def _arranged(self, found: pl.DataFrame) -> pl.DataFrame:
        """Keys first, then the metrics in the order asked; `open`: late facts of then are still to be expected."""
        asked, clock = self._asked, self.clock
        suffixes = {"target": ("", "_target", "_reached"), None: ("",)}.get(asked.compare, ("", "_before", "_change"))
        values = [f"{metric.name}{suffix}" for metric in asked.metrics for suffix in suffixes]
        keys = [*(["currency"] if "currency" in found.columns else [])]
        closed = clock - self._grace if clock else datetime.min
        if asked.buckets is None:
            end = asked.until or datetime.max
            found = found.with_columns(open=pl.lit(end > closed))
            keys = [*asked.by, *(k for k in keys if k not in asked.by), "open"]
        else:
            each = found["bucket"].unique().to_list()
            named = pl.DataFrame(
                {
                    "bucket": each,
                    "_label": [asked.buckets.label(key) for key in each],
                    "starts_at": [asked.buckets.start(key) for key in each],
                    "open": [asked.buckets.end(key) > closed for key in each],
                },
                schema={"bucket": _INSTANT, "_label": pl.String, "starts_at": _INSTANT, "open": pl.Boolean},
            )
            found = found.join(named, on="bucket", how="left").sort("bucket", *asked.by, nulls_last=True)
            found = found.drop("bucket").rename({"_label": "bucket"})
            keys = ["bucket", "starts_at", *asked.by, *(k for k in keys if k not in asked.by), "open"]
        if asked.buckets is None and (order := [k for k in keys if k != "open"]):
            found = found.sort(order, nulls_last=True)
        return found.select(*keys, *values).with_columns(data_clock=pl.lit(clock, _INSTANT))


def _formula(metric: Metric) -> str:
    text = f"({metric.base})" if metric.formula else metric.name
    whole = metric.whole if metric.source else metric.unit in _WHOLE_UNITS and "/" not in metric.base
    return f"{text}::{'BIGINT' if whole else 'DOUBLE'}"


def _joined(left: pl.DataFrame, right: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """What either side has; a side without the row leaves gaps, told apart from its own nulls by `_of_…`."""
    if not keys:
        return pl.concat([left, right], how="horizontal")
    sides = [
        frame.with_columns(**{f"_has_{name}": pl.lit(True) for name in frame.columns if name in METRICS and f"_has_{name}" not in frame.columns})
        for frame in (left, right)
    ]
    return sides[0].join(sides[1], on=keys, how="full", coalesce=True, nulls_equal=True)


def _without_gaps(frame: pl.DataFrame, metrics: Sequence[Metric], gap: pl.Expr) -> pl.DataFrame:
    """What a metric is of no rows, where it found none."""
    filled = []
    for metric in metrics:
        mark = f"_has_{metric.name}"
        missing = pl.col(mark).is_null() if mark in frame.columns else gap & pl.col(metric.name).is_null()
        if metric.empty is not None:
            filled.append(pl.when(missing).then(metric.empty).otherwise(pl.col(metric.name)).alias(metric.name))
    return frame.with_columns(filled).drop([name for name in frame.columns if name.startswith("_has_")])


def _change(now: pl.Expr, before: pl.Expr) -> pl.Expr:
    return pl.when(before != 0).then((now - before) / before.abs())


def _targets(told: pl.DataFrame, metric: Metric, values: pl.DataFrame, *, by: bool, asked: Asked) -> pl.DataFrame:
    """Columns campaign (if `by`), currency (if money), `target`: what each row of `values` is to reach.

    A target without a currency is in that of the amounts, where there is one alone. Of ratios, targets are in basis
    points.
    """
    scale = 10_000 if metric.unit == "ratio" else 1
    told = told.with_columns(pl.col("target") / scale)
    keys = ["campaign"] if by else []
    if metric.money:
        keys.append("currency")
        alone = values.group_by(keys[:-1] or pl.lit(0)).agg(pl.col("currency").unique())
        alone = alone.filter(pl.col("currency").list.len() == 1).with_columns(own=pl.col("currency").list.first())
        told = told.join(alone.select(*keys[:-1], "own"), on=keys[:-1], how="left") if by else told.with_columns(
            own=pl.lit(alone["own"].first(), pl.String)
        )
        told = told.with_columns(currency=pl.coalesce("currency", "own")).drop_nulls("currency")
    wanted = asked.where.get("campaign", ())
    if by:
        return told.select(*keys, "target").unique(keys, keep="first")
    summed = told.group_by([*keys, pl.lit(0).alias("_")]).agg(
        pl.col("target").sum(), campaigns=pl.col("campaign").n_unique()
    )
    known = pl.col("campaigns") == (len(set(wanted)) if metric.additive else 1)
    known &= pl.lit(metric.additive or len(set(wanted)) == 1)
    return summed.filter(known).select(*keys, "target")
