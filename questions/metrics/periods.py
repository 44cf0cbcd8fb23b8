"""Time zones, time buckets, and the earlier periods with which metrics are compared.

Instants are naive UTC, as in the tables. *Local* time is the time that clocks in the zone show. Zones come from
`zoneinfo`, since DuckDB knows zones only if its ICU extension is built in.

A bucket is a minute, hour, day, week or month, and is identified by its *key*. For a minute or an hour, the key is the
instant at which it starts. An hour that clocks show twice is therefore two buckets. For a day, week or month, the key
is its first local day.
"""

from __future__ import annotations

from bisect import bisect_right
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.questions.parameters import DEFAULT_ZONE

GRAINS: Final = ("minute", "hour", "day", "week", "month")
COMPARISONS: Final = ("previous", "last-year", "target")
MOST_BUCKETS: Final = 100_000

_SHORT: Final = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}
_LENGTHS: Final = {**_SHORT, "day": timedelta(days=1), "week": timedelta(weeks=1)}
_COMPARED: Final = 60
"""Up to this many months, SQL compares instants with the months' ends. This takes a quarter of the time of DuckDB's
date_trunc."""
_YEAR_1: Final = 719_162 * 86_400_000_000
"""Microseconds from the first day of the year 1 to 1970."""
_FIRST, _LAST = datetime(1970, 1, 1), datetime(2100, 1, 1)
_SECOND_DAY, _LAST_DAY = datetime.min + timedelta(days=1), datetime.max - timedelta(days=1)
"""Outside this range, every zone is treated as UTC, since local time could lie outside the years 1 to 9999."""
_MOMENT: Final = timedelta(microseconds=1)
_STEP: Final = timedelta(days=10)  # no zone has changed its offset there and back within 10 days


