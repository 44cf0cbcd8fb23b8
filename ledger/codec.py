"""Encodes and decodes events one by one, in Avro's single-object encoding.

A message consists of the bytes C3 01, the fingerprint of the schema that it was written with (CRC-64-AVRO, 8 bytes,
little-endian), and the event in Avro's binary encoding (the body). The fingerprint is looked up among all released
schemas, so that old messages stay readable for ever, and among the schemas of newer releases that `know_writers` has
loaded. Decoded rows have the fields of the current schema (`upcasting.py`).

`columns.py` does the same for many messages at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

from coupon_ledger import schemas
from coupon_ledger.ledger.compatibility import breaches, read_schema
from coupon_ledger.ledger.errors import IncompatibleSchema, SettingsError, UndecodableRecord
from coupon_ledger.ledger.events import Event, canonical_json, parse_json
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER, USER
from coupon_ledger.ledger.upcasting import upcast_row

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
FIRST_INSTANT: Final = -62_135_596_800_000_000
"""0001-01-01 in microseconds since the epoch."""
LAST_INSTANT: Final = 253_402_300_799_999_999
"""The end of 9999-12-31."""
_MICROSECOND: Final = timedelta(microseconds=1)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """A schema that messages are written with. `header`: the bytes that precede the body of each of these messages.
    `version`: the schema's version, from 1; 0 for a schema of a newer release."""

    name: str
    version: int
    schema: schemas.Schema
    header: bytes

    @property
    def topic(self) -> str | None:
        """The input topic whose events this schema describes. None if it describes other records."""
        return TOPIC_OF_SCHEMA.get(self.name)


def single_object_header(schema: schemas.Schema) -> bytes:
    """The 10 bytes with which every message of the schema begins: the marker C3 01 and the schema's fingerprint."""
    from fastavro.schema import fingerprint, to_parsing_canonical_form

    return MARKER + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


@cache
def writer_schemas() -> Mapping[bytes, WriterSchema]:
    """Every schema that this process can read, by the header of its messages."""
    known: dict[bytes, WriterSchema] = {}
    for name in schemas.NAMES:
        for version, schema in enumerate((*schemas.released(name), schemas.current(name)), start=1):
            header = single_object_header(schema)
            known.setdefault(header, WriterSchema(name, version, schema, header))
    return known


_refused_ids: dict[bytes, str] = {}


def refuse_id(prefix: bytes, why: str) -> None:
    """Make this process refuse all messages that begin with `prefix`: a zero byte and the id of a schema in a registry.
    `why`: the reason, which becomes part of the error that `writer_of` raises for them."""
    _refused_ids[prefix] = why


def know_writers(folder: Path) -> None:
    """Load the schemas of a newer release from `folder` (files `NAME.avsc`), so that this process can also read
    messages that were written with them. When it decodes such a message, it drops the fields that this release does not
    know.

    Raises `SettingsError` for a folder or file that cannot be read, `IncompatibleSchema` for a file that is not JSON or
    whose schema is not a compatible later version of the current one (`compatibility.py`).
    """
    if not folder.is_dir():
        raise SettingsError(f"setting writer-schemas: there is no folder {folder}; name one with .avsc files")
    known = cast("dict[bytes, WriterSchema]", writer_schemas())
    for name in schemas.NAMES:
        file = folder / f"{name}.avsc"
        try:
            schema = read_schema(file) if file.is_file() else schemas.current(name)
        except OSError as error:
            raise SettingsError(
                f"setting writer-schemas: file {file} cannot be read ({error.strerror}); check its rights"
            ) from error
        if schema in (*schemas.released(name), schemas.current(name)):
            continue
        for breach in breaches(name, schema, schemas.current(name)):
            raise IncompatibleSchema(f"setting writer-schemas: file {file} is no newer version of ours: {breach}")
        header = single_object_header(schema)
        known[header] = WriterSchema(name, 0, schema, header)


@cache
def current_writer(name: str) -> WriterSchema:
    return writer_schemas()[single_object_header(schemas.current(name))]


