"""The codec: rows, columns and another Avro implementation agree on every message, good or broken."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, cast

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger import schemas
from coupon_ledger.ledger import codec
from coupon_ledger.ledger.codec import SCHEMA_NAME, WriterSchema, decode, encode, encode_row, single_object_header
from coupon_ledger.ledger.columns import decode_columns, encode_columns, polars_schema
from coupon_ledger.ledger.errors import UndecodableRecord
from coupon_ledger.ledger.events import MAX_ITEMS, parse_event
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, ORDER, USER
from tests.examples import examples
from tests.wire import NAMES, Row, avro_message, avro_row, block_message, rich_row, rows_of, zigzag

SEED = 20261111
MANY = examples(15)

each_record = pytest.mark.parametrize("name", NAMES)
# An order's message is by far the longest.
each_record_orders_slow = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "order_event" else name for name in NAMES]
)
each_topic = pytest.mark.parametrize("topic", INPUT_TOPICS)
# It has fields of every kind.
each_topic_orders_fast = pytest.mark.parametrize(
    "topic", [topic if topic == ORDER else pytest.param(topic, marks=pytest.mark.slow) for topic in INPUT_TOPICS]
)


def by_columns(messages: Sequence[bytes]) -> tuple[dict[int, Row], dict[int, str]]:
    """Each message's row, or the reason why it is none; every message once."""
    decoded, bad = decode_columns(messages)
    rows: dict[int, Row] = {}
    for part in decoded:
        assert part.rows.tolist() == sorted(part.rows.tolist())
        assert part.frame.schema == polars_schema(part.name)
        rows |= dict(zip(part.rows.tolist(), part.frame.to_dicts(), strict=True))
    reasons = {u.row: u.reason for u in bad}
    assert len(rows) + len(bad) == len(messages)
    assert sorted([*rows, *reasons]) == list(range(len(messages))), "every message comes out exactly once"
    return rows, reasons


def by_rows(messages: Sequence[bytes]) -> tuple[dict[int, Row], dict[int, str]]:
    rows, reasons = {}, {}
    for i, message in enumerate(messages):
        try:
            writer, row = decode(message)
            rows[i] = {f["name"]: row.get(f["name"]) for f in schemas.current(writer.name)["fields"]}
        except UndecodableRecord as error:
            reasons[i] = error.reason
    return rows, reasons


def agreed(messages: Sequence[bytes]) -> tuple[dict[int, Row], dict[int, str]]:
    """What rows and columns both say of the messages."""
    rows, reasons = by_rows(messages)
    assert by_columns(messages) == (rows, reasons)
    return rows, reasons


def agreed_with_avro(name: str, messages: Sequence[bytes]) -> dict[int, Row]:
    """Also fastavro reads what we read; it may read more (it bears numbers that wrap, symbols from the end)."""
    rows, _ = agreed(messages)
    for i, row in rows.items():
        assert avro_row(name, messages[i]) == row
    return rows


# ── Good messages ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long
@each_topic_orders_fast
@given(data=st.data())
@MANY
def test_rows_and_columns_write_what_avro_writes(topic: str, data: st.DataObject) -> None:
    """Another Avro reader, a dashboard say, would read other values than were published."""
    name = SCHEMA_NAME[topic]
    rows = data.draw(st.lists(rows_of(name), max_size=4))
    messages = [avro_message(name, row) for row in rows]
    assert [encode_row(name, row) for row in rows] == messages
    assert encode_columns(topic, pl.DataFrame(rows, schema=polars_schema(name))) == messages


@pytest.mark.long
@each_record
@given(data=st.data())
@MANY
def test_rows_and_columns_read_what_avro_writes(name: str, data: st.DataObject) -> None:
    """What an upstream system in another language publishes would arrive changed."""
    rows = data.draw(st.lists(rows_of(name), max_size=4))
    messages = [avro_message(name, row) for row in rows]
    assert by_rows(messages)[0] == dict(enumerate(rows))
    assert by_columns(messages)[0] == dict(enumerate(rows))


