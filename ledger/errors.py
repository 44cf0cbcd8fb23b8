"""What can go wrong, as one hierarchy.

    LedgerError                     anything a user can act on: one sentence with object, problem, remedy
    ├── SettingsError               a flag, variable or line of the settings file
    ├── UnusableFile                a file that a command was given cannot be read or written, or is of another kind
    ├── InvalidEvent                an event breaks the rules of its type (all problems named at once)
    ├── UndecodableRecord           bytes of the log that are no event
    ├── IncompatibleSchema          a change of a schema that old readers or old data could not live with
    ├── NotEnoughMemory             this process may not have what the command needs
    ├── OffendersFound              a verification found something that must not be
    ├── NotThere                    what a question asks for is not in the database
    │   └── UnknownCoupon           no event of that coupon was consumed
    ├── WrongQuestion               a question's parameters do not go together, or one is out of bounds
    ├── TooFew                      too few people or orders to compare
    ├── UnknownTable                no table of that name has a digest
    ├── UnknownSegment              no segment of that name was defined
    ├── UnknownTemplate             no layout of a review was kept under that name
    ├── NotAssigned                 nobody is assigned to an arm of the campaign
    ├── NothingChosen               no dead letter is there to be repaired
    ├── StillToCome                 a sweep was asked for an instant that the data's clock has not reached
    ├── PortTaken                   the port for questions cannot be used
    ├── OwnerRefused                the owner of the database met an error; its words, its exit code
    ├── NoSnapshot                  the owner holds no snapshot of that name, or no longer
    ├── TooManySnapshots            the owner holds as many snapshots as it may
    ├── LogError
    │   ├── LogUnavailable          the log cannot be reached or opened
    │   │   ├── LogNotAnswering     the log answered before and does not now; the same request can succeed later
    │   │   ├── LogMissing          the file of an embedded log does not exist
    │   │   └── RegistryUnavailable the schema registry does not say what an id stands for, or takes no schema
    │   ├── LogReplaced             the log is not the one that was read before
    │   ├── LogNotInitialised       the log is there, its topics are not
    │   ├── LogTruncated            the log no longer holds a position that is needed
    │   ├── AppendFailed            some records were not (known to be) appended
    │   ├── LogFull                 no room to append
    │   ├── LogNotEmpty             a log that was to be restored has records already
    │   ├── ArchiveUnusable         no archive there, another's, another process's, or it cannot be written
    │   └── ArchiveDamaged          an archive's file or manifest is not as it was written
    └── StoreError
        ├── StoreOwned              another process owns the database
        ├── OwnerGone               the owner ended before it had answered
        ├── RebuiltDiffers          the rebuilt database is not the live one
        ├── QueryStopped            a query took longer than it may beside the consumer
        ├── StoreNotInitialised     no database there
        ├── StoreVersionMismatch    written by another version of the projections
        ├── StoreFull               no room to commit
        ├── ValueOutOfRange         a sum or a conversion of values does not fit its column
        └── ConservationBroken      read records != applied + repeats + conflicts + dead letters

`exit_code` is what the command line ends with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_PASSWORD: Final = re.compile(r"(?<=://)([^/\s:@]*):[^/\s@]*(?=@)")


def masked(text: str) -> str:
    """The text without the passwords of the addresses in it."""
    return _PASSWORD.sub(r"\1:********", text)


class LedgerError(Exception):
    """One clear sentence: which object, what is wrong, what to do. It holds no password of an address."""

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        """`message`: text, or a note (`ledger.words`) that is put into the reader's language where it is printed."""
        super().__init__(masked(message) if isinstance(message, str) else message)


class SettingsError(LedgerError):
    exit_code = 2


class UnusableFile(LedgerError):
    exit_code = 2


class NotEnoughMemory(LedgerError):
    pass


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule: the field's path (`lines.0.sku`) and the rule in words."""

    field: str
    rule: str

    def __str__(self) -> str:
        return f"{self.field}: {self.rule}" if self.field else self.rule


class InvalidEvent(LedgerError):
    """Carries every problem of one event."""

    exit_code = 3

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(p) for p in self.problems))


class UndecodableRecord(LedgerError):
    """`reason`: the short code that dead letters carry."""

    exit_code = 3

    def __init__(self, message: str, reason: str = "undecodable") -> None:
        self.reason = reason
        super().__init__(message)


class IncompatibleSchema(LedgerError):
    exit_code = 3


class OffendersFound(LedgerError):
    exit_code = 6


class NotThere(LedgerError):
    pass


class UnknownCoupon(NotThere):
    pass


class WrongQuestion(LedgerError):
    exit_code = 2


class TooFew(LedgerError):
    pass


class UnknownTable(LedgerError):
    exit_code = 2


class UnknownSegment(LedgerError):
    pass


class UnknownTemplate(LedgerError):
    pass


class NotAssigned(LedgerError):
    pass


class NothingChosen(LedgerError):
    pass


class StillToCome(LedgerError):
    """What expires cannot be undone."""

    exit_code = 2


class PortTaken(LedgerError):
    exit_code = 2


class OwnerRefused(LedgerError):
    def __init__(self, message: object, exit_code: int) -> None:
        """`message`: as of `LedgerError`."""
        super().__init__(message)
        self.exit_code = exit_code


class NoSnapshot(LedgerError):
    pass


class TooManySnapshots(LedgerError):
    pass


class LogError(LedgerError):
    exit_code = 4


class LogUnavailable(LogError):
    pass


class LogNotAnswering(LogUnavailable):
    pass


class LogMissing(LogUnavailable):
    pass


class RegistryUnavailable(LogUnavailable):
    pass


class LogReplaced(LogError):
    """Another log stands at the address, or the log has lost records that were read. Waiting does not help."""


class LogNotInitialised(LogError):
    pass


class LogTruncated(LogError):
    pass


class AppendFailed(LogError):
    """`failures` maps the index of each record of the batch that was not acknowledged to the reason.

    A record not named in it is durably in the log. A failed one may or may not be: append it again
    with the same `event_id`, a repeat is harmless.
    """

    def __init__(self, message: str, failures: dict[int, str]) -> None:
        self.failures = failures
        super().__init__(message)


class LogFull(LogError):
    pass


class LogNotEmpty(LogError):
    pass


class ArchiveUnusable(LogError):
    pass


class ArchiveDamaged(LogError):
    pass


class StoreError(LedgerError):
    exit_code = 5


class StoreOwned(StoreError):
    """`pid`: the process that holds the database, where it is known."""

    pid: int | None = None


class OwnerGone(StoreError):
    pass


class RebuiltDiffers(StoreError):
    pass


class QueryStopped(StoreError):
    """A query took longer than it may, or whoever asked has gone."""


class StoreNotInitialised(StoreError):
    pass


class StoreVersionMismatch(StoreError):
    pass


class StoreFull(StoreError):
    pass


class ValueOutOfRange(StoreError):
    pass


class ConservationBroken(StoreError):
    pass


def alike(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Those of the known names that are like any of these."""
    from difflib import get_close_matches

    known = list(known)
    return list(dict.fromkeys(like for name in names for like in get_close_matches(name.lower(), known, n=2)))
