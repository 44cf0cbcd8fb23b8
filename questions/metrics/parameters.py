"""Parameters of the questions about metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, ClassVar, Final

from coupon_ledger.questions.parameters import (
    DEFAULT_ZONE,
    MOST_ROWS,
    Bounds,
    GoodsRates,
    Hint,
    Names,
    OfPast,
    Since,
    Until,
    Zone,
)

RATES_HINT: Final = (
    "each is a currency, a rate above 0 and the currency that it leads to; write"
    ' [{"currency": "USD", "rate": 7.1, "to": "CNY"}]'
)


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A conversion rate. `rate`: the price in `to` of one unit (not minor unit) of `currency`."""

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "ignore"}

    currency: str
    rate: Decimal
    to: str


class MetricSlice(OfPast):
    names: Annotated[Names, "Names of metrics."]
    by: Annotated[Names, "Dimensions to group by: one row for each combination of their values."] = ()
    grain: Annotated[str | None, "One row for each minute, hour, day, week or month."] = None
    where: Annotated[
        Mapping[str, tuple[str, ...]] | None,
        Hint('is no JSON object of lists; write it as {"campaign": ["8"]}'),
        "Only rows with these values, by dimension. An empty value stands for unknown.",
    ] = None
    since: Since = None
    until: Until = None
    zone: Zone = DEFAULT_ZONE
    goods_rates: GoodsRates = None


class Metrics(MetricSlice):
    compare: Annotated[
        str | None,
        "Compare with the preceding period (previous), the same period of last year (last-year), or targets (target).",
    ] = None
    rates: Annotated[
        tuple[Rate, ...] | None,
        Hint(RATES_HINT),
        "Convert all amounts to one currency with these rates. Without rates, each currency has its own rows.",
    ] = None


class MetricExplained(MetricSlice):
    limit: Annotated[int, Bounds(0, MOST_ROWS), "Show at most this many rows behind each part of a metric."] = 20