@pytest.mark.long
@given(data=st.data())
@MANY
def test_arrays_may_come_in_blocks_and_with_sizes(data: st.DataObject) -> None:
    """Orders from an Avro writer that flushes long arrays in blocks (Java's does) would be dead letters."""
    row = data.draw(rows_of("order_event"))

    def blocks(n: int) -> list[int]:
        counts = []
        while n:
            counts.append(data.draw(st.integers(1, n)))
            n -= counts[-1]
        return [c * data.draw(st.sampled_from([1, -1])) for c in counts]

    messages = [block_message("order_event", row, blocks), avro_message("order_event", row)]
    assert agreed_with_avro("order_event", messages) == {0: row, 1: row}


@pytest.mark.slow
@pytest.mark.parametrize("items", [MAX_ITEMS, MAX_ITEMS + 1, 50_000])
def test_arrays_of_any_length_are_read(items: int) -> None:
    """One order with far too many items would hold up or stop the whole consumer."""
    row = dict(rich_row("order_event"), coupon_ids=["c"] * items)
    wanted = {0: row, 1: rich_row("order_event")}
    messages = [encode_row("order_event", row) for row in wanted.values()]
    assert agreed(messages) == (wanted, {})
    assert agreed([block_message("order_event", row, lambda n: [1] * n)])[0] == {0: row}


def test_no_messages_are_no_rows() -> None:
    """An empty batch would stop the consumer."""
    assert decode_columns([]) == ([], [])
    for topic in INPUT_TOPICS:
        assert encode_columns(topic, polars_schema(SCHEMA_NAME[topic]).to_frame()) == []


@pytest.mark.long
def test_topics_may_be_mixed() -> None:
    """A message on the wrong topic would take its neighbours with it."""
    made = random.Random(SEED)
    print(f"seed {SEED}")
    names = [made.choice(NAMES) for _ in range(50)]
    messages = [encode_row(name, rich_row(name)) for name in names]
    for i in (3, 17, 49):
        messages[i] = messages[i][:-1]
    rows, reasons = agreed(messages)
    assert rows == {i: rich_row(name) for i, name in enumerate(names) if i not in (3, 17, 49)}
    assert reasons == dict.fromkeys((3, 17, 49), "undecodable")
    assert sorted(p.name for p in decode_columns(messages)[0]) == sorted(set(names))


@each_topic
def test_an_event_is_encoded_like_its_row(topic: str) -> None:
    """An event published as a model would differ from the same event imported in bulk."""
    data: dict[str, dict[str, Any]] = {
        COUPON: {"type": "created", "campaign_id": "k", "coupon_type": "cash", "attributes": {"b": 1.0, "a": "券"}},
        ORDER: {
            "type": "paid",
            "user_id": "u",
            "currency": "CNY",
            "gross_minor": 5,
            "net_minor": 4,
            "coupon_ids": [],
            "discounts": [{"kind": "coupon", "amount_minor": 1}],
            "lines": [{"sku": "s", "quantity": 1}, {"sku": "t", "category": "c"}],
        },
        CAMPAIGN: {"type": "amended", "applies_to": "all", "funded_by": {"platform": 10_000}},
        USER: {"type": "profiled", "attributes": {"region": "x"}},
    }
    key = {COUPON: "coupon_id", ORDER: "order_id", CAMPAIGN: "campaign_id", USER: "user_id"}[topic]
    common = {"event_id": "e", "occurred_at": "2026-11-11T08:00:00.000001+08:00", "source": "s", key: "k-1"}
    event = parse_event(topic, common | data[topic])
    message = encode(event)
    writer, row = decode(message)
    assert (writer.topic, parse_event(topic, codec.event_data(row))) == (topic, event)
    assert avro_message(SCHEMA_NAME[topic], row) == message
    assert agreed([message])[1] == {}


