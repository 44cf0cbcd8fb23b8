"""Avro single-object encoding of events, by columns: many messages to one Arrow table and back.

The same encoding as in `codec.py` (the row codec), but each field is read for all messages at once. Each message has a
cursor that never leaves its body. So a message that is too short, too long or otherwise broken cannot affect how the
messages beside it are read. The row codec then decodes the broken message by itself, or refuses it.

The sections Reading and Writing mirror each other: one pair of functions per kind of Avro type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from coupon_ledger import schemas
from coupon_ledger.ledger.codec import (
    FIRST_INSTANT,
    HEADER_BYTES,
    LAST_INSTANT,
    SCHEMA_NAME,
    WriterSchema,
    current_writer,
    decode,
    writer_of,
    writer_schemas,
)
from coupon_ledger.ledger.errors import UndecodableRecord
from coupon_ledger.ledger.events import MAX_ITEMS
from coupon_ledger.ledger.upcasting import upcast_columns

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
UInt8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_HIGH_BITS: Final = np.uint64(0x8080808080808080)
_LOW_BITS: Final = np.uint64(0x7F7F7F7F7F7F7F7F)
_ONE: Final = np.uint64(1)
_PADDING: Final = b"\0" * 24
_AT_ONCE: Final = 16_384
"""Number of messages that are read together. One field of this many messages fits in the processor's cache, which is a
third faster than reading a hundred thousand messages at once."""


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A message that is not a record. `row`: its index in the input. `reason`: a short code. `detail`: the reason in
    words."""

    row: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """The decoded messages of one schema, as columns. `name`: the schema's name.

    `frame`: one row per message, with the fields of the current schema (`type` as text, instants as UTC microseconds).
    `rows`: for each row of `frame`, the index of its message in the input; ascending, int64.
    """

    name: str
    rows: Int64
    frame: pl.DataFrame


