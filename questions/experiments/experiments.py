"""Questions about a campaign's effect: experiments with arms, comparisons without arms, and planning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl

from coupon_ledger.analysis import lift, matching, need
from coupon_ledger.analysis.power import Design
from coupon_ledger.ledger.errors import NotThere, TooFew, WrongQuestion
from coupon_ledger.ledger.words import Note, of_error
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.live.signature import key_hash
from coupon_ledger.questions.experiments import facts, result
from coupon_ledger.questions.experiments.facts import Arms, Booked, Campaign, Caveat, Sales, Window, caveat
from coupon_ledger.questions.experiments.parameters import (
    Begun,
    Candidates,
    Comparison,
    EffectWindow,
    Experiment,
    ExperimentPeople,
    Plan,
)
from coupon_ledger.questions.experiments.result import Arm, Row
from coupon_ledger.questions.parameters import OfPast

_FEWEST: Final = 2
"""Fewest people that an arm needs to have a variance."""
_UNEQUAL_BEFORE: Final = 0.01
_SELF_SELECTED: Final = 0.1
_REACHED_MORE: Final = 0.25
"""Largest accepted difference between the two sides in the share of people reached by other campaigns."""
_F, _I, _S = pl.Float64, pl.Int64, pl.String

_ARMS: Final = {
    "arm": _S, "assigned": _I, "people": _I, "planned_share": _F, "share": _F, "got_coupon": _I,
    "face_value_minor": _I, "buyers": _I, "orders": _I, "coupon_orders": _I, "net_minor": _F, "margin_minor": _F,
    "discount_minor": _F, "smallest_lift": _F, "balance_p": _F,
}  # fmt: skip
_EFFECTS: Final = {
    "arm": _S, "metric": _S, "label": _S, "method": _S, "control_mean": _F, "treated_mean": _F, "effect": _F,
    "low": _F, "high": _F, "p": _F, "p_corrected": _F, "correction": _S, "relative_effect": _F, "relative_low": _F,
    "relative_high": _F, "total_effect": _F, "total_low": _F, "total_high": _F, "simultaneous_low": _F,
    "simultaneous_high": _F, "total_simultaneous_low": _F, "total_simultaneous_high": _F, "note": _S,
}  # fmt: skip
_RETURNS: Final = {
    "arm": _S, "incremental_margin_minor": _F, "low_minor": _F, "high_minor": _F, "discount_minor": _F,
    "booked_minor": _F, "cost_minor": _F, "roi": _F, "roi_low": _F, "roi_high": _F,
    "roi_simultaneous_low": _F, "roi_simultaneous_high": _F, "p": _F,
    "p_corrected": _F, "roi_cuped": _F, "roi_cuped_low": _F, "roi_cuped_high": _F, "simple_roi": _F,
    "coupon_margin_minor": _F,
}  # fmt: skip
_PARTS: Final = {
    "arm": _S, "part": _S, "control": _I, "treated": _I, "effect": _F, "low": _F, "high": _F, "p": _F,
    "p_corrected": _F, "correction": _S, "relative_effect": _F,
}  # fmt: skip
_RESPONSE: Final = {
    "metric": _S, "points": pl.List(pl.Struct({"face_value_minor": _F, "mean": _F, "error": _F})), "slope": _F,
    "slope_low": _F, "slope_high": _F, "slope_p": _F, "unfit_p": _F, "bend": _F, "bend_p": _F,
}  # fmt: skip
_BOOKED: Final = {"cost_kind": _S, "amount_minor": _I}
_WARNINGS: Final = {"code": _S, "warning": _S, "note": _S}
"""`note`: the warning as text from `Note.dumps`, so that it can be shown in another language."""


def experiments(reading: Reading, _: OfPast) -> pl.DataFrame:
    """Campaigns with people assigned to arms: one row per campaign, latest first."""
    return reading.frame(sql(__package__, "campaigns_with_arms"))


def experiment(reading: Reading, parameters: Experiment) -> pl.DataFrame:
    """The effect of a campaign with arms: one row, with lists. People count in the arm to which they were assigned,
    whether or not they got a coupon (intent to treat).

    `arms` lists size, sales and discount of each arm. `effects` lists the effect by treatment, metric and method
    (plain, CUPED, winsorised, sequential), with interval and p. `returns` lists the incremental return of each
    treatment, `parts` the effect by value of the profile attribute `by`, `response` the effect by face value, and
    `booked` the booked costs. `srm_p` is the p of a sample ratio mismatch: below 0.001, people are probably missing
    from an arm. `conclusions` states the result in words, `warnings` what limits it. `over` is false until all orders
    of the window are known.

    Raises `NotThere`, `WrongQuestion`.
    """
    need("experiments", "scipy")
    campaign, by = parameters.campaign, parameters.by
    of, window, arms, sold = _facts(reading, parameters, parameters.shares)
    cost = facts.booked(reading, campaign, sold.currency)
    sides = {arm: _arm(arms, sold, arm) for arm in sorted(arms.people["arm"].unique())}
    control = sides.pop(parameters.control_arm)
    treatments = [arm for arm in sides.values() if arm.size >= _FEWEST]
    if control.size < _FEWEST or not treatments:
        raise NotThere(
            Note(
                "campaign {campaign}: {sizes} people count in its arms: too few to tell a spread; {needed:count} are"
                " needed"
                " in each at least",
                {"campaign": campaign, "sizes": _sizes([control, *sides.values()]), "needed": _FEWEST},
            )
        )
    metrics = [m for m in result.METRICS if m != "margin_minor" or sold.cost_known]
    try:
        effects = result.effects(control, treatments, metrics, window.elapsed)
        returns = result.returns(control, treatments, cost.total) if sold.cost_known else []
    except TooFew as error:
        raise NotThere(f"campaign {campaign}: {error}") from error
    srm = facts.sample_ratio(arms)
    balance = result.balance(control, treatments, metrics[0])
    warnings = [
        *arms.warnings,
        *sold.warnings,
        *cost.warnings,
        *facts.more_warnings(reading, of, window, arms, sold),
        *_left_out([arm for arm in sides.values() if arm.size < _FEWEST]),
        *_checks(srm, balance),
    ]
    conclusions = _conclusions(effects, returns, metrics[0], sold.currency)
    parts = {} if by is None else dict(facts.attribute(reading, by).iter_rows())
    curve = result.response(control, treatments, metrics[0])
    rows = _arm_rows(control, treatments, arms, balance, metrics[0])
    return pl.DataFrame(
        {
            **_head(of, window, sold),
            "people": [arms.people.height],
            "srm_p": pl.Series([None if math.isnan(srm) else srm], dtype=_F),
            "conclusions": [[str(sentence) for sentence in conclusions]],
            "conclusion_notes": [[sentence.dumps() for sentence in conclusions]],
            "arms": _listed(rows, _ARMS),
            "effects": _listed(effects, _EFFECTS),
            "returns": _listed(returns, _RETURNS),
            "parts": _listed(result.by_part(control, treatments, parts, metrics[0]) if parts else [], _PARTS),
            "response": _listed([curve] if curve else [], _RESPONSE),
            "booked": _listed([{"cost_kind": k, "amount_minor": v} for k, v in cost.kinds.items()], _BOOKED),
            "warnings": _listed(_warning_rows(warnings), _WARNINGS),
        }
    )


def _facts(
    reading: Reading, parameters: ExperimentPeople, shares: str | None = None, ids: bool = False
) -> tuple[Campaign, Window, Arms, Sales]:
    """The campaign, its window, its arms, and the sales of the people in the arms. `shares`: the planned shares, as
    text. `ids`: whether the sales include the ids of the orders."""
    campaign = parameters.campaign
    of = facts.campaign_of(reading, campaign)
    begun = [at for at in (of.row["published_at"], of.row["first_assigned_at"]) if at is not None]
    window = _window(of, parameters, max(begun, default=None))
    arms = facts.arms_of(reading, of, window, shares, parameters.control_arm)
    spans = {"window": (window.start, window.end), "before": (window.before, window.start)}
    people = arms.people["person"]
    sold = facts.sales(reading, campaign, spans, parameters.goods_rates, parameters.currency, people, ids)
    return of, window, arms, sold


def _window(of: Campaign, parameters: EffectWindow, begins: datetime | None) -> Window:
    return facts.window_of(of, parameters.start, parameters.expiry, parameters.after_days, begins)


def _arm(arms: Arms, sold: Sales, name: str) -> Arm:
    people = arms.people.filter(pl.col("arm") == name)
    window, before = (sold.of(people["person"], span) for span in ("window", "before"))
    return Arm(name, people, window, before)


def _head(of: Campaign, window: Window, sold: Sales) -> dict[str, Any]:
    return {
        "campaign_id": [of.campaign_id],
        "name": pl.Series([of.row["name"]], dtype=_S),
        "currency": pl.Series([sold.currency], dtype=_S),
        "start": [window.start],
        "expiry": [window.expiry],
        "end": [window.end],
        "over": [window.over],
    }


def _arm_rows(control: Arm, treatments: Sequence[Arm], arms: Arms, balance: Sequence[Row], metric: str) -> list[Row]:
    unequal = {row["arm"]: row["p_corrected"] for row in balance}
    return [
        result.arm_row(arm, arms.counts, arms.shares)
        | {
            "smallest_lift": None if arm is control else result.smallest_lift(control, arm, metric, len(treatments)),
            "balance_p": unequal.get(arm.name),
        }
        for arm in (control, *treatments)
    ]


def _left_out(arms: Sequence[Arm]) -> list[Caveat]:
    if not arms:
        return []
    return [
        caveat(
            "arm_too_small",
            "{sizes} people are too few to estimate a variance: the arm is left out",
            sizes=_sizes(arms),
        )
    ]


def _sizes(arms: Sequence[Arm]) -> str:
    return ", ".join(f"{arm.name} {arm.size}" for arm in arms)


def _checks(srm: float, balance: Sequence[Row]) -> list[Caveat]:
    warnings = []
    if srm < lift.SRM_WARNS:
        warnings.append(
            caveat(
                "sample_ratio",
                "the sizes of the arms do not match their shares (p {p:p}): people are missing from"
                " an arm, and no figure can be trusted until the reason is known",
                p=srm,
            )
        )
    for row in balance:
        if row["p_corrected"] is not None and row["p_corrected"] < _UNEQUAL_BEFORE:
            warnings.append(
                caveat(
                    "unequal_before",
                    "{arm:word} and the control already differed before the start (p {p:p}): rely on"
                    " CUPED, and check how the arms were drawn",
                    arm=row["arm"],
                    p=row["p_corrected"],
                )
            )
    return warnings


def _conclusions(effects: Sequence[Row], returns: Sequence[Row], metric: str, currency: str | None) -> list[Note]:
    money = {row["arm"]: row for row in returns}
    main = {(row["arm"], row["method"]): row for row in effects if row["metric"] == metric}
    arms = [arm for arm, method in main if method == "plain"]
    return [
        result.sentence(arm, main[arm, "plain"], main.get((arm, "cuped")), money.get(arm), currency) for arm in arms
    ]


def experiment_people(reading: Reading, parameters: ExperimentPeople) -> pl.DataFrame:
    """The data from which an experiment is computed: one row per person that counts.

    A row has the person's arm, the person's coupons of the campaign, and the person's orders in the window, in the
    currency of the experiment. The columns `before_…` cover the comparison time before the start.

    Raises `NotThere`, `WrongQuestion`.
    """
    need("experiments", "scipy")
    _, _, arms, sold = _facts(reading, parameters, ids=True)
    people = arms.people.select("person", "arm", "assigned_at", "coupons", "face_value_minor")
    shown = ("orders", "net_minor", "margin_minor", "discount_minor", "order_ids")
    window = sold.of(people["person"], "window").select(*shown)
    earlier = pl.col("orders", "net_minor", "margin_minor").name.prefix("before_")
    before = sold.of(people["person"], "before").select(earlier)
    rows = people.hstack(window).hstack(before).sort("arm", "person")
    return rows.with_columns(currency=pl.lit(sold.currency, pl.String))


# --- without arms


_SPANS_BACK: Final = ("window", "recent", "earlier")


def comparison(reading: Reading, parameters: Comparison) -> pl.DataFrame:
    """Estimated effect of a campaign without arms: one row. People who got a coupon are compared with people who did
    not, which is weaker evidence than an experiment.

    `effect` is the effect per person, with `p`. `total_effect` is the effect over all `targeted` people that were
    compared. Both have an interval. `supported` is the part of the targeted people for whom there are similar people
    among the `others`. The columns `placebo_…` are from the same comparison for a time before the campaign, when the
    true effect is zero.

    Raises `NotThere` with the reason if the data do not support a comparison. Raises `WrongQuestion`.
    """
    need("experiments", "scipy")
    campaign, method = parameters.campaign, parameters.method
    if method not in ("matched", "historical"):
        raise WrongQuestion(f"method {method}: is none of matched, historical")
    of = facts.campaign_of(reading, campaign)
    window = _window(of, parameters, of.row["first_given_at"])
    holders = reading.frame(sql(__package__, "holders"), {"campaign": campaign})
    spans = _spans_back(of, window)
    sold = facts.sales(reading, campaign, spans, parameters.goods_rates, parameters.currency)
    metric = "margin_minor" if sold.cost_known else "net_minor"
    known = sold.rows.filter(pl.col("span") != "window")["person"].unique().sort()
    targeted = known.is_in(holders["person"].implode())
    window_period, recent, earlier = (_period(sold, known, span, metric) for span in _SPANS_BACK)
    try:
        judged = matching.judged(method, window_period, recent, earlier, targeted.to_numpy())
    except TooFew as error:
        raise NotThere(_refused(campaign, method, of_error(error))) from error
    if judged.refused:
        raise NotThere(_refused(campaign, method, judged.refused))
    cost = facts.booked(reading, campaign, sold.currency)
    money = _return_without_arms(sold, known.filter(targeted), judged, cost, metric)
    since = {"campaign": campaign, "first": spans["recent"][0], "last": window.end}
    elsewhere = known.is_in(reading.frame(sql(__package__, "other_campaigns"), since)["person"].implode())
    warnings = [
        *sold.warnings,
        *cost.warnings,
        *_weaknesses(of, window, holders, judged, targeted),
        *_other_campaigns(of, elsewhere, targeted),
    ]
    answer = {
        "method": method,
        "evidence": "weaker: nobody was assigned by chance",
        "metric": metric,
        "targeted": judged.compared.targeted,
        "others": judged.compared.others,
        "supported": judged.compared.supported,
        **{name: getattr(judged.compared.effect, part) for name, part in _COMPARED.items()},
        **money,
        **{f"placebo_{name}": getattr(judged.placebo.effect, part) for name, part in _COMPARED.items()},
    }
    conclusion = _weaker_sentence(answer, sold.currency)
    return pl.DataFrame(
        {
            **_head(of, window, sold),
            **{name: [value] for name, value in answer.items()},
            "conclusion": [str(conclusion)],
            "conclusion_note": [conclusion.dumps()],
            "warnings": _listed(_warning_rows(warnings), _WARNINGS),
        },
        schema_overrides=dict.fromkeys(("roi", "roi_low", "roi_high"), _F),
    )


def _refused(campaign: str, method: str, why: Note) -> Note:
    values = {"campaign": campaign, "method": method, "why": why}
    return Note("campaign {campaign}: {method:word} comparison refused: {why}", values)


_COMPARED: Final = {"effect": "value", "low": "low", "high": "high", "p": "p"}


def _spans_back(of: Campaign, window: Window) -> dict[str, tuple[datetime, datetime]]:
    """Start and end of three spans, by name: the window, and two spans of the same length before it. Raises `NotThere`
    if the orders do not go back that far."""
    length = window.end - window.start
    ends = [window.end, window.start, window.start - length, window.start - 2 * length]
    first = of.row["first_order_at"]
    if first is None or first > ends[-1] + length / 10:
        known = "campaign {campaign}: comparison refused: it needs what people bought since {since:instant}, twice the"
        known += " window before the start; the ledger has orders from {first:instant} on"
        none = "campaign {campaign}: comparison refused: it needs what people bought since {since:instant}, twice the"
        none += " window before the start; the ledger has no orders"
        values = {"campaign": of.campaign_id, "since": ends[-1], "first": first}
        raise NotThere(Note(none if first is None else known, values))
    return {span: (ends[i + 1], ends[i]) for i, span in enumerate(_SPANS_BACK)}


def _period(sold: Sales, people: pl.Series, span: str, metric: str) -> matching.Period:
    rows = sold.of(people, span)
    columns = (rows[name].cast(_F).to_numpy() for name in (metric, "net_minor", "orders"))
    return matching.Period(*columns)


def _return_without_arms(sold: Sales, targeted: pl.Series, judged: matching.Judged, cost: Booked, metric: str) -> Row:
    """Total effect, cost and ROI over the targeted people that were compared. The interval of the ROI treats the cost
    as a constant."""
    total = judged.compared.effect.times(judged.compared.targeted)
    part = judged.compared.targeted / len(targeted)
    discount = float(sold.of(targeted, "window")["discount_minor"].sum()) * part
    spent = discount + cost.total
    known = metric == "margin_minor" and spent > 0 and cost.total >= 0
    roi = {
        name: (getattr(total, of) - cost.total) / spent if known else None
        for name, of in (("roi", "value"), ("roi_low", "low"), ("roi_high", "high"))
    }
    totals = {"total_effect": total.value, "total_low": total.low, "total_high": total.high}
    return totals | {"discount_minor": discount, "booked_minor": cost.total, "cost_minor": spent} | roi


def _weaknesses(
    of: Campaign, window: Window, holders: pl.DataFrame, judged: matching.Judged, targeted: pl.Series
) -> list[Caveat]:
    warnings = [
        caveat(
            "not_randomised",
            "nobody was assigned at random: the difference may come from how people were"
            " targeted, which is not on record; assign arms next time (`experiment assign`)",
        )
    ]
    if of.row["first_assigned_at"] is not None:
        warnings.append(caveat("has_arms", "the campaign has arms: `experiment show` is the stronger evidence"))
    if not window.over:
        warnings.append(
            caveat(
                "not_over", "orders are on record until {end:instant} only, before the window is over", end=window.end
            )
        )
    claimed = int(holders["claimed"].sum()) / max(1, int(holders["coupons"].sum()))
    if claimed > _SELF_SELECTED:
        warnings.append(
            caveat(
                "self_selected",
                "{share:percent} of the coupons were claimed, not granted: people who want to buy"
                " claim coupons, so the effect looks larger than it is",
                share=claimed,
            )
        )
    unknown = holders.height - int(targeted.sum())
    if unknown:
        warnings.append(
            caveat(
                "without_history",
                "{n:count} of {all:count} people with a coupon bought nothing in the time before:"
                " they are left out, because no similar people are known",
                n=unknown,
                all=holders.height,
            )
        )
    if abs(judged.placebo.effect.value) > abs(judged.compared.effect.value) / 2:
        warnings.append(
            caveat(
                "placebo_as_large",
                "before the campaign, the same comparison shows a difference more than half as large,"
                " possibly by chance: do not rely on this figure",
            )
        )
    if judged.compared.supported < 1:
        warnings.append(
            caveat(
                "unlike_others",
                "{share:percent} of the targeted people have no similar people among the others: they are left out",
                share=1 - judged.compared.supported,
            )
        )
    return warnings


def _other_campaigns(of: Campaign, elsewhere: pl.Series, targeted: pl.Series) -> list[Caveat]:
    """A caveat if people got coupons of other campaigns. Raises `NotThere` if the share of such people differs much
    between the targeted and the others. `elsewhere`, `targeted`: for each person, whether other campaigns reached the
    person, and whether this one did."""
    sides = [int((elsewhere & side).sum()) / max(1, int(side.sum())) for side in (targeted, ~targeted)]
    template = "{targeted:percent} of the targeted and {others:percent} of the others got coupons of other campaigns"
    reached = Note(template, {"targeted": sides[0], "others": sides[1]})
    if abs(sides[0] - sides[1]) > _REACHED_MORE:
        raise NotThere(
            Note(
                "campaign {campaign}: comparison refused: {reached} at the time, whose effects cannot be told apart"
                " from"
                " this one's; assign arms next time (`experiment assign`)",
                {"campaign": of.campaign_id, "reached": reached},
            )
        )
    return [caveat("other_campaigns", "{reached} at the time", reached=reached)] if any(sides) else []


def _weaker_sentence(answer: Row, currency: str | None) -> Note:
    open_ = answer["p"] is None or answer["p"] >= lift.ALPHA
    known = answer["roi"] is not None
    values = {
        "what": answer["metric"],
        "total": (abs(answer["total_effect"]), currency),
        "low": (answer["total_low"], currency),
        "high": (answer["total_high"], currency),
        "people": answer["targeted"],
        "method": answer["method"],
        "more": Note("more" if answer["effect"] >= 0 else "less", {}),
        "said": Note("cannot be told from no effect" if open_ else "may have come from the campaign", {}),
        "roi": Note(_WEAK_ROI, {name: answer[name] for name in ("roi", "roi_low", "roi_high")}) if known else "",
    }
    return Note(
        "{what:label}, weaker evidence: {total:money} {more} than expected of {people:count} people {said} (95%"
        " interval"
        " {low:money} to {high:money}; {method:word}, placebo passed).{roi} Nobody was assigned by chance.",
        values,
    )


_WEAK_ROI: Final = " ROI {roi:factor} ({roi_low:factor} to {roi_high:factor})."


# --- before


def experiment_plan(reading: Reading, parameters: Plan) -> pl.DataFrame:
    """How many people an experiment of `days` days needs, and which effect it can detect: one row.

    `mean` and `sd` are those of the sales per person in the last `days` days before `until`. They cover everyone who
    had an order in the `active_days` days before these days. `smallest_lift` is the smallest effect per person that
    `people` people can detect. `people_needed` is the number of people needed to detect an effect of `lift_share` times
    the mean. In the columns with `_cuped`, sales before the start are used to reduce the variance.

    Raises `NotThere`, `WrongQuestion`.
    """
    need("experiments", "scipy")
    days, active_days = parameters.days, parameters.active_days
    end = parameters.until or facts.orders_end(*reading.rows(sql(__package__, "orders_end"))[0])
    if end is None:
        raise NotThere("past sales: nothing has been consumed; run `consume`, or give --mean and --sd")
    try:
        first = end - timedelta(days=days)
        before = first - max(timedelta(days=days), facts.LEAST_BEFORE)
        active = min(before, first - timedelta(days=active_days))
    except OverflowError:
        raise WrongQuestion(f"until {end.isoformat()}Z: no such time lies before it; name a later instant") from None
    spans = {"window": (first, end), "before": (before, first), "active": (active, before)}
    sold = facts.sales(reading, "", spans, parameters.goods_rates, parameters.currency)
    metric = "margin_minor" if sold.cost_known else "net_minor"
    active_people = sold.rows.filter(pl.col("span") != "window")["person"].unique().sort()
    if len(active_people) < matching.FEWEST:
        raise NotThere(
            f"past sales: {len(active_people)} people bought in the {active_days} days before {first.isoformat()}Z, and"
            f" {matching.FEWEST} are needed; ask with a larger --active-days, or give --mean and --sd"
        )
    rows = pl.DataFrame({s: sold.of(active_people, s)[metric].cast(_F) for s in ("window", "before")})
    [(mean, sd, r)] = rows.select(
        pl.col("window").mean(), pl.col("window").std().alias("sd"), pl.corr("window", "before").alias("r")
    ).rows()
    design = _design(parameters.control, parameters.treatments, parameters.alpha, parameters.power)
    correlation = 0.0 if r is None or math.isnan(r) else r
    people = parameters.people or len(active_people)
    return planned(design, mean, sd, correlation, people, parameters.lift_share).with_columns(
        metric=pl.lit(metric),
        currency=pl.lit(sold.currency, dtype=_S),
        known_people=pl.lit(len(active_people)),
        warnings=_listed(_warning_rows(sold.warnings), _WARNINGS),
    )


def _design(control: float, treatments: int, alpha: float, power: float) -> Design:
    if not (0 < control < 1 and 0 < alpha < 1 and 0 < power < 1 and treatments >= 1):
        raise WrongQuestion("plan: shares, alpha and power lie between 0 and 1, and there is a treatment at least")
    return Design(control, treatments, alpha, power)


def planned(design: Design, mean: float, sd: float, correlation: float, people: int, lift_share: float) -> pl.DataFrame:
    """One row: the smallest effect per person that `people` people (in all arms together) can detect, and the number of
    people needed to detect an effect of `lift_share` times the mean. Each is computed without and with adjustment for
    sales before the start (CUPED). `mean`, `sd`: of the sales per person. `correlation`: of these with sales before the
    start. Raises `WrongQuestion`."""
    if sd <= 0 or people < 4 or not 0 <= abs(correlation) < 1 or lift_share <= 0:
        raise WrongQuestion("plan: needs a spread above zero, at least four people, and a lift above zero")
    row: Row = {
        "people": people,
        "control_share": design.share,
        "treatments": design.treatments,
        "mean": mean,
        "sd": sd,
        "correlation": correlation,
        "alpha": design.alpha,
        "power": design.power,
        "lift_share": lift_share,
    }
    for name, r in (("", 0.0), ("_cuped", correlation)):
        smallest = design.smallest_lift(sd, people, r)
        row[f"smallest_lift{name}"] = smallest
        row[f"smallest_lift_share{name}"] = smallest / abs(mean) if mean else None
        needed = design.people_needed(sd, lift_share * abs(mean), r) if mean else None
        row[f"people_needed{name}"] = needed
    return pl.DataFrame([row], schema_overrides={"people_needed": _I, "people_needed_cuped": _I})


def begun(reading: Reading, parameters: Begun) -> pl.DataFrame:
    """Signs that a campaign began before `until`: one row per sign, with `what` and `since`. If there is one, `until`
    is too late to assign people. No rows if the campaign had not begun."""
    campaign = parameters.campaign
    row = reading.frame(sql(__package__, "campaign"), {"campaign": campaign, "key_hash": key_hash(campaign)})
    signs = pl.DataFrame({"sign": list(_BEGUN), "what": list(_BEGUN.values())})
    since = row.select(*_BEGUN).unpivot(variable_name="sign", value_name="since").join(signs, on="sign")
    return since.filter(pl.col("since") < parameters.until).select("what", "since").sort("since")


_BEGUN: Final = {
    "claim_from": "its coupons are to be had",
    "first_given_at": "somebody has a coupon of it",
    "first_assigned_at": "others are assigned",
}


def candidates(reading: Reading, parameters: Candidates) -> pl.DataFrame:
    """Everyone who can be assigned to an arm: one row per person that the ledger knows.

    `ids` lists all ids of the person. `stratum` is text that combines the person's values of the profile attributes in
    `strata`. `arm` is the arm of this campaign to which the person is already assigned, or null.

    Raises `WrongQuestion`.
    """
    need("experiments", "scipy")
    campaign = {"campaign": parameters.campaign, "key_hash": key_hash(parameters.campaign)}
    known = reading.frame(sql(__package__, "known_people"), campaign)
    assigned = reading.frame(sql(__package__, "assigned"), campaign).select("person", "arm")
    people = known.join(assigned, on="person", how="left", maintain_order="left")
    names = parameters.strata
    parts = [] if names else [pl.lit("")]
    if "" in names:
        raise WrongQuestion(f"strata {','.join(names)!r}: a name is empty; write names with one comma between two")
    for number, name in enumerate(names):
        values = facts.attribute(reading, name).rename({"value": f"s{number}"})
        people = people.join(values, on="person", how="left", maintain_order="left")
        parts.append(pl.col(f"s{number}").fill_null("–"))
    return people.with_columns(stratum=pl.concat_str(parts, separator=" · ")).select("person", "ids", "stratum", "arm")


# --- shared


def _warning_rows(warnings: Sequence[Caveat]) -> list[Row]:
    return [{"code": w.code, "warning": str(w.note), "note": w.note.dumps()} for w in warnings]


def _listed(rows: Sequence[Row], schema: Mapping[str, Any]) -> pl.Series:
    """A column with a single value: `rows` as a list of structs with the fields of `schema`."""
    chosen = [{name: row.get(name) for name in schema} for row in rows]
    return pl.DataFrame(chosen, schema=schema).select(pl.struct(pl.all()).implode()).to_series()
