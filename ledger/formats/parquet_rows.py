"""Reads events from a Parquet file: one event per row. Rows are read, validated and encoded by columns; only rows that
may be invalid are validated one by one, by the event models.

Types of the columns: text (plain or dictionary-encoded) for text fields; integers for amounts; timestamps with a time
zone for instants; lists of structs for `discounts` and `lines`; lists of text for `coupon_ids`; text that contains JSON
for JSON fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from coupon_ledger import schemas
from coupon_ledger.ledger.codec import FIRST_INSTANT, LAST_INSTANT, SCHEMA_NAME
from coupon_ledger.ledger.columns import encode_columns, polars_schema
from coupon_ledger.ledger.errors import InvalidEvent, Problem, UnusableFile
from coupon_ledger.ledger.formats.rows import (
    Item,
    Kind,
    Refused,
    check_columns,
    column_kinds,
    kind_of,
    needed_columns,
    record_of,
    table_event,
)
from coupon_ledger.ledger.json_text import bad, json_value
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.rules import NEEDS
from coupon_ledger.ledger.topics import KEY_FIELD
from coupon_ledger.ledger.validity import split_valid

_BATCH_ROWS: Final = 50_000
_BATCH_BYTES: Final = 64_000_000
_READ_ROWS: Final = 500
"""Number of rows that are decompressed at once while their size is unknown. It can be large: a long text that the file
stores once may be the value of every row."""
_WANTED: Final = {
    "text": "text",
    "integer": "int64 (whole minor units, no decimals)",
    "instant": "a timestamp with a time zone",
    "json": "text that holds JSON",
}


class ParquetRows:
    """The rows of a Parquet file, read as events of one topic. Raises `UnusableFile` if the file is not Parquet, is
    broken, or has columns that do not fit the topic."""

    def __init__(self, path: Path, topic: str) -> None:
        self._what = f"file {path}"
        self._topic = topic
        with self._readable():
            self._file = pq.ParquetFile(path)
            schema = self._file.schema_arrow
        check_columns(self._what, topic, schema.names)
        for field in schema:
            self._check_type(field)

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def items(self) -> Iterator[Item]:
        start = 1
        for batch in self._batches():
            yield from _items(self._topic, batch, start)
            start += len(batch)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        """Yields the file's rows in batches, each limited in the number of rows and in bytes."""
        waiting: list[pa.RecordBatch] = []
        rows = size = 0
        for batch in self._unpacked():
            if waiting and (rows + len(batch) > _BATCH_ROWS or size + batch.nbytes > _BATCH_BYTES):
                yield pa.concat_batches(waiting)
                waiting, rows, size = [], 0, 0
            waiting.append(batch)
            rows += len(batch)
            size += batch.nbytes
        if waiting:
            yield pa.concat_batches(waiting)

    def _unpacked(self) -> Iterator[pa.RecordBatch]:
        batches = self._file.iter_batches(_READ_ROWS)
        while True:
            with self._readable():
                batch = next(batches, None)
            if batch is None:
                return
            most = max(1, len(batch) * _BATCH_BYTES // max(1, batch.nbytes))
            yield from (batch.slice(start, most) for start in range(0, len(batch), most))

    def _check_type(self, field: pa.Field) -> None:
        kind = column_kinds(self._topic)[field.name]
        wanted = _list_type(self._topic, field.name) if kind == "list" else _WANTED[kind]
        fits = _fits_list(field.type, self._topic, field.name) if kind == "list" else _FITS[kind](field.type)
        if not fits and not types.is_null(field.type):
            raise UnusableFile(f"{self._what}: column {field.name} is {field.type}; write it as {wanted}")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UnusableFile(f"{self._what}: cannot be read as Parquet ({reason}); write it again") from error


def _is_text(kind: pa.DataType) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


_FITS: Final[dict[Kind, Callable[[pa.DataType], bool]]] = {
    "text": _is_text,
    "json": _is_text,
    "integer": lambda kind: types.is_integer(kind) and not types.is_uint64(kind),
    "instant": lambda kind: types.is_timestamp(kind) and kind.tz is not None,
}


def _fits_list(kind: pa.DataType, topic: str, name: str) -> bool:
    if not (types.is_list(kind) or types.is_large_list(kind)):
        return False
    known = _item_fields(topic, name)
    if not known:
        return _is_text(kind.value_type)
    if not types.is_struct(kind.value_type):
        return False
    fields = list(kind.value_type)
    names = [field.name for field in fields]
    return (
        len(set(names)) == len(names)
        and set(names) <= known.keys()
        and all(types.is_null(f.type) or _FITS[known[f.name]](f.type) for f in fields)
    )


def _list_type(topic: str, name: str) -> str:
    fields = _item_fields(topic, name)
    if not fields:
        return "a list of text"
    return "a list of structs of " + ", ".join(f"{field} ({_WANTED[kind]})" for field, kind in fields.items())


def _items_schema(topic: str, name: str) -> Any:
    [avro] = [f["type"] for f in schemas.current(SCHEMA_NAME[topic])["fields"] if f["name"] == name]
    return avro[1]["items"]


@cache
def _item_fields(topic: str, name: str) -> dict[str, Kind]:
    """The fields that each item of the list column `name` has, with their kinds. Empty if the items are plain text."""
    items = _items_schema(topic, name)
    return {} if isinstance(items, str) else {f["name"]: kind_of(f["name"], f["type"]) for f in items["fields"]}


@cache
def _needed_in_items(topic: str, name: str) -> tuple[str, ...]:
    return tuple(f["name"] for f in _items_schema(topic, name)["fields"] if not isinstance(f["type"], list))


def _items(topic: str, batch: pa.RecordBatch, start: int) -> list[Item]:
    """Convert the rows of a batch to items, in the same order. `start`: the number in the file of the batch's first
    row."""
    unreadable = _not_utf8(batch)
    items: list[Item] = [None] * len(batch)
    for i in unreadable:
        items[i] = Refused(start + i, "", None, (Problem("", "holds text that is not UTF-8"),))
    rows = np.delete(np.arange(len(batch)), unreadable)
    frame = pl.from_arrow(batch.take(pa.array(rows)) if unreadable else batch)
    assert isinstance(frame, pl.DataFrame)
    records = _by_columns(topic, frame)
    for i in sorted(set(range(frame.height)) - records.keys()):
        items[rows[i]] = _by_model(topic, frame[i], start + int(rows[i]))
    for i, record in records.items():
        items[rows[i]] = record
    return items


def _not_utf8(batch: pa.RecordBatch) -> list[int]:
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        return [i for i in range(len(batch)) if not _is_valid(batch.slice(i, 1))]
    return []


def _is_valid(batch: pa.RecordBatch) -> bool:
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _by_columns(topic: str, frame: pl.DataFrame) -> dict[int, Record]:
    """Validate and encode the rows by columns. Returns the record of each row that is certainly valid, by the row's
    index. The caller validates all other rows by the model."""
    wire = _wire(topic, frame).with_row_index("index").filter(~_doubtful(topic, frame))
    valid, _ = split_valid(topic, wire.drop("index"))
    index = wire["index"].gather(valid["row"]).to_list()
    values = encode_columns(topic, valid.drop("row"))
    keys = valid[KEY_FIELD[topic]].to_list()
    return {i: Record(topic, key.encode(), value) for i, key, value in zip(index, keys, values, strict=True)}


def _wire(topic: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Convert the frame to all fields of the topic's schema, with the schema's types. The conversion may change some
    values; `_doubtful` finds the rows with such values."""
    columns = []
    for name, dtype in polars_schema(SCHEMA_NAME[topic]).items():
        source = frame.schema.get(name)
        if source is None or source == pl.Null:
            columns.append(pl.lit(None, dtype=dtype).alias(name))
        elif isinstance(source, pl.Datetime):
            columns.append(pl.col(name).dt.cast_time_unit("us").dt.convert_time_zone("UTC"))
        elif isinstance(source, pl.List) and isinstance(source.inner, pl.Struct):
            columns.append(pl.col(name).list.eval(_struct(topic, name, source.inner)))
        else:
            columns.append(pl.col(name).cast(dtype))
    return frame.select(columns)


def _struct(topic: str, name: str, source: pl.Struct) -> pl.Expr:
    dtypes = {"integer": pl.Int64(), "text": pl.String()}
    names = {field.name for field in source.fields}
    return pl.struct(
        (pl.element().struct.field(field) if field in names else pl.lit(None)).cast(dtypes[kind]).alias(field)
        for field, kind in _item_fields(topic, name).items()
    )


def _doubtful(topic: str, frame: pl.DataFrame) -> pl.Series:
    """A mask of the rows that must be validated by the model: rows with a value that the conversion by `_wire` may
    change, rows with JSON that the columns may read differently, rows of an unknown event type, and rows that lack a
    field that every event needs."""
    doubts = [~pl.col("type").cast(pl.String).is_in(list(NEEDS[topic]))]
    doubts += [pl.col(name).is_null() for name in needed_columns(topic)]
    for name, dtype in frame.schema.items():
        if isinstance(dtype, pl.Datetime):
            doubts.append(_out_of_reach(name, dtype))
        elif isinstance(dtype, pl.List):
            doubts.append(_lacks_items(topic, name, dtype))
        elif column_kinds(topic)[name] == "json":
            texts = frame[name].cast(pl.String).unique().drop_nulls()
            doubts.append(pl.col(name).cast(pl.String).is_in([t for t in texts if not _is_plain_json(t)]))
    return frame.select(pl.any_horizontal(doubt.fill_null(False) for doubt in doubts)).to_series()


def _out_of_reach(name: str, dtype: pl.Datetime) -> pl.Expr:
    """An expression: whether the instant in column `name` is finer than microseconds, or outside the years 1 to
    9999."""
    value = pl.col(name).to_physical()
    if dtype.time_unit == "ns":  # 64 bits of nanoseconds reach no further than the year 2262
        return value % 1_000 != 0
    scale = 1_000 if dtype.time_unit == "ms" else 1
    return ~value.is_between(FIRST_INSTANT // scale, LAST_INSTANT // scale)


def _lacks_items(topic: str, name: str, dtype: pl.List) -> pl.Expr:
    """An expression: whether the list in column `name` has an item that is null or lacks a required field."""
    item = pl.element()
    if isinstance(dtype.inner, pl.Struct):
        present = {field.name for field in dtype.inner.fields}
        lacking = pl.any_horizontal(
            item.struct.field(field).is_null() if field in present else item.is_null() | True
            for field in _needed_in_items(topic, name)
        )
    else:
        lacking = item.is_null()
    return pl.col(name).list.eval(lacking).list.any()


def _is_plain_json(text: str) -> bool:
    """Whether validation by columns and validation by the model are sure to read this JSON text alike. They may differ
    in numbers with a decimal point, such as 1.0."""
    try:
        json_value(text, parse_float=_no_fraction)
    except InvalidEvent:
        return False
    return True


def _no_fraction(text: str) -> None:
    raise bad(text)


def _by_model(topic: str, row: pl.DataFrame, number: int) -> Item:
    data: dict[str, Any] = {}
    problems: list[Problem] = []
    shown: dict[str, Any] = {"topic": topic}
    for name, value in row.with_columns(cs.datetime().to_physical()).row(0, named=True).items():
        if value is None:
            continue
        dtype = row.schema[name]
        if isinstance(dtype, pl.Datetime):
            value = _instant_text(value, dtype.time_unit)
        elif column_kinds(topic)[name] == "json":
            try:
                value = json_value(value)
            except InvalidEvent as error:
                problems.append(Problem(name, str(error)))
                shown[name] = value
                continue
        shown[name] = data[name] = value
    try:
        return record_of(table_event(topic, data, problems))
    except InvalidEvent as error:
        text = json.dumps(shown, ensure_ascii=False)
        return Refused(number, text, data.get("event_id"), error.problems)


def _instant_text(value: int, unit: Literal["ns", "us", "ms"]) -> str:
    if unit == "ns" and value % 1_000 == 0:
        value, unit = value // 1_000, "us"
    return f"{np.datetime64(value, unit)}Z"