def micros(instant: datetime) -> int:
    """The instant in whole microseconds since the epoch."""
    return (instant - EPOCH) // _MICROSECOND


def encode(event: Event) -> bytes:
    """Encode an event as a message."""
    row = event.__dict__
    texts = {field: canonical_json(row[field]) for field in JSON_FIELDS if row.get(field) is not None}
    return encode_row(SCHEMA_NAME[event.topic], {**row, **texts} if texts else row)


def encode_row(name: str, row: Mapping[str, Any]) -> bytes:
    """Encode a record of the schema `name` as a message. Fields missing from `row` become null. JSON fields must be
    given as text."""
    out: list[bytes] = [current_writer(name).header]
    for field, write in _fields(name):
        write(row.get(field), out)
    return b"".join(out)


def decode(message: bytes) -> tuple[WriterSchema, Row]:
    """Decode a message. Returns the schema that the message was written with, and a row with the fields of the current
    schema.

    In the row, instants are aware datetimes, and JSON fields are still text. Raises `UndecodableRecord` unless the
    message is exactly one record.
    """
    writer = writer_of(message)
    body = _Body(message, HEADER_BYTES)
    try:
        row = {name: read(body) for name, read in _readers(writer.header)}
    except (ValueError, IndexError, OverflowError) as error:
        raise UndecodableRecord(f"the body is no {writer.name}: {error}") from error
    surplus = len(message) - body.at
    if surplus:
        raise UndecodableRecord(f"{surplus} bytes too many after the {writer.name}")
    return writer, upcast_row(writer.name, writer.version, row, writer.schema["fields"], _names(writer.name))


def decode_some(message: bytes) -> tuple[WriterSchema | None, Row]:
    """Decode as much as possible of a message that may be broken. Returns the schema that it was written with (None if
    unknown), and the fields before the first one that cannot be read."""
    row: Row = {}
    try:
        writer = writer_of(message)
    except UndecodableRecord:
        return None, row
    body = _Body(message, HEADER_BYTES)
    with suppress(ValueError, IndexError, OverflowError):
        for name, read in _readers(writer.header):
            row[name] = read(body)
    return writer, row


def writer_of(message: bytes) -> WriterSchema:
    """The schema that the message was written with, found by the message's header. Raises `UndecodableRecord` if the
    schema is unknown."""
    writer = writer_schemas().get(message[:HEADER_BYTES])
    if writer is not None:
        return writer
    if not message:
        raise UndecodableRecord("the record has no value")
    if message[0] == 0 and len(message) >= 5:
        number = int.from_bytes(message[1:5], "big")
        why = _refused_ids.get(message[:5], "set schema-registry to read the Confluent wire format")
        raise UndecodableRecord(f"unknown schema: id {number} of a schema registry: {why}", reason="unknown_schema")
    if message[:2] != MARKER or len(message) < HEADER_BYTES:
        raise UndecodableRecord("the value is no Avro single-object message (it must begin with C3 01)")
    raise UndecodableRecord(
        f"unknown schema: fingerprint {message[2:HEADER_BYTES].hex()}; a newer release may know it: update this one,"
        " then `coupon-ledger dead-letters replay`",
        reason="unknown_schema",
    )


def event_data(row: Row) -> Row:
    """The data of an event from its decoded row: without nulls, and with JSON fields parsed.

    Raises `UndecodableRecord` if a JSON field is not valid JSON.
    """
    data = {k: v for k, v in row.items() if v is not None}
    for field in JSON_FIELDS & data.keys():
        try:
            data[field] = parse_json(data[field])
        except (ValueError, RecursionError) as error:
            raise UndecodableRecord(f"{field}: no JSON ({error})", reason="invalid_event") from error
    return data


