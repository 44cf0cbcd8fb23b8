"""Parameters of the questions about coupons, orders, campaigns, users and the ledger itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from coupon_ledger.questions.parameters import (
    CENTURY_DAYS,
    Bounds,
    Campaign,
    Instant,
    Integer,
    Limit,
    Names,
    Offset,
    OfPast,
    Parameters,
    Partition,
)


class OneCoupon(OfPast):
    coupon: Annotated[str, "The coupon's id."]


class CouponHistory(OneCoupon):
    limit: Annotated[Limit, "Only this many of the last events; all, if not given."] = None


class CouponFilter(OfPast):
    """A filter that is None matches all."""

    campaign: Campaign = None
    state: Annotated[str | None, "Only in this state."] = None
    owner: Annotated[str | None, "Only of this user (as written; `user` knows linked ids)."] = None
    coupon_type: Annotated[str | None, "Only of this type."] = None
    channel: Annotated[str | None, "Only issued or claimed on this channel."] = None
    code: Annotated[str | None, "Only with this code, as a person types it; several coupons may share one."] = None
    since: Annotated[Instant | None, "Only with a last event from then on."] = None
    until: Annotated[Instant | None, "Only with a last event before then."] = None


_Ended = Annotated[Annotated[int, Bounds(0, CENTURY_DAYS)] | None, "Days since the end of the coupon."]


class Coupons(CouponFilter):
    ended_since: Annotated[Instant | None, "Only ended from then on."] = None
    ended_until: Annotated[Instant | None, "Only ended before then."] = None
    ended_days: Annotated[_Ended, "Leave out those that ended more days ago than this."] = None
    ordered: Annotated[bool, "Sort by id; without it, many come sooner."] = True
    limit: Limit = None


class CouponStates(CouponFilter):
    ended_days: Annotated[_Ended, "Count as `long_ended` those that ended more days ago than this."] = 30


class OneUser(OfPast):
    user: Annotated[str, "The user's id, or one that is linked to it."]


class OneOrder(OfPast):
    order: Annotated[str, "The order's id."]


class OneCampaign(OfPast):
    campaign: Annotated[str, "The campaign's id."]


class ViolationFilter(OfPast):
    """A filter that is None matches all."""

    coupon: Annotated[str | None, "Only of this coupon."] = None
    violation: Annotated[str | None, "Only this rule, for example used_when_used."] = None
    scope: Annotated[
        str | None, "Only rules of one coupon's life (coupon), or those across coupons, campaigns and orders (cross)."
    ] = None
    since: Annotated[Instant | None, "Only of events from then on."] = None
    until: Annotated[Instant | None, "Only of events before then."] = None


class Violations(ViolationFilter):
    limit: Limit = None


class Diff(Parameters):
    from_at: Annotated[Instant | None, "From what had happened until then."] = None
    to_at: Annotated[Instant | None, "To what had happened until then; now unless given."] = None
    known_from: Annotated[Instant | None, "From what was recorded until then."] = None
    known_to: Annotated[Instant | None, "To what was recorded until then; now unless given."] = None
    from_positions: Annotated[str | None, "From what the log held before."] = None
    to_positions: Annotated[str | None, "To what the log held before; all unless given."] = None
    campaign: Campaign = None


class Due(Parameters):
    until: Annotated[Instant | None, "What is due then. [default: the data's clock]"] = None


class Expiries(OfPast):
    by: Annotated[Names, "What to count by: one or several of reason, campaign, channel."] = (
        "reason",
        "campaign",
        "channel",
    )
    campaign: Campaign = None
    since: Annotated[Instant | None, "Only of coupons that expired from then on."] = None
    until: Annotated[Instant | None, "Only of coupons that expired before then."] = None


class Expiring(Parameters):
    within_s: Annotated[
        int,
        Bounds(0, CENTURY_DAYS * 86_400),
        "How long before its end a coupon is listed, by the data's clock, in seconds.",
    ]
    campaign: Campaign = None
    channel: Annotated[str | None, "Only claimed, or granted, on this channel."] = None
    limit: Limit = None


class DeadLetters(Parameters):
    """A filter that is None matches all."""

    topic: Annotated[str | None, "Only of this topic."] = None
    partition: Annotated[Partition | None, "Only of this partition."] = None
    offset: Annotated[Offset | None, "Only at this offset."] = None
    reason: Annotated[str | None, "Only with this reason, for example unknown_schema."] = None
    since: Annotated[Instant | None, "Only those recorded from then on."] = None
    until: Annotated[Instant | None, "Only those recorded before then."] = None
    settled: Annotated[bool, "Those that were discarded, too."] = False
    whole: Annotated[bool, "With key and value."] = False
    limit: Limit = None


class OneDeadLetter(Parameters):
    topic: Annotated[str, "The topic of the record."]
    partition: Annotated[Partition, "Its partition."]
    offset: Annotated[Offset, "Its offset."]


class Histories(Parameters):
    coupons: Annotated[Names, "Ids of coupons."]


@dataclass(frozen=True, kw_only=True)
class Become:
    """A coupon's row as it would be. `uses`: event id and order id of each of its new `used` events."""

    coupon_id: str
    state: str
    campaign_id: str | None
    acquired_at: Instant | None
    acquired_event_id: str | None
    acquired_by: str | None
    order_id: str | None
    used_at: Instant | None
    used_event_id: str | None
    discount_minor: Integer | None
    min_spend_minor: Integer | None
    coupon_type: str | None
    face_value_minor: Integer | None
    percent_off_bp: Integer | None
    uses: tuple[tuple[str, str], ...]


class Across(Parameters):
    coupons: Annotated[tuple[Become, ...], "The coupons as they would be."]


class DigestBuckets(Parameters):
    table: Annotated[str, "The table."]


class DigestRows(DigestBuckets):
    bucket: Annotated[int, Bounds(0, 2**31 - 1), "One of `digest-buckets`."]


class Audit(Parameters):
    name: Annotated[str, "The audit's name."]
    limit: Annotated[Limit, "At most this many offenders as examples."] = 10


class Evidence(Parameters):
    first: Annotated[Integer, "The first key hash."]
    last: Annotated[Integer, "The last key hash, included."]
    set_aside: Annotated[bool, "With the positions of coupon events among the dead letters."] = False
