"""The reference fold: computes the row of one coupon from its deliveries, event by event, in plain Python.

This fold is written to be easy to read, not fast. The columnar fold in `projections/live` is checked against it, and
`coupon-ledger history` explains a coupon with it. The two folds share only `lifecycle.toml`.

Always true: the result depends only on the set of deliveries, not on their order. If events with the same `event_id`
differ, the one that was recorded first counts. All times come from the events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

from coupon_ledger.ledger.codec import JSON_FIELDS
from coupon_ledger.ledger.events import canonical_json, parse_json
from coupon_ledger.ledger.rules import GUARDS, STATES, TRANSITIONS, types
from coupon_ledger.ledger.topics import COUPON

Event = Mapping[str, Any]
"""A coupon event by its wire names. Instants are aware datetimes; a field without a value is absent or None."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery of a coupon event: the event, when the log recorded it (`recorded_at`, in µs since the epoch), its
    partition and its offset."""

    event: Event
    recorded_at: int
    partition: int
    offset: int

    @property
    def position(self) -> tuple[int, int, int]:
        return self.recorded_at, self.partition, self.offset


@dataclass(frozen=True, slots=True)
class Violation:
    coupon_id: str
    event_id: str
    violation: str
    state: str | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Coupon:
    """The row of a coupon. docs/events.md explains the fields."""

    coupon_id: str
    state: str = "none"
    resting: str = "none"
    campaign_id: str | None = None
    coupon_type: str | None = None
    face_value_minor: int | None = None
    percent_off_bp: int | None = None
    min_spend_minor: int | None = None
    currency: str | None = None
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    owner: str | None = None
    order_id: str | None = None
    discount_minor: int | None = None
    acquired_at: datetime | None = None
    acquired_event_id: str | None = None
    acquired_by: str | None = None
    used_event_id: str | None = None
    issue_channel: str | None = None
    claim_channel: str | None = None
    reason: str | None = None
    created_at: datetime | None = None
    issued_at: datetime | None = None
    claimed_at: datetime | None = None
    reserved_at: datetime | None = None
    used_at: datetime | None = None
    ended_at: datetime | None = None
    extended_at: datetime | None = None
    last_event_at: datetime | None = None
    events: int = 0
    violations: int = 0


_values: Final = attrgetter(*Coupon.__dataclass_fields__)
_setters: Final = {name: getattr(Coupon, name).__set__ for name in Coupon.__dataclass_fields__}


def replace(coupon: Coupon, **changes: Any) -> Coupon:
    """Returns the coupon with changed fields, as `dataclasses.replace` does, but in half the time. This makes a fold a
    quarter faster."""
    changed = object.__new__(Coupon)
    for put, value in zip(_setters.values(), _values(coupon), strict=True):
        put(changed, value)
    for name, value in changes.items():
        _setters[name](changed, value)
    return changed


FIRST_CARRIED = (
    "campaign_id",
    "coupon_type",
    "face_value_minor",
    "percent_off_bp",
    "min_spend_minor",
    "currency",
    "valid_from",
    "valid_until",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a fold, with what it did. `before`, `after`: the coupon's state before and after the event.
    `violations`: the codes of the rules that the event breaks. `owner`: who owned the coupon before the event."""

    event: Event
    before: str
    after: str
    violations: tuple[str, ...]
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Folded:
    coupon: Coupon
    violations: tuple[Violation, ...]
    steps: tuple[Step, ...]


def fold(deliveries: Iterable[Delivery]) -> Folded:
    """Fold all deliveries of one coupon from the start: the coupon's row, its violations, and the steps in canonical
    order. `deliveries`: at least one."""
    facts, conflicts = distinct(deliveries)
    coupon = Coupon(coupon_id=(facts or conflicts)[0]["coupon_id"])
    steps, violations = [], []
    for event in sorted(facts, key=canonical_order):
        before = coupon
        coupon, codes = evolve(coupon, event)
        steps.append(Step(event, before.state, coupon.state, codes, before.owner))
        violations += [_violation(event, code, before.state) for code in codes]
    violations += [_violation(event, "conflicting_duplicate", None) for event in conflicts]
    coupon = replace(coupon, violations=len(violations))
    return Folded(coupon, tuple(violations), tuple(steps))


def _violation(event: Event, code: str, state: str | None) -> Violation:
    return Violation(event["coupon_id"], event["event_id"], code, state, event["occurred_at"])


def distinct(deliveries: Iterable[Delivery]) -> tuple[list[Event], list[Event]]:
    """Split the deliveries into two lists of events: the facts and the conflicts.

    Deliveries with the same `event_id` may differ in content. The content that was recorded first is the fact; every
    other distinct content is one conflict. Repeats are dropped.
    """
    contents: dict[str, dict[tuple[tuple[str, Any], ...], Event]] = {}
    for delivery in sorted(deliveries, key=lambda d: d.position):
        event = delivery.event
        contents.setdefault(event["event_id"], {}).setdefault(content(event), event)
    facts = [next(iter(c.values())) for c in contents.values()]
    conflicts = [e for c in contents.values() for e in list(c.values())[1:]]
    return facts, conflicts


