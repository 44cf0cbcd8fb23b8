"""`publish`: append events from an NDJSON, JSON, CSV, Parquet or XLSX file to the log."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.appending import remembering
from coupon_ledger.cli.options import LOG, settings_options
from coupon_ledger.cli.progress import progress
from coupon_ledger.ledger.errors import AppendFailed, InvalidEvent, LedgerError, UnusableFile
from coupon_ledger.ledger.plain import plain
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.topics import INPUT_TOPICS
from coupon_ledger.reports.labels import say

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from coupon_ledger.ledger.errors import Problem
    from coupon_ledger.ledger.formats.rows import Item, Refused
    from coupon_ledger.ledger.formats.sniffing import Sniffed
    from coupon_ledger.ledger.log import EventLog, Record

BATCH: Final = 10_000
_SHOWN: Final = 5
"""Maximum number of bad lines shown on standard error; the report has all."""
FORMATS: Final = ("ndjson", "json", "csv", "parquet", "xlsx")


@click.command()
@click.argument("file", type=click.Path(allow_dash=True, path_type=Path))
@click.option(
    "--topic",
    type=click.Choice(INPUT_TOPICS),
    help="Topic of the events in a table, and of events in JSON that name none.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(FORMATS),
    help="Format of FILE. [default: by its first bytes and its ending, else ndjson]",
)
@click.option(
    "--delimiter",
    callback=lambda _ctx, option, value: None if value is None else _delimiter(value, option),
    help="Delimiter of CSV. [default: whichever of , ; | and tab the first line has]",
)
@click.option(
    "--encoding",
    callback=lambda _ctx, option, value: None if value is None else _encoding(value, option),
    help="Encoding of a text file: gb18030, big5, cp1252, … [default: UTF-8, UTF-16 or UTF-32, detected]",
)
@click.option("--sheet", help="Sheet of an Excel workbook that has several.")
@click.option(
    "--zone",
    callback=lambda _ctx, option, value: None if value is None else _zone(value, option),
    help="Time zone of instants that state none, in CSV and XLSX, such as Asia/Shanghai. [default: refuse them]",
)
@click.option("--strict", is_flag=True, help="Append nothing if any line is bad.")
@click.option(
    "--rejects",
    type=click.Path(path_type=Path),
    help="Report of bad lines (NDJSON). [default: FILE.rejected.ndjson]",
)
@settings_options(*LOG)
def publish(
    file: Path,
    topic: str | None,
    file_format: str | None,
    delimiter: str | None,
    encoding: str | None,
    sheet: str | None,
    zone: ZoneInfo | None,
    strict: bool,
    rejects: Path | None,
    settings: Settings,
) -> None:
    """Append events from FILE, or from standard input with "-".

    NDJSON: one event per line, with its `topic`. JSON: an array of such events. CSV, Parquet and XLSX: one event per
    row, for the topic in --topic; columns are named like the event's fields (docs/events.md). In CSV and XLSX an empty
    cell is null, instants are RFC 3339 with a zone (without one: in --zone), and `lines`, `discounts`, `coupon_ids` and
    JSON fields are JSON. In Parquet, instants are timestamps with a zone, lists are lists, and JSON fields are text.
    Text files may be compressed with gzip.

    In XLSX, a number in a text field (ids, codes) is refused if Excel shows other digits than it stores: a cell that
    shows 00019 may store 19. A formula without a stored value is refused too. The whole file is refused if it takes
    more than 4,294,967,296 bytes when unpacked (a million rows of 30 columns take half of that), or if one of its rows
    takes more than 4,000,000.

    A bad line or row is reported with its number and every reason; all others are appended, and the exit code is 3.
    The report (--rejects) holds the text of each bad line, to fix and publish. Publishing the same file again is safe:
    repeated events change no state. An event with different content under an `event_id` that its coupon (order, …)
    already has is appended but never folded: after `consume`, `coupon-ledger status` counts such conflicts, and
    `coupon-ledger violations --code conflicting_duplicate` lists those of coupons. Input from a pipe is appended as
    it arrives.

    \b
    coupon-ledger publish events.ndjson
    coupon-ledger publish events.ndjson --log https://coupons.example.com   (token: COUPON_LEDGER_TOKEN)
    coupon-ledger publish orders.parquet --topic order.events
    coupon-ledger publish orders.xlsx --topic order.events --zone Asia/Shanghai
    coupon-ledger publish orders.csv --topic order.events --encoding gb18030
    tail -n +1 -F orders.csv | coupon-ledger publish - --format csv --topic order.events
    jq -r .text orders.parquet.rejected.ndjson > fixed.ndjson
    echo '{"topic": "coupon.events", "type": "issued", "event_id": "e-1", "source": "shop",
           "occurred_at": "2026-11-11T00:00:00Z", "coupon_id": "c-1", "channel": "app"}' |
      tr -d '\\n' | coupon-ledger publish -
    """
    from coupon_ledger.ledger.formats.sniffing import sniffed
    from coupon_ledger.ledger.opening import open_log, over_http

    appended = 0
    with _opened(file) as source:
        content = sniffed(file, source, file_format, encoding)
        items, total = _Table(file, topic, delimiter, sheet, zone).items(content)
        report = _Rejects(_report_path(file, rejects), _UNIT.get(content.kind, "row"))
        with report:
            with remembering(settings):
                log = open_log(settings.log)
            try:
                if not over_http(settings.log):
                    with remembering(settings):
                        log.partitions()
                if content.empty:
                    click.echo(say("{file}: is empty", file=_named(file)), err=True)
                records = _records(items, report)
                if strict:
                    # Everything is validated before the first append.
                    kept = list(records)
                    records = iter(() if report.count else kept)
                with progress("publishing", total) as bar:
                    for count in _append(log, records, report, strict):
                        appended += count
                        bar.advance(count)
            except LedgerError as error:
                if appended:
                    of_file = "appended {n:count} event{n:s}, then the file failed; publish the same again"
                    of_log = "appended {n:count} event{n:s}, then the log failed; publish the same again"
                    failed = of_file if isinstance(error, UnusableFile) else of_log
                    click.echo(say(failed, n=appended), err=True)
                raise
            finally:
                log.close()
    _conclude(appended, report, strict)


_UNIT: Final = {"ndjson": "line", "csv": "line"}


def _named(file: Path) -> str:
    return "standard input" if str(file) == "-" else f"file {file}"


@dataclass(frozen=True, slots=True)
class _Table:
    """The file to publish, and the options that say how to read it."""

    file: Path
    topic: str | None
    delimiter: str | None
    sheet: str | None
    zone: ZoneInfo | None

    def items(self, content: Sniffed) -> tuple[Iterator[Item], int | None]:
        """The file's items, and the number of its rows (None if unknown). An item is a record, a refused line or row,
        or None if a pipe has no more input yet."""
        what, topic = _named(self.file), self.topic
        if content.kind == "ndjson":
            from coupon_ledger.ledger.formats.ndjson import lines_of, ndjson_items

            return ndjson_items(lines_of(content.source), topic), None
        if content.kind == "json":
            from coupon_ledger.ledger.formats.json_array import json_array_items

            return json_array_items(content.source, topic, what), None
        if topic is None:
            raise UnusableFile(
                f"{what}: {content.kind} names no topic; name it with --topic ({', '.join(INPUT_TOPICS)})"
            )
        if content.kind == "csv":
            from coupon_ledger.ledger.formats.csv_rows import csv_items
            from coupon_ledger.ledger.formats.ndjson import lines_of

            lines = lines_of(content.source)
            return csv_items(lines, topic, what, delimiter=self.delimiter, zone=self.zone), None
        if str(self.file) == "-":
            raise UnusableFile(f"{what}: {content.kind} is read from its end, which a pipe has not; name a file")
        if content.kind == "xlsx":
            from coupon_ledger.ledger.formats.xlsx_rows import XlsxRows

            return XlsxRows(self.file, topic, self.sheet, self.zone).items(), None
        from coupon_ledger.ledger.formats.parquet_rows import ParquetRows

        rows = ParquetRows(self.file, topic)
        return rows.items(), len(rows)


def _delimiter(value: str, option: click.Parameter) -> str:
    delimiter = {"tab": "\t", "\\t": "\t"}.get(value, value)
    if len(delimiter) != 1 or delimiter in '"\r\n' or not delimiter.isascii():
        raise click.BadParameter(f"{value!r} is no delimiter; give one character, or tab", None, option)
    return delimiter


def _encoding(value: str, option: click.Parameter) -> str:
    from coupon_ledger.ledger.formats.sniffing import checked_encoding

    try:
        return checked_encoding(value)
    except LookupError:
        known = "gb18030, big5, shift_jis, cp1252 or utf-16"
        raise click.BadParameter(f"{value!r} is no encoding that is known; try {known}", None, option) from None


def _zone(value: str, option: click.Parameter) -> ZoneInfo:
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(value)
    except (ValueError, OSError, KeyError):
        raise click.BadParameter(f"{value!r} is no time zone; write one such as Asia/Shanghai", None, option) from None


def _conclude(appended: int, report: _Rejects, strict: bool) -> None:
    if not report.count:
        click.echo(say("appended {n:count} event{n:s}", n=appended))
        return
    done = "appended {n:count} event{n:s}, refused {refused:count}; see {report}"
    nothing = "appended nothing (--strict), refused {refused:count}; see {report}"
    counts = {"n": appended, "refused": report.count, "report": str(report.path)}
    click.echo(say(nothing if strict else done, **counts), err=True)
    sys.exit(InvalidEvent.exit_code)


def _opened(file: Path) -> IO[bytes]:
    if str(file) == "-":
        return sys.stdin.buffer
    try:
        return file.open("rb")
    except FileNotFoundError:
        raise UnusableFile(f"file {file}: not there; check the path, or use - for standard input") from None
    except OSError as error:
        raise UnusableFile(f"file {file}: cannot be read ({error.strerror}); check the path") from error


def _report_path(file: Path, rejects: Path | None) -> Path:
    # Standard input or a pipe has no place beside it.
    beside = file.with_name(file.name + ".rejected.ndjson") if file.is_file() else Path("stdin.rejected.ndjson")
    path = rejects or beside
    if path.exists() and file.exists() and path.samefile(file):
        raise UnusableFile(f"report {path}: is the file to be published; name another with --rejects")
    return path


class _Rejects:
    """The report of bad lines or rows. The file `path` is created when the first one is reported. `unit`: whether the
    input is counted in `line` or `row`."""

    def __init__(self, path: Path, unit: str) -> None:
        self.path = path
        self.count = 0
        self._unit = unit
        self._file: IO[str] | None = None

    def __enter__(self) -> _Rejects:
        return self

    def __exit__(self, *_: object) -> None:
        if self.count > _SHOWN:
            click.echo(say("and {n:count} more, in {report}", n=self.count - _SHOWN, report=str(self.path)), err=True)
        if self._file is not None:
            with self._failing_clearly():
                self._file.close()

    def add(self, refused: Refused) -> None:
        number, text, event_id, problems = refused
        found = [{"field": p.field, "rule": p.rule} for p in problems]
        said = f"{self._unit} {number}: " + "; ".join(map(str, problems))
        self._add(number, event_id if isinstance(event_id, str) else None, found, text, said)

    def add_of_log(self, record: Record, problems: Sequence[Problem]) -> None:
        """Report a valid event that the log refused, without its line number, which is no longer known."""
        from coupon_ledger.ledger.codec import decode, event_data

        event = {"topic": record.topic, **event_data(decode(record.value)[1])}
        text = json.dumps(plain(event), ensure_ascii=False)
        said = f"event {event['event_id']}: " + "; ".join(map(str, problems))
        found = [{"field": p.field or None, "rule": p.rule} for p in problems]
        self._add(None, event["event_id"], found, text, said)

    def _add(
        self, number: int | None, event_id: str | None, problems: list[dict[str, Any]], text: str, said: str
    ) -> None:
        """Count a bad line, write it to the file, and print `said` if it is one of the first."""
        self.count += 1
        entry = {self._unit: number, "event_id": event_id, "problems": problems, "text": text}
        self._write(json.dumps(entry, ensure_ascii=False) + "\n")
        if self.count <= _SHOWN:
            click.echo(said, err=True)

    def _write(self, text: str) -> None:
        """Write a line of the report to its file at once: if the process dies, no line is lost."""
        with self._failing_clearly():
            if self._file is None:
                # A lone surrogate, which JSON can hold, becomes its escape, which JSON can read.
                self._file = self.path.open("w", encoding="utf-8", errors="backslashreplace", buffering=1)
            self._file.write(text)

    @contextmanager
    def _failing_clearly(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnusableFile(
                f"report {self.path}: cannot be written ({error.strerror}); name another file with --rejects and"
                " publish again"
            ) from error


def _records(items: Iterable[Item], report: _Rejects) -> Iterator[Record | None]:
    from coupon_ledger.ledger.formats.rows import Refused

    for item in items:
        if isinstance(item, Refused):
            report.add(item)
        else:
            yield item


def _append(log: EventLog, records: Iterable[Record | None], report: _Rejects, strict: bool) -> Iterator[int]:
    """Append the records in batches of `BATCH`. A None among them means that no more input has come yet: the records
    collected so far are then appended at once. After each append, yields the number of events appended.

    `strict`: as in `_appended`."""
    batch: list[Record] = []
    for record in records:
        if record is not None:
            batch.append(record)
        if len(batch) == BATCH or (batch and record is None):
            yield from _appended(log, batch, report, strict)
            batch = []
    if batch:
        yield from _appended(log, batch, report, strict)


def _appended(log: EventLog, batch: list[Record], report: _Rejects, strict: bool) -> Iterator[int]:
    """Append the batch. Unless `strict`, report the events that the log refuses, and append the others.
    Yields the number of events of each append."""
    while batch:
        try:
            yield len(log.append(batch))
            return
        except AppendFailed as error:
            if strict or not error.permanent:
                raise
            for index, problems in sorted(error.permanent.items()):
                report.add_of_log(batch[index], problems)
            yield len(batch) - len(error.failures)
            batch = [batch[index] for index in sorted(error.failures) if index not in error.permanent]
