"""Parameters of the questions about customers."""

from __future__ import annotations

from typing import Annotated

from coupon_ledger.questions.parameters import (
    DEFAULT_ZONE,
    Bounds,
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


class Customers(OfPast):
    rule: Annotated[str | None, "Only customers that satisfy this SQL condition on the columns of the answer."] = None
    ahead_days: Annotated[Days, "Number of days that the projection covers."] = AHEAD_DAYS
    limit: Limit = None


class Segments(OfPast):
    goods_rates: GoodsRates = None


class Clusters(OfPast):
    most: Annotated[int, Bounds(2, 20), "The largest number of clusters to try."] = 8


class Drivers(OfPast):
    outcome: Annotated[str, "The outcome to explain: use or repurchase."] = "use"


class Listed(OfPast):
    limit: Limit = None


class Cohorts(OfPast):
    with_coupon: Annotated[bool, "Build cohorts by the first order with a coupon instead of the first order."] = False
    zone: Zone = DEFAULT_ZONE


class Behaviour(OfPast):
    campaign: Campaign = None
    since: Since = None
    until: Until = None
    explain: Explain = False
    limit: Limit = None
