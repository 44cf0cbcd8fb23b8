"""The coupons, orders and campaigns behind a cause, each with its contribution and its records."""

from __future__ import annotations

from fractions import Fraction

import polars as pl

from coupon_ledger.questions.changes.answers import is_whole, numbers
from coupon_ledger.questions.changes.causes import stage_of
from coupon_ledger.questions.changes.contributions import Line, contribute
from coupon_ledger.questions.changes.formula import Formula
from coupon_ledger.questions.changes.knowledge import Differences
from coupon_ledger.questions.changes.measured import Measured
from coupon_ledger.questions.changes.measures import Place, of

_RECORD = ["topic", "log_partition", "log_offset"]


def events_of(found: Differences, cause: str, place: Place) -> int | None:
    """How many records of the cause are behind its line of this currency and slice. For parts that are not by object,
    all records of the cause."""
    objects = [
        one.object
        for one in found.objects.get(cause, {})
        if one.object is not None and (one.currency, one.slice) == (place.currency, place.slice)
    ]
    if not objects:
        return found.counts.get(cause)
    mine = _records(found, cause)
    wanted = pl.DataFrame(objects, schema={"kind": pl.String, "id": pl.String}, orient="row")
    return mine.join(wanted, on=["kind", "id"], how="semi").select(_RECORD).n_unique()


def frame(measured: Measured, formula: Formula, found: Differences, cause: str, limit: int) -> pl.DataFrame:
    """One row for each object behind the cause, the largest contributions first. `limit`: at most this many. If the
    metric cannot be split into objects, the objects are those of the records, without contributions."""
    lines = _lines(measured, formula, found, cause)
    records = _records(found, cause)
    if not lines and not found.objects.get(cause):
        objects = records.select("kind", "id").unique(maintain_order=True)
        lines = [(Place(object=(kind, id_)), None) for kind, id_ in objects.iter_rows()]
    return assembled(measured, largest(lines), records, limit)


def largest(lines: list[tuple[Place, Fraction | None]]) -> list[tuple[Place, Fraction | None]]:
    """The objects, those with the largest contributions first."""
    return sorted(lines, key=lambda line: (-abs(line[1] or Fraction(0)), str(line[0])))


def assembled(
    measured: Measured, lines: list[tuple[Place, Fraction | None]], records: pl.DataFrame, limit: int
) -> pl.DataFrame:
    """The answer: one row for each of the first `limit` objects in `lines`, with its contribution and its records.
    `records`: one row per object (`kind`, `id`) and record."""
    shown = lines[:limit]
    values = [value for _, value in shown]
    objects = pl.DataFrame(
        [
            _texts("kind", [_object(place)[0] for place, _ in shown]),
            _texts("id", [_object(place)[1] for place, _ in shown]),
            *([_texts("currency", [place.currency for place, _ in shown])] if measured.money else []),
            *([_texts("slice", [_slice(place) for place, _ in shown])] if measured.by else []),
            numbers(measured.metric.name, values, whole=is_whole(measured.metric)),
            _texts("exact", [None if value is None else str(value) for value in values]),
        ]
    )
    of_object = (
        records.sort("recorded_at", *_RECORD)
        .group_by("kind", "id", maintain_order=True)
        .agg(
            types=pl.col("type").unique(maintain_order=True),
            event_ids=pl.col("event_id"),
            recorded_at=pl.col("recorded_at").max(),
        )
    )
    joined = objects.join(of_object, on=["kind", "id"], how="left", maintain_order="left").rename({"id": "object"})
    return joined.with_columns(pl.col("kind").str.strip_suffix("_id"), found=pl.lit(len(lines), pl.Int64))


def _lines(measured: Measured, formula: Formula, found: Differences, cause: str) -> list[tuple[Place, Fraction | None]]:
    """The objects behind the cause with their contributions. They are applied after all causes before this one, so that
    they add up to its contribution."""
    objects = found.objects.get(cause, {})
    lines = []
    for currency in dict.fromkeys(place.currency for place in objects):
        side = Place(currency)
        none = of({}, measured.parts)
        mine = {
            place: Line(cause, parts=_known(parts)) for place, parts in objects.items() if place.currency == currency
        }
        earlier = [
            Line(other, parts=_known(parts))
            for other, values in found.sums.items()
            if stage_of(other) < stage_of(cause)
            for place, parts in values.items()
            if place.currency == currency
        ]
        contribute(formula, found.before.get(side, none), found.after.get(side, none), [*earlier, *mine.values()])
        lines += [(place, line.contribution) for place, line in mine.items()]
    return lines


def _records(found: Differences, cause: str) -> pl.DataFrame:
    return found.records.filter(pl.col("stage") == stage_of(cause))


def _known(parts: dict[str, Fraction | None]) -> dict[str, Fraction]:
    return {name: value for name, value in parts.items() if value is not None}


def _texts(name: str, values: list[str | None] | list[str]) -> pl.Series:
    return pl.Series(name, values, dtype=pl.String)


def _object(place: Place) -> tuple[str, str]:
    assert place.object is not None
    return place.object


def _slice(place: Place) -> str | None:
    return None if place.slice is None else str(place.slice)
