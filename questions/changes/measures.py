"""Measures the parts of a metric exactly, as a whole or for each coupon, order or campaign that is counted.

A part is *by object* if its value is the sum of its values for single objects. Numbers of distinct users and quantiles
are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, NamedTuple

from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER, USER
from coupon_ledger.projections.connection import Reading
from coupon_ledger.questions.metrics.definitions import METRICS, SOURCES, Metric, Source
from coupon_ledger.questions.metrics.statements import Slice, aggregates

_OBJECT: Final = "object"
_TENTH: Final = re.compile(r"(.+) / ([0-9]+)")
_COUPON: Final = "{}.key_hash IN (FROM changed_coupons)"
_ORDER: Final = "{}.order_id IN (FROM changed_orders)"


@dataclass(frozen=True)
class _Objects:
    """What the rows of a source are about. `kind`: the column that identifies the object in events; `id`: SQL for its
    id; `changed`: the SQL condition on rows that a stage may have changed."""

    kind: str
    id: str
    changed: str


_OF_SOURCE: Final[Mapping[str, _Objects]] = {
    "events": _Objects("coupon_id", "e.coupon_id", f"{_COUPON} OR {_ORDER}".replace("{}", "e")),
    **{
        name: _Objects("coupon_id", "c.coupon_id", _COUPON.format("c"))
        for name in ("created", "issued", "owned", "acquired", "claims")
    },
    "uses": _Objects("coupon_id", "c.coupon_id", f"{_COUPON} OR {_ORDER}".replace("{}", "c")),
    "orders": _Objects("order_id", "o.order_id", _ORDER.format("o")),
    "coupon_orders": _Objects("order_id", "o.order_id", "o.order_id IN (FROM affected_orders)"),
    "costs": _Objects("campaign_id", "b.campaign_id", "true"),
    "stock": _Objects("campaign_id", "s.campaign_id", "true"),
}
_TABLES: Final = {
    COUPON: r"\b(coupons|coupon_events|coupon_sales)\b",
    ORDER: r"\b(orders|coupon_sales)\b",
    CAMPAIGN: r"\b(campaigns|campaign_events)\b",
    USER: r"\busers\b",
}


class Place(NamedTuple):
    """What a value is of. `currency`: None if the metric is not money. `slice`: the value of the dimension by which the
    question is split. `object`: the column that identifies it in events, and its id."""

    currency: str | None = None
    slice: object = None
    object: tuple[str, str] | None = None


Values = dict[Place, dict[str, Fraction | None]]
"""The values of parts. A part that is missing has no rows there."""


def by_object(part: Metric) -> bool:
    return "quantile" not in part.aggregate and ("DISTINCT" not in part.aggregate or "coupon_id" in part.aggregate)


def topics_of(names: Iterable[str], slice_: Slice, *, money: bool) -> set[str]:
    """The topics whose tables are read to compute these parts."""
    texts = " ".join(
        aggregates(source, parts, slice_, money=money).sql for source, parts in _by_source(names, apart=False)
    )
    return {topic for topic, tables in _TABLES.items() if re.search(tables, texts)}


def measure(
    reading: Reading, names: Iterable[str], slice_: Slice, *, money: bool, objects: bool = False, changed: bool = False
) -> Values:
    """The values of the parts `names` by currency (if `money`), by the dimensions of the slice (at most one) and by
    object (if `objects`). `changed`: only rows that the stage may have changed, as the tables `changed_coupons`,
    `changed_orders` and `affected_orders` say."""
    values: Values = {}
    for source, parts in _by_source(names, apart=objects):
        grouped = _with_objects(source, changed) if objects else source
        by = (*slice_.by, *((_OBJECT,) if objects else ()))
        whole = {part.name: _whole(part) for part in parts}
        statement = aggregates(grouped, [one for one, _ in whole.values()], replace(slice_, by=by), money=money)
        for row in reading.frame(statement.sql, statement.parameters).iter_rows(named=True):
            place = Place(
                row["currency"] if money else None,
                row[slice_.by[0]] if slice_.by else None,
                (_OF_SOURCE[source.name].kind, row[_OBJECT]) if objects else None,
            )
            found = values.setdefault(place, {})
            for name, (_, divisor) in whole.items():
                found[name] = None if row[name] is None else Fraction(row[name]) / divisor
    return values


def of(values: Mapping[str, Fraction | None], names: Iterable[str]) -> dict[str, Fraction | None]:
    """The values of all parts `names`, with the value for no rows where one is missing."""
    empty = {name: METRICS[name].empty for name in names}
    return {name: values.get(name, None if none is None else Fraction(none)) for name, none in empty.items()}


def _by_source(names: Iterable[str], *, apart: bool) -> Iterator[tuple[Source, list[Metric]]]:
    """The parts by source. `apart`: only those that are by object."""
    found: dict[str, list[Metric]] = {}
    for part in (METRICS[name] for name in dict.fromkeys(names)):
        if by_object(part) or not apart:
            found.setdefault(str(part.source), []).append(part)
    return ((SOURCES[name], parts) for name, parts in found.items())


def _with_objects(source: Source, changed: bool) -> Source:
    objects = _OF_SOURCE[source.name]
    where = f"({source.where}) AND ({objects.changed})" if changed and objects.changed != "true" else source.where
    return replace(source, where=where, dimensions={**source.dimensions, _OBJECT: objects.id})


def _whole(part: Metric) -> tuple[Metric, int]:
    """A part with whole numbers, and by what to divide these: a mean over 10 minutes would not be exact."""
    tenth = _TENTH.fullmatch(part.aggregate)
    return (replace(part, aggregate=tenth[1]), int(tenth[2])) if tenth else (part, 1)
