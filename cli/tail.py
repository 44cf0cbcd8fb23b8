"""`tail`: show events as they arrive, read from the log itself. This changes no consumer's position."""

from __future__ import annotations

import json
import select
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.logs import logging_as
from coupon_ledger.cli.options import LOG, instant_option, output_option, settings_options
from coupon_ledger.cli.output import cell, print_rows
from coupon_ledger.cli.tables import name_zone
from coupon_ledger.cli.view import view
from coupon_ledger.ledger.errors import UndecodableRecord
from coupon_ledger.ledger.labels import section
from coupon_ledger.ledger.plain import plain
from coupon_ledger.ledger.rules import NEEDS
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.topics import INPUT_TOPICS
from coupon_ledger.reports.labels import label, word
from coupon_ledger.reports.text import Row, text_width

if TYPE_CHECKING:
    import polars as pl

    from coupon_ledger.ledger.log import Chunk, LogReader, TopicPartition

LAST: Final = 10
_BATCH: Final = 50_000
_WINDOW: Final = 1_000
_WAIT_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The filters of the command. Of a record that cannot be decoded, only topic and key are known: it is not shown if
    there is a filter on types or fields."""

    topics: tuple[str, ...]
    key: str | None
    types: tuple[str, ...]
    fields: dict[str, str]

    @property
    def any_event(self) -> bool:
        return not self.types and not self.fields


@click.command()
@click.option("--topic", "topics", multiple=True, type=click.Choice(INPUT_TOPICS), help="Only this topic (repeatable).")
@click.option("--key", help="Only this record key: a coupon, order, campaign or user.")
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="TYPE",
    type=click.Choice([kind for kinds in NEEDS.values() for kind in kinds]),
    help="Only this type (repeatable).",
)
@click.option("--campaign", "campaign_id", help="Only this campaign.")
@click.option("--user", "user_id", help="Only this user.")
@click.option("-n", "--last", type=click.IntRange(min=0), help=f"Start with the last N that match. [default: {LAST}]")
@instant_option("--since", "Start with the first event recorded since then.")
@click.option("--from-start", is_flag=True, help="Start with the first event in the log.")
@click.option("--follow/--no-follow", default=True, help="Keep showing new events until Ctrl-C. [default: --follow]")
@settings_options(*LOG)
@output_option
def tail(
    topics: tuple[str, ...],
    key: str | None,
    types: tuple[str, ...],
    campaign_id: str | None,
    user_id: str | None,
    last: int | None,
    since: datetime | None,
    from_start: bool,
    follow: bool,
    settings: Settings,
    output: str,
) -> None:
    """Show events from the log as they arrive. The events of each read from the log are sorted by recording time.

    Invalid records are shown with the reason; with --type, --campaign or --user, only those that can be decoded.

    \b
    coupon-ledger tail
    coupon-ledger tail --type used --campaign double-11 --since 15m
    coupon-ledger tail --key c-1 --from-start --no-follow --output ndjson
    """
    if (last is not None) + (since is not None) + from_start > 1:
        raise click.UsageError("--last, --since and --from-start exclude each other", click.get_current_context())
    from coupon_ledger.ledger.opening import open_log
    from coupon_ledger.ledger.patient_log import Patience, PatientLog

    fields = {"campaign_id": campaign_id, "user_id": user_id}
    wanted = _Wanted(topics or INPUT_TOPICS, key, types, {k: v for k, v in fields.items() if v is not None})
    log = open_log(settings.log)
    # With --follow, an outage of the log is waited out, until Ctrl-C.
    source = PatientLog(log, Patience(threading.Event())) if follow else log
    try:
        rows = _rows(source, wanted, LAST if last is None else last, since, from_start, follow)
        with logging_as("text"):
            if output == "table":
                _print_lines(rows)
            else:
                print_rows(rows, output)
    except KeyboardInterrupt:  # the usual way to end `tail`
        pass
    finally:
        log.close()


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────


def _rows(
    log: LogReader, wanted: _Wanted, last: int, since: datetime | None, from_start: bool, follow: bool
) -> Iterator[Row]:
    partitions = log.partitions(wanted.topics)
    ends = log.end_positions(partitions)
    if from_start:
        positions = log.earliest_positions(partitions)
    elif since is not None:
        positions = _positions_since(log, ends, since)
    else:
        rows, positions = _last_rows(log, wanted, last, ends)
        yield from rows
    try:
        while follow or _behind(positions, ends):
            chunks = log.read(positions, _BATCH, 0.0)
            if not chunks:
                sys.stdout.flush()
                if _reader_is_gone():
                    return
                chunks = log.read(positions, _BATCH, _WAIT_S)
            _advance(positions, chunks)
            yield from _matching(chunks, wanted)
    except KeyboardInterrupt:  # end the rows here, so that the JSON array is closed
        return


def _behind(positions: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> bool:
    return any(offset < ends[tp] for tp, offset in positions.items())


def _advance(positions: dict[TopicPartition, int], chunks: Iterable[Chunk]) -> None:
    from coupon_ledger.ledger.log import TopicPartition

    positions.update({TopicPartition(c.topic, c.partition): c.next_offset for c in chunks})


def _reader_is_gone() -> bool:
    """Whether standard output is a pipe that its reader has closed. A write would notice that, but nothing is written
    while no events come."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):  # not a stream that can be polled
        return False


