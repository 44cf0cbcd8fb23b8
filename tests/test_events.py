"""What a valid event is: every need and every rule by name, the same for one event and for a column of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from coupon_ledger import schemas
from coupon_ledger.ledger.codec import JSON_FIELDS, SCHEMA_NAME, encode_row, event_data
from coupon_ledger.ledger.columns import encode_columns, polars_schema
from coupon_ledger.ledger.errors import InvalidEvent, UndecodableRecord
from coupon_ledger.ledger.events import (
    MAX_ID_CHARS,
    MAX_ITEMS,
    MAX_JSON_CHARS,
    MAX_TEXT_CHARS,
    MODELS,
    TEXT_OF,
    TOPIC_MODELS,
    Created,
    Discount,
    Line,
    canonical_json,
    parse_event,
    parse_with_topic,
)
from coupon_ledger.ledger.rules import CHOICES, NEEDS, types
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, KEY_FIELD, ORDER, USER
from coupon_ledger.ledger.validity import split_valid, valid_events
from tests.examples import examples
from tests.wire import Row, rows_of

Data = dict[str, Any]

NOON = datetime(2026, 11, 11, 4, 0, tzinfo=UTC)

# A good value for every field that some type needs.
GOOD: Data = {
    "campaign_id": "k-1",
    "coupon_type": "cash",
    "channel": "app",
    "user_id": "u-1",
    "order_id": "o-1",
    "discount_minor": 500,
    "reason": "not_used",
    "currency": "CNY",
    "gross_minor": 9_900,
    "net_minor": 9_400,
    "refund_minor": 100,
    "name": "Singles' Day",
    "cost_kind": "media",
    "amount_minor": -5,
    "metric": "use_rate",
    "target": 3_000,
    "arm": "control",
    "attributes": {"region": "华东"},
    "alias_id": "m-1",
    "kind": "view",
    "valid_until": "2026-12-31T00:00:00Z",
}

EVERY_TYPE = [(topic, kind) for topic in INPUT_TOPICS for kind in types(topic)]
each_type = pytest.mark.parametrize(("topic", "kind"), EVERY_TYPE)


def good(topic: str, kind: str, **other: Any) -> Data:
    """An event with what its type needs and nothing else."""
    common = {"event_id": "e-1", "type": kind, "occurred_at": "2026-11-11T12:00:00+08:00", "source": "shop"}
    needed = {field: GOOD[field] for field in NEEDS[topic][kind]}
    return common | {KEY_FIELD[topic]: "key-1"} | needed | other


def problems(topic: str, data: Mapping[str, Any]) -> dict[str, str]:
    """Field to rule, for every problem."""
    with pytest.raises(InvalidEvent) as caught:
        parse_event(topic, data)
    found = {p.field: p.rule for p in caught.value.problems}
    assert len(found) == len(caught.value.problems), "each field is named once"
    return found


# ── Models ───────────────────────────────────────────────────────────────────────────────────────────────────


@each_type
def test_an_event_with_what_its_type_needs_is_valid(topic: str, kind: str) -> None:
    """A correct event would be refused."""
    event = parse_event(topic, good(topic, kind))
    assert type(event) is MODELS[topic, kind]
    assert (event.topic, event.type, event.key, event.occurred_at) == (topic, kind, "key-1", NOON)
    nulls = dict.fromkeys(set(type(event).model_fields) - good(topic, kind).keys())
    assert parse_event(topic, good(topic, kind) | nulls) == event


@pytest.mark.parametrize(("topic", "kind", "field"), [(t, k, field) for t, k in EVERY_TYPE for field in NEEDS[t][k]])
def test_what_a_type_needs_is_asked_for_by_name(topic: str, kind: str, field: str) -> None:
    """A producer would not learn which field its event lacks, or would publish half an event."""
    for lacking in ({field: None}, {}):
        data = {k: v for k, v in good(topic, kind).items() if k != field} | lacking
        assert problems(topic, data) == {field: f"is needed by {kind} events"}


@pytest.mark.parametrize("topic", INPUT_TOPICS)
@pytest.mark.parametrize("field", ["event_id", "occurred_at", "source", "key"])
def test_what_every_event_has_is_asked_for(topic: str, field: str) -> None:
    """An event without identity or time would be folded."""
    name = KEY_FIELD[topic] if field == "key" else field
    kind = types(topic)[0]
    data = good(topic, kind)
    del data[name]
    assert problems(topic, data) == {name: "is needed"}


def test_all_problems_are_named_at_once() -> None:
    """A producer would mend its events one refusal at a time."""
    data = good(COUPON, "used", order_id=None, user_id=7, face_value_minor=1.5, currency="RMB", surprise=1, source="")
    assert problems(COUPON, data) == {
        "order_id": "is needed by used events",
        "user_id": "must be text",
        "face_value_minor": "must be a whole number (minor units, no decimals, no quotes)",
        "currency": "must be an ISO 4217 code such as CNY",
        "surprise": "is no field of this event",
        "source": "must not be empty",
    }


def test_problems_inside_lists_are_named_with_their_place() -> None:
    """In an order of a hundred lines nobody would find the wrong one."""
    data = good(ORDER, "paid", lines=[{"sku": "a"}, {"sku": "", "quantity": -1}], discounts=[{"kind": "gift"}])
    found = problems(ORDER, data)
    assert set(found) == {"lines.1.sku", "lines.1.quantity", "discounts.0.kind", "discounts.0.amount_minor"}


@pytest.mark.parametrize(("topic", "kind"), [("payment.events", "paid"), (COUPON, "paid"), (ORDER, "used"), (USER, "")])
def test_an_unknown_topic_or_type_is_named(topic: str, kind: str) -> None:
    """A misspelt type would be published to nobody."""
    found = problems(topic, {"type": kind})
    assert repr(topic if topic == "payment.events" else kind) in "".join(found.values())


def test_a_type_must_be_given() -> None:
    """An event without a type would raise something that is no InvalidEvent."""
    assert problems(COUPON, good(COUPON, "used", type=None)) == {"type": "is needed"}
    assert set(problems(COUPON, good(COUPON, "used", type=["used"]))) == {"type"}


def test_an_unknown_type_or_topic_hides_no_other_problem() -> None:
    """A producer would mend the type, and then learn of the next mistake."""
    wrong = good(COUPON, "used", type="redeemed", occurred_at="yesterday", discount_minor="5", coupon_id=None, x=1)
    assert set(problems(COUPON, wrong)) == {"type", "occurred_at", "discount_minor", "coupon_id", "x"}
    assert set(problems("coupon.event", wrong)) == {"topic", "occurred_at"}


@pytest.mark.long
@pytest.mark.parametrize("offset", ["+0000", "-0530", "+08", "+00:00", "z"])
def test_every_iso_offset_is_read(offset: str) -> None:
    """What Java, Postgres and strftime's %z write would be refused."""
    event = parse_event(COUPON, good(COUPON, "used", occurred_at=f"2026-11-11T12:00:00{offset}"))
    hours = {"-0530": 5.5, "+08": -8}.get(offset, 0)
    assert event.occurred_at == datetime(2026, 11, 11, 12, tzinfo=UTC) + timedelta(hours=hours)


