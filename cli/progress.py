"""A progress bar on standard error: rate, what is left, when it will be done. Silent where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from cli.terminal import behind


class Bar(Protocol):
    def advance(self, records: int, left: int | None = None) -> None:
        """`left`: how many are still to come, where that is only known now."""
        ...


class _Silent:
    def advance(self, records: int, left: int | None = None) -> None:
        pass


@contextmanager
def progress(what: str, total: int | None, unit: str = "events") -> Iterator[Bar]:
    """A bar over `total` records (None: not known; 0: told as it becomes known, and events that are left shown as
    lag)."""
    if not sys.stderr.isatty():
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f} {unit}/s" if speed else f"… {unit}/s")

    class Lag(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"lag {task.remaining:,.0f}" if task.remaining is not None else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}" if total is not None else "{task.completed:,.0f}"),
        Rate(),
        *((Lag(),) if total == 0 and unit == "events" else ()),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=behind(sys.stderr)), transient=True) as shown:
        task = shown.add_task(what, total=total)

        class _Shown:
            def advance(self, records: int, left: int | None = None) -> None:
                shown.advance(task, records)
                if left is not None:
                    shown.update(task, total=shown.tasks[task].completed + left)

        yield _Shown()


def advancing(bar: Bar) -> Callable[[int, int], None]:
    """The same bar, told how many of how many are done."""
    before = 0

    def told(done: int, total: int) -> None:
        nonlocal before
        bar.advance(done - before, total - done)
        before = done

    return told
