"""Finds the events of a batch that cannot be folded, and turns them into dead letters, so that the consumer can
continue.

If folding a batch fails, the whole batch is rolled back. Its events are then folded on trial, in the order of the log,
in transactions that are rolled back too. An event is kept if it can be folded together with all events that were kept
before it. So which events become dead letters does not depend on how the log was split into batches. Errors of the
disk, the memory or the database are not caused by events, and are raised unchanged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import duckdb
import polars as pl

from coupon_ledger.consumers.intake import Intake, dead_letters_at
from coupon_ledger.ledger.errors import LedgerError, StoreError, ValueOutOfRange
from coupon_ledger.ledger.log import Chunk, Position
from coupon_ledger.projections.live import cross, journal
from coupon_ledger.projections.live.apply import Counts, Prepared, fold_in, prepare
from coupon_ledger.projections.store import Store

FOLD_FAILED: Final = "fold_failed"
Failure = Exception | pl.exceptions.PanicException
FAILURES: Final = (Exception, pl.exceptions.PanicException)
"""The classes of errors that a fold may raise. polars' panics are not subclasses of `Exception`."""

_DETAIL_CHARS: Final = 500
_ALL: Final = 50
"""If this many events fail and none has been kept, something else than the events is the cause."""
_OF_THE_DATABASE: Final = (
    duckdb.ConnectionException,
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.InterruptException,
    duckdb.IOException,
    duckdb.OutOfMemoryException,
    duckdb.PermissionException,
    duckdb.TransactionException,
)
_logger = logging.getLogger("coupon_ledger.failing")
_Place = tuple[str, int]
"""Where an event is in the batch: its topic, and its row number among the events of that topic."""


class _OnlyTried(Exception):
    """Raised inside the transaction of a successful trial, at its end, so that the transaction is rolled back."""


def of_the_events(error: BaseException) -> bool:
    """Whether this error may be caused by certain events, so that the rest of the batch can be folded without them."""
    if isinstance(error, ValueOutOfRange):
        return True
    return not isinstance(error, (LedgerError, MemoryError, OSError, *_OF_THE_DATABASE))


def fold_all(
    store: Store, events: Mapping[str, Prepared], begins: Callable[[str, int], None] = lambda _step, _done: None
) -> tuple[dict[str, Counts], datetime | None]:
    """Fold the events of a batch (by topic), inside the caller's transaction. Returns the counts by topic, and the
    highest min(`occurred_at`, `recorded_at`) of the events that were added to journals.

    `begins`: a function that is called at the start of each step, with the step's name and the number of events folded
    so far.
    """
    folded, done = {}, 0
    for topic, batch in events.items():
        begins(f"folding {topic.partition('.')[0]}s", done)
        folded[topic] = fold_in(store, batch)
        done += batch.events.height
    begins("applying rules", done)
    clock = cross.settle(store, [changes for _, changes in folded.values()])
    return {topic: counted for topic, (counted, _) in folded.items()}, clock


def set_aside(store: Store, chunks: Sequence[Chunk], taken: Intake, error: Failure) -> Intake:
    """Turn the events of a batch that cannot be folded into dead letters (reason `fold_failed`). Returns the intake
    without these events and with the new dead letters.

    `chunks`: the records of the batch; `taken`: the intake of these records; `error`: the error from folding the whole
    batch. Raises this error if all events can be folded on trial. If the first `_ALL` events all fail, raises the error
    of the last of them.
    """
    frames = {topic: _frame(topic, batch) for topic, batch in taken.events.items()}
    places = _in_order_of_the_log(frames)
    trial = _Trial(store, frames)
    trial.search(places)
    failed = trial.failed
    if not failed:
        raise error
    positions = {_position(frames, place): (FOLD_FAILED, words) for place, words in failed.items()}
    for position, (_, words) in positions.items():
        _logger.warning("%s partition %d offset %d cannot be folded and becomes a dead letter: %s", *position, words)
    letters = pl.concat([taken.dead_letters, dead_letters_at(chunks, positions)])
    return replace(taken, events=trial.prepared([p for p in places if p not in failed]), dead_letters=letters)


class _Trial:
    """The search for the events of a batch that cannot be folded. Sets `kept`, the events that can be folded together,
    and `failed`, all other events with the text of the error."""

    def __init__(self, store: Store, frames: Mapping[str, pl.DataFrame]) -> None:
        self._store = store
        self._frames = frames
        self.kept: list[_Place] = []
        self.failed: dict[_Place, str] = {}

    def search(self, places: Sequence[_Place]) -> None:
        """Fold the events at `places` on trial. If that fails, search each half of them."""
        if not places:
            return
        error = self._error(places)
        if error is None:
            self.kept += places
        elif len(places) == 1:
            self.failed[places[0]] = _words(error)
            if not self.kept and len(self.failed) >= _ALL:
                raise error
        else:
            half = len(places) // 2
            self.search(places[:half])
            self.search(places[half:])

    def _error(self, places: Sequence[_Place]) -> Failure | None:
        """Fold the events at `places` on trial, together with the events kept so far. Returns the error, or None if
        there is none."""
        try:
            with self._store.transaction():
                fold_all(self._store, self.prepared([*self.kept, *places]))
                self._store.rows("SELECT 1")  # wait for the inserts in the other thread
                raise _OnlyTried
        except _OnlyTried:
            return None
        except FAILURES as error:
            if not of_the_events(error):
                raise
            return error

    def prepared(self, places: Sequence[_Place]) -> dict[str, Prepared]:
        """The events at `places`, by topic, prepared for folding."""
        rows: dict[str, list[int]] = {}
        for topic, row in places:
            rows.setdefault(topic, []).append(row)
        return {topic: prepare(topic, self._frames[topic][chosen]) for topic, chosen in rows.items()}


def _frame(topic: str, batch: Prepared) -> pl.DataFrame:
    """The events of a prepared batch, as a frame that `prepare` accepts again."""
    return batch.events.select(name for name in journal.columns(topic) if name != "key_hash")


def _in_order_of_the_log(frames: Mapping[str, pl.DataFrame]) -> list[_Place]:
    places = [
        frame.select(pl.lit(topic).alias("topic"), pl.int_range(pl.len()).alias("row"), *journal.POSITION)
        for topic, frame in frames.items()
    ]
    ordered = pl.concat(places).sort("recorded_at", "topic", "log_partition", "log_offset")
    return [(topic, row) for topic, row in ordered.select("topic", "row").iter_rows()]


def _position(frames: Mapping[str, pl.DataFrame], place: _Place) -> Position:
    topic, row = place
    return Position(topic, *frames[topic].select("log_partition", "log_offset").row(row))


def _words(error: Failure) -> str:
    """The text of an error, for the detail of a dead letter. The text does not contain the path of the database, so it
    is the same in a rebuilt database."""
    cause = error.__cause__ if isinstance(error, StoreError) and error.__cause__ is not None else error
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0] if lines else 'no words'}"[:_DETAIL_CHARS]
