"""Selects dead letters by position, reason and time of recording."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Final

import polars as pl
from pydantic import AfterValidator, BaseModel, ConfigDict

from coupon_ledger.ledger.log import Position
from coupon_ledger.projections.connection import Reading, sql

_START: Final = Position("", -1, -1)


def _naive(value: datetime | None) -> datetime | None:
    try:
        return value.astimezone(UTC).replace(tzinfo=None) if value is not None and value.tzinfo else value
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from None


Recorded = Annotated[datetime | None, AfterValidator(_naive)]


class Chosen(BaseModel):
    """A filter for dead letters. A field that is None matches all. `since` (inclusive) and `until` (exclusive): time of
    recording, naive UTC. `settled`: also match discarded dead letters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    reason: str | None = None
    since: Recorded = None
    until: Recorded = None
    settled: bool = False

    def narrows(self) -> bool:
        """Whether any field except `settled` is set."""
        return self.model_copy(update={"settled": False}) != Chosen()


def chosen_letters(
    reading: Reading, chosen: Chosen, columns: str = "*", limit: int | None = None, after: Position = _START
) -> Iterator[pl.DataFrame]:
    """Yield the dead letters that match `chosen` and have a position after `after`. They are in the order of positions,
    in pieces.

    `columns`: an SQL select list over the columns of dead_letters.sql. `limit`: the maximum number of dead letters.
    """
    behind = dict(zip(("after_topic", "after_partition", "after_offset"), after, strict=True))
    query = f"SELECT {columns} FROM (\n{sql(__package__, 'dead_letters')})"
    return reading.batches(query, {**chosen.model_dump(), **behind, "limit": limit})