@pytest.mark.parametrize("offset", ["+8", "+25:00", "+080", "08:00"])
def test_an_offset_that_is_none_is_refused(offset: str) -> None:
    """A broken zone would become another instant."""
    assert "occurred_at" in problems(COUPON, good(COUPON, "used", occurred_at=f"2026-11-11T12:00:00{offset}"))


def test_objects_and_lists_may_be_the_text_of_their_json() -> None:
    """Some fields would be read from text and others refused, or kept as text, in silence."""
    shares, lines = {"platform": 10_000}, [{"sku": "s"}]
    for field, value in (
        ("funded_by", shares),
        ("attributes", {"a": 1}),
        ("applies_to", {"skus": ["a"]}),
        ("lines", lines),
    ):
        topic = {"attributes": USER, "lines": ORDER}.get(field, CAMPAIGN)
        data = {"topic": topic, **good(topic, types(topic)[0])}
        assert parse_with_topic(data | {field: json.dumps(value)}) == parse_with_topic(data | {field: value})
    text = parse_with_topic({"topic": USER, **good(USER, "profiled", attributes="[VIP]")})
    assert text.model_dump()["attributes"] == "[VIP]"
    assert set(TEXT_OF) == _OBJECTS_AND_LISTS


_OBJECTS_AND_LISTS = JSON_FIELDS | {
    f["name"]
    for topic in INPUT_TOPICS
    for f in schemas.current(SCHEMA_NAME[topic])["fields"]
    if isinstance(f["type"], list) and isinstance(f["type"][1], dict) and f["type"][1]["type"] == "array"
}


