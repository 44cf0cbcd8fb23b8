"""Parameters of the questions about experiments."""

from __future__ import annotations

from typing import Annotated, Final

from coupon_ledger.questions.parameters import (
    CENTURY_DAYS,
    Bounds,
    Days,
    GoodsRates,
    Instant,
    Names,
    Number,
    OfPast,
    Parameters,
)

AFTER_DAYS: Final = 7
ALPHA: Final = 0.05
CONTROL: Final = "control"


class EffectWindow(OfPast):
    """Parameters that say which campaign is asked about, and which orders count for its effect."""

    campaign: Annotated[str, "The campaign's id."]
    goods_rates: GoodsRates = None
    currency: Annotated[str | None, "The currency, if orders are in several currencies. They are never added up."] = (
        None
    )
    start: Annotated[Instant | None, "When the campaign begins. [default: taken from its events]"] = None
    expiry: Annotated[Instant | None, "When its coupons expire. [default: taken from its events]"] = None
    after_days: Annotated[
        int,
        Bounds(0, CENTURY_DAYS),
        "Orders count until this many days after expiry, to include the drop in sales if people only bought earlier.",
    ] = AFTER_DAYS


class ExperimentPeople(EffectWindow):
    control_arm: Annotated[str, "The arm that gets no coupon."] = CONTROL


class Experiment(ExperimentPeople):
    shares: Annotated[
        str | None, "Planned shares of the arms, if the ledger does not know them, such as control=0.1,a=0.9."
    ] = None
    by: Annotated[str | None, "Also compute the effect within each value of this profile attribute."] = None


class Comparison(EffectWindow):
    method: Annotated[
        str, "matched (people with similar purchases before) or historical (difference in differences)."
    ] = "matched"


class Plan(OfPast):
    days: Annotated[Days, "Length of the experiment: orders of this many days count."] = 21
    active_days: Annotated[Days, "People count as active if they bought within this many days before."] = 90
    until: Annotated[Instant | None, "Estimate from sales before this instant. [default: the data's clock]"] = None
    goods_rates: GoodsRates = None
    currency: Annotated[str | None, "The currency, if past sales are in several currencies."] = None
    people: Annotated[
        Annotated[int, Bounds(1, 10**12)] | None, "Number of people in the experiment. [default: the active people]"
    ] = None
    control: Annotated[Number, "The control's share of the people."] = 0.5
    treatments: Annotated[int, Bounds(1, 1_000), "Number of treatments besides the control."] = 1
    lift_share: Annotated[Number, "The effect to detect, as a part of the mean (0.05 is 5%)."] = 0.05
    power: Annotated[Number, "Probability of detecting the effect if it exists."] = 0.8
    alpha: Annotated[Number, "Probability of detecting an effect that does not exist."] = ALPHA


class Begun(Parameters):
    campaign: Annotated[str, "The campaign's id."]
    until: Annotated[Instant, "When people will be assigned."]


class Candidates(Parameters):
    campaign: Annotated[str, "The campaign's id."]
    strata: Annotated[
        Names, "Profile attributes. People are split by the shares within each combination of their values."
    ] = ()
