"""Where values lie on a chart: scales, ticks at round values, widths of texts, and honest thinning of points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from math import ceil, floor, log10
from typing import Final
from zoneinfo import ZoneInfo

from coupon_ledger.reports.labels import say, word_of
from coupon_ledger.reports.svg.markup import Point
from coupon_ledger.reports.text import text_width
from coupon_ledger.reports.view import view

_COLUMN_OF_TEXT: Final = 0.56
"""Width of a narrow character, in its size; a wide one has two."""
SMALL: Final = 12
"""Size of the texts on charts."""


def width_of(text: str, size: float = SMALL) -> float:
    """About how wide the text is."""
    return text_width(text) * _COLUMN_OF_TEXT * size


def fitted(text: str, width: float) -> str:
    """The text, without its middle if it is wider than `width`: names and ids often differ at their ends alone."""
    left, right = text, ""
    while len(left) + len(right) > 2 and width_of(f"{left}…{right}" if right else left) > width:
        half = (len(left) + len(right) - 1) / 2
        left, right = text[: int(half + 0.5)], text[len(text) - int(half) :]
    return f"{left}…{right}" if right else left


@dataclass(frozen=True)
class Scale:
    """From values, `low` to `high`, to pixels, `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        reach = self.high - self.low
        return self.start if not reach else self.start + (value - self.low) / reach * (self.end - self.start)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about `most` of them."""
    if low == high:
        low, high = (low, low + 1) if low >= 0 else (low - 1, low)
    step = _round_step((high - low) / max(1, most - 1))
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(n * step, 10) for n in range(first, last + 1)]


def _round_step(rough: float) -> float:
    size: float = 10 ** floor(log10(rough))
    return size * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough * 0.999)


_FROM_ZERO: Final = 0.4


def reach_of(values: Sequence[float], zero: bool) -> tuple[float, float]:
    """The lowest and highest value that the axis must show. With `zero`, and where zero is near anyway, zero is one."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if zero or 0 <= low < _FROM_ZERO * high:
        low, high = min(0.0, low), max(0.0, high)
    return low, high


# ── Time ──────────────────────────────────────────────────────────────────────────────────────────────────────

_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_STEPS: Final = (
    *(n * _MINUTE for n in (1, 2, 5, 10, 15, 30)),
    *(n * _HOUR for n in (1, 2, 3, 4, 6, 12)),
    *(n * _DAY for n in (1, 2, 7, 14, 28, 91, 182, 364)),
)
_MONDAY: Final = datetime(2024, 1, 1)


def _aware(instant: datetime) -> datetime:
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def seconds(instant: datetime) -> float:
    """The place of an instant on a scale. An instant without a zone is UTC."""
    return _aware(instant).timestamp()


def time_ticks(first: datetime, last: datetime, most: int) -> list[datetime]:
    """Instants at round times of the reader's clock, at most `most` and a few."""
    reach = _aware(last) - _aware(first)
    step = next((step for step in _STEPS if reach / step <= most), _STEPS[-1])
    return [instant for instant in _rounded(first, last, step) if _aware(first) <= instant <= _aware(last)]


def _rounded(first: datetime, last: datetime, step: timedelta) -> Iterator[datetime]:
    """Round local times as instants. A time that the clocks skip, or have twice, comes once."""
    zone, local, end = ZoneInfo(view().zone), view().local(first), view().local(last)
    local = _MONDAY + floor((local - _MONDAY) / step) * step
    seen: datetime | None = None
    while local <= end:
        instant = local.replace(tzinfo=zone).astimezone(UTC)
        if instant != seen:
            yield instant
        seen, local = instant, local + step


def day_text(day: datetime) -> str:
    """A local day: "11 Nov"."""
    return say("{day} {month}", day=day.day, month=word_of("months", day.month))


def tick_text(instant: datetime) -> tuple[str, bool]:
    """The text of a tick, and whether it is a date: at midnight the date stands, else the time."""
    local = view().local(instant)
    midnight = (local.hour, local.minute) == (0, 0)
    return (day_text(local), True) if midnight else (f"{local:%H:%M}", False)


# ── Many points ───────────────────────────────────────────────────────────────────────────────────────────────


def thinned(points: Sequence[Point]) -> list[Point]:
    """Of the points in each column of pixels the first, the lowest, the highest and the last, in their order: the line
    looks as with all of them, and no peak is lost."""
    kept: list[Point] = []
    for _, column in groupby(points, key=lambda point: int(point[0])):
        inside = list(column)
        if len(inside) <= 4:
            kept += inside
            continue
        heights = [y for _, y in inside]
        chosen = {0, heights.index(min(heights)), heights.index(max(heights)), len(inside) - 1}
        kept += [inside[n] for n in sorted(chosen)]
    return kept


def apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places, moved as little as needed so that neighbours are `gap` apart and none is below `low` or above
    `high`."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    floor_ = low
    for n in order:
        moved[n] = max(moved[n], floor_)
        floor_ = moved[n] + gap
    ceiling = high
    for n in reversed(order):
        moved[n] = min(moved[n], ceiling)
        ceiling = moved[n] - gap
    return moved