def test_text_that_is_no_event_is_not_written() -> None:
    """A bulk import would write a type or a field that no reader knows, or leave out what must be there."""
    row = rich_row("user_event")
    frame = pl.DataFrame([row], schema=polars_schema("user_event"))
    with pytest.raises(ValueError, match="no field surprise"):
        encode_columns(USER, frame.with_columns(surprise=pl.lit(1)))
    with pytest.raises(ValueError, match="needs event_id, occurred_at"):
        encode_columns(USER, frame.drop("event_id", "occurred_at", "kind"))
    with pytest.raises(ValueError, match="source must not be null"):
        encode_columns(USER, frame.with_columns(source=pl.lit(None, dtype=pl.String)))
    with pytest.raises(ValueError, match="type 'married' is none of profiled, linked, touched"):
        encode_columns(USER, frame.with_columns(type=pl.lit("married")))


# ── Schemas ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_fingerprint_is_avros() -> None:
    """No other Avro implementation would recognise our messages. The value: CRC-64-AVRO of `"null"`, as in the
    Avro specification's own tests."""
    header = single_object_header(cast("schemas.Schema", "null"))
    assert header[:2] == b"\xc3\x01"
    assert int.from_bytes(header[2:], "little") == 0x63DD24E7CC258F8A


@pytest.mark.parametrize(("name", "lost"), [("coupon_event", "phone_prefix"), ("order_event", "lines")])
def test_older_messages_stay_readable(monkeypatch: pytest.MonkeyPatch, name: str, lost: str) -> None:
    """A log that was begun before a field was added could not be read any more."""
    now = schemas.current(name)
    before = {**now, "fields": [f for f in now["fields"] if f["name"] != lost]}
    header = single_object_header(before)
    known = cast("dict[bytes, WriterSchema]", codec.writer_schemas())
    monkeypatch.setitem(known, header, WriterSchema(name, 0, before, header))
    whole = rich_row(name)
    older = {k: v for k, v in whole.items() if k != lost}
    message = encode_row(name, older | {lost: None})
    position = list(whole).index(lost)
    rest = [f["name"] for f in now["fields"]][position + 1 :]
    tail = len(encode_row(name, whole)) - len(encode_row(name, whole | dict.fromkeys(rest)))
    end = len(message) - tail - len(rest)
    old_message = header + message[10 : end - 1] + message[end:]
    messages = [encode_row(name, whole), old_message, old_message[:-1], encode_row(name, whole)]
    rows, reasons = agreed(messages)
    assert rows == {0: whole, 1: older | {lost: None}, 3: whole}
    assert reasons == {2: "undecodable"}


# ── Broken messages ──────────────────────────────────────────────────────────────────────────────────────────


def between(name: str, broken: Sequence[bytes]) -> None:
    """Each broken message, between good ones, is refused by both, and the good ones stay what they are."""
    good = encode_row(name, rich_row(name))
    messages = [good]
    for message in broken:
        messages += [message, good]
    rows, reasons = agreed(messages)
    assert set(reasons) == set(range(1, len(messages), 2))
    assert all(row == rich_row(name) for row in rows.values())


@pytest.mark.long
@each_record
def test_a_message_cut_anywhere_is_refused(name: str) -> None:
    """Half a message would be folded as an event with other values."""
    good = encode_row(name, rich_row(name))
    between(name, [good[:n] for n in range(len(good))])


@each_record
def test_junk_behind_a_message_is_refused(name: str) -> None:
    """Two messages glued together would be folded as the first alone."""
    good = encode_row(name, rich_row(name))
    between(name, [good + junk for junk in (b"\0", b"\x02", b"\xff", good, b"\0" * 40)])


