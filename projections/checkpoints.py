"""The next offset and the account of each partition, written in the same transaction as the rows.

`Completeness` stores until which instant each partition has been read completely. While one topic has been read further
than another, violations between the two topics are provisional.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, fields
from datetime import datetime, timedelta
from typing import Final

from coupon_ledger.ledger.errors import ConservationBroken
from coupon_ledger.ledger.log import TopicPartition
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.live.journal import JOURNAL
from coupon_ledger.projections.store import Store


@dataclass(slots=True)
class Account:
    """The next offset of one partition, and the number of records read from it, in total and by outcome."""

    next_offset: int = 0
    read: int = 0
    applied: int = 0
    repeats: int = 0
    conflicts: int = 0
    dead_letters: int = 0

    def since(self, before: Account) -> Account:
        """The account of what was read after `before`: each count is the increase since then, and the next offset is
        that of this account."""
        added = [now - then for now, then in zip(astuple(self)[1:], astuple(before)[1:], strict=True)]
        return Account(self.next_offset, *added)

    def check(self, of: TopicPartition) -> None:
        """Raises `ConservationBroken` unless the outcomes sum to the number of records read. `of`: the account's
        partition, for the error text."""
        parts = (self.applied, self.repeats, self.conflicts, self.dead_letters)
        if sum(parts) != self.read or min(parts) < 0:
            raise ConservationBroken(
                f"{of.topic} partition {of.partition}: {self.read} read, but {self.applied} applied"
                f" + {self.repeats} repeats + {self.conflicts} conflicts + {self.dead_letters} dead letters;"
                " nothing of this batch was committed, please report it with the log"
            )


@dataclass(frozen=True, slots=True)
class Outside:
    """A next offset from which a partition cannot be read on. The log has only the offsets from `earliest` to `end`
    (exclusive) of this partition."""

    partition: TopicPartition
    next_offset: int
    earliest: int
    end: int

    def __str__(self) -> str:
        return (
            f"{self.partition.topic} partition {self.partition.partition}: the next offset is {self.next_offset}, but"
            f" the log holds {self.earliest} to {self.end}"
        )


def outside(
    accounts: Mapping[TopicPartition, Account],
    earliest: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> list[Outside]:
    """The partitions whose next offset is before the earliest offset of the log or after its end. `earliest`, `ends`:
    these two offsets by partition. A partition that is missing in them counts as empty."""
    positions = [Outside(p, a.next_offset, earliest.get(p, 0), ends.get(p, 0)) for p, a in sorted(accounts.items())]
    return [o for o in positions if not o.earliest <= o.next_offset <= o.end]


_EPOCH: Final = datetime(1970, 1, 1)
_MICROSECOND: Final = timedelta(microseconds=1)
_NOTHING: Final[Mapping[TopicPartition, datetime]] = {}
_JOURNALS: Final = """
SELECT '{topic}' AS topic, log_partition, max(recorded_at) AS recorded_at FROM {journal} GROUP BY log_partition
"""


@dataclass(slots=True)
class Completeness:
    """Per partition of the log, the instant (naive UTC) up to which it is complete: all its records that were recorded
    at or before this instant have been read.

    A partition that has been read to its high watermark is complete until the latest `recorded_at` read from any
    partition.
    """

    complete_until: dict[TopicPartition, datetime] = field(default_factory=dict)

    def advance(
        self,
        recorded: Mapping[TopicPartition, datetime],
        positions: Mapping[TopicPartition, int],
        marks: Mapping[TopicPartition, int],
        upcoming: Mapping[TopicPartition, datetime] = _NOTHING,
    ) -> None:
        """Update the instants after a batch was read. `recorded`: by partition, the latest `recorded_at` (naive UTC) in
        the batch. `positions`: by partition, the next offset after the batch. `marks`: by partition, the high
        watermark, looked up when no record of the batch's time could appear any more. `upcoming`: by partition, when
        its next record was recorded, if that is known: a topic with few events must not hold back what waits for it.
        """
        horizon = max((*self.complete_until.values(), *recorded.values()), default=_EPOCH)
        for partition, mark in marks.items():
            at_end = positions.get(partition, 0) >= mark
            # More records of the same instant may follow the last one.
            latest = max(recorded.get(partition, _EPOCH), upcoming.get(partition, _EPOCH))
            reached = horizon if at_end else latest - _MICROSECOND
            self.complete_until[partition] = max(self.complete_until.get(partition, _EPOCH), reached)

    def topics(self) -> dict[str, datetime]:
        """By topic, the instant up to which all its partitions are complete."""
        until: dict[str, datetime] = {}
        for partition, at in self.complete_until.items():
            until[partition.topic] = min(at, until.get(partition.topic, at))
        return until

    @classmethod
    def load(cls, store: Reading) -> Completeness:
        rows = store.rows("SELECT topic, log_partition, complete_until FROM partition_progress")
        return cls({TopicPartition(topic, partition): until for topic, partition, until in rows})

    def save(self, store: Store) -> None:
        """Store these instants, inside the caller's transaction."""
        rows = [(*partition, until) for partition, until in self.complete_until.items()]
        if rows:
            places = ", ".join(["(?, ?, ?)"] * len(rows))
            values = [value for row in rows for value in row]
            store.execute(f"INSERT OR REPLACE INTO partition_progress VALUES {places}", values)


def last_recorded(store: Reading) -> dict[TopicPartition, datetime]:
    """By partition, the latest `recorded_at` (naive UTC) among its events in the journals."""
    queries = [_JOURNALS.format(topic=topic, journal=name) for topic, name in JOURNAL.items()]
    rows = store.rows(" UNION ALL ".join(queries))
    return {TopicPartition(topic, partition): at for topic, partition, at in rows}


def naive_utc(micros: int) -> datetime:
    """The instant of these microseconds since the epoch, as a naive UTC datetime."""
    return _EPOCH + timedelta(microseconds=micros)


_COLUMNS: Final = tuple(field.name for field in fields(Account))


def load(store: Reading) -> dict[TopicPartition, Account]:
    """The accounts of all partitions that have been read."""
    rows = store.frame(f"SELECT topic, log_partition, {', '.join(_COLUMNS)} FROM checkpoints").iter_rows()
    return {TopicPartition(topic, partition): Account(*rest) for topic, partition, *rest in rows}


def save(store: Store, accounts: dict[TopicPartition, Account]) -> None:
    """Store these accounts, inside the caller's transaction. Raises `ConservationBroken` if one is inconsistent."""
    for partition, account in accounts.items():
        account.check(partition)
    rows = [(*p, *astuple(a)) for p, a in accounts.items()]
    if rows:
        places = ", ".join([f"({', '.join('?' * len(rows[0]))})"] * len(rows))
        store.execute(f"INSERT OR REPLACE INTO checkpoints VALUES {places}", [value for row in rows for value in row])
