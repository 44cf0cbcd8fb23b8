"""Discards dead letters: marks them as settled, without folding them. For each discard, an operation in the topic
`coupon.operations` records which dead letters were discarded, by whom and why. The table `discarded` is filled from
these operations, so a rebuilt database hides the same dead letters.

Nothing is deleted: a discarded dead letter stays in the log, in the table `dead_letters` and in the account of its
partition.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

import polars as pl

from coupon_ledger.consumers import outbox
from coupon_ledger.ledger import operations
from coupon_ledger.ledger.errors import LogUnavailable, NothingChosen
from coupon_ledger.ledger.log import EventLog, LogReader, Position
from coupon_ledger.ledger.operations import Operation
from coupon_ledger.projections.dead_letters import Chosen, chosen_letters
from coupon_ledger.projections.store import Store

PIECE: Final = 10_000
"""Maximum number of dead letters per operation, since their positions must fit into one message."""
DISCARDED: Final = "dead_letters_discarded"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Signed:
    """Who does an operation (`operator`), and why."""

    operator: str
    why: str

    def operation(self, action: str, subject: str | None, details: dict[str, Any]) -> Operation:
        return operations.operation(action, why=self.why, operator=self.operator, subject=subject, details=details)


def discard(store: Store, log: EventLog, chosen: Chosen, by: Signed, *, dry_run: bool = False) -> list[dict[str, Any]]:
    """Discard the open dead letters that match `chosen`. Returns one dictionary per `topic`, `partition` and `reason`,
    with the number of dead letters (`records`). `by`: who discards them, and why. `dry_run`: only count them.

    Raises `NothingChosen` if no open dead letter matches. Raises `LogUnavailable` if the log does not accept the
    operations now: the dead letters are then discarded, and the operations wait in the outbox.
    """
    counted: list[pl.DataFrame] = []
    chosen = chosen.model_copy(update={"settled": False})
    after = Position("", -1, -1)
    while letters := piece_of(store, chosen, after):
        positions, frame = letters
        after = positions[-1]
        counted.append(frame.select("topic", "partition", "reason"))
        if not dry_run:
            done = by.operation(DISCARDED, chosen.topic, {"positions": operations.spans(positions)})
            with store.transaction():
                _note(store, [done])
                outbox.put(store, [operations.record_of(done)])
    if not counted:
        raise NothingChosen("dead letters: none of these is open; see `coupon-ledger dead-letters list --all`")
    if not dry_run:
        deliver(store, log)
    by_reason = pl.concat(counted).group_by("topic", "partition", "reason").agg(pl.len().alias("records"))
    return by_reason.sort("topic", "partition", "reason").to_dicts()


def piece_of(store: Store, chosen: Chosen, after: Position) -> tuple[list[Position], pl.DataFrame] | None:
    """The first `PIECE` dead letters that match `chosen` and come after the position `after`. Returns their positions,
    and a frame with their columns as in dead_letters.sql. None if there are no more."""
    frame = pl.concat(list(chosen_letters(store, chosen, limit=PIECE, after=after)))
    if not frame.height:
        return None
    return [Position(*row) for row in frame.select("topic", "partition", "offset").iter_rows()], frame


def deliver(store: Store, log: EventLog) -> None:
    """Append the records in the outbox to the log. Raises `LogUnavailable` if the log does not accept all of them."""
    outbox.deliver(store, log)
    [(waiting,)] = store.rows("SELECT count(*) FROM outbox")
    if waiting:
        raise LogUnavailable(
            f"log {log.url}: did not take {waiting:,} records; the repair is done, they wait in the database and are"
            " delivered by the next consumer"
        )


def note_discards(store: Store, log: LogReader) -> None:
    """Read the operations in the log, and add to the table `discarded` every dead letter that they discard."""
    discards = [t.operation for t in operations.read(log) if t.operation.action == DISCARDED]
    if discards:
        with store.transaction():
            _note(store, discards)


def _note(store: Store, discards: Iterable[Operation]) -> None:
    rows = [
        (*position, done.event_id, done.occurred_at.astimezone(UTC).replace(tzinfo=None), done.operator, done.reason)
        for done in discards
        for position in _positions(done)
    ]
    schema: dict[str, Any] = {
        "topic": pl.String,
        "log_partition": pl.Int32,
        "log_offset": pl.Int64,
        "event_id": pl.String,
        "occurred_at": pl.Datetime("us"),
        "operator": pl.String,
        "reason": pl.String,
    }
    place = list(schema)[:3]
    frame = pl.DataFrame(rows, schema=schema, orient="row").unique(place, keep="first", maintain_order=True)
    known = store.frame(f"SELECT {', '.join(place)} FROM discarded")
    store.insert("discarded", frame.join(known, on=place, how="anti"))


def _positions(done: Operation) -> list[Position]:
    try:
        return operations.positions_in(done.details or {})
    except (ValueError, TypeError, KeyError, OverflowError):
        _logger.warning("operation %s: names no positions of dead letters; it hides none", done.event_id)
        return []
