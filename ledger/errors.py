"""What can go wrong, as one hierarchy.

    LedgerError                     anything a user can act on: one sentence with object, problem, remedy
    ├── SettingsError               a flag, variable or line of the settings file
    ├── UnusableFile                a file given to a command cannot be read or written, or is of the wrong kind
    ├── InvalidEvent                an event breaks the rules of its type (all problems named at once)
    ├── UndecodableRecord           bytes of the log that are not an event
    ├── IncompatibleSchema          a schema change that breaks old readers or old data
    ├── NotEnoughMemory             the command needs more memory than this process may use
    ├── OffendersFound              a verification found that something does not hold
    ├── NotThere                    what a question is about is not in the database
    │   ├── UnknownCoupon           no event of that coupon was consumed
    │   └── UnknownAlert            there is no alert or silence of that id
    ├── Forbidden                   the access rights do not allow the question
    ├── WrongQuestion               a question's parameters contradict each other, or one is out of bounds
    ├── TooFew                      too few people or orders to compare
    ├── RuleFailed                  an alert rule could not be evaluated
    ├── RuleTestFailed              alert rules do not do on some events what their tests say
    ├── UnknownTable                no table of that name has a digest
    ├── UnknownRule                 no alert rule of that name applies
    ├── UnknownSegment              no segment of that name was defined
    ├── UnknownTemplate             no review layout is kept under that name
    ├── NotAssigned                 nobody is assigned to an arm of the campaign
    ├── NothingChosen               no dead letter matches what was chosen for repair
    ├── CommandRefused              what an operator wants does not fit the state of an alert or silence
    ├── StillToCome                 a sweep is to go up to an instant in the future
    ├── PortTaken                   the port for questions cannot be used
    ├── OwnerRefused                the owner of the database reported an error, with its message and exit code
    ├── NoSnapshot                  the owner does not, or no longer, hold a snapshot of that name
    ├── TooManySnapshots            the owner holds as many snapshots as it may
    ├── QueueUnusable               the queue of alert messages cannot be opened, read or written
    ├── SettingsStoreError          the store of people and tokens cannot be used, or refuses a change
    ├── UnknownAccount              no person or token of that name exists
    ├── ServiceRefused              the service answered a request with an error
    ├── ServiceUnavailable          the service does not answer, or cannot take a request at the moment
    ├── OpenIdFailed                a sign-in with OpenID Connect did not succeed
    ├── WrongAccount                a name, role or password of a person or token breaks a rule
    ├── LogError
    │   ├── LogUnavailable          the log cannot be reached or opened
    │   │   ├── LogNotAnswering     the log answered before and does not now; the same request can succeed later
    │   │   ├── LogMissing          the file of an embedded log does not exist
    │   │   ├── LogClosed           the log or publisher is used after it was closed
    │   │   └── RegistryUnavailable the schema registry does not resolve an id, or does not accept a schema
    │   ├── LogReplaced             the log is not the one that was read before
    │   ├── LogNotInitialised       the log exists, its topics do not
    │   ├── LogTruncated            the log no longer holds a position that is needed
    │   ├── AppendFailed            some records were not (known to be) appended
    │   ├── EventsRefused           the log will never take some events
    │   │   └── EventsTooLarge      because of their size
    │   ├── LogFull                 no room to append
    │   ├── LogNotEmpty             the log to restore into already has records
    │   ├── ArchiveUnusable         there is no archive, or it was made from another log, is in use or not writable
    │   └── ArchiveDamaged          an archive's file or manifest is not as it was written
    └── StoreError
        ├── StoreOwned              another process owns the database
        ├── OwnerGone               the owner ended before it answered
        ├── RebuiltDiffers          the rebuilt database differs from the live one
        ├── QueryStopped            a query took too long, its client has gone, or the answering process is ending
        ├── StoreNotInitialised     no database there
        ├── StoreVersionMismatch    written by another version of the projections
        ├── StoreFull               no room to commit
        ├── ValueOutOfRange         a sum or a conversion of values does not fit its column
        └── ConservationBroken      read records != applied + repeats + conflicts + dead letters

`exit_code` is the exit code of the command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_PASSWORD: Final = re.compile(r"(?<=://)([^/\s:@]*):[^/\s@]*(?=@)")


def masked(text: str) -> str:
    """`text` with asterisks instead of the passwords in addresses (`kafka://user:password@host`)."""
    return _PASSWORD.sub(r"\1:********", text)


class LedgerError(Exception):
    """Base class of all errors. The message is one clear sentence: which object, what is wrong, what to do. Passwords
    of addresses in the message are replaced by asterisks."""

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        """`message`: text, or a note (`ledger.words`), which is put into the reader's language when it is printed."""
        super().__init__(masked(message) if isinstance(message, str) else message)


class SettingsError(LedgerError):
    exit_code = 2


class UnusableFile(LedgerError):
    exit_code = 2


class NotEnoughMemory(LedgerError):
    pass


@dataclass(frozen=True, slots=True)
class Problem:
    """A rule that an event breaks. `field`: the path of the field (`lines.0.sku`); empty if the problem is not in one
    field. `rule`: the rule in words."""

    field: str
    rule: str

    def __str__(self) -> str:
        return f"{self.field}: {self.rule}" if self.field else self.rule


