"""Parameters of the questions about money."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from coupon_ledger.questions.parameters import (
    DEFAULT_ZONE,
    Campaign,
    Days,
    Explain,
    GoodsRates,
    Instant,
    Limit,
    Names,
    OfPast,
    Parameters,
    Since,
    Until,
    Zone,
)


@dataclass(frozen=True, kw_only=True)
class Period(OfPast):
    since: Since = None
    until: Until = None


@dataclass(frozen=True, kw_only=True)
class Cash(Period):
    zone: Zone = DEFAULT_ZONE


@dataclass(frozen=True, kw_only=True)
class Split(Cash):
    by: Annotated[Names, "Parts: kind, campaign, category, coupon-type, channel, store, region, funder, day."] = (
        "kind",
    )
    campaign: Campaign = None
    explain: Explain = False
    limit: Limit = None


@dataclass(frozen=True, kw_only=True)
class Margin(Cash):
    by: Annotated[Names, "Parts: channel, store, region, day."] = ("channel",)
    goods_rates: GoodsRates = None
    explain: Explain = False
    limit: Limit = None


@dataclass(frozen=True, kw_only=True)
class Categories(Period):
    goods_rates: GoodsRates = None
    limit: Limit = None


@dataclass(frozen=True, kw_only=True)
class Losses(OfPast):
    campaign: Campaign = None
    explain: Explain = False
    limit: Limit = None


@dataclass(frozen=True, kw_only=True)
class Budgets(Losses):
    days: Annotated[Days, "The rate of spending is that of so many last days."] = 7


@dataclass(frozen=True, kw_only=True)
class Reconciliation(OfPast):
    campaign: Annotated[str | None, "From this campaign's coupons in use to the orders that it is credited with."] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class Statement(Period):
    campaign: Campaign = None


@dataclass(frozen=True, kw_only=True)
class Restated(Parameters):
    known_from: Annotated[Instant | None, "What was known then, against what is known now."] = None
    campaign: Campaign = None
    since: Since = None
    until: Until = None
    goods_rates: GoodsRates = None
