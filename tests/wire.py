"""Events as they stand on the wire: what Hypothesis may draw, and an Avro writer of our own, unlike the ledger's.

Drawn rows follow the schemas alone, not the rules: everything that Avro can hold, valid or not.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import fastavro
from hypothesis import strategies as st

from coupon_ledger import schemas
from coupon_ledger.ledger.codec import JSON_FIELDS, SCHEMA_NAME, current_writer
from coupon_ledger.ledger.topics import INPUT_TOPICS

Row = dict[str, Any]

NAMES = tuple(SCHEMA_NAME[topic] for topic in INPUT_TOPICS)
INT64_MAX = 2**63 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TEXTS = st.one_of(
    st.sampled_from(
        ["", "a", "twelve bytes", "thirteen byte", "优惠券", "🎟️", "\U0010ffff", "\uffff", "\x00", "é" * 6, "x" * 300]
    ),
    st.text(max_size=20),
)
LONGS = st.one_of(
    st.sampled_from([0, 1, -1, 63, 64, -64, -65, 8191, 8192, 2**31, 2**56 - 1, 2**56, INT64_MAX, -INT64_MAX - 1]),
    st.integers(-INT64_MAX - 1, INT64_MAX),
)
INSTANTS = st.one_of(
    st.sampled_from([EPOCH, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]),
    st.integers(-(10**12), 2 * 10**15).map(lambda us: EPOCH + timedelta(microseconds=us)),
)
JSON_TEXTS = st.sampled_from(['{"b":1,"a":[true,null]}', '"all"', "{}", "", "no JSON", "null", '{"券":"🎟️"}'])


@cache
def rows_of(name: str) -> st.SearchStrategy[Row]:
    """Rows of that record: every field there, nullable ones often null."""
    return _record(schemas.current(name))


def _record(schema: schemas.Schema) -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries({f["name"]: _value(f["type"], f["name"]) for f in schema["fields"]})


def _value(kind: Any, field: str) -> st.SearchStrategy[Any]:
    if isinstance(kind, list):
        return st.one_of(st.none(), _value(kind[1], field))
    if kind == "string":
        return JSON_TEXTS if field in JSON_FIELDS else TEXTS
    if kind in ("long", "int"):
        return LONGS
    if kind["type"] == "long":
        return INSTANTS
    if kind["type"] == "enum":
        return st.sampled_from(kind["symbols"])
    if kind["type"] == "array":
        items = _value(kind["items"], field)
        return st.one_of(st.just([]), st.lists(items, max_size=4), items.map(lambda item: [item] * 130))
    return _record(kind)


@cache
def parsed(name: str) -> Any:
    """The current schema as fastavro takes it."""
    return fastavro.parse_schema(schemas.current(name))


def avro_message(name: str, row: Row) -> bytes:
    """The message as fastavro writes it."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, parsed(name), row)
    return current_writer(name).header + body.getvalue()


def avro_row(name: str, message: bytes) -> Row:
    """The row as fastavro reads it. Raises whatever fastavro raises; ValueError for bytes behind the row."""
    body = io.BytesIO(message[10:])
    row = fastavro.schemaless_reader(body, parsed(name), None)
    if body.read(1):
        raise ValueError("bytes behind the row")
    assert isinstance(row, dict)
    return row


def zigzag(value: int) -> bytes:
    """A long as the Avro specification words it, bit by bit."""
    rest = 2 * value if value >= 0 else -2 * value - 1
    out = b""
    while rest >= 128:
        out += bytes([rest % 128 + 128])
        rest //= 128
    return out + bytes([rest])


def block_message(name: str, row: Row, blocks: Callable[[int], list[int]]) -> bytes:
    """The message as an Avro writer may also make it: arrays in blocks. `blocks(n)` cuts n items into counts; a
    negative count stands for a block with its size in bytes."""
    return current_writer(name).header + _written(schemas.current(name), row, blocks)


def _written(kind: Any, value: Any, blocks: Callable[[int], list[int]]) -> bytes:
    """The bytes of that value; one branch a kind of Avro type."""
    if isinstance(kind, list):
        return zigzag(0) if value is None else zigzag(1) + _written(kind[1], value, blocks)
    if kind == "string":
        text: bytes = value.encode()
        return zigzag(len(text)) + text
    if kind in ("long", "int"):
        return zigzag(value)
    if kind["type"] == "long":
        return zigzag((value - EPOCH) // timedelta(microseconds=1))
    if kind["type"] == "enum":
        return zigzag(kind["symbols"].index(value))
    if kind["type"] == "array":
        items = [_written(kind["items"], item, blocks) for item in value]
        return _in_blocks(items, blocks(len(items)))
    return b"".join(_written(f["type"], value[f["name"]], blocks) for f in kind["fields"])


def _in_blocks(items: list[bytes], counts: list[int]) -> bytes:
    out, at = b"", 0
    for count in counts:
        block = b"".join(items[at : at + abs(count)])
        out += zigzag(count) + (zigzag(len(block)) if count < 0 else b"") + block
        at += abs(count)
    assert at == len(items), "the counts cover all items"
    return out + zigzag(0)


def rich_row(name: str) -> Row:
    """One row of that record with a value in every field, short and long ones, distinct."""
    number = 0

    def value(kind: Any, field: str) -> Any:
        nonlocal number
        number += 1
        if isinstance(kind, list):
            return value(kind[1], field)
        if kind == "string":
            return '{"a":1}' if field in JSON_FIELDS else f"{field[:4]}-{number}" + "长🎟️" * (number % 3)
        if kind == "bytes":
            return bytes([number, 255, 0]) * number
        if kind in ("long", "int"):
            return 7**number % (INT64_MAX if kind == "long" else 2**31) * (-1) ** number
        if kind["type"] == "long":
            return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number, microseconds=number)
        if kind["type"] == "enum":
            return kind["symbols"][1]
        if kind["type"] == "array":
            return [value(kind["items"], field) for _ in range(2)]
        return {f["name"]: value(f["type"], f["name"]) for f in kind["fields"]}

    return {f["name"]: value(f["type"], f["name"]) for f in schemas.current(name)["fields"]}
