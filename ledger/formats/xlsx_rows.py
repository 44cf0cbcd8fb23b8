"""Reads events from one sheet of an XLSX workbook: one event per row; the first nonempty row has the columns' names.

A cell is converted to the type of its field: a whole number to an integer, a date to an instant in the zone that the
user names, and text as in CSV. Refused are values that a spreadsheet may have changed: ids that are numbers of more
than 15 digits, amounts with decimals, and errors such as #N/A. Also refused are formulas that were never calculated,
and numbers in text columns if the number format shows them differently (00019 for 19).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from coupon_ledger.ledger.errors import InvalidEvent, Problem, UnusableFile
from coupon_ledger.ledger.formats.csv_rows import data_of
from coupon_ledger.ledger.formats.rows import (
    Item,
    Kind,
    Refused,
    check_columns,
    column_kinds,
    in_zone,
    record_of,
    table_event,
)
from coupon_ledger.ledger.formats.xlsx_cells import NO_VALUE, Cell, Workbook
from coupon_ledger.ledger.json_text import bad
from coupon_ledger.ledger.plain import plain

_EXACT: Final = 10**15
"""Spreadsheets keep 15 digits of a number."""
_NOT_CALCULATED: Final = "holds a formula without a value; open the file in the spreadsheet program and save it there"

# Parts of number formats: literal text; colours and room for a sign, which show nothing; digits.
_LITERAL: Final = re.compile(r'"[^"]*"|\\.')
_SHOWS_NOTHING: Final = re.compile(
    r"\[(black|blue|cyan|green|magenta|red|white|yellow|colou?r ?\d+)\]|_.|\* ", re.IGNORECASE
)
_DIGITS: Final = re.compile(r"#+0*|0+")


class XlsxRows:
    """The rows of a workbook's sheet, read as events of one topic. Raises `UnusableFile` if the workbook cannot be
    read, the sheet is not known, or its columns do not fit the topic."""

    def __init__(self, path: Path, topic: str, sheet: str | None = None, zone: ZoneInfo | None = None) -> None:
        """`sheet`: the sheet's name; needed if several sheets have cells. `zone`: the zone of dates, since date cells
        have none."""
        self._what = f"file {path}"
        self._topic = topic
        self._zone = zone
        self._book = Workbook(path, self._what)
        try:
            self._sheet = self._chosen(sheet)
        except BaseException:
            self._book.close()
            raise

    def items(self) -> Iterator[Item]:
        try:
            yield from self._items()
        finally:
            self._book.close()

    def _items(self) -> Iterator[Item]:
        names: list[str] | None = None
        for number, row in self._book.rows(self._sheet):
            if names is None:
                names = self._names(row)
            else:
                yield self._item(number, names, row)

    def _names(self, row: dict[int, Cell]) -> list[str]:
        if any(cell.kind == NO_VALUE for cell in row.values()):
            raise UnusableFile(f"{self._what}: a column's name {_NOT_CALCULATED}")
        names = [str(row[column].value) if column in row else "" for column in range(1, max(row) + 1)]
        check_columns(self._what, self._topic, names)
        return names

    def _item(self, number: int, names: list[str], row: dict[int, Cell]) -> Item:
        data: dict[str, Any] = {}
        problems: list[Problem] = []
        shown: dict[str, Any] = {"topic": self._topic}
        for column, name in enumerate(names, 1):
            cell = row.get(column)
            if cell is None:
                continue
            shown[name] = cell.value.isoformat() if isinstance(cell.value, date | time) else cell.value
            try:
                data |= self._data(name, cell)
                shown[name] = plain(data[name])
            except InvalidEvent as error:
                problems += [Problem(name, p.rule) for p in error.problems]
        if max(row) > len(names):
            problems.append(Problem("", f"has more cells than there are columns ({len(names)})"))
        try:
            return record_of(table_event(self._topic, data, problems))
        except InvalidEvent as error:
            text = json.dumps(shown, ensure_ascii=False, default=str)
            return Refused(number, text, data.get("event_id"), error.problems)

    def _data(self, name: str, cell: Cell) -> Mapping[str, Any]:
        """The event data in one cell: the field `name` with its value, or nothing. Raises `InvalidEvent` if the cell
        cannot be converted. The caller then adds the field's name to the problems."""
        if cell.kind == NO_VALUE:
            raise bad(_NOT_CALCULATED)
        if cell.kind == "e":
            raise bad(f"is the spreadsheet's error {cell.value}")
        kind = column_kinds(self._topic)[name]
        value = cell.value
        if isinstance(value, str):
            data, problems = data_of(self._topic, {name: value}, self._zone)
            if problems:
                raise InvalidEvent(problems)
            return data
        if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
            value = int(value)
        data = {name: _AS[kind](value, self._zone)}
        if kind == "text" and not shows_digits(cell.shown, value):
            raise bad(
                f"is the number {value}, which its format {_named(cell.shown)} shows otherwise; format the column as"
                " text and enter what is shown"
            )
        return data

    def _chosen(self, name: str | None) -> str:
        sheets = self._book.sheets
        if name is not None:
            if name not in sheets:
                raise UnusableFile(f"{self._what}: no sheet {name!r}; there are {', '.join(sheets)}")
            return name
        filled = [title for title in sheets if any(True for _ in self._book.rows(title))]
        if len(filled) > 1:
            raise UnusableFile(f"{self._what}: has several sheets ({', '.join(filled)}); name one with --sheet")
        if not sheets:
            raise UnusableFile(f"{self._what}: has no sheet with cells; save the table as one")
        return filled[0] if filled else sheets[0]


