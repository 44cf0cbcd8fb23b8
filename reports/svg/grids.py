"""Grids of shaded cells: when in the week, how cohorts come back, which customers by recency and frequency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from markupsafe import Markup

from coupon_ledger.reports.labels import word_of
from coupon_ledger.reports.short import Quantity
from coupon_ledger.reports.svg import markup
from coupon_ledger.reports.svg.figure import Drawing, Numbers
from coupon_ledger.reports.svg.scales import width_of

SHADES: Final = 6
"""Steps of shading above "none"."""

_HEAD: Final = 20


@dataclass(frozen=True)
class Grid:
    """Values by row and column; None is a cell that cannot be known yet. `within`: whether cells show their values;
    others do when pointed at. `every`: of how many columns one is named."""

    title: str
    about: str
    quantity: Quantity
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    within: bool = True
    every: int = 1
    corner: str = ""

    def draw(self, width: float) -> Drawing:
        gutter = min(width * 0.3, 12 + max(map(width_of, (*self.rows, self.corner))))
        step = (width - gutter) / max(1, len(self.columns))
        high = 30.0 if self.within else max(16.0, min(26.0, step))
        shapes = [markup.words(0, 13, self.corner, "tick")] if self.corner else []
        for n, name in enumerate(self.columns):
            if n % self._named_every(step) == 0:
                x = gutter + (n + 0.5) * step if self.within else gutter + n * step
                shapes.append(markup.words(x, 13, name, "tick", "middle" if self.within else None))
        for r, name in enumerate(self.rows):
            y = _HEAD + r * high
            shapes.append(markup.words(0, y + high / 2 + 4, name, "label"))
            shapes += [self._cell(r, c, gutter + c * step, y, step, high) for c in range(len(self.columns))]
        bottom = _HEAD + high * len(self.rows)
        shapes += [] if self.within else self._key(gutter, bottom + 10)
        return Drawing(width, bottom + (2 if self.within else 28), Markup("").join(shapes))

    def _named_every(self, step: float) -> int:
        """Columns are named as often as their names have room."""
        widest = max((width_of(name) for name in self.columns), default=0) + 4
        every = self.every
        while every * step < widest:
            every *= 2
        return every

    def shade(self, value: float) -> int:
        """From 0, nothing, to `SHADES`, the largest."""
        most = max((abs(v) for row in self.values for v in row if v is not None), default=0)
        return 0 if not most or not value else max(1, min(SHADES, -int(-abs(value) / most * SHADES // 1)))

    def _cell(self, r: int, c: int, x: float, y: float, step: float, high: float) -> Markup:
        value = self.values[r][c]
        if value is None:
            return Markup("")
        look = f"cell q{self.shade(value)}{' within' if self.within else ''}"
        inside = [markup.rect(x + 1, y + 1, step - 2, high - 2, look, data_value=f"{value:g}")]
        said = self.quantity.short(value)
        fits = (text for text in (said, said.replace(".0%", "%")) if self.within and width_of(text) <= step - 2)
        inside += [markup.words(x + step / 2, y + high / 2 + 4, text, "in-cell", "middle") for text in islice(fits, 1)]
        return markup.mark(f"{self.rows[r]} · {self.columns[c]}\n{self.quantity.exact(value)}", *inside)

    def _key(self, left: float, y: float) -> list[Markup]:
        """What the shades mean: from none to the largest value."""
        known = [value for row in self.values for value in row if value is not None]
        low, high = "0", self.quantity.short(max(known, default=0))
        shapes = [markup.words(left, y + 11, low, "tick")]
        start = left + width_of(low) + 6
        shapes += [markup.rect(start + n * 16, y + 2, 14, 10, f"cell q{n}") for n in range(SHADES + 1)]
        return [*shapes, markup.words(start + (SHADES + 1) * 16 + 4, y + 11, high, "tick")]

    def numbers(self) -> Numbers:
        rows = tuple((name, *map(self.quantity.exact, line)) for name, line in zip(self.rows, self.values, strict=True))
        return Numbers((self.corner, *self.columns), rows, (False, *([True] * len(self.columns))))


def week(title: str, about: str, quantity: Quantity, values: Sequence[Sequence[float | None]]) -> Grid:
    """When in the week: a row for each weekday from Monday, a column for each hour of the reader's clock."""
    hours = [f"{hour:02d}" for hour in range(24)]
    return Grid(
        title, about, quantity, [word_of("weekdays", day) for day in range(1, 8)], hours, values, within=False, every=3
    )
