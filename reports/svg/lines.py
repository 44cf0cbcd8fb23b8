"""Lines over time: what happened, behind it the comparison in thin grey and the expected band, with marks for sales,
amendments and alerts. Each line is named at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from markupsafe import Markup

from coupon_ledger.reports.labels import label, say, text
from coupon_ledger.reports.short import Quantity
from coupon_ledger.reports.svg import markup
from coupon_ledger.reports.svg.figure import Drawing, Hover, Numbers
from coupon_ledger.reports.svg.markup import Point
from coupon_ledger.reports.svg.scales import (
    Scale,
    apart,
    reach_of,
    seconds,
    thinned,
    tick_text,
    ticks,
    time_ticks,
    width_of,
)

MOST_SERIES: Final = 6
_TOP, _BOTTOM = 24, 24
_ROWS_SHOWN: Final = 60
_HOVERS: Final = 400
_NARROW: Final = 420

Values = Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """A line of a chart. None leaves a gap."""

    name: str
    values: Values


@dataclass(frozen=True)
class Band:
    """What was expected: from `low` to `high`."""

    low: Values
    high: Values


@dataclass(frozen=True)
class Note:
    """Something that happened at an instant. `kind`: `sale`, `amendment` or `alert`."""

    at: datetime
    text: str
    kind: str = "sale"


@dataclass(frozen=True)
class Lines:
    """A chart of up to six lines over the same instants. `behind`: what they are compared with."""

    title: str
    about: str
    quantity: Quantity
    times: Sequence[datetime]
    lines: Sequence[Line]
    behind: Line | None = None
    band: Band | None = None
    notes: Sequence[Note] = ()
    height: float = 260

    def __post_init__(self) -> None:
        if len(self.lines) > MOST_SERIES:
            raise ValueError(f"a chart has at most {MOST_SERIES} lines, not {len(self.lines)}; draw the rest as one")

    def draw(self, width: float) -> Drawing:
        height = self.height if width > _NARROW else min(self.height, 220)
        levels = ticks(*reach_of(self._all_values(), zero=False), 5)
        left = 8 + max(width_of(self.quantity.short(level)) for level in levels)
        right = width - 12 - max((min(width_of(one.name), width * 0.3) for one in self._named()), default=0)
        across = Scale(seconds(self.times[0]), seconds(self.times[-1]), left, right)
        up = Scale(levels[0], levels[-1], height - _BOTTOM, _TOP)
        shapes = Markup("").join(
            [
                *(self._level(level, up, left, right) for level in levels),
                *self._time_axis(across, height, width),
                self._expected(across, up),
                *self._paths(across, up),
                *self._marks(across, height),
                *self._names(across, up, height),
            ]
        )
        return Drawing(width, height, shapes, left, right)

    def _named(self) -> list[Line]:
        return [*self.lines, *([self.behind] if self.behind else [])]

    def _all_values(self) -> list[float]:
        rows = [line.values for line in self._named()]
        if self.band:
            rows += [self.band.low, self.band.high]
        return [value for row in rows for value in row if value is not None]

    def _level(self, level: float, up: Scale, left: float, right: float) -> Markup:
        y = up(level)
        name = markup.words(left - 6, y + 4, self.quantity.short(level), "tick", "end")
        return markup.line(left, y, right, y, "level") + name

    def _time_axis(self, across: Scale, height: float, width: float) -> Iterator[Markup]:
        last = 0.0
        for instant in time_ticks(self.times[0], self.times[-1], int(width / 90)):
            name, date = tick_text(instant)
            x, half = across(seconds(instant)), width_of(name) / 2
            if x - half < last or x + half > width:
                continue
            last = x + half + 8
            yield markup.line(x, height - _BOTTOM, x, height - _BOTTOM + 4, "axis")
            yield markup.words(x, height - 6, name, "tick date" if date else "tick", "middle")

    def _expected(self, across: Scale, up: Scale) -> Markup:
        if self.band is None:
            return Markup("")
        tops, bottoms = (self._points(values, across, up) for values in (self.band.high, self.band.low))
        areas = zip(tops, bottoms, strict=False)
        return Markup("").join(markup.path([*top, *reversed(bottom)], "band", closed=True) for top, bottom in areas)

    def _paths(self, across: Scale, up: Scale) -> Iterator[Markup]:
        looks = [(line, f"line s{n}") for n, line in enumerate(self.lines, 1)]
        if self.behind:
            looks.insert(0, (self.behind, "line behind"))
        for line, look in looks:
            for points in self._points(line.values, across, up):
                yield markup.path(points, look)

    def _points(self, values: Values, across: Scale, up: Scale) -> list[list[Point]]:
        """The points of a line, in a piece for each stretch without a gap."""
        pieces: list[list[Point]] = [[]]
        for instant, value in zip(self.times, values, strict=True):
            if value is None:
                pieces.append([])
            else:
                pieces[-1].append((across(seconds(instant)), up(value)))
        return [thinned(piece) for piece in pieces if piece]

    def _marks(self, across: Scale, height: float) -> Iterator[Markup]:
        """What happened: a thin line with its text on top, where there is room for it."""
        free = 0.0
        notes = sorted((n for n in self.notes if self.times[0] <= n.at <= self.times[-1]), key=lambda note: note.at)
        places = [across(seconds(note.at)) for note in notes]
        for note, x, following in zip(notes, places, [*places[1:], across.end + 8], strict=False):
            inside = [markup.line(x, 16, x, height - _BOTTOM, "note")]
            if note.kind == "alert":
                inside.append(markup.path([(x - 5, 16), (x + 5, 16), (x, 7)], "alert", closed=True))
            width = width_of(note.text)
            gap = 8 if note.kind == "alert" else 0
            start = x + gap if x + gap + width <= across.end else x - gap - width
            if free <= start and across.start <= start <= following - 8 - width and note.text:
                inside.append(markup.words(start, 13, note.text, "note-text"))
                free = start + width + 12
            yield markup.mark(f"{text(note.at)} · {note.text}", *inside, look=f"noted {note.kind}")

    def _names(self, across: Scale, up: Scale, height: float) -> Iterator[Markup]:
        """The names of the lines at their ends, a dot in the colour of each, moved apart where they would overlap."""
        ends = [(line, f"s{n}") for n, line in enumerate(self.lines, 1)]
        ends += [(self.behind, "behind")] if self.behind else []
        known = [(line, look, _last(line.values)) for line, look in ends]
        drawn = [(line, look, n) for line, look, n in known if n is not None]
        places = [up(line.values[n] or 0) for line, _, n in drawn]
        moved = apart(places, 15, _TOP, height - _BOTTOM)
        for (line, look, n), real, y in zip(drawn, places, moved, strict=True):
            x = across(seconds(self.times[n]))
            yield markup.element("circle", cx=x, cy=real, r=3, class_=f"dot {look}")
            yield markup.words(across.end + 8, y + 4, line.name, f"name {look}")

    def hover(self) -> Hover:
        """At each place the exact values of one real point: the first in its share of the width."""
        first, reach = seconds(self.times[0]), seconds(self.times[-1]) - seconds(self.times[0])
        at: dict[int, int] = {}
        for n, instant in enumerate(self.times):
            at.setdefault(int((seconds(instant) - first) / (reach or 1) * _HOVERS), n)
        places = [(seconds(self.times[n]) - first) / (reach or 1) for n in at.values()]
        return Hover(places, [self._said(n) for n in at.values()])

    def _said(self, n: int) -> str:
        parts = [text(self.times[n]), *(f"{one.name} {self.quantity.exact(one.values[n])}" for one in self._named())]
        if self.band:
            low, high = (self.quantity.exact(values[n]) for values in (self.band.low, self.band.high))
            parts.append(say("expected {low} to {high}", low=low, high=high))
        return "\n".join(parts)

    def numbers(self) -> Numbers:
        """The numbers of about sixty instants, the first and the last among them; the note says how many there are."""
        every = max(1, -(-len(self.times) // _ROWS_SHOWN))
        shown = sorted({*range(min(1, len(self.times))), *range(len(self.times) - 1, -1, -every)})
        columns = [one.values for one in self._named()]
        heads = [label("at"), *(one.name for one in self._named())]
        if self.band:
            columns += [self.band.low, self.band.high]
            heads += [say("expected, low"), say("expected, high")]
        rows = tuple((text(self.times[n]), *(self.quantity.exact(column[n]) for column in columns)) for n in shown)
        note = say("{shown:count} of {n:count} points", shown=len(shown), n=len(self.times)) if every > 1 else ""
        return Numbers(tuple(heads), rows, (False, *([True] * len(columns))), note)


def _last(values: Values) -> int | None:
    return next((n for n in range(len(values) - 1, -1, -1) if values[n] is not None), None)


@dataclass(frozen=True)
class Spark:
    """A line as small as a word, without an axis; the comparison is grey behind it."""

    title: str
    quantity: Quantity
    values: Values
    behind: Values = ()

    @property
    def about(self) -> str:
        known = [value for value in self.values if value is not None]
        if not known:
            return say("nothing found")
        ends = {"low": min(known), "high": max(known), "last": known[-1]}
        return say("from {low} to {high}, last {last}", **{k: self.quantity.exact(v) for k, v in ends.items()})

    def draw(self, width: float) -> Drawing:
        height = 32.0
        known = [value for value in (*self.values, *self.behind) if value is not None]
        low, high = reach_of(known, zero=False)
        across = Scale(0, max(1, len(self.values) - 1, len(self.behind) - 1), 1, width - 4)
        up = Scale(low, high, height - 3, 4)
        shapes = [
            _small(self.behind, "line behind still", across, up),
            _small(self.values, "line still s1", across, up),
        ]
        if (last := _last(self.values)) is not None:
            at = across(last), up(self.values[last] or 0)
            shapes.append(markup.path([at, at], "end still s1"))
        return Drawing(width, height, Markup("").join(shapes), stretched=True)

    def numbers(self) -> Numbers:
        return Numbers((self.title,), tuple((self.quantity.exact(value),) for value in self.values), (True,))


def _small(values: Values, look: str, across: Scale, up: Scale) -> Markup:
    return markup.path(thinned([(across(n), up(v)) for n, v in enumerate(values) if v is not None]), look)