TEXT_RULES: list[tuple[Any, bool]] = [("", True), ("x" * MAX_TEXT_CHARS, True), ("券" * MAX_TEXT_CHARS, True)]
TEXT_RULES += [("x" * (MAX_TEXT_CHARS + 1), False), (1, False), (b"x", False), ("\ud800", False)]
ID_RULES: list[tuple[Any, bool]] = [("x", True), ("x" * MAX_ID_CHARS, True), ("券" * MAX_ID_CHARS, True)]
ID_RULES += [("", False), ("x" * (MAX_ID_CHARS + 1), False), ("券" * (MAX_ID_CHARS + 1), False), (1, False)]
WHOLE: list[tuple[Any, bool]] = [
    (0, True),
    (2**63 - 1, True),
    (2**63, False),
    (1.0, False),
    ("1", False),
    (True, False),
]
COUNTS = [*WHOLE, (-1, False)]
NUMBERS = [*WHOLE, (-1, True), (-(2**63) + 1, True), (-(2**63), False)]
_MONEY: list[tuple[Any, bool]] = [(0, True), (2**53 - 1, True), (2**53, False), (2**63 - 1, False), (1.0, False)]
AMOUNTS = [*_MONEY, (-1, False)]
SIGNED = [*_MONEY, (-1, True), (-(2**53) + 1, True), (-(2**53), False)]
SHARES: list[tuple[Any, bool]] = [(0, True), (10_000, True), (10_001, False), (-1, False), (1.5, False)]
INSTANTS: list[tuple[Any, bool]] = [
    ("2026-11-11T00:00:00Z", True),
    ("2026-11-11T00:00:00.123456+08:00", True),
    ("2026-11-11 00:00:00z", True),
    ("0001-01-01T00:00:00Z", True),
    ("9999-12-31T23:59:59.999999Z", True),
    (NOON, True),
    ("0001-01-01T00:00:00+00:01", False),
    ("2026-11-11T00:00:00", False),
    ("2026-11-11T00:00:00.1234567Z", False),
    ("2026-02-30T00:00:00Z", False),
    ("2026-11-11", False),
    (NOON.replace(tzinfo=None), False),
    (1_700_000_000, False),
    ("１２34-11-11T00:00:00Z", False),
]
FREE_JSON: list[tuple[Any, bool]] = [
    ({}, True),
    ({"a": {"b": [1, 1.5, None, True, "券"]}}, True),
    ({"a": "x" * (MAX_JSON_CHARS - len('{"a":""}'))}, True),
    ({"a": "x" * MAX_JSON_CHARS}, False),
    ([], True),
    ("free text", True),
    ({1: 2}, False),
    ({"a": float("nan")}, False),
    ({"a": float("inf")}, False),
    ({"a": object()}, False),
    ({"a": "\ud800"}, False),
    ({"\udfff": 1}, False),
]
RULES: dict[tuple[str, str, str], list[tuple[Any, bool]]] = {
    (COUPON, "revoked", "code"): ID_RULES,
    (COUPON, "revoked", "event_id"): ID_RULES,
    (COUPON, "revoked", "coupon_id"): ID_RULES,
    (COUPON, "revoked", "channel"): TEXT_RULES,
    (COUPON, "revoked", "reason"): TEXT_RULES,
    (COUPON, "revoked", "face_value_minor"): AMOUNTS,
    (COUPON, "revoked", "percent_off_bp"): SHARES,
    (COUPON, "revoked", "currency"): [("CNY", True), ("XXQ", False), ("cny", False), ("", False)],
    (COUPON, "revoked", "coupon_type"): [*((c, True) for c in CHOICES["coupon_type"]), ("Cash", False)],
    (COUPON, "revoked", "valid_until"): INSTANTS,
    (COUPON, "revoked", "occurred_at"): INSTANTS,
    (COUPON, "revoked", "attributes"): FREE_JSON,
    (COUPON, "expired", "reason"): [*((r, True) for r in CHOICES["expired_reason"]), ("tired", False), ("", False)],
    (ORDER, "cancelled", "gross_minor"): AMOUNTS,
    (ORDER, "cancelled", "cost_of_goods_minor"): SIGNED,
    (ORDER, "cancelled", "coupon_ids"): [
        ([], True),
        (["c"] * MAX_ITEMS, True),
        (["c"] * (MAX_ITEMS + 1), False),
        ([""], False),
        ([None], False),
        ("c", False),
    ],
    (ORDER, "cancelled", "discounts"): [
        *(([{"kind": k, "amount_minor": 0}], True) for k in CHOICES["discount_kind"]),
        ([{"kind": "coupon", "amount_minor": -1}], False),
        ([{"kind": "coupon", "amount_minor": 2**53 - 1}], True),
        ([{"kind": "coupon", "amount_minor": 2**53}], False),
        ([{"kind": "gift", "amount_minor": 1}], False),
        ([{"kind": "coupon"}], False),
        ([{"kind": "coupon", "amount_minor": 1, "funder": "x" * (MAX_TEXT_CHARS + 1)}], False),
        ([{"kind": "coupon", "amount_minor": 1, "to": "x"}], False),
    ],
    (ORDER, "cancelled", "lines"): [
        ([{"sku": "s"}], True),
        ([{"sku": "s", "net_minor": -1, "discount_minor": -1, "cost_minor": -1}], True),
        ([{"sku": ""}], False),
        ([{"sku": "s", "quantity": -1}], False),
        ([{"sku": "s", "quantity": 2**53, "net_minor": 2**53 - 1, "cost_minor": -(2**53) + 1}], True),
        *(([{"sku": "s", name: 2**53}], False) for name in ("net_minor", "discount_minor", "cost_minor")),
        *(([{"sku": "s", name: -(2**53)}], False) for name in ("net_minor", "discount_minor", "cost_minor")),
        ([{"sku": "s", "category": 1}], False),
    ],
    (CAMPAIGN, "drafted", "mechanic"): [*((c, True) for c in CHOICES["mechanic"]), ("lottery", False)],
    (CAMPAIGN, "drafted", "visibility"): [*((c, True) for c in CHOICES["visibility"]), ("secret", False)],
    (CAMPAIGN, "drafted", "cost_kind"): [*((c, True) for c in CHOICES["cost_kind"]), ("rent", False)],
    (CAMPAIGN, "drafted", "quantity"): COUNTS,
    (CAMPAIGN, "drafted", "amount_minor"): SIGNED,
    (CAMPAIGN, "drafted", "budget_minor"): AMOUNTS,
    (CAMPAIGN, "drafted", "priority"): NUMBERS,
    (CAMPAIGN, "drafted", "target"): NUMBERS,
    (CAMPAIGN, "drafted", "applies_to"): [
        ("all", True),
        ({"skus": ["a"], "categories": []}, True),
        ({"skus": []}, True),
        ({}, False),
        ("some", False),
        ({"brands": ["x"]}, False),
        ({"skus": [1]}, False),
        ({"skus": "a"}, False),
        ([], False),
        (1, False),
    ],
    (CAMPAIGN, "drafted", "funded_by"): [
        ({"platform": 6_000, "brand": 4_000}, True),
        ({}, True),
        ({"platform": 10_001}, False),
        ({"platform": -1}, False),
        ({"platform": "all"}, False),
        ({"x" * (MAX_TEXT_CHARS + 1): 1}, False),
        ([], False),
    ],
    (USER, "profiled", "attributes"): FREE_JSON,
    (USER, "touched", "alias_id"): ID_RULES,
}
EVERY_RULE = [
    pytest.param(*place, value, valid, id=f"{place[1]}-{place[2]}-{i}-{'good' if valid else 'bad'}")
    for place, rules in RULES.items()
    for i, (value, valid) in enumerate(rules)
]


