"""The commands `archive`, `archive verify`, `archive merge` and `restore`: copy the log to files, and back."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from coupon_ledger.cli.options import LOG, output_option, settings_options
from coupon_ledger.cli.output import print_rows
from coupon_ledger.cli.progress import progress
from coupon_ledger.ledger.address_space import check_for_reading
from coupon_ledger.ledger.amounts import counted
from coupon_ledger.ledger.errors import masked
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.topics import ALL_TOPICS
from coupon_ledger.reports.labels import say

if TYPE_CHECKING:
    from coupon_ledger.ledger.log import LogReader

_folder = click.Path(path_type=Path)


@click.group(invoke_without_command=True)
@click.option("--to", "folder", type=_folder, help="Folder of the archive; created if missing.")
@click.option("--accept-loss", is_flag=True, help="Record as lost what the log no longer holds, and archive the rest.")
@click.option("--bytes-only", is_flag=True, help="Leave out the decoded fields: half the size.")
@settings_options(*LOG, opens=True)
@click.pass_context
def archive(
    context: click.Context, folder: Path | None, accept_loss: bool, bytes_only: bool, settings: Settings
) -> None:
    """Archive the log into a folder of Parquet files, or verify such a folder.

    Each run continues where the archive ends, even after a run that was killed. Consumers and publishers may run
    meanwhile. Each record is archived once, with its bytes, position and time of recording. The bytes are copied from
    the log unchanged, without asking a schema registry. Each record's decoded fields are stored too, for any Parquet
    reader and for fast rebuilds. docs/archive.md describes the files.

    \b
    coupon-ledger archive --to /backup/ledger
    coupon-ledger archive --to /backup/ledger --log kafka://localhost:9092
    coupon-ledger archive verify /backup/ledger
    """
    if context.invoked_subcommand is not None:
        return
    if folder is None:
        raise click.UsageError("name the folder of the archive with --to", context)
    from coupon_ledger.ledger.archiver import Archiver
    from coupon_ledger.ledger.opening import open_backend

    log = open_backend(settings.log)
    started = time.monotonic()
    try:
        with progress("archiving", 0) as bar:
            archived = Archiver(log, folder, accept_loss=accept_loss, decode=not bytes_only, progress=bar.update).run()
        waiting = _behind_transactions(log)
    finally:
        log.close()
    for loss in archived.losses:
        click.echo(say("lost: {what}, which the log no longer held", what=str(loss)), err=True)
    done = "archived {n:count} record{n:s} in {files:count} file{files:s}, {size:count} bytes"
    click.echo(
        say(done, n=archived.records, files=archived.files, size=archived.bytes) + _rate(archived.records, started)
    )
    if waiting:
        click.echo(say(_WAITING, n=waiting), err=True)


_WAITING: Final = (
    "{n:count} acknowledged record{n:s} behind open transactions, and not in it (see `coupon-ledger doctor`); archive"
    " again when these have ended"
)


def _behind_transactions(log: LogReader) -> int:
    partitions = log.partitions()
    ends = log.end_positions(partitions)
    return sum(high - ends[tp] for tp, high in log.high_watermarks(partitions).items())


@archive.command(short_help="Check every file of an archive.")
@click.argument("folder", type=_folder)
@output_option
def verify(folder: Path, output: str) -> None:
    """Read every file of an archive and report missing, altered, overlapping or unlisted files, and gaps in
    positions.

    The exit code is 4 if anything is found. No log is needed.

    \b
    coupon-ledger archive verify /backup/ledger
    coupon-ledger archive verify /backup/ledger --output json
    """
    check_for_reading()
    from coupon_ledger.ledger.archive import read_manifest
    from coupon_ledger.ledger.archive import verify as findings_of
    from coupon_ledger.ledger.errors import ArchiveDamaged

    manifest = read_manifest(folder)
    with progress("verifying", sum(file.records for file in manifest.files)) as bar:
        findings = findings_of(folder, bar.update)
    if findings or output != "table":
        print_rows((asdict(finding) for finding in findings), output)
    if findings:
        raise ArchiveDamaged(
            f"archive {folder}: {counted(len(findings), 'finding')}, see above; put back copies of missing and"
            " altered files, move others away"
        )
    if output == "table":
        for loss in manifest.losses:
            click.echo(say("noted as lost: {what}", what=str(loss)))
        records, size = sum(f.records for f in manifest.files), sum(f.bytes for f in manifest.files)
        whole = "archive {folder}: whole, {n:count} record{n:s} in {files:count} file{files:s}, {size:count} bytes"
        click.echo(say(whole, folder=str(folder), n=records, files=len(manifest.files), size=size))


@archive.command(short_help="Join small files of an archive.")
@click.argument("folder", type=_folder)
def merge(folder: Path) -> None:
    """Join the small files that frequent runs of `archive` make. Files of the same topic, partition and day are joined.

    Bytes, positions and times stay the same. The command may run beside readers of the archive, and may be killed at
    any moment. It removes the joined small files at the end. If somebody still reads the archive then, the next run
    removes them.

    \b
    coupon-ledger archive merge /backup/ledger
    """
    check_for_reading()
    from coupon_ledger.ledger.archiver import Merger

    with progress("merging", 0) as bar:
        merged = Merger(folder, progress=bar.update).run()
    done = "merged {files:count} file{files:s} into {into:count}, {n:count} record{n:s}"
    click.echo(say(done, files=merged.files, into=merged.into, n=merged.records))
    if merged.kept:
        click.echo(say("old files still being read: {n:count}; the next run removes them", n=merged.kept), err=True)


@click.command()
@click.option("--from", "folder", type=_folder, required=True, help="Folder of the archive.")
@click.option("--topic", "topics", type=click.Choice(ALL_TOPICS), multiple=True, help="Only this topic (repeatable).")
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Restore even if the archive has gaps: records that were lost before they were archived.",
)
@click.option("--anew", is_flag=True, help="On Kafka: first delete what an interrupted restore created.")
@settings_options(*LOG, "replication", opens=True)
def restore(folder: Path, topics: tuple[str, ...], accept_loss: bool, anew: bool, settings: Settings) -> None:
    """Create a log from an archive: its records with their bytes, partitions, offsets and times of recording.

    The log must be empty; on Kafka its topics must not exist yet. An embedded log is restored completely or not at
    all. After an interrupted restore into Kafka, run the command again with --anew: it first deletes the incomplete
    topics.

    \b
    coupon-ledger restore --from /backup/ledger --log sqlite:///restored.log.db
    coupon-ledger restore --from /backup/ledger --log kafka://localhost:9092 --topic-prefix restored.
    coupon-ledger restore --from /backup/ledger --log kafka://localhost:9092 --topic order.events
    coupon-ledger restore --from /backup/ledger --log kafka://localhost:9092 --anew
    """
    from coupon_ledger.ledger.archive import read_manifest
    from coupon_ledger.ledger.archive import restore as restored
    from coupon_ledger.ledger.opening import open_backend

    held = sum(file.records for file in read_manifest(folder).files if not topics or file.topic in topics)
    log = open_backend(settings.log, create=True)
    started = time.monotonic()
    try:
        with progress("restoring", held) as bar:
            records = restored(folder, log, topics=topics, accept_loss=accept_loss, anew=anew, progress=bar.update)
        log.create_topics()
    finally:
        log.close()
    done = say("restored {n:count} record{n:s} to {log}", n=records, log=masked(settings.log.url))
    click.echo(done + _rate(records, started))


def _rate(records: int, started: float) -> str:
    seconds = time.monotonic() - started
    rate = f"{records / max(seconds, 1e-9):,.0f}/s"
    return say(" in {seconds} s ({rate})", seconds=f"{seconds:.1f}", rate=rate)
