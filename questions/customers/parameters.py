"""Parameters of the questions about customers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from coupon_ledger.questions.parameters import (
    DEFAULT_ZONE,
    Campaign,
    Days,
    Explain,
    GoodsRates,
    Limit,
    OfPast,
    Since,
    Until,
    Zone,
)

AHEAD_DAYS = 90


@dataclass(frozen=True, kw_only=True)
class Customers(OfPast):
    rule: Annotated[str | None, "An SQL condition on the columns of the answer."] = None
    ahead_days: Annotated[Days, "How many days the projection covers."] = AHEAD_DAYS
    limit: Limit = None


@dataclass(frozen=True, kw_only=True)
class Segments(OfPast):
    goods_rates: GoodsRates = None


@dataclass(frozen=True, kw_only=True)
class Clusters(OfPast):
    most: Annotated[int, Interval(ge=2, le=20), "The largest number of clusters to try."] = 8


@dataclass(frozen=True, kw_only=True)
class Drivers(OfPast):
    outcome: Annotated[str, "Of what: use or repurchase."] = "use"


@dataclass(frozen=True, kw_only=True)
class Listed(OfPast):
    limit: Limit = None


@dataclass(frozen=True, kw_only=True)
class Cohorts(OfPast):
    with_coupon: Annotated[bool, "By month of the first order with a coupon, instead of the first order."] = False
    zone: Zone = DEFAULT_ZONE


@dataclass(frozen=True, kw_only=True)
class Behaviour(OfPast):
    campaign: Campaign = None
    since: Since = None
    until: Until = None
    explain: Explain = False
    limit: Limit = None
