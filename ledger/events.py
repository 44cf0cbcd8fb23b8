"""The events that a producer publishes, one immutable Pydantic model per type. Part of the public API.

A model reports all problems of an event at once, each with its field and rule. Only `lifecycle.toml` defines which
fields a type needs, and which values a field may have.

    Used(event_id="e-1", occurred_at="2026-11-11T00:00:01Z", source="shop", coupon_id="c-1",
         user_id="u-1", order_id="o-1", discount_minor=500)
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ModelWrapValidatorHandler,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from coupon_ledger.ledger.errors import InvalidEvent, Problem
from coupon_ledger.ledger.json_text import json_value
from coupon_ledger.ledger.rules import CHOICES, CURRENCIES, NEEDS
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, KEY_FIELD, ORDER, USER

MAX_ID_CHARS: Final = 256
MAX_TEXT_CHARS: Final = 1_000
MAX_JSON_CHARS: Final = 65_536
MAX_ITEMS: Final = 10_000
INT64_MAX: Final = 2**63 - 1
MAX_AMOUNT: Final = 2**53 - 1
"""Largest amount in minor units, of either sign: exact in JSON, spreadsheets and sums."""
EXACT_FLOATS: Final = 2**53
"""Below it, every whole number is exact as a float."""

_RFC3339: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(?P<fraction>\.\d+)?(?P<zone>[Zz]|[+-]\d{2}(?::?\d{2})?)?", re.ASCII
)


def _instant(value: object) -> datetime:
    if isinstance(value, str):
        match = _RFC3339.fullmatch(value)
        if not match:
            raise PydanticCustomError("instant", "must be an RFC 3339 instant such as 2026-11-11T00:00:00Z")
        if len(match["fraction"] or "") > 7:
            raise PydanticCustomError("instant", "must not be finer than microseconds")
        try:
            value = datetime.fromisoformat(value.upper())
        except ValueError as error:
            raise PydanticCustomError("instant", "is no instant: {why}", {"why": str(error)}) from error
    if not isinstance(value, datetime):
        raise PydanticCustomError("instant", "must be an RFC 3339 instant such as 2026-11-11T00:00:00Z")
    if value.tzinfo is None:
        raise PydanticCustomError("instant", "must carry a time zone: end it with Z or an offset such as +08:00")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise PydanticCustomError("instant", "lies outside the years 1 to 9999") from error


def _choice(name: str) -> AfterValidator:
    allowed = CHOICES[name]

    def check(value: str) -> str:
        if value not in allowed:
            raise PydanticCustomError("choice", "must be one of {allowed}", {"allowed": ", ".join(allowed)})
        return value

    return AfterValidator(check)


def _currency(value: str) -> str:
    if value not in CURRENCIES:
        raise PydanticCustomError("currency", "must be an ISO 4217 code such as CNY")
    return value


def canonical_json(value: object) -> str:
    """The canonical text of a JSON value: names in sorted order, no blanks between tokens. Raises `ValueError` for NaN
    and infinities."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def parse_json(text: str) -> Any:
    """Parse a JSON text. A whole number that is written with a decimal point (1.0) becomes an integer, so that equal
    values have the same canonical text. Raises `ValueError` if the text is not JSON, `RecursionError` if it is nested
    too deeply."""
    return json.loads(text, parse_float=_number)


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < EXACT_FLOATS else value


def _small_json(value: Any) -> Any:
    try:
        text = canonical_json(value)
        text.encode()  # refuses lone surrogates
        size = len(text)
    except (ValueError, RecursionError) as error:
        raise PydanticCustomError("json", "must be JSON: {why}", {"why": str(error)}) from error
    if size > MAX_JSON_CHARS:
        raise PydanticCustomError("json", "must have at most {most} characters as JSON", {"most": MAX_JSON_CHARS})
    return value


def _applies_to(value: Any) -> Any:
    lists = isinstance(value, dict) and set(value) <= {"skus", "categories"} and value
    if value != "all" and not (
        lists and all(isinstance(v, list) and all(isinstance(s, str) for s in v) for v in value.values())
    ):
        raise PydanticCustomError("applies_to", 'must be "all" or an object with lists `skus`, `categories`')
    return value


