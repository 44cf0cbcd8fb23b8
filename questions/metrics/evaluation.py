"""Evaluates a question about metrics: reads the parts from their sources, joins them, and computes the formulas.

Invariants: a formula sees only values of its own slice, bucket and currency. Division by zero gives null. If a slice
has no rows in a bucket, the metric has its value for no rows (`Metric.empty`). Amounts in different currencies are
separate rows or are converted, but never added up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.questions.metrics.definitions import METRICS, MINUTES, SOURCES, SUMS, Metric, Source
from coupon_ledger.questions.metrics.money import Rates
from coupon_ledger.questions.metrics.periods import MOST_BUCKETS, Buckets, Shift, Zone, later
from coupon_ledger.questions.metrics.statements import Slice, aggregates

_INSTANT: Final = pl.Datetime("us")
_WHOLE_UNITS: Final = ("events", "coupons", "users", "orders", "minor")
_MOMENT: Final = timedelta(microseconds=1)
_NUMBERS: Final = re.compile("([0-9]+)")


@dataclass(frozen=True)
class MetricQuestion:
    """A validated question about metrics. `where`: by dimension, the values that count; an empty value means
    unknown."""

    metrics: tuple[Metric, ...]
    by: tuple[str, ...]
    where: Mapping[str, Sequence[str]]
    since: datetime | None
    until: datetime | None
    zone: Zone
    buckets: Buckets | None
    compare: str | None
    rates: Rates | None
    goods_rates: Mapping[str, list[Any]] | None

    @property
    def shifts(self) -> bool:
        """Whether the question asks for a comparison with an earlier period."""
        return self.compare in ("previous", "last-year")


class Evaluation:
    """The evaluation of one question on one state of the database."""

    def __init__(self, reading: Reading, question: MetricQuestion) -> None:
        self._reading = reading
        self._question = question
        [(clock, grace)] = reading.rows("SELECT data_clock, grace_minutes FROM ledger")
        self.clock: datetime | None = clock
        self._grace = timedelta(minutes=grace)

    def frame(self) -> pl.DataFrame:
        """The answer: one row per slice and bucket, and per currency if any metric is money. In rows with metrics that
        are not money, the currency is null."""
        question = self._question
        now = self._parts(self.slice(question.since, question.until))
        if not question.shifts:
            values = self._values(now, list(now.values()), self._keys_of(now.values()))
            return self._arranged(self._beside_targets(values) if question.compare else values)
        shift = self._shift
        since, until = (shift.instant(at, question.zone) for at in self._period)
        before = self._parts(self.slice(since, until))
        both = [*now.values(), *before.values()]
        buckets = self._keys_of(now.values())
        earlier = (
            [shift.key(key, question.buckets) for key in buckets] if buckets is not None and question.buckets else None
        )
        values = self._values(now, both, buckets)
        others = self._values(before, both, list(dict.fromkeys(earlier)) if earlier is not None else None)
        return self._arranged(self._beside(values, others, dict(zip(buckets or (), earlier or (), strict=True))))

    def _groups(self) -> dict[bool, list[Metric]]:
        """The metrics that are money (key True) and the others (key False). Their values have different keys: only
        money has a currency."""
        groups = {money: [m for m in self._question.metrics if m.money == money] for money in (False, True)}
        return {money: metrics for money, metrics in groups.items() if metrics}

    def _dimensions(self, money: bool) -> list[str]:
        return [*self._question.by, *(["currency"] if money and "currency" not in self._question.by else [])]

    # --- parts

    def slice(self, since: datetime | None, until: datetime | None) -> Slice:
        question = self._question
        low, high = (since, until) if since and until else self._bounds
        span = (since or low, max(until or high, since or low))
        return Slice(
            question.by, question.where, since, until, span, question.zone, question.buckets, question.goods_rates
        )

    @cached_property
    def _bounds(self) -> tuple[datetime, datetime]:
        """Start (included) and end (excluded) of a range that contains every instant in the tables."""
        [(first, last)] = self._reading.rows(sql(__package__, "bounds"))
        if not first:
            return datetime(2000, 1, 1), datetime(2000, 1, 2)
        return first, later(last, _MOMENT)

    def _parts(self, slice_: Slice) -> dict[bool, pl.DataFrame]:
        """The parts of the money metrics (key True) and of the other metrics (key False): one row per slice and bucket,
        and for money also per currency. If both need the same source, it is queried only once, by currency. The parts
        of the other metrics are then summed over the currencies. This requires that these parts are additive."""
        needed = {
            money: _by_source((part for metric in metrics for part in metric.parts), slice_)
            for money, metrics in self._groups().items()
        }
        parts_of: dict[bool, pl.DataFrame] = {}
        shared: dict[Source, pl.DataFrame] = {}
        for money in sorted(needed, reverse=True):
            keys = [*(["bucket"] if slice_.buckets else []), *self._dimensions(money)]
            frames = []
            for source, parts in needed[money].items():
                if source in shared and all(p.additive for p in parts):
                    frames.append(_summed(shared[source], keys, parts))
                    continue
                others = needed.get(False, {}).get(source, []) if money else []
                both = list(dict.fromkeys([*parts, *(others if all(p.additive for p in others) else [])]))
                statement = aggregates(source, both, slice_, money=money)
                frame = self._reading.frame(statement.sql, statement.parameters)
                if money:
                    shared[source] = frame
                frames.append(frame.select(*keys, *(p.name for p in parts)))
            every = [part for parts in needed[money].values() for part in parts]
            parts_of[money] = _together(frames, keys, every)
        return parts_of

    def _keys_of(self, frames: Iterable[pl.DataFrame]) -> list[datetime] | None:
        """The keys of all buckets of the period; None if the question has no buckets. If `since` is None, the first
        bucket is the first one with data in `frames`. If `until` is None, the last bucket is the last one with data, or
        the bucket of the data's clock if `since` is set and the clock is later."""
        question, buckets = self._question, self._question.buckets
        if buckets is None:
            return None
        keys = sorted({key for frame in frames for key in frame["bucket"].unique()})
        if not keys and not question.since:
            return []
        first = buckets.key(question.since) if question.since else keys[0]
        ends = [buckets.start(keys[-1]) + _MOMENT] if keys else []
        ends += [self.clock] if question.since and self.clock else []
        return list(buckets.keys(first, question.until or max(ends, default=first)))

    def _filled(
        self, parts: pl.DataFrame, money: bool, frames: Iterable[pl.DataFrame], buckets: list[datetime] | None
    ) -> pl.DataFrame:
        """Add the missing rows to `parts`, so that every slice that is in any of `frames` has a row for each of
        `buckets`."""
        keys = self._dimensions(money)
        if not keys and buckets is None:
            return parts
        having = [frame.select(keys) for frame in frames if set(keys) <= set(frame.columns)]
        slices = pl.concat(having).unique() if keys else pl.DataFrame({"_": [0]})
        if buckets is not None:
            if slices.height * len(buckets) > MOST_BUCKETS:
                raise WrongQuestion(
                    f"metrics: {slices.height:,} slices in {len(buckets):,} buckets are more than {MOST_BUCKETS:,}"
                    " rows; ask for a shorter period, a coarser grain or fewer slices"
                )
            slices = slices.join(pl.DataFrame({"bucket": buckets}, schema={"bucket": _INSTANT}), how="cross")
            keys = ["bucket", *keys]
        metrics = [METRICS[name] for name in parts.columns if name not in keys]
        there = parts.with_columns(_there=pl.lit(True))
        wide = slices.select(keys).join(there, on=keys, how="left", nulls_equal=True)
        return _without_gaps(wide, metrics, pl.col("_there").is_null()).drop("_there")

    # --- values

    def _values(
        self, parts_of: Mapping[bool, pl.DataFrame], slices: list[pl.DataFrame], buckets: list[datetime] | None
    ) -> pl.DataFrame:
        """Compute the metrics from their parts (`parts_of`, see `_parts`). Every slice that is in any of the frames
        `slices` gets a row for each of `buckets`. Rows of metrics that are not money have no currency."""
        groups = []
        for money, metrics in self._groups().items():
            parts = self._filled(parts_of[money], money, slices, buckets)
            keys = [*self._dimensions(money), *(["bucket"] if buckets is not None else [])]
            if money and self._question.rates is not None:
                amounts = [name for name in parts.columns if name in METRICS and METRICS[name].unit == "minor"]
                parts = self._question.rates.convert(parts, [k for k in keys if k != "currency"], amounts)
            columns = [*keys, *(f"{_formula(metric)} AS {metric.name}" for metric in metrics)]
            with self._reading.given(parts=self._with_minutes(parts)):
                groups.append(self._reading.frame(f"SELECT {', '.join(columns)} FROM parts"))
        return pl.concat(groups, how="diagonal")

    def _with_minutes(self, parts: pl.DataFrame) -> pl.DataFrame:
        """Add the column `minutes`: how many minutes of the bucket (of the period, if there are no buckets) are before
        the data's clock."""
        question, clock = self._question, self.clock
        if clock is None:
            return parts.with_columns(pl.lit(None, pl.Float64).alias(MINUTES))
        bounds = (question.since or datetime.min, min(question.until or datetime.max, clock))
        if question.buckets is None:
            passed = (bounds[1] - bounds[0]) / timedelta(minutes=1)
            return parts.with_columns(pl.lit(max(0.0, passed) if question.since else None, pl.Float64).alias(MINUTES))
        buckets = parts["bucket"].unique().to_list()
        spans = [(question.buckets.start(key), question.buckets.end(key)) for key in buckets]
        passed_each = [(min(end, bounds[1]) - max(start, bounds[0])) / timedelta(minutes=1) for start, end in spans]
        lengths = pl.DataFrame(
            {"bucket": buckets, MINUTES: [max(0.0, p) for p in passed_each]},
            schema={"bucket": _INSTANT, MINUTES: pl.Float64},
        )
        return parts.join(lengths, on="bucket", how="left")

    # --- comparison

    @cached_property
    def _period(self) -> tuple[datetime, datetime]:
        """Start and end of the period that the question compares with an earlier one. Raises `WrongQuestion`."""
        question = self._question
        until = question.until or self.clock
        if question.since is None:
            raise WrongQuestion(f"comparison with {question.compare}: of which period is not said; give --since")
        if until is None or until <= question.since:
            raise WrongQuestion("comparison: the period ends before it begins; give --since and --until of one")
        return question.since, until

    @cached_property
    def _shift(self) -> Shift:
        question = self._question
        return Shift.between(*self._period, question.zone, str(question.compare), question.buckets)

    def _beside(self, values: pl.DataFrame, others: pl.DataFrame, earlier: Mapping[datetime, datetime]) -> pl.DataFrame:
        """Add the columns `…_before` (the metric's value in the earlier period, from `others`) and `…_change` (the
        relative change). `earlier`: for each bucket key, the key of the earlier bucket with which it is compared."""
        metrics = self._question.metrics
        keys = [name for name in values.columns if name not in METRICS]
        others = others.rename({metric.name: f"{metric.name}_before" for metric in metrics})
        if "bucket" in keys:
            pairs = pl.DataFrame(
                {"bucket": list(earlier), "_earlier": list(earlier.values())},
                schema={"bucket": _INSTANT, "_earlier": _INSTANT},
            )
            values = values.join(pairs, on="bucket", how="left")
            others = others.rename({"bucket": "_earlier"})
            keys = ["_earlier" if key == "bucket" else key for key in keys]
        if keys:
            wide = values.join(others, on=keys, how="left", nulls_equal=True)
        else:
            wide = pl.concat([values, others], how="horizontal")
        changes = [_change(pl.col(m.name), pl.col(f"{m.name}_before")).alias(f"{m.name}_change") for m in metrics]
        return wide.drop("_earlier", strict=False).with_columns(changes)

    def _beside_targets(self, values: pl.DataFrame) -> pl.DataFrame:
        """Add the columns `…_target` (the metric's target) and `…_reached` (value / target)."""
        question = self._question
        campaigns = question.where.get("campaign")
        targets_set = self._reading.frame(
            sql(__package__, "targets"),
            {"metrics": [m.name for m in question.metrics], "campaigns": list(campaigns) if campaigns else None},
        )
        for metric in question.metrics:
            mine = targets_set.filter(pl.col("metric") == metric.name)
            name = f"{metric.name}_target"
            targets = _targets(mine, metric, values, question).rename({"target": name})
            keys = [key for key in targets.columns if key != name]
            if keys:
                values = values.join(targets, on=keys, how="left")
            else:
                values = values.with_columns(pl.lit(targets[name].first(), pl.Float64).alias(name))
            here = pl.col(metric.name).is_not_null()
            reached = pl.when(pl.col(name) != 0).then(pl.col(metric.name) / pl.col(name))
            values = values.with_columns(pl.when(here).then(name), reached.alias(f"{metric.name}_reached"))
        return values

    # --- the answer

    def _arranged(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Sort the rows and order the columns: keys first, then the metrics in the order of the question. Also adds
        `open` (whether late facts may still change the row) and the data's clock."""
        question, clock = self._question, self.clock
        suffixes = {"target": ("", "_target", "_reached"), None: ("",)}.get(
            question.compare, ("", "_before", "_change")
        )
        values = [f"{metric.name}{suffix}" for metric in question.metrics for suffix in suffixes]
        keys = [*(["currency"] if "currency" in rows.columns else [])]
        closed = clock - self._grace if clock else datetime.min
        if question.buckets is None:
            end = question.until or datetime.max
            rows = rows.with_columns(open=pl.lit(end > closed))
            keys = [*question.by, *(k for k in keys if k not in question.by), "open"]
        else:
            each = rows["bucket"].unique().to_list()
            named = pl.DataFrame(
                {
                    "bucket": each,
                    "_label": [question.buckets.label(key) for key in each],
                    "starts_at": [question.buckets.start(key) for key in each],
                    "open": [question.buckets.end(key) > closed for key in each],
                },
                schema={"bucket": _INSTANT, "_label": pl.String, "starts_at": _INSTANT, "open": pl.Boolean},
            )
            order = [pl.col("bucket"), *(_natural(rows, name) for name in question.by)]
            rows = rows.join(named, on="bucket", how="left").sort(order, nulls_last=True)
            rows = rows.drop("bucket").rename({"_label": "bucket"})
            keys = ["bucket", "starts_at", *question.by, *(k for k in keys if k not in question.by), "open"]
        if question.buckets is None and (names := [k for k in keys if k != "open"]):
            rows = rows.sort([_natural(rows, name) for name in names], nulls_last=True)
        return rows.select(*keys, *values).with_columns(data_clock=pl.lit(clock, _INSTANT))


def _natural(rows: pl.DataFrame, name: str) -> pl.Expr:
    """An expression to sort by the column `name` in natural order, in which campaign 2 is before campaign 10."""
    if rows.schema[name] != pl.String:
        return pl.col(name)
    values = rows[name].drop_nulls().unique().to_list()
    values.sort(key=lambda value: ([_by_size(part) for part in _NUMBERS.split(value)], value))
    return pl.col(name).replace_strict(values, range(len(values)), return_dtype=pl.Int64, default=None)


def _by_size(part: str) -> tuple[int, str]:
    digits = part.lstrip("0") if part.isdecimal() else ""
    return len(digits), digits or part


def _formula(metric: Metric) -> str:
    text = f"({metric.base})" if metric.formula else metric.name
    whole = metric.whole if metric.source else metric.unit in _WHOLE_UNITS and "/" not in metric.base
    return f"{text}::{metric.whole_type if whole else 'DOUBLE'}"


def _by_source(names: Iterable[str], slice_: Slice) -> dict[Source, list[Metric]]:
    """The metrics with these names, by the source from which to read them: the source of their definition, or the
    hourly sums that can replace it for this slice."""
    by_source: dict[Source, list[Metric]] = {}
    for metric in (METRICS[name] for name in dict.fromkeys(names)):
        sums = SUMS.get(str(metric.source))
        summed = metric.summed(sums.counts) if sums and slice_.fits(sums) else None
        source = sums if sums and summed else SOURCES[str(metric.source)]
        by_source.setdefault(source, []).append(summed or metric)
    return by_source


def _summed(by_currency: pl.DataFrame, keys: list[str], parts: Sequence[Metric]) -> pl.DataFrame:
    sums = by_currency.with_columns(_all=pl.lit(0)).group_by("_all", *keys).agg(pl.col(p.name).sum() for p in parts)
    return sums.select(*keys, *(p.name for p in parts))


def _together(frames: Sequence[pl.DataFrame], keys: list[str], parts: Sequence[Metric]) -> pl.DataFrame:
    """`frames` (one per source) joined on `keys`. Where a source has no row, the `parts` have their values for no rows.
    If there are no keys, or only the currency, the result has at least one row."""
    marked = [
        frame.with_columns(pl.lit(True).alias(f"_has_{name}") for name in frame.columns if name in METRICS)
        for frame in frames
    ]
    whole = marked[0]
    for frame in marked[1:]:
        if keys:
            whole = whole.join(frame, on=keys, how="full", coalesce=True, nulls_equal=True)
        else:
            whole = pl.concat([whole, frame], how="horizontal_extend")
    if not whole.height and keys in ([], ["currency"]):
        whole = whole.clear(1)
    return _without_gaps(whole, parts)


def _without_gaps(frame: pl.DataFrame, metrics: Sequence[Metric], gap: pl.Expr | None = None) -> pl.DataFrame:
    """Fill the values of missing rows with the metric's value for no rows. A row is missing where `gap` is true;
    without `gap`, where the column `_has_<metric>` is null. A null in a row that is not missing means unknown, and is
    kept."""
    filled = []
    for metric in metrics:
        missing = pl.col(f"_has_{metric.name}").is_null() if gap is None else gap
        if metric.empty is not None:
            filled.append(pl.when(missing).then(metric.empty).otherwise(pl.col(metric.name)).alias(metric.name))
    return frame.with_columns(filled).drop([name for name in frame.columns if name.startswith("_has_")])


def _change(now: pl.Expr, before: pl.Expr) -> pl.Expr:
    return pl.when(before != 0).then((now - before) / before.abs())


def _targets(targets_set: pl.DataFrame, metric: Metric, values: pl.DataFrame, question: MetricQuestion) -> pl.DataFrame:
    """The targets of a metric, for joining to `values`: one row per campaign (if the question is grouped by campaign)
    and currency (for money), with `target`. `targets_set`: the targets that were set.

    A target without a currency is in the currency of the amounts, if there is only one. Targets of ratios are set in
    basis points.
    """
    targets = targets_set.with_columns(pl.col("target") / (10_000 if metric.unit == "ratio" else 1))
    keys = [*(["campaign"] if "campaign" in question.by else []), *(["currency"] if metric.money else [])]
    if metric.money:
        targets = _in_a_currency(targets, values.drop_nulls(metric.name), keys[:-1], metric.name)
    if "campaign" in question.by:
        return targets.select(*keys, "target").unique(keys, keep="first")
    wanted = len(set(question.where["campaign"]))
    grouped = targets.with_columns(_all=pl.lit(0)).group_by("_all", *keys)
    sums = grouped.agg(pl.col("target").sum(), campaigns=pl.col("campaign").n_unique())
    known = (pl.col("campaigns") == wanted) & pl.lit(metric.additive or wanted == 1)
    return sums.filter(known).select(*keys, "target")


def _in_a_currency(targets: pl.DataFrame, amounts: pl.DataFrame, by: list[str], metric: str) -> pl.DataFrame:
    """Give each target without a currency the currency of the amounts, if there is only one in its group (by the
    columns `by`). A currency with the amount 0 does not count, unless all amounts are 0. Targets that still have no
    currency are dropped."""
    grouped = amounts.with_columns(_all=pl.lit(0)).group_by("_all", *by)
    some = pl.col("currency").filter(pl.col(metric) != 0).unique()
    currencies = grouped.agg(
        own=pl.when(some.len() > 0).then(some.implode()).otherwise(pl.col("currency").unique().implode())
    )
    alone = currencies.filter(pl.col("own").list.len() == 1)
    alone = alone.select("_all", *by, pl.col("own").list.first())
    joined = targets.with_columns(_all=pl.lit(0)).join(alone, on=["_all", *by], how="left")
    return joined.with_columns(currency=pl.coalesce("currency", "own")).drop_nulls("currency").drop("_all", "own")
