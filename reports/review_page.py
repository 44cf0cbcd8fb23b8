"""Writes a review as Markdown, or as an HTML page. The page has its charts inline and loads nothing from elsewhere.
Data are escaped, so that they cannot become markup."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from coupon_ledger.ledger.errors import UnusableFile
from coupon_ledger.ledger.words import note
from coupon_ledger.reports.as_of import CUTS, cut_of
from coupon_ledger.reports.charts import svg
from coupon_ledger.reports.columns import Column, columns_of
from coupon_ledger.reports.labels import label, say, shown
from coupon_ledger.reports.text import Row
from coupon_ledger.reports.view import view

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

    from coupon_ledger.reports.review import CampaignAnswers, Section


_LONG: Final = 16
"""A table with more rows is collapsed on the page."""

_WIDE: Final = 40
"""Texts with more characters are broken into lines."""

_CARDS: Final = (
    "issued_coupons net_uses cohort_use_rate coupon_net_sales_minor cost_minor coupon_margin_minor simple_roi".split()
)


def _title(ask: CampaignAnswers) -> str:
    """The id of the campaign, followed by its name if the name differs from the id."""
    name = ask.about["name"]
    return f"{ask.campaign} · {name}" if name and name != ask.campaign else ask.campaign


def _table_title(key: str) -> str:
    from coupon_ledger.reports.review import TABLE_TITLES

    return say(TABLE_TITLES.get(key, key))


def _in_short_title() -> str:
    return say("In short")


def _from_title() -> str:
    return say("Where these numbers come from, down to coupons and orders")


def _refused_title() -> str:
    return say("Refused")


def _state(ask: CampaignAnswers) -> str:
    """A sentence that says which state of the ledger the review shows, and how to read the times and amounts."""
    parts = [note("as of commit {n:count}", n=ask.as_of["commits"])]
    if ask.as_of["data_clock"]:
        parts.append(note("data's clock {at:instant}", at=ask.as_of["data_clock"].replace(microsecond=0)))
    parts += [cut_of(name, ask.as_of[name]) for name in CUTS if name in ask.as_of]
    if "positions" in ask.as_of:
        parts.append(note("only what the log held before {at}", at=ask.as_of["positions"]))
    return say(
        "{parts}; times in {zone}. Amounts are in units of their currency; currencies are never added up.",
        parts=parts,
        zone=view().zone,
    )


def _period(ask: CampaignAnswers) -> str:
    """The campaign's status, coupon type and claim window, on one line."""
    about = ask.about
    facts = [f"{label(n)} {shown(n, about)}" for n in ("status", "coupon_type") if about.get(n)]
    if about.get("claim_from") or about.get("claim_until"):
        ends = (shown(name, about) for name in ("claim_from", "claim_until"))
        facts.append(say("claims {first} – {last}", **dict(zip(("first", "last"), ends, strict=True))))
    return " · ".join(facts)


def _columns(section: Section, title: str, rows: Sequence[Row]) -> list[Column]:
    """The columns of a table that people see. Without columns that are empty in all rows, or contain lists. `title`:
    the key of the table."""
    names = section.columns.get(title) or list(rows[0])
    names = [n for n in names if any(row.get(n) is not None for row in rows) and not isinstance(rows[0].get(n), list)]
    heads = section.heads
    renamed = [{heads.get(name, name): value for name, value in row.items()} for row in rows]
    return columns_of(renamed, [heads.get(name, name) for name in names], section.currency)


def _look(column: Column) -> str:
    """The CSS class of a column's cells: `n` for right-aligned numbers, `w` for long texts that are broken into lines,
    otherwise empty."""
    if column.right:
        return "n"
    return "w" if any(len(text) > _WIDE for text in column.cells) else ""


def markdown(ask: CampaignAnswers, sections: Mapping[str, Section], file: Path | None) -> str:
    """The review as Markdown. `file`: the file in which the caller will store it. The charts are drawn into a folder
    beside this file; if `file` is None, a line in place of each chart says how to get it. Raises `UnusableFile`."""
    lines = [
        f"# {_plain(say('Review of campaign {name}', name=_title(ask)))}",
        "",
        _plain(_period(ask)),
        "",
        _plain(_state(ask)),
        "",
    ]
    if points := [point for section in sections.values() for point in section.in_short]:
        lines += [f"## {_in_short_title()}", "", *(f"- {_plain(point)}" for point in points), ""]
    for name, section in sections.items():
        lines += [f"## {section.title}", ""]
        if section.refused:
            lines += [f"**{_refused_title()}**: {_plain(section.refused)}", ""]
        for text in section.text:
            lines += [_plain(text), ""]
        for warning in section.warnings:
            lines += [f"> ⚠ {_plain(warning)}", ""]
        lines += _drawn(name, section, file)
        for title, rows in section.tables.items():
            lines += [f"**{_plain(_table_title(title))}**", "", *_table(section, title, rows), ""]
        if section.commands:
            lines += [f"{_from_title()}:", "", *(f"    {command}" for command in section.commands), ""]
    return "\n".join(lines)


