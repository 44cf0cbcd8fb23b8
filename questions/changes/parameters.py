"""Parameters of the question why a number changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from coupon_ledger.questions.parameters import (
    DEFAULT_ZONE,
    MOST_ROWS,
    Bounds,
    GoodsRates,
    Hint,
    Instant,
    Names,
    Parameters,
    Since,
    Until,
    Zone,
)


class ChangeExplained(Parameters):
    metric: Annotated[str, "Name of the metric."]
    where: Annotated[
        Mapping[str, tuple[str, ...]] | None,
        Hint('is no JSON object of lists; write it as {"campaign": ["8"]}'),
        "Only rows with these values, by dimension. An empty value stands for unknown.",
    ] = None
    by: Annotated[str | None, "Dimension by which to split every cause."] = None
    since: Since = None
    until: Until = None
    zone: Zone = DEFAULT_ZONE
    known_at_before: Annotated[
        Instant | None, "Earlier state: only events that the log had recorded up to this instant."
    ] = None
    known_at_after: Annotated[
        Instant | None, "Later state: only events that the log had recorded up to this instant. [default: now]"
    ] = None
    at_before: Annotated[Instant | None, "Earlier state: only events that happened up to this instant."] = None
    at_after: Annotated[Instant | None, "Later state: only events that happened up to this instant. [default: now]"] = (
        None
    )
    positions_before: Annotated[str | None, "Earlier state: only records before these log positions."] = None
    positions_after: Annotated[
        str | None, "Later state: only records before these log positions. [default: all records]"
    ] = None
    replayed: Annotated[
        Names,
        "Dead letters that were replayed after the earlier state, which did not have them. Comma-separated"
        " TOPIC:PARTITION:FIRST-LAST (offsets).",
    ] = ()
    compare: Annotated[
        str | None,
        "Compare with an earlier period of the same length instead of an earlier state: that of a day, week, month or"
        " year before.",
    ] = None
    before_since: Annotated[Instant | None, "Start of the earlier period (included)."] = None
    before_until: Annotated[Instant | None, "End of the earlier period (excluded)."] = None
    goods_rates: GoodsRates = None
    goods_rates_before: Annotated[
        Mapping[str, Annotated[int, Bounds(0, 10_000)]] | None,
        Hint('are no JSON object of basis points, 0 to 10000; write {"food": 7000, "": 6000}'),
        "Cost of goods as the earlier number was computed with. [default: goods_rates]",
    ] = None
    explain: Annotated[
        str | None,
        "Instead of the causes, list the coupons, orders or campaigns behind this one. Between two periods: the metric"
        " of a line.",
    ] = None
    limit: Annotated[int, Bounds(0, MOST_ROWS), "List at most this many objects behind a cause."] = 20
