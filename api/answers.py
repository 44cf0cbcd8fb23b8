"""Converts answers to bytes: Arrow for the command line and for tools that read columns, JSON for all other clients.

The bytes of an answer are complete before the first one is sent. They are in memory if they are few, otherwise in a
temporary file. So the question's snapshot of the database ends as soon as the question has run, even if the client
receives the answer slowly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import Any, Final

import polars as pl
import pyarrow as pa

from coupon_ledger.ledger.plain import plain
from coupon_ledger.projections.wide import as_decimals
from coupon_ledger.questions.registry import Answer, AsOf

_IN_MEMORY: Final = 8 << 20
_PIECE: Final = 1 << 18

Spool = SpooledTemporaryFile[bytes]


def spooled(answer: Answer, *, arrow: bool, json_columns: tuple[str, ...]) -> Spool:
    """Write the answer's bytes to a temporary file, which is in memory as long as it is small. The caller closes it.
    `arrow`: write Arrow, not JSON. `json_columns`: the columns whose text is JSON."""
    spool: Spool = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
    try:
        if arrow:
            _write_arrow(spool, answer)
        else:
            _write_json(spool, answer, json_columns)
    except BaseException:
        spool.close()
        raise
    return spool


def pieces(spool: Spool) -> Iterator[bytes]:
    spool.seek(0)
    with spool:
        while piece := spool.read(_PIECE):
            yield piece


def as_of_fields(state: AsOf) -> dict[str, Any]:
    """The state as JSON types."""
    return {
        "commits": state.commits,
        "committed_at": plain(state.committed_at),
        "data_clock": plain(state.data_clock),
        "positions": state.positions,
    }


def as_of(state: AsOf) -> str:
    return json.dumps(as_of_fields(state))


def _write_arrow(spool: Spool, answer: Answer) -> None:
    """Write the answer to `spool` as an Arrow IPC stream. The key `as_of` of the schema's metadata has the state that
    was read."""
    writer = None
    for frame in answer.frames:
        table = as_decimals(frame).to_arrow(compat_level=pl.CompatLevel.oldest())
        if writer is None:
            schema = table.schema.with_metadata({"as_of": as_of(answer.as_of)})
            writer = pa.ipc.new_stream(spool, schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))
        writer.write_table(table.replace_schema_metadata(schema.metadata))
    assert writer is not None
    writer.close()


def _write_json(spool: Spool, answer: Answer, json_columns: tuple[str, ...]) -> None:
    """Write the answer to `spool` as a JSON object: `{"as_of": …, "rows": […]}`."""
    spool.write(f'{{"as_of": {as_of(answer.as_of)}, "rows": ['.encode())
    first = True
    for frame in answer.frames:
        for rows in json_rows(frame, json_columns):
            spool.write(rows if first else b"," + rows)
            first = False
    spool.write(b"]}\n")


def json_rows(frame: pl.DataFrame, json_columns: tuple[str, ...], separator: bytes = b",") -> Iterator[bytes]:
    """Yields the rows of a frame as JSON objects, several of them separated by `separator`. A frame without lists and
    JSON columns is converted by columns, at once. Any other is converted row by row, since its lists may be long."""
    if not frame.height:
        return
    nested = any(dtype.is_nested() for dtype in frame.dtypes)
    if nested or json_columns:
        for row in frame.iter_rows(named=True):
            yield json.dumps(_opened(row, json_columns), ensure_ascii=False).encode()
        return
    flat = frame.with_columns(
        pl.col(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"), pl.col(pl.Binary).bin.encode("hex")
    )
    yield flat.write_ndjson().rstrip("\n").replace("\n", separator.decode()).encode()


def _opened(row: dict[str, Any], json_columns: tuple[str, ...]) -> dict[str, Any]:
    """A row with its values as JSON types. The JSON text in `json_columns` is parsed."""
    return {k: json.loads(v) if k in json_columns and v is not None else plain(v) for k, v in row.items()}