Id = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=MAX_ID_CHARS)]
Text = Annotated[str, StringConstraints(strict=True, max_length=MAX_TEXT_CHARS)]
Instant = Annotated[datetime, BeforeValidator(_instant)]
Amount = Annotated[int, Field(strict=True, ge=0, le=MAX_AMOUNT)]
SignedAmount = Annotated[int, Field(strict=True, ge=-MAX_AMOUNT, le=MAX_AMOUNT)]
Count = Annotated[int, Field(strict=True, ge=0, le=INT64_MAX)]
Number = Annotated[int, Field(strict=True, ge=-INT64_MAX, le=INT64_MAX)]
BasisPoints = Annotated[int, Field(strict=True, ge=0, le=10_000)]
Currency = Annotated[Text, AfterValidator(_currency)]
CouponType = Annotated[Text, _choice("coupon_type")]
Attributes = Annotated[JsonValue, AfterValidator(_small_json)]
AppliesTo = Annotated[JsonValue, AfterValidator(_applies_to), AfterValidator(_small_json)]
FundedBy = Annotated[dict[Text, BasisPoints], AfterValidator(_small_json)]


class _Frozen(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", hide_input_in_errors=True)


class Event(_Frozen):
    """Base class of all events, with the fields that every event has. A subclass sets `topic`, and a class for one type
    also sets `type`."""

    topic: ClassVar[str]

    type: str
    event_id: Id
    occurred_at: Instant
    source: Id

    @property
    def key(self) -> str:
        """The id of the coupon, order, campaign or user that the event is about. It is the key of the event's record in
        the log."""
        key: str = getattr(self, KEY_FIELD[self.topic])
        return key

    @model_validator(mode="wrap")
    @classmethod
    def _all_problems_at_once(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, dict):
            return handler(data)
        lacking = _lacking(cls, data)
        if not lacking:
            return handler(data)
        details = [InitErrorDetails(type=e, loc=(f,), input=data.get(f)) for f, e in lacking.items()]
        try:
            handler(data)
        except ValidationError as error:
            details += [_again(e) for e in error.errors() if e["loc"][:1] not in {(f,) for f in lacking}]
        raise ValidationError.from_exception_data(cls.__name__, details)


def _lacking(cls: type[Event], data: Mapping[str, Any]) -> dict[str, PydanticCustomError]:
    """By field, the error for each field that the event's type needs and that is null or absent in `data`. Also, for
    type `expired`, the error for a `reason` that is not allowed."""
    kind = cls.model_fields["type"].default
    if not isinstance(kind, str):  # the base model of a topic, which has no type
        return {}
    problems = {
        field: PydanticCustomError("needed", "is needed by {kind} events", {"kind": kind})
        for field in NEEDS[cls.topic].get(kind, ())
        if data.get(field) is None
    }
    if kind == "expired" and isinstance(reason := data.get("reason"), str):
        allowed = CHOICES["expired_reason"]
        if reason not in allowed:
            problems["reason"] = PydanticCustomError(
                "choice", "must be one of {allowed}", {"allowed": ", ".join(allowed)}
            )
    return problems


def _again(error: Any) -> InitErrorDetails:
    kind = PydanticCustomError(error["type"], "{text}", {**error.get("ctx", {}), "text": error["msg"]})
    return InitErrorDetails(type=kind, loc=error["loc"], input=error["input"])


class CouponEvent(Event):
    """An event of `coupon.events`. Amounts (`…_minor`): in minor units of `currency`. `percent_off_bp`: in basis
    points. Instants: UTC."""

    topic: ClassVar[str] = COUPON

    coupon_id: Id
    code: Id | None = None
    campaign_id: Id | None = None
    rule_id: Id | None = None
    user_id: Id | None = None
    order_id: Id | None = None
    channel: Text | None = None
    reason: Text | None = None
    coupon_type: CouponType | None = None
    face_value_minor: Amount | None = None
    percent_off_bp: BasisPoints | None = None
    min_spend_minor: Amount | None = None
    discount_minor: Amount | None = None
    currency: Currency | None = None
    valid_from: Instant | None = None
    valid_until: Instant | None = None
    hold_until: Instant | None = None
    ip: Text | None = None
    device_id: Text | None = None
    phone_prefix: Text | None = None
    attributes: Attributes | None = None
    store: Text | None = None


class Created(CouponEvent):
    type: Literal["created"] = "created"


class Issued(CouponEvent):
    type: Literal["issued"] = "issued"


class Claimed(CouponEvent):
    type: Literal["claimed"] = "claimed"


class Reserved(CouponEvent):
    type: Literal["reserved"] = "reserved"


class Released(CouponEvent):
    type: Literal["released"] = "released"


class Used(CouponEvent):
    type: Literal["used"] = "used"


class Returned(CouponEvent):
    type: Literal["returned"] = "returned"


class Expired(CouponEvent):
    type: Literal["expired"] = "expired"


class Revoked(CouponEvent):
    type: Literal["revoked"] = "revoked"


class Extended(CouponEvent):
    type: Literal["extended"] = "extended"


class Discount(_Frozen):
    """One reduction of an order's price."""

    kind: Annotated[Text, _choice("discount_kind")]
    amount_minor: Amount
    funder: Text | None = None


class Line(_Frozen):
    """One product of an order, with its quantity and amounts."""

    sku: Id
    category: Text | None = None
    quantity: Count | None = None
    net_minor: SignedAmount | None = None
    discount_minor: SignedAmount | None = None
    cost_minor: SignedAmount | None = None


class OrderEvent(Event):
    """An event of `order.events`. `gross_minor`: the list price of the order. `net_minor`: what is paid.
    `refund_minor`: what this refund alone gives back."""

    topic: ClassVar[str] = ORDER

    order_id: Id
    user_id: Id | None = None
    channel: Text | None = None
    store: Text | None = None
    region: Text | None = None
    currency: Currency | None = None
    gross_minor: Amount | None = None
    net_minor: Amount | None = None
    discounts: Annotated[tuple[Discount, ...], Field(max_length=MAX_ITEMS)] | None = None
    cost_of_goods_minor: SignedAmount | None = None
    refund_minor: Amount | None = None
    reason: Text | None = None
    coupon_ids: Annotated[tuple[Id, ...], Field(max_length=MAX_ITEMS)] | None = None
    lines: Annotated[tuple[Line, ...], Field(max_length=MAX_ITEMS)] | None = None


class Placed(OrderEvent):
    type: Literal["placed"] = "placed"


class Paid(OrderEvent):
    type: Literal["paid"] = "paid"


class Cancelled(OrderEvent):
    type: Literal["cancelled"] = "cancelled"


class Refunded(OrderEvent):
    type: Literal["refunded"] = "refunded"


class CampaignEvent(Event):
    """An event of `campaign.events`. `quantity`: how many coupons of the campaign may be owned. `funded_by`: who pays
    for the discount; each funder's share in basis points."""

    topic: ClassVar[str] = CAMPAIGN

    campaign_id: Id
    name: Text | None = None
    rule_id: Id | None = None
    mechanic: Annotated[Text, _choice("mechanic")] | None = None
    visibility: Annotated[Text, _choice("visibility")] | None = None
    quantity: Count | None = None
    per_user_limit: Count | None = None
    claim_from: Instant | None = None
    claim_until: Instant | None = None
    coupon_type: CouponType | None = None
    face_value_minor: Amount | None = None
    percent_off_bp: BasisPoints | None = None
    min_spend_minor: Amount | None = None
    currency: Currency | None = None
    applies_to: AppliesTo | None = None
    exclusion_group: Text | None = None
    priority: Number | None = None
    platform_or_store: Text | None = None
    budget_minor: Amount | None = None
    channel: Text | None = None
    cost_kind: Annotated[Text, _choice("cost_kind")] | None = None
    amount_minor: SignedAmount | None = None
    metric: Text | None = None
    target: Number | None = None
    funded_by: FundedBy | None = None
    user_id: Id | None = None
    arm: Text | None = None


class Drafted(CampaignEvent):
    type: Literal["drafted"] = "drafted"


class Published(CampaignEvent):
    type: Literal["published"] = "published"


class Unpublished(CampaignEvent):
    type: Literal["unpublished"] = "unpublished"


class Amended(CampaignEvent):
    type: Literal["amended"] = "amended"


class Ended(CampaignEvent):
    type: Literal["ended"] = "ended"


class CostBooked(CampaignEvent):
    type: Literal["cost_booked"] = "cost_booked"


class TargetSet(CampaignEvent):
    type: Literal["target_set"] = "target_set"


class Assigned(CampaignEvent):
    type: Literal["assigned"] = "assigned"


class UserEvent(Event):
    """An event of `user.events`."""

    topic: ClassVar[str] = USER

    user_id: Id
    attributes: Attributes | None = None
    alias_id: Id | None = None
    kind: Text | None = None
    channel: Text | None = None
    campaign_id: Id | None = None


class Profiled(UserEvent):
    type: Literal["profiled"] = "profiled"


class Linked(UserEvent):
    type: Literal["linked"] = "linked"


class Touched(UserEvent):
    type: Literal["touched"] = "touched"


TOPIC_MODELS: Final[Mapping[str, type[Event]]] = MappingProxyType(
    {COUPON: CouponEvent, ORDER: OrderEvent, CAMPAIGN: CampaignEvent, USER: UserEvent}
)
MODELS: Final[Mapping[tuple[str, str], type[Event]]] = MappingProxyType(
    {
        (topic, model.model_fields["type"].default): model
        for topic, base in TOPIC_MODELS.items()
        for model in base.__subclasses__()
    }
)


def parse_event(topic: str, data: Mapping[str, Any]) -> Event:
    """Parse `data` (names and values as in JSON) as an event of `topic`.

    Raises `InvalidEvent` with all problems of the event.
    """
    if topic not in INPUT_TOPICS:
        unknown = Problem("topic", f"{_short(topic)} is none of {', '.join(INPUT_TOPICS)}")
        raise InvalidEvent([unknown, *_problems_of_any(data)])
    kind = data.get("type")
    model = MODELS.get((topic, kind)) if isinstance(kind, str) else None
    if model is None:
        known = ", ".join(NEEDS[topic])
        problem = "is needed" if kind is None else f"{_short(kind)} is none of {known}"
        raise InvalidEvent([Problem("type", problem), *_problems_beside("type", TOPIC_MODELS[topic], data)])
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        raise InvalidEvent(problems_of(error)) from error


def _problems_beside(known: str, model: type[Event], data: Mapping[str, Any]) -> list[Problem]:
    """The problems of an event besides its unknown topic or type. Fields that its type would need are not checked.
    `known`: the field whose problem is already reported (`topic` or `type`). `model`: the model against which the other
    fields are checked."""
    try:
        model.model_validate({**data, "type": ""} if known == "type" else dict(data))
    except ValidationError as error:
        return [problem for problem in problems_of(error) if problem.field != known]
    return []


def _problems_of_any(data: Mapping[str, Any]) -> list[Problem]:
    """The problems in those fields of `data` that every event has, for an event whose topic is unknown."""
    common = {name: data[name] for name in Event.model_fields if name in data}
    return _problems_beside("topic", Event, common)


def parse_with_topic(data: Mapping[str, Any]) -> Event:
    """Parse `data` as an event. Its topic is the value of `topic` in `data`. The value of a field for objects or lists
    may also be a JSON text, as in a table's cell. Raises `InvalidEvent` like `parse_event`."""
    fields = dict(data)
    topic = fields.pop("topic", None)
    if not isinstance(topic, str):
        raise InvalidEvent([Problem("topic", "is needed"), *_problems_of_any(fields)])
    for name, start in TEXT_OF.items():
        value = fields.get(name)
        if isinstance(value, str) and value.lstrip(" \t\r\n").startswith(start):
            with suppress(InvalidEvent):  # `attributes` may be any text
                fields[name] = json_value(value)
    return parse_event(topic, fields)


TEXT_OF: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(("attributes", "applies_to", "funded_by"), "{")
    | dict.fromkeys(("discounts", "lines", "coupon_ids"), "[")
)
"""Fields that hold an object or a list, with the first character of its JSON."""


def problems_of(error: ValidationError) -> list[Problem]:
    """Pydantic's errors as a list of problems, in the ledger's own words."""
    return [Problem(".".join(map(str, e["loc"])), _in_words(e)) for e in error.errors()]


def _in_words(error: Mapping[str, Any]) -> str:
    limits = error.get("ctx", {})
    match error["type"]:
        case "greater_than_equal":
            return f"must be at least {limits['ge']:,}"
        case "less_than_equal":
            return f"must be at most {limits['le']:,}"
        case "string_too_long":
            return f"must have at most {limits['max_length']:,} characters"
    return str(_WORDS.get(error["type"], error["msg"]))


_WORDS: Final = {
    "missing": "is needed",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "tuple_type": "must be a list",
    "extra_forbidden": "is no field of this event",
    "int_type": "must be a whole number (minor units, no decimals, no quotes)",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_unicode": "must be text without lone surrogates",
}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