def _positions_since(log: LogReader, ends: Mapping[TopicPartition, int], since: datetime) -> dict[TopicPartition, int]:
    """By partition, the offset from which to read all records recorded at or after `since`: an offset of `ends` if
    there are none. The search is binary, since `recorded_at` never decreases within a partition."""
    from coupon_ledger.ledger.codec import micros

    positions = {}
    for tp, low in log.earliest_positions(list(ends)).items():
        high = ends[tp]
        while low < high:
            middle = (low + high) // 2
            first = _first_record(log, tp, middle, high)
            if first is None or first[1] >= micros(since):
                high = middle
            else:
                low = first[0] + 1
        positions[tp] = low
    return positions


def _first_record(log: LogReader, tp: TopicPartition, offset: int, end: int) -> tuple[int, int] | None:
    """The offset and `recorded_at` (in microseconds) of the first record with an offset from `offset` to `end`
    (exclusive). None if there is no such record."""
    positions = {tp: offset}
    while positions[tp] < end:
        for chunk in log.read(positions, 1, _WAIT_S):
            if len(chunk):
                return int(chunk.offsets[0]), int(chunk.recorded_at[0])
            positions[tp] = chunk.next_offset
    return None


def _last_rows(
    log: LogReader, wanted: _Wanted, n: int, ends: Mapping[TopicPartition, int]
) -> tuple[list[Row], dict[TopicPartition, int]]:
    """The last `n` matching rows before `ends`, and the positions from which to continue reading. They are searched in
    a window at the end of each partition, which grows until it has all of them."""
    earliest = log.earliest_positions(list(ends))
    span = max(n, _WINDOW)
    while True:
        start = {tp: max(earliest[tp], end - span) for tp, end in ends.items()}
        rows, positions, begins = _window(log, wanted, n, start, ends)
        # Another partition may hold, before its window, rows that were recorded later than some of these.
        sure_from = max((at for tp, at in begins.items() if start[tp] > earliest[tp]), default=0)
        sure = sum(_micros(row) >= sure_from for row in rows)
        if sure >= n or start == earliest:
            return rows, positions
        span *= 8