@pytest.mark.parametrize(("topic", "kind", "field", "value", "valid"), EVERY_RULE)
def test_every_rule_of_a_field(topic: str, kind: str, field: str, value: Any, valid: bool) -> None:
    """A wrong value would enter the ledger for ever, or a right one be kept out; an import by columns and one event
    by itself would not be judged alike."""
    data = good(topic, kind, **{field: value})
    if valid:
        parse_event(topic, data)
    else:
        assert {path.split(".")[0] for path in problems(topic, data)} == {field}
    if fits_the_wire(topic, field, value):
        assert passes(topic, wire(data)) == [valid]


def fits_the_wire(topic: str, field: str, value: Any) -> bool:
    """Some wrong values cannot even be written down as Avro; there is nothing to refuse then."""
    if field in JSON_FIELDS:
        try:
            return bool(json.loads(json.dumps(value)) == value)
        except TypeError:
            return False
    kind = polars_schema(SCHEMA_NAME[topic])[field]
    if isinstance(kind, pl.Datetime) or isinstance(value, bool):
        return False
    try:
        found = pl.Series([value], dtype=kind).to_list()
    except (TypeError, OverflowError, UnicodeEncodeError):
        return False
    return found == [value] and type(found[0]) is type(value) and None not in (value if isinstance(value, list) else [])


