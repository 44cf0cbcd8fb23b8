"""Estimates with their confidence intervals. One from fewer than 30 cases is hollow; an unknown one says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from coupon_ledger.ledger.amounts import NOTHING
from coupon_ledger.reports.labels import label, say
from coupon_ledger.reports.short import Quantity
from coupon_ledger.reports.svg import markup
from coupon_ledger.reports.svg.bars import FEW
from coupon_ledger.reports.svg.figure import Drawing, Numbers
from coupon_ledger.reports.svg.scales import Scale, fitted, ticks, width_of

_ROW, _AXIS = 44, 22


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; without one, `why` says why it is unknown. `low` and `high` are None for a value
    that is no estimate."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    cases: int | None = None
    why: str = ""

    @property
    def few(self) -> bool:
        return self.cases is not None and self.cases < FEW


@dataclass(frozen=True)
class Intervals:
    """Intervals below each other on one axis. `null`: where there is no effect; `null_name`: what that is called."""

    title: str
    about: str
    quantity: Quantity
    intervals: Sequence[Interval]
    null: float = 0
    null_name: str = ""

    def draw(self, width: float) -> Drawing:
        known = [v for one in self.intervals for v in (one.low, one.value, one.high) if v is not None] + [self.null]
        levels = ticks(min(known), max(known), 5)
        gutter = min(width * 0.36, 24 + max(width_of(one.name) for one in self.intervals))
        across = Scale(levels[0], levels[-1], gutter, width - 16)
        bottom = 12 + _ROW * len(self.intervals)
        null = across(self.null)
        shapes = [
            *(self._level(level, across, bottom) for level in levels),
            markup.line(null, 14, null, bottom, "null"),
            markup.words(null, 10, self.null_name, "tick", "middle"),
            *(self._row(one, 12 + n * _ROW, across) for n, one in enumerate(self.intervals)),
        ]
        return Drawing(width, bottom + _AXIS, Markup("").join(shapes))

    def _level(self, level: float, across: Scale, bottom: float) -> Markup:
        x = across(level)
        return markup.line(x, 14, x, bottom, "level") + markup.words(
            x, bottom + 16, self.quantity.short(level), "tick", "middle"
        )

    def _row(self, one: Interval, top: float, across: Scale) -> Markup:
        y = top + 28
        inside = [markup.words(0, y + 4, fitted(one.name, across.start - 20), "label")]
        if one.value is None:
            inside.append(markup.words(across.start + 4, y + 4, f"{NOTHING} {one.why}", "unknown"))
            return markup.mark(f"{one.name}\n{NOTHING} {one.why}", *inside)
        if one.low is not None and one.high is not None:
            low, high = across(one.low), across(one.high)
            inside.append(markup.line(low, y, high, y, "interval"))
            inside += [markup.line(x, y - 4, x, y + 4, "interval") for x in (low, high)]
        inside.append(
            markup.element("circle", cx=across(one.value), cy=y, r=5, class_=f"estimate{' hollow' if one.few else ''}")
        )
        said = self._said(one, self.quantity.short)
        half = width_of(said) / 2
        middle = min(max(across(one.value), across.start + half), across.end + 12 - half)
        inside.append(markup.words(middle, y - 11, said, "value", "middle"))
        return markup.mark(f"{one.name}\n{self._said(one, self.quantity.exact)}", *inside)

    def _said(self, one: Interval, written: Callable[[float | None], str]) -> str:
        said = written(one.value)
        if one.low is not None and one.high is not None:
            said += f" ({written(one.low)} – {written(one.high)})"
        return f"{said} (n = {one.cases})" if one.few else said

    def numbers(self) -> Numbers:
        heads = ("", label(self.quantity.name), say("95% interval, low"), say("95% interval, high"), say("cases"))
        rows = tuple(
            (
                one.name,
                *(self.quantity.exact(value) for value in (one.value, one.low, one.high)),
                NOTHING if one.cases is None else f"{one.cases:,}",
            )
            for one in self.intervals
        )
        return Numbers(heads, rows, (False, True, True, True, True))
