"""Converts messages that were written with another version of a schema to the fields of the current version, which the
folds read.

A field that the writer's version lacks becomes null. A field that only a newer version has is dropped; the message in
the log still contains it. If a field's *meaning* has changed since a version, `MEANING` says how messages of that
version are converted. The codec for single messages and the codec for columns both use this module, so they cannot
differ. docs/schema-evolution.md explains how to change a schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import polars as pl

MEANING: Final[dict[tuple[str, int], Callable[[], Sequence[pl.Expr]]]] = {}
"""By record name and writer's version: expressions over the writer's fields (instants as UTC microseconds). Each has
the name of the current field that it computes."""


def upcast_columns(name: str, version: int, frame: pl.DataFrame, current: pl.Schema) -> pl.DataFrame:
    """Convert many messages at once. `name`, `version`: the schema and version with which they were written. `frame`:
    their fields, one row per message. `current`: the fields of the current version."""
    import polars as pl

    if meaning := MEANING.get((name, version)):
        frame = frame.with_columns(meaning())
    if frame.schema == current:
        return frame
    unknown = [pl.lit(None, dtype=kind).alias(field) for field, kind in current.items() if field not in frame.columns]
    return frame.with_columns(unknown).select(current.names())


def upcast_row(
    name: str, version: int, row: dict[str, Any], written: Sequence[Mapping[str, Any]], current: Sequence[str]
) -> dict[str, Any]:
    """Convert one message. `name`, `version`: the schema and version with which it was written. `row`: its fields with
    their values. `written`: the fields of that version. `current`: the names of the fields of the current version."""
    if meaning := MEANING.get((name, version)):
        import polars as pl

        from coupon_ledger.ledger.columns import frame_schema

        row = pl.DataFrame([row], schema=frame_schema(written)).with_columns(meaning()).row(0, named=True)
    return row if len(row) == len(current) else {field: row.get(field) for field in current}
