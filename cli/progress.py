"""Progress bars on standard error. They show the rate, how much is left, and the time left."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, Protocol

import click

from coupon_ledger.cli.terminal import behind
from coupon_ledger.ledger.progress import PhaseProgress

_EARLY_S: Final = 1.0
_LINE_S: Final = 10.0
_TOLD_S: Final = 0.5


class Bar(Protocol):
    def advance(self, records: int) -> None:
        """Count `records` more as done."""
        ...

    def update(self, done: int, total: int) -> None:
        """Show `done` out of `total`. May be passed as a `ledger.progress.Progress`."""
        ...


class _Silent:
    def advance(self, records: int) -> None:
        pass

    def update(self, done: int, total: int) -> None:
        pass


class _Told:
    """Tells progress as lines of JSON on standard error, for a process that follows this one. At most twice a second,
    and at the end."""

    def __init__(self, what: str, total: int | None) -> None:
        self._what = what
        self._total = total or 0
        self._done = 0
        self._next = 0.0

    def advance(self, records: int) -> None:
        self.update(self._done + records, self._total)

    def update(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        if time.monotonic() >= self._next or done == total:
            self._next = time.monotonic() + _TOLD_S
            click.echo(json.dumps({"doing": self._what, "done": done, "total": total}), err=True)


@contextmanager
def progress(what: str, total: int | None, unit: str = "events") -> Iterator[Bar]:
    """Within the block, a progress bar is shown if standard error is a terminal. Yields the bar. If the variable
    COUPON_LEDGER_PROGRESS is `json`, the progress is told as lines of JSON instead.

    `what`: the text in front of the bar. `unit`: what is counted. `total`: how many there are; None if that is unknown;
    0 if later calls of `update` say it. If `total` is 0 and `unit` is `events`, the number left is shown as lag."""
    if os.environ.get("COUPON_LEDGER_PROGRESS") == "json":
        yield _Told(what, total)
        return
    if not sys.stderr.isatty():
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            rate = rate_of(task.completed, task.elapsed or 0.0)
            return Text(f"{rate:,.0f} {unit}/s" if rate else "")

    class Remaining(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(time_left(rate_of(task.completed, task.elapsed or 0.0), task.remaining))

    class Lag(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"lag {task.remaining:,.0f}" if task.remaining is not None else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}" if total is not None else "{task.completed:,.0f}"),
        Rate(),
        *((Lag(),) if total == 0 and unit == "events" else ()),
        Remaining(),
    )
    with Progress(*columns, console=Console(file=behind(sys.stderr)), transient=True) as shown:
        task = shown.add_task(what, total=total)

        class _Shown:
            def advance(self, records: int) -> None:
                shown.advance(task, records)

            def update(self, done: int, total: int) -> None:
                shown.update(task, completed=done, total=total)

        yield _Shown()


def rate_of(records: float, seconds: float) -> float | None:
    """Records per second. None in the first `_EARLY_S` seconds, and if the rate is below 1."""
    return records / seconds if seconds >= _EARLY_S and records >= seconds else None


def time_left(rate: float | None, left: float | None) -> str:
    """The time that `left` records take at `rate` per second, as text. Empty if either is None or 0."""
    return f"{timedelta(seconds=round(left / rate))} left" if rate and left else ""


def _read(done: int, total: int) -> str:
    return f"{done:,} of {total:,} records" if total else "nothing to read yet"


@contextmanager
def consuming() -> Iterator[PhaseProgress]:
    """Yield a function that shows a consumer's progress on standard error: as a bar if that is a terminal, otherwise as
    a line at most every ten seconds.

    The rate shown is that of the time in which records waited to be read; idle time is left out.
    """
    started = time.monotonic()
    worked_s, last, next_line = 0.0, started, started + _LINE_S
    busy, last_line = True, ""

    def measured(done: int, total: int) -> tuple[float | None, str]:
        nonlocal worked_s, last, busy
        now = time.monotonic()
        worked_s += now - last if busy else 0.0
        last, busy = now, total > done
        # The first records are those of campaigns. Their rate does not predict that of the others.
        rate = rate_of(done, worked_s) if done * 50 >= total else None
        return rate, time_left(rate, total - done)

    if not sys.stderr.isatty():

        def line(phase: str, done: int, total: int) -> None:
            nonlocal next_line, last_line
            rate, remaining = measured(done, total)
            parts = [_read(done, total), f"{rate:,.0f} records/s" if rate else "", remaining]
            said = f"{phase}: {', '.join(filter(None, parts))}"
            if time.monotonic() >= next_line and said != last_line:
                click.echo(said, err=True)
                next_line, last_line = time.monotonic() + _LINE_S, said

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[read]}"),
        TextColumn("{task.fields[rate]}"),
    )
    with Progress(*columns, console=Console(file=behind(sys.stderr)), transient=True) as shown:
        task = shown.add_task("starting", total=0, rate="", read="")

        def bar(phase: str, done: int, total: int) -> None:
            rate, remaining = measured(done, total)
            said = ", ".join(filter(None, (f"{rate:,.0f}/s" if rate else "", remaining)))
            shown.update(task, description=phase, completed=done, total=total, rate=said, read=_read(done, total))

        yield bar
