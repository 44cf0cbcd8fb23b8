"""`detect`: anomalies of one metric in a CSV, each row judged by the rows up to it alone."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from coupon_ledger.cli.options import csv_rows, output_option
from coupon_ledger.cli.output import print_rows
from coupon_ledger.ledger.errors import UnusableFile
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from coupon_ledger.analysis.detector import Floor, Reading

# As analysis.detector.THRESHOLD, which is not loaded for a --help.
_THRESHOLD: Final = 0.5
_COLUMNS: Final = ("timestamp", "value")
_SHOWN: Final = ("timestamp", "value", "expected_low", "expected_high", "score")
_AUTUMN: Final = timedelta(hours=1)
"""How far a clock without a zone goes back when daylight saving time ends."""
_ONCE: Final = timedelta(hours=20)


@dataclass(frozen=True, slots=True)
class _Measured:
    """A row of the file. `at`: in UTC, or the file's own clock as if it were."""

    text: str
    at: datetime
    local: bool
    value: float
    trials: float


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=_THRESHOLD,
    show_default=True,
    help="The score from which a row is an alert.",
)
@click.option(
    "--calendar",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A CSV of start, end: announced periods, in which nothing is an alert and nothing is learned. The end is not"
    " in it.",
)
@click.option(
    "--floor",
    type=click.Choice(("none", "poisson", "binomial")),
    default="none",
    show_default=True,
    help="What chance alone makes of the values: of counts (poisson), or of rates from 0 to 1 with a column trials"
    " (binomial). No row scores higher than that allows.",
)
@output_option
def detect(file: Path, threshold: float, calendar: Path | None, floor: Floor, output: str) -> None:
    """Find anomalies of one metric in FILE, a CSV of timestamp, value in order of time; - is standard input.

    Each row gets an expected band and a score from 0 to 1, from the rows up to it alone. The machine formats have all
    rows, a table the alerts. An empty value is a gap. The first 150 values are only learned from. A row can be an alert
    within its band: where the course of the last rows is unlike any before. One anomaly is one alert: what is no more
    unusual than a row shortly before scores low.

    \b
    coupon-ledger detect claims-by-minute.csv
    coupon-ledger detect claims-by-minute.csv --floor poisson --calendar sales.csv --output csv > scored.csv
    """
    from coupon_ledger.analysis.detector import WARM_UP, Detector

    rows = list(_measured(file, ("trials",) if floor == "binomial" else ()))
    values = sum(not math.isnan(row.value) for row in rows)
    if values <= WARM_UP:
        raise UnusableFile(
            f"file {file}: has {values} values, and the first {WARM_UP} are only learned from; give a longer series"
        )
    announced = _Calendar(_periods(calendar) if calendar else [])
    detector = Detector(floor=floor)
    scored = (
        _scored(row, detector.step(row.at, row.value, row.trials, announced=announced.covers(row.at)), threshold)
        for row in rows
    )
    if output == "table":
        print_rows([row for row in scored if row["alert"]], output, _SHOWN)
    else:
        print_rows(scored, output)


def _scored(row: _Measured, reading: Reading, threshold: float) -> Row:
    score = round(reading.score, 6)
    return {
        "timestamp": row.text,
        "value": None if math.isnan(row.value) else row.value,
        "expected_low": _number(reading.low),
        "expected_high": _number(reading.high),
        "score": score,
        "alert": score >= threshold,
    }


def _number(value: float) -> float | None:
    """A bound of the band, with the digits that a reader can use; None where there is none."""
    return None if math.isnan(value) else float(f"{value:.8g}")


def _measured(file: Path, more: Sequence[str]) -> Iterator[_Measured]:
    """The rows of the file. Raises `UnusableFile`, with the line, for what is no row or not in order of time."""
    before: _Measured | None = None
    stepped_back: datetime | None = None
    for line, cells in _cells(file, (*_COLUMNS, *more)):
        row = _Measured(
            cells["timestamp"],
            *_instant(file, line, cells["timestamp"]),
            _float(file, line, "value", cells["value"]),
            _float(file, line, "trials", cells["trials"]) if more else math.nan,
        )
        if before is not None and row.at < before.at:
            autumn = row.local and before.at - row.at <= _AUTUMN
            if not autumn or (stepped_back is not None and row.at - stepped_back < _ONCE):
                raise UnusableFile(
                    f"file {file}, line {line}: {row.text} comes after {before.text}; sort the rows by timestamp"
                )
            stepped_back = row.at
        before = row
        yield row


def _cells(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells by column of each row that is not empty."""
    rows = csv.reader(_lines(file))
    try:
        names = [name.strip() for name in next(rows, [])]
        if not names:
            raise UnusableFile(f"file {file}: is empty; give a CSV with the columns {', '.join(columns)}")
        absent = [name for name in columns if name not in names]
        if absent:
            raise UnusableFile(
                f"file {file}: has no column {', '.join(absent)}; the first line must name {', '.join(columns)}"
            )
        places = {name: names.index(name) for name in columns}
        for cells in rows:
            if not cells:
                continue
            if len(cells) != len(names):
                raise UnusableFile(
                    f"file {file}, line {rows.line_num}: has {len(cells)} cells instead of {len(names)}; correct it"
                )
            yield rows.line_num, {name: cells[place].strip() for name, place in places.items()}
    except csv.Error as error:
        raise UnusableFile(f"file {file}, line {rows.line_num}: is no CSV ({error}); correct it") from error


def _lines(file: Path) -> list[str]:
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return content.decode("utf-8-sig").splitlines(keepends=True)
    except FileNotFoundError:
        raise UnusableFile(f"file {file}: not there; check the path, or use - for standard input") from None
    except OSError as error:
        raise UnusableFile(f"file {file}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise UnusableFile(f"file {file}: is no CSV in UTF-8; save it as UTF-8") from error


def _instant(file: Path, line: int, text: str) -> tuple[datetime, bool]:
    """The instant in UTC, and whether it has no zone."""
    try:
        at = datetime.fromisoformat(text)
        return (at.replace(tzinfo=UTC), True) if at.tzinfo is None else (at.astimezone(UTC), False)
    except (ValueError, OverflowError):
        raise UnusableFile(
            f"file {file}, line {line}: {text!r} is no timestamp; write 2026-11-11 08:30:00, with or without a zone"
        ) from None


def _float(file: Path, line: int, column: str, text: str) -> float:
    """NaN for an empty cell."""
    try:
        value = float(text or "nan")
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise UnusableFile(
            f"file {file}, line {line}: {column} {text!r} is no number; leave it empty where there is none"
        )
    return value


def _periods(file: Path) -> list[tuple[datetime, datetime]]:
    periods = []
    for line, row in enumerate(csv_rows(file, ("start", "end")), 2):
        start, _ = _instant(file, line, row["start"].strip())
        end, _ = _instant(file, line, row["end"].strip())
        if end <= start:
            raise UnusableFile(f"file {file}, line {line}: the end is not after the start; correct it")
        periods.append((start, end))
    return periods


class _Calendar:
    """Announced periods."""

    def __init__(self, periods: Sequence[tuple[datetime, datetime]]) -> None:
        self._periods = sorted(periods)

    def covers(self, at: datetime) -> bool:
        return any(start <= at < end for start, end in self._periods)
