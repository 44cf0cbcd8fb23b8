"""Printing rows: a table for people; JSON, NDJSON or CSV for machines.

Instants are RFC 3339 in UTC with microseconds and Z. In CSV, lists are JSON, null is empty, and text is unchanged.

CSV for spreadsheets (`--for-excel`) begins with a byte order mark. Its headings are the labels that people read, its
amounts are in major units, and its instants are in the reader's zone. An apostrophe precedes text that a spreadsheet
would take for a formula. Control and format characters are escaped as on the terminal.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from coupon_ledger.cli.options import for_excel
from coupon_ledger.cli.terminal import behind, visible_data
from coupon_ledger.cli.view import flags, view
from coupon_ledger.ledger.errors import alike
from coupon_ledger.ledger.plain import plain
from coupon_ledger.reports.text import Row, printable

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Fit:
    """How to make a table narrower that is too wide. Names of columns: `wrap`: the column whose texts are broken into
    lines instead of cut; `spare`: the columns to leave out first, in this order; `keep`: the last column, if it
    must never be left out."""

    wrap: str | None = None
    spare: Sequence[str] = ()
    keep: str | None = None


LIKE_ANY: Final = Fit()


def print_rows(
    rows: Iterable[Row],
    output: str,
    columns: Sequence[str] | None = None,
    totals: Sequence[Row] = (),
    currency: str | None = None,
    fit: Fit = LIKE_ANY,
) -> None:
    """Print each row as it arrives; a table is printed after the last row arrived.

    `columns`: print only these, in this order, unless the reader names others with `--columns`. Default: all.
    For a table only: `totals`: rows to print at its end, below a line; `currency`: the currency of rows that state
    none; `fit`: how to make the table narrower if it is too wide.
    """
    if output == "table":
        from coupon_ledger.cli.tables import print_table

        print_table(list(rows), columns, totals, currency, fit)
        return
    columns = flags().columns or columns
    if columns is not None:
        rows = (_picked(row, columns) for row in rows)
    if output == "json":
        _print_json(rows)
    elif output == "ndjson":
        for row in rows:
            sys.stdout.write(json.dumps(plain(row), ensure_ascii=False) + "\n")
    else:
        _print_csv(rows)
    sys.stdout.flush()


def print_frames(frames: Iterable[pl.DataFrame], output: str, columns: Sequence[str] | None = None) -> None:
    """Print the rows of the frames, one frame after another, so that exports may be larger than memory. NDJSON is fast:
    polars writes a whole frame at once."""
    if output == "table":
        print_rows((row for frame in frames for row in frame.iter_rows(named=True)), output, columns)
        return
    columns = flags().columns or columns
    if columns is not None:
        frames = (_selected(frame, columns) for frame in frames)
    if output == "ndjson":
        _print_ndjson_frames(frames)
    elif output == "csv":
        _print_csv_frames(frames)
    else:
        print_rows((row for frame in frames for row in frame.iter_rows(named=True)), output)
    sys.stdout.flush()


def _print_ndjson_frames(frames: Iterable[pl.DataFrame]) -> None:
    import polars as pl

    instants = pl.col(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    for frame in frames:
        sys.stdout.write(frame.with_columns(instants).write_ndjson())


def _selected(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    _check_columns(frame.columns, columns)
    return frame.select(columns)


def _picked(row: Row, columns: Sequence[str]) -> Row:
    _check_columns(list(row), columns)
    return {name: row[name] for name in columns}


def _check_columns(known: Sequence[str], wanted: Sequence[str]) -> None:
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise no_column(unknown, known)


def no_column(unknown: Sequence[str], known: Sequence[str]) -> click.UsageError:
    """The error that the columns `unknown` do not exist. It suggests similar names among `known`, or lists all of
    `known` if none is similar."""
    meant = alike(unknown, known)
    said = f"did you mean {' or '.join(meant)}?" if meant else f"there are {', '.join(known)}"
    return click.UsageError(f"no column {', '.join(unknown)}; {said}")


def print_row(row: Row, output: str) -> None:
    """Print one object: for people (`table`), one line per field."""
    if output == "table":
        from coupon_ledger.cli.tables import print_fields

        print_fields(row)
    elif output == "json":
        click.echo(json.dumps(plain(row), ensure_ascii=False, indent=2))
    else:
        print_rows([row], output)


def limited(rows: Iterator[Row], limit: int) -> tuple[list[Row], bool]:
    """The first `limit` rows, and whether there are more."""
    first: list[Row] = []
    for row in rows:
        if len(first) == limit:
            return first, True
        first.append(row)
    return first, False


def _print_json(rows: Iterable[Row]) -> None:
    first = True
    for row in rows:
        sys.stdout.write("[\n  " if first else ",\n  ")
        sys.stdout.write(json.dumps(plain(row), ensure_ascii=False))
        first = False
    sys.stdout.write("[]\n" if first else "\n]\n")


def _print_csv(rows: Iterable[Row]) -> None:
    if for_excel():
        from coupon_ledger.cli.tables import spreadsheet_row

        rows = map(spreadsheet_row, rows)
    write = _csv_writer()
    for number, row in enumerate(rows):
        if not number:
            write(list(row))
        write(list(row.values()))


def _print_csv_frames(frames: Iterable[pl.DataFrame]) -> None:
    """Print frames as CSV. The first line has the column names, even if no frame has a row (not with `--for-excel`)."""
    if for_excel():
        _print_csv(row for frame in frames for row in frame.iter_rows(named=True))
        return
    write = _csv_writer()
    for number, frame in enumerate(frames):
        if not number:
            write(frame.columns)
        for row in frame.iter_rows():
            write(row)


def _csv_writer() -> Callable[[Iterable[Any]], object]:
    """A function that writes one row of cells as CSV to standard output. With `--for-excel`, the CSV is for
    spreadsheets."""
    out = behind(sys.stdout)
    writer = csv.writer(_Lines(out), lineterminator="\r\n")
    if not for_excel():
        return lambda row: writer.writerow(map(_csv_cell, row))
    out.write("\ufeff")
    return lambda row: writer.writerow(_spreadsheet_cell(_csv_cell(value)) for value in row)


class _Lines:
    """The output of Python's CSV writer: writes each row to `out`, with \\n at its end instead of \\r\\n. The CSV
    writer must end rows with \\r\\n, since only then does it quote cells that contain a \\r."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, row: str) -> None:
        self._out.write(row[:-2] + "\n")


_FORMULA: Final = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")  # spreadsheets read wide ones, too


def _spreadsheet_cell(value: Any) -> Any:
    """The value as a cell of a CSV for spreadsheets. Text that a spreadsheet would take for a formula gets an
    apostrophe in front, and hidden characters are escaped. Numbers stay numbers."""
    if not isinstance(value, str):
        return value
    shown = visible_data(value)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def _csv_cell(value: Any) -> Any:
    if isinstance(value, Decimal):
        return value  # from `spreadsheet_row`: a number, whatever its sign
    value = plain(value)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else value


def cell(value: Any) -> str:
    """The value as text on one line of a terminal; an instant is in the reader's zone. Characters that control the
    terminal or are invisible are escaped (see `cli.terminal`)."""
    if isinstance(value, datetime):
        return view().instant(value)
    value = plain(value)
    if value is None:
        return "–"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return f"{value:.4f}"
    return printable(str(value))