def content(event: Event) -> tuple[tuple[str, Any], ...]:
    """The fields and values of an event, in a form that can be compared and hashed: two events are equal if these are
    equal. A field that is null counts as absent."""
    values = {k: _json_text(v) if k in JSON_FIELDS else v for k, v in event.items() if v is not None}
    return tuple(sorted((k, v) for k, v in values.items() if v is not None))


def _json_text(value: Any) -> str | None:
    """The canonical text of a JSON field of a coupon event. `value`: the text in the message, or the parsed object."""
    parsed = parse_json(value if isinstance(value, str) else canonical_json(value))
    return None if parsed is None else canonical_json(parsed)


_TYPE_ORDER = {kind: i for i, kind in enumerate(types(COUPON))}


def canonical_order(event: Event) -> tuple[datetime, int, bytes]:
    return event["occurred_at"], _TYPE_ORDER[event["type"]], event["event_id"].encode()


def evolve(coupon: Coupon, event: Event) -> tuple[Coupon, tuple[str, ...]]:
    """Apply one event to the coupon. Returns the changed coupon, and the codes of the rules that the event breaks."""
    kind, before = event["type"], coupon.state
    coupon = _carry(coupon, event)
    cell = TRANSITIONS[kind][STATES.index(before)]
    codes = (*((f"{kind}_when_{before}",) if cell.endswith("!") else ()), *_guards(coupon, event))
    coupon = replace(coupon, events=coupon.events + 1, last_event_at=event["occurred_at"])
    if kind == "extended" and not cell.endswith("!"):
        coupon = replace(coupon, valid_until=event["valid_until"], extended_at=event["occurred_at"])
    if "wrong_order" in codes and kind in GUARDS["wrong_order"]["frozen"]:
        return coupon, codes
    if cell == "resting":
        return replace(coupon, state=coupon.resting, order_id=None, discount_minor=None), codes
    state = cell.removesuffix("!")
    if state != before:
        coupon = _enter(coupon, state, event)
    return coupon, codes


def _carry(coupon: Coupon, event: Event) -> Coupon:
    """Fill in those fields of `FIRST_CARRIED` that the coupon lacks and the event has. So each of these values comes
    from the first event that has one, even if the event breaks a rule. Only `valid_until` can change later: by an
    `extended` event that is allowed in the coupon's state."""
    fresh = {f: event[f] for f in FIRST_CARRIED if getattr(coupon, f) is None and event.get(f) is not None}
    return replace(coupon, **fresh) if fresh else coupon


def _guards(coupon: Coupon, event: Event) -> Sequence[str]:
    kind, state = event["type"], coupon.state
    codes = []
    if _applies("no_owner", kind, state) and coupon.owner is None:
        codes.append("no_owner")
    if _applies("wrong_user", kind, state) and coupon.owner not in (None, event.get("user_id")):
        codes.append("wrong_user")
    if GUARDS["wrong_order"]["events"].get(kind) == state and coupon.order_id != event.get("order_id"):
        codes.append("wrong_order")
    if _applies("outside_validity", kind, state) and _outside(coupon, event["occurred_at"]):
        codes.append("outside_validity")
    return codes


def _applies(guard: str, kind: str, state: str) -> bool:
    rule = GUARDS[guard]
    return kind in rule["events"] and (rule["states"] == ["*"] or state in rule["states"])


def _outside(coupon: Coupon, instant: datetime) -> bool:
    early = coupon.valid_from is not None and instant < coupon.valid_from
    return early or (coupon.valid_until is not None and instant > coupon.valid_until)


def _enter(coupon: Coupon, state: str, event: Event) -> Coupon:
    """Change the coupon's state to `state` because of the event. Returns to the resting state are not handled here, but
    in `evolve`."""
    at, kind = event["occurred_at"], event["type"]
    if state in ("reserved", "used") and coupon.state not in ("reserved", "used"):
        coupon = replace(coupon, resting=coupon.state)
    coupon = replace(coupon, state=state)
    if kind == "claimed" or (kind == "issued" and event.get("user_id") is not None):
        coupon = _acquire(replace(coupon, owner=event["user_id"]), event)
    match state:
        case "created":
            return replace(coupon, created_at=coupon.created_at or at)
        case "issued" if coupon.issued_at is None:
            return replace(coupon, issued_at=at, issue_channel=event.get("channel"))
        case "claimed" if coupon.claimed_at is None:
            return replace(coupon, claimed_at=at, claim_channel=event.get("channel"))
        case "reserved":
            return replace(coupon, reserved_at=at, order_id=event["order_id"])
        case "used":
            discount = event["discount_minor"]
            coupon = replace(coupon, used_at=at, used_event_id=event["event_id"])
            return replace(coupon, order_id=event["order_id"], discount_minor=discount)
        case "expired" | "revoked":
            return replace(coupon, ended_at=at, reason=event["reason"])
    return coupon


def _acquire(coupon: Coupon, event: Event) -> Coupon:
    """Record who acquired the coupon, when and by which event, unless an acquisition is already recorded. Only the
    first acquisition counts in the coupon's campaign."""
    if coupon.acquired_at is not None:
        return coupon
    return replace(
        coupon,
        acquired_at=event["occurred_at"],
        acquired_event_id=event["event_id"],
        acquired_by=event["user_id"],
    )
