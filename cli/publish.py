"""`publish`: events from NDJSON to the log."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click

from cli.options import settings_options
from ledger.codec import encode
from ledger.errors import InvalidEvent, LedgerError, Problem
from ledger.events import parse_event
from ledger.log import EventLog, Record, open_log
from ledger.settings import Settings

BATCH = 10_000
MAX_LINE_BYTES = 4_000_000


class InputMissing(LedgerError):
    exit_code = 2


@click.command()
@click.argument("file", type=click.Path(allow_dash=True, path_type=Path))
@click.option("--strict", is_flag=True, help="Append nothing when any line is bad.")
@click.option(
    "--rejects",
    type=click.Path(path_type=Path),
    help="Where bad lines are reported (NDJSON). [default: FILE.rejected.ndjson]",
)
@settings_options("log", "topic-prefix")
def publish(file: Path, strict: bool, rejects: Path | None, settings: Settings) -> None:
    """Append events from FILE (NDJSON: one event a line, with its `topic`), or from standard input with "-".

    A bad line is reported with its number and every reason, and the others are appended; the exit code is 3 then.
    The same file may be published again: repeated events change no state.

    \b
    coupon-ledger publish events.ndjson
    tail -F orders.ndjson | coupon-ledger publish -
    echo '{"topic": "coupon.events", "type": "issued", "event_id": "e-1", "source": "shop",
           "occurred_at": "2026-11-11T00:00:00Z", "coupon_id": "c-1", "channel": "app"}' |
      tr -d '\\n' | coupon-ledger publish -
    """
    log = open_log(settings.log)
    try:
        log.partitions()
        report = _Rejects(rejects or _beside(file))
        with _opened(file) as lines, report:
            records = _records(lines, report)
            appended = _append_all_or_nothing(log, records, report) if strict else _append(log, records)
    finally:
        log.close()
    _conclude(appended, report, strict)


def _conclude(appended: int, report: _Rejects, strict: bool) -> None:
    if not report.count:
        click.echo(f"appended {appended:,} events")
        return
    nothing = " (--strict: nothing was appended)" if strict else ""
    click.echo(f"appended {appended:,} events, refused {report.count:,}{nothing}; see {report.path}", err=True)
    sys.exit(InvalidEvent.exit_code)


def _beside(file: Path) -> Path:
    return Path("stdin.rejected.ndjson") if str(file) == "-" else file.with_name(file.name + ".rejected.ndjson")


def _opened(file: Path) -> IO[bytes]:
    if str(file) == "-":
        return sys.stdin.buffer
    try:
        return file.open("rb")
    except FileNotFoundError:
        raise InputMissing(f"file {file}: not there; check the path, or use - for standard input") from None
    except OSError as error:
        raise InputMissing(f"file {file}: cannot be read ({error.strerror}); check the path") from error


class _Rejects:
    """The report of bad lines; its file is made with the first of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file: IO[str] | None = None

    def __enter__(self) -> _Rejects:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, line: int, text: bytes, event_id: Any, problems: tuple[Problem, ...]) -> None:
        if self._file is None:
            self._file = self.path.open("w", encoding="utf-8")
        self.count += 1
        entry = {
            "line": line,
            "event_id": event_id,
            "problems": [{"field": p.field, "rule": p.rule} for p in problems],
            "text": text.decode("utf-8", "replace").rstrip("\n"),
        }
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        if self.count <= 5:
            click.echo(f"line {line}: " + "; ".join(map(str, problems)), err=True)


def _records(lines: IO[bytes], report: _Rejects) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        data: Any = None
        try:
            data = _json_object(line)
            topic = data.pop("topic", None)
            if not isinstance(topic, str):
                raise InvalidEvent([Problem("topic", "is needed")])
            event = parse_event(topic, data)
            yield Record(event.topic, event.key.encode(), encode(event))
        except InvalidEvent as error:
            event_id = data.get("event_id") if isinstance(data, dict) else None
            report.add(number, line, event_id, error.problems)


def _json_object(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise InvalidEvent([Problem("", f"the line is longer than {MAX_LINE_BYTES:,} bytes")])
    try:
        data = json.loads(line)
    except UnicodeDecodeError as error:
        raise InvalidEvent([Problem("", f"no UTF-8 ({error.reason} at byte {error.start + 1})")]) from error
    except json.JSONDecodeError as error:
        raise InvalidEvent([Problem("", f"no JSON ({error.msg} at column {error.colno})")]) from error
    except (RecursionError, ValueError) as error:
        raise InvalidEvent([Problem("", f"no JSON that can be read ({error})")]) from error
    if not isinstance(data, dict):
        raise InvalidEvent([Problem("", "the line is no JSON object")])
    return data


def _append(log: EventLog, records: Iterator[Record]) -> int:
    appended, batch = 0, []
    for record in records:
        batch.append(record)
        if len(batch) == BATCH:
            appended += len(log.append(batch))
            batch = []
    return appended + (len(log.append(batch)) if batch else 0)


def _append_all_or_nothing(log: EventLog, records: Iterator[Record], report: _Rejects) -> int:
    """Everything is validated before the first append."""
    kept = list(records)
    return 0 if report.count else _append(log, iter(kept))
