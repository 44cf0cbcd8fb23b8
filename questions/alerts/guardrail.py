"""Rules of kind `guardrail`: an experiment that does harm, or whose arms have lost people.

The always-valid interval holds however often it is looked at, so asking every hour raises no more false alarms than
asking once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from coupon_ledger.analysis import lift
from coupon_ledger.ledger.errors import NotThere, WrongQuestion
from coupon_ledger.projections.alerts.offenders import Offender
from coupon_ledger.projections.alerts.rules import Guardrail
from coupon_ledger.projections.connection import Reading
from coupon_ledger.questions.experiments import experiments
from coupon_ledger.questions.experiments.parameters import Experiment
from coupon_ledger.questions.parameters import OfPast

MOST: Final = 50
"""Number of experiments that one evaluation looks at, the latest first."""
_METRICS: Final = {"margin": "margin_minor", "sales": "net_minor", "orders": "orders"}
_MONEY: Final = frozenset({"margin_minor", "net_minor"})


def offenders(reading: Reading, of: Guardrail, clock: datetime) -> list[Offender]:
    """One offender per campaign and arm whose interval of the metric lies below zero, and one per campaign (`arm` is
    empty) whose sample ratio breaks. `clock`: the data's clock (naive UTC).

    Where the cost of goods is unknown, sales count instead of the margin; the details name the metric.

    The value is the upper end of the interval of the effect per person, the threshold 0; of a sample ratio, p and
    0.001. The money at stake is the effect over all people of the arm. The details have `why` (`harm` or
    `sample_ratio`) and the figures. Experiments that cannot be computed yet (too few people, several currencies) are
    passed over.
    """
    campaigns = experiments.experiments(reading, OfPast())["campaign_id"].head(MOST)
    return [one for campaign in campaigns for one in _of_campaign(reading, of, campaign, clock)]


def _of_campaign(reading: Reading, of: Guardrail, campaign: str, clock: datetime) -> Iterator[Offender]:
    try:
        row = experiments.experiment(reading, Experiment(campaign=campaign)).row(0, named=True)
    except (NotThere, WrongQuestion):
        return
    p = row["srm_p"]
    if of.sample_ratio and p is not None and p < lift.SRM_WARNS:
        sizes = {arm["arm"]: arm["people"] for arm in row["arms"]}
        shares = {arm["arm"]: arm["planned_share"] for arm in row["arms"]}
        details = {"why": "sample_ratio", "p": p, "people": sizes, "planned_shares": shares}
        yield Offender({"campaign": campaign, "arm": ""}, p, lift.SRM_WARNS, clock, details=details)
    sequential = [effect for effect in row["effects"] if effect["method"] == "sequential"]
    known = {effect["metric"] for effect in sequential}
    metric = _METRICS[of.metric] if _METRICS[of.metric] in known else "net_minor"
    for effect in sequential:
        if effect["metric"] == metric and _harmful(effect):
            yield _harm(campaign, effect, row["currency"], clock)


def _upper(effect: Mapping[str, Any]) -> float | None:
    """The upper end of the interval; if there are several treatments, of the one that holds for all of them at once."""
    wide = effect["simultaneous_high"]
    upper: float | None = effect["high"] if wide is None else wide
    return upper


def _harmful(effect: Mapping[str, Any]) -> bool:
    upper = _upper(effect)
    return upper is not None and upper < 0


def _harm(campaign: str, effect: Mapping[str, Any], currency: str | None, clock: datetime) -> Offender:
    money = effect["metric"] in _MONEY
    figures = ("metric", "effect", "low", "high", "p", "control_mean", "treated_mean", "total_effect")
    return Offender(
        {"campaign": campaign, "arm": effect["arm"]},
        float(_upper(effect) or 0.0),
        0.0,
        clock,
        money_minor=round(-effect["total_effect"]) if money and effect["total_effect"] is not None else None,
        currency=currency if money else None,
        details={"why": "harm", **{name: effect[name] for name in figures}},
    )