@each_record
def test_a_short_message_does_not_borrow_from_its_neighbour(name: str) -> None:
    """A message a byte short before one a byte long would shift values from one event into the next."""
    good = encode_row(name, rich_row(name))
    # A record ends in a byte 0 where its last field is an array: then the third begins like the Confluent wire format.
    third = "unknown_schema" if good[-1] == 0 else "undecodable"
    assert agreed([good, good[:-1], good[-1:] + good, good])[1] == {1: "undecodable", 2: third}
    assert set(agreed([good[:-1], good[-1:], good])[1]) == {0, 1}
    assert set(agreed([good[:11], good + good[11:]])[1]) == {0, 1}


def test_what_is_no_message_is_refused_with_its_reason() -> None:
    """An operator would not learn why a record was not folded."""
    good = encode_row("user_event", rich_row("user_event"))
    unknown = b"\xc3\x01" + bytes(8) + good[10:]
    messages = [b"", b"\xc3", b"\xc3\x01", good[:9], unknown, good[10:], b'{"type":"used"}', b"\x01" + good, good]
    assert agreed(messages)[1] == {**dict.fromkeys(range(8), "undecodable"), 4: "unknown_schema"}


@pytest.mark.long
def test_an_id_of_a_registry_is_named_and_many_strangers_cost_one_pass() -> None:
    """Where the registry was forgotten in the settings, nearly every message begins otherwise."""
    strangers = [b"\x00" + (17).to_bytes(4, "big") + str(n).encode().rjust(5, b"0") for n in range(50_000)]
    decoded, bad = decode_columns([encode_row("user_event", rich_row("user_event")), *strangers])
    assert [u.row for u in bad] == list(range(1, 50_001))
    assert {u.reason for u in bad} == {"unknown_schema"}
    assert "id 17 of a schema registry" in bad[0].detail
    assert decoded[0].rows.tolist() == [0]


@pytest.mark.long
@each_record_orders_slow
def test_every_flipped_bit_is_judged_alike(name: str) -> None:
    """A damaged message would be an event for one reader of the log and a dead letter for another."""
    good = encode_row(name, rich_row(name))
    flipped = []
    for place in range(10, len(good)):
        for bit in range(8):
            message = bytearray(good)
            message[place] ^= 1 << bit
            flipped.append(bytes(message))
    rows = agreed_with_avro(name, [good, *flipped, good])
    assert rows[0] == rows[len(flipped) + 1] == rich_row(name)
    assert 0 < len(rows) < len(flipped)


@pytest.mark.long
@each_record_orders_slow
@given(data=st.data())
@MANY
def test_every_damaged_message_is_judged_alike(name: str, data: st.DataObject) -> None:
    """A damaged message would shift its neighbours, stop the consumer, or be read two ways."""
    rows = data.draw(st.lists(rows_of(name), min_size=1, max_size=3))
    good = [avro_message(name, row) for row in rows]
    at = data.draw(st.integers(0, len(good) - 1))
    message = good[at]
    start = data.draw(st.integers(10, len(message)))
    end = data.draw(st.integers(start, min(len(message), start + 12)))
    piece = data.draw(st.one_of(st.binary(max_size=12), st.integers(-(2**63), 2**63 - 1).map(zigzag)))
    messages = [*good, message[:start] + piece + message[end:], *good]
    found = agreed_with_avro(name, messages)
    for i, row in enumerate(rows):
        assert found[i] == found[len(rows) + 1 + i] == row


