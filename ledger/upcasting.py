"""Converts messages of other schema versions to the fields of the current schema, which the folds read.

A field that the writer did not know is null. A field that only a newer writer knows is dropped; the message in the log
still has it. If the *meaning* of a field has changed since a version, `MEANING` defines how messages of that version
are read. Both codecs use this module, so that rows and columns cannot differ. docs/schema-evolution.md explains the
procedure.
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
    """Convert a frame written with version `version` to the fields of the current schema."""
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
    """Convert one row. `written`: the fields of the writer's schema."""
    if meaning := MEANING.get((name, version)):
        import polars as pl

        from coupon_ledger.ledger.columns import frame_schema

        row = pl.DataFrame([row], schema=frame_schema(written)).with_columns(meaning()).row(0, named=True)
    return row if len(row) == len(current) else {field: row.get(field) for field in current}
