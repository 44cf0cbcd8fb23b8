"""`consume` and `status`."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import click

from cli.logs import log_format_option, logging_as
from cli.options import LOG, duration_option, output_option, past_options, settings_options
from cli.output import print_row, print_rows
from cli.progress import progress
from ledger.errors import LedgerError
from ledger.plain import instant
from ledger.settings import Settings

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from consumers.runner import Committed
    from ledger.log import LogReader

_logger = logging.getLogger("coupon_ledger.consume")

_TOLD_EVERY_S: Final = 1.0
_SLOW_COMMIT_S: Final = 10.0


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until SIGTERM or Ctrl-C.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Answer questions on this port of 127.0.0.1 meanwhile (0: any that is free).",
)
@duration_option("--sweep-every", "With --follow: expire coupons and release holds whose time is over, so often.")
@log_format_option
@settings_options(*LOG, "database", "batch-size", "grace-minutes")
def consume(follow: bool, port: int, sweep_every: timedelta | None, log_format: str, settings: Settings) -> None:
    """Fold the log into the database, to the end that the log has now, or following it.

    Rows and offsets are committed together: stopped or killed at any moment and started again, nothing is lost and
    nothing counts twice. SIGTERM and Ctrl-C finish the batch under way. Records that are no valid events become dead
    letters.

    Meanwhile the other commands ask this one, and get answers as of the last commit; metrics for Prometheus are at
    /metrics (docs/operations.md). With --sweep-every it also does what `expire` does, up to the data's clock.

    \b
    coupon-ledger consume
    coupon-ledger consume --follow --log kafka://localhost:9092
    coupon-ledger consume --follow --port 9310 --log-format json
    coupon-ledger consume --follow --sweep-every 60s
    """
    if sweep_every is not None and not follow:
        raise click.UsageError("--sweep-every needs --follow; `coupon-ledger expire` sweeps once")
    with logging_as(log_format):
        try:
            _consume(follow, port, sweep_every, log_format, settings)
        except LedgerError as error:
            if log_format == "text":
                raise
            _logger.error("error", extra={"error": str(error), "exit_code": error.exit_code})
            sys.exit(error.exit_code)


def _consume(follow: bool, port: int, sweep_every: timedelta | None, log_format: str, settings: Settings) -> None:
    from consumers.tuning import check_address_space, tune_process

    check_address_space(settings.batch_size)
    from api.endpoint import Endpoint
    from consumers.owner import Owner
    from ledger.log import open_log
    from projections.store import Store

    tune_process()
    store = Store.open(settings.database)
    owner = None
    try:
        log = open_log(settings.log)
        owner = Owner(
            store,
            log,
            batch_size=settings.batch_size,
            grace=settings.grace,
            follow=follow,
            sweep_every=sweep_every,
        )
        # Who can find this process can stop it.
        with _on_signal(owner.stop), Endpoint(store, port, owner if follow else None) as endpoint:
            place = {"log": settings.log.url, "database": str(settings.database), "url": endpoint.url}
            _logger.info("start", extra={**place, "follow": follow})
            _run(owner.run(), endpoint.committed, log_format)
    finally:
        (owner or store).close()


@contextmanager
def _on_signal(stop: Callable[[], None]) -> Iterator[None]:
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(commits: Iterator[Committed], observe: Callable[[Committed], None], log_format: str) -> None:
    records = dead_letters = 0
    started = time.monotonic()
    told = _Told()
    shown = progress("consuming", 0) if log_format == "text" else nullcontext(None)
    with shown as bar:
        for commit in commits:
            observe(commit)
            told.committed(commit)
            records += commit.records
            dead_letters += commit.dead_letters
            if bar is not None:
                bar.advance(commit.records, commit.lag)
    seconds = time.monotonic() - started
    told.tell()
    _logger.info("stop", extra={"records": records, "dead_letters": dead_letters, "seconds": round(seconds, 3)})
    click.echo(f"consumed {records:,} records in {seconds:.1f} s ({records / max(seconds, 1e-9):,.0f}/s)")
    if dead_letters and log_format == "text":
        click.echo(f"{dead_letters:,} became dead letters: see `coupon-ledger dead-letters list`", err=True)


class _Told:
    """Commits in the log: at most one line a second for all since the last; what is out of the ordinary at once."""

    def __init__(self) -> None:
        self._commits = self._records = 0
        self._seconds = 0.0
        self._lag = self._told_lag = 0
        self._next = 0.0

    def committed(self, commit: Committed) -> None:
        self._commits += 1
        self._records += commit.records
        self._seconds += commit.seconds
        self._lag = commit.lag
        if commit.dead_letters:
            _logger.info("dead letters", extra={"dead_letters": commit.dead_letters})
        if commit.seconds > _SLOW_COMMIT_S:
            _logger.warning(
                "slow commit: %d records took %.1f s",
                commit.records,
                commit.seconds,
                extra={"records": commit.records, "seconds": round(commit.seconds, 3)},
            )
        if time.monotonic() >= self._next or (self._told_lag and not commit.lag):
            self.tell()

    def tell(self) -> None:
        if not self._commits:
            return
        told = {"commits": self._commits, "records": self._records, "seconds": round(self._seconds, 3)}
        _logger.info("commit", extra={**told, "lag": self._lag})
        self._commits = self._records = 0
        self._seconds = 0.0
        self._told_lag = self._lag
        self._next = time.monotonic() + _TOLD_EVERY_S


@click.command()
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value="2",
    metavar="[SECONDS]",
    help="Again and again, with rates, until Ctrl-C; every 2 seconds unless told otherwise.",
)
@past_options
@settings_options(*LOG, "database")
@output_option
def status(watch: float | None, settings: Settings, output: str, **past: Any) -> None:
    """Show positions and lag per partition, the last commit, and counts.

    With --watch also events/s, how the lag changes and when it will be gone; a line for each look in the machine
    formats. Of the past: how much there was of everything, coupons per state, broken rules per code, the data's clock.

    \b
    coupon-ledger status
    coupon-ledger status --output json
    coupon-ledger status --watch 5
    coupon-ledger status --at 2026-11-11T20:00:00+08:00
    """
    if any(value is not None for value in past.values()):
        if watch is not None:
            raise click.UsageError("--watch is of the present; leave out --at, --known-at and --at-position")
        from cli.show import print_totals

        print_totals(settings, output, **past)
        return
    from ledger.log import open_log

    log = open_log(settings.log)
    try:
        if watch is None:
            _print_status(settings, status_of(summary_of(settings.database), log), output)
            return
        from cli.watch import Watch

        stop = threading.Event()
        with _on_signal(stop.set):
            Watch(settings, log, watch, stop).show(output, _print_summary)
    finally:
        log.close()


def summary_of(database: Path) -> dict[str, Any]:
    """What the database tells of itself."""
    from api.client import asking

    with asking(database) as source:
        return source.ask("summary").row()


def status_of(summary: dict[str, Any], log: LogReader) -> dict[str, Any]:
    """The summary, with the lag, as a whole and of each partition."""
    from ledger.topics import INPUT_TOPICS

    accounts = {(p["topic"], p["partition"]): p for p in summary["partitions"]}
    ends = log.end_positions(log.partitions(INPUT_TOPICS))
    partitions = [_partition(*p, end, accounts.get(p, {})) for p, end in sorted(ends.items())]
    return {**summary, "lag": sum(p["lag"] for p in partitions), "partitions": partitions}


def _print_status(settings: Settings, status: dict[str, Any], output: str) -> None:
    if output == "json":
        print_row(status, output)
        return
    if output == "table":
        _print_summary(settings, status)
        click.echo()
    print_rows(status["partitions"], output)


def _partition(topic: str, partition: int, end: int, account: dict[str, Any]) -> dict[str, Any]:
    next_offset = account.get("next_offset", 0)
    parts = ("read", "applied", "repeats", "conflicts", "dead_letters")
    return {
        "topic": topic,
        "partition": partition,
        "next_offset": next_offset,
        "end": end,
        "lag": end - next_offset,
        **{name: account.get(name, 0) for name in parts},
    }


def _print_summary(settings: Settings, summary: dict[str, Any]) -> None:
    committed, clock = summary["committed_at"], summary["data_clock"]
    click.echo(f"log         {settings.log.url}")
    click.echo(f"database    {settings.database}")
    click.echo(f"lag         {summary['lag']:,} records")
    click.echo(f"last commit {instant(committed) if committed else 'none yet'} ({summary['commits']:,} in all)")
    if committed:
        records, seconds = summary["batch_records"], summary["batch_seconds"]
        took = f"in {seconds:.2f} s ({records / seconds:,.0f}/s)" if seconds else "in a rebuild"
        click.echo(f"last batch  {records:,} records {took}")
    click.echo(f"data clock  {instant(clock) if clock else 'none yet'}")
    for names in (("coupons", "orders", "campaigns", "users"), ("applied", "repeats", "conflicts", "dead_letters")):
        told = [f"{summary[n]:,} {n.replace('_', ' ')}" for n in names]
        settled = summary["dead_letters"] - summary["dead_letters_open"]
        if "dead_letters" in names and settled:
            told[-1] += f" ({summary['dead_letters_open']:,} open, {settled:,} discarded)"
        click.echo("            " + ", ".join(told))
    superseded = f" and {summary['superseded']:,} superseded (no faults)" if summary["superseded"] else ""
    click.echo(f"            {summary['violations']:,} violations{superseded}")
