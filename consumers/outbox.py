"""What the ledger itself appends: first into a table, in the transaction of the batch that led to it, then from there
to the log. Appended at least once; deterministic ids make a repeat harmless."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import polars as pl

from ledger.codec import encode_row
from ledger.errors import AppendFailed, LogError
from ledger.log import EventLog, Record
from ledger.topics import DEAD_LETTERS
from projections.store import Store

_BATCH: Final = 1_000
_logger = logging.getLogger(__name__)


def put_dead_letters(store: Store, letters: pl.DataFrame) -> None:
    """Queue these dead letters for their topic, inside the caller's transaction."""
    if not letters.height:
        return
    rows = letters.rename({"log_partition": "partition", "log_offset": "offset"}).with_columns(
        pl.col("recorded_at").cast(pl.Int64)
    )
    put(store, [_dead_letter(row) for row in rows.iter_rows(named=True)])


def put(store: Store, records: Sequence[Record]) -> None:
    """Queue these records, inside the caller's transaction."""
    frame = pl.DataFrame(records, schema={"topic": pl.String, "key": pl.Binary, "value": pl.Binary}, orient="row")
    store.insert("outbox", frame)


def _dead_letter(row: dict[str, object]) -> Record:
    position = f"{row['topic']}-{row['partition']}-{row['offset']}"
    return Record(DEAD_LETTERS, position.encode(), encode_row("dead_letter", {**row, "event_id": position}))


def deliver(store: Store, log: EventLog) -> None:
    """Append what is queued. A log that takes nothing now is told in the log of the process; the queue stays."""
    while True:
        rows = store.frame(
            "SELECT rowid AS row_id, topic, key, value FROM outbox ORDER BY rowid LIMIT $n", {"n": _BATCH}
        )
        if not rows.height:
            return
        left: dict[int, str] = {}
        try:
            log.append([Record(t, k, v) for _, t, k, v in rows.iter_rows()])
        except AppendFailed as error:
            left = error.failures
            _logger.warning("outbox: %d records wait to be appended: %s", len(left), error)
        except LogError as error:
            _logger.warning("outbox: %d records wait to be appended: %s", rows.height, error)
            return
        appended = rows.select("row_id").with_row_index().filter(~pl.col("index").is_in(list(left)))
        with store.transaction():
            store.delete("outbox", appended["row_id"])
        if left:
            return
