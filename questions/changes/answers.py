"""The answer to the question why a number changed: a frame with one row for each line, and one for the objects behind a
cause."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import floor

import polars as pl

from coupon_ledger.questions.changes.causes import AFTER, BEFORE, CHANGE
from coupon_ledger.questions.changes.contributions import Line, change_of
from coupon_ledger.questions.changes.formula import Formula, Parts
from coupon_ledger.questions.changes.measured import Measured
from coupon_ledger.questions.metrics.definitions import METRICS, MINUTES, Metric

Row = dict[str, object]


def rows_of_lines(
    measured: Measured, formula: Formula, currency: str | None, before: Parts, after: Parts, lines: Sequence[Line]
) -> list[Row]:
    """The rows for one currency: `before`, `after`, `change`, then the lines."""
    change = change_of(formula, before, after)
    moved = {name: None if None in (before[name], after[name]) else after[name] - before[name] for name in before}  # type: ignore[operator]
    heads = ((BEFORE, formula.value(before), before), (AFTER, formula.value(after), after), (CHANGE, change, moved))
    rows = [_row(measured, currency, cause, value, parts) for cause, value, parts in heads]
    shown = _rounded(lines) if is_whole(measured.metric) else [line.contribution for line in lines]
    for line, number in zip(lines, shown, strict=True):
        row = _row(measured, currency, line.cause, line.contribution, {name: line.parts.get(name) for name in before})
        share = float(line.contribution / change) if line.contribution is not None and change else None
        row[measured.metric.name] = number
        rows.append(row | {"slice": _text(line.slice), "share": share, "events": line.events, "metric": line.metric})
    return rows


def _rounded(lines: Sequence[Line]) -> list[Fraction | None]:
    """The contributions as whole numbers that add up to the same, by the method of the largest remainder."""
    known = [line.contribution for line in lines if line.contribution is not None]
    whole = [floor(value) for value in known]
    left = round(sum(known, Fraction(0))) - sum(whole)
    for place in sorted(range(len(known)), key=lambda place: whole[place] - known[place])[:left]:
        whole[place] += 1
    numbers = iter(whole)
    return [None if line.contribution is None else Fraction(next(numbers)) for line in lines]


def _row(measured: Measured, currency: str | None, cause: str, value: Fraction | None, parts: Parts) -> Row:
    return {
        "cause": cause,
        "currency": currency,
        measured.metric.name: value,
        **{f"_{name}": parts[name] for name in parts if name != measured.metric.name},
        "exact": None if value is None else str(value),
    }


def frame(measured: Measured, rows: Sequence[Row], *, steps: bool) -> pl.DataFrame:
    """The frame of these rows. The column of the metric contains its values and contributions; `exact` contains them as
    fractions, before rounding. The parts of a formula have columns, too. `steps`: whether lines are about metrics."""
    metric = measured.metric
    others = [name for name in (*metric.parts, *([MINUTES] if measured.in_minutes else [])) if name != metric.name]
    columns = [
        pl.Series("cause", [row["cause"] for row in rows], dtype=pl.String),
        *([_texts("metric", rows)] if steps else []),
        *([_texts("currency", rows)] if measured.money else []),
        *([_texts("slice", rows)] if measured.by else []),
        numbers(metric.name, [row[metric.name] for row in rows], whole=is_whole(metric)),
        *(numbers(name, [row.get(f"_{name}") for row in rows], whole=_part_is_whole(name)) for name in others),
        pl.Series("share", [row.get("share") for row in rows], dtype=pl.Float64),
        pl.Series("events", [row.get("events") for row in rows], dtype=pl.Int64),
        _texts("exact", rows),
    ]
    return pl.DataFrame(columns)


def is_whole(metric: Metric) -> bool:
    """Whether the metric's values, and so the contributions to its change, are whole numbers."""
    return (
        metric.whole
        if metric.source
        else metric.unit in ("events", "coupons", "orders", "minor") and ("/" not in metric.base)
    )


def _part_is_whole(name: str) -> bool:
    return name in METRICS and METRICS[name].whole


def numbers(name: str, values: Iterable[object], *, whole: bool) -> pl.Series:
    """The column `name`: whole numbers, of 128 bits if one needs them, or floating-point numbers."""
    if not whole:
        return pl.Series(name, [None if v is None else float(v) for v in values], dtype=pl.Float64)  # type: ignore[arg-type]
    integers = [None if v is None else int(v) for v in values]  # type: ignore[call-overload]
    wide = any(abs(number) >= 2**63 for number in integers if number is not None)
    return pl.Series(name, integers, dtype=pl.Int128 if wide else pl.Int64)


def _texts(name: str, rows: Sequence[Mapping[str, object]]) -> pl.Series:
    return pl.Series(name, [row.get(name) for row in rows], dtype=pl.String)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
