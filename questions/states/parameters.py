"""Parameters of the questions about coupons, orders, campaigns, users and the ledger itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from coupon_ledger.questions.parameters import (
    CENTURY_DAYS,
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


@dataclass(frozen=True, kw_only=True)
class OneCoupon(OfPast):
    coupon: Annotated[str, "The coupon's id."]


@dataclass(frozen=True, kw_only=True)
class CouponHistory(OneCoupon):
    limit: Annotated[Limit, "Only this many of the last events; all, if not given."] = None


@dataclass(frozen=True, kw_only=True)
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


_Ended = Annotated[Annotated[int, Interval(ge=0, le=CENTURY_DAYS)] | None, "Days since the end of the coupon."]


@dataclass(frozen=True, kw_only=True)
class Coupons(CouponFilter):
    ended_since: Annotated[Instant | None, "Only ended from then on."] = None
    ended_until: Annotated[Instant | None, "Only ended before then."] = None
    ended_days: Annotated[_Ended, "Leave out those that ended more days ago than this."] = None
    ordered: Annotated[bool, "Sort by id; without it, many come sooner."] = True
    limit: Limit = None


@dataclass(frozen=True, kw_only=True)
class CouponStates(CouponFilter):
    ended_days: Annotated[_Ended, "Count as `long_ended` those that ended more days ago than this."] = 30


@dataclass(frozen=True, kw_only=True)
class OneUser(OfPast):
    user: Annotated[str, "The user's id, or one that is linked to it."]


@dataclass(frozen=True, kw_only=True)
class OneOrder(OfPast):
    order: Annotated[str, "The order's id."]


@dataclass(frozen=True, kw_only=True)
class OneCampaign(OfPast):
    campaign: Annotated[str, "The campaign's id."]


@dataclass(frozen=True, kw_only=True)
class ViolationFilter(OfPast):
    """A filter that is None matches all."""

    coupon: Annotated[str | None, "Only of this coupon."] = None
    violation: Annotated[str | None, "Only this kind, for example used_when_used."] = None
    scope: Annotated[str | None, "Only of this scope."] = None
    since: Annotated[Instant | None, "Only of events from then on."] = None
    until: Annotated[Instant | None, "Only of events before then."] = None


@dataclass(frozen=True, kw_only=True)
class Violations(ViolationFilter):
    limit: Limit = None


@dataclass(frozen=True, kw_only=True)
class Diff(Parameters):
    from_at: Annotated[Instant | None, "What had happened until then…"] = None
    to_at: Annotated[Instant | None, "…and until then. [default: now]"] = None
    known_from: Annotated[Instant | None, "What was known then…"] = None
    known_to: Annotated[Instant | None, "…and what was known then. [default: now]"] = None
    from_positions: Annotated[str | None, "What the log held before these positions…"] = None
    to_positions: Annotated[str | None, "…and before these. [default: now]"] = None
    campaign: Campaign = None


@dataclass(frozen=True, kw_only=True)
class Due(Parameters):
    until: Annotated[Instant | None, "What is due then. [default: the data's clock]"] = None


@dataclass(frozen=True, kw_only=True)
class Expiries(OfPast):
    by: Annotated[Names, "Parts to count by: reason, campaign, channel."] = ("reason", "campaign", "channel")
    campaign: Campaign = None
    since: Annotated[Instant | None, "Only expired from then on."] = None
    until: Annotated[Instant | None, "Only expired before then."] = None


@dataclass(frozen=True, kw_only=True)
class Expiring(Parameters):
    within_s: Annotated[
        int,
        Interval(ge=0, le=CENTURY_DAYS * 86_400),
        "How long before its end a coupon is listed, by the data's clock, in seconds.",
    ]
    campaign: Campaign = None
    channel: Annotated[str | None, "Only claimed, or granted, on this channel."] = None
    limit: Limit = None


@dataclass(frozen=True, kw_only=True)
class DeadLetters(Parameters):
    """A filter that is None matches all."""

    topic: Annotated[str | None, "Only from this topic."] = None
    partition: Annotated[Partition | None, "Only from this partition."] = None
    offset: Annotated[Offset | None, "Only at this offset."] = None
    reason: Annotated[str | None, "Only for this reason."] = None
    since: Annotated[Instant | None, "Only recorded from then on."] = None
    until: Annotated[Instant | None, "Only recorded before then."] = None
    settled: Annotated[bool, "Include those that were discarded."] = False
    whole: Annotated[bool, "With key and value."] = False
    limit: Limit = None


@dataclass(frozen=True, kw_only=True)
class OneDeadLetter(Parameters):
    topic: Annotated[str, "The topic of the record."]
    partition: Annotated[Partition, "Its partition."]
    offset: Annotated[Offset, "Its offset."]


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class Across(Parameters):
    coupons: Annotated[tuple[Become, ...], "The coupons as they would be."]


@dataclass(frozen=True, kw_only=True)
class DigestBuckets(Parameters):
    table: Annotated[str, "The table."]


@dataclass(frozen=True, kw_only=True)
class DigestRows(DigestBuckets):
    bucket: Annotated[int, Interval(ge=0, le=2**31 - 1), "One of `digest-buckets`."]


@dataclass(frozen=True, kw_only=True)
class Audit(Parameters):
    name: Annotated[str, "The audit's name."]
    limit: Annotated[Limit, "At most this many offenders as examples."] = 10


@dataclass(frozen=True, kw_only=True)
class Evidence(Parameters):
    first: Annotated[Integer, "The first key hash."]
    last: Annotated[Integer, "The last key hash, included."]
    set_aside: Annotated[bool, "With the positions of coupon events among the dead letters."] = False