def decode_columns(messages: Sequence[bytes]) -> tuple[list[Decoded], list[Undecodable]]:
    """Decode messages. Returns the records, grouped by the name of their schema, and the messages that are not records.
    Every message of the input is in exactly one of these two lists."""
    bad: list[Undecodable] = []
    frames: dict[str, list[tuple[Int64, pl.DataFrame]]] = {}
    for writer, rows in _by_writer(messages, bad):
        group = messages if len(rows) == len(messages) else [messages[i] for i in rows]
        record_parts = frames.setdefault(writer.name, [])
        for start in range(0, len(group), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            frame, broken = _read_messages(writer, group[start : start + _AT_ONCE])
            frame = upcast_columns(writer.name, writer.version, frame, polars_schema(writer.name))
            if broken.any():
                record_parts.append((part[~broken], frame))
                record_parts += _row_by_row(part[broken], messages, bad)
            else:
                record_parts.append((part, frame))
    return [_joined(name, parts) for name, parts in frames.items()], bad


def _by_writer(messages: Sequence[bytes], bad: list[Undecodable]) -> list[tuple[WriterSchema, Int64]]:
    headers = [m[:HEADER_BYTES] for m in messages]
    known = writer_schemas()
    distinct = set(headers)
    strangers = distinct - known.keys()
    if len(distinct) == 1 and not strangers:
        return [(known[headers[0]], np.arange(len(messages)))]
    # One pass for all unknown headers, since nearly every foreign message may have a header of its own.
    for i, header in enumerate(headers if strangers else ()):
        if header in strangers:
            bad.append(_stranger(i, header))
    return [
        (known[header], np.array([i for i, h in enumerate(headers) if h == header], dtype=np.int64))
        for header in distinct & known.keys()
    ]


def _stranger(row: int, header: bytes) -> Undecodable:
    try:
        writer = writer_of(header)
    except UndecodableRecord as error:
        return Undecodable(row, error.reason, str(error))
    raise AssertionError(f"{writer.name} is known")


def _row_by_row(rows: Int64, messages: Sequence[bytes], bad: list[Undecodable]) -> list[tuple[Int64, pl.DataFrame]]:
    parts = []
    for i in rows:
        try:
            writer, row = decode(messages[i])
            frame = pl.DataFrame([row], schema=polars_schema(writer.name))
        except UndecodableRecord as error:
            bad.append(Undecodable(int(i), error.reason, str(error)))
        else:
            parts.append((np.array([i]), frame))
    return parts


def _joined(name: str, parts: list[tuple[Int64, pl.DataFrame]]) -> Decoded:
    rows = np.concatenate([r for r, _ in parts])
    frame = pl.concat([f for _, f in parts])
    if (rows[1:] < rows[:-1]).any():
        order = np.argsort(rows, kind="stable")
        rows, frame = rows[order], frame[order]
    return Decoded(name, rows, frame)


@cache
def polars_schema(name: str) -> pl.Schema:
    """The current schema `name` as a Polars schema."""
    return frame_schema(schemas.current(name)["fields"])


def frame_schema(fields: Sequence[Mapping[str, Any]]) -> pl.Schema:
    """The Polars schema of a frame that has these Avro fields as columns."""
    frame = pl.from_arrow(_arrow_schema(fields).empty_table())
    assert isinstance(frame, pl.DataFrame)
    return frame.schema


def _arrow_schema(fields: Sequence[Mapping[str, Any]]) -> pa.Schema:
    return pa.schema([pa.field(f["name"], arrow_type(f["type"])) for f in fields])


def arrow_type(kind: Any) -> pa.DataType:
    if isinstance(kind, list):
        return arrow_type(kind[1])
    if kind == "string":
        return pa.string_view()
    if kind == "bytes":
        return pa.binary_view()
    if kind in ("long", "int"):
        return pa.int64()
    if kind["type"] == "long":
        return pa.timestamp("us", tz="UTC")
    if kind["type"] == "enum":
        return pa.string_view()
    if kind["type"] == "array":
        return pa.list_(arrow_type(kind["items"]))
    return pa.struct([pa.field(f["name"], arrow_type(f["type"])) for f in kind["fields"]])


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────


class Cursors:
    """How far each of many messages has been read. All messages are in one buffer, and each has a cursor. `at`: per
    message, the index of the next byte; `end`: per message, the index after its last byte. A cursor never passes its
    `end`. `bad`: per message, whether it is broken."""

    def __init__(self, source: _MessageBytes, at: Int64, end: Int64) -> None:
        self.source = source
        self.at = at
        self.end = end
        self.bad = np.zeros(len(at), dtype=np.bool_)

    def __len__(self) -> int:
        return len(self.at)

    def move(self, by: Int64) -> None:
        """Advance each cursor by its number of bytes in `by` (not negative, up to 64 bits). If a cursor would pass the
        end of its message, it stops there and the message becomes bad."""
        left = self.end - self.at
        self.fail(by > left)
        self.at = self.at + np.minimum(by, left)

    def fail(self, rows: Mask) -> None:
        self.bad |= rows

    def part(self, rows: Int64) -> Cursors:
        return Cursors(self.source, self.at[rows], self.end[rows])

    def rejoin(self, rows: Int64, part: Cursors) -> None:
        self.at[rows] = part.at
        self.bad[rows] |= part.bad


class _MessageBytes:
    """The bytes of all messages, joined and padded at the end. `words[i]`: the eight bytes from index i on, as a
    little-endian integer."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.bytes: UInt8 = np.frombuffer(data, dtype=np.uint8)
        self.words: UInt64 = np.ndarray((len(data) - 7,), dtype="<u8", buffer=data, strides=(1,))
        self.buffer = pa.py_buffer(data)


def _read_messages(writer: WriterSchema, messages: Sequence[bytes]) -> tuple[pl.DataFrame, Mask]:
    """Read messages that were written with the schema `writer`. Returns the valid messages as rows of a frame, and a
    mask that is True for each broken message."""
    lengths = np.fromiter(map(len, messages), dtype=np.int64, count=len(messages))
    end = np.cumsum(lengths)
    source = _MessageBytes(b"".join([*messages, _PADDING]))
    cursors = Cursors(source, end - lengths + HEADER_BYTES, end)
    fields = writer.schema["fields"]
    arrays = [_read(f["type"], cursors) for f in fields]
    cursors.fail(cursors.at != end)
    table = pa.Table.from_arrays(
        [a.arrow(None) for a in arrays],
        schema=_arrow_schema(fields),
    )
    broken = cursors.bad | _not_utf8(table)
    if broken.any():  # a frame must not hold invalid UTF-8: read the valid messages by themselves
        frame, _ = _read_messages(writer, [m for m, b in zip(messages, broken, strict=True) if not b])
        return frame, broken
    decoded = pl.from_arrow(table)
    assert isinstance(decoded, pl.DataFrame)
    return decoded, broken


def _not_utf8(table: pa.Table) -> Mask:
    bad = np.zeros(len(table), dtype=np.bool_)
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        for i in range(len(table)):
            try:
                table.slice(i, 1).validate(full=True)
            except pa.ArrowInvalid:
                bad[i] = True
    return bad


@dataclass(slots=True)
class _Longs:
    values: Int64
    type: pa.DataType

    def spread(self, rows: Int64, n: int) -> _Longs:
        values = np.zeros(n, dtype=np.int64)
        values[rows] = self.values
        return _Longs(values, self.type)

    def arrow(self, valid: Mask | None) -> pa.Array:
        return pa.Array.from_buffers(self.type, len(self.values), [_bitmap(valid), pa.py_buffer(self.values)])


@dataclass(slots=True)
class _Texts:
    """A column of texts, as Arrow string views. `views`: two 64-bit words per text, in the Arrow columnar format's
    "Variable-size Binary View Layout"."""

    views: UInt64
    source: _MessageBytes
    type: pa.DataType

    def spread(self, rows: Int64, n: int) -> _Texts:
        views = np.zeros((n, 2), dtype=np.uint64)
        views[rows] = self.views
        return _Texts(views, self.source, self.type)

    def arrow(self, valid: Mask | None) -> pa.Array:
        return pa.Array.from_buffers(
            self.type,
            len(self.views),
            [_bitmap(valid), pa.py_buffer(self.views), self.source.buffer],
        )


@dataclass(slots=True)
class _Lists:
    lengths: Int64
    items: pa.Array

    def spread(self, rows: Int64, n: int) -> _Lists:
        lengths = np.zeros(n, dtype=np.int64)
        lengths[rows] = self.lengths
        return _Lists(lengths, self.items)

    def arrow(self, valid: Mask | None) -> pa.Array:
        offsets = np.zeros(len(self.lengths) + 1, dtype=np.int32)
        np.cumsum(self.lengths, out=offsets[1:])
        return pa.Array.from_buffers(
            pa.list_(self.items.type),
            len(self.lengths),
            [_bitmap(valid), pa.py_buffer(offsets)],
            children=[self.items],
        )


@dataclass(slots=True)
class _Nullable:
    values: _Longs | _Texts | _Lists
    valid: Mask

    def arrow(self, valid: Mask | None) -> pa.Array:
        return self.values.arrow(self.valid if valid is None else self.valid & valid)


@dataclass(slots=True)
class _Records:
    columns: list[_Column]
    type: pa.DataType
    n: int

    def arrow(self, valid: Mask | None) -> pa.Array:
        assert valid is None
        return pa.Array.from_buffers(self.type, self.n, [None], children=[c.arrow(None) for c in self.columns])


_Column = _Longs | _Texts | _Lists | _Nullable | _Records


def _bitmap(valid: Mask | None) -> pa.Buffer | None:
    return None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _read(kind: Any, cursors: Cursors) -> _Column:
    if isinstance(kind, list):
        return _read_nullable(kind[1], cursors)
    if kind in ("string", "bytes"):
        return _read_texts(arrow_type(kind), cursors)
    if kind in ("long", "int"):
        return _Longs(_read_longs(cursors), arrow_type(kind))
    if kind["type"] == "long":
        return _read_instants(arrow_type(kind), cursors)
    if kind["type"] == "enum":
        return _read_enum(kind["symbols"], cursors)
    if kind["type"] == "array":
        return _read_arrays(kind["items"], cursors)
    columns = [_read(f["type"], cursors) for f in kind["fields"]]
    return _Records(columns, arrow_type(kind), len(cursors))


def _read_longs(cursors: Cursors) -> Int64:
    """Read the next integer of every message (zigzag, variable length, up to ten bytes)."""
    source, at = cursors.source, cursors.at
    word = source.words[at]
    last = ~word & _HIGH_BITS
    last &= ~last + _ONE
    size = (np.bitwise_count(last - _ONE) >> 3).astype(np.int64) + 1
    value = word & ((last << _ONE) - _ONE) & _LOW_BITS
    # Close the gaps left by the continuation bits: join groups of seven bits in pairs.
    value = (value & np.uint64(0x007F007F007F007F)) | ((value & np.uint64(0x7F007F007F007F00)) >> _ONE)
    value = (value & np.uint64(0x00003FFF00003FFF)) | ((value & np.uint64(0x3FFF00003FFF0000)) >> np.uint64(2))
    value = (value & np.uint64(0x000000000FFFFFFF)) | ((value & np.uint64(0x0FFFFFFF00000000)) >> np.uint64(4))
    long = np.flatnonzero(last == 0)
    if long.size:
        ninth = source.bytes[at[long] + 8].astype(np.uint64)
        tenth = source.bytes[at[long] + 9].astype(np.uint64)
        more = ninth >= 128
        value[long] |= (ninth & np.uint64(127)) << np.uint64(56)
        value[long] |= np.where(more, tenth & _ONE, np.uint64(0)) << np.uint64(63)
        size[long] = np.where(more, 10, 9)
        cursors.bad[long] |= more & (tenth > 1)
    cursors.move(size)
    return (value >> _ONE).view(np.int64) ^ -(value & _ONE).view(np.int64)


def _read_instants(kind: pa.DataType, cursors: Cursors) -> _Longs:
    values = _read_longs(cursors)
    cursors.fail((values < FIRST_INSTANT) | (values > LAST_INSTANT))
    return _Longs(values, kind)


def _read_texts(kind: pa.DataType, cursors: Cursors) -> _Texts:
    length = _read_longs(cursors)
    cursors.fail(length < 0)
    start = cursors.at
    cursors.move(np.maximum(length, 0))
    length = cursors.at - start
    words = cursors.source.words
    inline = length <= 12
    first = words[start] & np.uint64(0xFFFFFFFF) & _low_bytes(np.minimum(length, 4))
    rest = words[start + 4] & _low_bytes(np.clip(length - 4, 0, 8))
    views = np.empty((len(start), 2), dtype=np.uint64)
    views[:, 0] = length.astype(np.uint64) | (first << np.uint64(32))
    views[:, 1] = np.where(inline, rest, start.astype(np.uint64) << np.uint64(32))
    return _Texts(views, cursors.source, kind)


_LOW_BYTES: Final = np.array([(1 << (8 * k)) - 1 for k in range(9)], dtype=np.uint64)


def _low_bytes(count: Int64) -> UInt64:
    return _LOW_BYTES[count]


def _read_enum(symbols: list[str], cursors: Cursors) -> _Texts:
    codes = _read_longs(cursors)
    unknown = (codes < 0) | (codes >= len(symbols))
    cursors.fail(unknown)
    # The symbols are texts in a source of their own, which all rows share.
    data = "".join(symbols).encode() + _PADDING
    source = _MessageBytes(data)
    lengths = np.array([len(s.encode()) for s in symbols], dtype=np.int64)
    start = np.cumsum(lengths) - lengths
    names = np.empty((len(symbols), 2), dtype=np.uint64)
    assert lengths.max() <= 12, "symbols longer than 12 bytes are not inline"
    names[:, 0] = lengths.astype(np.uint64) | (
        (source.words[start] & np.uint64(0xFFFFFFFF) & _low_bytes(np.minimum(lengths, 4))) << np.uint64(32)
    )
    names[:, 1] = source.words[start + 4] & _low_bytes(np.clip(lengths - 4, 0, 8))
    return _Texts(names[np.where(unknown, 0, codes)], source, pa.string_view())


def _read_nullable(kind: Any, cursors: Cursors) -> _Nullable:
    tag = cursors.source.bytes[cursors.at]
    cursors.fail((tag != 0) & (tag != 2))
    cursors.move(np.ones(len(cursors), dtype=np.int64))
    valid = tag == 2
    rows = np.flatnonzero(valid)
    if len(rows) == len(valid):
        column = _read(kind, cursors)
        assert not isinstance(column, _Nullable | _Records)
        return _Nullable(column, valid)
    part = cursors.part(rows)
    column = _read(kind, part)
    assert not isinstance(column, _Nullable | _Records)
    cursors.rejoin(rows, part)
    return _Nullable(column.spread(rows, len(cursors)), valid)


def _read_arrays(kind: Any, cursors: Cursors) -> _Lists:
    """Read one array from every message: first the first item of every array, then the second item of every array that
    has one, and so on.

    Each round reads one item per array, so the number of rounds must be limited. A message becomes bad if its array is
    longer than any valid event may have (`MAX_ITEMS`). The row codec then decodes that message.
    """
    n = len(cursors)
    lengths = np.zeros(n, dtype=np.int64)
    parents: list[Int64] = []
    pieces: list[pa.Array] = []
    open_rows = np.arange(n)
    left = np.zeros(n, dtype=np.int64)
    while open_rows.size:
        fresh = open_rows[left[open_rows] == 0]
        if fresh.size:
            left[fresh] = _read_block_sizes(cursors, fresh)
            cursors.bad[fresh] |= lengths[fresh] + left[fresh] > MAX_ITEMS
        open_rows = open_rows[(left[open_rows] > 0) & ~cursors.bad[open_rows]]
        if not open_rows.size:
            break
        part = cursors.part(open_rows)
        pieces.append(_read(kind, part).arrow(None))
        parents.append(open_rows)
        cursors.rejoin(open_rows, part)
        lengths[open_rows] += 1
        left[open_rows] -= 1
    if not pieces:
        return _Lists(lengths, pa.array([], type=arrow_type(kind)))
    order = np.argsort(np.concatenate(parents), kind="stable")
    items = pl.concat([_series(p) for p in pieces]).gather(order)
    return _Lists(lengths, items.to_arrow(compat_level=pl.CompatLevel.newest()))


def _series(array: pa.Array) -> pl.Series:
    series = pl.from_arrow(array)
    assert isinstance(series, pl.Series)
    return series


def _read_block_sizes(cursors: Cursors, rows: Int64) -> Int64:
    part = cursors.part(rows)
    count = _read_longs(part)
    cursors.rejoin(rows, part)
    sized = np.flatnonzero(count < 0)
    if sized.size:  # the block's size in bytes follows a negative count; it is not needed here
        part = cursors.part(rows[sized])
        _read_longs(part)
        cursors.rejoin(rows[sized], part)
        count[sized] = -count[sized]
    too_many = count > cursors.end[rows] - cursors.at[rows]
    cursors.bad[rows] |= too_many | (count < 0)
    return np.where(too_many | (count < 0), 0, count)


# ── Writing ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Ragged:
    """One byte string per row, of any length. `data`: all strings, one after another. `lengths`: the length of each."""

    data: UInt8
    lengths: Int64

    def starts(self) -> Int64:
        return np.cumsum(self.lengths) - self.lengths


def encode_columns(topic: str, frame: pl.DataFrame) -> list[bytes]:
    """Encode each row of `frame` as a message. The columns are fields of the topic's current schema. Fields that have
    no column become null.

    Rows are not validated here: rows that come from outside must be validated first. Raises `ValueError` for a type or
    a field that the schema does not have, and for null in a field that is never null.
    """
    name = SCHEMA_NAME[topic]
    writer = current_writer(name)
    fields = writer.schema["fields"]
    unknown = set(frame.columns) - {f["name"] for f in fields}
    if unknown:
        raise ValueError(f"{name} has no field {', '.join(sorted(unknown))}")
    lacking = [f["name"] for f in fields if f["name"] not in frame.columns and not isinstance(f["type"], list)]
    if lacking:
        raise ValueError(f"{name} needs {', '.join(lacking)}")
    n = frame.height
    header = np.frombuffer(writer.header, dtype=np.uint8)
    pieces = [_Ragged(np.tile(header, n), np.full(n, len(header), dtype=np.int64))]
    for field in fields:
        if field["name"] in frame.columns:
            pieces += _write(field["type"], frame.get_column(field["name"]))
        else:
            pieces.append(_Ragged(np.zeros(n, dtype=np.uint8), np.ones(n, dtype=np.int64)))
    joined = _interleaved(pieces, n)
    data = joined.data.tobytes()
    ends = np.cumsum(joined.lengths).tolist()
    return [data[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)] if n else []


def _interleaved(pieces: list[_Ragged], n: int) -> _Ragged:
    """Join the pieces: the byte string of each row consists of that row's byte strings in all `pieces`, in their order.
    `n`: the number of rows."""
    total = np.zeros(n, dtype=np.int64)
    for piece in pieces:
        total += piece.lengths
    out = np.empty(int(total.sum()), dtype=np.uint8)
    at = np.cumsum(total) - total
    for piece in pieces:
        if len(piece.data) == n and (piece.lengths == 1).all():
            out[at] = piece.data
        elif len(piece.data):
            out[np.repeat(at - piece.starts(), piece.lengths) + np.arange(len(piece.data))] = piece.data
        at = at + piece.lengths
    return _Ragged(out, total)


def _write(kind: Any, column: pl.Series) -> list[_Ragged]:
    if isinstance(kind, list):
        return _write_nullable(kind[1], column)
    if column.null_count():
        raise ValueError(f"{column.name} must not be null")
    if kind == "string":
        return _write_texts(column)
    if kind in ("long", "int") or kind["type"] == "long":
        return [_varints(column.cast(pl.Int64).to_numpy())]
    if kind["type"] == "enum":
        codes = column.cast(pl.Enum(kind["symbols"]), strict=False).to_physical().cast(pl.Int64)
        if codes.null_count():
            stranger = column.filter(codes.is_null())[0]
            raise ValueError(f"{column.name} {stranger!r} is none of {', '.join(kind['symbols'])}")
        return [_varints(codes.to_numpy())]
    if kind["type"] == "array":
        return _write_arrays(kind["items"], column)
    pieces: list[_Ragged] = []
    for f in kind["fields"]:
        pieces += _write(f["type"], column.struct.field(f["name"]))
    return pieces


def _write_nullable(kind: Any, column: pl.Series) -> list[_Ragged]:
    n = len(column)
    valid = column.is_not_null().to_numpy()
    tag = _Ragged(np.where(valid, np.uint8(2), np.uint8(0)), np.ones(n, dtype=np.int64))
    values = _write(kind, column.drop_nulls())
    if not valid.all():
        rows = np.flatnonzero(valid)
        for piece in values:
            lengths = np.zeros(n, dtype=np.int64)
            lengths[rows] = piece.lengths
            piece.lengths = lengths
    return [tag, *values]


def _write_texts(column: pl.Series) -> list[_Ragged]:
    array = column.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_binary())
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    data = array.buffers()[2]
    flat = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, dtype=np.uint8)
    lengths = np.diff(offsets)
    return [_varints(lengths), _Ragged(flat[offsets[0] : offsets[-1]], lengths)]


def _write_arrays(kind: Any, column: pl.Series) -> list[_Ragged]:
    counts = column.list.len().cast(pl.Int64).to_numpy()
    items = column.filter(column.list.len() > 0).explode() if counts.any() else column.clear().explode()
    joined = _interleaved(_write(kind, items), len(items))
    ends = np.concatenate([[0], np.cumsum(joined.lengths)])
    upto = np.cumsum(counts)
    body = _Ragged(joined.data, ends[upto] - ends[upto - counts])
    some = counts > 0
    blocks = _varints(counts[some])
    lengths = np.zeros(len(counts), dtype=np.int64)
    lengths[some] = blocks.lengths
    end = _Ragged(np.zeros(len(counts), dtype=np.uint8), np.ones(len(counts), dtype=np.int64))
    return [_Ragged(blocks.data, lengths), body, end]


def _varints(values: Int64) -> _Ragged:
    """Encode each integer as Avro does: zigzag, variable length."""
    rest = (values.astype(np.int64) << 1).view(np.uint64) ^ (values >> 63).astype(np.int64).view(np.uint64)
    size = np.ones(len(rest), dtype=np.int64)
    for k in range(1, 10):
        more = rest >= (_ONE << np.uint64(7 * k))
        if not more.any():
            break
        size += more
    widest = int(size.max(initial=1))
    shifts = np.arange(widest, dtype=np.uint64) * np.uint64(7)
    digits = ((rest[:, None] >> shifts) & np.uint64(127)).astype(np.uint8)
    place = np.arange(widest)
    digits[place < size[:, None] - 1] |= 128
    return _Ragged(digits[place < size[:, None]], size)
