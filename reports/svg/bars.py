"""Bars: ranked and lying, or standing over time and stacked. They start at zero, and their lengths are proportional to
their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from markupsafe import Markup

from coupon_ledger.reports.labels import label, say, text
from coupon_ledger.reports.short import Quantity
from coupon_ledger.reports.svg import markup
from coupon_ledger.reports.svg.figure import Drawing, Numbers
from coupon_ledger.reports.svg.lines import MOST_SERIES, Line
from coupon_ledger.reports.svg.scales import Scale, fitted, reach_of, seconds, tick_text, ticks, time_ticks, width_of

FEW: Final = 30
"""From fewer cases than this, what is drawn is hollow, and the count stands beside it."""
_ROW = 28
_TOP, _BOTTOM = 12, 24


@dataclass(frozen=True)
class Bar:
    """A named value. `cases`: from how many it is computed. `behind`: what it is compared with. `href`: what it is made
    of."""

    name: str
    value: float | None
    cases: int | None = None
    behind: float | None = None
    href: str | None = None

    @property
    def few(self) -> bool:
        return self.cases is not None and self.cases < FEW


def counted(value: str, bar: Bar) -> str:
    """The value with the count it comes from, if that is small."""
    return f"{value} (n = {bar.cases})" if bar.few else value


@dataclass(frozen=True)
class Bars:
    """Ranked bars, each with its name before and its value behind it."""

    title: str
    about: str
    quantity: Quantity
    bars: Sequence[Bar]

    def draw(self, width: float) -> Drawing:
        gutter = min(width * 0.34, 12 + max((width_of(bar.name) for bar in self.bars), default=0))
        behind = 12 + max((width_of(self._value(bar)) for bar in self.bars), default=0)
        low, high = reach_of([v for bar in self.bars for v in (bar.value, bar.behind) if v is not None], zero=True)
        across = Scale(low, high, gutter + (behind if low < 0 else 0), width - behind)
        rows = [self._row(bar, n * _ROW, gutter, across) for n, bar in enumerate(self.bars)]
        zero, bottom = across(0), _ROW * len(self.bars)
        return Drawing(width, bottom, Markup("").join([*rows, markup.line(zero, 0, zero, bottom, "axis")]))

    def _row(self, bar: Bar, top: float, gutter: float, across: Scale) -> Markup:
        name = fitted(bar.name, gutter - 12)
        inside = [markup.words(0, top + 18, name, "label")]
        zero = across(0)
        if bar.behind is not None:
            inside.append(markup.rect(zero, top + 21, across(bar.behind) - zero, 2, "behind"))
        if bar.value is not None:
            look = "bar s1 hollow" if bar.few else "bar s1"
            inside.append(markup.rect(zero, top + 6, across(bar.value) - zero, 14, look, data_value=f"{bar.value:g}"))
        left = bar.value is not None and bar.value < 0
        end = across(bar.value or 0) + (-8 if left else 8)
        inside.append(markup.words(end, top + 18, self._value(bar), "value", "end" if left else None))
        return markup.mark(f"{bar.name}\n{counted(self.quantity.exact(bar.value), bar)}", *inside, href=bar.href)

    def _value(self, bar: Bar) -> str:
        return counted(self.quantity.short(bar.value), bar)

    def numbers(self) -> Numbers:
        heads = ("", label(self.quantity.name))
        return Numbers(
            heads, tuple((b.name, counted(self.quantity.exact(b.value), b)) for b in self.bars), (False, True)
        )


@dataclass(frozen=True)
class Columns:
    """Standing bars over time, a stack for each instant, of up to six parts. The parts are not negative."""

    title: str
    about: str
    quantity: Quantity
    times: Sequence[datetime]
    parts: Sequence[Line]
    height: float = 220

    def __post_init__(self) -> None:
        if len(self.parts) > MOST_SERIES:
            raise ValueError(f"a stack has at most {MOST_SERIES} parts, not {len(self.parts)}; add up the rest")

    def draw(self, width: float) -> Drawing:
        sums = [sum(self._at(n)) for n in range(len(self.times))]
        levels = ticks(*reach_of(sums, zero=True), 5)
        left = 8 + max(width_of(self.quantity.short(level)) for level in levels)
        keys, high = self._keys(left, width)
        step = (width - left) / max(1, len(self.times))
        up = Scale(levels[0], levels[-1], self.height - _BOTTOM, _TOP + high)
        shapes = [
            *(self._level(level, up, left, width) for level in levels),
            *(self._stack(n, left + n * step, step, up) for n in range(len(self.times))),
            *self._dates(left, step, width),
            *keys,
        ]
        return Drawing(width, self.height, Markup("").join(shapes))

    def _at(self, n: int) -> list[float]:
        return [part.values[n] or 0 for part in self.parts]

    def _level(self, level: float, up: Scale, left: float, right: float) -> Markup:
        y = up(level)
        return markup.line(left, y, right, y, "level") + markup.words(
            left - 6, y + 4, self.quantity.short(level), "tick", "end"
        )

    def _stack(self, n: int, x: float, step: float, up: Scale) -> Markup:
        total, inside = 0.0, []
        width = min(48.0, step * 0.72)
        for number, value in enumerate(self._at(n), 1):
            low, total = total, total + value
            place = x + (step - width) / 2
            inside.append(
                markup.rect(place, up(total), width, up(low) - up(total), f"bar s{number}", data_value=f"{value:g}")
            )
        said = [f"{part.name} {self.quantity.exact(part.values[n])}" for part in self.parts]
        return markup.mark("\n".join([text(self.times[n]), *said]), *inside)

    def _dates(self, left: float, step: float, width: float) -> Iterator[Markup]:
        chosen = {seconds(t) for t in time_ticks(self.times[0], self.times[-1], int(width / 80))}
        last = 0.0
        for n, instant in enumerate(self.times):
            name, date = tick_text(instant)
            x, half = left + (n + 0.5) * step, width_of(name) / 2
            if seconds(instant) in chosen and x - half > last and x + half <= width:
                last = x + half + 6
                yield markup.words(x, self.height - 6, name, "tick date" if date else "tick", "middle")

    def _keys(self, left: float, right: float) -> tuple[list[Markup], float]:
        """The names of the parts, above the stacks: a stack has no end to name it at. And how high they are."""
        shapes, x, y = [], left, 3.0
        for number, part in enumerate(self.parts if len(self.parts) > 1 else (), 1):
            width = width_of(part.name) + 16
            if x + width > right:
                x, y = left, y + 18
            shapes += [markup.rect(x, y, 9, 9, f"bar s{number}"), markup.words(x + 14, y + 9, part.name, "name")]
            x += width + 16
        return shapes, y + 15 if shapes else 0

    def numbers(self) -> Numbers:
        heads = (label("at"), *(part.name for part in self.parts))
        rows = tuple(
            (text(instant), *(self.quantity.exact(part.values[n]) for part in self.parts))
            for n, instant in enumerate(self.times)
        )
        return Numbers(heads, rows, (False, *([True] * len(self.parts))))


@dataclass(frozen=True)
class Waterfall:
    """Why a number changed: from what it was, step by step, to what it is. Each step is drawn from where the one before
    ended; the last bar is the sum."""

    title: str
    about: str
    quantity: Quantity
    start: Bar
    steps: Sequence[Bar]
    end: str

    def draw(self, width: float) -> Drawing:
        before, total = [], self.start.value or 0
        for step in self.steps:
            before.append(total)
            total += step.value or 0
        levels = [0, self.start.value or 0, *(b + (s.value or 0) for b, s in zip(before, self.steps, strict=True))]
        names = [self.start.name, self.end, *(step.name for step in self.steps)]
        gutter = min(width * 0.36, 12 + max(map(width_of, names)))
        values = [self.quantity.short(total), *(self._signed(step) for step in self.steps)]
        across = Scale(min(levels), max(levels), gutter, width - 12 - max(map(width_of, values)))
        rows = [
            self._row(
                0, self.start.name, 0, self.start.value or 0, "total", self.quantity.short(self.start.value), across
            )
        ]
        for n, (step, low) in enumerate(zip(self.steps, before, strict=True), 1):
            look = "lost" if (step.value or 0) < 0 else "s1"
            rows.append(self._row(n, step.name, low, step.value or 0, look, self._signed(step), across))
        rows.append(self._row(len(rows), self.end, 0, total, "total", self.quantity.short(total), across))
        joints = [self._joint(n, level, across) for n, level in enumerate(levels[1:])]
        return Drawing(width, _ROW * len(rows), Markup("").join([*joints, *rows]))

    def _row(self, n: int, name: str, low: float, value: float, look: str, said: str, across: Scale) -> Markup:
        y, end = n * _ROW, max(across(low), across(low + value))
        cut = fitted(name, across.start - 12)
        return markup.mark(
            f"{name}\n{self.quantity.exact(value)}",
            markup.words(0, y + 18, cut, "label strong" if look == "total" else "label"),
            markup.rect(
                across(low), y + 6, across(low + value) - across(low), 16, f"bar {look}", data_value=f"{value:g}"
            ),
            markup.words(end + 8, y + 18, said, "value"),
        )

    def _joint(self, n: int, level: float, across: Scale) -> Markup:
        x = across(level)
        return markup.line(x, n * _ROW + 22, x, (n + 1) * _ROW + 6, "joint")

    def _signed(self, step: Bar) -> str:
        said = self.quantity.short(step.value)
        return f"+{said}" if (step.value or 0) > 0 else said

    def numbers(self) -> Numbers:
        total = (self.start.value or 0) + sum(step.value or 0 for step in self.steps)
        rows = [self.start, *self.steps, Bar(self.end, total)]
        cells = tuple((bar.name, self.quantity.exact(bar.value)) for bar in rows)
        return Numbers((label("step"), label(self.quantity.name)), cells, (False, True))


def share_text(part: float | None, whole: float | None) -> str:
    """A part of a whole as a percentage; a dash if it is not known."""
    return Quantity("share").exact(part / whole if part is not None and whole else None)


_BAR: Final = 0.58
"""Width of a funnel's bar; the rest tapers to the next one."""