def passes(topic: str, *rows: Row) -> list[bool]:
    """Whether each wire row is valid, by columns; the model says the same of each."""
    frame, invalid = split_valid(topic, pl.DataFrame(rows, schema=polars_schema(SCHEMA_NAME[topic])))
    refused = {i for i, _ in invalid}
    assert sorted([*frame["row"].to_list(), *refused]) == list(range(len(rows))), "every row comes out once"
    by_columns = [i not in refused for i in range(len(rows))]
    assert by_columns == [model_accepts(topic, row) for row in rows]
    return by_columns


def model_accepts(topic: str, row: Row) -> bool:
    try:
        parse_event(topic, event_data(row))
    except (InvalidEvent, UndecodableRecord):
        return False
    return True


# ── The columns agree with the models ────────────────────────────────────────────────────────────────────────


def plausible(topic: str) -> st.SearchStrategy[Row]:
    """Wire rows near the border: mostly good values, some on a limit, some beyond."""
    anything = rows_of(SCHEMA_NAME[topic])
    return st.builds(_mixed, st.just(topic), st.sampled_from(types(topic)), anything, st.sets(st.integers(0, 40)))


def _mixed(topic: str, kind: str, anything: Row, places: set[int]) -> Row:
    """A good event with some fields from anywhere."""
    row = dict.fromkeys(anything) | wire(good(topic, kind))
    return row | {f: v for i, (f, v) in enumerate(anything.items()) if i in places and f not in ("type",)}


def wire(data: Data) -> Row:
    """The data as a wire row, JSON as text."""
    texts = {f: json.dumps(data[f]) for f in JSON_FIELDS & data.keys()}
    instants = {"valid_until": NOON} if data.get("valid_until") else {}
    return data | texts | instants | {"occurred_at": NOON}


