"""The filters of a page, which are the parameters of its URL: the period and what it is compared with, the slice, the
state of knowledge."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from coupon_ledger.api.service.problems import Refusal
from coupon_ledger.reports.labels import say

PERIODS: Final = ("", "yesterday", "7d", "30d", "month", "year", "all")
AGAINST: Final = ("", "previous", "none")
SLICES: Final = ("campaign", "channel", "coupon_type", "segment", "store")
"""Dimensions by which pages are narrowed."""
CLOCKS: Final = ("at", "known_at")
"""The parameters that ask for the past: what had happened by an instant, and what was known at one."""
KEPT: Final = ("period", "against", *SLICES, *CLOCKS, "currency")
"""The parameters that go on from page to page."""
_DAYS: Final = re.compile(r"(\d{4}-\d{2}-\d{2})(?:\.\.(\d{4}-\d{2}-\d{2}))?", re.ASCII)
_LONGEST: Final = 200


@dataclass(frozen=True)
class Filters:
    """`since`, `until`: the period in UTC, without a zone; None if it has no such end. `running`: whether the period
    goes on: `until` is then the data's clock. `name`: the period in words. `slice`: values by dimension."""

    since: datetime | None
    until: datetime | None
    running: bool
    name: str
    against: str
    slice: Mapping[str, str]
    at: datetime | None
    known_at: datetime | None

    @property
    def cut(self) -> dict[str, datetime]:
        """The parameters of questions that ask for this past; empty for the present."""
        return {name: one for name in CLOCKS if (one := getattr(self, name)) is not None}

    @property
    def grain(self) -> str:
        """A grain that gives a chart a few dozen to a few hundred points."""
        if self.since is None or self.until is None:
            return "month"
        length = self.until - self.since
        if length <= timedelta(hours=30):
            return "minute" if length <= timedelta(hours=6) else "hour"
        return "day" if length <= timedelta(days=400) else "month"

    @property
    def compare(self) -> str | None:
        return None if self.since is None or self.against == "none" else self.against or "last-year"

    def where(self, *dimensions: str) -> dict[str, list[str]] | None:
        """The slice as questions take it, as far as it is about these dimensions (all, if none is named)."""
        found = {name: [value] for name, value in self.slice.items() if not dimensions or name in dimensions}
        return found or None


def filters_of(query: Mapping[str, str], clock: datetime | None, zone: str) -> Filters:
    """The filters of a URL. `clock`: the data's clock, in UTC without a zone. Raises `Refusal` (422)."""
    for name in KEPT:
        if len(query.get(name, "")) > _LONGEST:
            raise Refusal(422, f"{name}: is too long; shorten it")
    against = query.get("against", "")
    if against not in AGAINST:
        raise Refusal(422, f"against {against}: there is none of that name; there are {', '.join(AGAINST[1:])}")
    at, known_at = (_instant(one, query.get(one, ""), zone) for one in CLOCKS)
    cut = min((one for one in (at, known_at) if one is not None), default=None)
    clock = cut if cut is not None and (clock is None or cut < clock) else clock
    since, until, name = _period(query.get("period", ""), clock, ZoneInfo(zone))
    running = clock is not None and until is not None and (since or datetime.min) <= clock < until
    if running:
        assert clock is not None
        until = clock + timedelta(microseconds=1)
    chosen = {name: query[name] for name in SLICES if query.get(name)}
    return Filters(since, until, running, name, against, chosen, at, known_at)


def _period(text: str, clock: datetime | None, zone: ZoneInfo) -> tuple[datetime | None, datetime | None, str]:
    today = (clock or datetime.now(UTC)).replace(tzinfo=UTC).astimezone(zone).date()
    if text == "all" or (clock is None and not text):
        return None, None, say("all time")
    if matched := _DAYS.fullmatch(text):
        try:
            first = date.fromisoformat(matched[1])
            last = date.fromisoformat(matched[2] or matched[1])
            if first > last:
                raise ValueError(text)
            return _midnight(first, zone), _midnight(last + timedelta(days=1), zone), text.replace("..", " – ")
        except (ValueError, OverflowError):
            raise Refusal(422, f"period {text}: is no day or range of days; write 2026-11-01..2026-11-11") from None
    tomorrow = today + timedelta(days=1)
    ranges = {
        "": (today, tomorrow, say("today, {day}", day=today.isoformat())),
        "yesterday": (today - timedelta(days=1), today, say("yesterday")),
        "7d": (today - timedelta(days=6), tomorrow, say("last 7 days")),
        "30d": (today - timedelta(days=29), tomorrow, say("last 30 days")),
        "month": (today.replace(day=1), tomorrow, say("this month")),
        "year": (today.replace(month=1, day=1), tomorrow, say("this year")),
    }
    if text not in ranges:
        raise Refusal(
            422, f"period {text[:40]}: there is none of that name; there are {', '.join(PERIODS[1:])}, or days"
        )
    first, after, name = ranges[text]
    return _midnight(first, zone), _midnight(after, zone), name


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC).replace(tzinfo=None)


def _instant(name: str, text: str, zone: str) -> datetime | None:
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text)
        aware = instant.replace(tzinfo=ZoneInfo(zone)) if instant.tzinfo is None else instant
        return aware.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise Refusal(422, f"{name} {text[:40]}: is no instant; write it as 2026-11-11T20:00") from None


def address(path: str, query: Mapping[str, str], **changes: Any) -> str:
    """The URL of a page with the filters of `query`. `changes`: parameters to set; None or an empty text removes
    one."""
    kept = {name: query[name] for name in KEPT if query.get(name)}
    for name, value in changes.items():
        kept.pop(name, None)
        if value not in (None, ""):
            kept[name] = str(value)
    return f"{path}?{urlencode(kept)}" if kept else path
