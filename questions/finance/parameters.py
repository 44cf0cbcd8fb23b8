"""Parameters of the questions about money."""

from __future__ import annotations

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


class Period(OfPast):
    since: Since = None
    until: Until = None


class Cash(Period):
    zone: Zone = DEFAULT_ZONE


class Split(Cash):
    by: Annotated[Names, "Parts: kind, campaign, category, coupon-type, channel, store, region, funder, day."] = (
        "kind",
    )
    campaign: Campaign = None
    explain: Explain = False
    limit: Limit = None


class Margin(Cash):
    by: Annotated[Names, "Parts: channel, store, region, day."] = ("channel",)
    goods_rates: GoodsRates = None
    explain: Explain = False
    limit: Limit = None


class Categories(Period):
    goods_rates: GoodsRates = None
    limit: Limit = None


class Losses(OfPast):
    campaign: Campaign = None
    explain: Explain = False
    limit: Limit = None


class Budgets(Losses):
    days: Annotated[Days, "The rate of spending is that of so many last days."] = 7


class Reconciliation(OfPast):
    campaign: Annotated[str | None, "From this campaign's coupons in use to the orders that it is credited with."] = (
        None
    )


class Statement(Period):
    campaign: Campaign = None


class Restated(Parameters):
    known_from: Annotated[Instant | None, "What was known then is held against what is known now."] = None
    campaign: Annotated[str | None, "Only of this campaign, and of the orders on which a coupon of it is in use."] = (
        None
    )
    since: Annotated[Instant | None, "Only what happened from then on."] = None
    until: Annotated[Instant | None, "Only what happened before then."] = None
    goods_rates: GoodsRates = None
