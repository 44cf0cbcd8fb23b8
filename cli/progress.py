"""A progress bar on standard error: rate, what is left, when it will be done. Silent where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Bar(Protocol):
    def advance(self, records: int) -> None: ...

    def total(self, records: int) -> None: ...


class _Silent:
    def advance(self, records: int) -> None:
        pass

    def total(self, records: int) -> None:
        pass


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Bar]:
    """A bar over `total` records (None: not known)."""
    if not sys.stderr.isatty():
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: object) -> Text:
            speed = getattr(task, "finished_speed", None) or getattr(task, "speed", None)
            return Text(f"{speed:,.0f} events/s" if speed else "… events/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}" if total is not None else "{task.completed:,.0f}"),
        Rate(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what, total=total)

        class _Shown:
            def advance(self, records: int) -> None:
                shown.advance(task, records)

            def total(self, records: int) -> None:
                shown.update(task, total=records)

        yield _Shown()
