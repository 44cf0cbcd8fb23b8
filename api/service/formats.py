"""The formats in which answers are sent: which one a request wants, and the bytes.

JSON is an object with the rows, NDJSON a row a line, CSV a table with a header; Arrow is an IPC stream, Parquet a file.
Instants are in UTC (RFC 3339 in text), amounts in minor units, lists and nested values in CSV are JSON.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile
from typing import Final, NamedTuple

import polars as pl
import pyarrow as pa

from coupon_ledger.api.answers import json_rows
from coupon_ledger.api.service.problems import Refusal
from coupon_ledger.ledger.plain import plain
from coupon_ledger.projections.wide import as_decimals

_IN_MEMORY: Final = 8 << 20
_PIECE: Final = 1 << 18


class Format(NamedTuple):
    name: str
    media_type: str


JSON: Final = Format("json", "application/json")
NDJSON: Final = Format("ndjson", "application/x-ndjson")
CSV: Final = Format("csv", "text/csv")
ARROW: Final = Format("arrow", "application/vnd.apache.arrow.stream")
PARQUET: Final = Format("parquet", "application/vnd.apache.parquet")
FORMATS: Final = (JSON, NDJSON, CSV, ARROW, PARQUET)


def format_of(accept: str, named: str | None) -> Format:
    """The format that a request wants. `accept`: the header. `named`: the parameter `format`, which comes first. Raises
    `Refusal` (406, 422)."""
    if named is not None:
        for one in FORMATS:
            if one.name == named:
                return one
        known = ", ".join(one.name for one in FORMATS)
        raise Refusal(422, f"format {named[:40]}: there is none of that name; there are {known}")
    wanted, refused = _by_preference(accept)
    for media_type in wanted:
        for one in FORMATS:
            kind = one.media_type.partition("/")[0]
            if media_type in (one.media_type, "*/*", f"{kind}/*") and one.media_type not in refused:
                return one
    raise Refusal(406, f"Accept {accept}: answers come as {', '.join(f.media_type for f in FORMATS)}")


def _by_preference(accept: str) -> tuple[list[str], set[str]]:
    """The media types that a header `Accept` wants, the preferred ones first, and those that it refuses (`q=0`)."""
    ranked, refused = [], set()
    for place, one in enumerate(accept.split(",") if accept.strip() else ["*/*"]):
        media_type, *parameters = (part.strip().lower() for part in one.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if quality > 0:
            ranked.append((-quality, place, media_type))
        else:
            refused.add(media_type)
    return [media_type for _, _, media_type in sorted(ranked)], refused


def pieces_of(wanted: Format, frames: Iterable[pl.DataFrame], json_columns: tuple[str, ...]) -> Iterator[bytes]:
    """The rows of these frames in a format other than JSON. At least one frame; all have the same columns."""
    if wanted is NDJSON:
        return _ndjson(frames, json_columns)
    if wanted is CSV:
        return _csv(frames)
    if wanted is ARROW:
        return _arrow(frames)
    return _parquet(frames)


def _ndjson(frames: Iterable[pl.DataFrame], json_columns: tuple[str, ...]) -> Iterator[bytes]:
    for frame in frames:
        for row in json_rows(frame, json_columns, separator=b"\n"):
            yield row + b"\n"


def _csv(frames: Iterable[pl.DataFrame]) -> Iterator[bytes]:
    header = True
    for frame in frames:
        yield csv_text(frame, header=header).encode()
        header = False


def csv_text(frame: pl.DataFrame, *, header: bool = True, for_spreadsheets: bool = False) -> str:
    """The frame as CSV. `for_spreadsheets`: put an apostrophe in front of texts that a spreadsheet would run as a
    formula."""
    nested = [name for name, kind in frame.schema.items() if kind.is_nested()]
    flat = frame.with_columns(
        pl.Series(name, [_json_text(value) for value in frame[name].to_list()], dtype=pl.String) for name in nested
    ).with_columns(pl.col(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"), pl.col(pl.Binary).bin.encode("hex"))
    texts = [name for name, kind in flat.schema.items() if kind == pl.String] if for_spreadsheets else []
    safe = flat.with_columns(
        pl.when(pl.col(name).str.contains(r"^[=+\-@\t\r]")).then("'" + pl.col(name)).otherwise(pl.col(name)).alias(name)
        for name in texts
    )
    return safe.write_csv(include_header=header)


def _json_text(value: object) -> str | None:
    return None if value is None else json.dumps(plain(value), ensure_ascii=False)


def _arrow(frames: Iterable[pl.DataFrame]) -> Iterator[bytes]:
    sink = io.BytesIO()
    writer = None
    for frame in frames:
        table = as_decimals(frame).to_arrow(compat_level=pl.CompatLevel.oldest())
        if writer is None:
            writer = pa.ipc.new_stream(sink, table.schema)
        writer.write_table(table)
        yield _taken(sink)
    assert writer is not None
    writer.close()
    yield _taken(sink)


def _taken(sink: io.BytesIO) -> bytes:
    piece = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return piece


def _parquet(frames: Iterable[pl.DataFrame]) -> Iterator[bytes]:
    from pyarrow import parquet

    with SpooledTemporaryFile(_IN_MEMORY) as spool:
        writer = None
        for frame in frames:
            table = as_decimals(frame).to_arrow(compat_level=pl.CompatLevel.oldest())
            if writer is None:
                writer = parquet.ParquetWriter(spool, table.schema, compression="zstd")
            writer.write_table(table)
        assert writer is not None
        writer.close()
        spool.seek(0)
        while piece := spool.read(_PIECE):
            yield piece
