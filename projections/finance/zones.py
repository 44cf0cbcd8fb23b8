"""Days of a time zone, without an extension of the database: the zone's offsets as a table, to be joined by instant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from projections.unanswered import WrongQuestion

_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(2100, 1, 1, tzinfo=UTC)
_STEP: Final = timedelta(days=7)
_EXACT: Final = timedelta(seconds=1)


def in_zone(column: str) -> str:
    """SQL: the day of that instant, in a query that has joined `zone` (`offsets`) as `z`."""
    return f"({column} + to_microseconds(offset_us))::DATE"


@cache
def offsets(zone: str) -> pl.DataFrame:
    """`since` (naive UTC) and the `offset_us` from then on, to be added to UTC. Raises `WrongQuestion`.

    No zone changes twice within a week.
    """
    try:
        where = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise WrongQuestion(f"time zone {zone}: there is none of that name; write one such as Asia/Shanghai") from error
    found = [(datetime(1, 1, 1), _offset(_FIRST, where))]
    at = _FIRST
    while at < _LAST:
        if _offset(at, where) != _offset(at + _STEP, where):
            change = _change(at, at + _STEP, where)
            found.append((change.replace(tzinfo=None), _offset(change, where)))
        at += _STEP
    return pl.DataFrame(found, schema={"since": pl.Datetime("us"), "offset_us": pl.Int64}, orient="row")


def _offset(at: datetime, zone: ZoneInfo) -> int:
    offset = at.astimezone(zone).utcoffset()
    assert offset is not None
    return offset // timedelta(microseconds=1)


def _change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The first whole second of the other offset."""
    while after - before > _EXACT:
        middle = before + (after - before) // 2
        middle = middle.replace(microsecond=0)
        if _offset(middle, zone) == _offset(before, zone):
            before = middle
        else:
            after = middle
    return after
