"""From the fields that a message's writer knew to those of the current schema, where everything begins that is folded.

A field that the writer did not know yet is null; one that only a newer writer knows is left out (the log keeps it).
Where a field's *meaning* changed since a version, `MEANING` says how what that version wrote reads now. Both codecs go
through here, so rows and columns cannot differ. docs/schema-evolution.md is the recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import polars as pl

MEANING: Final[dict[tuple[str, int], Callable[[], Sequence[pl.Expr]]]] = {}
"""By record name and version of the writer: expressions over its fields (instants as UTC microseconds), each named like
the current field whose value it gives."""


def upcast_columns(name: str, version: int, frame: pl.DataFrame, current: pl.Schema) -> pl.DataFrame:
    """What version `version` wrote, with the fields of the current schema."""
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
