"""Charts say what the numbers say: their geometry and their texts are compared with the data."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

import pytest

from coupon_ledger.reports.short import Quantity
from coupon_ledger.reports.svg.bars import Bar, Bars, Columns, Funnel, Step, Waterfall
from coupon_ledger.reports.svg.figure import HALF, NARROW, WHOLE, Chart, Figure, svg
from coupon_ledger.reports.svg.grids import Grid, week
from coupon_ledger.reports.svg.intervals import Interval, Intervals
from coupon_ledger.reports.svg.life import Life, Moment
from coupon_ledger.reports.svg.lines import Band, Line, Lines, Note, Spark
from coupon_ledger.reports.svg.network import Network, Node
from coupon_ledger.reports.svg.scales import apart, fitted, thinned, tick_text, ticks, time_ticks, width_of
from coupon_ledger.reports.view import View, showing

MIDNIGHT: Final = datetime(2026, 11, 10, 16, tzinfo=UTC)
COUNT, MONEY = Quantity("net_uses"), Quantity("coupon_gmv_minor", "CNY")
EVIL: Final = """<script>alert("&'")</script>"""


def drawn(chart: Chart, width: float = WHOLE) -> ET.Element:
    return ET.fromstring(str(svg(chart, width, "k")).replace(' xmlns="http://www.w3.org/2000/svg"', ""))


def of_look(root: ET.Element, tag: str, look: str) -> list[ET.Element]:
    return [one for one in root.iter(tag) if look in one.get("class", "").split()]


def texts(root: ET.Element) -> list[str]:
    return [one.text or "" for one in root.iter("text")]


def points(path: ET.Element) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.get("d", ""))]


def levels_of(root: ET.Element) -> dict[str | None, float]:
    """Where the levels of a line chart are, by their texts."""
    named = [text for text in of_look(root, "text", "tick") if text.get("text-anchor") == "end"]
    return {text.text: number(text, "y") - 4 for text in named}


def number(element: ET.Element, name: str) -> float:
    return float(element.get(name, "nan"))


def lines(values: Sequence[float | None], step: timedelta = timedelta(minutes=1), **more: Any) -> Lines:
    times = [MIDNIGHT + n * step for n in range(len(values))]
    return Lines("title", "about", COUNT, times, [Line("one", values)], **more)


ALL: Final[tuple[Chart, ...]] = (
    lines([1, 5, None, 3, 9], behind=Line(EVIL, [2.0] * 5), band=Band([0] * 5, [10] * 5), notes=[Note(MIDNIGHT, EVIL)]),
    Spark(EVIL, COUNT, [1, 2, 3], [3, 2, 1]),
    Bars("t", EVIL, MONEY, [Bar(EVIL, 300), Bar("b", -100, behind=20), Bar("c", None)]),
    Columns("t", "a", COUNT, [MIDNIGHT, MIDNIGHT + timedelta(days=1)], [Line(EVIL, [1, 2]), Line("b", [3, None])]),
    Waterfall("t", "a", MONEY, Bar(EVIL, 500), [Bar("up", 200), Bar("down", -300)], EVIL),
    Funnel("t", "a", COUNT, [Step(EVIL, 100), Step("b", 40, href="/x"), Step("c", 30)]),
    week("t", "a", COUNT, [[float(d * h) for h in range(24)] for d in range(7)]),
    Grid("t", "a", Quantity("use_rate"), [EVIL], [EVIL, "b"], [[0.5, None]], corner=EVIL),
    Intervals("t", "a", COUNT, [Interval(EVIL, 2.0, 1.0, 3.0), Interval("b", None, why=EVIL)], null_name=EVIL),
    Life("t", "a", [Moment(MIDNIGHT, EVIL, EVIL, (EVIL,))], MIDNIGHT + timedelta(hours=9)),
    Network("t", "a", [Node(EVIL, "user_id", href="/u"), Node("d-1", "device_id")], [(EVIL, "d-1"), ("d-1", "gone")]),
)


# ── Of every chart ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chart", ALL, ids=lambda chart: type(chart).__name__)
@pytest.mark.parametrize("width", [NARROW, HALF, WHOLE])
def test_every_chart_can_be_heard_and_copied_and_no_data_become_markup(chart: Chart, width: float) -> None:
    """Else a screen reader says nothing, or a campaign's name runs in everybody's browser."""
    text = str(svg(chart, width, "k"))
    assert text == str(svg(chart, width, "k")), "the same data give the same bytes"
    assert "<script" not in text and "style=" not in text
    root = drawn(chart, width)
    assert (
        root.get("role") == ("img" if root.find(".//a") is None else "group")
        and root.get("aria-labelledby") == "k-t k-d"
    )
    assert root[0].tag == "title" and root[0].text == chart.title and root[1].tag == "desc" and root[1].text
    numbers = chart.numbers()
    assert numbers.rows and all(len(row) == len(numbers.heads) == len(numbers.right) for row in numbers.rows)


@pytest.mark.parametrize("chart", ALL, ids=lambda chart: type(chart).__name__)
@pytest.mark.parametrize("width", [NARROW, WHOLE])
def test_nothing_is_drawn_outside_the_sheet(chart: Chart, width: float) -> None:
    """Else it is cut off, or lies over what stands beside the chart."""
    root = drawn(chart, width)
    for rect in root.iter("rect"):
        assert number(rect, "x") >= -0.01 and number(rect, "width") >= 0 and number(rect, "height") >= 0
        if "backing" not in rect.get("class", ""):
            assert number(rect, "x") + number(rect, "width") <= width + 0.01
    for path in root.iter("path"):
        assert all(-8 <= x <= width + 8 for x, _ in points(path))


def test_a_chart_without_data_says_so() -> None:
    empty: tuple[Chart, ...] = (
        Lines("t", "a", COUNT, [], [Line("one", [])]),
        Bars("t", "a", COUNT, []),
        Columns("t", "a", COUNT, [], [Line("one", [])]),
        Intervals("t", "a", COUNT, []),
        Life("t", "a", [], MIDNIGHT),
    )
    for chart in empty:
        assert texts(drawn(chart)) == ["nothing found"]
        assert Figure(chart, "k").hover is None
    with showing(View("zh")):
        assert texts(drawn(empty[0])) == ["无"]


def test_more_than_six_series_are_refused() -> None:
    seven = [Line(str(n), [1.0]) for n in range(7)]
    for kind in (Lines, Columns):
        with pytest.raises(ValueError, match="at most 6"):
            kind("t", "a", COUNT, [MIDNIGHT], seven)
    with pytest.raises(ValueError, match="at most 40"):
        Network("t", "a", [Node(str(n), "user_id") for n in range(41)], [])


# ── Lines ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_line_goes_through_its_values_and_stops_at_a_gap() -> None:
    chart = lines([100, 150, None, 200, 175])
    root = drawn(chart)
    first, second = (points(path) for path in of_look(root, "path", "s1"))
    levels = {
        text.text: number(text, "y") - 4 for text in of_look(root, "text", "tick") if text.get("text-anchor") == "end"
    }
    assert [len(first), len(second)] == [2, 2]
    assert first[0][1] == pytest.approx(levels["100"], abs=0.02)
    assert second[0][1] == pytest.approx(levels["200"], abs=0.02)
    assert first[1][1] == pytest.approx((levels["100"] + levels["200"]) / 2, abs=0.02)
    assert first[0][0] == pytest.approx(number(root, "data-left"), abs=0.02)
    assert second[1][0] == pytest.approx(number(root, "data-right"), abs=0.02)
    assert "0" not in levels, "an axis of lines does not start at zero where the values are far from it"


def test_thousands_of_points_become_four_for_each_pixel_and_no_peak_is_lost() -> None:
    """Else one bad minute of a week is not to be seen, or the page weighs megabytes."""
    dice = random.Random(5)
    values: list[float | None] = [dice.uniform(10, 20) for _ in range(5_000)]
    values[3_333], values[4_444] = 99.0, 1.0
    root = drawn(lines(values))
    [path] = of_look(root, "path", "s1")
    along = points(path)
    assert len(along) <= 4 * (WHOLE + 1)
    highs = {
        text.text: number(text, "y") - 4 for text in of_look(root, "text", "tick") if text.get("text-anchor") == "end"
    }
    scale = (highs["100"] - highs["0"]) / 100
    assert min(y for _, y in along) == pytest.approx(highs["0"] + 99 * scale, abs=0.02)
    assert max(y for _, y in along) == pytest.approx(highs["0"] + 1 * scale, abs=0.02)
    assert [x for x, _ in along] == sorted(x for x, _ in along)


def test_thinning_keeps_the_ends_and_the_extremes_of_each_column() -> None:
    inside = [(5 + n / 10, y) for n, y in enumerate([3, 9, 4, 0, 5, 6.0])]
    assert thinned(inside) == [inside[0], inside[1], inside[3], inside[5]]
    assert thinned([(1, 2), (2, 3)]) == [(1, 2), (2, 3)]


def test_what_is_hovered_is_the_exact_value_of_a_real_point() -> None:
    chart = lines([float(n * n) for n in range(5_000)])
    hover = chart.hover()
    assert len(hover.places) <= 401 and hover.places[-1] == 1.0
    known = {f"one {n * n:,}" for n in range(5_000)}
    assert all(text.split("\n")[1].replace(".0", "") in known for text in hover.texts)
    assert chart.numbers().note.endswith("of 5,000 points")


def test_lines_are_named_at_their_ends_and_names_do_not_overlap() -> None:
    chart = lines([5, 5, 5], behind=Line("2025", [5, 5, 5.01]))
    names = of_look(drawn(chart), "text", "name")
    assert {name.text for name in names} == {"one", "2025"}
    assert abs(number(names[0], "y") - number(names[1], "y")) >= 14.9


def test_the_date_stands_at_midnight_of_the_readers_zone() -> None:
    """Else a sale day begins at another place for each reader than they think."""
    with showing(View("en", "Asia/Shanghai")):
        chart = lines([1.0] * 1441)
        [date] = [text for text in of_look(drawn(chart), "text", "date") if text.text == "11 Nov"]
        assert number(date, "x") == pytest.approx(number(drawn(chart), "data-left"), abs=0.02)
        assert "12:00" in texts(drawn(chart))
    with showing(View("zh", "Asia/Shanghai")):
        assert "11月11日" in texts(drawn(lines([1.0] * 1441)))
    with showing(View("en", "UTC")):
        assert "11 Nov" not in texts(drawn(lines([1.0] * 400))), "it is the evening of the 10th there"


def test_ticks_of_time_follow_clocks_that_change() -> None:
    with showing(View("en", "Europe/Berlin")):
        start = datetime(2026, 10, 24, 22, tzinfo=UTC)
        found = time_ticks(start, start + timedelta(hours=50), 6)
        assert [tick_text(at)[0] for at in found] == ["25 Oct", "12:00", "26 Oct", "12:00", "27 Oct"]
        assert found[2] - found[0] == timedelta(hours=25)


@pytest.mark.parametrize("seed", range(20))
def test_ticks_are_round_few_and_around_the_values(seed: int) -> None:
    dice = random.Random(seed)
    low = dice.uniform(-1e6, 1e6)
    high = low + 10 ** dice.uniform(-3, 9)
    found = ticks(low, high, 5)
    step = found[1] - found[0]
    assert found[0] <= low + 1e-6 * step and found[-1] >= high - 1e-6 * step and 2 <= len(found) <= 8
    assert f"{step:.3e}"[:4] in ("1.00", "2.00", "2.50", "5.00")


@pytest.mark.parametrize("seed", range(10))
def test_names_are_moved_apart_and_stay_within(seed: int) -> None:
    dice = random.Random(seed)
    places = [dice.uniform(0, 100) for _ in range(6)]
    moved = sorted(apart(places, 15, 0, 100))
    assert all(b - a >= 14.99 for a, b in pairwise(moved)) and moved[0] >= -1e-9 and moved[-1] <= 100


@pytest.mark.parametrize("text", ["campaign-2026-11-11-main", "双十一主会场满减优惠券活动", "short"])
def test_a_text_is_cut_in_its_middle_to_its_room(text: str) -> None:
    cut = fitted(text, 70)
    assert width_of(cut) <= 70 and (cut == text or (cut[0] == text[0] and cut[-1] == text[-1] and "…" in cut))


# ── Bars ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bars_start_at_zero_and_are_as_long_as_their_values() -> None:
    """Else a difference of a tenth looks like half."""
    values = [980_000_00, 1_020_000_00, -250_000_00]
    chart = Bars("t", "a", MONEY, [Bar(f"b{n}", value) for n, value in enumerate(values)])
    root = drawn(chart, HALF)
    bars = of_look(root, "rect", "bar")
    [zero] = {number(axis, "x1") for axis in of_look(root, "line", "axis")}
    assert [number(bar, "data-value") for bar in bars] == values
    unit = number(bars[0], "width") / values[0]
    assert [number(bar, "width") for bar in bars] == [pytest.approx(abs(value) * unit, rel=1e-3) for value in values]
    assert number(bars[0], "x") == pytest.approx(zero, abs=0.02)
    assert number(bars[2], "x") + number(bars[2], "width") == pytest.approx(zero, abs=0.02)
    assert {"¥ 980 k", "¥ 1.02 M", "−¥ 250 k"} <= set(map(plain, texts(root)))
    assert chart.numbers().rows[0] == ("b0", "980,000.00 CNY")


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def test_few_cases_are_hollow_and_counted_and_unknown_is_a_dash() -> None:
    """Else somebody decides by what three people did."""
    chart = Bars("t", "a", COUNT, [Bar("few", 5, cases=29), Bar("enough", 5, cases=30), Bar("unknown", None)])
    root = drawn(chart)
    assert ["hollow" in bar.get("class", "") for bar in of_look(root, "rect", "bar")] == [True, False]
    assert {"5 (n = 29)", "5", "–"} <= set(texts(root))


def test_stacks_add_up() -> None:
    chart = Columns("t", "a", COUNT, [MIDNIGHT], [Line("a", [30]), Line("b", [10])])
    low, high = (bar for bar in of_look(drawn(chart), "rect", "bar") if bar.get("data-value"))
    assert number(low, "height") == pytest.approx(3 * number(high, "height"), rel=1e-3)
    assert number(high, "y") + number(high, "height") == pytest.approx(number(low, "y"), abs=0.02)


def test_a_waterfall_goes_from_what_was_to_what_is() -> None:
    """Else the steps do not explain the change."""
    chart = Waterfall("t", "a", MONEY, Bar("was", 1_000_00), [Bar("up", 400_00), Bar("down", -600_00)], "is")
    start, up, down, end = of_look(drawn(chart), "rect", "bar")

    def right(bar: ET.Element) -> float:
        return number(bar, "x") + number(bar, "width")

    assert number(up, "x") == pytest.approx(right(start), abs=0.02) and right(up) == pytest.approx(
        right(down), abs=0.02
    )
    assert right(end) == pytest.approx(number(down, "x"), abs=0.02)
    assert number(end, "width") == pytest.approx(number(start, "width") * 0.8, abs=0.02)
    assert chart.numbers().rows[-1] == ("is", "800.00 CNY")


@pytest.mark.parametrize(("width", "size"), [(WHOLE, "height"), (NARROW, "width")])
def test_a_funnel_is_as_high_as_many_got_there_and_marks_the_largest_loss(width: float, size: str) -> None:
    chart = Funnel("t", "a", COUNT, [Step("a", 400), Step("b", 200), Step("c", 50), Step("d", 40)])
    root = drawn(chart, width)
    heights = [number(bar, size) for bar in of_look(root, "rect", "bar")]
    assert heights == [pytest.approx(heights[0] * share, abs=0.02) for share in (1, 0.5, 0.125, 0.1)]
    assert chart.worst == 2 and any("25.0%" in (text.text or "") for text in of_look(root, "text", "lost"))
    assert chart.numbers().rows[1] == ("b", "200", "50.0%")


# ── Grids, intervals, graphs ─────────────────────────────────────────────────────────────────────────────────────


def test_shades_follow_the_values() -> None:
    grid = Grid("t", "a", COUNT, ["r"], ["a", "b", "c", "d"], [[0, 1, 50, 100]])
    shades = [grid.shade(value) for value in (0, 1, 50, 100)]
    assert shades == [0, 1, 3, 6]
    cells = of_look(drawn(grid), "rect", "cell")
    assert [cell.get("class", "").split()[1] for cell in cells] == [f"q{shade}" for shade in shades]
    assert texts(drawn(grid))[-4:] == ["0", "1", "50", "100"]


def test_an_interval_spans_its_ends_and_says_why_one_is_unknown() -> None:
    some = [
        Interval("a", 2.0, 1.0, 4.0),
        Interval("few", 1.5, 1.0, 2.0, cases=12),
        Interval("none", None, why="no arms"),
    ]
    root = drawn(Intervals("t", "a", Quantity("simple_roi"), some, null_name="no effect"))
    long, *_ = of_look(root, "line", "interval")
    dots = of_look(root, "circle", "estimate")
    third = (number(long, "x2") - number(long, "x1")) / 3
    assert number(dots[0], "cx") == pytest.approx(number(long, "x1") + third, abs=0.05)
    assert ["hollow" in dot.get("class", "") for dot in dots] == [False, True]
    assert {"2.00 (1.00 – 4.00)", "1.50 (1.00 – 2.00) (n = 12)", "– no arms"} <= set(texts(root))


def test_a_graph_joins_what_is_linked_and_marks_who_is_at_fault() -> None:
    nodes = [Node("d", "device_id", suspect=True), Node("u1", "user_id"), Node("u2", "user_id")]
    root = drawn(Network("t", "a", nodes, [("d", "u1"), ("d", "u2")]))
    assert len(of_look(root, "path", "link")) == 2 and len(of_look(root, "circle", "lost")) == 1
    assert Network("t", "a", nodes, [("d", "u1")]).numbers().rows[0][3] == "u1"


def test_a_life_shows_states_in_turn_and_violations() -> None:
    hours = [MIDNIGHT + timedelta(hours=n) for n in (0, 1, 3)]
    moments = [Moment(hours[0], "issued", "issued"), Moment(hours[1], "used", "used", ("no_owner",))]
    root = drawn(Life("t", "a", moments, hours[2]))
    issued, used = of_look(root, "rect", "state")
    assert number(used, "width") == pytest.approx(2 * number(issued, "width"), rel=1e-3)
    assert len(of_look(root, "path", "alert")) == 1