class InvalidEvent(LedgerError):
    """Raised if an event breaks rules. `problems`: all the rules that it breaks, not only the first."""

    exit_code = 3

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(p) for p in self.problems))


class UndecodableRecord(LedgerError):
    """Raised if bytes of the log are not an event. `reason`: the short code that the record's dead letter gets."""

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


class UnknownAlert(NotThere):
    pass


class Forbidden(LedgerError):
    """Raised if access rights do not allow a question. The message says nothing about what is in the database."""

    exit_code = 8


class WrongQuestion(LedgerError):
    exit_code = 2


class TooFew(LedgerError):
    pass


class RuleTestFailed(LedgerError):
    pass


class RuleFailed(LedgerError):
    pass


class UnknownTable(LedgerError):
    exit_code = 2


class UnknownSegment(LedgerError):
    pass


class UnknownRule(LedgerError):
    pass


class UnknownTemplate(LedgerError):
    pass


class NotAssigned(LedgerError):
    pass


class NothingChosen(LedgerError):
    pass


class CommandRefused(LedgerError):
    pass


class StillToCome(LedgerError):
    """Raised if a sweep is to go up to an instant in the future. An expiry cannot be undone."""

    exit_code = 2


class PortTaken(LedgerError):
    exit_code = 2


class OwnerRefused(LedgerError):
    def __init__(self, message: object, exit_code: int, status: int | None = None) -> None:
        """`message`: as for `LedgerError`. `status`: the HTTP status with which the owner answered, if known."""
        super().__init__(message)
        self.exit_code = exit_code
        self.status = status


class NoSnapshot(LedgerError):
    pass


class TooManySnapshots(LedgerError):
    pass


class QueueUnusable(LedgerError):
    pass


class SettingsStoreError(LedgerError):
    exit_code = 2


class UnknownAccount(LedgerError):
    pass


class ServiceRefused(LedgerError):
    """Raised if the service refused a request. `status`: the HTTP status. `problems`: the rules that an event
    breaks, if it is about one."""

    def __init__(self, message: str, status: int, problems: tuple[Problem, ...] = ()) -> None:
        self.status = status
        self.problems = problems
        super().__init__(message)


class ServiceUnavailable(LedgerError):
    exit_code = 4


class OpenIdFailed(LedgerError):
    """Raised if a sign-in with OpenID Connect did not succeed. The message is shown to the person who signs in."""


class WrongAccount(LedgerError):
    exit_code = 2


class LogError(LedgerError):
    exit_code = 4


class LogUnavailable(LogError):
    pass


class LogNotAnswering(LogUnavailable):
    pass


class LogMissing(LogUnavailable):
    pass


class LogClosed(LogUnavailable):
    pass


class RegistryUnavailable(LogUnavailable):
    pass


class LogReplaced(LogError):
    """Raised if the address now leads to another log than before, or if the log has lost records that were already
    read. Waiting does not help."""


class LogNotInitialised(LogError):
    pass


class LogTruncated(LogError):
    pass


class AppendFailed(LogError):
    """Raised if some records of a batch were not acknowledged. `failures`: the reason, by the record's index in the
    batch.

    Records that are not in `failures` are durably in the log. A record in `failures` may or may not be in the log:
    append it again with the same `event_id`, since a repeat is harmless.

    `too_large`: the failures of records that the log will never accept because of their size; each gives the size and
    the limit. `refused`: the failures of records that it will never accept because they break a rule of the log, such
    as a `source` that the publisher's token does not allow. Neither are in the log: do not append them again.
    """

    def __init__(
        self,
        message: str,
        failures: dict[int, str],
        too_large: Mapping[int, str] | None = None,
        refused: Mapping[int, tuple[Problem, ...]] | None = None,
    ) -> None:
        self.failures = failures
        self.too_large = dict(too_large or {})
        self.refused = dict(refused or {})
        super().__init__(message)

    @property
    def permanent(self) -> dict[int, tuple[Problem, ...]]:
        """The problems of each record that the log will never accept, by index."""
        return self.refused | {index: (Problem("", why),) for index, why in self.too_large.items()}


class EventsRefused(LogError):
    """Raised if the log will never take some events of a batch. `event_ids`: those events. They are not in the log; all
    other events of the batch are."""

    def __init__(self, message: str, event_ids: tuple[str, ...]) -> None:
        self.event_ids = event_ids
        super().__init__(message)


class EventsTooLarge(EventsRefused):
    """Raised if all these events are too large for the log."""


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
    """Raised if another process owns the database. `pid`: the id of that process, if known."""

    pid: int | None = None


class OwnerGone(StoreError):
    pass


class RebuiltDiffers(StoreError):
    pass


class QueryStopped(StoreError):
    """Raised if a query was stopped: it exceeded its time limit, the client that asked has gone, or the process that
    answers it is ending."""


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
    """Those of the `known` names that resemble any of `names`."""
    from difflib import get_close_matches

    known = list(known)
    return list(dict.fromkeys(like for name in names for like in get_close_matches(name.lower(), known, n=2)))
