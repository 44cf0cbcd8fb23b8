"""Several questions answered from one committed state: for a report of several parts, a review, a page.

Invariants: whatever is committed meanwhile, every answer is read from the state that the first question saw. The tables
of a past are built once for all questions with the same cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import polars as pl

from coupon_ledger.projections.connection import Cursor
from coupon_ledger.projections.past import Cut, Past, Progress
from coupon_ledger.questions import looking_back
from coupon_ledger.questions.asking import Answer, Question, Source, as_of, cut_of
from coupon_ledger.questions.registry import QUESTIONS, frames_of

_OURS = """
SELECT 'TABLE' AS kind, table_name AS name FROM duckdb_tables() WHERE temporary
UNION ALL SELECT 'VIEW', view_name FROM duckdb_views() WHERE temporary AND NOT internal
"""


class Snapshot:
    """One committed state, for use by one thread at a time. An answer is valid until the next question."""

    def __init__(self, cursor: Cursor, progress: Progress) -> None:
        """`cursor`: not in a transaction, and the snapshot's own until `close`; `progress`: of folding the past."""
        self._cursor = cursor
        self._progress = progress
        self._past: Past | None = None
        cursor.begin()
        self._kept = self._temporary()

    def ask(self, question: str, **parameters: Any) -> Answer:
        """Raises what the question raises, and `StoreError` if an earlier question was interrupted."""
        asked = QUESTIONS[question]
        given = asked.checked(parameters)
        self._clear()
        cut = cut_of(self._cursor, given) if asked.then is not None else Cut()
        if not cut:
            self._leave_past()
            return Answer(as_of(self._cursor), frames_of(asked, self._cursor, given, self._progress))
        return Answer(as_of(self._cursor), iter(self._of_past(asked, given, cut)))

    def _of_past(self, asked: Question, given: Mapping[str, Any], cut: Cut) -> list[pl.DataFrame]:
        assert asked.then is not None
        if self._past is None or self._past.cut != cut:
            self._leave_past()
            self._past = Past(self._cursor, cut, self._progress)
            looking_back.everything(self._past, {})
            self._kept = self._temporary()
        before = self._past.made
        try:
            asked.then(self._past, given)  # tables that only this question reads
            return list(frames_of(asked, self._cursor, given, self._progress))
        finally:
            self._past.undo(before)

    def _leave_past(self) -> None:
        if self._past is not None:
            past, self._past = self._past, None
            past.leave()
            self._kept = self._temporary()

    def _clear(self) -> None:
        """Drop the temporary tables and views that the previous question left in the transaction."""
        for kind, name in self._temporary() - self._kept:
            self._cursor.execute(f'DROP {kind} IF EXISTS temp."{name}"')

    def _temporary(self) -> set[tuple[str, str]]:
        return set(self._cursor.rows(_OURS))

    def roomy(self) -> AbstractContextManager[None]:
        """Allow more memory for the questions asked within. One user at a time."""
        return self._cursor.roomy()

    @contextmanager
    def snapshot(self) -> Iterator[Source]:
        """The snapshot itself, since it sees only one state."""
        yield self

    def close(self) -> None:
        self._cursor.end()
        if self._past is not None:
            self._past.close()
