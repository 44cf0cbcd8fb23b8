"""For each question about the past, a function that makes past tables stand in for the live tables that the question
reads. `registry.QUESTIONS` says which function belongs to which question."""

from __future__ import annotations

from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, ORDER, USER
from coupon_ledger.projections.alerts.table import ALERTS
from coupon_ledger.projections.attribution.upkeep import PATHS
from coupon_ledger.projections.connection import live_schema, sql
from coupon_ledger.projections.coupon_sales import COUPON_SALES
from coupon_ledger.projections.event_counts import EVENT_COUNTS
from coupon_ledger.projections.live.journal import JOURNAL
from coupon_ledger.projections.live.signature import key_hash, stable_hash
from coupon_ledger.projections.past import Past
from coupon_ledger.questions.alerts.alerts import coupons_behind
from coupon_ledger.questions.alerts.parameters import OneAlert
from coupon_ledger.questions.experiments.parameters import EffectWindow
from coupon_ledger.questions.parameters import Parameters
from coupon_ledger.questions.states.parameters import (
    CouponFilter,
    Expiries,
    OneCampaign,
    OneOrder,
    OneUser,
    ViolationFilter,
)
from coupon_ledger.questions.states.states import ids_of


def coupons(past: Past, parameters: CouponFilter) -> None:
    code, owner, campaign = (_one(value) for value in (parameters.code, parameters.owner, parameters.campaign))
    past.stand_in(COUPON, code=code, user_id=owner, campaign_id=campaign)


def user(past: Past, parameters: OneUser) -> None:
    past.stand_in(USER)
    _, ids = ids_of(past.reading, parameters.user)
    past.stand_in(COUPON, user_id=ids)


def person(past: Past, parameters: OneUser) -> None:
    """Make all past tables stand in: whether a person exceeded a limit depends on all coupons of the campaigns."""
    everything(past, parameters)


def order(past: Past, parameters: OneOrder) -> None:
    order = parameters.order
    past.stand_in(ORDER, key_hash=[key_hash(order)])
    past.stand_in(CAMPAIGN)
    coupons_of_order = "SELECT unnest(coupon_ids) AS coupon_id FROM orders WHERE order_id = $order"
    named = stable_hash(past.reading.frame(coupons_of_order, {"order": order})["coupon_id"])
    past.make("order_coupons", sql(__package__, "order_campaigns"), order=order, named=named.tolist())
    past.stand_in(COUPON, among="order_coupons")
    past.stand_in_across()


def everything(past: Past, _: Parameters) -> None:
    for topic in INPUT_TOPICS:
        past.stand_in(topic)
    past.stand_in_across()


def metrics(past: Past, _: Parameters) -> None:
    for topic in INPUT_TOPICS:
        past.stand_in(topic)
    EVENT_COUNTS.stand_in(past)
    COUPON_SALES.stand_in(past)


def attribution(past: Past, _: Parameters) -> None:
    for topic in (COUPON, ORDER, USER):
        past.stand_in(topic)
    PATHS.stand_in(past)


def users(past: Past, _: Parameters) -> None:
    past.stand_in(USER)


def expiries(past: Past, parameters: Expiries) -> None:
    past.stand_in(COUPON, campaign_id=_one(parameters.campaign))


def campaigns(past: Past, _: Parameters) -> None:
    """Make the past tables stand in, without the violations between coupons and orders: computing these would need all
    topics."""
    past.stand_in(COUPON)
    past.stand_in(ORDER)
    past.stand_in(CAMPAIGN)
    past.stand_in_within_campaigns()
    COUPON_SALES.stand_in(past)


def campaign(past: Past, parameters: OneCampaign) -> None:
    past.stand_in(COUPON, campaign_id=[parameters.campaign])
    past.stand_in(ORDER)
    past.stand_in(CAMPAIGN, key_hash=[key_hash(parameters.campaign)])
    past.stand_in_within_campaigns()
    COUPON_SALES.stand_in(past)


def violations(past: Past, parameters: ViolationFilter) -> None:
    """Make the past tables of all topics stand in, because the rules across coupons and between topics depend on all of
    them. If the question is only about the lifecycle rules of one coupon, make only the past of this coupon stand
    in."""
    coupon, scope = parameters.coupon, parameters.scope
    if scope == "coupon" and coupon is not None:
        past.stand_in(COUPON, key_hash=[key_hash(coupon)])
        return
    for topic in INPUT_TOPICS:
        past.stand_in(topic)
    if scope != "coupon":
        past.stand_in_across()


def campaign_violations(past: Past, parameters: OneCampaign) -> None:
    everything(past, parameters)
    COUPON_SALES.stand_in(past)


def alerts(past: Past, _: Parameters) -> None:
    """Make the past lives of alerts stand in. For positions, these are the events that were recorded by the time at
    which the last record before the positions was."""
    ALERTS.stand_in(past)
    at, known_at, positions = past.cut.at, past.cut.known_at, past.cut.positions
    bounds = {"occurred_at": at, "recorded_at": known_at}
    within = [f"{name} <= TIMESTAMP '{until}'" for name, until in bounds.items() if until is not None]
    if positions is not None:
        journals = " UNION ALL ".join(
            f"SELECT max(recorded_at) AS latest FROM {JOURNAL[topic]}" for topic in INPUT_TOPICS
        )
        within.append(f"recorded_at <= (SELECT max(latest) FROM ({journals}))")
    past.show("alert_events", f"SELECT * FROM {live_schema(past.reading)}.alert_events WHERE {' AND '.join(within)}")


def alert(past: Past, parameters: OneAlert) -> None:
    alerts(past, parameters)
    hashes = coupons_behind(past.reading, parameters)
    if hashes is None:
        everything(past, parameters)
    else:
        past.stand_in(COUPON, key_hash=hashes)
        past.stand_in(ORDER)


def experiment(past: Past, parameters: EffectWindow) -> None:
    _people_and_sales(past, parameters.campaign)


def experiments(past: Past, _: Parameters) -> None:
    _people_and_sales(past, None)


def _people_and_sales(past: Past, campaign: str | None) -> None:
    past.stand_in(COUPON, campaign_id=_one(campaign))
    for topic in (ORDER, CAMPAIGN, USER):
        past.stand_in(topic)


def _one(value: str | None) -> list[str] | None:
    return None if value is None else [value]