BROKEN_TEXTS = [b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\xf0\x9f\x8e", b"long enough to stand apart \xff", b"\xc0\x80"]


@pytest.mark.parametrize("text", BROKEN_TEXTS, ids=repr)
def test_invalid_utf8_is_refused_wherever_it_stands(text: bytes) -> None:
    """Text that no database can store would stop the consumer for good."""
    place = b"\x00PLACE\x00" + b"x" * len(text)
    row = rich_row("order_event")
    nested: list[Row] = [
        row | {"event_id": place.decode()},
        row | {"region": place.decode()},
        row | {"coupon_ids": ["a", place.decode(), "b"]},
        row | {"discounts": [{"kind": "coupon", "amount_minor": 1, "funder": place.decode()}]},
        row | {"lines": [row["lines"][0], {**row["lines"][1], "category": place.decode()}]},
    ]
    messages = [encode_row("order_event", r) for r in nested]
    assert all(m.count(place) == 1 for m in messages)
    between("order_event", [m.replace(place, text + b"y" * (len(place) - len(text))) for m in messages])
    between("order_event", [m.replace(place, b"y" * (len(place) - len(text)) + text) for m in messages])


HUGE = [2**63 - 1, 2**63 - 12, 2**62, 2**32, 2**31, 2**31 - 1, 100_000, -1, -2, -(2**31), -(2**63), -(2**63) + 1]


@pytest.mark.parametrize("length", HUGE)
def test_absurd_lengths_are_refused(length: int) -> None:
    """Eight bytes of noise would make the consumer reach for exabytes, or outside its buffer."""
    mark = "mark-of-a-text"
    row = rich_row("order_event")
    texts = [row | {"event_id": mark}, row | {"region": mark}, row | {"coupon_ids": [mark]}]
    written = zigzag(len(mark)) + mark.encode()
    messages = [encode_row("order_event", r) for r in texts]
    assert all(m.count(written) == 1 for m in messages)
    between("order_event", [m.replace(written, zigzag(length) + mark.encode()) for m in messages])
    counted = zigzag(1) + written
    if length != -1:  # one item with its size before it, which nobody needs: a message like any other
        count = messages[2].replace(counted, zigzag(length) + written)
        between("order_event", [count])
    sized = messages[2].replace(counted, zigzag(-1) + zigzag(length) + written)
    assert agreed([sized])[0] == {0: row | {"coupon_ids": [mark]}}


@pytest.mark.parametrize("value", [-(2**63), 2**63 - 1, 253_402_300_800_000_000, -62_135_596_800_000_001])
def test_instants_beyond_the_calendar_are_refused(value: int) -> None:
    """An instant that Python cannot hold would stop the consumer (polars panics on it)."""
    for field in ("occurred_at", "valid_until"):
        between("coupon_event", [encode_row("coupon_event", rich_row("coupon_event") | {field: value})])


LONG_NUMBERS = [b"\xff" * 9 + b"\x03", b"\xff" * 9 + b"\x7f", b"\xff" * 10 + b"\x00", b"\x80" * 12 + b"\x01"]


@pytest.mark.parametrize("number", LONG_NUMBERS, ids=bytes.hex)
def test_numbers_beyond_64_bits_are_refused(number: bytes) -> None:
    """An amount would wrap into another amount."""
    row = rich_row("coupon_event") | {"face_value_minor": 2**63 - 1}
    message = encode_row("coupon_event", row)
    assert message.count(zigzag(2**63 - 1)) == 1
    between("coupon_event", [message.replace(zigzag(2**63 - 1), number)])
    padded = message.replace(zigzag(2**63 - 1), b"\x82\x80\x80\x00")
    assert agreed([padded])[0] == {0: row | {"face_value_minor": 1}}


def test_symbols_and_branches_are_not_counted_from_the_end() -> None:
    """A broken type (-1) would be folded as `revoked`, the last one, as many Avro readers would have it."""
    row = rich_row("coupon_event") | {"event_id": "e", "phone_prefix": "x"}
    after = list(row)[list(row).index("phone_prefix") + 1 :]
    row |= dict.fromkeys(after)
    message = encode_row("coupon_event", row)
    head, tail = message[:12], message[13:]
    between("coupon_event", [head + zigzag(code) + tail for code in (-1, -9, 10, 2**40, -(2**63))])
    end = bytes(len(after))
    assert message.endswith(b"\x02\x02x" + end)
    before = message.removesuffix(b"\x02\x02x" + end)
    between("coupon_event", [before + zigzag(b) + b"\x02x" + end for b in (-1, 2, 2**40, -(2**63))])
    assert agreed([before + b"\x82\x00\x02x\x80" + end])[0] == {0: row}
