"""The life of one coupon on a line of time: a bar for each state, a mark for each event, violations in red."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from coupon_ledger.reports.labels import label, text, word
from coupon_ledger.reports.svg import markup
from coupon_ledger.reports.svg.figure import Drawing, Numbers
from coupon_ledger.reports.svg.scales import Scale, seconds, tick_text, time_ticks, width_of


@dataclass(frozen=True)
class Moment:
    """An event and the state that followed. `violations`: codes."""

    at: datetime
    event: str
    state: str
    violations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Life:
    """`until`: the end of the line, which is now or the instant that is looked back to."""

    title: str
    about: str
    moments: Sequence[Moment]
    until: datetime

    def draw(self, width: float) -> Drawing:
        across = Scale(
            seconds(self.moments[0].at), max(seconds(self.until), seconds(self.moments[-1].at) + 1), 6, width - 6
        )
        shapes = [*self._states(across), *(self._event(moment, across) for moment in self.moments)]
        last = 0.0
        for instant in time_ticks(self.moments[0].at, self.until, int(width / 90)):
            name, date = tick_text(instant)
            x, half = across(seconds(instant)), width_of(name) / 2
            if x - half >= last and x + half <= width:
                last = x + half + 8
                shapes.append(markup.words(x, 68, name, "tick date" if date else "tick", "middle"))
        return Drawing(width, 74, Markup("").join(shapes))

    def _states(self, across: Scale) -> list[Markup]:
        ends = [*(seconds(moment.at) for moment in self.moments[1:]), seconds(self.until)]
        shapes = []
        for moment, end in zip(self.moments, ends, strict=True):
            x, right = across(seconds(moment.at)), across(end)
            name = word(moment.state)
            inside = [markup.rect(x, 22, right - x, 22, f"state {moment.state}")]
            if width_of(name) + 12 <= right - x:
                inside.append(markup.words(x + 8, 37, name, "in-cell"))
            shapes.append(markup.mark(f"{name}\n{text(moment.at)}", *inside))
        return shapes

    def _event(self, moment: Moment, across: Scale) -> Markup:
        x = across(seconds(moment.at))
        said = [f"{word(moment.event)} · {text(moment.at)}", *map(word, moment.violations)]
        if moment.violations:
            shape = markup.path([(x, 5), (x + 6, 11), (x, 17), (x - 6, 11)], "alert", closed=True)
        else:
            shape = markup.element("circle", cx=x, cy=11, r=4, class_="estimate")
        return markup.mark("\n".join(said), markup.line(x, 16, x, 44, "note"), shape)

    def numbers(self) -> Numbers:
        heads = (label("at"), label("type"), label("state"), label("violations"))
        rows = tuple(
            (text(one.at), word(one.event), word(one.state), ", ".join(map(word, one.violations)) or "–")
            for one in self.moments
        )
        return Numbers(heads, rows, (False,) * 4)
