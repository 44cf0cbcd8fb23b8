"""`status`: how far the database is behind the log, and what needs attention."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.asking import answered
from coupon_ledger.cli.consume import on_signal
from coupon_ledger.cli.lists import plain_lists, print_list, with_lists
from coupon_ledger.cli.options import LOG, output_option, past_options, settings_options
from coupon_ledger.cli.output import print_row, print_rows
from coupon_ledger.cli.tables import echo_under
from coupon_ledger.cli.view import view
from coupon_ledger.ledger.errors import masked
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.reports.labels import say

if TYPE_CHECKING:
    from pathlib import Path

    from coupon_ledger.projections.identity import ReadLog


@click.command()
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value="2",
    metavar="[SECONDS]",
    help="Refresh every SECONDS, with rates, until Ctrl-C. [default: 2]",
)
@click.option("--partitions", is_flag=True, help="Also show positions, lag and counts of each partition.")
@past_options
@settings_options(*LOG, "database")
@output_option
def status(watch: float | None, partitions: bool, settings: Settings, output: str, **past: Any) -> None:
    """Show the lag, the last commit, totals, and what needs attention.

    The machine formats list every partition. --watch adds events/s, the change of the lag, and when the lag will be
    zero; the machine formats then have one line per refresh. For a past state (--at, --known-at, --at-position) the
    command shows totals, coupons per state, violations per code and the data's clock.

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
        _print_totals(settings, output, **past)
        return
    from coupon_ledger.consumers.log_identity import difference, open_log_of

    known = read_log_of(settings.database)
    log = open_log_of(settings.log, known, settings.database)
    try:
        if watch is None:
            from coupon_ledger.consumers.status import status_of

            problem = difference(known, log)
            shown = status_of(summary_of(settings.database), log, problem)
            _print_status(settings, shown, output, partitions)
            return
        from coupon_ledger.cli.watch import Watch

        stop = threading.Event()
        with on_signal(stop.set):
            Watch(settings, log, watch, stop).show(output, _print_summary)
    finally:
        log.close()


def summary_of(database: Path) -> dict[str, Any]:
    """The only row of the answer to the question `summary`."""
    from coupon_ledger.api.client import asking

    with asking(database) as source:
        return source.ask("summary").row()


def read_log_of(database: Path) -> ReadLog:
    """The identity of the log from which the database was filled, as the database has recorded it."""
    from coupon_ledger.api.client import asking
    from coupon_ledger.consumers.log_identity import of_source

    with asking(database) as source:
        return of_source(source)


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
"""Kinds of violations that do not count as faults. They are shown after the others."""


def _attention(summary: dict[str, Any]) -> Iterator[tuple[Note, str]]:
    """Yield pairs: something that needs attention, and the command that shows it."""
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


def _print_totals(settings: Settings, output: str, **past: Any) -> None:
    with answered(settings, output, "totals", **past) as answer:
        row, lists = with_lists(answer)
        if output != "table":
            print_row(row | plain_lists(row, lists), output)
            return
        print_row(row, output)
        for name in ("states", "broken"):
            print_list(name, lists[name])
