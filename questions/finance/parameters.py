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
    by: Annotated[
        Names, "Columns to group by: kind, campaign, category, coupon-type, channel, store, region, funder, day."
    ] = ("kind",)
    campaign: Campaign = None
    explain: Explain = False
    limit: Limit = None


class Margin(Cash):
    by: Annotated[Names, "Columns to group by: channel, store, region, day."] = ("channel",)
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
    days: Annotated[Days, "The spending rate is the mean of this many days before the data's clock."] = 7


class Reconciliation(OfPast):
    campaign: Annotated[
        str | None, "Reconcile this campaign's coupons in use with the orders that it is credited with."
    ] = None


class Statement(Period):
    campaign: Campaign = None


class Restated(Parameters):
    known_from: Annotated[Instant | None, "Compare what was known at this instant with what is known now."] = None
    campaign: Annotated[str | None, "Only this campaign, and the orders on which one of its coupons is in use."] = None
    since: Annotated[Instant | None, "Only events at or after this instant."] = None
    until: Annotated[Instant | None, "Only events before this instant."] = None
    goods_rates: GoodsRates = None