@dataclass(frozen=True)
class Zone:
    """A time zone. Raises `WrongQuestion` if the name is unknown."""

    name: str

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise WrongQuestion(
                f"zone {self.name}: is not known; write a name of the IANA database, such as {DEFAULT_ZONE} or"
                " Europe/Berlin"
            ) from error

    @cached_property
    def _info(self) -> ZoneInfo:
        return ZoneInfo(self.name)

    def offset(self, at: datetime) -> timedelta:
        if not _SECOND_DAY <= at < _LAST_DAY:
            return timedelta(0)
        offset = at.replace(tzinfo=UTC).astimezone(self._info).utcoffset()
        assert offset is not None
        return offset

    def local(self, at: datetime) -> datetime:
        return at + self.offset(at)

    def instant(self, local: datetime) -> datetime:
        """The first instant at which clocks show this local time. If clocks skip it, the instant at which they are put
        forward."""
        if not _SECOND_DAY <= local < _LAST_DAY:
            return local
        first = local.replace(tzinfo=self._info)
        at = first.astimezone(UTC).replace(tzinfo=None)
        if self.local(at) == local:
            return at
        before = self.offset(at - timedelta(days=1))  # clocks skip this time: return the instant of the change
        return self._jump(local - before - timedelta(days=1), local - before + timedelta(hours=1))

    def _jump(self, low: datetime, high: datetime) -> datetime:
        """The instant between `low` and `high` at which the UTC offset changes, exact to the second."""
        before = self.offset(low)
        while high - low > timedelta(seconds=1):
            middle = low + ((high - low) // timedelta(seconds=2)) * timedelta(seconds=1)
            low, high = (middle, high) if self.offset(middle) == before else (low, middle)
        return high

    def changes(self, since: datetime, until: datetime) -> list[tuple[datetime, timedelta]]:
        """The zone's UTC offsets from `since` to `until`, each with the instant from which it applies. The first offset
        is the one that applies at `since`, so its instant may be before `since`."""
        every = _changes(self)
        first = max(0, bisect_right(every, since, key=lambda change: change[0]) - 1)
        return [change for n, change in enumerate(every) if n == first or (n > first and change[0] < until)]

    def offsets(self) -> pl.DataFrame:
        """All UTC offsets of the zone, as a frame for an ASOF join by instant: `offset_us` (microseconds) applies from
        `since` on."""
        changes = [(since, _micros(offset)) for since, offset in _changes(self)]
        return pl.DataFrame(changes, schema={"since": pl.Datetime("us"), "offset_us": pl.Int64}, orient="row")

    def local_sql(self, at: str, since: datetime, until: datetime) -> str:
        """SQL for the local time of an instant, as microseconds since 0001-01-01 (a Monday). `at`: SQL for the instant,
        which must be between `since` and `until`. Integers are used because they take a third of the time of DuckDB's
        dates."""
        (_, offset), *later = self.changes(since, until)
        if not later:
            return f"(epoch_us({at}) + {_micros(offset) + _YEAR_1})"
        branches = [f"WHEN {at} >= TIMESTAMP '{start}' THEN {_micros(o) + _YEAR_1}" for start, o in reversed(later)]
        return f"(epoch_us({at}) + CASE {' '.join(branches)} ELSE {_micros(offset) + _YEAR_1} END)"


@lru_cache(maxsize=64)
def _changes(zone: Zone) -> list[tuple[datetime, timedelta]]:
    """All UTC offsets of the zone, earliest first, each with the instant from which it applies. Before 1970, the offset
    of 1970 is used. From 2100 on, the last offset before 2100 is used."""
    changes = [(datetime.min, timedelta(0)), (_SECOND_DAY, zone.offset(_FIRST))]
    at = _FIRST
    while at < _LAST:
        if zone.offset(at + _STEP) != changes[-1][1]:
            start = zone._jump(at, at + _STEP)
            changes.append((start, zone.offset(start)))
        at += _STEP
    return [*changes, (_LAST_DAY, timedelta(0))]


def _micros(length: timedelta) -> int:
    return length // _MOMENT


@dataclass(frozen=True)
class Buckets:
    """The time buckets of one length (`grain`) in a zone."""

    grain: str
    zone: Zone

    def key_sql(self, at: str, since: datetime, until: datetime) -> str:
        """SQL for the key of the bucket that contains an instant. `at`: SQL for the instant, which must be between
        `since` and `until`."""
        if self.grain == "month":
            return self._month_sql(at, since, until)
        local, length = self.zone.local_sql(at, since, until), _micros(_LENGTHS[self.grain])
        if self.grain not in _SHORT:
            return f"make_timestamp({local} // {length} * {length} - {_YEAR_1})"
        key = f"make_timestamp(epoch_us({at}) - {local} % {length})"
        jumps = [f"WHEN {at} >= TIMESTAMP '{start}' THEN TIMESTAMP '{start}'" for start, _ in self._jumps(since, until)]
        return f"greatest({key}, CASE {' '.join(reversed(jumps))} END)" if jumps else key

    def _month_sql(self, at: str, since: datetime, until: datetime) -> str:
        first, last = self.key(since), self.key(until)
        months = [_months_later(first, n) for n in range(12 * (last.year - first.year) + last.month - first.month + 1)]
        if len(months) > _COMPARED:
            return (
                f"date_trunc('month', make_timestamp({self.zone.local_sql(at, since, until)} - {_YEAR_1}))::TIMESTAMP"
            )
        ends = [f"WHEN {at} < TIMESTAMP '{self.end(key)}' THEN TIMESTAMP '{key}'" for key in months[:-1]]
        return f"CASE {' '.join(ends)} ELSE TIMESTAMP '{last}' END"

    def _jumps(self, since: datetime, until: datetime) -> list[tuple[datetime, timedelta]]:
        """The instants from `since` to `until` at which the UTC offset changes, each with the new offset. Each of them
        starts a new minute or hour bucket, since some zones change their clocks by less than an hour."""
        return self.zone.changes(since, until)[1:]

    def key(self, at: datetime) -> datetime:
        """The key of the bucket that contains the instant."""
        local = self.zone.local(at)
        day = datetime(local.year, local.month, local.day)
        if self.grain in _SHORT:
            key = at - (local - day) % _SHORT[self.grain]
            return max([key, *(jump for jump, _ in self._jumps(key, later(at, _MOMENT)))])
        if self.grain == "week":
            return day - timedelta(days=day.weekday())
        return day.replace(day=1) if self.grain == "month" else day

    def start(self, key: datetime) -> datetime:
        return key if self.grain in _SHORT else self.zone.instant(key)

    def after(self, key: datetime, count: int = 1) -> datetime:
        """The key of the bucket that is `count` buckets after the one with this key."""
        return _months_later(key, count) if self.grain == "month" else later(key, count * _LENGTHS[self.grain])

    def end(self, key: datetime) -> datetime:
        if self.grain not in _SHORT:
            return self.start(self.after(key))
        local, length = self.zone.local(key), _SHORT[self.grain]
        last = later(key, length - (local - datetime(local.year, local.month, local.day)) % length)
        return min([last, *(jump for jump, _ in self._jumps(key, last))])

    def label(self, key: datetime) -> str:
        """The name that readers see for the bucket with this key, such as 2026-11 or 2026-11-11 20:00+08:00."""
        if self.grain in _SHORT:
            offset = self.zone.offset(key)
            sign, minutes = ("-" if offset < timedelta(0) else "+"), abs(offset) // timedelta(minutes=1)
            return f"{key + offset:%Y-%m-%d %H:%M}{sign}{minutes // 60:02}:{minutes % 60:02}"
        return f"{key:%Y-%m}" if self.grain == "month" else f"{key:%Y-%m-%d}"

    def keys(self, first: datetime, until: datetime) -> Iterator[datetime]:
        """The keys of consecutive buckets, from the key `first` to the last bucket that starts before `until`. Raises
        `WrongQuestion` if there are too many."""
        key, count = first, 0
        while self.start(key) < until:
            if (count := count + 1) > MOST_BUCKETS:
                raise WrongQuestion(
                    f"grain {self.grain}: the period has more than {MOST_BUCKETS:,} of them; ask for a shorter one"
                    " (--since, --until) or a coarser grain"
                )
            yield key
            key = self.end(key) if self.grain in _SHORT else self.after(key)


@dataclass(frozen=True)
class Shift:
    """How far before a period the earlier period is with which it is compared: `months` and `length` together. `local`:
    whether the distance is measured in local time."""

    months: int = 0
    length: timedelta = timedelta(0)
    local: bool = True

    @classmethod
    def between(cls, since: datetime, until: datetime, zone: Zone, how: str, buckets: Buckets | None) -> Shift:
        """How far the earlier period is before the period from `since` to `until`. `how`: `last-year` means the same
        period of the last year, else the preceding period of the same length.

        The length is counted in buckets if there are any, else in whole months or whole days if possible. For weekly
        buckets, the same period of the last year is 52 weeks earlier, so that weekdays match.
        """
        if how == "last-year":
            weeks = buckets is not None and buckets.grain == "week"
            return cls(length=timedelta(weeks=52)) if weeks else cls(months=12)
        start, end = zone.local(since), zone.local(until)
        if buckets is not None:
            count = sum(1 for _ in buckets.keys(buckets.key(since), until))
            if buckets.grain == "month":
                return cls(months=count)
            length = count * _LENGTHS[buckets.grain]
            return cls(length=length, local=buckets.grain not in _SHORT)
        midnight = start.time() == end.time() == datetime.min.time()
        if midnight and start.day == end.day == 1:
            return cls(months=12 * (end.year - start.year) + end.month - start.month)
        return cls(length=end - start) if midnight else cls(length=until - since, local=False)

    def instant(self, at: datetime, zone: Zone) -> datetime:
        return zone.instant(self._earlier(zone.local(at))) if self.local else at - self.length

    def key(self, key: datetime, buckets: Buckets) -> datetime:
        """The key of the earlier bucket with which the bucket with this key is compared."""
        if buckets.grain in _SHORT:
            return buckets.key(self.instant(key, buckets.zone))
        return self._earlier(key)

    def _earlier(self, local: datetime) -> datetime:
        return _months_later(local, -self.months) - self.length


def later(at: datetime, length: timedelta) -> datetime:
    """`at` plus `length`, but not later than the end of the year 9999."""
    return min(at, datetime.max - length) + length if length > timedelta(0) else at + length


def _months_later(local: datetime, count: int) -> datetime:
    """The same day of the month `count` months later. If that month is too short, its last day. Not later than the end
    of the year 9999."""
    year, month = divmod(12 * local.year + local.month - 1 + count, 12)
    if year > datetime.max.year:
        return datetime.max
    return local.replace(year=year, month=month + 1, day=min(local.day, monthrange(year, month + 1)[1]))