# Reading: one small function per field, composed once per schema. Stricter than many Avro readers: refuses numbers
# beyond 64 bits, and negative indexes of branches and symbols.
class _Body:
    """A message that is being decoded. `at`: the index of the next byte to read."""

    __slots__ = ("at", "message")

    def __init__(self, message: bytes, at: int) -> None:
        self.message = message
        self.at = at

    def long(self) -> int:
        """Read the next integer (zigzag, variable length). Raises `IndexError` if the message ends within it,
        `OverflowError` if it needs more than 64 bits."""
        value = shift = 0
        while (byte := self.message[self.at]) > 0x7F and shift < 63:
            value |= (byte & 0x7F) << shift
            shift += 7
            self.at += 1
        if shift == 63 and byte > 1:
            raise OverflowError("a number is beyond 64 bits")
        self.at += 1
        value |= byte << shift
        return (value >> 1) ^ -(value & 1)

    def bytes(self) -> bytes:
        length = self.long()
        end = self.at + length
        if not self.at <= end <= len(self.message):
            raise ValueError(f"a text of {length} bytes, but {len(self.message) - self.at} are left")
        start, self.at = self.at, end
        return self.message[start:end]


Read = Callable[[_Body], Any]


@cache
def _readers(header: bytes) -> tuple[tuple[str, Read], ...]:
    return _fields_of(writer_schemas()[header].schema)


def _fields_of(schema: schemas.Schema) -> tuple[tuple[str, Read], ...]:
    return tuple((f["name"], _reader(f["type"])) for f in schema["fields"])


def _reader(kind: Any) -> Read:
    if isinstance(kind, list):
        return _read_nullable(_reader(kind[1]))
    if kind == "string":
        return lambda body: body.bytes().decode()
    if kind == "bytes":
        return _Body.bytes
    if kind in ("long", "int"):
        return _Body.long
    if kind["type"] == "long":
        return _read_instant
    if kind["type"] == "enum":
        return _read_symbol(tuple(kind["symbols"]))
    if kind["type"] == "array":
        return _read_array(_reader(kind["items"]))
    fields = _fields_of(kind)
    return lambda body: {name: read(body) for name, read in fields}


def _read_nullable(read: Read) -> Read:
    def optional(body: _Body) -> Any:
        branch = body.long()
        if branch not in (0, 1):
            raise ValueError(f"branch {branch} of a union of two")
        return read(body) if branch else None

    return optional


def _read_instant(body: _Body) -> datetime:
    value = body.long()
    if not FIRST_INSTANT <= value <= LAST_INSTANT:
        raise ValueError("an instant lies outside the years 1 to 9999")
    return EPOCH + timedelta(microseconds=value)


def _read_symbol(symbols: tuple[str, ...]) -> Read:
    def symbol(body: _Body) -> str:
        code = body.long()
        if not 0 <= code < len(symbols):
            raise ValueError(f"symbol {code} of {len(symbols)}")
        return symbols[code]

    return symbol


def _read_array(read: Read) -> Read:
    def items(body: _Body) -> list[Any]:
        values: list[Any] = []
        while count := body.long():
            if count < 0:  # the block's size in bytes follows; it is not needed here
                count = -count
                body.long()
            if count > len(body.message) - body.at:
                raise ValueError(f"an array of {count} items, but {len(body.message) - body.at} bytes are left")
            values += [read(body) for _ in range(count)]
        return values

    return items


# Writing: one small function per field, composed once per schema.
Write = Callable[[Any, list[bytes]], None]


@cache
def _names(name: str) -> tuple[str, ...]:
    return tuple(f["name"] for f in schemas.current(name)["fields"])


@cache
def _fields(name: str) -> tuple[tuple[str, Write], ...]:
    return tuple((f["name"], _writer(f["type"])) for f in schemas.current(name)["fields"])


def varint(value: int) -> bytes:
    """Encode a 64-bit integer as Avro does: zigzag, variable length."""
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


def _writer(kind: Any) -> Write:
    if isinstance(kind, list):
        return _nullable(_writer(kind[1]))
    if kind == "string":
        return _text
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
        return _array(_writer(kind["items"]))
    return _record(tuple((f["name"], _writer(f["type"])) for f in kind["fields"]))


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
