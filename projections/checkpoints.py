"""How far the log has been read, and the account of it; kept in the same transaction as the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from typing import Final

from ledger.errors import ConservationBroken
from ledger.log import TopicPartition
from projections.store import Reading, Store


@dataclass(slots=True)
class Account:
    """What became of the records read from one partition."""

    next_offset: int = 0
    read: int = 0
    applied: int = 0
    repeats: int = 0
    conflicts: int = 0
    dead_letters: int = 0

    def since(self, before: Account) -> Account:
        """What was added after `before`; the next offset is this one's."""
        added = [now - then for now, then in zip(astuple(self)[1:], astuple(before)[1:], strict=True)]
        return Account(self.next_offset, *added)

    def check(self, of: TopicPartition) -> None:
        """Raises `ConservationBroken` unless every record read is accounted for once."""
        parts = (self.applied, self.repeats, self.conflicts, self.dead_letters)
        if sum(parts) != self.read or min(parts) < 0:
            raise ConservationBroken(
                f"{of.topic} partition {of.partition}: {self.read} read, but {self.applied} applied"
                f" + {self.repeats} repeats + {self.conflicts} conflicts + {self.dead_letters} dead letters;"
                " nothing of this batch was committed, please report it with the log"
            )


@dataclass(frozen=True, slots=True)
class Outside:
    """A position from which the log cannot be read."""

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
    """Positions that the log does not hold, or not any more, by partition. One that it lacks holds nothing."""
    found = [Outside(p, a.next_offset, earliest.get(p, 0), ends.get(p, 0)) for p, a in sorted(accounts.items())]
    return [o for o in found if not o.earliest <= o.next_offset <= o.end]


_COLUMNS: Final = tuple(field.name for field in fields(Account))


def load(store: Reading) -> dict[TopicPartition, Account]:
    """The account of every partition that was ever read."""
    rows = store.frame(f"SELECT topic, log_partition, {', '.join(_COLUMNS)} FROM checkpoints").iter_rows()
    return {TopicPartition(topic, partition): Account(*rest) for topic, partition, *rest in rows}


def save(store: Store, accounts: dict[TopicPartition, Account]) -> None:
    """Write these accounts, inside the caller's transaction, after checking each."""
    for partition, account in accounts.items():
        account.check(partition)
    rows = [(*p, *astuple(a)) for p, a in accounts.items()]
    if rows:
        places = ", ".join([f"({', '.join('?' * len(rows[0]))})"] * len(rows))
        store.execute(f"INSERT OR REPLACE INTO checkpoints VALUES {places}", [value for row in rows for value in row])
