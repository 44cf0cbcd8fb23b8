"""XLSX: an event a row of one sheet, its columns named in the first row that is not empty.

A cell becomes what its field needs: a whole number an integer, a date an instant in the zone that the user names, text
what it would be in CSV. What a spreadsheet may have changed (numbers of more than 15 digits where an id is wanted, an
amount with decimals, an error such as #N/A) is refused, not guessed.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile
from zoneinfo import ZoneInfo

from cli.sources.csv_rows import data_of
from cli.sources.rows import Item, Kind, Refused, check_columns, column_kinds, in_zone, record_of, table_event
from ledger.errors import InvalidEvent, Problem, UnusableFile
from ledger.json_text import bad
from ledger.plain import plain

_EXACT: Final = 10**15
"""Spreadsheets keep 15 digits of a number."""
_MOST_SHARED: Final = 1 << 29
"""Bytes of texts that are held in memory."""

_Cell = Any


class XlsxRows:
    """The rows of a workbook's sheet as events of one topic. Raises `UnusableFile` where it cannot be one."""

    def __init__(self, path: Path, topic: str, sheet: str | None = None, zone: ZoneInfo | None = None) -> None:
        """`sheet`: needed where there are several that hold something. `zone`: of dates, which have none."""
        self._what = f"file {path}"
        self._topic = topic
        self._zone = zone
        # By its content: openpyxl refuses other endings of a name.
        self._file = path.open("rb")
        try:
            self._book = self._opened()
            self._sheet = self._chosen(sheet)
        except BaseException:
            self._file.close()
            raise

    def _opened(self) -> Any:
        with self._readable():
            import openpyxl

            with ZipFile(self._file) as archive:
                shared = sum(i.file_size for i in archive.infolist() if i.filename.endswith("sharedStrings.xml"))
            if shared > _MOST_SHARED:
                raise UnusableFile(f"{self._what}: holds more than {_MOST_SHARED:,} bytes of text; save it as CSV")
            return openpyxl.load_workbook(self._file, read_only=True, data_only=True, keep_links=False)

    def items(self) -> Iterator[Item]:
        try:
            yield from self._items()
        finally:
            self._book.close()
            self._file.close()

    def _items(self) -> Iterator[Item]:
        names: list[str] | None = None
        for number, row in enumerate(self._rows(), 1):
            if all(cell.value in (None, "") for cell in row):
                continue
            if names is None:
                names = [str(cell.value) if cell.value is not None else "" for cell in row]
                while names and not names[-1]:
                    names.pop()
                check_columns(self._what, self._topic, names)
            else:
                yield self._item(number, names, row)

    def _rows(self) -> Iterator[tuple[_Cell, ...]]:
        self._sheet.reset_dimensions()  # what the file says of its size may be wrong
        with self._readable():
            rows = iter(self._sheet.iter_rows())
        while True:
            with self._readable():
                row = next(rows, None)
            if row is None:
                return
            yield row

    def _item(self, number: int, names: list[str], row: tuple[_Cell, ...]) -> Item:
        data: dict[str, Any] = {}
        problems: list[Problem] = []
        shown: dict[str, Any] = {"topic": self._topic}
        for name, cell in zip(names, row, strict=False):
            if cell.value in (None, ""):
                continue
            shown[name] = cell.value.isoformat() if isinstance(cell.value, date | time) else cell.value
            try:
                data |= self._data(name, cell)
                shown[name] = plain(data[name])
            except InvalidEvent as error:
                problems += [Problem(name, p.rule) for p in error.problems]
        if any(cell.value not in (None, "") for cell in row[len(names) :]):
            problems.append(Problem("", f"has more cells than there are columns ({len(names)})"))
        try:
            return record_of(table_event(self._topic, data, problems))
        except InvalidEvent as error:
            text = json.dumps(shown, ensure_ascii=False, default=str)
            return Refused(number, text, data.get("event_id"), error.problems)

    def _data(self, name: str, cell: _Cell) -> Mapping[str, Any]:
        """What the cell gives the event. Raises `InvalidEvent`, its problem without a field."""
        if cell.data_type == "e":
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
        return {name: _AS[kind](value, self._zone)}

    def _chosen(self, name: str | None) -> Any:
        with self._readable():
            sheets = {sheet.title: sheet for sheet in self._book.worksheets}
        if name is not None:
            if name not in sheets:
                raise UnusableFile(f"{self._what}: no sheet {name!r}; there are {', '.join(sheets)}")
            return sheets[name]
        filled = [title for title in sheets if self._holds_something(sheets[title])]
        if len(filled) > 1:
            raise UnusableFile(f"{self._what}: has several sheets ({', '.join(filled)}); name one with --sheet")
        if not sheets:
            raise UnusableFile(f"{self._what}: has no sheet with cells; save the table as one")
        return sheets[filled[0] if filled else next(iter(sheets))]

    def _holds_something(self, sheet: Any) -> bool:
        with self._readable():
            sheet.reset_dimensions()
            return any(cell.value not in (None, "") for row in sheet.iter_rows() for cell in row)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of styles and extensions, which hold no data
                yield
        except (UnusableFile, MemoryError, AssertionError):
            raise
        except Exception as error:  # a broken workbook makes its reader fail in many ways
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UnusableFile(
                f"{self._what}: cannot be read as an Excel workbook ({reason}); save it again as .xlsx or CSV"
            ) from error


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
