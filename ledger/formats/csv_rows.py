"""Reads events from a CSV file: one event per row; the first row has the columns' names.

The file is UTF-8 text with double quotes (RFC 4180). The delimiter is comma, semicolon, vertical bar or tab: if the
user names none, the one with which the first row has the most known column names. An empty cell means null. Amounts are
whole numbers without thousands separators. Instants are in RFC 3339, and need no zone if the user names the file's.
Cells of list and JSON columns contain JSON.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from coupon_ledger.ledger.errors import InvalidEvent, Problem, UnusableFile
from coupon_ledger.ledger.formats.rows import (
    MAX_ROW_BYTES,
    NOTHING,
    Filling,
    Item,
    Refused,
    check_columns,
    column_kinds,
    in_zone,
    not_text,
    record_of,
    table_event,
)
from coupon_ledger.ledger.json_text import bad, json_value

DELIMITERS: Final = ",;\t|"
# An integer as JSON writes it. No amount comes near a thousand digits; the model refuses anything larger.
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,999})", re.ASCII)
_NO_ZONE: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?", re.ASCII)
# A first line that tells spreadsheet programs the delimiter.
_SEP: Final = re.compile(rb'"?sep=([^"\r])"?\r?')


@dataclass(frozen=True, slots=True)
class _Row:
    """A row: the number of its first line, its bytes, its cells, and why the cells could not be read (`problem`; None
    if they could)."""

    line: int
    raw: bytes
    cells: list[str]
    problem: InvalidEvent | None = None


def csv_items(
    lines: Iterator[bytes | None],
    topic: str,
    what: str,
    filling: Filling = NOTHING,
    delimiter: str | None = None,
    zone: ZoneInfo | None = None,
) -> Iterator[Item]:
    """Read the events from the lines of a CSV file. `what`: the file's name in messages. `filling`: values to add to
    each row. `delimiter`: detected if None. `zone`: the zone of instants that are written without one. Raises
    `UnusableFile` if the column names cannot be read or do not fit the topic."""
    csv.field_size_limit(MAX_ROW_BYTES)
    source = _Lines(lines)
    names: list[str] | None = None
    for line in source:
        if line is None:
            yield None
        elif not line or line.isspace():
            continue
        elif names is None:
            if separator := _SEP.fullmatch(line):
                delimiter = delimiter or separator[1].decode("latin-1")
                continue
            delimiter = delimiter or delimiter_of(line, topic)
            row = _row(line, source, delimiter)
            if row.problem:
                raise UnusableFile(f"{what}: line {row.line}, the columns' names: {row.problem}; mend that line")
            names = row.cells
            check_columns(what, topic, names, filling)
        else:
            assert delimiter is not None
            yield _item(_row(line, source, delimiter), names, topic, filling, zone)


def delimiter_of(header: bytes, topic: str) -> str:
    """The delimiter that splits `header` into the most column names that the topic has. A comma if no delimiter yields
    any."""
    return max(DELIMITERS, key=lambda delimiter: known_columns(header, delimiter, topic))


def known_columns(header: bytes, delimiter: str, topic: str) -> int:
    try:
        names = next(csv.reader([header.decode("utf-8", "surrogateescape")], delimiter=delimiter))
    except csv.Error:
        return 0
    return len(column_kinds(topic).keys() & set(names))


def _item(row: _Row, names: list[str], topic: str, filling: Filling, zone: ZoneInfo | None) -> Item:
    cells = dict(zip(names, row.cells, strict=False))
    try:
        if row.problem:
            raise row.problem
        if len(row.cells) != len(names):
            raise bad(f"has {len(row.cells)} cells, but there are {len(names)} columns")
        data, problems = data_of(topic, cells, zone)
        return record_of(table_event(topic, filling(data), problems))
    except InvalidEvent as error:
        text = row.raw.decode("utf-8", "backslashreplace")
        return Refused(row.line, text, cells.get("event_id") or None, error.problems)


def data_of(topic: str, cells: Mapping[str, str], zone: ZoneInfo | None = None) -> tuple[dict[str, Any], list[Problem]]:
    """Convert a row's cells, by column name, to event data. Returns the data, and a problem for each cell that cannot
    be converted."""
    data: dict[str, Any] = {}
    problems: list[Problem] = []
    kinds = column_kinds(topic)
    for name, text in cells.items():
        if not text:
            continue
        try:
            if kinds[name] in ("json", "list"):
                data[name] = json_value(text)
            elif kinds[name] == "integer" and _INTEGER.fullmatch(text):
                data[name] = int(text)
            elif zone is not None and kinds[name] == "instant" and _NO_ZONE.fullmatch(text):
                data[name] = _local(text, zone)
            else:
                data[name] = text
        except InvalidEvent as error:
            problems.append(Problem(name, str(error)))
    return data, problems


def _local(text: str, zone: ZoneInfo) -> datetime | str:
    try:
        return in_zone(datetime.fromisoformat(text.upper()), zone)
    except (ValueError, OverflowError):  # such as 30 February: the model refuses it
        return text + "Z"


class _Lines:
    """An iterator over lines that counts them. `give_back` returns lines to it, so that they are read and counted
    again."""

    def __init__(self, lines: Iterator[bytes | None]) -> None:
        self._lines = lines
        self._again: deque[bytes] = deque()
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> bytes | None:
        line = self._again.popleft() if self._again else next(self._lines)
        self.number += line is not None
        return line

    def give_back(self, lines: list[bytes]) -> None:
        self._again.extendleft(reversed(lines))
        self.number -= len(lines)


def _row(first: bytes, lines: _Lines, delimiter: str) -> _Row:
    """Read the row whose first line is `first`. If the CSV reader fails, only `first` is refused: the lines after it
    are read again, as rows of their own."""
    number, taken = lines.number, [first]
    try:
        if len(first) > MAX_ROW_BYTES:
            raise bad(f"longer than {MAX_ROW_BYTES:,} bytes")
        cells = next(csv.reader(_texts(taken, lines), delimiter=delimiter, strict=True))
        b"\n".join(taken).decode()
    except csv.Error as error:
        lines.give_back(taken[1:])
        return _Row(number, first, [], bad(f"not CSV ({error})"))
    except UnicodeDecodeError as error:
        return _Row(number, b"\n".join(taken), [], not_text(error))
    except InvalidEvent as error:
        return _Row(number, first, [], error)
    return _Row(number, b"\n".join(taken), cells)


def _texts(taken: list[bytes], lines: _Lines) -> Iterator[str]:
    """Yield the lines of one row as text: first `taken[0]`, then a line of `lines` each time the CSV reader asks for
    more because a quote is still open. Adds those lines to `taken`."""
    yield _text(taken[0])
    left = MAX_ROW_BYTES
    for line in lines:
        if line is not None:
            taken.append(line)
            left -= len(line)
            if left < 0:
                return
            yield _text(line)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape") + "\n"
