"""Avro single-object encoding of events, row by row.

A message is C3 01, the 8-byte little-endian CRC-64-AVRO fingerprint of its writer's schema, then the Avro body.
The fingerprint is looked up among all released schemas, so that old messages stay readable for ever.
`columns.py` does the same for many messages at once.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import fastavro
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

import schemas
from ledger.errors import UndecodableRecord
from ledger.events import Event, canonical_json
from ledger.topics import CAMPAIGN, COUPON, ORDER, USER

MARKER: Final = b"\xc3\x01"
HEADER_BYTES: Final = 10
SCHEMA_NAME: Final = {
    COUPON: "coupon_event",
    ORDER: "order_event",
    CAMPAIGN: "campaign_event",
    USER: "user_event",
}
TOPIC_OF_SCHEMA: Final = {name: topic for topic, name in SCHEMA_NAME.items()}
JSON_FIELDS: Final = frozenset({"attributes", "applies_to", "funded_by"})
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """A schema that a message can be written with; `header` stands before each such body."""

    name: str
    version: int
    schema: schemas.Schema
    header: bytes

    @property
    def topic(self) -> str | None:
        """The input topic whose events it describes; None for other records."""
        return TOPIC_OF_SCHEMA.get(self.name)


def single_object_header(schema: schemas.Schema) -> bytes:
    """Marker and fingerprint of that schema (10 bytes)."""
    return MARKER + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


@cache
def writer_schemas() -> Mapping[bytes, WriterSchema]:
    """Every schema that this version can read, by header."""
    known: dict[bytes, WriterSchema] = {}
    for name in schemas.NAMES:
        for version, schema in enumerate((*schemas.released(name), schemas.current(name)), start=1):
            header = single_object_header(schema)
            known.setdefault(header, WriterSchema(name, version, schema, header))
    return known


@cache
def current_writer(name: str) -> WriterSchema:
    return writer_schemas()[single_object_header(schemas.current(name))]


def micros(instant: datetime) -> int:
    """Microseconds since the epoch, exact."""
    return (instant - EPOCH) // _MICROSECOND


def encode(event: Event) -> bytes:
    """The message of that event."""
    return encode_row(SCHEMA_NAME[event.topic], event.__dict__)


def encode_row(name: str, row: Mapping[str, Any]) -> bytes:
    """The message of a record of that schema; fields that `row` lacks are null."""
    out: list[bytes] = [current_writer(name).header]
    for field, write in _fields(name):
        write(row.get(field), out)
    return b"".join(out)


def decode(message: bytes) -> tuple[WriterSchema, Row]:
    """The writer's schema and the row (instants as aware datetimes, JSON fields still text).

    Raises `UndecodableRecord` for anything but exactly one record.
    """
    writer = writer_of(message)
    body = io.BytesIO(message)
    body.seek(HEADER_BYTES)
    try:
        row = fastavro.schemaless_reader(body, _parsed(writer.header), None)
    except Exception as error:  # fastavro raises many kinds on bad bytes, each means the same here
        raise UndecodableRecord(f"the body is no {writer.name}: {type(error).__name__} {error}") from error
    surplus = len(message) - body.tell()
    if surplus:
        raise UndecodableRecord(f"{surplus} bytes too many after the {writer.name}")
    assert isinstance(row, dict)
    return writer, row


def writer_of(message: bytes) -> WriterSchema:
    """Raises `UndecodableRecord` where the header names no schema that is known."""
    writer = writer_schemas().get(message[:HEADER_BYTES])
    if writer is not None:
        return writer
    if not message:
        raise UndecodableRecord("the record has no value")
    if message[:2] != MARKER or len(message) < HEADER_BYTES:
        raise UndecodableRecord("the value is no Avro single-object message (it must begin with C3 01)")
    raise UndecodableRecord(
        f"unknown schema: fingerprint {message[2:HEADER_BYTES].hex()}", reason="unknown_schema"
    )


def event_data(row: Row) -> Row:
    """A decoded row as the data of an event: without nulls, JSON fields parsed.

    Raises `UndecodableRecord` where a JSON field holds no JSON.
    """
    data = {k: v for k, v in row.items() if v is not None}
    for field in JSON_FIELDS & data.keys():
        try:
            data[field] = json.loads(data[field])
        except (ValueError, RecursionError) as error:
            raise UndecodableRecord(f"{field}: no JSON ({error})", reason="invalid_event") from error
    return data


@cache
def _parsed(header: bytes) -> Any:
    return parse_schema(writer_schemas()[header].schema)


# Writing: one small function per field, put together once per schema.
Write = Callable[[Any, list[bytes]], None]


@cache
def _fields(name: str) -> tuple[tuple[str, Write], ...]:
    return tuple((f["name"], _writer(f["type"], f["name"])) for f in schemas.current(name)["fields"])


def varint(value: int) -> bytes:
    """Zigzag variable-length encoding of a 64-bit integer."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_SMALL: Final = tuple(varint(n) for n in range(1024))


def _length(n: int) -> bytes:
    return _SMALL[n] if n < 1024 else varint(n)


def _writer(kind: Any, field: str) -> Write:
    if isinstance(kind, list):
        return _nullable(_writer(kind[1], field))
    if kind == "string":
        return _json_text if field in JSON_FIELDS else _text
    if kind == "bytes":
        return _bytes
    if kind in ("long", "int"):
        return lambda value, out: out.append(varint(value))
    if kind["type"] == "long":
        return lambda value, out: out.append(varint(value if isinstance(value, int) else micros(value)))
    if kind["type"] == "enum":
        codes = {symbol: varint(i) for i, symbol in enumerate(kind["symbols"])}
        return lambda value, out: out.append(codes[value])
    if kind["type"] == "array":
        return _array(_writer(kind["items"], field))
    return _record(tuple((f["name"], _writer(f["type"], f["name"])) for f in kind["fields"]))


def _nullable(write: Write) -> Write:
    def optional(value: Any, out: list[bytes]) -> None:
        if value is None:
            out.append(b"\x00")
        else:
            out.append(b"\x02")
            write(value, out)

    return optional


def _text(value: str, out: list[bytes]) -> None:
    data = value.encode()
    out.append(_length(len(data)))
    out.append(data)


def _bytes(value: bytes, out: list[bytes]) -> None:
    out.append(_length(len(value)))
    out.append(value)


def _json_text(value: Any, out: list[bytes]) -> None:
    _text(value if isinstance(value, str) and value != "all" else canonical_json(value), out)


def _array(write: Write) -> Write:
    def items(value: Any, out: list[bytes]) -> None:
        if value:
            out.append(_length(len(value)))
            for item in value:
                write(item, out)
        out.append(b"\x00")

    return items


def _record(fields: tuple[tuple[str, Write], ...]) -> Write:
    def record(value: Any, out: list[bytes]) -> None:
        row = value if isinstance(value, Mapping) else value.__dict__
        for field, write in fields:
            write(row.get(field), out)

    return record
