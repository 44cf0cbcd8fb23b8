"""`publish`: events from NDJSON to the log."""

from __future__ import annotations

import json
import select
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import click

from cli.options import settings_options
from ledger.codec import encode
from ledger.errors import InvalidEvent, LedgerError, LogError, Problem
from ledger.events import parse_with_topic
from ledger.log import EventLog, Record, open_log
from ledger.settings import Settings

BATCH: Final = 10_000
MAX_LINE_BYTES: Final = 4_000_000
_PIECE_BYTES: Final = 1 << 20
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class UnusableFile(LedgerError):
    exit_code = 2


@click.command()
@click.argument("file", type=click.Path(allow_dash=True, path_type=Path))
@click.option("--strict", is_flag=True, help="Append nothing when any line is bad.")
@click.option(
    "--rejects",
    type=click.Path(path_type=Path),
    help="Where bad lines are reported (NDJSON). [default: FILE.rejected.ndjson]",
)
@settings_options("log", "topic-prefix", "schema-registry")
def publish(file: Path, strict: bool, rejects: Path | None, settings: Settings) -> None:
    """Append events from FILE (NDJSON: one event a line, with its `topic`), or from standard input with "-".

    A bad line is reported with its number and every reason, and the others are appended; the exit code is 3 then.
    The same file may be published again: repeated events change no state. What comes through a pipe is appended as it
    comes.

    \b
    coupon-ledger publish events.ndjson
    tail -F orders.ndjson | coupon-ledger publish -
    echo '{"topic": "coupon.events", "type": "issued", "event_id": "e-1", "source": "shop",
           "occurred_at": "2026-11-11T00:00:00Z", "coupon_id": "c-1", "channel": "app"}' |
      tr -d '\\n' | coupon-ledger publish -
    """
    appended = 0
    with _opened(file) as source, _Rejects(_report_path(file, rejects)) as report:
        log = open_log(settings.log)
        try:
            log.partitions()
            records = _records(_lines(source), report)
            if strict:
                # Everything is validated before the first append.
                kept = list(records)
                records = iter(() if report.count else kept)
            for count in _append(log, records):
                appended += count
        except LogError:
            if appended:
                click.echo(f"appended {appended:,} events, then the log failed; publish the same again", err=True)
            raise
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
    # Beside what is no file of its own (standard input, a pipe) there is no place.
    beside = file.with_name(file.name + ".rejected.ndjson") if file.is_file() else Path("stdin.rejected.ndjson")
    path = rejects or beside
    if path.exists() and file.exists() and path.samefile(file):
        raise UnusableFile(f"report {path}: is the file to be published; name another with --rejects")
    return path


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
            with self._failing_clearly():
                self._file.close()

    def add(self, line: int, text: bytes, event_id: Any, problems: tuple[Problem, ...]) -> None:
        self.count += 1
        entry = {
            "line": line,
            "event_id": event_id if isinstance(event_id, str) else None,
            "problems": [{"field": p.field, "rule": p.rule} for p in problems],
            "text": text.decode("utf-8", "backslashreplace"),
        }
        self._write(json.dumps(entry, ensure_ascii=False) + "\n")
        if self.count <= 5:
            click.echo(f"line {line}: " + "; ".join(map(str, problems)), err=True)

    def _write(self, text: str) -> None:
        """Each line goes to the file at once, so that no reason is lost with the process."""
        with self._failing_clearly():
            if self._file is None:
                # A lone surrogate (JSON can hold one) becomes its escape, which JSON knows.
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


def _lines(source: IO[bytes]) -> Iterator[bytes | None]:
    """Lines without their end, of an over-long one the start only; None where nothing more has come yet."""
    rest = b""
    while piece := source.read1(_PIECE_BYTES):  # type: ignore[attr-defined]
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
        rest = rest[: MAX_LINE_BYTES + 1]
        if not _more_waits(source):
            yield None
    if rest:
        yield rest


def _more_waits(source: IO[bytes]) -> bool:
    try:
        return bool(select.select([source.fileno()], [], [], 0)[0])
    except (OSError, ValueError):  # nothing that could be waited for
        return True


def _records(lines: Iterable[bytes | None], report: _Rejects) -> Iterator[Record | None]:
    number = 0
    for line in lines:
        if line is None:
            yield None
            continue
        number += 1
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line or line.isspace():
            continue
        data: dict[str, Any] = {}
        try:
            data = _json_object(line)
            event = parse_with_topic(data)
            yield Record(event.topic, event.key.encode(), encode(event))
        except InvalidEvent as error:
            report.add(number, line, data.get("event_id"), error.problems)


def _json_object(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise _bad_line(f"longer than {MAX_LINE_BYTES:,} bytes")
    try:
        data = json.loads(line.decode(), parse_constant=_no_number, object_pairs_hook=_each_name_once)
    except UnicodeDecodeError as error:
        raise _bad_line(f"not UTF-8 ({error.reason} at byte {error.start + 1})") from error
    except json.JSONDecodeError as error:
        raise _bad_line(f"not JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise _bad_line("JSON that is nested too deeply") from error
    except ValueError as error:  # Python reads no integer of more than 4,300 digits
        raise _bad_line("JSON with a number of too many digits") from error
    if not isinstance(data, dict):
        raise _bad_line("not a JSON object")
    return data


def _bad_line(problem: str) -> InvalidEvent:
    return InvalidEvent([Problem("", problem)])


def _no_number(name: str) -> None:
    raise _bad_line(f"not JSON ({name} is no JSON number)")


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Which of two values was meant, nobody can know."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidEvent([Problem(twice, "stands more than once in one object")])
    return found


def _append(log: EventLog, records: Iterable[Record | None]) -> Iterator[int]:
    """Append in batches, and what there is where nothing more has come yet; yields how many each time."""
    batch: list[Record] = []
    for record in records:
        if record is not None:
            batch.append(record)
        if len(batch) == BATCH or (batch and record is None):
            yield len(log.append(batch))
            batch = []
    if batch:
        yield len(log.append(batch))
