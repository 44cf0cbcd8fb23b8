"""A source that reads the database directly. Use it when no other process owns the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from coupon_ledger.ledger.progress import Progress, ignore
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.access.access import Access
from coupon_ledger.questions.asking import Answer, Source
from coupon_ledger.questions.registry import answer
from coupon_ledger.questions.snapshot import Snapshot


class Local:
    """An open database. Each question is answered from the latest committed state. An answer is valid until the next
    question."""

    def __init__(self, store: Store, progress: Progress = ignore, access: Access = Access.FULL) -> None:
        """`progress`: called while the past is folded. `access`: what the caller may ask and see."""
        self._store = store
        self._access = access
        self._cursor = store.cursor()
        self._progress = progress

    def ask(self, question: str, **parameters: Any) -> Answer:
        self._cursor.end()
        self._cursor.begin()
        return answer(self._cursor, question, parameters, self._progress, self._access)

    @contextmanager
    def snapshot(self) -> Iterator[Source]:
        """A source that answers all questions from one committed state, until the block ends."""
        cursor = self._store.cursor()
        try:
            snapshot = Snapshot(cursor, self._progress, self._access)
            try:
                yield snapshot
            finally:
                snapshot.close()
        finally:
            cursor.close()

    def close(self) -> None:
        self._cursor.end()
        self._cursor.close()
