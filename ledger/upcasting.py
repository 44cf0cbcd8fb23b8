"""Converts what a message's writer wrote to the fields of the current schema, the only ones that are folded.

A field that the writer did not know yet is null; one that only a newer writer knows is left out (the log keeps it). If
the *meaning* of a field changed after a version, `MEANING` says how to read what that version wrote. Both codecs use
this module, so rows and columns cannot differ. docs/schema-evolution.md has the recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import polars as pl

MEANING: Final[dict[tuple[str, int], Callable[[], Sequence[pl.Expr]]]] = {}
"""By record name and writer's version: expressions over the writer's fields (instants as UTC microseconds), each
named like the current field that it computes."""


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
    """The same for one row; `written`: the fields of its writer's schema."""
    if meaning := MEANING.get((name, version)):
        import polars as pl

        from coupon_ledger.ledger.columns import frame_schema

        row = pl.DataFrame([row], schema=frame_schema(written)).with_columns(meaning()).row(0, named=True)
    return row if len(row) == len(current) else {field: row.get(field) for field in current}
