"""Draws the charts of reviews as SVG. Labels are stored as text, so the reader's browser chooses their font."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from coupon_ledger.analysis import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_COLORS: Final = ("#1f5fb4", "#c2410c", "#15803d", "#7c3aed", "#a16207")

_INK: Final = "#334155"

_MOST_TICKS: Final = 5

_BAR_HEIGHT: Final = 0.42

_WIDTH: Final = 5.8


@dataclass(frozen=True)
class Chart:
    """A chart. `kind`: `bars` (with one series), `lines`, or `spans` (intervals, with the series `effect`, `low` and
    `high`). `names`: the name of each bar, point or interval. `series`: by column name, one number for each of these.
    `currency`: the currency of amounts."""

    kind: str
    title: str
    names: Sequence[str]
    series: Mapping[str, Sequence[float | None]]
    currency: str | None = None

    @property
    def empty(self) -> bool:
        return not any(value for line in self.series.values() for value in line)


def svg(chart: Chart) -> str:
    """Draw the chart as an `<svg>` element that can be embedded in a page."""
    need("charts", "matplotlib")
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib.figure import Figure

    style: Any = {"svg.fonttype": "none", "font.size": 10, "svg.hashsalt": chart.title}
    style |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK)
    with mpl.rc_context(style), warnings.catch_warnings():
        # The font used for measuring has no Chinese glyphs; the browser's font has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        height = 2.9 if chart.kind == "lines" else 0.7 + _BAR_HEIGHT * len(chart.names)
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.subplots()
        {"bars": _bars, "lines": _lines, "spans": _spans}[chart.kind](axes, chart)
        axes.spines[["top", "right"]].set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def _bars(axes: Axes, chart: Chart) -> None:
    """Draw the bars, each with its value. They are horizontal, so that long names fit beside them."""
    [(name, values)] = chart.series.items()
    known = [value or 0 for value in values]
    drawn = axes.barh(range(len(known)), known, color=_COLORS[0], height=0.62)
    axes.bar_label(drawn, [_figure(name, value, chart) for value in values], padding=4)
    _name_rows(axes, chart)
    axes.margins(x=0.14)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)


def _lines(axes: Axes, chart: Chart) -> None:
    for (name, values), color in zip(chart.series.items(), _COLORS, strict=False):
        axes.plot(range(len(values)), [v or 0 for v in values], label=_label(name), linewidth=1.8, color=color,
                  marker="o" if len(values) < 32 else None, markersize=3)  # fmt: skip
    every = max(1, -(-len(chart.names) // _MOST_TICKS))
    axes.set_xticks(range(0, len(chart.names), every), [chart.names[n] for n in range(0, len(chart.names), every)])
    name = next(iter(chart.series))
    axes.yaxis.set_major_formatter(lambda value, _: _figure(name, value, chart))
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.25)
    if len(chart.series) > 1:
        # Outside the axes: inside, a wide legend leaves no room for the lines.
        axes.figure.legend(frameon=False, ncols=2, loc="outside upper left", fontsize=9)


def _spans(axes: Axes, chart: Chart) -> None:
    """Draw the intervals, and a line at zero. If an interval contains zero, there may be no effect."""
    parts = zip(*(chart.series[name] for name in ("effect", "low", "high")), strict=True)
    for n, (effect, low, high) in enumerate(parts):
        if effect is None or low is None or high is None:
            continue
        axes.plot([low, high], [n, n], color=_COLORS[0], linewidth=2.4, solid_capstyle="butt")
        axes.plot([effect], [n], "o", color=_COLORS[0], markersize=7)
        label = " ".join((_figure("effect_minor", effect, chart), f"({_figure('effect_minor', low, chart)}", "–",
                          f"{_figure('effect_minor', high, chart)})"))  # fmt: skip
        axes.annotate(label, (effect, n), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9)
    axes.axvline(0, color=_COLORS[1], linewidth=1.2, linestyle="--")
    _name_rows(axes, chart)
    axes.margins(x=0.12, y=0.3)
    axes.xaxis.set_major_formatter(lambda value, _: _figure("effect_minor", value, chart))


def _name_rows(axes: Axes, chart: Chart) -> None:
    axes.set_yticks(range(len(chart.names)), [_word(str(name)) for name in chart.names])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()


def _label(name: str) -> str:
    from coupon_ledger.reports.labels import label

    return label(name)


def _word(name: str) -> str:
    from coupon_ledger.reports.labels import word

    return word(name)


def _figure(name: str, value: Any, chart: Chart) -> str:
    from coupon_ledger.reports.labels import shown

    return shown(name, {name: value}, chart.currency)
