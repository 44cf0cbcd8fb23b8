"""The components of pages: what each is made of. How they look is in `templates/components.html`, a macro for each, and
in `static/design.css`.

All texts here are ready to be read: in the reader's language, formatted, and not escaped. The templates escape them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from coupon_ledger.ledger.amounts import NOTHING
from coupon_ledger.reports.columns import columns_of
from coupon_ledger.reports.short import Quantity
from coupon_ledger.reports.svg.bars import FEW
from coupon_ledger.reports.svg.figure import Figure
from coupon_ledger.reports.svg.lines import Spark
from coupon_ledger.reports.text import Row


@dataclass(frozen=True)
class Component:
    """Something that `show` draws. `macro`: the macro that does."""

    macro: ClassVar[str]


@dataclass(frozen=True)
class Link:
    text: str
    href: str
    here: bool = False
    tone: str = ""


# ── Numbers ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Change:
    """Against what a number is compared: by how much it rose (`up`), fell, or neither (None)."""

    text: str
    up: bool | None


@dataclass(frozen=True)
class NumberCard(Component):
    """A number that leads to what it is made of (`href`). When pointed at, it shows the exact number, its definition,
    its position in the log and a link to why it changed. An unknown number (`text` is a dash) says why in `note`.

    `hollow`: it comes from few cases, which `note` counts. `alert`: a link to the open alert about it.
    """

    macro: ClassVar[str] = "number_card"
    name: str
    text: str
    href: str
    exact: str = ""
    definition: str = ""
    position: str = ""
    why_href: str = ""
    change: Change | None = None
    note: str = ""
    hollow: bool = False
    alert: Link | None = None
    spark: Figure | None = None

    @property
    def unknown(self) -> bool:
        return self.text == NOTHING


def number_card(
    key: str,
    name: str,
    quantity: Quantity,
    value: float | None,
    href: str,
    *,
    cases: int | None = None,
    why_unknown: str = "",
    history: Sequence[float | None] = (),
    history_behind: Sequence[float | None] = (),
    **more: Any,
) -> NumberCard:
    """The card of a value. `history`: for the sparkline; `history_behind`: that of the comparison. `cases`: how many it
    comes from. `why_unknown`: the reason, for a value of None."""
    few = cases is not None and cases < FEW
    spark = Spark(name, quantity, history, history_behind) if len(history) > 1 else None
    note = more.pop("note", "")
    if value is None:
        note = why_unknown
    elif few:
        note = f"n = {cases}"
    return NumberCard(
        name=name,
        text=quantity.short(value),
        exact=quantity.exact(value),
        href=href,
        note=note,
        hollow=few and value is not None,
        spark=Figure(spark, f"{key}-spark", 200) if spark else None,
        **more,
    )


@dataclass(frozen=True)
class Cards(Component):
    macro: ClassVar[str] = "cards"
    cards: Sequence[NumberCard]


# ── Charts ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ChartPanel(Component):
    """A figure under its title. `said`: one sentence that says what it shows. `csv`: where its numbers are."""

    macro: ClassVar[str] = "chart_panel"
    figure: Figure
    said: str = ""
    csv: str = ""
    links: Sequence[Link] = ()


@dataclass(frozen=True)
class Panel(Component):
    """A titled box around other components."""

    macro: ClassVar[str] = "panel"
    title: str
    parts: Sequence[Component]
    links: Sequence[Link] = ()


@dataclass(frozen=True)
class Beside(Component):
    """Components beside each other; below each other where there is no room. `wide`: the first takes two parts of
    three."""

    macro: ClassVar[str] = "row"
    parts: Sequence[Component]
    wide: bool = False


# ── Tables and lists ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Cell:
    """`share`: how far a bar behind the text reaches, from 0 to 1. `about`: shown when pointed at."""

    text: str
    href: str = ""
    share: float | None = None
    tone: str = ""
    hollow: bool = False
    about: str = ""


@dataclass(frozen=True)
class Head:
    """The head of a column. `sort_href`: the URL of the table sorted by it; `order`: how it is sorted now
    (`ascending`, `descending` or nothing)."""

    text: str
    right: bool = False
    sort_href: str = ""
    order: str = ""
    about: str = ""


@dataclass(frozen=True)
class Table(Component):
    """`rows`: cells by row. `key`: its name on the page. On a phone a row becomes a card, led by its first cell."""

    macro: ClassVar[str] = "table"
    key: str
    title: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]
    csv: str = ""
    empty: State | None = None
    more: Link | None = None


def table_of(
    key: str,
    title: str,
    rows: Sequence[Row],
    names: Sequence[str],
    *,
    currency: str | None = None,
    hrefs: Mapping[str, Sequence[str]] | None = None,
    shares: Mapping[str, Sequence[float | None]] | None = None,
    sorting: Sorting | None = None,
    **more: Any,
) -> Table:
    """A table of the columns `names` of rows, with the heads, units and formats that all reports have. `hrefs`,
    `shares`: by column, for each row."""
    columns = columns_of(rows, names, currency)
    heads = [Head(one.head, one.right, *(sorting.of(one.name) if sorting else ())) for one in columns]
    lines = [
        tuple(
            Cell(
                column.cells[n],
                href=(hrefs or {}).get(column.name, [""] * len(rows))[n],
                share=(shares or {}).get(column.name, [None] * len(rows))[n],
            )
            for column in columns
        )
        for n in range(len(rows))
    ]
    return Table(key, title, heads, lines, **more)


@dataclass(frozen=True)
class Sorting:
    """How a table is sorted, and the URLs that sort it otherwise. `url`: what `sort=NAME` or `sort=-NAME` is put
    into."""

    url: str
    by: str = ""

    def of(self, name: str) -> tuple[str, str]:
        """The URL that sorts by this column, and its present order. Largest first, then the other way."""
        now = {name: "ascending", f"-{name}": "descending"}.get(self.by, "")
        return self.url.format(sort=name if now == "descending" else f"-{name}"), now


@dataclass(frozen=True)
class Chips(Component):
    """Short facts in a line. One with a link can be followed, or is a choice to take back."""

    macro: ClassVar[str] = "chips"
    chips: Sequence[Link]


@dataclass(frozen=True)
class Entry:
    """An event on a timeline. `occurred`, `recorded`: both clocks; `move`: from one state to the next; `faults`: each
    violation with its meaning."""

    title: str
    occurred: str
    recorded: str
    move: str = ""
    facts: Sequence[Link] = ()
    faults: Sequence[str] = ()
    position: str = ""
    position_href: str = ""
    future: bool = False


@dataclass(frozen=True)
class Timeline(Component):
    macro: ClassVar[str] = "timeline"
    entries: Sequence[Entry]


@dataclass(frozen=True)
class Action:
    """Something that a person can do: a form that posts to `href`. `try_href`: where it says what it would do."""

    text: str
    href: str
    try_href: str = ""
    main: bool = False
    danger: bool = False
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Actions(Component):
    macro: ClassVar[str] = "actions"
    actions: Sequence[Action]


@dataclass(frozen=True)
class AlertLine:
    """An alert in a list. `severity`: its code; `severity_name`: its word."""

    severity: str
    severity_name: str
    what: str
    href: str
    much: str = ""
    since: str = ""
    owner: str = ""
    actions: Sequence[Action] = ()


@dataclass(frozen=True)
class AlertList(Component):
    macro: ClassVar[str] = "alert_list"
    lines: Sequence[AlertLine]
    empty: State | None = None


@dataclass(frozen=True)
class Sentences(Component):
    """What to conclude, in plain sentences. The first one leads."""

    macro: ClassVar[str] = "sentences"
    sentences: Sequence[str]
    tone: str = ""


@dataclass(frozen=True)
class Facts(Component):
    """Names with their values, such as the terms of a campaign."""

    macro: ClassVar[str] = "facts"
    facts: Sequence[tuple[str, Cell]]


@dataclass(frozen=True)
class Tabs(Component):
    """Views of one subject; each is a URL. `name`: what they are, for readers that cannot see them."""

    macro: ClassVar[str] = "tabs"
    name: str
    tabs: Sequence[Link]


@dataclass(frozen=True)
class Slider(Component):
    """A slider that moves the URL: its value becomes the parameter `name`. `stops`: the value and the text of each
    place. The last stop is now, and has an empty value: the URL then names none."""

    macro: ClassVar[str] = "slider"
    label: str
    name: str
    stops: Sequence[tuple[str, str]]
    at: int
    hidden: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Player(Component):
    """A replay: moves the parameter `name` of the URL through time, from `start` to `end`, and shows the page again at
    each place. Instants are RFC 3339. `speed`: seconds of the past in a second; `speeds`: the URLs of other ones.
    `marks`: instants to jump to."""

    macro: ClassVar[str] = "player"
    name: str
    start: str
    end: str
    at: str
    speed: int
    said: str
    speeds: Sequence[Link] = ()
    marks: Sequence[Link] = ()


@dataclass(frozen=True)
class Skeleton(Component):
    """Stands where a component will be, with its final height. `kind`: `cards`, `chart` or `table`."""

    macro: ClassVar[str] = "skeleton"
    kind: str
    name: str


STATES: Final = ("empty", "loading", "late", "forbidden", "failed")


@dataclass(frozen=True)
class State(Component):
    """What stands in place of content: what it is (`said`), and the next step (`step`). `kind`: one of `STATES`."""

    macro: ClassVar[str] = "state"
    kind: str
    said: str
    step: str = ""
    href: str = ""
    code: str = ""


# ── The frame ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Choice:
    """A parameter of the URL. `options`: value and text of each; `value`: the one in force."""

    label: str
    name: str
    options: Sequence[tuple[str, str]]
    value: str = ""


@dataclass(frozen=True)
class FilterBar(Component):
    """A form whose fields are the URL. `further`: what is folded behind "filter". `hidden`: parameters that stay as
    they are."""

    macro: ClassVar[str] = "filter_bar"
    choices: Sequence[Choice]
    further: Sequence[Choice] = ()
    slider: Slider | None = None
    hidden: Mapping[str, str] = field(default_factory=dict)


FRESH: Final = ("live", "late", "past", "stale", "disconnected")


@dataclass(frozen=True)
class Freshness(Component):
    """How fresh the page is. `kind`: one of `FRESH`; `said`: commit, data's clock, how far behind."""

    macro: ClassVar[str] = "freshness"
    kind: str
    said: str
    commit: int = 0


@dataclass(frozen=True)
class Person:
    """Who looks. `pages`: the keys of the pages that they may open; None for all."""

    name: str
    role: str
    pages: frozenset[str] | None = None