def _window(
    log: LogReader, wanted: _Wanted, n: int, start: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> tuple[list[Row], dict[TopicPartition, int], dict[TopicPartition, int]]:
    """Three things: the last `n` matching rows of the records from `start` to `ends`; the positions from which to
    continue reading; by partition, the `recorded_at` (in microseconds) of the first of these records."""
    from coupon_ledger.ledger.log import TopicPartition

    rows: list[Row] = []
    positions = dict(start)
    begins: dict[TopicPartition, int] = {}
    while n and _behind(positions, ends):
        chunks = log.read(positions, _BATCH, _WAIT_S)
        for chunk in chunks:
            if len(chunk):
                begins.setdefault(TopicPartition(chunk.topic, chunk.partition), int(chunk.recorded_at[0]))
        _advance(positions, chunks)
        rows = sorted([*rows, *_matching(chunks, wanted)], key=_order)[-n:]
    return rows, positions if n else dict(ends), begins


def _micros(row: Row) -> int:
    from coupon_ledger.ledger.codec import micros

    return micros(row["recorded_at"])


def _order(row: Row) -> tuple[Any, ...]:
    return row["recorded_at"], row["topic"], row["partition"], row["offset"]


# ── From records to rows ─────────────────────────────────────────────────────────────────────────────────────


def _matching(chunks: Sequence[Chunk], wanted: _Wanted) -> list[Row]:
    """Rows for the records of the chunks that match the filters, in the order in which the records were recorded."""
    return sorted((row for chunk in chunks for row in _of_chunk(chunk, wanted)), key=_order)


def _of_chunk(chunk: Chunk, wanted: _Wanted) -> Iterator[Row]:
    from coupon_ledger.ledger.codec import SCHEMA_NAME
    from coupon_ledger.ledger.columns import decode_columns
    from coupon_ledger.ledger.validity import wrong_topic

    at = [i for i, key in enumerate(chunk.keys) if wanted.key is None or key == wanted.key.encode()]
    decoded, undecodable = decode_columns([chunk.values[i] for i in at])
    if wanted.any_event:
        for bad in undecodable:
            yield _row(chunk, at[bad.row], None, bad.reason, bad.detail)
    for part in decoded:
        if part.name == SCHEMA_NAME[chunk.topic]:
            for i, event, reason, detail in _events(chunk.topic, part.frame, wanted):
                yield _row(chunk, at[part.rows[i]], event, reason, detail)
        elif wanted.any_event:
            for i in part.rows:
                yield _row(chunk, at[i], None, *wrong_topic(part.name, chunk.topic))


def _events(topic: str, frame: pl.DataFrame, wanted: _Wanted) -> Iterator[tuple[int, Row, str | None, str | None]]:
    """Yield a tuple for each event of the frame that matches the filters: its row number in the frame, its data, and
    the reason and the detail if the event is invalid (otherwise None)."""
    import polars as pl

    from coupon_ledger.ledger.codec import event_data
    from coupon_ledger.ledger.validity import split_valid

    if any(name not in frame.columns for name in wanted.fields):
        return
    frame = frame.with_row_index("at").filter(
        *(pl.col(name) == value for name, value in wanted.fields.items()),
        *([pl.col("type").is_in(wanted.types)] if wanted.types else []),
    )
    rows = frame.drop("at")
    _, invalid = split_valid(topic, rows)
    problems = dict(invalid)
    for i, (at, row) in enumerate(zip(frame["at"], rows.iter_rows(named=True), strict=True)):
        try:
            event = event_data(row)
        except UndecodableRecord:  # a field is not valid JSON: show its text
            event = {name: value for name, value in row.items() if value is not None}
        problem = problems.get(i)
        yield at, event, problem and "invalid_event", problem


def _row(chunk: Chunk, i: int, event: Row | None, reason: str | None, detail: str | None) -> Row:
    from datetime import timedelta

    from coupon_ledger.ledger.codec import EPOCH

    return {
        "recorded_at": EPOCH + timedelta(microseconds=int(chunk.recorded_at[i])),
        "topic": chunk.topic,
        "partition": chunk.partition,
        "offset": int(chunk.offsets[i]),
        "key": chunk.keys[i].decode("utf-8", "backslashreplace"),
        "event": event,
        "reason": reason,
        "detail": detail,
        "value": chunk.values[i].hex() if event is None else None,
    }


# ── For people ───────────────────────────────────────────────────────────────────────────────────────────────

_INSTANT_WIDTH: Final = len("2026-11-11 00:00:00.000000")


@cache
def _event_width() -> int:
    """The width, in terminal columns, of the widest name of an event type."""
    return max(text_width(name) for label in section("codes.events").values() for name in (label.en, label.zh))


def _print_lines(rows: Iterable[Row]) -> None:
    """Print a line per event, under headings. The column of keys is as wide as the longest key printed so far."""
    key_width = 12
    for number, row in enumerate(rows):
        if not number:
            name_zone()
            _print_line([label(name) for name in ("recorded_at", "occurred_at", "event", "key", "data")], key_width)
        cells = [cell(text) for text in _for_people(row)]
        key_width = max(key_width, text_width(cells[3]))
        _print_line(cells, key_width)


def _print_line(cells: Sequence[str], key_width: int) -> None:
    *aligned, data = cells
    widths = (_INSTANT_WIDTH, _INSTANT_WIDTH, _event_width(), key_width)
    padded = [text + " " * (width - text_width(text)) for text, width in zip(aligned, widths, strict=True)]
    click.echo("  ".join([*padded, data]))


def _for_people(row: Row) -> tuple[str | None, ...]:
    event = dict(row["event"] or {})
    kind, occurred_at = event.pop("type", None), event.pop("occurred_at", None)
    shown = [f"{name}={_as_text(value)}" for name, value in event.items() if value != row["key"]]
    if row["reason"]:
        place = f"{row['topic']} {row['partition']} {row['offset']}"
        shown.insert(0, f"NOT VALID ({row['reason']}, {place}): {row['detail']};")
    return (
        view().instant(row["recorded_at"]),
        view().instant(occurred_at) if occurred_at else None,
        word(kind) if kind else "?",
        row["key"],
        " ".join(shown),
    )


def _as_text(value: object) -> str:
    shown = plain(value)
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
