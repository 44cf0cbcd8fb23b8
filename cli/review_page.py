"""A review as Markdown, and as a page of its own: its charts are drawings in it, nothing is loaded from anywhere, and
nothing of anybody's data is markup in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli.charts import Chart, svg
from cli.labels import label, say, shown
from cli.output import Row
from cli.show import CUTS, cut_of
from cli.tables import Column, columns_of
from cli.view import view
from ledger.errors import UnusableFile
from ledger.words import note

if TYPE_CHECKING:
    from cli.review import Asker, Section

_LONG: Final = 16
"""Rows above which a table is folded away in a page."""
_WIDE: Final = 40
"""Characters above which a text is broken into lines."""
_CARDS: Final = (
    "issued_coupons net_uses cohort_use_rate coupon_net_sales_minor cost_minor coupon_margin_minor simple_roi".split()
)


def _title(ask: Asker) -> str:
    name = ask.about["name"]
    return f"{ask.campaign} · {name}" if name and name != ask.campaign else ask.campaign


def _table_title(key: str) -> str:
    from cli.review import TABLE_TITLES

    return say(TABLE_TITLES.get(key, key))


def _in_short_title() -> str:
    return say("In short")


def _from_title() -> str:
    return say("Where these numbers come from, down to coupons and orders")


def _refused_title() -> str:
    return say("Refused")


def _state(ask: Asker) -> str:
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


def _period(ask: Asker) -> str:
    about = ask.about
    told = [f"{label(n)} {shown(n, about)}" for n in ("status", "coupon_type") if about.get(n)]
    if about.get("claim_from") or about.get("claim_until"):
        ends = (shown(name, about) for name in ("claim_from", "claim_until"))
        told.append(say("claims {first} – {last}", **dict(zip(("first", "last"), ends, strict=True))))
    return " · ".join(told)


def _columns(section: Section, title: str, rows: Sequence[Row]) -> list[Column]:
    """Those that are for people, and in which something stands."""
    names = section.columns.get(title) or list(rows[0])
    names = [n for n in names if any(row.get(n) is not None for row in rows) and not isinstance(rows[0].get(n), list)]
    heads = section.heads
    renamed = [{heads.get(name, name): value for name, value in row.items()} for row in rows]
    return columns_of(renamed, [heads.get(name, name) for name in names], section.currency)


def _kind(column: Column) -> str:
    """How its cells look: numbers to the right, long texts broken."""
    if column.right:
        return ' class="n"'
    return ' class="w"' if any(len(text) > _WIDE for text in column.cells) else ""


# --- Markdown


def markdown(ask: Asker, sections: Mapping[str, Section], file: Path | None) -> str:
    """`file`: where it will lie; its charts are drawn into a folder beside it. Raises `UnusableFile`."""
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
    """Somebody's data must not become markup."""
    for sign in ("\\", "|", "<", ">", "`", "*", "_", "[", "]"):
        text = text.replace(sign, {"<": "&lt;", ">": "&gt;"}.get(sign, f"\\{sign}"))
    return text.replace("\n", " ")


# --- a page


def html(ask: Asker, sections: Mapping[str, Section]) -> str:
    page = files(__package__).joinpath("review.html").read_text(encoding="utf-8")
    contents = "".join(f'<a href="#{name}">{escape(section.title)}</a>' for name, section in sections.items())
    parts = {
        "LANG": "zh-CN" if view().chinese else "en",
        "LABEL-CONTENTS": escape(say("Contents")),
        "KIND": escape(say("Campaign review")),
        "TITLE": escape(_title(ask)),
        "PERIOD": escape(_period(ask)),
        "STATE": escape(_state(ask)),
        "CONTENTS": contents,
        "IN-SHORT": _in_short(sections),
        "SECTIONS": "\n".join(_section(name, section) for name, section in sections.items()),
    }
    head, *pieces = page.split("{{")
    return head + "".join(parts[name] + rest for name, rest in (piece.split("}}", 1) for piece in pieces))


def _in_short(sections: Mapping[str, Section]) -> str:
    points = [point for section in sections.values() for point in section.in_short]
    cards = _cards(sections["goal"]) if "goal" in sections else ""
    listed = "".join(f"<li>{_text(point)}</li>" for point in points)
    return (
        f'<section id="in-short"><h2>{_in_short_title()}</h2>{cards}<ul>{listed}</ul></section>'
        if cards or points
        else ""
    )


def _cards(goal: Section) -> str:
    rows = {name: [row for row in goal.tables.get("result", ()) if row["metric"] == name] for name in _CARDS}
    cards = [
        f'<div class="card"><b>{escape(shown("value", row))}</b><span>{escape(label(name))}</span></div>'
        for name, found in rows.items()
        for row in found
    ]
    return f'<div class="cards">{"".join(cards)}</div>'


def _section(name: str, section: Section) -> str:
    parts = [f'<section id="{name}"><h2>{escape(section.title)}</h2>']
    if section.refused:
        parts.append(f'<p class="refused"><b>{_refused_title()}</b>: {_text(section.refused)}</p>')
    parts += [f"<p>{_text(text)}</p>" for text in section.text]
    parts += [f'<p class="warning">{_text(warning)}</p>' for warning in section.warnings]
    charts = [_figure(chart) for chart in section.charts if not chart.empty]
    parts += [f'<div class="charts">{"".join(charts)}</div>'] if charts else []
    parts += [_html_table(section, title, rows) for title, rows in section.tables.items()]
    if section.commands:
        commands = "\n".join(section.commands)
        parts.append(f"<details><summary>{_from_title()}</summary><pre>{escape(commands)}</pre></details>")
    return "\n".join([*parts, "</section>"])


def _figure(chart: Chart) -> str:
    title = escape(chart.title)
    return f'<figure role="img" aria-label="{title}"><figcaption>{title}</figcaption>{svg(chart)}</figure>'


def _text(words: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(words))


def _html_table(section: Section, title: str, rows: Sequence[Row]) -> str:
    head_text = _table_title(title)
    if not rows:
        return f"<h3>{escape(head_text)}</h3><p>{escape(say('nothing found'))}</p>"
    columns = _columns(section, title, rows)
    head = "".join(f"<th{_kind(column)}>{escape(column.head)}</th>" for column in columns)
    body = "".join(
        "<tr>"
        + "".join(f"<td{_kind(column)}>{escape(text)}</td>" for column, text in zip(columns, line, strict=True))
        + "</tr>"
        for line in zip(*(column.cells for column in columns), strict=True)
    )
    table = f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    if len(rows) > _LONG:
        counted = escape(say("{title}: {n:count} row{n:s}", title=head_text, n=len(rows)))
        return f"<details><summary>{counted}</summary>{table}</details>"
    return f"<h3>{escape(head_text)}</h3>{table}"