def _drawn(name: str, section: Section, file: Path | None) -> list[str]:
    """Draw the section's charts into the folder beside `file`. Returns the lines of Markdown that show them. `name`:
    the name of the section."""
    lines: list[str] = []
    for number, chart in enumerate((c for c in section.charts if not c.empty), start=1):
        if file is None:
            lines += [f"*{_plain(say('{chart}: drawn with --to FILE', chart=chart.title))}*", ""]
            continue
        place = file.with_name(f"{file.name}.charts") / f"{name}-{number}.svg"
        try:
            place.parent.mkdir(exist_ok=True)
            place.write_text(svg(chart), encoding="utf-8")
        except OSError as error:
            raise UnusableFile(f"file {place}: cannot be written ({error.strerror}); choose another place") from error
        lines += [f"![{_plain(chart.title)}](<{place.parent.name}/{place.name}>)", ""]
    return lines


def _table(section: Section, title: str, rows: Sequence[Row]) -> list[str]:
    if not rows:
        return [say("nothing found")]
    columns = _columns(section, title, rows)
    head = "| " + " | ".join(_plain(column.head) for column in columns) + " |"
    rule = "|" + "|".join("---:" if column.right else "---" for column in columns) + "|"
    cells = zip(*(column.cells for column in columns), strict=True)
    return [head, rule, *("| " + " | ".join(map(_plain, line)) + " |" for line in cells)]


def _plain(text: str) -> str:
    """Escape a text for Markdown, so that data cannot become markup."""
    for sign in ("\\", "|", "<", ">", "`", "*", "_", "[", "]"):
        text = text.replace(sign, {"<": "&lt;", ">": "&gt;"}.get(sign, f"\\{sign}"))
    return text.replace("\n", " ")


@dataclass(frozen=True)
class _Table:
    """One table of the page. `columns`: empty if there are no rows. `folded`: the line that the page shows instead of a
    long table, until the reader opens it; empty for other tables."""

    title: str
    columns: list[Column]
    folded: str = ""

    @property
    def lines(self) -> Iterator[tuple[str, ...]]:
        return zip(*(column.cells for column in self.columns), strict=True)


def html(ask: CampaignAnswers, sections: Mapping[str, Section]) -> str:
    """The review as an HTML page. Everything is escaped, except the charts, which this program draws itself."""
    from markupsafe import Markup

    return _template().render(
        language="zh-CN" if view().chinese else "en",
        words=_words(),
        title=_title(ask),
        period=_period(ask),
        state=_state(ask),
        points=[point for section in sections.values() for point in section.in_short],
        cards=list(_cards(sections["goal"])) if "goal" in sections else None,
        sections=sections,
        tables={name: list(_tables(section)) for name, section in sections.items()},
        svg=lambda chart: Markup(svg(chart)),
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    pages = Environment(autoescape=True, undefined=StrictUndefined)
    pages.filters |= {"code": _with_code, "look": _look}
    return pages.from_string(files(__package__).joinpath("review.html").read_text(encoding="utf-8"))


def _words() -> dict[str, str]:
    return {
        "kind": say("Campaign review"),
        "contents": say("Contents"),
        "in_short": _in_short_title(),
        "refused": _refused_title(),
        "nothing": say("nothing found"),
        "source": _from_title(),
    }


def _cards(goal: Section) -> Iterator[tuple[str, str]]:
    """Yield the headline figures, each as its formatted value and its name. `goal`: the section with the goal and
    result."""
    for name in _CARDS:
        for row in goal.tables.get("result", ()):
            if row["metric"] == name:
                yield shown("value", row), label(name)


def _tables(section: Section) -> Iterator[_Table]:
    for key, rows in section.tables.items():
        title = _table_title(key)
        folded = say("{title}: {n:count} row{n:s}", title=title, n=len(rows)) if len(rows) > _LONG else ""
        yield _Table(title, _columns(section, key, rows) if rows else [], folded)


def _with_code(words: str) -> Markup:
    """Escape a text for HTML, and turn what is in backticks into `<code>` elements."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(words))))
