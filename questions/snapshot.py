"""Snapshots: for a report, a review or a page, several questions are answered from one committed state.

Invariants: every answer is read from the state that the first question saw, whatever is committed later. Consecutive
questions with the same cut share the tables of the past, so these are built only once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any

import polars as pl

from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.progress import Progress
from coupon_ledger.projections.connection import Cursor
from coupon_ledger.projections.past import Cut, Past
from coupon_ledger.questions import looking_back
from coupon_ledger.questions.access.access import Access
from coupon_ledger.questions.access.compiled import Layer, apply, check, discreet, layer_of
from coupon_ledger.questions.asking import Answer, Question, Source, as_of
from coupon_ledger.questions.parameters import P, Parameters
from coupon_ledger.questions.registry import QUESTIONS, cut_of_question, discreetly, frames_of

_OURS = """
SELECT 'TABLE' AS kind, table_name AS name FROM duckdb_tables() WHERE temporary
UNION ALL SELECT 'VIEW', view_name FROM duckdb_views() WHERE temporary AND NOT internal
"""


class Snapshot:
    """A source that answers from one committed state, for use by one thread at a time. An answer is valid until the
    next question."""

    def __init__(self, cursor: Cursor, progress: Progress, access: Access = Access.FULL) -> None:
        """`cursor`: must not be in a transaction, and may not be used by others until `close`. `progress`: called while
        the past is folded. `access`: what the caller of `ask` may ask and see."""
        self._cursor = cursor
        self._progress = progress
        self._past: Past | None = None
        self.access = access
        self._layer: Layer | None = None
        cursor.begin()
        self._kept = self._temporary()

    def ask(self, question: str, **parameters: Any) -> Answer:
        """Answer the question with this name. Raises what the question raises, and `StoreError` if an earlier question
        was interrupted."""
        entry = QUESTIONS[question]
        check(entry, question, self.access)
        return self.answer_to(question, entry, entry.read(question, parameters), self.access)

    def answer_to(self, name: str, question: Question[P], parameters: P, access: Access = Access.FULL) -> Answer:
        """Like `ask`, for a question with its name, an instance of its parameter model, and the rights of the
        caller."""
        check(question, name, access)
        with discreet(access, name):
            answered = self._answered(question, parameters, access)
        return replace(answered, frames=discreetly(answered.frames, access, name))

    def _answered(self, question: Question[P], parameters: P, access: Access) -> Answer:
        self._clear()
        self._look_through(layer_of(question, access))
        cut = cut_of_question(question, self._cursor, parameters)
        if not cut:
            self._leave_past()
            return Answer(as_of(self._cursor), frames_of(question, self._cursor, parameters, self._progress))
        frames = self._of_past(question, parameters, cut)  # read `as_of` afterwards: the past changes the data's clock
        return Answer(as_of(self._cursor), iter(frames))

    def _look_through(self, layer: Layer | None) -> None:
        """Make the cursor look through these views. A past that was made from others is left."""
        if layer != self._layer:
            self._leave_past()
            apply(self._cursor, layer)
            self._layer = layer

    def _of_past(self, question: Question[P], parameters: P, cut: Cut) -> list[pl.DataFrame]:
        assert question.stand_in is not None
        past = self._past if self._past is not None and self._past.cut == cut else self._put_in_place(cut)
        before = past.made
        try:
            question.stand_in(past, parameters)  # tables that only this question reads
            frames = list(frames_of(question, self._cursor, parameters, self._progress))
        except BaseException:
            with suppress(LedgerError):  # the transaction may be over; raise the first error
                past.undo(before)
            raise
        past.undo(before)
        return frames

    def _put_in_place(self, cut: Cut) -> Past:
        """Build all past tables with this cut, and make them stand in for the live ones. If this fails, all of them are
        dropped."""
        self._leave_past()
        past = Past(self._cursor, cut, self._progress)
        try:
            looking_back.everything(past, Parameters())
        except BaseException:
            past.close()
            raise
        self._past, self._kept = past, self._temporary()
        return past

    def _leave_past(self) -> None:
        if self._past is not None:
            past, self._past = self._past, None
            try:
                past.leave()
            finally:
                past.close()
            self._kept = self._temporary()

    def _clear(self) -> None:
        """Drop the temporary tables and views that the previous question left behind."""
        for kind, name in self._temporary() - self._kept:
            self._cursor.execute(f'DROP {kind} IF EXISTS temp."{name}"')

    def _temporary(self) -> set[tuple[str, str]]:
        return set(self._cursor.rows(_OURS))

    def roomy(self) -> AbstractContextManager[None]:
        """Within the block, the memory limit is higher. Only one such block may be open at a time."""
        return self._cursor.roomy()

    @contextmanager
    def snapshot(self) -> Iterator[Source]:
        """This snapshot, since it already answers from only one state."""
        yield self

    def close(self) -> None:
        self._cursor.end()
        if self._past is not None:
            self._past.close()
