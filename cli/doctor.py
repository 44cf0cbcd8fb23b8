"""`doctor`: find what is wrong with machine, log and database, and say how to fix it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.options import LOG, output_option, settings_options
from coupon_ledger.cli.output import print_rows
from coupon_ledger.cli.progress import progress
from coupon_ledger.cli.status import read_log_of, summary_of
from coupon_ledger.cli.tables import echo_wrapped
from coupon_ledger.ledger.amounts import counted
from coupon_ledger.ledger.errors import LedgerError, StoreOwned
from coupon_ledger.ledger.extras import absent, install
from coupon_ledger.ledger.findings import Finding
from coupon_ledger.ledger.plain import instant
from coupon_ledger.ledger.settings import Settings

if TYPE_CHECKING:
    from coupon_ledger.ledger.log import Backend
    from coupon_ledger.projections.identity import ReadLog

_DUCKDB: Final = "1.5.6"
_ROOM: Final = 1 << 30
_SKEW_S: Final = 5.0
_READ_S: Final = 5.0
_MARKS: Final = {"ok": "✓", "warning": "!", "error": "✗"}


@click.command()
@click.option("--archive", type=click.Path(path_type=Path), help="Also examine this archive's folder.")
@settings_options(*LOG, "database", "partitions", "replication")
@output_option
def doctor(archive: Path | None, settings: Settings, output: str) -> None:
    """Examine this machine, the log and the database: what is wrong, and how to fix it.

    The command checks the versions of packages and which optional ones are missing; the database, its owner, the
    rights of files and the free disk space; the log's file, or its topics and their retention; clocks, positions, lag,
    outbox and dead letters. It can run beside a consumer. The exit code is 1 if it finds an error.

    \b
    coupon-ledger doctor
    coupon-ledger doctor --log kafka://localhost:9092 --replication 3
    coupon-ledger doctor --archive /backup/ledger --output json
    """
    with progress("examining", None, "findings") as bar:
        results = []
        for finding in findings(settings, archive):
            results.append(finding)
            bar.advance(1)
    rows = [{name: getattr(f, name) for name in ("level", "object", "finding", "remedy")} for f in results]
    if output == "table":
        for finding in results:
            echo_wrapped(f"{_MARKS[finding.level]} {finding.object}: {finding.finding}", indent=2)
            if finding.remedy:
                echo_wrapped(f"    → {finding.remedy}", indent=6)
        errors, warnings = (sum(f.level == level for f in results) for level in ("error", "warning"))
        click.echo(
            ", ".join([counted(errors, "error"), counted(warnings, "warning"), counted(len(results), "finding")])
        )
    else:
        print_rows(rows, output)
    if any(f.level == "error" for f in results):
        sys.exit(1)


def findings(settings: Settings, archive: Path | None = None) -> Iterator[Finding]:
    yield from _versions(settings)
    yield from _rights(settings.database)
    if settings.private_files:
        yield from _open_to_others(settings, archive)
    summary = None
    try:
        summary = summary_of(settings.database)
    except LedgerError as error:
        yield _of(error)
    else:
        yield Finding("ok", f"database {settings.database}", counted(summary["commits"], "commit"))
        yield from _waiting(summary)
        yield from _odd(settings)
    yield from _owner(settings.database)
    yield from _rooms(settings, archive)
    try:
        known = None if summary is None else read_log_of(settings.database)
        yield from _log(settings, summary, known)
    except LedgerError as error:
        yield _of(error)
    if archive is not None:
        yield from _archive(archive)


def _of(error: LedgerError) -> Finding:
    """The error as a finding: its sentence, split into object, problem and remedy."""
    said, _, remedy = str(error).partition("; ")
    place, _, problem = said.partition(": ")
    return Finding("error", place, problem or said, remedy)


# ── The machine ──────────────────────────────────────────────────────────────────────────────────────────────


def _versions(settings: Settings) -> Iterator[Finding]:
    import duckdb

    needed = ("coupon-ledger", "polars", "pyarrow", "kafka-python")
    said = ", ".join(f"{name} {version(name)}" for name in needed)
    yield Finding("ok", "versions", f"Python {platform.python_version()}, DuckDB {duckdb.__version__}, {said}")
    if not duckdb.__version__.startswith(_DUCKDB):
        remedy = f"pip install 'duckdb=={_DUCKDB}'"
        yield Finding("error", "DuckDB", f"version {duckdb.__version__}, and {_DUCKDB} is what is tested", remedy)
    if importlib.util.find_spec("crc32c") is None:
        yield Finding("warning", "crc32c", "is missing: reading Kafka takes twice as long", "pip install crc32c")
    yield from _codecs(settings)
    if missing := absent("service"):
        what = f"{', '.join(missing)} missing: no questions beside a consumer"
        yield Finding("warning", "extra [service]", what, install("service"))
    if settings.log.schema_registry and (missing := absent("registry")):
        what = f"{', '.join(missing)} missing: a schema registry cannot be asked"
        yield Finding("error", "extra [registry]", what, install("registry"))


def _codecs(settings: Settings) -> Iterator[Finding]:
    if settings.log.url.startswith("kafka://"):
        from coupon_ledger.ledger.kafka_reader import missing_codecs

        for codec, package in missing_codecs().items():
            what = f"package {package} is missing: a producer that compresses with {codec} stops the consumer"
            yield Finding("error", f"compression {codec}", what, f"pip install {package}")


def _rights(database: Path) -> Iterator[Finding]:
    from coupon_ledger.api.contact import token_file

    folder = database.absolute().parent
    if not os.access(folder, os.W_OK):
        yield Finding("error", f"folder {folder}", "this user may not write in it", f"chmod u+w {folder}")
    for file in (database, database.with_name(database.name + ".wal")):
        if file.exists() and not os.access(file, os.W_OK):
            yield Finding("error", f"file {file}", "this user may not write it", f"chmod u+w {file}")
    token = token_file(database)
    if token.exists() and token.stat().st_mode & 0o077:
        yield Finding("error", f"token file {token}", "others may read it, and so ask the owner", f"chmod 600 {token}")


def _open_to_others(settings: Settings, archive: Path | None) -> Iterator[Finding]:
    """A warning for each file or folder that contains people's data and is open to other users of the machine. Files
    directly in such a folder get no warning of their own."""
    files = [settings.database, settings.database.with_name(settings.database.name + ".wal")]
    if settings.log.url.startswith("sqlite:///"):
        log = Path(settings.log.url.removeprefix("sqlite:///"))
        files += [log, *(log.with_name(log.name + ending) for ending in ("-wal", "-shm"))]
    if archive is not None:
        files += [archive, *(archive.rglob("*") if archive.stat().st_mode & 0o077 else ())] if archive.is_dir() else []
    opened = [file for file in files if file.exists() and file.stat().st_mode & 0o077]
    for file in (file for file in opened if file.parent not in opened):
        mode, what = ("u=rwX,go=", "folder") if file.is_dir() else ("600", "file")
        remedy = f"chmod {'-R ' if file.is_dir() else ''}{mode} {file}; or set private-files = false"
        yield Finding("warning", f"{what} {file}", "others may read it, and it holds people's data", remedy)


_LEAST: Final = 256 << 20
"""Bytes that must be free for a commit and a checkpoint if the write-ahead log is small."""


def _least(database: Path) -> int:
    """How many bytes must be free to commit and to write a checkpoint: `_LEAST`, or twice the size of the write-ahead
    log if that is more. A checkpoint writes the log's content into the database file, and meanwhile keeps both."""
    ahead = database.with_name(database.name + ".wal")
    return max(_LEAST, 2 * ahead.stat().st_size if ahead.is_file() else 0)


