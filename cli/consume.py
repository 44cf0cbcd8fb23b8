"""`consume` and `status`."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from cli.options import output_option, settings_options
from cli.output import instant, print_row, print_rows
from cli.progress import progress
from ledger.settings import Settings

if TYPE_CHECKING:
    from consumers.runner import Committed


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until SIGTERM or Ctrl-C.")
@settings_options("log", "database", "topic-prefix", "batch-size", "schema-registry")
def consume(follow: bool, settings: Settings) -> None:
    """Fold the log into the database, to the end that the log has now, or following it.

    Rows and offsets are committed together: stopped or killed at any moment and started again, nothing is lost and
    nothing counts twice. SIGTERM and Ctrl-C finish the batch under way. Records that are no valid events become dead
    letters.

    \b
    coupon-ledger consume
    coupon-ledger consume --follow --log kafka://localhost:9092
    """
    from consumers.runner import Consumer
    from consumers.tuning import tune_process
    from ledger.log import open_log
    from projections.store import Store

    tune_process()
    with Store.open(settings.database) as store:
        log = open_log(settings.log)
        try:
            consumer = Consumer(log, store, batch_size=settings.batch_size, follow=follow)
            with _on_signal(consumer.stop):
                _run(consumer.run())
        finally:
            log.close()


@contextmanager
def _on_signal(stop: Callable[[], None]) -> Iterator[None]:
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(commits: Iterator[Committed]) -> None:
    records = dead_letters = 0
    started = time.monotonic()
    with progress("consuming", 0) as bar:
        for commit in commits:
            records += commit.records
            dead_letters += commit.dead_letters
            bar.total(records + commit.lag)
            bar.advance(commit.records)
    seconds = time.monotonic() - started
    click.echo(f"consumed {records:,} records in {seconds:.1f} s ({records / max(seconds, 1e-9):,.0f}/s)")
    if dead_letters:
        click.echo(f"{dead_letters:,} became dead letters: see `coupon-ledger dead-letters list`", err=True)


@click.command()
@settings_options("log", "database", "topic-prefix")
@output_option
def status(settings: Settings, output: str) -> None:
    """Show positions and lag per partition, the last commit, and counts.

    \b
    coupon-ledger status
    coupon-ledger status --output json
    """
    from ledger.log import open_log
    from ledger.topics import INPUT_TOPICS
    from projections import checkpoints, queries
    from projections.checkpoints import Account
    from projections.store import Store

    with Store.open(settings.database, read_only=True) as store:
        summary = queries.summary(store)
        accounts = checkpoints.load(store)
    log = open_log(settings.log)
    try:
        ends = log.end_positions(log.partitions(INPUT_TOPICS))
    finally:
        log.close()
    partitions = [
        {
            "topic": p.topic,
            "partition": p.partition,
            "next_offset": (account := accounts.get(p, Account())).next_offset,
            "end": end,
            "lag": end - account.next_offset,
            "read": account.read,
            "applied": account.applied,
            "repeats": account.repeats,
            "conflicts": account.conflicts,
            "dead_letters": account.dead_letters,
        }
        for p, end in sorted(ends.items())
    ]
    summary["lag"] = sum(p["lag"] for p in partitions)
    if output == "json":
        print_row({**summary, "partitions": partitions}, output)
        return
    if output == "table":
        _print_summary(settings, summary)
    print_rows(partitions, output)


def _print_summary(settings: Settings, summary: dict[str, Any]) -> None:
    committed, clock = summary["committed_at"], summary["data_clock"]
    click.echo(f"log         {settings.log.url}")
    click.echo(f"database    {settings.database}")
    click.echo(f"lag         {summary['lag']:,} records")
    click.echo(f"last commit {instant(committed) if committed else 'none yet'} ({summary['commits']:,} in all)")
    if committed:
        records, seconds = summary["batch_records"], summary["batch_seconds"]
        click.echo(f"last batch  {records:,} records in {seconds:.2f} s ({records / seconds:,.0f}/s)")
    click.echo(f"data clock  {instant(clock) if clock else 'none yet'}")
    for names in (("coupons", "orders", "campaigns", "users"), ("applied", "repeats", "conflicts", "dead_letters")):
        click.echo("            " + ", ".join(f"{summary[n]:,} {n.replace('_', ' ')}" for n in names))
    click.echo(f"            {summary['violations']:,} violations")
    click.echo()
