"""How commands ask a question, or several questions about one committed state, and print which state was read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.options import timeout_s
from coupon_ledger.cli.progress import Bar, progress
from coupon_ledger.cli.view import view
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import note
from coupon_ledger.reports.as_of import CUTS, cut_of
from coupon_ledger.reports.labels import say, text_of
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from coupon_ledger.questions.registry import Answer, AsOf, Source


@dataclass
class _SharedSnapshot:
    """The snapshot (`source`) that all questions within a block of `together` read. `bar`: the progress bar of the
    current question, if it has one."""

    source: Source | None = None
    bar: Bar | None = None

    def progress(self, done: int, total: int) -> None:
        if self.bar is not None:
            self.bar.update(done, total)


_together: ContextVar[_SharedSnapshot | None] = ContextVar("together", default=None)


@contextmanager
def together(settings: Settings) -> Iterator[Source]:
    """Within the block, all calls of `answered` read one committed state, even if a consumer commits meanwhile. Yields
    that state's snapshot."""
    from coupon_ledger.api.client import asking

    shared = _SharedSnapshot()
    with asking(settings.database, shared.progress, timeout_s()) as source, source.snapshot() as snapshot:
        shared.source = snapshot
        token = _together.set(shared)
        try:
            yield snapshot
        finally:
            _together.reset(token)


@contextmanager
def answered(settings: Settings, output: str, question: str, **parameters: Any) -> Iterator[Answer]:
    """Ask the question with `parameters`, and yield the answer. If `output` is table, print after the block which state
    was read."""
    from coupon_ledger.questions.registry import QUESTIONS

    since, until = parameters.get("since"), parameters.get("until")
    if since is not None and until is not None and until < since:
        raise click.UsageError("--until is before --since; a period ends after it begins")
    definition = QUESTIONS[question]
    back = definition.looks_back(definition.read(question, parameters))
    with ExitStack() as looking:
        bar = (
            looking.enter_context(progress("looking back", 0, "records" if question == "alert-backtest" else "keys"))
            if back
            else None
        )
        with _source(settings, bar) as source:
            answer = source.ask(question, **parameters)
            if bar:
                first = next(answer.frames)
                looking.close()
                answer = replace(answer, frames=chain([first], answer.frames))
            yield answer
    if output == "table":
        say_as_of(answer.as_of, parameters)


@contextmanager
def _source(settings: Settings, bar: Bar | None) -> Iterator[Source]:
    from coupon_ledger.api.client import asking

    shared = _together.get()
    if shared is not None and shared.source is not None:
        shared.bar = bar
        try:
            yield shared.source
        finally:
            shared.bar = None
        return
    with asking(settings.database, bar.update if bar else None, timeout_s()) as source:
        yield source


def say_as_of(state: AsOf, parameters: dict[str, Any]) -> None:
    """Print on standard error which state was read: the commit, the data's clock and, for a question about the past,
    its cut. `parameters`: those of the question."""
    click.echo(_as_of(state, parameters), err=True)


def _as_of(state: AsOf, parameters: dict[str, Any]) -> str:
    if state.committed_at is None:
        return say("nothing has been consumed yet")
    parts = [note("as of commit {n:count} at {at:instant}", n=state.commits, at=_to_the_second(state.committed_at))]
    if state.data_clock:
        parts.append(note("data's clock {at:instant}", at=_to_the_second(state.data_clock)))
    lines = [say("{parts} ({zone})", parts=parts, zone=view().zone)]
    lines += [text_of(cut_of(name, parameters[name])) for name in CUTS if parameters.get(name) is not None]
    if (positions := parameters.get("positions")) is not None:
        before = positions.split(",") if positions else note("its start")
        lines.append(say("only what the log held before {positions}", positions=before))
    return "\n".join(lines)


def _to_the_second(at: datetime) -> datetime:
    return at.replace(microsecond=0)


FIRST_ROWS: Final = "the first {n:count} rows; --limit shows more, --output ndjson all"


def rows_of(answer: Answer) -> Iterator[Row]:
    for frame in answer.frames:
        yield from frame.iter_rows(named=True)
