"""Print tables and objects for people: headings with units, amounts in major units, no row wider than the terminal.

A table that is too wide breaks its headings into lines, then cuts long texts with an ellipsis, then leaves out its last
columns, and says so. `--wide` shows everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import zip_longest
from typing import Any, Final

import click

from coupon_ledger.cli.output import LIKE_ANY, Fit, no_column
from coupon_ledger.cli.view import TerminalView, flags, view
from coupon_ledger.ledger.amounts import amount, decimals
from coupon_ledger.ledger.words import Note
from coupon_ledger.reports.columns import Column, columns_of, in_natural_order
from coupon_ledger.reports.labels import SAY_NOTHING, kind, label, say, shown
from coupon_ledger.reports.text import Row, text_width

_GAP: Final = "  "
_SHORT: Final = 12
"""Texts are never cut to fewer terminal columns, unless nothing else helps."""
_LONG: Final = 36
"""An id of this length is shown whole if there is room."""
_HEAD: Final = 8
"""Chinese headings break into lines of this many terminal columns."""


# --- tables


def print_table(
    rows: list[Row],
    columns: Sequence[str] | None = None,
    totals: Sequence[Row] = (),
    currency: str | None = None,
    fit: Fit = LIKE_ANY,
) -> None:
    """Print a table. `columns`: the columns to show, unless the reader names others (`--columns`) or wants all
    (`--wide`); `totals`: rows printed below a line at the end; `currency`: the currency of amounts in rows that state
    none; `fit`: how the table becomes narrower."""
    if not rows:
        click.echo(say("nothing found"))
        return
    how = view()
    names = _names(rows, columns, how)
    rows = in_natural_order(rows, names)
    table = _Table(rows, list(totals), names, currency, how, fit)
    if any(column.kinds == {"instant"} for column in table.columns):
        name_zone()
    for line in table.lines():
        click.echo(line)
    left_out = {name for name in _with_values(rows, rows[0]) if name != "currency"} - {c.name for c in table.columns}
    if left_out and how.columns is None:
        click.echo(say("columns left out: {n:count} (--wide)", n=len(left_out)), err=True)


def spreadsheet_row(row: Row) -> Row:
    """The row for a CSV for spreadsheets. Its keys are labels, its amounts are in major units, and its instants are in
    the reader's zone. Numbers keep their full precision. An amount in an unknown currency stays in minor units."""
    return {_unique(label(name), name, row): _spreadsheet_value(name, row) for name in row}


def _unique(head: str, name: str, row: Row) -> str:
    """The label `head` of the column `name`, followed by `name` if another column of the row has the same label."""
    return head if sum(label(other) == head for other in row) == 1 else f"{head} ({name})"


def _spreadsheet_value(name: str, row: Row) -> Any:
    value = row[name]
    if value is None:
        return None
    if isinstance(value, datetime):
        return view().instant(value)
    currency = row.get("currency")
    if kind(name, row) == "money" and decimals(currency) is not None:
        return Decimal(amount(value, currency).replace(",", ""))
    return value


def name_zone() -> None:
    """Print the name of the zone in which instants are shown, unless the command has already printed it."""
    options = flags()
    if not options.zone_named:
        options.zone_named = True
        click.echo(say("times in {zone}", zone=view().zone))


def _names(rows: Sequence[Row], columns: Sequence[str] | None, how: TerminalView) -> list[str]:
    known = list(rows[0])
    if how.columns is not None and (chosen := chosen_columns(known, how.columns)):
        return chosen
    return _with_values(rows, known if columns is None or how.wide else columns)