def shows_digits(code: str | None, number: int) -> bool:
    """Whether the number format `code` shows `number` as exactly its digits. False if the format is not known
    (None)."""
    if code is None:
        return False
    plain_code = _SHOWS_NOTHING.sub("", _LITERAL.sub("x", code))
    sections = plain_code.split(";")
    minus = ""
    section = sections[0]
    if number < 0 and len(sections) > 1:
        section, minus = sections[1], "-"
    elif number == 0 and len(sections) > 2:
        section = sections[2]
    section = section.strip()
    if "[" in plain_code or not section.startswith(minus):
        return False
    section = section.removeprefix(minus)
    if section.lower() in ("general", "@"):
        return True
    zeros = section.count("0")
    return bool(_DIGITS.fullmatch(section)) and zeros <= len(str(abs(number))) and (number != 0 or zeros > 0)


def _named(code: str | None) -> str:
    return "(not known)" if code is None else repr(code[:40])


def _text(value: Any, _zone: ZoneInfo | None) -> Any:
    if isinstance(value, bool):
        raise bad("must be text; format the column as text")
    if isinstance(value, datetime | date | time):
        raise bad("is a date, and must be text; format the column as text")
    if isinstance(value, int) and abs(value) < _EXACT:
        return str(value)
    if isinstance(value, int | float) and (not math.isfinite(value) or abs(value) >= _EXACT):
        raise bad("is a number of more than 15 digits, which spreadsheets round; format the column as text")
    raise bad("is a number with decimals, and must be text; format the column as text")


def _instant(value: Any, zone: ZoneInfo | None) -> Any:
    if isinstance(value, datetime):
        return in_zone(value, zone)
    raise bad("must be a date with its time, or text such as 2026-11-11T00:00:00Z")


def _as_it_is(value: Any, _zone: ZoneInfo | None) -> Any:
    if isinstance(value, datetime | date | time):
        raise bad("is a date")
    return value


_AS: Final[dict[Kind, Callable[[Any, ZoneInfo | None], Any]]] = {
    "text": _text,
    "instant": _instant,
    "integer": _as_it_is,
    "json": _as_it_is,
    "list": _as_it_is,
}
