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
    """Which orders count for the effect of a campaign."""

    campaign: Annotated[str, "The campaign's id."]
    goods_rates: GoodsRates = None
    currency: Annotated[str | None, "Which one, where people buy in several: they are never added up."] = None
    start: Annotated[Instant | None, "When it begins, where the campaign does not say."] = None
    expiry: Annotated[Instant | None, "When its coupons expire, where the campaign does not say."] = None
    after_days: Annotated[
        int,
        Bounds(0, CENTURY_DAYS),
        "Days past expiry that count, for sales that were only pulled forward.",
    ] = AFTER_DAYS


class ExperimentPeople(EffectWindow):
    control_arm: Annotated[str, "The arm that got nothing."] = CONTROL


class Experiment(ExperimentPeople):
    shares: Annotated[str | None, "With which arms were drawn, where the ledger does not know: control=0.1,a=0.9."] = (
        None
    )
    by: Annotated[str | None, "The effect within each value of this in people's profiles, too."] = None


class Comparison(EffectWindow):
    method: Annotated[str, "matched or historical."] = "matched"


class Plan(OfPast):
    days: Annotated[Days, "How long people are watched."] = 21
    active_days: Annotated[Days, "Who bought lately."] = 90
    until: Annotated[Instant | None, "Past sales until then. By default: the data's clock."] = None
    goods_rates: GoodsRates = None
    currency: Annotated[str | None, "Where past sales are in several."] = None
    people: Annotated[
        Annotated[int, Bounds(1, 10**12)] | None, "How many there are. [default: those who bought lately]"
    ] = None
    control: Annotated[Number, "Its share."] = 0.5
    treatments: Annotated[int, Bounds(1, 1_000), "Beside the control."] = 1
    lift_share: Annotated[Number, "To be seen: a part of the mean (0.05 is 5%)."] = 0.05
    power: Annotated[Number, "The chance to see the lift if it is there."] = 0.8
    alpha: Annotated[Number, "The chance to see one that is not there."] = ALPHA


class Begun(Parameters):
    campaign: Annotated[str, "The campaign's id."]
    until: Annotated[Instant, "When people are to be assigned."]


class Candidates(Parameters):
    campaign: Annotated[str, "The campaign's id."]
    strata: Annotated[Names, "Attributes of profiles; shares hold within each combination of their values."] = ()
