"""`consume` and `status`."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.logs import log_format_option, logging_as
from coupon_ledger.cli.options import LOG, duration_option, output_option, past_options, settings_options
from coupon_ledger.cli.output import print_row, print_rows
from coupon_ledger.cli.progress import consuming, rate_of
from coupon_ledger.cli.tables import echo_under
from coupon_ledger.cli.view import view
from coupon_ledger.ledger.errors import LedgerError, masked
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.reports.labels import say

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from coupon_ledger.consumers.intake import Oddities
    from coupon_ledger.consumers.runner import Committed
    from coupon_ledger.ledger.log import LogReader
    from coupon_ledger.projections.identity import ReadLog

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
@settings_options(*LOG, "database", "batch-size", "grace-minutes", "instant-skew-days", "skewed-events")
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
    from coupon_ledger.consumers.tuning import tune_process
    from coupon_ledger.ledger.address_space import check_for_batches

    check_for_batches(settings.batch_size)
    from coupon_ledger.api.endpoint import Endpoint
    from coupon_ledger.consumers.intake import use_rules
    from coupon_ledger.consumers.log_identity import open_log_of
    from coupon_ledger.consumers.owner import Owner
    from coupon_ledger.projections.database import open_database

    use_rules(settings)
    tune_process()
    store = open_database(settings.database)
    owner = None
    with consuming() if log_format == "text" else nullcontext(lambda *_: None) as shown:
        try:
            log = open_log_of(settings.log, store)
            owner = Owner(
                store,
                log,
                batch_size=settings.batch_size,
                grace=settings.grace,
                follow=follow,
                sweep_every=sweep_every,
                progress=shown,
            )
            # Handle signals first: once the endpoint is there, others can find this process and stop it.
            with _on_signal(owner.stop), Endpoint(store, port, owner if follow else None) as endpoint:
                place = {"log": masked(settings.log.url), "database": str(settings.database), "url": endpoint.url}
                _logger.info("start", extra={**place, "follow": follow})
                totals = _run(owner.run(), endpoint.committed, follow)
        finally:
            (owner or store).close()
    totals.print(log_format)


@contextmanager
def _on_signal(stop: Callable[[], None]) -> Iterator[None]:
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True, slots=True)
class _Totals:
    """`seconds`: of work; with `--follow`, the sum over its batches."""

    records: int
    dead_letters: int
    seconds: float
    odd: dict[str, Oddities]

    def print(self, log_format: str) -> None:
        rate = rate_of(self.records, self.seconds)
        done = say("consumed {n:count} record{n:s} in {seconds} s", n=self.records, seconds=f"{self.seconds:.1f}")
        click.echo(done + (f" ({rate:,.0f}/s)" if rate else ""))
        if self.dead_letters and log_format == "text":
            dead = "{n:count} became dead letter{n:s}: see `coupon-ledger dead-letters list`"
            click.echo(say(dead, n=self.dead_letters), err=True)
        if log_format == "text":
            _say_what_is_odd(self.odd)
        elif self.odd:
            _logger.info("oddities", extra={topic: asdict(odd) for topic, odd in self.odd.items()})


def _run(commits: Iterator[Committed], observe: Callable[[Committed], None], follow: bool) -> _Totals:
    records = dead_letters = 0
    odd: dict[str, Oddities] = {}
    started, worked_s = time.monotonic(), 0.0
    told = _Told()
    for commit in commits:
        observe(commit)
        told.committed(commit)
        records += commit.records
        dead_letters += commit.dead_letters
        worked_s += commit.seconds
        for topic, found in commit.oddities.items():
            odd[topic] = odd[topic].plus(found) if topic in odd else found
    seconds = time.monotonic() - started
    told.tell()
    _logger.info("stop", extra={"records": records, "dead_letters": dead_letters, "seconds": round(seconds, 3)})
    return _Totals(records, dead_letters, worked_s if follow else seconds, odd)


def _say_what_is_odd(odd: dict[str, Oddities]) -> None:
    other_keys, skewed, in_1970 = (
        sum(getattr(o, n) for o in odd.values()) for n in ("other_keys", "skewed", "in_1970")
    )
    parts = [note("{n:count} record{n:s} with another key than their event's id", n=other_keys)] if other_keys else []
    if skewed:
        parts.append(note("{n:count} event{n:s} that happened long before or after being recorded", n=skewed))
    if in_1970:
        parts.append(note("{n:count} of them in 1970", n=in_1970))
    if parts:
        click.echo(say("{parts} (see `coupon-ledger doctor`)", parts=parts), err=True)


class _Told:
    """Logs commits, at most one line a second for all since the last; logs anything unusual at once."""

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
@click.option("--partitions", is_flag=True, help="Also positions, lag and counts of each partition.")
@past_options
@settings_options(*LOG, "database")
@output_option
def status(watch: float | None, partitions: bool, settings: Settings, output: str, **past: Any) -> None:
    """Show the lag, the last commit, totals, and what needs attention.

    The machine formats hold every partition. With --watch also events/s, how the lag changes and when it will be gone;
    a line for each look in the machine formats. Of the past: how much there was of everything, coupons per state,
    broken rules per code, the data's clock.

    \b
    coupon-ledger status
    coupon-ledger status --partitions
    coupon-ledger status --output json
    coupon-ledger status --watch 5
    coupon-ledger status --at 2026-11-11T20:00:00+08:00
    """
    if any(value is not None for value in past.values()):
        if watch is not None:
            raise click.UsageError("--watch is of the present; leave out --at, --known-at and --at-position")
        from coupon_ledger.cli.show import print_totals

        print_totals(settings, output, **past)
        return
    from coupon_ledger.consumers.log_identity import difference, open_log_of

    known = read_log_of(settings.database)
    log = open_log_of(settings.log, known, settings.database)
    try:
        if watch is None:
            problem = difference(known, log)
            shown = status_of(summary_of(settings.database), log, problem)
            _print_status(settings, shown, output, partitions)
            return
        from coupon_ledger.cli.watch import Watch

        stop = threading.Event()
        with _on_signal(stop.set):
            Watch(settings, log, watch, stop).show(output, _print_summary)
    finally:
        log.close()


def summary_of(database: Path) -> dict[str, Any]:
    """The answer of the question `summary`."""
    from coupon_ledger.api.client import asking

    with asking(database) as source:
        return source.ask("summary").row()


def read_log_of(database: Path) -> ReadLog:
    """What the database keeps about the log that it was filled from."""
    from coupon_ledger.api.client import asking
    from coupon_ledger.consumers.log_identity import of_source

    with asking(database) as source:
        return of_source(source)


def status_of(summary: dict[str, Any], log: LogReader, log_problem: str | None = None) -> dict[str, Any]:
    """The summary plus the lag, in total and per partition. `open_transaction`: acknowledged offsets that nobody can
    read until a transaction ends. `log_problem`: why this log is not the one that was read."""
    from coupon_ledger.ledger.errors import LogNotInitialised, LogReplaced
    from coupon_ledger.ledger.topics import INPUT_TOPICS

    accounts = {(p["topic"], p["partition"]): p for p in summary["partitions"]}
    try:
        there = log.partitions(INPUT_TOPICS)
    except LogNotInitialised as error:
        if log_problem is None:
            raise
        raise LogReplaced(f"log {log.url}: {log_problem}; restore it from an archive, or check --log") from error
    ends, high = log.end_positions(there), log.high_watermarks(there)
    partitions = [_partition(*p, end, high[p], accounts.get(p, {})) for p, end in sorted(ends.items())]
    if log_problem is None and (shorter := [p for p in partitions if p["next_offset"] > p["end"]]):
        log_problem = "partition {partition} of {topic} ends at {end}, and was read up to {next_offset}".format(
            **shorter[0]
        )
    sums = {name: sum(p[name] for p in partitions) for name in ("lag", "open_transaction")}
    return {**summary, **sums, "log_problem": log_problem, "partitions": partitions}


def _print_status(settings: Settings, status: dict[str, Any], output: str, partitions: bool) -> None:
    if output == "json":
        print_row(status, output)
        return
    if output == "table":
        _print_summary(settings, status)
        if not partitions:
            return
        click.echo()
    print_rows(status["partitions"], output)


def _partition(topic: str, partition: int, end: int, high: int, account: dict[str, Any]) -> dict[str, Any]:
    next_offset = account.get("next_offset", 0)
    parts = ("read", "applied", "repeats", "conflicts", "dead_letters")
    return {
        "topic": topic,
        "partition": partition,
        "next_offset": next_offset,
        "end": end,
        "lag": max(0, end - next_offset),
        "open_transaction": max(0, high - end),
        **{name: account.get(name, 0) for name in parts},
    }


def _print_summary(settings: Settings, summary: dict[str, Any]) -> None:
    how = view()
    committed, clock = summary["committed_at"], summary["data_clock"]
    echo_under("log", masked(settings.log.url))
    echo_under("database", str(settings.database))
    behind = [p for p in summary["partitions"] if p["lag"]]
    where = {"lag": summary["lag"], "n": len(behind), "of": len(summary["partitions"])}
    lag = "{lag:count} record{lag:s} in {n} of {of} partitions" if behind else "{lag:count} record{lag:s}"
    echo_under("lag", say(lag, **where))
    at = how.instant(committed.replace(microsecond=0)) if committed else note("none yet")
    commits = "{at} ({n:count} in all); times in {zone}"
    echo_under("last commit", say(commits, at=at, n=summary["commits"], zone=how.zone))
    if committed:
        echo_under("last batch", _last_batch(summary["batch_records"], summary["batch_seconds"]))
    echo_under("data clock", how.instant(clock.replace(microsecond=0)) if clock else say("none yet"))
    for names in (("coupons", "orders", "campaigns", "users"), ("applied", "repeats", "conflicts", "dead_letters")):
        parts = [note("{n:count} {what:label}", n=summary[name], what=name) for name in names]
        settled = summary["dead_letters"] - summary["dead_letters_open"]
        if "dead_letters" in names and settled:
            parts.append(note("{n:count} of them discarded", n=settled))
        echo_under("", say("{parts}", parts=parts))
    parts = [note("{n:count} {what:label}", n=summary["violations"], what="violations")]
    apart = [note(words, n=summary[mark]) for mark, words in _APART.items() if summary.get(mark)]
    echo_under("", say("{parts}, apart from them {apart}" if apart else "{parts}", parts=parts, apart=apart))
    for what, command in _attention(summary):
        echo_under("attention", say("{what}: `coupon-ledger {command}`", what=what, command=command))


def _last_batch(records: int, seconds: float | None) -> str:
    if not seconds:
        return say("{n:count} record{n:s} in a rebuild", n=records)
    rate = f"{records / seconds:,.0f}/s"
    return say("{n:count} record{n:s} in {seconds} s ({rate})", n=records, seconds=f"{seconds:.2f}", rate=rate)


_APART: Final = {
    "provisional": "{n:count} provisional (the other topic is not read yet)",
    "explained": "{n:count} explained",
    "superseded": "{n:count} superseded",
}
"""Violations that do not count; each kind is shown apart."""


def _attention(summary: dict[str, Any]) -> Iterator[tuple[Note, str]]:
    """What needs attention, each with the command that shows it."""
    if summary.get("log_problem"):
        yield note("this is not the log that was read: {why}", why=summary["log_problem"]), "doctor"
    if summary.get("open_transaction"):
        waiting = sum(bool(p["open_transaction"]) for p in summary["partitions"])
        held = "{n:count} acknowledged record{n:s} behind open transactions in {partitions} partition{partitions:s}"
        yield note(held, n=summary["open_transaction"], partitions=waiting), "doctor"
    if summary["dead_letters_open"]:
        yield note("{n:count} open dead letter{n:s}", n=summary["dead_letters_open"]), "dead-letters list"
    if summary["violations"]:
        yield note("{n:count} violation{n:s}", n=summary["violations"]), "violations"
    if summary["outbox"]:
        yield note("{n:count} record{n:s} to be appended to the log", n=summary["outbox"]), "consume"
