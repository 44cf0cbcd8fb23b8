"""The effect of compensating events on coupons. The reference fold folds the history of each coupon with and without
these events.

Nothing is written. `questions.states.across` shows the effect on the rules across coupons and between topics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from coupon_ledger.ledger.codec import micros
from coupon_ledger.ledger.lifecycle import Coupon, Delivery, Folded, fold
from coupon_ledger.projections.live.journal import POSITION

Event = Mapping[str, Any]
"""An event's fields by their wire names; instants are naive UTC."""

_USABLE: Final = ("issued", "claimed", "reserved")
_LATER: Final = 2**62


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of a correction on one coupon. Amounts are in minor units of `currency`.

    `before`, `after`: the state of the coupon without and with the correction. `discount_…`: the discount of the
    coupon's use. `face_value_…`: the value still promised to the holder. It is 0 unless the coupon is issued, claimed
    or reserved, and None if unknown. `events`: how many events of the correction are new to the coupon. `known`: how
    many the coupon already has. `violations`, `healed`: the violations that would appear and disappear, each as
    `<event_id> <violation>`.
    """

    coupon_id: str
    campaign_id: str | None
    currency: str | None
    before: str | None
    after: str
    discount_before_minor: int
    discount_after_minor: int
    face_value_before_minor: int | None
    face_value_after_minor: int | None
    events: int
    known: int
    violations: tuple[str, ...]
    healed: tuple[str, ...]


def effect(
    coupon_id: str, history: Iterable[dict[str, Any]], events: Sequence[Event]
) -> tuple[Effect, dict[str, Any] | None]:
    """The effect of `events` on a coupon, and the coupon as it would be (None if no event is new). The latter has the
    fields of `Become`. `history`: the coupon's rows from the journal and from the conflicts."""
    deliveries = [_delivery(dict(row)) for row in history]
    known = {d.event["event_id"] for d in deliveries}
    fresh = [event for event in events if event["event_id"] not in known]
    # Positioned after everything in the log, as if appended.
    added = [Delivery(event, _LATER, 0, n) for n, event in enumerate(fresh)]
    before = fold(deliveries) if deliveries else None
    after = fold([*deliveries, *added])
    was = before.coupon if before else Coupon(coupon_id)
    violated, had = _violations(after), _violations(before) if before else Counter()
    difference = Effect(
        coupon_id,
        after.coupon.campaign_id,
        after.coupon.currency,
        was.state if before else None,
        after.coupon.state,
        was.discount_minor or 0,
        after.coupon.discount_minor or 0,
        _promised(was),
        _promised(after.coupon),
        len(fresh),
        len(events) - len(fresh),
        tuple(sorted((violated - had).elements())),
        tuple(sorted((had - violated).elements())),
    )
    uses = [(event["event_id"], event["order_id"]) for event in fresh if event["type"] == "used"]
    return difference, {**asdict(after.coupon), "uses": uses} if fresh else None


def _delivery(row: dict[str, Any]) -> Delivery:
    recorded_at, partition, offset = (row.pop(name) for name in POSITION)
    return Delivery(row, micros(recorded_at.replace(tzinfo=UTC)), partition, offset)


def naive(event: Event) -> dict[str, Any]:
    """The event in the form in which the journal stores it, with instants as naive UTC."""
    return {
        name: value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value
        for name, value in event.items()
    }


def _violations(folded: Folded) -> Counter[str]:
    return Counter(f"{v.event_id} {v.violation}" for v in folded.violations)


def _promised(coupon: Coupon) -> int | None:
    return coupon.face_value_minor if coupon.state in _USABLE else 0


def totals(effects: Iterable[Effect], *, by_campaign: bool = True) -> list[dict[str, Any]]:
    """Sums of the effects: one row per currency, or per campaign and currency if `by_campaign`. Each row also has the
    number of coupons. An amount is None if all its parts are unknown."""
    names = ("campaign_id", "currency") if by_campaign else ("currency",)
    amounts = [name for name in Effect.__slots__ if name.endswith("_minor")]
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in effects:
        of = {name: getattr(one, name) for name in names}
        empty = {"coupons": 0, "events": 0, **dict.fromkeys(amounts), "violations": 0, "healed": 0}
        row = groups.setdefault(tuple(value or "" for value in of.values()), of | empty)
        row["coupons"] += 1
        row["events"] += one.events
        row["violations"] += len(one.violations)
        row["healed"] += len(one.healed)
        for name in amounts:
            if (value := getattr(one, name)) is not None:
                row[name] = (row[name] or 0) + value
    return [groups[key] for key in sorted(groups)]
