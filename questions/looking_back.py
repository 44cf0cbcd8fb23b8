"""For each question about the past: stand in the tables that it reads, before it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, ORDER, USER
from coupon_ledger.projections.connection import sql
from coupon_ledger.projections.coupon_sales import COUPON_SALES
from coupon_ledger.projections.event_counts import EVENT_COUNTS
from coupon_ledger.projections.live.signature import key_hash, stable_hash
from coupon_ledger.projections.past import Past
from coupon_ledger.questions.states import states as questions


def coupons(past: Past, given: Mapping[str, Any]) -> None:
    code, owner, campaign = (_one(given.get(name)) for name in ("code", "owner", "campaign"))
    past.stand_in(COUPON, code=code, user_id=owner, campaign_id=campaign)


def user(past: Past, given: Mapping[str, Any]) -> None:
    past.stand_in(USER)
    _, ids = questions.ids_of(past.reading, given["user"])
    past.stand_in(COUPON, user_id=ids)


def person(past: Past, given: Mapping[str, Any]) -> None:
    """Everything: whether a person exceeded limits depends on all coupons of the campaigns."""
    everything(past, given)


def order(past: Past, given: Mapping[str, Any]) -> None:
    order = given["order"]
    past.stand_in(ORDER, key_hash=[key_hash(order)])
    past.stand_in(CAMPAIGN)
    asked = "SELECT unnest(coupon_ids) AS coupon_id FROM orders WHERE order_id = $order"
    named = stable_hash(past.reading.frame(asked, {"order": order})["coupon_id"])
    past.make("order_asked", sql(__package__, "order_campaigns"), order=order, named=named.tolist())
    past.stand_in(COUPON, among="order_asked")
    past.stand_in_across()


def everything(past: Past, _: Mapping[str, Any]) -> None:
    for topic in INPUT_TOPICS:
        past.stand_in(topic)
    past.stand_in_across()


def metrics(past: Past, _: Mapping[str, Any]) -> None:
    for topic in INPUT_TOPICS:
        past.stand_in(topic)
    EVENT_COUNTS.stand_in(past)
    COUPON_SALES.stand_in(past)


def users(past: Past, _: Mapping[str, Any]) -> None:
    past.stand_in(USER)


def expiries(past: Past, given: Mapping[str, Any]) -> None:
    past.stand_in(COUPON, campaign_id=_one(given.get("campaign")))


def campaigns(past: Past, _: Mapping[str, Any]) -> None:
    """All but the rules between coupons and orders, which depend on everything."""
    past.stand_in(COUPON)
    past.stand_in(ORDER)
    past.stand_in(CAMPAIGN)
    past.stand_in_within_campaigns()
    COUPON_SALES.stand_in(past)


def campaign(past: Past, given: Mapping[str, Any]) -> None:
    past.stand_in(COUPON, campaign_id=[given["campaign"]])
    past.stand_in(ORDER)
    past.stand_in(CAMPAIGN, key_hash=[key_hash(given["campaign"])])
    past.stand_in_within_campaigns()
    COUPON_SALES.stand_in(past)


def violations(past: Past, given: Mapping[str, Any]) -> None:
    """All topics, unless only one coupon's own rules are asked for: the rules across coupons and between topics depend
    on everything."""
    coupon, scope = given.get("coupon"), given.get("scope")
    if scope == "coupon" and coupon is not None:
        past.stand_in(COUPON, key_hash=[key_hash(coupon)])
        return
    for topic in INPUT_TOPICS:
        past.stand_in(topic)
    if scope != "coupon":
        past.stand_in_across()


def campaign_violations(past: Past, given: Mapping[str, Any]) -> None:
    violations(past, given)
    COUPON_SALES.stand_in(past)


def experiment(past: Past, given: Mapping[str, Any]) -> None:
    past.stand_in(COUPON, campaign_id=_one(given.get("campaign")))
    for topic in (ORDER, CAMPAIGN, USER):
        past.stand_in(topic)


def _one(value: str | None) -> list[str] | None:
    return None if value is None else [value]
