"""Parameters of the questions about coupons, orders, campaigns, users and the ledger itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from coupon_ledger.questions.parameters import (
    CENTURY_DAYS,
    Bounds,
    Campaign,
    Hint,
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
    limit: Annotated[Limit, "Only the last events, at most this many. [default: all]"] = None


Check = tuple[
    Annotated[str, "coupon"],
    Annotated[str | None, "order"],
    Annotated[str | None, "user"],
    Annotated[Integer | None, "the order's list price, in minor units"],
]


class Usable(Parameters):
    checks: Annotated[
        tuple[Check, ...],
        Hint("are no list of [coupon, order, user, list price]; give null for what is not known"),
        "What to check: lists of coupon, order, user, and list price of the order in minor units. Null for an order,"
        " user or price that is not known; user and price are then those of the order, if the ledger knows it.",
    ]
    when: Annotated[Instant, "When the coupons would be used."]


class CouponFilter(OfPast):
    """Which coupons a question is about. A field that is None does not restrict them."""

    campaign: Campaign = None
    state: Annotated[str | None, "Only coupons in this state."] = None
    owner: Annotated[str | None, "Only coupons of this user id. Linked ids are not included; see `user`."] = None
    coupon_type: Annotated[str | None, "Only coupons of this type."] = None
    channel: Annotated[str | None, "Only coupons issued or claimed on this channel."] = None
    code: Annotated[
        str | None, "Only coupons with this code, which customers enter. Several coupons may share a code."
    ] = None
    since: Annotated[Instant | None, "Only coupons whose last event is at or after this instant."] = None
    until: Annotated[Instant | None, "Only coupons whose last event is before this instant."] = None


_Ended = Annotated[Annotated[int, Bounds(0, CENTURY_DAYS)] | None, "Days since the coupon ended."]


class Coupons(CouponFilter):
    ended_since: Annotated[Instant | None, "Only coupons that ended (expired or revoked) at or after this instant."] = (
        None
    )
    ended_until: Annotated[Instant | None, "Only coupons that ended before this instant."] = None
    ended_days: Annotated[_Ended, "Leave out coupons that ended more than this many days ago."] = None
    ordered: Annotated[bool, "Sort by id. Without it, large results start sooner."] = True
    limit: Limit = None


class CouponStates(CouponFilter):
    ended_days: Annotated[_Ended, "Count coupons that ended more than this many days ago as `long_ended`."] = 30


class OneUser(OfPast):
    user: Annotated[str, "The user's id, or an id linked to it."]


class OneOrder(OfPast):
    order: Annotated[str, "The order's id."]


class OneCampaign(OfPast):
    campaign: Annotated[str, "The campaign's id."]


class ViolationFilter(OfPast):
    """Which violations a question is about. A field that is None does not restrict them."""

    coupon: Annotated[str | None, "Only violations of this coupon."] = None
    violation: Annotated[str | None, "Only violations of this rule, for example used_when_used."] = None
    scope: Annotated[
        str | None,
        "Only rules of one coupon's lifecycle (coupon), or only rules across coupons, campaigns and orders (cross).",
    ] = None
    since: Annotated[Instant | None, "Only violations of events at or after this instant."] = None
    until: Annotated[Instant | None, "Only violations of events before this instant."] = None


class Violations(ViolationFilter):
    limit: Limit = None


class Diff(Parameters):
    from_at: Annotated[Instant | None, "First point: only events that happened up to this instant."] = None
    to_at: Annotated[Instant | None, "Second point: only events that happened up to this instant. [default: now]"] = (
        None
    )
    known_from: Annotated[Instant | None, "First point: only events that were recorded up to this instant."] = None
    known_to: Annotated[
        Instant | None, "Second point: only events that were recorded up to this instant. [default: now]"
    ] = None
    from_positions: Annotated[str | None, "First point: only records before these log positions."] = None
    to_positions: Annotated[
        str | None, "Second point: only records before these log positions. [default: all records]"
    ] = None
    campaign: Campaign = None


class Due(Parameters):
    until: Annotated[Instant | None, "List what is due at this instant. [default: the data's clock]"] = None


class Expiries(OfPast):
    by: Annotated[Names, "Columns to group by: any of reason, campaign, channel."] = (
        "reason",
        "campaign",
        "channel",
    )
    campaign: Campaign = None
    since: Annotated[Instant | None, "Only coupons that expired at or after this instant."] = None
    until: Annotated[Instant | None, "Only coupons that expired before this instant."] = None


class Expiring(Parameters):
    within_s: Annotated[
        int,
        Bounds(0, CENTURY_DAYS * 86_400),
        "List coupons that end at most this many seconds after the data's clock.",
    ]
    campaign: Campaign = None
    channel: Annotated[str | None, "Only coupons claimed (or granted) on this channel."] = None
    limit: Limit = None


class DeadLetters(Parameters):
    """Which dead letters a question is about. A field that is None does not restrict them."""

    topic: Annotated[str | None, "Only records of this topic."] = None
    partition: Annotated[Partition | None, "Only records of this partition."] = None
    offset: Annotated[Offset | None, "Only records at this offset."] = None
    reason: Annotated[str | None, "Only dead letters with this reason, for example unknown_schema."] = None
    since: Annotated[Instant | None, "Only records that the log took at or after this instant."] = None
    until: Annotated[Instant | None, "Only records that the log took before this instant."] = None
    settled: Annotated[bool, "Include dead letters that were discarded."] = False
    whole: Annotated[bool, "Include the record's key and value."] = False
    limit: Limit = None


class OneDeadLetter(Parameters):
    topic: Annotated[str, "The record's topic."]
    partition: Annotated[Partition, "The record's partition."]
    offset: Annotated[Offset, "The record's offset."]


class Histories(Parameters):
    coupons: Annotated[Names, "Ids of the coupons."]


@dataclass(frozen=True, kw_only=True)
class Become:
    """The row of a coupon as it would be after a change. `uses`: event id and order id of each new `used` event."""

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
    table: Annotated[str, "Name of the table."]


class DigestRows(DigestBuckets):
    bucket: Annotated[int, Bounds(0, 2**31 - 1), "Number of the bucket, from `digest-buckets`."]


class Audit(Parameters):
    name: Annotated[str, "The audit's name."]
    limit: Annotated[Limit, "Show at most this many offenders as examples."] = 10


class Evidence(Parameters):
    first: Annotated[Integer, "The first key hash."]
    last: Annotated[Integer, "The last key hash (included)."]
    set_aside: Annotated[bool, "Include the positions of valid coupon events among the dead letters."] = False
