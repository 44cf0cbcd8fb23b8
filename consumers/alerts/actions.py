"""What the action of an alert would do, before it is done.

A plan is made of the database and of what was done before. The events of a plan have ids that follow from the alert and
from what they change, and the instant, operator and reason of the action that they belong to. So an action that was
interrupted can be taken again: what is there already counts once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from coupon_ledger.ledger.errors import CommandRefused
from coupon_ledger.ledger.rules import REVOCABLE
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON
from coupon_ledger.ledger.words import note

if TYPE_CHECKING:
    from coupon_ledger.ledger.alert_events import AlertEvent
    from coupon_ledger.ledger.log import Record

Row = dict[str, Any]
SOURCE: Final = "coupon-ledger alerts"
"""The `source` of events that an action appends."""


@dataclass(frozen=True, slots=True)
class Done:
    """When an action was taken on the alert before, by whom and why."""

    at: datetime
    operator: str
    why: str


@dataclass
class Plan:
    """What an action would append. `topic`, `fresh`: the new events. `again`: events of an earlier action that the
    database has not folded yet. `coupons`: the coupons it would change, as rows of the question `alert`. `effect`: what
    is recorded of it."""

    action: str
    topic: str
    fresh: list[Row] = field(default_factory=list)
    again: list[Row] = field(default_factory=list)
    coupons: list[Row] = field(default_factory=list)
    effect: dict[str, Any] = field(default_factory=dict)


def done_before(recorded: Iterable[AlertEvent], alert_id: str, action: str, campaign: str | None = None) -> list[Done]:
    """When this action was really taken on the alert, the earliest first. `campaign`: only on this campaign."""
    acted = [e for e in recorded if e.type == "acted" and e.alert_id == alert_id and e.action == action]
    real = [e for e in acted if e.details.get("dry") is not True]
    about = [e for e in real if campaign is None or _effect(e).get("campaign") == campaign]
    return [Done(e.data_at or _at(e) or e.occurred_at, e.operator or SOURCE, e.note or "") for e in about]


def _effect(event: AlertEvent) -> Mapping[str, Any]:
    effect = event.details.get("effect")
    return effect if isinstance(effect, dict) else {}


def _at(event: AlertEvent) -> datetime | None:
    at = _effect(event).get("at")
    try:
        return datetime.fromisoformat(at) if isinstance(at, str) else None
    except ValueError:
        return None


def revoking(row: Row, coupons: Sequence[Row], before: Sequence[Done], now: Done) -> Plan:
    """Revoke the coupons behind the alert that can still be used. `coupons`: all of them. `now`: the action that would
    be taken now."""
    plan = Plan("revoke_coupons", COUPON)
    for coupon in coupons:
        if coupon["state"] not in REVOCABLE:
            continue
        earlier = next((done for done in before if _naive(done.at) >= coupon["last_event_at"]), None)
        event = _revoked(row, coupon["coupon_id"], earlier or now)
        (plan.again if earlier else plan.fresh).append(event)
        if earlier is None:
            plan.coupons.append(coupon)
    plan.effect = {
        "coupons": len(plan.fresh),
        "users": len({coupon["owner"] for coupon in plan.coupons if coupon["owner"]}),
        "states": _states(plan.coupons),
        "promised": promised(plan.coupons),
    }
    return plan


def _revoked(row: Row, coupon: str, done: Done) -> Row:
    return {
        "event_id": f"alert:{row['alert_id']}:revoked:{coupon}",
        "type": "revoked",
        "occurred_at": done.at,
        "source": SOURCE,
        "coupon_id": coupon,
        "reason": done.why,
        "attributes": {"alert_id": row["alert_id"], "rule": row["rule"], "operator": done.operator},
    }


def unpublishing(row: Row, campaign: str, known: Row, before: Sequence[Done], now: Done) -> Plan:
    """Unpublish the campaign. `known`: the answer to the question `campaign`."""
    plan = Plan("unpublish_campaign", CAMPAIGN)
    earlier = before[0] if before else None
    event = {
        "event_id": f"alert:{row['alert_id']}:unpublished:{campaign}",
        "type": "unpublished",
        "occurred_at": (earlier or now).at,
        "source": SOURCE,
        "campaign_id": campaign,
    }
    if known["status"] == "published":
        (plan.again if earlier else plan.fresh).append(event)
    names = ("status", "stock_left", "last_hour_claims_per_minute", "budget_minor", "currency")
    plan.effect = {"campaign": campaign, **{name: known[name] for name in names if known[name] is not None}}
    return plan


def as_done(event: Row, done: Done) -> Row:
    """The event of a plan, as it is if it belongs to this action."""
    changed = {**event, "occurred_at": done.at}
    if "reason" in event:
        changed |= {"reason": done.why, "attributes": {**event["attributes"], "operator": done.operator}}
    return changed


def campaign_of(row: Row, coupons: Iterable[Row], named: str | None) -> str:
    """The campaign that the action is about: the one that was named, the one in the alert's key, or the only one of the
    coupons behind it. Raises `CommandRefused` if it is none of these."""
    key = json.loads(row["key"] or "{}") if isinstance(row["key"], str) else row["key"] or {}
    known = named or key.get("campaign") or key.get("campaign_id")
    if known:
        return str(known)
    campaigns = sorted({coupon["campaign_id"] for coupon in coupons if coupon["campaign_id"]})
    if len(campaigns) == 1:
        return str(campaigns[0])
    if not campaigns:
        raise CommandRefused(
            note("alert {alert} is about no campaign; name one with --campaign", alert=row["alert_id"])
        )
    raise CommandRefused(
        note("alert {alert} is about {n:count} campaigns, such as {campaigns}; name one with --campaign",
             alert=row["alert_id"], n=len(campaigns), campaigns=campaigns[:5])
    )  # fmt: skip


def promised(coupons: Iterable[Row]) -> list[Row]:
    """Per currency, the face value that these coupons still promise."""
    sums: dict[str, int] = {}
    for coupon in coupons:
        if coupon["promised_minor"] is not None:
            currency = coupon["currency"] or ""
            sums[currency] = sums.get(currency, 0) + coupon["promised_minor"]
    return [{"currency": currency or None, "promised_minor": minor} for currency, minor in sorted(sums.items())]


def _states(coupons: Iterable[Row]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for coupon in coupons:
        counts[coupon["state"]] = counts.get(coupon["state"], 0) + 1
    return counts


def as_first(plan: Plan, alert_id: str, since: Iterable[AlertEvent]) -> tuple[Done, list[Row]]:
    """The new events of a plan whose action is recorded, and whose action they belong to: if several took it at the
    same moment, all append the events of the one who was recorded first. `since`: the events about the alert since the
    plan was made, in the order of recording."""
    first = done_before(since, alert_id, plan.action, plan.effect.get("campaign"))[0]
    return first, [as_done(event, first) for event in plan.fresh]


def records(plan: Plan, events: Iterable[Row]) -> list[Record]:
    """The records of these events of the plan."""
    from coupon_ledger.ledger.codec import SCHEMA_NAME, encode_row
    from coupon_ledger.ledger.events import canonical_json
    from coupon_ledger.ledger.log import Record
    from coupon_ledger.ledger.topics import KEY_FIELD

    def row_of(event: Mapping[str, Any]) -> Row:
        attributes = event.get("attributes")
        return {**event, **({} if attributes is None else {"attributes": canonical_json(attributes)})}

    key = KEY_FIELD[plan.topic]
    return [Record(plan.topic, e[key].encode(), encode_row(SCHEMA_NAME[plan.topic], row_of(e))) for e in events]


def instant_of_action(now: datetime, clock: datetime | None) -> datetime:
    """When an action of now happens: not before what the ledger knows already, so that it comes after the events that
    it answers. `clock`: the data's clock, aware; None before the first event."""
    return now if clock is None else max(now, clock)


def _naive(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(tzinfo=None)