def _rooms(settings: Settings, archive: Path | None) -> Iterator[Finding]:
    """Whether the disks of the database, the embedded log and the archive have enough free space.

    Error: too little to commit and to write a checkpoint. Warning: less than `_ROOM`, or too little for a second copy
    of the file, as a backup, a rebuild or a restore makes. The size of the archive, a folder, is not considered.
    """
    files = [("database", settings.database.absolute())]
    if settings.log.url.startswith("sqlite:///"):
        files.append(("log", Path(settings.log.url.removeprefix("sqlite:///")).absolute()))
    if archive is not None:
        files.append(("archive", archive.absolute()))
    for what, file in files:
        if not file.parent.is_dir():
            continue
        free = shutil.disk_usage(file.parent).free
        size = file.stat().st_size if file.is_file() else 0
        free_space = f"{free / 1e9:,.1f} GB free"
        if free < (least := _least(settings.database.absolute())):
            remedy = f"free space on the disk of {file.parent}; at least {max(_ROOM, size) / 1e9:,.1f} GB"
            what_is = f"{free_space}, {least / 1e9:,.1f} GB are needed to commit and to write a checkpoint"
            yield Finding("error", f"disk of the {what}", what_is, remedy)
        elif free < max(_ROOM, size):
            remedy = f"free space on the disk of {file.parent}; at least {max(_ROOM, size) / 1e9:,.1f} GB"
            yield Finding("warning", f"disk of the {what}", f"{free_space}, too little for as much again", remedy)
        else:
            yield Finding("ok", f"disk of the {what}", free_space)


