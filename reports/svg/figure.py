"""A chart with what makes it readable for everybody: a title, a description, a table of its numbers, and a drawing for
wide and one for narrow screens. A drawing is never squeezed, so its texts keep their size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

from markupsafe import Markup

from coupon_ledger.reports.labels import say
from coupon_ledger.reports.svg.markup import element, words

WHOLE: Final = 1200
HALF: Final = 580
THIRD: Final = 376
NARROW: Final = 342
"""Widths of drawings: a whole row of a page, half of it, a third, a phone."""


@dataclass(frozen=True)
class Numbers:
    """The numbers of a chart as a table of texts. `right`: which columns are aligned right."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[bool, ...]
    note: str = ""


@dataclass(frozen=True)
class Hover:
    """What a line chart says where it is pointed at. `places`: shares of the plot's width; `texts`: one for each."""

    places: Sequence[float]
    texts: Sequence[str]

    def dumps(self) -> str:
        places = [round(place, 4) for place in self.places]
        return json.dumps({"places": places, "texts": list(self.texts)}, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Drawing:
    """Shapes on a sheet. `left`, `right`: the ends of the plot that `Hover` speaks of. `stretched`: it
    fills any box, since nothing in it has a form of its own."""

    width: float
    height: float
    shapes: Markup
    left: float = 0
    right: float = 0
    stretched: bool = False


class Chart(Protocol):
    """Plain data that can be drawn at any width. Its `title` says what it is; `about` what it shows, in a sentence."""

    @property
    def title(self) -> str: ...
    @property
    def about(self) -> str: ...
    def draw(self, width: float) -> Drawing: ...
    def numbers(self) -> Numbers: ...


@dataclass(frozen=True)
class Figure:
    """A chart on a page. `key`: its name there, unlike that of any other."""

    chart: Chart
    key: str
    width: float = WHOLE

    @property
    def title(self) -> str:
        return self.chart.title

    @property
    def wide(self) -> Markup:
        return self._drawn(self.width, "wide")

    @property
    def narrow(self) -> Markup:
        """For phones; empty if the wide drawing fits them."""
        return self._drawn(NARROW, "narrow") if self.width > NARROW else Markup("")

    def _drawn(self, width: float, look: str) -> Markup:
        return svg(self.chart, width, f"{self.key}-{look}", look, numbers=self.numbers)

    @cached_property
    def numbers(self) -> Numbers:
        return self.chart.numbers()

    @property
    def hover(self) -> str | None:
        """What to say where, for `page.js`; None if the marks say it themselves."""
        found: Any = getattr(self.chart, "hover", None)
        return found().dumps() if found is not None and self.numbers.rows else None


def _nothing(width: float) -> Drawing:
    """In place of a chart without data."""
    return Drawing(width, 48, words(0, 28, say("nothing found"), "unknown"))


def svg(chart: Chart, width: float, key: str, look: str = "", numbers: Numbers | None = None) -> Markup:
    """The chart as an `<svg>` element of this width. `key` is unlike that of any other on the page. `numbers`: those of
    the chart, if they are known already."""
    drawn = chart.draw(width) if (numbers or chart.numbers()).rows else _nothing(width)
    return element(
        "svg",
        element("title", chart.title, id=f"{key}-t"),
        element("desc", chart.about, id=f"{key}-d"),
        drawn.shapes,
        xmlns="http://www.w3.org/2000/svg",
        class_=f"chart {look}".strip(),
        viewBox=f"0 0 {drawn.width:g} {drawn.height:g}",
        width=drawn.width,
        height=drawn.height,
        preserveAspectRatio="none" if drawn.stretched else None,
        # A picture hides what is in it from readers, so one with links is none.
        role="group" if "<a " in str(drawn.shapes) else "img",
        aria_labelledby=f"{key}-t {key}-d",
        tabindex=None if drawn.stretched else "0",
        data_left=drawn.left or None,
        data_right=drawn.right or None,
    )
