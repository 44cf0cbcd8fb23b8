"""`consume`: fold the log into the database."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import click

from coupon_ledger.cli.logs import log_format_option, logging_as
from coupon_ledger.cli.options import LOG, duration_option, settings_options
from coupon_ledger.cli.progress import consuming, rate_of
from coupon_ledger.ledger.errors import LedgerError, masked
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import note
from coupon_ledger.reports.labels import say
from coupon_ledger.reports.view import view

if TYPE_CHECKING:
    from datetime import timedelta

    from coupon_ledger.cli.alerts.announcing import Announcer
    from coupon_ledger.consumers.alerts.work import AlertWork
    from coupon_ledger.consumers.intake import Oddities
    from coupon_ledger.consumers.runner import Committed
    from coupon_ledger.delivery.posting import Posting
    from coupon_ledger.ledger.log import EventLog
    from coupon_ledger.projections.store import Store

_logger = logging.getLogger("coupon_ledger.consume")

_LOG_EVERY_S: Final = 1.0
_SLOW_COMMIT_S: Final = 10.0


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Keep consuming new records, until SIGTERM or Ctrl-C.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Meanwhile, answer questions on this port of 127.0.0.1 (0: any free port).",
)
@click.option(
    "--alerts/--no-alerts",
    default=None,
    help="Put alert rules in force, and tell what they find. [default: --alerts, unless alert-rules is none]",
)
@duration_option("--sweep-every", "With --follow: how often to expire coupons and release holds that are due.")
@log_format_option
@settings_options(*LOG, "database", "batch-size", "grace-minutes", "instant-skew-days", "skewed-events", "alert-rules")
def consume(
    follow: bool, port: int, alerts: bool | None, sweep_every: timedelta | None, log_format: str, settings: Settings
) -> None:
    """Fold the log into the database, up to the log's present end. With --follow, keep folding new records.

    Rows and offsets are committed together, so nothing is lost or counted twice after a restart, even if the command
    was killed. On SIGTERM or Ctrl-C the command ends after the current batch. Records that are not valid events become
    dead letters.

    While it runs, it answers the other commands as of its last commit, and Prometheus at /metrics
    (docs/operations.md). With --sweep-every it also does what `expire` does, up to the data's clock.

    Alert rules are evaluated meanwhile: the defaults, or those of the setting alert-rules. What they find goes to the
    topic coupon.alerts and, as messages, to the channels of the rules file, which is read again when it changes. Alerts
    that fire are named on standard error; of many at once, most are only counted. With --no-alerts, rules that are
    already in force are evaluated, and nobody is told.

    \b
    coupon-ledger consume
    coupon-ledger consume --follow --log kafka://localhost:9092
    coupon-ledger consume --follow --port 9310 --log-format json
    coupon-ledger consume --follow --sweep-every 60s
    coupon-ledger consume --follow --alert-rules rules.yaml
    """
    if sweep_every is not None and not follow:
        raise click.UsageError("--sweep-every needs --follow; `coupon-ledger expire` sweeps once")
    with logging_as(log_format):
        try:
            chosen = settings.has_alerts if alerts is None else alerts
            _consume(follow, port, chosen, sweep_every, log_format, settings)
        except LedgerError as error:
            if log_format == "text":
                raise
            _logger.error("error", extra={"error": str(error), "exit_code": error.exit_code})
            sys.exit(error.exit_code)


def _consume(
    follow: bool, port: int, alerts: bool, sweep_every: timedelta | None, log_format: str, settings: Settings
) -> None:
    from coupon_ledger.consumers.tuning import tune_process
    from coupon_ledger.ledger.address_space import check_for_batches

    check_for_batches(settings.batch_size)
    from coupon_ledger.api.endpoint import Endpoint
    from coupon_ledger.cli.alerts.announcing import Announcer
    from coupon_ledger.consumers.intake import use_rules
    from coupon_ledger.consumers.log_identity import open_log_of
    from coupon_ledger.consumers.operation_book import OperationBook
    from coupon_ledger.consumers.owner import Owner
    from coupon_ledger.ledger.opening import open_log
    from coupon_ledger.projections.database import open_database

    use_rules(settings)
    tune_process()
    store = open_database(settings.database)
    owner = posting = None
    announcer = Announcer(log_format)
    with consuming() if log_format == "text" else nullcontext(lambda *_: None) as shown:
        try:
            log = open_log_of(settings.log, store)
            posting = _posting(settings) if alerts else None
            owner = Owner(
                store,
                log,
                batch_size=settings.batch_size,
                grace=settings.grace,
                follow=follow,
                sweep_every=sweep_every,
                alerts=_alert_work(store, log, posting, announcer, settings) if posting is not None else None,
                operations=OperationBook(lambda: closing(open_log(settings.log))),
                progress=shown,
            )
            # Handle signals first: once the endpoint is open, others can find this process and stop it.
            with on_signal(owner.stop), Endpoint(store, port, owner if follow else None) as endpoint:
                place = {"log": masked(settings.log.url), "database": str(settings.database), "url": endpoint.url}
                _logger.info("start", extra={**place, "follow": follow})
                totals = _run(owner.run(), endpoint.committed, follow)
        finally:
            announcer.close()
            (owner or store).close()
            if posting is not None:
                posting.close()
    totals.print(log_format)


def _posting(settings: Settings) -> Posting:
    """Messages about alerts, in a queue beside the database, whatever generation of it is live."""
    from coupon_ledger.delivery.posting import Posting

    rules = settings.alert_rules
    queue = settings.database.with_name(settings.database.name + ".messages")
    return Posting(queue, folder=None if rules is None else rules.parent, language=view().lang, zone=view().zone)


def _alert_work(store: Store, log: EventLog, posting: Posting, announcer: Announcer, settings: Settings) -> AlertWork:
    from coupon_ledger.consumers.alerts.on_tables import OnTables
    from coupon_ledger.consumers.alerts.work import AlertWork
    from coupon_ledger.ledger.opening import open_log

    # A log of its own for the thread that reads: the consumer's is for one such thread.
    return AlertWork(
        store,
        log,
        rules=settings.alert_rules,
        reader=lambda: closing(open_log(settings.log)),
        find=OnTables(),
        messages=posting,
        announce=announcer,
    )


@contextmanager
def on_signal(stop: Callable[[], None]) -> Iterator[None]:
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True, slots=True)
class _Totals:
    """What a run of `consume` did. `seconds`: its duration; with `--follow`, only the time spent on batches. `odd`: per
    topic, how many events were unusual, and how."""

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
    commit_log = _CommitLog()
    for commit in commits:
        observe(commit)
        commit_log.committed(commit)
        records += commit.records
        dead_letters += commit.dead_letters
        worked_s += commit.seconds
        for topic, oddities in commit.oddities.items():
            odd[topic] = odd[topic].plus(oddities) if topic in odd else oddities
    seconds = time.monotonic() - started
    commit_log.write()
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


class _CommitLog:
    """Logs about one line a second, which sums up the commits since the last line. Logs anything unusual at once."""

    def __init__(self) -> None:
        self._commits = self._records = 0
        self._seconds = 0.0
        self._lag = self._logged_lag = 0
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
        if time.monotonic() >= self._next or (self._logged_lag and not commit.lag):
            self.write()

    def write(self) -> None:
        if not self._commits:
            return
        sums = {"commits": self._commits, "records": self._records, "seconds": round(self._seconds, 3)}
        _logger.info("commit", extra={**sums, "lag": self._lag})
        self._commits = self._records = 0
        self._seconds = 0.0
        self._logged_lag = self._lag
        self._next = time.monotonic() + _LOG_EVERY_S