# ── The database ─────────────────────────────────────────────────────────────────────────────────────────────


def _owner(database: Path) -> Iterator[Finding]:
    from coupon_ledger.projections.ownership import held, owner, owner_file

    said = owner(database)
    try:
        with held(database):
            owned = False
    except (StoreOwned, OSError):
        owned = True
    if owned and said:
        yield Finding("ok", "owner", f"process {said.get('pid')} ({said.get('command')!r}, since {said.get('since')})")
    elif said:
        file = owner_file(database)
        what = f"was left by process {said.get('pid')}, which is gone (killed?); the next consumer takes over"
        yield Finding("warning", f"owner file {file}", what, "coupon-ledger consume")
    else:
        yield Finding("ok", "owner", "nobody owns the database")


def _waiting(summary: dict[str, Any]) -> Iterator[Finding]:
    if summary["outbox"]:
        what = f"{counted(summary['outbox'], 'record')} to be appended to the log"
        yield Finding("warning", "outbox", what, "coupon-ledger consume")
    if summary["dead_letters_open"]:
        what = f"{counted(summary['dead_letters_open'], 'record')} not folded"
        yield Finding("warning", "dead letters", what, "coupon-ledger dead-letters list")
    clock = summary["data_clock"]
    if clock is not None and _ahead_s(clock) > _SKEW_S:
        what = f"is {_ahead_s(clock):,.0f} s ahead of this machine's"
        yield Finding("error", "data's clock", what, "set this machine's clock (chronyc makestep), or the broker's")


def _odd(settings: Settings) -> Iterator[Finding]:
    from coupon_ledger.api.client import asking
    from coupon_ledger.ledger.topics import KEY_FIELD

    with asking(settings.database) as source:
        rows = [row for frame in source.ask("oddities").frames for row in frame.iter_rows(named=True)]
    for row in rows:
        topic, events = row["topic"], max(1, row["events"])
        if row["other_keys"]:
            what = (
                f"{row['other_keys']:,} of {events:,} events ({row['other_keys'] / events:.1%}) have another record key"
                f" than their {KEY_FIELD[topic]}: others of that id may lie in other partitions, in no order"
            )
            yield Finding("warning", f"keys of {topic}", what, f"let its producers use {KEY_FIELD[topic]} as the key")
        if row["skewed"]:
            days = settings.instant_skew.days
            share = f"{row['skewed']:,} of {events:,} events ({row['skewed'] / events:.1%})"
            what = f"{share} happened more than {days} days before or after they were recorded"
            if row["in_1970"]:
                what += f", {row['in_1970']:,} of them in 1970: a producer writes milliseconds or seconds, not micros"
                remedy = "let the producer write microseconds; `skewed-events = dead-letter` keeps such events out"
                yield Finding("warning", f"instants of {topic}", what, remedy)
            else:
                what += ": imported history, or a producer with a wrong clock or unit"
                yield Finding("ok", f"instants of {topic}", what)


def _ahead_s(clock: datetime) -> float:
    return clock.replace(tzinfo=UTC).timestamp() - time.time()


# ── The log ──────────────────────────────────────────────────────────────────────────────────────────────────