@dataclass(frozen=True)
class Step:
    """A step of a funnel: how many got there."""

    name: str
    value: float
    href: str | None = None


@dataclass(frozen=True)
class Funnel:
    """How many got how far: a bar for each step, its length proportional, with its share of the step before. The step
    that loses most is marked."""

    title: str
    about: str
    quantity: Quantity
    steps: Sequence[Step]

    @property
    def worst(self) -> int | None:
        """The step that the largest share of those before it did not reach."""
        shares = [
            after.value / before.value if before.value else 1
            for before, after in zip(self.steps, self.steps[1:], strict=False)
        ]
        return shares.index(min(shares)) + 1 if shares else None

    def draw(self, width: float) -> Drawing:
        return self._standing(width) if width > 420 else self._lying(width)

    def _standing(self, width: float) -> Drawing:
        """Steps beside each other, tapering from one to the next."""
        height, floor, top = 132.0, 126.0, 54.0
        step = width / (len(self.steps) - 1 + _BAR)
        bar = step * _BAR
        up = Scale(0, max(one.value for one in self.steps) or 1, floor, top)
        shapes = []
        for n, one in enumerate(self.steps):
            x = n * step
            if n + 1 < len(self.steps):
                after = self.steps[n + 1].value
                corners = [(x + bar, up(one.value)), (x + step, up(after)), (x + step, floor), (x + bar, floor)]
                shapes.append(markup.path(corners, "taper lost" if n + 1 == self.worst else "taper", closed=True))
            inside = [
                markup.words(x, 13, one.name, "label"),
                markup.words(x, 36, self.quantity.short(one.value), "figure"),
                markup.rect(x, up(one.value), bar, floor - up(one.value), "bar s1", data_value=f"{one.value:g}"),
            ]
            if n:
                share = share_text(one.value, self.steps[n - 1].value)
                middle = x - (step - bar) / 2
                inside.append(
                    markup.words(middle, 36, f"{share} →", "value lost" if n == self.worst else "value", "middle")
                )
            shapes.append(markup.mark(self._said(n), *inside, href=one.href))
        return Drawing(width, height, Markup("").join(shapes))

    def _lying(self, width: float) -> Drawing:
        """Steps below each other, for phones."""
        across = Scale(0, max(one.value for one in self.steps) or 1, 0, width)
        shapes = []
        for n, one in enumerate(self.steps):
            y = n * 44
            share = share_text(one.value, self.steps[n - 1].value) if n else ""
            said = f"{self.quantity.short(one.value)}{'  ·  ' if share else ''}{share}"
            inside = [
                markup.words(0, y + 13, one.name, "label"),
                markup.words(width, y + 13, said, "value lost" if n == self.worst else "value", "end"),
                markup.rect(0, y + 20, across(one.value), 12, "bar s1", data_value=f"{one.value:g}"),
            ]
            shapes.append(markup.mark(self._said(n), *inside, href=one.href))
        return Drawing(width, 44.0 * len(self.steps), Markup("").join(shapes))

    def _said(self, n: int) -> str:
        one = self.steps[n]
        said = f"{one.name}\n{self.quantity.exact(one.value)}"
        if n == 0:
            return said
        share = share_text(one.value, self.steps[n - 1].value)
        return f"{said}\n" + say("{share} of {step}", share=share, step=self.steps[n - 1].name)

    def numbers(self) -> Numbers:
        heads = (label("step"), label(self.quantity.name), say("of the step before"))
        rows = tuple(
            (one.name, self.quantity.exact(one.value), share_text(one.value, self.steps[n - 1].value) if n else "–")
            for n, one in enumerate(self.steps)
        )
        return Numbers(heads, rows, (False, True, True))
