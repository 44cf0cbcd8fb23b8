"""A progress bar on standard error: rate, what is left, and the time left."""

from __future__ import annotations

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


class Bar(Protocol):
    def advance(self, records: int) -> None:
        """Add records to those done."""
        ...

    def update(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done. It has the signature of `ledger.progress.Progress`."""
        ...


class _Silent:
    def advance(self, records: int) -> None:
        pass

    def update(self, done: int, total: int) -> None:
        pass


@contextmanager
def progress(what: str, total: int | None, unit: str = "events") -> Iterator[Bar]:
    """Show a bar on a terminal, and nothing elsewhere. `total`: the number of records; None if it is unknown, 0 if
    `update` will give it. With 0 and the unit `events`, the number left is shown as lag. `unit`: what is counted."""
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
    """Records per second. None in the first `_EARLY_S` seconds, and if it is less than one."""
    return records / seconds if seconds >= _EARLY_S and records >= seconds else None


def time_left(rate: float | None, left: float | None) -> str:
    """The time left at that rate, as text; empty if unknown."""
    return f"{timedelta(seconds=round(left / rate))} left" if rate and left else ""


def _read(done: int, total: int) -> str:
    return f"{done:,} of {total:,} records" if total else "nothing to read yet"


@contextmanager
def consuming() -> Iterator[PhaseProgress]:
    """Show the progress of a consumer: a bar on a terminal, otherwise a line on standard error every ten seconds.

    The rate covers only the time in which records were waiting.
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