_TEXT_FIELD = st.one_of(
    st.sampled_from(
        ["", "x" * 256, "x" * 257, "券" * 256, "券" * 257, "券" * 1_000, "x" * 1_001, "CNY", "coupon", "cash"]
    )
)
_NEAR: dict[str, st.SearchStrategy[Any]] = {
    "discounts": st.lists(
        st.fixed_dictionaries(
            {
                "kind": st.sampled_from([*CHOICES["discount_kind"], "gift", ""]),
                "amount_minor": st.sampled_from([0, 1, 2**53 - 1, 2**53, -1]),
                "funder": st.one_of(st.none(), _TEXT_FIELD),
            }
        ),
        max_size=3,
    ),
    "lines": st.lists(
        st.fixed_dictionaries(
            {
                "sku": st.sampled_from(["s", "", "券" * 256, "x" * 257]),
                "category": st.one_of(st.none(), _TEXT_FIELD),
                "quantity": st.sampled_from([None, 0, -1]),
                "net_minor": st.sampled_from([None, -1, -(2**53) + 1, -(2**53)]),
                "discount_minor": st.sampled_from([None, 5]),
                "cost_minor": st.sampled_from([None, 2**53 - 1, 2**53]),
            }
        ),
        max_size=3,
    ),
    "coupon_ids": st.lists(st.sampled_from(["c", "券" * 256, "x" * 257, ""]), max_size=3),
    "applies_to": st.sampled_from(['"all"', ' "all"', '{"skus":["a"]}', "{}", "1", "null", '"\\ud800"', "all"]),
    "funded_by": st.sampled_from(
        ['{"p":10000}', '{"p":10000.0}', '{"p":1e4}', '{"p":10001}', "null", "[]", "{", '{"p":true}']
    ),
    "attributes": st.sampled_from(
        [
            "{}",
            '{"b":1,"a":1.0}',
            '{"a":1e999}',
            "NaN",
            "null",
            '{"a":"\\ud800"}',
            '{"\\udc00":1}',
            "[]",
            "",
            '{"a":1}}',
        ]
        + ['{"a":' * n + "1" + "}" * n for n in (99, 100, 101, 252, 253, 254, 255, 256, 257, 300, 2_000)]
        + ['{"a":' + "[" * n + "]" * n + "}" for n in (99, 250, 260, 500)]
        + ['{"a":"' + "x" * n + '"}' for n in (MAX_JSON_CHARS - 8, MAX_JSON_CHARS - 7)]
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("topic", INPUT_TOPICS)
@given(data=st.data())
@examples(40)
def test_columns_refuse_what_the_models_refuse(topic: str, data: st.DataObject) -> None:
    """An event would be refused when published alone and folded when it comes from elsewhere, or the reverse."""
    rows = data.draw(st.lists(plausible(topic), min_size=1, max_size=4))
    near = {f: s for f, s in _NEAR.items() if f in rows[0]}
    for row in rows:
        for field in sorted(near):
            if data.draw(st.booleans()):
                row[field] = data.draw(near[field])
    passes(topic, *rows)


@pytest.mark.long
@pytest.mark.parametrize("topic", INPUT_TOPICS)
@given(data=st.data())
@examples(20)
def test_columns_refuse_noise_as_the_models_do(topic: str, data: st.DataObject) -> None:
    """Noise that is well-formed Avro would be folded."""
    passes(topic, *data.draw(st.lists(rows_of(SCHEMA_NAME[topic]), min_size=1, max_size=4)))


def test_instants_that_python_cannot_hold_are_refused_by_columns() -> None:
    """A frame from a file with such an instant would end the import with a panic."""
    row = wire(good(COUPON, "revoked"))
    frame = pl.DataFrame([row] * 3, schema=polars_schema(SCHEMA_NAME[COUPON]))
    beyond = pl.Series([0, 2**63 - 1, -(2**63)], dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    for field in ("occurred_at", "valid_from"):
        valid, invalid = split_valid(COUPON, frame.with_columns(beyond.alias(field)))
        assert valid["row"].to_list() == [0]
        assert invalid == [(i, "an instant lies outside the years 1 to 9999") for i in (1, 2)]


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────


def canonical_texts(topic: str, field: str, *texts: str | None) -> list[str | None]:
    """What the columns make of these texts, all valid."""
    row = wire(good(topic, types(topic)[-1]))
    rows = [row | {field: text} for text in texts]
    assert passes(topic, *rows) == [True] * len(rows)
    frame, _ = split_valid(topic, pl.DataFrame(rows, schema=polars_schema(SCHEMA_NAME[topic])))
    return frame[field].to_list()


def test_equal_json_is_equal_text() -> None:
    """A repeat whose JSON has other blanks, order or notation would count as a conflict."""
    texts = [
        ' {"b": 1.0, "a":[1,\n2], "券":"\\u5238"}',
        '{"a":[1e0,2],"券":"券","b":1}',
        '{"a":0,"b":1,"券":"券","a":[1,2]}',
    ]
    assert canonical_texts(COUPON, "attributes", *texts) == ['{"a":[1,2],"b":1,"券":"券"}'] * 3
    assert canonical_texts(CAMPAIGN, "applies_to", '"all"', ' "al\\u006c"') == ['"all"', '"all"']
    assert canonical_texts(CAMPAIGN, "funded_by", '{"b":1,"a":2.0}') == ['{"a":2,"b":1}']


def test_different_json_is_different_text() -> None:
    """A conflict would pass for a repeat."""
    texts = [
        '{"a":1}',
        '{"a":true}',
        '{"a":"1"}',
        '{"a":1.5}',
        '{"a":null}',
        "{}",
        '{"a":[1]}',
        '{"a":9007199254740993}',
    ]
    assert len(set(canonical_texts(COUPON, "attributes", *texts))) == len(texts)


def test_json_null_is_no_value() -> None:
    """Null and absent would differ, and a profile without attributes would pass."""
    assert canonical_texts(COUPON, "attributes", "null", " null ", None) == [None, None, None]
    assert passes(USER, wire(good(USER, "profiled")) | {"attributes": "null"}) == [False]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.long
@given(value=st.dictionaries(st.text(max_size=3), JSON_VALUES, max_size=4), indent=st.sampled_from([None, 0, 3]))
@examples(50)
def test_canonical_json_depends_on_the_value_alone(value: Data, indent: int | None) -> None:
    """Two producers' JSON libraries would make conflicts of the same event."""
    backwards = json.dumps(dict(reversed(value.items())), indent=indent, ensure_ascii=bool(indent))
    forwards = canonical_json(value)
    one, other = canonical_texts(COUPON, "attributes", backwards, forwards)
    assert one == other
    assert one is not None
    assert json.loads(one) == value
    assert canonical_texts(COUPON, "attributes", one) == [one]


# ── Schemas and models describe the same events ──────────────────────────────────────────────────────────────


def avro_fields(schema: Any) -> Iterator[tuple[str, Any]]:
    """Every record within the schema: its name and its fields."""
    if isinstance(schema, list):
        for part in schema:
            yield from avro_fields(part)
    elif isinstance(schema, dict):
        if schema["type"] == "record":
            yield schema["name"], schema["fields"]
            for field in schema["fields"]:
                yield from avro_fields(field["type"])
        elif schema["type"] == "array":
            yield from avro_fields(schema["items"])


@pytest.mark.parametrize("topic", INPUT_TOPICS)
def test_schema_and_model_have_the_same_fields(topic: str) -> None:
    """A field could be published that no consumer would ever see."""
    models: dict[str, type[BaseModel]] = {"discount": Discount, "line": Line, SCHEMA_NAME[topic]: TOPIC_MODELS[topic]}
    for record, fields in avro_fields(schemas.current(SCHEMA_NAME[topic])):
        assert {f["name"] for f in fields} == set(models[record].model_fields)
        for field in fields:
            if field["name"] == "type" and record == SCHEMA_NAME[topic]:
                continue
            optional = not models[record].model_fields[field["name"]].is_required()
            assert isinstance(field["type"], list) == optional, field["name"]
            assert not optional or (field["type"][0] == "null" and field["default"] is None)


@pytest.mark.parametrize("name", schemas.NAMES)
def test_every_field_is_documented(name: str) -> None:
    """The event reference would have holes."""
    for record, fields in avro_fields(schemas.current(name)):
        assert all(f.get("doc", "").endswith((".", "…")) for f in fields), record


@pytest.mark.parametrize("topic", INPUT_TOPICS)
def test_the_types_are_those_of_the_lifecycle(topic: str) -> None:
    """A type could be published that no fold knows, or ties be broken in another order."""
    kind = next(f["type"] for f in schemas.current(SCHEMA_NAME[topic])["fields"] if f["name"] == "type")
    assert kind["symbols"] == list(types(topic)) == [k for t, k in MODELS if t == topic]


@pytest.mark.parametrize("name", schemas.NAMES)
def test_the_current_schema_is_the_newest_released(name: str) -> None:
    """Messages would be written with a schema that no other release can find by its fingerprint."""
    assert schemas.released(name)[-1] == schemas.current(name)


def test_events_do_not_change() -> None:
    """An event could be altered after it was validated."""
    event = Created(event_id="e", occurred_at=NOON, source="s", coupon_id="c", campaign_id="k", coupon_type="cash")
    with pytest.raises(ValidationError):
        event.coupon_id = "other"  # type: ignore[misc]
    assert event == parse_event(COUPON, event.model_dump())
    assert event.occurred_at.utcoffset() == timedelta(0)


@each_type
def test_columns_pass_what_a_type_needs_and_no_less(topic: str, kind: str) -> None:
    """A bulk import would refuse correct events, or fold those without what their type needs."""
    row = wire(good(topic, kind))
    fields = polars_schema(SCHEMA_NAME[topic]).names()
    whole = dict.fromkeys(fields) | row
    assert passes(topic, whole, *(whole | {f: None} for f in NEEDS[topic][kind])) == [True] + [False] * len(
        NEEDS[topic][kind]
    )
    frame = pl.DataFrame([whole], schema=polars_schema(SCHEMA_NAME[topic]))
    assert encode_columns(topic, frame) == [encode_row(SCHEMA_NAME[topic], whole)]


@pytest.mark.parametrize(
    ("topic", "kind", "carried", "field"),
    [
        (COUPON, "used", {"discount_minor": 2**53}, "discount_minor"),
        (ORDER, "refunded", {"refund_minor": 2**53}, "refund_minor"),
        (ORDER, "paid", {"cost_of_goods_minor": -(2**53)}, "cost_of_goods_minor"),
        (
            ORDER,
            "paid",
            {"discounts": [{"kind": "coupon", "amount_minor": 2**53, "funder": None}]},
            "discounts.0.amount",
        ),
        (CAMPAIGN, "cost_booked", {"amount_minor": -(2**53)}, "amount_minor"),
    ],
)
def test_an_amount_out_of_bounds_that_comes_from_elsewhere_is_a_dead_letter(
    topic: str, kind: str, carried: Data, field: str
) -> None:
    """Two such amounts would add up to what no sum holds, and the consumer would stop for good."""
    fine = wire(good(topic, kind))
    messages = [encode_row(SCHEMA_NAME[topic], row) for row in (fine, fine | carried)]
    found, dead = valid_events(topic, messages)
    assert found["row"].to_list() == [0]
    assert dead[1][0] == "invalid_event"
    assert field in dead[1][1] and "9,007,199,254,740,991" in dead[1][1]