def _log(settings: Settings, summary: dict[str, Any] | None, known: ReadLog | None) -> Iterator[Finding]:
    from dataclasses import replace

    from coupon_ledger.consumers.log_identity import open_log_of, refuse
    from coupon_ledger.ledger.opening import open_backend
    from coupon_ledger.ledger.topics import INPUT_TOPICS

    if known is not None:
        open_log_of(replace(settings.log, schema_registry=""), known, settings.database).close()
    log = open_backend(settings.log)
    try:
        yield from log.examine()
        if known is not None:
            refuse(known, log, settings.database)
        log.partitions()  # all of them are needed
        partitions = log.partitions(INPUT_TOPICS)
        earliest, ends = log.earliest_positions(partitions), log.end_positions(partitions)
        yield from _clock(log, earliest, ends)
        yield from _transactions(log, ends)
    finally:
        log.close()
    if summary is not None:
        yield from _positions(summary, earliest, ends)


def _transactions(log: Backend, ends: dict[Any, int]) -> Iterator[Finding]:
    """A warning for each partition with acknowledged records that cannot be read yet, since an earlier transaction of a
    producer is still open. `ends`: per partition, the offset up to which records can be read."""
    high = log.high_watermarks(list(ends))
    behind = {tp: high[tp] - end for tp, end in sorted(ends.items()) if high[tp] > end}
    begun = log.open_transactions(list(behind))
    for tp, count in behind.items():
        what = f"{count:,} acknowledged records wait behind an open transaction from offset {ends[tp]} on"
        if open_ := begun.get(tp):
            written = instant(datetime.fromtimestamp(open_[0].written_at_ms / 1000, UTC))
            what += f", of producer {open_[0].producer_id}, which last wrote at {written}"
        remedy = (
            "wait until its producer commits or the broker aborts it (transaction.timeout.ms); where it hangs longer:"
            f" kafka-transactions.sh abort --topic {tp.topic} --partition {tp.partition} --start-offset {ends[tp]}"
        )
        yield Finding("warning", f"partition {tp.partition} of {tp.topic}", what, remedy)


def _clock(log: Backend, earliest: dict[Any, int], ends: dict[Any, int]) -> Iterator[Finding]:
    last = {p: end - 1 for p, end in ends.items() if end > earliest[p]}
    chunks = log.read(last, len(last), _READ_S) if last else []
    newest = max((int(c.recorded_at[-1]) / 1e6 for c in chunks if len(c)), default=None)
    if newest is not None and newest - time.time() > _SKEW_S:
        what = f"newest record is {newest - time.time():,.0f} s ahead of this machine's clock"
        yield Finding("error", "clock", what, "set this machine's clock (chronyc makestep), or the log's machine's")
    elif newest is not None:
        yield Finding("ok", "clock", f"newest record {max(0.0, time.time() - newest):,.0f} s ago")


def _positions(summary: dict[str, Any], earliest: dict[Any, int], ends: dict[Any, int]) -> Iterator[Finding]:
    from coupon_ledger.ledger.log import TopicPartition
    from coupon_ledger.projections.checkpoints import Account, outside

    accounts = {TopicPartition(p["topic"], p["partition"]): Account(p["next_offset"]) for p in summary["partitions"]}
    wrong = outside(accounts, earliest, ends)
    for position in wrong:
        remedy = (
            "check --log and --database; else restore the log (coupon-ledger restore --from FOLDER) or the database"
        )
        yield Finding("error", "positions", str(position), remedy)
    lag = sum(max(0, end - (accounts[p].next_offset if p in accounts else earliest[p])) for p, end in ends.items())
    if lag and not wrong:
        yield Finding("warning", "lag", f"{counted(lag, 'record')} not folded yet", "coupon-ledger consume")
    elif not wrong:
        yield Finding("ok", "positions", f"{counted(summary['read'], 'record')}, all folded")


def _archive(folder: Path) -> Iterator[Finding]:
    from coupon_ledger.ledger.archive import read_manifest

    try:
        manifest = read_manifest(folder)
    except LedgerError as error:
        yield _of(error)
        return
    missing = [file.path for file in manifest.files if not (folder / file.path).is_file()]
    if missing:
        what = f"{counted(len(missing), 'missing file')}, {missing[0]} first"
        yield Finding("error", f"archive {folder}", what, f"coupon-ledger archive verify {folder}")
    else:
        records = sum(file.records for file in manifest.files)
        yield Finding(
            "ok", f"archive {folder}", f"{counted(records, 'record')} in {counted(len(manifest.files), 'file')}"
        )