def chosen_columns(known: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The columns of `wanted` that are among `known`, the table's columns. The first table of a command must have all
    wanted columns, otherwise raises `click.UsageError`. Later tables may lack some."""
    options = flags()
    unknown = [name for name in wanted if name not in known]
    if unknown and not options.columns_shown:
        raise no_column(unknown, known)
    options.columns_shown = True
    return [name for name in wanted if name in known]


def _with_values(rows: Sequence[Row], names: Iterable[str]) -> list[str]:
    """The columns `names` without those that have no value in any row. If no column has a value, all of `names`."""
    return [name for name in names if any(_says_something(name, row.get(name)) for row in rows)] or list(names)


def _says_something(name: str, value: Any) -> bool:
    return value is not None and not (name in SAY_NOTHING and not value)


class _Laid:
    """A column on the terminal: its cells, the lines of its heading, and its width."""

    def __init__(self, column: Column, whole: bool, wraps: bool) -> None:
        """`whole`: keep the heading on one line; `wraps`: break the cells into lines."""
        self.name, self.cells, self.right, self.kinds = column.name, column.cells, column.right, column.kinds
        self.heads = [column.head] if whole else _broken(column.head, max(map(text_width, column.cells)))
        self.width = self.natural = max(text_width(text) for text in [*self.heads, *self.cells])
        self.wraps = wraps

    def broken(self, text: str) -> list[str]:
        """The lines of the cell `text`: one, unless the column's cells are broken into lines."""
        return _wrapped(text, self.width) if self.wraps else [text]

    def line(self, text: str) -> str:
        text = cut(text, self.width)
        room = " " * (self.width - text_width(text))
        return room + text if self.right else text + room


class _Table:
    def __init__(
        self,
        rows: list[Row],
        totals: list[Row],
        names: Sequence[str],
        currency: str | None,
        how: TerminalView,
        fit: Fit,
    ) -> None:
        named = columns_of([*rows, *totals], names, currency, named=how.columns is not None)
        self.columns = [_Laid(column, how.wide, column.name == fit.wrap) for column in named]
        self._rows = len(rows)
        if how.width is not None:
            self._fit(how.width, fit, keep=len(names) if how.columns is not None else 1)

    def _fit(self, width: int, fit: Fit, keep: int) -> None:
        """Make the table fit into `width`. While it is too wide: break sentences into lines, then cut long texts, then
        leave out columns from the end, then cut the other texts. At least `keep` columns stay."""
        for column in self.columns:
            if column.wraps:
                column.width = min(column.width, max(_LONG, width - self._width() + column.width))
        self._shrink(width, _LONG)
        self._shrink(width, _SHORT * 2)
        while self._width() > width and len(self.columns) > keep:
            names = [column.name for column in self.columns]
            spare = next((name for name in fit.spare if name in names), None)
            last = names[-2] if names[-1] == fit.keep else names[-1]
            self.columns.pop(names.index(spare or last))
        for column in self.columns:
            if not column.right:
                column.width = column.natural
        for least in (_LONG, _SHORT * 2, _SHORT, 1):
            self._shrink(width, least)

    def _shrink(self, width: int, least: int) -> None:
        """Narrow the widest text columns until the table fits into `width`; none becomes narrower than `least`."""
        while (over := self._width() - width) > 0:
            wide = [c for c in self.columns if not c.right and c.width > least]
            if not wide:
                return
            widest = max(wide, key=lambda c: c.width)
            second = max((c.width for c in wide if c is not widest), default=least)
            widest.width = max(least, widest.width - over, min(second, widest.width - 1))

    def _width(self) -> int:
        return sum(c.width for c in self.columns) + len(_GAP) * (len(self.columns) - 1)

    def lines(self) -> Iterable[str]:
        height = max(len(c.heads) for c in self.columns)
        heads = [[""] * (height - len(c.heads)) + c.heads for c in self.columns]
        rule = _GAP.join("─" * c.width for c in self.columns)
        for n in range(height):
            yield self._joined([head[n] for head in heads])
        yield rule
        for n, cells in enumerate(zip(*(c.cells for c in self.columns), strict=True)):
            if n == self._rows:
                yield rule
            pieces = [column.broken(text) for column, text in zip(self.columns, cells, strict=True)]
            for line in zip_longest(*pieces, fillvalue=""):
                yield self._joined(line)

    def _joined(self, cells: Sequence[str]) -> str:
        return _GAP.join(c.line(text) for c, text in zip(self.columns, cells, strict=True)).rstrip()


def _broken(head: str, width: int) -> list[str]:
    """The lines of a heading. They are at most as wide as `width` (the width of the column's cells) or `_HEAD`,
    whichever is greater, except where a word is longer."""
    lines: list[str] = []
    for piece in re.findall(r"\([^)]{,14}\)|\S+", head):
        room = max(width, _HEAD)
        if lines and text_width(lines[-1]) + 1 + text_width(piece) <= room:
            lines[-1] += f" {piece}"
        else:
            lines += _pieces(piece, room) if text_width(piece) > len(piece) else [piece]
    return lines or [""]


def _pieces(text: str, room: int) -> list[str]:
    """Break a text into lines of at most `room` terminal columns, between any two characters (as Chinese may be)."""
    lines = [""]
    for sign in text:
        if text_width(lines[-1] + sign) > room:
            lines.append("")
        lines[-1] += sign
    return lines


def cut(text: str, width: int) -> str:
    """The text, cut to at most `width` terminal columns; if it is cut, it ends with an ellipsis."""
    if text_width(text) <= width:
        return text
    kept, room = "", width - 1
    for sign in text:
        room -= text_width(sign)
        if room < 0:
            break
        kept += sign
    return kept + "…" if width > 0 else ""


# --- objects


def print_fields(row: Row, currency: str | None = None) -> None:
    """Print one object: a line per field, with long values broken into lines. `currency`: as in `print_table`."""
    how = view()
    names = list(row) if how.columns is None else chosen_columns(list(row), how.columns) or list(row)
    if any(row[name] is not None and kind(name, row) == "instant" for name in names):
        name_zone()
    labels = {name: label(name) for name in names}
    width = max(map(text_width, labels.values()), default=0)
    for name in names:
        head = labels[name] + " " * (width - text_width(labels[name])) + _GAP
        lines = _wrapped(shown(name, row, currency), how.width and max(20, how.width - width - len(_GAP)))
        click.echo(f"{head}{lines[0]}".rstrip())
        for line in lines[1:]:
            click.echo(" " * (width + len(_GAP)) + line)


def echo_wrapped(text: str, err: bool = False, indent: int = 0) -> None:
    """Print a sentence in lines that fit the terminal. `indent`: spaces in front of every line after the first."""
    width = view().width
    first, *more = _wrapped(text, width)
    click.echo(first, err=err)
    if more and indent and width is not None:
        more = _wrapped(text[len(first) :].lstrip(), width - indent)
    for line in more:
        click.echo(" " * indent + line, err=err)


def warn(template: str, /, **values: Any) -> None:
    """Print a warning on standard error: the translated `template` with its `values`."""
    echo_wrapped(say("warning: {what}", what=Note(template, values)), err=True)


def echo_under(head: str, text: str) -> None:
    """Print a line of a summary that has two columns: the heading `head` (a template, which is translated here), and
    `text`."""
    named = say(head) if head else ""
    click.echo(f"{named}{' ' * (_HEADS - text_width(named))}{text}")


_HEADS: Final = 12
_PIECE: Final = re.compile("[（“]*(?:[\u2e80-\uffff]|[^ \u2e80-\uffff]+)[，。；：、）”？！]* *| +")
"""Lines never break within a piece: a word with the spaces after it, or one Chinese character with its punctuation."""


def _wrapped(text: str, width: int | None) -> list[str]:
    """Break the text into lines of at most `width` terminal columns (None: do not break it): at spaces or between
    Chinese characters, within a word only if it is longer than a line."""
    if width is None or text_width(text) <= width:
        return [text]
    lines = [""]
    for piece in _PIECE.findall(text):
        if text_width(lines[-1] + piece.rstrip()) > width and lines[-1]:
            lines.append("")
        for part in _pieces(piece, width) if text_width(piece.rstrip()) > width else [piece]:
            if text_width(lines[-1] + part.rstrip()) > width:
                lines.append("")
            lines[-1] += part
    return [line.rstrip() for line in lines]
