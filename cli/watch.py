"""`status --watch`: show the status repeatedly, with its rates of change."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.output import print_rows
from coupon_ledger.cli.status import summary_of
from coupon_ledger.cli.tables import echo_under
from coupon_ledger.cli.terminal import behind
from coupon_ledger.cli.view import view
from coupon_ledger.ledger.amounts import NOTHING
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.reports.labels import say
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from coupon_ledger.ledger.log import LogReader

_LOOKS: Final = 10
"""Rates are computed over this many of the latest refreshes."""
_AGAIN: Final = "\x1b[H\x1b[J"
_COPIED: Final = ("commits", "committed_at", "data_clock", "applied", "repeats", "conflicts", "dead_letters", "outbox")


class Watch:
    """Shows the status every `every_s` seconds until `stop` is set. If the first status cannot be read, the error is
    raised. A later error is shown in place of the status, and the status is read again."""

    def __init__(self, settings: Settings, log: LogReader, every_s: float, stop: threading.Event) -> None:
        self._settings = settings
        self._log = log
        self._every_s = every_s
        self._stop = stop
        self._looks: deque[tuple[float, int, int]] = deque(maxlen=_LOOKS)
        self._summary: dict[str, Any] = {}
        self._seen: object = None

    def show(self, output: str, print_summary: Callable[[Settings, dict[str, Any]], None]) -> None:
        if output != "table":
            print_rows(self._rows(), output)
            return
        for status in self._statuses():
            if sys.stdout.isatty():
                click.echo(_AGAIN, file=behind(sys.stdout), nl=False)
            if "error" in status:
                echo_under("", status["error"])
                continue
            print_summary(self._settings, status)
            rate, change = _number(status["events_per_s"]), _number(status["lag_per_s"], "+")
            echo_under("events/s", say("{rate}, lag {change}/s", rate=rate, change=change))
            eta = status["eta_s"]
            left = say("in {time}", time=timedelta(seconds=eta)) if eta else NOTHING
            echo_under("caught up", left if status["lag"] else say("now"))
            at = view().instant(status["at"].replace(microsecond=0))
            echo_under("looked at", say("{at}, every {seconds} s, Ctrl-C ends it", at=at, seconds=f"{self._every_s:g}"))
            sys.stdout.flush()

    def _rows(self) -> Iterator[Row]:
        for status in self._statuses():
            fields = {
                name: status.get(name) for name in ("lag", "events_per_s", "lag_per_s", "eta_s", *_COPIED, "error")
            }
            yield {"at": status["at"], **fields}
            sys.stdout.flush()

    def _statuses(self) -> Iterator[dict[str, Any]]:
        """Yield one status after another. Raises `LedgerError` if the first cannot be read. For a later one that cannot
        be read, yields a dict with `at` and `error`."""
        while not self._stop.is_set():
            try:
                yield self._look()
            except LedgerError as error:
                if not self._summary:
                    raise
                yield {"at": datetime.now(UTC).replace(tzinfo=None), "error": str(error)}
            self._stop.wait(self._every_s)

    def _look(self) -> dict[str, Any]:
        seen = _state_of(self._settings.database)
        # If nothing was written, do not open the file: a consumer cannot open it while it is read.
        if seen != self._seen or not self._summary:
            self._summary = summary_of(self._settings.database)
            self._seen = seen
        from coupon_ledger.consumers.status import status_of

        status = status_of(self._summary, self._log)
        self._looks.append((time.monotonic(), status["read"], status["lag"]))
        return {"at": datetime.now(UTC).replace(tzinfo=None), **status, **_rates(list(self._looks))}


def _rates(looks: list[tuple[float, int, int]]) -> dict[str, Any]:
    """The rates between the first and the last of `looks`, the latest refreshes (each: time, records read, lag):
    `events_per_s`; `lag_per_s`, the growth of the lag per second; `eta_s`, the seconds until the lag is zero (None if
    it does not shrink)."""
    (began, read, lag), (now, read_now, lag_now) = looks[0], looks[-1]
    if now == began:
        return {"events_per_s": None, "lag_per_s": None, "eta_s": None}
    change = (lag_now - lag) / (now - began)
    eta = round(lag_now / -change) if lag_now and change < 0 else None
    return {"events_per_s": round((read_now - read) / (now - began), 1), "lag_per_s": round(change, 1), "eta_s": eta}


def _state_of(database: Path) -> object:
    """A value that changes if the database may have changed. If the database has an owner, the value changes with every
    call: an owner can always be asked, since that does not keep a consumer from opening the database."""
    from coupon_ledger.projections.generations import file_of, wal_file
    from coupon_ledger.projections.ownership import owner

    if owner(database):
        return time.monotonic()
    file = file_of(database)
    return [(f.stat().st_mtime_ns, f.stat().st_size) for f in (file, wal_file(file)) if f.exists()]


def _number(value: float | None, sign: str = "") -> str:
    return NOTHING if value is None else f"{value:{sign},.1f}"
